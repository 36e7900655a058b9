//! The signed objects: what each says and in which numbers. Who may sign which and how it is judged is the business
//! of [`crate::chain`] and of the states that use them.
//!
//! Numbers 1–7 mean what RFC 8392 says (iss, sub, aud, exp, nbf, iat, cti), with key ids of 32 bytes as issuers and
//! audiences. Tokens (grant, node) number their own claims down from −65537, the registry's private range; the others
//! are read by nobody else and go on from 16, which keeps a call short.
//!
//! `pair`, `link` and `control` state neither audience nor time: each signs the hash of a transcript in which both
//! sides have fresh randomness, which is audience, id and time at once, and must work with a clock that is not set.
//! `pack` and `publisher` have no audience either: they are for whoever trusts their signer.

mod call;
mod claims;
mod deployment;
mod fleet;
mod node;
mod publisher;
#[cfg(test)]
pub(crate) mod samples;

pub use call::{Call, Control, Evidence, LaneBytes, Link, Opening, Pair, Receipt};
pub use claims::{
    ClaimsError, NodeLabels, check_command_pattern, check_label_pattern, check_name_pattern, check_selector, command_matches,
    label_matches, name_matches, valid_label_value, valid_name,
};
pub use deployment::{Deployment, DeploymentDocument, Release, Target};
pub use fleet::{Enrol, Grant, HolderKind, Relays, Revocations, Rights};
pub use node::{Announce, Certificate, Node, Prekey, RevocationList};
pub use publisher::{Publication, Rotation, Succession};

macro_rules! payloads {
    ($($name:ident = $kind:literal),* $(,)?) => {
        $(impl crate::signed::Payload for $name {
            const KIND: &'static str = $kind;
            fn issuer(&self) -> crate::keys::KeyId { self.iss }
        })*
    };
}

payloads! {
    Grant = "grant",
    Node = "node",
    Revocations = "revocations",
    Relays = "relays",
    Prekey = "prekey",
    Announce = "announce",
    Opening = "opening",
    Receipt = "receipt",
    Pair = "pair",
    Link = "link",
    Control = "control",
    Publication = "pack",
    Succession = "publisher",
    Deployment = "deployment",
}

impl crate::signed::Payload for Call {
    const KIND: &'static str = "call";
    /// Parameters are a byte string in here and scanned apart, as values.
    const CEILING: crate::scan::Ceiling = crate::scan::Ceiling { bytes: crate::limits::INNER, ..crate::scan::Ceiling::SIGNED };

    fn issuer(&self) -> crate::keys::KeyId {
        self.iss
    }
}
