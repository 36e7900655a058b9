//! What a built pack was made from: `NAME.stamp` beside `NAME.wasm`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::layout::{Pack, Tree, files};

/// A stamp. The four together let anybody make the component again and see that it is the one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Name and version.
    pub pack: String,
    /// SHA-256 over the pack's sources, the WIT, the plugins' manifest and lock file, the builder, and how packs are made.
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

/// What decides the bytes of everybody's packs.
pub const MAKE: &str = "relay/author/src/make";

/// Names the version of what encodes components.
pub const VERSIONS: &str = "relay/author/Cargo.toml";

/// The digest of all that decides a pack's bytes, but for the compiler.
pub fn sources(tree: &Tree, pack: &Pack) -> Result<String> {
    let plugins = tree.plugins();
    let mut paths = files(&plugins.join(&pack.sources))?;
    paths.extend(files(&tree.wit())?);
    paths.extend(files(&plugins.join("builder/src"))?);
    paths.extend(files(&tree.root().join(MAKE))?);
    paths.extend(
        ["plugins/Cargo.toml", "plugins/Cargo.lock", VERSIONS].map(|file| tree.root().join(file)),
    );
    Ok(outhaul_author::sources::digest(tree.root(), &paths)?)
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    outhaul_protocol::keys::sha256(bytes).to_string()
}
