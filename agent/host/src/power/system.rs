//! The `system` power: the machine's own figures, read only. Bytes, seconds, percent of all cores together.
//!
//! Processor load is a difference between two readings. They are taken when somebody asks (heartbeats do), so that nothing runs in the
//! background: [`prime`] takes the first, and a reading within [`SETTLE`] of the last one repeats its answer. No list of processes is
//! ever made. The calls block (file systems may take their time).

mod figures;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sysinfo::{Components, CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, Networks, System};
use thiserror::Error;

pub use figures::{Cpu, Disk, Facts, Heartbeat, LoadAverage, Memory, Network, Os, Sensor};

/// The least time between two readings that gives a load worth telling; the kernel counts in ticks of up to 10 ms.
pub const SETTLE: Duration = Duration::from_millis(200);

/// Disks, networks and sensors told at most: a host of containers has thousands of virtual interfaces.
const LIST: usize = 512;

/// Why there are no facts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SystemError {
    /// The system did not tell.
    #[error("{0}")]
    Failed(String),
}

/// Takes the first reading of the processor's load. Call it when the agent starts.
pub fn prime() {
    if let Err(source) = ask(Sampler::load) {
        tracing::warn!(%source, "this machine's figures cannot be read");
    }
}

/// The machine's facts.
pub fn read() -> Result<Facts, SystemError> {
    let load = System::load_average().map_err(|source| SystemError::Failed(format!("the load average cannot be read: {source:?}")))?;
    Ok(Facts {
        os: os(),
        cpu: cpu()?,
        memory: memory()?,
        disks: disks(),
        networks: networks(),
        load: LoadAverage { one: load.one, five: load.five, fifteen: load.fifteen },
        uptime: uptime()?,
    })
}

/// The machine's temperatures, by label; empty where it has none (a virtual machine, for one).
pub fn sensors() -> Result<Vec<Sensor>, SystemError> {
    let found =
        Components::new_with_refreshed_list().map_err(|source| SystemError::Failed(format!("the sensors cannot be read: {source:?}")))?;
    let known = |value: Option<f32>| value.filter(|celsius| celsius.is_finite());
    let mut sensors: Vec<Sensor> = found
        .iter()
        .filter_map(|sensor| {
            Some(Sensor { label: sensor.label().to_owned(), celsius: known(sensor.temperature())?, critical: known(sensor.critical()) })
        })
        .collect();
    sensors.sort_by(|a, b| a.label.cmp(&b.label));
    sensors.truncate(LIST);
    Ok(sensors)
}

/// A heartbeat's figures: three small files of the kernel. All zero where there are none.
pub fn heartbeat() -> Heartbeat {
    let (load, memory) = (ask(Sampler::load), memory());
    Heartbeat {
        cpu_percent: load.map_or(0.0, |load| tenth(load.since_last.unwrap_or(load.since_start))),
        memory_percent: memory.map_or(0.0, |memory| memory.percent),
        uptime_secs: uptime().unwrap_or(0),
    }
}

/// Memory now.
pub(super) fn memory() -> Result<Memory, SystemError> {
    ask(|sampler| {
        let probe = &mut sampler.probe;
        probe.refresh_memory_specifics(MemoryRefreshKind::everything());
        let (total, available) = (probe.total_memory(), probe.available_memory());
        Memory {
            total,
            used: probe.used_memory(),
            available,
            swap_total: probe.total_swap(),
            swap_used: probe.used_swap(),
            percent: share(total.saturating_sub(available), total),
        }
    })
}

fn uptime() -> Result<u64, SystemError> {
    System::uptime().map_err(|source| SystemError::Failed(format!("the uptime cannot be read: {source:?}")))
}

fn os() -> Os {
    let known = |text: Result<String, sysinfo::Error>| text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into());
    Os {
        name: known(System::name()),
        version: known(System::os_version()),
        kernel: known(System::kernel_version()),
        arch: std::env::consts::ARCH.into(),
        hostname: known(System::host_name()),
    }
}

fn cpu() -> Result<Cpu, SystemError> {
    ask(|sampler| {
        let percent = sampler.load().since_last.map(tenth);
        sampler.probe.refresh_cpu_specifics(CpuRefreshKind::nothing().with_frequency());
        let cores = sampler.probe.cpus();
        // Processors that carry no name in themselves (most ARM boards) leave the board's.
        let named = cores.first().map(|core| core.brand().trim()).filter(|brand| !brand.is_empty()).map(str::to_owned);
        Cpu {
            model: named.or_else(board).unwrap_or_else(|| std::env::consts::ARCH.into()),
            logical: u32::try_from(cores.len()).unwrap_or(u32::MAX),
            physical: System::physical_core_count().ok().and_then(|count| u32::try_from(count).ok()),
            mhz: cores.iter().map(sysinfo::Cpu::frequency).max().unwrap_or(0),
            percent,
        }
    })
}

fn board() -> Option<String> {
    let text = std::fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(text.trim_end_matches('\0').trim().to_owned()).filter(|text| !text.is_empty())
}

fn disks() -> Vec<Disk> {
    let kinds = DiskRefreshKind::nothing().with_storage();
    let Ok(found) = Disks::new_with_refreshed_list_specifics(kinds) else {
        return Vec::new();
    };
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    once(found.iter().map(|disk| Disk {
        mount: text(disk.mount_point().as_os_str()),
        device: text(disk.name()),
        file_system: text(disk.file_system()),
        total: disk.total_space(),
        available: disk.available_space(),
        removable: disk.is_removable(),
    }))
}

