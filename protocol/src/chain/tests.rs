use super::*;
use crate::error::Code;
use crate::keys::{KeyId, SecretKey};
use crate::objects::samples::{self, NOW, fleet, grant, key, node, node_key, operator, revocations, words};
use crate::objects::{Certificate, Node, RevocationList};
use crate::signed::Payload;

const CLOCK: Reading = Reading { now: NOW, sure: true };

fn later(secs: u64) -> Reading {
    Reading::sure(NOW.plus(secs))
}

fn signed<T: Payload>(by: &SecretKey, object: &T) -> Blob {
    Blob(Signed::sign(by, object).into_bytes())
}

/// A chain over the keys given, fleet first; each grant is changed by `change(link, grant)`.
fn chain_of(keys: &[u8], change: impl Fn(usize, &mut Grant)) -> Vec<Blob> {
    let keys: Vec<SecretKey> = std::iter::once(fleet()).chain(keys.iter().map(|n| key(*n))).collect();
    let links = keys.windows(2).enumerate().map(|(at, pair)| {
        let mut object = grant(&pair[0], &pair[1]);
        change(at + 1, &mut object);
        signed(&pair[0], &object)
    });
    links.collect()
}

fn verify(chain: &[Blob]) -> Result<Authority, ChainError> {
    verify_chain(&fleet().public(), chain, CLOCK, &RevokedSet::empty())
}

fn calls(authority: &Authority, command: &str) -> Result<(), Refusal> {
    authority.allows_call(command, Evidence::Signed, &node().labels(), CLOCK, &RevokedSet::empty())
}

fn revoked(keys: &[KeyId], ctis: &[[u8; 16]]) -> RevokedSet {
    let list = Signed::sign(&fleet(), &revocations(&fleet(), 1, keys, ctis));
    RevokedSet::empty().follow(&list, &fleet().public()).unwrap()
}

#[test]
fn a_chain_of_four_holds_and_one_of_five_does_not() {
    let authority = verify(&chain_of(&[2, 20, 21, 22], |_, _| {})).unwrap();
    assert_eq!(authority.holder(), &key(22).public());
    assert!(calls(&authority, "gpu.list").is_ok());
    assert_eq!(verify(&chain_of(&[2, 20, 21, 22, 23], |_, _| {})), Err(ChainError::TooLong(5)));
    assert_eq!(verify(&[]), Err(ChainError::Empty));
}

#[test]
fn another_fleets_chain_is_refused() {
    let chain = chain_of(&[2], |_, _| {});
    let error = verify_chain(&key(50).public(), &chain, CLOCK, &RevokedSet::empty()).unwrap_err();
    assert_eq!(error.code(), Code::BadKey);
    let elsewhere = chain_of(&[2], |_, grant| grant.aud = key(50).id());
    assert!(matches!(verify(&elsewhere), Err(ChainError::Fleet { link: 1, .. })));
}

#[test]
fn links_cannot_be_left_out_swapped_or_borrowed() {
    let chain = chain_of(&[2, 20, 21], |_, _| {});
    assert!(verify(&chain[1..]).is_err());
    assert!(verify(&[chain[0].clone(), chain[2].clone()]).is_err());
    assert!(verify(&[chain[1].clone(), chain[0].clone()]).is_err());
    assert!(verify(&[chain[0].clone(), chain[0].clone()]).is_err());
    let foreign = chain_of(&[60, 61], |_, _| {});
    assert!(verify(&[chain[0].clone(), foreign[1].clone()]).is_err());
}

#[test]
fn who_may_not_delegate_cannot() {
    for at in 1..=2 {
        let chain = chain_of(&[2, 20, 21], |link, grant| grant.delegate = link != at);
        assert_eq!(verify(&chain), Err(ChainError::NotDelegated { link: at + 1 }));
    }
    assert!(verify(&chain_of(&[2, 20, 21], |link, grant| grant.delegate = link != 3)).is_ok());
}

