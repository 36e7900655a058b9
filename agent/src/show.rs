//! What the agent's commands show and change without a running agent: the policy in effect, pack by pack, and how this
//! machine stands. Nothing here loads a pack.

use std::fmt::Write as _;

use outhaul_home::Home;
use outhaul_host::{Grants, Power};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, SecretKey};
use serde_json::{Value as Json, json};

use crate::config::{FILE, PackKey};
use crate::edit::{ConfigEdit, Items};
use crate::packs::{EMBEDDED, active_of, is_embedded};
use crate::pins::{self, Membership};
use crate::policy::{Policy, belongs};
use crate::shelf::{Index, Shelf};

/// What one pack may.
#[derive(Debug)]
pub struct PackGrants {
    /// Its name, or `sha256:DIGEST` where only a digest is known.
    pub name: String,
    /// The version that is active.
    pub digest: Option<Digest>,
    /// Whether it came with the agent.
    pub embedded: bool,
    /// What is granted.
    pub grants: Grants,
    /// Why a table of the file does not count.
    pub remark: Option<String>,
}

impl PackGrants {
    fn of(policy: &Policy, name: &str, digest: Digest, embedded: bool) -> Self {
        let grants = policy.grants(name, &digest.0, embedded);
        let table = policy.config.packs.get(&PackKey::Name(name.to_owned()));
        let remark = table.filter(|table| !belongs(table, digest, embedded)).map(|table| match table.digest {
            Some(other) => format!("[packs.{name}] is for version {}, another is active; grant anew what this one may", other.short()),
            None => format!("[packs.{name}] names no digest, so it grants nothing: anybody who deploys can take a name; use `agent allow {name} …`"),
        });
        PackGrants { name: name.to_owned(), digest: Some(digest), embedded, grants, remark }
    }

    /// For people: one line per power.
    #[must_use]
    pub fn text(&self) -> String {
        let which = match (self.embedded, self.digest) {
            (true, _) => "embedded".to_owned(),
            (false, Some(digest)) => digest.short(),
            (false, None) => "not installed".to_owned(),
        };
        let mut out = format!("{} ({which})\n", self.name);
        for (power, detail) in lines(&self.grants) {
            let _ = writeln!(out, "  {power:<8} {detail}");
        }
        if let Some(remark) = &self.remark {
            let _ = writeln!(out, "  note: {remark}");
        }
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let grants = &self.grants;
        json!({
            "name": self.name,
            "digest": self.digest.map(|digest| digest.to_string()),
            "embedded": self.embedded,
            "powers": {
                "output": true,
                "log": true,
                "gpu": grants.gpu,
                "system": grants.system,
                "process": grants.process,
                "camera": grants.camera,
            },
            "remark": self.remark,
        })
    }
}

/// Each power in words.
fn lines(grants: &Grants) -> Vec<(&'static str, String)> {
    let yes = |granted: bool| if granted { "granted" } else { "denied" }.to_owned();
    let process = grants.process.as_ref().filter(|process| !process.allow.is_empty()).map_or_else(
        || "denied".to_owned(),
        |process| {
            let mut text = process.allow.join(", ");
            let folders: Vec<String> = process.cwd.iter().map(|folder| folder.display().to_string()).collect();
            for (what, list) in [("env", &process.env), ("cwd", &folders)] {
                if !list.is_empty() {
                    let _ = write!(text, "; {what} {}", list.join(", "));
                }
            }
            if let Some(secs) = process.max_secs {
                let _ = write!(text, "; at most {secs} s");
            }
            text
        },
    );
    let camera = match &grants.camera {
        None => "denied".to_owned(),
        Some(camera) if camera.all => "every camera".to_owned(),
        Some(camera) => camera.devices.join(", "),
    };
    vec![("system", yes(grants.system)), ("gpu", yes(grants.gpu)), ("process", process), ("camera", camera)]
}

/// The policy in effect.
#[derive(Debug)]
pub struct Effective {
    file: std::path::PathBuf,
    packs: Vec<PackGrants>,
}

