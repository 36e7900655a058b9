//! What packs may do on this machine: the grants of `agent.toml`, read again when the file has changed.
//!
//! A grant belongs to an embedded pack's name, to a name *and* its publisher, or to one digest. Names that are not
//! embedded are anybody's who may deploy, so a table under such a name counts only for the pack of the publisher, or
//! the version, that stands in it. A new version by the same publisher keeps its grants; a power that it asks for
//! beyond what the owner decided on is refused, and said to wait for the owner. What narrows (`gpu = false`)
//! counts for the name whatever the version. A call keeps the grants it began with: they are handed out as one `Arc`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use outhaul_home::Home;
use outhaul_host::power::{containers, files, kv, process};
use outhaul_host::{Grants, Power};
use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::Digest;

use crate::config::{AgentConfig, FILE, PackKey, PackPolicy, ReadOnly};
use crate::run::PolicyLimits;
use crate::trust::Origin;

/// A policy and the file it was read from.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file.
    pub path: PathBuf,
    /// What stands in it.
    pub config: AgentConfig,
}

impl Policy {
    /// Reads a file; a missing one grants the defaults.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        Ok(Policy { path: path.to_owned(), config: AgentConfig::read(path)? })
    }

    /// What a pack may that has no publisher. `embedded` when it came with this agent.
    #[must_use]
    pub fn grants(&self, pack: &str, digest: &[u8; 32], embedded: bool) -> Grants {
        self.grants_by(pack, digest, if embedded { &Origin::Embedded } else { &Origin::Nobody })
    }

    /// What a pack may.
    #[must_use]
    pub fn grants_by(&self, pack: &str, digest: &[u8; 32], origin: &Origin) -> Grants {
        let digest = Digest(*digest);
        let defaults = &self.config.defaults.powers;
        let mut grants = Grants {
            gpu: defaults.contains(&ReadOnly::Gpu),
            system: defaults.contains(&ReadOnly::System),
            time: Some(self.limits().deadline),
            ..Grants::default()
        };
        let named = self.config.packs.get(&PackKey::Name(pack.to_owned()));
        let of_digest = self.config.packs.get(&PackKey::Digest(digest));
        let theirs = named.filter(|table| belongs(table, digest, origin));
        grants.kv = kept(pack, digest, theirs, of_digest);
        grants.containers = self.contained(pack, digest, theirs, of_digest).map(Arc::new);
        for table in [theirs, of_digest].into_iter().flatten() {
            grants.gpu |= table.gpu == Some(true);
            grants.system |= table.system == Some(true);
            if let Some(process) = &table.process {
                grants.process = Some(process::Grant { keep_out: self.own(), ..process.grant() });
            }
            if let Some(camera) = &table.camera {
                grants.camera = Some(camera.clone()).filter(|camera| camera.all || !camera.devices.is_empty());
            }
            if let Some(http) = &table.http {
                grants.http = Some(Arc::new(http.clone())).filter(|http| !http.hosts.is_empty());
            }
            if let Some(location) = table.location {
                grants.location = location;
            }
            if let Some(notify) = table.notify {
                grants.notify = notify;
            }
            if let Some(screen) = &table.screen {
                grants.screen = Some(screen.clone()).filter(|screen| screen.all || !screen.displays.is_empty());
            }
            grants.secrets.names.extend(table.secrets.names.iter().cloned());
            grants.call.commands.extend(table.call.commands.iter().cloned());
            if let Some(folders) = &table.files {
                let grant = files::Grant { folders: folders.clone(), keep_out: self.own() };
                grants.files = Some(grant).filter(|grant| !grant.folders.is_empty());
            }
        }
        // Last, so that no other table gives back what one of them takes away.
        for table in [named, of_digest].into_iter().flatten() {
            grants.gpu &= table.gpu != Some(false);
            grants.system &= table.system != Some(false);
        }
        grants
    }

    /// What containers a pack may run, and as whose: they belong to the table that grants them, as kept values do.
    fn contained(
        &self,
        pack: &str,
        digest: Digest,
        named: Option<&PackPolicy>,
        of_digest: Option<&PackPolicy>,
    ) -> Option<containers::Grant> {
        let said = |table: Option<&PackPolicy>| table.and_then(|table| table.containers.clone()).filter(|grant| !grant.images.is_empty());
        let (by_name, by_digest) = (said(named), said(of_digest));
        let owner = owner(pack, digest, named.filter(|_| by_name.is_some()));
        let grant = by_digest.or(by_name)?;
        // What containers of any pack may change can lead anywhere by the time another mounts it.
        let tables = self.config.packs.values().filter_map(|table| table.containers.as_ref());
        let writable = tables.flat_map(|grant| &grant.mounts).filter(|folder| folder.writable);
        let unsteady = writable.map(|folder| folder.path.clone()).collect();
        Some(containers::Grant { owner, keep_out: self.own(), unsteady, ..grant })
    }

    /// The powers that a version asks for beyond what the owner decided on when granting to an older one, and that are
    /// refused until the owner speaks again.
    #[must_use]
    pub fn waiting(&self, pack: &str, digest: &[u8; 32], origin: &Origin, powers: &[Power]) -> Vec<Power> {
        let table = self.config.packs.get(&PackKey::Name(pack.to_owned()));
        let asked = table.filter(|table| belongs(table, Digest(*digest), origin)).and_then(|table| table.asked.as_ref());
        let Some(asked) = asked else { return Vec::new() };
        let grants = self.grants_by(pack, digest, origin);
        let waits = |power: &Power| !is_granted(&grants, *power) && !asked.iter().any(|known| known == power.name());
        powers.iter().copied().filter(waits).collect()
    }

    /// The folder that holds this file, and with it keys and packs: no grant reaches into it, so that a pack with a generous one can
    /// neither read the keys nor write its own policy.
    fn own(&self) -> Vec<PathBuf> {
        let depth = if self.path.ends_with(FILE) { 2 } else { 1 };
        let own = self.path.ancestors().nth(depth).filter(|own| !own.as_os_str().is_empty());
        own.and_then(|own| std::fs::canonicalize(own).ok()).into_iter().collect()
    }

    /// The owner's ceilings.
    #[must_use]
    pub fn limits(&self) -> PolicyLimits {
        let limits = &self.config.limits;
        PolicyLimits {
            deadline: Duration::from_secs(limits.deadline_secs),
            calls: limits.calls,
            output: limits.output_mib.saturating_mul(1 << 20),
        }
    }
}

