use super::*;
use crate::testing::{Fleet, signed};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::keys::{KeyId, SecretKey};
use outhaul_protocol::objects::{Grant, Release, Rights, Target};
use outhaul_protocol::pack::{About, Contents, Docs, Manifest};
use outhaul_protocol::publisher::PublisherKey;
use outhaul_protocol::value::Value;

const NAME: &str = "thermal";

struct Scene {
    fleet: Fleet,
    nothing: RevokedSet,
    node: NodeLabels,
    folder: tempfile::TempDir,
}

fn labels(role: &str) -> NodeLabels {
    NodeLabels { id: KeyId([7; 32]), name: "bench-1".into(), labels: [("role".to_owned(), role.to_owned())].into() }
}

impl Scene {
    fn new() -> Self {
        Scene { fleet: Fleet::new(), nothing: RevokedSet::empty(), node: labels("edge"), folder: tempfile::tempdir().expect("a folder") }
    }

    fn open(&self) -> Deployments {
        Deployments::open(self.folder.path()).expect("opens")
    }

    fn clock() -> Reading {
        Reading::sure(crate::run::unix_now())
    }

    fn judge(&self) -> Judge<'_> {
        let fleet = Box::leak(Box::new(self.fleet.key.public()));
        Judge { fleet, node: &self.node, clock: Scene::clock(), revoked: &self.nothing }
    }

    fn said(&self, serial: u64, targets: Vec<Target>) -> Deployment {
        let (iss, aud) = (self.fleet.owner.id(), self.fleet.id());
        Deployment { iss, aud, iat: Scene::clock().now, name: NAME.into(), serial, previous: None, targets }
    }

    fn document(&self, serial: u64, targets: Vec<Target>) -> DeploymentDocument {
        DeploymentDocument { document: signed(&self.fleet.owner, &self.said(serial, targets)), chain: self.fleet.chain() }
    }

    /// Offers a document and judges it.
    fn hand(&self, deployments: &Deployments, document: DeploymentDocument) {
        deployments.offer(document);
        deployments.take_offered(&self.judge());
    }

    fn job(&self, deployments: &Deployments) -> Option<Job> {
        deployments.next(&self.node, Instant::now())
    }
}

fn release(version: &str) -> Release {
    let manifest = Manifest { name: NAME.into(), version: version.into(), ..Manifest::default() };
    let contents = Contents { manifest_digest: Digest([1; 32]), manifest, docs: Docs::default(), about: About::default() };
    let component = outhaul_protocol::keys::sha256(version.as_bytes());
    let signature = PublisherKey::from_bytes(&[60; 32]).publish(component, &contents, Scene::clock().now, None);
    Release { version: version.into(), component, signature: Blob(signature.into_bytes()), rotations: vec![], downgrade: false }
}

fn target(nodes: &str, release: Option<Release>) -> Target {
    Target { nodes: vec![nodes.into()], release, before: None }
}

fn refusal(deployments: &Deployments) -> Option<(u64, Code)> {
    deployments.state().refused.get(NAME).map(|refused| (refused.serial, refused.why.code))
}

fn known(deployments: &Deployments) -> u64 {
    deployments.state().records.get(NAME).map_or(0, |record| record.said().serial)
}

#[test]
fn a_document_is_on_the_disk_before_it_is_acted_on_and_no_older_one_comes_back() {
    let scene = Scene::new();
    let deployments = scene.open();
    let (one, two) = (scene.document(1, vec![target("*", None)]), scene.document(2, vec![target("*", Some(release("1.2.0")))]));
    scene.hand(&deployments, one.clone());
    scene.hand(&deployments, two.clone());
    let job = scene.job(&deployments).expect("to be done");
    assert_eq!(job.aim, Aim::Version(release("1.2.0").component));
    // Killed here: nothing was done yet, and what is to be done is known.
    let again = scene.open();
    assert_eq!((known(&again), scene.job(&again).map(|job| job.aim)), (2, Some(job.aim)));
    again.settle(&job, Ok(()), Time(5));
    assert!(scene.job(&again).is_none() && again.dealt_with(NAME, 2) && !again.dealt_with(NAME, 3));
    let restarted = scene.open();
    assert!(scene.job(&restarted).is_none(), "done once is done");
    scene.hand(&restarted, one);
    assert_eq!((known(&restarted), refusal(&restarted)), (2, Some((1, Code::Replayed))), "a relay from a backup");
    scene.hand(&restarted, two);
    assert!(scene.job(&restarted).is_none(), "the same again is no news");
}

