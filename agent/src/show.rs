//! What the agent's commands show and change without a running agent: the policy in effect, pack by pack, and how this
//! machine stands. Nothing here loads a pack.

pub(crate) mod asked;
pub(crate) mod whose;

use std::fmt::Write as _;
use std::path::PathBuf;

use outhaul_home::Home;
use outhaul_host::power::{camera, containers, files, http, location, process, screen};
use outhaul_host::{Grants, Power};
use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::{Digest, PublicKey, SecretKey};
use serde_json::{Value as Json, json};

use self::asked::{Asked, asked};
use self::whose::{Known, Whose};
use crate::config::{FILE, PackKey};
use crate::edit::{ConfigEdit, Items};
use crate::packs::{EMBEDDED, active_of};
use crate::pins::{self, Membership};
use crate::policy::{Policy, belongs, is_granted, remedy};
use crate::shelf::{Index, Shelf};
use crate::trust;
use crate::vault::Vault;

/// What one pack may.
#[derive(Debug)]
pub struct PackGrants {
    /// Its name, or `sha256:DIGEST` where only a digest is known.
    pub name: String,
    /// The version that is active.
    pub digest: Option<Digest>,
    /// Whether it came with the agent.
    pub embedded: bool,
    /// The key that signed it.
    pub publisher: Option<PublicKey>,
    /// What is granted.
    pub grants: Grants,
    /// What it asks for that waits for the owner again.
    pub waiting: Vec<Power>,
    /// What the active version asks for, with its reasons.
    pub(crate) asked: Vec<Asked>,
    /// Why a table of the file does not count, or why the pack does not answer.
    pub remark: Option<String>,
}

impl PackGrants {
    fn of(policy: &Policy, known: &Known, shelf: &Shelf) -> Self {
        let Known { name, digest, origin, .. } = known;
        let table = policy.config.packs.get(&PackKey::Name(name.clone()));
        let idle = table.filter(|table| !belongs(table, *digest, origin)).map(|table| match (&table.publisher, table.digest) {
            (Some(key), _) if !origin.is_by(&key.0.id()) => {
                format!("[packs.{name}] is for the pack of publisher {}, another's is active and gets nothing by it", key.0.id().short())
            }
            (_, Some(other)) => {
                format!("[packs.{name}] is for version {}, another is active; grant anew what this one may", other.short())
            }
            _ => format!(
                "[packs.{name}] names no publisher and no version, so it grants nothing: anybody who deploys can take a name; use `agent allow {name} …`"
            ),
        });
        let refused = known.refused.as_ref().map(|why| format!("it does not answer: {why}"));
        PackGrants {
            name: name.clone(),
            digest: Some(*digest),
            embedded: known.embedded(),
            publisher: known.key,
            grants: policy.grants_by(name, &digest.0, origin),
            waiting: policy.waiting(name, &digest.0, origin, &known.powers),
            asked: asked(shelf, known),
            remark: refused.or(idle),
        }
    }

    /// For people: one line per power.
    #[must_use]
    pub fn text(&self) -> String {
        let which = match (self.embedded, self.digest) {
            (true, _) => "embedded".to_owned(),
            (false, Some(digest)) => match &self.publisher {
                Some(key) => format!("{}, by publisher {}", digest.short(), key.id().short()),
                None => digest.short(),
            },
            (false, None) => "not installed".to_owned(),
        };
        let mut out = format!("{} ({which})\n", self.name);
        for (power, detail) in lines(&self.grants) {
            let asked = self.asked.iter().find(|asked| asked.power.name() == power);
            let reason = asked.and_then(|asked| asked.reason.as_ref()).map(|reason| format!(" (\"{reason}\")")).unwrap_or_default();
            let _ = writeln!(out, "  {power:<8} {detail}{reason}");
        }
        for Asked { power, reason } in self.asked.iter().filter(|asked| !is_granted(&self.grants, asked.power)) {
            let state = if self.waiting.contains(power) { "waiting, new in this version" } else { "denied" };
            let reason = reason.as_ref().map(|reason| format!(": \"{reason}\"")).unwrap_or_default();
            let _ = writeln!(out, "  {:<8} {state}{reason}; {}", power.name(), remedy(&self.name, *power));
        }
        if let Some(remark) = &self.remark {
            let _ = writeln!(out, "  note: {remark}");
        }
        out
    }

