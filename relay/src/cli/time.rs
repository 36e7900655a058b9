//! Times as people read them.

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

/// `2026-11-21 10:33 UTC`.
pub(crate) fn date(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Days to a civil date (the algorithm of Howard Hinnant's chrono notes, years from March).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_read_them() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_257_215), "2026-11-21 10:33 UTC");
        assert_eq!((ago(0, 9).as_str(), ago(100, 103).as_str(), ago(1, 7201).as_str()), ("never", "3 s ago", "2 h ago"));
    }
}
