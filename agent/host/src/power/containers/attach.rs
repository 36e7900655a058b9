//! What a container says: its log, and programs run beside its own. Their bytes wait in two short queues; once both have no reader and
//! nobody waits for the end, the connection to the runtime is closed.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};

use super::dial::{Failed, Link, Runtime, overrun, timed};
use super::share::{Place, Share};
use super::{Containers, ContainersError, Grant, create, unknown};
use crate::limits::{CONTAINER_SPEC, RUNTIME_TIME};
use crate::power::shown;

/// Pieces that wait for a reader, on each side.
const QUEUE: usize = 4;
/// How often the status of a program is asked for after its output ended: runtimes tell both at once, but not always in that order.
const ASKS: u32 = 20;
/// Between two of them.
const ASK: Duration = Duration::from_millis(50);

/// What a program reads.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// How something ended, for as many as want to know.
type Ended = watch::Receiver<Option<Result<Option<i32>, ContainersError>>>;

/// A program to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside the container's.
    pub env: Vec<(String, String)>,
    /// Who runs it, of the container's users.
    pub user: Option<String>,
    /// Where it starts, in the container.
    pub workdir: Option<String>,
}

/// What was opened.
pub struct Streams {
    /// Its end.
    pub attached: Attached,
    /// Its output.
    pub stdout: mpsc::Receiver<Bytes>,
    /// Its errors.
    pub stderr: mpsc::Receiver<Bytes>,
    /// Its input, where one was asked for.
    pub stdin: Option<Input>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// The end of something, told once it is there.
#[derive(Debug, Clone)]
pub struct Attached(Ended);

impl Attached {
    /// Waits for it: the status of a program, nothing of a log. Asked again, it gives the same answer.
    pub async fn wait(&self) -> Result<Option<i32>, ContainersError> {
        let mut ended = self.0.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(told) => told.clone().unwrap_or(Ok(None)),
            Err(_) => Err(ContainersError::Failed("it was left before its end".into())),
        }
    }
}

impl Containers {
    /// The log of a container: so many lines from its end or all of it, and with `follow` what comes until the container ends.
    pub async fn logs(
        &self,
        share: &Share,
        grant: &Grant,
        word: &str,
        follow: bool,
        tail: Option<u32>,
    ) -> Result<Streams, ContainersError> {
        let place = share.attach(&self.attached)?;
        let (runtime, listed) = self.find(grant, word).await?;
        let link = runtime.lasting_link()?;
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptions { follow, stdout: true, stderr: true, tail, ..LogsOptions::default() };
        let stream = Box::pin(link.docker.logs(&listed.id, Some(options)));
        let (streams, pump) = Pump::new(link, stream, place, None);
        tokio::spawn(pump.run(async || Ok(None)));
        Ok(streams)
    }

    /// Runs a program in a container, as policy has it for the container itself.
    pub async fn exec(
        &self,
        share: &Share,
        pack: &str,
        grant: &Grant,
        word: &str,
        exec: Exec,
        stdin: bool,
    ) -> Result<Streams, ContainersError> {
        well_formed(&exec)?;
        let place = share.attach(&self.attached)?;
        let (runtime, listed) = self.find(grant, word).await?;
        let link = runtime.lasting_link()?;
        let wanted = ExecConfig {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            env: Some(exec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: Some(exec.argv),
            privileged: Some(false),
            user: exec.user,
            working_dir: exec.workdir,
            ..ExecConfig::default()
        };
        let program = wanted.cmd.iter().flatten().next().map(|program| shown(program));
        tracing::info!(pack, container = %listed.id[..12], program, "a program is run in a container");
        let made = timed(RUNTIME_TIME, link.docker.create_exec(&listed.id, wanted)).await.map_err(|failed| unknown(failed, word))?;
        if !made.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ContainersError::Failed("the container runtime gave a program no id".into()));
        }
        let options = StartExecOptions { detach: false, tty: false, output_capacity: None };
        let started = timed(RUNTIME_TIME, link.docker.start_exec(&made.id, Some(options))).await.map_err(Failed::plain)?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(ContainersError::Failed("the container runtime did not connect the program".into()));
        };
        let (input, held) = if stdin { (Some(input), None) } else { (None, Some(input)) };
        let (mut streams, pump) = Pump::new(link, output, place, held);
        streams.stdin = input;
        tokio::spawn(pump.run(async move || status(&runtime, &made.id).await));
        Ok(streams)
    }
}

