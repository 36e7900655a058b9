//! `outhaul:host/process`: programs of the machine.

use std::sync::Arc;

use wasmtime::component::{Accessor, Resource, ResourceType, StreamReader};

use super::{Interface, boxed};
use crate::bindings::v0_1::process::{Exit, KillSignal, ProcessError, Running, Spec};
use crate::engine::Kind;
use crate::grants::{Grants, Power};
use crate::power::process as power;
use crate::state::State;
use crate::stream::{HostStream, connect};

/// A child in a call's table. Dropping the last hold on it kills its group: the guest's handle, the table at the call's end.
#[expect(unreachable_pub, reason = "the generated types name it publicly, in a module that is not")]
pub struct ChildHandle(Arc<power::Child>);

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    interface.func_wrap_async("which", |mut store, (program,): (String,)| {
        let asked = store.data_mut().granted(Power::Process).map(|grants| (grants, store.data().pack()));
        boxed(async move {
            let found = match asked {
                Ok((grants, pack)) => power::which(&pack, granted(&grants), &program).await.map(|path| path.display().to_string()),
                Err(sentence) => Err(power::ProcessError::Denied(sentence)),
            };
            Ok((found.map_err(|error| refusal(store.data_mut(), error)),))
        })
    })?;
    interface.resource("child", ResourceType::host::<ChildHandle>(), |mut store, child| {
        store.data_mut().table.delete(Resource::<ChildHandle>::new_own(child))?;
        Ok(())
    })?;
    interface.func_wrap("[method]child.pid", |store, (child,): (Resource<ChildHandle>,)| Ok((store.data().table.get(&child)?.0.pid(),)))?;
    interface.func_wrap("[method]child.kill", |store, (child, signal): (Resource<ChildHandle>, KillSignal)| {
        store.data().table.get(&child)?.0.kill(signal.into());
        Ok(())
    })?;
    if kind == Kind::Async {
        interface.func_wrap_concurrent("[method]child.wait", |accessor, (child,): (Resource<ChildHandle>,)| {
            Box::pin(async move {
                let child = accessor.with(|mut access| wasmtime::error::Ok(Arc::clone(&access.get().table.get(&child)?.0)))?;
                Ok((ended(child.wait().await),))
            })
        })?;
        interface.func_wrap_concurrent("spawn", |accessor, (spec, stdin): (Spec, Option<StreamReader<u8>>)| {
            Box::pin(async move { Ok((spawn(accessor, spec.into(), stdin).await?,)) })
        })?;
    }
    Ok(())
}

/// Of a call whose `process` was found to be granted.
fn granted(grants: &Grants) -> &power::Grant {
    grants.process.as_ref().unwrap_or(power::Grant::NOTHING)
}

async fn spawn(
    accessor: &Accessor<State>,
    spec: power::Spec,
    stdin: Option<StreamReader<u8>>,
) -> wasmtime::Result<Result<Running, ProcessError>> {
    let asked = accessor.with(|mut access| {
        let state = access.get();
        state.granted(Power::Process).map(|grants| (grants, state.pack()))
    });
    let started = match asked {
        Ok((grants, pack)) => power::spawn(&pack, granted(&grants), spec, stdin.is_some()).await,
        Err(sentence) => Err(power::ProcessError::Denied(sentence)),
    };
    match started {
        Ok(running) => adopt(accessor, running, stdin).map(Ok),
        Err(error) => {
            if let Some(mut stdin) = stdin {
                stdin.close_with(accessor)?;
            }
            Ok(Err(accessor.with(|mut access| refusal(access.get(), error))))
        }
    }
}

/// Puts a started child into the call's table and connects its streams.
fn adopt(accessor: &Accessor<State>, running: power::Running, stdin: Option<StreamReader<u8>>) -> wasmtime::Result<Running> {
    accessor.with(|mut access| {
        if let (Some(from), Some(to)) = (stdin, running.stdin) {
            connect(&mut access, from, to)?;
        }
        let over = access.get().over();
        let child = access.get().table.push(ChildHandle(Arc::new(running.child)))?;
        let stdout = StreamReader::new(&mut access, HostStream::pipe(running.stdout, over.clone()))?;
        let stderr = StreamReader::new(&mut access, HostStream::pipe(running.stderr, over))?;
        Ok(Running { child, stdout, stderr })
    })
}

fn refusal(state: &mut State, error: power::ProcessError) -> ProcessError {
    match error {
        power::ProcessError::Denied(sentence) => ProcessError::Denied(state.deny(sentence)),
        power::ProcessError::NotFound(sentence) => ProcessError::NotFound(sentence),
        power::ProcessError::Limit(sentence) => ProcessError::Limit(sentence),
        power::ProcessError::Failed(sentence) => ProcessError::Failed(sentence),
    }
}

fn ended(exit: power::Exit) -> Result<Exit, ProcessError> {
    if let Some(mib) = exit.over_output {
        return Err(ProcessError::Limit(format!(
            "the program sent more than {mib} MiB, the most that this machine's policy allows it, and was killed; the rest is lost"
        )));
    }
    if exit.over_limit {
        let seconds = exit.duration_ms / 1000;
        return Err(ProcessError::Limit(format!(
            "the program was killed after {seconds} s, the most that this machine's policy allows it"
        )));
    }
    Ok(Exit { code: exit.code, signal: exit.signal, duration_ms: exit.duration_ms })
}

impl From<Spec> for power::Spec {
    fn from(spec: Spec) -> Self {
        power::Spec { argv: spec.argv, env: spec.env, cwd: spec.cwd }
    }
}

impl From<KillSignal> for power::Signal {
    fn from(signal: KillSignal) -> Self {
        match signal {
            KillSignal::Interrupt => power::Signal::Interrupt,
            KillSignal::Terminate => power::Signal::Terminate,
            KillSignal::Kill => power::Signal::Kill,
        }
    }
}