#[test]
fn every_link_must_be_in_time() {
    for at in 1..=3 {
        let chain = chain_of(&[2, 20, 21], |link, grant| {
            if link == at {
                grant.exp = NOW.plus(10);
            }
        });
        let authority = verify(&chain).unwrap();
        assert_eq!(authority.expires(), NOW.plus(10));
        assert!(authority.stands(later(9), &RevokedSet::empty()).is_ok());
        let refusal = authority.allows_call("gpu.list", Evidence::Signed, &node().labels(), later(10), &RevokedSet::empty()).unwrap_err();
        assert_eq!(refusal.code(), Code::Expired, "a cached chain is judged again");
        assert!(verify_chain(&fleet().public(), &chain, later(10), &RevokedSet::empty()).is_err());
        let early = chain_of(&[2, 20, 21], |link, grant| {
            if link == at {
                grant.iat = NOW.plus(86_401);
                grant.exp = NOW.plus(100_000);
            }
        });
        assert!(matches!(verify(&early), Err(ChainError::Refused(Refusal::NotYet { .. }))));
        assert!(verify_chain(&fleet().public(), &early, Reading { now: NOW, sure: false }, &RevokedSet::empty()).is_ok());
    }
}

#[test]
fn a_revocation_at_any_link_ends_the_chain() {
    let keys = [2, 20, 21];
    let chain = chain_of(&keys, |_, _| {});
    let authority = verify(&chain).unwrap();
    for (at, cti) in authority.ctis().collect::<Vec<_>>().into_iter().enumerate() {
        for set in [revoked(&[], &[cti]), revoked(&[key(keys[at]).id()], &[])] {
            let refusal = authority.allows_call("node.ping", Evidence::Signed, &node().labels(), CLOCK, &set).unwrap_err();
            assert_eq!(refusal.code(), Code::Revoked);
            assert_eq!(verify_chain(&fleet().public(), &chain, CLOCK, &set).unwrap_err().code(), Code::Revoked);
        }
    }
    let others = revoked(&[key(99).id()], &[[99; 16]]);
    assert!(authority.stands(CLOCK, &others).is_ok());
    let own = revoked(&[fleet().id()], &[]);
    assert!(authority.stands(CLOCK, &own).is_ok(), "nobody revokes the fleet key by a list");
}

#[test]
fn a_link_that_claims_more_than_its_parent_gets_no_more() {
    let narrow: [fn(&mut Grant); 3] =
        [|grant| grant.commands = words(&["gpu.list"]), |grant| grant.nodes = words(&["kiosk-1"]), |grant| grant.rights.packs = false];
    for (which, narrow) in narrow.into_iter().enumerate() {
        for at in 1..=3 {
            let authority = verify(&chain_of(&[2, 20, 21], |link, grant| {
                if link == at {
                    narrow(grant)
                }
            }))
            .unwrap();
            match which {
                0 => {
                    assert!(calls(&authority, "gpu.list").is_ok());
                    assert_eq!(calls(&authority, "system.run"), Err(Refusal::Command { link: at, command: "system.run".to_owned() }));
                }
                1 => assert!(matches!(calls(&authority, "node.ping"), Err(Refusal::Node { link, .. }) if link == at)),
                _ => assert_eq!(calls(&authority, "pack.install"), Err(Refusal::Right { link: at, right: "packs" })),
            }
        }
    }
}

#[test]
fn a_star_means_commands_of_packs_only() {
    let plain = |_: usize, grant: &mut Grant| grant.rights = Rights::default();
    let authority = verify(&chain_of(&[2], plain)).unwrap();
    assert!(calls(&authority, "system.run").is_ok());
    assert!(calls(&authority, "node.ping").is_ok() && calls(&authority, "node.status").is_ok());
    for command in ["pack.install", "pack.list", "pack.anything"] {
        assert_eq!(calls(&authority, command), Err(Refusal::Right { link: 1, right: "packs" }));
    }
    assert_eq!(calls(&authority, "node.set_policy"), Err(Refusal::Right { link: 1, right: "policy" }));
    let spelled = verify(&chain_of(&[2], |at, grant| {
        plain(at, grant);
        grant.commands = words(&["pack.*", "pack.install", "node.*"]);
    }));
    assert!(calls(&spelled.unwrap(), "pack.install").is_err(), "rights are words, never patterns");
    let packs = verify(&chain_of(&[2], |_, grant| grant.commands.clear())).unwrap();
    assert!(calls(&packs, "pack.install").is_ok() && calls(&packs, "gpu.list").is_err());
}

