//! `outhaul:host/system`: the machine itself, read only.

use super::{Interface, blocking, boxed};
use crate::bindings::v0_1::system::{Cpu, Disk, Facts, LoadAverage, Memory, Network, Os, Sensor, SystemError};
use crate::grants::Power;
use crate::power::system as power;
use crate::state::State;

pub(super) fn link(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_async("read", |mut store, (): ()| {
        let asked = granted(store.data_mut());
        boxed(async move { Ok((ask(asked, power::read).await?.map(Facts::from),)) })
    })?;
    interface.func_wrap_async("sensors", |mut store, (): ()| {
        let asked = granted(store.data_mut());
        boxed(async move { Ok((ask(asked, power::sensors).await?.map(|list| list.into_iter().map(Sensor::from).collect::<Vec<_>>()),)) })
    })
}

fn granted(state: &mut State) -> Result<(), SystemError> {
    state.granted(Power::System).map(drop).map_err(SystemError::Denied)
}

async fn ask<T: Send + 'static>(
    asked: Result<(), SystemError>,
    question: fn() -> Result<T, power::SystemError>,
) -> wasmtime::Result<Result<T, SystemError>> {
    match asked {
        Ok(()) => Ok(blocking(question).await?.map_err(|power::SystemError::Failed(sentence)| SystemError::Failed(sentence))),
        Err(refusal) => Ok(Err(refusal)),
    }
}

impl From<power::Facts> for Facts {
    fn from(facts: power::Facts) -> Self {
        let power::Facts { os, cpu, memory, disks, networks, load, uptime } = facts;
        Facts {
            os: Os { name: os.name, version: os.version, kernel: os.kernel, arch: os.arch, hostname: os.hostname },
            cpu: Cpu { model: cpu.model, logical: cpu.logical, physical: cpu.physical, mhz: cpu.mhz, percent: cpu.percent },
            memory: Memory {
                total: memory.total,
                used: memory.used,
                available: memory.available,
                swap_total: memory.swap_total,
                swap_used: memory.swap_used,
                percent: memory.percent,
            },
            disks: disks.into_iter().map(Disk::from).collect(),
            networks: networks.into_iter().map(Network::from).collect(),
            load: LoadAverage { one: load.one, five: load.five, fifteen: load.fifteen },
            uptime,
        }
    }
}

impl From<power::Disk> for Disk {
    fn from(disk: power::Disk) -> Self {
        Disk {
            mount: disk.mount,
            device: disk.device,
            file_system: disk.file_system,
            total: disk.total,
            available: disk.available,
            removable: disk.removable,
        }
    }
}

impl From<power::Network> for Network {
    fn from(network: power::Network) -> Self {
        Network { name: network.name, mac: network.mac, addresses: network.addresses, received: network.received, sent: network.sent }
    }
}

impl From<power::Sensor> for Sensor {
    fn from(sensor: power::Sensor) -> Self {
        Sensor { label: sensor.label, celsius: sensor.celsius, critical: sensor.critical }
    }
}
