//! What the channels of one link share: bytes of bulk that may be under way to it, all channels together. The relay
//! announces how many; its queue for the link has room for as many and for what is not counted, so peers that keep to
//! this can never fill it, however many channels they have open.
//!
//! - A channel that opens gets a quarter of what is free, at most [`FIRST`]: a one-shot call needs no credit. One that is
//!   used gets up to four fifths of what is free to it, so busy channels settle at equal shares, a lone one at its full
//!   window, and something is always left for the next.
//! - A message that is too large for its channel's window is asked for. Askers are served in turn. While one waits,
//!   nobody grows beyond a fair share, and whoever has more unused is asked to give it back. A fair share is half of
//!   all divided by the channels: then the other half is free, and that is enough for any message.
//! - A channel that is closed from this side keeps its part until the relay says that nothing more of it comes.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::channel::dearest;
use crate::limits::{CALL_WINDOW, CHANNELS};

/// What a new channel gets at most: what one call may have under way.
pub const FIRST: u64 = CALL_WINDOW as u64;
/// Bytes kept for what a channel may be sent uncounted at one time: the answer to its opening, its end, a few credits.
/// The relay's queue has room for that of [`CHANNELS`] channels anyway; every one beyond takes it from the pool.
pub const STEERING: u64 = 2 << 10;

/// The least that makes sense: half of it must hold any message.
#[must_use]
pub fn least() -> u64 {
    2 * dearest()
}

/// What is to be known of a channel to renew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// what may still come by what was granted before
    pub unused: u64,
    /// the most that may still come, so that what was not consumed stays within the channel's window
    pub ceiling: u64,
    /// what must be able to come for the message that waits
    pub asked: Option<u64>,
}

/// The channels of one link.
#[derive(Debug)]
pub struct Pool<K> {
    total: u64,
    /// what may still come, over all channels; at most `total` with the steering
    held: u64,
    shares: HashMap<K, Share>,
    waiting: VecDeque<K>,
}

#[derive(Debug, Default)]
struct Share {
    /// what may still come, as last seen: the truth is never more
    held: u64,
    asked: u64,
    recalled: bool,
}

impl<K: Copy + Eq + Hash> Pool<K> {
    /// Of what the relay announced.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Pool { total, held: 0, shares: HashMap::new(), waiting: VecDeque::new() }
    }

    /// What counted bulk may have, with so many channels.
    fn bulk(&self, channels: usize) -> u64 {
        self.total.saturating_sub(channels.saturating_sub(CHANNELS) as u64 * STEERING)
    }

    fn free(&self) -> u64 {
        self.bulk(self.shares.len()).saturating_sub(self.held)
    }

    /// What everybody may keep while somebody waits.
    fn fair(&self) -> u64 {
        self.bulk(self.shares.len()) / 2 / self.shares.len().max(1) as u64
    }

    /// A channel opens: what it is granted. `None` when there is no room for another one now.
    pub fn join(&mut self, channel: K) -> Option<u64> {
        let bulk = self.bulk(self.shares.len() + 1);
        if bulk < least() || bulk < self.held || self.shares.contains_key(&channel) {
            return None;
        }
        let mut held = ((bulk - self.held) / 4).min(FIRST);
        if self.is_short() {
            held = held.min(self.fair());
        }
        self.held += held;
        self.shares.insert(channel, Share { held, ..Share::default() });
        Some(held)
    }

    /// A channel was closed from this side: it waits for nothing, but what is under way may still come.
    pub fn close(&mut self, channel: &K) {
        self.waiting.retain(|waiting| waiting != channel);
    }

    /// Nothing of a channel comes any more.
    pub fn leave(&mut self, channel: &K) {
        if let Some(share) = self.shares.remove(channel) {
            self.held -= share.held;
            self.close(channel);
        }
    }

    /// A credit is due: what may come from now on. When that is less than was asked for, the channel waits its turn.
    pub fn renew(&mut self, channel: &K, need: Need) -> u64 {
        let first = self.waiting.front().is_none_or(|waiting| waiting == channel);
        let fair = self.fair();
        let Some(share) = self.shares.get(channel) else { return need.unused };
        self.held -= share.held;
        let free = self.free();
        let spare = if first { free / 5 * 4 } else { fair.min(free) };
        let mut granted = need.unused.max(spare.min(need.ceiling));
        let asked = need.asked.unwrap_or(0);
        if granted < asked && first && asked <= free {
            granted = asked;
        }
        let waits = granted < asked;
        match self.waiting.iter().position(|waiting| waiting == channel) {
            Some(at) if !waits => drop(self.waiting.remove(at)),
            None if waits => self.waiting.push_back(*channel),
            _ => {}
        }
        self.held += granted;
        if let Some(share) = self.shares.get_mut(channel) {
            (share.held, share.asked) = (granted, asked);
        }
        granted
    }

    /// A channel that was asked to has given back what it does not use; so much may still come.
    pub fn given_back(&mut self, channel: &K, unused: u64) {
        if let Some(share) = self.shares.get_mut(channel) {
            self.held = self.held - share.held + unused;
            (share.held, share.recalled) = (unused, false);
        }
    }

    /// Whether somebody waits.
    #[must_use]
    pub fn is_short(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The channel that waits and can be renewed now.
    #[must_use]
    pub fn next(&self) -> Option<K> {
        let first = self.waiting.front()?;
        let share = self.shares.get(first)?;
        (share.asked <= self.free() + share.held).then_some(*first)
    }

    /// Whom to ask to give back what it has unused beyond this much, of those that can be asked; each only once until
    /// it did.
    pub fn recall(&mut self, can: impl Fn(&K) -> bool) -> (u64, Vec<K>) {
        let (fair, first) = (self.fair(), self.waiting.front().copied());
        let mut recalled = Vec::new();
        for (channel, share) in &mut self.shares {
            if share.held > fair && !share.recalled && first != Some(*channel) && can(channel) {
                share.recalled = true;
                recalled.push(*channel);
            }
        }
        (fair, recalled)
    }
}