#[test]
fn a_grant_for_other_nodes_reaches_not_even_ping() {
    let authority = verify(&chain_of(&[2], |_, grant| grant.nodes = words(&["site=east", "kiosk-1"]))).unwrap();
    assert!(matches!(calls(&authority, "node.ping"), Err(Refusal::Node { link: 1, .. })));
    let west = verify(&chain_of(&[2], |_, grant| grant.nodes = words(&["site=east", "site=west"]))).unwrap();
    assert!(calls(&west, "node.ping").is_ok());
}

#[test]
fn the_channel_is_evidence_only_where_all_links_say_so_and_nothing_changes() {
    let by_channel = |authority: &Authority, command: &str| {
        authority.allows_call(command, Evidence::Channel, &node().labels(), CLOCK, &RevokedSet::empty())
    };
    let authority = verify(&chain_of(&[2, 20], |_, _| {})).unwrap();
    assert!(by_channel(&authority, "gpu.list").is_ok());
    for command in ["pack.install", "node.trust"] {
        assert!(matches!(by_channel(&authority, command), Err(Refusal::Evidence { .. })));
    }
    for at in 1..=2 {
        let authority = verify(&chain_of(&[2, 20], |link, grant| grant.evidence_channel = link != at)).unwrap();
        assert!(matches!(by_channel(&authority, "gpu.list"), Err(Refusal::Evidence { .. })));
        assert!(calls(&authority, "gpu.list").is_ok());
    }
}

#[test]
fn overdue_revocations_leave_ping_and_status() {
    let list = Signed::sign(&fleet(), &crate::objects::Revocations { next: Some(NOW.plus(5)), ..revocations(&fleet(), 1, &[], &[]) });
    let set = RevokedSet::empty().follow(&list, &fleet().public()).unwrap();
    let authority = verify(&chain_of(&[2], |_, _| {})).unwrap();
    let at = |secs, command| authority.allows_call(command, Evidence::Signed, &node().labels(), later(secs), &set);
    assert!(at(5, "gpu.list").is_ok());
    assert_eq!(at(6, "gpu.list"), Err(Refusal::Overdue { next: NOW.plus(5) }));
    assert!(at(6, "node.ping").is_ok() && at(6, "node.status").is_ok());
}

#[test]
fn what_no_grant_may_say_is_refused() {
    let bad: [fn(&mut Grant); 6] = [
        |grant| grant.holder = fleet().public(),
        |grant| grant.exp = grant.iat,
        |grant| (grant.holder_kind, grant.exp) = (Some(HolderKind::Relay), NOW.plus(RELAY_HELD_SECS + 1)),
        |grant| grant.commands = words(&["gpu.l*"]),
        |grant| grant.nodes = words(&["!kiosk"]),
        |grant| grant.rights.enrol = Some(Enrol { names: words(&[""]), labels: vec![] }),
    ];
    for bad in bad {
        assert!(matches!(verify(&chain_of(&[2], |_, grant| bad(grant))), Err(ChainError::Claim { link: 1, .. })));
    }
    let month = |_: usize, grant: &mut Grant| (grant.holder_kind, grant.exp) = (Some(HolderKind::Relay), NOW.plus(RELAY_HELD_SECS));
    assert_eq!(verify(&chain_of(&[2], month)).unwrap().holder_kind(), Some(HolderKind::Relay));
}

fn certificate(change: impl Fn(&mut Node)) -> Certificate {
    let mut object = node();
    change(&mut object);
    Certificate { node: signed(&operator(), &object), chain: chain_of(&[2], |_, _| {}) }
}

fn verify_node(certificate: &Certificate) -> Result<Verified<Node>, ChainError> {
    verify_certificate(&fleet().public(), certificate, CLOCK, &RevokedSet::empty())
}

