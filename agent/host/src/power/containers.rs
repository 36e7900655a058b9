//! The `containers` power: containers of the machine's own Docker or Podman, through typed requests and never through its socket.
//!
//! Promises: a pack sees and touches only containers that it made, whatever word for another it tries; each request to make one is built
//! here from nothing, and what came of it is looked at before it starts ([`check`]): none is privileged, shares a namespace of the machine
//! (but that of users, unless the runtime remaps them) or sees a folder, device or socket that was not granted; each has ceilings of memory, processors, processes and log; GPUs are lent by
//! UUID, so that no two containers share one ([`gpus`]); nothing here waits without a deadline or keeps more of an answer than it may.
//!
//! A container is work that outlives the call that began it, and the agent. Not promised: what the runtime itself does wrong, and the
//! room that a container's own files take on the disk.

mod attach;
mod check;
mod create;
mod dial;
mod gpus;
mod grant;
mod image;
mod kernel;
mod libpod;
mod made;
mod owned;
mod share;
mod types;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{ListImagesOptions, RemoveContainerOptions, StatsOptions, StopContainerOptions, WaitContainerOptions};
use futures_util::StreamExt as _;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

pub use attach::{Attached, Exec, Input, Streams};
pub use gpus::{Driver, Gpus, Wanted};
pub use grant::{Capability, Folder, Grant, Network};
pub use image::{Pattern, Reference};
pub use share::Share;
pub use types::{Container, ContainersError, Image, Mount, Spec, State, Stats};

use self::dial::{Failed, Runtime, timed};
use self::owned::{CREATED, Listed, NAME, Sealer};
use crate::limits::{ATTACHED, RUNTIME_CONNECTIONS, RUNTIME_TIME, STATS_TIME, STOP_SECS, WAIT_AGAIN, WAIT_TIME};
use crate::power::shown;

/// How the power is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// the socket that the owner named, instead of those that are looked for
    pub socket: Option<PathBuf>,
    /// whose agent this is, among all that use the same runtime
    pub node: String,
    /// where the machine's GPUs are learnt from
    pub gpus: Arc<dyn Gpus>,
}

impl Default for Config {
    fn default() -> Self {
        Config { socket: None, node: "here".into(), gpus: Arc::new(Driver) }
    }
}

/// The containers of all packs.
pub struct Containers {
    config: Config,
    sealer: Sealer,
    runtime: Mutex<Option<Runtime>>,
    /// held from looking which GPUs and places are free until the container runs
    making: Arc<Mutex<()>>,
    /// connections for what is answered soon
    connections: Arc<Semaphore>,
    attached: Arc<Semaphore>,
    watch: watch::Watch,
}

