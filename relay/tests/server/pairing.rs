//! Pairing through the relay: it passes messages between two ends, keeps codes when asked to, and counts.

use std::sync::Arc;

use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::error::Code as ErrorCode;
use outhaul_protocol::frame::{Answer, Ask, Facts, Frame};
use outhaul_protocol::keys::{SecretKey, X25519Secret};
use outhaul_protocol::pairing::{Attempts, Code, Guest, Proof, Welcomed};
use outhaul_protocol::time::{Clock, Time};
use outhaul_relay::operator::now;

use crate::world::{Peer, World};

fn facts() -> Facts {
    [("hostname".to_owned(), "Bench.lab".to_owned())].into()
}

async fn knock(guest: &mut Peer, slot: u64, message: &[u8]) {
    guest.send(&Frame::PairJoin { slot, message: Blob(message.to_vec()), facts: facts() }).await;
}

async fn detached(world: &World, name: Option<&str>) -> Code {
    let mut owner = world.owner().await;
    let ask = Ask::PairDetached { ttl_secs: 0, name: Maybe(name.map(str::to_owned)) };
    let Ok(Answer::Code { code, expires_at }) = owner.ask(&ask).await else { panic!("a code") };
    assert!(expires_at >= now().0 + 299);
    Code::parse(&code).expect("as it is typed")
}

fn slot(code: &Code) -> u64 {
    u64::from(code.slot()).max(1)
}

/// A guest's whole run; how the relay ended it, or what it brought.
async fn run(world: &World, guest: &mut Peer, code: &Code) -> Result<Box<Welcomed>, ErrorCode> {
    let (state, join) = Guest::join(Proof::Code(code));
    knock(guest, slot(code), &join).await;
    let (pairing, answer) = next(guest).await?;
    let mailbox = X25519Secret::generate().public();
    let (state, confirmation) = state.confirm(&answer, &mut Attempts::typed(), &guest.key, mailbox, None).expect("confirms");
    guest.send(&Frame::PairMessage { pairing, message: Blob(confirmation) }).await;
    let (_, message) = next(guest).await?;
    let mut clock = Clock::new(Time(0), Some(now()));
    Ok(Box::new(state.welcome(&message, world.relay.key(), &mut clock, now()).expect("a genuine welcome")))
}

