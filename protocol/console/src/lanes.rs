//! Where a call's bytes go as they come: to stdout and stderr on a thread of their own (a pipe that is full must not
//! keep this process from answering the relay), to a file, or kept for JSON.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::{EventMessage, Lane};
use outhaul_protocol::text::escape_control;
use tokio::sync::{mpsc, oneshot};

/// Bytes of one lane that JSON holds.
const KEPT: usize = 8 << 20;
/// Pieces of output that may wait for a slow reader; the call's window bounds the rest.
const WAITING: usize = 16;

/// Writes to stdout and stderr, in order.
#[derive(Debug)]
struct Printer {
    pieces: mpsc::Sender<(Lane, Bytes)>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Printer {
    fn start() -> Printer {
        let (pieces, mut queue) = mpsc::channel::<(Lane, Bytes)>(WAITING);
        let (tell, done) = oneshot::channel();
        std::thread::spawn(move || {
            let mut write = || -> io::Result<()> {
                let mut stdout = unbuffered_stdout()?;
                while let Some((lane, bytes)) = queue.blocking_recv() {
                    match lane {
                        // Locked piece by piece: talk goes to the same stderr.
                        Lane::Stderr => io::stderr().lock().write_all(&bytes)?,
                        _ => stdout.write_all(&bytes)?,
                    }
                }
                Ok(())
            };
            // Whoever asked may have stopped waiting.
            let _ = tell.send(write());
        });
        Printer { pieces, done }
    }

    async fn print(&mut self, lane: Lane, bytes: Bytes) -> Result<(), Failure> {
        match self.pieces.send((lane, bytes)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Failure::new(Code::Cancelled, "write output: its reader is gone")),
        }
    }

    async fn end(self) -> Result<(), Failure> {
        drop(self.pieces);
        match self.done.await {
            Ok(Err(error)) => Err(Failure::new(Code::Cancelled, format!("write output: {error}"))),
            _ => Ok(()),
        }
    }
}

