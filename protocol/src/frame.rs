//! What travels on the link, one frame per binary WebSocket message: a CBOR array `[kind, fields…]`.
//!
//! Channel frames are the hot path: the relay reads their kind and channel id at fixed places ([`ChannelFrame`]) and
//! forwards the received bytes as they are. Everything else is decoded whole. Kinds 0–9 belong to the handshake,
//! 10–19 to the session, 20–29 to channels, 30–39 to operators' requests, 40–49 to pairing, 50–59 to blobs.
//! The table for other languages is `cddl/link.cddl`.

use crate::cbor::{self, Blob, DecodeError, Maybe, cbor_enum, cbor_map};
use crate::error::{Code, Failure};
use crate::keys::{Digest, KeyId, PublicKey};
use crate::limits;
use crate::objects::DeploymentDocument;
use crate::scan::{Ceiling, Reader, ScanError, put_bytes, put_head};

/// The WebSocket sub-protocol (RFC 6455, section 1.9).
pub const SUBPROTOCOL: &str = "outhaul.v1";
/// The path of the WebSocket endpoint.
pub const LINK_PATH: &str = "/v1/link";
/// The oldest version of these frames that is still spoken.
pub const VERSION_MIN: u16 = 1;
/// The newest.
pub const VERSION_MAX: u16 = 1;

/// The code of a [`Frame::PairEnd`] that tells an agent that its last message has passed. The relay's word, no proof.
pub const PAIR_DONE: &str = "done";

/// A channel's id: chosen at random by its operator.
pub type ChannelId = [u8; 16];

cbor_enum! {
    /// One frame.
    #[derive(Debug, Clone, PartialEq)]
    pub enum Frame {
        /// The peer's first frame.
        0 => Hello {
            /// oldest version it speaks
            min: u16,
            /// newest version it speaks
            max: u16,
            /// its challenge to the relay
            nonce: [u8; 32],
        },
        /// The relay's answer; it proves itself first, so that an impostor learns nothing.
        1 => Challenge {
            /// the version both speak from here
            version: u16,
            /// the relay's challenge to the peer
            nonce: [u8; 32],
            /// the relay's key
            key: PublicKey,
            /// a signed `link` object
            proof: Blob,
        },
        /// The peer proves its key.
        2 => Prove {
            /// see [`Role`]
            role: u64,
            /// its key
            key: PublicKey,
            /// a signed `link` object
            proof: Blob,
            /// a certificate (node), a chain (operator), nothing (guest)
            credential: Blob,
            /// an operator's first question, answered with the welcome
            lookup: Maybe<Lookup>,
        },
        /// The relay lets the peer in.
        3 => Welcome {
            /// this session's number at the relay; a newer session of the same key replaces an older one
            session: u64,
            /// bytes of one channel that may be under way
            window: u32,
            /// milliseconds between heartbeats
            heartbeat_ms: u64,
            /// the answer to the lookup
            found: Maybe<Vec<NodeRecord>>,
        },
        /// The relay does not; it closes after this.
        4 => Refused {
            /// an error code
            code: String,
            /// a sentence without internals
            message: String,
        },
        /// Asks for a [`Frame::Pong`] with the same token.
        10 => Ping {
            /// anything
            token: u64,
        },
        /// Answers a ping.
        11 => Pong {
            /// the ping's
            token: u64,
        },
        /// A node's figures, every 15 s ([`crate::describe::Heartbeat`]).
        12 => Heartbeat {
            /// its CBOR
            figures: Blob,
        },
        /// A node's signed `announce`.
        13 => Announce {
            /// the signed object
            signed: Blob,
        },
        /// A node's signed `prekey`.
        14 => Prekey {
            /// the signed object
            signed: Blob,
        },
        /// The relay asks a node for a description it has not got.
        15 => Want {
            /// of the description
            digest: Digest,
        },
        /// The description.
        16 => Description {
            /// its digest
            digest: Digest,
            /// its CBOR
            bytes: Blob,
        },
        /// The sender closes the link on purpose.
        17 => Goodbye {
            /// an error code, or `drain`
            code: String,
            /// a sentence
            message: String,
        },
        /// A signed object that nodes should have: relays, revocations or a deployment.
        18 => Notice {
            /// the signed object
            signed: Blob,
            /// `relays`, `revocations` or `deployment`
            kind: String,
            /// the chain of its signer, empty for the fleet key itself
            chain: Vec<Blob>,
        },
        /// An operator's request.
        30 => Request {
            /// chosen by the operator, echoed in the reply
            id: u64,
            /// an [`Ask`]
            body: Blob,
            /// a signed `control` object over the body, for what changes something
            control: Maybe<Blob>,
        },
        /// Its answer.
        31 => Reply {
            /// the request's
            id: u64,
            /// an [`Answer`]
            body: Maybe<Blob>,
            /// or why not
            error: Maybe<Trouble>,
        },
        /// A guest asks to be paired.
        40 => PairJoin {
            /// the code's slot; 0 asks for approval by an operator
            slot: u64,
            /// the guest's SPAKE2 message
            message: Blob,
            /// what the guest says about itself, for the list of pending requests
            facts: Facts,
        },
        /// The relay's answer to a join: where it stands.
        41 => PairPending {
            /// the request's short name
            request: String,
            /// Unix seconds
            expires_at: u64,
        },
        /// One message of a pairing, either way.
        42 => PairMessage {
            /// the pairing's number at the relay
            pairing: u64,
            /// the pairing state machines' bytes
            message: Blob,
        },
        /// A pairing is over: one side gave up, or the relay passed the agent's last message on.
        43 => PairEnd {
            /// the pairing's number
            pairing: u64,
            /// an error code, or [`PAIR_DONE`]
            code: String,
            /// a sentence
            message: String,
        },
        /// A guest's join, as the maker of the code sees it.
        44 => PairOffer {
            /// the pairing's number
            pairing: u64,
            /// the slot it knocked at
            slot: u64,
            /// the guest's SPAKE2 message
            message: Blob,
            /// the guest's key as proven to the relay
            key: PublicKey,
            /// what it says about itself
            facts: Facts,
        },
        /// A node asks for a part of a blob.
        50 => BlobGet {
            /// of the whole blob
            digest: Digest,
            /// first byte wanted
            offset: u64,
        },
        /// A part of a blob; empty with total 0 when the relay has no such blob.
        51 => BlobPart {
            /// of the whole blob
            digest: Digest,
            /// first byte here
            offset: u64,
            /// bytes of the whole
            total: u64,
            /// the part
            bytes: Blob,
        },
    }
}

