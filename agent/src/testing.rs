//! A fleet for tests: its keys, an owner with every right, and what they sign.

use std::collections::BTreeMap;

use outhaul_home::Home;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{RevokedSet, verify_certificate, verify_relays, verify_revocations};
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey, X25519Public, random};
use outhaul_protocol::objects::{Certificate, Grant, Node, Relays, RevocationList, Revocations, Rights};
use outhaul_protocol::pairing::Welcome;
use outhaul_protocol::signed::{Payload, Signed};
use outhaul_protocol::time::{Reading, Time};

use crate::pins::Membership;
use crate::run::unix_now;

pub(crate) struct Fleet {
    pub(crate) key: SecretKey,
    pub(crate) owner: SecretKey,
    pub(crate) relay: SecretKey,
    pub(crate) publishers: Vec<PublicKey>,
}

pub(crate) fn signed<T: Payload>(by: &SecretKey, object: &T) -> Blob {
    Blob(Signed::sign(by, object).into_bytes())
}

pub(crate) fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().expect("a folder");
    let home = Home::find(Some(dir.path().join("home"))).expect("a home");
    (dir, home)
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Fleet { key: SecretKey::generate(), owner: SecretKey::generate(), relay: SecretKey::generate(), publishers: vec![] }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.key.id()
    }

    pub(crate) fn grant(&self, holder: &SecretKey, rights: Rights) -> Blob {
        let all = || vec!["*".to_owned()];
        let grant = Grant {
            iss: self.id(),
            aud: self.id(),
            exp: unix_now().plus(86_400),
            iat: unix_now(),
            cti: random(),
            holder: holder.public(),
            commands: all(),
            nodes: all(),
            evidence_channel: true,
            rights,
            delegate: false,
            holder_kind: None,
        };
        signed(&self.key, &grant)
    }

    pub(crate) fn chain(&self) -> Vec<Blob> {
        vec![self.grant(&self.owner, Rights::all())]
    }

    pub(crate) fn node(&self, node: PublicKey, mailbox: X25519Public, name: &str, serial: u64) -> Blob {
        let node = Node {
            iss: self.owner.id(),
            aud: self.id(),
            exp: unix_now().plus(86_400),
            iat: unix_now(),
            node,
            mailbox,
            name: name.to_owned(),
            labels: BTreeMap::new(),
            serial,
            replaces: None,
        };
        signed(&self.owner, &node)
    }

    pub(crate) fn relays(&self, serial: u64, iat: Time) -> Blob {
        let urls = vec!["ws://127.0.0.1:8765".to_owned()];
        signed(&self.key, &Relays { iss: self.id(), aud: self.id(), iat, serial, keys: vec![self.relay.public()], urls })
    }

    pub(crate) fn revocations(&self, by: &SecretKey, serial: u64, keys: &[KeyId]) -> Blob {
        signed(by, &Revocations { iss: by.id(), aud: self.id(), iat: unix_now(), serial, keys: keys.to_vec(), ctis: vec![], next: None })
    }

    pub(crate) fn welcome(&self, node: PublicKey, mailbox: X25519Public, name: &str) -> Welcome {
        Welcome {
            fleet: self.key.public(),
            successor: None,
            certificate: Certificate { node: self.node(node, mailbox, name, 1), chain: self.chain() },
            relays: self.relays(1, unix_now()),
            revocations: Some(RevocationList { list: self.revocations(&self.key, 1, &[]), chain: vec![] }),
            publishers: self.publishers.clone(),
        }
    }

    /// What a machine of this fleet knows after its pairing; nothing is on disk yet.
    pub(crate) fn member(&self, home: &Home, key: &SecretKey, name: &str, now: Reading) -> Membership {
        let mailbox = crate::pins::mailbox(home).expect("made").public();
        let welcome = self.welcome(key.public(), mailbox, name);
        let fleet = self.key.public();
        let node = verify_certificate(&fleet, &welcome.certificate, now, &RevokedSet::empty()).expect("stands");
        let relays = verify_relays(&fleet, &welcome.relays.0, now).expect("stands");
        let list = welcome.revocations.as_ref().expect("is there");
        let verified = verify_revocations(&fleet, list, now, &RevokedSet::empty()).expect("stands");
        let revoked = RevokedSet::empty().follow(&verified, &fleet).expect("first");
        Membership::from_welcome(home, &welcome, node, relays, revoked, now)
    }
}
