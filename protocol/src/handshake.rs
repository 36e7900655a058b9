//! The link's handshake as two state machines over bytes.
//!
//! ```text
//! peer  ── Hello(versions, nonce) ──────────────────────────►  relay
//! peer  ◄─ Challenge(version, nonce, key, link signature) ───  relay     the relay proves itself first
//! peer  ── Prove(role, key, link signature, credential) ────►  relay
//! peer  ◄─ Welcome │ Refused ────────────────────────────────  relay
//! ```
//!
//! Both sign a `link` object over the transcript so far, with the TLS exporter (RFC 9266) in it when the relay ends TLS
//! itself, so that neither signature is worth anything on another connection. Nonces make a replayed hello useless.
//! Whether the relay's key is one of the fleet's, and what the peer's credential allows, is the callers' to judge.

use crate::cbor::{Blob, Maybe};
use crate::error::{Code, Failure};
use crate::frame::{Frame, Lookup, Role, VERSION_MAX, VERSION_MIN};
use crate::keys::{Digest, PublicKey, SecretKey, random, sha256};
use crate::objects::Link;
use crate::signed::Signed;

/// The TLS exporter's value (RFC 9266).
pub type Exporter = [u8; 32];
/// The exporter's label.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The peer has said hello.
#[derive(Debug)]
pub struct PeerHello {
    frame: Vec<u8>,
}

impl PeerHello {
    /// With a fresh nonce.
    #[must_use]
    pub fn new() -> Self {
        Self::with_nonce(random())
    }

    fn with_nonce(nonce: [u8; 32]) -> Self {
        PeerHello { frame: Frame::Hello { min: VERSION_MIN, max: VERSION_MAX, nonce }.encode() }
    }

    /// The bytes to send.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Checks the relay's answer. `exporter` is this connection's, when it is TLS.
    pub fn challenged(self, answer: &[u8], exporter: Option<Exporter>) -> Result<Challenged, Failure> {
        let (version, nonce, key, proof) = match Frame::decode_before_auth(answer) {
            Ok(Frame::Challenge { version, nonce, key, proof }) => (version, nonce, key, proof),
            Ok(Frame::Refused { code, message }) => return Err(refused(&code, message)),
            Ok(_) => return Err(unexpected("a challenge")),
            Err(error) => return Err(malformed("challenge", &error)),
        };
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(version_failure(version, version));
        }
        let transcript = transcript_of_relay(&self.frame, version, &nonce, &key);
        let link = Signed::<Link>::from_bytes(&proof.0).and_then(|signed| signed.verify(&key))?;
        // A relay that ends TLS itself says so in what it signs; one that sits behind a TLS proxy cannot.
        let bound = link.exporter.is_none() || link.exporter == exporter;
        if link.transcript != transcript || link.role != RELAY || !bound {
            return Err(Failure::new(Code::BadSignature, "the relay's proof is for another connection")
                .hint("something between here and the relay re-used its answer; do not trust this network path"));
        }
        Ok(Challenged { version, relay: key, transcript: after(&transcript, answer), exporter: link.exporter })
    }
}

impl Default for PeerHello {
    fn default() -> Self {
        Self::new()
    }
}

/// The relay has proven its key; whether it is the right one is the caller's to check before it proves its own.
#[derive(Debug)]
pub struct Challenged {
    version: u16,
    relay: PublicKey,
    transcript: Digest,
    exporter: Option<Exporter>,
}

impl Challenged {
    /// The relay's key.
    #[must_use]
    pub fn relay(&self) -> &PublicKey {
        &self.relay
    }

    /// The version spoken from here.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The proof to send, and the link's transcript that control requests are signed over.
    #[must_use]
    pub fn prove(self, role: Role, key: &SecretKey, credential: Blob, lookup: Option<Lookup>) -> (Vec<u8>, Digest) {
        let public = key.public();
        let transcript = transcript_of_peer(&self.transcript, role, &public, &credential);
        let link = Link { iss: public.id(), transcript, exporter: self.exporter, role: role.number() };
        let proof = Signed::sign(key, &link).into_bytes().into();
        let frame = Frame::Prove { role: role.number(), key: public, proof, credential, lookup: Maybe(lookup) };
        (frame.encode(), transcript)
    }
}

/// The role number a relay signs with.
const RELAY: u64 = 0;

/// The relay has challenged a peer.
#[derive(Debug)]
pub struct Challenge {
    frame: Vec<u8>,
    version: u16,
    transcript: Digest,
    exporter: Option<Exporter>,
}