impl Effective {
    /// Reads policy and index of a home.
    pub fn read(home: &Home) -> Result<Self, Failure> {
        let policy = Policy::load(&home.join(FILE))?;
        let index = Shelf::new(&home.join("agent")).index()?;
        let mut packs: Vec<PackGrants> = names(&index)
            .into_iter()
            .filter_map(|name| active_of(&index, &name).map(|(digest, embedded)| PackGrants::of(&policy, &name, digest, embedded)))
            .collect();
        let missing = policy.config.packs.keys().filter(|key| !packs.iter().any(|pack| covers(pack, key))).map(|key| absent(&policy, key)).collect::<Vec<_>>();
        packs.extend(missing);
        Ok(Effective { file: policy.path, packs })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("policy of {}\n`output` and `log` are always granted\n\n", self.file.display());
        self.packs.iter().for_each(|pack| out.push_str(&pack.text()));
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        json!({ "file": self.file, "packs": self.packs.iter().map(PackGrants::json).collect::<Vec<_>>() })
    }
}

fn covers(pack: &PackGrants, key: &PackKey) -> bool {
    match key {
        PackKey::Name(name) => *name == pack.name,
        PackKey::Digest(digest) => Some(*digest) == pack.digest,
    }
}

/// A table for a pack that is not here.
fn absent(policy: &Policy, key: &PackKey) -> PackGrants {
    let digest = match key {
        PackKey::Digest(digest) => Some(*digest),
        PackKey::Name(_) => policy.config.packs.get(key).and_then(|table| table.digest),
    };
    let grants = policy.grants(&key.to_string(), &digest.unwrap_or(Digest([0; 32])).0, false);
    PackGrants { name: key.to_string(), digest, embedded: false, grants, remark: Some("no such pack is installed".into()) }
}

