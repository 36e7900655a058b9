//! The `secrets` power: an owner's secrets for packs that need the value itself, one granted name at a time. Where a header of a web
//! request is all that a secret is for, `http` adds it on its way out and the pack never sees it: that is the better grant.
//!
//! Blocks: the vault reads a file. Nothing here is logged, and no error holds a value.

use std::fmt;

use outhaul_protocol::secret::{SecretBytes, valid_secret_name};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::shell_word;

/// Where the owner's secrets are.
pub trait Vault: fmt::Debug + Send + Sync {
    /// A secret by its name; none when it is not set. The text says why it cannot be read.
    fn get(&self, name: &str) -> Result<Option<SecretBytes>, String>;
}

/// Which secrets one pack may read: `[packs.NAME] secrets = ["…"]` of `agent.toml`. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Grant {
    /// By name.
    pub names: Vec<Name>,
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::deserialize(from).map(|names| Grant { names })
    }
}

/// A secret's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "lower-case letters, digits, `_` and `-`, at most 63, a letter or digit first";
        if valid_secret_name(text) {
            Ok(Name(text.to_owned()))
        } else {
            Err(format!("`{}` is not a secret's name: {wanted}", text.escape_debug()))
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Name::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// Why there is no secret. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretsError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// It is granted and has no value yet.
    #[error("{0}")]
    NotSet(String),
    /// The vault cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// A granted secret.
pub fn get(pack: &str, grant: &Grant, vault: &dyn Vault, name: &str) -> Result<SecretBytes, SecretsError> {
    if !grant.names.iter().any(|granted| granted.as_str() == name) {
        return Err(SecretsError::Denied(format!(
            "this machine's policy does not let pack `{pack}` read secret `{}`; on that machine: agent allow {pack} secrets {}",
            super::shown(name),
            shell_word(name)
        )));
    }
    match vault.get(name) {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(SecretsError::NotSet(not_set(name))),
        Err(why) => Err(SecretsError::Failed(why)),
    }
}

/// The sentence for a granted secret without a value.
pub(super) fn not_set(name: &str) -> String {
    format!("secret `{name}` is not set; on that machine: agent secret set {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct One;

    impl Vault for One {
        fn get(&self, name: &str) -> Result<Option<SecretBytes>, String> {
            match name {
                "broken" => Err("the disk is gone".into()),
                name => Ok((name == "token").then(|| SecretBytes::new(b"hunter2".to_vec()))),
            }
        }
    }

    #[test]
    fn a_secret_is_read_by_its_granted_name_only() {
        let grant = Grant { names: ["token", "unset", "broken"].map(|name| Name::parse(name).expect(name)).to_vec() };
        assert_eq!(get("p", &grant, &One, "token").expect("granted").expose(), b"hunter2");
        let sentence = "secret `unset` is not set; on that machine: agent secret set unset";
        assert_eq!(get("p", &grant, &One, "unset"), Err(SecretsError::NotSet(sentence.into())));
        assert_eq!(get("p", &grant, &One, "broken"), Err(SecretsError::Failed("the disk is gone".into())));
        let Err(SecretsError::Denied(sentence)) = get("p", &Grant::default(), &One, "token") else { panic!("denied") };
        assert_eq!(
            sentence,
            "this machine's policy does not let pack `p` read secret `token`; on that machine: agent allow p secrets token"
        );
        for name in ["Token", "", "../token", "token\n"] {
            assert!(matches!(get("p", &grant, &One, name), Err(SecretsError::Denied(_))), "{name}");
        }
    }
}
