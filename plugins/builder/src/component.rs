//! From what a compiler made, or from WIT alone, to a pack's component with its name and its docs.

use anyhow::Result;
use outhaul_author::component::Types;
use outhaul_author::make::toolchain::Target;
use outhaul_author::make::{Resolve, docs, encode};
use outhaul_protocol::pack::{About, Manifest};

use crate::layout::{Pack, Tree};

/// A component of what the compiler made; for WASI its linker has made one already.
pub fn from_module(module: &[u8], target: Target) -> Result<Vec<u8>> {
    match target {
        Target::Unknown => Ok(encode::from_module(module, None)?),
        Target::Wasi => Ok(module.to_vec()),
    }
}

/// Adds name, version and docs.
pub fn finish(component: &[u8], tree: &Tree, pack: &Pack) -> Result<Vec<u8>> {
    let written = docs::collect(&read_wit(tree, pack)?, &Types::read(component)?.exports())?;
    if pack.is_standard() {
        written.complete()?;
    }
    let manifest = Manifest {
        name: pack.name.clone(),
        version: pack.version.clone(),
        ..Manifest::default()
    };
    Ok(encode::finish(
        component,
        &manifest,
        &written.docs,
        &About::default(),
    )?)
}

/// All WIT a pack may name.
pub fn read_wit(tree: &Tree, pack: &Pack) -> Result<Resolve> {
    let mut resolve = Resolve::default();
    if pack.knows_host {
        resolve.push_path(tree.wit().join("host"))?;
        resolve.push_path(tree.wit().join("commands"))?;
    }
    if let Some(wit) = &pack.wit {
        resolve.push_path(tree.plugins().join(wit))?;
    }
    Ok(resolve)
}
