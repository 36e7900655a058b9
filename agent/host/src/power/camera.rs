//! The `camera` power: one JPEG from a camera of this machine, a grant per camera. Linux video devices (V4L2) and, where the
//! configuration asks for it by name, a test pattern that nobody can mistake for a picture. Every call blocks, a few seconds at most.
//!
//! A camera that compresses by itself is passed through as it is; raw frames are encoded here. Devices that offer only multi-planar
//! capture (some boards' sensor pipelines) are not listed.

mod jpeg;
mod pattern;
mod v4l2;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use super::picture::{MEDIA_TYPE, Size};
use super::{shell_word, shown};

/// The id of the test pattern.
pub const TEST_PATTERN: &str = "test-pattern";

/// The cameras one pack may use: `camera = true` or `camera = { devices = ["video0"] }`. The default grants none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Grant {
    /// Every camera, those to come included.
    pub all: bool,
    /// These, by id.
    pub devices: Vec<String>,
}

impl Grant {
    fn allows(&self, id: &str) -> bool {
        self.all || self.devices.iter().any(|device| device == id)
    }
}

/// How a grant stands in the configuration.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    All(bool),
    Some(Devices),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Devices {
    devices: Vec<String>,
}

impl From<Written> for Grant {
    fn from(written: Written) -> Self {
        match written {
            Written::All(all) => Self { all, devices: Vec::new() },
            Written::Some(Devices { devices }) => Self { all: false, devices },
        }
    }
}

impl From<Grant> for Written {
    fn from(grant: Grant) -> Self {
        if grant.all || grant.devices.is_empty() { Self::All(grant.all) } else { Self::Some(Devices { devices: grant.devices }) }
    }
}

/// `[camera]` of `agent.toml`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Adds a source that shows colour bars, the time and a number. Off unless asked for. It still wants a grant.
    pub test_pattern: bool,
}

/// Why there is no photo. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CameraError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// No camera, or none like that.
    #[error("{0}")]
    NoneFound(String),
    /// Another program uses it.
    #[error("{0}")]
    Busy(String),
    /// The camera or the system refused.
    #[error("{0}")]
    Failed(String),
}

/// Which way a camera looks. Linux does not say; what is known comes from its name and from how it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Facing {
    Front,
    Back,
    External,
    Unknown,
}

/// A camera.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// What a shot names it by: `video0`.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// Which way it looks.
    pub facing: Facing,
    /// The sizes it takes pictures in, smallest first.
    pub sizes: Vec<Size>,
}

/// What picture is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// A camera's id; the first granted one when absent.
    pub device: Option<String>,
    /// When no camera is named: the first that looks this way.
    pub facing: Option<Facing>,
    /// The largest size not wider than this; the camera's largest without it.
    pub max_width: Option<u32>,
    /// 1 to 100. A camera that only compresses by itself keeps its own.
    pub quality: u8,
}

/// A picture taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// The camera's id.
    pub device: String,
    /// Its size in fact.
    pub size: Size,
    /// A whole JPEG file.
    pub data: Vec<u8>,
}

/// The granted cameras.
pub fn devices(pack: &str, grant: &Grant, config: Config) -> Result<Vec<Device>, CameraError> {
    if *grant == Grant::default() {
        return Err(denied(pack, None));
    }
    let with_pattern = config.test_pattern && grant.allows(TEST_PATTERN);
    let mut devices = match v4l2::devices(|id| grant.allows(id)) {
        Err(_) if with_pattern => Vec::new(),
        found => found?,
    };
    if with_pattern {
        devices.push(pattern::device());
    }
    Ok(devices)
}

/// Takes one picture.
pub fn snap(pack: &str, grant: &Grant, config: Config, shot: &Shot) -> Result<Photo, CameraError> {
    if !(1..=100).contains(&shot.quality) {
        return Err(CameraError::Failed(format!("quality {} is not between 1 and 100", shot.quality)));
    }
    if let Some(id) = shot.device.as_deref().filter(|id| !grant.allows(id)) {
        return Err(denied(pack, Some(id)));
    }
    tracing::info!(pack, device = shot.device.as_deref().map(shown), "a pack takes a picture with a camera of this machine");
    let device = choose(devices(pack, grant, config)?, shot)?;
    let size = fit(&device, shot.max_width)?;
    let (size, data) = match device.id.as_str() {
        TEST_PATTERN => (size, pattern::shoot(size, shot.quality)?),
        id => v4l2::shoot(id, size, shot.quality)?,
    };
    Ok(Photo { device: device.id, size, data })
}