/// What a pack may keep, and as whose. The values belong to the table that grants them, so that they outlive the versions it is for, and
/// no pack gets at them that is not granted that table: a name's (and its publisher's) where it grants them, a digest's else.
fn kept(pack: &str, digest: Digest, named: Option<&PackPolicy>, of_digest: Option<&PackPolicy>) -> Option<kv::Grant> {
    let said = |table: Option<&PackPolicy>| table.and_then(|table| table.kv);
    let (by_name, by_digest) = (said(named), said(of_digest));
    let owner = owner(pack, digest, named.filter(|_| by_name.is_some_and(|kib| kib > 0)));
    by_digest.or(by_name).filter(|kib| *kib > 0).map(|max_kib| kv::Grant { max_kib, owner })
}

/// As whose a pack keeps what outlives its calls: the name's, or its publisher's, where a name's table grants it; else the digest's.
fn owner(pack: &str, digest: Digest, named: Option<&PackPolicy>) -> String {
    match named.map(|table| &table.publisher) {
        None => format!("sha256-{digest}"),
        Some(Some(key)) => format!("by-{}-{pack}", key.0.id()),
        Some(None) => format!("name-{pack}"),
    }
}

/// Whether a name's table is for this version.
#[must_use]
pub fn belongs(table: &PackPolicy, digest: Digest, origin: &Origin) -> bool {
    match (&table.publisher, table.digest) {
        (None, None) => *origin == Origin::Embedded,
        (publisher, wanted) => {
            publisher.as_ref().is_none_or(|key| origin.is_by(&key.0.id())) && wanted.is_none_or(|wanted| wanted == digest)
        }
    }
}

