//! Flow control: a sender never has more under way than the receiver granted. Counts are cumulative, so a credit that
//! is repeated or late does no harm.
//!
//! Here are the windows of one call, which count its messages. [`channel`] has both ends of a channel, which count
//! bytes; [`pool`] is what the channels of one link share, so that they never fill the relay's queue for that link.

pub mod channel;
pub mod pool;
#[cfg(test)]
mod tests;

/// The sender's side of one call: what was sent and not yet consumed, message by message.
#[derive(Debug, Clone)]
pub struct CallWindow {
    first: u64,
    costs: std::collections::VecDeque<u64>,
    outstanding: u64,
    window: u64,
}

impl CallWindow {
    /// Nothing sent yet.
    #[must_use]
    pub fn new(window: u32) -> Self {
        CallWindow { first: 0, costs: std::collections::VecDeque::new(), outstanding: 0, window: u64::from(window) }
    }

    /// Whether a message of this cost may go now. One message always may, so that a large one is never stuck.
    #[must_use]
    pub fn has_room(&self, cost: u64) -> bool {
        self.outstanding == 0 || self.outstanding + cost <= self.window
    }

    /// Whether everything that was sent has been consumed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.costs.is_empty()
    }

    /// Counts a message that goes; returns its number.
    pub fn take(&mut self, cost: u64) -> u64 {
        self.costs.push_back(cost);
        self.outstanding += cost;
        self.first + self.costs.len() as u64 - 1
    }

    /// All messages below `next` were consumed; returns how many that frees.
    pub fn acknowledge(&mut self, next: u64) -> Result<u64, Overrun> {
        if next > self.first + self.costs.len() as u64 {
            return Err(Overrun);
        }
        let mut freed = 0;
        while self.first < next {
            self.outstanding -= self.costs.pop_front().unwrap_or(0);
            self.first += 1;
            freed += 1;
        }
        Ok(freed)
    }
}

/// The receiver's side of one call.
#[derive(Debug, Clone)]
pub struct ReceiveWindow {
    window: u32,
    received: u64,
    consumed: u64,
    told: u64,
}

/// The peer sent more than it was granted, or acknowledged what was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("peer overran its window")]
pub struct Overrun;

impl ReceiveWindow {
    /// With the first window granted.
    #[must_use]
    pub fn new(window: u32) -> Self {
        ReceiveWindow { window, received: 0, consumed: 0, told: 0 }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, bytes: u64) -> Result<(), Overrun> {
        self.received += bytes;
        // `told`, not `consumed`: the sender can only know what it was told.
        if self.received > self.told + u64::from(self.window) { Err(Overrun) } else { Ok(()) }
    }

    /// Bytes left our hands; returns the total to tell the sender, when a quarter of the window is due.
    pub fn consume(&mut self, bytes: u64) -> Option<u64> {
        self.consumed += bytes;
        let due = self.consumed - self.told >= u64::from(self.window / 4);
        due.then(|| self.tell())
    }

    /// The total to tell now, due or not. To be called for every credit that names it, whatever the occasion: what the
    /// peer was told is what it may send on.
    pub fn tell(&mut self) -> u64 {
        self.told = self.consumed;
        self.told
    }
}
