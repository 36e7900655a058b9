//! A container that was made and does not run yet, against what was asked. Runtimes have settings of their own, and a file of theirs may
//! add mounts, devices or namespaces to whatever they make; one that got more than it was to have is removed and never starts.

use bollard::models::{ContainerInspectResponse, HostConfig, HostConfigCgroupnsModeEnum as Cgroups, MountPoint};

use super::create::Permitted;
use crate::power::shown;

/// Device files of GPUs, which a container that leased one may have.
const OF_GPUS: [&str; 2] = ["/dev/nvidia", "/dev/dri/"];

/// What is wrong with a container, in words, if anything is. What a runtime does not say is not wrong, but for what it has to: an answer
/// without its settings proves nothing.
pub(super) fn wrong(made: &ContainerInspectResponse, asked: &Permitted, gpus: &[String], podman: bool) -> Option<String> {
    let Some(host) = &made.host_config else { return Some("the runtime does not tell how it was made".into()) };
    privileges(host, asked)
        .or_else(|| namespaces(host, asked))
        .or_else(|| limits(host, asked))
        .or_else(|| devices(host, gpus, podman))
        .or_else(|| made.mounts.iter().flatten().find_map(|mount| unasked(mount, asked)))
        .or_else(|| missing(made.mounts.as_deref().unwrap_or_default(), asked))
}

fn some(list: Option<&Vec<String>>) -> &[String] {
    list.map_or(&[], Vec::as_slice)
}

fn privileges(host: &HostConfig, asked: &Permitted) -> Option<String> {
    if host.privileged != Some(false) {
        return Some("it is privileged".into());
    }
    let bare = |name: &str| name.trim_start_matches("CAP_").to_owned();
    if let Some(added) = some(host.cap_add.as_ref()).iter().map(|name| bare(name)).find(|name| !asked.capabilities.contains(name)) {
        return Some(format!("it has capability {}", shown(&added)));
    }
    let options = some(host.security_opt.as_ref());
    if let Some(option) = options.iter().find(|option| option.contains("unconfined") || option.contains("disable")) {
        return Some(format!("its security option is `{}`", shown(option)));
    }
    if !options.iter().any(|option| option.starts_with("no-new-privileges") && !option.ends_with("false")) {
        return Some("its programs can gain privileges".into());
    }
    // Named and empty means that nothing of the kernel's is hidden; Podman names none.
    let bared = [&host.masked_paths, &host.readonly_paths].into_iter().any(|paths| paths.as_ref().is_some_and(Vec::is_empty));
    bared.then(|| "the kernel's files are not hidden in it".into())
}

fn namespaces(host: &HostConfig, asked: &Permitted) -> Option<String> {
    let modes = [
        ("process ids", &host.pid_mode, &["", "private"][..]),
        ("inter-process communication", &host.ipc_mode, &["", "none", "private", "shareable"]),
        ("host name", &host.uts_mode, &["", "private"]),
    ];
    if let Some((what, mode, _)) =
        modes.into_iter().find(|(_, mode, good)| mode.as_ref().is_some_and(|mode| !good.contains(&mode.as_str())))
    {
        return Some(format!("its {what} are `{}`", shown(mode.as_deref().unwrap_or_default())));
    }
    if let Some(mode) = host.userns_mode.as_ref().filter(|mode| mode.as_str() == "host" || mode.contains(':')) {
        return Some(format!("its users are `{}`", shown(mode)));
    }
    if host.cgroupns_mode == Some(Cgroups::HOST) {
        return Some("its control groups are the machine's".into());
    }
    let network = host.network_mode.as_deref().unwrap_or_default();
    let known = network == asked.network || (asked.network != "none" && network == "bridge");
    if !known {
        return Some(format!("its network is `{}`", shown(network)));
    }
    let others = [&host.volumes_from, &host.links].into_iter().any(|list| !some(list.as_ref()).is_empty());
    others.then(|| "it shares what is another container's".into())
}

