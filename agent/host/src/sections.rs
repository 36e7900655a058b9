//! What the pack builder wrote beside the code: the sections `outhaul:pack` (name and version) and `outhaul:docs` (what people read).
//!
//! Read by hand, before anything else looks at the bytes: a component's outer layer is a header and a list of sections, each with its
//! length. Nothing here follows a nested component.

use std::collections::HashMap;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits::{NAME, PACK};
use outhaul_protocol::text::escape_control;
use serde::Deserialize;

use crate::limits;

/// Who a pack is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// What is written about a pack's interfaces, by name as outside WIT. A pack may come without.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Docs {
    pub(crate) interfaces: HashMap<String, InterfaceDocs>,
}

/// About one interface.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InterfaceDocs {
    pub(crate) doc: Option<String>,
    pub(crate) functions: HashMap<String, FunctionDocs>,
    pub(crate) types: HashMap<String, TypeDocs>,
}

/// About one function.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FunctionDocs {
    pub(crate) doc: Option<String>,
    pub(crate) params: HashMap<String, String>,
}

/// About one type.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TypeDocs {
    pub(crate) fields: HashMap<String, String>,
}

const MAGIC: &[u8] = b"\0asm";
const MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const PACK_SECTION: &str = "outhaul:pack";
const DOCS_SECTION: &str = "outhaul:docs";

/// Reads both sections.
pub(crate) fn read(wasm: &[u8]) -> Result<(Identity, Docs), Failure> {
    if wasm.len() > PACK {
        return Err(rejected(format!("the pack is {} bytes, at most {PACK} are allowed", wasm.len())));
    }
    let body = match wasm.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<4>()) {
        Some((&COMPONENT, body)) => body,
        Some((&MODULE, _)) => {
            return Err(rejected("the pack is a core module, not a component").hint("wrap it with wasm-tools component new"));
        }
        Some(_) => return Err(rejected("the pack is of a WebAssembly version this agent does not know")),
        None => return Err(rejected("the pack is not WebAssembly")),
    };
    let mut found = Sections::default();
    found.scan(body)?;
    let identity = found.pack.ok_or_else(|| {
        rejected(format!("the pack has no `{PACK_SECTION}` section, so that it has no name")).hint("build it with plugins/builder")
    })?;
    let identity = serde_json::from_slice(identity).map_err(|error| rejected(format!("section `{PACK_SECTION}`: {error}")))?;
    check(&identity)?;
    let docs = match found.docs {
        Some(docs) if docs.len() > limits::DOCS => {
            return Err(rejected(format!(
                "pack `{}`: its docs are {} bytes, at most {} are allowed",
                identity.name,
                docs.len(),
                limits::DOCS
            )));
        }
        Some(docs) => serde_json::from_slice(docs)
            .map_err(|error| rejected(format!("pack `{}`: section `{DOCS_SECTION}`: {error}", identity.name)))?,
        None => Docs::default(),
    };
    Ok((identity, docs))
}

fn check(identity: &Identity) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = &identity.name;
    if !name.starts_with(plain) || name.len() > NAME || !name.chars().all(|c| plain(c) || c == '-') {
        let shown: String = escape_control(name).chars().take(NAME).collect();
        return Err(rejected(format!(
            "`{shown}` is not a pack's name: lower-case letters, digits and dashes, at most {NAME}, no dash first"
        )));
    }
    let version = &identity.version;
    if version.is_empty() || version.len() > limits::VERSION || !version.chars().all(|c| c.is_ascii_graphic()) {
        return Err(rejected(format!("pack `{name}`: its version is not 1 to {} printable characters", limits::VERSION)));
    }
    Ok(())
}

#[derive(Default)]
struct Sections<'wasm> {
    pack: Option<&'wasm [u8]>,
    docs: Option<&'wasm [u8]>,
}

