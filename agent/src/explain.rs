//! `agent policy explain`: for one pack, which line of `agent.toml` allows or refuses, and what to type otherwise. It asks the powers
//! themselves, so that it cannot say anything else than they do. Nothing here loads a pack or starts a program.

mod items;

use std::path::PathBuf;

use outhaul_home::{Home, read_optional};
use outhaul_host::{Grants, Power, powers_asked};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use serde_json::{Value as Json, json};
use toml::de::{DeTable, DeValue};

use crate::config::{FILE, PackKey, PackPolicy, ReadOnly};
use crate::packs::EMBEDDED;
use crate::policy::{Policy, belongs, explain as refusal, is_granted, remedy};
use crate::shelf::Shelf;
use crate::show::asked::{Asked, asked};
use crate::show::whose::Known;
use crate::trust::Origin;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    power: Power,
    items: Vec<String>,
    allowed: bool,
    /// of the file, counted from one; none where it says nothing
    line: Option<usize>,
    /// what decides, in words
    why: String,
    /// the pack's own words
    reason: Option<String>,
    /// whether this version asks anew, and the owner has not spoken since
    waiting: bool,
    /// what to type otherwise
    remedy: Option<String>,
}

/// The answers about a pack.
#[derive(Debug)]
pub struct Explained {
    pack: String,
    file: PathBuf,
    text: String,
    findings: Vec<Finding>,
}

/// Explains a pack, one of its powers or commands, or what it may do with items of a power.
pub fn explain(home: &Home, pack: &str, what: Option<&str>, items: &[String]) -> Result<Explained, Failure> {
    let subject = Subject::read(home, pack)?;
    let powers = match what {
        Some(name) => match Power::parse(name) {
            Some(power) => vec![power],
            None if name.contains('.') => subject.asked()?,
            None => {
                return Err(Failure::new(Code::BadUsage, format!("`{}` is neither a power nor a command", name.escape_debug()))
                    .hint(format!("commands have a dot, such as gpu.list; the powers are {}", names())));
            }
        },
        None => subject.asked()?,
    };
    // With items only what is granted item by item is asked about.
    let powers = powers.into_iter().filter(|power| items.is_empty() || takes_items(*power));
    let findings: Vec<Finding> = powers.map(|power| subject.finding(power, items)).collect();
    if findings.is_empty() && !items.is_empty() {
        let text =
            format!("nothing that pack `{pack}` asks for is granted item by item, so `{}` means nothing", items.join(" ").escape_debug());
        return Err(Failure::new(Code::BadUsage, text));
    }
    Ok(Explained { pack: pack.to_owned(), file: subject.policy.path.clone(), text: subject.text, findings })
}

/// All powers that an owner may grant, for hints.
#[must_use]
pub fn names() -> String {
    let granted = Power::ALL.into_iter().filter(|power| !matches!(power, Power::Output | Power::Log));
    granted.map(Power::name).collect::<Vec<_>>().join(", ")
}

fn takes_items(power: Power) -> bool {
    use Power::{Call, Camera, Containers, Files, Http, Process, Screen, Secrets};
    matches!(power, Process | Camera | Files | Http | Secrets | Screen | Containers | Call)
}

impl Explained {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        if self.findings.is_empty() {
            return format!("pack {} asks for no power that needs a grant\n", self.pack);
        }
        self.findings.iter().map(|finding| self.one(finding)).collect()
    }

    fn one(&self, finding: &Finding) -> String {
        let verdict = match (finding.allowed, finding.waiting) {
            (true, _) => "allowed",
            (false, true) => "waiting, new in this version",
            (false, false) => "denied",
        };
        let items: String = finding.items.iter().map(|item| format!(" {}", item.escape_debug())).collect();
        let mut out = format!("{} {}{items}: {verdict}\n  {}\n", self.pack, finding.power, finding.why);
        if let Some(reason) = &finding.reason {
            out.push_str(&format!("  the pack says: \"{reason}\"\n"));
        }
        if let Some((line, text)) = finding.line.and_then(|line| Some((line, self.text.lines().nth(line.checked_sub(1)?)?))) {
            out.push_str(&format!("  {}:{line}: {}\n", self.file.display(), text.trim()));
        }
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("  to change it: {remedy}\n"));
        }
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "power": finding.power.name(),
                "items": finding.items,
                "allowed": finding.allowed,
                "line": finding.line,
                "why": finding.why,
                "waiting": finding.waiting,
                "reason": finding.reason,
                "remedy": finding.remedy,
            })
        });
        json!({ "pack": self.pack, "file": self.file, "findings": findings.collect::<Vec<_>>() })
    }
}

