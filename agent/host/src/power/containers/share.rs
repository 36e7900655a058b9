//! How much of the way to the runtime one call may take, and all of them together: each request has a connection of its own, and a process
//! only so many descriptors.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ContainersError;
use crate::limits::{ATTACHED_PER_CALL, RUNTIME_REQUESTS_PER_CALL};

/// What one call may have under way and open. Copies are the same call's.
#[derive(Debug, Clone)]
pub struct Share {
    requests: Arc<Semaphore>,
    attached: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Share { requests: Arc::new(Semaphore::new(RUNTIME_REQUESTS_PER_CALL)), attached: Arc::new(Semaphore::new(ATTACHED_PER_CALL)) }
    }
}

impl Share {
    /// Waits until the call may ask one thing more. What it asks has a deadline, and so has this.
    pub async fn request(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.requests).acquire_owned().await.expect("it is never closed")
    }

    /// A place for what stays open.
    pub(super) fn attach(&self, all: &Arc<Semaphore>) -> Result<Place, ContainersError> {
        let own = Arc::clone(&self.attached).try_acquire_owned();
        let own =
            own.map_err(|_| ContainersError::Limit(format!("one call may have {ATTACHED_PER_CALL} logs, programs and waits open")))?;
        Ok(Place { _own: own, _all: place(all)? })
    }
}

/// A place among those of a call and among those of all calls.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// A place among those of all calls.
pub(super) fn place(all: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ContainersError> {
    let full = |_| ContainersError::Limit("as many logs, programs, waits and downloads of containers are open as may be".into());
    Arc::clone(all).try_acquire_owned().map_err(full)
}
