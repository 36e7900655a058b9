//! What a component asks for. Everything must be known before it is linked, so that the sentence names what is not.

use outhaul_protocol::error::{Code, Failure};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::compile::brief;
use crate::grants::Power;
use crate::{host_v0_1, wasi};

/// The powers a component imports, each once, in the order of [`Power::ALL`].
pub(crate) fn powers(component: &Component, engine: &Engine, pack: &str) -> Result<Vec<Power>, Failure> {
    let rejected = |text: String| Failure::new(Code::PackRejected, format!("pack `{pack}` {text}"));
    let mut powers = Vec::new();
    for (name, import) in component.component_type().imports(engine) {
        match (&import.ty, host_v0_1::power(name)) {
            (ComponentItem::ComponentInstance(_), Some(power)) => powers.push(power),
            (ComponentItem::ComponentInstance(_), None) if wasi::offers(name) => {}
            (ComponentItem::ComponentInstance(_), None) => {
                return Err(
                    rejected(format!("imports `{}`, which this agent does not offer", brief(name))).hint("a newer agent may offer it")
                );
            }
            // A type that stands beside interfaces asks for nothing.
            (ComponentItem::Type(_), _) => {}
            _ => {
                let name = brief(name);
                return Err(rejected(format!("imports `{name}`, which is not an interface"))
                    .hint("packs import interfaces of outhaul:host and WASI 0.2 only"));
            }
        }
    }
    powers.sort_unstable();
    powers.dedup();
    Ok(powers)
}
