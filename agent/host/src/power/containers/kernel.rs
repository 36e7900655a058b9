//! What the kernel says of a container that is set up and does not run yet: its mounts and namespaces, whatever its runtime tells of them.
//! Where this agent may not look, because it is another user's or in a container itself, the runtime's word has to do.

use std::fs;
use std::path::Path;

use bollard::models::ContainerInspectResponse;

use super::create::Permitted;
use crate::power::shown;

/// Namespaces that are a container's own. Control groups are not among them: without their second version Podman keeps the machine's, in
/// which a container reads names.
const NAMESPACES: [&str; 5] = ["pid", "ipc", "uts", "net", "mnt"];
/// Files that runtimes put into every container, of their own making.
const USUAL: [&str; 7] = ["/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv", "/.dockerenv", "/run/secrets"];
/// What they put below `/dev`.
const DEVICES: [&str; 10] = ["pts", "shm", "mqueue", "console", "null", "zero", "full", "random", "urandom", "tty"];
/// What is the kernel's own below `/proc` and `/sys`, and what hides parts of it.
const KERNELS: [&str; 7] = ["proc", "sysfs", "cgroup", "cgroup2", "tmpfs", "devtmpfs", "securityfs"];

/// What is wrong, in words, if anything is.
pub(super) fn wrong(made: &ContainerInspectResponse, asked: &Permitted, gpus: &[String]) -> Option<String> {
    let pid = made.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0)?;
    let process = Path::new("/proc").join(pid.to_string());
    let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
    // An agent in a container of its own knows another process by this number.
    let id = made.id.as_deref().filter(|id| !id.is_empty())?;
    let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    if !mounts.contains(id) && !groups.contains(id) {
        return None;
    }
    let same = |name: &&str| {
        let of = |path: &Path| fs::read_link(path.join("ns").join(name)).ok();
        of(&process).is_some_and(|theirs| of(Path::new("/proc/self")).as_ref() == Some(&theirs))
    };
    if let Some(name) = NAMESPACES.iter().find(|name| same(name)) {
        return Some(format!("its {name} namespace is the agent's own"));
    }
    let volumes = made.mounts.iter().flatten().filter_map(|mount| mount.destination.clone());
    // Their libraries are mounted one by one, by a file that the owner's toolkit wrote.
    let targets: Vec<String> = asked.binds.iter().map(|bind| bind.target.clone()).chain(volumes).collect();
    let mut libraries = Vec::new();
    if !gpus.is_empty() {
        libraries.extend(["/usr", "/lib", "/lib64", "/opt", "/etc", "/run/nvidia-persistenced", "/tmp/nvidia-mps"].map(str::to_owned));
    }
    let of_gpus = |target: &str| !gpus.is_empty() && target.starts_with("/dev/nvidia");
    mounts
        .lines()
        .filter_map(Mounted::parse)
        .find(|mounted| !mounted.is_usual() && !of_gpus(&mounted.target) && !mounted.is_at(&targets) && !mounted.is_below(&libraries))
        .map(|mounted| format!("`{}` of the machine is mounted at `{}`", shown(&mounted.root), shown(&mounted.target)))
}

/// A line of `mountinfo`.
#[derive(Debug)]
struct Mounted {
    root: String,
    target: String,
    kind: String,
}

impl Mounted {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (root, target) = (words.nth(3)?, words.next()?);
        let kind = words.skip_while(|word| *word != "-").nth(1)?;
        // Spaces and the like are written as octal numbers, and nothing usual has any.
        Some(Mounted { root: root.to_owned(), target: target.to_owned(), kind: kind.to_owned() })
    }

    fn is_usual(&self) -> bool {
        let target = self.target.as_str();
        match target.strip_prefix("/dev").or_else(|| target.strip_prefix("/dev/")) {
            Some("") => self.kind == "tmpfs" && self.root == "/",
            Some(below) => DEVICES.contains(&below.trim_start_matches('/')),
            None => {
                USUAL.contains(&target)
                    || (["/proc", "/sys"].iter().any(|own| Path::new(target).starts_with(own)) && KERNELS.contains(&self.kind.as_str()))
            }
        }
    }

    /// Whether it is mounted at one of these. What is mounted below one was not asked for.
    fn is_at(&self, targets: &[String]) -> bool {
        targets.iter().any(|known| Path::new(&self.target) == Path::new(&known.replace(' ', "\\040")))
    }

    fn is_below(&self, targets: &[String]) -> bool {
        targets.iter().any(|known| Path::new(&self.target).starts_with(known.replace(' ', "\\040")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(line: &str) -> bool {
        Mounted::parse(line).expect("a line").is_usual()
    }

    #[test]
    fn what_runtimes_mount_everywhere_is_told_from_the_rest() {
        for line in [
            "69 45 254:0 /store/93f4 / rw,relatime - ext4 /dev/vda rw",
            "72 69 0:41 / /proc rw,nosuid - proc proc rw",
            "51 72 0:42 /null /proc/keys rw,nosuid,noexec - tmpfs tmpfs rw,size=65536k",
            "73 69 0:42 / /dev rw,nosuid,noexec - tmpfs tmpfs rw",
            "78 73 0:39 / /dev/shm rw,nosuid shared:9 - tmpfs shm rw",
            "82 81 0:29 /libpod /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu",
            "77 69 254:0 /run/userdata/hosts /etc/hosts rw - ext4 /dev/vda rw",
        ] {
            assert!(usual(line), "{line}");
        }
        for line in [
            "71 69 254:0 /home /shared rw,relatime - ext4 /dev/vda rw",
            "71 69 254:0 / /sys/x rw,relatime - ext4 /dev/vda rw",
            "71 69 254:0 /etc /dev/etc rw,relatime - ext4 /dev/vda rw",
            "71 69 0:5 / /dev rw,relatime - devtmpfs udev rw",
            "71 69 0:5 /docker.sock /run/docker.sock rw,relatime - tmpfs tmpfs rw",
        ] {
            assert!(!usual(line), "{line}");
        }
        let target = |target: &str| Mounted { root: "/x".into(), target: target.into(), kind: "ext4".into() };
        let known = ["/data".to_owned(), "/a b".into()];
        assert!(target("/data/deep").is_below(&known) && target("/a\\040b").is_below(&known) && !target("/database").is_below(&known));
        assert!(target("/data").is_at(&known) && target("/a\\040b").is_at(&known) && !target("/data/deep").is_at(&known));
    }
}