/// A peer that proved its key. What its credential is worth is the caller's to judge.
#[derive(Debug)]
pub struct Proven {
    /// who it says it is
    pub role: Role,
    /// its key, proven
    pub key: PublicKey,
    /// its certificate or chain, unverified
    pub credential: Blob,
    /// an operator's first question
    pub lookup: Option<Lookup>,
    /// what its control requests are signed over
    pub transcript: Digest,
    /// the version both speak
    pub version: u16,
}

impl Challenge {
    /// Answers a hello. `exporter` is this connection's, when the relay ends TLS itself.
    pub fn answer(hello: &[u8], key: &SecretKey, exporter: Option<Exporter>) -> Result<Self, Failure> {
        Self::answer_with(hello, key, exporter, random())
    }

    fn answer_with(hello: &[u8], key: &SecretKey, exporter: Option<Exporter>, nonce: [u8; 32]) -> Result<Self, Failure> {
        let (min, max) = match Frame::decode_before_auth(hello) {
            Ok(Frame::Hello { min, max, .. }) => (min, max),
            _ => return Err(unexpected("a hello")),
        };
        let version = max.min(VERSION_MAX);
        if min > max || version < min.max(VERSION_MIN) {
            return Err(version_failure(min, max));
        }
        let public = key.public();
        let transcript = transcript_of_relay(hello, version, &nonce, &public);
        let link = Link { iss: public.id(), transcript, exporter, role: RELAY };
        let proof = Signed::sign(key, &link).into_bytes().into();
        let frame = Frame::Challenge { version, nonce, key: public, proof }.encode();
        Ok(Challenge { version, transcript: after(&transcript, &frame), frame, exporter })
    }

    /// The bytes to send.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Checks the peer's proof.
    pub fn proven(self, proof: &[u8]) -> Result<Proven, Failure> {
        let Ok(Frame::Prove { role, key, proof, credential, lookup }) = Frame::decode_before_auth(proof) else {
            return Err(unexpected("a proof"));
        };
        let role = Role::of(role).ok_or_else(|| unexpected("a known role"))?;
        let transcript = transcript_of_peer(&self.transcript, role, &key, &credential);
        let link = Signed::<Link>::from_bytes(&proof.0).and_then(|signed| signed.verify(&key))?;
        if link.transcript != transcript || link.role != role.number() || link.exporter != self.exporter {
            return Err(Failure::new(Code::BadSignature, "the proof is for another connection"));
        }
        Ok(Proven { role, key, credential, lookup: lookup.0, transcript, version: self.version })
    }
}

fn transcript_of_relay(hello: &[u8], version: u16, nonce: &[u8; 32], key: &PublicKey) -> Digest {
    let len = (hello.len() as u64).to_be_bytes();
    transcript(&[b"outhaul/link/relay/1", &len, hello, &version.to_be_bytes(), nonce, key.as_bytes()])
}

fn after(transcript: &Digest, frame: &[u8]) -> Digest {
    self::transcript(&[b"outhaul/link/after/1", &transcript.0, frame])
}

fn transcript_of_peer(transcript: &Digest, role: Role, key: &PublicKey, credential: &Blob) -> Digest {
    let credential = sha256(&credential.0);
    self::transcript(&[b"outhaul/link/peer/1", &transcript.0, &role.number().to_be_bytes(), key.as_bytes(), &credential.0])
}

fn transcript(parts: &[&[u8]]) -> Digest {
    sha256(&parts.concat())
}

fn unexpected(wanted: &str) -> Failure {
    Failure::new(Code::RelayRefused, format!("{wanted} was expected"))
}

fn refused(code: &str, message: String) -> Failure {
    let message = if message.is_empty() { "the other side refused, and does not say why".to_owned() } else { message };
    let failure = Failure::new(Code::parse(code).unwrap_or(Code::RelayRefused), message);
    match failure.code {
        Code::Version => failure.hint("update the older side"),
        Code::Busy => failure.hint("try again in a moment"),
        _ => failure,
    }
}

/// What a relay sends is no frame of ours.
fn malformed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::RelayRefused, format!("the relay's {what} is malformed: {error}"))
        .hint("is it an Outhaul relay, and of a version that fits?")
}

fn version_failure(min: u16, max: u16) -> Failure {
    Failure::new(Code::Version, format!("no common protocol version: the peer speaks {min}–{max}, this side {VERSION_MIN}–{VERSION_MAX}"))
        .hint("update the older side")
}