/// The pack that is asked about, and everything that decides what it may.
struct Subject {
    name: String,
    key: PackKey,
    digest: Digest,
    origin: Origin,
    policy: Policy,
    text: String,
    shelf: Shelf,
    grants: Grants,
    /// what it asks for, where that can be read
    wanted: Vec<Asked>,
}

impl Subject {
    fn read(home: &Home, pack: &str) -> Result<Self, Failure> {
        let policy = Policy::load(&home.join(FILE))?;
        let text = String::from_utf8_lossy(&read_optional(&policy.path)?.unwrap_or_default()).into_owned();
        let shelf = Shelf::new(&home.join("agent"));
        let wrong = || {
            Failure::new(
                Code::BadUsage,
                format!("`{}` is neither a pack's name nor sha256: and 64 hexadecimal digits", pack.escape_debug()),
            )
        };
        let key = PackKey::parse(pack).ok_or_else(wrong)?;
        let (digest, origin, wanted) = match &key {
            PackKey::Digest(digest) => (*digest, Origin::Nobody, Vec::new()),
            PackKey::Name(name) => {
                let known = Known::of(&shelf.index()?, &crate::trust::read(home)?, name);
                let known = known.ok_or_else(|| {
                    Failure::new(Code::BadUsage, format!("no pack `{name}` is on this machine")).hint("see what is here: agent policy show")
                })?;
                let wanted = asked(&shelf, &known);
                (known.digest, known.origin, wanted)
            }
        };
        let grants = policy.grants_by(pack, &digest.0, &origin);
        Ok(Subject { name: pack.to_owned(), key, digest, origin, policy, text, shelf, grants, wanted })
    }

    /// The powers the pack imports, but for those that are always granted.
    fn asked(&self) -> Result<Vec<Power>, Failure> {
        let embedded = EMBEDDED.iter().find(|(name, _)| self.origin == Origin::Embedded && *name == self.name);
        let mut powers = match embedded {
            Some((_, wasm)) => powers_asked(wasm)?,
            None => powers_asked(&self.shelf.get(self.digest)?)?,
        };
        powers.retain(|power| !matches!(power, Power::Output | Power::Log));
        Ok(powers)
    }

    fn finding(&self, power: Power, items: &[String]) -> Finding {
        let found = |allowed, line, why, remedy| self.found(power, items, allowed, line, why, remedy);
        if matches!(power, Power::Output | Power::Log) {
            return found(true, None, "it is always granted".into(), None);
        }
        let (line, remark) = self.line(power, &[]);
        if !is_granted(&self.grants, power) {
            let why = remark.unwrap_or_else(|| split(&refusal(&self.name, power)).0);
            return found(false, line, self.unasked(power, why), Some(remedy(&self.name, power)));
        }
        match power {
            Power::Process if !items.is_empty() => self.program(items),
            Power::Camera if !items.is_empty() => {
                let grant = self.grants.camera.clone().unwrap_or_default();
                self.named(power, items, line, (grant.all, &grant.devices))
            }
            Power::Screen if !items.is_empty() => {
                let grant = self.grants.screen.clone().unwrap_or_default();
                self.named(power, items, line, (grant.all, &grant.displays))
            }
            Power::Location if self.grants.location.is_some_and(|grant| grant.coarse) => {
                let why = self.unasked(power, remark.unwrap_or_else(|| "it is granted, rounded to a tenth of a degree".into()));
                found(true, line, why, Some(self.denial(power)))
            }
            Power::Files if !items.is_empty() => self.folders(items),
            Power::Http if !items.is_empty() => self.requests(items),
            Power::Secrets if !items.is_empty() => self.secrets(items),
            Power::Call if !items.is_empty() => self.calls(items),
            Power::Containers if !items.is_empty() => self.images(items),
            _ => found(true, line, self.unasked(power, remark.unwrap_or_else(|| "it is granted".into())), Some(self.denial(power))),
        }
    }

    /// A grant that nobody uses is worth a word.
    fn unasked(&self, power: Power, why: String) -> String {
        match self.asked() {
            Ok(asked) if !asked.contains(&power) => format!("{why}; the pack does not ask for it"),
            _ => why,
        }
    }

    fn denial(&self, power: Power) -> String {
        format!("agent deny {} {power}", self.name)
    }

