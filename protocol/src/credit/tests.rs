//! The windows of a call; and a link with many channels as a whole: honest ends in any order of events never have more
//! under way than the pool holds, and everything arrives.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::channel::{ChannelReceiver, ChannelSender, dearest};
use super::pool::{FIRST, Pool, STEERING, least};
use super::*;
use crate::inner::cost;
use crate::limits::{
    ANSWERS, BLOB_CHUNK, CHANNEL_WINDOW, CHANNELS, CHANNELS_PER_LINK, DATA_CHUNK, FRAME, LINK_WINDOW, OPENINGS, UNCOUNTED,
};

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
fn a_sender_that_ignores_its_window_is_caught() {
    let mut receiver = ReceiveWindow::new(100);
    assert_eq!(receiver.receive(100), Ok(()));
    assert_eq!(receiver.receive(1), Err(Overrun));
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

/// What travels to the receiver, in order.
#[derive(Debug, Clone, Copy)]
enum There {
    Bulk(u64),
    Ask(u64),
    GivenBack(u64),
    Closed,
}

/// What travels to the senders.
#[derive(Debug, Clone, Copy)]
enum Back {
    Credit(u64, u64),
    Recall(u64),
    Close,
}

struct Channel {
    sender: ChannelSender,
    receiver: ChannelReceiver,
    /// costs of messages that wait for room
    backlog: VecDeque<u64>,
    /// … that arrived
    arrived: VecDeque<u64>,
    /// closed by the receiver; by the relay
    closing: bool,
    closed: bool,
}

/// One receiving link, its channels' senders, and the way between them.
struct Link {
    pool: Pool<usize>,
    total: u64,
    channels: Vec<Channel>,
    there: VecDeque<(usize, There)>,
    back: VecDeque<(usize, Back)>,
}

impl Link {
    fn new(total: u64) -> Self {
        Link { pool: Pool::new(total), total, channels: Vec::new(), there: VecDeque::new(), back: VecDeque::new() }
    }

    fn open(&mut self) -> bool {
        let channel = self.channels.len();
        let Some(window) = self.pool.join(channel) else {
            self.recall();
            return false;
        };
        let (sender, receiver) = (ChannelSender::new(window), ChannelReceiver::new(window));
        let (backlog, arrived) = Default::default();
        self.channels.push(Channel { sender, receiver, backlog, arrived, closing: false, closed: false });
        self.settle();
        true
    }

    fn send(&mut self, at: usize, cost: u64) {
        self.channels[at].backlog.push_back(cost);
        self.pump(at);
    }

    fn pump(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        while let Some(cost) = channel.backlog.front().copied().filter(|_| !channel.closed) {
            if channel.sender.take(cost) {
                channel.backlog.pop_front();
                self.there.push_back((at, There::Bulk(cost)));
            } else {
                self.there.extend(channel.sender.ask(cost).map(|limit| (at, There::Ask(limit))));
                break;
            }
        }
        let under_way: u64 = self.there.iter().map(|(_, there)| if let There::Bulk(cost) = there { *cost } else { 0 }).sum();
        let steering = self.channels.iter().filter(|channel| !channel.closed).count().saturating_sub(CHANNELS) as u64 * STEERING;
        assert!(under_way + steering <= self.total, "{under_way} bytes under way");
    }

    /// The receiver reads one message.
    fn read(&mut self) {
        let Some((at, message)) = self.there.pop_front() else { return };
        let channel = &mut self.channels[at];
        match message {
            There::Bulk(cost) => {
                channel.receiver.receive(cost).expect("within its limit");
                channel.arrived.push_back(cost);
            }
            There::Ask(limit) => {
                channel.receiver.ask(limit);
                self.credit(at);
            }
            There::GivenBack(room) => {
                let (consumed, limit) = channel.receiver.given_back(room).expect("within its limit");
                self.pool.given_back(&at, channel.receiver.unused());
                self.back.push_back((at, Back::Credit(consumed, limit)));
            }
            There::Closed => self.pool.leave(&at),
        }
        self.settle();
    }

    fn consume(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        let Some(cost) = channel.arrived.pop_front() else { return };
        if channel.receiver.consume(cost) {
            self.credit(at);
            self.settle();
        }
    }

    fn credit(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        if !channel.closing {
            let granted = self.pool.renew(&at, channel.receiver.need());
            let (consumed, limit) = channel.receiver.grant(granted);
            self.back.push_back((at, Back::Credit(consumed, limit)));
        }
    }

    fn settle(&mut self) {
        while let Some(next) = self.pool.next() {
            self.credit(next);
        }
        if self.pool.is_short() {
            self.recall();
        }
    }

    fn recall(&mut self) {
        let (keep, from) = self.pool.recall(|at| !self.channels[*at].closing);
        self.back.extend(from.into_iter().map(|at| (at, Back::Recall(keep))));
    }

    /// A sender reads one message.
    fn hear(&mut self) {
        let Some((at, message)) = self.back.pop_front() else { return };
        let channel = &mut self.channels[at];
        match message {
            _ if channel.closed => {}
            Back::Credit(consumed, limit) => channel.sender.credit(consumed, limit).expect("an honest credit"),
            Back::Recall(keep) => {
                let room = channel.sender.give_back(keep);
                self.there.push_back((at, There::GivenBack(room)));
            }
            Back::Close => {
                channel.closed = true;
                self.there.push_back((at, There::Closed));
            }
        }
        self.pump(at);
    }

    fn close(&mut self, at: usize) {
        if !std::mem::replace(&mut self.channels[at].closing, true) {
            self.pool.close(&at);
            self.back.push_back((at, Back::Close));
            self.settle();
        }
    }

    /// Lets everything happen that can.
    fn drain(&mut self) {
        while !self.there.is_empty() || !self.back.is_empty() || self.channels.iter().any(|channel| !channel.arrived.is_empty()) {
            self.read();
            self.hear();
            (0..self.channels.len()).for_each(|at| self.consume(at));
        }
    }

    fn stuck(&self) -> Vec<usize> {
        let stuck = |channel: &Channel| !channel.closed && !channel.backlog.is_empty();
        (0..self.channels.len()).filter(|at| stuck(&self.channels[*at])).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Close(usize),
    Send(usize, u64),
    Read(usize),
    Hear(usize),
    Consume(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Open),
        1 => any::<usize>().prop_map(Step::Close),
        8 => (any::<usize>(), 353..dearest()).prop_map(|(at, cost)| Step::Send(at, cost)),
        8 => (any::<usize>(), 353..70_000u64).prop_map(|(at, cost)| Step::Send(at, cost)),
        4 => (1..50usize).prop_map(Step::Read),
        4 => (1..50usize).prop_map(Step::Hear),
        4 => (any::<usize>(), 1..50usize).prop_map(|(at, times)| Step::Consume(at, times)),
    ]
}

proptest! {
    #[test]
    fn honest_ends_never_fill_the_queue_and_never_starve(
        total in least()..8 << 20,
        open in 0..90usize,
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut link = Link::new(total);
        for _ in 0..open {
            link.open();
        }
        for step in steps {
            let channels = link.channels.len();
            match step {
                Step::Open => _ = link.open(),
                Step::Read(times) => (0..times).for_each(|_| link.read()),
                Step::Hear(times) => (0..times).for_each(|_| link.hear()),
                _ if channels == 0 => {}
                Step::Close(at) => link.close(at % channels),
                Step::Send(at, cost) => link.send(at % channels, cost),
                Step::Consume(at, times) => (0..times).for_each(|_| link.consume(at % channels)),
            }
        }
        link.drain();
        prop_assert_eq!(link.stuck(), Vec::<usize>::new());
    }
}

const MIB: u64 = 1 << 20;

/// Sends data for as long as the window is not used up; gives what is under way then.
fn fill(link: &mut Link, at: usize) -> u64 {
    let before = link.there.len();
    while link.channels[at].sender.room() >= cost(DATA_CHUNK) {
        link.send(at, cost(DATA_CHUNK));
    }
    (link.there.len() - before) as u64 * cost(DATA_CHUNK)
}

#[test]
fn a_lone_channel_begins_with_a_calls_window_and_has_all_of_its_own_once_it_is_used() {
    let mut link = Link::new(u64::from(LINK_WINDOW));
    assert!(link.open());
    assert_eq!(link.channels[0].sender.room(), FIRST);
    assert!(cost(crate::limits::VALUE) + 4096 < FIRST, "a one-shot call's result needs no credit");
    fill(&mut link, 0);
    link.drain();
    // Up to a quarter of it is not worth a credit yet.
    assert!(link.channels[0].sender.room() >= u64::from(CHANNEL_WINDOW / 4 * 3));
}

#[test]
fn busy_channels_settle_at_equal_shares() {
    let mut link = Link::new(u64::from(LINK_WINDOW));
    for at in 0..3 {
        assert!(link.open());
        fill(&mut link, at);
        link.drain();
    }
    for _ in 0..20 {
        for at in 0..3 {
            fill(&mut link, at);
        }
        // Read and consumed in the order of sending, as a busy link is.
        link.drain();
    }
    let shares: Vec<u64> = (0..3).map(|at| link.channels[at].sender.room()).collect();
    assert!(shares.iter().all(|share| *share > 5 * MIB / 4), "{shares:?}");
    assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() < MIB / 2, "{shares:?}");
}