impl fmt::Debug for Containers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Containers").field("config", &self.config).finish_non_exhaustive()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Containers {
    /// Asks nobody yet. The key says which containers are this agent's, as long as it stays.
    #[must_use]
    pub fn new(config: Config, key: &[u8; 32]) -> Arc<Self> {
        Arc::new(Containers {
            config,
            sealer: Sealer::new(key),
            runtime: Mutex::default(),
            making: Arc::default(),
            connections: Arc::new(Semaphore::new(RUNTIME_CONNECTIONS)),
            attached: Arc::new(Semaphore::new(ATTACHED)),
            watch: watch::Watch::default(),
        })
    }

    /// The runtime, met at the first request and again whenever its socket is another.
    async fn runtime(&self) -> Result<Runtime, ContainersError> {
        let owners = self.config.socket.clone();
        let socket = blocking(move || dial::socket(owners.as_deref())).await?;
        let mut known = self.runtime.lock().await;
        if let Some(runtime) = known.as_ref().filter(|runtime| runtime.socket == socket) {
            return Ok(runtime.clone());
        }
        let runtime = Runtime::meet(socket, Arc::clone(&self.connections)).await?;
        tracing::info!(socket = %runtime.socket.display(), version = %runtime.version, podman = runtime.podman, "the container runtime answers");
        Ok(known.insert(runtime).clone())
    }

    /// Forgets a runtime that did not answer: another version may listen there next time.
    async fn failed(&self, failed: Failed) -> ContainersError {
        if matches!(failed, Failed::Gone(_)) {
            *self.runtime.lock().await = None;
        }
        failed.plain()
    }

    async fn own(&self, runtime: &Runtime, grant: &Grant) -> Result<Vec<Listed>, ContainersError> {
        match owned::of(runtime, &self.sealer, &grant.owner, &self.config.node).await {
            Ok(own) => Ok(own),
            Err(failed) => Err(self.failed(failed).await),
        }
    }

    /// The runtime, and the container that a pack means.
    async fn find(&self, grant: &Grant, word: &str) -> Result<(Runtime, Listed), ContainersError> {
        let runtime = self.runtime().await?;
        let own = self.own(&runtime, grant).await?;
        let listed = owned::resolve(&own, word)?.clone();
        Ok((runtime, listed))
    }

    /// All containers of a pack, those that ended included.
    pub async fn list(&self, grant: &Grant) -> Result<Vec<Container>, ContainersError> {
        let runtime = self.runtime().await?;
        let mut list = Vec::new();
        for listed in self.own(&runtime, grant).await? {
            let code = match listed.state {
                State::Ended => inspected(&runtime, &listed.id).await.ok().and_then(|made| code(&made)),
                _ => None,
            };
            list.push(container(&listed, listed.state, code));
        }
        list.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        Ok(list)
    }

    /// One container.
    pub async fn inspect(&self, grant: &Grant, word: &str) -> Result<Container, ContainersError> {
        let (runtime, listed) = self.find(grant, word).await?;
        if listed.state != State::Ended {
            return Ok(container(&listed, listed.state, None));
        }
        let made = inspected(&runtime, &listed.id).await.map_err(|failed| unknown(failed, word))?;
        Ok(container(&listed, State::Ended, code(&made)))
    }

    /// Asks a container to end, and kills it when it has not within so many seconds.
    pub async fn stop(&self, pack: &str, grant: &Grant, word: &str, grace_secs: u32) -> Result<(), ContainersError> {
        let grace = grace_secs.min(STOP_SECS);
        let (runtime, listed) = self.find(grant, word).await?;
        tracing::info!(pack, container = %listed.id[..12], grace, "a container is stopped");
        stopped(&runtime, &listed.id, grace).await.map_err(|failed| unknown(failed, word))
    }

    /// Removes a container with what it wrote beside its mounts, killing it where it runs.
    pub async fn remove(&self, pack: &str, grant: &Grant, word: &str) -> Result<(), ContainersError> {
        let (runtime, listed) = self.find(grant, word).await?;
        tracing::info!(pack, container = %listed.id[..12], "a container is removed");
        removed(&runtime, &listed.id).await.map_err(|failed| unknown(failed, word))
    }

    /// Waits for a container's end; its status, where one is known.
    pub async fn wait(&self, share: &Share, grant: &Grant, word: &str) -> Result<Option<i32>, ContainersError> {
        let _place = share.attach(&self.attached)?;
        let (runtime, listed) = self.find(grant, word).await?;
        let mut code = None;
        loop {
            match inspected(&runtime, &listed.id).await {
                Ok(made) if ended(&made) => return Ok(self::code(&made)),
                Ok(_) => {}
                // It was removed as it ended.
                Err(failed) if failed.is_not_found() => return Ok(code),
                Err(failed) => return Err(self.failed(failed).await),
            }
            let link = runtime.lasting_link()?;
            let options = WaitContainerOptions { condition: "not-running".into() };
            let mut answers = Box::pin(link.docker.wait_container(&listed.id, Some(options)));
            // A runtime that hangs looks like a container that works: from time to time it is asked something that it must answer.
            match tokio::time::timeout(WAIT_TIME, answers.next()).await {
                Ok(Some(Ok(answer))) => code = i32::try_from(answer.status_code).ok(),
                Ok(Some(Err(bollard::errors::Error::DockerContainerWaitError { code: status, .. }))) => code = i32::try_from(status).ok(),
                Ok(Some(Err(error))) => match Failed::from(error) {
                    failed if failed.is_not_found() => return Ok(code),
                    Failed::Late(_) => {}
                    failed => return Err(self.failed(failed).await),
                },
                Ok(None) | Err(_) => {}
            }
            // One that says at once that it is over, and then that it is not, is not asked as fast as it answers.
            tokio::time::sleep(WAIT_AGAIN).await;
        }
    }

    /// What a container uses. Takes half a second, in which it is measured.
    pub async fn stats(&self, grant: &Grant, word: &str) -> Result<Stats, ContainersError> {
        let (runtime, listed) = self.find(grant, word).await?;
        let look = async || {
            let link = runtime.link()?;
            let options = StatsOptions { stream: false, one_shot: true };
            let mut answers = Box::pin(link.docker.stats(&listed.id, Some(options)));
            let answer = timed(RUNTIME_TIME, async {
                answers.next().await.unwrap_or_else(|| Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()))
            });
            let answer = answer.await.map_err(|failed| unknown(failed, word))?;
            let spent = answer.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage);
            Ok::<_, ContainersError>((spent, Instant::now(), answer))
        };
        let (before, since, _) = look().await?;
        tokio::time::sleep(STATS_TIME).await;
        let (after, until, answer) = look().await?;
        let spent = before.zip(after).map_or(0, |(before, after)| after.saturating_sub(before));
        let memory = answer.memory_stats.unwrap_or_default();
        Ok(Stats {
            cpu_percent: 100.0 * spent as f64 / (until - since).as_nanos().max(1) as f64,
            memory_used: memory.usage.unwrap_or(0),
            memory_limit: memory.limit,
            processes: answer.pids_stats.and_then(|processes| processes.current),
        })
    }

    /// The images on this machine that policy lets the pack run.
    pub async fn images(&self, grant: &Grant) -> Result<Vec<Image>, ContainersError> {
        let runtime = self.runtime().await?;
        let link = runtime.link()?;
        let listed = match timed(RUNTIME_TIME, link.docker.list_images(None::<ListImagesOptions>)).await {
            Ok(listed) => listed,
            Err(failed) => return Err(self.failed(failed).await),
        };
        let mut images = Vec::new();
        for image in listed {
            let names = image.repo_tags.iter().chain(&image.repo_digests).filter_map(|name| Reference::parse(name).ok());
            let granted = names.filter(|name| grant.images.iter().any(|pattern| pattern.covers(name)));
            let size = u64::try_from(image.size).unwrap_or(0);
            images.extend(granted.map(|name| Image { reference: name.to_string(), id: image.id.clone(), size }));
        }
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        images.dedup();
        Ok(images)
    }
}

