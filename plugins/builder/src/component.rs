//! From a core module, or from WIT alone, to a component that says its name and carries its docs. The two sections are
//! the builder's only additions: `outhaul:pack` and `outhaul:docs`, both JSON, after everything else.

use anyhow::{Context, Result, bail};
use wit_component::{
    ComponentEncoder, DecodedWasm, StringEncoding, dummy_module, embed_component_metadata,
};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WorldItem};

use crate::docs;
use crate::layout::{Pack, Tree};
use crate::toolchain::Target;

/// Name and version of the pack.
pub const PACK_SECTION: &str = "outhaul:pack";
/// Docs of its interfaces; a section called `package-docs` would make other tools refuse the component.
pub const DOCS_SECTION: &str = "outhaul:docs";

/// A component of what the compiler made; for WASI its linker has made one already.
pub fn from_module(module: &[u8], target: Target) -> Result<Vec<u8>> {
    match target {
        Target::Unknown => ComponentEncoder::default()
            .module(module)?
            .validate(true)
            .encode(),
        Target::Wasi => Ok(module.to_vec()),
    }
}

/// A component of a WIT world without code: whatever is called traps.
pub fn from_wit(resolve: &Resolve) -> Result<Vec<u8>> {
    let (world, _) = resolve
        .worlds
        .iter()
        .next_back()
        .context("its WIT has no world")?;
    let mut module = dummy_module(resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default()
        .module(&module)?
        .validate(true)
        .encode()
}

/// Adds name, version and docs.
pub fn finish(component: &[u8], tree: &Tree, pack: &Pack) -> Result<Vec<u8>> {
    let docs = docs::collect(&docs::read_wit(tree, pack)?, &exports(component)?)?;
    if pack.is_standard() {
        docs.complete()?;
    }
    let about = serde_json::json!({ "name": pack.name, "version": pack.version });
    let mut finished = component.to_vec();
    append_section(&mut finished, PACK_SECTION, &serde_json::to_vec(&about)?);
    append_section(&mut finished, DOCS_SECTION, &serde_json::to_vec(&docs)?);
    exports(&finished).context("read the finished component")?;
    Ok(finished)
}

/// The interfaces a component exports, with package and version.
pub fn exports(component: &[u8]) -> Result<Vec<String>> {
    let (resolve, world) = match wit_component::decode(component)? {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => bail!("it is a WIT package, not a component"),
    };
    let interfaces = resolve.worlds[world]
        .exports
        .values()
        .filter_map(|item| match item {
            WorldItem::Interface { id, .. } => resolve.id_of(*id),
            WorldItem::Function(_) | WorldItem::Type { .. } => None,
        });
    Ok(interfaces.collect())
}

/// Appends a custom section: id 0, length, name, content.
fn append_section(wasm: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut body = leb128(name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(content);
    wasm.push(0);
    wasm.extend(leb128(body.len()));
    wasm.extend(body);
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
