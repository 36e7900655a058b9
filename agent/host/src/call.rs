//! One call from its parameters to its one ending: a fresh store, the function, the stream of its result, and the judgement of what came
//! of it. Whatever happens, the store and all it opened are gone afterwards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::types::Command;
use outhaul_protocol::value::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{StreamReader, Val};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

use crate::compile::brief;
use crate::convert::{self, Answer};
use crate::engine::Kind;
use crate::exports::Export;
use crate::grants::Grants;
use crate::limits;
use crate::pack::Pack;
use crate::power::call::{Calls, Others};
use crate::sink::{Closed, Lane, Output, Sink};
use crate::state::{Brought, State};
use crate::stream::{self, Sent};

/// A call's two ends with its caller.
#[derive(Debug)]
pub struct CallIo {
    /// Takes output; a full queue makes the pack wait.
    pub output: mpsc::Sender<Output>,
    /// Gives what the caller sends; closed at its end.
    pub input: mpsc::Receiver<Bytes>,
}

/// A call of one command.
#[derive(Debug)]
pub struct CallRequest {
    /// `<interface>.<function>`
    pub command: String,
    /// a map by parameter name
    pub params: Value,
    /// what the pack may do in this call
    pub grants: Arc<Grants>,
    /// its output and input
    pub io: CallIo,
    /// how long it may take
    pub deadline: Option<Duration>,
    /// ends it
    pub cancel: CancellationToken,
    /// marks its lines in the log
    pub label: String,
    /// bytes it may send on all lanes together
    pub output_limit: u64,
    /// whether the call has no signature of its own, so that it may use only what is shared
    pub shared_only: bool,
    /// the machine's other packs, where there are any
    pub others: Option<Arc<dyn Others>>,
}

