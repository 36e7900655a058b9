//! One code, or one pin, and the machines that try it: the operator's half of the exchange, run by run.

use std::collections::HashMap;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::fact;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask, Facts, Frame, Lookup};
use outhaul_protocol::keys::KeyId;
use outhaul_protocol::pairing::{Attempts, Awaiting, Code as PairingCode, Maker, Offer, PairingError, Proof};
use outhaul_protocol::text::escape_control;

use crate::operator::{Known, NameWish, Session};

/// Runs of one pairing at a time: a code has three guesses, more are noise.
const RUNS: usize = 8;
/// How often a name is looked up at the relay before a number behind it is settled.
const LOOKUPS: u32 = 32;

/// How far a run is.
enum Run {
    /// The answer is out; the other side has to show that it knows the code.
    Answered { maker: Box<Maker>, facts: Facts },
    /// The certificate is out; the other side has to say that it is stored.
    Welcomed { awaiting: Box<Awaiting>, known: Box<Known> },
}

/// What a frame came to.
pub(super) enum Step {
    Nothing,
    /// A wrong code, or a run that broke off.
    Failed(PairingError),
    Paired(Box<Known>),
}

/// One code with its runs.
pub(super) struct Desk<'a> {
    pub(super) session: &'a mut Session,
    code: Option<&'a PairingCode>,
    pin: Option<KeyId>,
    pub(super) attempts: Attempts,
    wish: NameWish,
    runs: HashMap<u64, Run>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        code: Option<&'a PairingCode>,
        pin: Option<KeyId>,
        attempts: Attempts,
        wish: NameWish,
    ) -> Self {
        Desk { session, code, pin, attempts, wish, runs: HashMap::new() }
    }

    fn proof(&self) -> Proof<'_> {
        match (self.code, self.pin) {
            (Some(code), None) => Proof::Code(code),
            (Some(code), Some(pin)) => Proof::Both(code, pin),
            (None, pin) => Proof::Pin(pin.unwrap_or(KeyId([0; 32]))),
        }
    }

    /// Takes a frame. An error is this side's: the wish cannot be met, or the link is over.
    pub(super) async fn take(&mut self, frame: Frame) -> Result<Step, Failure> {
        match frame {
            Frame::PairOffer { pairing, message, facts, .. } if self.runs.len() < RUNS => match Maker::answer(self.proof(), &message.0) {
                Ok((maker, answer)) => {
                    self.session.link.send(&Frame::PairMessage { pairing, message: Blob(answer) })?;
                    self.runs.insert(pairing, Run::Answered { maker: Box::new(maker), facts });
                    Ok(Step::Nothing)
                }
                Err(error) => self.end(pairing, error),
            },
            Frame::PairMessage { pairing, message } => match self.runs.remove(&pairing) {
                Some(Run::Answered { maker, facts }) => self.confirm(pairing, *maker, &facts, &message.0).await,
                Some(Run::Welcomed { awaiting, known }) => match awaiting.stored(&message.0) {
                    Ok(_) => Ok(Step::Paired(known)),
                    Err(error) => self.end(pairing, error),
                },
                None => Ok(Step::Nothing),
            },
            Frame::PairEnd { pairing, message, .. } => {
                if let Some(Run::Welcomed { known, .. }) = self.runs.remove(&pairing) {
                    tracing::warn!(node = %known.node.name, reason = %escape_control(&message), "the machine was certified and left before it said that it stored that");
                }
                Ok(Step::Nothing)
            }
            _ => Ok(Step::Nothing),
        }
    }

    async fn confirm(&mut self, pairing: u64, maker: Maker, facts: &Facts, message: &[u8]) -> Result<Step, Failure> {
        let confirmed = match maker.confirm(message, &mut self.attempts) {
            Ok(confirmed) => confirmed,
            Err(error) => return self.end(pairing, error),
        };
        self.wish.host = facts.get(fact::HOSTNAME).cloned();
        let enroller = self.session.dialer.enroller();
        let made = async {
            let known = self.certify(confirmed.offer()).await?;
            let welcome = enroller.welcome(&known)?;
            let (awaiting, message) = confirmed.welcome(&enroller.key, &welcome)?;
            Ok::<_, Failure>((known, awaiting, message))
        };
        match made.await {
            Ok((known, awaiting, message)) => {
                self.session.link.send(&Frame::PairMessage { pairing, message: Blob(message) })?;
                self.runs.insert(pairing, Run::Welcomed { awaiting: Box::new(awaiting), known: Box::new(known) });
                Ok(Step::Nothing)
            }
            Err(failure) => {
                let message = match failure.code {
                    Code::Revoked => "this machine's key is revoked",
                    _ => "the operator could not certify this machine",
                };
                let code = failure.code.as_str().into();
                self.session.link.send(&Frame::PairEnd { pairing, code, message: message.into() })?;
                Err(failure)
            }
        }
    }

    /// A certificate whose name is free here and, as far as the relay tells, elsewhere.
    async fn certify(&mut self, offer: &Offer) -> Result<Known, Failure> {
        let enroller = self.session.dialer.enroller();
        for _ in 0..LOOKUPS {
            let known = enroller.certify(&mut self.session.book, offer, &self.wish)?;
            let before = self.session.book.names().count();
            let lookup = Lookup { id: None, name: Some(known.node.name.clone()) };
            if let Answer::Nodes { nodes } = self.session.link.ask(Ask::Nodes { lookup }).await? {
                for record in &nodes {
                    // What does not verify holds no name.
                    let _ = self.session.book.learn(record);
                }
            }
            if self.session.book.names().count() == before {
                return enroller.certify(&mut self.session.book, offer, &self.wish);
            }
        }
        enroller.certify(&mut self.session.book, offer, &self.wish)
    }

    fn end(&mut self, pairing: u64, error: PairingError) -> Result<Step, Failure> {
        self.session.link.send(&Frame::PairEnd { pairing, code: error.code().as_str().into(), message: error.to_string() })?;
        Ok(Step::Failed(error))
    }
}
