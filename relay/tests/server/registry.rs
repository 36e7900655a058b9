//! What the relay remembers and tells of nodes.

use std::sync::Arc;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::{AnnounceContent, AnnouncedPack, Heartbeat, PackDescription};
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{Answer, Ask, Frame, Lookup};
use outhaul_protocol::keys::{Digest, SecretKey, X25519Secret, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Announce, Prekey, Rights};
use outhaul_protocol::signed::Signed;
use outhaul_relay::operator::{Dialer, Room, Session, now};

use crate::world::{Peer, World};

fn description() -> PackDescription {
    PackDescription { name: "gpu".into(), version: "1.0.0".into(), digest: [1; 32], powers: vec![], interfaces: vec![], commands: vec![] }
}

fn announce(world: &World, key: &SecretKey) -> Vec<u8> {
    let pack = AnnouncedPack {
        name: "gpu".into(),
        version: "1.0.0".into(),
        digest: [1; 32],
        description: description().digest(),
        interfaces: vec!["gpu".into()],
    };
    let content = AnnounceContent { packs: vec![pack], ..AnnounceContent::default() };
    let announce =
        Announce { iss: key.id(), aud: world.fleet.id(), iat: now(), boot_count: 1, serial: 1, content: Blob(content.to_bytes()) };
    Signed::sign(key, &announce).into_bytes()
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
    let (announce, prekey) = (announce(&world, &node.key), prekey(&world, &node.key));
    let figures = Heartbeat { cpu_percent: 1.0, memory_percent: 2.0, uptime_secs: 3, gpus: None }.to_bytes();
    node.send(&Frame::Prekey { signed: Blob(prekey.clone()) }).await;
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
async fn a_description_is_asked_for_once_and_checked() {
    let world = World::new().await;
    let mut node = node(&world).await;
    let (bytes, digest) = (description().to_bytes().expect("bytes"), Digest(description().digest()));
    node.send(&Frame::Announce { signed: Blob(announce(&world, &node.key)) }).await;
    assert_eq!(node.frame().await, Frame::Want { digest });
    let mut owner = world.owner().await;
    assert!(owner.ask(&Ask::Description { digest }).await.is_err());
    node.send(&Frame::Description { digest, bytes: Blob(bytes.clone()) }).await;
    node.send(&Frame::Announce { signed: Blob(announce(&world, &node.key)) }).await;
    node.settle().await;
    assert_eq!(owner.ask(&Ask::Description { digest }).await, Ok(Answer::Bytes { bytes: Blob(bytes) }));
}

#[tokio::test]
async fn a_description_with_another_digest_ends_the_session() {
    let world = World::new().await;
    let mut node = node(&world).await;
    let digest = Digest(description().digest());
    node.send(&Frame::Announce { signed: Blob(announce(&world, &node.key)) }).await;
    assert_eq!(node.frame().await, Frame::Want { digest });
    node.send(&Frame::Description { digest, bytes: Blob(vec![1]) }).await;
    assert_eq!(node.goodbye().await, "bad_params");
}

#[tokio::test]
async fn a_node_signs_for_itself_and_for_this_fleet() {
    let (world, stranger) = (World::new().await, World::new().await);
    let node_key = Arc::new(SecretKey::generate());
    let other = SecretKey::generate();
    for frame in [
        Frame::Announce { signed: Blob(announce(&world, &other)) },
        Frame::Announce { signed: Blob(announce(&stranger, &node_key)) },
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
