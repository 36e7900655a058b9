//! What is told about a machine. Field by field the records of `outhaul:host/system`, and what a heartbeat carries.

use serde::Serialize;

/// The operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Os {
    pub name: String,
    pub version: String,
    pub kernel: String,
    pub arch: String,
    pub hostname: String,
}

/// The processor. Without `percent` there was no earlier reading to compare with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Cpu {
    pub model: String,
    pub logical: u32,
    pub physical: Option<u32>,
    pub mhz: u64,
    pub percent: Option<f32>,
}

/// Memory, in bytes; `percent` is what is not available.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Memory {
    pub total: u64,
    pub used: u64,
    pub available: u64,
    pub swap_total: u64,
    pub swap_used: u64,
    pub percent: f32,
}

/// A mounted file system. One that is mounted several times is told once, under its shortest path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Disk {
    pub mount: String,
    pub device: String,
    pub file_system: String,
    pub total: u64,
    pub available: u64,
    pub removable: bool,
}

/// A network interface; bytes since it came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Network {
    pub name: String,
    pub mac: String,
    pub addresses: Vec<String>,
    pub received: u64,
    pub sent: u64,
}

/// Load averages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct LoadAverage {
    pub one: f64,
    pub five: f64,
    pub fifteen: f64,
}

/// A temperature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sensor {
    /// What the system calls it.
    pub label: String,
    /// Now.
    pub celsius: f32,
    /// Where it becomes dangerous.
    pub critical: Option<f32>,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Facts {
    pub os: Os,
    pub cpu: Cpu,
    pub memory: Memory,
    pub disks: Vec<Disk>,
    pub networks: Vec<Network>,
    pub load: LoadAverage,
    pub uptime: u64,
}

/// What a heartbeat carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Heartbeat {
    /// Of all cores together, since the last reading; before there are two, since the machine started.
    pub cpu_percent: f32,
    /// What is not available.
    pub memory_percent: f32,
    /// Seconds since the machine started.
    pub uptime_secs: u64,
}
