//! What a built pack was made from: `NAME.stamp` beside `NAME.wasm`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::{Pack, Tree, files};

/// A stamp. The four together let anybody make the component again and see that it is the one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Name and version.
    pub pack: String,
    /// SHA-256 over the pack's sources, the WIT, the plugins' manifest and lock file, and the builder.
    pub sources: String,
    /// Compiler and linker.
    pub compiler: String,
    /// SHA-256 of the component.
    pub component: String,
}

impl Stamp {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(toml::from_str(&fs::read_to_string(path)?)?)
    }

    /// As it is written.
    pub fn to_toml(&self) -> Result<String> {
        let text = toml::to_string(self)?;
        Ok(format!(
            "# What the component beside this was made from, and with. Written by `plugins/builder`.\n{text}"
        ))
    }
}

/// The digest of all that decides a pack's bytes, but for the compiler.
pub fn sources(tree: &Tree, pack: &Pack) -> Result<String> {
    let plugins = tree.plugins();
    let mut paths = files(&plugins.join(&pack.sources))?;
    paths.extend(files(&tree.wit())?);
    paths.extend(files(&plugins.join("builder/src"))?);
    paths.extend(["Cargo.toml", "Cargo.lock", "builder/Cargo.toml"].map(|file| plugins.join(file)));
    let mut digest = Sha256::new();
    for path in paths {
        let bytes = fs::read(&path)?;
        // Lengths before both, so that nothing can move from one file, or from a name, to its neighbour.
        let name = path
            .strip_prefix(tree.root())?
            .to_string_lossy()
            .replace('\\', "/");
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(&name);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
    }
    Ok(hex(&digest.finalize()))
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