fn denied(pack: &str, id: Option<&str>) -> CameraError {
    let (what, item) = match id {
        Some(id) => (format!("camera `{}`", shown(id)), format!(" {}", shell_word(id))),
        None => ("the cameras".into(), String::new()),
    };
    CameraError::Denied(format!(
        "this machine's policy does not let pack `{pack}` use {what}; on that machine: agent allow {pack} camera{item}"
    ))
}

fn choose(devices: Vec<Device>, shot: &Shot) -> Result<Device, CameraError> {
    let here: Vec<String> = devices.iter().map(|device| format!("`{}`", device.id)).collect();
    let here = if here.is_empty() { "no camera".into() } else { here.join(", ") };
    let wanted = |device: &Device| match (&shot.device, shot.facing) {
        (Some(id), _) => device.id == *id,
        (None, Some(facing)) => device.facing == facing,
        (None, None) => true,
    };
    devices.into_iter().find(wanted).ok_or_else(|| {
        CameraError::NoneFound(match (&shot.device, shot.facing) {
            (Some(id), _) => format!("this machine has no camera `{}`; there is {here}", shown(id)),
            (None, Some(facing)) => {
                let facing = format!("{facing:?}").to_lowercase();
                format!("no camera of this machine is known to face `{facing}`; there is {here}, to be named as `device`")
            }
            (None, None) => "this machine has no camera".into(),
        })
    })
}

