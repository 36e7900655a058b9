use super::*;
use crate::operator::book::tests::grant;
use outhaul_home::Home;
use outhaul_protocol::chain::RevokedSet;
use outhaul_protocol::keys::{SecretKey, sha256};
use outhaul_protocol::objects::{Grant, Revocations, Rights};
use std::sync::Arc;

/// An owner with a home, and the fleet's key.
struct Owner {
    fleet_key: SecretKey,
    fleet: Fleet,
    room: Room,
    key: Arc<SecretKey>,
    _dir: tempfile::TempDir,
}

impl Owner {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let room = Room::of(&Home::find(Some(dir.path().to_owned())).expect("a home"));
        let (fleet_key, (key, _)) = (SecretKey::generate(), room.key_or_new().expect("a key"));
        let fleet = Fleet { key: fleet_key.public(), revoked: RevokedSet::empty(), revocations: None, relays: None };
        Owner { fleet_key, fleet, room, key, _dir: dir }
    }

    fn enroller(&self) -> Enroller {
        let chain = vec![Blob(Signed::sign(&self.fleet_key, &grant(&self.fleet_key, &self.fleet_key, &self.key)).into_bytes())];
        Enroller { fleet: self.fleet.clone(), key: self.key.clone(), chain, room: self.room.clone() }
    }
}

/// The next document by somebody with a grant of this owner's fleet, changed.
fn signed(owner: &Owner, by: &Arc<SecretKey>, serial: u64, change: impl FnOnce(&mut Grant)) -> DeploymentDocument {
    let fleet = &owner.fleet_key;
    let mut given = grant(fleet, fleet, by);
    change(&mut given);
    let said = Deployment {
        iss: by.id(),
        aud: fleet.id(),
        iat: now(),
        name: "thermal".into(),
        serial,
        previous: None,
        targets: vec![target("*", None, None)],
    };
    let chain = vec![Blob(Signed::sign(fleet, &given).into_bytes())];
    DeploymentDocument { document: Blob(Signed::sign(by, &said).into_bytes()), chain }
}

fn newest_of(owner: &Owner, document: Option<&DeploymentDocument>) -> Newest {
    newest(&owner.room, &owner.fleet, "thermal", document).expect("reads")
}

#[test]
fn the_next_serial_comes_from_the_book_and_a_relay_that_knows_less_lowers_nothing() {
    let owner = Owner::new();
    assert_eq!((newest_of(&owner, None).serial, newest_of(&owner, None).order.is_none()), (0, true));
    let first = sign(&owner.enroller(), "thermal", &Newest::default(), vec![target("*", None, None)]).expect("signed");
    assert_eq!((first.said.serial, first.said.previous), (1, None));
    owner.room.note_deployment(&first).expect("kept");
    let second = sign(&owner.enroller(), "thermal", &newest_of(&owner, None), vec![target("*", None, None)]).expect("signed");
    assert_eq!((second.said.serial, second.said.previous), (2, Some(first.digest)));
    // Cut off between using the serial up and publishing: it is never used for something else.
    owner.room.use_serial("thermal", 2).expect("kept");
    let known = newest_of(&owner, Some(&first.document));
    assert_eq!((known.serial, known.order.map(|order| order.said.serial)), (2, Some(1)));
    // Another operator's, newer: it is built on, and remembered when the relay forgets it.
    let other = Arc::new(SecretKey::generate());
    let theirs = signed(&owner, &other, 5, |_| ());
    assert_eq!(newest_of(&owner, Some(&theirs)).serial, 5);
    assert_eq!(newest_of(&owner, Some(&first.document)).order.map(|order| order.said.iss), Some(other.id()));
    assert_eq!(owner.room.deployed_names(), ["thermal"]);
}

