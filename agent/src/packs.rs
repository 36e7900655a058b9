//! The packs that answer on this machine: the embedded ones and those that were deployed.
//!
//! A lookup hands out one `Arc`, so a call ends on the version it began with whatever happens meanwhile. Changes come one
//! at a time: load, link and compile first, then the disk ([`crate::shelf`]), then one swap of the table. A pack that
//! does not load is reported and the agent starts without it.
//!
//! There are two ways in: a pack came with this agent, or a publisher whom this machine trusts signed it. The signature
//! lies beside the component and is verified again whenever one is loaded; [`Active`] is made of nothing else. When a
//! publisher counts no more, its packs stop at once, not only at the next start: a revoked key may be a thief's, and a
//! pack that went on would end some night when nobody expects it. Its calls under way are ended ([`PackSet::review`]).

mod vouched;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use outhaul_home::{Home, Secret};
use outhaul_host::power::containers;
use outhaul_host::power::http::Outside;
use outhaul_host::power::seat;
use outhaul_host::{Compiler, Host, HostConfig};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, SecretKey, random, sha256};
use outhaul_protocol::publisher::Trust;
use tokio::sync::{Mutex, Notify};
use zeroize::Zeroizing;

pub use self::vouched::Shipment;
use self::vouched::shelved;
pub use crate::active::Active;
use crate::active::Table;
use crate::config::AgentConfig;
use crate::shelf::{Entry, Index, Shelf, Version};
use crate::{outside, pins};

/// The packs every agent has, by name.
pub const EMBEDDED: [(&str, &[u8]); 3] = [
    ("gpu", include_bytes!("../../plugins/dist/gpu.wasm")),
    ("system", include_bytes!("../../plugins/dist/system.wasm")),
    ("camera", include_bytes!("../../plugins/dist/camera.wasm")),
];

/// The hidden subcommand that compiles one pack in a process of its own.
pub const COMPILE: &str = "compile-pack";

/// Whether a name came with this agent.
#[must_use]
pub fn is_embedded(name: &str) -> bool {
    EMBEDDED.iter().any(|(embedded, _)| *embedded == name)
}

/// The digest of an embedded pack.
#[must_use]
pub fn embedded_digest(name: &str) -> Option<Digest> {
    EMBEDDED.iter().find(|(embedded, _)| *embedded == name).map(|(_, bytes)| sha256(bytes))
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Installed {
    /// What answers now.
    pub active: Arc<Active>,
    /// What answered before.
    pub replaced: Option<Digest>,
}

/// A version in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// its pack's name
    pub name: String,
    /// its version
    pub version: String,
    /// of its component
    pub digest: Digest,
    /// whether it answers
    pub active: bool,
    /// whether it came with the agent
    pub embedded: bool,
    /// why it is out of service, if it answers but is
    pub quarantined: Option<String>,
    /// Unix seconds
    pub installed_at: Option<u64>,
    /// the key that signed it
    pub publisher: Option<String>,
    /// why it does not answer though it should
    pub refused: Option<String>,
}

/// All packs of an agent.
pub struct PackSet {
    host: Host,
    shelf: Shelf,
    table: RwLock<Arc<Table>>,
    index: Mutex<Index>,
    embedded: BTreeMap<String, Arc<Active>>,
    withheld: std::sync::Mutex<HashMap<Digest, String>>,
    changed: Notify,
}

impl std::fmt::Debug for PackSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.table().by_name.keys()).finish()
    }
}

/// Authenticates compiled code on disk, so that nothing but this agent's own work is ever executed.
struct CacheKey(Zeroizing<[u8; 32]>);

impl Secret for CacheKey {
    const LABEL: &'static str = "outhaul compile cache secret key v1";
    fn of(bytes: &[u8; 32]) -> Self {
        CacheKey(Zeroizing::new(*bytes))
    }
    fn bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }
}

/// A host as an agent's configuration has it. Containers are told from those of other agents by the name of its node. Compiled code is kept in a folder, with the key that signs it, or nowhere; what packs keep, in
/// another.
pub(crate) fn host(
    folder: Option<&Path>,
    config: &AgentConfig,
    outside: Outside,
    kv: Option<PathBuf>,
    node: String,
) -> Result<Host, Failure> {
    let key = match folder {
        Some(folder) => outhaul_home::load_or_create_secret_key(&folder.join("cache.key"), || CacheKey(Zeroizing::new(random())))?.0,
        None => CacheKey(Zeroizing::new(random())),
    };
    let program =
        std::env::current_exe().map_err(|error| Failure::new(Code::Internal, format!("find the agent's own program: {error}")))?;
    Host::new(HostConfig {
        cache: folder.map(|folder| folder.join("cache")),
        cache_key: *key.0,
        compiler: Compiler::Child { program, args: vec![COMPILE.into()] },
        memory_bytes: config.limits.memory_mib as usize * (1 << 20),
        calls: config.limits.calls,
        camera_test_pattern: config.camera.test_pattern,
        kv,
        outside,
        seat: seat::Config { location: config.location.clone(), notify: config.notify.clone(), screen: config.screen.clone() },
        containers: containers::Config { socket: config.containers.socket.clone().map(|socket| socket.0), node, ..Default::default() },
    })
}

