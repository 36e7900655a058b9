//! Everything the connections of one relay share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outhaul_home::Home;
use outhaul_link::accept::Acceptor;
use outhaul_link::tls::ServerTls;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Frame;
use outhaul_protocol::keys::{PublicKey, SecretKey};
use outhaul_protocol::time::Time;

use super::blobs::Blobs;
use super::channels::Channels;
use super::clock;
use super::deployments::{DEPLOYMENT, Deployments};
use super::notices::Notices;
use super::pairings::Pairings;
use super::sessions::Sessions;
use super::store::Db;
use super::worker::Worker;
use crate::config::Settings;
use crate::init::{Identity, RelayEnrol};

/// The shared state of a relay.
#[derive(Debug)]
pub struct Hub {
    pub(crate) key: SecretKey,
    pub(crate) fleet: PublicKey,
    pub(crate) settings: Settings,
    pub(crate) acceptor: Acceptor,
    pub(crate) sessions: Sessions,
    pub(crate) channels: Channels,
    pub(crate) pairings: Pairings,
    pub(crate) notices: Notices,
    pub(crate) deployments: Deployments,
    pub(crate) store: Worker<Db>,
    pub(crate) blobs: Worker<Blobs>,
    pub(crate) started: Instant,
    enrol: Mutex<Option<Arc<RelayEnrol>>>,
}

impl Hub {
    /// Opens what the relay keeps in its home.
    pub fn open(home: &Home, settings: Settings, identity: Identity) -> Result<Hub, Failure> {
        let folder = home.relay()?;
        let tls = settings.tls.as_ref().map(|(cert, key)| ServerTls::read(cert, key)).transpose()?;
        let mut db = Db::open(&folder.join("relay.db"))?;
        let notices = Notices::load(identity.fleet, &mut db)?;
        let deployments = Deployments::load(identity.fleet, &mut db)?;
        let blobs = Blobs::open(folder.join("packs"), settings.limits.packs_mib.saturating_mul(1 << 20))?;
        Ok(Hub {
            key: identity.key,
            fleet: identity.fleet,
            acceptor: Acceptor { tls, origins: Vec::new() },
            sessions: Sessions::default(),
            channels: Channels::default(),
            pairings: Pairings::new(settings.limits.guests),
            settings,
            notices,
            deployments,
            store: Worker::start("relay-store", db)?,
            blobs: Worker::start("relay-blobs", blobs)?,
            started: Instant::now(),
            enrol: Mutex::new(identity.enrol.map(Arc::new)),
        })
    }

    /// The relay's own key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// What this relay may certify by, if it may.
    pub(crate) fn enrol(&self) -> Option<Arc<RelayEnrol>> {
        self.enrol.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A renewed grant of the relay's own.
    pub(crate) fn set_enrol(&self, enrol: RelayEnrol) {
        *self.enrol.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(enrol));
    }

    /// The fleet's key.
    #[must_use]
    pub fn fleet(&self) -> &PublicKey {
        &self.fleet
    }

    /// Takes a notice from whoever brings it; nodes that are here hear of it, and sessions that it revokes end.
    pub(crate) async fn take_notice(self: &Arc<Self>, kind: &'static str, signed: Vec<u8>, chain: Vec<Blob>) -> Result<bool, Failure> {
        let hub = self.clone();
        self.store.ask(move |db| hub.notice(db, kind, &signed, &chain)).await?
    }

    /// The same on the store's thread.
    pub(crate) fn notice(&self, db: &mut Db, kind: &str, signed: &[u8], chain: &[Blob]) -> Result<bool, Failure> {
        if kind == DEPLOYMENT {
            return self.deployment(db, signed, chain);
        }
        let newer = self.notices.take(db, kind, signed, chain)?;
        if newer {
            for frame in self.notices.known().frames() {
                if matches!(&frame, Frame::Notice { kind: of, .. } if of == kind) {
                    self.sessions.nodes().iter().for_each(|node| node.session.say(&frame));
                }
            }
            self.sweep();
        }
        Ok(newer)
    }

    /// A deployment that is newer is kept, and told to the nodes that are here.
    fn deployment(&self, db: &mut Db, signed: &[u8], chain: &[Blob]) -> Result<bool, Failure> {
        let Some(frame) = self.deployments.take(db, signed, chain, &self.notices.known().revoked)? else { return Ok(false) };
        self.sessions.nodes().iter().for_each(|node| node.session.say_bytes(frame.clone()));
        Ok(true)
    }

    /// Ends sessions whose grants or keys count no more.
    pub(crate) fn sweep(&self) {
        let (revoked, clock) = (self.notices.known().revoked, clock::reading());
        for node in self.sessions.nodes() {
            if revoked.has_key(&node.id) {
                node.session.end(Code::Revoked.as_str(), "this machine's key is revoked");
            }
        }
        for operator in self.sessions.operators() {
            if let Err(refusal) = operator.authority.stands(clock, &revoked) {
                operator.session.end(refusal.code().as_str(), "your grants do not stand any more");
            }
        }
    }

    /// Removes what has run out, and ends sessions that rest on it.
    pub(crate) fn expire(&self) {
        self.pairings.expire();
        self.sweep();
    }

    /// Notes when the nodes that are here were last heard.
    pub(crate) async fn note_seen(&self) {
        let now = clock::now();
        let seen = |silence: Duration| Time(now.0.saturating_sub(silence.as_secs()));
        let nodes: Vec<_> = self.sessions.nodes().iter().map(|node| (node.id, seen(node.session.silence()))).collect();
        if let Err(failure) = self.store.ask(move |db| db.seen(&nodes)).await.and_then(|written| Ok(written?)) {
            tracing::warn!(reason = %failure.message, "could not note when nodes were last seen");
        }
    }

    /// Tells all that are here that the relay goes away.
    pub(crate) fn dismiss(&self) {
        const WORD: &str = "the relay stops";
        self.sessions.nodes().iter().for_each(|node| node.session.end("drain", WORD));
        self.sessions.operators().iter().for_each(|operator| operator.session.end("drain", WORD));
        self.pairings.dismiss(WORD);
    }

    /// Writes down what is only in memory or in the database's log.
    pub(crate) async fn flush(&self) {
        if let Err(failure) = self.store.ask(Db::checkpoint).await.and_then(|written| Ok(written?)) {
            tracing::warn!(reason = %failure.message, "could not write the database back");
        }
    }
}
