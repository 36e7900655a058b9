//! Making a container: judged, made, looked at, started; and gone again where any of that fails.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bollard::query_parameters::{CreateContainerOptions, CreateImageOptions, StartContainerOptions};
use futures_util::StreamExt as _;
use outhaul_protocol::keys::random;
use tokio::time::Instant;

use super::create::{self, Permitted};
use super::dial::{Failed, Link, Runtime, timed};
use super::owned::{self, CREATED, GPUS, Listed, NAME, NODE, PACK, UNTIL};
use super::share::place;
use super::{
    Container, Containers, ContainersError, Grant, Spec, State, Wanted, blocking, check, gpus, inspected, kernel, libpod, now, removed,
};
use crate::limits::{CONTAINERS_KEPT, PULL_TIME, RUNTIME_TIME};
use crate::power::shown;

/// Where runtimes keep images and containers, whoever asks; what a runtime says of itself comes on top.
const STORES: [&str; 4] = ["/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/etc/docker"];

impl Containers {
    /// Runs a container. When this returns it was started; it goes on whatever becomes of the call.
    pub async fn run(self: &Arc<Self>, pack: &str, grant: &Grant, spec: Spec) -> Result<Container, ContainersError> {
        let permitted = self.permit(pack, grant, spec).await?;
        let runtime = self.runtime().await?;
        self.image(pack, grant, &runtime, &permitted).await?;
        // Its turn comes before anything goes on without the call.
        let turn = Arc::clone(&self.making).lock_owned().await;
        // In a task of its own: a call that is cancelled now must neither leave a container that nobody looked at nor one that is half made.
        let (me, pack, grant) = (Arc::clone(self), pack.to_owned(), grant.clone());
        let made = tokio::spawn(async move {
            let _turn = turn;
            me.make(&pack, &grant, &runtime, permitted).await
        });
        let made = made.await;
        made.unwrap_or_else(|error| Err(ContainersError::Failed(format!("making the container was cut short: {error}"))))
    }

    async fn permit(&self, pack: &str, grant: &Grant, spec: Spec) -> Result<Permitted, ContainersError> {
        let mut keep_out = grant.keep_out.clone();
        if !spec.mounts.is_empty() {
            let runtime = self.runtime().await?;
            keep_out.extend(STORES.iter().map(PathBuf::from));
            keep_out.push(store(&runtime).await?);
            keep_out.extend([runtime.socket.clone()]);
        }
        let (pack, grant) = (pack.to_owned(), grant.clone());
        blocking(move || {
            let keep_out: Vec<PathBuf> = keep_out.into_iter().map(|path| std::fs::canonicalize(&path).unwrap_or(path)).collect();
            create::judge(&pack, &grant, &keep_out, spec)
        })
        .await
    }

    /// Sees that the image is here, fetching it where policy lets.
    async fn image(&self, pack: &str, grant: &Grant, runtime: &Runtime, permitted: &Permitted) -> Result<(), ContainersError> {
        let image = permitted.image.to_string();
        let link = runtime.link()?;
        match timed(RUNTIME_TIME, link.docker.inspect_image(&image)).await {
            Ok(_) => return Ok(()),
            Err(failed) if failed.is_not_found() && grant.pull => {}
            Err(failed) if failed.is_not_found() => {
                return Err(ContainersError::NotFound(format!(
                    "image `{image}` is not on this machine, and policy does not let pack `{pack}` fetch it; on that machine: agent allow {pack} containers --pull"
                )));
            }
            Err(failed) => return Err(self.failed(failed).await),
        }
        let _place = place(&self.attached)?;
        tracing::info!(pack, image, "an image is fetched");
        fetch(&runtime.lasting_link()?, &image).await.map_err(|failed| match failed {
            Failed::Refused(_, why) => ContainersError::NotFound(format!("image `{image}` cannot be fetched: {why}")),
            failed => failed.plain(),
        })
    }

