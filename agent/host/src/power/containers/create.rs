//! From what a pack asks to what the runtime is told. The request is built here from nothing: what a pack cannot say, it cannot ask.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum as Cgroups, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum as Propagation, MountType, RestartPolicy, RestartPolicyNameEnum,
};

use serde_json::{Value as Json, json};

use super::grant::{Folder, Grant, Network, is_name, never};
use super::image::Reference;
use super::{ContainersError, Spec, Wanted};
use crate::limits::{CONTAINER_CPUS_LEAST, CONTAINER_LOG, CONTAINER_MOUNTS, CONTAINER_PIDS, CONTAINER_SHM_MIB, CONTAINER_SPEC};
use crate::power::{shell_word, shown};

/// A folder of the machine in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    /// canonical
    pub(super) source: PathBuf,
    pub(super) target: String,
    pub(super) writable: bool,
}

/// What policy lets a container be. [`judge`] is its only maker.
#[derive(Debug, Clone)]
pub(super) struct Permitted {
    pub(super) image: Reference,
    pub(super) binds: Vec<Bind>,
    pub(super) network: String,
    pub(super) memory: i64,
    pub(super) nano_cpus: i64,
    pub(super) shm: i64,
    pub(super) capabilities: Vec<String>,
    entrypoint: Option<Vec<String>>,
    command: Vec<String>,
    env: Vec<(String, String)>,
    user: Option<String>,
    workdir: Option<String>,
    remove: bool,
    pub(super) name: Option<String>,
    pub(super) gpus: Wanted,
}

/// Judges everything about a container but which GPUs are free. `sockets` are files that no folder may hold, canonical. Looks at paths, so
/// that it may block.
pub(super) fn judge(pack: &str, grant: &Grant, keep_out: &[PathBuf], spec: Spec) -> Result<Permitted, ContainersError> {
    let policy = Judge { pack, grant };
    let image = policy.image(&spec.image)?;
    well_formed(&spec)?;
    let network = policy.network(spec.network.as_deref())?;
    let memory_mib =
        policy.within("memory", "--memory-mib", f64::from(spec.memory_mib.unwrap_or(grant.memory_mib)), f64::from(grant.memory_mib))?;
    let cpus = policy.within("processors", "--cpus", spec.cpus.unwrap_or(grant.cpus), grant.cpus)?;
    // What is rounded to nothing is no ceiling: to runtimes zero means all of them.
    if cpus < CONTAINER_CPUS_LEAST {
        return Err(ContainersError::Failed(format!("{cpus} is no amount of processors: {CONTAINER_CPUS_LEAST} is the least")));
    }
    let shm_mib = spec.shm_mib.unwrap_or(CONTAINER_SHM_MIB.min(grant.memory_mib));
    let shm_mib = policy.within("shared memory", "--memory-mib", f64::from(shm_mib), f64::from(grant.memory_mib))?;
    policy.gpus(&spec.gpus)?;
    let binds = spec.mounts.iter().map(|mount| policy.bind(keep_out, mount)).collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) = binds.iter().enumerate().find(|(at, bind)| binds[..*at].iter().any(|other| other.target == bind.target)) {
        return Err(ContainersError::Failed(format!("two mounts are at `{}`", shown(&twice.1.target))));
    }
    Ok(Permitted {
        image,
        binds,
        network,
        memory: mib(memory_mib),
        nano_cpus: (cpus * 1e9) as i64,
        shm: mib(shm_mib),
        capabilities: grant.capabilities.iter().map(|capability| capability.name().to_owned()).collect(),
        entrypoint: spec.entrypoint,
        command: spec.command,
        env: spec.env,
        user: spec.user,
        workdir: spec.workdir,
        remove: spec.remove,
        name: spec.name,
        gpus: spec.gpus,
    })
}

fn mib(mib: f64) -> i64 {
    (mib as i64) << 20
}

struct Judge<'a> {
    pack: &'a str,
    grant: &'a Grant,
}

