//! The life of one child: watched by one task, and gone with its whole group when its handle is dropped.
//!
//! The leader is not reaped before that. As long as it is a zombie the kernel keeps its number, so that a signal to the group can never
//! reach a stranger who was given the same one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::sync::watch;

use super::output::Ceiling;
pub use super::output::Pipe;
use super::start::Place;

/// What a child reads. Dropping it is end of file.
pub type PipeWriter = tokio::net::unix::pipe::Sender;

/// A pipe's buffer. The usual 64 KiB costs a wake-up for each; 1 MiB is the most an ordinary user may ask for.
pub const PIPE_BYTES: usize = 1 << 20;
/// The stack of a thread that makes one system call and waits.
pub(super) const SMALL_STACK: usize = 256 * 1024;

/// A program that was started.
#[derive(Debug)]
pub struct Running {
    /// The child and its group.
    pub child: Child,
    /// Its standard output.
    pub stdout: Pipe,
    /// Its standard error.
    pub stderr: Pipe,
    /// Its standard input, when one was asked for.
    pub stdin: Option<PipeWriter>,
}

/// How a child ended. Exactly one of `code` and `signal` is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit status.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// From start to end.
    pub duration_ms: u64,
    /// It was killed because the grant's `max_secs` were over.
    pub over_limit: bool,
    /// It sent more than the grant's `output_mib`, in MiB; what goes beyond is lost.
    pub over_output: Option<u64>,
}

/// What a pack may send to a child's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A child that leads its own process group. Dropping it kills the group, also after the leader's own end.
#[derive(Debug)]
pub struct Child {
    group: Arc<Group>,
    exit: watch::Receiver<Option<Exit>>,
    watcher: tokio::task::JoinHandle<()>,
    ceiling: Option<Arc<Ceiling>>,
}

impl Child {
    /// Watches over a group that was just started.
    pub(super) fn new(group: Group, max_secs: Option<u64>, ceiling: Option<Arc<Ceiling>>) -> Self {
        let (group, began) = (Arc::new(group), Instant::now());
        let (tell, exit) = watch::channel(None);
        let limit = max_secs.map(Duration::from_secs);
        let watcher = tokio::spawn(watch_over(Arc::downgrade(&group), group.pid, began, limit, tell));
        if let Some(ceiling) = &ceiling {
            ceiling.watches(Arc::downgrade(&group));
        }
        Self { group, exit, watcher, ceiling }
    }

    /// The leader's number, which is its group's as well.
    pub fn pid(&self) -> u32 {
        self.group.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for the leader's end. May be called any number of times, and given up at any moment.
    pub async fn wait(&self) -> Exit {
        let lost = Exit { code: None, signal: Some(libc::SIGKILL), duration_ms: 0, over_limit: false, over_output: None };
        let mut exit = self.exit.clone();
        // The watcher ends without an answer only when the runtime does, and then the group is killed.
        let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(lost);
        Exit { over_output: self.ceiling.as_ref().and_then(|ceiling| ceiling.passed()), ..exit }
    }

    /// Sends a signal to the whole group; nothing happens when it is gone.
    pub fn kill(&self, signal: Signal) {
        self.group.signal(match signal {
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        });
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.watcher.abort();
        self.group.end();
    }
}

/// Reads a stream nobody wants, so that the child does not stall.
pub async fn drain(mut pipe: Pipe) {
    let mut scratch = vec![0; 64 * 1024];
    while matches!(pipe.read(&mut scratch).await, Ok(1..)) {}
}

/// The process group and the right to signal it: held until the leader is reaped.
#[derive(Debug)]
pub(super) struct Group {
    pid: Pid,
    leader: Mutex<Option<std::process::Child>>,
    _place: Place,
}

impl Group {
    pub(super) fn new(leader: std::process::Child, place: Place) -> io::Result<Self> {
        let pid = i32::try_from(leader.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, leader: Mutex::new(Some(leader)), _place: place })
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let leader = lock(&self.leader);
        if leader.is_some() {
            send(self.pid, signal);
        }
    }

    /// Kills what is left of the group and reaps the leader. Only the first call does anything.
    fn end(&self) {
        let mut slot = lock(&self.leader);
        let Some(mut leader) = slot.take() else {
            return;
        };
        send(self.pid, rustix::process::Signal::KILL);
        drop(slot);
        if matches!(leader.try_wait(), Ok(None)) {
            // Own thread: death by SIGKILL takes a moment, and for ever while the child sleeps in the kernel.
            let reaper = std::thread::Builder::new().name("reaper".into()).stack_size(SMALL_STACK);
            if let Err(source) = reaper.spawn(move || leader.wait()) {
                tracing::warn!(pid = self.pid.as_raw_nonzero().get(), %source, "a killed child stays unreaped: no thread to wait for it");
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

fn send(group: Pid, signal: rustix::process::Signal) {
    match rustix::process::kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        // A program that changed its user (sudo) is out of an ordinary agent's reach.
        Err(source) => {
            tracing::warn!(group = group.as_raw_nonzero().get(), %source, "a process group could not be signalled")
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One task per child: its end or its time limit, whichever comes first. The limit holds for what the leader leaves behind, too.
async fn watch_over(group: Weak<Group>, pid: Pid, began: Instant, limit: Option<Duration>, tell: watch::Sender<Option<Exit>>) {
    let time_is_up = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit.saturating_sub(began.elapsed())).await,
            None => std::future::pending().await,
        }
        if let Some(group) = group.upgrade() {
            group.signal(rustix::process::Signal::KILL);
        }
    };
    let ended = ended(pid);
    tokio::pin!(ended, time_is_up);
    tokio::select! {
        biased;
        () = &mut ended => {
            report(pid, began, false, &tell);
            time_is_up.await;
        }
        () = &mut time_is_up => {
            ended.await;
            report(pid, began, true, &tell);
        }
    }
}

/// Until the leader is a zombie. A kernel older than 5.3 knows no process handles: there a thread waits.
async fn ended(pid: Pid) {
    if let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
        && let Ok(handle) = registered(handle)
        && handle.readable().await.is_ok()
    {
        return;
    }
    ended_by_thread(pid).await;
}

#[expect(unsafe_code, reason = "the safe constructor is gone: it took any type's word for its descriptor")]
pub(super) fn registered(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns its descriptor, always names the same one, and keeps it open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?)
}

pub(super) async fn ended_by_thread(pid: Pid) {
    let wait = move || {
        while peek(pid, WaitIdOptions::empty()).is_err_and(|source| source == rustix::io::Errno::INTR) {}
    };
    if let Err(source) = tokio::task::spawn_blocking(wait).await {
        tracing::debug!(%source, "waiting for a child was cut short");
    }
}

/// Looks at the leader's end and leaves the zombie in place.
fn peek(pid: Pid, options: WaitIdOptions) -> rustix::io::Result<Option<rustix::process::WaitIdStatus>> {
    rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | options)
}

fn report(pid: Pid, began: Instant, over_limit: bool, tell: &watch::Sender<Option<Exit>>) {
    let status = peek(pid, WaitIdOptions::NOHANG).ok().flatten();
    let code = status.as_ref().and_then(rustix::process::WaitIdStatus::exit_status);
    let signal = status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal);
    let signal = if code.is_none() { signal.or(Some(libc::SIGKILL)) } else { None };
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Ended by itself in the last moment: then the limit had no part in it.
    let over_limit = over_limit && signal == Some(libc::SIGKILL);
    tell.send_replace(Some(Exit { code, signal, duration_ms, over_limit, over_output: None }));
}
