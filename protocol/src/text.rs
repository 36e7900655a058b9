//! Text from a pack or a peer on its way to a person or a model. What moves a cursor, hides or reorders is shown as
//! an escape, so that a doc comment cannot forge a line of our own output.

use std::borrow::Cow;

/// The text on one line: control and reordering characters, newlines included, are escaped.
#[must_use]
pub fn escape_control(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// The same for text of several lines: newlines and tabs stay.
#[must_use]
pub fn escape_control_lines(text: &str) -> Cow<'_, str> {
    escape(text, |character| matches!(character, '\n' | '\t'))
}

fn escape(text: &str, keep: fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |character: char| hides(character) && !keep(character);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match hidden(character) {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

fn hides(character: char) -> bool {
    matches!(character,
        // C0, DEL, C1
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        // bidirectional marks, embeddings, overrides, isolates (Unicode TR 36, section 2.10)
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // line and paragraph separators, byte order mark
        | '\u{2028}' | '\u{2029}' | '\u{feff}'
        // tag characters: text that models read and people do not see
        | '\u{e0000}'..='\u{e007f}')
}

/// Bytes of a name that is compared with others.
const LONGEST_NAME: usize = 64;

/// The name that was probably meant: at most a third of it mistyped, and no other as near.
pub(crate) fn nearest<'n>(typed: &str, names: &[&'n str]) -> Option<&'n str> {
    // Nobody mistypes a name this long; the distance costs the product of both lengths.
    let short = |name: &str| name.len() <= LONGEST_NAME;
    let near = names.iter().filter(|name| short(name) && short(typed));
    let mut found: Vec<(usize, &str)> = near.map(|name| (distance(typed, name), *name)).collect();
    found.sort_unstable();
    let (steps, name) = *found.first()?;
    let alone = found.get(1).is_none_or(|(next, _)| *next > steps);
    (steps <= name.len().max(3) / 3 && alone).then_some(name)
}

/// Edit distance; swapping two neighbours is one step (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0usize; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = match (i, j) {
                (0, steps) | (steps, 0) => steps,
                _ => {
                    let same = usize::from(from[i - 1] != to[j - 1]);
                    let step = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                    let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                    if swapped { step.min(rows[i - 2][j - 2] + 1) } else { step }
                }
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_hides_or_reorders_is_escaped() {
        assert_eq!(escape_control("a\x1b[2Jb\r\n\t\x7f\u{85}"), "a\\u{1b}[2Jb\\r\\n\\t\\u{7f}\\u{85}");
        assert_eq!(escape_control("x\u{202e}y\u{2066}z\u{feff}\u{e0041}\u{2028}"), "x\\u{202e}y\\u{2066}z\\u{feff}\\u{e0041}\\u{2028}");
    }

    #[test]
    fn other_text_is_left_alone() {
        for text in ["", "plain", "Größe 東京 👩‍👩‍👧", "back\\slash"] {
            assert!(matches!(escape_control(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn lines_stay_where_asked() {
        assert_eq!(escape_control_lines("a\n\tb\r\x1b"), "a\n\tb\\r\\u{1b}");
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["argv", "cwd", "env"];
        assert_eq!(nearest("agrv", &names), Some("argv"));
        assert_eq!(nearest("args", &names), Some("argv"));
        assert_eq!(nearest("directory", &names), None);
        assert_eq!(nearest("max_with", &["max_width", "quality"]), Some("max_width"));
        assert_eq!(nearest(&"a".repeat(1 << 20), &names), None);
        assert_eq!(nearest("a", &[&"a".repeat(1 << 20)]), None);
    }
}