/// Whether a power is among the grants.
#[must_use]
pub fn is_granted(grants: &Grants, power: Power) -> bool {
    match power {
        Power::Output | Power::Log => true,
        Power::Process => grants.process.as_ref().is_some_and(|grant| !grant.allow.is_empty()),
        Power::Gpu => grants.gpu,
        Power::System => grants.system,
        Power::Camera => grants.camera.is_some(),
        Power::Http => grants.http.is_some(),
        Power::Secrets => !grants.secrets.names.is_empty(),
        Power::Files => grants.files.is_some(),
        Power::Kv => grants.kv.is_some(),
        Power::Call => !grants.call.commands.is_empty(),
        Power::Location => grants.location.is_some(),
        Power::Notify => grants.notify,
        Power::Screen => grants.screen.is_some(),
        Power::Containers => grants.containers.is_some(),
    }
}

/// What the owner would type to grant a power.
#[must_use]
pub fn remedy(pack: &str, power: Power) -> String {
    let item = power.item().map(|item| format!(" {item}")).unwrap_or_default();
    format!("agent allow {pack} {}{item}", power.name())
}

/// Why a power is not there, and the way out.
#[must_use]
pub fn explain(pack: &str, power: Power) -> String {
    format!("this machine's policy does not let pack `{pack}` use `{}`; on that machine: {}", power.name(), remedy(pack, power))
}

/// The policy of a running agent.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    stamp: Option<Stamp>,
    edition: u64,
    policy: Policy,
    grants: HashMap<(String, [u8; 32], Origin), Arc<Grants>>,
}

/// Grants kept ready at most; a pack's versions come and go.
const READY: usize = 256;

/// Tells one content of a file from another without reading it: a rewrite in place moves the times, a rename the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    inode: (u64, u64),
    times: [(i64, i64); 2],
}

#[cfg(unix)]
fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    let times = [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())];
    Some(Stamp { size: found.size(), inode: (found.dev(), found.ino()), times })
}

#[cfg(not(unix))]
fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    let since = found.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let times = [(since.as_secs() as i64, i64::from(since.subsec_nanos())), (0, 0)];
    Some(Stamp { size: found.len(), inode: (0, 0), times })
}

impl PolicyFile {
    /// Reads the policy of a home. A broken file is refused here, at start; later it leaves the last good policy.
    pub fn open(home: &Home) -> Result<Self, Failure> {
        Self::at(home.join(FILE))
    }

    /// The same for a file anywhere.
    pub fn at(path: PathBuf) -> Result<Self, Failure> {
        let stamp = stamp(&path);
        let policy = Policy::load(&path)?;
        Ok(PolicyFile { path, state: RwLock::new(State { stamp, edition: 0, policy, grants: HashMap::new() }) })
    }

    /// What a pack may now. One `stat` of the file; the rest is a lookup.
    #[must_use]
    pub fn grants_for(&self, pack: &str, digest: &[u8; 32], origin: &Origin) -> Arc<Grants> {
        let key = (pack.to_owned(), *digest, origin.clone());
        if let Some(ready) = self.current().grants.get(&key) {
            return ready.clone();
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.grants.len() >= READY {
            state.grants.clear();
        }
        let grants = Arc::new(state.policy.grants_by(pack, digest, origin));
        state.grants.insert(key, grants.clone());
        grants
    }

    /// What a pack asks for that waits for the owner now.
    #[must_use]
    pub fn waiting_for(&self, pack: &str, digest: &[u8; 32], origin: &Origin, powers: &[Power]) -> Vec<Power> {
        self.current().policy.waiting(pack, digest, origin, powers)
    }

    /// Rises when a changed file has been read: until then every pack's grants are what they were. One `stat`.
    #[must_use]
    pub fn edition(&self) -> u64 {
        self.current().edition
    }

    /// The owner's ceilings now.
    #[must_use]
    pub fn limits(&self) -> PolicyLimits {
        self.current().policy.limits()
    }

    /// The policy now.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.current().policy.clone()
    }

