//! Whose frame is this, and where does it go. A channel belongs to the session that opened it and the session of its
//! node; a frame of anybody else for it is as if it had not come. Frames pass as the bytes they came as.
//!
//! A channel's queue towards one side is metered: who overruns it loses the channel, who does not read loses the link.
//! Ends that keep to the window the relay announced to each link never come near either (`outhaul_protocol::credit`):
//! what it leaves of the socket's queue is for answers, and for openings, which the relay bounds itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outhaul_link::outbox::{Meter, Refused};
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{ChannelFrame, ChannelId};
use outhaul_protocol::limits;

use super::sessions::{NodeSession, OperatorSession, Session};

/// Bytes queued for one side of one channel. Honest ends have at most a channel window under way, and half of one more
/// covers what is not counted in it (credits); less than [`limits::SOCKET_QUEUE`], so that one channel that overruns is
/// closed before it costs its peer the link.
const CHANNEL_QUEUE: usize = limits::CHANNEL_WINDOW as usize / 2 * 3;
/// Locks over the table, by the channel's id.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<ChannelId, Arc<Route>>>;

/// All channels.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    shards: [Shard; SHARDS],
}

#[derive(Debug)]
struct Route {
    operator: Arc<OperatorSession>,
    node: Arc<NodeSession>,
    to_operator: Meter,
    to_node: Meter,
}

/// Whom the relay tells that a channel is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    Operator,
    Node,
    Both,
}

fn close(to: &Session, channel: &ChannelId, code: &str) {
    // In order with data: what was sent before the end arrives before it.
    if to.outbox.push(ChannelFrame::Close { channel: *channel, code }.encode(), None) == Err(Refused::Full) {
        to.overrun();
    }
}

impl Channels {
    fn shard(&self, channel: &ChannelId) -> MutexGuard<'_, HashMap<ChannelId, Arc<Route>>> {
        self.shards[usize::from(channel[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel and forwards its first frame, or tells the opener why not.
    pub(crate) fn open(&self, operator: &Arc<OperatorSession>, node: Option<Arc<NodeSession>>, channel: &ChannelId, frame: Bytes) {
        let opened = match node {
            Some(node) => self.insert(operator, node, channel),
            None => Err(Code::NodeOffline),
        };
        match opened {
            Ok(route) if route.node.openings.load(Ordering::Relaxed) + frame.len() > limits::OPENINGS => {
                self.end(channel, Tell::Operator, Code::Busy.as_str());
            }
            Ok(route) => self.pass(&route.node.session, &route.node.openings, channel, frame),
            Err(code) => close(&operator.session, channel, code.as_str()),
        }
    }

    fn insert(&self, operator: &Arc<OperatorSession>, node: Arc<NodeSession>, channel: &ChannelId) -> Result<Arc<Route>, Code> {
        if operator.channels().len() >= limits::CHANNELS_PER_LINK {
            return Err(Code::Busy);
        }
        let route = Arc::new(Route { operator: operator.clone(), node, to_operator: Meter::default(), to_node: Meter::default() });
        match self.shard(channel).entry(*channel) {
            // Ids are random: one that is taken was seen elsewhere and is being tried.
            Entry::Occupied(_) => return Err(Code::Replayed),
            Entry::Vacant(place) => place.insert(route.clone()),
        };
        // In the table before it is in the node's list: a clean-up of the node either finds it there or has said so.
        let listed = {
            let mut state = route.node.state();
            let of_operator = state.channels.iter().filter(|(_, opener)| *opener == operator.id).count();
            if state.closed {
                Err(Code::NodeOffline)
            } else if state.channels.len() >= limits::CHANNELS || of_operator >= limits::CHANNELS_PER_OPERATOR {
                Err(Code::Busy)
            } else {
                state.channels.push((*channel, operator.id));
                Ok(())
            }
        };
        match listed {
            Ok(()) => {
                operator.channels().insert(*channel);
                Ok(route)
            }
            Err(code) => {
                self.shard(channel).remove(channel);
                Err(code)
            }
        }
    }

    /// Forwards a frame to the other end of its channel.
    pub(crate) fn forward(&self, from: &Session, channel: &ChannelId, frame: Bytes) {
        let Some(route) = self.shard(channel).get(channel).cloned() else { return };
        let (to, meter) = match from.number {
            number if number == route.operator.session.number => (&route.node.session, &route.to_node),
            number if number == route.node.session.number => (&route.operator.session, &route.to_operator),
            _ => return,
        };
        self.pass(to, meter, channel, frame);
    }

    fn pass(&self, to: &Session, meter: &Meter, channel: &ChannelId, frame: Bytes) {
        let waiting = meter.load(Ordering::Relaxed);
        if waiting + frame.len() > CHANNEL_QUEUE {
            self.end(channel, Tell::Both, Code::TooLarge.as_str());
            return;
        }
        match to.outbox.push(frame, Some(meter)) {
            Ok(()) => {}
            // With more than its window waiting the sender is to blame, not the reader.
            Err(Refused::Full) if waiting > limits::CHANNEL_WINDOW as usize => self.end(channel, Tell::Both, Code::TooLarge.as_str()),
            Err(Refused::Full) => to.overrun(),
            // Its clean-up is on the way and tells this end.
            Err(Refused::Closed) => {}
        }
    }

    /// One end closes its channel. It hears so too, behind all that was under way to it: only then is its window free.
    pub(crate) fn closed_by(&self, from: &Session, channel: &ChannelId, code: &str) {
        let ends = self.shard(channel).get(channel).map(|route| [route.operator.session.number, route.node.session.number]);
        if ends.is_some_and(|ends| ends.contains(&from.number)) {
            self.end(channel, Tell::Both, code);
        }
    }

    fn end(&self, channel: &ChannelId, tell: Tell, code: &str) {
        let Some(route) = self.shard(channel).remove(channel) else { return };
        route.operator.channels().remove(channel);
        route.node.state().channels.retain(|(id, _)| id != channel);
        if tell != Tell::Node {
            close(&route.operator.session, channel, code);
        }
        if tell != Tell::Operator {
            close(&route.node.session, channel, code);
        }
    }

    /// A node's session is over: its channels too.
    pub(crate) fn node_gone(&self, node: &NodeSession) {
        let channels = {
            let mut state = node.state();
            state.closed = true;
            std::mem::take(&mut state.channels)
        };
        for (channel, _) in channels {
            self.end(&channel, Tell::Operator, Code::LinkLost.as_str());
        }
    }

    /// An operator's session is over.
    pub(crate) fn operator_gone(&self, operator: &OperatorSession) {
        let channels = std::mem::take(&mut *operator.channels());
        for channel in channels {
            self.end(&channel, Tell::Node, Code::LinkLost.as_str());
        }
    }
}
