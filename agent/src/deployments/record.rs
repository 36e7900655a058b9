//! One name's newest document, and where this node stands with it; in memory and on disk.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::objects::{Deployment, DeploymentDocument, NodeLabels};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::text::escape_control;
use outhaul_protocol::time::Time;
use serde::{Deserialize, Serialize};

use super::{FIRST_RETRY, LONGEST_RETRY};

/// What a document asks of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Nothing: it is for others.
    Keep,
    /// That the pack is not there.
    Out,
    /// That this version answers.
    Version(Digest),
}

/// Why something was not done, as it is kept and told: without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Why {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Why {
    pub(super) fn of(failure: &Failure) -> Self {
        let escaped = |text: &String| escape_control(text).into_owned();
        Why { code: failure.code, message: escaped(&failure.message), hint: failure.hint.as_ref().map(escaped) }
    }
}

/// Where a node stands with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is to be acted on, perhaps again: with what stood in the way last.
    Pending(Option<Why>),
    /// It was done.
    Done,
    /// It cannot be done as things are.
    Failed(Why),
}

/// When a failure is looked at again. Not kept: a start looks at everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Now,
    At(Instant),
    OnChange,
}

/// A document and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Record {
    document: DeploymentDocument,
    said: Deployment,
    digest: Digest,
    conflict: Option<Digest>,
    standing: Standing,
    aim: Aim,
    since: Time,
    retry: Retry,
    attempts: u32,
}

/// The same on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    document: String,
    state: String,
    since: u64,
    /// `keep`, `out` or a digest
    aim: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
}

impl Record {
    /// A document that was proven and is to be acted on.
    pub(super) fn new(document: DeploymentDocument, said: &Verified<Deployment>, node: &NodeLabels, now: Time) -> Self {
        let (digest, said) = (said.digest(), Deployment::clone(said));
        let (aim, standing, retry) = (aim(&said, node), Standing::Pending(None), Retry::Now);
        Record { document, said, digest, conflict: None, standing, aim, since: now, retry, attempts: 0 }
    }

    /// What the disk kept. It is proven again before anything is done by it.
    pub(super) fn of(name: &str, kept: Kept) -> Result<Self, String> {
        let bytes = STANDARD.decode(&kept.document).map_err(|error| format!("key `document`: {error}"))?;
        let document = DeploymentDocument::decode(&bytes).map_err(|error| format!("key `document`: {error}"))?;
        let signed = Signed::<Deployment>::from_bytes(&document.document.0).map_err(|error| error.to_string())?;
        let (digest, said) = (signed.digest(), signed.unverified().clone());
        if said.name != name {
            return Err(format!("its document is about `{}`", escape_control(&said.name)));
        }
        let code = kept.code.as_deref().map(|code| Code::parse(code).unwrap_or(Code::Internal));
        let why = |code| Why { code, message: kept.message.clone().unwrap_or_default(), hint: kept.hint.clone() };
        let standing = match kept.state.as_str() {
            "pending" => Standing::Pending(code.map(why)),
            "done" => Standing::Done,
            "failed" => Standing::Failed(why(code.unwrap_or(Code::Internal))),
            other => return Err(format!("key `state`: {other:?} is none")),
        };
        let aim = match kept.aim.as_str() {
            "keep" => Aim::Keep,
            "out" => Aim::Out,
            digest => Aim::Version(digest.parse().map_err(|error| format!("key `aim`: {error}"))?),
        };
        let conflict = kept.conflict.as_deref().map(str::parse).transpose().map_err(|error| format!("key `conflict`: {error}"))?;
        let (since, retry) = (Time(kept.since), Retry::Now);
        Ok(Record { document, said, digest, conflict, standing, aim, since, retry, attempts: 0 })
    }

    pub(super) fn kept(&self) -> Kept {
        let (state, why) = match &self.standing {
            Standing::Pending(why) => ("pending", why.clone()),
            Standing::Done => ("done", None),
            Standing::Failed(why) => ("failed", Some(why.clone())),
        };
        Kept {
            document: STANDARD.encode(self.document.encode()),
            state: state.to_owned(),
            since: self.since.0,
            aim: match self.aim {
                Aim::Keep => "keep".to_owned(),
                Aim::Out => "out".to_owned(),
                Aim::Version(digest) => digest.to_string(),
            },
            code: why.as_ref().map(|why| why.code.as_str().to_owned()),
            message: why.as_ref().map(|why| why.message.clone()),
            hint: why.and_then(|why| why.hint),
            conflict: self.conflict.map(|digest| digest.to_string()),
        }
    }

