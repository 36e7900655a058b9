//! The end-to-end channel: `Noise_IK_25519_ChaChaPoly_BLAKE2s` to a node's signed prekey (Noise rev. 34).
//!
//! The prologue binds version, fleet, node, prekey and channel id, so that a message taken elsewhere fails to open.
//! One frame is one Noise message; inner messages up to 1 MiB are cut. A plaintext is
//! `flags ‖ length ‖ part ‖ zeros`: short ones are padded so that sizes tell little. Order is Noise's own nonce:
//! a gap, a repeat or a change fails to open, and a session that failed once never opens anything again.
//! What the first message proves about its sender is for [`crate::objects::Opening`] to say.

use snow::{Builder, HandshakeState, TransportState};

use crate::frame::{self, ChannelFrame, ChannelId};
use crate::keys::{Digest, KeyId, X25519Public, X25519Secret};
use crate::limits;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const TAG: usize = 16;
/// flags and length before each part
const PART_HEAD: usize = 3;
/// bytes of an inner message in one Noise message
pub(crate) const PART: usize = limits::NOISE - TAG - PART_HEAD;
const MORE: u8 = 1;

/// Why a channel ended or never began. Deliberately says little: the peer may be anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// A message does not open: changed, repeated, out of order, or for another key.
    #[error("a sealed message does not open")]
    Broken,
    /// A message is larger than its ceiling.
    #[error("a sealed message is larger than its ceiling")]
    TooLarge,
    /// A plaintext is not of its form.
    #[error("a sealed message is malformed")]
    Malformed,
    /// The channel has carried all the messages it may.
    #[error("the channel has served its messages")]
    Worn,
}

/// What both ends must agree on before a key is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// the version of the messages inside
    pub version: u16,
    /// the fleet key's id
    pub fleet: KeyId,
    /// the node
    pub node: KeyId,
    /// of the signed prekey
    pub prekey: Digest,
    /// the channel
    pub channel: ChannelId,
}

impl Binding {
    fn prologue(&self) -> Vec<u8> {
        let mut out = b"outhaul/channel/1".to_vec();
        out.extend(self.version.to_be_bytes());
        out.extend(self.fleet.0);
        out.extend(self.node.0);
        out.extend(self.prekey.0);
        out.extend(self.channel);
        out
    }
}

/// The operator's side before the answer.
#[derive(Debug)]
pub struct Initiator {
    noise: Box<HandshakeState>,
    channel: ChannelId,
}

impl Initiator {
    /// Seals the first message. `payload` is at most [`first_payload_ceiling`] bytes.
    pub fn open(binding: &Binding, own: &X25519Secret, prekey: &X25519Public, payload: &[u8]) -> Result<(Self, Vec<u8>), ChannelError> {
        let own = own.to_bytes();
        let prologue = binding.prologue();
        let mut noise = builder()
            .local_private_key(own.as_slice())
            .and_then(|builder| builder.remote_public_key(prekey.as_bytes()))
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_initiator)
            .map_err(|_| ChannelError::Broken)?;
        let message = write_handshake(&mut noise, payload)?;
        Ok((Initiator { noise: Box::new(noise), channel: binding.channel }, message))
    }

    /// Opens the second message. A state that failed is gone: it is taken by value.
    pub fn answered(mut self, message: &[u8]) -> Result<(Session, Vec<u8>), ChannelError> {
        let payload = read_handshake(&mut self.noise, message)?;
        Ok((Session::new(*self.noise, self.channel)?, payload))
    }
}

/// The node's side before its answer.
#[derive(Debug)]
pub struct Responder {
    noise: Box<HandshakeState>,
    channel: ChannelId,
}

/// What a first message says, still to be judged.
#[derive(Debug)]
pub struct Opened {
    /// the sealed payload
    pub payload: Vec<u8>,
    /// the static key the sender proved; to be compared with the one in its signed opening
    pub remote: [u8; 32],
    /// the sender's ephemeral: seen once under a prekey, never again
    pub ephemeral: [u8; 32],
}

impl Responder {
    /// Opens a first message with a prekey's private half.
    pub fn open(binding: &Binding, prekey: &X25519Secret, message: &[u8]) -> Result<(Self, Opened), ChannelError> {
        let own = prekey.to_bytes();
        let prologue = binding.prologue();
        let mut noise = builder()
            .local_private_key(own.as_slice())
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_responder)
            .map_err(|_| ChannelError::Broken)?;
        let ephemeral = message.first_chunk::<32>().copied().ok_or(ChannelError::Malformed)?;
        let payload = read_handshake(&mut noise, message)?;
        let remote = noise.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(ChannelError::Broken)?;
        Ok((Responder { noise: Box::new(noise), channel: binding.channel }, Opened { payload, remote, ephemeral }))
    }

    /// Seals the second message.
    pub fn answer(mut self, payload: &[u8]) -> Result<(Session, Vec<u8>), ChannelError> {
        let message = write_handshake(&mut self.noise, payload)?;
        Ok((Session::new(*self.noise, self.channel)?, message))
    }
}

