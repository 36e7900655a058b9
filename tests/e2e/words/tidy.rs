//! What varies from run to run, made the same: ids, digests, times, ports, pids, folders. Widths stay where tables need
//! them, and the same id looks the same wherever it stands on a page.

use serde_json::Value;

/// JSON numbers that are times, durations, counters or figures of the machine: shown as 0.
const NUMBERS: &[&str] = &[
    "started_at",
    "duration_ms",
    "number",
    "expires_at",
    "asked_at",
    "connected_at",
    "last_seen",
    "given_at",
    "signed_at",
    "until",
    "installed_at",
    "time",
    "uptime_ms",
    "uptime_secs",
    "rtt_ms",
    "cpu_percent",
    "memory_percent",
    "pid",
    "boot_count",
    "sandbox_bytes",
    "mhz",
    "calls",
];
/// JSON texts of the machine or of signatures: shown as `…`.
const TEXTS: &[&str] = &["cose", "grant", "cpu", "kernel", "memory", "os", "hostname"];
/// Lines of people's output that tell of the machine: only their first word is shown.
const LINES: &[&str] = &["load ", "cpu ", "kernel ", "memory ", "os ", "hostname "];
/// Numbers by what stands before and behind them, and what is shown instead.
const AROUND: &[(&str, &str, &str)] = &[
    ("127.0.0.1:", "", "8765"),
    ("localhost:", "", "8765"),
    ("", " s ago", "1"),
    // Asked for 300 s, and a second may pass before it is said.
    ("expires  in ", " min", "5"),
    (": ", " ms, agent", "1.0"),
    ("agent up ", " ", "1"),
    ("process ", "", "4242"),
    ("(kill ", ")", "4242"),
    ("session=", "", "1"),
    ("number=", "", "1"),
    ("signed ", " s from now", "1"),
    ("certificate_age=", "", "1"),
    (".", ".part", "1"),
    ("peer=", "", "1"),
];

/// JSON texts longer than this are only said to be long: where one is cut, it is not cut at the same place twice.
const LONG: usize = 1000;

/// What is known to vary on one page.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    known: Vec<(String, String)>,
}

impl Tidy {
    /// Shows something else wherever this stands.
    pub(super) fn replace(&mut self, found: impl Into<String>, shown: &str) {
        let found = found.into();
        if !self.known.iter().any(|(known, _)| *known == found) {
            self.known.push((found, shown.to_owned()));
        }
    }

    /// One JSON document over several lines; anything else as it stands.
    pub(super) fn json(&self, line: &str) -> String {
        match serde_json::from_str::<Value>(line) {
            Ok(mut value @ (Value::Object(_) | Value::Array(_))) => {
                still(&mut value);
                serde_json::to_string_pretty(&value).unwrap_or_default()
            }
            _ => line.to_owned(),
        }
    }

    /// A whole page.
    pub(super) fn tidy(&self, text: &str) -> String {
        let granted: Vec<String> = text.lines().map(granted).collect();
        // Ids come first: a code of six digits may stand within one.
        let mut text = ids(&granted.join("\n"));
        for (found, shown) in &self.known {
            text = swap(&text, found, shown);
        }
        // On a busy machine a page takes minutes.
        text = text.replace(" min ago", " s ago");
        text.lines().map(|line| numbers(&dates(&machine(line)))).collect::<Vec<_>>().join("\n")
    }
}

/// Shows one word or path instead of another, where it stands for itself.
fn swap(text: &str, found: &str, shown: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(found) {
        let (before, after) = (&rest[..at], &rest[at + found.len()..]);
        out.push_str(before);
        let within = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        let alone = !within(out.chars().next_back()) && !within(after.chars().next());
        out.push_str(if alone { shown } else { found });
        rest = after;
    }
    out + rest
}

fn still(value: &mut Value) {
    match value {
        // Schemas are held by the protocol's own tests.
        Value::Object(map) if map.contains_key("$schema") => *value = "… a JSON Schema".into(),
        Value::String(text) if text.len() > LONG => *value = "… long".into(),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Number(_) if NUMBERS.contains(&key.as_str()) => *value = 0.into(),
                    Value::String(_) if TEXTS.contains(&key.as_str()) => *value = "…".into(),
                    // A capability of the same name is no figure.
                    other => still(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(still),
        _ => {}
    }
}

/// A grant's word.
fn granted(line: &str) -> String {
    const PREFIX: &str = "outhaul-grant-1.";
    let Some((before, rest)) = line.split_once(PREFIX) else { return line.to_owned() };
    let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "_-".contains(letter))).unwrap_or(rest.len());
    if end < 40 { line.to_owned() } else { format!("{before}{PREFIX}…{}", &rest[end..]) }
}

/// A line about the machine.
fn machine(line: &str) -> String {
    let Some(said) = line.strip_prefix("| ") else { return line.to_owned() };
    match LINES.iter().find(|start| said.starts_with(**start)) {
        Some(start) => format!("| {start}…"),
        None => line.to_owned(),
    }
}