#[test]
fn what_does_not_verify_is_refused_with_its_code_and_seen() {
    let scene = Scene::new();
    let all = || vec![target("*", None)];
    let good = scene.document(1, all());
    let mut edited = good.clone();
    *edited.document.0.last_mut().expect("bytes") ^= 1;
    let limited = |change: fn(&mut Grant)| {
        let mut grant = Signed::<Grant>::from_bytes(&scene.fleet.chain()[0].0).expect("a grant").unverified().clone();
        change(&mut grant);
        DeploymentDocument { chain: vec![signed(&scene.fleet.key, &grant)], ..good.clone() }
    };
    let weak = DeploymentDocument { chain: vec![scene.fleet.grant(&scene.fleet.owner, Rights::default())], ..good.clone() };
    let stranger = Scene::new();
    for (what, document, code) in [
        ("edited", edited, Code::BadSignature),
        ("another fleet's", stranger.document(1, all()), Code::BadKey),
        ("no chain", DeploymentDocument { chain: vec![], ..good.clone() }, Code::NotGranted),
        ("no right", weak, Code::NotGranted),
        ("for other nodes", limited(|grant| grant.nodes = vec!["other".into()]), Code::NotGranted),
        ("ended", limited(|grant| (grant.iat, grant.exp) = (Time(1), Time(2))), Code::Expired),
        ("too far", scene.document(u64::MAX, all()), Code::BadSignature),
    ] {
        let deployments = scene.open();
        scene.hand(&deployments, document);
        assert_eq!((refusal(&deployments).map(|(_, found)| found), known(&deployments)), (Some(code), 0), "{what}");
        assert!(!scene.folder.path().join("deployments.toml").exists(), "{what}: nothing of it is kept");
    }
    let deployments = scene.open();
    scene.hand(&deployments, DeploymentDocument { document: Blob(b"rubbish".to_vec()), chain: vec![] });
    assert!(deployments.state().refused.is_empty(), "nobody's name is on it");
}

#[test]
fn a_second_document_of_one_serial_is_refused_and_reported() {
    let scene = Scene::new();
    let deployments = scene.open();
    scene.hand(&deployments, scene.document(3, vec![target("*", None)]));
    let other = scene.document(3, vec![target("*", Some(release("9.0.0")))]);
    scene.hand(&deployments, other.clone());
    assert_eq!(refusal(&deployments), Some((3, Code::BadSignature)));
    let digest = outhaul_protocol::keys::sha256(&other.document.0);
    assert_eq!(deployments.state().records[NAME].conflict(), Some(digest));
    assert_eq!(scene.job(&deployments).map(|job| job.aim), Some(Aim::Out), "the first one stands");
    scene.hand(&deployments, scene.document(4, vec![target("*", None)]));
    assert_eq!((refusal(&deployments), deployments.state().records[NAME].conflict()), (None, None), "the next one settles it");
}

#[test]
fn a_node_that_is_not_meant_keeps_what_it_has_until_its_labels_say_otherwise() {
    let mut scene = Scene::new();
    let deployments = scene.open();
    scene.hand(&deployments, scene.document(1, vec![target("role=lab", Some(release("1.0.0"))), target("other", None)]));
    let job = scene.job(&deployments).expect("to be noted");
    assert_eq!(job.aim, Aim::Keep);
    deployments.settle(&job, Ok(()), Time(5));
    assert!(scene.job(&deployments).is_none());
    scene.node = labels("lab");
    let job = scene.job(&deployments).expect("meant now");
    assert_eq!(job.aim, Aim::Version(release("1.0.0").component));
    deployments.settle(&job, Ok(()), Time(6));
    scene.node = labels("edge");
    assert_eq!(scene.job(&deployments).map(|job| job.aim), Some(Aim::Keep));
}

