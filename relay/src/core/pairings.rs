//! Who may talk to whom while a machine is paired. The relay knows slots, never codes (but for those it keeps itself):
//! a guest knocks at a slot, or waits for approval; its messages go to whoever made the code and back, by the run's
//! number, between those two sessions only. What a run proves is the ends' business.
//!
//! Everything is bounded and runs out: slots, requests, runs, attempts by address. A guest's failures end its own runs,
//! never somebody else's code: wrong guesses are counted by the code's maker. All of it is in memory only.

mod budget;
mod detached;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Facts, PAIR_DONE, Pending};
use outhaul_protocol::limits;
use tokio::time::Instant;

use self::detached::Detached;
use self::state::{Slot, State, Waiting, ended};
use super::clock;
use super::hub::Hub;
use super::sessions::{GuestSession, OperatorSession};

pub(crate) use self::detached::open as open_detached;

/// Codes one operator's session may have outstanding.
const SLOTS_PER_SESSION: usize = 8;
/// Guests connected from one address, and requests waiting from there.
const GUESTS_PER_ADDRESS: usize = 16;
/// Messages of one side in one run: an honest one has two.
const MESSAGES: u32 = 4;

/// Who made a code.
#[derive(Debug, Clone)]
pub(crate) enum Maker {
    /// An operator, on this session.
    Operator(Arc<OperatorSession>),
    /// The relay itself.
    Relay(Arc<Detached>),
}

/// Who ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest of this session.
    Guest(u64),
    /// The maker of this session.
    Maker(u64),
    /// The relay, as the maker or because time is up.
    Relay,
}

/// All pairings under way.
#[derive(Debug)]
pub(crate) struct Pairings {
    guests: usize,
    state: Mutex<State>,
}

