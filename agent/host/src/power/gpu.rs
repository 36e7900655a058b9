//! The `gpu` power: what NVIDIA's management library (NVML) says about the machine's GPUs. Read only, and every call blocks.
//!
//! The library is opened at the first question and kept; a machine without it answers [`GpuError::NoDriver`] at once and is asked again
//! later, so that a driver installed under a running agent is found. A figure that a device does not have is `None`, never zero.

mod figures;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device as Handle, Nvml};
use thiserror::Error;

use super::shown;

pub use figures::{Device, DriverInfo, Process, ProcessKind, Sample, Summary, Throttle};

/// How long "there is no driver" is believed. Looking again costs a search of the library folders, and heartbeats come every 15 s.
const ABSENCE: Duration = Duration::from_secs(5);

/// Why there is no figure. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GpuError {
    /// This machine has no working NVIDIA driver.
    #[error("{0}")]
    NoDriver(String),
    /// The driver is there and the device no longer answers it.
    #[error("{0}")]
    Lost(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// The driver's versions.
pub fn driver() -> Result<DriverInfo, GpuError> {
    ask(|nvml| {
        let version = nvml.sys_driver_version().map_err(|source| explain("driver version", source))?;
        Ok(DriverInfo { version, cuda: nvml.sys_cuda_driver_version().ok().map(cuda_text) })
    })
}

/// Every GPU.
pub fn devices() -> Result<Vec<Device>, GpuError> {
    ask(|nvml| handles(nvml)?.iter().map(|(index, handle)| device(*index, handle)).collect())
}

/// What every GPU does now, or the one with this UUID.
pub fn samples(uuid: Option<&str>) -> Result<Vec<Sample>, GpuError> {
    ask(|nvml| match uuid {
        None => handles(nvml)?.iter().map(|(index, handle)| sample(*index, handle)).collect(),
        Some(uuid) => {
            let handle = by_uuid(nvml, uuid)?;
            let index = handle.index().map_err(|source| explain("index", source))?;
            Ok(vec![sample(index, &handle)?])
        }
    })
}

/// The GPUs that answer, in a few numbers; `None` without a driver or without a GPU. A lost one is left out here and named by [`samples`].
pub fn summary() -> Option<Summary> {
    ask(|nvml| {
        let count = nvml.device_count().map_err(|source| explain("number of GPUs", source))?;
        let answering: Vec<_> = (0..count).filter_map(|index| Some((nvml.device_by_index(index).ok()?, index))).collect();
        let mut summary = Summary { count: 0, names: Vec::new(), memory_total: 0, memory_used: 0, utilization: None };
        let mut loads = Vec::new();
        for (handle, index) in answering {
            let (Ok(name), Ok(memory)) = (handle.name(), memory(&called(index), &handle)) else {
                continue;
            };
            summary.count += 1;
            summary.names.push(name);
            summary.memory_total += memory.total;
            summary.memory_used += memory.used;
            loads.extend(handle.utilization_rates().ok().map(|rates| rates.gpu));
        }
        summary.utilization = mean(&loads);
        Ok(summary)
    })
    .ok()
    .filter(|summary| summary.count > 0)
}

fn handles(nvml: &Nvml) -> Result<Vec<(u32, Handle<'_>)>, GpuError> {
    let count = nvml.device_count().map_err(|source| explain("number of GPUs", source))?;
    (0..count).map(|index| Ok((index, nvml.device_by_index(index).map_err(|source| explain(&called(index), source))?))).collect()
}

fn by_uuid<'nvml>(nvml: &'nvml Nvml, uuid: &str) -> Result<Handle<'nvml>, GpuError> {
    nvml.device_by_uuid(uuid).map_err(|source| match source {
        NvmlError::NotFound | NvmlError::InvalidArg | NvmlError::NulError(_) => {
            GpuError::Failed(format!("no GPU has the UUID `{}`", shown(uuid)))
        }
        source => explain(&format!("GPU `{}`", shown(uuid)), source),
    })
}

fn device(index: u32, handle: &Handle<'_>) -> Result<Device, GpuError> {
    let called = called(index);
    let failed = |source| explain(&called, source);
    Ok(Device {
        index,
        uuid: handle.uuid().map_err(failed)?,
        name: handle.name().map_err(failed)?,
        vendor: "NVIDIA".into(),
        pci_address: handle.pci_info().map_err(failed)?.bus_id.to_ascii_lowercase(),
        memory_total: memory(&called, handle)?.total,
    })
}