/// Text to text, in key order.
pub type Facts = std::collections::BTreeMap<String, String>;

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The frame of received bytes.
    pub fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
        cbor::decode(bytes, Ceiling::FRAME)
    }

    /// The frame of bytes received before the peer is known.
    pub fn decode_before_auth(bytes: &[u8]) -> Result<Frame, DecodeError> {
        cbor::decode(bytes, Ceiling { bytes: limits::FRAME_BEFORE_AUTH, ..Ceiling::FRAME })
    }
}

/// Who a peer says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A paired machine.
    Node,
    /// Somebody with a grant.
    Operator,
    /// A machine that is not paired yet.
    Guest,
}

impl Role {
    /// Its number in frames.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Role::Node => 1,
            Role::Operator => 2,
            Role::Guest => 3,
        }
    }

    /// The role of a number.
    #[must_use]
    pub fn of(number: u64) -> Option<Role> {
        [Role::Node, Role::Operator, Role::Guest].into_iter().find(|role| role.number() == number)
    }
}

cbor_map! {
    /// Which nodes an operator wants to know about: by id, or by name; all without either.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Lookup {
        /// exactly this node
        1 => id: Option<KeyId>,
        /// nodes of this name, or whose id starts with it
        2 => name: Option<String>,
    }

    /// What the relay knows of a node. Signed parts are checked by the reader; status and times are the relay's word.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NodeRecord {
        /// the node's certificate with its chain
        1 => certificate: Blob,
        /// `online`, `idle` or `offline`
        2 => status: String,
        /// Unix seconds of its session's start, 0 when it never connected
        3 => connected_at: u64,
        /// Unix seconds of its last frame
        4 => last_seen: u64,
        /// its last heartbeat
        5 => heartbeat: Option<Blob>,
        /// its signed announce
        6 => announce: Option<Blob>,
        /// its signed prekey, while it is connected
        7 => prekey: Option<Blob>,
    }

    /// Why a request failed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Trouble {
        /// an error code
        1 => code: String,
        /// a sentence
        2 => message: String,
        /// the way out
        3 => hint: Option<String>,
    }

    /// A pairing request that waits for an operator.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Pending {
        /// its short name
        1 => request: String,
        /// the guest's key
        2 => key: PublicKey,
        /// what it says about itself
        3 => facts: Facts,
        /// Unix seconds
        4 => asked_at: u64,
        /// Unix seconds
        5 => expires_at: u64,
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        // A relay of a newer version may know codes that we do not; what it means to say stays in the sentence.
        let code = Code::parse(&trouble.code).unwrap_or(Code::RelayRefused);
        Failure { code, message: trouble.message, hint: trouble.hint, detail: None }
    }
}

