//! `outhaul:host/gpu`: graphics processors, read only.

use super::{Interface, blocking, boxed};
use crate::bindings::v0_1::gpu::{Device, DriverInfo, GpuError, GpuProcess, ProcessKind, Sample, Throttle};
use crate::grants::Power;
use crate::power::gpu as power;
use crate::state::State;

pub(super) fn link(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_async("driver", |mut store, (): ()| {
        let asked = granted(store.data_mut());
        boxed(async move { Ok((ask(asked, power::driver).await?.map(DriverInfo::from),)) })
    })?;
    interface.func_wrap_async("devices", |mut store, (): ()| {
        let asked = granted(store.data_mut());
        boxed(async move { Ok((ask(asked, power::devices).await?.map(|list| list.into_iter().map(Device::from).collect::<Vec<_>>()),)) })
    })?;
    interface.func_wrap_async("samples", |mut store, (uuid,): (Option<String>,)| {
        let asked = granted(store.data_mut());
        boxed(async move {
            let samples = ask(asked, move || power::samples(uuid.as_deref())).await?;
            Ok((samples.map(|list| list.into_iter().map(Sample::from).collect::<Vec<_>>()),))
        })
    })
}

fn granted(state: &mut State) -> Result<(), GpuError> {
    state.granted(Power::Gpu).map(drop).map_err(GpuError::Denied)
}

async fn ask<T: Send + 'static>(
    asked: Result<(), GpuError>,
    question: impl FnOnce() -> Result<T, power::GpuError> + Send + 'static,
) -> wasmtime::Result<Result<T, GpuError>> {
    match asked {
        Ok(()) => Ok(blocking(question).await?.map_err(GpuError::from)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

impl From<power::GpuError> for GpuError {
    fn from(error: power::GpuError) -> Self {
        match error {
            power::GpuError::NoDriver(sentence) => GpuError::NoDriver(sentence),
            power::GpuError::Lost(sentence) => GpuError::Lost(sentence),
            power::GpuError::Failed(sentence) => GpuError::Failed(sentence),
        }
    }
}

impl From<power::DriverInfo> for DriverInfo {
    fn from(driver: power::DriverInfo) -> Self {
        DriverInfo { version: driver.version, cuda: driver.cuda }
    }
}

impl From<power::Device> for Device {
    fn from(device: power::Device) -> Self {
        Device {
            index: device.index,
            uuid: device.uuid,
            name: device.name,
            vendor: device.vendor,
            pci_address: device.pci_address,
            memory_total: device.memory_total,
        }
    }
}

impl From<power::Sample> for Sample {
    fn from(sample: power::Sample) -> Self {
        Sample {
            index: sample.index,
            uuid: sample.uuid,
            memory_total: sample.memory_total,
            memory_used: sample.memory_used,
            memory_free: sample.memory_free,
            utilization: sample.utilization,
            memory_utilization: sample.memory_utilization,
            temperature: sample.temperature,
            power: sample.power,
            power_limit: sample.power_limit,
            fan: sample.fan,
            clock_graphics: sample.clock_graphics,
            clock_sm: sample.clock_sm,
            clock_memory: sample.clock_memory,
            ecc_corrected: sample.ecc_corrected,
            ecc_uncorrected: sample.ecc_uncorrected,
            throttle: sample.throttle.into(),
            processes: sample.processes.into_iter().map(GpuProcess::from).collect(),
        }
    }
}

impl From<power::Throttle> for Throttle {
    fn from(throttle: power::Throttle) -> Self {
        let reasons = [
            (throttle.idle, Throttle::IDLE),
            (throttle.clock_setting, Throttle::CLOCK_SETTING),
            (throttle.power_cap, Throttle::POWER_CAP),
            (throttle.thermal_software, Throttle::THERMAL_SOFTWARE),
            (throttle.thermal_hardware, Throttle::THERMAL_HARDWARE),
            (throttle.power_brake, Throttle::POWER_BRAKE),
            (throttle.slowdown, Throttle::SLOWDOWN),
            (throttle.sync_boost, Throttle::SYNC_BOOST),
        ];
        reasons.into_iter().filter(|(is, _)| *is).fold(Throttle::default(), |all, (_, reason)| all | reason)
    }
}

impl From<power::Process> for GpuProcess {
    fn from(process: power::Process) -> Self {
        let kind = match process.kind {
            power::ProcessKind::Compute => ProcessKind::Compute,
            power::ProcessKind::Graphics => ProcessKind::Graphics,
        };
        GpuProcess { pid: process.pid, kind, memory_used: process.memory_used }
    }
}