fn sample(index: u32, handle: &Handle<'_>) -> Result<Sample, GpuError> {
    let called = called(index);
    let memory = memory(&called, handle)?;
    let rates = figure(&called, handle.utilization_rates())?;
    let clock = |clock| figure(&called, handle.clock_info(clock));
    let ecc = |kind| figure(&called, handle.total_ecc_errors(kind, EccCounter::Volatile));
    Ok(Sample {
        index,
        uuid: handle.uuid().map_err(|source| explain(&called, source))?,
        memory_total: memory.total,
        memory_used: memory.used,
        memory_free: memory.free,
        utilization: rates.as_ref().map(|rates| rates.gpu),
        memory_utilization: rates.as_ref().map(|rates| rates.memory),
        temperature: figure(&called, handle.temperature(TemperatureSensor::Gpu))?,
        power: figure(&called, handle.power_usage())?,
        power_limit: figure(&called, handle.enforced_power_limit())?,
        fan: figure(&called, handle.fan_speed(0))?,
        clock_graphics: clock(Clock::Graphics)?,
        clock_sm: clock(Clock::SM)?,
        clock_memory: clock(Clock::Memory)?,
        ecc_corrected: ecc(MemoryError::Corrected)?,
        ecc_uncorrected: ecc(MemoryError::Uncorrected)?,
        throttle: figure(&called, handle.current_throttle_reasons())?.map(throttle).unwrap_or_default(),
        processes: processes(&called, handle)?,
    })
}

fn processes(called: &str, handle: &Handle<'_>) -> Result<Vec<Process>, GpuError> {
    let of = |kind, list: Option<Vec<ProcessInfo>>| list.unwrap_or_default().into_iter().map(move |info| process(kind, &info));
    let compute = figure(called, handle.running_compute_processes())?;
    let graphics = figure(called, handle.running_graphics_processes())?;
    Ok(of(ProcessKind::Compute, compute).chain(of(ProcessKind::Graphics, graphics)).collect())
}

fn process(kind: ProcessKind, info: &ProcessInfo) -> Process {
    let memory_used = match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    Process { pid: info.pid, kind, memory_used }
}

struct Memory {
    total: u64,
    used: u64,
    free: u64,
}

fn memory(called: &str, handle: &Handle<'_>) -> Result<Memory, GpuError> {
    match handle.memory_info() {
        Ok(info) => Ok(Memory { total: info.total, used: info.used, free: info.free }),
        // A GPU on the same chip as the processor has no memory of its own to tell of.
        Err(NvmlError::NotSupported) => {
            let machine = super::system::memory().map_err(|source| GpuError::Failed(format!("{called}: {source}")))?;
            Ok(Memory { total: machine.total, used: machine.total.saturating_sub(machine.available), free: machine.available })
        }
        Err(NvmlError::FailedToLoadSymbol(_)) => {
            Err(GpuError::Failed(format!("{called}: this NVIDIA driver is too old to tell its memory; version 510 or later does")))
        }
        Err(source) => Err(explain(called, source)),
    }
}

/// A figure a device may lack. Only a device that is gone is an error here.
fn figure<T>(called: &str, asked: Result<T, NvmlError>) -> Result<Option<T>, GpuError> {
    match asked {
        Ok(value) => Ok(Some(value)),
        Err(source @ (NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::Uninitialized)) => Err(explain(called, source)),
        Err(_) => Ok(None),
    }
}

fn throttle(reasons: ThrottleReasons) -> Throttle {
    let has = |bits| reasons.intersects(bits);
    Throttle {
        idle: has(ThrottleReasons::GPU_IDLE),
        clock_setting: has(ThrottleReasons::APPLICATIONS_CLOCKS_SETTING | ThrottleReasons::DISPLAY_CLOCK_SETTING),
        power_cap: has(ThrottleReasons::SW_POWER_CAP),
        thermal_software: has(ThrottleReasons::SW_THERMAL_SLOWDOWN),
        thermal_hardware: has(ThrottleReasons::HW_THERMAL_SLOWDOWN),
        power_brake: has(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN),
        slowdown: has(ThrottleReasons::HW_SLOWDOWN),
        sync_boost: has(ThrottleReasons::SYNC_BOOST),
    }
}

fn called(index: u32) -> String {
    format!("GPU {index}")
}

/// NVML counts 12040 for 12.4.
fn cuda_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn mean(loads: &[u32]) -> Option<u32> {
    let count = u32::try_from(loads.len()).ok().filter(|&count| count > 0)?;
    Some(loads.iter().sum::<u32>() / count)
}

fn explain(what: &str, source: NvmlError) -> GpuError {
    match source {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
            GpuError::NoDriver("this machine has no NVIDIA driver: its library `libnvidia-ml.so.1` could not be opened".into())
        }
        NvmlError::DriverNotLoaded => {
            GpuError::NoDriver("the NVIDIA driver is installed on this machine and its kernel module is not loaded".into())
        }
        NvmlError::LibRmVersionMismatch => GpuError::NoDriver(
            "the NVIDIA driver's library and kernel module differ in version, as they do between an update and the next restart".into(),
        ),
        NvmlError::GpuLost => GpuError::Lost(format!("{what} no longer answers: it fell off the bus")),
        NvmlError::ResetRequired => GpuError::Lost(format!("{what} no longer answers: it needs a reset")),
        NvmlError::NoPermission => GpuError::Failed(format!("{what}: the agent's user may not use the NVIDIA driver")),
        source => GpuError::Failed(format!("{what}: {source}")),
    }
}

