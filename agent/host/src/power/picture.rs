//! Pictures, for the powers that make them: a size, pixels in memory, and how they become a smaller picture or a JPEG file.

pub(super) mod pixels;
pub(super) mod shrink;

use serde::{Deserialize, Serialize};

/// What every picture is, in the end.
pub const MEDIA_TYPE: &str = "image/jpeg";

/// Pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    pub(super) fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}
