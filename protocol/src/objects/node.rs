//! What is said about nodes, and what nodes say about themselves when they come: certificate, prekey, announce.

use super::NodeLabels;
use crate::cbor::{self, Blob, DecodeError, cbor_map};
use crate::keys::{KeyId, PublicKey, X25519Public};
use crate::scan::Ceiling;
use crate::time::Time;
use std::collections::BTreeMap;

cbor_map! {
    /// A CBOR Web Token: this key is a node of this fleet, of this name and with these labels.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Node {
        /// the holder of a grant with `enrol`
        1 => iss: KeyId,
        /// the fleet
        3 => aud: KeyId,
        /// when it ends
        4 => exp: Time,
        /// when it was made
        6 => iat: Time,
        /// the node's key
        -65537 => node: PublicKey,
        /// where offline calls are sealed to
        -65538 => mailbox: X25519Public,
        /// its name
        -65539 => name: String,
        /// its labels
        -65540 => labels: BTreeMap<String, String>,
        /// rises with each certificate of this key
        -65541 => serial: u64,
        /// the node that gives its name up to this one
        -65542 => replaces: Option<KeyId>,
    }

    /// A node certificate and the grants that show its signer may enrol, fleet key first.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Certificate {
        /// a signed `node`
        1 => node: Blob,
        /// signed `grant`s
        2 => chain: Vec<Blob>,
    }

    /// Revocations and the grants that show their signer may revoke; no grants when the fleet key signed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RevocationList {
        /// a signed `revocations`
        1 => list: Blob,
        /// signed `grant`s
        2 => chain: Vec<Blob>,
    }

    /// The short-lived key a node answers new channels with.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Prekey {
        /// the node
        1 => iss: KeyId,
        /// the fleet
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// this boot of the agent
        16 => boot: [u8; 16],
        /// rises within a boot
        17 => serial: u64,
        /// the key
        18 => key: X25519Public,
        /// oldest version of the channel the node speaks
        19 => min_version: u16,
        /// newest
        20 => max_version: u16,
    }

    /// What a node has to offer; signed so that a relay cannot dress it up.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Announce {
        /// the node
        1 => iss: KeyId,
        /// the fleet
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// which boot of this agent since it was paired
        16 => boot_count: u64,
        /// rises within a boot
        17 => serial: u64,
        /// CBOR of what is announced ([`crate::describe`])
        18 => content: Blob,
    }
}

impl Node {
    /// What selectors of grants look at.
    #[must_use]
    pub fn labels(&self) -> NodeLabels {
        NodeLabels { id: self.node.id(), name: self.name.clone(), labels: self.labels.clone() }
    }
}

macro_rules! bundles {
    ($($name:ident),*) => { $(impl $name {
        /// Its CBOR.
        #[must_use]
        pub fn encode(&self) -> Vec<u8> {
            cbor::encode(self)
        }

        /// Reads it; what is inside is not verified.
        pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
            cbor::decode(bytes, Ceiling::SIGNED)
        }
    })* };
}
bundles!(Certificate, RevocationList);