#[test]
fn what_idle_channels_hold_is_given_back_for_a_message_that_needs_it() {
    let mut link = Link::new(u64::from(LINK_WINDOW));
    (0..CHANNELS).for_each(|_| assert!(link.open()));
    let last = CHANNELS - 1;
    assert!(link.channels[last].sender.room() < dearest());
    link.send(last, dearest());
    link.drain();
    assert_eq!(link.stuck(), Vec::<usize>::new());
}

#[test]
fn what_is_under_way_in_a_closed_channel_counts_until_the_relay_has_closed_it() {
    let mut link = Link::new(u64::from(LINK_WINDOW));
    assert!(link.open());
    fill(&mut link, 0);
    link.drain();
    assert!(fill(&mut link, 0) > 3 * MIB);
    link.close(0);
    // Nothing of it was read yet; were its part free already, these would exceed the window.
    for at in 1..4 {
        assert!(link.open());
        fill(&mut link, at);
    }
    link.drain();
    assert!(link.open() && link.channels[4].sender.room() > MIB / 2, "now it is free");
}

#[test]
fn a_sender_that_waits_is_renewed_when_what_was_under_way_beside_it_is_consumed() {
    let mut receiver = ChannelReceiver::new(1000);
    receiver.ask(1100);
    assert_eq!(receiver.need().asked, Some(1100));
    receiver.grant(1000);
    receiver.receive(100).expect("within its limit");
    assert!(receiver.consume(100), "it needs less now than it waits for");
    assert_eq!(receiver.need().asked, Some(1000));
}

