//! The operator's side of a pairing: whoever can certify the node, the CLI or a relay with an enrol grant.

use super::exchange::{Keyed, STORED, Side, Spake};
use super::{AGENT, Attempts, OPERATOR, Offer, PairingError, Proof, Welcome};
use crate::cbor;
use crate::keys::{KeyId, PublicKey, SecretKey};
use crate::objects::valid_name;
use crate::scan::Ceiling;
use snow::TransportState;
use std::fmt;

/// An operator that answered a join.
pub struct Maker {
    noise: Keyed,
    pin: Option<KeyId>,
}

impl Maker {
    /// Takes a join; the bytes are the answer. Nothing that depends on the code is in them, so nothing is counted yet.
    pub fn answer(proof: Proof<'_>, join: &[u8]) -> Result<(Self, Vec<u8>), PairingError> {
        let spake = Spake::start(Side::Operator, &proof);
        let message = spake.message();
        Ok((Maker { noise: spake.noise(Side::Operator, join)?, pin: proof.pin() }, message))
    }

    /// Takes the agent's confirmation. Every failure is counted; a success uses the code up, so that no second machine
    /// comes in by it.
    pub fn confirm(self, message: &[u8], attempts: &mut Attempts) -> Result<Confirmed, PairingError> {
        if attempts.used_up() {
            return Err(PairingError::UsedUp);
        }
        let outcome = self.take(message);
        match &outcome {
            Ok(_) => attempts.end(),
            Err(_) => attempts.spend()?,
        }
        outcome
    }

    fn take(mut self, message: &[u8]) -> Result<Confirmed, PairingError> {
        let pair = self.noise.open_pair(message, AGENT)?;
        let offer: Offer = cbor::decode(&pair.unverified().content.0, Ceiling::SIGNED)?;
        // The one object whose key comes from itself: the code, or the pin, vouches for whoever brought it.
        pair.verify(&offer.node)?;
        let found = offer.node.id();
        if let Some(wanted) = self.pin.filter(|wanted| *wanted != found) {
            return Err(PairingError::Pin { found, wanted });
        }
        if offer.name.as_ref().is_some_and(|name| !valid_name(name)) {
            return Err(PairingError::malformed("the confirmation", "its wish is not a name"));
        }
        Ok(Confirmed { noise: self.noise, offer })
    }
}

/// An operator that knows who wants in; now the certificate is made, for exactly this key.
pub struct Confirmed {
    noise: Keyed,
    offer: Offer,
}

impl Confirmed {
    /// What the agent brought.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Signs and seals the welcome with the key the chain in it ends at.
    pub fn welcome(mut self, operator: &SecretKey, welcome: &Welcome) -> Result<(Awaiting, Vec<u8>), PairingError> {
        let message = self.noise.seal_pair(operator, OPERATOR, cbor::encode(welcome))?;
        Ok((Awaiting { noise: self.noise.transport(), node: self.offer.node }, message))
    }
}

/// An operator that waits for the agent to have written all down.
pub struct Awaiting {
    noise: TransportState,
    node: PublicKey,
}

impl Awaiting {
    /// Takes the agent's last message; the key is that of a paired node now.
    pub fn stored(mut self, message: &[u8]) -> Result<PublicKey, PairingError> {
        let mut payload = [0; STORED.len() + 16];
        match self.noise.read_message(message, &mut payload) {
            Ok(length) if payload[..length] == *STORED => Ok(self.node),
            _ => Err(PairingError::malformed("the last message", "not the agent's word that it stored the welcome")),
        }
    }
}

macro_rules! blank {
    ($($name:ident),*) => { $(impl fmt::Debug for $name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(concat!(stringify!($name), "(…)"))
        }
    })* };
}
blank!(Maker, Confirmed, Awaiting);
