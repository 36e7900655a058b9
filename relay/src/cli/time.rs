//! Durations as people type them, and times as they read them.

use std::time::Duration;

/// Reads `500ms`, `60`, `60s`, `5m`, `1h`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{}` is not a duration: write 500ms, 60, 90s, 5m, 12h or 30d", text.escape_debug());
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let secs = |each: u64| number.checked_mul(each).map(Duration::from_secs).ok_or_else(wrong);
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => secs(1)?,
        "m" => secs(60)?,
        "h" => secs(3600)?,
        "d" => secs(86_400)?,
        _ => return Err(wrong()),
    };
    // A century is longer than any key of ours lasts; beyond it sums overflow.
    if duration.is_zero() || duration.as_secs() > 100 * 365 * 86_400 { Err(wrong()) } else { Ok(duration) }
}

/// `12 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn span(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// `12 s ago`, or `never`.
pub(crate) fn ago(at: u64, now: u64) -> String {
    if at == 0 { "never".to_owned() } else { format!("{} ago", span(now.saturating_sub(at))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_type_them() {
        for (text, millis) in
            [("500ms", 500), ("60", 60_000), ("90s", 90_000), ("5m", 300_000), ("12h", 43_200_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "0", "1.5s", "5 m", "1y", "99999999999d", "20000000000000000000"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_as_people_read_them() {
        assert_eq!((ago(0, 9).as_str(), ago(100, 103).as_str(), ago(1, 7201).as_str()), ("never", "3 s ago", "2 h ago"));
    }
}
