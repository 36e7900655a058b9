//! What the relay remembers and tells of nodes.

use std::collections::HashMap;
use std::sync::Arc;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::{AnnounceContent, AnnouncedPack, Heartbeat, Interface, PackDescription, PackList};
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{Answer, Ask, Frame, Lookup};
use outhaul_protocol::keys::{Digest, SecretKey, X25519Secret, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Announce, Prekey, Rights};
use outhaul_protocol::signed::Signed;
use outhaul_relay::operator::{Dialer, Room, Session, capabilities_of, description_of, now, packs_of};

use crate::world::{Peer, World};

/// The packs of a node, described.
fn packs(count: usize) -> Vec<PackDescription> {
    let interface = |name: String| Interface { name, doc: None };
    let pack = |at: usize| PackDescription {
        name: format!("pack-{at}"),
        version: "1.0.0".into(),
        digest: [at as u8; 32],
        powers: vec!["process".into()],
        interfaces: vec![interface(format!("things_{at:02}")), interface(format!("a_longer_name_for_other_things_{at:02}"))],
        commands: vec![],
    };
    (0..count).map(pack).collect()
}

fn list(packs: &[PackDescription]) -> PackList {
    let listed = |pack: &PackDescription| AnnouncedPack {
        name: pack.name.clone(),
        version: pack.version.clone(),
        digest: pack.digest,
        description: pack.digest(),
        interfaces: pack.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        denied: vec!["process".into()],
        waiting: Vec::new(),
    };
    PackList(packs.iter().map(listed).collect())
}

fn announce(world: &World, key: &SecretKey, list: &PackList) -> Vec<u8> {
    let content = AnnounceContent::default().with_packs(list);
    let announce =
        Announce { iss: key.id(), aud: world.fleet.id(), iat: now(), boot_count: 1, serial: 1, content: Blob(content.to_bytes()) };
    Signed::sign(key, &announce).into_bytes()
}

fn describe(digest: [u8; 32], bytes: Vec<u8>) -> Frame {
    Frame::Description { digest: Digest(digest), bytes: Blob(bytes) }
}

fn prekey(world: &World, key: &SecretKey) -> Vec<u8> {
    let public = X25519Secret::generate().public();
    let prekey =
        Prekey { iss: key.id(), aud: world.fleet.id(), iat: now(), boot: [1; 16], serial: 1, key: public, min_version: 1, max_version: 1 };
    Signed::sign(key, &prekey).into_bytes()
}

async fn node(world: &World) -> Peer {
    world.node(&Arc::new(SecretKey::generate()), "bench-1").await
}

#[tokio::test]
async fn what_a_node_says_is_told_with_the_hello_of_an_operator() {
    let world = World::new().await;
    let mut node = node(&world).await;
    let none = PackList::default();
    let (announce, prekey) = (announce(&world, &node.key, &none), prekey(&world, &node.key));
    let figures = Heartbeat { cpu_percent: 1.0, memory_percent: 2.0, uptime_secs: 3, gpus: None }.to_bytes();
    node.send(&Frame::Prekey { signed: Blob(prekey.clone()) }).await;
    node.send(&describe(none.digest(), none.to_bytes())).await;
    node.send(&Frame::Announce { signed: Blob(announce.clone()) }).await;
    node.send(&Frame::Heartbeat { figures: Blob(figures.clone()) }).await;
    node.settle().await;
    let record = world.record(&node.id()).await.expect("known");
    assert_eq!((record.status.as_str(), record.announce, record.prekey), ("online", Some(Blob(announce)), Some(Blob(prekey))));
    assert_eq!(record.heartbeat, Some(Blob(figures)));
    let id = node.id();
    drop(node);
    world.until(&id, "offline").await;
    let record = world.record(&id).await.expect("known");
    assert!(record.prekey.is_none() && record.heartbeat.is_none() && record.announce.is_some());
}