fn limits(host: &HostConfig, asked: &Permitted) -> Option<String> {
    if host.memory != Some(asked.memory) {
        return Some("its memory is not limited as it was asked".into());
    }
    if host.memory_swap != Some(asked.memory) {
        return Some("its swap is not limited as it was asked: the kernel may lack `swapaccount=1`".into());
    }
    if !processors(host).is_some_and(|nanos| (1..=asked.nano_cpus).contains(&nanos)) {
        return Some("its processors are not limited as it was asked".into());
    }
    if host.pids_limit.is_none_or(|limit| limit <= 0) {
        return Some("its processes are not limited".into());
    }
    let published = host.publish_all_ports == Some(true) || host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
    published.then(|| "its ports are published".into())
}

/// Processors that a container may use, in billionths; nothing where it has no ceiling. Podman counts in parts of a period, rounded down.
fn processors(host: &HostConfig) -> Option<i64> {
    let period = host.cpu_period.filter(|period| *period > 0).unwrap_or(100_000);
    let by_quota = host.cpu_quota.filter(|quota| *quota > 0).map(|quota| (i128::from(quota) * 1_000_000_000 / i128::from(period)) as i64);
    host.nano_cpus.filter(|nanos| *nanos > 0).or(by_quota)
}

fn devices(host: &HostConfig, gpus: &[String], podman: bool) -> Option<String> {
    let devices = host.devices.iter().flatten().filter_map(|device| device.path_on_host.as_deref());
    let mut others = devices.filter(|path| gpus.is_empty() || !OF_GPUS.iter().any(|of| path.starts_with(of)));
    if let Some(path) = others.next() {
        return Some(format!("it has device `{}`", shown(path)));
    }
    if host.device_cgroup_rules.as_ref().is_some_and(|rules| !rules.is_empty()) {
        return Some("it may use devices that were not named".into());
    }
    let had: Vec<&String> = host.device_requests.iter().flatten().flat_map(|request| request.device_ids.iter().flatten()).collect();
    let counted = host.device_requests.iter().flatten().any(|request| request.count.is_some_and(|count| count != 0));
    // Podman takes GPUs another way, and names them nowhere.
    if counted || had.iter().any(|uuid| !gpus.contains(uuid)) || (!podman && gpus.iter().any(|uuid| !had.contains(&uuid))) {
        return Some("its GPUs are not those it was to have".into());
    }
    None
}

/// A mount nobody asked for. A volume without a name is the image's own idea of where its data lies, and is as empty as the container.
fn unasked(mount: &MountPoint, asked: &Permitted) -> Option<String> {
    let (source, target) = (mount.source.as_deref().unwrap_or_default(), mount.destination.as_deref().unwrap_or_default());
    let nameless = |name: &str| super::owned::is_id(name);
    if mount.typ.as_deref() == Some("volume") && mount.name.as_deref().is_some_and(nameless) {
        return None;
    }
    if mount.typ.as_deref() == Some("tmpfs") {
        return None;
    }
    let same = |bind: &&super::create::Bind| bind.target == target && bind.source.to_str() == Some(source);
    match asked.binds.iter().find(same) {
        Some(bind) if mount.typ.as_deref() == Some("bind") && (bind.writable || mount.rw == Some(false)) => None,
        _ => Some(format!("`{}` is mounted at `{}`", shown(source), shown(target))),
    }
}

