//! Whom this machine trusts, as signed calls see and change it: `pack.publishers`, `node.trust`, `node.distrust`. The
//! owner's own word in `agent.toml` is not theirs to change.

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use outhaul_protocol::native::{DISTRUST, TRUST};
use outhaul_protocol::objects::{Rotation, valid_name};
use outhaul_protocol::value::Value;

use super::shown::{Standing, by_owner, standing};
use super::trust_of;
use crate::native::{bad, map, rotations, text};
use crate::run::Node;

/// Answers one of these commands; what a change leads to has happened when it returns.
pub(crate) fn answer(node: &Node, command: &str, params: &Value) -> Result<Value, Failure> {
    match command {
        TRUST => {
            let name = params.get("name").map(|_| text(params, "name")).transpose()?;
            if name.is_some_and(|name| !valid_name(name)) {
                return Err(bad("name", "is not a name: lower-case letters, digits and dashes, at most 63, no dash first"));
            }
            node.trust_publisher(&key(params)?, name, &rotations(params)?)?;
        }
        DISTRUST => node.distrust_publisher(&key(params)?)?,
        _ => {}
    }
    Ok(publishers(node))
}

fn key(params: &Value) -> Result<PublicKey, Failure> {
    text(params, "key")?.to_ascii_lowercase().parse().map_err(|error| bad("key", &format!("is not a publisher's key: {error}")))
}

fn publishers(node: &Node) -> Value {
    let (trust, config) = (node.trust(), node.policy.policy().config);
    let one = |publisher: &outhaul_protocol::publisher::Publisher| {
        map([
            ("key", publisher.key().to_string().into()),
            ("fingerprint", publisher.key().id().to_string().into()),
            ("name", publisher.name.clone().map_or(Value::Null, Value::from)),
            ("state", standing(&trust, publisher).word().into()),
            ("by", if by_owner(&config, publisher) { "owner" } else { "fleet" }.into()),
            ("replaced", Value::Array(publisher.keys().iter().rev().skip(1).map(|key| key.to_string().into()).collect())),
        ])
    };
    Value::Array(trust.publishers.iter().map(one).collect())
}

impl Node {
    /// Trusts a publisher, for the fleet. Rotations may show that it is one that is trusted already.
    fn trust_publisher(&self, key: &PublicKey, name: Option<&str>, rotations: &[Rotation]) -> Result<(), Failure> {
        self.follow_rotations(rotations)?;
        let trust = self.trust();
        if trust.revoked.has_key(&key.id()) {
            return Err(Failure::new(Code::Revoked, format!("key {} was revoked", key.id().short())));
        }
        let known = trust.publishers.of(&key.id());
        if trust.refused.contains(&key.id()) || known.is_some_and(|known| standing(&trust, known) == Standing::Refused) {
            let text = format!("this machine's owner refuses publisher {}", key.id().short());
            return Err(Failure::new(Code::Denied, text).hint(format!("on that machine: agent trust publisher {key}")));
        }
        // One who is here by rotation is here already; the name goes with the key it began with.
        let first = known.and_then(|known| known.keys().first()).copied().unwrap_or(*key);
        if self.membership_mut().trust_publisher(first, name.map(str::to_owned))? {
            tracing::info!(publisher = %key.id().short(), "packs of a publisher are taken from now on");
            self.deployments.retry();
        }
        self.review_trust();
        Ok(())
    }

    /// Trusts a publisher no more, for the fleet.
    fn distrust_publisher(&self, key: &PublicKey) -> Result<(), Failure> {
        let config = self.policy.policy().config;
        let trust = self.trust();
        let Some(known) = trust.publishers.of(&key.id()) else {
            let text = format!("publisher {} is not trusted on this node", key.id().short());
            return Err(Failure::new(Code::BadParams, text).hint("whom it trusts: relay invoke NODE pack.publishers"));
        };
        if by_owner(&config, known) {
            let text = format!("publisher {} is trusted by this machine's owner", key.id().short());
            return Err(Failure::new(Code::Denied, text).hint(format!("on that machine: agent trust remove {key}")));
        }
        self.membership_mut().distrust_publisher(&key.id())?;
        tracing::info!(publisher = %key.id().short(), "packs of a publisher are taken no more");
        self.review_trust();
        Ok(())
    }

    /// Follows publishers from keys that are trusted here to those that followed them.
    pub(crate) fn follow_rotations(&self, rotations: &[Rotation]) -> Result<(), Failure> {
        if rotations.is_empty() {
            return Ok(());
        }
        let config = self.policy.policy().config;
        let news = {
            let mut membership = self.membership_mut();
            let mut publishers = trust_of(Some(&membership), &config).publishers;
            membership.follow_rotations(rotations, &mut publishers)?
        };
        if news {
            tracing::info!("a publisher went on to another key");
            self.review_trust();
        }
        Ok(())
    }

    /// Stops packs that no publisher vouches for any more, and their calls under way.
    pub(crate) fn review_trust(&self) {
        let gone = self.packs.review(&self.trust());
        if gone.is_empty() {
            return;
        }
        let text = "the pack's publisher counts no more on this node, so it stopped";
        for running in self.calls.running() {
            if running.is_of(&gone) {
                running.stop(Failure::new(Code::Revoked, text).hint("deploy it again, signed by a publisher who is trusted there"));
            }
        }
    }
}
