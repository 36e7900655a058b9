use super::*;
use crate::keys::SecretKey;
use crate::objects::samples::{self, NOW, deployment, fleet, grant, key, node, operator, release, revocations, words};
use crate::objects::{Grant, Target};
use crate::signed::Payload;
use crate::time::Time;

const CLOCK: Reading = Reading { now: NOW, sure: true };

fn signed<T: Payload>(by: &SecretKey, object: &T) -> Blob {
    Blob(Signed::sign(by, object).into_bytes())
}

/// By the operator, under a grant changed by `change`.
fn document(said: &Deployment, change: impl FnOnce(&mut Grant)) -> DeploymentDocument {
    let mut given = grant(&fleet(), &operator());
    change(&mut given);
    DeploymentDocument { document: signed(&operator(), said), chain: vec![signed(&fleet(), &given)] }
}

fn verify(document: &DeploymentDocument) -> Result<(Verified<Deployment>, Authority), ChainError> {
    verify_deployment(&fleet().public(), document, CLOCK, &RevokedSet::empty())
}

fn proven(change: impl FnOnce(&mut Deployment)) -> Verified<Deployment> {
    let mut said = deployment();
    change(&mut said);
    Signed::sign(&operator(), &said)
}

#[test]
fn a_document_stands_by_the_chain_of_who_signed_it() {
    let (said, authority) = verify(&document(&deployment(), |_| {})).unwrap();
    assert_eq!((&*said, authority.holder()), (&deployment(), &operator().public()));
    let refused = |document: &DeploymentDocument| verify(document).unwrap_err().code();
    assert_eq!(refused(&document(&deployment(), |grant| grant.rights.packs = false)), Code::NotGranted);
    assert_eq!(refused(&document(&deployment(), |grant| grant.exp = NOW.plus(0))), Code::BadSignature, "ends before it begins");
    assert_eq!(refused(&DeploymentDocument { chain: vec![], ..document(&deployment(), |_| {}) }), Code::NotGranted);
    let other = Deployment { iss: key(9).id(), ..deployment() };
    let stolen = DeploymentDocument { document: signed(&key(9), &other), ..document(&deployment(), |_| {}) };
    assert_eq!(refused(&stolen), Code::BadKey, "another's chain proves nothing for this signer");
    let late =
        verify_deployment(&fleet().public(), &document(&deployment(), |_| {}), Reading::sure(NOW.plus(86_400)), &RevokedSet::empty());
    assert_eq!(late.unwrap_err().code(), Code::Expired);
    let list = Signed::sign(&fleet(), &revocations(&fleet(), 1, &[operator().id()], &[]));
    let revoked = RevokedSet::empty().follow(&list, &fleet().public()).unwrap();
    let gone = verify_deployment(&fleet().public(), &document(&deployment(), |_| {}), CLOCK, &revoked);
    assert_eq!(gone.unwrap_err().code(), Code::Revoked);
}

#[test]
fn what_no_deployment_may_say_is_refused() {
    type Change = fn(&mut Deployment);
    let changes: [(&str, Change); 12] = [
        ("another fleet", |said| said.aud = key(50).id()),
        ("no name", |said| said.name = "Thermal".to_owned()),
        ("serial 0", |said| said.serial = 0),
        ("no targets", |said| said.targets.clear()),
        ("too many", |said| said.targets = vec![said.targets[1].clone(); limits::TARGETS + 1]),
        ("no nodes", |said| said.targets[0].nodes.clear()),
        ("a negation", |said| said.targets[0].nodes = words(&["!bench-1"])),
        ("another pack's signature", |said| said.name = "other".to_owned()),
        ("another version", |said| said.targets[0].release.as_mut().unwrap().version = "1.3.0".to_owned()),
        ("another component", |said| said.targets[0].release.as_mut().unwrap().component = Digest([99; 32])),
        ("no signature", |said| said.targets[0].release.as_mut().unwrap().signature = Blob(vec![])),
        ("no rotation", |said| said.targets[1].before = Some(Release { rotations: vec![Blob(vec![1])], ..release() })),
    ];
    for (what, change) in changes {
        let mut said = deployment();
        change(&mut said);
        assert!(check_deployment(&said, &fleet().public()).is_err(), "{what}");
        assert!(matches!(verify(&document(&said, |_| {})), Err(ChainError::Content { kind: "deployment", .. })), "{what}");
    }
    let ahead = Deployment { iat: NOW.plus(3 * 86_400), ..deployment() };
    assert_eq!(verify(&document(&ahead, |_| {})).unwrap_err().code(), Code::Expired);
}

#[test]
fn the_first_target_that_fits_is_a_nodes_own() {
    let mut said = deployment();
    let bench = node().labels();
    assert_eq!(said.target_of(&bench), Some(&said.targets[0]));
    said.targets[0].nodes = words(&["site=west,role=edge"]);
    assert_eq!(said.target_of(&bench), Some(&said.targets[1]), "both parts of a term must hold");
    said.targets.pop();
    assert_eq!(said.target_of(&bench), None);
}

#[test]
fn serials_only_rise_and_one_serial_is_one_document() {
    let known = proven(|_| {});
    let place = Some((known.serial, known.digest()));
    assert_eq!(follows(None, &known), Ok(true));
    assert_eq!(follows(place, &known), Ok(false));
    assert_eq!(follows(place, &proven(|said| said.serial = 8)), Ok(true));
    let name = || "thermal".to_owned();
    assert_eq!(follows(place, &proven(|said| said.iat = Time(1))), Err(Outdated::Conflict { name: name(), serial: 7 }));
    assert_eq!(follows(place, &proven(|said| said.serial = 6)), Err(Outdated::Older { name: name(), found: 6, known: 7 }));
    assert_eq!(follows(place, &proven(|said| said.serial = 7 + SERIAL_STEP)), Ok(true));
    assert!(matches!(follows(place, &proven(|said| said.serial = 8 + SERIAL_STEP)), Err(Outdated::Skips { .. })));
    assert!(matches!(follows(None, &proven(|said| said.serial = u64::MAX)), Err(Outdated::Skips { .. })));
    let codes = [Outdated::Conflict { name: name(), serial: 1 }, Outdated::Older { name: name(), found: 1, known: 2 }];
    assert_eq!(codes.map(|error| Failure::from(error).code), [Code::BadSignature, Code::Replayed]);
}

#[test]
fn the_largest_document_of_everyday_use_fits() {
    let ids: Vec<String> = (0..400u32).map(|n| crate::keys::sha256(&n.to_be_bytes()).to_string()).collect();
    let mut said = deployment();
    said.targets = vec![Target { nodes: ids, release: Some(release()), before: Some(release()) }];
    assert!(verify(&document(&said, |_| {})).is_ok());
    said.targets = vec![Target { nodes: words(&["site=west"]), release: Some(release()), before: Some(release()) }; limits::TARGETS];
    assert!(verify(&document(&said, |_| {})).is_ok());
    assert_eq!(samples::deployment().targets.len(), 2);
}
