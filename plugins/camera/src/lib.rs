//! Pack `camera`: `camera.list`, `camera.snap`. The picture's bytes are the host's own stream, handed straight back, so
//! they never enter this pack's memory. Commands and their help: `wit/v0.1/commands/camera.wit`.

wit_bindgen::generate!({
    path: ["../../wit/v0.1/host", "../../wit/v0.1/commands"],
    world: "outhaul:commands/camera-pack",
    generate_all,
});

use exports::outhaul::commands::camera::{CameraError, Device, Facing, Guest, Photo};
use outhaul::host::camera::{self, Shot};

/// Where a JPEG stops showing its age and does not yet waste bytes; `camera.wit` promises it.
const DEFAULT_QUALITY: u8 = 85;

struct Pack;

impl Guest for Pack {
    fn list() -> Result<Vec<Device>, CameraError> {
        camera::devices()
    }

    async fn snap(
        device: Option<String>,
        facing: Option<Facing>,
        max_width: Option<u32>,
        quality: Option<u8>,
    ) -> Result<Photo, CameraError> {
        let quality = quality.unwrap_or(DEFAULT_QUALITY);
        if !(1..=100).contains(&quality) {
            return Err(CameraError::Failed(format!(
                "quality is {quality}, and goes from 1 to 100"
            )));
        }
        camera::snap(Shot {
            device,
            facing,
            max_width,
            quality,
        })
        .await
    }
}

export!(Pack);