fn container(listed: &Listed, state: State, exit_code: Option<i32>) -> Container {
    Container {
        id: listed.id.clone(),
        name: listed.label(NAME).to_owned(),
        image: listed.image.clone(),
        state,
        created: listed.number(CREATED).unwrap_or(0),
        exit_code,
        gpus: listed.gpus(),
    }
}

/// A container that was there a moment ago.
fn unknown(failed: Failed, word: &str) -> ContainersError {
    match failed.is_not_found() {
        true => ContainersError::NotFound(format!("the pack has no container `{}` any more", shown(word))),
        false => failed.plain(),
    }
}

async fn inspected(runtime: &Runtime, id: &str) -> Result<ContainerInspectResponse, Failed> {
    runtime.get(&format!("/containers/{id}/json")).await
}

fn ended(made: &ContainerInspectResponse) -> bool {
    use bollard::models::ContainerStateStatusEnum as Status;
    let status = made.state.as_ref().and_then(|state| state.status);
    match status {
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => true,
        None | Some(Status::EMPTY) => !runs(made),
        Some(_) => false,
    }
}

fn runs(made: &ContainerInspectResponse) -> bool {
    made.state.as_ref().and_then(|state| state.running) == Some(true)
}

fn code(made: &ContainerInspectResponse) -> Option<i32> {
    made.state.as_ref().filter(|_| ended(made))?.exit_code.and_then(|code| i32::try_from(code).ok())
}

/// Stops a container by its full id.
async fn stopped(runtime: &Runtime, id: &str, grace: u32) -> Result<(), Failed> {
    let link = runtime.link().map_err(|error| Failed::Other(error.to_string()))?;
    let options = StopContainerOptions { signal: None, t: i32::try_from(grace).ok() };
    let time = RUNTIME_TIME + std::time::Duration::from_secs(grace.into());
    timed(time, link.docker.stop_container(id, Some(options))).await
}

/// Removes a container by its full id, with the volumes that have no name.
async fn removed(runtime: &Runtime, id: &str) -> Result<(), Failed> {
    let link = runtime.link().map_err(|error| Failed::Other(error.to_string()))?;
    let options = RemoveContainerOptions { v: true, force: true, link: false };
    timed(RUNTIME_TIME, link.docker.remove_container(id, Some(options))).await
}

/// Looking at paths may hang (a dead network mount): it must not hang a runtime worker.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ContainersError> + Send + 'static) -> Result<T, ContainersError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(source) => Err(ContainersError::Failed(format!("a look at this machine was cut short: {source}"))),
    }
}

#[cfg(test)]
mod tests;