impl PackSet {
    /// Loads all packs of a home; compiled code comes from its cache.
    pub async fn open(home: &Home, config: &AgentConfig, trust: &Trust) -> Result<Self, Failure> {
        let agent = home.agent()?;
        // By fleet: another one's packs find nothing of this one's.
        let kv = pins::current_fleet(home)?.map(|fleet| agent.join("kv").join(fleet.to_string()));
        let key = agent.join("agent.key");
        let node = if key.exists() { outhaul_home::read_secret_key::<SecretKey>(&key)?.id().to_string() } else { "unpaired".into() };
        let host = host(Some(&agent), config, outside::of(home), kv, node)?;
        if config.packs.values().any(|pack| pack.containers.is_some()) {
            host.tend_containers();
        }
        PackSet::with(host, Shelf::new(&agent), trust).await
    }

    /// The same with a host of the caller's.
    pub async fn with(host: Host, shelf: Shelf, trust: &Trust) -> Result<Self, Failure> {
        let index = shelf.index()?;
        shelf.sweep(&index);
        let mut embedded = BTreeMap::new();
        for (name, bytes) in EMBEDDED {
            match host.load(Bytes::from_static(bytes)).await.and_then(Active::embedded_pack) {
                Ok(active) => drop(embedded.insert(name.to_owned(), Arc::new(active))),
                Err(failure) => tracing::error!(pack = name, reason = %failure.message, "an embedded pack does not load"),
            }
        }
        let mut table = Table::of(embedded.values().cloned());
        let mut withheld = HashMap::new();
        for (name, entry) in &index.packs {
            let Some(digest) = entry.active() else { continue };
            let loaded = shelved(&host, &shelf, trust, digest).await;
            match loaded.and_then(|active| table.admits(&active).map(|()| active)) {
                Ok(active) => table = table.with(Arc::new(active)),
                Err(failure) => {
                    tracing::error!(pack = name, digest = %digest.short(), code = %failure.code, reason = %failure.message, "an installed pack does not load");
                    withheld.insert(digest, failure.message);
                }
            }
        }
        let (table, index) = (RwLock::new(Arc::new(table)), Mutex::new(index));
        Ok(PackSet { host, shelf, table, index, embedded, withheld: withheld.into(), changed: Notify::new() })
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pack that answers an interface.
    #[must_use]
    pub fn find(&self, interface: &str) -> Option<Arc<Active>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).by_interface.get(interface).cloned()
    }

    /// The active pack of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Active>> {
        self.table().by_name.get(name).cloned()
    }

    /// How many answer.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().by_name.len()
    }

    /// The active packs.
    #[must_use]
    pub fn active(&self) -> Vec<Arc<Active>> {
        self.table().by_name.values().cloned().collect()
    }

    /// The description of a digest, if it is an active pack's.
    #[must_use]
    pub fn description(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        self.table().by_name.values().find(|active| active.described() == digest).map(|active| active.description().to_vec())
    }

    /// Waits until other packs answer than before; a change that nobody waited for counts for the next who does.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Makes an installed version, or the embedded one, the active one. To name an older one is the caller's signed word.
    pub async fn activate(&self, name: &str, digest: Digest, trust: &Trust) -> Result<Installed, Failure> {
        let mut index = self.index.lock().await;
        if embedded_digest(name) == Some(digest) {
            return self.switch(&mut index, name, None, trust).await;
        }
        match index.packs.get(name) {
            Some(entry) if entry.has(digest) => self.switch(&mut index, name, Some(digest), trust).await,
            Some(_) => Err(unknown(format!("version {} of pack `{name}` is not on this node", digest.short()))),
            None => Err(no_pack(name)),
        }
    }

    /// Makes the version that was active before the active one.
    pub async fn rollback(&self, name: &str, trust: &Trust) -> Result<Installed, Failure> {
        let mut index = self.index.lock().await;
        let Some(entry) = index.packs.get(name) else {
            return Err(if is_embedded(name) { nothing_before(name) } else { no_pack(name) });
        };
        match entry.previous() {
            None if entry.active.is_none() || !is_embedded(name) => Err(nothing_before(name)),
            previous => self.switch(&mut index, name, previous, trust).await,
        }
    }

    /// Takes a pack out with all its versions; gives their digests. An embedded one of that name answers again.
    pub async fn remove(&self, name: &str) -> Result<Vec<Digest>, Failure> {
        let mut index = self.index.lock().await;
        let Some(entry) = index.packs.get(name) else {
            return Err(if is_embedded(name) {
                Failure::new(Code::BadParams, format!("pack `{name}` came with the agent and cannot be removed"))
                    .hint(format!("its powers can be denied on that machine: agent deny {name} POWER"))
            } else {
                no_pack(name)
            });
        };
        let removed = entry.versions.iter().filter_map(|version| version.digest.parse().ok()).collect();
        let embedded = self.embedded.get(name).cloned();
        if let Some(embedded) = &embedded {
            self.table().without(name).admits(embedded)?;
        }
        let mut next = index.clone();
        next.packs.remove(name);
        self.shelf.keep(&mut next)?;
        *index = next;
        self.publish(|table| match embedded {
            Some(embedded) => table.with(embedded),
            None => table.without(name),
        });
        Ok(removed)
    }

    fn withheld(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, String>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All versions there are, by name, the active first.
    pub async fn list(&self) -> Vec<Listed> {
        let index = self.index.lock().await.clone();
        let table = self.table();
        let active = |name: &str, digest: Digest| table.by_name.get(name).filter(|active| active.digest() == digest);
        let answers = |name: &str, digest: Digest| {
            let found = active(name, digest);
            (found.is_some(), found.and_then(|active| active.conduct().reason()))
        };
        let mut all = Vec::new();
        for (name, active) in &self.embedded {
            let (digest, version) = (active.digest(), active.pack().version().to_owned());
            let (active, quarantined) = answers(name, digest);
            let (name, installed_at, publisher, refused) = (name.clone(), None, None, None);
            all.push(Listed { name, version, digest, active, embedded: true, quarantined, installed_at, publisher, refused });
        }
        for (name, entry) in &index.packs {
            for Version { digest, version, installed_at, publisher, .. } in &entry.versions {
                let Ok(digest) = digest.parse() else { continue };
                let (active, quarantined) = answers(name, digest);
                let refused = self.withheld().get(&digest).filter(|_| !active && entry.active() == Some(digest)).cloned();
                all.push(Listed {
                    name: name.clone(),
                    version: version.clone(),
                    digest,
                    active,
                    embedded: false,
                    quarantined,
                    installed_at: Some(*installed_at),
                    publisher: publisher.clone(),
                    refused,
                });
            }
        }
        all.sort_by(|a, b| (&a.name, !a.active, a.installed_at).cmp(&(&b.name, !b.active, b.installed_at)));
        all
    }

    /// Loads a version that is here and makes it the active one; `None` is the embedded one.
    async fn switch(&self, index: &mut Index, name: &str, digest: Option<Digest>, trust: &Trust) -> Result<Installed, Failure> {
        let active = match digest {
            None => self.embedded.get(name).cloned().ok_or_else(|| no_pack(name))?,
            Some(digest) => Arc::new(shelved(&self.host, &self.shelf, trust, digest).await?),
        };
        self.table().admits(&active)?;
        let mut next = index.clone();
        match next.packs.get_mut(name) {
            Some(entry) => entry.activate(digest),
            // Only the embedded one is here and it answers already.
            None => {
                active.conduct().forgive();
                return Ok(Installed { replaced: None, active });
            }
        }
        self.commit(index, next, active)
    }

    /// Disk first, then the table. Nothing here waits: a call that is cancelled in between would leave the two apart.
    fn commit(&self, index: &mut Index, mut next: Index, active: Arc<Active>) -> Result<Installed, Failure> {
        self.shelf.keep(&mut next)?;
        *index = next;
        active.conduct().forgive();
        self.withheld().remove(&active.digest());
        let before = self.named(active.name()).map(|before| before.digest());
        self.publish(|table| table.with(active.clone()));
        Ok(Installed { replaced: before.filter(|before| *before != active.digest()), active })
    }

    /// Puts another picture in the table's place. Nobody else changes it in between.
    fn publish(&self, change: impl FnOnce(&Table) -> Table) {
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            *table = Arc::new(change(&table));
        }
        self.changed.notify_one();
    }
}

/// Which version of a name answers by the index alone, for commands that load nothing.
#[must_use]
pub fn active_of(index: &Index, name: &str) -> Option<(Digest, bool)> {
    match index.packs.get(name).and_then(Entry::active) {
        Some(digest) => Some((digest, false)),
        None => embedded_digest(name).map(|digest| (digest, true)),
    }
}

fn unknown(message: String) -> Failure {
    Failure::new(Code::BadParams, message).hint("`relay pack list` shows what is there")
}

fn no_pack(name: &str) -> Failure {
    unknown(format!("this node has no pack `{}`", name.escape_debug()))
}

fn nothing_before(name: &str) -> Failure {
    unknown(format!("no other version of pack `{name}` was active before"))
}

/// Writing may take its time: not on a runtime worker.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Failure::new(Code::Internal, format!("writing was cut short: {error}"))),
    }
}

#[cfg(test)]
mod tests;
