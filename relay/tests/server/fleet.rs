//! Who is let in, and what ends a session.

use std::sync::Arc;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{Answer, Ask, Lookup};
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::objects::{Certificate, Revocations, Rights};
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::Time;
use outhaul_relay::operator::now;

use crate::world::World;

#[tokio::test]
async fn only_keys_that_the_fleet_certified_come_in() {
    let world = World::new().await;
    let stranger = World::new().await;
    let key = SecretKey::generate();
    let other = SecretKey::generate();
    for certificate in [
        Vec::new(),
        vec![0xff; 40],
        stranger.certificate(&key.public(), "bench-1", 1),
        world.certificate(&other.public(), "bench-1", 1),
        Certificate { node: Blob(vec![1]), chain: world.chain.clone() }.encode(),
    ] {
        let failure = world.try_node(&key, certificate).await.expect_err("refused");
        assert_eq!((failure.code, failure.message.as_str()), (Code::NotPaired, "this machine is not paired with the fleet of this relay"));
    }
    let expired = world.certificate_of(|node| (node.node, node.iat, node.exp) = (key.public(), Time(now().0 - 100), Time(now().0 - 50)));
    assert_eq!(world.try_node(&key, expired).await.expect_err("refused").code, Code::Expired);
    for (key, chain) in [(&stranger.key, &stranger.chain), (&Arc::new(SecretKey::generate()), &world.chain)] {
        assert_eq!(world.try_operator(key, chain, None).await.expect_err("refused").code, Code::NotGranted);
    }
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_the_old_ones_end_removes_nothing() {
    let world = World::new().await;
    let key = Arc::new(SecretKey::generate());
    let mut old = world.node(&key, "bench-1").await;
    let mut new = world.node(&key, "bench-1").await;
    assert!(new.connected.session > old.connected.session);
    assert_eq!(old.goodbye().await, "replaced");
    assert!(old.bytes().await.is_none());
    drop(old);
    new.settle().await;
    assert_eq!(world.record(&key.id()).await.expect("known").status, "online");
    drop(new);
    world.until(&key.id(), "offline").await;
}

#[tokio::test]
async fn a_hundred_reconnects_at_once_leave_one_session() {
    let world = Arc::new(World::new().await);
    let key = Arc::new(SecretKey::generate());
    let certificate = world.certificate(&key.public(), "bench-1", 1);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (world, key, certificate) = (world.clone(), key.clone(), certificate.clone());
        tasks.spawn(async move { world.try_node(&key, certificate).await.expect("lets it in") });
    }
    let all = tasks.join_all().await;
    let mut owner = world.owner().await;
    let Ok(Answer::Status { nodes, .. }) = owner.ask(&Ask::Status {}).await else { panic!("a status") };
    assert_eq!(nodes, 1);
    drop(all);
    world.until(&key.id(), "offline").await;
}

#[tokio::test]
async fn the_registry_survives_a_restart() {
    let world = World::new().await;
    let key = Arc::new(SecretKey::generate());
    let mut node = world.node(&key, "bench-1").await;
    node.settle().await;
    let address = world.home.join("relay/address");
    assert_eq!(std::fs::read_to_string(&address).expect("is there"), format!("{}\n", world.relay.url()));
    world.stop.cancel();
    assert_eq!(node.goodbye().await, "drain");
    let world = world.restart().await;
    let record = world.record(&key.id()).await.expect("known");
    assert_eq!((record.status.as_str(), record.certificate.0), ("offline", world.certificate_known(&key)));
    assert!(record.connected_at > 0 && record.last_seen >= record.connected_at);
    world.stop.cancel();
    world.relay.join().await.expect("drains");
    assert!(!address.exists());
}

impl World {
    /// What the database itself holds.
    fn certificate_known(&self, key: &Arc<SecretKey>) -> Vec<u8> {
        let db = rusqlite::Connection::open(self.home.join("relay/relay.db")).expect("opens");
        db.query_row("SELECT certificate FROM nodes WHERE id = ?1", [&key.id().0[..]], |row| row.get(0)).expect("is there")
    }
}

#[tokio::test]
async fn one_home_has_one_relay() {
    let world = World::new().await;
    let options = outhaul_relay::config::ServeOptions { listen: "127.0.0.1:0".parse().ok(), ..Default::default() };
    let failure = outhaul_relay::serve::start(&world.home, options, world.stop.clone()).await.expect_err("one runs");
    assert_eq!(failure.code, Code::Busy);
}