async fn next(guest: &mut Peer) -> Result<(u64, Vec<u8>), ErrorCode> {
    match guest.frame().await {
        Frame::PairMessage { pairing, message } => Ok((pairing, message.0)),
        Frame::PairEnd { code, .. } => Err(ErrorCode::parse(&code).expect("a known code")),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn a_code_kept_by_the_relay_pairs_one_machine() {
    let world = World::new().await;
    let code = detached(&world, None).await;
    let key = Arc::new(SecretKey::generate());
    let mut guest = world.guest(&key).await;
    let welcomed = run(&world, &mut guest, &code).await.expect("paired");
    assert_eq!((welcomed.node().name.as_str(), welcomed.welcome().fleet), ("bench", world.fleet.public()));
    let certificate = welcomed.welcome().certificate.encode();
    guest.send(&Frame::PairMessage { pairing: 1, message: Blob(welcomed.stored()) }).await;
    guest.settle().await;
    assert!(world.try_node(&key, certificate).await.is_ok(), "the registry knows it");
    let mut second = world.guest(&Arc::new(SecretKey::generate())).await;
    assert_eq!(run(&world, &mut second, &code).await.expect_err("used"), ErrorCode::NotPaired);
    let again = detached(&world, None).await;
    let welcomed = run(&world, &mut second, &again).await.expect("paired");
    assert_eq!(welcomed.node().name, "bench-2", "a taken name gets a number");
}

#[tokio::test]
async fn three_wrong_guesses_end_a_code_that_the_relay_keeps_and_no_other() {
    let world = World::new().await;
    let (code, other) = (detached(&world, None).await, detached(&world, Some("kiosk")).await);
    assert_eq!((code.slot(), other.slot()), (0, 2));
    let wrong = Code::parse(if code.reveal().as_str() == "000000" { "000001" } else { "000000" }).expect("a code");
    for _ in 0..3 {
        let mut guest = world.guest(&Arc::new(SecretKey::generate())).await;
        assert_eq!(run(&world, &mut guest, &wrong).await.expect_err("wrong"), ErrorCode::NotPaired);
    }
    let mut guest = world.guest(&Arc::new(SecretKey::generate())).await;
    assert_eq!(run(&world, &mut guest, &code).await.expect_err("used up"), ErrorCode::NotPaired);
    let welcomed = run(&world, &mut guest, &other).await.expect("the other code lives");
    assert_eq!(welcomed.node().name, "kiosk");
}

#[tokio::test]
async fn an_operators_code_is_between_its_maker_and_the_guest() {
    let world = World::new().await;
    let (mut maker, mut stranger) = (world.owner().await, world.owner().await);
    let Ok(Answer::Slot { slot: 1, .. }) = maker.ask(&Ask::PairNew { ttl_secs: 60 }).await else { panic!("the first slot") };
    let mut guest = world.guest(&Arc::new(SecretKey::generate())).await;
    knock(&mut guest, 1, b"join").await;
    let Frame::PairOffer { pairing, slot: 1, message, key, facts: said } = maker.frame().await else { panic!("an offer") };
    assert_eq!((message.0.as_slice(), key, said), (&b"join"[..], guest.key.public(), facts()));
    stranger.send(&Frame::PairMessage { pairing, message: Blob(b"forged".to_vec()) }).await;
    stranger.send(&Frame::PairEnd { pairing, code: "denied".into(), message: "x".into() }).await;
    stranger.settle().await;
    for (from_maker, from_guest) in [("answer", "confirm"), ("welcome", "stored")] {
        let frame = Frame::PairMessage { pairing, message: Blob(from_maker.into()) };
        maker.send(&frame).await;
        assert_eq!(guest.frame().await, frame);
        let frame = Frame::PairMessage { pairing, message: Blob(from_guest.into()) };
        guest.send(&frame).await;
        assert_eq!(maker.frame().await, frame);
    }
    assert!(matches!(guest.frame().await, Frame::PairEnd { code, .. } if code == "done"));
    let mut late = world.guest(&Arc::new(SecretKey::generate())).await;
    knock(&mut late, 1, b"join").await;
    assert_eq!(next(&mut late).await.expect_err("used"), ErrorCode::NotPaired);
}

#[tokio::test]
async fn a_code_goes_with_its_maker_and_a_guest_out_of_turn_uses_none_up() {
    let world = World::new().await;
    let mut maker = world.owner().await;
    maker.ask(&Ask::PairNew { ttl_secs: 60 }).await.expect("a slot");
    let mut guest = world.guest(&Arc::new(SecretKey::generate())).await;
    knock(&mut guest, 1, b"join").await;
    let Frame::PairOffer { pairing, .. } = maker.frame().await else { panic!("an offer") };
    for _ in 0..2 {
        guest.send(&Frame::PairMessage { pairing, message: Blob(b"x".to_vec()) }).await;
    }
    assert_eq!(next(&mut guest).await.expect_err("ended"), ErrorCode::BadParams);
    let mut second = world.guest(&Arc::new(SecretKey::generate())).await;
    knock(&mut second, 1, b"join").await;
    let again = loop {
        if let Frame::PairOffer { pairing, .. } = maker.frame().await {
            break pairing;
        }
    };
    assert!(again > pairing, "the slot is still there");
    drop(maker);
    assert_eq!(next(&mut second).await.expect_err("gone"), ErrorCode::LinkLost);
    knock(&mut second, 1, b"join").await;
    assert_eq!(next(&mut second).await.expect_err("gone"), ErrorCode::NotPaired);
}

#[tokio::test]
async fn a_request_waits_until_an_operator_takes_or_rejects_it() {
    let world = World::new().await;
    let mut owner = world.owner().await;
    let (mut one, mut two) = (world.guest(&Arc::new(SecretKey::generate())).await, world.guest(&Arc::new(SecretKey::generate())).await);
    let mut names = Vec::new();
    for guest in [&mut one, &mut two] {
        knock(guest, 0, b"join").await;
        let Frame::PairPending { request, expires_at } = guest.frame().await else { panic!("pending") };
        assert!(guest.id().to_string().starts_with(&request) && expires_at > now().0);
        names.push(request);
    }
    let Ok(Answer::Pendings { pendings }) = owner.ask(&Ask::PairList {}).await else { panic!("a list") };
    assert_eq!(pendings.iter().map(|pending| pending.request.clone()).collect::<Vec<_>>(), names);
    let ambiguous = owner.ask(&Ask::PairTake { request: "Bench.lab".into() }).await.expect_err("two of that name");
    assert_eq!(ambiguous.code, ErrorCode::AmbiguousNode);
    owner.ask(&Ask::PairReject { request: names[0].clone() }).await.expect("rejects");
    assert_eq!(next(&mut one).await.expect_err("rejected"), ErrorCode::Denied);
    // The offer may overtake the answer.
    let id = two.id().to_string();
    owner.ask(&Ask::PairTake { request: id[..10].to_owned() }).await.expect("takes");
    assert_eq!(owner.ask(&Ask::PairTake { request: names[1].clone() }).await.expect_err("taken").code, ErrorCode::UnknownNode);
}

#[tokio::test]
async fn guessing_from_one_address_is_slowed_down() {
    let world = World::new().await;
    let mut guest = world.guest(&Arc::new(SecretKey::generate())).await;
    for _ in 0..10 {
        knock(&mut guest, 7, b"x").await;
        assert_eq!(next(&mut guest).await.expect_err("no such slot"), ErrorCode::NotPaired);
    }
    knock(&mut guest, 7, b"x").await;
    assert_eq!(next(&mut guest).await.expect_err("too many"), ErrorCode::Busy);
}

#[tokio::test]
async fn guests_send_pairing_frames_and_small_ones_only() {
    let world = World::new().await;
    for frame in [
        Frame::Announce { signed: Blob(vec![1]) }.encode(),
        Frame::PairJoin { slot: 0, message: Blob(vec![0; 70_000]), facts: Facts::new() }.encode(),
        outhaul_protocol::frame::ChannelFrame::Data { channel: [1; 16], noise: b"x" }.encode(),
    ] {
        let mut guest = world.guest(&Arc::new(SecretKey::generate())).await;
        guest.raw(frame).await;
        assert_eq!(guest.goodbye().await, "bad_params");
        assert!(guest.bytes().await.is_none());
    }
}
