//! What the agent's commands show and change without a running agent: the policy in effect, pack by pack, and how this
//! machine stands. Nothing here loads a pack.

use std::fmt::Write as _;
use std::path::PathBuf;

use outhaul_home::Home;
use outhaul_host::power::{files, process};
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
            None => format!(
                "[packs.{name}] names no digest, so it grants nothing: anybody who deploys can take a name; use `agent allow {name} …`"
            ),
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
                "kv": grants.kv,
                "files": grants.files.as_ref().map(|grant| &grant.folders),
            },
            "remark": self.remark,
        })
    }
}

/// Each power in words; what goes on over several lines has its name on the first.
fn lines(grants: &Grants) -> Vec<(&'static str, String)> {
    let yes = |granted: bool| if granted { "granted" } else { "denied" }.to_owned();
    let camera = match &grants.camera {
        None => "denied".to_owned(),
        Some(camera) if camera.all => "every camera".to_owned(),
        Some(camera) => camera.devices.join(", "),
    };
    let mut lines = vec![("system", yes(grants.system)), ("gpu", yes(grants.gpu))];
    lines.extend(named("process", grants.process.as_ref().map(programs).unwrap_or_default()));
    lines.push(("camera", camera));
    let kv = grants.kv.as_ref().map_or_else(|| "denied".to_owned(), |kv| format!("{} KiB", kv.max_kib));
    lines.push(("kv", kv));
    lines.extend(named("files", grants.files.iter().flat_map(|grant| grant.folders.iter().map(folder)).collect()));
    lines
}

fn folder(folder: &files::Folder) -> String {
    let mut text = format!("{}: {}", folder.path.display(), folder.rights);
    let at = folder.at.iter().map(|at| format!("as {at}"));
    for more in at.chain(folder.max_mib.map(|mib| format!("at most {mib} MiB"))) {
        let _ = write!(text, "; {more}");
    }
    text
}

/// A power that is granted item by item.
fn named(power: &'static str, details: Vec<String>) -> Vec<(&'static str, String)> {
    let details = if details.is_empty() { vec!["denied".to_owned()] } else { details };
    details.into_iter().enumerate().map(|(number, detail)| (if number == 0 { power } else { "" }, detail)).collect()
}

/// Programs that may run with any arguments, then the narrowed ones.
fn programs(grant: &process::Grant) -> Vec<String> {
    let (bare, narrow): (Vec<_>, Vec<_>) = grant.allow.iter().partition(|entry| entry.is_bare());
    let mut lines = Vec::new();
    if !bare.is_empty() {
        lines.push(bare.iter().map(|entry| entry.program.as_str()).collect::<Vec<_>>().join(", "));
    }
    lines.extend(narrow.into_iter().map(|entry| {
        let more = limits(entry.env.as_deref(), entry.cwd.as_deref(), entry.max_secs);
        let more = more.into_iter().chain(entry.concurrent.map(|most| format!("{most} at once")));
        let more: Vec<String> = more.chain(entry.output_mib.map(|mib| format!("{mib} MiB of output"))).collect();
        let any = if entry.argv.is_none() { " with any arguments" } else { "" };
        if more.is_empty() { format!("{entry}{any}") } else { format!("{entry}{any}; {}", more.join("; ")) }
    }));
    let all = limits(Some(&grant.env), Some(&grant.cwd), grant.max_secs);
    match lines.first_mut() {
        Some(first) if grant.allow.iter().any(|entry| entry.is_bare()) => all.iter().for_each(|limit| {
            let _ = write!(first, "; {limit}");
        }),
        Some(_) if !all.is_empty() => lines.push(format!("unless said otherwise: {}", all.join("; "))),
        _ => {}
    }
    lines
}

fn limits(env: Option<&[String]>, cwd: Option<&[PathBuf]>, max_secs: Option<u64>) -> Vec<String> {
    let mut limits = Vec::new();
    let folders: Vec<String> = cwd.unwrap_or_default().iter().map(|folder| folder.display().to_string()).collect();
    for (what, list) in [("env", env.unwrap_or_default()), ("cwd", &folders)] {
        if !list.is_empty() {
            limits.push(format!("{what} {}", list.join(", ")));
        }
    }
    limits.extend(max_secs.map(|secs| format!("at most {secs} s")));
    limits
}

