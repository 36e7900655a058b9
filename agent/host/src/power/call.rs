//! The `call` power: commands of the machine's other packs. This side asks for the grant, bounds how many calls go on at once, and keeps
//! what they say in order; which packs there are, and whose policy a called one runs under, is the business of [`Others`].
//!
//! Promises: a pack reaches only commands it was granted, by the name callers use; a call ends with the call that made it; what is called
//! gets no grant, no input and no deadline but its own and those it is given here; nothing it says is lost or kept without bound.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::objects::{check_command_pattern, command_matches};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{shell_word, shown};
use crate::limits::{CALL_COLLECTED, CALLS_AT_ONCE};
use crate::sink::{Lane, Output};

/// Pieces of output that may wait on each lane, and between the calls.
const PIECES: usize = 4;

/// Which commands of other packs one pack may call: `[packs.NAME] call = ["…"]` of `agent.toml`. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Grant {
    /// By name, or all of an interface.
    pub commands: Vec<Commands>,
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::deserialize(from).map(|commands| Grant { commands })
    }
}

impl Grant {
    /// Whether a command is granted.
    #[must_use]
    pub fn allows(&self, command: &str) -> bool {
        self.commands.iter().any(|commands| commands.covers(command))
    }
}

/// `interface.function`, `interface.*` or `*`, as in an operator's grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commands(String);

impl Commands {
    /// Reads a pattern. The agent's own commands are no pack's and cannot be named.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_command_pattern(text).map_err(|error| error.to_string())?;
        match text.split_once('.') {
            Some(("node" | "pack", _)) => Err(format!("`{text}` is the agent's own, for operators only")),
            _ => Ok(Commands(text.to_owned())),
        }
    }

    /// Whether it means a command.
    #[must_use]
    pub fn covers(&self, command: &str) -> bool {
        command_matches(&self.0, command)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Commands {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Commands::parse(&text)
    }
}

impl From<Commands> for String {
    fn from(commands: Commands) -> String {
        commands.0
    }
}

/// Why there is no answer. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// Policy does not grant the command; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// No pack has the command.
    #[error("{0}")]
    Unknown(String),
    /// The parameters do not fit.
    #[error("{0}")]
    BadParams(String),
    /// A loop, or a ceiling.
    #[error("{0}")]
    Limit(String),
    /// The call ended otherwise than with a result.
    #[error("{}", .0.message)]
    Failed(Box<Failed>),
}

/// How the other call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// the stable code
    pub code: Code,
    /// a sentence
    pub message: String,
    /// what to do
    pub hint: Option<String>,
    /// the command's own error as JSON
    pub detail: Option<String>,
}

impl From<Failure> for CallError {
    /// The detail is left out: only who knows the command's type can write it as JSON.
    fn from(failure: Failure) -> Self {
        CallError::Failed(Box::new(Failed { code: failure.code, message: failure.message, hint: failure.hint, detail: None }))
    }
}

/// What a pack asks another one.
#[derive(Debug)]
pub struct Asked {
    /// `interface.function`
    pub command: String,
    /// a JSON text
    pub params: String,
    /// takes what the call says
    pub output: mpsc::Sender<Output>,
    /// gives what it is told
    pub input: mpsc::Receiver<Bytes>,
}

/// A call that was judged and may run: gives its result as JSON. Dropped, it has ended.
pub type Work = Pin<Box<dyn Future<Output = Result<String, CallError>> + Send>>;

/// The other packs, as one call sees them: whoever runs it knows what stands above it.
pub trait Others: fmt::Debug + Send + Sync {
    /// Judges a call that policy grants: whether there is such a command, whether it may be called from here, whether the parameters fit.
    fn prepare(&self, asked: Asked) -> Result<Work, CallError>;
}

/// A call's way to other packs.
#[derive(Debug, Clone)]
pub struct Calls {
    others: Option<Arc<dyn Others>>,
    places: Arc<Semaphore>,
}

/// One piece on its way to whoever reads a lane.
type Lanes = [mpsc::Sender<Bytes>; 4];

/// A call's place among those that its caller has under way. Whatever holds something of the call holds it too: the call itself, its
/// handle, and each stream with what waits in it, so that no caller keeps more than so many calls' worth.
pub type Place = Arc<OwnedSemaphorePermit>;

/// A started call.
#[derive(Debug)]
pub struct Running {
    /// its place
    pub place: Place,
    /// its end, and with it the call
    pub work: AbortOnDropHandle<Result<String, CallError>>,
    /// the stream of its result
    pub data: mpsc::Receiver<Bytes>,
    /// its standard output
    pub stdout: mpsc::Receiver<Bytes>,
    /// its standard error
    pub stderr: mpsc::Receiver<Bytes>,
    /// its events, a line each
    pub events: mpsc::Receiver<Bytes>,
    /// takes its input
    pub input: mpsc::Sender<Bytes>,
}

/// All that a call said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// its result, a JSON text
    pub value: String,
    /// the stream of its result
    pub data: Vec<u8>,
    /// its standard output
    pub stdout: Vec<u8>,
    /// its standard error
    pub stderr: Vec<u8>,
    /// its events: name and JSON text
    pub events: Vec<(String, String)>,
}

