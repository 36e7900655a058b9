//! Headers that the owner adds to requests, with secrets in them: `Bearer {secret:api_token}`. The pack sees neither.

use std::fmt;

use ::http::{HeaderName, HeaderValue};
use outhaul_protocol::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::power::secrets::Name;

/// Headers that say how a message is framed and where it goes: neither pack nor owner sets them.
pub(crate) const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header's name that an owner may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Field(HeaderName);

impl Field {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name: HeaderName = text.parse().map_err(|_| format!("`{}` is not a header's name", text.escape_debug()))?;
        match RESERVED.contains(&name.as_str()) {
            true => Err(format!("header `{name}` cannot be set: it belongs to the connection")),
            false => Ok(Field(name)),
        }
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.0
    }
}

impl PartialOrd for Field {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Field {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl TryFrom<String> for Field {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Field::parse(&text)
    }
}

impl From<Field> for String {
    fn from(field: Field) -> String {
        field.to_string()
    }
}

/// A header's value with places for secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(Name),
}

/// What a place for a secret begins with.
const OPEN: &str = "{secret:";

/// Why a header cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// This secret has no value.
    NotSet(Name),
    /// The vault cannot be read.
    Vault(String),
    /// A value is no text for a header: it has a line break in it, for one.
    Unfit,
}

impl Template {
    /// Reads a value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(format!("`{}` is not a header's value: it wants plain visible characters", text.escape_debug()));
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (name, behind) = after.split_once('}').ok_or_else(|| format!("`{text}` has a `{OPEN}` without its `}}`"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Secret(Name::parse(name)?));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template(parts))
    }

    /// The secrets in it.
    pub fn secrets(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|part| match part {
            Part::Secret(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The value with its secrets, marked so that nothing prints it.
    pub(super) fn fill(&self, secret: impl Fn(&str) -> Result<Option<SecretBytes>, String>) -> Result<HeaderValue, Unfilled> {
        let mut bytes = Zeroizing::new(Vec::new());
        for part in &self.0 {
            match part {
                Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Part::Secret(name) => {
                    let found = secret(name.as_str()).map_err(Unfilled::Vault)?;
                    bytes.extend_from_slice(found.ok_or_else(|| Unfilled::NotSet(name.clone()))?.expose());
                }
            }
        }
        let mut value = HeaderValue::from_bytes(&bytes).map_err(|_| Unfilled::Unfit)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Secret(name) => write!(f, "{OPEN}{name}}}"),
        })
    }
}

impl TryFrom<String> for Template {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Template::parse(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(name: &str) -> Result<Option<SecretBytes>, String> {
        match name {
            "broken" => Err("the disk is gone".into()),
            "lines" => Ok(Some(SecretBytes::new(b"a\r\nx: y".to_vec()))),
            "unset" => Ok(None),
            name => Ok(Some(SecretBytes::new(format!("<{name}>").into_bytes()))),
        }
    }

    #[test]
    fn secrets_take_their_places_and_print_nowhere() {
        let template = Template::parse("Bearer {secret:a}:{secret:b-2}{x}").expect("a template");
        assert_eq!(template.to_string(), "Bearer {secret:a}:{secret:b-2}{x}");
        assert_eq!(template.secrets().map(Name::as_str).collect::<Vec<_>>(), ["a", "b-2"]);
        let value = template.fill(vault).expect("filled");
        assert_eq!(value.as_bytes(), b"Bearer <a>:<b-2>{x}");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn what_cannot_be_filled_says_why() {
        let fill = |text: &str| Template::parse(text).expect(text).fill(vault).expect_err(text);
        assert_eq!(fill("{secret:unset}"), Unfilled::NotSet(Name::parse("unset").expect("a name")));
        assert_eq!(fill("{secret:broken}"), Unfilled::Vault("the disk is gone".into()));
        assert_eq!(fill("{secret:lines}"), Unfilled::Unfit);
    }

    #[test]
    fn names_and_values_are_read_strictly() {
        for text in ["", "a\r\nb", "tab\t", "ä", "{secret:A}", "{secret:a", "{secret:}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        for text in ["", "a b", "host", "Content-Length", "transfer-encoding", "x:"] {
            assert!(Field::parse(text).is_err(), "{text}");
        }
        assert_eq!(Field::parse("Authorization").expect("a name").to_string(), "authorization");
    }
}