fn missing(mounts: &[MountPoint], asked: &Permitted) -> Option<String> {
    let there = |bind: &&super::create::Bind| mounts.iter().any(|mount| mount.destination.as_deref() == Some(bind.target.as_str()));
    asked.binds.iter().find(|bind| !there(bind)).map(|bind| format!("nothing is mounted at `{}`", shown(&bind.target)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::{Spec, Wanted, create, grant::Grant};
    use super::*;

    fn asked() -> Permitted {
        let grant: Grant = serde_json::from_value(json!({"images": ["busybox"], "memory_mib": 64, "capabilities": ["CHOWN"], "gpus": 1}))
            .expect("a grant");
        let spec = Spec { image: "busybox".into(), gpus: Wanted::Count(1), ..Spec::default() };
        create::judge("x", &grant, &[], spec).expect("granted")
    }

    /// What a runtime says of a container that is as it was asked.
    fn good() -> Json {
        json!({
            "HostConfig": {
                "Privileged": false, "CapAdd": ["CAP_CHOWN"], "SecurityOpt": ["no-new-privileges"], "PidMode": "", "IpcMode": "private", "UTSMode": "",
                "UsernsMode": "", "NetworkMode": "none", "Memory": 64 << 20, "MemorySwap": 64 << 20, "NanoCpus": 1_000_000_000, "PidsLimit": 100, "CgroupnsMode": "private",
                "DeviceRequests": [{"DeviceIDs": ["GPU-1"], "Count": 0}], "Devices": [{"PathOnHost": "/dev/nvidia0"}],
                "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"],
            },
            "Mounts": [{"Type": "volume", "Name": "a".repeat(64), "Source": "/var/lib/docker/volumes/x", "Destination": "/data", "RW": true}],
        })
    }

    fn said(made: Json) -> Option<String> {
        wrong(&serde_json::from_value(made).expect("an answer"), &asked(), &["GPU-1".into()], false)
    }

    #[test]
    fn a_container_as_it_was_asked_is_good() {
        assert_eq!(said(good()), None);
    }

    #[test]
    fn a_ceiling_of_processors_may_be_a_part_of_a_period() {
        let parts = |quota: i64, period: i64| {
            let mut made = good();
            made["HostConfig"]["NanoCpus"] = json!(0);
            made["HostConfig"]["CpuQuota"] = json!(quota);
            made["HostConfig"]["CpuPeriod"] = json!(period);
            said(made)
        };
        assert_eq!((parts(50_000, 100_000), parts(100_000, 0)), (None, None));
        assert!(parts(-1, 100_000).is_some() && parts(100_001, 100_000).is_some() && parts(0, 0).is_some());
    }

    #[test]
    fn every_way_to_be_more_than_was_asked_is_seen() {
        let changes = [
            ("Privileged", json!(true)),
            ("Privileged", Json::Null),
            ("CapAdd", json!(["SYS_ADMIN"])),
            ("CapAdd", json!(["CAP_SYS_PTRACE"])),
            ("SecurityOpt", json!(["no-new-privileges", "seccomp=unconfined"])),
            ("SecurityOpt", json!(["no-new-privileges", "label=disable"])),
            ("SecurityOpt", json!([])),
            ("SecurityOpt", json!(["no-new-privileges:false"])),
            ("PidMode", json!("host")),
            ("PidMode", json!("container:abc")),
            ("IpcMode", json!("host")),
            ("IpcMode", json!("container:abc")),
            ("UTSMode", json!("host")),
            ("UsernsMode", json!("host")),
            ("CgroupnsMode", json!("host")),
            ("NetworkMode", json!("host")),
            ("NetworkMode", json!("container:abc")),
            ("NetworkMode", json!("bridge")),
            ("VolumesFrom", json!(["other"])),
            ("Links", json!(["other:x"])),
            ("Memory", json!(0)),
            ("MemorySwap", json!(-1)),
            ("MemorySwap", json!(128 << 20)),
            ("MemorySwap", Json::Null),
            ("NanoCpus", json!(0)),
            ("NanoCpus", json!(2_000_000_000)),
            ("NanoCpus", Json::Null),
            ("PidsLimit", json!(0)),
            ("PidsLimit", json!(-1)),
            ("PublishAllPorts", json!(true)),
            ("Devices", json!([{"PathOnHost": "/dev/sda"}])),
            ("DeviceCgroupRules", json!(["c *:* rwm"])),
            ("DeviceRequests", json!([{"DeviceIDs": ["GPU-1", "GPU-2"]}])),
            ("DeviceRequests", json!([{"DeviceIDs": [], "Count": -1}])),
            ("DeviceRequests", Json::Null),
            ("MaskedPaths", json!([])),
        ];
        for (field, value) in changes {
            let mut made = good();
            made["HostConfig"][field] = value.clone();
            assert!(said(made).is_some(), "{field}: {value}");
        }
        assert!(said(json!({"Mounts": []})).is_some(), "an answer that tells nothing");
        for mount in [
            json!({"Type": "bind", "Source": "/etc", "Destination": "/etc", "RW": false}),
            json!({"Type": "volume", "Name": "shared", "Source": "/x", "Destination": "/data"}),
            json!({"Source": "/run/docker.sock", "Destination": "/run/docker.sock"}),
        ] {
            let mut made = good();
            made["Mounts"] = json!([mount]);
            assert!(said(made).is_some(), "{mount}");
        }
    }
}
