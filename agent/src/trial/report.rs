//! What a test of a pack says: one line for each check, more below those that failed.

use outhaul_console::output::Output;
use outhaul_protocol::text::{escape_control, escape_control_lines};
use serde_json::{Value as Json, json};

/// One check.
#[derive(Debug)]
struct Check {
    group: &'static str,
    claim: String,
    /// a remark where it holds, the reason where it does not
    found: Result<Option<String>, String>,
}

/// All checks of one pack.
#[derive(Debug)]
pub(super) struct Report {
    subject: String,
    checks: Vec<Check>,
}

impl Report {
    /// An empty one about a pack.
    pub(super) fn new(subject: String) -> Self {
        Report { subject, checks: Vec::new() }
    }

    /// Adds a check.
    pub(super) fn add(&mut self, group: &'static str, claim: impl Into<String>, found: Result<Option<String>, String>) {
        self.checks.push(Check { group, claim: claim.into(), found });
    }

    fn failed(&self) -> usize {
        self.checks.iter().filter(|check| check.found.is_err()).count()
    }

    /// Shows it; gives the exit status.
    pub(super) fn show(&self, output: Output) -> u8 {
        output.either(|| self.text(), || self.json());
        u8::from(self.failed() > 0)
    }

    fn text(&self) -> String {
        let mut lines = vec![escape_control(&self.subject).into_owned()];
        let mut group = "";
        for check in &self.checks {
            if check.group != group {
                group = check.group;
                lines.push(format!("\n{group}"));
            }
            let claim = escape_control(&check.claim);
            match &check.found {
                Ok(None) => lines.push(format!("  ok    {claim}")),
                Ok(Some(remark)) => lines.push(format!("  ok    {claim}: {}", escape_control(remark))),
                Err(why) => {
                    lines.push(format!("  FAIL  {claim}"));
                    lines.extend(escape_control_lines(why).lines().map(|line| format!("        {line}")));
                }
            }
        }
        let failed = self.failed();
        lines.push(format!("\n{} passed, {failed} failed", self.checks.len() - failed));
        lines.join("\n")
    }

    fn json(&self) -> Json {
        let check = |check: &Check| {
            let detail = match &check.found {
                Ok(remark) => remark.as_deref(),
                Err(why) => Some(why.as_str()),
            };
            json!({"group": check.group, "claim": check.claim, "ok": check.found.is_ok(), "detail": detail})
        };
        let failed = self.failed();
        json!({
            "ok": failed == 0,
            "pack": self.subject,
            "checks": self.checks.iter().map(check).collect::<Json>(),
            "passed": self.checks.len() - failed,
            "failed": failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well() {
        let mut report = Report::new("thermal 0.1.0".into());
        report.add("conformance", "it loads", Ok(None));
        report.add("conformance", "its size", Ok(Some("25 KB".into())));
        report.add("cases", "reads\u{1b}[2J", Err("wanted 1\ngot    2".into()));
        insta::assert_snapshot!(report.text(), @r"
        thermal 0.1.0

        conformance
          ok    it loads
          ok    its size: 25 KB

        cases
          FAIL  reads\u{1b}[2J
                wanted 1
                got    2

        2 passed, 1 failed
        ");
        assert_eq!(report.json()["failed"], 1);
        assert_eq!(report.show(Output { json: true }), 1);
    }
}
