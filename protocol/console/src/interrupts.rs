//! Ctrl-C and its kin.

use outhaul_protocol::error::{Code, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, from here on no longer the process's end.
#[derive(Debug)]
pub struct Interrupts {
    all: [Signal; 3],
}

impl Interrupts {
    /// Takes them over.
    pub fn new() -> Result<Interrupts, Failure> {
        let one = |kind| signal(kind).map_err(|error| Failure::new(Code::Internal, format!("listen for signals: {error}")));
        Ok(Interrupts { all: [one(SignalKind::interrupt())?, one(SignalKind::terminate())?, one(SignalKind::hangup())?] })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        let [one, two, three] = &mut self.all;
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
        }
    }
}
