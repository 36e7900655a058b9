//! Deployments as this node knows them: the newest document of each pack's name, what it asks of this node, and what came of
//! it. A document is taken when it verifies, its chain stands now and is for this node, and its serial rises; it is on
//! the disk before anything is done about it, so that no relay, hostile or restored from a backup, brings an older one back.
//!
//! A document is acted on once ([`work`]), and again when this node's name or labels come to mean something else in it.
//! What the machine is told directly afterwards stands until the next document. A node that a document does not mean keeps
//! what it has.

mod record;
mod shown;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outhaul_home::{PRIVATE, read_toml_optional, write_atomic};
use outhaul_protocol::chain::{RevokedSet, follows, verify_deployment};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, PublicKey};
use outhaul_protocol::limits;
use outhaul_protocol::native::INSTALL;
use outhaul_protocol::objects::{Deployment, DeploymentDocument, Evidence, NodeLabels, valid_name};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::{Reading, Time};
use tokio::sync::{Notify, watch};

pub(crate) use self::record::{Aim, Standing};
use self::record::{Kept, Record, Why};
pub(crate) use self::shown::answer;
#[cfg(test)]
pub(crate) use self::shown::told;
pub(crate) use self::work::work;

/// The kind, as notices name it.
pub(crate) const DEPLOYMENT: &str = "deployment";
/// Names whose last refusal is remembered. The names are whoever's word: the oldest go.
const REFUSED: usize = 32;
/// Documents that may wait to be judged: what a relay hands out on a connect, and as many in channels.
const OFFERED: usize = 2 * limits::DEPLOYMENTS;
/// Their bytes.
const OFFERED_BYTES: usize = 2 * limits::DEPLOYMENTS_BYTES;
/// The first wait before something that may pass is tried again; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// What a document is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) fleet: &'a PublicKey,
    pub(crate) node: &'a NodeLabels,
    pub(crate) clock: Reading,
    pub(crate) revoked: &'a RevokedSet,
}

impl Judge<'_> {
    /// Proves a document here and now: its signature, its chain, and that each grant of it is for this node.
    pub(crate) fn prove(&self, document: &DeploymentDocument) -> Result<Verified<Deployment>, Failure> {
        let (said, authority) = verify_deployment(self.fleet, document, self.clock, self.revoked)?;
        authority.allows_call(INSTALL, Evidence::Signed, self.node, self.clock, self.revoked)?;
        Ok(said)
    }
}

/// A document that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) serial: u64,
    pub(crate) why: Why,
    pub(crate) at: Time,
}

/// Something to be done: what one document asks of this node.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) document: DeploymentDocument,
    pub(crate) digest: Digest,
    pub(crate) aim: Aim,
}

/// All that is known.
#[derive(Debug)]
pub struct Deployments {
    path: PathBuf,
    state: Mutex<State>,
    wake: Notify,
    decided: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, Record>,
    refused: BTreeMap<String, Refused>,
    offered: VecDeque<DeploymentDocument>,
}