#[test]
fn what_somebody_wrote_who_no_longer_may_is_not_carried_on() {
    let owner = Owner::new();
    let other = Arc::new(SecretKey::generate());
    for (document, code) in [
        (signed(&owner, &other, 3, |grant| (grant.iat, grant.exp) = (Time(1), Time(2))), Code::Expired),
        (signed(&owner, &other, 4, |grant| grant.rights = Rights::default()), Code::NotGranted),
    ] {
        let known = newest_of(&owner, Some(&document));
        assert!(known.order.is_none() && known.passed_over.is_some_and(|failure| failure.code == code));
        assert!(known.serial >= 3, "nodes may know it");
    }
    let far = newest_of(&owner, Some(&signed(&owner, &other, u64::MAX, |grant| grant.exp = grant.iat.plus(0))));
    assert!(far.serial < SERIAL_STEP, "a claim alone uses few serials up");
    owner.room.note_deployment(&Order::read(&owner.fleet, signed(&owner, &other, 6, |_| ()), now()).expect("stands")).expect("kept");
    let fleet = &owner.fleet_key;
    let (aud, keys) = (fleet.id(), vec![other.id()]);
    let list = Revocations { iss: fleet.id(), aud, iat: now(), serial: 1, keys, ctis: vec![], next: None };
    let revoked = RevokedSet::empty().follow(&Signed::sign(fleet, &list), &fleet.public()).expect("first");
    let known = newest(&owner.room, &Fleet { revoked, ..owner.fleet.clone() }, "thermal", None).expect("reads");
    assert!(known.order.is_none() && known.passed_over.is_some_and(|failure| failure.code == Code::Revoked));
    assert_eq!(known.serial, 6);
}

fn release(version: &str) -> Release {
    let (component, signature) = (sha256(version.as_bytes()), Blob(vec![1]));
    Release { version: version.into(), component, signature, rotations: vec![], downgrade: false }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn target(nodes: &str, now: Option<&str>, before: Option<&str>) -> Target {
    Target { nodes: words(nodes), release: now.map(release), before: before.map(release) }
}

#[test]
fn a_new_target_comes_first_and_remembers_what_its_nodes_had() {
    let none = |_: &str| false;
    let one = placed(&[], &words("role=edge"), Some(release("1")), none);
    assert_eq!(one, [target("role=edge", Some("1"), None)]);
    let lab = placed(&one, &words("role=lab"), Some(release("2")), none);
    assert_eq!(lab, [target("role=lab", Some("2"), None), target("role=edge", Some("1"), None)]);
    let edge = placed(&lab, &words("role=edge"), Some(release("2")), none);
    assert_eq!(edge, [target("role=edge", Some("2"), Some("1")), target("role=lab", Some("2"), None)]);
    let again = placed(&edge, &words("role=edge"), Some(release("2")), none);
    assert_eq!(again, edge, "the same again loses nothing");
    let out = placed(&edge, &words("role=edge"), None, none);
    assert_eq!(out[0], target("role=edge", None, Some("2")));
    let all = placed(&edge, &words("*"), Some(release("3")), none);
    assert_eq!(all, [target("*", Some("3"), None)]);
    let alternatives = placed(&[target("b a", Some("1"), None)], &words("a b"), Some(release("2")), none);
    assert_eq!(alternatives, [target("a b", Some("2"), Some("1"))]);
}

#[test]
fn targets_of_single_nodes_go_when_all_of_them_are_meant_otherwise() {
    let before = [target("n1 n2", Some("2"), None), target("n3", Some("1"), None), target("role=edge", Some("1"), None)];
    let after = placed(&before, &words("role=edge"), Some(release("2")), |term| ["n1", "n2"].contains(&term));
    assert_eq!(after, [target("role=edge", Some("2"), Some("1")), target("n3", Some("1"), None)]);
}

#[test]
fn a_version_is_found_however_it_is_spelled() {
    let publication = |version: &str| Publication {
        iss: outhaul_protocol::keys::KeyId([1; 32]),
        exp: None,
        iat: Time(1),
        name: "thermal".into(),
        version: version.into(),
        component: sha256(version.as_bytes()),
        manifest: Digest([0; 32]),
    };
    let pushed = [(publication("1.2.0"), vec![7]), (publication("1.3.0"), vec![8])];
    let found =
        |version: &str| find_release(&pushed, &[], "thermal", version).iter().map(|release| release.version.clone()).collect::<Vec<_>>();
    assert_eq!(found("1.2"), ["1.2.0"]);
    assert!(found("1.4").is_empty() && find_release(&pushed, &[], "fans", "1.2").is_empty());
}