/// What a refused peer is told; also reads it.
pub fn welcome_or_refusal(bytes: &[u8]) -> Result<Frame, Failure> {
    match Frame::decode(bytes) {
        Ok(frame @ Frame::Welcome { .. }) => Ok(frame),
        Ok(Frame::Refused { code, message }) => Err(refused(&code, message)),
        Ok(_) => Err(unexpected("a welcome")),
        Err(error) => Err(malformed("welcome", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(exporter_peer: Option<Exporter>, exporter_relay: Option<Exporter>) -> Result<(Proven, Digest), Failure> {
        let (relay, peer) = (SecretKey::generate(), SecretKey::generate());
        let hello = PeerHello::new();
        let challenge = Challenge::answer(hello.frame(), &relay, exporter_relay)?;
        let challenged = hello.challenged(challenge.frame(), exporter_peer)?;
        assert_eq!(challenged.relay(), &relay.public());
        let (proof, transcript) = challenged.prove(Role::Node, &peer, Blob(vec![1]), None);
        Ok((challenge.proven(&proof)?, transcript))
    }

    #[test]
    fn both_ends_agree_on_key_role_and_transcript() {
        let (proven, transcript) = run(None, None).expect("agrees");
        assert_eq!((proven.role, proven.transcript, proven.credential), (Role::Node, transcript, Blob(vec![1])));
        assert!(run(Some([1; 32]), Some([1; 32])).is_ok());
        assert!(run(Some([1; 32]), None).is_ok(), "a relay behind a TLS proxy");
    }

    #[test]
    fn another_tls_session_in_the_middle_is_noticed() {
        assert_eq!(run(Some([1; 32]), Some([2; 32])).expect_err("refused").code, Code::BadSignature);
        assert_eq!(run(None, Some([2; 32])).expect_err("refused").code, Code::BadSignature);
    }

    #[test]
    fn a_replayed_challenge_or_proof_is_refused() {
        let (relay, peer) = (SecretKey::generate(), SecretKey::generate());
        let hello = PeerHello::new();
        let challenge = Challenge::answer(hello.frame(), &relay, None).expect("answers");
        assert!(PeerHello::new().challenged(challenge.frame(), None).is_err());
        let (proof, _) = hello.challenged(challenge.frame(), None).expect("right").prove(Role::Node, &peer, Blob::default(), None);
        let fresh = Challenge::answer(PeerHello::new().frame(), &relay, None).expect("answers");
        assert!(fresh.proven(&proof).is_err());
    }

    #[test]
    fn an_impostor_that_echoes_the_relays_key_cannot_sign() {
        let relay = SecretKey::generate();
        let hello = PeerHello::new();
        let mut frame = Challenge::answer(hello.frame(), &SecretKey::generate(), None).expect("answers").frame().to_vec();
        let Ok(Frame::Challenge { version, nonce, proof, .. }) = Frame::decode(&frame) else { panic!("a challenge") };
        frame = Frame::Challenge { version, nonce, proof, key: relay.public() }.encode();
        assert!(hello.challenged(&frame, None).is_err());
    }

    #[test]
    fn a_role_or_credential_changed_on_the_way_is_refused() {
        let (relay, peer) = (SecretKey::generate(), SecretKey::generate());
        for change in 0..2 {
            let hello = PeerHello::new();
            let challenge = Challenge::answer(hello.frame(), &relay, None).expect("answers");
            let (proof, _) = hello.challenged(challenge.frame(), None).expect("right").prove(Role::Node, &peer, Blob::default(), None);
            let Ok(Frame::Prove { role, key, proof, credential, lookup }) = Frame::decode(&proof) else { panic!("a proof") };
            let changed = match change {
                0 => Frame::Prove { role: Role::Operator.number(), key, proof, credential, lookup },
                _ => Frame::Prove { role, key, proof, credential: Blob(vec![9]), lookup },
            };
            assert_eq!(challenge.proven(&changed.encode()).expect_err("refused").code, Code::BadSignature);
        }
    }

    #[test]
    fn no_common_version_is_said_to_both() {
        let future = Frame::Hello { min: 7, max: 9, nonce: [0; 32] }.encode();
        assert_eq!(Challenge::answer(&future, &SecretKey::generate(), None).expect_err("refused").code, Code::Version);
        let refusal = Frame::Refused { code: "version".into(), message: "x".into() }.encode();
        assert_eq!(PeerHello::new().challenged(&refusal, None).expect_err("refused").code, Code::Version);
    }
}
