//! `outhaul:host/location`: where the machine is.

use std::sync::Arc;

use wasmtime::component::Accessor;

use super::Interface;
use crate::bindings::v0_1::location::{LocationError, Position, Source};
use crate::engine::Kind;
use crate::grants::Power;
use crate::power::location as power;
use crate::state::State;

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    if kind == Kind::Async {
        interface.func_wrap_concurrent("get", |accessor, (): ()| Box::pin(async move { Ok((get(accessor).await,)) }))?;
    }
    Ok(())
}

async fn get(accessor: &Accessor<State>) -> Result<Position, LocationError> {
    let asked = accessor.with(|mut access| {
        let state = access.get();
        state.granted(Power::Location).map(|grants| (grants.location, state.pack(), Arc::clone(&state.seat)))
    });
    let found = match asked {
        Ok((Some(grant), pack, seat)) => seat.location.get(&pack, grant).await,
        Ok((None, ..)) => Err(power::LocationError::Failed("the grant is gone".into())),
        Err(sentence) => Err(power::LocationError::Denied(sentence)),
    };
    found.map(Position::from).map_err(|error| match error {
        power::LocationError::Denied(sentence) => LocationError::Denied(accessor.with(|mut access| access.get().deny(sentence))),
        power::LocationError::Unavailable(sentence) => LocationError::Unavailable(sentence),
        power::LocationError::Failed(sentence) => LocationError::Failed(sentence),
    })
}

impl From<power::Position> for Position {
    fn from(position: power::Position) -> Self {
        let power::Position { latitude, longitude, accuracy, altitude, time, source } = position;
        let source = match source {
            power::Source::Fixed => Source::Fixed,
            power::Source::Gpsd => Source::Gpsd,
            power::Source::Geoclue => Source::Geoclue,
        };
        Position { latitude, longitude, accuracy, altitude, time, source }
    }
}
