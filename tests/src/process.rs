//! Processes with their output read line by line, so that a test can wait for what it expects instead of for time.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest a test waits for one line or one exit: far beyond what anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder that cargo put the workspace's binaries in.
pub fn binaries() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a binary lies in a folder")?;
    // Test binaries lie one folder deeper, in `deps`.
    let folder = if folder.ends_with("deps") { folder.parent().context("deps lies in a folder")? } else { folder };
    Ok(folder.to_owned())
}

/// One of the workspace's binaries.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binaries()?.join(name);
    if !path.exists() {
        bail!("`{}` is missing: run `cargo build --workspace` first", path.display());
    }
    Ok(path)
}

/// A line and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// standard output
    Out(String),
    /// standard error
    Err(String),
}

impl Line {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Line::Out(text) | Line::Err(text) => text,
        }
    }
}

/// A process whose lines can be waited for. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<Line>,
    seen: Vec<Line>,
    name: String,
}

impl Process {
    /// Starts a command with its output piped.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let (sender, lines) = mpsc::channel();
        let out = child.stdout.take().context("stdout is piped")?;
        let err = child.stderr.take().context("stderr is piped")?;
        read_lines(out, sender.clone(), Line::Out);
        read_lines(err, sender, Line::Err);
        Ok(Process { child, lines, seen: Vec::new(), name })
    }

    /// The same with both outputs through one pipe, so that lines come in the order a person would see; all are
    /// [`Line::Out`].
    pub fn start_as_seen(mut command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        // It holds the pipe's other end, and the reader waits for the last of them.
        drop(command);
        let (sender, lines) = mpsc::channel();
        read_lines(reader, sender, Line::Out);
        Ok(Process { child, lines, seen: Vec::new(), name })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input; dropping it ends it.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Writes a line to its standard input and leaves it open.
    pub fn say(&mut self, text: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin was taken")?;
        writeln!(stdin, "{text}")?;
        Ok(stdin.flush()?)
    }

    /// The next line in which `wanted` stands, from either stream.
    pub fn wait_for(&mut self, wanted: &str) -> Result<Line> {
        self.wait_until(wanted, |line| line.text().contains(wanted))
    }

    /// The next line that fits.
    pub fn wait_until(&mut self, what: &str, fits: impl Fn(&Line) -> bool) -> Result<Line> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return Ok(line);
                    }
                }
                Err(_) => bail!("{} never said `{what}`; it said:\n{}", self.name, self.transcript()),
            }
        }
    }

    /// The next line, if one comes before the process ends.
    pub fn next_line(&mut self) -> Option<Line> {
        let line = self.lines.recv_timeout(PATIENCE).ok()?;
        self.seen.push(line.clone());
        Some(line)
    }

    /// Everything said so far.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.seen.iter().map(|line| format!("  {}\n", line.text())).collect()
    }

    /// Whether it is over.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        #[expect(unsafe_code, reason = "std has no call to send a signal")]
        // SAFETY: kill(2) touches no memory; the pid is of our own child, which is not reaped before `wait`.
        unsafe {
            libc::kill(self.child.id() as libc::pid_t, signal);
        }
    }

    /// Waits for its end and returns all that it said.
    pub fn finish(mut self) -> Result<(ExitStatus, Vec<Line>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("{} did not end; it said:\n{}", self.name, self.transcript()),
            }
        }
        let status = self.child.wait()?;
        Ok((status, std::mem::take(&mut self.seen)))
    }

    /// Asks it to stop (SIGTERM) and waits.
    pub fn stop(self) -> Result<(ExitStatus, Vec<Line>)> {
        self.signal(libc::SIGTERM);
        self.finish()
    }

    /// Ends it at once (SIGKILL) and waits.
    pub fn kill(self) -> Result<(ExitStatus, Vec<Line>)> {
        self.signal(libc::SIGKILL);
        self.finish()
    }

    /// Kibibytes of memory that are its own, shared pages by share (`Pss` of smaps_rollup).
    pub fn pss_kib(&self) -> Result<u64> {
        pss_kib(self.pid())
    }

    /// Kibibytes of its peak resident set (`VmHWM`).
    pub fn peak_kib(&self) -> Result<u64> {
        field_kib(Path::new(&format!("/proc/{}/status", self.pid())), "VmHWM:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Proportional set size of a process.
pub fn pss_kib(pid: u32) -> Result<u64> {
    field_kib(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss:")
}

fn field_kib(path: &Path, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find(|line| line.starts_with(field)).with_context(|| format!("{} has no {field}", path.display()))?;
    Ok(line.split_whitespace().nth(1).context("a figure")?.parse()?)
}

fn read_lines(stream: impl Read + Send + 'static, sender: mpsc::Sender<Line>, kind: fn(String) -> Line) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            if sender.send(kind(text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// A command that ran to its end.
#[derive(Debug, Clone)]
pub struct Ran {
    /// its exit status; 128 + n for a signal
    pub code: i32,
    /// standard output
    pub stdout: String,
    /// standard error
    pub stderr: String,
    /// standard output as it came
    pub bytes: Vec<u8>,
}

impl Ran {
    /// Of a finished command.
    #[must_use]
    pub fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ran {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }

    /// Its JSON output.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}\n{}", self.stdout, self.stderr))
    }

    /// Itself when it succeeded, else an error with all it said.
    pub fn ok(self) -> Result<Self> {
        if self.code == 0 { Ok(self) } else { bail!("exit status {}\n{}{}", self.code, self.stdout, self.stderr) }
    }

    /// Itself when it ended with this status.
    pub fn exits(self, code: i32) -> Result<Self> {
        if self.code == code { Ok(self) } else { bail!("exit status {}, not {code}\n{}{}", self.code, self.stdout, self.stderr) }
    }
}
