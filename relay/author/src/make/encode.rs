//! From a core module, or from WIT alone, to a component that says who it is and carries its docs. What is added stands in
//! custom sections after everything else: the standard metadata, then `outhaul:pack` and `outhaul:docs`.

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::pack::{self, About, DOCS_SECTION, Docs, Manifest, PACK_SECTION, append_section};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

/// A component of a core module that says which world it is of. An adapter stands in for imports the module has from a
/// standard that is none of the component model's.
pub fn from_module(module: &[u8], adapter: Option<(&str, &[u8])>) -> Result<Vec<u8>, Failure> {
    let mut encoder = ComponentEncoder::default();
    encoder
        .module(module)
        .and_then(|encoder| match adapter {
            Some((name, bytes)) => encoder.adapter(name, bytes),
            None => Ok(encoder),
        })
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| unfit(&format!("make a component of the module: {error:#}")))
}

fn unfit(message: &str) -> Failure {
    Failure::new(Code::PackRejected, message)
}

/// A component of a WIT world without code: whatever is called traps.
pub fn from_wit(resolve: &Resolve) -> Result<Vec<u8>, Failure> {
    let Some((world, _)) = resolve.worlds.iter().next_back() else {
        return Err(unfit("its WIT has no world"));
    };
    let mut module = dummy_module(resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)
        .map_err(|error| unfit(&format!("make a component of its WIT: {error:#}")))?;
    from_module(&module, None)
}

/// Adds where it comes from, who it is and its docs; what comes out is read as an agent reads it.
pub fn finish(component: &[u8], manifest: &Manifest, docs: &Docs, about: &About) -> Result<Vec<u8>, Failure> {
    let mut finished = component.to_vec();
    for (name, text) in about.texts() {
        append_section(&mut finished, name, text.as_bytes());
    }
    append_section(&mut finished, PACK_SECTION, &manifest.to_json());
    append_section(&mut finished, DOCS_SECTION, &docs.to_json());
    pack::read(&finished)?;
    Ok(finished)
}
