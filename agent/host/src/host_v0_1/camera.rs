//! `outhaul:host/camera`: one picture at a time.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{Accessor, StreamReader};

use super::{Interface, blocking, boxed};
use crate::bindings::v0_1::camera::{CameraError, Device, Facing, Photo, Shot, Size};
use crate::engine::Kind;
use crate::grants::{Grants, Power};
use crate::power::camera as power;
use crate::state::State;
use crate::stream::HostStream;

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    interface.func_wrap_async("devices", |mut store, (): ()| {
        let asked = Asked::of(store.data_mut());
        boxed(async move {
            let devices = match asked {
                Ok(asked) => blocking(move || power::devices(&asked.pack, asked.grant(), asked.config)).await?,
                Err(sentence) => Err(power::CameraError::Denied(sentence)),
            };
            let devices = devices.map(|list| list.into_iter().map(Device::from).collect::<Vec<_>>());
            Ok((devices.map_err(|error| refusal(store.data_mut(), error)),))
        })
    })?;
    if kind == Kind::Async {
        interface.func_wrap_concurrent("snap", |accessor, (shot,): (Shot,)| {
            Box::pin(async move { Ok((snap(accessor, shot.into()).await?,)) })
        })?;
    }
    Ok(())
}

/// What a question to the cameras goes with.
struct Asked {
    pack: String,
    grants: Arc<Grants>,
    config: power::Config,
}

impl Asked {
    fn of(state: &mut State) -> Result<Self, String> {
        let grants = state.granted(Power::Camera)?;
        Ok(Asked { pack: state.pack(), grants, config: state.camera })
    }

    fn grant(&self) -> &power::Grant {
        const NOTHING: &power::Grant = &power::Grant { all: false, devices: Vec::new() };
        self.grants.camera.as_ref().unwrap_or(NOTHING)
    }
}

async fn snap(accessor: &Accessor<State>, shot: power::Shot) -> wasmtime::Result<Result<Photo, CameraError>> {
    let taken = match accessor.with(|mut access| Asked::of(access.get())) {
        Ok(asked) => blocking(move || power::snap(&asked.pack, asked.grant(), asked.config, &shot)).await?,
        Err(sentence) => Err(power::CameraError::Denied(sentence)),
    };
    accessor.with(|mut access| match taken {
        Ok(photo) => Ok(Ok(Photo {
            device: photo.device,
            size: photo.size.into(),
            media_type: power::MEDIA_TYPE.into(),
            data: StreamReader::new(&mut access, HostStream::bytes(Bytes::from(photo.data)))?,
        })),
        Err(error) => Ok(Err(refusal(access.get(), error))),
    })
}

fn refusal(state: &mut State, error: power::CameraError) -> CameraError {
    match error {
        power::CameraError::Denied(sentence) => CameraError::Denied(state.deny(sentence)),
        power::CameraError::NoneFound(sentence) => CameraError::NoneFound(sentence),
        power::CameraError::Busy(sentence) => CameraError::Busy(sentence),
        power::CameraError::Failed(sentence) => CameraError::Failed(sentence),
    }
}

impl From<power::Device> for Device {
    fn from(device: power::Device) -> Self {
        Device { id: device.id, name: device.name, facing: device.facing.into(), sizes: device.sizes.into_iter().map(Size::from).collect() }
    }
}

impl From<power::Size> for Size {
    fn from(size: power::Size) -> Self {
        Size { width: size.width, height: size.height }
    }
}

impl From<power::Facing> for Facing {
    fn from(facing: power::Facing) -> Self {
        match facing {
            power::Facing::Front => Facing::Front,
            power::Facing::Back => Facing::Back,
            power::Facing::External => Facing::External,
            power::Facing::Unknown => Facing::Unknown,
        }
    }
}

impl From<Facing> for power::Facing {
    fn from(facing: Facing) -> Self {
        match facing {
            Facing::Front => power::Facing::Front,
            Facing::Back => power::Facing::Back,
            Facing::External => power::Facing::External,
            Facing::Unknown => power::Facing::Unknown,
        }
    }
}

impl From<Shot> for power::Shot {
    fn from(shot: Shot) -> Self {
        power::Shot { device: shot.device, facing: shot.facing.map(power::Facing::from), max_width: shot.max_width, quality: shot.quality }
    }
}
