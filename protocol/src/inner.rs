//! What operator and node say to each other inside a channel, sealed: calls, output, credit, endings.
//! CBOR arrays `[kind, fields…]`; [`DataMessage`] is the hot path and is read in place. `cddl/channel.cddl` is the table.

use crate::cbor::{self, Blob, DecodeError, cbor_enum, cbor_map};
use crate::error::{Code, Failure};
use crate::keys::Digest;
use crate::scan::{Ceiling, Reader, ScanError, put_bytes, put_head};
use crate::value::Value;

/// A call's id: random, new in its channel and boot.
pub type CallId = [u8; 16];

cbor_map! {
    /// The payload of a channel's first Noise message.
    #[derive(Debug, Clone, PartialEq)]
    pub struct OpenPayload {
        /// the signed `opening`
        1 => opening: Blob,
        /// the operator's grants, the fleet key's first
        2 => chain: Vec<Blob>,
        /// the newest serials the operator knows
        3 => serials: Serials,
        /// the first signed call, when it fits
        4 => call: Option<Blob>,
        /// cost of bulk messages that the node may send before the first credit
        5 => window: u64,
    }

    /// The payload of the second.
    #[derive(Debug, Clone, PartialEq)]
    pub struct OpenedPayload {
        /// random per boot of the agent
        1 => boot: [u8; 16],
        /// the node's clock, Unix seconds
        2 => clock: u64,
        /// whether it trusts that clock
        3 => sure: bool,
        /// serial of its certificate
        4 => certificate: u64,
        /// of its current announce
        5 => announce: Digest,
        /// the newest serials the node knows
        6 => serials: Serials,
        /// cost of bulk messages that the operator may send before the first credit
        7 => window: u64,
    }

    /// Highest serials of the objects that only grow; whoever is behind is sent the newer.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Serials {
        /// of `relays`
        1 => relays: u64,
        /// of `revocations`
        2 => revocations: u64,
    }

    /// A call without signature, on a channel whose grants allow it.
    #[derive(Debug, Clone, PartialEq)]
    pub struct QuickCall {
        /// new in this channel
        1 => id: CallId,
        /// `<interface>.<function>`
        2 => command: String,
        /// CBOR of the parameters
        3 => params: Blob,
        /// milliseconds since the channel opened, on the operator's monotonic clock
        4 => at: u64,
        /// how long after `at` it may still begin
        5 => start_within_ms: u64,
        /// how long it may run
        6 => deadline_ms: Option<u64>,
        /// the pack it was typed against
        7 => pack: Option<Digest>,
        /// true when input follows
        8 => input: Option<bool>,
    }

    /// One event of a call: the bytes of a data message on its lane.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EventMessage {
        /// what happened
        1 => name: String,
        /// JSON text
        2 => json: String,
    }

    /// A failure as it travels.
    #[derive(Debug, Clone, PartialEq)]
    pub struct WireFailure {
        /// an error code
        1 => code: String,
        /// a sentence
        2 => message: String,
        /// the way out
        3 => hint: Option<String>,
        /// CBOR of the command's own error
        4 => detail: Option<Blob>,
    }

    /// How a call ended.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Ending {
        /// CBOR of the result, on success
        1 => value: Option<Blob>,
        /// or the failure
        2 => failure: Option<WireFailure>,
        /// the signed `receipt`
        3 => receipt: Blob,
    }
}

impl WireFailure {
    /// For the wire.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        WireFailure {
            code: failure.code.as_str().into(),
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            detail: failure.detail.as_ref().map(|detail| Blob(detail.to_cbor())),
        }
    }

    /// From the wire. A code we do not know is a newer node's; its sentence stands.
    pub fn read(self) -> Result<Failure, DecodeError> {
        Ok(Failure {
            code: Code::parse(&self.code).unwrap_or(Code::Internal),
            message: self.message,
            hint: self.hint,
            detail: self.detail.map(|detail| Value::from_cbor(&detail.0)).transpose()?,
        })
    }
}

/// A lane of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// The result's stream.
    Result,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Events: each data message is an [`EventMessage`].
    Event,
    /// The caller's input, the only lane towards the node.
    Stdin,
}

impl Lane {
    /// All of them.
    pub const ALL: [Lane; 5] = [Lane::Result, Lane::Stdout, Lane::Stderr, Lane::Event, Lane::Stdin];

    /// Its number in messages.
    #[must_use]
    pub fn number(self) -> u64 {
        self as u64
    }

