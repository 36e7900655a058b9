//! Reads a component's outer layer by hand: a header and a list of sections, each with its length. Nothing here follows a
//! nested component.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{rejected, text};
use crate::error::Failure;
use crate::limits;

/// The manifest's section.
pub const PACK_SECTION: &str = "outhaul:pack";
/// The docs' section. One called `package-docs` would make other tools refuse the component.
pub const DOCS_SECTION: &str = "outhaul:docs";

const MAGIC: &[u8] = b"\0asm";
const MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];

/// What is written about a pack's interfaces, by name as outside WIT. A pack may come without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Docs {
    /// by interface
    pub interfaces: BTreeMap<String, InterfaceDocs>,
}

/// About one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceDocs {
    /// the interface's own
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// by function
    pub functions: BTreeMap<String, FunctionDocs>,
    /// by type
    pub types: BTreeMap<String, TypeDocs>,
}

/// About one function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FunctionDocs {
    /// the function's own
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// by parameter
    pub params: BTreeMap<String, String>,
}

/// About one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeDocs {
    /// the type's own
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// by field, case or flag
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

impl Docs {
    /// The section's text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps of texts are always JSON")
    }

    pub(super) fn from_json(section: &[u8]) -> Result<Self, Failure> {
        text("docs", section, limits::DOCS)?;
        serde_json::from_slice(section).map_err(|error| rejected(format!("section `{DOCS_SECTION}`: {error}")))
    }
}

/// The standard metadata sections, plain text each: the names of the WebAssembly tool conventions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `description`
    pub description: Option<String>,
    /// `authors`
    pub authors: Option<String>,
    /// `licenses`, an SPDX expression
    pub licences: Option<String>,
    /// `source`, a URL
    pub source: Option<String>,
    /// `homepage`, a URL
    pub homepage: Option<String>,
    /// `revision`, of the source
    pub revision: Option<String>,
}

impl About {
    /// The texts there are, by their sections' names.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [&self.description, &self.authors, &self.licences, &self.source, &self.homepage, &self.revision];
        ABOUT.into_iter().zip(texts).filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}

/// The sections as they stand in the file.
#[derive(Default)]
pub(super) struct Found<'wasm> {
    pub(super) manifest: Option<&'wasm [u8]>,
    pub(super) docs: Option<&'wasm [u8]>,
    pub(super) about: FoundAbout<'wasm>,
}

#[derive(Default)]
pub(super) struct FoundAbout<'wasm> {
    texts: [Option<&'wasm [u8]>; ABOUT.len()],
}

/// Names of the standard sections, in the order of [`About`]'s fields.
const ABOUT: [&str; 6] = ["description", "authors", "licenses", "source", "homepage", "revision"];

impl FoundAbout<'_> {
    pub(super) fn check(self) -> Result<About, Failure> {
        let mut read = [const { None }; ABOUT.len()];
        for ((slot, found), name) in read.iter_mut().zip(self.texts).zip(ABOUT) {
            let Some(bytes) = found else { continue };
            text(name, bytes, limits::ABOUT)?;
            let words = std::str::from_utf8(bytes).map_err(|_| rejected(format!("section `{name}` is not text")))?;
            *slot = Some(words.to_owned());
        }
        let [description, authors, licences, source, homepage, revision] = read;
        Ok(About { description, authors, licences, source, homepage, revision })
    }
}

/// Finds the sections of a component.
pub(super) fn scan(wasm: &[u8]) -> Result<Found<'_>, Failure> {
    if wasm.len() > limits::PACK {
        return Err(rejected(format!("the pack is {} bytes, at most {} are allowed", wasm.len(), limits::PACK)));
    }
    let mut body = match wasm.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<4>()) {
        Some((&COMPONENT, body)) => body,
        Some((&MODULE, _)) => {
            return Err(rejected("the pack is a core module, not a component").hint("wrap it with wasm-tools component new"));
        }
        Some(_) => return Err(rejected("the pack is of a WebAssembly version this agent does not know")),
        None => return Err(rejected("the pack is not WebAssembly")),
    };
    let cut = || rejected("the pack is truncated: a section is longer than the file");
    let mut found = Found::default();
    while let Some((&id, rest)) = body.split_first() {
        let (length, rest) = number(rest).ok_or_else(cut)?;
        let (section, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        if id == 0 {
            let (length, section) = number(section).ok_or_else(cut)?;
            let (name, content) = section.split_at_checked(length).ok_or_else(cut)?;
            found.take(name, content)?;
        }
        body = rest;
    }
    Ok(found)
}

impl<'wasm> Found<'wasm> {
    fn take(&mut self, name: &[u8], content: &'wasm [u8]) -> Result<(), Failure> {
        let name = String::from_utf8_lossy(name);
        let slot = match &*name {
            PACK_SECTION => &mut self.manifest,
            DOCS_SECTION => &mut self.docs,
            other => match ABOUT.iter().position(|known| *known == other) {
                Some(at) => &mut self.about.texts[at],
                None => return Ok(()),
            },
        };
        // Two of a name would let one reader see another pack than the next.
        match slot.replace(content) {
            None => Ok(()),
            Some(_) => Err(rejected(format!("the pack has section `{name}` twice"))),
        }
    }
}

/// Appends a custom section to a component or module: id 0, length, name, content.
pub fn append_section(wasm: &mut Vec<u8>, name: &str, content: &[u8]) {
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
