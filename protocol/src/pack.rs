//! What a pack says about itself, read before anything else looks at its bytes: the section `outhaul:pack` (its
//! manifest), the section `outhaul:docs` (what people read about commands) and the standard metadata sections. All of it
//! is inside the component, so that its digest covers it. Types are never here: they are read from the component.
//!
//! Layout and names of the sections: `plugins/README.md`.

mod manifest;
mod sections;
mod version;

pub use manifest::{Asked, Manifest, Wanted};
pub use sections::{About, DOCS_SECTION, Docs, FunctionDocs, InterfaceDocs, PACK_SECTION, TypeDocs, append_section};
pub use version::compare_versions;

use crate::error::{Code, Failure};
use crate::keys::{Digest, sha256};

/// An interface that components made by componentize-py export beside their own: it loaded the interpreter when they were
/// built, and is no command of theirs.
pub const LEFT_OVER: &str = "exports";

/// All that a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Who it is and what it asks for.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's section, as a publisher signs it.
    pub manifest_digest: Digest,
    /// What is written about its commands; a pack may come without.
    pub docs: Docs,
    /// Where it comes from, by the standard metadata sections.
    pub about: About,
}

/// Reads a component's outer layer. Nothing follows a nested component, and nothing is compiled.
///
/// # Errors
/// `pack_rejected` with the place, for whatever is no component with one valid manifest.
pub fn read(wasm: &[u8]) -> Result<Contents, Failure> {
    let found = sections::scan(wasm)?;
    let Some(section) = found.manifest else {
        return Err(
            rejected(format!("the pack has no `{PACK_SECTION}` section, so that it has no name")).hint("build it with `relay pack build`")
        );
    };
    let manifest = Manifest::from_json(section)?;
    let of = |failure: Failure| Failure { message: format!("pack `{}`: {}", manifest.name, failure.message), ..failure };
    let docs = found.docs.map(Docs::from_json).transpose().map_err(of)?.unwrap_or_default();
    let about = found.about.check().map_err(of)?;
    Ok(Contents { manifest_digest: sha256(section), manifest, docs, about })
}

fn rejected(message: impl Into<String>) -> Failure {
    Failure::new(Code::PackRejected, message)
}

/// Text that people read, within a ceiling.
fn text(what: &str, text: &[u8], ceiling: usize) -> Result<(), Failure> {
    if text.len() > ceiling {
        return Err(rejected(format!("its {what} is {} bytes, at most {ceiling} are allowed", text.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    const MANIFEST: &str = r#"{"name":"gpu","version":"0.1.0","more":1}"#;
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn component(sections: &[(&str, &str)]) -> Vec<u8> {
        let mut wasm = EMPTY.to_vec();
        sections.iter().for_each(|(name, content)| append_section(&mut wasm, name, content.as_bytes()));
        wasm
    }

    fn refused(wasm: &[u8]) -> String {
        let failure = read(wasm).expect_err("refused");
        assert_eq!(failure.code, Code::PackRejected);
        failure.message
    }

    #[test]
    fn all_sections_are_read_among_others() {
        let docs = r#"{"interfaces":{"gpu":{"doc":"GPUs.","functions":{"list":{"doc":"All.","params":{"uuid":"one"}}},"types":{"sample":{"fields":{"a":"b"}}}}}}"#;
        let wasm = component(&[("name", "x"), (PACK_SECTION, MANIFEST), ("licenses", "MIT"), (DOCS_SECTION, docs)]);
        let Contents { manifest, manifest_digest, docs, about } = read(&wasm).expect("a pack");
        assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("gpu", "0.1.0"));
        assert_eq!(manifest_digest, sha256(MANIFEST.as_bytes()));
        let gpu = &docs.interfaces["gpu"];
        assert_eq!(gpu.functions["list"].params["uuid"], "one");
        assert_eq!(gpu.types["sample"].fields["a"], "b");
        assert_eq!((about.licences.as_deref(), about.authors), (Some("MIT"), None));
        assert!(read(&component(&[(PACK_SECTION, MANIFEST)])).expect("a pack").docs.interfaces.is_empty());
    }

    #[test]
    fn what_is_no_pack_says_why() {
        assert_eq!(refused(b""), "the pack is not WebAssembly");
        assert_eq!(refused(b"#!/bin/sh"), "the pack is not WebAssembly");
        assert_eq!(refused(b"\0asm\x01\0\0\0"), "the pack is a core module, not a component");
        assert!(refused(EMPTY).contains("has no `outhaul:pack` section"));
        assert!(refused(&component(&[(PACK_SECTION, MANIFEST), (PACK_SECTION, MANIFEST)])).contains("twice"));
        assert!(refused(&component(&[(PACK_SECTION, MANIFEST), ("authors", &"x".repeat(limits::ABOUT + 1))])).contains("authors"));
    }

    #[test]
    fn cut_and_flipped_bytes_never_panic() {
        let whole = component(&[(PACK_SECTION, MANIFEST), (DOCS_SECTION, "{}")]);
        for cut in 0..whole.len() {
            let _ = read(&whole[..cut]);
        }
        for at in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let _ = read(&flipped);
        }
        assert!(refused(&whole[..whole.len() - 1]).contains("truncated"));
    }
}