impl Pairings {
    /// None yet; at most so many guests.
    pub(crate) fn new(guests: usize) -> Self {
        Pairings { guests, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a guest in, if there is room.
    pub(crate) fn admit(&self, guest: &Arc<GuestSession>) -> Result<(), Failure> {
        let mut state = self.state();
        let same = state.guests.values().filter(|other| other.address == guest.address).count();
        if state.guests.len() >= self.guests || same >= GUESTS_PER_ADDRESS {
            return Err(Failure::new(Code::Busy, format!("{} guests are here, {same} from {}", state.guests.len(), guest.address)));
        }
        state.guests.insert(guest.session.number, guest.clone());
        Ok(())
    }

    /// A slot for a new code, and when it runs out.
    pub(crate) fn open(&self, maker: Maker, ttl: Duration) -> Result<(u64, u64), Failure> {
        self.open_with(ttl, |_| maker)
    }

    fn open_with(&self, ttl: Duration, maker: impl FnOnce(u64) -> Maker) -> Result<(u64, u64), Failure> {
        self.expire();
        let mut state = self.state();
        let slot = (1..).find(|slot| !state.slots.contains_key(slot)).unwrap_or(u64::MAX);
        let maker = maker(slot);
        let same = match &maker {
            Maker::Operator(operator) => state.slots.values().filter(|slot| slot.made_by(operator.session.number)).count(),
            Maker::Relay(_) => 0,
        };
        if state.slots.len() >= limits::PAIRINGS || same >= SLOTS_PER_SESSION {
            return Err(Failure::new(Code::Busy, "too many pairing codes are outstanding").hint("wait until one is used or runs out"));
        }
        state.slots.insert(slot, Slot { maker, expires: Instant::now() + ttl });
        Ok((slot, clock::now().plus(ttl.as_secs()).0))
    }

    /// Its maker gives a slot up; one that is gone already is given up, too.
    pub(crate) fn close(&self, session: u64, slot: u64) -> Result<(), Failure> {
        let mut state = self.state();
        match state.slots.get(&slot) {
            Some(found) if !found.made_by(session) => Err(Failure::new(Code::NotGranted, "this code is somebody else's")),
            Some(_) => {
                state.slots.remove(&slot);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Requests for approval, oldest first.
    pub(crate) fn waiting(&self) -> Vec<Pending> {
        self.expire();
        self.state().waiting.iter().map(Waiting::pending).collect()
    }

    /// An operator takes a request up; the guest's join follows as an offer.
    pub(crate) fn take(&self, operator: &Arc<OperatorSession>, request: &str) -> Result<(), Failure> {
        self.expire();
        let mut state = self.state();
        let at = state.find(request)?;
        let Waiting { guest, message, facts, .. } = state.waiting.remove(at);
        state.begin(0, &guest, Maker::Operator(operator.clone()), message, facts);
        Ok(())
    }

    /// An operator turns a request away.
    pub(crate) fn reject(&self, request: &str) -> Result<(), Failure> {
        self.expire();
        let mut state = self.state();
        let at = state.find(request)?;
        let waiting = state.waiting.remove(at);
        waiting.guest.session.say(&ended(0, Code::Denied.as_str(), "an operator turned this request away"));
        waiting.guest.session.end(Code::Denied.as_str(), "an operator turned this request away");
        Ok(())
    }

    /// Passes a message of a code's maker on to its guest.
    pub(crate) fn say(&self, session: u64, pairing: u64, frame: &Bytes) {
        let mut state = self.state();
        let Some(run) = state.runs.get_mut(&pairing).filter(|run| run.made_by(session)) else { return };
        run.from_maker += 1;
        let (said, guest) = (run.from_maker, run.guest.clone());
        if said > MESSAGES {
            state.end(pairing, End::Relay, Code::BadParams.as_str(), "too many messages in one pairing");
            return;
        }
        // Its second message is the welcome: the guest knew the code, and owes nothing for its attempt.
        if said == 2 {
            state.budget.give_back(guest.address);
        }
        if guest.session.outbox.control(frame.clone()).is_err() {
            guest.session.overrun();
        }
    }

    /// One side ends a run; the other is told.
    pub(crate) fn end(&self, by: End, pairing: u64, code: &str, message: &str) {
        self.state().end(pairing, by, code, message);
    }

    /// A guest of the relay's own code proved that it knew it.
    fn knew_the_code(&self, guest: &GuestSession) {
        self.state().budget.give_back(guest.address);
    }

    /// A code was used or is worth nothing any more: its slot is free.
    fn used(&self, slot: u64, detached: &Arc<Detached>) {
        let mut state = self.state();
        if matches!(state.slots.get(&slot), Some(Slot { maker: Maker::Relay(holder), .. }) if Arc::ptr_eq(holder, detached)) {
            state.slots.remove(&slot);
        }
    }

    /// The guest's last message has passed: the run is over, and its code was used. The guest is told, so that it need
    /// not guess when it may hang up.
    fn done(&self, pairing: u64) {
        let mut state = self.state();
        let Some(run) = state.runs.remove(&pairing) else { return };
        run.tell_guest(pairing, PAIR_DONE, "");
        let same = |slot: &Slot| match (&slot.maker, &run.maker) {
            (Maker::Operator(one), Maker::Operator(other)) => one.session.number == other.session.number,
            (Maker::Relay(one), Maker::Relay(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if state.slots.get(&run.slot).is_some_and(same) {
            state.slots.remove(&run.slot);
        }
    }

    /// An operator's session is over: codes live where they were made.
    pub(crate) fn operator_gone(&self, session: u64) {
        let mut state = self.state();
        state.slots.retain(|_, slot| !slot.made_by(session));
        state.end_all(|run| run.made_by(session), End::Maker(session), "whoever made the code is gone");
    }

    /// A guest's session is over.
    pub(crate) fn guest_gone(&self, guest: &GuestSession) {
        let number = guest.session.number;
        let mut state = self.state();
        state.guests.remove(&number);
        state.waiting.retain(|waiting| waiting.guest.session.number != number);
        state.end_all(|run| run.guest.session.number == number, End::Guest(number), "the machine that asked is gone");
    }

    /// Removes what has run out.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.slots.retain(|_, slot| slot.expires > now);
        state.end_all(|run| run.deadline <= now, End::Relay, "the pairing took too long");
        let (kept, late) = std::mem::take(&mut state.waiting).into_iter().partition(|waiting| waiting.expires > now);
        state.waiting = kept;
        for waiting in late {
            waiting.guest.session.say(&ended(0, Code::Expired.as_str(), "nobody has approved this request"));
        }
    }

    /// The relay stops.
    pub(crate) fn dismiss(&self, word: &str) {
        self.state().guests.values().for_each(|guest| guest.session.end("drain", word));
    }
}

/// A guest asks to join.
pub(crate) fn join(hub: &Hub, guest: &Arc<GuestSession>, slot: u64, message: Blob, facts: Facts) {
    let outcome = hub.pairings.state().knock(guest, slot, message, facts);
    if let Err(failure) = outcome {
        tracing::info!(guest = %guest.id.short(), slot, code = %failure.code, reason = %failure.message, "refused a pairing");
        guest.session.say(&ended(0, failure.code.as_str(), &failure.message));
    }
}

/// Passes a guest's message on to whoever made the code.
pub(crate) fn hear(hub: &Arc<Hub>, guest: &Arc<GuestSession>, pairing: u64, message: Blob, frame: &Bytes) {
    let (maker, step, slot, said) = {
        let mut state = hub.pairings.state();
        let Some(run) = state.runs.get_mut(&pairing).filter(|run| run.guest.session.number == guest.session.number) else { return };
        run.from_guest += 1;
        // Its second message acknowledges the welcome. Before one was sent it can only be meant to use the code up.
        let early = run.from_guest == 2 && matches!(run.maker, Maker::Operator(_)) && run.from_maker < 2;
        if run.from_guest > 2 || early {
            return state.end(pairing, End::Relay, Code::BadParams.as_str(), "a message out of turn");
        }
        (run.maker.clone(), run.step.clone(), run.slot, run.from_guest)
    };
    match maker {
        Maker::Operator(operator) => {
            if operator.session.outbox.control(frame.clone()).is_err() {
                operator.session.overrun();
            }
            if said == 2 {
                hub.pairings.done(pairing);
            }
        }
        Maker::Relay(detached) => detached::message(hub, &detached, &step, guest, pairing, slot, message.0),
    }
}

#[cfg(test)]
mod tests;
