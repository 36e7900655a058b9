//! For measuring only, no part of an agent: the fixture `devices` called through bindings that were made for it, in the same store and
//! sandbox as [`Pack::call`] uses. The difference is what dynamic dispatch costs.

use std::fmt;
use std::sync::Arc;

use outhaul_protocol::error::{Code, Failure};
use tokio::sync::mpsc;

use crate::grants::Grants;
use crate::pack::Pack;
use crate::power::call::Calls;
use crate::sink::Sink;
use crate::state::{Brought, State};

#[allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "made by a macro, and not all of it is used")]
#[allow(clippy::all, reason = "made by a macro")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../plugins/fixtures/devices/wit",
        world: "devices-pack",
        exports: { default: async },
    });
}

/// The fixture with its bindings.
pub struct Typed {
    pack: Arc<Pack>,
    bound: bindings::DevicesPackPre<State>,
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.pack).finish()
    }
}

impl Typed {
    /// Binds a loaded `devices`; any other pack is refused.
    pub fn bind(pack: &Arc<Pack>) -> Result<Typed, Failure> {
        let bound = bindings::DevicesPackPre::new(pack.instance.clone());
        let bound =
            bound.map_err(|error| Failure::new(Code::PackRejected, format!("bind pack `{}` as `devices`: {error:#}", pack.name())))?;
        Ok(Typed { pack: Arc::clone(pack), bound })
    }

    /// One call of `four` in a sandbox of its own; how many devices it gave.
    pub async fn four(&self, grants: Arc<Grants>) -> Result<usize, Failure> {
        let pack = &self.pack;
        let ((queue, _output), (_caller, input)) = (mpsc::channel(1), mpsc::channel(1));
        let _running = pack.engines.ticker.running();
        let mut store = pack.store(State::new(Brought {
            memory: pack.memory,
            sink: Sink::new(queue, 0),
            input,
            grants,
            shared_only: false,
            camera: pack.camera,
            log: Arc::clone(&pack.log),
            label: String::new(),
            kv: Arc::clone(&pack.kv),
            containers: Arc::clone(&pack.containers),
            outside: Arc::clone(&pack.outside),
            calls: Calls::new(None),
            seat: Arc::clone(&pack.seat),
        }));
        let failed = |error: wasmtime::Error| Failure::new(Code::Trap, format!("{error:#}"));
        let instance = self.bound.instantiate_async(&mut store).await.map_err(failed)?;
        let answer = instance.fixture_devices_devices().call_four(&mut store).await.map_err(failed)?;
        answer.map(|devices| devices.len()).map_err(|text| Failure::new(Code::CommandFailed, text))
    }
}
