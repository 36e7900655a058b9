//! What the fleet key and those it trusts say about operators and relays: grants, revocations, the list of relays.

use crate::cbor::{Cbor, DecodeError, Item, cbor_map};
use crate::keys::{KeyId, PublicKey};
use crate::time::Time;

cbor_map! {
    /// A CBOR Web Token: the holder of a key may do this on these nodes until then.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Grant {
        /// who grants: the fleet key, or the holder of a grant with `delegate`
        1 => iss: KeyId,
        /// the fleet it is for
        3 => aud: KeyId,
        /// when it ends
        4 => exp: Time,
        /// when it was given
        6 => iat: Time,
        /// its own id, by which it is revoked
        7 => cti: [u8; 16],
        /// who may
        -65537 => holder: PublicKey,
        /// which pack commands: `*`, `gpu.*`, `gpu.list`
        -65538 => commands: Vec<String>,
        /// which nodes, any of: `*`, a name, an id, `label=value`; a comma inside a term means all of its parts
        -65539 => nodes: Vec<String>,
        /// whether the sealed channel alone may be a call's evidence
        -65540 => evidence_channel: bool,
        /// what else the holder may
        -65541 => rights: Rights,
        /// whether the holder may grant on
        -65542 => delegate: bool,
        /// what kind of holder, where it is not somebody's own device
        -65543 => holder_kind: Option<HolderKind>,
    }

    /// Rights beside commands; words, so that no command pattern can ever mean one.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Rights {
        /// may certify nodes
        1 => enrol: Option<Enrol>,
        /// may install, activate and remove packs
        2 => packs: bool,
        /// may change a node's policy
        3 => policy: bool,
        /// may revoke keys and grants
        4 => revoke: bool,
    }

    /// Which nodes the holder may certify.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Enrol {
        /// names: `*`, `kiosk-*`, `bench-1`
        1 => names: Vec<String>,
        /// labels: `*`, `site=*`, `site=west`
        2 => labels: Vec<String>,
    }

    /// Keys and grants that count no more. A document is complete; see [`crate::chain::RevokedSet`] for what a newer one may leave out.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Revocations {
        /// the fleet key, or the holder of a grant with `revoke`
        1 => iss: KeyId,
        /// the fleet
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// rises with each document
        16 => serial: u64,
        /// keys
        17 => keys: Vec<KeyId>,
        /// grants, by their ids
        18 => ctis: Vec<[u8; 16]>,
        /// the next document is promised by then; later a node without it serves ping and status only
        19 => next: Option<Time>,
    }

    /// The relays a fleet uses.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Relays {
        /// the fleet key
        1 => iss: KeyId,
        /// the fleet
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// rises with each document
        16 => serial: u64,
        /// the keys a relay may prove
        17 => keys: Vec<PublicKey>,
        /// where they are, best first
        18 => urls: Vec<String>,
    }
}

impl Rights {
    /// Everything the fleet key can give.
    #[must_use]
    pub fn all() -> Self {
        let any = || vec!["*".to_owned()];
        Rights { enrol: Some(Enrol { names: any(), labels: any() }), packs: true, policy: true, revoke: true }
    }
}

/// A holder that is not somebody's own device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolderKind {
    /// The key lives on a relay, and is stolen with it; such grants last at most 30 days.
    Relay,
}

impl Cbor for HolderKind {
    fn to_item(&self) -> Item {
        Item::from("relay")
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        match String::from_item(item)?.as_str() {
            "relay" => Ok(HolderKind::Relay),
            other => Err(DecodeError::shape(format!("unknown kind of holder {other:?}"))),
        }
    }
}