#[test]
fn a_certificate_needs_a_signer_who_may_enrol() {
    assert_eq!(verify_node(&certificate(|_| {})).unwrap().name, "bench-1");
    let with = |change: fn(&mut Grant)| Certificate { chain: chain_of(&[2], |_, grant| change(grant)), ..certificate(|_| {}) };
    assert!(verify_node(&with(|grant| grant.rights.enrol = None)).is_err());
    assert!(verify_node(&with(|grant| grant.rights.enrol = Some(Enrol { names: words(&["kiosk-*"]), labels: words(&["*"]) }))).is_err());
    assert!(verify_node(&with(|grant| grant.rights.enrol = Some(Enrol { names: words(&["*"]), labels: words(&["site=east"]) }))).is_err());
    assert!(
        verify_node(&with(|grant| grant.rights.enrol = Some(Enrol { names: words(&["bench-*"]), labels: words(&["site=*"]) }))).is_ok()
    );
    let other = Certificate { node: signed(&key(70), &Node { iss: key(70).id(), ..node() }), ..certificate(|_| {}) };
    assert_eq!(verify_node(&other).unwrap_err().code(), Code::BadKey);
    let alone = Certificate { node: signed(&fleet(), &Node { iss: fleet().id(), ..node() }), chain: vec![] };
    assert_eq!(verify_node(&alone), Err(ChainError::Empty), "the fleet key grants; it does not enrol");
}

#[test]
fn what_no_certificate_may_say_is_refused() {
    let bad: [fn(&mut Node); 8] = [
        |node| node.aud = key(50).id(),
        |node| node.name = "Bench 1".to_owned(),
        |node| node.name = "\u{1b}[31m".to_owned(),
        |node| node.labels = [("site".to_owned(), "we\nst".to_owned())].into(),
        |node| node.labels = [("si=te".to_owned(), "west".to_owned())].into(),
        |node| node.exp = NOW,
        |node| node.node = operator().public(),
        |node| node.iat = NOW.plus(86_401),
    ];
    for (at, bad) in bad.into_iter().enumerate() {
        assert!(verify_node(&certificate(bad)).is_err(), "{at}");
    }
}

#[test]
fn revoked_nodes_and_enrollers_are_refused() {
    for id in [node_key().id(), operator().id()] {
        let error = verify_certificate(&fleet().public(), &certificate(|_| {}), CLOCK, &revoked(&[id], &[])).unwrap_err();
        assert_eq!(error.code(), Code::Revoked);
    }
}

#[test]
fn an_accepted_node_outlives_the_grant_of_its_enroller_but_not_itself() {
    let certificate = certificate(|_| {});
    let empty = RevokedSet::empty();
    let kept = |accepted, clock, set: &RevokedSet| verify_kept_certificate(&fleet().public(), &certificate, accepted, clock, set);
    let month = later(30 * 86_400);
    assert!(verify_certificate(&fleet().public(), &certificate, month, &empty).is_err());
    assert!(kept(CLOCK, month, &empty).is_ok());
    assert!(kept(month, month, &empty).is_err());
    assert_eq!(kept(CLOCK, later(366 * 86_400), &empty).unwrap_err().code(), Code::Expired);
    assert_eq!(kept(CLOCK, month, &revoked(&[node_key().id()], &[])).unwrap_err().code(), Code::Revoked);
}

#[test]
fn a_foreign_enroller_cannot_relabel() {
    let known = node();
    let successor = |certificate: &Certificate| verify_successor(&fleet().public(), &known, certificate, CLOCK, &RevokedSet::empty());
    let moved = |node: &mut Node| {
        node.serial = 2;
        node.name = "kiosk-1".to_owned();
        node.labels = [("site".to_owned(), "east".to_owned())].into();
    };
    assert!(successor(&certificate(moved)).is_ok());
    let kiosks = |names: &[&str], labels: &[&str]| {
        let enrol = Enrol { names: words(names), labels: words(labels) };
        Certificate { chain: chain_of(&[2], |_, grant| grant.rights.enrol = Some(enrol.clone())), ..certificate(moved) }
    };
    assert!(verify_node(&kiosks(&["kiosk-*"], &["site=east"])).is_ok(), "as a new node it would pass");
    assert!(matches!(successor(&kiosks(&["kiosk-*"], &["*"])), Err(ChainError::Refused(Refusal::Enrol { .. }))));
    assert!(matches!(successor(&kiosks(&["*"], &["site=east"])), Err(ChainError::Refused(Refusal::Enrol { .. }))));
    assert!(successor(&kiosks(&["*"], &["site=*"])).is_ok());
}