impl Judge<'_> {
    fn denied(&self, what: &str, remedy: &str) -> ContainersError {
        let pack = self.pack;
        ContainersError::Denied(format!(
            "this machine's policy does not let pack `{pack}` {what}; on that machine: agent allow {pack} containers {remedy}"
        ))
    }

    fn image(&self, text: &str) -> Result<Reference, ContainersError> {
        let image = Reference::parse(text).map_err(ContainersError::Failed)?;
        match self.grant.images.iter().any(|pattern| pattern.covers(&image)) {
            true => Ok(image),
            false => Err(self.denied(&format!("run image `{image}`"), &image.to_string())),
        }
    }

    fn network(&self, name: Option<&str>) -> Result<String, ContainersError> {
        let name = name.unwrap_or(Network::NONE);
        if name == Network::NONE || self.grant.networks.iter().any(|network| network.name() == name) {
            return Ok(name.to_owned());
        }
        match Network::parse(name) {
            Ok(network) => {
                let word = shell_word(network.name());
                Err(self.denied(&format!("put containers on network `{network}`"), &format!("--network {word}")))
            }
            Err(why) => Err(ContainersError::Denied(why)),
        }
    }

    fn within(&self, what: &str, flag: &str, wanted: f64, most: f64) -> Result<f64, ContainersError> {
        if !wanted.is_finite() || wanted <= 0.0 {
            return Err(ContainersError::Failed(format!("{wanted} is no amount of {what}")));
        }
        match wanted <= most {
            true => Ok(wanted),
            false => {
                Err(self
                    .denied(&format!("give a container that much {what}: {wanted}, where {most} is the most"), &format!("{flag} {wanted}")))
            }
        }
    }

    /// Whether so many may ever be had; which are free is another question.
    fn gpus(&self, wanted: &Wanted) -> Result<(), ContainersError> {
        let count = wanted.count();
        match count <= u64::from(self.grant.gpus) {
            true => Ok(()),
            false => {
                let granted = self.grant.gpus;
                Err(self.denied(&format!("use {count} GPUs, but {granted}"), &format!("--gpus {count}")))
            }
        }
    }

    /// A mount's source as it really is, which a granted folder holds.
    fn bind(&self, keep_out: &[PathBuf], mount: &super::Mount) -> Result<Bind, ContainersError> {
        let (source, target) = (Path::new(&mount.source), target(&mount.target)?);
        let said = shown(&mount.source);
        if !source.is_absolute() || mount.source.contains('\0') {
            return Err(ContainersError::Failed(format!("`{said}` is not an absolute path")));
        }
        let letter = if mount.writable { 'w' } else { 'r' };
        let verb = if mount.writable { "change" } else { "see" };
        let remedy = format!("--mount {}", shell_word(&format!("{}:{letter}", mount.source)));
        let denied = || self.denied(&format!("let containers {verb} `{said}`"), &remedy);
        // Before the disk is asked, so that a pack cannot ask what there is where nothing is granted.
        if source.components().any(|step| step == Component::ParentDir)
            || !self.grant.mounts.iter().any(|folder| source.starts_with(&folder.path))
        {
            return Err(denied());
        }
        self.steady_as_written(source, &said)?;
        let real = std::fs::canonicalize(source).map_err(|error| ContainersError::NotFound(format!("`{said}`: {error}")))?;
        let really = |folder: &&Folder| {
            self.steady_as_written(&folder.path, &said).is_ok()
                && std::fs::canonicalize(&folder.path).is_ok_and(|path| real.starts_with(path))
        };
        let holding: Vec<&Folder> = self.grant.mounts.iter().filter(really).collect();
        if !holding.iter().any(|folder| folder.writable || !mount.writable) {
            return Err(denied());
        }
        if let Some(why) = never(&real) {
            return Err(ContainersError::Denied(format!("containers may never see `{said}`: {why}")));
        }
        // Runtimes read commas and colons in their own words for mounts, and what is not text cannot be said to them.
        if real.to_str().is_none_or(|path| path.contains(|c: char| c.is_control() || ":,".contains(c))) {
            return Err(ContainersError::Denied(format!(
                "containers may never see `{said}`: where it really lies has a colon, a comma or something else that no runtime can be told in its path"
            )));
        }
        if keep_out.iter().any(|own| real.starts_with(own) || own.starts_with(&real)) {
            return Err(ContainersError::Denied(format!(
                "containers may never see `{said}`: it holds what is the agent's or the container runtime's own"
            )));
        }
        if !std::fs::metadata(&real).is_ok_and(|meta| meta.is_dir() || meta.is_file()) {
            return Err(ContainersError::Denied(format!("containers may never see `{said}`: it is neither a folder nor a file")));
        }
        self.steady(&real, &said)?;
        Ok(Bind { source: real, target, writable: mount.writable })
    }

    /// Folders that containers may change, as they are written.
    fn changing(&self) -> impl Iterator<Item = &Path> {
        let own = self.grant.mounts.iter().filter(|folder| folder.writable).map(|folder| folder.path.as_path());
        own.chain(self.grant.unsteady.iter().map(PathBuf::as_path))
    }

    /// Refuses a path that lies in a folder which containers may change, or leads through one: they decided where it leads.
    fn steady_as_written(&self, path: &Path, said: &str) -> Result<(), ContainersError> {
        let within = self.changing().find(|folder| path.starts_with(folder) && path != *folder).map(Path::to_owned);
        let within = match within {
            Some(folder) => Some(folder),
            None => {
                let real = |folder: &Path| Some((std::fs::canonicalize(folder).ok()?, folder.to_owned()));
                let changing: Vec<_> = self.changing().filter_map(real).collect();
                let passed = passed(path).map_err(|error| ContainersError::NotFound(format!("`{said}`: {error}")))?;
                let through = |folder: &Path| passed.iter().any(|parent| parent.starts_with(folder));
                changing.into_iter().find(|(real, _)| through(real)).map(|(_, written)| written)
            }
        };
        within.map_or(Ok(()), |folder| {
            Err(ContainersError::Denied(format!(
                "`{said}` lies in `{}` or leads through it, which containers may change, so that they could make something else of it: mount that folder itself",
                folder.display()
            )))
        })
    }

    /// The runtime looks a path up again after us. Who may write beside it could put a link in its place in between, and containers may
    /// write wherever a folder is granted so: what lies deeper in one cannot be mounted by itself.
    fn steady(&self, real: &Path, said: &str) -> Result<(), ContainersError> {
        let inside = |folder: &&Path| std::fs::canonicalize(folder).is_ok_and(|path| real.starts_with(&path) && real != path);
        match self.changing().find(inside) {
            None => Ok(()),
            Some(folder) => Err(ContainersError::Denied(format!(
                "`{said}` lies in `{}`, which containers may change, and could become something else before it is mounted: mount that folder itself",
                folder.display()
            ))),
        }
    }
}