impl From<&Failure> for Trouble {
    fn from(failure: &Failure) -> Trouble {
        Trouble { code: failure.code.as_str().into(), message: failure.message.clone(), hint: failure.hint.clone() }
    }
}

cbor_enum! {
    /// What an operator asks of the relay. Those that change something come with a signed `control`.
    #[derive(Debug, Clone, PartialEq)]
    pub enum Ask {
        /// Nodes, by lookup. Answer: [`Answer::Nodes`].
        0 => Nodes { /// which
            lookup: Lookup },
        /// A description by digest. Answer: [`Answer::Bytes`].
        1 => Description { /// of the description
            digest: Digest },
        /// The relay's version and counters. Answer: [`Answer::Status`].
        2 => Status {},
        /// The next page of nodes: those with ids after this one. An empty page is the end; every other answer may be
        /// cut to what a frame holds, also that of [`Ask::Nodes`]. Answer: [`Answer::Nodes`].
        3 => NodesAfter { /// which
            lookup: Lookup, /// the last id of the page before
            after: KeyId },
        /// The next page of deployments: those of names after this one; an empty page is the end. Answer:
        /// [`Answer::Deployments`].
        4 => DeploymentsAfter { /// the last name of the page before; empty for the first
            after: String },
        /// A slot for a code this operator keeps. Changes. Answer: [`Answer::Slot`].
        10 => PairNew { /// how long it lives
            ttl_secs: u64 },
        /// A code the relay makes and keeps. Changes. Answer: [`Answer::Code`].
        11 => PairDetached { /// how long it lives
            ttl_secs: u64, /// name for the node, if the operator chose one
            name: Maybe<String> },
        /// Pending requests. Answer: [`Answer::Pendings`].
        12 => PairList {},
        /// Takes up a pending request; its join follows as a [`Frame::PairOffer`]. Changes. Answer: [`Answer::Done`].
        13 => PairTake { /// the request's name or prefix, or the guest's name
            request: String },
        /// Turns a pending request away. Changes. Answer: [`Answer::Done`].
        14 => PairReject { /// the request's name or prefix
            request: String },
        /// Gives up a slot. Changes. Answer: [`Answer::Done`].
        15 => PairClose { /// the slot
            slot: u64 },
        /// A new or newer node certificate. Changes. Answer: [`Answer::Done`].
        20 => PutCertificate { /// the certificate with its chain
            certificate: Blob },
        /// Forgets a node; a revocation goes separately. Changes. Answer: [`Answer::Done`].
        21 => RemoveNode { /// its id
            node: KeyId },
        /// A newer object that nodes should have. Changes. Answer: [`Answer::Done`].
        22 => PutNotice { /// `relays`, `revocations` or `deployment`
            kind: String, /// the signed object
            signed: Blob, /// its signer's chain
            chain: Vec<Blob> },
        /// Starts or continues a blob. Changes. Answer: [`Answer::Stored`].
        30 => PutBlob { /// of the whole
            digest: Digest, /// first byte here
            offset: u64, /// bytes of the whole
            total: u64, /// the part
            bytes: Blob },
    }
}

cbor_enum! {
    /// What the relay answers.
    #[derive(Debug, Clone, PartialEq)]
    pub enum Answer {
        /// It is done.
        0 => Done {},
        /// Nodes.
        1 => Nodes { /// sorted by id
            nodes: Vec<NodeRecord> },
        /// Bytes asked for by digest.
        2 => Bytes { /// them
            bytes: Blob },
        /// The relay itself.
        3 => Status { /// its version
            version: String, /// seconds since its start
            uptime_secs: u64, /// nodes connected
            nodes: u64, /// operators connected
            operators: u64 },
        /// A slot for a code.
        4 => Slot { /// 1 is shown without prefix
            slot: u64, /// Unix seconds
            expires_at: u64 },
        /// A code the relay keeps.
        5 => Code { /// as people type it
            code: String, /// Unix seconds
            expires_at: u64 },
        /// Pending requests.
        6 => Pendings { /// oldest first
            pendings: Vec<Pending> },
        /// Bytes of a blob that the relay holds now.
        7 => Stored { /// equals the total when complete
            bytes: u64 },
        /// Deployments. The reader verifies them.
        8 => Deployments { /// sorted by name
            documents: Vec<DeploymentDocument> },
    }
}