impl Deployments {
    /// What a fleet's folder holds.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("deployments.toml");
        let kept: BTreeMap<String, Kept> = read_toml_optional(&path)?.unwrap_or_default();
        let mut records = BTreeMap::new();
        for (name, kept) in kept {
            let record = Record::of(&name, kept).map_err(|what| {
                let text = format!("read `{}`, key `{name}`: {what}", path.display());
                Failure::new(Code::BadConfig, text).hint("put the file back; without it this node would follow older deployments again")
            })?;
            records.insert(name, record);
        }
        let state = Mutex::new(State { records, ..State::default() });
        Ok(Deployments { path, state, wake: Notify::new(), decided: watch::Sender::new(0) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A document from whoever, to be judged soon. What is known already costs nothing.
    pub(crate) fn offer(&self, document: DeploymentDocument) {
        let mut state = self.state();
        if state.records.values().any(|record| record.document() == &document) {
            return;
        }
        let waiting: usize = state.offered.iter().map(record::bytes).sum();
        if state.offered.len() >= OFFERED || waiting + record::bytes(&document) > OFFERED_BYTES {
            // An honest relay has it still when there is room again: on the next connect, or when an operator looks.
            return tracing::warn!("more deployments are offered than a fleet has; one is left out");
        }
        state.offered.push_back(document);
        drop(state);
        self.wake.notify_one();
    }

    /// Something changed that a failure may have rested on: it is tried again.
    pub(crate) fn retry(&self) {
        self.state().records.values_mut().for_each(Record::retry);
        self.wake.notify_one();
    }

    /// Waits until there is something to look at.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Tells whoever waits for a decision.
    pub(crate) fn decisions(&self) -> watch::Receiver<u64> {
        self.decided.subscribe()
    }

    /// Judges what was offered. What is taken is on the disk when this returns.
    pub(crate) fn take_offered(&self, judge: &Judge<'_>) {
        let offered = std::mem::take(&mut self.state().offered);
        if offered.is_empty() {
            return;
        }
        let before = self.state().records.clone();
        let mut taken = false;
        for document in offered {
            match self.take(&document, judge) {
                Ok(newer) => taken |= newer,
                Err(failure) => self.refuse(&document, Why::of(&failure), judge.clock.now),
            }
        }
        if taken && let Err(failure) = self.keep() {
            tracing::error!(reason = %failure.message, "cannot keep deployments, so none is followed");
            self.state().records = before;
        }
        self.decided.send_modify(|count| *count += 1);
    }

    /// Takes one document when it is newer; whether anything changed.
    fn take(&self, document: &DeploymentDocument, judge: &Judge<'_>) -> Result<bool, Failure> {
        let said = judge.prove(document)?;
        let mut state = self.state();
        let known = state.records.get_mut(&said.name);
        let place = known.as_ref().map(|record| (record.said().serial, record.digest()));
        match follows(place, &said) {
            Ok(true) => {}
            Ok(false) => return Ok(known.is_some_and(|record| record.renew(document))),
            Err(outdated) => {
                if let Some(record) = known.filter(|record| record.said().serial == said.serial) {
                    record.conflicts_with(said.digest());
                }
                return Err(outdated.into());
            }
        }
        let forked = |(serial, digest): &(u64, Digest)| serial + 1 == said.serial && said.previous.is_some_and(|named| named != *digest);
        if let Some((serial, digest)) = place.filter(forked) {
            tracing::warn!(name = said.name, serial, digest = %digest.short(), "a deployment follows another one than was known here");
        }
        let others: Vec<&Record> = state.records.values().filter(|record| record.said().name != said.name).collect();
        let bytes: usize = others.iter().map(|record| record::bytes(record.document())).sum();
        if others.len() >= limits::DEPLOYMENTS || bytes + record::bytes(document) > limits::DEPLOYMENTS_BYTES {
            return Err(Failure::new(Code::TooLarge, format!("this node knows at most {} deployments", limits::DEPLOYMENTS)));
        }
        tracing::info!(name = said.name, serial = said.serial, signer = %said.iss.short(), "took a newer deployment");
        state.refused.remove(&said.name);
        let record = Record::new(document.clone(), &said, judge.node, judge.clock.now);
        state.records.insert(said.name.clone(), record);
        Ok(true)
    }

    /// Remembers why a document was not taken, for operators who ask.
    fn refuse(&self, document: &DeploymentDocument, why: Why, at: Time) {
        let claimed = Signed::<Deployment>::from_bytes(&document.document.0).ok();
        let said = claimed.as_ref().map(Signed::unverified).filter(|said| valid_name(&said.name));
        let Some(said) = said else {
            return tracing::warn!(code = %why.code, reason = why.message, "refused a deployment");
        };
        let mut state = self.state();
        let again = state.refused.get(&said.name).is_some_and(|last| (last.serial, last.why.code) == (said.serial, why.code));
        if !again {
            tracing::warn!(name = said.name, serial = said.serial, code = %why.code, reason = why.message, "refused a deployment");
        }
        if state.refused.len() >= REFUSED && !state.refused.contains_key(&said.name) {
            let oldest = state.refused.iter().min_by_key(|(_, refused)| refused.at).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| state.refused.remove(&oldest));
        }
        state.refused.insert(said.name.clone(), Refused { serial: said.serial, why, at });
    }

    /// What is to be done next for a node of this name and these labels.
    pub(crate) fn next(&self, node: &NodeLabels, now: Instant) -> Option<Job> {
        let state = self.state();
        let due = state.records.iter().find(|(_, record)| record.is_due(node, now))?;
        let (name, record) = due;
        Some(Job { name: name.clone(), document: record.document().clone(), digest: record.digest(), aim: record.aim_for(node) })
    }

    /// How long nothing is to be done, unless something happens.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        let soonest = self.state().records.values().filter_map(Record::retry_at).min();
        soonest.map_or(LONGEST_RETRY, |at| at.saturating_duration_since(now)).min(LONGEST_RETRY)
    }

    /// Notes what came of a job, unless a newer document took its place meanwhile.
    pub(crate) fn settle(&self, job: &Job, outcome: Result<(), Failure>, at: Time) {
        {
            let mut state = self.state();
            let Some(record) = state.records.get_mut(&job.name).filter(|record| record.digest() == job.digest) else { return };
            record.settle(job.aim, outcome, at);
        }
        if let Err(failure) = self.keep() {
            // At the next start it is looked at again, and found done.
            tracing::error!(reason = %failure.message, "cannot keep what came of a deployment");
        }
        self.decided.send_modify(|count| *count += 1);
    }

    /// Whether a deployment of this serial or a later one is done, has failed or was refused.
    pub(crate) fn dealt_with(&self, name: &str, serial: u64) -> bool {
        let state = self.state();
        let decided = |record: &Record| record.said().serial >= serial && record.is_decided();
        state.records.get(name).is_some_and(decided) || state.refused.get(name).is_some_and(|refused| refused.serial >= serial)
    }

    fn keep(&self) -> Result<(), Failure> {
        let kept: BTreeMap<String, Kept> = self.state().records.iter().map(|(name, record)| (name.clone(), record.kept())).collect();
        let text = toml::to_string(&kept).map_err(|error| Failure::new(Code::Internal, format!("write the deployments: {error}")))?;
        write_atomic(&self.path, text.as_bytes(), PRIVATE)
    }
}

#[cfg(test)]
mod tests;