/// Links that a path may lead through, as many as the kernel follows.
const LINKS: usize = 40;

/// The folders in which names are looked up on the way to where a path leads, as they really are.
fn passed(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let steps = |path: &Path| path.components().rev().map(|step| step.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut here, mut left, mut passed, mut links) = (PathBuf::from("/"), steps(path), Vec::new(), 0);
    while let Some(step) = left.pop() {
        if step == "/" {
            here = PathBuf::from("/");
            continue;
        }
        if step == "." {
            continue;
        }
        if step == ".." {
            here.pop();
            continue;
        }
        passed.push(here.clone());
        let next = here.join(step);
        if !std::fs::symlink_metadata(&next)?.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(std::io::Error::other("too many links"));
        }
        left.extend(steps(&std::fs::read_link(&next)?));
    }
    Ok(passed)
}

/// Where a container sees a folder.
fn target(text: &str) -> Result<String, ContainersError> {
    let path = Path::new(text);
    let steps = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let bad = |why: &str| Err(ContainersError::Failed(format!("nothing can be mounted at `{}`: {why}", shown(text))));
    // Colons and commas mean something in the words that runtimes store mounts in.
    if !path.is_absolute() || !path.components().all(steps) || text.contains(|c: char| c.is_control() || ":,".contains(c)) {
        return bad("it is not an absolute path without `.`, `..`, colons and commas");
    }
    let plain: PathBuf = path.components().collect();
    if plain == Path::new("/") || ["/proc", "/sys", "/dev"].iter().any(|own| plain.starts_with(own)) {
        return bad("the container's own system is there");
    }
    Ok(plain.display().to_string())
}

/// Variables that NVIDIA's runtime takes as orders, but for the one that asks for libraries only: an image, or a pack, would have any GPU.
pub(super) const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
const HARMLESS: &str = "NVIDIA_DRIVER_CAPABILITIES";
/// Those by which an image could ask for devices beside GPUs: set over with nothing.
const BESIDE: [&str; 2] = ["NVIDIA_MOFED", "NVIDIA_IMEX_CHANNELS"];

