//! The one place that prints. stdout is data, stderr is talk; a failure is `error: …` with a `hint: …` below it, or the
//! contract's JSON on stdout. What nodes, packs and the relay say is escaped: no text of theirs moves a cursor.

use std::io::{self, IsTerminal as _, Write as _};

use outhaul_protocol::error::Failure;
use outhaul_protocol::text::{escape_control, escape_control_lines};
use outhaul_protocol::types::Type;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

/// How a command's result is told.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// as JSON
    pub json: bool,
}

impl Output {
    /// Data: a line or several, each ended.
    pub fn data(self, text: &str) {
        let mut stdout = io::stdout().lock();
        // A reader that is gone wants nothing more; there is nobody to tell.
        let _ = if text.is_empty() { Ok(()) } else { writeln!(stdout, "{}", text.trim_end_matches('\n')) };
        let _ = stdout.flush();
    }

    /// Data as JSON on one line, out at once.
    pub fn json(self, value: &Json) {
        self.data(&value.to_string());
    }

    /// Either form of the same data.
    pub fn either(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Json) {
        if self.json { self.json(&json()) } else { self.data(&text()) }
    }

    /// Talk.
    pub fn talk(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Tells a failure; gives the exit status.
    pub fn fail(self, failure: &Failure) -> u8 {
        if self.json {
            self.json(&json!({"ok": false, "error": failure.to_json(None)}));
        } else {
            self.talk(&failure_text(failure, None));
        }
        failure.code.exit()
    }
}

/// Whether people see what is written to stderr.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A failure as people read it.
pub fn failure_text(failure: &Failure, detail: Option<&Type>) -> String {
    let mut text = format!("error: {}", escape_control_lines(&failure.message));
    // The sentence of a command's error often is its detail.
    let detail = failure.detail.as_ref().map(|value| value.render(detail)).filter(|detail| !text.contains(detail.as_str()));
    if let Some(detail) = detail {
        text.push_str(&indented("detail", &detail));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&indented("hint", &escape_control_lines(hint)));
    }
    text
}

/// `\n  word: text`, later lines below the first.
fn indented(word: &str, text: &str) -> String {
    let margin = " ".repeat(word.len() + 4);
    let mut lines = text.lines();
    let mut out = format!("\n  {word}: {}", lines.next().unwrap_or_default());
    for line in lines {
        out.push_str(&format!("\n{margin}{line}"));
    }
    out
}

/// Rows under heads, in columns; cells are escaped.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let escaped: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| escape_control(cell).into_owned()).collect()).collect();
    let width = |at: usize| escaped.iter().map(|row| row[at].chars().count()).chain([heads[at].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut out = vec![line(&mut heads.iter().copied())];
    out.extend(escaped.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    out.join("\n")
}

/// A lane as JSON: text, or base64 where it is none.
pub fn lane_json(bytes: &[u8]) -> Json {
    use base64::Engine as _;
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)}),
    }
}

/// A result as people read it; nothing where there is nothing.
pub fn result_text(value: &Value, ty: Option<&Type>) -> String {
    match (value, ty) {
        (Value::Null, None) => String::new(),
        _ => value.render(ty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::error::Code;

    #[test]
    fn a_failure_has_its_way_out_below() {
        let failure =
            Failure::new(Code::Denied, "`df` is not granted to pack `system`").hint("on that machine:\nagent allow system process df");
        insta::assert_snapshot!(failure_text(&failure, None), @r"
        error: `df` is not granted to pack `system`
          hint: on that machine:
                agent allow system process df
        ");
    }

    #[test]
    fn a_failure_of_a_node_cannot_forge_lines_by_control_characters() {
        let detail = Value::Map(vec![("no_sensor".into(), "cpu\nok: true\u{1b}[2J".into())]);
        let failure = Failure { detail: Some(detail), ..Failure::new(Code::CommandFailed, "it failed\u{1b}[1A\r") };
        insta::assert_snapshot!(failure_text(&failure, None), @r"
        error: it failed\u{1b}[1A\r
          detail: no_sensor: cpu\nok: true\u{1b}[2J
        ");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [vec!["bench-1".to_owned(), "x\n".into()], vec!["b".into(), "東京".into()]];
        insta::assert_snapshot!(table(&["NAME", "WHAT"], &rows), @r"
        NAME     WHAT
        bench-1  x\n
        b        東京
        ");
    }

    #[test]
    fn lanes_are_text_or_base64() {
        assert_eq!(lane_json("é\n".as_bytes()), json!("é\n"));
        assert_eq!(lane_json(&[0xff, 0]), json!({"base64": "/wA="}));
    }
}
