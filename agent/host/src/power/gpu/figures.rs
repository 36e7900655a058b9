//! What is told about GPUs. Field by field the records of `outhaul:host/gpu`.

use serde::Serialize;

/// Why clocks are lower than they could be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Throttle {
    /// Nothing runs.
    pub idle: bool,
    /// A clock setting of the owner or of a display.
    pub clock_setting: bool,
    /// The power limit.
    pub power_cap: bool,
    /// Temperature, by software.
    pub thermal_software: bool,
    /// Temperature, by hardware.
    pub thermal_hardware: bool,
    /// An external power brake.
    pub power_brake: bool,
    /// Hardware slowdown of any cause.
    pub slowdown: bool,
    /// Another GPU of its sync-boost group.
    pub sync_boost: bool,
}

/// What a process does on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// CUDA and the like.
    Compute,
    /// Drawing.
    Graphics,
}

/// A process that uses a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number, as the driver sees it.
    pub pid: u32,
    /// What it does there.
    pub kind: ProcessKind,
    /// Bytes of GPU memory.
    pub memory_used: Option<u64>,
}

/// The driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriverInfo {
    /// Its version.
    pub version: String,
    /// The highest CUDA version it runs.
    pub cuda: Option<String>,
}

/// A GPU that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its number among the machine's GPUs; may change at a restart.
    pub index: u32,
    /// Its own name for itself; stays.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// Its maker.
    pub vendor: String,
    /// Where it sits: `00000000:3b:00.0`.
    pub pci_address: String,
    /// Bytes. A GPU without memory of its own has the machine's.
    pub memory_total: u64,
}

/// What a GPU does now. Bytes, degrees Celsius, milliwatts, MHz, percent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are, the struct says the units")]
pub struct Sample {
    pub index: u32,
    pub uuid: String,
    pub memory_total: u64,
    pub memory_used: u64,
    pub memory_free: u64,
    pub utilization: Option<u32>,
    pub memory_utilization: Option<u32>,
    pub temperature: Option<u32>,
    pub power: Option<u32>,
    pub power_limit: Option<u32>,
    pub fan: Option<u32>,
    pub clock_graphics: Option<u32>,
    pub clock_sm: Option<u32>,
    pub clock_memory: Option<u32>,
    /// Memory errors since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    pub throttle: Throttle,
    pub processes: Vec<Process>,
}

/// All GPUs in a few numbers, for a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many answer.
    pub count: u32,
    /// Their product names.
    pub names: Vec<String>,
    /// Bytes of all together.
    pub memory_total: u64,
    /// Bytes in use of all together.
    pub memory_used: u64,
    /// Mean percent of those that tell.
    pub utilization: Option<u32>,
}
