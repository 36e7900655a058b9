//! What runs out, under a clock that tests move.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use outhaul_protocol::chain::{RevokedSet, verify_chain};
use outhaul_protocol::keys::{SecretKey, random, sha256};
use outhaul_protocol::objects::{Grant, Rights};
use outhaul_protocol::signed::Signed;

use super::state::{RUN, RUNS_PER_SLOT, WAITING};
use super::*;
use crate::core::sessions::Sessions;

struct World {
    pairings: Pairings,
    sessions: Sessions,
}

impl World {
    fn new() -> World {
        World { pairings: Pairings::new(100), sessions: Sessions::default() }
    }

    fn operator(&self) -> Arc<OperatorSession> {
        let (fleet, key) = (SecretKey::generate(), SecretKey::generate().public());
        let grant = Grant {
            iss: fleet.id(),
            aud: fleet.id(),
            exp: clock::now().plus(60),
            iat: clock::now(),
            cti: random(),
            holder: key,
            commands: vec![],
            nodes: vec![],
            evidence_channel: false,
            rights: Rights::all(),
            delegate: false,
            holder_kind: None,
        };
        let chain = [Blob(Signed::sign(&fleet, &grant).into_bytes())];
        let authority = verify_chain(&fleet.public(), &chain, clock::reading(), &RevokedSet::empty()).expect("stands");
        Arc::new(OperatorSession {
            session: self.sessions.begin(),
            key,
            id: key.id(),
            authority,
            transcript: sha256(b""),
            counter: AtomicU64::new(0),
            asking: AtomicUsize::new(0),
            channels: Mutex::default(),
        })
    }

    fn guest(&self, host: u8) -> Arc<GuestSession> {
        let key = SecretKey::generate().public();
        let guest = Arc::new(GuestSession { session: self.sessions.begin(), key, id: key.id(), address: [192, 0, 2, host].into() });
        self.pairings.admit(&guest).expect("room");
        guest
    }

    fn knock(&self, guest: &Arc<GuestSession>, slot: u64) -> Result<(), Code> {
        self.pairings.state().knock(guest, slot, Blob(vec![1]), Facts::new()).map_err(|failure| failure.code)
    }

    fn runs(&self) -> usize {
        self.pairings.state().runs.len()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_code_is_worth_nothing_from_the_second_it_runs_out() {
    let (world, operator) = (World::new(), World::new().operator());
    let (slot, _) = world.pairings.open(Maker::Operator(operator), MINUTE).expect("a slot");
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert_eq!(world.knock(&world.guest(1), slot), Ok(()));
    tokio::time::advance(Duration::from_millis(1)).await;
    // Nobody swept: it is judged when it is used.
    assert_eq!(world.knock(&world.guest(1), slot), Err(Code::NotPaired));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_ran_out_is_free_again_and_slots_are_bounded() {
    let world = World::new();
    let operators: Vec<_> = (0..9).map(|_| world.operator()).collect();
    let open = |operator: &Arc<OperatorSession>| world.pairings.open(Maker::Operator(operator.clone()), MINUTE).map(|(slot, _)| slot);
    let slots: Vec<_> =
        operators.iter().flat_map(|operator| (0..SLOTS_PER_SESSION).map(|_| open(operator).map_err(|failure| failure.code))).collect();
    assert_eq!(slots.iter().filter(|slot| slot.is_ok()).count(), limits::PAIRINGS);
    assert_eq!((slots[0], slots[63], slots[64]), (Ok(1), Ok(64), Err(Code::Busy)));
    tokio::time::advance(MINUTE).await;
    for _ in 0..SLOTS_PER_SESSION {
        open(&operators[0]).expect("free again");
    }
    assert_eq!(open(&operators[0]).expect_err("enough for one").code, Code::Busy);
    assert_eq!(open(&operators[1]), Ok(9));
}

#[tokio::test(start_paused = true)]
async fn runs_and_requests_end_when_nothing_comes_of_them() {
    let (world, operator) = (World::new(), World::new().operator());
    let (slot, _) = world.pairings.open(Maker::Operator(operator), RUN * 2).expect("a slot");
    let (guest, waiting) = (world.guest(1), world.guest(2));
    world.knock(&guest, slot).expect("a run");
    world.knock(&waiting, 0).expect("a request");
    assert_eq!(world.knock(&guest, slot), Err(Code::Busy), "one at a time");
    assert_eq!(world.knock(&waiting, slot), Err(Code::Busy));
    tokio::time::advance(RUN).await;
    world.pairings.expire();
    assert_eq!((world.runs(), world.pairings.waiting().len()), (0, 1));
    world.knock(&guest, slot).expect("again");
    tokio::time::advance(WAITING).await;
    assert!(world.pairings.waiting().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_one_slot_waits_and_takes_nothing_from_the_code() {
    let (world, operator) = (World::new(), World::new().operator());
    let (slot, _) = world.pairings.open(Maker::Operator(operator), MINUTE).expect("a slot");
    let crowd: Vec<_> = (0..10).map(|host| world.guest(host)).collect();
    let entered = crowd.iter().filter(|guest| world.knock(guest, slot) == Ok(())).count();
    assert_eq!(entered, RUNS_PER_SLOT);
    for guest in &crowd {
        world.pairings.guest_gone(guest);
    }
    assert_eq!(world.runs(), 0);
    assert_eq!(world.knock(&world.guest(99), slot), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn guests_are_bounded_in_all_and_by_address() {
    let world = World::new();
    let from = |host: u8| {
        let key = SecretKey::generate().public();
        let guest = Arc::new(GuestSession { session: world.sessions.begin(), key, id: key.id(), address: [192, 0, 2, host].into() });
        world.pairings.admit(&guest).is_ok()
    };
    assert_eq!((0..20).filter(|_| from(1)).count(), GUESTS_PER_ADDRESS);
    assert_eq!((0..100).filter(|host| from(100 + host)).count(), 100 - GUESTS_PER_ADDRESS);
}

#[tokio::test(start_paused = true)]
async fn the_same_machine_asking_again_replaces_its_request() {
    let world = World::new();
    let first = world.guest(1);
    world.knock(&first, 0).expect("a request");
    let again = Arc::new(GuestSession { session: world.sessions.begin(), key: first.key, id: first.id, address: first.address });
    world.knock(&again, 0).expect("a request");
    assert_eq!(world.pairings.waiting().len(), 1);
    assert!(first.session.until_ended().await.contains("another connection"));
    world.pairings.guest_gone(&first);
    assert_eq!(world.pairings.waiting().len(), 1, "the old one's end takes nothing from the new");
}
