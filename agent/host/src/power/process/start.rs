//! Starting a child: its pipes, its place among the living, and the one thread that forks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::ProcessError;
use super::child::{Child, Group, PIPE_BYTES, PipeWriter, Running, SMALL_STACK, lock};
use super::output::{Ceiling, Pipe};
use super::program::{Prepared, entrance};

/// Live children of one pack: twice its calls, so that one pack cannot take the machine's process table.
const CHILDREN_PER_PACK: usize = 128;
/// Live children of all packs together.
const CHILDREN: usize = 512;

/// Starts what was prepared.
pub(super) async fn start(pack: &str, prepared: Prepared, stdin: bool) -> Result<Running, ProcessError> {
    let place = Place::take(pack, prepared.concurrent.as_ref())?;
    let max_secs = prepared.max_secs;
    let ceiling = prepared.output.map(Ceiling::new);
    let name = prepared.program.path.display().to_string();
    let wired = Wired::new(prepared, stdin).map_err(|source| ProcessError::Failed(format!("no pipes for `{name}`: {source}")))?;
    let Wired { command, cwd, stdout, stderr, stdin } = wired;
    let (reply, answer) = oneshot::channel();
    let job = Job { command, cwd, place, reply };
    let gone = || ProcessError::Failed("the thread that starts programs is gone".into());
    spawner()?.send(job).map_err(|_| gone())?;
    let group = answer.await.map_err(|_| gone())?.map_err(|source| spawn_error(&name, &source))?;
    let (stdout, stderr) = (Pipe::new(stdout, ceiling.clone()), Pipe::new(stderr, ceiling.clone()));
    let child = Child::new(group, max_secs, ceiling);
    Ok(Running { child, stdout, stderr, stdin })
}

fn spawn_error(name: &str, source: &io::Error) -> ProcessError {
    let text = format!("`{name}` could not be started: {source}");
    match source.raw_os_error() {
        // The file was there a moment ago: it is the script's interpreter that is missing.
        Some(libc::ENOENT) => ProcessError::NotFound(format!("{text} (if it is a script, its interpreter is missing)")),
        Some(libc::E2BIG | libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => ProcessError::Limit(text),
        _ => ProcessError::Failed(text),
    }
}

/// A command with our ends of its pipes.
struct Wired {
    command: Command,
    cwd: Option<OwnedFd>,
    stdout: Receiver,
    stderr: Receiver,
    stdin: Option<PipeWriter>,
}

impl Wired {
    fn new(prepared: Prepared, stdin: bool) -> io::Result<Self> {
        let mut command = Command::new(&prepared.program.path);
        command.arg0(&prepared.program.argv0).args(&prepared.arguments).env_clear().envs(prepared.env).process_group(0);
        command.current_dir(prepared.cwd.as_ref().map_or_else(|| "/".into(), entrance));
        let (stdout, theirs) = pipe()?;
        command.stdout(Stdio::from(theirs));
        let (stderr, theirs) = pipe()?;
        command.stderr(Stdio::from(theirs));
        let stdin = if stdin {
            let (theirs, ours) = pipe()?;
            command.stdin(Stdio::from(theirs));
            Some(PipeWriter::from_owned_fd(ours)?)
        } else {
            command.stdin(Stdio::null());
            None
        };
        before_it_runs(&mut command);
        Ok(Self { command, cwd: prepared.cwd, stdout: Receiver::from_owned_fd(stdout)?, stderr: Receiver::from_owned_fd(stderr)?, stdin })
    }
}

/// A wide pipe: its reading end, its writing end.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Beyond the user's share of pipe memory the kernel refuses; a narrow pipe is only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(read.as_fd(), PIPE_BYTES);
    Ok((read, write))
}

/// Signals that ask a program to end. An agent that was started behind a shell's `&` or `nohup` ignores some of them, and who ignores
/// one when a program begins has it ignored there.
const ENDINGS: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The child dies with the agent, and hears what asks it to end.
#[expect(unsafe_code, reason = "a step between fork and exec has no safe interface")]
fn before_it_runs(command: &mut Command) {
    let agent = rustix::process::getpid();
    let step = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        for signal in ENDINGS {
            // SAFETY: no handler is installed, only the default put back; the call is async-signal-safe.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        // The agent may have died before the first line.
        if rustix::process::getppid() == Some(agent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: runs in the child between fork and exec; makes system calls and no allocation, takes no lock.
    unsafe {
        command.pre_exec(step);
    }
}

struct Job {
    command: Command,
    cwd: Option<OwnedFd>,
    place: Place,
    reply: oneshot::Sender<io::Result<Group>>,
}

/// The thread that forks. The kernel ties "die with your parent" to the *thread* that forked, so it must be one that stays as long as the
/// agent does; a runtime's blocking threads come and go.
fn spawner() -> Result<&'static mpsc::SyncSender<Job>, ProcessError> {
    static SPAWNER: LazyLock<io::Result<mpsc::SyncSender<Job>>> = LazyLock::new(|| {
        let (jobs, queue) = mpsc::sync_channel::<Job>(CHILDREN);
        std::thread::Builder::new().name("spawner".into()).stack_size(SMALL_STACK).spawn(move || queue.into_iter().for_each(Job::run))?;
        Ok(jobs)
    });
    SPAWNER.as_ref().map_err(|source| ProcessError::Failed(format!("no thread to start programs from: {source}")))
}

impl Job {
    fn run(mut self) {
        if self.reply.is_closed() {
            return;
        }
        let started = self.command.spawn().and_then(|leader| Group::new(leader, self.place));
        drop(self.cwd);
        // Our copies of the child's ends: while they are open its output has no end.
        drop(self.command);
        // Nobody waits any more: the group comes back in the error, and dropping it kills it.
        drop(self.reply.send(started));
    }
}

/// One child's place among those that may live at once: of its pack, and of its entry where that is counted.
#[derive(Debug)]
pub(super) struct Place {
    pack: String,
    entry: Option<String>,
}

/// Places taken, by pack, and by entry of a pack.
#[derive(Debug, Default)]
struct Places {
    packs: BTreeMap<String, usize>,
    entries: BTreeMap<(String, String), usize>,
}

static PLACES: Mutex<Places> = Mutex::new(Places { packs: BTreeMap::new(), entries: BTreeMap::new() });

impl Place {
    fn take(pack: &str, counted: Option<&(String, usize)>) -> Result<Self, ProcessError> {
        let mut places = lock(&PLACES);
        let (own, all) = (places.packs.get(pack).copied().unwrap_or(0), places.packs.values().sum::<usize>());
        if own >= CHILDREN_PER_PACK || all >= CHILDREN {
            return Err(ProcessError::Limit(format!(
                "{own} programs of pack `{pack}` and {all} in all are running; at most {CHILDREN_PER_PACK} and {CHILDREN} may"
            )));
        }
        if let Some((entry, most)) = counted {
            let running = places.entries.entry((pack.to_owned(), entry.clone())).or_default();
            if *running >= *most {
                return Err(ProcessError::Limit(format!(
                    "{running} of `{entry}` are running for pack `{pack}`, which is as many as this machine's policy lets run at once"
                )));
            }
            *running += 1;
        }
        *places.packs.entry(pack.to_owned()).or_default() += 1;
        Ok(Self { pack: pack.to_owned(), entry: counted.map(|(entry, _)| entry.clone()) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&PLACES);
        less(&mut places.packs, &self.pack);
        if let Some(entry) = self.entry.take() {
            less(&mut places.entries, &(self.pack.clone(), entry));
        }
    }
}

/// One fewer; nothing is kept of what nobody has.
fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
