//! What a publisher's signature lets in, and what its end takes out: installing, loading what lies on the shelf, and judging
//! what answers when trust has changed.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_host::Host;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::pack::{self, compare_versions};
use outhaul_protocol::publisher::{Trust, Unproven, Vouched};
use outhaul_protocol::text::escape_control;
use outhaul_protocol::time::Reading;

use super::{Installed, PackSet, blocking};
use crate::active::{Active, Table};
use crate::shelf::{Index, Shelf, Version};

/// What comes with a component, signed with the call that ships it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shipment {
    /// its publisher's signature
    pub signature: Option<Vec<u8>>,
    /// whether it may be older than what there was
    pub downgrade: bool,
}

impl PackSet {
    /// Whether a component may be installed, by what is known before its bytes are here: nothing is fetched or compiled
    /// for nobody.
    pub async fn check(&self, digest: Digest, shipment: &Shipment, trust: &Trust, clock: Reading) -> Result<(), Failure> {
        let index = self.index.lock().await;
        self.vouch(&index, digest, shipment, trust, clock).map(drop).map_err(Failure::from)
    }

    /// Who vouches for a component; nobody has to for one that came with the agent.
    fn vouch(
        &self,
        index: &Index,
        digest: Digest,
        shipment: &Shipment,
        trust: &Trust,
        clock: Reading,
    ) -> Result<Option<Vouched>, Unproven> {
        if self.embedded.values().any(|embedded| embedded.digest() == digest) {
            return Ok(None);
        }
        let vouched = trust.admit(shipment.signature.as_deref(), digest, clock)?;
        not_older(index, &vouched, shipment.downgrade)?;
        Ok(Some(vouched))
    }

    /// Makes a version that is here the active one, for a document that names it: under a publisher's signature that still
    /// stands, and an older one only where the document says so. `None` when it is not here, or is damaged: then it has to
    /// be installed.
    pub async fn resume(&self, name: &str, digest: Digest, shipment: &Shipment, trust: &Trust) -> Result<Option<Installed>, Failure> {
        let mut index = self.index.lock().await;
        if let Some(embedded) = self.embedded.values().find(|embedded| embedded.digest() == digest) {
            if embedded.name() != name {
                let text =
                    format!("the component is pack `{}`, which came with the agent, not `{}`", embedded.name(), escape_control(name));
                return Err(Failure::new(Code::PackRejected, text));
            }
            return self.switch(&mut index, name, None, trust).await.map(Some);
        }
        if !index.packs.get(name).is_some_and(|entry| entry.has(digest)) {
            return Ok(None);
        }
        not_older(&index, &trust.keep(shipment.signature.as_deref(), digest)?, shipment.downgrade)?;
        match self.switch(&mut index, name, Some(digest), trust).await {
            Err(failure) if failure.code == Code::DigestMismatch => Ok(None),
            done => done.map(Some),
        }
    }

    /// Whether a version of this name was deployed here.
    pub async fn has(&self, name: &str) -> bool {
        self.index.lock().await.packs.contains_key(name)
    }

    /// Installs a component and makes it the active version of its name.
    pub async fn install(&self, bytes: Bytes, shipment: &Shipment, trust: &Trust, clock: Reading) -> Result<Installed, Failure> {
        let mut index = self.index.lock().await;
        let digest = sha256(&bytes);
        let Some(vouched) = self.vouch(&index, digest, shipment, trust, clock)? else {
            let name = pack::read(&bytes)?.manifest.name;
            return self.switch(&mut index, &name, None, trust).await;
        };
        let (key, signature) = (*vouched.key(), vouched.signature().to_vec());
        let active = Arc::new(vouched_pack(&self.host, bytes.clone(), vouched).await?);
        self.table().admits(&active)?;
        let mut next = index.clone();
        let entry = next.packs.entry(active.name().to_owned()).or_default();
        entry.put(Version {
            digest: digest.to_string(),
            version: active.pack().version().to_owned(),
            installed_at: clock.now.0,
            publisher: Some(key.to_string()),
            powers: active.powers().iter().map(|power| power.name().to_owned()).collect(),
        });
        entry.activate(Some(digest));
        next.note_version(key.id(), active.name(), active.pack().version())?;
        // Also when it is here already: to deploy again is how a damaged file is mended, and a signature renewed.
        let shelf = self.shelf.clone();
        blocking(move || shelf.put(digest, &bytes).and_then(|()| shelf.put_signature(digest, &signature))).await?;
        self.commit(&mut index, next, active)
    }

    /// Judges what answers by a trust that has changed: what no publisher vouches for any more stops, and an embedded
    /// pack takes its name back. Gives the digests of what stopped, whose calls are the caller's to end.
    pub fn review(&self, trust: &Trust) -> Vec<Digest> {
        let (mut gone, mut renewed) = (Vec::new(), Vec::new());
        for active in self.active() {
            let Some(vouched) = active.vouched() else { continue };
            match trust.review(vouched) {
                Ok(now) if now == *vouched => {}
                Ok(now) => renewed.push(Arc::new(active.vouched_anew(now))),
                Err(why) => {
                    tracing::warn!(pack = active.name(), digest = %active.digest().short(), reason = %why, "a pack stops answering");
                    self.withheld().insert(active.digest(), why.to_string());
                    gone.push(active);
                }
            }
        }
        if gone.is_empty() && renewed.is_empty() {
            return Vec::new();
        }
        self.publish(|table| {
            // What was replaced meanwhile was judged by whoever replaced it, and is looked at again after that.
            let still =
                |table: &Table, active: &Active| table.by_name.get(active.name()).is_some_and(|now| now.digest() == active.digest());
            let mut next = table.clone();
            for active in renewed.into_iter().filter(|active| still(table, active)) {
                next = next.with(active);
            }
            for active in gone.iter().filter(|active| still(table, active)) {
                next = next.without(active.name());
                if let Some(embedded) = self.embedded.get(active.name()).filter(|embedded| next.admits(embedded).is_ok()) {
                    next = next.with(embedded.clone());
                }
            }
            next
        });
        gone.iter().map(|active| active.digest()).collect()
    }
}

/// Refuses a version below the highest there ever was of this publisher's pack, unless that is meant.
fn not_older(index: &Index, vouched: &Vouched, downgrade: bool) -> Result<(), Unproven> {
    let said = vouched.publication();
    match index.highest(vouched.publisher().ids(), &said.name) {
        Some(highest) if !downgrade && compare_versions(&said.version, highest).is_lt() => Err(Unproven::Older {
            name: escape_control(&said.name).into_owned(),
            found: escape_control(&said.version).into_owned(),
            highest: highest.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The one way in for what lies on the shelf: bytes of this digest, under a signature that stands.
pub(super) async fn shelved(host: &Host, shelf: &Shelf, trust: &Trust, digest: Digest) -> Result<Active, Failure> {
    let shelf = shelf.clone();
    let (bytes, signature) = blocking(move || Ok((shelf.get(digest)?, shelf.signature(digest)?))).await?;
    vouched_pack(host, bytes, trust.keep(signature.as_deref(), digest)?).await
}

/// Loads what a publisher vouches for: these bytes, under their own name and version, with this manifest.
async fn vouched_pack(host: &Host, bytes: Bytes, vouched: Vouched) -> Result<Active, Failure> {
    vouched.check(&pack::read(&bytes)?)?;
    Active::of(host.load(bytes).await?, vouched)
}
