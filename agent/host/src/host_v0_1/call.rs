//! `outhaul:host/call`: commands of the machine's other packs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::PollSender;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, AccessorTask, Resource, ResourceType, Source, StreamConsumer, StreamReader, StreamResult};

use super::{Interface, boxed};
use crate::bindings::v0_1::call::{Answer, CallError, Event, Failure, Running};
use crate::engine::Kind;
use crate::grants::{Grants, Power};
use crate::limits::CHUNK;
use crate::power::call as power;
use crate::state::State;
use crate::stream::HostStream;

/// A call in the table of the one that made it. Dropping the last hold on it ends it: the guest's handle, the table at the call's end.
#[expect(unreachable_pub, reason = "the generated types name it publicly, in a module that is not")]
pub struct OngoingHandle(Arc<Mutex<Ongoing>>, #[expect(dead_code, reason = "held for its drop")] power::Place);

enum Ongoing {
    Running(AbortOnDropHandle<Result<String, power::CallError>>),
    Ended(Result<String, power::CallError>),
}

impl Ongoing {
    async fn wait(&mut self) -> Result<String, power::CallError> {
        let end = match self {
            Ongoing::Running(work) => power::ended(work).await,
            Ongoing::Ended(end) => return end.clone(),
        };
        *self = Ongoing::Ended(end.clone());
        end
    }
}

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    interface.func_wrap_async("invoke", |mut store, (command, params): (String, String)| {
        let asked = asked(store.data_mut());
        boxed(async move {
            let answer = match asked {
                Ok((grants, pack, calls)) => calls.invoke(&pack, &grants.call, command, params).await,
                Err(sentence) => Err(power::CallError::Denied(sentence)),
            };
            Ok((answer.map(Answer::from).map_err(|error| refusal(store.data_mut(), error)),))
        })
    })?;
    interface.resource("ongoing", ResourceType::host::<OngoingHandle>(), |mut store, ongoing| {
        store.data_mut().table.delete(Resource::<OngoingHandle>::new_own(ongoing))?;
        Ok(())
    })?;
    if kind == Kind::Async {
        interface.func_wrap_concurrent("[method]ongoing.wait", |accessor, (ongoing,): (Resource<OngoingHandle>,)| {
            Box::pin(async move {
                let ongoing = accessor.with(|mut access| wasmtime::error::Ok(Arc::clone(&access.get().table.get(&ongoing)?.0)))?;
                let end = ongoing.lock().await.wait().await;
                Ok((end.map_err(|error| accessor.with(|mut access| refusal(access.get(), error))),))
            })
        })?;
        interface.func_wrap_concurrent("start", |accessor, (command, params, input): (String, String, Option<StreamReader<u8>>)| {
            Box::pin(async move { Ok((start(accessor, command, params, input)?,)) })
        })?;
    }
    Ok(())
}

/// What a call brings to ask another pack with.
fn asked(state: &mut State) -> Result<(Arc<Grants>, String, power::Calls), String> {
    let grants = state.granted(Power::Call)?;
    Ok((grants, state.pack(), state.calls.clone()))
}

fn start(
    accessor: &Accessor<State>,
    command: String,
    params: String,
    input: Option<StreamReader<u8>>,
) -> wasmtime::Result<Result<Running, CallError>> {
    let asked = accessor.with(|mut access| asked(access.get()));
    let started = match asked {
        Ok((grants, pack, calls)) => calls.start(&pack, &grants.call, command, params),
        Err(sentence) => Err(power::CallError::Denied(sentence)),
    };
    match started {
        Ok(running) => adopt(accessor, running, input).map(Ok),
        Err(error) => {
            if let Some(mut input) = input {
                input.close_with(accessor)?;
            }
            Ok(Err(accessor.with(|mut access| refusal(access.get(), error))))
        }
    }
}

/// Puts a started call into the table of the one that made it and connects its streams.
fn adopt(accessor: &Accessor<State>, running: power::Running, input: Option<StreamReader<u8>>) -> wasmtime::Result<Running> {
    accessor.with(|mut access| {
        if let Some(from) = input {
            match from.try_into::<HostStream>(&mut access) {
                Ok(stream) => drop(access.spawn(Feed(stream, running.input))?),
                Err(guests) => guests.pipe(&mut access, ToCall(PollSender::new(running.input)))?,
            }
        }
        let over = access.get().over();
        let ongoing = Arc::new(Mutex::new(Ongoing::Running(running.work)));
        let place = running.place;
        let ongoing = access.get().table.push(OngoingHandle(ongoing, place.clone()))?;
        let mut stream = |queue| StreamReader::new(&mut access, HostStream::called(queue, place.clone(), over.clone()));
        let (data, stdout) = (stream(running.data)?, stream(running.stdout)?);
        let (stderr, events) = (stream(running.stderr)?, stream(running.events)?);
        Ok(Running { ongoing, data, stdout, stderr, events })
    })
}

/// Runs in the store of the call that made the other, so that it ends with it.
struct Feed(HostStream, mpsc::Sender<Bytes>);

impl AccessorTask<State> for Feed {
    async fn run(mut self, _: &Accessor<State>) -> wasmtime::Result<()> {
        while let Some(bytes) = self.0.next().await {
            // A call that has ended takes no more.
            if self.1.send(bytes).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Takes what a guest writes to the call it made.
struct ToCall(PollSender<Bytes>);

impl StreamConsumer<State> for ToCall {
    type Item = u8;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let queue = &mut self.get_mut().0;
        match queue.poll_reserve(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(Ok(())) => {}
        }
        let mut source = source.as_direct(store);
        let written = source.remaining();
        let taken = written.len().min(CHUNK);
        if taken == 0 {
            // The guest only asked whether there is room.
            queue.abort_send();
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let bytes = Bytes::copy_from_slice(&written[..taken]);
        source.mark_read(taken);
        let sent = queue.send_item(bytes);
        Poll::Ready(Ok(if sent.is_ok() { StreamResult::Completed } else { StreamResult::Dropped }))
    }
}

fn refusal(state: &mut State, error: power::CallError) -> CallError {
    match error {
        power::CallError::Denied(sentence) => CallError::Denied(state.deny(sentence)),
        power::CallError::Unknown(sentence) => CallError::Unknown(sentence),
        power::CallError::BadParams(sentence) => CallError::BadParams(sentence),
        power::CallError::Limit(sentence) => CallError::Limit(sentence),
        power::CallError::Failed(failed) => {
            let power::Failed { code, message, hint, detail } = *failed;
            CallError::Failed(Failure { code: code.as_str().into(), message, hint, detail })
        }
    }
}

impl From<power::Answer> for Answer {
    fn from(answer: power::Answer) -> Self {
        let power::Answer { value, data, stdout, stderr, events } = answer;
        Answer { value, data, stdout, stderr, events: events.into_iter().map(|(name, json)| Event { name, json }).collect() }
    }
}