#[test]
fn what_may_pass_is_tried_again_and_the_rest_waits_for_a_change() {
    let scene = Scene::new();
    let deployments = scene.open();
    scene.hand(&deployments, scene.document(1, vec![target("*", Some(release("1.0.0")))]));
    let job = scene.job(&deployments).expect("to be done");
    deployments.settle(&job, Err(Failure::new(Code::LinkLost, "gone")), Time(5));
    assert!(scene.job(&deployments).is_none() && !deployments.dealt_with(NAME, 1));
    assert!(deployments.rest(Instant::now()) <= FIRST_RETRY);
    assert!(deployments.next(&scene.node, Instant::now() + FIRST_RETRY * 2).is_some());
    deployments.settle(&job, Err(Failure::new(Code::LinkLost, "gone")), Time(6));
    assert!(deployments.rest(Instant::now()) > FIRST_RETRY, "it doubles");
    deployments.settle(&job, Err(Failure::new(Code::DigestMismatch, "the relay does not hold the pack")), Time(6));
    assert!(deployments.dealt_with(NAME, 1) && deployments.rest(Instant::now()) < LONGEST_RETRY, "told, and tried again");
    deployments.settle(&job, Err(Failure::new(Code::BadKey, "a stranger's\u{1b}").hint("trust them")), Time(7));
    assert!(deployments.dealt_with(NAME, 1) && deployments.next(&scene.node, Instant::now() + LONGEST_RETRY).is_none());
    let standing = deployments.state().records[NAME].standing().clone();
    let why = Why { code: Code::BadKey, message: "a stranger's\\u{1b}".into(), hint: Some("trust them".into()) };
    assert_eq!(standing, Standing::Failed(why));
    assert_eq!(scene.open().state().records[NAME].standing(), &standing, "kept as it is told");
    deployments.retry();
    assert!(scene.job(&deployments).is_some());
    assert!(scene.job(&scene.open()).is_some(), "a start looks at it too");
    // A newer document took its place while it was done: the outcome is nobody's.
    scene.hand(&deployments, scene.document(2, vec![target("*", None)]));
    deployments.settle(&job, Ok(()), Time(8));
    assert!(scene.job(&deployments).is_some_and(|job| job.aim == Aim::Out));
}

#[test]
fn a_renewed_chain_is_taken_with_the_same_document() {
    let scene = Scene::new();
    let deployments = scene.open();
    let document = scene.document(1, vec![target("*", Some(release("1.0.0")))]);
    scene.hand(&deployments, document.clone());
    let job = scene.job(&deployments).expect("to be done");
    deployments.settle(&job, Err(Failure::new(Code::Expired, "the grant ended")), Time(5));
    assert!(scene.job(&deployments).is_none());
    let renewed = DeploymentDocument { chain: scene.fleet.chain(), ..document };
    scene.hand(&deployments, renewed.clone());
    assert_eq!(scene.job(&deployments).map(|job| job.document), Some(renewed));
}

#[test]
fn names_of_refused_documents_do_not_pile_up() {
    let scene = Scene::new();
    let deployments = scene.open();
    let forger = SecretKey::generate();
    for at in 0..REFUSED * 2 {
        let said = Deployment { iss: forger.id(), name: format!("made-up-{at}"), ..scene.said(1, vec![target("*", None)]) };
        scene.hand(&deployments, DeploymentDocument { document: signed(&forger, &said), chain: scene.fleet.chain() });
    }
    assert_eq!(deployments.state().refused.len(), REFUSED);
    for at in 0..OFFERED * 2 {
        deployments.offer(DeploymentDocument { document: Blob(at.to_be_bytes().to_vec()), chain: vec![] });
    }
    assert_eq!(deployments.state().offered.len(), OFFERED);
    deployments.take_offered(&scene.judge());
    let large = |at: usize| DeploymentDocument { document: Blob(vec![at as u8; OFFERED_BYTES / 4]), chain: vec![] };
    (0..9).for_each(|at| deployments.offer(large(at)));
    assert_eq!(deployments.state().offered.len(), 4, "nor their bytes");
}

#[test]
fn a_damaged_file_is_told_and_not_taken_for_none() {
    let scene = Scene::new();
    let path = scene.folder.path().join("deployments.toml");
    for text in ["thermal = 3", "[thermal]\ndocument = \"AA==\"\nstate = \"done\"\nsince = 1\naim = \"out\"\n", "not toml ["] {
        std::fs::write(&path, text).expect("written");
        assert_eq!(Deployments::open(scene.folder.path()).expect_err(text).code, Code::BadConfig);
    }
}

#[test]
fn the_state_reads_as_it_is_described() {
    let scene = Scene::new();
    let deployments = scene.open();
    scene.hand(&deployments, scene.document(1, vec![target("*", Some(release("1.0.0")))]));
    scene.hand(&deployments, scene.document(1, vec![target("*", None)]));
    let described = crate::native::find(outhaul_protocol::native::DEPLOYED).expect("described").result.as_ref().expect("gives something");
    let state = deployments.state();
    let (record, refused) = (state.records.get(NAME), state.refused.get(NAME));
    assert!(record.is_some() && refused.is_some());
    for (record, refused) in [(record, refused), (record, None), (None, refused), (None, None)] {
        Value::Array(vec![shown::shown(NAME, record, refused, Value::Null)]).check(described).expect("fits");
    }
    let told = shown::shown(NAME, record, refused, Value::Null);
    assert_eq!((told.get("state"), told.get("version")), (Some(&"pending".into()), Some(&"1.0.0".into())));
}