    /// Makes and starts what was judged. The caller has the lock: one at a time, so that nobody else takes the place or the GPUs it was found to have.
    async fn make(
        self: &Arc<Self>,
        pack: &str,
        grant: &Grant,
        runtime: &Runtime,
        permitted: Permitted,
    ) -> Result<Container, ContainersError> {
        let own = self.own(runtime, grant).await?;
        room(grant, &own, &permitted)?;
        let gpus = self.lend(grant, runtime, &own, &permitted.gpus).await?;
        let name = permitted.name.clone().unwrap_or_else(|| hex::encode(random::<6>()));
        let known = owned::runtime_name(&grant.owner, &self.config.node, &name);
        let made_at = now();
        let until = grant.time().map(|time| made_at.saturating_add(time.as_secs()));
        let labels = HashMap::from([
            (PACK.to_owned(), grant.owner.clone()),
            (NODE.into(), self.config.node.clone()),
            (NAME.into(), name.clone()),
            (GPUS.into(), gpus.join(",")),
            (CREATED.into(), made_at.to_string()),
            (UNTIL.into(), until.map(|until| until.to_string()).unwrap_or_default()),
        ]);
        let labels = self.sealer.seal(&known, labels);
        let id = self.created(runtime, &permitted, &known, labels, &gpus).await?;
        let begun = match self.still_free(runtime, &id, &gpus).await {
            Ok(()) => self.begun(pack, runtime, &permitted, &id, &gpus).await,
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            if let Err(failed) = removed(runtime, &id).await.or_else(|failed| if failed.is_not_found() { Ok(()) } else { Err(failed) }) {
                tracing::error!(container = %id[..12], reason = %failed.plain(), "a container that must not stay could not be removed");
            }
            return Err(error);
        }
        let image = permitted.image.to_string();
        tracing::info!(pack, container = %id[..12], name, image, gpus = gpus.join(","), mounts = permitted.binds.len(), "a container runs");
        self.watch(until);
        Ok(Container { id, name, image, state: State::Running, created: made_at, exit_code: None, gpus })
    }

    /// Starts a container that is what it was to be.
    async fn begun(&self, pack: &str, runtime: &Runtime, asked: &Permitted, id: &str, gpus: &[String]) -> Result<(), ContainersError> {
        let looked = match self.looked_at(runtime, asked, id, gpus).await {
            Err(failed) => return Err(self.failed(failed).await),
            Ok(looked) => looked,
        };
        if let Some(why) = looked {
            tracing::warn!(pack, container = %id[..12], why, "the container runtime made more of a container than was asked; it is removed");
            return Err(ContainersError::Denied(format!(
                "the container runtime of this machine made the container otherwise than it was asked, so that it was removed: {why}"
            )));
        }
        let link = runtime.link()?;
        match timed(RUNTIME_TIME, link.docker.start_container(id, None::<StartContainerOptions>)).await {
            Ok(()) => Ok(()),
            Err(failed) => Err(self.failed(failed).await),
        }
    }

    /// Finds GPUs that nobody has, among those that policy lets the pack have.
    async fn lend(&self, grant: &Grant, runtime: &Runtime, own: &[Listed], wanted: &Wanted) -> Result<Vec<String>, ContainersError> {
        if wanted.count() == 0 {
            return Ok(Vec::new());
        }
        let now = now();
        let has: usize = own.iter().filter(|listed| gpus::holds(listed, now)).map(|listed| listed.gpus().len()).sum();
        if has as u64 + wanted.count() > u64::from(grant.gpus) {
            return Err(ContainersError::Limit(format!(
                "containers of the pack have {has} GPUs, and this machine's policy lets it have {}; {} more are too many",
                grant.gpus,
                wanted.count()
            )));
        }
        let asked = Arc::clone(&self.config.gpus);
        let machine = blocking(move || asked.uuids().map_err(ContainersError::NotFound)).await?;
        let all = match owned::labelled(runtime, GPUS.to_owned()).await {
            Ok(all) => all,
            Err(failed) => return Err(self.failed(failed).await),
        };
        let holders: Vec<Listed> = all.into_iter().map(|(_, listed)| listed).filter(|listed| gpus::holds(listed, now)).collect();
        gpus::choose(wanted, &machine, &holders, own).inspect_err(|_| {
            // To the owner all of it; a pack hears of no other's.
            for holder in &holders {
                tracing::info!(container = %holder.id[..12], of = %shown(holder.label(PACK)), gpus = %shown(holder.label(GPUS)), "a container has GPUs");
            }
        })
    }

    /// Whether the GPUs of a container that was made are its own. Another agent may have found the same ones free at the same time: the
    /// container that the runtime made first keeps them.
    async fn still_free(&self, runtime: &Runtime, id: &str, gpus: &[String]) -> Result<(), ContainersError> {
        if gpus.is_empty() {
            return Ok(());
        }
        let all = match owned::labelled(runtime, GPUS.to_owned()).await {
            Ok(all) => all,
            Err(failed) => return Err(self.failed(failed).await),
        };
        let now = now();
        let holders: Vec<Listed> = all.into_iter().map(|(_, listed)| listed).filter(|listed| gpus::holds(listed, now)).collect();
        match gpus::earlier(id, gpus, &holders) {
            None => Ok(()),
            Some(uuid) => Err(ContainersError::Conflict(format!("GPU `{}` was taken by another container meanwhile", shown(&uuid)))),
        }
    }

