//! The windows of one channel's end, and the line of those who wait for room in it. Room is taken in turn: a large
//! message that waits is not starved by small ones.

use std::collections::VecDeque;

use outhaul_protocol::credit::channel::{ChannelReceiver, ChannelSender};

/// What both ends granted each other when the channel opened.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// by the other end to us
    pub theirs: u64,
    /// by us, out of our link's budget
    pub ours: u64,
}

/// Both ways, and why it is over.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) send: ChannelSender,
    pub(crate) receive: ChannelReceiver,
    pub(crate) ended: Option<String>,
    line: VecDeque<u64>,
    tickets: u64,
}

/// What became of an attempt to take room.
pub(crate) enum Room {
    /// It is taken.
    Taken,
    /// Others are before us, or credit is on the way.
    Wait,
    /// No credit is sure to come before this limit is asked for.
    Ask(u64),
}

impl Flow {
    pub(crate) fn new(windows: Windows) -> Self {
        let (send, receive) = (ChannelSender::new(windows.theirs), ChannelReceiver::new(windows.ours));
        Flow { send, receive, ended: None, line: VecDeque::new(), tickets: 0 }
    }

    /// Takes room at once, when nobody waits for it.
    pub(crate) fn take(&mut self, cost: u64) -> bool {
        self.line.is_empty() && self.send.take(cost)
    }

    /// A place at the end of the line.
    pub(crate) fn line_up(&mut self) -> u64 {
        self.tickets += 1;
        self.line.push_back(self.tickets);
        self.tickets
    }

    /// Takes room when it is this place's turn.
    pub(crate) fn take_in_turn(&mut self, ticket: u64, cost: u64) -> Room {
        if self.line.front() != Some(&ticket) {
            return Room::Wait;
        }
        if self.send.take(cost) {
            return Room::Taken;
        }
        self.send.ask(cost).map_or(Room::Wait, Room::Ask)
    }

    /// Gives a place up; whether others wait behind it.
    pub(crate) fn step_out(&mut self, ticket: u64) -> bool {
        self.line.retain(|waiting| *waiting != ticket);
        !self.line.is_empty()
    }
}