fn well_formed(exec: &Exec) -> Result<(), ContainersError> {
    let failed = |why: &str| Err(ContainersError::Failed(why.to_owned()));
    if exec.argv.first().is_none_or(String::is_empty) {
        return failed("`argv` names no program");
    }
    let said = exec.argv.iter().chain(exec.env.iter().flat_map(|(name, value)| [name, value])).chain(&exec.user).chain(&exec.workdir);
    let bytes: usize = said.map(|text| text.len() + 8).sum();
    if bytes > CONTAINER_SPEC {
        return failed("a program is described in fewer bytes");
    }
    if exec.argv.iter().chain(exec.env.iter().map(|(_, value)| value)).any(|word| word.contains('\0')) {
        return failed("a program's arguments and variables cannot hold a zero byte");
    }
    create::variables(&exec.env)?;
    create::user(exec.user.as_deref())?;
    create::workdir(exec.workdir.as_deref())
}

/// The status of a program whose output has ended.
async fn status(runtime: &Runtime, id: &str) -> Result<Option<i32>, ContainersError> {
    for _ in 0..ASKS {
        let link = runtime.link()?;
        let exec = timed(RUNTIME_TIME, link.docker.inspect_exec(id)).await.map_err(Failed::plain)?;
        if exec.running != Some(true) {
            return Ok(exec.exit_code.and_then(|code| i32::try_from(code).ok()));
        }
        tokio::time::sleep(ASK).await;
    }
    // It closed its output and works on: how it will end is not for this call to know.
    Ok(None)
}

type Outputs = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// Carries what comes to who reads it.
struct Pump {
    link: Link,
    outputs: Outputs,
    stdout: mpsc::Sender<Bytes>,
    stderr: mpsc::Sender<Bytes>,
    tell: watch::Sender<Option<Result<Option<i32>, ContainersError>>>,
    /// An input that nobody writes to; closed at once it would look like the end of the program to some runtimes.
    _input: Option<Input>,
    _place: Place,
}

impl Pump {
    fn new(link: Link, outputs: Outputs, place: Place, input: Option<Input>) -> (Streams, Self) {
        let ((stdout, out), (stderr, err), (tell, ended)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE), watch::channel(None));
        let streams = Streams { attached: Attached(ended), stdout: out, stderr: err, stdin: None };
        (streams, Pump { link, outputs, stdout, stderr, tell, _input: input, _place: place })
    }

    async fn run(mut self, end: impl AsyncFnOnce() -> Result<Option<i32>, ContainersError>) {
        let broken = loop {
            let left = async { tokio::join!(self.stdout.closed(), self.stderr.closed(), self.tell.closed()) };
            let next = tokio::select! {
                biased;
                _ = left => return,
                next = self.outputs.next() => next,
            };
            let (to, bytes) = match next {
                None => break None,
                Some(Err(_)) if self.link.is_overrun() => break Some(Failed::Other(overrun()).plain()),
                Some(Err(error)) => break Some(Failed::from(error).plain()),
                Some(Ok(LogOutput::StdErr { message })) => (&self.stderr, message),
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message })) => {
                    (&self.stdout, message)
                }
            };
            self.link.go_on();
            // One that nobody reads any more is thrown away, so that the other one goes on.
            let _ = to.send(bytes).await;
        };
        let Pump { outputs, stdout, stderr, tell, .. } = self;
        drop((outputs, stdout, stderr));
        let ended = match broken {
            Some(error) => Err(error),
            None => end().await,
        };
        let _ = tell.send(Some(ended));
    }
}