    /// How a power stands that is asked for, in a word.
    fn state(&self, power: Power) -> &'static str {
        match power {
            power if is_granted(&self.grants, power) => "granted",
            power if self.waiting.contains(&power) => "waiting",
            _ => "denied",
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let grants = &self.grants;
        json!({
            "name": self.name,
            "digest": self.digest.map(|digest| digest.to_string()),
            "embedded": self.embedded,
            "publisher": self.publisher.map(|key| key.to_string()),
            "asks": self.asked.iter().map(|asked| json!({
                "power": asked.power.name(),
                "state": self.state(asked.power),
                "reason": asked.reason,
            })).collect::<Vec<_>>(),
            "waiting": self.waiting.iter().map(|power| power.name()).collect::<Vec<_>>(),
            "powers": {
                "output": true,
                "log": true,
                "gpu": grants.gpu,
                "system": grants.system,
                "process": grants.process,
                "camera": grants.camera,
                "kv": grants.kv,
                "http": grants.http.as_deref(),
                "secrets": grants.secrets,
                "call": grants.call,
                "files": grants.files.as_ref().map(|grant| &grant.folders),
                "location": grants.location,
                "notify": grants.notify,
                "screen": grants.screen,
                "containers": grants.containers.as_deref(),
            },
            "remark": self.remark,
        })
    }
}

/// Each power that is granted, in words; what goes on over several lines has its name on the first.
fn lines(grants: &Grants) -> Vec<(&'static str, String)> {
    let whole = [("system", grants.system), ("gpu", grants.gpu)];
    let mut lines: Vec<_> = whole.into_iter().filter(|(_, granted)| *granted).map(|(power, _)| (power, "granted".to_owned())).collect();
    let process = grants.process.iter().filter(|grant| !grant.allow.is_empty());
    lines.extend(process.flat_map(|grant| named("process", programs(grant))));
    let camera = |grant: &camera::Grant| if grant.all { "every camera".to_owned() } else { grant.devices.join(", ") };
    lines.extend(grants.camera.as_ref().map(|grant| ("camera", camera(grant))));
    lines.extend(grants.files.iter().flat_map(|grant| named("files", grant.folders.iter().map(folder).collect())));
    lines.extend(grants.http.as_ref().map(|http| ("http", http_line(http))));
    lines.extend(Some(&grants.secrets.names).filter(|names| !names.is_empty()).map(|names| ("secrets", listed(names))));
    lines.extend(Some(&grants.call.commands).filter(|commands| !commands.is_empty()).map(|commands| ("call", listed(commands))));
    lines.extend(grants.kv.as_ref().map(|kv| ("kv", format!("{} KiB", kv.max_kib))));
    let place = |grant: location::Grant| if grant.coarse { "to a tenth of a degree" } else { "as it is known" }.to_owned();
    lines.extend(grants.location.map(|grant| ("location", place(grant))));
    lines.extend(grants.notify.then(|| ("notify", "granted".to_owned())));
    let screen = |grant: &screen::Grant| if grant.all { "every display".to_owned() } else { grant.displays.join(", ") };
    lines.extend(grants.screen.as_ref().map(|grant| ("screen", screen(grant))));
    lines.extend(grants.containers.as_ref().map(|containers| ("containers", containers_line(containers))));
    lines
}

fn containers_line(grant: &containers::Grant) -> String {
    let mut text = listed(&grant.images);
    let lists = [("mounts", listed(&grant.mounts)), ("networks", listed(&grant.networks)), ("capabilities", listed(&grant.capabilities))];
    for (what, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        let _ = write!(text, "; {what} {list}");
    }
    if grant.gpus > 0 {
        let _ = write!(text, "; {} GPUs", grant.gpus);
    }
    let _ = write!(text, "; each {} MiB, {} processors; {} at once", grant.memory_mib, grant.cpus, grant.max);
    if let Some(secs) = grant.max_secs {
        let _ = write!(text, ", at most {secs} s");
    }
    text.push_str(if grant.pull { "; images are fetched" } else { "" });
    text
}

