//! The two clocks of the relay: the wall's, for what is signed or shown, and one that never jumps, for silence.

use std::time::{SystemTime, UNIX_EPOCH};

use outhaul_protocol::time::{Reading, Time};

/// The time on the wall.
pub(crate) fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The same as a reading: a relay's clock is believed.
pub(crate) fn reading() -> Reading {
    Reading::sure(now())
}
