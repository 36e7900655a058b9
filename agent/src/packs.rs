//! The packs that answer on this machine: the embedded ones and those that were deployed.
//!
//! A lookup hands out one `Arc`, so a call ends on the version it began with whatever happens meanwhile. Changes come one
//! at a time: load, link and compile first, then the disk ([`crate::shelf`]), then one swap of the table. A pack that
//! does not load is reported and the agent starts without it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use outhaul_home::{Home, Secret};
use outhaul_host::{Compiler, Host, HostConfig};
use outhaul_protocol::describe::AnnouncedPack;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, random, sha256};
use outhaul_protocol::time::Time;
use tokio::sync::{Mutex, Notify};
use zeroize::Zeroizing;

pub use crate::active::Active;
use crate::active::Table;
use crate::config::AgentConfig;
use crate::pins;
use crate::shelf::{Entry, Index, Shelf, Version};

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
    /// Unix seconds
    pub installed_at: Option<u64>,
}

/// All packs of an agent.
pub struct PackSet {
    host: Host,
    shelf: Shelf,
    table: RwLock<Arc<Table>>,
    index: Mutex<Index>,
    embedded: BTreeMap<String, Arc<Active>>,
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

/// A host as an agent's home and configuration have it.
fn host(home: &Home, config: &AgentConfig) -> Result<Host, Failure> {
    let agent = &home.agent()?;
    // Another fleet's packs find nothing of this one's.
    let fleet = pins::current_fleet(home)?;
    let (key, _) = outhaul_home::load_or_create_secret_key(&agent.join("cache.key"), || CacheKey(Zeroizing::new(random())))?;
    let program =
        std::env::current_exe().map_err(|error| Failure::new(Code::Internal, format!("find the agent's own program: {error}")))?;
    Host::new(HostConfig {
        cache: Some(agent.join("cache")),
        cache_key: *key.0,
        compiler: Compiler::Child { program, args: vec![COMPILE.into()] },
        memory_bytes: config.limits.memory_mib as usize * (1 << 20),
        calls: config.limits.calls,
        camera_test_pattern: config.camera.test_pattern,
        kv: fleet.map(|fleet| agent.join("kv").join(fleet.to_string())),
    })
}

impl PackSet {
    /// Loads all packs of a home; compiled code comes from its cache.
    pub async fn open(home: &Home, config: &AgentConfig) -> Result<Self, Failure> {
        let host = host(home, config)?;
        PackSet::with(host, Shelf::new(&home.agent()?)).await
    }

