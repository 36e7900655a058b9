//! Moves the engines' epoch forward while calls run, so that a guest that never yields is made to.
//!
//! Own thread: such a guest would starve a ticker on the same runtime. It sleeps when nothing has run for a while, so that an idle
//! agent wakes for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use wasmtime::Engine;

use crate::limits::{TICK, TICKS_IDLE};

/// The thread, stopped when this is dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// One call under way.
pub(crate) struct Running(Arc<Shared>);

impl Ticker {
    /// Starts the thread, asleep.
    pub(crate) fn start(engines: Vec<Engine>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("epochs".into()).stack_size(64 << 10).spawn(move || tick(&theirs, &engines))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Keeps the ticker ticking until the guard is dropped.
    pub(crate) fn running(&self) -> Running {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        self.wake();
        Running(Arc::clone(&self.shared))
    }

    fn wake(&self) {
        if self.shared.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.asleep.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn tick(shared: &Shared, engines: &[Engine]) {
    let mut idle = TICKS_IDLE;
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle = 0;
        } else if idle < TICKS_IDLE {
            idle += 1;
        } else {
            sleep(shared);
            continue;
        }
        thread::sleep(TICK);
        engines.iter().for_each(Engine::increment_epoch);
    }
}

/// Says that it sleeps, then looks once more: whoever begins a call in between either is seen here or wakes the thread.
fn sleep(shared: &Shared) {
    shared.asleep.store(true, Ordering::SeqCst);
    while shared.asleep.load(Ordering::SeqCst) && shared.running.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
        thread::park();
    }
    shared.asleep.store(false, Ordering::SeqCst);
}
