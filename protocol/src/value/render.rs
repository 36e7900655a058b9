//! A result as text for people: a record as `key: value` lines, a list of flat records as a table. It is for reading,
//! JSON is for programs. Whatever the pack put into a text cannot leave its place: control characters are escaped.

use super::Value;
use super::json::{float_name, shortest_f32};
use crate::text::{escape_control, escape_control_lines};
use crate::types::Type;

/// Items of a list on one line stay under this; longer lists get a line each.
const LINE: usize = 72;
/// Bytes shown as hexadecimal digits; of more only their number.
const HEX: usize = 32;

impl Value {
    /// The value as text, without a newline at its end.
    #[must_use]
    pub fn render(&self, ty: Option<&Type>) -> String {
        match self {
            // A text alone is the whole output: its lines are its own.
            Value::Text(text) => escape_control_lines(text).into_owned(),
            _ => block(self, ty).join("\n"),
        }
    }
}

fn inner(ty: Option<&Type>) -> Option<&Type> {
    match ty {
        Some(Type::Option(inner)) => Some(inner),
        other => other,
    }
}

/// The lines of a value.
fn block(value: &Value, ty: Option<&Type>) -> Vec<String> {
    let ty = inner(ty);
    if let Some(line) = line(value, ty) {
        return vec![line];
    }
    match value {
        Value::Map(entries) => record(entries, ty),
        Value::Array(items) => list(items, ty),
        _ => Vec::new(),
    }
}

/// A value that fits on one line: a scalar, a short list of scalars, nothing.
fn line(value: &Value, ty: Option<&Type>) -> Option<String> {
    match value {
        Value::Array(items) if items.is_empty() => Some("(none)".into()),
        Value::Map(entries) if entries.is_empty() => Some("(empty)".into()),
        Value::Array(items) => {
            let items = items.iter().enumerate().map(|(at, item)| scalar(item, element(ty, at)));
            let text = items.collect::<Option<Vec<_>>>()?.join(", ");
            (text.chars().count() <= LINE).then_some(text)
        }
        other => scalar(other, ty),
    }
}

fn scalar(value: &Value, ty: Option<&Type>) -> Option<String> {
    Some(match value {
        Value::Null => "-".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if !value.is_finite() => float_name(*value).into(),
        Value::Float(value) if inner(ty) == Some(&Type::F32) => shortest_f32(*value).to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) if text.is_empty() => "\"\"".into(),
        Value::Text(text) => escape_control(text).into_owned(),
        Value::Bytes(bytes) if bytes.len() <= HEX => format!("0x{}", hex::encode(bytes)),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Array(_) | Value::Map(_) => return None,
    })
}

/// The type of a list's or tuple's item.
fn element(ty: Option<&Type>, at: usize) -> Option<&Type> {
    match inner(ty)? {
        Type::List(item) => Some(item),
        Type::Tuple(types) => types.get(at),
        _ => None,
    }
}

fn member<'t>(ty: Option<&'t Type>, key: &str) -> Option<&'t Type> {
    inner(ty.and_then(|ty| ty.member(key)))
}

/// `key: value` lines; values that fit on a line are aligned, others follow indented.
fn record(entries: &[(String, Value)], ty: Option<&Type>) -> Vec<String> {
    let rows: Vec<(String, Option<String>, &Value, Option<&Type>)> = entries
        .iter()
        .map(|(key, value)| {
            let ty = member(ty, key);
            (format!("{}:", escape_control(key)), line(value, ty), value, ty)
        })
        .collect();
    let width = rows.iter().filter(|row| row.1.is_some()).map(|row| row.0.chars().count()).max().unwrap_or(0);
    let mut out = Vec::new();
    for (key, line, value, ty) in rows {
        match line {
            Some(line) => out.push(format!("{key:width$} {line}")),
            None => {
                out.push(key);
                out.extend(indent(block(value, ty), "  ", "  "));
            }
        }
    }
    out
}

fn list(items: &[Value], ty: Option<&Type>) -> Vec<String> {
    table(items, ty).unwrap_or_else(|| {
        let blocks = items.iter().enumerate().map(|(at, item)| indent(block(item, element(ty, at)), "- ", "  "));
        blocks.flatten().collect()
    })
}

