//! What the active version of a pack asks for, and why, in its own words. The component is read for that, not loaded.

use outhaul_host::{Power, powers_asked};
use outhaul_protocol::pack;
use outhaul_protocol::text::escape_control;

use super::whose::Known;
use crate::packs::EMBEDDED;
use crate::shelf::Shelf;

/// A power that a pack asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) power: Power,
    /// the pack's words, on one line and cut; none where it gives none or cannot be read
    pub(crate) reason: Option<String>,
}

/// Characters of a reason that are shown: a line of a terminal.
const REASON_CHARS: usize = 120;

/// All but what every pack has. What cannot be read asks for what the shelf noted.
pub(crate) fn asked(shelf: &Shelf, known: &Known) -> Vec<Asked> {
    let embedded = EMBEDDED.iter().find(|(name, _)| known.embedded() && *name == known.name);
    let deployed = if embedded.is_none() { shelf.get(known.digest).ok() } else { None };
    let wasm: Option<&[u8]> = embedded.map(|(_, wasm)| *wasm).or(deployed.as_deref());
    let manifest = wasm.and_then(|wasm| pack::read(wasm).ok()).map(|contents| contents.manifest);
    let powers = wasm.and_then(|wasm| powers_asked(wasm).ok()).unwrap_or_else(|| known.powers.clone());
    let one = |power: Power| Asked { power, reason: manifest.as_ref().and_then(|manifest| manifest.reason(power.name())).and_then(shown) };
    powers.into_iter().filter(|power| !matches!(power, Power::Output | Power::Log)).map(one).collect()
}

/// A stranger's words between quotation marks: nothing in them ends the quotation or moves the cursor.
fn shown(reason: &str) -> Option<String> {
    let mut text: String = escape_control(reason.trim()).replace('"', "'");
    if let Some((cut, _)) = text.char_indices().nth(REASON_CHARS) {
        text.truncate(cut);
        text.push('…');
    }
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_within_its_quotation_marks_and_on_its_line() {
        assert_eq!(shown("x\"; agent allow x\n\u{1b}[2J").as_deref(), Some("x'; agent allow x\\n\\u{1b}[2J"));
        assert_eq!(shown(&"é".repeat(900)).map(|text| text.chars().count()), Some(REASON_CHARS + 1));
        assert_eq!(shown("  "), None);
    }
}
