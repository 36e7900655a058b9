//! What is under way, and the decisions about it. Short locks, no waiting: whoever asks gets a verdict at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::fact;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Facts, Frame, Pending};
use outhaul_protocol::limits;
use outhaul_protocol::time::Time;
use tokio::time::Instant;

use super::budget::Budget;
use super::detached::Step;
use super::{End, GUESTS_PER_ADDRESS, Maker};
use crate::core::clock;
use crate::core::sessions::GuestSession;

/// Runs at once at one slot: more would be a crowd of guessers.
pub(super) const RUNS_PER_SLOT: usize = 4;
/// How long a run may take: somebody may have to type the other machine's digits meanwhile.
pub(super) const RUN: Duration = Duration::from_secs(300);
/// How long a request waits for approval.
pub(super) const WAITING: Duration = Duration::from_secs(3600);
/// Entries of what a guest says about itself, and their bytes.
pub(super) const FACTS: (usize, usize) = (16, 1024);
/// Bytes of a sentence that is passed on.
pub(super) const SENTENCE: usize = 256;
/// Bytes of a guest's join: a SPAKE2 message has 33.
pub(super) const JOIN: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slots: BTreeMap<u64, Slot>,
    pub(super) runs: HashMap<u64, Run>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) guests: HashMap<u64, Arc<GuestSession>>,
    pub(super) last_run: u64,
    pub(super) budget: Budget,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) maker: Maker,
    pub(super) expires: Instant,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) slot: u64,
    pub(super) guest: Arc<GuestSession>,
    pub(super) maker: Maker,
    /// where the relay stands, when it is the maker
    pub(super) step: Arc<Mutex<Option<Step>>>,
    pub(super) from_guest: u32,
    pub(super) from_maker: u32,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: String,
    pub(super) guest: Arc<GuestSession>,
    pub(super) message: Blob,
    pub(super) facts: Facts,
    pub(super) asked_at: Time,
    pub(super) expires: Instant,
}

pub(super) fn ended(pairing: u64, code: &str, message: &str) -> Frame {
    let cut = (0..=SENTENCE.min(message.len())).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    Frame::PairEnd { pairing, code: code.chars().take(32).collect(), message: message[..cut].into() }
}

impl Run {
    pub(super) fn tell_guest(&self, pairing: u64, code: &str, message: &str) {
        self.guest.session.say(&ended(pairing, code, message));
    }

    pub(super) fn tell_maker(&self, pairing: u64, code: &str, message: &str) {
        if let Maker::Operator(operator) = &self.maker {
            operator.session.say(&ended(pairing, code, message));
        }
    }

    pub(super) fn made_by(&self, session: u64) -> bool {
        matches!(&self.maker, Maker::Operator(operator) if operator.session.number == session)
    }
}

impl Slot {
    pub(super) fn made_by(&self, session: u64) -> bool {
        matches!(&self.maker, Maker::Operator(operator) if operator.session.number == session)
    }
}

impl Waiting {
    pub(super) fn pending(&self) -> Pending {
        Pending {
            request: self.request.clone(),
            key: self.guest.key,
            facts: self.facts.clone(),
            asked_at: self.asked_at.0,
            expires_at: self.asked_at.plus(WAITING.as_secs()).0,
        }
    }

    pub(super) fn called(&self, text: &str) -> bool {
        ["name", fact::HOSTNAME].iter().any(|key| self.facts.get(*key).is_some_and(|found| found == text))
    }
}

impl State {
    /// A run between a guest and a code's maker; the maker gets the guest's join.
    pub(super) fn begin(&mut self, slot: u64, guest: &Arc<GuestSession>, maker: Maker, message: Blob, facts: Facts) {
        self.last_run += 1;
        let pairing = self.last_run;
        let mut step = Arc::new(Mutex::new(None));
        match &maker {
            Maker::Operator(operator) => {
                operator.session.say(&Frame::PairOffer { pairing, slot, message, key: guest.key, facts });
            }
            Maker::Relay(detached) => match detached.answer(&message.0, facts) {
                Ok((begun, answer)) => {
                    step = Arc::new(Mutex::new(Some(begun)));
                    guest.session.say(&Frame::PairMessage { pairing, message: Blob(answer) });
                }
                Err(failure) => return guest.session.say(&ended(pairing, failure.code.as_str(), &failure.message)),
            },
        }
        let run = Run { slot, guest: guest.clone(), maker, step, from_guest: 0, from_maker: 0, deadline: Instant::now() + RUN };
        self.runs.insert(pairing, run);
    }

