//! What an operator asks of many nodes at once: which version of a pack is on which of them. A document, not a call: it
//! waits for nodes that are off, and the newest one of a name is all there is to know of it.

use crate::cbor::{self, Blob, DecodeError, cbor_map};
use crate::keys::{Digest, KeyId};
use crate::objects::NodeLabels;
use crate::scan::Ceiling;
use crate::time::Time;

cbor_map! {
    /// Where a pack is to be, and in which version. Complete: a newer document takes the whole place of an older one, so
    /// that two of one name never add up to something that nobody signed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Deployment {
        /// the holder of a grant with `packs`
        1 => iss: KeyId,
        /// the fleet
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// the pack's name: a pack has one deployment, so that no other can contradict it
        16 => name: String,
        /// rises with each document of this name
        17 => serial: u64,
        /// digest of the signed document before this one, where its maker knew it
        18 => previous: Option<Digest>,
        /// who gets what; the first that fits a node is its own, one that none fits keeps what it has
        19 => targets: Vec<Target>,
    }

    /// Some nodes, and what they are to have.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Target {
        /// any of: `*`, a name, an id, `label=value`; a comma inside a term means all of its parts
        1 => nodes: Vec<String>,
        /// the version; without one the pack is taken out
        2 => release: Option<Release>,
        /// the version they were to have before: where a rollback leads. Nodes do not act on it
        3 => before: Option<Release>,
    }

    /// A version of the pack with all that a node asks for before it takes it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Release {
        /// the version
        1 => version: String,
        /// SHA-256 of the component
        2 => component: Digest,
        /// its publisher's signed `pack`
        3 => signature: Blob,
        /// how the publisher's key followed older ones, oldest first: `rotation`s
        4 => rotations: Vec<Blob>,
        /// whether it may be older than what there was of this publisher
        5 => downgrade: bool,
    }

    /// A deployment and the grants that show that its signer may ship packs, fleet key first.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DeploymentDocument {
        /// a signed `deployment`
        1 => document: Blob,
        /// signed `grant`s
        2 => chain: Vec<Blob>,
    }
}

impl Deployment {
    /// What a node is to have; nothing where the document does not mean it.
    #[must_use]
    pub fn target_of(&self, node: &NodeLabels) -> Option<&Target> {
        self.targets.iter().find(|target| node.selected_by(&target.nodes))
    }
}

impl DeploymentDocument {
    /// Its CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads it; what is inside is not verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, Ceiling::FRAME)
    }
}
