//! All that can be known of a pack without running it: what it says of itself, what its types say, and how the two fit.

use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::pack::{self, Contents};
use outhaul_protocol::types::Command;
use serde_json::{Value as Json, json};

use crate::build::ALWAYS;
use crate::component::{Offered, Types};
use crate::wit::{powers, short};

/// A pack, looked into.
#[derive(Debug)]
pub struct Inspected {
    /// what it says of itself
    pub contents: Contents,
    /// of the whole component
    pub digest: Digest,
    /// bytes
    pub size: usize,
    /// its interfaces and commands, from its types
    pub offered: Offered,
    /// what it imports of the host
    pub powers: Vec<Imported>,
    /// powers it gives a reason for and does not import
    pub idle: Vec<String>,
    /// interfaces of WASI
    pub wasi: Vec<String>,
    /// imports that agents of this version do not offer: they refuse to load it
    pub unknown: Vec<String>,
}

/// A power that a pack imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// its name
    pub name: String,
    /// why, if it says so
    pub reason: Option<String>,
    /// whether every pack has it
    pub always: bool,
}

/// Looks into a component.
///
/// # Errors
/// `pack_rejected` for what is no component with a manifest, `unsupported_type` for a command that no agent takes.
pub fn inspect(wasm: &[u8]) -> Result<Inspected, Failure> {
    let contents = pack::read(wasm)?;
    let types = Types::read(wasm)?;
    let offered = types.commands(&contents.manifest.name, &contents.docs)?;
    let (mut powers, mut wasi, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for import in types.imports() {
        match power(&import) {
            Some(name) => {
                powers.push(Imported { reason: contents.manifest.reason(&name).map(str::to_owned), always: ALWAYS.contains(&&*name), name })
            }
            None if import.starts_with("wasi:") => wasi.push(import),
            None => unknown.push(import),
        }
    }
    powers.sort_by(|a, b| a.name.cmp(&b.name));
    let imported = |name: &String| powers.iter().any(|power| power.name == *name);
    let idle = contents.manifest.powers.iter().map(|asked| asked.name.clone()).filter(|name| !imported(name)).collect();
    Ok(Inspected { digest: sha256(wasm), size: wasm.len(), contents, offered, powers, idle, wasi, unknown })
}

/// Powers that are standard interfaces of WASI.
pub(crate) const WASI: [&str; 2] = ["files", "http"];

/// The power an import is, when this version's host has it.
pub(crate) fn power(import: &str) -> Option<String> {
    // Two powers are standard interfaces of WASI.
    match import.split_once('@')? {
        ("wasi:filesystem/preopens", version) if version.starts_with("0.2.") => return Some("files".into()),
        ("wasi:http/outgoing-handler", version) if version.starts_with("0.2.") => return Some("http".into()),
        _ => {}
    }
    let known = import.starts_with("outhaul:host/") && import.contains("@0.1.");
    powers().find(|power| known && *power == short(import)).map(str::to_owned)
}

impl Inspected {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let (manifest, about) = (&self.contents.manifest, &self.contents.about);
        let power = |power: &Imported| json!({"name": power.name, "reason": power.reason, "always": power.always});
        json!({
            "name": manifest.name,
            "version": manifest.version,
            "description": about.description,
            "authors": about.authors,
            "licence": about.licences,
            "homepage": about.homepage,
            "source": about.source,
            "revision": about.revision,
            "digest": self.digest.to_string(),
            "size": self.size,
            "api": manifest.api,
            "platforms": manifest.platforms,
            "limits": {"memory_mib": manifest.limits.memory_mib, "max_secs": manifest.limits.max_secs},
            "sources": manifest.sources,
            "builder": manifest.builder,
            "powers": self.powers.iter().map(power).collect::<Json>(),
            "idle_reasons": self.idle,
            "wasi": self.wasi,
            "unknown_imports": self.unknown,
            "interfaces": self.offered.interfaces.iter().map(|one| json!({"name": one.name, "doc": one.doc})).collect::<Json>(),
            "commands": self.offered.commands.iter().map(Command::to_json).collect::<Json>(),
        })
    }
}