#[tokio::test]
async fn an_announce_counts_once_its_list_is_here_and_each_thing_is_asked_for_once() {
    let world = World::new().await;
    let mut node = node(&world).await;
    let packs = packs(1);
    let (list, description) = (list(&packs), &packs[0]);
    let signed = Frame::Announce { signed: Blob(announce(&world, &node.key, &list)) };
    node.send(&signed).await;
    assert_eq!(node.frame().await, Frame::Want { digest: Digest(list.digest()) });
    assert_eq!(world.record(&node.id()).await.expect("known").announce, None, "nobody could read what it names");
    node.send(&describe(list.digest(), list.to_bytes())).await;
    assert_eq!(node.frame().await, Frame::Want { digest: Digest(description.digest()) });
    assert!(world.record(&node.id()).await.expect("known").announce.is_some());
    let mut owner = world.owner().await;
    let ask = Ask::Description { digest: Digest(description.digest()) };
    assert!(owner.ask(&ask).await.is_err());
    let bytes = description.to_bytes().expect("bytes");
    node.send(&describe(description.digest(), bytes.clone())).await;
    node.send(&signed).await;
    node.settle().await;
    assert_eq!(owner.ask(&ask).await, Ok(Answer::Bytes { bytes: Blob(bytes) }));
}

#[tokio::test]
async fn what_goes_ahead_of_an_announce_is_not_asked_for() {
    let world = World::new().await;
    let mut node = node(&world).await;
    let packs = packs(2);
    let list = list(&packs);
    for pack in &packs {
        node.send(&describe(pack.digest(), pack.to_bytes().expect("bytes"))).await;
    }
    node.send(&describe(list.digest(), list.to_bytes())).await;
    node.send(&Frame::Announce { signed: Blob(announce(&world, &node.key, &list)) }).await;
    node.settle().await;
    // What it asked for would stand before the pong.
    assert!(world.record(&node.id()).await.expect("known").announce.is_some());
    node.send(&Frame::Ping { token: 1 }).await;
    assert_eq!(node.frame().await, Frame::Pong { token: 1 });
}

#[tokio::test]
async fn a_ping_behind_an_announce_is_answered_when_operators_find_all_it_names() {
    let world = World::new().await;
    let mut node = node(&world).await;
    let packs = packs(1);
    let (list, description) = (list(&packs), &packs[0]);
    node.send(&Frame::Announce { signed: Blob(announce(&world, &node.key, &list)) }).await;
    node.send(&Frame::Ping { token: 1 }).await;
    assert_eq!(node.frame().await, Frame::Want { digest: Digest(list.digest()) });
    // One ping waits; the next is a heartbeat.
    node.send(&Frame::Ping { token: 2 }).await;
    assert_eq!(node.frame().await, Frame::Pong { token: 2 });
    node.send(&describe(list.digest(), list.to_bytes())).await;
    assert_eq!(node.frame().await, Frame::Want { digest: Digest(description.digest()) });
    node.send(&describe(description.digest(), description.to_bytes().expect("bytes"))).await;
    assert_eq!(node.frame().await, Frame::Pong { token: 1 });
    assert!(world.record(&node.id()).await.expect("known").announce.is_some());
}

#[tokio::test]
async fn a_node_with_sixty_packs_shows_all_of_them() {
    let world = World::new().await;
    let key = Arc::new(SecretKey::generate());
    let mut node = world.node(&key, "bench-1").await;
    let packs = packs(60);
    let list = list(&packs);
    node.send(&Frame::Announce { signed: Blob(announce(&world, &key, &list)) }).await;
    let mut wanted = HashMap::from([(Digest(list.digest()), list.to_bytes())]);
    wanted.extend(packs.iter().map(|pack| (Digest(pack.digest()), pack.to_bytes().expect("bytes"))));
    while !wanted.is_empty() {
        let Frame::Want { digest } = node.frame().await else { panic!("a want") };
        node.send(&describe(digest.0, wanted.remove(&digest).expect("asked for once"))).await;
    }
    node.settle().await;
    let room = Room::of(&world.home);
    let mut session = Session::open(Arc::new(Dialer::new(room, None, None).expect("a dialer"))).await.expect("connects");
    let (seen, bad) = session.nodes().await.expect("answers");
    assert!(bad.is_empty());
    let known = &seen[0].known;
    assert!(known.announce.as_ref().expect("announced").content.capabilities.is_none(), "so many do not fit");
    assert_eq!(capabilities_of(&session, known).await.expect("from the list"), list.capabilities());
    assert_eq!(list.capabilities().len(), 120);
    let found = packs_of(&session, known).await.expect("the list");
    assert_eq!(found, list.0);
    for (pack, described) in found.iter().zip(&packs) {
        assert_eq!(description_of(&session, pack).await.as_ref(), Ok(described));
    }
}