#[tokio::test]
async fn a_removed_node_stays_out_until_it_is_certified_anew() {
    let world = World::new().await;
    let key = Arc::new(SecretKey::generate());
    let certificate = world.certificate(&key.public(), "bench-1", 1);
    let mut node = world.node(&key, "bench-1").await;
    let (weak_key, weak_chain) = world.operator_with(Rights::default());
    let weak = world.client(&weak_key, &weak_chain).await;
    assert_eq!(weak.ask(Ask::RemoveNode { node: key.id() }).await.expect_err("no right").code, Code::NotGranted);
    let mut owner = world.owner().await;
    assert_eq!(owner.ask(&Ask::RemoveNode { node: key.id() }).await, Ok(Answer::Done {}));
    assert_eq!(node.goodbye().await, "revoked");
    assert_eq!(owner.ask(&Ask::RemoveNode { node: key.id() }).await, Ok(Answer::Done {}), "gone already");
    assert_eq!(owner.ask(&Ask::RemoveNode { node: owner.id() }).await.expect_err("never known").code, Code::UnknownNode);
    assert_eq!(world.try_node(&key, certificate).await.expect_err("removed").code, Code::Revoked);
    let newer = world.certificate(&key.public(), "bench-1", 2);
    assert_eq!(owner.ask(&Ask::PutCertificate { certificate: Blob(newer.clone()) }).await, Ok(Answer::Done {}));
    assert!(world.try_node(&key, newer).await.is_ok());
}

#[tokio::test]
async fn a_revocation_ends_what_it_revokes_and_nothing_else() {
    let world = World::new().await;
    let (one, two) = (Arc::new(SecretKey::generate()), Arc::new(SecretKey::generate()));
    let mut revoked = world.node(&one, "bench-1").await;
    let mut other = world.node(&two, "bench-2").await;
    let list = |serial| Revocations {
        iss: world.fleet.id(),
        aud: world.fleet.id(),
        iat: now(),
        serial,
        keys: vec![one.id()],
        ctis: Vec::new(),
        next: None,
    };
    let notice = |serial| {
        let signed = Blob(Signed::sign(&world.fleet, &list(serial)).into_bytes());
        Ask::PutNotice { kind: "revocations".into(), signed, chain: Vec::new() }
    };
    let mut owner = world.owner().await;
    assert_eq!(owner.ask(&notice(5)).await, Ok(Answer::Done {}));
    assert_eq!(owner.ask(&notice(4)).await.expect_err("older").code, Code::Replayed);
    assert_eq!(revoked.goodbye().await, "revoked");
    other.settle().await;
    let certificate = world.certificate(&one.public(), "bench-1", 9);
    assert_eq!(world.try_node(&one, certificate.clone()).await.expect_err("revoked").code, Code::Revoked);
    let world = world.restart().await;
    assert_eq!(world.try_node(&one, certificate).await.expect_err("still revoked").code, Code::Revoked);
}

#[tokio::test]
async fn a_node_with_an_older_certificate_comes_in_under_the_newer_one() {
    let world = World::new().await;
    let key = Arc::new(SecretKey::generate());
    let mut owner = world.owner().await;
    for (name, serial) in [("bench-1", 1), ("bench-9", 2)] {
        let certificate = Blob(world.certificate(&key.public(), name, serial));
        assert_eq!(owner.ask(&Ask::PutCertificate { certificate }).await, Ok(Answer::Done {}));
    }
    let _node = world.node(&key, "bench-1").await;
    let found = |name: &str| Ask::Nodes { lookup: Lookup { id: None, name: Some(name.into()) } };
    let Ok(Answer::Nodes { nodes }) = owner.ask(&found("bench-9")).await else { panic!("nodes") };
    assert_eq!((nodes.len(), nodes[0].status.as_str()), (1, "online"));
    let Ok(Answer::Nodes { nodes }) = owner.ask(&found("bench-1")).await else { panic!("nodes") };
    assert!(nodes.is_empty());
}

#[tokio::test]
async fn two_nodes_do_not_share_a_name_unless_one_replaces_the_other() {
    let world = World::new().await;
    let (one, two) = (Arc::new(SecretKey::generate()), Arc::new(SecretKey::generate()));
    let mut old = world.node(&one, "bench-1").await;
    let mut owner = world.owner().await;
    let taken = Ask::PutCertificate { certificate: Blob(world.certificate(&two.public(), "bench-1", 1)) };
    assert_eq!(owner.ask(&taken).await.expect_err("taken").code, Code::BadUsage);
    let replaces = world.certificate_of(|node| (node.node, node.name, node.replaces) = (two.public(), "bench-1".into(), Some(one.id())));
    assert_eq!(owner.ask(&Ask::PutCertificate { certificate: Blob(replaces) }).await, Ok(Answer::Done {}));
    assert_eq!(old.goodbye().await, "revoked");
    assert!(world.record(&one.id()).await.is_none() && world.record(&two.id()).await.is_some());
}

#[tokio::test]
async fn a_relay_that_ends_tls_itself_is_reached_by_wss() {
    let world = World::with_tls().await;
    assert!(world.relay.url().to_string().starts_with("wss://127.0.0.1:"));
    let mut node = world.node(&Arc::new(SecretKey::generate()), "bench-1").await;
    node.settle().await;
    let mut owner = world.owner().await;
    let channel = [7; 16];
    let opened = owner.open(channel, node.id()).await;
    assert_eq!(node.bytes().await.expect("the opening"), opened);
}
