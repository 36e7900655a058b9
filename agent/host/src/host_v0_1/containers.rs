//! `outhaul:host/containers`: containers of the machine's own runtime.

use std::future::Future;
use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Resource, ResourceType, StreamReader};

use super::{Interface, boxed};
use crate::bindings::v0_1::containers::{
    Container, ContainersError, GpuWish, Image, Mount, Program, Spec, State as ContainerState, Streams, Usage,
};
use crate::engine::Kind;
use crate::grants::{Grants, Power};
use crate::power::containers as power;
use crate::state::State;
use crate::stream::{HostStream, connect};

/// The end of a log or program in a call's table.
#[expect(unreachable_pub, reason = "the generated types name it publicly, in a module that is not")]
pub struct AttachedHandle(power::Attached);

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    interface.func_wrap_async("list-containers", |store, (): ()| {
        short(store, |asked| async move {
            let list = asked.containers.list(asked.grant()?).await?;
            Ok(list.into_iter().map(Container::from).collect::<Vec<_>>())
        })
    })?;
    interface.func_wrap_async("inspect", |store, (id,): (String,)| {
        short(store, |asked| async move { asked.containers.inspect(asked.grant()?, &id).await.map(Container::from) })
    })?;
    interface.func_wrap_async("images", |store, (): ()| {
        short(store, |asked| async move {
            let list = asked.containers.images(asked.grant()?).await?;
            Ok(list.into_iter().map(Image::from).collect::<Vec<_>>())
        })
    })?;
    interface.resource("attached", ResourceType::host::<AttachedHandle>(), |mut store, attached| {
        store.data_mut().table.delete(Resource::<AttachedHandle>::new_own(attached))?;
        Ok(())
    })?;
    if kind == Kind::Async {
        link_waiting(interface)?;
        link_streams(interface)?;
    }
    Ok(())
}

fn link_waiting(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_concurrent("run", |accessor, (spec,): (Spec,)| {
        Box::pin(long(accessor, move |asked: Asked| async move {
            asked.containers.run(&asked.pack, asked.grant()?, spec.into()).await.map(Container::from)
        }))
    })?;
    interface.func_wrap_concurrent("stop", |accessor, (id, grace): (String, u32)| {
        Box::pin(long(accessor, move |asked: Asked| async move { asked.containers.stop(&asked.pack, asked.grant()?, &id, grace).await }))
    })?;
    interface.func_wrap_concurrent("remove", |accessor, (id,): (String,)| {
        Box::pin(long(accessor, move |asked: Asked| async move { asked.containers.remove(&asked.pack, asked.grant()?, &id).await }))
    })?;
    interface.func_wrap_concurrent("wait", |accessor, (id,): (String,)| {
        // It stays open, as a log does: it is not counted among what is answered soon.
        Box::pin(async move {
            let asked = accessor.with(|mut access| Asked::of(access.get()));
            let answer = match asked {
                Ok(asked) => asked.wait(&id).await,
                Err(error) => Err(error),
            };
            Ok((answer.map_err(|error| accessor.with(|mut access| refusal(access.get(), error))),))
        })
    })?;
    interface.func_wrap_concurrent("stats", |accessor, (id,): (String,)| {
        Box::pin(long(accessor, move |asked: Asked| async move { asked.containers.stats(asked.grant()?, &id).await.map(Usage::from) }))
    })
}