fn builder<'a>() -> Builder<'a> {
    Builder::new(PATTERN.parse().expect("the pattern is a constant"))
}

/// Bytes of payload a first message has room for: ephemeral, sealed static and two tags take the rest.
#[must_use]
pub fn first_payload_ceiling() -> usize {
    limits::NOISE - 32 - 48 - TAG - PART_HEAD
}

fn write_handshake(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, ChannelError> {
    if payload.len() > first_payload_ceiling() {
        return Err(ChannelError::TooLarge);
    }
    let mut plain = Vec::with_capacity(payload.len() + limits::PAD_STEP);
    put_part(&mut plain, 0, &[payload]);
    let mut message = vec![0; limits::NOISE];
    let len = noise.write_message(&plain, &mut message).map_err(|_| ChannelError::Broken)?;
    message.truncate(len);
    Ok(message)
}

fn read_handshake(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, ChannelError> {
    let mut plain = vec![0; message.len()];
    let len = noise.read_message(message, &mut plain).map_err(|_| ChannelError::Broken)?;
    let (flags, part) = take_part(&plain[..len])?;
    if flags != 0 { Err(ChannelError::Malformed) } else { Ok(part.to_vec()) }
}

/// Appends `flags ‖ length ‖ part`, padded when short.
fn put_part(out: &mut Vec<u8>, flags: u8, pieces: &[&[u8]]) {
    let start = out.len();
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    out.push(flags);
    out.extend((len as u16).to_be_bytes());
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    let used = out.len() - start;
    if used < limits::PAD_BELOW {
        out.resize(start + used.next_multiple_of(limits::PAD_STEP), 0);
    }
}

fn take_part(plain: &[u8]) -> Result<(u8, &[u8]), ChannelError> {
    let [flags, high, low, rest @ ..] = plain else { return Err(ChannelError::Malformed) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if *flags > MORE || len > rest.len() || rest.len() - len >= limits::PAD_STEP {
        return Err(ChannelError::Malformed);
    }
    Ok((*flags, &rest[..len]))
}

/// An open channel: seals and opens inner messages, in order.
pub struct Session {
    noise: TransportState,
    channel: ChannelId,
    plain: Vec<u8>,
    partial: Vec<u8>,
    broken: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    fn new(noise: HandshakeState, channel: ChannelId) -> Result<Self, ChannelError> {
        let noise = noise.into_transport_mode().map_err(|_| ChannelError::Broken)?;
        Ok(Session { noise, channel, plain: Vec::new(), partial: Vec::new(), broken: false })
    }

    /// The channel's id.
    #[must_use]
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Seals an inner message into the frames that carry it. `pieces` are one message: heads and bulk come apart
    /// so that bulk is copied once.
    pub fn seal(&mut self, pieces: &[&[u8]], mut emit: impl FnMut(Vec<u8>)) -> Result<(), ChannelError> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total > limits::INNER {
            return Err(ChannelError::TooLarge);
        }
        if total <= PART {
            emit(self.seal_part(0, pieces)?);
            return Ok(());
        }
        let whole = pieces.concat();
        let mut parts = whole.chunks(PART).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_some() { MORE } else { 0 };
            emit(self.seal_part(flags, &[part])?);
        }
        Ok(())
    }

    fn seal_part(&mut self, flags: u8, pieces: &[&[u8]]) -> Result<Vec<u8>, ChannelError> {
        if self.broken {
            return Err(ChannelError::Broken);
        }
        if self.noise.sending_nonce() >= limits::CHANNEL_MESSAGES {
            return Err(ChannelError::Worn);
        }
        self.plain.clear();
        put_part(&mut self.plain, flags, pieces);
        let sealed = self.plain.len() + TAG;
        let mut frame = Vec::with_capacity(sealed + 32);
        frame::data_head(&mut frame, &self.channel, sealed);
        let start = frame.len();
        frame.resize(start + sealed, 0);
        let len = self.noise.write_message(&self.plain, &mut frame[start..]).map_err(|_| ChannelError::Broken)?;
        debug_assert_eq!(len, sealed);
        Ok(frame)
    }

    /// Opens one Noise message; gives the inner message when it is whole, for as long as it is looked at.
    /// After an error the session is dead.
    pub fn open(&mut self, message: &[u8]) -> Result<Option<&[u8]>, ChannelError> {
        if self.broken {
            return Err(ChannelError::Broken);
        }
        // A failure anywhere below leaves the session broken; success clears it.
        self.broken = true;
        if self.noise.receiving_nonce() >= limits::CHANNEL_MESSAGES {
            return Err(ChannelError::Worn);
        }
        self.plain.resize(message.len(), 0);
        let len = self.noise.read_message(message, &mut self.plain).map_err(|_| ChannelError::Broken)?;
        let (flags, part) = take_part(&self.plain[..len])?;
        if self.partial.len() + part.len() > limits::INNER {
            return Err(ChannelError::TooLarge);
        }
        let len = part.len();
        if flags == MORE && len != PART {
            return Err(ChannelError::Malformed);
        }
        self.broken = false;
        if flags == 0 && self.partial.is_empty() {
            return Ok(Some(&self.plain[PART_HEAD..PART_HEAD + len]));
        }
        self.partial.extend_from_slice(&self.plain[PART_HEAD..PART_HEAD + len]);
        if flags == MORE {
            return Ok(None);
        }
        self.plain = std::mem::take(&mut self.partial);
        Ok(Some(&self.plain))
    }

    /// Opens the Noise message of a data frame.
    pub fn open_frame(&mut self, frame: &[u8]) -> Result<Option<&[u8]>, ChannelError> {
        match ChannelFrame::peek(frame) {
            Some(Ok(ChannelFrame::Data { channel, noise })) if channel == self.channel => self.open(noise),
            _ => Err(ChannelError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binding() -> Binding {
        Binding { version: 1, fleet: KeyId([1; 32]), node: KeyId([2; 32]), prekey: Digest([3; 32]), channel: [4; 16] }
    }

    fn pair() -> (Session, Session) {
        let (prekey, own) = (X25519Secret::generate(), X25519Secret::generate());
        let (initiator, first) = Initiator::open(&binding(), &own, &prekey.public(), b"hello").expect("opens");
        let (responder, opened) = Responder::open(&binding(), &prekey, &first).expect("opens");
        assert_eq!((opened.payload.as_slice(), opened.remote), (&b"hello"[..], *own.public().as_bytes()));
        let (node, second) = responder.answer(b"welcome").expect("answers");
        let (operator, payload) = initiator.answered(&second).expect("opens");
        assert_eq!(payload, b"welcome");
        (operator, node)
    }

    fn sealed(session: &mut Session, message: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        session.seal(&[message], |frame| frames.push(frame)).expect("seals");
        frames
    }

    #[test]
    fn messages_of_every_size_arrive_whole() {
        let (mut operator, mut node) = pair();
        for size in [0, 1, 252, 253, 1020, 1021, 1022, PART - 1, PART, PART + 1, 2 * PART, limits::INNER] {
            let message: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let frames = sealed(&mut operator, &message);
            let (last, parts) = frames.split_last().expect("at least one");
            for part in parts {
                assert_eq!(node.open_frame(part), Ok(None));
            }
            assert_eq!(node.open_frame(last), Ok(Some(message.as_slice())), "{size}");
        }
        assert_eq!(operator.seal(&[&vec![0; limits::INNER + 1]], |_| ()), Err(ChannelError::TooLarge));
    }

    #[test]
    fn short_messages_tell_only_their_step() {
        let (mut operator, _) = pair();
        let sizes: Vec<usize> = [0, 10, 252].iter().map(|size| sealed(&mut operator, &vec![7; *size])[0].len()).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
    }

    #[test]
    fn a_repeated_skipped_or_changed_message_ends_the_session() {
        for hostile in 0..3 {
            let (mut operator, mut node) = pair();
            let (first, mut second) = (sealed(&mut operator, b"one").remove(0), sealed(&mut operator, b"two").remove(0));
            match hostile {
                0 => assert!(node.open_frame(&second).is_err()),
                1 => {
                    node.open_frame(&first).expect("opens");
                    assert!(node.open_frame(&first).is_err());
                }
                _ => {
                    node.open_frame(&first).expect("opens");
                    *second.last_mut().expect("not empty") ^= 1;
                    assert!(node.open_frame(&second).is_err());
                }
            }
            assert_eq!(node.open_frame(&first), Err(ChannelError::Broken));
            assert!(node.seal(&[b"x"], |_| ()).is_err());
        }
    }

    #[test]
    fn another_binding_does_not_open() {
        let (prekey, own) = (X25519Secret::generate(), X25519Secret::generate());
        let (_, first) = Initiator::open(&binding(), &own, &prekey.public(), b"").expect("opens");
        for other in [
            Binding { channel: [5; 16], ..binding() },
            Binding { node: KeyId([9; 32]), ..binding() },
            Binding { fleet: KeyId([9; 32]), ..binding() },
            Binding { prekey: Digest([9; 32]), ..binding() },
            Binding { version: 2, ..binding() },
        ] {
            assert_eq!(Responder::open(&other, &prekey, &first).map(|_| ()), Err(ChannelError::Broken));
        }
        assert!(Responder::open(&binding(), &X25519Secret::generate(), &first).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hostile_first_messages_never_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Responder::open(&binding(), &X25519Secret::generate(), &message).is_err());
        }
    }
}
