//! What an operator shows the relay in its handshake: its grants, as bytes. A node shows a
//! [`crate::objects::Certificate`] there, a guest nothing. What is inside is judged by [`crate::chain`].

use crate::cbor::{self, Blob, DecodeError, cbor_map};
use crate::scan::Ceiling;

cbor_map! {
    /// The grants of an operator, the fleet key's own first.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Chain {
        /// signed `grant`s
        1 => grants: Vec<Blob>,
    }
}

impl Chain {
    /// Its CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads it; nothing is verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, Ceiling::SIGNED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_chain() {
        let chain = Chain { grants: vec![Blob(vec![1, 2]), Blob(vec![3])] };
        assert_eq!(hex::encode(chain.encode()), "a1018242010241 03".replace(' ', ""));
        assert_eq!(Chain::decode(&chain.encode()), Ok(chain));
        assert!(Chain::decode(b"").is_err() && Chain::decode(b"\xa1\x01\x80\x00").is_err());
    }
}
