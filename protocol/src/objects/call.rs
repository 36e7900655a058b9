//! What is said about calls: the channel's opening, the call, its receipt; and the proofs of one conversation.

use crate::cbor::{Blob, Cbor, DecodeError, Item, cbor_map};
use crate::keys::{Digest, KeyId, X25519Public};
use crate::time::Time;

cbor_map! {
    /// Binds an operator's key to the key it opens a channel with.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Opening {
        /// the operator
        1 => iss: KeyId,
        /// the node
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// digest of the signed prekey that is used
        16 => prekey: Digest,
        /// the channel's id
        17 => channel: [u8; 16],
        /// the operator's static key in this channel
        18 => key: X25519Public,
    }

    /// A command with its parameters, for one node.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Call {
        /// the operator
        1 => iss: KeyId,
        /// the node
        3 => aud: KeyId,
        /// when it ends, for a call that waits for an offline node
        4 => exp: Option<Time>,
        /// when
        6 => iat: Time,
        /// its id
        7 => id: [u8; 16],
        /// digest of the channel's signed opening; a call without travels offline
        16 => opening: Option<Digest>,
        /// rises with each offline call of this operator to this node
        17 => seq: Option<u64>,
        /// the command, `interface.function`
        18 => command: String,
        /// CBOR of the parameters
        19 => params: Blob,
        /// fresh; what the receipt's digests are salted with
        20 => salt: [u8; 16],
        /// milliseconds since the opening was signed, by the operator's monotonic clock
        21 => at: u64,
        /// milliseconds after `at` by which it must have started
        22 => start_within_ms: u64,
        /// milliseconds it may run
        23 => deadline_ms: Option<u64>,
        /// the pack it was typed against
        24 => pack: Option<Digest>,
        /// true when input follows
        25 => input: Option<bool>,
    }

    /// What a node states about a call that ended, or that it refused.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Receipt {
        /// the node
        1 => iss: KeyId,
        /// the operator it is for
        3 => aud: KeyId,
        /// when
        6 => iat: Time,
        /// the call's id
        7 => call: [u8; 16],
        /// digest of the call's payload
        16 => payload: Digest,
        /// who called
        17 => signer: KeyId,
        /// how that is known
        18 => evidence: Evidence,
        /// the command
        19 => command: String,
        /// the pack that ran
        20 => pack: Option<Digest>,
        /// salted digest of the parameters ([`crate::keys::salted`])
        21 => params: Digest,
        /// salted digest of the result value, if there is one
        22 => output: Option<Digest>,
        /// bytes sent on each lane
        23 => lanes: Vec<LaneBytes>,
        /// when it began
        24 => started_at: Time,
        /// milliseconds it took
        25 => duration_ms: u64,
        /// `done`, or an error code
        26 => outcome: String,
        /// which receipt of this node, from 1
        27 => number: u64,
        /// digest of the signed receipt before it, zeros before the first
        28 => previous: Digest,
    }

    /// What each side of a pairing says, over the hash of its prologue.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Pair {
        /// who says it
        1 => iss: KeyId,
        /// hash of the prologue
        16 => transcript: Digest,
        /// 1 operator, 2 agent
        17 => role: u64,
        /// what it says ([`crate::pairing`])
        18 => content: Blob,
    }

    /// Proof of a key on one link.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Link {
        /// whose key
        1 => iss: KeyId,
        /// hash of the handshake so far
        16 => transcript: Digest,
        /// exporter of the TLS connection (RFC 9266), when the relay ends TLS itself
        17 => exporter: Option<[u8; 32]>,
        /// in which role
        18 => role: u64,
    }

    /// A request of an operator that changes something at the relay.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Control {
        /// the operator
        1 => iss: KeyId,
        /// the link's transcript
        16 => transcript: Digest,
        /// rises with each request on this link
        17 => counter: u64,
        /// digest of the request's body: parts of packs are large, and need not travel twice
        18 => body: Digest,
    }
}

/// How a node knows who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The operator signed the call.
    Signed,
    /// The call came through the operator's channel, and its grant says that is enough.
    Channel,
}

impl Evidence {
    /// As JSON and CBOR have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Evidence::Signed => "signed",
            Evidence::Channel => "channel",
        }
    }
}

impl Cbor for Evidence {
    fn to_item(&self) -> Item {
        Item::from(self.as_str())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        match String::from_item(item)?.as_str() {
            "signed" => Ok(Evidence::Signed),
            "channel" => Ok(Evidence::Channel),
            other => Err(DecodeError::shape(format!("unknown evidence {other:?}"))),
        }
    }
}

/// Bytes sent on one lane: `[lane, bytes]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneBytes {
    /// The lane's number.
    pub lane: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Cbor for LaneBytes {
    fn to_item(&self) -> Item {
        Item::Array(vec![self.lane.into(), self.bytes.into()])
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let [lane, bytes] = <[u64; 2]>::try_from(Vec::from_item(item)?).map_err(|_| DecodeError::shape("lane and bytes were expected"))?;
        Ok(LaneBytes { lane, bytes })
    }
}