    /// The lane of a number.
    #[must_use]
    pub fn of(number: u64) -> Option<Lane> {
        Lane::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

cbor_enum! {
    /// One message inside a channel.
    #[derive(Debug, Clone, PartialEq)]
    pub enum Inner {
        /// A signed call.
        2 => Call {
            /// the signed object
            signed: Blob,
        },
        /// An unsigned call, where all grants of the chain allow evidence `channel`.
        3 => Quick {
            /// the call
            call: QuickCall,
        },
        /// The node took the call up: it was verified, admitted and begins. Left out when output or ending follow at once.
        4 => Accepted {
            /// which
            call: CallId,
        },
        /// The receiver's hands are free again.
        6 => Credit {
            /// which call
            call: CallId,
            /// data messages of this call that were consumed: the next one's number
            consumed: u64,
            /// cost of all bulk messages of the channel consumed since its start ([`cost`])
            channel_consumed: u64,
            /// cost of all bulk messages that may be sent in the channel since its start
            channel_limit: u64,
        },
        /// Stop it.
        7 => Cancel {
            /// which
            call: CallId,
        },
        /// The one ending of a call.
        8 => End {
            /// which
            call: CallId,
            /// how
            ending: Ending,
        },
        /// Takes up a call of another channel again, by the same operator.
        9 => Attach {
            /// which
            call: CallId,
            /// the first data message not yet seen
            from: u64,
        },
        /// The node knows no such call to attach to: it never came, or was forgotten. Its outcome is unknown.
        11 => Unknown {
            /// which
            call: CallId,
        },
        /// The input is at its end.
        10 => InputEnd {
            /// of which call
            call: CallId,
        },
        /// A newer signed object, for the side that is behind.
        12 => Notice {
            /// `relays`, `revocations`, `certificate` or `deployment`
            kind: String,
            /// the signed object
            signed: Blob,
            /// its signer's chain
            chain: Vec<Blob>,
        },
        /// The sender's next bulk message has no room, and no credit is sure to come.
        13 => Want {
            /// the channel limit it needs
            limit: u64,
        },
        /// The receiver is short of room for other channels: what is not used shall be given back.
        14 => Recall {
            /// what may be kept
            keep: u64,
        },
        /// The answer to [`Inner::Recall`]: counts as if so much had been sent and consumed.
        15 => GiveBack {
            /// cost of bulk that will not be sent; zero when nothing was to spare
            room: u64,
        },
    }
}

impl Inner {
    /// Whether it counts in the channel's window, as data messages do. What steers does not: it must never wait.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self, Inner::Call { .. } | Inner::Quick { .. } | Inner::Accepted { .. } | Inner::End { .. } | Inner::Notice { .. })
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The message of opened bytes.
    pub fn decode(bytes: &[u8]) -> Result<Inner, DecodeError> {
        cbor::decode(bytes, Ceiling::VALUE)
    }
}

macro_rules! payload_form {
    ($($ty:ident),*) => { $(impl $ty {
        /// Its CBOR.
        #[must_use]
        pub fn encode(&self) -> Vec<u8> { cbor::encode(self) }
        /// From opened bytes.
        pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> { cbor::decode(bytes, Ceiling::VALUE) }
    })* };
}
payload_form!(OpenPayload, OpenedPayload, QuickCall, EventMessage);

/// What a bulk message ([`Inner::is_bulk`], or data) of so many bytes costs of its windows, with what is around each part it is cut into.
#[must_use]
pub fn cost(bytes: usize) -> u64 {
    let parts = bytes.div_ceil(crate::channel::PART).max(1);
    bytes as u64 + parts as u64 * crate::limits::MESSAGE_COST
}

/// What a data message costs of its call's window. Both ends count the lane's bytes, not the message they came in: the
/// keeper of the window knows its bytes before it knows its message.
#[must_use]
pub fn call_cost(bytes: &[u8]) -> u64 {
    cost(bytes.len())
}

/// Kind of a data message: `[5, call, lane, seq, bytes]`.
const DATA: u8 = 5;

/// Bytes of a lane, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataMessage<'a> {
    /// whose
    pub call: CallId,
    /// which lane
    pub lane: Lane,
    /// counts the data messages of this call and direction from 0
    pub seq: u64,
    /// the bytes
    pub bytes: &'a [u8],
}

impl<'a> DataMessage<'a> {
    /// The message, when `bytes` are data; `None` for every other kind.
    pub fn peek(bytes: &'a [u8]) -> Option<Result<Self, ScanError>> {
        matches!(bytes, [0x85, DATA, ..]).then(|| Self::read(bytes))
    }

    fn read(bytes: &'a [u8]) -> Result<Self, ScanError> {
        let mut reader = Reader::new(bytes);
        reader.array()?;
        reader.uint()?;
        let call = reader.bytes()?.try_into().map_err(|_| ScanError::Cut)?;
        let lane = Lane::of(reader.uint()?).ok_or(ScanError::Form(bytes[0]))?;
        let message = DataMessage { call, lane, seq: reader.uint()?, bytes: reader.bytes()? };
        reader.end()?;
        Ok(message)
    }

    /// Everything before the bytes themselves, so that bulk is copied once, into the seal.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        put_head(&mut out, 4, 5);
        put_head(&mut out, 0, u64::from(DATA));
        put_bytes(&mut out, &self.call);
        put_head(&mut out, 0, self.lane.number());
        put_head(&mut out, 0, self.seq);
        put_head(&mut out, 2, self.bytes.len() as u64);
        out
    }
}
