//! The two ends of a channel's bulk, one way. The sender may send up to a limit; a credit says how much was consumed and
//! how far the limit goes now.
//!
//! Two rules make the limit. Memory: what was sent and not consumed is at most [`CHANNEL_WINDOW`]. The way: what may
//! still come, over all channels of the receiver's link, is at most what the relay queues for it; [`super::pool`]
//! decides that. A sender whose next message is too large for its window asks for more; one that is asked to gives
//! back what it does not use.

use super::Overrun;
use super::pool::Need;
use crate::inner;
use crate::limits::{self, CHANNEL_WINDOW};

/// The most that one message costs.
#[must_use]
pub fn dearest() -> u64 {
    inner::cost(limits::INNER)
}

/// The sender's end.
#[derive(Debug, Clone)]
pub struct ChannelSender {
    sent: u64,
    limit: u64,
    /// by the last credit
    consumed: u64,
    /// the limit asked for since
    asked: u64,
}

impl ChannelSender {
    /// With what the receiver granted when the channel opened.
    #[must_use]
    pub fn new(window: u64) -> Self {
        ChannelSender { sent: 0, limit: window.min(u64::from(CHANNEL_WINDOW)), consumed: 0, asked: 0 }
    }

    /// What may go now.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.limit - self.sent
    }

    /// Counts a message that goes, if there is room for it.
    pub fn take(&mut self, cost: u64) -> bool {
        let fits = cost <= self.room();
        if fits {
            self.sent += cost;
        }
        fits
    }

    /// The limit to ask the receiver for, when a message of this cost has no room and no credit is sure to come: with a
    /// quarter of the window under way, the receiver gives credit by itself when it has consumed that.
    pub fn ask(&mut self, cost: u64) -> Option<u64> {
        let under_way = self.sent - self.consumed;
        let sure = under_way > 0 && under_way >= (self.limit - self.consumed) / 4;
        let limit = self.sent + cost;
        if sure || limit <= self.asked.max(self.limit) {
            return None;
        }
        self.asked = limit;
        Some(limit)
    }

    /// The receiver's credit. One that consumed what was not sent, or grants more than a window, is lying.
    pub fn credit(&mut self, consumed: u64, limit: u64) -> Result<(), Overrun> {
        if consumed > self.sent || limit > consumed.saturating_add(u64::from(CHANNEL_WINDOW)) {
            return Err(Overrun);
        }
        self.consumed = self.consumed.max(consumed);
        self.limit = self.limit.max(limit);
        self.asked = 0;
        Ok(())
    }

    /// Gives back all but `keep` of what may go, as if it had been sent: how much, to tell the receiver.
    pub fn give_back(&mut self, keep: u64) -> u64 {
        let back = self.room().saturating_sub(keep);
        self.sent += back;
        back
    }
}

/// The receiver's end.
#[derive(Debug, Clone)]
pub struct ChannelReceiver {
    limit: u64,
    received: u64,
    consumed: u64,
    /// what the last credit said of `consumed`, and how far beyond it the limit was
    told: u64,
    window: u64,
    /// the limit the sender asked for
    asked: Option<u64>,
    /// the pool knows of it
    waiting: bool,
}

impl ChannelReceiver {
    /// With what was granted when the channel opened.
    #[must_use]
    pub fn new(window: u64) -> Self {
        ChannelReceiver { limit: window, received: 0, consumed: 0, told: 0, window, asked: None, waiting: false }
    }

    /// A message arrived.
    pub fn receive(&mut self, cost: u64) -> Result<(), Overrun> {
        self.received += cost;
        if self.received > self.limit { Err(Overrun) } else { Ok(()) }
    }

    /// A message left our hands; whether a credit is due: for a quarter of the window, or because it was asked for.
    #[must_use]
    pub fn consume(&mut self, cost: u64) -> bool {
        self.consumed += cost;
        // What waits in the pool is named anew when nothing else is under way: it is less then.
        let anew = !self.waiting || self.consumed == self.received;
        self.consumed - self.told >= self.window / 4 || (anew && self.asked().is_some())
    }

    /// The sender asks for a limit. No message needs more than one beyond what was granted.
    pub fn ask(&mut self, limit: u64) {
        let limit = limit.min(self.limit + dearest());
        if limit > self.limit {
            self.asked = Some(self.asked.unwrap_or(0).max(limit));
            self.waiting = false;
        }
    }

    /// What was asked for, once consuming has made room for it.
    fn asked(&self) -> Option<u64> {
        self.asked.filter(|limit| *limit <= self.consumed + u64::from(CHANNEL_WINDOW))
    }

    /// What may still come.
    #[must_use]
    pub fn unused(&self) -> u64 {
        self.limit - self.received
    }

    /// What the pool has to know to renew it.
    #[must_use]
    pub fn need(&self) -> Need {
        let ceiling = u64::from(CHANNEL_WINDOW).saturating_sub(self.received - self.consumed);
        Need { unused: self.unused(), ceiling, asked: self.asked().map(|limit| limit - self.received) }
    }

    /// Takes what the pool grants, never less than what may still come; gives what a credit says: consumed, and limit.
    pub fn grant(&mut self, unused: u64) -> (u64, u64) {
        self.limit = self.limit.max(self.received + unused);
        if self.asked.is_some_and(|asked| asked <= self.limit) {
            self.asked = None;
        }
        self.waiting = self.asked().is_some();
        self.tell()
    }

    /// The sender gave back what it does not use. It must be told, so that both count alike.
    pub fn given_back(&mut self, room: u64) -> Result<(u64, u64), Overrun> {
        self.receive(room)?;
        self.consumed += room;
        Ok(self.tell())
    }

    fn tell(&mut self) -> (u64, u64) {
        (self.told, self.window) = (self.consumed, self.limit - self.consumed);
        (self.consumed, self.limit)
    }
}
