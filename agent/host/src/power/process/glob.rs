//! Patterns for texts and paths. `*` is any run of characters but `/`, `**` any run at all, `?` one character but `/`; everything else
//! is itself. `**/` also stands for no folder, so that `/srv/**/a` has `/srv/a`. Matching takes time in proportion to both lengths,
//! whatever the pattern: a caller's text must not be able to make it explode.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Characters of a pattern: longer than any sensible path.
const PATTERN: usize = 512;
/// Bytes of a text that is matched at all, PATH_MAX.
const TEXT: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Is(char),
    One,
    Some,
    All,
    Folders,
}

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    text: String,
    tokens: Vec<Token>,
}

impl Glob {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().count() > PATTERN {
            return Err(format!("a pattern has 1 to {PATTERN} characters"));
        }
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '?' => Token::One,
                '*' if rest.next_if_eq(&'*').is_none() => Token::Some,
                '*' if rest.next_if_eq(&'/').is_some() => Token::Folders,
                '*' => Token::All,
                other => Token::Is(other),
            });
        }
        Ok(Glob { text: text.to_owned(), tokens })
    }

    /// Whether a text is of this pattern as a whole.
    pub(super) fn matches(&self, text: &str) -> bool {
        if text.len() > TEXT {
            return false;
        }
        let text: Vec<char> = text.chars().collect();
        // Which beginnings of the text the tokens so far can be.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for token in &self.tokens {
            reached = step(*token, &text, &reached);
        }
        reached.last() == Some(&true)
    }
}

fn step(token: Token, text: &[char], before: &[bool]) -> Vec<bool> {
    let mut after = vec![false; before.len()];
    let mut begun = false;
    for at in 0..before.len() {
        let last = at.checked_sub(1).and_then(|at| text.get(at)).copied();
        let previous = at.checked_sub(1).is_some_and(|at| before[at]);
        let grown = at.checked_sub(1).is_some_and(|at| after[at]);
        after[at] = match token {
            Token::Is(wanted) => previous && last == Some(wanted),
            Token::One => previous && last.is_some_and(|c| c != '/'),
            Token::Some => before[at] || grown && last.is_some_and(|c| c != '/'),
            Token::All => before[at] || grown,
            // Nothing, or any run that ends with a folder's slash.
            Token::Folders => before[at] || last == Some('/') && begun,
        };
        begun |= before[at];
    }
    after
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A pattern for absolute paths: a folder without wildcards, and what may stand below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathGlob {
    text: String,
    /// the owner's spelling; it may lead through symbolic links
    pub(super) base: PathBuf,
    /// none when the base itself is meant
    rest: Option<Glob>,
}

impl PathGlob {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !text.starts_with('/') || !Path::new(text).components().all(plain) || text.contains('\0') {
            return Err(format!("`{}` is not an absolute path without `..`", text.escape_debug()));
        }
        let text = if text.len() > 1 { text.trim_end_matches('/') } else { text };
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        let fixed = parts.iter().take_while(|part| !part.contains(['*', '?'])).count();
        let base = parts[..fixed].iter().fold(PathBuf::from("/"), |path, part| path.join(part));
        let rest = parts[fixed..].join("/");
        let rest = if rest.is_empty() { None } else { Some(Glob::parse(&rest)?) };
        Ok(PathGlob { text: text.to_owned(), base, rest })
    }

    /// Whether a path below the base (canonical, relative to it) is meant. The base itself is not what is below it.
    pub(super) fn has(&self, below: &str) -> bool {
        match &self.rest {
            None => below.is_empty(),
            Some(glob) => !below.is_empty() && glob.matches(below),
        }
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).expect(pattern).matches(text)
    }

    #[test]
    fn stars_stop_at_folders_and_double_stars_do_not() {
        for (pattern, text) in [
            ("frame-*.exr", "frame-0001.exr"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
            ("??", "ab"),
            ("**", "a/b/c"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/**/x", "a/x"),
            ("**.nk", "a/b.nk"),
            ("ä?", "äö"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("*", "a/b"),
            ("?", "/"),
            ("?", ""),
            ("a*", "ba"),
            ("**/x", "ax"),
            ("a/**/x", "a/bx"),
            ("frame-*.exr", "frame-1.exr.sh"),
            ("*.nk", "a/b.nk"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_text_costs_no_more_than_its_length() {
        let text = "a".repeat(TEXT);
        assert!(!glob(&"*a".repeat(200), &format!("{}b", &text[1..])));
        assert!(!glob("*", &format!("{text}a")), "longer than any path");
    }

    #[test]
    fn a_path_pattern_is_a_folder_and_what_is_below() {
        let path = |text: &str| PathGlob::parse(text).expect(text);
        assert_eq!(path("/srv/**").base, Path::new("/srv"));
        assert_eq!(path("/srv/*/in/x").base, Path::new("/srv"));
        assert!(path("/srv/**").has("a/b") && path("/srv/*").has("a") && !path("/srv/*").has("a/b"));
        assert!(!path("/srv/**").has(""), "the folder is not below itself");
        assert!(path("/srv/one").has("") && !path("/srv/one").has("x"));
        for wrong in ["srv/**", "", "/srv/../etc/*", "~/x"] {
            assert!(PathGlob::parse(wrong).is_err(), "{wrong}");
        }
    }
}