fn names(index: &Index) -> Vec<String> {
    let mut names: Vec<String> = EMBEDDED.iter().map(|(name, _)| (*name).to_owned()).chain(index.packs.keys().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What `agent allow` and `agent deny` did.
#[derive(Debug)]
pub struct Change {
    /// Whether the file changed.
    pub changed: bool,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What the pack may now.
    pub now: PackGrants,
}

/// Grants or denies, in `agent.toml`.
pub fn change(home: &Home, pack: &str, power: Power, items: &Items, allow: bool) -> Result<Change, Failure> {
    let path = home.agent()?.join("agent.toml");
    let index = Shelf::new(&home.join("agent")).index()?;
    let whose = Whose::of(&index, pack, allow)?;
    let mut edit = ConfigEdit::open(&path)?;
    let before = edit.text();
    let mut notes = whose.note.clone().into_iter().collect::<Vec<_>>();
    match allow {
        true => notes.extend(edit.allow(&whose.key, whose.pin, power, items)?),
        false => drop(edit.deny(&whose.key, power, items)?),
    }
    let changed = edit.text() != before;
    match changed {
        true => edit.save()?,
        false => notes.push("nothing to change".into()),
    }
    let policy = Policy::load(&path)?;
    let now = match whose.digest {
        Some((digest, embedded)) => PackGrants::of(&policy, &whose.name, digest, embedded),
        None => absent(&policy, &whose.key),
    };
    Ok(Change { changed, notes, now })
}

/// Whom a grant is for: the table's key, and the digest to pin it to.
#[derive(Debug)]
struct Whose {
    name: String,
    key: PackKey,
    pin: Option<Digest>,
    digest: Option<(Digest, bool)>,
    note: Option<String>,
}

impl Whose {
    fn of(index: &Index, pack: &str, allow: bool) -> Result<Self, Failure> {
        let wrong = || Failure::new(Code::BadUsage, format!("`{}` is neither a pack's name nor sha256: and 64 hexadecimal digits", pack.escape_debug()));
        let key = PackKey::parse(pack).ok_or_else(wrong)?;
        let whose = |key: PackKey, pin, digest| Whose { name: pack.to_owned(), key, pin, digest, note: None };
        let PackKey::Name(name) = &key else {
            return Ok(whose(key, None, None));
        };
        match active_of(index, name) {
            Some((digest, true)) => Ok(whose(key, None, Some((digest, true)))),
            // The name stays the embedded pack's: what answers in its place is granted by digest.
            Some((digest, false)) if is_embedded(name) && allow => {
                let note = format!("a deployed version of `{name}` is active; the grant is for that version, {}", digest.short());
                Ok(Whose { note: Some(note), ..whose(PackKey::Digest(digest), None, Some((digest, false))) })
            }
            Some((digest, false)) if is_embedded(name) => {
                let granted = whose(PackKey::Digest(digest), None, Some((digest, false)));
                Ok(Whose { note: Some(format!("a deployed version of `{name}` is active; this is about that version, {}", digest.short())), ..granted })
            }
            Some((digest, false)) => Ok(whose(key, Some(digest), Some((digest, false)))),
            // Denying needs no version: what narrows counts for the name.
            None if !allow => Ok(whose(key, None, None)),
            None => {
                let all = names(index).join(", ");
                Err(Failure::new(Code::BadUsage, format!("no pack `{name}` is on this machine; there are {all}"))
                    .hint("deploy it first, or grant one version ahead: agent allow sha256:DIGEST …"))
            }
        }
    }
}

/// How this machine stands.
#[derive(Debug)]
pub struct Status {
    node: Option<String>,
    running: Option<Option<u32>>,
    relay: Option<String>,
    membership: Option<Membership>,
    packs: Vec<(String, Digest, bool)>,
}

impl Status {
    /// Reads a home.
    pub fn read(home: &Home) -> Result<Self, Failure> {
        let policy = Policy::load(&home.join(FILE))?;
        let index = Shelf::new(&home.join("agent")).index()?;
        let key = home.join("agent/agent.key");
        let node = if key.exists() { Some(outhaul_home::read_secret_key::<SecretKey>(&key)?.id().to_string()) } else { None };
        let membership = pins::current_fleet(home)?.map(|_| Membership::load(home)).transpose()?;
        let packs = names(&index).into_iter().filter_map(|name| active_of(&index, &name).map(|(digest, embedded)| (name, digest, embedded))).collect();
        Ok(Status { node, running: running(home), relay: policy.config.relay, membership, packs })
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let membership = self.membership.as_ref();
        json!({
            "paired": membership.is_some(),
            "node": self.node,
            "name": membership.map(|membership| membership.labels().name.clone()),
            "fleet": membership.map(|membership| membership.fleet().id().to_string()),
            "relay": self.relay,
            "running": self.running.is_some(),
            "pid": self.running.flatten(),
            "boot_count": membership.map(Membership::boot_count),
            "packs": self.packs.iter().map(|(name, digest, embedded)| json!({ "name": name, "digest": digest.to_string(), "embedded": embedded })).collect::<Vec<_>>(),
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let none = || "-".to_owned();
        let running = match self.running {
            None => "no".to_owned(),
            Some(None) => "yes".to_owned(),
            Some(Some(pid)) => format!("yes, process {pid}"),
        };
        let packs: Vec<String> = self.packs.iter().map(|(name, digest, embedded)| if *embedded { name.clone() } else { format!("{name} ({})", digest.short()) }).collect();
        let (name, fleet) = match &self.membership {
            Some(membership) => (membership.labels().name.clone(), membership.fleet().id().to_string()),
            None => ("not paired; on an operator's machine: relay pair new".to_owned(), none()),
        };
        let rows = [
            ("name", name),
            ("node", self.node.clone().unwrap_or_else(none)),
            ("fleet", fleet),
            ("relay", self.relay.clone().unwrap_or_else(none)),
            ("running", running),
            ("packs", packs.join(", ")),
        ];
        rows.map(|(key, value)| format!("{:<9}{value}\n", format!("{key}:"))).concat()
    }
}

/// Whether an agent holds the lock, and as which process. Only looks: a lock that is free stays free.
fn running(home: &Home) -> Option<Option<u32>> {
    let path = home.join("agent/lock");
    let file = std::fs::File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(std::fs::TryLockError::WouldBlock) => Some(std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok())),
        _ => None,
    }
}