/// stdout as it is: the standard library's own looks for line ends in every piece and writes what follows the last one
/// apart.
#[cfg(unix)]
fn unbuffered_stdout() -> io::Result<File> {
    use std::os::fd::AsFd as _;
    io::stdout().lock().flush()?;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

#[cfg(not(unix))]
fn unbuffered_stdout() -> io::Result<io::LineWriter<io::Stdout>> {
    Ok(io::LineWriter::new(io::stdout()))
}

/// A file that takes its name when it is whole.
#[derive(Debug)]
struct Whole {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Whole {
    fn create(path: &Path) -> Result<Whole, Failure> {
        let bad = |error: io::Error| Failure::new(Code::BadUsage, format!("write `{}`: {error}", path.display()));
        let name = path.file_name().ok_or_else(|| bad(io::Error::new(io::ErrorKind::InvalidInput, "it names no file")))?;
        let temporary = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = File::options().write(true).create_new(true).open(&temporary).map_err(bad)?;
        Ok(Whole { file, temporary, path: path.to_owned() })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(Code::Internal, format!("write `{}`: {error}", self.path.display()))
    }

    fn finish(&self) -> Result<(), Failure> {
        self.file.sync_all().and_then(|()| std::fs::rename(&self.temporary, &self.path)).map_err(|error| self.failed(&error))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // After a success the name is gone already.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Where the result's bytes go.
#[derive(Debug)]
enum ResultLane {
    File(Whole),
    Stdout,
    Kept(Vec<u8>),
}

/// Where everything goes.
#[derive(Debug)]
pub struct Lanes {
    printer: Option<Printer>,
    live: bool,
    event: fn(&EventMessage) -> String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    result: ResultLane,
    result_bytes: u64,
}

impl Lanes {
    /// `live` prints output as it comes, else it is kept; `out` is where the result's bytes go.
    pub fn new(live: bool, out: Option<&Path>) -> Result<Lanes, Failure> {
        let result = match out {
            None => ResultLane::Kept(Vec::new()),
            Some(path) if path == Path::new("-") => ResultLane::Stdout,
            Some(path) => ResultLane::File(Whole::create(path)?),
        };
        Ok(Lanes { printer: None, live, event: event_text, stdout: Vec::new(), stderr: Vec::new(), result, result_bytes: 0 })
    }

    /// The same, with words of the command's own for its events: whole lines.
    #[must_use]
    pub fn telling(self, event: fn(&EventMessage) -> String) -> Lanes {
        Lanes { event, ..self }
    }

    /// Takes output. An error means that the call cannot go on here.
    pub async fn take(&mut self, lane: Lane, bytes: Bytes) -> Result<(), Failure> {
        match lane {
            Lane::Result => {
                self.result_bytes += bytes.len() as u64;
                match &mut self.result {
                    ResultLane::Stdout => self.print(lane, bytes).await,
                    ResultLane::Kept(kept) => keep(kept, &bytes, "result"),
                    ResultLane::File(whole) => whole.file.write_all(&bytes).map_err(|error| whole.failed(&error)),
                }
            }
            Lane::Stdout | Lane::Stderr if self.live => self.print(lane, bytes).await,
            Lane::Stdout => keep(&mut self.stdout, &bytes, "stdout"),
            Lane::Stderr => keep(&mut self.stderr, &bytes, "stderr"),
            Lane::Event => match EventMessage::decode(&bytes) {
                Ok(event) => self.print(Lane::Stderr, (self.event)(&event).into()).await,
                Err(error) => Err(Failure::new(Code::Truncated, format!("an event of the node is malformed: {error}"))),
            },
            Lane::Stdin => Ok(()),
        }
    }

    async fn print(&mut self, lane: Lane, bytes: Bytes) -> Result<(), Failure> {
        self.printer.get_or_insert_with(Printer::start).print(lane, bytes).await
    }

    /// Everything that was taken is written.
    pub async fn drain(&mut self) -> Result<(), Failure> {
        match self.printer.take() {
            Some(printer) => printer.end().await,
            None => Ok(()),
        }
    }

    /// The call is done and the result's bytes are whole: their file takes its name.
    pub fn keep_file(&self) -> Result<(), Failure> {
        match &self.result {
            ResultLane::File(whole) => whole.finish(),
            _ => Ok(()),
        }
    }

    /// Whether somebody named a place for the result's bytes.
    #[must_use]
    pub fn has_place(&self) -> bool {
        !matches!(self.result, ResultLane::Kept(_))
    }

    /// Bytes of the result lane.
    pub fn result_bytes(&self) -> u64 {
        self.result_bytes
    }

    /// The result's bytes, where they were kept.
    pub fn kept_result(&self) -> Option<&[u8]> {
        match &self.result {
            ResultLane::Kept(kept) => Some(kept),
            _ => None,
        }
    }

    /// stdout and stderr, where they were kept.
    pub fn kept(&self) -> (&[u8], &[u8]) {
        (&self.stdout, &self.stderr)
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8], lane: &str) -> Result<(), Failure> {
    if kept.len() + bytes.len() > KEPT {
        let failure = Failure::new(Code::TooLarge, format!("{lane} is over {} MiB, too large for JSON", KEPT >> 20));
        return Err(failure.hint(if lane == "result" { "name a file with --out" } else { "leave --json out" }));
    }
    kept.extend_from_slice(bytes);
    Ok(())
}

fn event_text(event: &EventMessage) -> String {
    format!("{}: {}\n", escape_control(&event.name), escape_control(&event.json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn a_file_appears_only_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("photo.jpg");
        let mut lanes = Lanes::new(true, Some(&path)).expect("a file");
        block_on(lanes.take(Lane::Result, Bytes::from_static(b"abc"))).expect("takes");
        assert!(!path.exists());
        lanes.keep_file().expect("renames");
        drop(lanes);
        assert_eq!(std::fs::read(&path).expect("reads"), b"abc");
        let lanes = Lanes::new(true, Some(&dir.path().join("other"))).expect("a file");
        drop(lanes);
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
        assert_eq!(Lanes::new(true, Some(&dir.path().join("none/x"))).expect_err("no folder").code, Code::BadUsage);
    }

    #[test]
    fn json_holds_eight_mebibytes_of_a_lane() {
        let mut lanes = Lanes::new(false, None).expect("lanes");
        let piece = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..8 {
            block_on(lanes.take(Lane::Stdout, piece.clone())).expect("fits");
        }
        let failure = block_on(lanes.take(Lane::Stdout, Bytes::from_static(b"x"))).expect_err("too much");
        assert_eq!((failure.code, lanes.kept().0.len()), (Code::TooLarge, 8 << 20));
    }

    #[test]
    fn an_event_is_one_escaped_line() {
        let event = EventMessage { name: "step".into(), json: "{\"at\":\"\u{1b}[2J\"}".into() };
        assert_eq!(event_text(&event), "step: {\"at\":\"\\u{1b}[2J\"}\n");
    }
}
