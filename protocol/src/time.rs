//! Times of signed objects, and what an agent may believe about its own clock. No clock is read here: whoever has one
//! passes its reading in.

use crate::cbor::{Cbor, DecodeError, Item};
use crate::limits;
use std::fmt;

/// Whole seconds since 1970. In CBOR an unsigned integer; a float, NaN included, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// So many seconds later.
    #[must_use]
    pub fn plus(self, secs: u64) -> Time {
        Time(self.0.saturating_add(secs))
    }

    /// Seconds since an earlier time, none if it is later.
    #[must_use]
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds between two times, whichever is earlier.
    #[must_use]
    pub fn apart(self, other: Time) -> u64 {
        self.0.abs_diff(other.0)
    }
}

/// As people read it: `2026-11-21 10:33 UTC`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        // Days to a civil date (the algorithm of Howard Hinnant's chrono notes, years from March).
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
    }
}

impl Cbor for Time {
    fn to_item(&self) -> Item {
        self.0.to_item()
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        u64::from_item(item).map(Time)
    }
}

/// Seconds by which a fleet-signed time may lie ahead of a sure clock: time zones set wrong, no more.
pub const AHEAD_SECS: u64 = 24 * 3600;
/// Seconds by which the machine's clock may lie ahead of the floor and still be believed: a machine may spend three
/// years on a shelf; a clock further out has lost its battery or was set to a wild date.
pub const LEAP_SECS: u64 = 3 * 365 * 24 * 3600;

/// A fleet-signed time that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signed at {signed}, more than a day ahead of this machine's clock ({now})")]
pub struct FromTheFuture {
    /// The time the object states.
    pub signed: Time,
    /// The time it is.
    pub now: Time,
}

/// What an agent knows about time: a floor below which it is certainly not. The floor is the newest of build date,
/// fleet-signed times seen and own readings believed; the agent keeps it on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    floor: Time,
}

/// A reading of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The best guess: the machine's clock, but never below the floor.
    pub now: Time,
    /// Whether the machine's clock agrees with the floor. Offline calls are refused while it does not.
    pub sure: bool,
}

impl Reading {
    /// A clock that is believed, as a person's machine's or the relay's.
    #[must_use]
    pub fn sure(now: Time) -> Self {
        Reading { now, sure: true }
    }

    /// Whether something signed then may have been signed already. Only a sure clock can deny it.
    #[must_use]
    pub fn allows(&self, signed: Time) -> bool {
        !self.sure || signed <= self.now.plus(AHEAD_SECS)
    }
}

impl Clock {
    /// From the build date and the floor kept on disk, if there is one.
    #[must_use]
    pub fn new(built: Time, kept: Option<Time>) -> Self {
        Clock { floor: kept.map_or(built, |kept| kept.max(built)) }
    }

    /// What to keep on disk.
    #[must_use]
    pub fn floor(&self) -> Time {
        self.floor
    }

    /// Judges the machine's clock.
    #[must_use]
    pub fn read(&self, own: Time) -> Reading {
        let behind = own.plus(limits::CLOCK_SKEW_SECS) < self.floor;
        let leapt = own.since(self.floor) > LEAP_SECS;
        Reading { now: own.max(self.floor), sure: !behind && !leapt }
    }

    /// Raises the floor to the machine's clock when that is believable. A clock that leapt to 2099 raises nothing:
    /// the floor is kept on disk, and setting the clock right again must be enough to mend the machine.
    pub fn tick(&mut self, own: Time) -> Reading {
        let reading = self.read(own);
        if reading.sure {
            self.floor = reading.now;
        }
        reading
    }

    /// Raises the floor to the time of an object signed by the fleet key itself.
    pub fn saw(&mut self, signed: Time, own: Time) -> Result<(), FromTheFuture> {
        let reading = self.read(own);
        if !reading.allows(signed) {
            return Err(FromTheFuture { signed, now: reading.now });
        }
        // Up to a day ahead is accepted but not learnt: a floor ahead of the truth would make the clock unsure.
        let learnt = if reading.sure { signed.min(reading.now) } else { signed };
        self.floor = self.floor.max(learnt);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: Time = Time(1_790_000_000);

    #[test]
    fn a_time_is_shown_as_people_read_it() {
        for (secs, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_257_215, "2026-11-21 10:33 UTC"),
            (4_070_908_799, "2098-12-31 23:59 UTC"),
        ] {
            assert_eq!(Time(secs).to_string(), text);
        }
        // A peer chooses its times: none of them panics.
        assert!(Time(u64::MAX).to_string().ends_with(" UTC"));
    }

    #[test]
    fn a_clock_at_1970_is_unsure_and_the_floor_stands_in() {
        let mut clock = Clock::new(BUILT, None);
        assert_eq!(clock.read(Time(0)), Reading { now: BUILT, sure: false });
        clock.saw(BUILT.plus(1000), Time(0)).unwrap();
        assert_eq!(clock.tick(Time(5)), Reading { now: BUILT.plus(1000), sure: false });
    }

    #[test]
    fn a_clock_at_2099_is_unsure_and_leaves_no_trace() {
        let mut clock = Clock::new(BUILT, None);
        let reading = clock.tick(Time(4_070_908_800));
        assert!(!reading.sure);
        assert_eq!(clock.floor(), BUILT);
        assert_eq!(clock.tick(BUILT.plus(60)), Reading { now: BUILT.plus(60), sure: true });
    }

    #[test]
    fn the_floor_survives_and_never_falls() {
        let mut clock = Clock::new(BUILT, Some(BUILT.plus(500)));
        clock.tick(BUILT.plus(900));
        let mut again = Clock::new(BUILT, Some(clock.floor()));
        assert_eq!(again.tick(BUILT.plus(10)), Reading { now: BUILT.plus(900), sure: false });
    }

    #[test]
    fn a_signed_time_a_day_ahead_of_a_sure_clock_is_refused() {
        let mut clock = Clock::new(BUILT, None);
        let own = BUILT.plus(100);
        assert!(clock.saw(own.plus(AHEAD_SECS + 1), own).is_err());
        clock.saw(own.plus(AHEAD_SECS), own).unwrap();
        assert!(clock.read(own).sure, "an hour ahead must not make the clock unsure");
    }
}
