//! `outhaul:host/log`: the agent's log, marked with pack and call.

use super::Interface;
use crate::bindings::v0_1::log::Level;
use crate::log;

pub(super) fn link(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap("write", |store, (level, message): (Level, String)| {
        let state = store.data();
        state.log.write(&state.label, level.into(), &message);
        Ok(())
    })
}

impl From<Level> for log::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        }
    }
}