fn link_streams(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_concurrent("[method]attached.wait", |accessor, (attached,): (Resource<AttachedHandle>,)| {
        Box::pin(async move {
            let attached = accessor.with(|mut access| wasmtime::error::Ok(access.get().table.get(&attached)?.0.clone()))?;
            let ended = attached.wait().await;
            Ok((ended.map_err(|error| accessor.with(|mut access| refusal(access.get(), error))),))
        })
    })?;
    interface.func_wrap_concurrent("logs", |accessor, (id, follow, tail): (String, bool, Option<u32>)| {
        Box::pin(async move {
            let opened =
                ask(accessor, |asked| async move { asked.containers.logs(&asked.share, asked.grant()?, &id, follow, tail).await }).await;
            Ok((adopt(accessor, opened, None)?,))
        })
    })?;
    interface.func_wrap_concurrent("exec", |accessor, (id, program, stdin): (String, Program, Option<StreamReader<u8>>)| {
        Box::pin(async move {
            let wanted = stdin.is_some();
            let opened = ask(accessor, |asked| async move {
                asked.containers.exec(&asked.share, &asked.pack, asked.grant()?, &id, program.into(), wanted).await
            })
            .await;
            Ok((adopt(accessor, opened, stdin)?,))
        })
    })
}

/// What a request goes with.
struct Asked {
    pack: String,
    grants: Arc<Grants>,
    containers: Arc<power::Containers>,
    share: power::Share,
}

impl Asked {
    fn of(state: &mut State) -> Result<Self, power::ContainersError> {
        let grants = state.granted(Power::Containers).map_err(power::ContainersError::Denied)?;
        let share = share(state)?;
        Ok(Asked { pack: state.pack(), grants, containers: Arc::clone(&state.containers), share })
    }

    fn grant(&self) -> Result<&power::Grant, power::ContainersError> {
        let gone = || power::ContainersError::Failed("the grant is gone".into());
        self.grants.containers.as_deref().ok_or_else(gone)
    }

    async fn wait(&self, id: &str) -> Result<Option<i32>, power::ContainersError> {
        self.containers.wait(&self.share, self.grant()?, id).await
    }
}

/// The call's own share, which lies in its table from the first request on. No handle of the guest's means it.
fn share(state: &mut State) -> Result<power::Share, power::ContainersError> {
    if let Some(share) = state.table.iter_mut().find_map(|entry| entry.downcast_ref::<power::Share>()) {
        return Ok(share.clone());
    }
    let share = power::Share::default();
    let full = |_| power::ContainersError::Limit("the call holds as many handles as it may".into());
    state.table.push(share.clone()).map_err(full)?;
    Ok(share)
}

type Answer<'a, T> = Box<dyn Future<Output = wasmtime::Result<(Result<T, ContainersError>,)>> + Send + 'a>;

/// A question that is answered soon, on both engines.
fn short<'a, T: Send + 'static, F>(
    mut store: StoreContextMut<'a, State>,
    question: impl FnOnce(Asked) -> F + Send + 'static,
) -> Answer<'a, T>
where
    F: Future<Output = Result<T, power::ContainersError>> + Send + 'static,
{
    let asked = Asked::of(store.data_mut());
    boxed(async move {
        let answer = match asked {
            Ok(asked) => {
                let _turn = asked.share.request().await;
                question(asked).await
            }
            Err(error) => Err(error),
        };
        Ok((answer.map_err(|error| refusal(store.data_mut(), error)),))
    })
}

/// A request that may take long, while the pack does other things.
async fn long<T, F>(accessor: &Accessor<State>, request: impl FnOnce(Asked) -> F) -> wasmtime::Result<(Result<T, ContainersError>,)>
where
    F: Future<Output = Result<T, power::ContainersError>>,
{
    let answer = ask(accessor, request).await;
    Ok((answer.map_err(|error| accessor.with(|mut access| refusal(access.get(), error))),))
}

async fn ask<T, F>(accessor: &Accessor<State>, request: impl FnOnce(Asked) -> F) -> Result<T, power::ContainersError>
where
    F: Future<Output = Result<T, power::ContainersError>>,
{
    let asked = accessor.with(|mut access| Asked::of(access.get()))?;
    let _turn = asked.share.request().await;
    request(asked).await
}

