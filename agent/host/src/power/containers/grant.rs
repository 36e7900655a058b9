//! What the owner writes: which images, folders, networks and devices, and how much of the machine.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::image::Pattern;
use crate::limits::{CONTAINER_CPUS, CONTAINER_CPUS_LEAST, CONTAINER_GPUS, CONTAINER_MIB, CONTAINER_SECS, CONTAINERS};
use crate::power::shown;

/// Containers of one pack: `[packs.NAME] containers = { … }` of `agent.toml`. The default grants nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Grant {
    /// Images it may run.
    pub images: Vec<Pattern>,
    /// Folders that containers may see.
    pub mounts: Vec<Folder>,
    /// Networks that containers may join, beside none.
    pub networks: Vec<Network>,
    /// GPUs that its containers may have, all together.
    pub gpus: u32,
    /// MiB of memory that one container may have.
    pub memory_mib: u32,
    /// Processors that one container may use.
    pub cpus: f64,
    /// Containers that may run at once.
    pub max: usize,
    /// Seconds that a container may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_secs: Option<u64>,
    /// Whether an image that is not here may be fetched.
    pub pull: bool,
    /// What root may do in a container beyond any other user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// Whose containers they are. Who grants decides, so that it outlives versions and is never two packs'.
    #[serde(skip)]
    pub owner: String,
    /// Folders that no mount may reach, canonical: the agent's own.
    #[serde(skip)]
    pub keep_out: Vec<PathBuf>,
    /// Folders that containers of other grants may change, as they are written: what lies in one of them leads anywhere.
    #[serde(skip)]
    pub unsteady: Vec<PathBuf>,
}

impl Default for Grant {
    fn default() -> Self {
        Grant {
            images: Vec::new(),
            mounts: Vec::new(),
            networks: Vec::new(),
            gpus: 0,
            memory_mib: 1_024,
            cpus: 1.0,
            max: 4,
            max_secs: None,
            pull: false,
            capabilities: Vec::new(),
            owner: String::new(),
            keep_out: Vec::new(),
            unsteady: Vec::new(),
        }
    }
}

impl Grant {
    /// How long a container may run.
    pub(super) fn time(&self) -> Option<Duration> {
        self.max_secs.map(Duration::from_secs)
    }
}

#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "{ images = [\"ghcr.io/acme/*\"], mounts = [\"/srv/data:r\"], networks = […], gpus = …, memory_mib = …, cpus = …, max = …, max_secs = …, pull = …, capabilities = […] }"
)]
struct Written {
    images: Vec<Pattern>,
    mounts: Vec<Folder>,
    networks: Vec<Network>,
    gpus: u32,
    memory_mib: u32,
    cpus: f64,
    max: usize,
    max_secs: Option<u64>,
    pull: bool,
    capabilities: Vec<Capability>,
}

impl Default for Written {
    fn default() -> Self {
        let Grant { images, mounts, networks, gpus, memory_mib, cpus, max, max_secs, pull, capabilities, .. } = Grant::default();
        Written { images, mounts, networks, gpus, memory_mib, cpus, max, max_secs, pull, capabilities }
    }
}

impl TryFrom<Written> for Grant {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { images, mounts, networks, gpus, memory_mib, cpus, max, max_secs, pull, capabilities } = written;
        let ranges = [
            ("gpus", u64::from(gpus), 0, u64::from(CONTAINER_GPUS)),
            ("memory_mib", u64::from(memory_mib), 8, u64::from(CONTAINER_MIB)),
            ("max", max as u64, 1, CONTAINERS as u64),
            ("max_secs", max_secs.unwrap_or(1), 1, CONTAINER_SECS),
        ];
        if let Some((name, value, least, most)) = ranges.into_iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            return Err(format!("{name}: {value} is not between {least} and {most}"));
        }
        if !(CONTAINER_CPUS_LEAST..=CONTAINER_CPUS).contains(&cpus) {
            return Err(format!("cpus: {cpus} is not between {CONTAINER_CPUS_LEAST} and {CONTAINER_CPUS}"));
        }
        if let Some(twice) =
            mounts.iter().enumerate().find(|(number, mount)| mounts[..*number].iter().any(|other| other.path == mount.path))
        {
            return Err(format!("`{}` is named twice", twice.1.path.display()));
        }
        // Whoever may write in a folder decides where what lies in it leads.
        let below = |mount: &Folder, holder: &Folder| holder.writable && mount.path != holder.path && mount.path.starts_with(&holder.path);
        if let Some((mount, holder)) =
            mounts.iter().find_map(|mount| mounts.iter().find(|holder| below(mount, holder)).map(|holder| (mount, holder)))
        {
            return Err(format!(
                "`{}` lies in `{}`, which containers may change, and could become something else before it is mounted: grant only one of them",
                mount.path.display(),
                holder.path.display()
            ));
        }
        Ok(Grant { images, mounts, networks, gpus, memory_mib, cpus, max, max_secs, pull, capabilities, ..Grant::default() })
    }
}

macro_rules! as_text {
    ($($name:ident)*) => { $(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $name::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )* };
}

as_text! { Folder Network Capability }

/// A folder that containers may see, with all below it: `/srv/data:r`, or `/srv/out:w` to change it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Folder {
    /// Where it is: absolute.
    pub path: PathBuf,
    /// Whether what is in it may be changed.
    pub writable: bool,
}

