//! Frames from operators: channels, requests, their side of pairings.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::frame::{ChannelFrame, Frame};

use super::asks;
use super::hub::Hub;
use super::pairings::End;
use super::sessions::OperatorSession;

/// One frame. An error ends the session; the peer is told.
pub(crate) fn receive(hub: &Arc<Hub>, operator: &Arc<OperatorSession>, bytes: Bytes) -> Result<(), String> {
    operator.session.hear();
    match ChannelFrame::peek(&bytes) {
        Some(Ok(ChannelFrame::Data { channel, .. })) => hub.channels.forward(&operator.session, &channel, bytes),
        Some(Ok(ChannelFrame::Open { channel, node, .. })) => {
            let node = hub.sessions.node(&node);
            hub.channels.open(operator, node, &channel, bytes);
        }
        Some(Ok(ChannelFrame::Close { channel, code })) => hub.channels.closed_by(&operator.session, &channel, code),
        Some(Err(error)) => return Err(goodbye(operator, &format!("malformed channel frame: {error}"))),
        None => return control(hub, operator, &bytes),
    }
    Ok(())
}

fn control(hub: &Arc<Hub>, operator: &Arc<OperatorSession>, bytes: &Bytes) -> Result<(), String> {
    match Frame::decode(bytes) {
        Ok(Frame::Ping { token }) => operator.session.say(&Frame::Pong { token }),
        Ok(Frame::Pong { .. }) => {}
        Ok(Frame::Request { id, body, control }) => asks::request(hub, operator, id, &body.0, control.0),
        Ok(Frame::PairMessage { pairing, .. }) => hub.pairings.say(operator.session.number, pairing, bytes),
        Ok(Frame::PairEnd { pairing, code, message }) => hub.pairings.end(End::Maker(operator.session.number), pairing, &code, &message),
        Ok(Frame::Goodbye { .. }) => return Err("goodbye".into()),
        Ok(_) => return Err(goodbye(operator, "a frame that operators do not send")),
        Err(error) => return Err(goodbye(operator, &format!("malformed frame: {error}"))),
    }
    Ok(())
}

fn goodbye(operator: &OperatorSession, what: &str) -> String {
    let _ = operator.session.outbox.control(Frame::Goodbye { code: "bad_params".into(), message: what.into() }.encode());
    what.into()
}
