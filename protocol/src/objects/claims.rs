//! Small languages inside claims: names, command patterns, selectors of nodes, patterns of names and labels. None has
//! a negation, so adding a label or a rule can only widen what is said on purpose.

use crate::keys::KeyId;
use crate::limits;
use std::collections::BTreeMap;

/// A claim that is not written as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// Not a name.
    #[error("`{}` is not a name: lower-case letters, digits and dashes, at most 63, no dash first", .0.escape_debug())]
    Name(String),
    /// Not a command pattern.
    #[error("`{}` is not a command pattern: `*`, `interface.*` or `interface.function`", .0.escape_debug())]
    Command(String),
    /// Not a selector of nodes.
    #[error("`{}` does not select nodes: `*`, a name, an id or `label=value`, with commas between what must all hold", .0.escape_debug())]
    Selector(String),
    /// Not a pattern of names.
    #[error("`{}` is not a pattern of names: `*`, `start-*` or a name", .0.escape_debug())]
    NamePattern(String),
    /// Not a pattern of labels.
    #[error("`{}` is not a pattern of labels: `*`, `label=*` or `label=value`", .0.escape_debug())]
    LabelPattern(String),
}

/// Whether this can name a node, pack or label: `[a-z0-9][a-z0-9-]{0,62}`.
#[must_use]
pub fn valid_name(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= limits::NAME && text.bytes().next().is_some_and(ok) && text.bytes().all(|byte| ok(byte) || byte == b'-')
}

/// Whether this can be a label's value: a name, or several with dots and underscores between, so that commas, `=` and
/// `*` keep their meaning in selectors and patterns.
#[must_use]
pub fn valid_label_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::NAME && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// `interface` or `function` in a command's name.
fn valid_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Checks a command pattern.
pub fn check_command_pattern(pattern: &str) -> Result<(), ClaimsError> {
    let fits = pattern == "*"
        || pattern.split_once('.').is_some_and(|(interface, function)| valid_word(interface) && (function == "*" || valid_word(function)));
    if fits { Ok(()) } else { Err(ClaimsError::Command(pattern.to_owned())) }
}

/// Whether a pattern covers a pack's command. Commands of the agent itself (`node.…`, `pack.…`) are no pack's.
#[must_use]
pub fn command_matches(pattern: &str, command: &str) -> bool {
    match pattern.strip_suffix(".*") {
        _ if pattern == "*" => true,
        Some(interface) => command.split_once('.').is_some_and(|(found, _)| found == interface),
        None => pattern == command,
    }
}

/// What selectors look at: a node as its newest certificate has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLabels {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeLabels {
    /// Whether any of the terms selects this node.
    #[must_use]
    pub fn selected_by(&self, terms: &[String]) -> bool {
        terms.iter().any(|term| term.split(',').all(|part| self.fits(part)))
    }

    fn fits(&self, part: &str) -> bool {
        match part.split_once('=') {
            Some((label, value)) => self.labels.get(label).is_some_and(|found| found == value),
            None => part == "*" || part == self.name || (part.len() == 64 && part.parse() == Ok(self.id)),
        }
    }
}

/// Checks one term of a selector.
pub fn check_selector(term: &str) -> Result<(), ClaimsError> {
    let part = |part: &str| match part.split_once('=') {
        Some((label, value)) => valid_name(label) && valid_label_value(value),
        None => part == "*" || valid_name(part) || (part.len() == 64 && part.bytes().all(|byte| b"0123456789abcdef".contains(&byte))),
    };
    if term.split(',').all(part) { Ok(()) } else { Err(ClaimsError::Selector(term.to_owned())) }
}

/// Checks a pattern of names.
pub fn check_name_pattern(pattern: &str) -> Result<(), ClaimsError> {
    let start = pattern.strip_suffix('*').unwrap_or(pattern);
    if start.is_empty() && pattern == "*" || valid_name(start) { Ok(()) } else { Err(ClaimsError::NamePattern(pattern.to_owned())) }
}

/// Whether a pattern covers a name.
#[must_use]
pub fn name_matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// Checks a pattern of labels.
pub fn check_label_pattern(pattern: &str) -> Result<(), ClaimsError> {
    let fits = pattern == "*"
        || pattern.split_once('=').is_some_and(|(label, value)| valid_name(label) && (value == "*" || valid_label_value(value)));
    if fits { Ok(()) } else { Err(ClaimsError::LabelPattern(pattern.to_owned())) }
}

/// Whether a pattern covers a label.
#[must_use]
pub fn label_matches(pattern: &str, label: &str, value: &str) -> bool {
    pattern == "*" || pattern.split_once('=').is_some_and(|(wanted, of)| wanted == label && (of == "*" || of == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_alternatives_and_commas_are_conditions() {
        let labels = BTreeMap::from([("site".to_owned(), "west".to_owned()), ("gpu".to_owned(), "h200".to_owned())]);
        let node = NodeLabels { id: KeyId([7; 32]), name: "bench-1".to_owned(), labels };
        let selects = |terms: &[&str]| node.selected_by(&terms.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>());
        assert!(selects(&["*"]));
        assert!(selects(&["other", "bench-1"]));
        assert!(selects(&["site=west,gpu=h200"]));
        assert!(!selects(&["site=west,gpu=a100"]));
        assert!(!selects(&["site=", "", "bench", "bench-*", "!other"]));
        assert!(selects(&[&KeyId([7; 32]).to_string()]));
        assert!(!selects(&[]));
    }

    #[test]
    fn a_pattern_of_commands_stops_at_the_dot() {
        assert!(command_matches("gpu.*", "gpu.list"));
        assert!(!command_matches("gpu.*", "gpux.list"));
        assert!(!command_matches("gpu.li", "gpu.list"));
        for bad in ["", "gpu", "*.list", "gpu.l*", "gpu.list.more", "Gpu.list"] {
            assert!(check_command_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_patterns_are_checked() {
        assert!(valid_name("bench-1") && valid_name("0"));
        for bad in ["", "-a", "A", "a_b", "a.b", "é", &"a".repeat(64)] {
            assert!(!valid_name(bad), "{bad}");
        }
        assert!(check_name_pattern("kiosk-*").is_ok() && check_name_pattern("*").is_ok() && check_name_pattern("").is_err());
        assert!(name_matches("kiosk-*", "kiosk-7") && !name_matches("kiosk-*", "bench-1") && !name_matches("kiosk", "kiosk-7"));
        assert!(label_matches("site=*", "site", "west") && !label_matches("site=*", "sites", "west"));
        assert!(check_selector("site=west,*").is_ok() && check_selector("site=we st").is_err());
    }
}