    fn found(&self, power: Power, items: &[String], allowed: bool, line: Option<usize>, why: String, remedy: Option<String>) -> Finding {
        let reason = self.wanted.iter().find(|asked| asked.power == power).and_then(|asked| asked.reason.clone());
        let waiting = !allowed && !self.policy.waiting(&self.name, &self.digest.0, &self.origin, &self.wanted(power)).is_empty();
        Finding { power, items: items.to_vec(), allowed, line, why, reason, waiting, remedy }
    }

    /// The power, where the pack asks for it.
    fn wanted(&self, power: Power) -> Vec<Power> {
        self.wanted.iter().map(|asked| asked.power).filter(|asked| *asked == power).collect()
    }

    /// The tables of the file that are about this pack, the one that counts most last, as the policy reads them.
    fn tables(&self) -> Vec<(PackKey, &PackPolicy)> {
        let keys = [self.key.clone(), PackKey::Digest(self.digest)];
        let mut tables: Vec<_> = keys.into_iter().filter_map(|key| Some((key.clone(), self.policy.config.packs.get(&key)?))).collect();
        tables.dedup_by(|a, b| a.0 == b.0);
        tables
    }

    /// The line that decides about a power, and a remark where that is not plain from the line.
    fn line(&self, power: Power, within: &[At<'_>]) -> (Option<usize>, Option<String>) {
        let tables = self.tables();
        let says = |table: &PackPolicy| match power {
            Power::Process => table.process.is_some(),
            Power::Camera => table.camera.is_some(),
            Power::Files => table.files.is_some(),
            Power::Kv => table.kv.is_some(),
            Power::Containers => table.containers.is_some(),
            Power::Http => table.http.is_some(),
            Power::Secrets => !table.secrets.names.is_empty(),
            Power::Call => !table.call.commands.is_empty(),
            Power::Gpu => table.gpu.is_some(),
            Power::System => table.system.is_some(),
            Power::Location => table.location.is_some(),
            Power::Notify => table.notify.is_some(),
            Power::Screen => table.screen.is_some(),
            Power::Output | Power::Log => false,
        };
        let refuses = |table: &PackPolicy| match power {
            Power::Gpu => table.gpu == Some(false),
            Power::System => table.system == Some(false),
            _ => false,
        };
        let counts = |key: &PackKey, table: &PackPolicy| match key {
            PackKey::Name(_) => belongs(table, self.digest, &self.origin),
            PackKey::Digest(_) => true,
        };
        let at = |key: &PackKey| {
            let key = key.to_string();
            let path = [At::Key("packs"), At::Key(&key), At::Key(power.name())];
            line_of(&self.text, &[&path, within].concat())
        };
        if let Some((key, _)) = tables.iter().find(|(_, table)| refuses(table)) {
            return (at(key), Some("the file takes it away".into()));
        }
        if let Some((key, _)) = tables.iter().rev().find(|(key, table)| says(table) && counts(key, table)) {
            return (at(key), None);
        }
        if let Some((key, _)) = tables.iter().find(|(_, table)| says(table)) {
            let remark = format!("[packs.{key}] would grant it, and is not for the version that is active, {}", self.digest.short());
            return (at(key), Some(remark));
        }
        let default = match power {
            Power::Gpu => Some(ReadOnly::Gpu),
            Power::System => Some(ReadOnly::System),
            _ => None,
        };
        let line = default.and_then(|_| line_of(&self.text, &[At::Key("defaults"), At::Key("powers")]));
        let granted = default.is_some_and(|power| self.policy.config.defaults.powers.contains(&power));
        let remark = match (granted, line) {
            (true, Some(_)) => "every pack has it, by [defaults]",
            (true, None) => "every pack has it, for it only reads; the file says nothing else",
            (false, Some(_)) => "[defaults] leaves it out",
            (false, None) => return (None, None),
        };
        (line, Some(remark.into()))
    }
}

/// A refusal's sentence and the command at its end.
fn split(sentence: &str) -> (String, Option<String>) {
    match sentence.rsplit_once("; on that machine: ") {
        Some((why, remedy)) => (why.to_owned(), Some(remedy.to_owned())),
        None => (sentence.to_owned(), None),
    }
}

/// A step into the file.
#[derive(Debug, Clone, Copy)]
enum At<'a> {
    Key(&'a str),
    Item(usize),
}

/// The line of what a path leads to, as far as it leads.
fn line_of(text: &str, path: &[At<'_>]) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut value: Option<DeValue<'_>> = None;
    for step in path {
        let span = match (step, value.as_ref()) {
            (At::Key(name), None) => table.get_ref().get_key_value(*name).map(|(key, next)| (key.span(), next.get_ref().clone())),
            (At::Key(name), Some(DeValue::Table(table))) => {
                table.get_key_value(*name).map(|(key, next)| (key.span(), next.get_ref().clone()))
            }
            (At::Item(number), Some(DeValue::Array(items))) => items.get(*number).map(|next| (next.span(), next.get_ref().clone())),
            _ => None,
        };
        let Some((span, next)) = span else { break };
        at = Some(span.start);
        value = Some(next);
    }
    at.map(|at| text.get(..at).unwrap_or_default().matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::home;

    const OWNERS: &str = r#"[defaults]
powers = ["system"]

[packs.system]
process = { allow = [
  "df",
  { program = "uname", argv = [["-s", "-m"]] },
] }

[packs.camera]
camera = { devices = ["video0"] }
system = false

secrets = ["token"]
call = ["gpu.list", "system.*"]
files = [
  { path = "/srv/data", read = true, list = true },
  { path = "/srv/data/in", create = true },
]
containers = { images = [
  "ghcr.io/acme/*",
  "busybox:1.*",
] }

[packs.system.http]
hosts = [
  "api.example.org",
  "http://10.0.0.5:8080",
]
methods = ["GET", "POST"]

[packs.gpu]
digest = "0707070707070707070707070707070707070707070707070707070707070707"
camera = true
"#;

    fn said(pack: &str, what: Option<&str>, items: &[&str]) -> String {
        let (_dir, home) = home();
        home.agent().expect("made");
        std::fs::write(home.join(FILE), OWNERS).expect("written");
        let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
        let explained = explain(&home, pack, what, &items).expect("explained");
        let active = crate::packs::embedded_digest("gpu").expect("embedded").short();
        explained.text().replace(&home.path().display().to_string(), "HOME").replace(&active, "ACTIVE")
    }

    #[test]
    fn an_item_is_explained_with_its_line_and_what_to_type() {
        let all = [
            said("system", Some("process"), &["df", "-h"]),
            said("system", Some("system.run"), &["uname", "-m"]),
            said("system", Some("process"), &["uname", "-a"]),
            said("system", Some("process"), &["id"]),
            said("camera", Some("camera"), &["video0"]),
            said("camera", Some("camera"), &["video0", "video1"]),
            said("camera", Some("files"), &["/srv/data/x:r"]),
            said("camera", Some("files"), &["/srv/data/in/x:w"]),
            said("camera", Some("files"), &["/etc"]),
            said("system", Some("http"), &["api.example.org"]),
            said("system", Some("http"), &["POST", "http://10.0.0.5:8080/x?y"]),
            said("system", Some("http"), &["DELETE", "https://api.example.org/x"]),
            said("system", Some("http"), &["api.example.org", "example.net:8443"]),
            said("system", Some("http"), &["api.example.org", "GET"]),
            said("system", Some("http"), &["ftp://api.example.org"]),
            said("camera", Some("secrets"), &["token"]),
            said("camera", Some("secrets"), &["token", "other"]),
            said("camera", Some("call"), &["system.run"]),
            said("camera", Some("call"), &["thermal.read"]),
            said("camera", Some("containers"), &["busybox:1.36"]),
            said("camera", Some("containers"), &["ghcr.io/acme/worker:2", "ghcr.io/evil/worker:2"]),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_pack_is_explained_power_by_power() {
        let all = [
            said("system", None, &[]),
            said("system", Some("system.info"), &[]),
            said("gpu", None, &[]),
            said("camera", Some("system"), &[]),
            said("camera", Some("files"), &[]),
            said("gpu", Some("camera"), &[]),
            said("gpu", Some("output"), &[]),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn what_nobody_can_explain_is_bad_usage() {
        let (_dir, home) = home();
        let wrong = |pack: &str, what: Option<&str>, items: &[&str]| {
            let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
            explain(&home, pack, what, &items).expect_err("refused").code
        };
        assert_eq!(wrong("nobody", None, &[]), Code::BadUsage);
        assert_eq!(wrong("system", Some("teleport"), &[]), Code::BadUsage);
        assert_eq!(wrong("gpu", Some("gpu"), &["0"]), Code::BadUsage);
    }

    #[test]
    fn the_answer_for_programs_has_the_line_too() {
        let (_dir, home) = home();
        home.agent().expect("made");
        std::fs::write(home.join(FILE), OWNERS).expect("written");
        let json = explain(&home, "system", Some("process"), &["uname".into(), "-s".into()]).expect("explained").json();
        assert_eq!((&json["findings"][0]["allowed"], &json["findings"][0]["line"]), (&json!(true), &json!(7)));
    }
}