impl Pack {
    /// Runs a command. The value is null when the function gives nothing; a typed error of the function is `command_failed` with
    /// the error as its detail.
    pub async fn call(&self, request: CallRequest) -> Result<Value, Failure> {
        let CallRequest { command, params, grants, io, deadline, cancel, label, output_limit, shared_only, others } = request;
        let export = self
            .export(&command)
            .ok_or_else(|| Failure::new(Code::UnknownCommand, format!("pack `{}` has no command `{}`", self.name(), brief(&command))))?;
        let params = convert::params(params, &export.command)?;
        let deadline = Deadline::of(deadline, grants.time);
        let _running = self.engines.ticker.running();
        let state = State::new(Brought {
            memory: self.memory,
            sink: Sink::new(io.output, output_limit),
            input: io.input,
            grants,
            shared_only,
            camera: self.camera,
            log: Arc::clone(&self.log),
            label,
            kv: Arc::clone(&self.kv),
            containers: Arc::clone(&self.containers),
            outside: Arc::clone(&self.outside),
            calls: Calls::new(others),
            seat: Arc::clone(&self.seat),
        });
        let mut store = self.store(state);
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::new(Code::Cancelled, "cancelled by the caller")),
            () = deadline.passes() => Err(deadline.failure(&command)),
            done = self.run(&mut store, export, &params) => Ok(done),
        };
        let judged = self.judge(store.data(), &export.command, done?);
        let State { hint, left_out, .. } = store.data();
        judged.map_err(|failure| hinted(failure, hint.get().or(left_out.as_ref())))
    }

    pub(crate) fn store(&self, state: State) -> Store<State> {
        let mut store = Store::new(self.engines.get(self.kind), state);
        store.limiter(|state| &mut state.ceiling);
        store.set_hostcall_fuel(limits::HOSTCALL_FUEL);
        store.set_max_component_handles(limits::HANDLES);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(limits::HANDLE_ENTRIES);
        }
        // A tick from now, then at every tick: a guest that runs on lets its deadline and its neighbours have their turn.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }

    async fn run(&self, store: &mut Store<State>, export: &Export, params: &[Val]) -> wasmtime::Result<Result<Done, Failure>> {
        let instance = self.instance.instantiate_async(&mut *store).await?;
        let function = instance.get_func(&mut *store, export.index).ok_or_else(|| wasmtime::format_err!("the function is gone"))?;
        let mut results = if export.gives { vec![Val::Bool(false)] } else { Vec::new() };
        if self.kind == Kind::Sync {
            function.call_async(&mut *store, params, &mut results).await?;
            return Ok(convert::answer(results, &export.command).map(|answer| Done { answer, sent: None }));
        }
        let sink = store.data().sink.clone();
        store
            .run_concurrent(async |accessor| {
                function.call_concurrent(accessor, params, &mut results).await?;
                let mut answer = match convert::answer(results, &export.command) {
                    Ok(answer) => answer,
                    Err(failure) => return Ok(Err(failure)),
                };
                let sent = match answer.stream.take() {
                    Some(stream) => Some(stream::send(accessor, &sink, Lane::Result, StreamReader::try_from_stream_any(stream)?).await?),
                    None => None,
                };
                Ok(Ok(Done { answer, sent }))
            })
            .await?
    }

    /// What the caller is told. A refusal comes first, whatever the pack made of it.
    fn judge(&self, state: &State, command: &Command, done: wasmtime::Result<Result<Done, Failure>>) -> Result<Value, Failure> {
        if let Some(sentence) = state.denied() {
            return Err(Failure::new(Code::Denied, sentence));
        }
        let done = match done {
            Ok(done) => done?,
            Err(error) => return Err(self.broken(state, command, &error)),
        };
        match (done.answer.outcome, done.sent) {
            (Ok(_), Some(Sent { closed: Some(Closed::Ceiling), .. })) => Err(self.too_much(state, command)),
            (Ok(_), Some(Sent { closed: Some(Closed::Cancelled), .. })) => Err(Failure::new(Code::Cancelled, "the caller left")),
            (Ok(mut value), Some(sent)) => {
                convert::fill_stream(&mut value, command, sent.value());
                Ok(value)
            }
            (Ok(value), None) => Ok(value),
            // A pack that copes with the ceiling has its say (a program whose output was cut); one that fails of it does not.
            (Err(_), _) if state.sink.reached() => Err(self.too_much(state, command)),
            (Err(detail), _) => Err(failed(command, detail)),
        }
    }

    /// The guest did not come to its end.
    fn broken(&self, state: &State, command: &Command, error: &wasmtime::Error) -> Failure {
        let (pack, command) = (self.name(), &command.name);
        let chain = || error.chain().map(ToString::to_string);
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return Failure::new(Code::Busy, "all sandboxes of this agent are taken").hint("try again in a moment");
        }
        if state.ceiling.reached() {
            let mib = state.ceiling.memory() >> 20;
            return Failure::new(
                Code::LimitMemory,
                format!("`{command}` of pack `{pack}` wanted more than the {mib} MiB of memory it may have"),
            )
            .hint("the machine's owner can raise `memory_mib` in agent.toml");
        }
        // The engine keeps this error's type to itself.
        if chain().any(|text| text.contains("fuel allocated for hostcalls")) {
            let mib = limits::HOSTCALL_FUEL >> 20;
            return Failure::new(Code::LimitMemory, format!("`{command}` of pack `{pack}` handed over more than {mib} MiB at once"))
                .hint("the pack should use a stream");
        }
        if state.sink.reached() {
            return self.too_much_of(state, command);
        }
        let why = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => chain().last().unwrap_or_default(),
        };
        let why = why.strip_prefix("wasm trap: ").unwrap_or(&why);
        Failure::new(Code::Trap, format!("pack `{pack}` {} trapped in `{command}`: {}", self.version(), brief(why)))
    }

    fn too_much(&self, state: &State, command: &Command) -> Failure {
        self.too_much_of(state, &command.name)
    }

    fn too_much_of(&self, state: &State, command: &str) -> Failure {
        let text =
            format!("`{command}` of pack `{}` sent more than the {} bytes of output a call may have", self.name(), state.sink.limit());
        Failure::new(Code::LimitOutput, text).hint("the machine's owner can raise `output_mib` in agent.toml")
    }
}