    pub(super) fn end(&mut self, pairing: u64, by: End, code: &str, message: &str) {
        let may = |run: &Run| match by {
            End::Guest(session) => run.guest.session.number == session,
            End::Maker(session) => run.made_by(session),
            End::Relay => true,
        };
        if !self.runs.get(&pairing).is_some_and(may) {
            return;
        }
        let Some(run) = self.runs.remove(&pairing) else { return };
        if !matches!(by, End::Guest(_)) {
            run.tell_guest(pairing, code, message);
        }
        if !matches!(by, End::Maker(_)) {
            run.tell_maker(pairing, code, message);
        }
    }

    pub(super) fn end_all(&mut self, which: impl Fn(&Run) -> bool, by: End, message: &str) {
        let code = if by == End::Relay { Code::Deadline } else { Code::LinkLost };
        let over: Vec<u64> = self.runs.iter().filter(|(_, run)| which(run)).map(|(pairing, _)| *pairing).collect();
        for pairing in over {
            self.end(pairing, by, code.as_str(), message);
        }
    }

    /// The one request that is meant: by its short name or the start of it, by the key's id, or by the machine's name.
    pub(super) fn find(&self, text: &str) -> Result<usize, Failure> {
        let matching =
            |fits: &dyn Fn(&Waiting) -> bool| -> Vec<usize> { (0..self.waiting.len()).filter(|at| fits(&self.waiting[*at])).collect() };
        let mut found = matching(&|waiting| waiting.request == text);
        if found.is_empty() {
            found = matching(&|waiting| waiting.called(text) || (text.len() >= 2 && waiting.guest.id.to_string().starts_with(text)));
        }
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(Failure::new(Code::UnknownNode, format!("no request `{}` is waiting", text.escape_debug()))
                .hint("`relay pair list` shows those that are")),
            many => {
                let names: Vec<_> = many.iter().map(|at| self.waiting[*at].request.as_str()).collect();
                Err(Failure::new(Code::AmbiguousNode, format!("`{}` means several requests", text.escape_debug()))
                    .hint(format!("name one of {}", names.join(", "))))
            }
        }
    }

    pub(super) fn busy(&self, guest: &GuestSession) -> bool {
        let number = guest.session.number;
        self.runs.values().any(|run| run.guest.session.number == number)
            || self.waiting.iter().any(|waiting| waiting.guest.session.number == number)
    }

    pub(super) fn wait(&mut self, guest: &Arc<GuestSession>, message: Blob, facts: Facts) -> Result<(), Failure> {
        // The same machine asking again, perhaps after its link was lost: the newer request stands.
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.guest.id == guest.id) {
            self.waiting.remove(at).guest.session.end("replaced", "this machine asks again on another connection");
        }
        let same = self.waiting.iter().filter(|waiting| waiting.guest.address == guest.address).count();
        if self.waiting.len() >= limits::PAIRINGS || same >= GUESTS_PER_ADDRESS {
            return Err(Failure::new(Code::Busy, "too many machines wait for approval; try again later"));
        }
        let id = guest.id.to_string();
        let taken = |name: &str| self.waiting.iter().any(|waiting| waiting.request == name);
        let request = (4..=id.len()).map(|length| &id[..length]).find(|name| !taken(name)).unwrap_or(&id).to_owned();
        let waiting = Waiting { request, guest: guest.clone(), message, facts, asked_at: clock::now(), expires: Instant::now() + WAITING };
        let Pending { request, expires_at, .. } = waiting.pending();
        guest.session.say(&Frame::PairPending { request, expires_at });
        self.waiting.push(waiting);
        Ok(())
    }

    pub(super) fn knock(&mut self, guest: &Arc<GuestSession>, slot: u64, message: Blob, facts: Facts) -> Result<(), Failure> {
        if facts.len() > FACTS.0 || facts.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > FACTS.1 {
            return Err(Failure::new(Code::TooLarge, "a machine says less about itself when it asks to be paired"));
        }
        if message.0.len() > JOIN {
            return Err(Failure::new(Code::TooLarge, "a join is smaller"));
        }
        if self.busy(guest) {
            return Err(Failure::new(Code::Busy, "one pairing at a time"));
        }
        if !self.budget.take(guest.address) {
            return Err(Failure::new(Code::Busy, "too many attempts from this address; try again in a minute"));
        }
        if slot == 0 {
            return self.wait(guest, message, facts);
        }
        // Judged now and not by a timer: a code that has run out is as one that never was.
        let maker = match self.slots.get(&slot) {
            Some(found) if found.expires > Instant::now() => found.maker.clone(),
            _ => return Err(Failure::new(Code::NotPaired, "no such code is waiting here; it may have run out or been used")),
        };
        if self.runs.values().filter(|run| run.slot == slot).count() >= RUNS_PER_SLOT {
            return Err(Failure::new(Code::Busy, "others are trying this code; try again in a moment"));
        }
        self.begin(slot, guest, maker, message, facts);
        Ok(())
    }
}
