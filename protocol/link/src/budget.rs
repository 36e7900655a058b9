//! The receiving end of a link: shares what the relay announced among the link's channels ([`Pool`]), asks idle ones to
//! give back what others need. Locked when a credit is due, never for a message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use outhaul_protocol::credit::pool::{Need, Pool};
use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::limits;
use tokio::sync::Notify;

use crate::pipe::Pipe;

/// How long a channel may take to give back what it is asked for, while another one waits.
const GIVE_BACK: Duration = Duration::from_secs(2 * limits::HEARTBEAT_SECS);

/// A handle on it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    pool: Pool<ChannelId>,
    pipes: HashMap<ChannelId, Weak<Pipe>>,
    /// since when channels owe an answer
    recalled: HashMap<ChannelId, Instant>,
}

/// What to do about a shortage, once the lock is given up.
enum Relief {
    Renew(Arc<Pipe>),
    Recall(u64, Vec<Arc<Pipe>>),
    Nothing,
}

impl Budget {
    /// Of a link to which so many bytes may be under way.
    #[must_use]
    pub fn new(window: u32) -> Self {
        let state = State { pool: Pool::new(u64::from(window)), pipes: HashMap::new(), recalled: HashMap::new() };
        Budget(Arc::new(Shared { state: Mutex::new(state), freed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel opens: what its other end is granted. `None` when there is no room now.
    #[must_use]
    pub fn join(&self, channel: ChannelId) -> Option<u64> {
        let joined = self.state().pool.join(channel);
        self.settle(joined.is_none());
        joined
    }

    /// The same, waiting for others to leave or give back.
    pub(crate) async fn join_in_turn(&self, channel: ChannelId) -> u64 {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(window) = self.join(channel) {
                return window;
            }
            freed.await;
        }
    }

    /// The channel is open: this is where credit for it goes out.
    pub(crate) fn attach(&self, pipe: &Arc<Pipe>) {
        self.state().pipes.insert(pipe.channel(), Arc::downgrade(pipe));
        self.settle(false);
    }

    /// The relay said that nothing more of a channel comes.
    pub fn leave(&self, channel: &ChannelId) {
        {
            let mut state = self.state();
            state.pool.leave(channel);
            state.pipes.remove(channel);
            state.recalled.remove(channel);
        }
        self.0.freed.notify_waiters();
        self.settle(false);
    }

    /// A credit is due; what the channel may have under way now. Whether others wait: then the caller settles.
    pub(crate) fn renew(&self, channel: &ChannelId, need: Need) -> (u64, bool) {
        let mut state = self.state();
        let granted = state.pool.renew(channel, need);
        (granted, state.pool.is_short())
    }

    /// A channel gave back what it was asked for. The caller settles.
    pub(crate) fn given_back(&self, channel: &ChannelId, unused: u64) {
        {
            let mut state = self.state();
            state.pool.given_back(channel, unused);
            state.recalled.remove(channel);
        }
        self.0.freed.notify_waiters();
    }

    /// Channels that were asked long ago and gave nothing back while others wait: not honest, or as good as gone.
    #[must_use]
    pub fn overdue(&self) -> Vec<ChannelId> {
        let state = self.state();
        let overdue = state.recalled.iter().filter(|(_, since)| state.pool.is_short() && since.elapsed() >= GIVE_BACK);
        overdue.map(|(channel, _)| *channel).collect()
    }

    /// Renews who waits, as far as it goes, and asks others for the rest.
    pub(crate) fn settle(&self, short: bool) {
        loop {
            let relief = self.state().relief(short);
            match relief {
                Relief::Renew(pipe) => pipe.renew(),
                Relief::Recall(keep, pipes) => return pipes.iter().for_each(|pipe| pipe.recall(keep)),
                Relief::Nothing => return,
            }
        }
    }
}

impl State {
    fn relief(&mut self, short: bool) -> Relief {
        while let Some(next) = self.pool.next() {
            match live(&self.pipes, &next) {
                Some(pipe) => return Relief::Renew(pipe),
                None => self.pool.close(&next),
            }
        }
        if !short && !self.pool.is_short() {
            return Relief::Nothing;
        }
        let (keep, channels) = self.pool.recall(|channel| live(&self.pipes, channel).is_some());
        let now = Instant::now();
        self.recalled.extend(channels.iter().map(|channel| (*channel, now)));
        Relief::Recall(keep, channels.iter().filter_map(|channel| live(&self.pipes, channel)).collect())
    }
}

/// A channel that is open; what is half open, or over and not yet gone, cannot be asked for anything.
fn live(pipes: &HashMap<ChannelId, Weak<Pipe>>, channel: &ChannelId) -> Option<Arc<Pipe>> {
    pipes.get(channel).and_then(Weak::upgrade).filter(|pipe| !pipe.is_over())
}
