//! What changes something is signed over this very link, in order.

use std::sync::Arc;

use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{Answer, Ask};
use outhaul_protocol::keys::{SecretKey, sha256};
use outhaul_protocol::objects::{Control, Rights};
use outhaul_protocol::signed::Signed;

use crate::world::World;

const NEW: Ask = Ask::PairNew { ttl_secs: 60 };

#[tokio::test]
async fn a_change_without_a_signature_is_refused() {
    let world = World::new().await;
    let mut owner = world.owner().await;
    assert_eq!(owner.ask_with(&NEW, None).await.expect_err("unsigned").code, Code::BadSignature);
    assert!(matches!(owner.ask_with(&Ask::Status {}, None).await, Ok(Answer::Status { operators: 1, .. })));
}

#[tokio::test]
async fn a_counter_that_does_not_rise_is_refused() {
    let world = World::new().await;
    let mut owner = world.owner().await;
    let control = owner.control(&NEW, 7);
    assert!(owner.ask_with(&NEW, Some(control.clone())).await.is_ok());
    assert_eq!(owner.ask_with(&NEW, Some(control)).await.expect_err("repeated").code, Code::Replayed);
    let lower = owner.control(&NEW, 6);
    assert_eq!(owner.ask_with(&NEW, Some(lower)).await.expect_err("lower").code, Code::Replayed);
    let higher = owner.control(&NEW, 9);
    assert!(owner.ask_with(&NEW, Some(higher)).await.is_ok());
}

#[tokio::test]
async fn a_signature_counts_for_its_link_its_key_and_its_body_only() {
    let world = World::new().await;
    let (mut owner, elsewhere) = (world.owner().await, world.owner().await);
    let of_another_link = elsewhere.control(&NEW, 1);
    let of_another_body = owner.control(&Ask::PairNew { ttl_secs: 61 }, 1);
    let stranger = Arc::new(SecretKey::generate());
    let control = Control { iss: stranger.id(), transcript: owner.connected.transcript, counter: 1, body: sha256(&NEW.encode()) };
    let of_another_key = Signed::sign(&stranger, &control).into_bytes().into();
    for control in [of_another_link, of_another_body] {
        assert_eq!(owner.ask_with(&NEW, Some(control)).await.expect_err("refused").code, Code::BadSignature);
    }
    assert_eq!(owner.ask_with(&NEW, Some(of_another_key)).await.expect_err("refused").code, Code::BadKey);
}

#[tokio::test]
async fn rights_are_asked_for() {
    let world = World::new().await;
    let (key, chain) = world.operator_with(Rights::default());
    let weak = world.client(&key, &chain).await;
    for ask in [NEW, Ask::PairDetached { ttl_secs: 0, name: outhaul_protocol::cbor::Maybe(None) }, Ask::PairList {}] {
        assert_eq!(weak.ask(ask.clone()).await.expect_err("no right").code, Code::NotGranted, "{ask:?}");
    }
    assert!(matches!(weak.ask(Ask::Status {}).await, Ok(Answer::Status { .. })));
    let owner = world.client(&world.key, &world.chain).await;
    assert_eq!(owner.ask(Ask::PairNew { ttl_secs: 90_000 }).await.expect_err("too long").code, Code::BadParams);
}
