//! The agent's run: one [`Node`] for as long as the process lives, one [`Link`] after another. Dials, serves until the
//! link is lost, waits a jittered while, dials again; gives up only when the relay says that it never will.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outhaul_home::Home;
use outhaul_host::power;
use outhaul_link::backoff::Backoff;
use outhaul_link::dial::{self, Connected, Identity, Target};
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::{AnnounceContent, GpuSummary, Heartbeat, PackList};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Role;
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey, random};
use outhaul_protocol::limits;
use outhaul_protocol::objects::Announce;
use outhaul_protocol::publisher::Trust;
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::{Clock, Reading, Time};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::config::AgentConfig;
use crate::deployments::Deployments;
use crate::link::{self, Link};
use crate::packs::{Active, PackSet};
use crate::pins::Membership;
use crate::policy::PolicyFile;
use crate::prekey::Prekeys;
use crate::receipts::Receipts;
use crate::trust::trust_of;

/// No clock that is right shows less: the day this version was begun, 2026-11-21.
pub const BUILT: Time = Time(1_795_219_200);
/// Time for calls to end when the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What outlives links.
#[derive(Debug)]
pub struct Node {
    /// signs announces, prekeys and receipts
    pub key: SecretKey,
    /// its id
    pub id: KeyId,
    /// this boot, random
    pub boot: [u8; 16],
    /// this boot, counted
    pub boot_count: u64,
    /// when it began
    pub started: Instant,
    /// keys channels are opened to
    pub prekeys: Prekeys,
    /// the chain of receipts
    pub receipts: Receipts,
    /// calls under way and ended lately
    pub calls: Calls,
    /// what can be run
    pub packs: PackSet,
    /// which packs the fleet's operators want here
    pub deployments: Deployments,
    /// what it may do
    pub policy: PolicyFile,
    /// a prekey is worn
    pub wake: Notify,
    membership: RwLock<Membership>,
    clock: Mutex<Clock>,
    clock_sure: AtomicBool,
    announces: AtomicU64,
    facts: std::collections::BTreeMap<String, String>,
    link: Mutex<Option<Arc<Link>>>,
}

/// The owner's ceilings, as they are now.
#[derive(Debug, Clone, Copy)]
pub struct PolicyLimits {
    /// the longest a call may run
    pub deadline: Duration,
    /// calls under way
    pub calls: usize,
    /// bytes of output of one call
    pub output: u64,
}

impl Node {
    async fn open(home: &Home, config: &AgentConfig) -> Result<Arc<Self>, Failure> {
        let folder = home.agent()?;
        let path = folder.join("agent.key");
        if !path.exists() {
            return Err(Failure::new(Code::NotPaired, format!("this machine's key is gone: `{}`", path.display()))
                .hint("put it back, or pair again for a new one: agent pair --relay URL --code CODE"));
        }
        let key: SecretKey = outhaul_home::read_secret_key(&path)?;
        let mut membership = Membership::load(home)?;
        let boot_count = membership.bump_boot()?;
        let clock = Clock::new(BUILT, membership.clock_floor());
        let boot = random();
        let now = clock.read(unix_now()).now;
        let prekeys = Prekeys::new(&key, membership.fleet().id(), boot, now);
        let receipts = Receipts::open(folder.join("receipts.toml"))?;
        let packs = PackSet::open(home, config, &trust_of(Some(&membership), config)).await?;
        let node = Arc::new(Node {
            id: key.id(),
            key,
            boot,
            boot_count,
            started: Instant::now(),
            prekeys,
            receipts,
            calls: Calls::default(),
            packs,
            deployments: Deployments::open(membership.folder())?,
            policy: PolicyFile::open(home)?,
            wake: Notify::new(),
            membership: RwLock::new(membership),
            clock: Mutex::new(clock),
            clock_sure: AtomicBool::new(true),
            announces: AtomicU64::new(0),
            facts: crate::facts::gather(),
            link: Mutex::new(None),
        });
        node.mind_the_clock();
        Ok(node)
    }

