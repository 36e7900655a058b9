//! Frames from operators: channels, requests, their side of pairings.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{ChannelFrame, Frame};

use super::connection::{Over, Peer};
use super::hub::Hub;
use super::pairings::End;
use super::sessions::{OperatorSession, Session};
use super::{asks, clock};

impl Peer for OperatorSession {
    fn session(&self) -> &Session {
        &self.session
    }

    fn come(self: &Arc<Self>, hub: &Arc<Hub>) {
        hub.sessions.add_operator(self);
        if self.authority.stands(clock::reading(), &hub.notices.known().revoked).is_err() {
            self.session.end(Code::Revoked.as_str(), "your grants do not stand any more");
        }
        tracing::debug!(operator = %self.id.short(), session = self.session.number, "operator connected");
    }

    fn receive(self: &Arc<Self>, hub: &Arc<Hub>, bytes: Bytes) -> Result<(), Over> {
        match ChannelFrame::peek(&bytes) {
            Some(Ok(ChannelFrame::Data { channel, .. })) => hub.channels.forward(&self.session, &channel, bytes),
            Some(Ok(ChannelFrame::Open { channel, node, .. })) => {
                let node = hub.sessions.node(&node);
                hub.channels.open(self, node, &channel, bytes);
            }
            Some(Ok(ChannelFrame::Close { channel, code })) => hub.channels.closed_by(&self.session, &channel, code),
            Some(Err(error)) => return Err(format!("malformed channel frame: {error}").into()),
            None => return control(hub, self, &bytes),
        }
        Ok(())
    }

    fn part(&self, reason: &str) {
        tracing::debug!(operator = %self.id.short(), session = self.session.number, reason, "operator disconnected");
    }

    fn leave(&self, hub: &Hub) {
        hub.sessions.remove_operator(self);
        hub.channels.operator_gone(self);
        hub.pairings.operator_gone(self.session.number);
    }
}

fn control(hub: &Arc<Hub>, operator: &Arc<OperatorSession>, bytes: &Bytes) -> Result<(), Over> {
    match Frame::decode(bytes).map_err(|error| format!("malformed frame: {error}"))? {
        Frame::Ping { token } => operator.session.say(&Frame::Pong { token }),
        Frame::Pong { .. } => {}
        Frame::Request { id, body, control } => asks::request(hub, operator, id, &body.0, control.0),
        Frame::PairMessage { pairing, .. } => hub.pairings.say(operator.session.number, pairing, bytes),
        Frame::PairEnd { pairing, code, message } => hub.pairings.end(End::Maker(operator.session.number), pairing, &code, &message),
        Frame::Goodbye { .. } => return Err(Over::Goodbye),
        _ => return Err("a frame that operators do not send".into()),
    }
    Ok(())
}