impl<'wasm> Sections<'wasm> {
    fn scan(&mut self, mut body: &'wasm [u8]) -> Result<(), Failure> {
        let cut = || rejected("the pack is truncated: a section is longer than the file");
        while let Some((&id, rest)) = body.split_first() {
            let (length, rest) = number(rest).ok_or_else(cut)?;
            let (section, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
            if id == 0 {
                let (length, section) = number(section).ok_or_else(cut)?;
                let (name, content) = section.split_at_checked(length).ok_or_else(cut)?;
                self.take(name, content)?;
            }
            body = rest;
        }
        Ok(())
    }

    fn take(&mut self, name: &[u8], content: &'wasm [u8]) -> Result<(), Failure> {
        let slot = match std::str::from_utf8(name) {
            Ok(PACK_SECTION) => &mut self.pack,
            Ok(DOCS_SECTION) => &mut self.docs,
            _ => return Ok(()),
        };
        // Two names would let one reader see another pack than the next.
        match slot.replace(content) {
            None => Ok(()),
            Some(_) => Err(rejected(format!("the pack has section `{}` twice", String::from_utf8_lossy(name)))),
        }
    }
}

/// An unsigned LEB128 of at most 32 bits, and what follows it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}

fn rejected(message: impl Into<String>) -> Failure {
    Failure::new(Code::PackRejected, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(sections: &[(&str, &str)]) -> Vec<u8> {
        let mut wasm = [MAGIC, &COMPONENT].concat();
        for (name, content) in sections {
            let mut section = vec![u8::try_from(name.len()).unwrap()];
            section.extend_from_slice(name.as_bytes());
            section.extend_from_slice(content.as_bytes());
            wasm.extend_from_slice(&[0, u8::try_from(section.len() & 0x7f).unwrap() | 0x80, u8::try_from(section.len() >> 7).unwrap()]);
            wasm.extend(section);
        }
        wasm
    }

    fn refused(wasm: &[u8]) -> String {
        let failure = read(wasm).unwrap_err();
        assert_eq!(failure.code, Code::PackRejected);
        failure.message
    }

    const PACK_JSON: &str = r#"{"name":"gpu","version":"0.1.0","more":1}"#;

    #[test]
    fn both_sections_are_read_among_others() {
        let docs = r#"{"interfaces":{"gpu":{"doc":"GPUs.","functions":{"list":{"doc":"All.","params":{"uuid":"one"}}},"types":{"sample":{"fields":{"a":"b"}}}}}}"#;
        let (identity, docs) = read(&component(&[("name", "x"), (PACK_SECTION, PACK_JSON), (DOCS_SECTION, docs)])).unwrap();
        assert_eq!((identity.name.as_str(), identity.version.as_str()), ("gpu", "0.1.0"));
        let gpu = &docs.interfaces["gpu"];
        assert_eq!(gpu.functions["list"].params["uuid"], "one");
        assert_eq!(gpu.types["sample"].fields["a"], "b");
        assert!(read(&component(&[(PACK_SECTION, PACK_JSON)])).unwrap().1.interfaces.is_empty());
    }

    #[test]
    fn what_is_no_pack_says_why() {
        assert_eq!(refused(b""), "the pack is not WebAssembly");
        assert_eq!(refused(b"#!/bin/sh"), "the pack is not WebAssembly");
        assert_eq!(refused(&[MAGIC, &MODULE].concat()), "the pack is a core module, not a component");
        assert!(refused(&component(&[])).contains("has no `outhaul:pack` section"));
        assert!(refused(&component(&[(PACK_SECTION, PACK_JSON), (PACK_SECTION, PACK_JSON)])).contains("twice"));
        for name in ["", "-x", "Gpu", "a/b", "a\u{1b}[2J"] {
            let json = serde_json::json!({"name": name, "version": "1"}).to_string();
            assert!(refused(&component(&[(PACK_SECTION, &json)])).contains("is not a pack's name"), "{name}");
        }
        assert!(refused(&component(&[(PACK_SECTION, r#"{"name":"a","version":"1 2"}"#)])).contains("version"));
    }

    #[test]
    fn cut_and_flipped_bytes_never_panic() {
        let whole = component(&[(PACK_SECTION, PACK_JSON), (DOCS_SECTION, "{}")]);
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