    fn current(&self) -> RwLockReadGuard<'_, State> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        // Taken before the file is read: a write in between shows at the next look.
        let now = stamp(&self.path);
        if state.stamp == now {
            return state;
        }
        drop(state);
        self.reload(now);
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reload(&self, now: Option<Stamp>) {
        let read = Policy::load(&self.path);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.stamp == now {
            return;
        }
        state.stamp = now;
        match read {
            Ok(policy) => {
                tracing::info!(path = %self.path.display(), "policy read again");
                state.policy = policy;
                state.edition += 1;
                state.grants.clear();
            }
            Err(failure) => tracing::error!(reason = %failure.message, "the changed policy is broken; the last good one stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::{PublicKey, SecretKey};

    const MINE: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn policy(text: &str) -> Policy {
        let path = Path::new("agent.toml");
        Policy { path: path.to_owned(), config: outhaul_home::parse_toml(text, path).expect(text) }
    }

    #[test]
    fn without_a_file_only_what_reads_is_granted() {
        let grants = policy("").grants("thermal", &MINE, false);
        assert!(grants.gpu && grants.system && grants.process.is_none() && grants.camera.is_none());
        let none = policy("[defaults]\npowers = []").grants("thermal", &MINE, false);
        assert!(!none.gpu && !none.system);
    }

    #[test]
    fn folders_are_granted_and_the_agents_own_is_kept_out() {
        let (_dir, home) = crate::testing::home();
        let path = home.agent().expect("made").join("agent.toml");
        std::fs::write(&path, "[packs.system]\nfiles = [{ path = \"/srv\", read = true }]\n[packs.gpu]\nfiles = []").expect("written");
        let policy = Policy::load(&path).expect("good");
        let grants = policy.grants("system", &MINE, true);
        let grant = grants.files.as_ref().expect("granted");
        assert_eq!(grant.keep_out, [std::fs::canonicalize(home.path()).expect("there")]);
        assert!(is_granted(&grants, Power::Files));
        assert!(!is_granted(&policy.grants("gpu", &MINE, true), Power::Files), "an empty list grants nothing");
        assert!(!is_granted(&policy.grants("system", &MINE, false), Power::Files));
    }

    #[test]
    fn values_belong_to_the_table_that_grants_them() {
        let (mine, other) = (hex::encode(MINE), hex::encode(OTHER));
        let text = format!(
            "[packs.thermal]\ndigest = \"{mine}\"\nkv = true\n[packs.system]\nkv = {{ max_kib = 8 }}\n[packs.gpu]\nkv = false\n\
             [packs.\"sha256:{other}\"]\nkv = {{ max_kib = 5 }}"
        );
        let policy = policy(&text);
        let kept = |pack: &str, digest: &[u8; 32], embedded| policy.grants(pack, digest, embedded).kv.map(|kv| (kv.owner, kv.max_kib));
        assert_eq!(kept("thermal", &MINE, false), Some(("name-thermal".into(), 1024)));
        assert_eq!(kept("system", &MINE, true), Some(("name-system".into(), 8)));
        // A deployed pack of that name is another pack, and keeps what it has apart.
        assert_eq!(kept("system", &OTHER, false), Some((format!("sha256-{other}"), 5)));
        assert_eq!(kept("thermal", &OTHER, false), Some((format!("sha256-{other}"), 5)));
        assert_eq!(kept("system", &OTHER, true), Some(("name-system".into(), 5)));
        assert_eq!((kept("gpu", &MINE, true), kept("camera", &MINE, true)), (None, None));
    }

    #[test]
    fn containers_belong_to_the_table_that_grants_them_and_an_empty_list_grants_none() {
        let other = hex::encode(OTHER);
        let policy = policy(&format!(
            "[packs.system]\ncontainers = {{ images = [\"busybox\"] }}\n[packs.gpu]\ncontainers = {{ images = [], gpus = 1 }}\n\
             [packs.\"sha256:{other}\"]\ncontainers = {{ images = [\"alpine\"], max = 2 }}"
        ));
        let granted = |pack: &str, digest: &[u8; 32], embedded| {
            policy.grants(pack, digest, embedded).containers.map(|grant| (grant.owner.clone(), grant.max))
        };
        assert_eq!(granted("system", &MINE, true), Some(("name-system".into(), 4)));
        assert_eq!(granted("system", &OTHER, true), Some(("name-system".into(), 2)));
        assert_eq!(granted("other", &OTHER, false), Some((format!("sha256-{other}"), 2)));
        assert_eq!((granted("system", &MINE, false), granted("gpu", &MINE, true)), (None, None));
    }

    #[test]
    fn an_embedded_name_is_reserved_for_the_embedded_pack() {
        let policy = policy("[packs.system]\nprocess = { allow = [\"df\"] }");
        assert!(policy.grants("system", &MINE, true).process.is_some());
        assert!(policy.grants("system", &MINE, false).process.is_none(), "a deployed pack of that name gets nothing");
    }

    #[test]
    fn a_deployed_name_is_granted_at_one_digest_only() {
        let text = format!("[packs.thermal]\ndigest = \"{}\"\ncamera = true", hex::encode(MINE));
        let policy = policy(&text);
        assert!(policy.grants("thermal", &MINE, false).camera.is_some());
        assert!(policy.grants("thermal", &OTHER, false).camera.is_none());
        assert!(policy.grants("other", &MINE, false).camera.is_none());
    }

    #[test]
    fn a_name_without_digest_grants_nothing_but_still_narrows() {
        let policy = policy("[packs.thermal]\ncamera = true\nsystem = false");
        let grants = policy.grants("thermal", &MINE, false);
        assert!(grants.camera.is_none() && !grants.system && grants.gpu);
    }

    fn by(keys: &[u8]) -> Origin {
        Origin::Publisher(keys.iter().map(|n| key(*n).id()).collect())
    }

    fn key(n: u8) -> PublicKey {
        SecretKey::from_bytes(&[n; 32]).public()
    }

    #[test]
    fn a_deployed_name_is_granted_to_its_publisher_in_every_version_and_to_nobody_else() {
        let policy = policy(&format!("[packs.thermal]\npublisher = \"{}\"\ncamera = true", key(1)));
        let camera = |digest: [u8; 32], origin: &Origin| policy.grants_by("thermal", &digest, origin).camera.is_some();
        assert!(camera(MINE, &by(&[1])) && camera(OTHER, &by(&[1])), "versions come and go");
        assert!(camera(MINE, &by(&[1, 2])) && camera(MINE, &by(&[9, 1])), "keys of one publisher are one");
        assert!(!camera(MINE, &by(&[2])) && !camera(MINE, &Origin::Nobody) && !camera(MINE, &Origin::Embedded));
        assert!(policy.grants_by("other", &MINE, &by(&[1])).camera.is_none());
    }

    #[test]
    fn values_are_a_publishers_whatever_version_or_key_it_signs_with() {
        let policy = policy(&format!("[packs.thermal]\npublisher = \"{}\"\nkv = true", key(1)));
        let owner = |digest: [u8; 32], origin: &Origin| policy.grants_by("thermal", &digest, origin).kv.map(|kv| kv.owner);
        let mine = Some(format!("by-{}-thermal", key(1).id()));
        assert_eq!([owner(MINE, &by(&[1])), owner(OTHER, &by(&[1])), owner(OTHER, &by(&[2, 1]))], [mine.clone(), mine.clone(), mine]);
        assert_eq!(owner(MINE, &by(&[2])), None);
    }

    #[test]
    fn publisher_and_digest_together_must_both_fit() {
        let policy = policy(&format!("[packs.thermal]\npublisher = \"{}\"\ndigest = \"{}\"\ncamera = true", key(1), hex::encode(MINE)));
        let camera = |digest: [u8; 32], origin: &Origin| policy.grants_by("thermal", &digest, origin).camera.is_some();
        assert!(camera(MINE, &by(&[1])) && !camera(OTHER, &by(&[1])) && !camera(MINE, &by(&[2])));
    }

    #[test]
    fn a_version_that_asks_for_more_waits_and_keeps_what_it_had() {
        let text = format!("[packs.thermal]\npublisher = \"{}\"\nasked = [\"camera\", \"log\"]\ncamera = true", key(1));
        let policy = policy(&text);
        let waiting = |origin: &Origin, powers: &[Power]| policy.waiting("thermal", &MINE, origin, powers);
        assert_eq!(waiting(&by(&[1]), &[Power::Log, Power::Camera]), []);
        assert_eq!(waiting(&by(&[1]), &[Power::Camera, Power::Process, Power::Gpu]), [Power::Process], "`gpu` is everybody's");
        assert!(policy.grants_by("thermal", &OTHER, &by(&[1])).camera.is_some());
        assert_eq!(waiting(&by(&[2]), &[Power::Process]), [], "the owner never spoke about that one");
    }

    #[test]
    fn a_digest_is_granted_whatever_its_name_and_no_table_undoes_a_refusal() {
        let text =
            format!("[packs.\"sha256:{}\"]\ncamera = {{ devices = [\"video0\"] }}\ngpu = true\n[packs.x]\ngpu = false", hex::encode(MINE));
        let policy = policy(&text);
        assert_eq!(policy.grants("y", &MINE, false).camera.expect("granted").devices, ["video0"]);
        assert!(!policy.grants("x", &MINE, false).gpu);
    }

    #[test]
    fn a_change_counts_at_the_next_call_and_a_call_keeps_what_it_has() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        let file = PolicyFile::at(path.clone()).expect("no file yet");
        let before = file.grants_for("system", &MINE, &Origin::Embedded);
        assert!(Arc::ptr_eq(&before, &file.grants_for("system", &MINE, &Origin::Embedded)), "kept ready");
        std::fs::write(&path, "[packs.system]\nprocess = { allow = [\"df\"] }\n[limits]\ncalls = 3").expect("written");
        assert!(file.grants_for("system", &MINE, &Origin::Embedded).process.is_some() && before.process.is_none());
        assert_eq!((file.edition(), file.edition()), (1, 1), "read once");
        assert_eq!(file.limits().calls, 3);
    }

    #[test]
    fn a_broken_change_keeps_the_last_good_policy_until_it_is_mended() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[packs.camera]\ncamera = true").expect("written");
        let file = PolicyFile::at(path.clone()).expect("good");
        std::fs::write(&path, "[packs.camera]\ncamera = tru").expect("written");
        assert!(file.grants_for("camera", &MINE, &Origin::Embedded).camera.is_some());
        assert_eq!(file.edition(), 0, "nothing counts that was not before");
        std::fs::write(&path, "[packs.camera]\ncamera = false").expect("written");
        assert!(file.grants_for("camera", &MINE, &Origin::Embedded).camera.is_none());
        assert_eq!(file.edition(), 1);
        std::fs::write(&path, "camera = tru").expect("written");
        assert!(PolicyFile::at(path).is_err(), "at start it is refused");
    }

    #[test]
    fn hosts_and_secrets_are_granted_like_everything_else() {
        let policy =
            policy("[packs.system]\nsecrets = [\"token\"]\nhttp = { hosts = [\"api.example.org\"] }\n[packs.gpu]\nhttp = { hosts = [] }");
        let granted = |pack: &str, embedded: bool| {
            let grants = policy.grants(pack, &MINE, embedded);
            (is_granted(&grants, Power::Http), is_granted(&grants, Power::Secrets))
        };
        assert_eq!(granted("system", true), (true, true));
        assert_eq!(granted("system", false), (false, false), "a deployed pack of that name gets nothing");
        assert_eq!(granted("gpu", true), (false, false), "a list without hosts is no grant");
    }

    #[test]
    fn place_messages_and_screens_are_granted_one_by_one() {
        let text = "[packs.system]\nlocation = { coarse = true }\n[packs.gpu]\nnotify = true\nscreen = { displays = [] }\n\
                    [packs.camera]\nscreen = true\nlocation = false\nnotify = false";
        let policy = policy(text);
        let granted = |pack: &str, embedded: bool| {
            let grants = policy.grants(pack, &MINE, embedded);
            [Power::Location, Power::Notify, Power::Screen].map(|power| is_granted(&grants, power))
        };
        assert_eq!(granted("system", true), [true, false, false]);
        assert_eq!(granted("gpu", true), [false, true, false], "a list without displays is no grant");
        assert_eq!(granted("camera", true), [false, false, true]);
        assert_eq!(granted("system", false), [false; 3], "a deployed pack of that name gets nothing");
        assert!(policy.grants("system", &MINE, true).location.is_some_and(|grant| grant.coarse));
    }

    #[test]
    fn a_refusal_says_what_to_type() {
        insta::assert_snapshot!(explain("system", Power::Process), @"this machine's policy does not let pack `system` use `process`; on that machine: agent allow system process PROGRAM");
        assert_eq!(remedy("camera", Power::Camera), "agent allow camera camera");
        assert_eq!(remedy("shots", Power::Http), "agent allow shots http HOST");
    }
}