/// What makes no sense whatever policy says.
fn well_formed(spec: &Spec) -> Result<(), ContainersError> {
    let failed = |why: String| Err(ContainersError::Failed(why));
    let said = [Some(&spec.image), spec.name.as_ref(), spec.user.as_ref(), spec.workdir.as_ref()].into_iter().flatten();
    let said =
        said.chain(spec.entrypoint.iter().flatten()).chain(&spec.command).chain(spec.env.iter().flat_map(|(name, value)| [name, value]));
    let said = said.chain(spec.mounts.iter().flat_map(|mount| [&mount.source, &mount.target]));
    let (mut bytes, mut nul) = (0, false);
    for text in said {
        bytes += text.len() + 8;
        nul |= text.contains('\0');
    }
    if bytes > CONTAINER_SPEC || spec.mounts.len() > CONTAINER_MOUNTS {
        return failed(format!("a container is described in at most {CONTAINER_SPEC} bytes and {CONTAINER_MOUNTS} mounts"));
    }
    if nul {
        return failed("nothing about a container can hold a zero byte".into());
    }
    if let Some(name) = spec.name.as_ref().filter(|name| !is_name(name) || super::owned::is_id(name)) {
        return failed(format!("`{}` is no name for a container: letters, digits, `_`, `.` and `-`, at most 63", shown(name)));
    }
    variables(&spec.env)?;
    user(spec.user.as_deref())?;
    workdir(spec.workdir.as_deref())
}

/// Bytes of a path, as the kernel counts them.
const PATH_BYTES: usize = 4_096;

