//! A pack's lines in the agent's log: marked with pack and call, cut, escaped, and never more than a trickle.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::compile::brief;
use crate::limits::{LOG_BURST, LOG_LINE, LOG_RATE};

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// One pack's lines, of all its calls together.
#[derive(Debug)]
pub(crate) struct PackLog {
    pack: String,
    bucket: Mutex<Bucket>,
}

impl PackLog {
    pub(crate) fn new(pack: &str) -> Self {
        PackLog { pack: pack.to_owned(), bucket: Mutex::new(Bucket { lines: f64::from(LOG_BURST), since: Instant::now(), left_out: 0 }) }
    }

    pub(crate) fn pack(&self) -> &str {
        &self.pack
    }

    /// Writes a line, if there is room for it; else counts it.
    pub(crate) fn write(&self, call: &str, level: Level, message: &str) {
        let Some(left_out) = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) else { return };
        let pack = self.pack.as_str();
        if left_out > 0 {
            tracing::warn!(target: "pack", pack, left_out, "the pack wrote more lines than are kept");
        }
        let line = brief(cut(message, LOG_LINE));
        match level {
            Level::Debug => tracing::debug!(target: "pack", pack, call, "{line}"),
            Level::Info => tracing::info!(target: "pack", pack, call, "{line}"),
            Level::Warn => tracing::warn!(target: "pack", pack, call, "{line}"),
            Level::Error => tracing::error!(target: "pack", pack, call, "{line}"),
        }
    }
}

/// The beginning of a text, of at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[derive(Debug)]
struct Bucket {
    lines: f64,
    since: Instant,
    left_out: u64,
}

impl Bucket {
    /// Room for one line: how many were left out before it. None where there is no room.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.lines = (self.lines + passed * f64::from(LOG_RATE)).min(f64::from(LOG_BURST));
        if self.lines < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_over_the_rate_are_counted() {
        let begin = Instant::now();
        let mut bucket = Bucket { lines: f64::from(LOG_BURST), since: begin, left_out: 0 };
        for _ in 0..LOG_BURST {
            assert_eq!(bucket.take(begin), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(bucket.take(begin), None);
        }
        let later = begin + Duration::from_secs(1);
        assert_eq!(bucket.take(later), Some(1000));
        assert_eq!(bucket.take(later), Some(0));
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 9), "abc");
    }
}