    pub(super) fn document(&self) -> &DeploymentDocument {
        &self.document
    }

    pub(super) fn said(&self) -> &Deployment {
        &self.said
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn conflict(&self) -> Option<Digest> {
        self.conflict
    }

    /// What the standing is about.
    pub(super) fn aim(&self) -> Aim {
        self.aim
    }

    /// What the document asks of a node of this name and these labels.
    pub(super) fn aim_for(&self, node: &NodeLabels) -> Aim {
        aim(&self.said, node)
    }

    /// The same document with another chain: the signer's grant was renewed. Whether it differs.
    pub(super) fn renew(&mut self, document: &DeploymentDocument) -> bool {
        if self.document.chain == document.chain {
            return false;
        }
        self.document.chain.clone_from(&document.chain);
        self.retry();
        true
    }

    /// Somebody signed another document of this serial.
    pub(super) fn conflicts_with(&mut self, other: Digest) {
        self.conflict = Some(other);
    }

    /// What failed is tried again at once.
    pub(super) fn retry(&mut self) {
        (self.retry, self.attempts) = (Retry::Now, 0);
    }

    pub(super) fn is_due(&self, node: &NodeLabels, now: Instant) -> bool {
        let waited = match self.retry {
            Retry::Now => true,
            Retry::At(at) => at <= now,
            Retry::OnChange => false,
        };
        (self.standing != Standing::Done && waited) || self.aim_for(node) != self.aim
    }

    /// Whether there is something to tell who waits. What the relay lacks somebody has to bring.
    pub(super) fn is_decided(&self) -> bool {
        match &self.standing {
            Standing::Pending(why) => why.as_ref().is_some_and(|why| why.code == Code::DigestMismatch),
            Standing::Done | Standing::Failed(_) => true,
        }
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.retry {
            Retry::At(at) if self.standing != Standing::Done => Some(at),
            _ => None,
        }
    }

    /// Notes an outcome. What may pass by itself stays pending and is tried again; the rest waits for a change.
    pub(super) fn settle(&mut self, aim: Aim, outcome: Result<(), Failure>, at: Time) {
        let name = &self.said.name;
        let standing = match outcome {
            Ok(()) => Standing::Done,
            Err(failure) => {
                let why = Why::of(&failure);
                if may_pass(why.code) {
                    self.retry = Retry::At(Instant::now() + pause(self.attempts));
                    self.attempts = self.attempts.saturating_add(1);
                    Standing::Pending(Some(why))
                } else {
                    self.retry = Retry::OnChange;
                    Standing::Failed(why)
                }
            }
        };
        if (&standing, aim) == (&self.standing, self.aim) {
            return;
        }
        match &standing {
            Standing::Done => tracing::info!(name, serial = self.said.serial, aim = ?aim, "deployment done"),
            Standing::Pending(Some(why)) => {
                tracing::warn!(name, serial = self.said.serial, code = %why.code, reason = why.message, "a deployment has to wait");
            }
            Standing::Pending(None) => {}
            Standing::Failed(why) => {
                tracing::error!(name, serial = self.said.serial, code = %why.code, reason = why.message, "a deployment failed");
            }
        }
        (self.standing, self.aim, self.since) = (standing, aim, at);
    }
}

/// Bytes of a document with its chain.
pub(super) fn bytes(document: &DeploymentDocument) -> usize {
    document.document.0.len() + document.chain.iter().map(|grant| grant.0.len()).sum::<usize>()
}

fn aim(said: &Deployment, node: &NodeLabels) -> Aim {
    match said.target_of(node).map(|target| &target.release) {
        None => Aim::Keep,
        Some(None) => Aim::Out,
        Some(Some(release)) => Aim::Version(release.component),
    }
}

/// Whether the same may go well a little later. What the relay lacks, it may be sent.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Busy | Code::LinkLost | Code::Deadline | Code::Truncated | Code::DigestMismatch | Code::Internal | Code::BadConfig)
}

fn pause(attempts: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << attempts.min(10)).min(LONGEST_RETRY)
}