    /// Says it once when the machine's clock cannot be right, and once when it can be again: expiry is judged by it.
    fn mind_the_clock(&self) {
        let (own, reading) = (unix_now(), self.reading());
        match (self.clock_sure.swap(reading.sure, Ordering::Relaxed), reading.sure) {
            (true, false) => {
                tracing::warn!(clock = %own, taken_for = %reading.now, "this machine's clock cannot be right; what expires is judged by what it is taken for");
            }
            (false, true) => tracing::info!(clock = %own, "this machine's clock can be right again"),
            _ => {}
        }
    }

    /// The clock, with whether it is sure.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).read(unix_now())
    }

    /// Pins, certificate, revocations. Held briefly, never across a wait.
    pub fn membership(&self) -> RwLockReadGuard<'_, Membership> {
        self.membership.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn membership_mut(&self) -> RwLockWriteGuard<'_, Membership> {
        self.membership.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose packs are taken now.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let config = self.policy.policy().config;
        trust_of(Some(&self.membership()), &config)
    }

    /// The fleet key's id.
    #[must_use]
    pub fn fleet_id(&self) -> KeyId {
        self.membership().fleet().id()
    }

    /// The owner's ceilings.
    #[must_use]
    pub fn policy_limits(&self) -> PolicyLimits {
        self.policy.limits()
    }

    /// The link, while there is one.
    #[must_use]
    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, link: Option<Arc<Link>>) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// A fleet-signed object: true when it was newer and is kept now.
    pub(crate) fn accept_notice(&self, kind: &str, signed: &[u8], chain: Vec<Blob>) -> Result<bool, Failure> {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        self.membership_mut().accept_notice(kind, signed, chain, &mut clock, unix_now())
    }

    /// The packs that answer now, each with the powers that policy does not grant it, and those of them that wait for the
    /// owner again.
    pub(crate) fn pack_list(&self) -> PackList {
        let announced = |active: &Active| {
            let (name, digest, origin) = (active.name(), active.digest().0, active.origin());
            let grants = self.policy.grants_for(name, &digest, origin);
            let waiting = self.policy.waiting_for(name, &digest, origin, active.powers());
            active.announced(|power| crate::policy::is_granted(&grants, power), &waiting)
        };
        PackList(self.packs.active().iter().map(|active| announced(active)).collect())
    }

    /// A signed announce of this list, and of the machine.
    pub(crate) fn announce(&self, list: &PackList) -> Vec<u8> {
        let serial = self.announces.fetch_add(1, Ordering::Relaxed) + 1;
        let (boot_count, facts) = (self.boot_count, self.facts.clone());
        let content = AnnounceContent { boot_count, seq: serial, facts, ..AnnounceContent::default() }.with_packs(list);
        let announce = Announce {
            iss: self.id,
            aud: self.fleet_id(),
            iat: self.reading().now,
            boot_count: self.boot_count,
            serial,
            content: Blob(content.to_bytes()),
        };
        Signed::sign(&self.key, &announce).into_bytes()
    }

    pub(crate) fn rotate_prekey(&self) {
        self.prekeys.rotate(&self.key, self.fleet_id(), self.reading().now);
    }

    /// Keeps what changes slowly, forgets what is old, ends calls whose callers never came back.
    pub(crate) fn upkeep(&self) {
        self.mind_the_clock();
        self.calls.sweep();
        let kept = Duration::from_secs(limits::CALL_KEPT_SECS);
        for running in self.calls.running() {
            if running.outlet.alone().is_some_and(|alone| alone >= kept) {
                running.stop(Failure::new(Code::LinkLost, "its caller did not come back within ten minutes"));
            }
        }
        let floor = {
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.tick(unix_now());
            clock.floor()
        };
        let kept = self.receipts.keep(false).and_then(|()| self.membership_mut().keep_clock_floor(floor));
        if let Err(failure) = kept {
            tracing::error!(reason = %failure.message, "cannot keep the agent's state");
        }
    }
}

