//! Frames from guests, machines that are not paired yet: pairing frames and signs of life, small ones, nothing else.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::frame::Frame;

use super::connection::{Over, Peer};
use super::hub::Hub;
use super::pairings::{self, End};
use super::sessions::{GuestSession, Session};

impl Peer for GuestSession {
    fn session(&self) -> &Session {
        &self.session
    }

    fn come(self: &Arc<Self>, _: &Arc<Hub>) {
        tracing::info!(guest = %self.id.short(), address = %self.address, "a machine asks to be paired");
    }

    fn receive(self: &Arc<Self>, hub: &Arc<Hub>, bytes: Bytes) -> Result<(), Over> {
        match Frame::decode_before_auth(&bytes).map_err(|error| format!("malformed frame: {error}"))? {
            Frame::Ping { token } => self.session.say(&Frame::Pong { token }),
            Frame::Pong { .. } => {}
            Frame::PairJoin { slot, message, facts } => pairings::join(hub, self, slot, message, facts),
            Frame::PairMessage { pairing, message } => pairings::hear(hub, self, pairing, message, &bytes),
            Frame::PairEnd { pairing, code, message } => hub.pairings.end(End::Guest(self.session.number), pairing, &code, &message),
            Frame::Goodbye { .. } => return Err(Over::Goodbye),
            _ => return Err("a frame that guests do not send".into()),
        }
        Ok(())
    }

    fn part(&self, reason: &str) {
        tracing::info!(guest = %self.id.short(), reason, "guest disconnected");
    }

    fn leave(&self, hub: &Hub) {
        hub.pairings.guest_gone(self);
    }
}