/// Where a program may start. Through `/proc` old runtimes led it to folders of the machine that they had open, and `/dev/fd` leads there.
pub(super) fn workdir(workdir: Option<&str>) -> Result<(), ContainersError> {
    let Some(text) = workdir else { return Ok(()) };
    let path = Path::new(text);
    let plain = path.components().all(|step| matches!(step, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || text.len() > PATH_BYTES || text.contains(char::is_control) {
        return Err(ContainersError::Failed(format!("nothing can start in `{}`: it is not an absolute path without `..`", shown(text))));
    }
    match ["/proc", "/dev", "/sys"].iter().any(|own| path.starts_with(own)) {
        true => Err(ContainersError::Failed(format!("nothing can start in `{}`: the kernel's own files are there", shown(text)))),
        false => Ok(()),
    }
}

/// Whether variables may be set in a container. Their values are nobody's to tell.
pub(super) fn variables(env: &[(String, String)]) -> Result<(), ContainersError> {
    for (name, _) in env {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if name.is_empty() || !plain || name.as_bytes()[0].is_ascii_digit() {
            return Err(ContainersError::Failed(format!("`{}` is no name for a variable", shown(name))));
        }
        if name.starts_with("NVIDIA_") && name != HARMLESS {
            return Err(ContainersError::Denied(format!(
                "`{name}` cannot be set: GPUs are asked for with `gpus`, so that no two containers share one"
            )));
        }
    }
    Ok(())
}

/// A user of the container, by name or number, and a group.
pub(super) fn user(user: Option<&str>) -> Result<(), ContainersError> {
    let Some(user) = user else { return Ok(()) };
    let plain = |part: &str| part.len() <= 32 && is_name(part.trim_start_matches('_'));
    match user.split_once(':').map_or_else(|| plain(user), |(user, group)| plain(user) && plain(group)) {
        true => Ok(()),
        false => Err(ContainersError::Failed(format!("`{}` is no user", shown(user)))),
    }
}

impl Permitted {
    /// The request to create it. Nothing that a runtime's settings could decide is left to them.
    pub(super) fn body(&self, labels: HashMap<String, String>, gpus: &[String]) -> ContainerCreateBody {
        let mut env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        // Over what the image says: images for GPUs ask for all of them.
        env.extend(BESIDE.iter().map(|name| format!("{name}=")));
        env.push(format!("{VISIBLE}={}", if gpus.is_empty() { "void".to_owned() } else { gpus.join(",") }));
        ContainerCreateBody {
            image: Some(self.image.to_string()),
            entrypoint: self.entrypoint.clone(),
            cmd: Some(self.command.clone()).filter(|command| !command.is_empty()),
            env: Some(env),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            labels: Some(labels),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.host(gpus)),
            ..ContainerCreateBody::default()
        }
    }

    /// The same in Podman's own words, but for name and devices.
    pub(super) fn generator(&self, labels: HashMap<String, String>, gpus: &[String]) -> Json {
        let own = json!({"nsmode": "private"});
        let mut env: HashMap<&str, &str> = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let visible = if gpus.is_empty() { "void".to_owned() } else { gpus.join(",") };
        env.extend(BESIDE.iter().map(|name| (*name, "")));
        env.insert(VISIBLE, &visible);
        let mut body = json!({
            "image": self.image.to_string(),
            "env": env,
            "labels": labels,
            "terminal": false,
            "stdin": false,
            "privileged": false,
            "no_new_privileges": true,
            "cap_drop": ["ALL"],
            "cap_add": self.capabilities,
            "pidns": own, "ipcns": own, "utsns": own, "cgroupns": own,
            "netns": {"nsmode": if self.network == Network::NONE { "none" } else { "bridge" }},
            "shm_size": self.shm,
            "remove": self.remove,
            "restart_policy": "no",
            "log_configuration": {"driver": "k8s-file", "options": {"max-size": CONTAINER_LOG}},
            "resource_limits": {
                "memory": {"limit": self.memory, "swap": self.memory},
                "cpu": {"quota": self.nano_cpus / 10_000, "period": 100_000},
                "pids": {"limit": CONTAINER_PIDS},
            },
            "mounts": self.binds.iter().map(Bind::generator).collect::<Vec<_>>(),
        });
        if self.network != Network::NONE && self.network != "bridge" {
            body["Networks"] = json!({self.network.clone(): {}});
        }
        let words =
            [("entrypoint", self.entrypoint.clone()), ("command", Some(self.command.clone()).filter(|command| !command.is_empty()))];
        for (key, words) in words.into_iter().filter_map(|(key, words)| Some((key, words?))) {
            body[key] = json!(words);
        }
        for (key, text) in
            [("user", &self.user), ("work_dir", &self.workdir)].into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?)))
        {
            body[key] = json!(text);
        }
        body
    }

    fn host(&self, gpus: &[String]) -> HostConfig {
        let log = HashMap::from([("max-size".to_owned(), CONTAINER_LOG.to_owned()), ("max-file".into(), "2".into())]);
        let requests = DeviceRequest {
            driver: Some("nvidia".into()),
            device_ids: Some(gpus.to_vec()),
            capabilities: Some(vec![vec!["gpu".into()]]),
            ..DeviceRequest::default()
        };
        HostConfig {
            network_mode: Some(self.network.clone()),
            mounts: Some(self.binds.iter().map(Bind::mount).collect()),
            memory: Some(self.memory),
            // The same: no swap beyond it.
            memory_swap: Some(self.memory),
            nano_cpus: Some(self.nano_cpus),
            pids_limit: Some(CONTAINER_PIDS),
            shm_size: Some(self.shm),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(self.capabilities.clone()).filter(|kept| !kept.is_empty()),
            security_opt: Some(vec!["no-new-privileges".into()]),
            privileged: Some(false),
            ipc_mode: Some("private".into()),
            cgroupns_mode: Some(Cgroups::PRIVATE),
            publish_all_ports: Some(false),
            auto_remove: Some(self.remove),
            log_config: Some(HostConfigLogConfig { typ: Some("json-file".into()), config: Some(log) }),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            device_requests: Some(vec![requests]).filter(|_| !gpus.is_empty()),
            ..HostConfig::default()
        }
    }
}

impl Bind {
    fn generator(&self) -> Json {
        let options = ["bind", "rprivate", if self.writable { "rw" } else { "ro" }];
        json!({"type": "bind", "source": self.source, "destination": self.target, "options": options})
    }

    fn mount(&self) -> Mount {
        Mount {
            typ: Some(MountType::BIND),
            source: Some(self.source.display().to_string()),
            target: Some(self.target.clone()),
            read_only: Some(!self.writable),
            // Without what is mounted below: that was not judged, and may stay writable.
            bind_options: Some(MountBindOptions {
                propagation: Some(Propagation::RPRIVATE),
                non_recursive: Some(true),
                ..MountBindOptions::default()
            }),
            ..Mount::default()
        }
    }
}
