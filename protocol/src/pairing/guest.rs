//! The agent's side of a pairing.

use super::exchange::{Keyed, STORED, Side, Spake};
use super::{AGENT, Attempts, OPERATOR, Offer, PairingError, Proof, Welcome};
use crate::cbor;
use crate::chain::{ChainError, RevokedSet, verify_certificate, verify_chain, verify_relays, verify_revocations};
use crate::keys::{KeyId, PublicKey, SecretKey, X25519Public};
use crate::limits;
use crate::objects::{Node, Relays};
use crate::scan::Ceiling;
use crate::signed::Verified;
use crate::time::{Clock, Time};
use snow::TransportState;
use std::fmt;

/// An agent that asked to join.
pub struct Guest {
    spake: Spake,
    pin: Option<KeyId>,
}

impl Guest {
    /// Starts a run; the bytes are the join.
    #[must_use]
    pub fn join(proof: Proof<'_>) -> (Self, Vec<u8>) {
        let spake = Spake::start(Side::Agent, &proof);
        let message = spake.message();
        (Guest { spake, pin: proof.pin() }, message)
    }

    /// Takes the answer and brings this machine's keys. From here on the other side can test one guess of the code,
    /// so the run is counted before its bytes exist.
    pub fn confirm(
        self,
        answer: &[u8],
        attempts: &mut Attempts,
        key: &SecretKey,
        mailbox: X25519Public,
        name: Option<String>,
    ) -> Result<(GuestConfirming, Vec<u8>), PairingError> {
        attempts.spend()?;
        let mut noise = self.spake.noise(Side::Agent, answer)?;
        let offer = Offer { node: key.public(), mailbox, name };
        let message = noise.seal_pair(key, AGENT, cbor::encode(&offer))?;
        Ok((GuestConfirming { noise, pin: self.pin, offer }, message))
    }
}

/// An agent that proved its keys and waits for the fleet's.
pub struct GuestConfirming {
    noise: Keyed,
    pin: Option<KeyId>,
    offer: Offer,
}

impl GuestConfirming {
    /// Takes the welcome. `relay` is the key the relay proved on this link; the clock's floor rises to what the fleet
    /// key signed, and times are judged again by it.
    pub fn welcome(mut self, message: &[u8], relay: &PublicKey, clock: &mut Clock, own: Time) -> Result<Welcomed, PairingError> {
        let pair = self.noise.open_pair(message, OPERATOR)?;
        let welcome: Welcome = cbor::decode(&pair.unverified().content.0, Ceiling::SIGNED)?;
        let fleet = welcome.fleet;
        if welcome.publishers.len() > limits::PUBLISHERS {
            let found = welcome.publishers.len();
            return Err(PairingError::malformed("the welcome", format!("{found} publishers, at most {} are kept", limits::PUBLISHERS)));
        }
        if let Some(wanted) = self.pin.filter(|wanted| *wanted != fleet.id()) {
            return Err(PairingError::Pin { found: fleet.id(), wanted });
        }
        let empty = RevokedSet::empty();
        let revoked = match &welcome.revocations {
            Some(list) => empty.follow(&verify_revocations(&fleet, list, clock.read(own), &empty)?, &fleet)?,
            None => empty,
        };
        let authority = verify_chain(&fleet, &welcome.certificate.chain, clock.read(own), &revoked)?;
        pair.verify(authority.holder())?;
        let relays = verify_relays(&fleet, &welcome.relays.0, clock.read(own))?;
        for signed in [authority.fleet_signed_at(), relays.iat] {
            clock.saw(signed, own)?;
        }
        let node = verify_certificate(&fleet, &welcome.certificate, clock.read(own), &revoked)?;
        self.check_mine(&node)?;
        if !relays.keys.contains(relay) {
            return Err(PairingError::Relay(relay.id()));
        }
        let operator = *authority.holder();
        Ok(Welcomed { noise: self.noise.transport(), welcome, node, relays, revoked, operator })
    }

    fn check_mine(&self, node: &Node) -> Result<(), PairingError> {
        if node.node != self.offer.node {
            return Err(PairingError::NotMine { found: node.node.id() });
        }
        if node.mailbox != self.offer.mailbox {
            return Err(ChainError::Content { kind: "node", what: "has another mailbox key than this machine's".to_owned() }.into());
        }
        Ok(())
    }
}

/// An agent that knows its fleet, and must write it down before it says so.
pub struct Welcomed {
    noise: TransportState,
    welcome: Welcome,
    node: Verified<Node>,
    relays: Verified<Relays>,
    revoked: RevokedSet,
    operator: PublicKey,
}

impl Welcomed {
    /// All the operator brought, checked.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// This machine's certificate.
    #[must_use]
    pub fn node(&self) -> &Verified<Node> {
        &self.node
    }

    /// The fleet's relays.
    #[must_use]
    pub fn relays(&self) -> &Verified<Relays> {
        &self.relays
    }

    /// What the fleet has revoked.
    #[must_use]
    pub fn revoked(&self) -> &RevokedSet {
        &self.revoked
    }

    /// Who enrolled this machine.
    #[must_use]
    pub fn operator(&self) -> &PublicKey {
        &self.operator
    }

    /// The last message. Call it after fsync: the operator takes it for the truth.
    #[must_use]
    pub fn stored(mut self) -> Vec<u8> {
        let mut message = vec![0; STORED.len() + 16];
        let length = self.noise.write_message(STORED, &mut message).expect("the first message of a fresh transport fits");
        message.truncate(length);
        message
    }
}

macro_rules! blank {
    ($($name:ident),*) => { $(impl fmt::Debug for $name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(concat!(stringify!($name), "(…)"))
        }
    })* };
}
blank!(Guest, GuestConfirming, Welcomed);
