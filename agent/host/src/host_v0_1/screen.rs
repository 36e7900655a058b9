//! `outhaul:host/screen`: displays, and one picture at a time.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{Accessor, StreamReader};

use super::Interface;
use crate::bindings::v0_1::screen::{Display, Picture, ScreenError, Shot, Size};
use crate::engine::Kind;
use crate::grants::{Grants, Power};
use crate::power::screen as power;
use crate::power::seat::Seat;
use crate::state::State;
use crate::stream::HostStream;

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    if kind == Kind::Async {
        interface.func_wrap_concurrent("displays", |accessor, (): ()| Box::pin(async move { Ok((displays(accessor).await,)) }))?;
        interface.func_wrap_concurrent("snap", |accessor, (shot,): (Shot,)| {
            Box::pin(async move { Ok((snap(accessor, shot.into()).await?,)) })
        })?;
    }
    Ok(())
}

/// What a question to the screens goes with.
struct Asked {
    pack: String,
    grants: Arc<Grants>,
    seat: Arc<Seat>,
}

impl Asked {
    fn of(accessor: &Accessor<State>) -> Result<Self, power::ScreenError> {
        accessor.with(|mut access| {
            let state = access.get();
            let grants = state.granted(Power::Screen).map_err(power::ScreenError::Denied)?;
            Ok(Asked { pack: state.pack(), grants, seat: Arc::clone(&state.seat) })
        })
    }

    fn grant(&self) -> &power::Grant {
        const NOTHING: &power::Grant = &power::Grant { all: false, displays: Vec::new() };
        self.grants.screen.as_ref().unwrap_or(NOTHING)
    }
}

async fn displays(accessor: &Accessor<State>) -> Result<Vec<Display>, ScreenError> {
    let found = match Asked::of(accessor) {
        Ok(asked) => asked.seat.screen.displays(&asked.pack, asked.grant()).await,
        Err(refused) => Err(refused),
    };
    let found = found.map_err(|error| accessor.with(|mut access| refusal(access.get(), error)))?;
    Ok(found.into_iter().map(|display| Display { id: display.id, size: display.size.into(), primary: display.primary }).collect())
}

async fn snap(accessor: &Accessor<State>, shot: power::Shot) -> wasmtime::Result<Result<Picture, ScreenError>> {
    let taken = match Asked::of(accessor) {
        Ok(asked) => asked.seat.screen.snap(&asked.pack, asked.grant(), shot).await,
        Err(refused) => Err(refused),
    };
    accessor.with(|mut access| match taken {
        Ok(picture) => Ok(Ok(Picture {
            display: picture.display,
            size: picture.size.into(),
            media_type: power::MEDIA_TYPE.into(),
            data: StreamReader::new(&mut access, HostStream::bytes(Bytes::from(picture.data)))?,
        })),
        Err(error) => Ok(Err(refusal(access.get(), error))),
    })
}

fn refusal(state: &mut State, error: power::ScreenError) -> ScreenError {
    match error {
        power::ScreenError::Denied(sentence) => ScreenError::Denied(state.deny(sentence)),
        power::ScreenError::Unavailable(sentence) => ScreenError::Unavailable(sentence),
        power::ScreenError::NoneFound(sentence) => ScreenError::NoneFound(sentence),
        power::ScreenError::Failed(sentence) => ScreenError::Failed(sentence),
    }
}

impl From<power::Size> for Size {
    fn from(size: power::Size) -> Self {
        Size { width: size.width, height: size.height }
    }
}

impl From<Shot> for power::Shot {
    fn from(shot: Shot) -> Self {
        power::Shot { display: shot.display, max_width: shot.max_width, quality: shot.quality }
    }
}
