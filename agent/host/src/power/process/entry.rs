//! What `allow` lists: a program, and how narrowly. A bare text grants the program with any arguments; a table narrows it by a shape,
//! an environment, folders, time, number and output of its own. On the command line one text says program and shape:
//! `systemctl status|restart nginx`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::program::check_entry;
use super::shape::{Item, Shape, Times, Word, quoted};

/// A granted program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name or absolute path.
    pub program: String,
    /// What its arguments may be; any without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Shape>,
    /// Variables a caller may set for it; the grant's without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Folders a caller may start it in; the grant's without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Vec<PathBuf>>,
    /// Seconds it may run; the grant's without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_secs: Option<u64>,
    /// How many of it may run at once for the pack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// MiB it may send on standard output and error together; then it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_mib: Option<u64>,
}

impl From<&str> for Entry {
    fn from(program: &str) -> Self {
        Entry { program: program.to_owned(), argv: None, env: None, cwd: None, max_secs: None, concurrent: None, output_mib: None }
    }
}

impl Entry {
    /// Reads what is typed: a program, or a program and a shape behind it. A path that is there is a program, spaces and all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((program, shape)) = text.split_once(|c: char| c.is_ascii_whitespace()).filter(|_| !is_file(text)) else {
            check_entry(text)?;
            return Ok(text.into());
        };
        check_entry(program)?;
        Ok(Entry { argv: Some(shape.parse()?), ..program.into() })
    }

    /// Whether it is a program and nothing else, so that the file has it as a text.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        *self == Entry::from(self.program.as_str())
    }

    /// Tells this entry from others of the pack, for counting what runs.
    pub(super) fn key(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Entry {
    /// As it is typed: without what else narrows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        self.argv.as_ref().map_or(Ok(()), |shape| write!(f, " {shape}"))
    }
}

fn is_file(text: &str) -> bool {
    text.starts_with('/') && Path::new(text).is_file()
}

/// A program and exact arguments, as they would be typed to allow just them.
pub(super) fn exactly(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().skip(1).map(|word| quoted(word)).collect();
    let program = argv.first().map_or("", String::as_str);
    if words.is_empty() { format!("{program} []") } else { format!("{program} {}", words.join(" ")) }
}

/// Whether a variable's name may stand in an `env`.
pub fn check_variable(text: &str) -> Result<(), String> {
    let fits = !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if fits { Ok(()) } else { Err(format!("`{}` is not a variable's name", text.escape_debug())) }
}

/// Whether a folder may stand in a `cwd`.
pub fn check_folder(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(format!("`{}` is relative; an absolute path is wanted", path.display().to_string().escape_debug()))
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a program, or { program = \"systemctl\", argv = [\"restart\", \"nginx\"] }")
            }

            fn visit_str<E: de::Error>(self, program: &str) -> Result<Entry, E> {
                check_entry(program).map(|()| program.into()).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map))?.entry().map_err(de::Error::custom)
            }
        }

        from.deserialize_any(Entries)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    program: String,
    argv: Option<Shape>,
    env: Option<Vec<String>>,
    cwd: Option<Vec<PathBuf>>,
    max_secs: Option<u64>,
    concurrent: Option<u32>,
    output_mib: Option<u64>,
}