/// Days and moments: `2026-11-25 17:54 UTC`, and the time a log line begins with.
fn dates(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some(at) = line.find(" UTC").filter(|at| *at >= 16 && line[at - 16..*at].starts_with("20")) {
        line.replace_range(at - 16..at + 4, "2026-01-01 00:00 utc");
    }
    let line = line.replace(" utc", " UTC");
    match line.split_once(' ').and_then(|(mark, rest)| Some((mark, rest.split_once("Z ")?))) {
        Some((mark, (time, rest))) if time.starts_with("20") && time.contains('T') => format!("{mark} TIME {}", rest.trim_start()),
        _ => line,
    }
}

/// Numbers by their neighbours.
fn numbers(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        out.push_str(before);
        let end = number.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(number.len());
        let end = number[..end].trim_end_matches('.').len();
        let (number, after) = number.split_at(end);
        let found = AROUND.iter().find(|(left, right, _)| out.ends_with(left) && after.starts_with(right));
        // A port that was chosen by the test stays.
        let fixed = found.is_some_and(|(left, ..)| left.ends_with(':')) && !number.parse().is_ok_and(|port: u16| port > 1024);
        out.push_str(found.filter(|_| !fixed).map_or(number, |(_, _, shown)| shown));
        rest = after;
    }
    out + rest
}

/// What ids are shown by, one after the other: a digit, or two that alternate, over and over.
fn marks() -> impl Iterator<Item = String> {
    (1..=0xff_u8).map(|number| format!("{number:x}")).filter(|mark| mark.len() == 1 || mark[..1] != mark[1..])
}

/// Digits of fixtures and ceilings that look like an id.
const FIGURES: &[&str] = &["150754820096", "000000000000", "000000000001", "000000000002", "000000000003", "18446744073709551615"];

/// Ids and digests, whole or shortened: each gets a mark of its own, by the order they come in.
fn ids(text: &str) -> String {
    let marks: Vec<String> = marks().collect();
    let mut seen: Vec<String> = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let hex = |letter: char| matches!(letter, '0'..='9' | 'a'..='f');
    while let Some(start) = rest.find(hex) {
        let (before, found) = rest.split_at(start);
        out.push_str(before);
        let end = found.find(|letter: char| !hex(letter)).unwrap_or(found.len());
        let (found, after) = found.split_at(end);
        let within = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        let alone = !within(out.chars().next_back()) && !within(after.chars().next());
        if alone && matches!(found.len(), 12 | 20 | 32 | 64) && !FIGURES.contains(&found) {
            let mark = &marks[place(&mut seen, found)];
            out.extend(mark.chars().cycle().take(found.len()));
        } else {
            out.push_str(found);
        }
        rest = after;
    }
    out + rest
}

/// The number of an id among those that were seen; the longest form of each is kept.
fn place(seen: &mut Vec<String>, found: &str) -> usize {
    let same = |known: &String| known.starts_with(found) || found.starts_with(known.as_str());
    let at = seen.iter().position(same).unwrap_or(seen.len());
    match seen.get_mut(at) {
        Some(known) if known.len() < found.len() => found.clone_into(known),
        Some(_) => {}
        None => seen.push(found.to_owned()),
    }
    at
}

#[test]
fn no_two_ids_look_alike() {
    let all: std::collections::BTreeSet<String> = marks().map(|mark| mark.chars().cycle().take(12).collect()).collect();
    assert_eq!(all.len(), marks().count());
}

#[test]
fn what_varies_is_made_the_same() {
    let (one, two) = ("0123456789ab".repeat(6)[..64].to_owned(), "ba9876543210".repeat(6)[..64].to_owned());
    let mut tidy = Tidy::default();
    tidy.replace("/tmp/x1", "/home/anna");
    let page = format!("| {}  {one}\n! {} at 127.0.0.1:40123, 12 s ago, process 77 in /tmp/x1\n| {two}", &one[..12], &two[..20]);
    let tidied = tidy.tidy(&page);
    let expected = format!(
        "| {}  {}\n! {} at 127.0.0.1:8765, 1 s ago, process 4242 in /home/anna\n| {}",
        "1".repeat(12),
        "1".repeat(64),
        "2".repeat(20),
        "2".repeat(64)
    );
    assert_eq!(tidied, expected);
    assert_eq!(dates("! 2026-11-25T17:55:25.318933Z  INFO x"), "! TIME INFO x");
    assert_eq!(dates("| until 2036-11-22 17:54 UTC, from 2026-11-22 17:54 UTC"), "| until 2026-01-01 00:00 UTC, from 2026-01-01 00:00 UTC");
    assert!(tidy.json(r#"{"pid":7,"ok":true}"#).contains("\"pid\": 0"));
}
