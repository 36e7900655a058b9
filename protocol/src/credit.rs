//! Flow control of one call and of its channel: a sender never has more unacknowledged than the receiver granted.
//! Counts are cumulative, so a credit that is repeated or late does no harm.

/// The sender's side.
#[derive(Debug, Clone)]
pub struct SendWindow {
    sent: u64,
    granted: u64,
}

impl SendWindow {
    /// With the first window granted.
    #[must_use]
    pub fn new(window: u32) -> Self {
        SendWindow { sent: 0, granted: u64::from(window) }
    }

    /// Bytes that may go now.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.granted.saturating_sub(self.sent)
    }

    /// Counts bytes that went; the caller asked [`SendWindow::room`] before.
    pub fn take(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The receiver has consumed `total` bytes since the start: a full window beyond it may be under way. A peer that
    /// acknowledges what was never sent is lying.
    pub fn acknowledge(&mut self, total: u64, window: u32) -> Result<(), Overrun> {
        if total > self.sent {
            return Err(Overrun);
        }
        self.granted = self.granted.max(total + u64::from(window));
        Ok(())
    }
}

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

/// The receiver's side.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sender_that_ignores_its_window_is_caught() {
        let mut receiver = ReceiveWindow::new(100);
        assert_eq!(receiver.receive(100), Ok(()));
        assert_eq!(receiver.receive(1), Err(Overrun));
    }

    #[test]
    fn whoever_is_told_on_another_occasion_may_send_on() {
        let (mut sender, mut receiver) = (CallWindow::new(100), ReceiveWindow::new(100));
        (0..10).for_each(|at| assert_eq!(sender.take(10), at));
        assert_eq!(receiver.receive(100), Ok(()));
        // Ten bytes are less than what is told by itself, but a credit for the channel goes out just now.
        assert_eq!(receiver.consume(10), None);
        receiver.tell();
        assert_eq!((sender.acknowledge(1), sender.has_room(10)), (Ok(1), true));
        assert_eq!(receiver.receive(10), Ok(()), "what it was told it may use");
    }

    #[test]
    fn a_call_window_frees_what_was_consumed_and_no_more() {
        let mut window = CallWindow::new(100);
        assert_eq!((window.take(60), window.has_room(60)), (0, false));
        assert_eq!(window.take(40), 1);
        assert_eq!(window.acknowledge(3), Err(Overrun));
        assert_eq!((window.acknowledge(1), window.acknowledge(1)), (Ok(1), Ok(0)));
        assert!(window.has_room(60) && !window.has_room(61));
    }

    #[test]
    fn acknowledging_what_was_never_sent_is_caught() {
        let mut sender = SendWindow::new(100);
        sender.take(10);
        assert_eq!(sender.acknowledge(11, 100), Err(Overrun));
        assert_eq!(sender.acknowledge(10, 100), Ok(()));
        assert_eq!(sender.room(), 100);
    }

    proptest! {
        #[test]
        fn an_honest_sender_never_overruns_and_never_stalls(steps in proptest::collection::vec((1u64..500, 1u64..500), 1..200)) {
            let (mut sender, mut receiver) = (SendWindow::new(1000), ReceiveWindow::new(1000));
            let mut waiting = 0u64;
            for (send, consume) in steps {
                let send = send.min(sender.room());
                sender.take(send);
                receiver.receive(send).expect("within the window");
                waiting += send;
                let consume = consume.min(waiting);
                waiting -= consume;
                if let Some(total) = receiver.consume(consume) {
                    sender.acknowledge(total, 1000).expect("was sent");
                }
                prop_assert!(waiting > 0 || sender.room() > 0);
            }
        }
    }
}
