//! One argument's value: what kinds there are, and whether a caller's text is of one.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::glob::{Glob, PathGlob};

/// Characters of a `<name>`.
const NAME: usize = 128;

/// What stands between `<` and `>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything but an option.
    Value,
    /// Anything.
    Anything,
    /// An identifier.
    Name,
    /// A whole number, both ends included.
    Number { from: i64, to: i64 },
    /// A text of a pattern.
    Glob(Glob),
    /// A path of a pattern; with `new` its last part need not be there.
    Path { pattern: PathGlob, new: bool },
}

/// Why a text is not of a kind.
#[derive(Debug)]
pub(super) struct Misfit {
    /// reads on after the argument; without it, "is not `WORD`"
    pub(super) why: Option<String>,
    /// a path in the pattern's folder that is not there
    pub(super) missing: bool,
}

impl Misfit {
    pub(super) fn other() -> Self {
        Misfit { why: None, missing: false }
    }

    fn because(why: impl Into<String>) -> Self {
        Misfit { why: Some(why.into()), missing: false }
    }
}

impl Kind {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<i64>().ok();
        match (text, text.split_once(':'), text.split_once("..")) {
            ("value", ..) => Ok(Kind::Value),
            ("anything", ..) => Ok(Kind::Anything),
            ("name", ..) => Ok(Kind::Name),
            (_, Some(("glob", pattern)), _) => Glob::parse(pattern).map(Kind::Glob),
            (_, Some((kind @ ("path" | "newpath"), pattern)), _) => {
                Ok(Kind::Path { pattern: PathGlob::parse(pattern)?, new: kind == "newpath" })
            }
            (_, _, Some((from, to))) => match (number(from), number(to)) {
                (Some(from), Some(to)) if from <= to => Ok(Kind::Number { from, to }),
                _ => Err("a range is two whole numbers, the smaller first: <1..64>".into()),
            },
            _ => Err("there are <value>, <anything>, <name>, <1..64>, <glob:…>, <path:/…> and <newpath:/…>".into()),
        }
    }

    /// The text as it is passed on. `alone`: it is a whole argument, so that a program could take it for an option.
    pub(super) fn take(&self, text: &str, alone: bool, keep_out: &[PathBuf]) -> Result<String, Misfit> {
        let option = || Misfit::because("looks like an option where a value is wanted");
        let fits = match self {
            Kind::Anything => true,
            Kind::Value if alone && text.starts_with('-') => return Err(option()),
            Kind::Value => true,
            Kind::Name => is_name(text),
            Kind::Number { from, to } => text.parse::<i64>().is_ok_and(|n| (*from..=*to).contains(&n) && n.to_string() == text),
            // A pattern that begins with a dash says so itself.
            Kind::Glob(glob) if alone && text.starts_with('-') && !glob.to_string().starts_with('-') => return Err(option()),
            Kind::Glob(glob) => glob.matches(text),
            Kind::Path { pattern, new } => return path(pattern, *new, text, keep_out),
        };
        if fits { Ok(text.to_owned()) } else { Err(Misfit::other()) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Value => f.write_str("value"),
            Kind::Anything => f.write_str("anything"),
            Kind::Name => f.write_str("name"),
            Kind::Number { from, to } => write!(f, "{from}..{to}"),
            Kind::Glob(glob) => write!(f, "glob:{glob}"),
            Kind::Path { pattern, new: false } => write!(f, "path:{pattern}"),
            Kind::Path { pattern, new: true } => write!(f, "newpath:{pattern}"),
        }
    }
}

fn is_name(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= NAME && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Where a path leads, when that is of the pattern. What is passed on is that place and not the caller's spelling, so that a link
/// changed in between has no effect; whoever may write in the granted folder itself can still replace what is there.
fn path(pattern: &PathGlob, new: bool, text: &str, keep_out: &[PathBuf]) -> Result<String, Misfit> {
    let path = Path::new(text);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    // Outside nothing may be told apart: what is not there and what is not granted read the same.
    let outside = || Misfit::because(format!("is not in `{pattern}`"));
    if !text.starts_with('/') || !path.components().all(plain) {
        return Err(Misfit::because("is not an absolute path without `..`"));
    }
    let base = fs::canonicalize(&pattern.base).map_err(|_| outside())?;
    let real = match resolve(path, new) {
        Ok(real) => real,
        Err(ErrorKind::NotFound) if path.starts_with(&pattern.base) || path.starts_with(&base) => {
            return Err(Misfit { why: Some("is not there".into()), missing: true });
        }
        Err(_) => return Err(outside()),
    };
    let below = real.strip_prefix(&base).ok().and_then(Path::to_str).filter(|below| pattern.has(below)).ok_or_else(outside)?;
    if keep_out.iter().any(|folder| real.starts_with(folder)) {
        return Err(Misfit::because("is the agent's own, which no policy gives away"));
    }
    // A pipe or a device would hang the program, or be more than a file.
    if fs::metadata(&real).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return Err(Misfit::because("is neither a file nor a folder"));
    }
    Ok(if below.is_empty() { base } else { base.join(below) }.to_string_lossy().into_owned())
}

fn resolve(path: &Path, new: bool) -> Result<PathBuf, ErrorKind> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(real), ..) => Ok(real),
        // A link that leads nowhere is there, and a program would write where it leads.
        (Err(error), Some(folder), Some(name)) if new && error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            Ok(fs::canonicalize(folder).map_err(|error| error.kind())?.join(name))
        }
        (Err(error), ..) => Err(error.kind()),
    }
}