/// Puts what was opened into the call's table and connects its streams.
fn adopt(
    accessor: &Accessor<State>,
    opened: Result<power::Streams, power::ContainersError>,
    stdin: Option<StreamReader<u8>>,
) -> wasmtime::Result<Result<Streams, ContainersError>> {
    let streams = match opened {
        Ok(streams) => streams,
        Err(error) => {
            if let Some(mut stdin) = stdin {
                stdin.close_with(accessor)?;
            }
            return Ok(Err(accessor.with(|mut access| refusal(access.get(), error))));
        }
    };
    accessor.with(|mut access| {
        if let (Some(from), Some(to)) = (stdin, streams.stdin) {
            connect(&mut access, from, to)?;
        }
        let over = access.get().over();
        let attached = access.get().table.push(AttachedHandle(streams.attached))?;
        let stdout = StreamReader::new(&mut access, HostStream::caller(streams.stdout, over.clone()))?;
        let stderr = StreamReader::new(&mut access, HostStream::caller(streams.stderr, over))?;
        Ok(Ok(Streams { attached, stdout, stderr }))
    })
}

fn refusal(state: &mut State, error: power::ContainersError) -> ContainersError {
    match error {
        power::ContainersError::Denied(sentence) => ContainersError::Denied(state.deny(sentence)),
        power::ContainersError::NoRuntime(sentence) => ContainersError::NoRuntime(sentence),
        power::ContainersError::NotFound(sentence) => ContainersError::NotFound(sentence),
        power::ContainersError::Conflict(sentence) => ContainersError::Conflict(sentence),
        power::ContainersError::Limit(sentence) => ContainersError::Limit(sentence),
        power::ContainersError::Failed(sentence) => ContainersError::Failed(sentence),
    }
}

impl From<Spec> for power::Spec {
    fn from(spec: Spec) -> Self {
        power::Spec {
            image: spec.image,
            name: spec.name,
            entrypoint: spec.entrypoint,
            command: spec.command,
            env: spec.env,
            user: spec.user,
            workdir: spec.workdir,
            mounts: spec.mounts.into_iter().map(power::Mount::from).collect(),
            gpus: spec.gpus.into(),
            memory_mib: spec.memory_mib,
            cpus: spec.cpus,
            shm_mib: spec.shm_mib,
            network: spec.network,
            remove: spec.remove,
        }
    }
}

impl From<Mount> for power::Mount {
    fn from(mount: Mount) -> Self {
        power::Mount { source: mount.source, target: mount.target, writable: mount.writable }
    }
}

impl From<GpuWish> for power::Wanted {
    fn from(wish: GpuWish) -> Self {
        match wish {
            GpuWish::None => power::Wanted::None,
            GpuWish::Count(count) => power::Wanted::Count(count),
            GpuWish::Uuids(uuids) => power::Wanted::Uuids(uuids),
        }
    }
}

impl From<Program> for power::Exec {
    fn from(program: Program) -> Self {
        power::Exec { argv: program.argv, env: program.env, user: program.user, workdir: program.workdir }
    }
}

impl From<power::Container> for Container {
    fn from(container: power::Container) -> Self {
        Container {
            id: container.id,
            name: container.name,
            image: container.image,
            state: container.state.into(),
            created: container.created,
            exit_code: container.exit_code,
            gpus: container.gpus,
        }
    }
}

impl From<power::State> for ContainerState {
    fn from(state: power::State) -> Self {
        match state {
            power::State::Created => ContainerState::Created,
            power::State::Running => ContainerState::Running,
            power::State::Paused => ContainerState::Paused,
            power::State::Ended => ContainerState::Ended,
        }
    }
}

impl From<power::Stats> for Usage {
    fn from(stats: power::Stats) -> Self {
        Usage {
            cpu_percent: stats.cpu_percent,
            memory_used: stats.memory_used,
            memory_limit: stats.memory_limit,
            processes: stats.processes,
        }
    }
}

impl From<power::Image> for Image {
    fn from(image: power::Image) -> Self {
        Image { reference: image.reference, id: image.id, size: image.size }
    }
}
