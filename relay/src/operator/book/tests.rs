//! What the book believes and what it refuses; and an owner with a home of its own, for other tests too.

use super::*;
use crate::operator::enrol::Enroller;
use outhaul_home::Home;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::RevokedSet;
use outhaul_protocol::keys::{SecretKey, X25519Secret, random};
use outhaul_protocol::objects::{Grant, Rights};
use std::sync::Arc;

/// An owner with a home of its own.
pub(in crate::operator) struct Owner {
    pub(in crate::operator) room: Room,
    pub(in crate::operator) fleet: Fleet,
    pub(in crate::operator) key: Arc<SecretKey>,
    pub(in crate::operator) chain: Vec<Blob>,
    _dir: tempfile::TempDir,
}

pub(in crate::operator) fn grant(signer: &SecretKey, fleet: &SecretKey, holder: &SecretKey) -> Grant {
    let any = || vec!["*".to_owned()];
    Grant {
        iss: signer.id(),
        aud: fleet.id(),
        exp: now().plus(3600),
        iat: now(),
        cti: random(),
        holder: holder.public(),
        commands: any(),
        nodes: any(),
        evidence_channel: true,
        rights: Rights::all(),
        delegate: true,
        holder_kind: None,
    }
}

impl Owner {
    pub(in crate::operator) fn new() -> Owner {
        let dir = tempfile::tempdir().expect("a folder");
        let room = Room::of(&Home::find(Some(dir.path().to_owned())).expect("a home"));
        let fleet_key = SecretKey::generate();
        let (key, _) = room.key_or_new().expect("a key");
        let grant = grant(&fleet_key, &fleet_key, &key);
        let chain = vec![Blob(Signed::sign(&fleet_key, &grant).into_bytes())];
        room.adopt(&fleet_key.public(), &chain, None).expect("adopts");
        let fleet = Fleet { key: fleet_key.public(), revoked: RevokedSet::empty(), revocations: None, relays: None };
        Owner { room, fleet, key, chain, _dir: dir }
    }

    pub(in crate::operator) fn book(&self) -> Book {
        Book::open(&self.room, &self.fleet).expect("a book")
    }

    pub(in crate::operator) fn node(&self, key: &SecretKey, name: &str, serial: u64, replaces: Option<KeyId>) -> NodeRecord {
        let node = Node {
            iss: self.key.id(),
            aud: self.fleet.key.id(),
            exp: now().plus(3600),
            iat: now(),
            node: key.public(),
            mailbox: X25519Secret::generate().public(),
            name: name.into(),
            labels: BTreeMap::new(),
            serial,
            replaces,
        };
        let enroller = Enroller { fleet: self.fleet.clone(), key: self.key.clone(), chain: self.chain.clone(), room: self.room.clone() };
        record(enroller.sign(&node).expect("signs"))
    }

    pub(in crate::operator) fn announce(&self, key: &SecretKey, boot_count: u64, hostname: &str) -> Option<Blob> {
        let content =
            AnnounceContent { boot_count, facts: [("hostname".to_owned(), hostname.to_owned())].into(), ..AnnounceContent::default() };
        let announce =
            Announce { iss: key.id(), aud: self.fleet.key.id(), iat: now(), boot_count, serial: 1, content: Blob(content.to_bytes()) };
        Some(Blob(Signed::sign(key, &announce).into_bytes()))
    }
}

fn record(certificate: Vec<u8>) -> NodeRecord {
    let status = "online".to_owned();
    NodeRecord { certificate: Blob(certificate), status, connected_at: 1, last_seen: 2, heartbeat: None, announce: None, prekey: None }
}

#[test]
fn exact_id_then_name_then_prefix() {
    let (owner, one, two) = (Owner::new(), SecretKey::generate(), SecretKey::generate());
    let mut book = owner.book();
    for (key, name) in [(&one, "bench-1"), (&two, "bench-2")] {
        book.learn(&owner.node(key, name, 1, None)).expect("learns");
    }
    let book = owner.book();
    let id = one.id().to_string();
    for text in ["bench-1", &id, &id[..12]] {
        assert_eq!(book.resolve(text).expect(text), Some(one.id()), "{text}");
    }
    assert_eq!(book.resolve("bench").expect("none"), None);
    let failure = book.unknown("bench-3");
    assert_eq!(failure.code, Code::UnknownNode);
    assert_eq!(failure.hint, Some(format!("the nodes are bench-1 ({}), bench-2 ({})", one.id().short(), two.id().short())));
}

#[test]
fn a_clash_of_names_lists_both() {
    let (owner, one, two) = (Owner::new(), SecretKey::generate(), SecretKey::generate());
    let mut book = owner.book();
    book.learn(&owner.node(&one, "bench-1", 1, None)).expect("learns");
    book.learn(&owner.node(&two, "bench-1", 1, None)).expect("learns");
    let failure = book.resolve("bench-1").expect_err("two");
    assert_eq!(failure.code, Code::AmbiguousNode);
    assert!(failure.message.contains(&one.id().short()) && failure.message.contains(&two.id().short()));
}

#[test]
fn a_successor_takes_the_name_and_the_old_node_is_forgotten() {
    let (owner, one, two) = (Owner::new(), SecretKey::generate(), SecretKey::generate());
    let mut book = owner.book();
    book.learn(&owner.node(&one, "bench-1", 1, None)).expect("learns");
    book.learn(&owner.node(&two, "bench-1", 1, Some(one.id()))).expect("learns");
    assert_eq!(book.resolve("bench-1").expect("one"), Some(two.id()));
    assert_eq!(owner.book().names().count(), 1);
}

#[test]
fn an_older_certificate_changes_nothing_and_a_newer_renames() {
    let (owner, key) = (Owner::new(), SecretKey::generate());
    let mut book = owner.book();
    book.learn(&owner.node(&key, "new", 2, None)).expect("learns");
    assert_eq!(book.learn(&owner.node(&key, "old", 1, None)).expect("keeps").known.node.name, "new");
    assert_eq!(book.learn(&owner.node(&key, "other", 2, None)).expect_err("two truths").code, Code::BadSignature);
    book.learn(&owner.node(&key, "newest", 3, None)).expect("learns");
    assert_eq!(owner.book().names().map(|(_, name)| name.to_owned()).collect::<Vec<_>>(), ["newest"]);
}

#[test]
fn an_older_announce_is_not_believed() {
    let (owner, key) = (Owner::new(), SecretKey::generate());
    let mut record = owner.node(&key, "bench-1", 1, None);
    for (boot, hostname, shown) in [(2, "second", "second"), (1, "first", "second"), (3, "third", "third")] {
        record.announce = owner.announce(&key, boot, hostname);
        let seen = owner.book().learn(&record).expect("learns");
        assert_eq!(seen.known.fact("hostname"), Some(shown));
    }
    record.announce = owner.announce(&SecretKey::generate(), 9, "forged");
    assert_eq!(owner.book().learn(&record).expect_err("forged").code, Code::BadKey);
}

#[test]
fn a_node_of_another_fleet_is_refused() {
    let (owner, other) = (Owner::new(), Owner::new());
    let record = other.node(&SecretKey::generate(), "bench-1", 1, None);
    assert!(owner.book().learn(&record).is_err());
    assert_eq!(owner.book().names().count(), 0);
}
