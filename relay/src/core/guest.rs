//! Frames from guests, machines that are not paired yet: pairing frames and signs of life, small ones, nothing else.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::frame::Frame;

use super::hub::Hub;
use super::pairings::{self, End};
use super::sessions::GuestSession;

/// One frame. An error ends the session.
pub(crate) fn receive(hub: &Arc<Hub>, guest: &Arc<GuestSession>, bytes: &Bytes) -> Result<(), String> {
    guest.session.hear();
    match Frame::decode_before_auth(bytes) {
        Ok(Frame::Ping { token }) => guest.session.say(&Frame::Pong { token }),
        Ok(Frame::Pong { .. }) => {}
        Ok(Frame::PairJoin { slot, message, facts }) => pairings::join(hub, guest, slot, message, facts),
        Ok(Frame::PairMessage { pairing, message }) => pairings::hear(hub, guest, pairing, message, bytes),
        Ok(Frame::PairEnd { pairing, code, message }) => hub.pairings.end(End::Guest(guest.session.number), pairing, &code, &message),
        Ok(Frame::Goodbye { .. }) => return Err("goodbye".into()),
        Ok(_) => return Err("a frame that guests do not send".into()),
        Err(error) => return Err(format!("malformed frame: {error}")),
    }
    Ok(())
}