#[test]
fn serials_rise_and_a_name_moves_only_by_replaces() {
    let known = node();
    let successor = |change: fn(&mut Node)| verify_successor(&fleet().public(), &known, &certificate(change), CLOCK, &RevokedSet::empty());
    assert!(successor(|node| node.serial = 1).is_err());
    assert!(successor(|node| node.serial = 0).is_err());
    assert!(successor(|node| node.serial = 2).is_ok());
    assert!(successor(|node| node.node = key(30).public()).is_err());
    assert!(successor(|node| (node.node, node.replaces) = (key(30).public(), Some(node_key().id()))).is_ok());
    assert!(successor(|node| (node.node, node.replaces) = (key(30).public(), Some(key(31).id()))).is_err());
}

#[test]
fn revocations_come_from_the_fleet_or_a_holder_of_the_right() {
    let check = |list: RevocationList| verify_revocations(&fleet().public(), &list, CLOCK, &RevokedSet::empty());
    let list = |by: &SecretKey, chain| RevocationList { list: signed(by, &revocations(by, 1, &[key(9).id()], &[])), chain };
    assert!(check(list(&fleet(), vec![])).is_ok());
    assert!(check(list(&operator(), chain_of(&[2], |_, _| {}))).is_ok());
    assert!(check(list(&operator(), vec![])).is_err());
    let powerless = chain_of(&[2], |_, grant| grant.rights.revoke = false);
    assert_eq!(check(list(&operator(), powerless)).unwrap_err().code(), Code::NotGranted);
}

#[test]
fn revocations_only_grow_unless_the_fleet_key_says_so() {
    let by = |signer: &SecretKey, serial, keys: &[KeyId]| Signed::sign(signer, &revocations(signer, serial, keys, &[]));
    let pin = fleet().public();
    let (a, b) = (key(40).id(), key(41).id());
    let first = RevokedSet::empty().follow(&by(&operator(), 5, &[a]), &pin).unwrap();
    assert_eq!(first.follow(&by(&operator(), 5, &[a]), &pin).unwrap(), first);
    assert_eq!(first.follow(&by(&operator(), 5, &[a, b]), &pin), Err(RevocationError::Conflict(5)));
    assert_eq!(first.follow(&by(&operator(), 4, &[a, b]), &pin), Err(RevocationError::Older { found: 4, known: 5 }));
    assert_eq!(first.follow(&by(&operator(), 6, &[b]), &pin), Err(RevocationError::Forgets(6)));
    assert_eq!(first.follow(&by(&operator(), u64::MAX, &[a]), &pin), Err(RevocationError::Skips(u64::MAX)));
    assert!(first.follow(&by(&operator(), 6, &[a, b]), &pin).unwrap().has_key(&b));
    assert!(!first.follow(&by(&fleet(), 6, &[]), &pin).unwrap().has_key(&a));
}

#[test]
fn the_list_of_relays_is_the_fleet_keys_alone() {
    let good = samples::relays(&[&key(8)]);
    assert!(verify_relays(&fleet().public(), &signed(&fleet(), &good).0, CLOCK).is_ok());
    let other = crate::objects::Relays { iss: operator().id(), ..good.clone() };
    assert_eq!(verify_relays(&fleet().public(), &signed(&operator(), &other).0, CLOCK).unwrap_err().code(), Code::BadKey);
    let ahead = crate::objects::Relays { iat: NOW.plus(86_401), ..good };
    assert!(verify_relays(&fleet().public(), &signed(&fleet(), &ahead).0, CLOCK).is_err());
}

#[test]
fn a_cached_chain_is_known_by_its_digest() {
    let chain = chain_of(&[2, 20], |_, _| {});
    assert_eq!(verify(&chain).unwrap().digest(), chain_digest(&chain));
    assert_ne!(chain_digest(&chain), chain_digest(&chain[..1]));
    let joined = [Blob([chain[0].0.clone(), chain[1].0.clone()].concat())];
    assert_ne!(chain_digest(&chain), chain_digest(&joined));
}
