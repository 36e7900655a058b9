//! How a command gets its parameters and where its bytes go, as it is typed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::types::{Command, Type};
use outhaul_protocol::value::{Value, params, parse_json};
use serde_json::Value as Json;

/// How long a command may take unless `--timeout` says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How a command gets its parameters and where its bytes go.
#[derive(Debug, Clone, Default, Args)]
pub struct How {
    /// Parameters as a JSON object
    #[arg(long, value_name = "JSON", env = "OUTHAUL_PARAMS", conflicts_with = "params_file")]
    pub params: Option<String>,
    /// Parameters as a JSON object in a file, - for stdin
    #[arg(long, value_name = "FILE", env = "OUTHAUL_PARAMS_FILE")]
    pub params_file: Option<PathBuf>,
    /// One parameter, the same as NAME=VALUE
    #[arg(short, long = "param", value_name = "NAME=VALUE", env = "OUTHAUL_PARAM")]
    pub params_named: Vec<String>,
    /// Where a result's bytes go, - for stdout; the file appears when it is whole
    #[arg(long, value_name = "FILE", env = "OUTHAUL_OUT")]
    pub out: Option<PathBuf>,
    /// Sends stdin to the command
    #[arg(short = 'i', long = "stdin", env = "OUTHAUL_STDIN", value_parser = FalseyValueParser::new())]
    pub stdin: bool,
}

impl How {
    /// What `--params` or `--params-file` say.
    pub fn said(&self) -> Result<Option<Json>, Failure> {
        if let Some(text) = &self.params {
            return parse_json(text).map(Some);
        }
        let Some(path) = &self.params_file else { return Ok(None) };
        let read = if path == Path::new("-") {
            if self.stdin {
                return Err(Failure::new(Code::BadUsage, "`--params-file -` and `-i` both want stdin"));
            }
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let text = read.map_err(|error| Failure::new(Code::BadUsage, format!("read `{}`: {error}", path.display())))?;
        parse_json(&text).map(Some)
    }

    /// The parameters by the command's types. `said` is what [`How::said`] gave, `args` are the NAME=VALUE arguments. A
    /// result's bytes must have a place to go.
    pub fn typed(&self, said: Option<&Json>, args: &[String], command: &Command, json: bool) -> Result<Value, Failure> {
        let args: Vec<String> = self.params_named.iter().chain(args).cloned().collect();
        let value = params(said, &args, command, &mut |path| std::fs::read(path))?;
        if command.has_stream() && self.out.is_none() && !json {
            return Err(Failure::new(Code::BadUsage, format!("`{}` gives bytes", command.name))
                .hint("say where they go: `--out FILE`, or `--out -` for stdout"));
        }
        if self.out.is_some() && !command.has_stream() && command.result != Some(Type::Bytes) {
            return Err(Failure::new(Code::BadUsage, format!("`{}` gives no bytes, so that there is nothing for `--out`", command.name)));
        }
        Ok(value)
    }
}

/// Reads `500ms`, `60`, `60s`, `5m`, `1h`, `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_come_from_one_place() {
        let how = How { params: Some("{\"a\":1}".into()), ..How::default() };
        assert_eq!(how.said().expect("reads"), Some(json!({"a": 1})));
        assert_eq!(How { params: Some("{".into()), ..How::default() }.said().expect_err("cut").code, Code::BadUsage);
        let how = How { params_file: Some("-".into()), stdin: true, ..How::default() };
        assert_eq!(how.said().expect_err("both").code, Code::BadUsage);
    }

    #[test]
    fn bytes_want_a_place_to_go() {
        let command = Command { name: "a.b".into(), doc: None, params: vec![], result: Some(Type::Stream), error: None };
        let typed = |how: &How, json| how.typed(None, &[], &command, json);
        assert_eq!(typed(&How::default(), false).expect_err("nowhere").code, Code::BadUsage);
        assert!(typed(&How::default(), true).is_ok());
        let out = || How { out: Some("-".into()), ..How::default() };
        assert!(typed(&out(), false).is_ok());
        let few = Command { result: Some(Type::Bytes), ..command.clone() };
        assert!(out().typed(None, &[], &few, false).is_ok());
        let none = Command { result: Some(Type::String), ..command.clone() };
        assert_eq!(out().typed(None, &[], &none, false).expect_err("no bytes").code, Code::BadUsage);
    }

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
}
