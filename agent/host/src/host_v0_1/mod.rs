//! What packs import as `outhaul:host@0.1`, one file per interface. A file translates between the interface's types and a power, asks for
//! the grant before anything else, and knows no engine but through its linker.
//!
//! This version stays as it is once it is released; the next one is a module beside it.

pub(crate) mod call;
pub(crate) mod camera;
pub(crate) mod containers;
pub(crate) mod gpu;
pub(crate) mod kv;
pub(crate) mod location;
pub(crate) mod log;
pub(crate) mod notify;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod screen;
pub(crate) mod secrets;
pub(crate) mod system;

use std::future::Future;

use wasmtime::component::{Linker, LinkerInstance};

use crate::engine::Kind;
use crate::grants::Power;
use crate::state::State;

/// The power an import names, when this version has it.
pub(crate) fn power(import: &str) -> Option<Power> {
    let (name, version) = import.strip_prefix("outhaul:host/")?.split_once('@')?;
    version.starts_with("0.1.").then(|| Power::parse(name)).flatten().filter(|power| !power.is_wasi())
}

/// Links every interface; what needs streams is not there on the synchronous engine, which takes no pack that asks for it.
pub(crate) fn link(linker: &mut Linker<State>, kind: Kind) -> wasmtime::Result<()> {
    for power in Power::ALL.into_iter().filter(|power| !power.is_wasi()) {
        let interface = &mut linker.instance(&format!("outhaul:host/{power}@0.1.0"))?;
        match power {
            Power::Output => output::link(interface, kind)?,
            Power::Log => log::link(interface)?,
            Power::Process => process::link(interface, kind)?,
            Power::Gpu => gpu::link(interface)?,
            Power::System => system::link(interface)?,
            Power::Camera => camera::link(interface, kind)?,
            Power::Kv => kv::link(interface)?,
            Power::Secrets => secrets::link(interface)?,
            Power::Call => call::link(interface, kind)?,
            Power::Location => location::link(interface, kind)?,
            Power::Notify => notify::link(interface, kind)?,
            Power::Screen => screen::link(interface, kind)?,
            Power::Containers => containers::link(interface, kind)?,
            // WASI has them.
            Power::Http | Power::Files => {}
        }
    }
    Ok(())
}

type Interface<'linker> = LinkerInstance<'linker, State>;

/// Runs a power that blocks where it blocks nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> wasmtime::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| wasmtime::format_err!("a power failed: {error}"))
}

/// A future as linkers want it.
fn boxed<'a, T>(work: impl Future<Output = wasmtime::Result<T>> + Send + 'a) -> Box<dyn Future<Output = wasmtime::Result<T>> + Send + 'a> {
    Box::new(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_of_this_version_name_a_power() {
        assert_eq!(power("outhaul:host/gpu@0.1.0"), Some(Power::Gpu));
        assert_eq!(power("outhaul:host/gpu@0.2.0"), None);
        assert_eq!(power("outhaul:host/teleport@0.1.0"), None);
        assert_eq!(power("outhaul:host/http@0.1.0"), None);
        assert_eq!(power("outhaul:host/files@0.1.0"), None);
        assert_eq!(power("wasi:io/streams@0.2.0"), None);
    }
}