/// The policy in effect.
#[derive(Debug)]
pub struct Effective {
    file: PathBuf,
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
        let missing = policy
            .config
            .packs
            .keys()
            .filter(|key| !packs.iter().any(|pack| covers(pack, key)))
            .map(|key| absent(&policy, key))
            .collect::<Vec<_>>();
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
    notes.extend(withheld(&now.grants));
    Ok(Change { changed, notes, now })
}

/// Folders that are granted in vain.
fn withheld(grants: &Grants) -> Vec<String> {
    let Some(grant) = &grants.files else { return Vec::new() };
    let folders = grant.folders.iter().filter(|folder| grant.withholds(folder));
    folders
        .map(|folder| {
            let path = folder.path.display();
            format!("warning: `{path}` holds the agent's own folder, so the pack gets nothing of it; grant the folders beside it")
        })
        .collect()
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
        let wrong = || {
            Failure::new(
                Code::BadUsage,
                format!("`{}` is neither a pack's name nor sha256: and 64 hexadecimal digits", pack.escape_debug()),
            )
        };
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
                Ok(Whose {
                    note: Some(format!("a deployed version of `{name}` is active; this is about that version, {}", digest.short())),
                    ..granted
                })
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
        let packs = names(&index)
            .into_iter()
            .filter_map(|name| active_of(&index, &name).map(|(digest, embedded)| (name, digest, embedded)))
            .collect();
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
        let packs: Vec<String> = self
            .packs
            .iter()
            .map(|(name, digest, embedded)| if *embedded { name.clone() } else { format!("{name} ({})", digest.short()) })
            .collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shelf::{Entry, Version};
    use crate::testing::home;

    const DEPLOYED: [u8; 32] = [7; 32];

    fn install(home: &Home, name: &str, digest: [u8; 32]) {
        let digest = Digest(digest).to_string();
        let shelf = Shelf::new(&home.agent().expect("made"));
        let mut index = shelf.index().expect("whole");
        let versions = vec![Version { digest: digest.clone(), version: "1.0.0".into(), installed_at: 1 }];
        index.packs.insert(name.to_owned(), Entry { active: Some(digest), previous: None, versions });
        shelf.keep(&mut index).expect("kept");
    }

    fn words(words: &[&str]) -> Items {
        Items { items: words.iter().map(|word| (*word).to_owned()).collect(), ..Items::default() }
    }

    fn allow(home: &Home, pack: &str, power: Power, items: &[&str]) -> Result<Change, Failure> {
        change(home, pack, power, &words(items), true)
    }

    fn file(home: &Home) -> String {
        std::fs::read_to_string(home.join(FILE)).expect("there")
    }

    #[test]
    fn an_embedded_pack_is_granted_by_name() {
        let (_dir, home) = home();
        let change = allow(&home, "system", Power::Process, &["uname"]).expect("allowed");
        assert!(change.changed && change.now.embedded && change.notes.is_empty(), "{change:?}");
        assert_eq!(file(&home), "[packs.system]\nprocess = { allow = [\"uname\"] }\n");
        assert!(!allow(&home, "system", Power::Process, &["uname"]).expect("allowed").changed);
    }

    #[test]
    fn a_deployed_pack_is_granted_at_the_version_that_is_active() {
        let (_dir, home) = home();
        install(&home, "thermal", DEPLOYED);
        let change = allow(&home, "thermal", Power::Camera, &[]).expect("allowed");
        assert!(change.now.grants.camera.is_some());
        assert_eq!(file(&home), format!("[packs.thermal]\ndigest = \"{}\"\ncamera = true\n", hex::encode(DEPLOYED)));
        install(&home, "thermal", [8; 32]);
        let shown = Effective::read(&home).expect("read").text();
        assert!(shown.contains("note: [packs.thermal] is for version 070707070707"), "{shown}");
        let moved = allow(&home, "thermal", Power::Process, &["uname"]).expect("allowed");
        assert_eq!(moved.notes, ["what `thermal` was granted before belongs to this version now: 080808080808"]);
    }

    #[test]
    fn what_answers_in_place_of_an_embedded_pack_is_granted_by_digest() {
        let (_dir, home) = home();
        install(&home, "system", DEPLOYED);
        let change = allow(&home, "system", Power::Process, &["uname"]).expect("allowed");
        assert!(!change.now.embedded && change.now.grants.process.is_some());
        assert!(file(&home).starts_with(&format!("[packs.\"sha256:{}\"]", hex::encode(DEPLOYED))), "{}", file(&home));
    }

    #[test]
    fn a_pack_that_is_not_here_can_be_denied_and_granted_by_digest_only() {
        let (_dir, home) = home();
        let failure = allow(&home, "thermal", Power::Camera, &[]).expect_err("whose?");
        insta::assert_snapshot!(failure.message, @"no pack `thermal` is on this machine; there are camera, gpu, system");
        let digest = format!("sha256:{}", hex::encode(DEPLOYED));
        assert!(allow(&home, &digest, Power::Camera, &[]).expect("ahead").now.grants.camera.is_some());
        assert!(!change(&home, "thermal", Power::System, &Items::default(), false).expect("denied").now.grants.system);
        assert_eq!(allow(&home, "Thermal!", Power::Camera, &[]).expect_err("no name").code, Code::BadUsage);
    }

    #[test]
    fn the_policy_is_shown_pack_by_pack() {
        let (_dir, home) = home();
        install(&home, "thermal", DEPLOYED);
        let text = "[packs.system]\nprocess = { allow = [\"df\", \"/usr/bin/uname\", { program = \"systemctl\", argv = [[\"status\", \"restart\"], \"nginx\"], concurrent = 2, output_mib = 16 }], env = [\"LANG\"], cwd = [\"/srv\"], max_secs = 3600 }\n\
                    [packs.camera]\ncamera = { devices = [\"video0\"] }\n[packs.gpu]\nsystem = false\nkv = true\nfiles = [{ path = \"/srv/data\", read = true, list = true, at = \"/data\" }, { path = \"/srv/in\", create = true, max_mib = 5 }]\n[packs.thermal]\ncamera = true\n[packs.gone]\ncamera = true\n";
        std::fs::write(home.join(FILE), text).expect("written");
        let shown = Effective::read(&home).expect("read");
        insta::assert_snapshot!(shown.text().replace(&home.path().display().to_string(), "HOME"));
        assert_eq!(shown.json()["packs"][2]["powers"]["process"]["max_secs"], 3600);
    }

    #[test]
    fn a_folder_that_holds_the_agents_own_is_granted_in_vain_and_it_is_said() {
        let (dir, home) = home();
        home.agent().expect("made");
        let above = dir.path().to_str().expect("text");
        let change = allow(&home, "system", Power::Files, &[above]).expect("allowed");
        assert!(change.notes.iter().any(|note| note.contains("holds the agent's own folder")), "{:?}", change.notes);
        let beside = dir.path().join("beside");
        std::fs::create_dir(&beside).expect("made");
        change_back(&home, above);
        let change = allow(&home, "system", Power::Files, &[beside.to_str().expect("text")]).expect("allowed");
        assert_eq!(change.notes, Vec::<String>::new());
    }

    fn change_back(home: &Home, folder: &str) {
        change(home, "system", Power::Files, &words(&[folder]), false).expect("denied");
    }

    #[test]
    fn a_fresh_machine_says_how_it_stands() {
        let (_dir, home) = home();
        let status = Status::read(&home).expect("read");
        insta::assert_snapshot!(status.text());
        assert_eq!(status.json()["paired"], false);
        assert!(!home.join("agent").exists(), "looking makes nothing");
    }

    #[test]
    fn a_running_agent_is_seen() {
        let (_dir, home) = home();
        let path = home.agent().expect("made").join("lock");
        let lock = outhaul_home::Lock::take(&path, "agent run").expect("free");
        assert_eq!(running(&home), Some(Some(std::process::id())));
        drop(lock);
        assert_eq!(running(&home), None);
    }
}
