//! `agent trust`: what the machine's owner sees and says about publishers. It is written to `agent.toml`, which a running
//! agent reads again; what the fleet gave is not the owner's to change, only to refuse.

use std::fmt::Write as _;

use outhaul_home::Home;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use outhaul_protocol::objects::valid_name;
use outhaul_protocol::publisher::{Publisher, Trust};
use serde_json::{Value as Json, json};

use crate::config::{AgentConfig, FILE};
use crate::edit::ConfigEdit;
use crate::pins::{self, Membership};

/// Whom this machine trusts to publish.
#[derive(Debug)]
pub struct Trusted {
    trust: Trust,
    config: AgentConfig,
}

/// How a publisher stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Trusted,
    Refused,
    Revoked,
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Standing::Trusted => "trusted",
            Standing::Refused => "refused",
            Standing::Revoked => "revoked",
        }
    }
}

pub(super) fn standing(trust: &Trust, publisher: &Publisher) -> Standing {
    match () {
        () if trust.revoked.has_key(&publisher.key().id()) => Standing::Revoked,
        () if publisher.ids().any(|id| trust.refused.contains(&id)) => Standing::Refused,
        () => Standing::Trusted,
    }
}

/// Whether the owner's own file names it.
pub(super) fn by_owner(config: &AgentConfig, publisher: &Publisher) -> bool {
    config.publishers.trust.values().any(|key| publisher.keys().contains(&key.0))
}

impl Trusted {
    /// Reads a home.
    pub fn read(home: &Home) -> Result<Self, Failure> {
        Ok(Trusted { trust: super::read(home)?, config: AgentConfig::load(home)? })
    }

    /// Refused keys that nobody trusts anyway.
    fn refused_only(&self) -> impl Iterator<Item = (&String, &PublicKey)> {
        let unknown = |key: &PublicKey| self.trust.publishers.of(&key.id()).is_none();
        self.config.publishers.refuse.iter().map(|(name, key)| (name, &key.0)).filter(move |(_, key)| unknown(key))
    }

    /// For people: one line each.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for publisher in self.trust.publishers.iter() {
            let (key, from) = (publisher.key(), if by_owner(&self.config, publisher) { "agent.toml" } else { "the fleet" });
            let standing = standing(&self.trust, publisher).word();
            let name = publisher.name.clone().unwrap_or_else(|| key.id().short());
            let _ = writeln!(out, "{name}  {standing}; known from {from}\n  key          {key}\n  fingerprint  {}", key.id());
            for old in publisher.keys().iter().rev().skip(1) {
                let _ = writeln!(out, "  replaced     {}", old.id());
            }
        }
        for (name, key) in self.refused_only() {
            let _ = writeln!(out, "{name}  refused; known from agent.toml\n  key          {key}\n  fingerprint  {}", key.id());
        }
        match out.is_empty() {
            true => "no publisher is trusted; packs that came with the agent are\n".to_owned(),
            false => out,
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let publishers = self.trust.publishers.iter().map(|publisher| {
            json!({
                "name": publisher.name,
                "key": publisher.key().to_string(),
                "fingerprint": publisher.key().id().to_string(),
                "state": standing(&self.trust, publisher).word(),
                "by": if by_owner(&self.config, publisher) { "owner" } else { "fleet" },
                "replaced": publisher.keys().iter().rev().skip(1).map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        let refused = self.refused_only().map(|(name, key)| {
            json!({
                "name": name, "key": key.to_string(), "fingerprint": key.id().to_string(), "state": "refused", "by": "owner", "replaced": [],
            })
        });
        publishers.chain(refused).collect()
    }
}

/// `agent trust publisher KEY`.
pub fn trust(home: &Home, key: &str, name: Option<&str>) -> Result<String, Failure> {
    let key = read_key(key)?;
    let name = match name {
        Some(name) if valid_name(name) => name.to_owned(),
        Some(name) => {
            let wanted = "lower-case letters, digits and dashes, at most 63, no dash first";
            return Err(Failure::new(Code::BadUsage, format!("`{}` is not a name: {wanted}", name.escape_debug())));
        }
        None => key.id().short(),
    };
    let (config, mut edit) = open(home)?;
    if let Some(other) = config.publishers.trust.get(&name).filter(|other| other.0 != key) {
        let text = format!("`{name}` is the publisher with key {} already", other.0.id().short());
        return Err(Failure::new(Code::BadUsage, text).hint("choose another with --name"));
    }
    let line = line_of(&super::read(home)?, &key);
    let refused = edit.unlist_publisher("refuse", &line)?;
    let known = config.publishers.trust.values().any(|known| known.0 == key);
    if !known {
        edit.list_publisher("trust", &name, &key)?;
    }
    edit.save()?;
    Ok(match known && !refused {
        true => format!("publisher {} is trusted here already", key.id().short()),
        false => format!("packs signed by publisher {name} ({}) may be installed here", key.id().short()),
    })
}

/// `agent trust remove KEY|NAME`. What the owner wrote is taken out; whom the fleet trusts is refused.
pub fn remove(home: &Home, word: &str) -> Result<String, Failure> {
    let (config, mut edit) = open(home)?;
    let key = config.publishers.trust.get(word).map_or_else(|| read_key(word), |key| Ok(key.0))?;
    let line = line_of(&super::read(home)?, &key);
    let removed = edit.unlist_publisher("trust", &line)?;
    let fleet = pins::current_fleet(home)?.map(|_| Membership::load(home)).transpose()?;
    let by_fleet = fleet.is_some_and(|fleet| line.iter().any(|key| fleet.publishers().of(&key.id()).is_some()));
    if by_fleet {
        edit.list_publisher("refuse", &key.id().short(), &key)?;
    }
    if !removed && !by_fleet {
        let text = format!("publisher {} is not trusted here", key.id().short());
        return Err(Failure::new(Code::BadUsage, text).hint("agent trust list shows whom this machine trusts"));
    }
    edit.save()?;
    let how = if by_fleet { "refused here from now on, whatever the fleet says" } else { "taken no more; an operator may bring it back" };
    Ok(format!("packs of publisher {} are {how}", key.id().short()))
}

/// All keys of the publisher that a key belongs to.
fn line_of(trust: &Trust, key: &PublicKey) -> Vec<PublicKey> {
    trust.publishers.of(&key.id()).map_or_else(|| vec![*key], |publisher| publisher.keys().to_vec())
}

fn open(home: &Home) -> Result<(AgentConfig, ConfigEdit), Failure> {
    home.agent()?;
    Ok((AgentConfig::load(home)?, ConfigEdit::open(&home.join(FILE))?))
}

fn read_key(text: &str) -> Result<PublicKey, Failure> {
    text.trim().to_ascii_lowercase().parse().map_err(|error| {
        Failure::new(Code::BadUsage, format!("`{}` is not a publisher's key: {error}", text.escape_debug()))
            .hint("`relay publisher show` on their machine prints it; a fingerprint is not enough")
    })
}