macro_rules! bytes_form {
    ($($ty:ident),*) => { $(impl $ty {
        /// Its CBOR.
        #[must_use]
        pub fn encode(&self) -> Vec<u8> { cbor::encode(self) }
        /// From received bytes.
        pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> { cbor::decode(bytes, Ceiling::FRAME) }
    })* };
}
bytes_form!(Ask, Answer);

impl Ask {
    /// Whether it changes something, so that it must be signed over this link.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Ask::Nodes { .. }
                | Ask::NodesAfter { .. }
                | Ask::Description { .. }
                | Ask::DeploymentsAfter { .. }
                | Ask::Status {}
                | Ask::PairList {}
        )
    }
}

const OPEN: u64 = 20;
const DATA: u64 = 21;
const CLOSE: u64 = 22;

/// A frame of a channel, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelFrame<'a> {
    /// Opens a channel to a node with the first Noise message.
    Open {
        /// the new channel
        channel: ChannelId,
        /// where to
        node: KeyId,
        /// the Noise message
        noise: &'a [u8],
    },
    /// One Noise message, either way.
    Data {
        /// the channel
        channel: ChannelId,
        /// the Noise message
        noise: &'a [u8],
    },
    /// The channel is over: said by either end or by the relay. Advice, not proof.
    Close {
        /// the channel
        channel: ChannelId,
        /// an error code
        code: &'a str,
    },
}

impl<'a> ChannelFrame<'a> {
    /// The frame, when `bytes` are one of a channel; `None` for every other kind.
    pub fn peek(bytes: &'a [u8]) -> Option<Result<Self, ScanError>> {
        // `[kind, …]` with kind 20–23 as its shortest form: the second byte alone tells.
        match bytes {
            [0x82..=0x84, kind @ 0x14..=0x16, ..] => Some(Self::read(bytes, u64::from(*kind))),
            _ => None,
        }
    }

    fn read(bytes: &'a [u8], kind: u64) -> Result<Self, ScanError> {
        let mut reader = Reader::new(bytes);
        let len = reader.array()?;
        reader.uint()?;
        let channel = fixed(reader.bytes()?)?;
        let frame = match (kind, len) {
            (OPEN, 4) => ChannelFrame::Open { channel, node: KeyId(fixed(reader.bytes()?)?), noise: reader.bytes()? },
            (DATA, 3) => ChannelFrame::Data { channel, noise: reader.bytes()? },
            (CLOSE, 3) => ChannelFrame::Close { channel, code: std::str::from_utf8(reader.bytes()?).map_err(|_| ScanError::Utf8)? },
            _ => return Err(ScanError::Form(bytes[0])),
        };
        reader.end()?;
        Ok(frame)
    }

    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            ChannelFrame::Open { channel, node, noise } => {
                head(&mut out, 4, OPEN, channel);
                put_bytes(&mut out, &node.0);
                put_bytes(&mut out, noise);
            }
            ChannelFrame::Data { channel, noise } => {
                head(&mut out, 3, DATA, channel);
                put_bytes(&mut out, noise);
            }
            ChannelFrame::Close { channel, code } => {
                head(&mut out, 3, CLOSE, channel);
                put_bytes(&mut out, code.as_bytes());
            }
        }
        out
    }
}

/// Starts a data frame whose Noise message of `len` bytes the caller appends: sealing writes straight into the frame.
pub(crate) fn data_head(out: &mut Vec<u8>, channel: &ChannelId, len: usize) {
    head(out, 3, DATA, channel);
    put_head(out, 2, len as u64);
}

fn head(out: &mut Vec<u8>, len: u64, kind: u64, channel: &ChannelId) {
    put_head(out, 4, len);
    put_head(out, 0, kind);
    put_bytes(out, channel);
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ScanError> {
    bytes.try_into().map_err(|_| ScanError::Cut)
}
