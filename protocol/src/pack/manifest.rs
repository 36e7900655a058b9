//! The manifest: a JSON text in the section `outhaul:pack`. It asks, it never grants: every power in it is refused until
//! the machine's owner says otherwise, and what it does not name but imports is asked for all the same.

use serde::{Deserialize, Serialize};

use super::{rejected, text};
use crate::error::Failure;
use crate::limits;
use crate::text::escape_control;

/// Who a pack is and what it asks for. Fields this version does not know are passed over: a newer builder may say more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name: `[a-z0-9][a-z0-9-]{0,62}`.
    pub name: String,
    /// Its version; compared by the rules of semantic versioning where it is one.
    pub version: String,
    /// The folder of `wit/` it was built against, `0.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Powers, each with the reason that the machine's owner reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub powers: Vec<Asked>,
    /// Platforms it is for, `linux-x86_64`; none means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Ceilings it would like other than the agent's own.
    #[serde(default, skip_serializing_if = "Wanted::is_empty")]
    pub limits: Wanted,
    /// SHA-256 of what it was built from, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<String>,
    /// What built it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
}

/// A power and why it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The power's name.
    pub name: String,
    /// The reason, one sentence.
    pub reason: String,
}

/// Ceilings a pack would like. The owner's stand above them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Memory of one call, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Seconds one call may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_secs: Option<u32>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        *self == Wanted::default()
    }
}

impl Manifest {
    /// Reads and checks the section's text.
    pub fn from_json(section: &[u8]) -> Result<Self, Failure> {
        text("manifest", section, limits::MANIFEST)?;
        let manifest: Manifest =
            serde_json::from_slice(section).map_err(|error| rejected(format!("section `{}`: {error}", super::PACK_SECTION)))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The section's text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are always JSON")
    }

    /// Whether it is a manifest that an agent takes.
    pub fn check(&self) -> Result<(), Failure> {
        let name = &self.name;
        if !is_name(name) {
            let shown: String = escape_control(name).chars().take(limits::NAME).collect();
            return Err(rejected(format!(
                "`{shown}` is not a pack's name: lower-case letters, digits and dashes, at most {}, no dash first",
                limits::NAME
            )));
        }
        let of = |failure: Failure| Failure { message: format!("pack `{name}`: {}", failure.message), ..failure };
        if !is_word(&self.version, limits::VERSION) {
            return Err(of(rejected(format!("its version is not 1 to {} printable characters", limits::VERSION))));
        }
        if self.powers.len() > limits::ASKED {
            return Err(of(rejected(format!("it asks for {} powers, at most {} are allowed", self.powers.len(), limits::ASKED))));
        }
        for (at, asked) in self.powers.iter().enumerate() {
            if !is_name(&asked.name) {
                return Err(of(rejected(format!("`{}` is not a power's name", escape_control(&asked.name)))));
            }
            if self.powers[..at].iter().any(|other| other.name == asked.name) {
                return Err(of(rejected(format!("it asks for `{}` twice", asked.name))));
            }
            if asked.reason.trim().is_empty() {
                return Err(of(rejected(format!("it asks for `{}` without a reason", asked.name))));
            }
            text(&format!("reason for `{}`", asked.name), asked.reason.as_bytes(), limits::REASON).map_err(of)?;
        }
        let words = self.api.iter().chain(&self.sources).chain(&self.builder).chain(&self.platforms);
        if self.platforms.len() > limits::ASKED || words.into_iter().any(|word| !is_line(word)) {
            return Err(of(rejected(format!(
                "api, platforms, sources or builder is not one short line of text, or are over {}",
                limits::ASKED
            ))));
        }
        Ok(())
    }

    /// Why it asks for a power, if it says so.
    #[must_use]
    pub fn reason(&self, power: &str) -> Option<&str> {
        self.powers.iter().find(|asked| asked.name == power).map(|asked| asked.reason.as_str())
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.len() <= limits::NAME && name.chars().all(|c| plain(c) || c == '-')
}

fn is_word(word: &str, ceiling: usize) -> bool {
    !word.is_empty() && word.len() <= ceiling && word.chars().all(|c| c.is_ascii_graphic())
}

fn is_line(line: &str) -> bool {
    !line.is_empty() && line.len() <= limits::REASON && line.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        Manifest::from_json(json.as_bytes()).expect_err(json).message
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let manifest = Manifest {
            name: "thermal".into(),
            version: "1.2.0".into(),
            api: Some("0.1".into()),
            powers: vec![Asked { name: "system".into(), reason: "reads the sensors".into() }],
            platforms: vec!["linux-x86_64".into()],
            limits: Wanted { memory_mib: Some(128), max_secs: None },
            sources: Some("00".repeat(32)),
            builder: Some("relay 0.1.0".into()),
        };
        assert_eq!(Manifest::from_json(&manifest.to_json()).expect("reads"), manifest);
        let least = Manifest { name: "a".into(), version: "1".into(), ..Manifest::default() };
        assert_eq!(least.to_json(), br#"{"name":"a","version":"1"}"#);
        assert_eq!(manifest.reason("system"), Some("reads the sensors"));
    }

    #[test]
    fn names_versions_and_reasons_are_checked() {
        for name in ["", "-x", "Gpu", "a/b", "a\u{1b}[2J"] {
            let json = serde_json::json!({"name": name, "version": "1"}).to_string();
            assert!(refused(&json).contains("is not a pack's name"), "{name}");
        }
        assert!(refused(r#"{"name":"a","version":"1 2"}"#).contains("version"));
        let asking = |powers: serde_json::Value| serde_json::json!({"name": "a", "version": "1", "powers": powers}).to_string();
        assert!(refused(&asking(serde_json::json!([{"name": "gpu", "reason": " "}]))).contains("without a reason"));
        let twice = serde_json::json!([{"name": "gpu", "reason": "x"}, {"name": "gpu", "reason": "y"}]);
        assert!(refused(&asking(twice)).contains("twice"));
        assert!(refused(&asking(serde_json::json!([{"name": "gpu", "reason": "x".repeat(limits::REASON + 1)}]))).contains("reason"));
        assert!(refused(r#"{"name":"a","version":"1","platforms":["a\nb"]}"#).contains("platforms"));
        assert!(refused(&format!("{{\"name\":\"a\",\"version\":\"1\",\"x\":\"{}\"}}", "y".repeat(limits::MANIFEST))).contains("bytes"));
    }
}