#[tokio::test]
async fn a_description_with_another_digest_or_of_nothing_ends_the_session() {
    let world = World::new().await;
    let key = Arc::new(SecretKey::generate());
    for (digest, bytes) in [([1; 32], vec![0x80]), (sha256(&[1]).0, vec![1])] {
        let mut node = world.node(&key, "bench-1").await;
        node.send(&describe(digest, bytes)).await;
        assert_eq!(node.goodbye().await, "bad_params");
    }
}

#[tokio::test]
async fn a_node_signs_for_itself_and_for_this_fleet() {
    let (world, stranger) = (World::new().await, World::new().await);
    let node_key = Arc::new(SecretKey::generate());
    let other = SecretKey::generate();
    for frame in [
        Frame::Announce { signed: Blob(announce(&world, &other, &PackList::default())) },
        Frame::Announce { signed: Blob(announce(&stranger, &node_key, &PackList::default())) },
        Frame::Announce { signed: Blob(prekey(&world, &node_key)) },
        Frame::Prekey { signed: Blob(prekey(&world, &other)) },
        Frame::Prekey { signed: Blob(prekey(&stranger, &node_key)) },
        Frame::Heartbeat { figures: Blob(vec![0; 600]) },
        Frame::Welcome { session: 1, window: 1, heartbeat_ms: 1, found: outhaul_protocol::cbor::Maybe(None) },
    ] {
        let mut node = world.node(&node_key, "bench-1").await;
        node.send(&frame).await;
        assert_eq!(node.goodbye().await, "bad_params", "{frame:?}");
    }
}

#[tokio::test]
async fn many_nodes_come_in_pages() {
    let world = World::new().await;
    let mut owner = world.owner().await;
    for at in 0..205 {
        let certificate = Blob(world.certificate(&SecretKey::generate().public(), &format!("n{at}"), 1));
        owner.ask(&Ask::PutCertificate { certificate }).await.expect("takes");
    }
    let Ok(Answer::Nodes { nodes: first }) = owner.ask(&Ask::Nodes { lookup: Lookup::default() }).await else { panic!("nodes") };
    assert!((1..=200).contains(&first.len()), "a frame holds no more");
    let dialer = Dialer::new(Room::of(&world.home), Some(&world.relay.url().to_string()), None).expect("knows its relay");
    let (all, bad) = Session::open(Arc::new(dialer)).await.expect("dials").nodes().await.expect("lists");
    assert_eq!((all.len(), bad.len()), (205, 0));
}

#[tokio::test]
async fn a_pack_reaches_a_node_by_its_digest() {
    let world = World::new().await;
    let (pack, mut node) = (vec![0x42; 700_000], node(&world).await);
    let first = limits::BLOB_CHUNK;
    let digest = sha256(&pack);
    let put = |offset: usize, to: usize| Ask::PutBlob {
        digest,
        offset: offset as u64,
        total: pack.len() as u64,
        bytes: Blob(pack[offset..to].to_vec()),
    };
    let (weak_key, weak_chain) = world.operator_with(Rights::default());
    let weak = world.client(&weak_key, &weak_chain).await;
    assert_eq!(weak.ask(put(0, 10)).await.expect_err("no right").code, Code::NotGranted);
    node.send(&Frame::BlobGet { digest, offset: 0 }).await;
    assert_eq!(node.frame().await, Frame::BlobPart { digest, offset: 0, total: 0, bytes: Blob(vec![]) });
    let mut owner = world.owner().await;
    assert_eq!(owner.ask(&put(0, first)).await, Ok(Answer::Stored { bytes: first as u64 }));
    drop(owner);
    let mut owner = world.owner().await;
    assert_eq!(owner.ask(&put(0, 0)).await, Ok(Answer::Stored { bytes: first as u64 }), "an upload goes on where it was cut");
    assert_eq!(owner.ask(&put(first, 700_000)).await, Ok(Answer::Stored { bytes: 700_000 }));
    node.send(&Frame::BlobGet { digest, offset: 300_000 }).await;
    let expected = Frame::BlobPart { digest, offset: 300_000, total: 700_000, bytes: Blob(pack[300_000..].to_vec()) };
    assert_eq!(node.frame().await, expected);
}