/// The machine's clock.
#[must_use]
pub fn unix_now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// This machine's figures as they travel.
pub(crate) fn heartbeat() -> Vec<u8> {
    let figures = power::system::heartbeat();
    let gpus = power::gpu::summary().map(|summary| GpuSummary {
        count: summary.count,
        memory_used: summary.memory_used,
        memory_total: summary.memory_total,
        utilization: summary.utilization,
    });
    Heartbeat { cpu_percent: figures.cpu_percent, memory_percent: figures.memory_percent, uptime_secs: figures.uptime_secs, gpus }
        .to_bytes()
}

/// Runs until told to stop, or until the relay refuses this node for good.
pub async fn run(home: &Home, shutdown: CancellationToken) -> Result<(), Failure> {
    let config = AgentConfig::load(home)?;
    let target = target(home, &config)?;
    let node = Node::open(home, &config).await?;
    tracing::info!(node = %node.id.short(), name = node.membership().labels().name, packs = node.packs.count(), "agent started");
    let mut backoff = Backoff::default();
    let mut reachable = true;
    let outcome = loop {
        let dialed = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            dialed = connect(&node, &target) => dialed,
        };
        match dialed {
            Ok(connected) => {
                reachable = true;
                tracing::debug!(relay = %target.url, session = connected.session, "the link is up");
                let ended = link::serve(node.clone(), target.url.to_string(), connected, shutdown.clone(), || backoff.reset()).await;
                if shutdown.is_cancelled() {
                    break Ok(());
                }
                tracing::warn!(reason = ended, "link lost");
            }
            Err(failure) if is_final(failure.code) => break Err(crate::pair::anew(home, failure)),
            Err(failure) => {
                // A change of state is logged once, not per attempt.
                if std::mem::replace(&mut reachable, false) {
                    tracing::warn!(code = %failure.code, reason = %failure.message, "cannot connect; trying again");
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    };
    drain(&node).await;
    node.receipts.keep(true)?;
    outcome
}

/// Refusals that no later attempt changes: somebody has to act.
fn is_final(code: Code) -> bool {
    matches!(code, Code::Revoked | Code::NotPaired | Code::Version | Code::BadConfig | Code::BadUsage)
}

fn target(home: &Home, config: &AgentConfig) -> Result<Target, Failure> {
    let unset = || {
        Failure::new(Code::NotPaired, format!("`{}` names no relay", home.join("agent/agent.toml").display()))
            .hint("pair this machine first: agent pair --relay URL --code CODE")
    };
    let url = RelayUrl::parse(config.relay.as_deref().ok_or_else(unset)?)?;
    Ok(Target { url, roots: Roots { ca: config.ca.clone(), floor: None }, allow_plaintext: config.allow_plaintext })
}

async fn connect(node: &Node, target: &Target) -> Result<Connected, Failure> {
    let (certificate, relays) = {
        let membership = node.membership();
        (membership.certificate_bytes(), membership.relay_keys())
    };
    let identity = Identity { role: Role::Node, key: &node.key, credential: Blob(certificate), lookup: None };
    let roots = Roots { floor: Some(node.reading().now), ..target.roots.clone() };
    dial::dial(&Target { roots, ..target.clone() }, identity, |relay| trust(&relays, relay)).await
}

fn trust(relays: &[PublicKey], relay: &PublicKey) -> Result<(), Failure> {
    if relays.contains(relay) {
        return Ok(());
    }
    let text = format!("the relay's key {} is not one of this fleet's", relay.id().short());
    Err(Failure::new(Code::BadKey, text).hint("another relay answers at this address; if it was replaced on purpose, pair again"))
}

/// Cancels what runs and gives it a moment to end.
async fn drain(node: &Node) {
    for running in node.calls.running() {
        running.stop(Failure::new(Code::LinkLost, "the agent stops"));
    }
    let empty = async {
        while node.calls.count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, empty).await;
}