impl Calls {
    /// A way to these, or to none.
    #[must_use]
    pub fn new(others: Option<Arc<dyn Others>>) -> Self {
        Calls { others, places: Arc::new(Semaphore::new(CALLS_AT_ONCE)) }
    }

    /// Calls, and collects what is said.
    pub async fn invoke(&self, pack: &str, grant: &Grant, command: String, params: String) -> Result<Answer, CallError> {
        let place = self.place(pack, grant, &command)?;
        let (output, mut outputs) = mpsc::channel(PIECES);
        let (_, input) = mpsc::channel(1);
        let place = Arc::new(place);
        let mut work = spawn(self.prepare(Asked { command: command.clone(), params, output, input })?, place);
        let mut answer = Answer::default();
        let mut left = CALL_COLLECTED;
        // Its end closes the queue; nothing of it is left behind.
        while let Some(output) = outputs.recv().await {
            let size = match &output {
                Output::Data { bytes, .. } => bytes.len(),
                Output::Event { name, json } => name.len() + json.len() + EVENT_COST,
            };
            left = left.checked_sub(size).ok_or_else(|| too_much(&command))?;
            answer.take(output);
        }
        answer.value = ended(&mut work).await?;
        Ok(answer)
    }

    /// Calls, and gives what is said as it is said.
    pub fn start(&self, pack: &str, grant: &Grant, command: String, params: String) -> Result<Running, CallError> {
        let place = Arc::new(self.place(pack, grant, &command)?);
        let (output, outputs) = mpsc::channel(PIECES);
        let (input, inputs) = mpsc::channel(PIECES);
        let work = self.prepare(Asked { command, params, output, input: inputs })?;
        let lanes = [(); 4].map(|()| mpsc::channel(PIECES));
        let [(data_in, data), (stdout_in, stdout), (stderr_in, stderr), (events_in, events)] = lanes;
        let sorted = sort(outputs, [data_in, stdout_in, stderr_in, events_in]);
        let whole = async move { tokio::join!(work, sorted).0 };
        Ok(Running { work: spawn(Box::pin(whole), place.clone()), place, data, stdout, stderr, events, input })
    }

    fn place(&self, pack: &str, grant: &Grant, command: &str) -> Result<OwnedSemaphorePermit, CallError> {
        if !grant.allows(command) {
            return Err(CallError::Denied(format!(
                "this machine's policy does not let pack `{pack}` call `{}`; on that machine: agent allow {pack} call {}",
                shown(command),
                shell_word(command)
            )));
        }
        let full = |_| {
            CallError::Limit(format!("{CALLS_AT_ONCE} calls to other packs are under way, which is as many as a call may make at once"))
        };
        Arc::clone(&self.places).try_acquire_owned().map_err(full)
    }

    fn prepare(&self, asked: Asked) -> Result<Work, CallError> {
        match &self.others {
            Some(others) => others.prepare(asked),
            None => Err(CallError::Unknown(format!("`{}`: there are no other packs where this one runs", shown(&asked.command)))),
        }
    }
}

/// What an event counts beside its texts.
const EVENT_COST: usize = 64;

impl Answer {
    fn take(&mut self, output: Output) {
        match output {
            Output::Data { lane: Lane::Result, bytes } => self.data.extend_from_slice(&bytes),
            Output::Data { lane: Lane::Stdout, bytes } => self.stdout.extend_from_slice(&bytes),
            // Events come as events.
            Output::Data { lane: Lane::Stderr | Lane::Event, bytes } => self.stderr.extend_from_slice(&bytes),
            Output::Event { name, json } => self.events.push((name, json)),
        }
    }
}

fn too_much(command: &str) -> CallError {
    let mib = CALL_COLLECTED >> 20;
    CallError::Limit(format!("`{}` said more than the {mib} MiB that are collected; `start` gives it as streams", shown(command)))
}

/// On a task of its own, so that calls side by side run side by side. It ends with its handle.
fn spawn(work: Work, place: Place) -> AbortOnDropHandle<Result<String, CallError>> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _place = place;
        work.await
    }))
}

/// The end of a call that was started.
pub async fn ended(work: &mut AbortOnDropHandle<Result<String, CallError>>) -> Result<String, CallError> {
    work.await.unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("a call to another pack failed: {error}")).into()))
}

/// Each piece to its lane. A lane nobody reads any more takes and forgets.
async fn sort(mut outputs: mpsc::Receiver<Output>, lanes: Lanes) {
    let [data, stdout, stderr, events] = lanes;
    while let Some(output) = outputs.recv().await {
        let (lane, bytes) = match output {
            Output::Data { lane: Lane::Result, bytes } => (&data, bytes),
            Output::Data { lane: Lane::Stdout, bytes } => (&stdout, bytes),
            Output::Data { lane: Lane::Stderr | Lane::Event, bytes } => (&stderr, bytes),
            Output::Event { name, json } => (&events, line(&name, &json)),
        };
        let _ = lane.send(bytes).await;
    }
}

/// An event as a line of JSON. Its own JSON was checked when it was sent; a line break in it can only be space between tokens.
fn line(name: &str, json: &str) -> Bytes {
    let json = json.replace(['\n', '\r'], " ");
    format!("{{\"name\":{},\"json\":{json}}}\n", serde_json::Value::from(name)).into()
}

#[cfg(test)]
mod tests;