    async fn created(
        &self,
        runtime: &Runtime,
        permitted: &Permitted,
        known: &str,
        labels: HashMap<String, String>,
        gpus: &[String],
    ) -> Result<String, ContainersError> {
        // To Podman's other interface, whose mounts bring along what is mounted below them, GPUs mean nothing.
        let made = if runtime.podman && !(gpus.is_empty() && permitted.binds.is_empty()) {
            libpod::create(runtime, permitted, known, labels, gpus).await
        } else {
            let options = CreateContainerOptions { name: Some(known.to_owned()), ..CreateContainerOptions::default() };
            let link = runtime.link()?;
            timed(RUNTIME_TIME, link.docker.create_container(Some(options), permitted.body(labels, gpus))).await.map(|made| made.id)
        };
        match made {
            Ok(id) if owned::is_id(&id) => Ok(id),
            Ok(id) => Err(ContainersError::Failed(format!("the container runtime made `{}`, which is no container's id", shown(&id)))),
            Err(Failed::Refused(409, _)) => {
                let name = permitted.name.clone().unwrap_or_default();
                Err(ContainersError::Conflict(format!("the pack has a container `{}` already; remove it first", shown(&name))))
            }
            Err(failed) => Err(self.failed(failed).await),
        }
    }

    /// What is wrong with what came of the request, before it does anything.
    async fn looked_at(&self, runtime: &Runtime, asked: &Permitted, id: &str, gpus: &[String]) -> Result<Option<String>, Failed> {
        let mut made = inspected(runtime, id).await?;
        if let Some(why) = check::wrong(&made, asked, gpus, runtime.podman) {
            return Ok(Some(why));
        }
        // Podman leaves out of its answers what its settings mount everywhere. It can set a container up without starting it: then the
        // kernel tells.
        if runtime.podman {
            libpod::init(runtime, id).await?;
            made = inspected(runtime, id).await?;
        }
        if made.id.as_deref() != Some(id) {
            return Err(Failed::Other("it told of another container than it made".into()));
        }
        Ok(check::wrong(&made, asked, gpus, runtime.podman).or_else(|| kernel::wrong(&made, asked, gpus)))
    }
}

/// Whether the pack may have one more.
fn room(grant: &Grant, own: &[Listed], permitted: &Permitted) -> Result<(), ContainersError> {
    if let Some(name) = permitted.name.as_ref().filter(|name| own.iter().any(|listed| listed.label(NAME) == **name)) {
        return Err(ContainersError::Conflict(format!("the pack has a container `{}` already; remove it first", shown(name))));
    }
    let running = own.iter().filter(|listed| listed.state != State::Ended).count();
    if running >= grant.max {
        return Err(ContainersError::Limit(format!(
            "{running} containers of the pack are running, which is as many as this machine's policy lets run at once"
        )));
    }
    if own.len() >= CONTAINERS_KEPT {
        return Err(ContainersError::Limit(format!(
            "the pack has {} containers, of which all but {running} ended: remove some",
            own.len()
        )));
    }
    Ok(())
}

/// Where a runtime says that it keeps everything. One that does not say it mounts nothing: the folder could be that one.
async fn store(runtime: &Runtime) -> Result<PathBuf, ContainersError> {
    let link = runtime.link()?;
    let info = timed(RUNTIME_TIME, link.docker.info()).await.map_err(Failed::plain)?;
    let silent = || {
        ContainersError::Failed("the container runtime of this machine does not say where its store is, so that nothing is mounted".into())
    };
    info.docker_root_dir.map(PathBuf::from).filter(|path| path.is_absolute()).ok_or_else(silent)
}

/// Fetches an image; its progress is only counted.
async fn fetch(link: &Link, image: &str) -> Result<(), Failed> {
    let options = CreateImageOptions { from_image: Some(image.to_owned()), ..CreateImageOptions::default() };
    let mut steps = Box::pin(link.docker.create_image(Some(options), None, None));
    let over = Instant::now() + PULL_TIME;
    loop {
        match tokio::time::timeout_at(over, steps.next()).await {
            Ok(Some(Ok(_))) => link.go_on(),
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) => return Ok(()),
            Err(_) => return Err(Failed::Late(PULL_TIME)),
        }
    }
}
