//! The native powers: what a pack may ask of the machine, in plain Rust. Each module mirrors one interface of `outhaul:host`
//! (same words, same units), `http` one of WASI; none knows WebAssembly, none but `http` the network (and `location` a gpsd that is named). The linker beside it translates.
//!
//! A power that needs a grant takes the pack's name and its grant with each request, never from ambient state, so that a call keeps
//! the grants it began with. A refusal is a sentence that ends with the command that would lift it.
//!
//! `gpu`, `system`, `camera`, `files`, `kv` and `secrets` block: run them on a blocking thread. `process`, `http`, `location`, `notify`,
//! `screen`, `containers` and `call` are async.

mod bus;
pub mod call;
pub mod camera;
pub mod containers;
pub mod files;
pub mod gpu;
pub mod http;
pub mod kv;
pub mod location;
pub mod notify;
pub mod picture;
pub mod process;
pub mod screen;
pub mod seat;
pub mod secrets;
pub mod system;

/// `text` as one word of a shell command line. A caller chose it and somebody may paste it, so that it must neither split, expand,
/// nor carry control characters to a terminal.
fn shell_word(text: &str) -> String {
    let text: String = text.chars().take(SHELL_WORD_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-/@:,=".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text` inside a sentence: control characters escaped, cut where it stops being helpful.
fn shown(text: &str) -> String {
    let mut out: String =
        text.chars().take(SHELL_WORD_CHARS).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if text.chars().nth(SHELL_WORD_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// Characters of a caller's text that a sentence repeats: longer than any sensible path, shorter than a nuisance in a log.
const SHELL_WORD_CHARS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_hint_cannot_run_what_a_caller_wrote() {
        assert_eq!(shell_word("/usr/bin/uname"), "/usr/bin/uname");
        assert_eq!(shell_word("x; rm -rf /"), "'x; rm -rf /'");
        assert_eq!(shell_word("a'b"), r"'a'\''b'");
        assert_eq!(shell_word("$(id)\n\u{1b}[2J"), "'$(id)\u{fffd}\u{fffd}[2J'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("-x"), "'-x'");
    }

    #[test]
    fn a_sentence_shows_control_characters_and_stays_short() {
        assert_eq!(shown("a\u{1b}b"), "a\\u{1b}b");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), SHELL_WORD_CHARS + 1);
    }
}