#[test]
fn more_than_a_thousand_channels_can_join_and_the_next_when_one_has_left() {
    let mut pool = Pool::new(u64::from(LINK_WINDOW));
    let mut channels = 0..;
    // Who does not join at once asks the others to give back; then it does, until there is no room.
    let mut join = |pool: &mut Pool<usize>| {
        let channel = channels.next().expect("endless");
        let joined = pool.join(channel);
        let joined = joined.or_else(|| {
            let (keep, recalled) = pool.recall(|_| true);
            recalled.iter().for_each(|idle| pool.given_back(idle, keep));
            pool.join(channel)
        });
        joined.is_some()
    };
    let joined = std::iter::repeat_with(|| join(&mut pool)).take_while(|joined| *joined).count();
    assert!(joined > 1000, "{joined}");
    pool.leave(&0);
    assert!(join(&mut pool));
    assert!(!join(&mut pool));
}

#[test]
fn what_the_limits_promise_fits_together() {
    const { assert!(CHANNELS as u64 * STEERING <= UNCOUNTED as u64) };
    let operators = u64::from(LINK_WINDOW) + OPENINGS as u64;
    let beyond = (CHANNELS_PER_LINK - CHANNELS) as u64 * STEERING;
    assert!(operators - beyond >= least(), "an operator has room for all its channels and any message");
    const { assert!(BLOB_CHUNK <= ANSWERS && FRAME <= ANSWERS) };
}

#[test]
fn who_ignores_the_rules_is_caught() {
    let mut receiver = ChannelReceiver::new(100);
    assert_eq!(receiver.receive(100), Ok(()));
    assert_eq!(receiver.clone().receive(1), Err(Overrun));
    assert_eq!(receiver.given_back(1), Err(Overrun));
    let mut sender = ChannelSender::new(100);
    assert!(sender.take(10));
    assert_eq!(sender.credit(11, 100), Err(Overrun), "acknowledged what was not sent");
    assert_eq!(sender.credit(10, 11 + u64::from(CHANNEL_WINDOW)), Err(Overrun), "granted more than a window");
    assert_eq!(sender.credit(10, 50), Ok(()));
    assert_eq!(sender.room(), 90, "a limit never falls");
}
