//! Argument shapes: what a granted program's arguments may be, word by word. `[packs.system] process.allow` writes one as a list, the
//! command line as one text; both say the same.
//!
//! | list | text | means |
//! |---|---|---|
//! | `"restart"` | `restart` | this word |
//! | `["start", "stop"]` | `start\|stop` | one of these |
//! | `"<value>"` | the same | any one argument that does not begin with `-` |
//! | `"<anything>"` | the same | any one argument, options too |
//! | `"<name>"` | the same | letters, digits, `_`, `.` and `-`, the first neither `.` nor `-` |
//! | `"<1..64>"` | the same | a whole number from 1 to 64 |
//! | `"<glob:frame-*>"` | the same | an argument of this pattern |
//! | `"<path:/srv/**>"` | the same | an existing file or folder there, symbolic links followed |
//! | `"<newpath:/srv/*>"` | the same | the same, or a name that is free in an existing folder |
//! | `"--threads=<1..16>"` | the same | a word and its value |
//! | `"<…>?"`, `"<…>*"`, `"<…>+"` | the same | once or not at all; any number of times; at least once |
//! | `{ optional = […] }`, `any`, `some` | `[ … ]`, `[ … ]*`, `[ … ]+` | these words together |
//!
//! An argument that looks like an option never passes as a value unless the shape itself says so: a program reads `-o/etc/passwd`
//! where the owner thought of a file's name.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use super::argument::{Kind, Misfit};
use crate::power::shown;

/// Words of a shape, its groups' included.
const WORDS: usize = 64;
/// Arguments that are held against a shape at all.
pub(super) const ARGUMENTS: usize = 1_024;

/// What the arguments after the program may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    items: Vec<Item>,
}

/// Words that come together, so often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) words: Vec<Word>,
    pub(super) times: Times,
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Once,
    Optional,
    Any,
    Some,
}

impl Times {
    /// Its key in a list's table.
    pub(super) fn key(self) -> &'static str {
        match self {
            Times::Once => "once",
            Times::Optional => "optional",
            Times::Any => "any",
            Times::Some => "some",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Times::Once => "",
            Times::Optional => "?",
            Times::Any => "*",
            Times::Some => "+",
        }
    }
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// One of these texts.
    OneOf(Vec<String>),
    /// A text and what follows it.
    Slot { prefix: String, kind: Kind },
}

impl Item {
    /// A list's text: a word, or a word with `?`, `*` or `+` behind its `>`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((prefix, slot)) = text.split_once('<') else {
            return Ok(Item::once(Word::OneOf(vec![text.to_owned()])));
        };
        let wrong = |why: &str| Err(format!("`{}` {why}", text.escape_debug()));
        let Some((kind, mark)) = slot.split_once('>') else {
            return wrong("has a `<` without `>`; a word that has one is written as a list: [\"<\"]");
        };
        let times = match mark {
            "" => Times::Once,
            "?" => Times::Optional,
            "*" => Times::Any,
            "+" => Times::Some,
            _ => return wrong("goes on after its `>`, where only `?`, `*` or `+` may stand"),
        };
        let kind = Kind::parse(kind).map_err(|why| format!("`{}`: {why}", text.escape_debug()))?;
        Ok(Item { words: vec![Word::Slot { prefix: prefix.to_owned(), kind }], times })
    }

    fn once(word: Word) -> Self {
        Item { words: vec![word], times: Times::Once }
    }

    /// Words in a group: without marks of their own, for a group has one.
    pub(super) fn group(words: Vec<Item>, times: Times) -> Result<Self, String> {
        if words.is_empty() || words.iter().any(|item| item.times != Times::Once) {
            return Err("a group has one or more words, none of them with `?`, `*`, `+` or a group again".into());
        }
        Ok(Item { words: words.into_iter().flat_map(|item| item.words).collect(), times })
    }

    /// One of several texts.
    pub(super) fn choice(texts: Vec<String>) -> Result<Self, String> {
        if texts.is_empty() {
            return Err("a choice names at least one word".into());
        }
        Ok(Item::once(Word::OneOf(texts)))
    }
}

impl Shape {
    pub(super) fn new(items: Vec<Item>) -> Result<Self, String> {
        let words: usize = items.iter().map(|item| item.words.len()).sum();
        if words > WORDS {
            return Err(format!("the shape has {words} words, at most {WORDS} may be"));
        }
        Ok(Shape { items })
    }

    /// Of one item.
    pub(super) fn of(item: Item) -> Self {
        Shape { items: vec![item] }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether a caller has a say in none of the words but which of them there are.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.items.iter().flat_map(|item| &item.words).all(|word| matches!(word, Word::OneOf(_)))
    }