/// The opened library, or since when it is known to be missing.
enum Library {
    Unasked,
    Open(Arc<Nvml>),
    Missing(Instant, GpuError),
}

static LIBRARY: Mutex<Library> = Mutex::new(Library::Unasked);

fn ask<T>(question: impl FnOnce(&Nvml) -> Result<T, GpuError>) -> Result<T, GpuError> {
    let nvml = open()?;
    let answer = question(&nvml);
    // After the driver was replaced or a device was lost an opened library stays confused: open it anew next time.
    if matches!(answer, Err(GpuError::NoDriver(_) | GpuError::Lost(_))) {
        *LIBRARY.lock().unwrap_or_else(PoisonError::into_inner) = Library::Unasked;
    }
    answer
}

fn open() -> Result<Arc<Nvml>, GpuError> {
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    match &*library {
        Library::Open(nvml) => return Ok(Arc::clone(nvml)),
        Library::Missing(since, why) if since.elapsed() < ABSENCE => return Err(why.clone()),
        Library::Missing(..) | Library::Unasked => {}
    }
    match Nvml::init() {
        Ok(nvml) => {
            let nvml = Arc::new(nvml);
            *library = Library::Open(Arc::clone(&nvml));
            Ok(nvml)
        }
        Err(source) => {
            let why = explain("the NVIDIA driver", source);
            *library = Library::Missing(Instant::now(), why.clone());
            Err(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds on every machine: with a driver the figures agree with each other, without one everybody says so.
    #[test]
    fn every_question_gets_figures_or_an_honest_refusal() {
        match driver() {
            Ok(driver) => {
                assert!(!driver.version.is_empty());
                let (devices, samples) = (devices().expect("devices"), samples(None).expect("samples"));
                assert_eq!(devices.len(), samples.len());
                for (device, sample) in devices.iter().zip(&samples) {
                    assert_eq!((device.index, &device.uuid), (sample.index, &sample.uuid));
                    assert!(device.memory_total > 0 && sample.memory_used <= sample.memory_total);
                    assert_eq!(super::samples(Some(&device.uuid)).expect("one").len(), 1);
                }
                assert_eq!(summary().map_or(0, |summary| summary.count as usize), devices.len());
                assert!(matches!(super::samples(Some("GPU-nobody")), Err(GpuError::Failed(text)) if text.contains("GPU-nobody")));
            }
            Err(GpuError::NoDriver(sentence)) => {
                assert!(sentence.contains("NVIDIA driver"), "{sentence}");
                assert_eq!(devices(), Err(GpuError::NoDriver(sentence.clone())));
                assert_eq!(samples(None), Err(GpuError::NoDriver(sentence.clone())));
                assert_eq!(samples(Some("GPU-x")), Err(GpuError::NoDriver(sentence)));
                assert_eq!(summary(), None);
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn each_state_of_the_driver_has_its_own_answer() {
        assert!(matches!(explain("x", NvmlError::DriverNotLoaded), GpuError::NoDriver(text) if text.contains("not loaded")));
        assert!(matches!(explain("x", NvmlError::LibRmVersionMismatch), GpuError::NoDriver(text) if text.contains("version")));
        assert!(matches!(explain("GPU 1", NvmlError::GpuLost), GpuError::Lost(text) if text.starts_with("GPU 1 ")));
        assert!(matches!(explain("GPU 1", NvmlError::ResetRequired), GpuError::Lost(_)));
        assert!(matches!(explain("GPU 1", NvmlError::Unknown), GpuError::Failed(text) if text.starts_with("GPU 1: ")));
    }

    #[test]
    fn a_missing_figure_is_none_and_a_lost_device_is_not_a_missing_figure() {
        assert_eq!(figure("GPU 0", Ok(7)), Ok(Some(7)));
        assert_eq!(figure::<u32>("GPU 0", Err(NvmlError::NotSupported)), Ok(None));
        assert!(matches!(figure::<u32>("GPU 0", Err(NvmlError::GpuLost)), Err(GpuError::Lost(_))));
    }

    #[test]
    fn throttle_reasons_keep_their_names() {
        let reasons = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::HW_SLOWDOWN;
        let wanted = Throttle { power_cap: true, thermal_hardware: true, slowdown: true, ..Throttle::default() };
        assert_eq!(throttle(reasons), wanted);
        assert_eq!(throttle(ThrottleReasons::NONE), Throttle::default());
        assert!(throttle(ThrottleReasons::DISPLAY_CLOCK_SETTING).clock_setting);
    }

    #[test]
    fn versions_and_means_read_well() {
        assert_eq!((cuda_text(12040), cuda_text(13000)), ("12.4".into(), "13.0".into()));
        assert_eq!((mean(&[]), mean(&[100, 50])), (None, Some(75)));
    }
}
