//! The table: what was found, what was wanted, and whether it was met. Also the arithmetic of samples.

use std::fmt;
use std::time::Duration;

use crate::Effort;

/// What was wanted of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    name: String,
    figure: Option<f64>,
    unit: &'static str,
    target: Option<Target>,
    note: String,
}

impl Row {
    /// A figure that is only reported.
    pub(crate) fn new(name: impl Into<String>, figure: f64, unit: &'static str) -> Self {
        Row { name: name.into(), figure: Some(figure), unit, target: None, note: String::new() }
    }

    /// A row that could not be filled here, and why.
    pub(crate) fn missing(name: impl Into<String>, why: impl Into<String>) -> Self {
        Row { name: name.into(), figure: None, unit: "", target: None, note: why.into() }
    }

    /// With a ceiling.
    pub(crate) fn at_most(self, limit: f64) -> Self {
        Row { target: Some(Target::AtMost(limit)), ..self }
    }

    /// With a floor.
    pub(crate) fn at_least(self, limit: f64) -> Self {
        Row { target: Some(Target::AtLeast(limit)), ..self }
    }

    /// With words behind it.
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Row { note: note.into(), ..self }
    }

    fn cells(&self) -> [String; 5] {
        let figure = self.figure.map_or("–".to_owned(), number);
        let target = match self.target {
            Some(Target::AtMost(limit)) => format!("≤ {}", number(limit)),
            Some(Target::AtLeast(limit)) => format!("≥ {}", number(limit)),
            None => String::new(),
        };
        let verdict = match (verdict(self.figure, self.target), self.note.as_str()) {
            (Some(verdict), "") => verdict,
            (Some(verdict), note) => format!("{verdict}; {note}"),
            (None, note) => note.to_owned(),
        };
        [self.name.clone(), figure, self.unit.to_owned(), target, verdict]
    }
}

fn verdict(figure: Option<f64>, target: Option<Target>) -> Option<String> {
    let figure = figure?;
    let (met, by) = match target? {
        Target::AtMost(limit) => (figure <= limit, (figure / limit - 1.0) * 100.0),
        Target::AtLeast(limit) => (figure >= limit, (1.0 - figure / limit) * 100.0),
    };
    Some(if met { "met".to_owned() } else { format!("missed by {by:.0} %") })
}

/// Three digits that count, thousands apart.
fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        return out;
    }
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// All rows of a run.
#[derive(Debug)]
pub(crate) struct Table {
    /// before anything was measured: what is measured is a load too
    machine: String,
    groups: Vec<(&'static str, Vec<Row>)>,
    whole: bool,
}

impl Table {
    pub(crate) fn new(effort: Effort) -> Self {
        Table { machine: machine(effort), groups: Vec::new(), whole: true }
    }

    pub(crate) fn add(&mut self, group: &'static str, rows: Vec<Row>) {
        self.groups.push((group, rows));
    }

    pub(crate) fn failed(&mut self, group: &'static str, why: &str) {
        eprintln!("{group} was not measured: {why}");
        self.whole = false;
        let why: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        self.groups.push((group, vec![Row::missing("not measured", why.join("; "))]));
    }

    /// Whether every group was measured.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["row", "figure", "unit", "target", "verdict"].map(str::to_owned);
        let lines: Vec<(&str, [String; 5])> =
            self.groups.iter().flat_map(|(group, rows)| rows.iter().map(move |row| (*group, row.cells()))).collect();
        let width =
            |column: usize| lines.iter().map(|(_, cells)| &cells[column]).chain([&head[column]]).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..5).map(|column| width(column).unwrap_or(0)).collect();
        writeln!(f, "\n{}", self.machine)?;
        let mut group = "";
        for (of, cells) in [("", head.clone())].iter().chain(&lines) {
            if *of != group {
                (group, _) = (of, writeln!(f, "{of}")?);
            }
            let [name, figure, unit, target, verdict] = cells;
            let line =
                format!("  {name:<0$}  {figure:>1$} {unit:<2$}  {target:<3$}  {verdict}", widths[0], widths[1], widths[2], widths[3]);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The machine and how this was built: no figure means anything without it.
fn machine(effort: Effort) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |path: &str, name: &str| {
        let text = read(path);
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    let nats = crate::nats::version().unwrap_or_else(|| "no nats-server".to_owned());
    let profile = if cfg!(debug_assertions) { "dev profile: no figure here is one of a release" } else { "release" };
    let quick = effort.of("", "; --quick: small counts, rough figures");
    format!(
        "{} × {cores}, {memory:.0} GiB, Linux {}, load {load}; {nats}; {profile}{quick}",
        field("/proc/cpuinfo", "model name"),
        kernel.trim()
    )
}

/// The sample below which a share of all lie; the samples get sorted.
pub(crate) fn quantile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let at = (samples.len() as f64 * share) as usize;
    samples.get(at.min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The middle one.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// In microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// In milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_say_by_how_much() {
        assert_eq!(verdict(Some(0.9), Some(Target::AtMost(0.8))).as_deref(), Some("missed by 12 %"));
        assert_eq!(verdict(Some(3000.0), Some(Target::AtLeast(5000.0))).as_deref(), Some("missed by 40 %"));
        assert_eq!(verdict(Some(5000.0), Some(Target::AtLeast(5000.0))).as_deref(), Some("met"));
        assert_eq!(verdict(Some(1.0), None), None);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.8, 15.0, 262.4, 121_000.0, 1_234_567.0].map(number), ["0.80", "15.0", "262", "121,000", "1,234,567"]);
    }

    #[test]
    fn quantiles_are_samples() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(quantile(&mut samples, 0.5), Duration::from_micros(51));
        assert_eq!(quantile(&mut samples, 0.99), Duration::from_micros(100));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }
}
