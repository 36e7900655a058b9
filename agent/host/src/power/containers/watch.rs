//! Ends containers whose time is up. Their labels say when, so that an agent that starts anew finds those that an older one left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::owned::{self, NODE, UNTIL};
use super::{Containers, State, now, stopped};

/// How long a container may take to end in an orderly way once its time is up.
const GRACE: u32 = 10;
/// When it is looked again where a runtime did not answer, or did not stop one.
const AGAIN: u64 = 30;
/// The longest until it is looked again while some have a time: clocks are set, and machines sleep.
const MOST: u64 = 300;

/// Whether somebody watches, and what wakes them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    begun: AtomicBool,
    wake: Arc<Notify>,
}

impl Containers {
    /// Looks for containers whose time is up, as long as this is kept. Needs a runtime of Tokio.
    pub fn tend(self: &Arc<Self>) {
        if self.watch.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let (me, wake) = (Arc::downgrade(self), Arc::clone(&self.watch.wake));
        tokio::spawn(async move {
            loop {
                let next = match me.upgrade() {
                    Some(containers) => containers.sweep().await,
                    None => return,
                };
                match next {
                    Some(secs) => {
                        let _ = tokio::time::timeout(Duration::from_secs(secs.clamp(1, MOST)), wake.notified()).await;
                    }
                    // Woken when one is made that has a time, and when the agent lets go.
                    None => wake.notified().await,
                }
            }
        });
    }

    /// A container was made, perhaps with a time.
    pub(super) fn watch(self: &Arc<Self>, until: Option<u64>) {
        if until.is_some() {
            self.tend();
            self.watch.wake.notify_one();
        }
    }

    /// Ends what has to end; seconds until the next, if there is one.
    async fn sweep(&self) -> Option<u64> {
        // One that starts after the agent, at boot, is found later.
        let Ok(runtime) = self.runtime().await else { return Some(MOST) };
        let listed = owned::labelled(&runtime, format!("{NODE}={}", self.config.node)).await;
        // It may be busy or starting: asked again.
        let Ok(listed) = listed else { return Some(AGAIN) };
        let now = now();
        let mut next = None;
        for (names, listed) in listed {
            let Some(until) = listed.number(UNTIL).filter(|_| listed.state != State::Ended) else { continue };
            if !names.iter().any(|name| self.sealer.holds(name.trim_start_matches('/'), listed.labels())) {
                continue;
            }
            if until > now {
                next = Some(next.unwrap_or(u64::MAX).min(until - now));
                continue;
            }
            tracing::info!(container = %listed.id[..12], pack = listed.label(owned::PACK), "a container's time is up; it is stopped");
            if let Err(failed) = stopped(&runtime, &listed.id, GRACE).await {
                tracing::warn!(container = %listed.id[..12], reason = %failed.plain(), "a container whose time is up could not be stopped");
                next = Some(next.unwrap_or(u64::MAX).min(AGAIN));
            }
        }
        next
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}