impl Fields {
    fn entry(self) -> Result<Entry, String> {
        let Fields { program, argv, env, cwd, max_secs, concurrent, output_mib } = self;
        check_entry(&program)?;
        env.iter().flatten().try_for_each(|name| check_variable(name))?;
        cwd.iter().flatten().try_for_each(|folder| check_folder(folder))?;
        for (key, zero) in [("concurrent", concurrent == Some(0)), ("output_mib", output_mib == Some(0))] {
            if zero {
                return Err(format!("`{key} = 0` would let `{program}` do nothing; leave the program out instead"));
            }
        }
        Ok(Entry { program, argv, env, cwd, max_secs, concurrent, output_mib })
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Shape::new(Vec::<Item>::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, a list of words to choose from, or { optional = […] }, { any = […] }, { some = […] }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
                Item::parse(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Item::choice(texts).map_err(de::Error::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let key: Option<String> = map.next_key()?;
                let all = [Times::Optional, Times::Any, Times::Some];
                let times = all.into_iter().find(|times| key.as_deref() == Some(times.key()));
                let times = times.ok_or_else(|| de::Error::custom("a group is `optional`, `any` or `some` words"))?;
                let words: Vec<Item> = map.next_value()?;
                match map.next_key::<String>()? {
                    None => Item::group(words, times).map_err(de::Error::custom),
                    Some(_) => Err(de::Error::custom("a group has one key")),
                }
            }
        }

        from.deserialize_any(Items)
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.items())
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match (self.words.as_slice(), self.times) {
            ([word], Times::Once) => word.serialize(to),
            ([Word::Slot { .. }], _) => to.collect_str(&Shape::of(self.clone())),
            (words, times) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry(times.key(), words)?;
                map.end()
            }
        }
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Word::OneOf(texts) => match texts.as_slice() {
                [text] if !text.contains('<') => to.serialize_str(text),
                texts => to.collect_seq(texts),
            },
            slot => to.collect_str(slot),
        }
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut group: Option<Vec<Item>> = None;
        for token in tokens(text)? {
            match (token, group.as_mut()) {
                (Token::Open, None) => group = Some(Vec::new()),
                (Token::Open, Some(_)) => return Err("a group cannot stand in a group".into()),
                (Token::Close(times), Some(_)) => {
                    let words = group.take().unwrap_or_default();
                    // `[]` alone is the shape of no arguments.
                    if !words.is_empty() || times != Times::Optional {
                        items.push(Item::group(words, times)?);
                    }
                }
                (Token::Close(_), None) => return Err("there is a `]` without `[`".into()),
                (Token::Word(item), Some(words)) => words.push(item),
                (Token::Word(item), None) => items.push(item),
            }
        }
        match group {
            Some(_) => Err("there is a `[` without `]`".into()),
            None => Shape::new(items),
        }
    }
}

enum Token {
    Open,
    Close(Times),
    Word(Item),
}

/// Cuts a shape's text at spaces; what stands in quotes or between `<` and `>` stays whole.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            tokens.push(Token::Open);
            rest = rest[1..].trim_start();
            continue;
        }
        if let Some(after) = rest.strip_prefix(']') {
            let times = [('*', Times::Any), ('+', Times::Some)];
            let marked = times.into_iter().find_map(|(mark, times)| after.strip_prefix(mark).map(|after| (times, after)));
            let (times, after) = marked.unwrap_or((Times::Optional, after));
            tokens.push(Token::Close(times));
            rest = after.trim_start();
            continue;
        }
        let (item, after) = word(rest)?;
        tokens.push(Token::Word(item));
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// The first word of a text: literals with `|` between them, or a text with a slot in it.
fn word(text: &str) -> Result<(Item, &str), String> {
    let mut texts = vec![String::new()];
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '\'' => at += quote(&text[at..], texts.last_mut())?,
            '<' => {
                let whole = text[at..].find('>').map(|end| at + end + 1).ok_or("there is a `<` without `>`")?;
                let marks = text[whole..].find(|c: char| c.is_whitespace() || c == ']').unwrap_or(text.len() - whole);
                return Ok((Item::parse(&text[..whole + marks])?, &text[whole + marks..]));
            }
            c if c.is_whitespace() || c == ']' || c == '[' => break,
            '|' => {
                texts.push(String::new());
                at += 1;
            }
            c => {
                texts.iter_mut().last().into_iter().for_each(|text| text.push(c));
                at += c.len_utf8();
            }
        }
    }
    Ok((Item::choice(texts)?, &text[at..]))
}

/// Takes a text in single quotes (two of them are one); how long it was.
fn quote(text: &str, into: Option<&mut String>) -> Result<usize, String> {
    let (mut at, mut out) = (1, String::new());
    loop {
        let end = text[at..].find('\'').ok_or("there is a quote without its end")?;
        out.push_str(&text[at..at + end]);
        at += end + 1;
        if !text[at..].starts_with('\'') {
            break;
        }
        out.push('\'');
        at += 1;
    }
    into.into_iter().for_each(|into| into.push_str(&out));
    Ok(at)
}
