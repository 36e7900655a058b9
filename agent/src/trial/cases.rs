//! A pack's own cases, `tests/cases.toml`: what is called with what, and what must come of it. Parameters are typed as
//! everywhere; answers are compared as JSON, where none and absent are the same because TOML has no null.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use outhaul_console::ending::Ending;
use outhaul_console::lanes::Lanes;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::types::Command;
use outhaul_protocol::value::{Value, params_from_json};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::run::{Call, find, make, nothing, remedied, told};
use super::{Trial, test::PATIENCE};

const GROUP: &str = "cases";

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    #[serde(default, rename = "case")]
    cases: Vec<Case>,
}

/// One case. At most one of `result`, `contains`, `error` and `code` says how it ends; without them it must succeed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// what is claimed; the command when it is left out
    name: Option<String>,
    /// INTERFACE.FUNCTION
    command: String,
    /// parameters by name
    #[serde(default)]
    params: Json,
    /// powers beyond those that every pack has, as for `agent pack run --grant`
    #[serde(default)]
    grant: Vec<String>,
    /// powers taken away
    #[serde(default)]
    deny: Vec<String>,
    /// what the caller sends to it
    stdin: Option<String>,
    /// the whole result
    result: Option<Json>,
    /// fields that the result has; others may be there
    contains: Option<Json>,
    /// the command's own error
    error: Option<Json>,
    /// the code it ends with, when that is not its own error
    code: Option<Code>,
    /// all that it prints
    stdout: Option<String>,
}

impl Cases {
    /// Reads a file of cases.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let cases: Cases = outhaul_home::read_toml(path)?;
        for case in &cases.cases {
            let endings = [case.result.is_some(), case.contains.is_some(), case.error.is_some(), case.code.is_some()];
            if endings.into_iter().filter(|said| *said).count() > 1 {
                let text = format!("read `{}`: case `{}` says twice how it ends", path.display(), case.claim());
                return Err(Failure::new(Code::BadConfig, text).hint("one of: result, contains, error, code"));
            }
        }
        Ok(cases)
    }

    /// Runs them all.
    pub(super) async fn run(&self, trial: &Trial, report: &mut Report) {
        if self.cases.is_empty() {
            report.add(GROUP, "it has cases of its own", Err("tests/cases.toml has none: write one for each command".into()));
        }
        for case in &self.cases {
            let found = case.run(trial).await.unwrap_or_else(|failure| Err(failure_line(&failure)));
            report.add(GROUP, case.claim(), found.map(|()| None));
        }
    }
}

fn failure_line(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{}\n{hint}", failure.message),
        None => failure.message.clone(),
    }
}

impl Case {
    fn claim(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.command)
    }

    /// Whether it ends as it should; a failure when it could not even be called.
    async fn run(&self, trial: &Trial) -> Result<Result<(), String>, Failure> {
        let command = find(trial, &self.command)?;
        let (grants, _) = trial.policy(&self.grant, &self.deny)?;
        let call = Call {
            command: command.name.clone(),
            params: params_from_json(&self.params, command)?,
            grants: Arc::new(grants),
            input: self.stdin.as_deref().map_or_else(nothing, input),
            deadline: PATIENCE,
        };
        let mut lanes = Lanes::new(false, None)?;
        let result = make(trial, call, &mut lanes, &CancellationToken::new()).await;
        let result = result.map_err(|failure| remedied(failure, trial.active.name()));
        Ok(self.ended(command, &result, &lanes).and_then(|()| self.printed(&lanes)))
    }

    fn ended(&self, command: &Command, result: &Result<Value, Failure>, lanes: &Lanes) -> Result<(), String> {
        let ending = Ending { command, result, lanes, out: None, receipt: Json::Null };
        let whole = ending.json();
        let (found, error) = (&whole["result"], &whole["error"]);
        let wanted = |what: &str, wanted: &Json| match result {
            Ok(_) => Err(format!("wanted {what} {wanted}\ngot    {found}")),
            Err(failure) => Err(format!("wanted {what} {wanted}\ngot    {}", told(failure, command))),
        };
        match (self, result) {
            (Case { result: Some(all), .. }, Ok(_)) if same(all, found) => Ok(()),
            (Case { result: Some(all), .. }, _) => wanted("the result", all),
            (Case { contains: Some(some), .. }, Ok(_)) if holds(some, found) => Ok(()),
            (Case { contains: Some(some), .. }, _) => wanted("a result with", some),
            (Case { error: Some(own), .. }, Err(_)) if error["code"] == Code::CommandFailed.as_str() && same(own, &error["detail"]) => {
                Ok(())
            }
            (Case { error: Some(own), .. }, _) => wanted("the error", own),
            (Case { code: Some(code), .. }, Err(failure)) if failure.code == *code => Ok(()),
            (Case { code: Some(code), .. }, _) => wanted("the code", &code.as_str().into()),
            (_, Ok(_)) => Ok(()),
            (_, Err(failure)) => Err(told(failure, command)),
        }
    }

    fn printed(&self, lanes: &Lanes) -> Result<(), String> {
        let found = String::from_utf8_lossy(lanes.kept().0);
        match &self.stdout {
            Some(wanted) if *wanted != found => Err(format!("wanted printed {wanted:?}\ngot            {found:?}")),
            _ => Ok(()),
        }
    }
}

