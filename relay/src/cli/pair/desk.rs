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
    attempts: Attempts,
    wish: NameWish,
    runs: HashMap<u64, Run>,
    /// certified, and has not said that it stored that: it may believe to be paired
    unheard: Option<Known>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        code: Option<&'a PairingCode>,
        pin: Option<KeyId>,
        attempts: Attempts,
        wish: NameWish,
    ) -> Self {
        Desk { session, code, pin, attempts, wish, runs: HashMap::new(), unheard: None }
    }

    /// Tells whoever is still trying that the code is gone: they need not wait.
    pub(super) fn dismiss(mut self) {
        let over = PairingError::UsedUp;
        for (pairing, _) in self.runs.drain() {
            let end = Frame::PairEnd { pairing, code: over.code().as_str().into(), message: over.to_string() };
            // A link that is over has told them.
            let _ = self.session.link.send(&end);
        }
    }

    fn proof(&self) -> Proof<'_> {
        match (self.code, self.pin) {
            (Some(code), None) => Proof::Code(code),
            (Some(code), Some(pin)) => Proof::Both(code, pin),
            (None, pin) => Proof::Pin(pin.unwrap_or(KeyId([0; 32]))),
        }
    }

    /// Tries left.
    pub(super) fn left(&self) -> u32 {
        self.attempts.left()
    }

    /// Whether wrong tries have used the code up. While a machine that knew it is still writing, they have not.
    pub(super) fn used_up(&self) -> bool {
        self.attempts.used_up() && self.unheard.is_none()
    }

    /// A failure as it is told where a machine was certified: that one may be paired all the same.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        let Some(known) = &self.unheard else { return failure };
        let (name, id) = (&known.node.name, known.id().short());
        let message = format!("{}; `{name}` ({id}) was certified, and has not said that it stored that", failure.message);
        Failure { message, ..failure }
            .hint("if `agent pair` says there that it is paired, it is, and `relay nodes` shows it once `agent run` connects; if not, make a new code")
    }

    /// Takes a frame. An error ends the pairing: the wish cannot be met, the link is over, or a machine that was certified
    /// left.
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
                    Ok(_) => {
                        self.unheard = None;
                        Ok(Step::Paired(known))
                    }
                    Err(error) => {
                        self.end(pairing, error.clone())?;
                        Err(error.into())
                    }
                },
                None => Ok(Step::Nothing),
            },
            Frame::PairEnd { pairing, message, .. } => match self.runs.remove(&pairing) {
                Some(Run::Welcomed { .. }) => {
                    Err(Failure::new(Code::LinkLost, format!("the pairing ended early: {}", escape_control(&message))))
                }
                _ => Ok(Step::Nothing),
            },
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
                self.unheard = Some(known.clone());
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

    /// A certificate that follows what the relay knows of this machine, whose name is free here and, as far as the relay
    /// tells, elsewhere.
    async fn certify(&mut self, offer: &Offer) -> Result<Known, Failure> {
        let enroller = self.session.dialer.enroller();
        // Another operator may have paired it, or its last pairing may have ended too early to be noted here.
        self.learn(Lookup { id: Some(offer.node.id()), name: None }).await?;
        for _ in 0..LOOKUPS {
            let known = enroller.certify(&mut self.session.book, offer, &self.wish)?;
            let before = self.session.book.names().count();
            self.learn(Lookup { id: None, name: Some(known.node.name) }).await?;
            if self.session.book.names().count() == before {
                break;
            }
        }
        enroller.certify(&mut self.session.book, offer, &self.wish)
    }

    async fn learn(&mut self, lookup: Lookup) -> Result<(), Failure> {
        if let Answer::Nodes { nodes } = self.session.link.ask(Ask::Nodes { lookup }).await? {
            for record in &nodes {
                // What does not verify holds no name.
                let _ = self.session.book.learn(record);
            }
        }
        Ok(())
    }

    fn end(&mut self, pairing: u64, error: PairingError) -> Result<Step, Failure> {
        self.session.link.send(&Frame::PairEnd { pairing, code: error.code().as_str().into(), message: error.to_string() })?;
        Ok(Step::Failed(error))
    }
}
