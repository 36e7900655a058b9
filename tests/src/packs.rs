//! Packs as a test needs them: the same component under another name and version.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outhaul_protocol::pack::{Manifest, PACK_SECTION, append_section};

/// Header of a component: magic and version.
const HEADER: usize = 8;

/// Writes a component of the tree into a folder, with another manifest.
pub fn renamed(component: &Path, folder: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let bytes = std::fs::read(component)?;
    let mut out = bytes.get(..HEADER).context("a component has a header")?.to_vec();
    let mut rest = &bytes[HEADER..];
    while !rest.is_empty() {
        let (section, after) = rest.split_at(length(rest).filter(|length| *length <= rest.len()).context("a whole section")?);
        let is_manifest = section[0] == 0 && section.windows(PACK_SECTION.len()).take(16).any(|part| part == PACK_SECTION.as_bytes());
        if !is_manifest {
            out.extend_from_slice(section);
        }
        rest = after;
    }
    let manifest = Manifest { name: name.into(), version: version.into(), ..Manifest::default() };
    append_section(&mut out, PACK_SECTION, &manifest.to_json());
    let path = folder.join(format!("{name}-{version}.wasm"));
    std::fs::write(&path, out)?;
    Ok(path)
}

/// The same, so many bytes larger.
pub fn padded(component: &Path, folder: &Path, name: &str, version: &str, bytes: usize) -> Result<PathBuf> {
    let path = renamed(component, folder, name, version)?;
    let mut wasm = std::fs::read(&path)?;
    append_section(&mut wasm, "padding", &vec![0; bytes]);
    std::fs::write(&path, wasm)?;
    Ok(path)
}

/// Bytes of the section that begins here: id, length in LEB128, content.
fn length(section: &[u8]) -> Option<usize> {
    let (mut length, mut at) = (0usize, 1);
    loop {
        let byte = *section.get(at)?;
        length |= usize::from(byte & 0x7f).checked_shl(7 * (at as u32 - 1))?;
        at += 1;
        if byte & 0x80 == 0 {
            return at.checked_add(length);
        }
    }
}