/// Input of one piece.
fn input(text: &str) -> mpsc::Receiver<Bytes> {
    let (sender, pieces) = mpsc::channel(1);
    // A fresh queue has room for one.
    let _ = sender.try_send(Bytes::copy_from_slice(text.as_bytes()));
    pieces
}

/// Whether two JSON values say the same.
fn same(wanted: &Json, found: &Json) -> bool {
    match (wanted, found) {
        (Json::Object(wanted), Json::Object(found)) => {
            let keys = wanted.keys().chain(found.keys());
            keys.into_iter().all(|key| same(wanted.get(key).unwrap_or(&Json::Null), found.get(key).unwrap_or(&Json::Null)))
        }
        (Json::Array(wanted), Json::Array(found)) => wanted.len() == found.len() && wanted.iter().zip(found).all(|(a, b)| same(a, b)),
        (Json::Number(a), Json::Number(b)) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        _ => wanted == found,
    }
}

/// Whether a value has all that is wanted of it.
fn holds(wanted: &Json, found: &Json) -> bool {
    match (wanted, found) {
        (Json::Object(wanted), Json::Object(found)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| holds(value, found)))
        }
        (Json::Array(wanted), Json::Array(found)) => wanted.len() == found.len() && wanted.iter().zip(found).all(|(a, b)| holds(a, b)),
        _ => same(wanted, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn none_and_absent_are_the_same_and_numbers_are_numbers() {
        assert!(same(&json!({"a": 1}), &json!({"a": 1.0, "b": null})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": false})));
        assert!(!same(&json!([1]), &json!([1, 2])));
        assert!(!same(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)));
    }

    #[test]
    fn what_is_contained_may_have_more_beside_it() {
        assert!(holds(&json!({"a": {"b": [1]}}), &json!({"a": {"b": [1], "c": 2}, "d": 3})));
        assert!(!holds(&json!({"a": {"b": [1]}}), &json!({"a": {"b": [1, 2]}})));
        assert!(!holds(&json!({"a": 1}), &json!({})));
    }

    #[test]
    fn a_case_ends_in_one_way() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |text: &str| {
            let path = dir.path().join("cases.toml");
            std::fs::write(&path, text).expect("written");
            Cases::read(&path)
        };
        let good = read("[[case]]\ncommand = \"a.b\"\nparams = { x = [1, { y = true }] }\ncode = \"denied\"\n").expect("good");
        assert_eq!((good.cases[0].claim(), good.cases[0].code), ("a.b", Some(Code::Denied)));
        assert_eq!(good.cases[0].params, json!({"x": [1, {"y": true}]}));
        for bad in [
            "[[case]]\ncommand = \"a.b\"\nresult = 1\nerror = \"x\"\n",
            "[[case]]\ncommand = \"a.b\"\nresutl = 1\n",
            "[[case]]\ncommand = \"a.b\"\ncode = \"fine\"\n",
        ] {
            assert_eq!(read(bad).expect_err(bad).code, Code::BadConfig, "{bad}");
        }
    }
}