fn listed<T: std::fmt::Display>(list: impl IntoIterator<Item = T>) -> String {
    list.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn http_line(grant: &http::Grant) -> String {
    let mut text = format!("{} to {}", listed(&grant.methods), listed(&grant.hosts));
    if !grant.private.is_empty() {
        let _ = write!(text, "; private {}", listed(&grant.private));
    }
    for (origin, fields) in &grant.headers {
        let _ = write!(text, "; {} added for {origin}", listed(fields.keys()));
    }
    let _ = write!(text, "; {} MiB, {} s, {} at once", grant.max_mib, grant.timeout_secs, grant.concurrent);
    text
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
        let shelf = Shelf::new(&home.join("agent"));
        let (index, trust) = (shelf.index()?, trust::read(home)?);
        let known = names(&index).into_iter().filter_map(|name| Known::of(&index, &trust, &name));
        let mut packs: Vec<PackGrants> = known.map(|known| PackGrants::of(&policy, &known, &shelf)).collect();
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
        let mut out = format!("policy of {}\n`output` and `log` are always granted; what is not listed is denied\n\n", self.file.display());
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
    let remark = Some("no such pack is installed".into());
    PackGrants { name: key.to_string(), digest, embedded: false, publisher: None, grants, waiting: Vec::new(), asked: Vec::new(), remark }
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
    let shelf = Shelf::new(&home.join("agent"));
    let (index, trust) = (shelf.index()?, trust::read(home)?);
    let whose = Whose::of(&index, &trust, pack, allow)?;
    let mut edit = ConfigEdit::open(&path)?;
    if !allow && matches!(whose.key, PackKey::Name(_)) && whose.active.is_none() && !edit.knows(&whose.key) {
        return Err(whose::nowhere(&index, pack).hint("see what is here: agent policy show"));
    }
    let before = edit.text();
    let mut notes = whose.note.clone().into_iter().collect::<Vec<_>>();
    match allow {
        true => {
            let version = whose.pin(&mut edit, &trust)?;
            notes.extend(edit.allow(&whose.key, version, power, items)?);
        }
        false => drop(edit.deny(&whose.key, power, items)?),
    }
    whose.decided(&mut edit)?;
    let changed = edit.text() != before;
    if allow {
        notes.extend(unset_secrets(home, power, items)?);
    }
    match changed {
        true => edit.save()?,
        false if notes.is_empty() => notes.push("nothing to change".into()),
        false => {}
    }
    let policy = Policy::load(&path)?;
    let now = match &whose.active {
        Some(active) => PackGrants::of(&policy, active, &shelf),
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

/// What is granted and has no value yet: a pack's first request should not be the one to find out.
fn unset_secrets(home: &Home, power: Power, items: &Items) -> Result<Vec<String>, Failure> {
    let mut wanted = match power {
        Power::Secrets => items.items.clone(),
        Power::Http => items.web.secrets(),
        _ => return Ok(Vec::new()),
    };
    wanted.sort_unstable();
    wanted.dedup();
    let set = Vault::new(home).names()?;
    Ok(wanted
        .iter()
        .filter(|name| !set.contains(name))
        .map(|name| format!("secret `{name}` is not set yet: agent secret set {name}"))
        .collect())
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
    use outhaul_protocol::error::Code;

    const DEPLOYED: [u8; 32] = [7; 32];

    /// A pack of a publisher whom the owner trusts.
    fn install(home: &Home, name: &str, digest: [u8; 32]) {
        trust::trust(home, &publisher(1).to_string(), Some("acme")).expect("trusted");
        install_by(home, name, digest, Some(&publisher(1)), &[]);
    }

    fn install_by(home: &Home, name: &str, digest: [u8; 32], publisher: Option<&PublicKey>, powers: &[Power]) {
        let digest = Digest(digest).to_string();
        let shelf = Shelf::new(&home.agent().expect("made"));
        let mut index = shelf.index().expect("whole");
        let versions = vec![Version {
            digest: digest.clone(),
            version: "1.0.0".into(),
            installed_at: 1,
            publisher: publisher.map(ToString::to_string),
            powers: powers.iter().map(|power| power.name().to_owned()).collect(),
        }];
        index.packs.insert(name.to_owned(), Entry { active: Some(digest), previous: None, versions });
        shelf.keep(&mut index).expect("kept");
    }

    fn publisher(n: u8) -> PublicKey {
        SecretKey::from_bytes(&[n; 32]).public()
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
    fn a_signed_pack_is_granted_to_its_publisher_in_every_version() {
        let (_dir, home) = home();
        let mine = publisher(1);
        install(&home, "other", [9; 32]);
        install_by(&home, "thermal", DEPLOYED, Some(&mine), &[Power::Log, Power::Camera]);
        let before = file(&home);
        allow(&home, "thermal", Power::Camera, &["video0"]).expect("allowed");
        let added = file(&home).strip_prefix(&before).expect("nothing else changes").to_owned();
        insta::assert_snapshot!(added.replace(&mine.to_string(), "KEY"), @r#"

        [packs.thermal]
        publisher = "KEY"
        camera = { devices = ["video0"] }
        asked = ["log", "camera"]
        "#);
        install_by(&home, "thermal", [8; 32], Some(&mine), &[Power::Log, Power::Camera, Power::Process]);
        let shown = Effective::read(&home).expect("read");
        let thermal = shown.packs.iter().find(|pack| pack.name == "thermal").expect("listed");
        assert!(thermal.grants.camera.is_some() && thermal.waiting == [Power::Process] && thermal.remark.is_none(), "{thermal:?}");
        insta::assert_snapshot!(thermal.text().replace(&mine.id().short(), "FINGERPRINT"), @r"
        thermal (080808080808, by publisher FINGERPRINT)
          system   granted
          gpu      granted
          camera   video0
          process  waiting, new in this version; agent allow thermal process PROGRAM
        ");
        let denied = change(&home, "thermal", Power::Process, &Items::default(), false).expect("decided");
        assert!(denied.changed && denied.now.waiting.is_empty() && denied.now.grants.process.is_none());
    }

    #[test]
    fn a_grant_to_one_publisher_is_never_moved_to_another() {
        let (_dir, home) = home();
        let (mine, other) = (publisher(1), publisher(2));
        for (key, name) in [(&mine, "mine"), (&other, "other")] {
            trust::trust(&home, &key.to_string(), Some(name)).expect("trusted");
        }
        install_by(&home, "thermal", DEPLOYED, Some(&mine), &[Power::Camera]);
        allow(&home, "thermal", Power::Camera, &[]).expect("allowed");
        install_by(&home, "thermal", [8; 32], Some(&other), &[Power::Camera]);
        let shown = Effective::read(&home).expect("read");
        let thermal = shown.packs.iter().find(|pack| pack.name == "thermal").expect("listed");
        assert!(thermal.grants.camera.is_none() && thermal.remark.as_ref().is_some_and(|text| text.contains("another's is active")));
        let before = file(&home);
        let failure = allow(&home, "thermal", Power::Process, &["uname"]).expect_err("whose would the camera be?");
        assert!(failure.message.contains("is for the pack of publisher") && file(&home) == before, "{failure}");
    }

    #[test]
    fn a_pack_whose_publisher_is_refused_is_said_not_to_answer() {
        let (_dir, home) = home();
        install_by(&home, "thermal", DEPLOYED, Some(&publisher(1)), &[]);
        let text = Effective::read(&home).expect("read").text();
        assert!(text.contains("note: it does not answer: the pack is signed by publisher"), "{text}");
    }

    #[test]
    fn a_table_that_pins_a_version_goes_on_doing_so() {
        let (_dir, home) = home();
        install(&home, "thermal", DEPLOYED);
        let mut text = file(&home);
        text.push_str(&format!("[packs.thermal]\ndigest = \"{}\"\n", hex::encode(DEPLOYED)));
        std::fs::write(home.join(FILE), &text).expect("written");
        assert!(allow(&home, "thermal", Power::Camera, &[]).expect("allowed").now.grants.camera.is_some());
        assert_eq!(file(&home), format!("{text}camera = true\n"));
        install(&home, "thermal", [8; 32]);
        let shown = Effective::read(&home).expect("read").text();
        assert!(shown.contains("note: [packs.thermal] is for version 070707070707"), "{shown}");
        let moved = allow(&home, "thermal", Power::Process, &["uname"]).expect("allowed");
        assert_eq!(moved.notes, ["what `thermal` was granted before belongs to this version now: 080808080808"]);
    }

    #[test]
    fn a_granted_secret_without_a_value_is_said() {
        let (_dir, home) = home();
        install(&home, "shots", DEPLOYED);
        let notes = allow(&home, "shots", Power::Secrets, &["token"]).expect("allowed").notes;
        assert_eq!(notes, ["secret `token` is not set yet: agent secret set token"]);
        Vault::new(&home).set("token", &outhaul_protocol::secret::SecretBytes::new(b"x".to_vec())).expect("set");
        let web = crate::edit::Web { headers: vec!["authorization=Bearer {secret:token}{secret:other}".into()], ..Default::default() };
        let items = Items { web, ..words(&["api.example.org"]) };
        let change = change(&home, "shots", Power::Http, &items, true).expect("allowed");
        assert_eq!(change.notes, ["secret `other` is not set yet: agent secret set other"]);
        assert!(change.now.text().contains("http     GET, HEAD to api.example.org; authorization added for api.example.org; 16 MiB"));
    }

    #[test]
    fn what_answers_in_place_of_an_embedded_pack_is_granted_by_digest() {
        let (_dir, home) = home();
        install(&home, "system", DEPLOYED);
        let change = allow(&home, "system", Power::Process, &["uname"]).expect("allowed");
        assert!(!change.now.embedded && change.now.grants.process.is_some());
        assert!(file(&home).contains(&format!("[packs.\"sha256:{}\"]", hex::encode(DEPLOYED))), "{}", file(&home));
    }

    #[test]
    fn a_pack_that_is_not_here_can_be_denied_and_granted_by_digest_only() {
        let (_dir, home) = home();
        let failure = allow(&home, "thermal", Power::Camera, &[]).expect_err("whose?");
        insta::assert_snapshot!(failure.message, @"no pack `thermal` is on this machine; there are camera, gpu, system");
        let digest = format!("sha256:{}", hex::encode(DEPLOYED));
        assert!(allow(&home, &digest, Power::Camera, &[]).expect("ahead").now.grants.camera.is_some());
        let failure = change(&home, "thermal", Power::System, &Items::default(), false).expect_err("a slip of the pen");
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (Code::BadUsage, "no pack `thermal` is on this machine; there are camera, gpu, system")
        );
        std::fs::write(home.join(FILE), format!("{}[packs.thermal]\nkv = true\n", file(&home))).expect("written");
        assert!(!change(&home, "thermal", Power::System, &Items::default(), false).expect("the file knows it").now.grants.system);
        assert_eq!(allow(&home, "Thermal!", Power::Camera, &[]).expect_err("no name").code, Code::BadUsage);
    }

    #[test]
    fn the_policy_is_shown_pack_by_pack() {
        let (_dir, home) = home();
        install(&home, "thermal", DEPLOYED);
        let text = "[packs.system]\nprocess = { allow = [\"df\", \"/usr/bin/uname\", { program = \"systemctl\", argv = [[\"status\", \"restart\"], \"nginx\"], concurrent = 2, output_mib = 16 }], env = [\"LANG\"], cwd = [\"/srv\"], max_secs = 3600 }\n\
                    [packs.camera]\ncamera = { devices = [\"video0\"] }\n[packs.gpu]\nsystem = false\nkv = true\nfiles = [{ path = \"/srv/data\", read = true, list = true, at = \"/data\" }, { path = \"/srv/in\", create = true, max_mib = 5 }]\nsecrets = [\"token\"]\ncontainers = { images = [\"busybox:*\"], mounts = [\"/srv/out:w\"], gpus = 1, max_secs = 60, pull = true }\nlocation = { coarse = true }\nnotify = true\nscreen = true\n[packs.thermal]\ncamera = true\n[packs.gone]\ncamera = true\n\
                    [packs.gpu.http]\nhosts = [\"api.example.org\", \"http://10.0.0.5:8080\"]\nprivate = [\"10.0.0.5\"]\nheaders.\"api.example.org\" = { authorization = \"Bearer {secret:token}\" }\n";
        std::fs::write(home.join(FILE), format!("{}{text}", file(&home))).expect("written");
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
