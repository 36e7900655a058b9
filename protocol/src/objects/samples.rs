//! One of each object from fixed keys, for tests and golden vectors.

use super::*;
use crate::cbor::Blob;
use crate::keys::{Digest, KeyId, SecretKey, X25519Public, X25519Secret, sha256};
use crate::signed::{Payload, Signed};
use crate::time::Time;
use std::collections::BTreeMap;

pub(crate) const NOW: Time = Time(1_800_000_000);

/// Key number n: its seed is 32 times n.
pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

pub(crate) fn agreeing(n: u8) -> X25519Public {
    X25519Secret::from_bytes(&[n; 32]).public()
}

pub(crate) fn fleet() -> SecretKey {
    key(1)
}

pub(crate) fn operator() -> SecretKey {
    key(2)
}

pub(crate) fn node_key() -> SecretKey {
    key(3)
}

pub(crate) fn publisher() -> SecretKey {
    key(60)
}

/// The key that follows [`publisher`]'s.
pub(crate) fn next_publisher() -> SecretKey {
    key(61)
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

/// From one key to another, everything, for a day, to be granted on.
pub(crate) fn grant(from: &SecretKey, to: &SecretKey) -> Grant {
    Grant {
        iss: from.id(),
        aud: fleet().id(),
        exp: NOW.plus(86_400),
        iat: NOW,
        cti: to.to_bytes()[..16].try_into().unwrap(),
        holder: to.public(),
        commands: words(&["*"]),
        nodes: words(&["*"]),
        evidence_channel: true,
        rights: Rights::all(),
        delegate: true,
        holder_kind: None,
    }
}

pub(crate) fn node() -> Node {
    Node {
        iss: operator().id(),
        aud: fleet().id(),
        exp: NOW.plus(365 * 86_400),
        iat: NOW,
        node: node_key().public(),
        mailbox: agreeing(4),
        name: "bench-1".to_owned(),
        labels: labels(&[("site", "west")]),
        serial: 1,
        replaces: None,
    }
}

pub(crate) fn revocations(by: &SecretKey, serial: u64, keys: &[KeyId], ctis: &[[u8; 16]]) -> Revocations {
    Revocations { iss: by.id(), aud: fleet().id(), iat: NOW, serial, keys: keys.to_vec(), ctis: ctis.to_vec(), next: None }
}

pub(crate) fn relays(keys: &[&SecretKey]) -> Relays {
    let keys = keys.iter().map(|key| key.public()).collect();
    Relays { iss: fleet().id(), aud: fleet().id(), iat: NOW, serial: 1, keys, urls: words(&["wss://relay.example/v1/link"]) }
}

pub(crate) fn prekey() -> Prekey {
    Prekey { iss: node_key().id(), aud: fleet().id(), iat: NOW, boot: [5; 16], serial: 1, key: agreeing(5), min_version: 1, max_version: 1 }
}

pub(crate) fn announce() -> Announce {
    Announce { iss: node_key().id(), aud: fleet().id(), iat: NOW, boot_count: 7, serial: 1, content: Blob(vec![0xa0]) }
}

pub(crate) fn opening() -> Opening {
    let prekey = Signed::sign(&node_key(), &prekey()).digest();
    Opening { iss: operator().id(), aud: node_key().id(), iat: NOW, prekey, channel: [6; 16], key: agreeing(6) }
}

pub(crate) fn call() -> Call {
    Call {
        iss: operator().id(),
        aud: node_key().id(),
        exp: None,
        iat: NOW,
        id: [7; 16],
        opening: Some(Signed::sign(&operator(), &opening()).digest()),
        seq: None,
        command: "gpu.list".to_owned(),
        params: Blob(vec![0xa0]),
        salt: [8; 16],
        at: 12,
        start_within_ms: 30_000,
        deadline_ms: Some(60_000),
        pack: None,
        input: None,
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        iss: node_key().id(),
        aud: operator().id(),
        iat: NOW.plus(1),
        call: [7; 16],
        payload: sha256(&call().to_bytes()),
        signer: operator().id(),
        evidence: Evidence::Signed,
        command: "gpu.list".to_owned(),
        pack: Some(Digest([9; 32])),
        params: crate::keys::salted(&[8; 16], &[0xa0]),
        output: Some(crate::keys::salted(&[8; 16], &[0x80])),
        lanes: vec![LaneBytes { lane: 1, bytes: 300 }],
        started_at: NOW,
        duration_ms: 17,
        outcome: "done".to_owned(),
        number: 1,
        previous: Digest([0; 32]),
    }
}

pub(crate) fn pair() -> Pair {
    Pair { iss: node_key().id(), transcript: Digest([10; 32]), role: 2, content: Blob(vec![0xa0]) }
}

pub(crate) fn link() -> Link {
    Link { iss: node_key().id(), transcript: Digest([11; 32]), exporter: Some([12; 32]), role: 1 }
}

pub(crate) fn control() -> Control {
    Control { iss: operator().id(), transcript: Digest([13; 32]), counter: 1, body: Digest([14; 32]) }
}

pub(crate) fn publication() -> Publication {
    Publication {
        iss: publisher().id(),
        exp: Some(NOW.plus(86_400)),
        iat: NOW,
        name: "thermal".to_owned(),
        version: "1.2.0".to_owned(),
        component: Digest([15; 32]),
        manifest: Digest([16; 32]),
    }
}

/// As one of the two keys says it.
pub(crate) fn succession(by: &SecretKey) -> Succession {
    Succession { iss: by.id(), iat: NOW, key: publisher().public(), next: next_publisher().public() }
}

pub(crate) fn release() -> Release {
    let signature = Blob(Signed::sign(&publisher(), &publication()).into_bytes());
    Release { version: "1.2.0".to_owned(), component: Digest([15; 32]), signature, rotations: vec![], downgrade: false }
}

pub(crate) fn deployment() -> Deployment {
    let target = |nodes: &[&str], release: Option<Release>| Target { nodes: words(nodes), release, before: None };
    Deployment {
        iss: operator().id(),
        aud: fleet().id(),
        iat: NOW,
        name: "thermal".to_owned(),
        serial: 7,
        previous: Some(Digest([17; 32])),
        targets: vec![target(&["bench-1", "site=west,role=edge"], Some(release())), target(&["*"], None)],
    }
}

/// How many kinds there are.
pub(crate) const KINDS: usize = 15;

/// Kind and signed bytes of each.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    fn signed<T: Payload>(by: &SecretKey, object: &T) -> (&'static str, Vec<u8>) {
        (T::KIND, Signed::sign(by, object).into_bytes())
    }
    vec![
        signed(&fleet(), &grant(&fleet(), &operator())),
        signed(&operator(), &node()),
        signed(&fleet(), &revocations(&fleet(), 1, &[key(9).id()], &[[9; 16]])),
        signed(&fleet(), &relays(&[&key(8)])),
        signed(&node_key(), &prekey()),
        signed(&node_key(), &announce()),
        signed(&operator(), &opening()),
        signed(&operator(), &call()),
        signed(&node_key(), &receipt()),
        signed(&node_key(), &pair()),
        signed(&node_key(), &link()),
        signed(&operator(), &control()),
        signed(&publisher(), &publication()),
        signed(&publisher(), &succession(&publisher())),
        signed(&operator(), &deployment()),
    ]
}

/// The node certificate for another key.
pub(crate) fn node_for(key: &SecretKey) -> Node {
    Node { node: key.public(), ..node() }
}
