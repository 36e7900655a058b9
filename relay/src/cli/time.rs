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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_people_read_them() {
        assert_eq!((ago(0, 9).as_str(), ago(100, 103).as_str(), ago(1, 7201).as_str()), ("never", "3 s ago", "2 h ago"));
    }
}
