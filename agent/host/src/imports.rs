//! What a component asks for. Everything must be known before it is linked, so that the sentence names what is not.

use outhaul_protocol::error::{Code, Failure};
use wasmparser::{Parser, Payload};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::compile::brief;
use crate::grants::Power;
use crate::{host_v0_1, wasi, wasi_http};

/// The powers a component imports, read from its bytes alone. For showing; what is linked is decided by [`read`].
pub fn powers_asked(wasm: &[u8]) -> Result<Vec<Power>, Failure> {
    let mut powers = Vec::new();
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(wasm) {
        let unreadable = |error| Failure::new(Code::PackRejected, format!("the pack's imports cannot be read: {error}"));
        match payload.map_err(unreadable)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let name = import.map_err(unreadable)?.name.name;
                    let http = wasi_http::offers(name) == Some(wasi_http::Import::Handler);
                    powers.extend(host_v0_1::power(name));
                    powers.extend(wasi::asks_for_files(name).then_some(Power::Files));
                    powers.extend(http.then_some(Power::Http));
                }
            }
            _ => {}
        }
    }
    powers.sort_unstable();
    powers.dedup();
    Ok(powers)
}

/// What a component asks for, all of it known.
pub(crate) struct Imports {
    /// powers, each once, in the order of [`Power::ALL`]
    pub(crate) powers: Vec<Power>,
    /// whether it imports WASI
    pub(crate) wasi: bool,
    /// whether it imports `wasi:http`
    pub(crate) http: bool,
}

/// Reads a component's imports. `pack` is its name for sentences.
pub(crate) fn read(component: &Component, engine: &Engine, pack: &str) -> Result<Imports, Failure> {
    let rejected = |text: String| Failure::new(Code::PackRejected, format!("pack `{pack}` {text}"));
    let mut imports = Imports { powers: Vec::new(), wasi: false, http: false };
    for (name, import) in component.component_type().imports(engine) {
        match (&import.ty, host_v0_1::power(name)) {
            (ComponentItem::ComponentInstance(_), Some(power)) => imports.powers.push(power),
            (ComponentItem::ComponentInstance(_), None) if wasi::offers(name) => {
                imports.wasi = true;
                imports.powers.extend(wasi::asks_for_files(name).then_some(Power::Files));
            }
            (ComponentItem::ComponentInstance(_), None) => {
                let Some(import) = wasi_http::offers(name) else {
                    return Err(
                        rejected(format!("imports `{}`, which this agent does not offer", brief(name))).hint("a newer agent may offer it")
                    );
                };
                imports.http = true;
                if import == wasi_http::Import::Handler {
                    imports.powers.push(Power::Http);
                }
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
    imports.powers.sort_unstable();
    imports.powers.dedup();
    Ok(imports)
}
