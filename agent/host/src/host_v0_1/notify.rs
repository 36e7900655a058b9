//! `outhaul:host/notify`: messages to the person at the machine.

use std::sync::Arc;

use wasmtime::component::Accessor;

use super::Interface;
use crate::bindings::v0_1::notify::{Message, NotifyError, Urgency};
use crate::engine::Kind;
use crate::grants::Power;
use crate::power::notify as power;
use crate::state::State;

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    if kind == Kind::Async {
        interface.func_wrap_concurrent("show", |accessor, (message,): (Message,)| {
            Box::pin(async move { Ok((show(accessor, message.into()).await,)) })
        })?;
    }
    Ok(())
}

async fn show(accessor: &Accessor<State>, message: power::Message) -> Result<(), NotifyError> {
    let asked = accessor.with(|mut access| {
        let state = access.get();
        state.granted(Power::Notify).map(|_| (state.pack(), Arc::clone(&state.seat)))
    });
    let shown = match asked {
        Ok((pack, seat)) => seat.notify.show(&pack, &message).await,
        Err(sentence) => Err(power::NotifyError::Denied(sentence)),
    };
    shown.map_err(|error| match error {
        power::NotifyError::Denied(sentence) => NotifyError::Denied(accessor.with(|mut access| access.get().deny(sentence))),
        power::NotifyError::Unavailable(sentence) => NotifyError::Unavailable(sentence),
        power::NotifyError::Limit(sentence) => NotifyError::Limit(sentence),
        power::NotifyError::Failed(sentence) => NotifyError::Failed(sentence),
    })
}

impl From<Message> for power::Message {
    fn from(message: Message) -> Self {
        let urgency = match message.urgency {
            Urgency::Low => power::Urgency::Low,
            Urgency::Normal => power::Urgency::Normal,
            Urgency::Critical => power::Urgency::Critical,
        };
        power::Message { title: message.title, body: message.body, urgency }
    }
}