    /// The same with a host of the caller's.
    pub async fn with(host: Host, shelf: Shelf) -> Result<Self, Failure> {
        let index = shelf.index()?;
        shelf.sweep(&index);
        let mut embedded = BTreeMap::new();
        for (name, bytes) in EMBEDDED {
            match host.load(Bytes::from_static(bytes)).await.and_then(|pack| Active::of(pack, true)) {
                Ok(active) => drop(embedded.insert(name.to_owned(), Arc::new(active))),
                Err(failure) => tracing::error!(pack = name, reason = %failure.message, "an embedded pack does not load"),
            }
        }
        let mut table = Table::of(embedded.values().cloned());
        for (name, entry) in &index.packs {
            let Some(digest) = entry.active() else { continue };
            let loaded = match shelf.get(digest) {
                Ok(bytes) => host.load(bytes).await.and_then(|pack| Active::of(pack, false)),
                Err(failure) => Err(failure),
            };
            match loaded.and_then(|active| table.admits(&active).map(|()| active)) {
                Ok(active) => {
                    let others = table.by_name.values().filter(|other| other.name() != active.name()).cloned().collect::<Vec<_>>();
                    table = Table::of(others.into_iter().chain([Arc::new(active)]));
                }
                Err(failure) => {
                    tracing::error!(pack = name, digest = %digest.short(), reason = %failure.message, "an installed pack does not load")
                }
            }
        }
        Ok(PackSet { host, shelf, table: RwLock::new(Arc::new(table)), index: Mutex::new(index), embedded, changed: Notify::new() })
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

    /// What an announce says about them.
    #[must_use]
    pub fn announced(&self) -> Vec<AnnouncedPack> {
        self.table().by_name.values().map(|active| active.announced()).collect()
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

    /// Installs a component and makes it the active version of its name.
    pub async fn install(&self, bytes: Bytes, now: Time) -> Result<Installed, Failure> {
        let mut index = self.index.lock().await;
        let digest = sha256(&bytes);
        let pack = self.host.load(bytes.clone()).await?;
        if Some(digest) == embedded_digest(pack.name()) {
            let name = pack.name().to_owned();
            return self.switch(&mut index, &name, None).await;
        }
        let active = Arc::new(Active::of(pack, false)?);
        self.table().admits(&active)?;
        let mut next = index.clone();
        let entry = next.packs.entry(active.name().to_owned()).or_default();
        if !entry.has(digest) {
            let version = active.pack().version().to_owned();
            entry.versions.push(Version { digest: digest.to_string(), version, installed_at: now.0 });
        }
        entry.activate(Some(digest));
        // Also when it is here already: to deploy again is how a damaged file is mended.
        let shelf = self.shelf.clone();
        blocking(move || shelf.put(digest, &bytes)).await?;
        self.commit(&mut index, next, active)
    }

    /// Makes an installed version, or the embedded one, the active one.
    pub async fn activate(&self, name: &str, digest: Digest) -> Result<Installed, Failure> {
        let mut index = self.index.lock().await;
        if embedded_digest(name) == Some(digest) {
            return self.switch(&mut index, name, None).await;
        }
        match index.packs.get(name) {
            Some(entry) if entry.has(digest) => self.switch(&mut index, name, Some(digest)).await,
            Some(_) => Err(unknown(format!("version {} of pack `{name}` is not on this node", digest.short()))),
            None => Err(no_pack(name)),
        }
    }

    /// Makes the version that was active before the active one.
    pub async fn rollback(&self, name: &str) -> Result<Installed, Failure> {
        let mut index = self.index.lock().await;
        let Some(entry) = index.packs.get(name) else {
            return Err(if is_embedded(name) { nothing_before(name) } else { no_pack(name) });
        };
        match entry.previous() {
            None if entry.active.is_none() || !is_embedded(name) => Err(nothing_before(name)),
            previous => self.switch(&mut index, name, previous).await,
        }
    }

    /// Takes a pack out with all its versions; gives their digests. An embedded one of that name answers again.
    pub async fn remove(&self, name: &str) -> Result<Vec<Digest>, Failure> {
        let mut index = self.index.lock().await;
        let Some(entry) = index.packs.get(name) else {
            return Err(if is_embedded(name) {
                Failure::new(Code::BadParams, format!("pack `{name}` came with the agent and cannot be removed"))
                    .hint("its powers can be denied: agent deny PACK POWER")
            } else {
                no_pack(name)
            });
        };
        let removed = entry.versions.iter().filter_map(|version| version.digest.parse().ok()).collect();
        let embedded = self.embedded.get(name).cloned();
        let others = self.others(name);
        if let Some(embedded) = &embedded {
            Table::of(others.clone()).admits(embedded)?;
        }
        let mut next = index.clone();
        next.packs.remove(name);
        self.shelf.keep(&mut next)?;
        *index = next;
        self.publish(Table::of(others.into_iter().chain(embedded)));
        Ok(removed)
    }

    /// All versions there are, by name, the active first.
    pub async fn list(&self) -> Vec<Listed> {
        let index = self.index.lock().await.clone();
        let table = self.table();
        let answers = |name: &str, digest: Digest| table.by_name.get(name).is_some_and(|active| active.digest() == digest);
        let mut all = Vec::new();
        for (name, active) in &self.embedded {
            let (digest, version) = (active.digest(), active.pack().version().to_owned());
            all.push(Listed { name: name.clone(), version, digest, active: answers(name, digest), embedded: true, installed_at: None });
        }
        for (name, entry) in &index.packs {
            for Version { digest, version, installed_at } in &entry.versions {
                let Ok(digest) = digest.parse() else { continue };
                let (active, installed_at) = (answers(name, digest), Some(*installed_at));
                all.push(Listed { name: name.clone(), version: version.clone(), digest, active, embedded: false, installed_at });
            }
        }
        all.sort_by(|a, b| (&a.name, !a.active, a.installed_at).cmp(&(&b.name, !b.active, b.installed_at)));
        all
    }

    /// Loads a version that is here and makes it the active one; `None` is the embedded one.
    async fn switch(&self, index: &mut Index, name: &str, digest: Option<Digest>) -> Result<Installed, Failure> {
        let active = match digest {
            None => self.embedded.get(name).cloned().ok_or_else(|| no_pack(name))?,
            Some(digest) => {
                let shelf = self.shelf.clone();
                let bytes = blocking(move || shelf.get(digest)).await?;
                Arc::new(Active::of(self.host.load(bytes).await?, false)?)
            }
        };
        self.table().admits(&active)?;
        let mut next = index.clone();
        match next.packs.get_mut(name) {
            Some(entry) => entry.activate(digest),
            // Only the embedded one is here and it answers already.
            None => return Ok(Installed { replaced: None, active }),
        }
        self.commit(index, next, active)
    }

    /// Disk first, then the table. Nothing here waits: a call that is cancelled in between would leave the two apart.
    fn commit(&self, index: &mut Index, mut next: Index, active: Arc<Active>) -> Result<Installed, Failure> {
        self.shelf.keep(&mut next)?;
        *index = next;
        let before = self.named(active.name()).map(|before| before.digest());
        let others = self.others(active.name());
        self.publish(Table::of(others.into_iter().chain([active.clone()])));
        Ok(Installed { replaced: before.filter(|before| *before != active.digest()), active })
    }

    fn others(&self, name: &str) -> Vec<Arc<Active>> {
        self.table().by_name.values().filter(|active| active.name() != name).cloned().collect()
    }

    fn publish(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
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
    Failure::new(Code::BadParams, message).hint("list what is here: relay pack list NODE")
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