fn indent(lines: Vec<String>, first: &str, rest: &str) -> Vec<String> {
    lines.into_iter().enumerate().map(|(at, line)| format!("{}{line}", if at == 0 { first } else { rest })).collect()
}

/// Records with the same keys and only one-line values, as columns. Too wide for a terminal is no table.
fn table(items: &[Value], ty: Option<&Type>) -> Option<Vec<String>> {
    let Some(Value::Map(first)) = items.first() else { return None };
    let mut rows = vec![first.iter().map(|(key, _)| escape_control(key).to_uppercase()).collect::<Vec<_>>()];
    for (at, item) in items.iter().enumerate() {
        let Value::Map(entries) = item else { return None };
        if entries.len() != first.len() {
            return None;
        }
        let ty = inner(element(ty, at));
        let cells =
            entries.iter().zip(first).map(|((key, value), (head, _))| if key == head { line(value, member(ty, key)) } else { None });
        rows.push(cells.collect::<Option<_>>()?);
    }
    let mut widths = vec![0; first.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let wide = widths.iter().sum::<usize>() + 2 * widths.len();
    (wide <= 2 * LINE).then(|| rows.iter().map(|row| columns(row, &widths)).collect())
}

fn columns(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::{any_type, field};
    use crate::value::tests::any_value;
    use proptest::prelude::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn a_record_is_aligned_lines() {
        let load = map(&[("one", Value::Float(0.5)), ("fifteen", Value::Float(0.25))]);
        let record = map(&[
            ("os", "Debian".into()),
            ("uptime", Value::Int(12)),
            ("load", load),
            ("addresses", Value::Array(vec!["10.0.0.1".into(), "::1".into()])),
            ("gpus", Value::Array(vec![])),
            ("hottest", Value::Null),
        ]);
        let text = "os:        Debian\nuptime:    12\nload:\n  one:     0.5\n  fifteen: 0.25\naddresses: 10.0.0.1, ::1\ngpus:      (none)\nhottest:   -";
        assert_eq!(record.render(None), text);
    }

    #[test]
    fn flat_records_are_a_table_and_others_are_items() {
        let device = |index: i128, name: &str| map(&[("index", Value::Int(index)), ("name", name.into())]);
        let table = Value::Array(vec![device(0, "NVIDIA H200"), device(10, "")]);
        assert_eq!(table.render(None), "INDEX  NAME\n0      NVIDIA H200\n10     \"\"");
        let nested = Value::Array(vec![map(&[("a", Value::Int(1)), ("b", device(0, "x"))])]);
        assert_eq!(nested.render(None), "- a: 1\n  b:\n    index: 0\n    name:  x");
        let words = Value::Array(vec!["x".repeat(50).as_str().into(), "y".repeat(50).as_str().into()]);
        assert_eq!(words.render(None), format!("- {}\n- {}", "x".repeat(50), "y".repeat(50)));
    }

    #[test]
    fn an_f32_is_as_short_as_it_was() {
        let ty = Type::Record(vec![field("celsius", Type::Option(Box::new(Type::F32)))]);
        let value = map(&[("celsius", Value::Float(f64::from(41.3f32)))]);
        assert_eq!(value.render(Some(&ty)), "celsius: 41.3");
        assert_eq!(Value::Array(vec![value]).render(Some(&Type::List(Box::new(ty)))), "CELSIUS\n41.3");
    }

    #[test]
    fn a_text_alone_keeps_its_lines_and_no_text_forges_a_field() {
        assert_eq!(Value::from("a\nb\x1b[2J").render(None), "a\nb\\u{1b}[2J");
        assert_eq!(map(&[("name", "x\nok: true".into())]).render(None), "name: x\\nok: true");
    }

    #[test]
    fn bytes_and_oddities() {
        assert_eq!(Value::Bytes(vec![1, 255]).render(None), "0x01ff");
        assert_eq!(Value::Bytes(vec![0; 33]).render(None), "33 bytes");
        assert_eq!(Value::Float(f64::NAN).render(None), "NaN");
        assert_eq!(Value::Null.render(None), "-");
        assert_eq!(Value::Map(vec![]).render(None), "(empty)");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_escapes(value in any_value(), ty in any_type()) {
            for text in [value.render(Some(&ty)), value.render(None)] {
                prop_assert!(!text.contains(|character: char| character.is_control() && character != '\n' && character != '\t'));
            }
        }
    }
}