/// What a file operation was refused with is no ending, for programs may cope; but who fails after it has the sentence for a hint.
fn hinted(failure: Failure, refusal: Option<&String>) -> Failure {
    match refusal {
        Some(sentence) if failure.hint.is_none() && matches!(failure.code, Code::CommandFailed | Code::Trap) => failure.hint(sentence),
        _ => failure,
    }
}

/// A function that came to its end.
struct Done {
    answer: Answer,
    sent: Option<Sent>,
}

/// The first of a call's two ends in time.
struct Deadline {
    after: Option<Duration>,
    policy: bool,
}

impl Deadline {
    fn of(callers: Option<Duration>, policy: Option<Duration>) -> Self {
        match (callers, policy) {
            (Some(callers), Some(policy)) if callers < policy => Deadline { after: Some(callers), policy: false },
            (_, Some(policy)) => Deadline { after: Some(policy), policy: true },
            (callers, None) => Deadline { after: callers, policy: false },
        }
    }

    async fn passes(&self) {
        match self.after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    }

    fn failure(&self, command: &str) -> Failure {
        let secs = self.after.unwrap_or_default().as_secs_f64();
        if self.policy {
            Failure::new(Code::LimitTime, format!("`{command}` ran longer than the {secs} s this machine's policy allows"))
                .hint("the machine's owner can raise `deadline_secs` in agent.toml")
        } else {
            Failure::new(Code::Deadline, format!("`{command}` did not end within {secs} s")).hint("give it more time with --timeout")
        }
    }
}

/// The command's own error, with a sentence made from it for those who read no detail.
fn failed(command: &Command, detail: Value) -> Failure {
    let ty = command.error.as_ref().and_then(Option::as_ref);
    let text = match &detail {
        Value::Null => format!("`{}` failed", command.name),
        Value::Text(text) => brief(text),
        Value::Map(entries) => match entries.as_slice() {
            [(case, Value::Text(text))] => brief(&format!("{case}: {text}")),
            _ => brief(&detail.to_json(ty).to_string()),
        },
        other => brief(&other.to_json(ty).to_string()),
    };
    let detail = Some(detail).filter(|detail| *detail != Value::Null);
    Failure { detail, ..Failure::new(Code::CommandFailed, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_deadline_counts_and_says_whose_it_was() {
        let code = |callers: Option<u64>, policy: Option<u64>| {
            let deadline = Deadline::of(callers.map(Duration::from_secs), policy.map(Duration::from_secs));
            (deadline.after.map(|after| after.as_secs()), deadline.failure("x.y").code)
        };
        assert_eq!(code(Some(1), Some(2)), (Some(1), Code::Deadline));
        assert_eq!(code(Some(3), Some(2)), (Some(2), Code::LimitTime));
        assert_eq!(code(None, Some(2)), (Some(2), Code::LimitTime));
        assert_eq!(code(Some(3), None), (Some(3), Code::Deadline));
        assert_eq!(code(None, None).0, None);
    }

    #[test]
    fn a_typed_error_becomes_a_sentence() {
        let command = Command { name: "a.b".into(), doc: None, params: Vec::new(), result: None, error: Some(None) };
        let text = |detail| failed(&command, detail).message;
        assert_eq!(text(Value::Null), "`a.b` failed");
        assert_eq!(text("no_sensor".into()), "no_sensor");
        assert_eq!(text(Value::Map(vec![("denied".into(), "not you\n".into())])), "denied: not you");
        assert_eq!(text(Value::Map(vec![("corner".into(), Value::Int(3))])), r#"{"corner":3}"#);
    }
}