impl Folder {
    /// Reads a folder and what may be done with it; `r` where nothing is said.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, writable) = match text.rsplit_once(':') {
            Some((path, "r")) => (path, false),
            Some((path, "w")) => (path, true),
            Some(_) => return Err(format!("`{}` is not a folder with `:r` or `:w` behind it", shown(text))),
            None => (text, false),
        };
        let plain = Path::new(path);
        let steps = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !plain.is_absolute() || !plain.components().all(steps) || path.contains(|c: char| c.is_control()) {
            return Err(format!("`{}` is not an absolute path without `.` and `..`", shown(path)));
        }
        let path: PathBuf = plain.components().collect();
        match never(&path) {
            Some(why) => Err(format!("`{}` can never be granted: {why}", shown(&path.display().to_string()))),
            None => Ok(Folder { path, writable }),
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), if self.writable { 'w' } else { 'r' })
    }
}

/// Where the kernel, devices and sockets are: through any of them a container reaches the machine.
const NEVER: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/var/run"];

/// Why no container may see a path, whoever grants it.
pub(super) fn never(path: &Path) -> Option<&'static str> {
    if path == Path::new("/") {
        return Some("it is the whole machine");
    }
    let holds = |never: &&str| path.starts_with(never) || Path::new(never).starts_with(path);
    NEVER.iter().any(holds).then_some("the kernel, devices or sockets of this machine are in it")
}

/// A network by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(String);

/// Words that runtimes read as something else than a network's name: the machine's own network, another container's, or a choice of theirs.
const NO_NETWORK: [&str; 8] = ["host", "container", "ns", "default", "private", "pod", "slirp4netns", "pasta"];

impl Network {
    /// The network that has nobody in it.
    pub const NONE: &'static str = "none";

    /// Reads a network's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if NO_NETWORK.contains(&text) || text.split_once(':').is_some_and(|(word, _)| NO_NETWORK.contains(&word)) {
            return Err(format!("network `{}` can never be granted: a container would be on the network of something else", shown(text)));
        }
        match is_name(text) {
            true => Ok(Network(text.to_owned())),
            false => Err(format!("`{}` is not the name of a network", shown(text))),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether runtimes take a text as the name of something.
pub(super) fn is_name(text: &str) -> bool {
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// A right that root keeps in a container. Only those that end at the container's own files, users and ports can be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(String);

/// What images of servers that begin as root need: to hand over files and become another user. What runtimes leave root beyond that makes
/// devices, forges packets and writes to the machine's audit log.
const CAPABILITIES: [&str; 11] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"];

impl Capability {
    /// Reads a capability's name, with `CAP_` before it or without.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("CAP_").unwrap_or(text);
        let known = CAPABILITIES.iter().find(|known| **known == name);
        let all = || CAPABILITIES.join(", ");
        known
            .map(|name| Capability((*name).to_owned()))
            .ok_or_else(|| format!("capability `{}` cannot be granted; these can: {}", shown(text), all()))
    }

    /// Its name, without `CAP_`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Grant, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_grant_says_little_and_means_little() {
        let grant = read(r#"{"images":["busybox"]}"#).expect("a grant");
        assert_eq!((grant.gpus, grant.memory_mib, grant.max, grant.pull), (0, 1024, 4, false));
        assert!(grant.networks.is_empty() && grant.mounts.is_empty() && grant.capabilities.is_empty());
    }

    #[test]
    fn what_leads_to_the_machine_can_never_be_granted() {
        for path in [
            "/",
            "/:w",
            "/proc",
            "/sys/fs",
            "/dev/shm",
            "/run/docker.sock",
            "/var/run",
            "/var",
            "/run/user/1000",
            "srv",
            "/srv/../etc",
            "/srv:rw",
        ] {
            let text = format!(r#"{{"images":["busybox"],"mounts":["{path}"]}}"#);
            assert!(read(&text).is_err(), "{path}");
        }
        for network in [
            "host",
            "container:abc",
            "ns:/proc/1/ns/net",
            "container",
            "default",
            "pasta:-T,auto",
            "",
            "a b",
            "slirp4netns:allow_host_loopback=true",
        ] {
            assert!(Network::parse(network).is_err(), "{network}");
        }
        for capability in ["SYS_ADMIN", "ALL", "MKNOD", "NET_RAW", "sys_admin", "NET_ADMIN", "SYS_PTRACE", ""] {
            assert!(Capability::parse(capability).is_err(), "{capability}");
        }
        assert_eq!(Capability::parse("CAP_CHOWN").map(|known| known.to_string()), Ok("CHOWN".into()));
    }

    #[test]
    fn numbers_have_ranges() {
        for wrong in [
            r#""gpus":99"#,
            r#""memory_mib":4"#,
            r#""cpus":0"#,
            r#""cpus":1e9"#,
            r#""max":0"#,
            r#""max":1000"#,
            r#""max_secs":0"#,
            r#""privileged":true"#,
        ] {
            assert!(read(&format!(r#"{{"images":[],{wrong}}}"#)).is_err(), "{wrong}");
        }
        assert!(read(r#"{"images":[],"mounts":["/srv/a:r","/srv/a:w"]}"#).is_err());
    }

    #[test]
    fn nothing_is_granted_that_lies_in_a_folder_which_containers_may_change() {
        for mounts in [r#""/srv/out:w","/srv/out/models:r""#, r#""/srv/out/models/a:w","/srv/out:w""#] {
            let error = read(&format!(r#"{{"images":[],"mounts":[{mounts}]}}"#)).expect_err("one lies in the other");
            assert!(error.contains("lies in `/srv/out`, which containers may change"), "{error}");
        }
        for mounts in [r#""/srv/out:r","/srv/out/models:w""#, r#""/srv/out:w","/srv/output:r""#] {
            assert!(read(&format!(r#"{{"images":[],"mounts":[{mounts}]}}"#)).is_ok(), "{mounts}");
        }
    }
}