/// The largest size not wider than asked for.
fn fit(device: &Device, max_width: Option<u32>) -> Result<Size, CameraError> {
    let fitting = device.sizes.iter().filter(|size| max_width.is_none_or(|most| size.width <= most));
    fitting.copied().max_by_key(|size| size.area()).ok_or_else(|| {
        let smallest = device.sizes.iter().min_by_key(|size| size.width);
        CameraError::Failed(match (max_width, smallest) {
            (Some(most), Some(size)) => {
                format!("`{}` has no size of at most {most} pixels' width; its smallest is {}x{}", device.id, size.width, size.height)
            }
            _ => format!("`{}` offers no picture format this agent can read", device.id),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Config = Config { test_pattern: true };
    const OFF: Config = Config { test_pattern: false };

    fn all() -> Grant {
        Grant { all: true, ..Grant::default() }
    }

    fn only(id: &str) -> Grant {
        Grant { all: false, devices: vec![id.into()] }
    }

    fn shot(device: Option<&str>) -> Shot {
        Shot { device: device.map(Into::into), facing: None, max_width: None, quality: 85 }
    }

    fn camera(id: &str, facing: Facing) -> Device {
        let sizes = [(320, 240), (640, 480), (1280, 720)].map(|(width, height)| Size { width, height });
        Device { id: id.into(), name: id.into(), facing, sizes: sizes.to_vec() }
    }

    #[test]
    fn without_a_grant_every_question_is_denied_with_the_way_out() {
        let sentence = "this machine's policy does not let pack `camera` use the cameras; on that machine: agent allow camera camera";
        assert_eq!(devices("camera", &Grant::default(), ON), Err(CameraError::Denied(sentence.into())));
        assert_eq!(snap("camera", &Grant::default(), ON, &shot(None)), Err(CameraError::Denied(sentence.into())));
        let refused = snap("camera", &only("video0"), ON, &shot(Some("video1"))).expect_err("not granted");
        assert!(matches!(&refused, CameraError::Denied(text) if text.ends_with("agent allow camera camera video1")), "{refused}");
        assert!(matches!(snap("camera", &only("video0"), ON, &shot(Some(TEST_PATTERN))), Err(CameraError::Denied(_))));
    }

    #[test]
    fn the_test_pattern_is_there_only_when_the_configuration_asks_for_it() {
        let listed =
            |config, grant: &Grant| devices("camera", grant, config).is_ok_and(|list| list.iter().any(|device| device.id == TEST_PATTERN));
        assert!(listed(ON, &all()) && listed(ON, &only(TEST_PATTERN)));
        assert!(!listed(OFF, &all()) && !listed(OFF, &only(TEST_PATTERN)) && !listed(ON, &only("video0")));
        assert!(matches!(snap("camera", &only(TEST_PATTERN), OFF, &shot(Some(TEST_PATTERN))), Err(CameraError::NoneFound(_))));
    }

    #[test]
    fn a_test_shot_is_a_jpeg_of_the_wanted_size_and_no_two_are_alike() {
        let wanted = Shot { max_width: Some(1000), ..shot(Some(TEST_PATTERN)) };
        let photos = [(); 2].map(|()| snap("camera", &all(), ON, &wanted).expect("photo"));
        for photo in &photos {
            assert_eq!((photo.device.as_str(), photo.size), (TEST_PATTERN, Size { width: 640, height: 480 }));
            assert_eq!(jpeg::complete(&photo.data).map(|(size, _)| size), Some(photo.size));
        }
        assert_ne!(photos[0].data, photos[1].data);
        let small = snap("camera", &all(), ON, &Shot { quality: 10, ..wanted }).expect("photo");
        assert!(small.data.len() < photos[0].data.len());
    }

    #[test]
    fn nonsense_is_refused() {
        for quality in [0, 101] {
            assert!(matches!(snap("camera", &all(), ON, &Shot { quality, ..shot(None) }), Err(CameraError::Failed(_))));
        }
        for id in ["video999", "../etc/passwd", "", "video0/../x"] {
            assert!(matches!(snap("camera", &all(), ON, &shot(Some(id))), Err(CameraError::NoneFound(_))), "{id}");
        }
        assert!(
            matches!(snap("camera", &all(), ON, &Shot { max_width: Some(3), ..shot(Some(TEST_PATTERN)) }), Err(CameraError::Failed(text)) if text.contains("640x480"))
        );
    }

    #[test]
    fn a_camera_is_chosen_by_id_then_by_facing_then_by_order() {
        let here = || vec![camera("video0", Facing::Unknown), camera("video2", Facing::Back)];
        let chosen = |device: Option<&str>, facing| choose(here(), &Shot { facing, ..shot(device) }).map(|device| device.id);
        assert_eq!(chosen(None, None).as_deref(), Ok("video0"));
        assert_eq!(chosen(None, Some(Facing::Back)).as_deref(), Ok("video2"));
        assert_eq!(chosen(Some("video0"), Some(Facing::Back)).as_deref(), Ok("video0"));
        assert!(matches!(chosen(None, Some(Facing::Front)), Err(CameraError::NoneFound(text)) if text.contains("`video0`, `video2`")));
        assert!(matches!(choose(Vec::new(), &shot(None)), Err(CameraError::NoneFound(_))));
    }

    #[test]
    fn a_size_never_exceeds_the_wanted_width() {
        let device = camera("video0", Facing::Unknown);
        let width = |most| fit(&device, most).map(|size| size.width);
        assert_eq!((width(None), width(Some(1000)), width(Some(640))), (Ok(1280), Ok(640), Ok(640)));
        assert!(width(Some(319)).is_err());
    }

    #[test]
    fn a_grant_reads_as_the_configuration_writes_it() {
        let read = |json: &str| serde_json::from_str::<Grant>(json);
        assert_eq!(read("true").expect("all"), all());
        assert_eq!(read("false").expect("none"), Grant::default());
        assert_eq!(read(r#"{"devices": ["video0"]}"#).expect("one"), only("video0"));
        assert!(read(r#"{"device": ["video0"]}"#).is_err() && read("1").is_err());
        assert_eq!(serde_json::to_string(&only("video0")).expect("json"), r#"{"devices":["video0"]}"#);
        assert_eq!(serde_json::to_string(&all()).expect("json"), "true");
    }
}
