//! The cryptography of a pairing, and the only file that knows spake2: it confirms no key (Noise's first message
//! does), takes reflections in its symmetric mode (so: fixed sides), and wipes nothing (so: what it returns is).

use super::{PairingError, Proof};
use crate::cbor::{Blob, Item, encode_item};
use crate::keys::{Digest, SecretKey, sha256};
use crate::limits;
use crate::objects::Pair;
use crate::signed::Signed;
use snow::{Builder, HandshakeState, TransportState};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::{Zeroize, Zeroizing};

const DOMAIN: &str = "outhaul/pairing/1";
const NOISE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// A Noise message less its ephemeral key and tag.
const ROOM: usize = limits::NOISE - 48;
/// What the agent says when all is on disk.
pub(super) const STORED: &[u8] = b"stored";

/// A SPAKE2 run under way.
pub(super) struct Spake {
    state: Spake2<Ed25519Group>,
    slot: u16,
    message: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Operator,
    Agent,
}

impl Spake {
    pub(super) fn start(side: Side, proof: &Proof<'_>) -> Self {
        let slot = proof.code().map_or(0, |code| code.slot());
        let password = Password::new(proof.code().map_or(&[][..], |code| code.password()));
        let id = |who: &str| Identity::new(format!("{DOMAIN}/{who}/{slot}").as_bytes());
        let (operator, agent) = (id("operator"), id("agent"));
        let (state, message) = match side {
            Side::Operator => Spake2::start_a(&password, &operator, &agent),
            Side::Agent => Spake2::start_b(&password, &operator, &agent),
        };
        Spake { state, slot, message }
    }

    pub(super) fn message(&self) -> Vec<u8> {
        self.message.clone()
    }

    /// Ends the run and starts Noise under its key.
    pub(super) fn noise(self, side: Side, other: &[u8]) -> Result<Keyed, PairingError> {
        let named = if side == Side::Operator { "the join" } else { "the answer" };
        let mut secret = self.state.finish(other).map_err(|_| PairingError::malformed(named, "not a SPAKE2 message of the other side"))?;
        let mut psk = Zeroizing::new([0; 32]);
        let fits = secret.len() == psk.len();
        if fits {
            psk.copy_from_slice(&secret);
        }
        secret.zeroize();
        if !fits {
            return Err(PairingError::malformed(named, "no key of 32 bytes"));
        }
        let (join, answer) = match side {
            Side::Operator => (other.to_vec(), self.message),
            Side::Agent => (self.message, other.to_vec()),
        };
        let prologue = encode_item(&Item::Array(vec![DOMAIN.into(), self.slot.into(), Item::Bytes(join), Item::Bytes(answer)]));
        let builder = Builder::new(NOISE.parse().expect("a Noise pattern snow knows"))
            .psk(0, &psk)
            .and_then(|builder| builder.prologue(&prologue))
            .expect("set once");
        let state = match side {
            Side::Agent => builder.build_initiator(),
            Side::Operator => builder.build_responder(),
        };
        Ok(Keyed { state: state.expect("a pattern without static keys lacks nothing"), transcript: sha256(&prologue) })
    }
}

/// Noise under the exchanged key.
pub(super) struct Keyed {
    state: HandshakeState,
    transcript: Digest,
}

impl Keyed {
    /// Signs what this side brings over the prologue, and seals it.
    pub(super) fn seal_pair(&mut self, key: &SecretKey, role: u64, content: Vec<u8>) -> Result<Vec<u8>, PairingError> {
        let pair = Pair { iss: key.id(), transcript: self.transcript, role, content: Blob(content) };
        let payload = Signed::sign(key, &pair).into_bytes();
        if payload.len() > ROOM {
            return Err(PairingError::TooLarge(payload.len()));
        }
        let mut message = vec![0; payload.len() + 48];
        let length = self.state.write_message(&payload, &mut message).expect("our turn, and it fits");
        message.truncate(length);
        Ok(message)
    }

    /// Opens what the other side brings. That it opens is the proof that the other side has the code.
    pub(super) fn open_pair(&mut self, message: &[u8], role: u64) -> Result<Signed<Pair>, PairingError> {
        let mut payload = vec![0; message.len().min(limits::NOISE)];
        let length = self.state.read_message(message, &mut payload).map_err(|_| PairingError::WrongCode)?;
        let pair = Signed::<Pair>::from_bytes(&payload[..length])?;
        let said = pair.unverified();
        if said.transcript != self.transcript || said.role != role {
            return Err(PairingError::Transcript);
        }
        Ok(pair)
    }

    pub(super) fn transport(self) -> TransportState {
        self.state.into_transport_mode().expect("both messages are through")
    }
}