/// Bind mounts and containers show one file system many times.
fn once(disks: impl Iterator<Item = Disk>) -> Vec<Disk> {
    let mut kept: HashMap<(String, String, u64), Disk> = HashMap::new();
    for disk in disks.filter(|disk| disk.total > 0) {
        let same = (disk.device.clone(), disk.file_system.clone(), disk.total);
        let shorter = kept.get(&same).is_none_or(|other| (disk.mount.len(), &disk.mount) < (other.mount.len(), &other.mount));
        if shorter {
            kept.insert(same, disk);
        }
    }
    let mut disks: Vec<Disk> = kept.into_values().collect();
    disks.sort_by(|a, b| a.mount.cmp(&b.mount));
    disks.truncate(LIST);
    disks
}

fn networks() -> Vec<Network> {
    let Ok(found) = Networks::new_with_refreshed_list() else {
        return Vec::new();
    };
    let mut networks: Vec<Network> = found
        .iter()
        .map(|(name, data)| Network {
            name: name.to_string_lossy().into_owned(),
            mac: data.mac_address().to_string(),
            addresses: data.ip_networks().iter().map(|network| network.addr.to_string()).collect(),
            received: data.total_received(),
            sent: data.total_transmitted(),
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks.truncate(LIST);
    networks
}

/// The readings between which load is told.
struct Sampler {
    probe: System,
    last: Option<Instant>,
    load: Load,
}

/// Processor load: since the last reading, when there is one, and from the machine's start to the first.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    since_last: Option<f32>,
    since_start: f32,
}

impl Sampler {
    fn new() -> Result<Self, SystemError> {
        let probe = System::new().map_err(|source| SystemError::Failed(format!("this machine's figures cannot be read: {source:?}")))?;
        Ok(Self { probe, last: None, load: Load::default() })
    }

    fn load(&mut self) -> Load {
        self.load_at(Instant::now())
    }

    fn load_at(&mut self, now: Instant) -> Load {
        let Some(last) = self.last else {
            // The counters begin at zero when the machine starts, so the first reading is the average since then.
            self.load.since_start = self.counted(now);
            return self.load;
        };
        if now.saturating_duration_since(last) >= SETTLE {
            self.load.since_last = Some(self.counted(now));
        }
        self.load
    }

    fn counted(&mut self, now: Instant) -> f32 {
        self.last = Some(now);
        self.probe.refresh_cpu_usage();
        self.probe.global_cpu_usage().clamp(0.0, 100.0)
    }
}

/// One sampler for the whole process: every asker takes part in each other's readings.
fn ask<T>(question: impl FnOnce(&mut Sampler) -> T) -> Result<T, SystemError> {
    static SAMPLER: Mutex<Option<Sampler>> = Mutex::new(None);
    let mut sampler = SAMPLER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *sampler {
        Some(sampler) => Ok(question(sampler)),
        none => Ok(question(none.insert(Sampler::new()?))),
    }
}

/// To a tenth: more digits are noise of the measurement.
fn tenth(percent: f32) -> f32 {
    (percent * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
fn share(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { tenth((part as f64 / whole as f64 * 100.0).clamp(0.0, 100.0) as f32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_this_machine_are_plausible() {
        let facts = read().expect("facts");
        assert!(!facts.os.kernel.is_empty() && !facts.os.hostname.is_empty() && facts.os.arch == std::env::consts::ARCH);
        assert!(facts.cpu.logical >= 1 && !facts.cpu.model.is_empty());
        assert!(facts.memory.total >= facts.memory.available && facts.memory.total > 1 << 20);
        assert!((0.0..=100.0).contains(&facts.memory.percent) && facts.memory.percent > 0.0);
        assert!(facts.networks.iter().any(|network| network.name == "lo"), "{:?}", facts.networks);
        assert!(facts.load.one >= 0.0 && facts.uptime > 0);
    }

    #[test]
    fn load_needs_two_readings_apart() {
        let (mut sampler, start) = (Sampler::new().expect("sampler"), Instant::now());
        let first = sampler.load_at(start);
        assert!(first.since_last.is_none() && (0.0..=100.0).contains(&first.since_start));
        assert_eq!(sampler.load_at(start + SETTLE / 2).since_last, None, "too soon");
        let second = sampler.load_at(start + SETTLE).since_last.expect("two readings");
        assert!((0.0..=100.0).contains(&second));
        assert_eq!(sampler.load_at(start + SETTLE + SETTLE / 2).since_last, Some(second), "too soon repeats the answer");
    }

    #[test]
    fn a_heartbeat_is_in_range() {
        let beat = heartbeat();
        assert!((0.0..=100.0).contains(&beat.cpu_percent) && (0.0..=100.0).contains(&beat.memory_percent));
        assert!(beat.uptime_secs > 0);
    }

    #[test]
    fn sensors_are_numbers_or_absent() {
        assert!(sensors().expect("sensors").iter().all(|sensor| sensor.celsius.is_finite()));
    }

    #[test]
    fn a_file_system_is_told_once_by_its_shortest_path() {
        let disk = |mount: &str, device: &str, total| Disk {
            mount: mount.into(),
            device: device.into(),
            file_system: "ext4".into(),
            total,
            available: 1,
            removable: false,
        };
        let disks = once(
            [disk("/etc/hosts", "/dev/a", 10), disk("/", "/dev/a", 10), disk("/home", "/dev/b", 10), disk("/proc", "none", 0)].into_iter(),
        );
        assert_eq!(disks.iter().map(|disk| disk.mount.as_str()).collect::<Vec<_>>(), ["/", "/home"]);
    }

    #[test]
    fn shares_survive_odd_numbers() {
        assert_eq!((share(1, 0), share(1, 2), share(5, 2)), (0.0, 50.0, 100.0));
    }
}
