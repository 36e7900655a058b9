//! Configuration in TOML. A mistake is refused at start with path, line and key; a key nobody reads is one (the
//! types say `deny_unknown_fields`). A file that is not there is only fine where its reader says so.

use crate::file::{failed, read_optional};
use outhaul_protocol::error::{Code, Failure};
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads a configuration that must be there.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    read_toml_optional(path)?.ok_or_else(|| failed("read", path, &io::Error::new(io::ErrorKind::NotFound, "there is no such file")))
}

/// Reads a configuration that may be missing.
pub fn read_toml_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let Some(bytes) = read_optional(path)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Failure::new(Code::BadConfig, format!("read `{}`: not UTF-8 at byte {}", path.display(), error.valid_up_to())))?;
    parse_toml(text, path).map(Some)
}

/// Reads the text of a configuration; `path` is what mistakes are blamed on.
pub fn parse_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error| Failure::new(Code::BadConfig, sentence(text, path, &error)))
}

fn sentence(text: &str, path: &Path, error: &toml::de::Error) -> String {
    let place = error.span().map_or_else(String::new, |span| {
        let line = text[..floor(text, span.start)].matches('\n').count() + 1;
        let key = DeTable::parse(text).ok().and_then(|table| key_at(table.get_ref(), span.start));
        let near = || text.get(span.clone()).and_then(|text| text.lines().next()).filter(|text| (1..=40).contains(&text.len()));
        match (key, near()) {
            (Some(key), _) => format!("line {line}, key `{key}`: "),
            (None, Some(near)) => format!("line {line}, at `{near}`: "),
            (None, None) => format!("line {line}: "),
        }
    });
    format!("read `{}`: {place}{}", path.display(), error.message().trim_end().replace('\n', "; "))
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The dotted key whose name or value covers a byte of the file.
fn key_at(table: &DeTable<'_>, at: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref().to_string();
        if let Some(inside) = within(value.get_ref(), at) {
            return Some(format!("{name}{inside}"));
        }
        let covers = |span: std::ops::Range<usize>| span.contains(&at);
        (covers(key.span()) || covers(value.span())).then_some(name)
    })
}

fn within(value: &DeValue<'_>, at: usize) -> Option<String> {
    match value {
        DeValue::Table(table) => key_at(table, at).map(|key| format!(".{key}")),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| match within(item.get_ref(), at) {
            Some(inside) => Some(format!("[{index}]{inside}")),
            None => item.span().contains(&at).then(|| format!("[{index}]")),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: Option<String>,
        limits: Option<Limits>,
        #[serde(default)]
        packs: BTreeMap<String, Powers>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        memory_mib: u32,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Powers {
        allow: Vec<String>,
    }

    fn say(text: &str) -> String {
        let failure = parse_toml::<Config>(text, Path::new("/x/agent.toml")).unwrap_err();
        assert_eq!(failure.code, Code::BadConfig);
        failure.message.strip_prefix("read `/x/agent.toml`: ").unwrap().to_owned()
    }

    #[test]
    fn a_mistake_has_path_line_and_key() {
        assert_eq!(
            say("name = \"x\"\nnmae = \"y\"\n"),
            "line 2, key `nmae`: unknown field `nmae`, expected one of `name`, `limits`, `packs`"
        );
        assert_eq!(say("[limits]\n\nmemory_mib = \"64\"\n"), "line 3, key `limits.memory_mib`: invalid type: string \"64\", expected u32");
        assert_eq!(say("[limits]\nmemory = 64\n"), "line 2, key `limits.memory`: unknown field `memory`, expected `memory_mib`");
        assert_eq!(
            say("[packs.\"système\"]\nallow = [\"df\",\n  7]\n"),
            "line 3, key `packs.système.allow[1]`: invalid type: integer `7`, expected a string"
        );
        assert_eq!(say("name = \"a\"\nname = \"b\"\n"), "line 2, at `name`: duplicate key");
        assert!(say("name = \n").starts_with("line 1: "));
    }

    #[test]
    fn a_missing_file_is_only_fine_where_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        assert_eq!(read_toml_optional::<Config>(&path), Ok(None));
        assert_eq!(read_toml::<Config>(&path).unwrap_err().message, format!("read `{}`: there is no such file", path.display()));
        std::fs::write(&path, "[limits]\nmemory_mib = 64\n").unwrap();
        assert_eq!(read_toml::<Config>(&path).unwrap().limits, Some(Limits { memory_mib: 64 }));
        std::fs::write(&path, [b'a', 0xff]).unwrap();
        assert!(read_toml::<Config>(&path).unwrap_err().message.ends_with("not UTF-8 at byte 1"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(name|limits|packs|\\[|\\]|=|\"|\\.|\n|ü|[ -~]){0,30}") {
            let _ = parse_toml::<Config>(&text, Path::new("/x"));
        }
    }
}