    /// Holds arguments against the shape; gives them as they are passed on, paths resolved. Looks at the file system where a word is a
    /// path.
    pub(super) fn fit(&self, arguments: &[String], keep_out: &[PathBuf]) -> Result<Vec<String>, Unfit> {
        if arguments.len() > ARGUMENTS {
            let sentence = format!("{} arguments are more than the {ARGUMENTS} that are compared with a shape", arguments.len());
            return Err(Unfit { at: 0, sentence, missing: false });
        }
        let mut fit = Fit { steps: steps(&self.items), arguments, keep_out, dead: HashSet::new(), worst: None, taken: Vec::new() };
        if fit.from(0, 0) {
            return Ok(fit.taken);
        }
        Err(fit.worst.unwrap_or_else(|| Unfit { at: 0, sentence: "they do not fit".into(), missing: false }))
    }
}

/// Why arguments are not of a shape: at the first argument that no reading of the shape gets past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    at: usize,
    pub(super) sentence: String,
    /// a path in a granted folder that is not there
    pub(super) missing: bool,
}

/// An item as the comparison sees it: `+` is once and then any number of times.
struct Step<'shape> {
    words: &'shape [Word],
    optional: bool,
    again: bool,
}

fn steps(items: &[Item]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for Item { words, times } in items {
        if matches!(times, Times::Once | Times::Some) {
            steps.push(Step { words, optional: false, again: false });
        }
        if matches!(times, Times::Optional | Times::Any | Times::Some) {
            steps.push(Step { words, optional: true, again: *times != Times::Optional });
        }
    }
    steps
}

/// A comparison under way. A step at an argument is tried once: what led nowhere is remembered.
struct Fit<'shape> {
    steps: Vec<Step<'shape>>,
    arguments: &'shape [String],
    keep_out: &'shape [PathBuf],
    dead: HashSet<(usize, usize)>,
    worst: Option<Unfit>,
    taken: Vec<String>,
}

impl Fit<'_> {
    fn from(&mut self, step: usize, at: usize) -> bool {
        if self.dead.contains(&(step, at)) {
            return false;
        }
        let Some(Step { words, optional, again }) = self.steps.get(step).map(|step| Step { ..*step }) else {
            let done = at == self.arguments.len();
            if let Some(extra) = self.arguments.get(at) {
                self.unfit(at, format!("argument {} `{}` is one too many", at + 1, shown(extra)), false);
            }
            return done;
        };
        let before = self.taken.len();
        if self.words(words, at) && self.from(if again { step } else { step + 1 }, at + words.len()) {
            return true;
        }
        self.taken.truncate(before);
        if optional && self.from(step + 1, at) {
            return true;
        }
        self.dead.insert((step, at));
        false
    }

    fn words(&mut self, words: &[Word], from: usize) -> bool {
        for (at, word) in (from..).zip(words) {
            let Some(argument) = self.arguments.get(at) else {
                self.unfit(at, format!("`{word}` is missing after {} arguments", self.arguments.len()), false);
                return false;
            };
            match word.take(argument, self.keep_out) {
                Ok(argument) => self.taken.push(argument),
                Err(misfit) => {
                    let why = misfit.why.unwrap_or_else(|| format!("is not `{word}`"));
                    self.unfit(at, format!("argument {} `{}` {why}", at + 1, shown(argument)), misfit.missing);
                    return false;
                }
            }
        }
        true
    }

    fn unfit(&mut self, at: usize, sentence: String, missing: bool) {
        if self.worst.as_ref().is_none_or(|worst| worst.at < at) {
            self.worst = Some(Unfit { at, sentence, missing });
        }
    }
}

impl Word {
    fn take(&self, argument: &str, keep_out: &[PathBuf]) -> Result<String, Misfit> {
        match self {
            Word::OneOf(texts) if texts.iter().any(|text| text == argument) => Ok(argument.to_owned()),
            Word::OneOf(_) => Err(Misfit::other()),
            Word::Slot { prefix, kind } => {
                let value = argument.strip_prefix(prefix.as_str()).ok_or_else(Misfit::other)?;
                // Behind a prefix nothing can be taken for an option any more.
                kind.take(value, prefix.is_empty(), keep_out).map(|value| format!("{prefix}{value}"))
            }
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::OneOf(texts) => {
                for (number, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if number > 0 { "|" } else { "" }, quoted(text))?;
                }
                Ok(())
            }
            Word::Slot { prefix, kind } => write!(f, "{prefix}<{kind}>"),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            return f.write_str("[]");
        }
        for (number, Item { words, times }) in self.items.iter().enumerate() {
            let space = if number > 0 { " " } else { "" };
            match (words.as_slice(), times) {
                ([word], Times::Once) => write!(f, "{space}{word}")?,
                ([word @ Word::Slot { .. }], _) => write!(f, "{space}{word}{}", times.mark())?,
                (words, times) => {
                    let words: Vec<String> = words.iter().map(Word::to_string).collect();
                    let mark = if *times == Times::Optional { "" } else { times.mark() };
                    write!(f, "{space}[{}]{mark}", words.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

/// A literal as the text form has it: in quotes where it would mean something else.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>[]|'".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "''"))
}
