use super::*;
use crate::chain::RevokedSet;
use crate::keys::{SecretKey, X25519Secret};
use crate::objects::samples::{self, NOW, fleet, key, node_key, operator};
use crate::objects::{Grant, Node};
use crate::signed::{Payload, Signed};
use crate::time::{Clock, Time};
use proptest::prelude::*;

const RELAY: u8 = 8;

fn signed<T: Payload>(by: &SecretKey, object: &T) -> Blob {
    Blob(Signed::sign(by, object).into_bytes())
}

fn mailbox() -> X25519Public {
    X25519Secret::from_bytes(&[4; 32]).public()
}

fn clock() -> Clock {
    Clock::new(Time(NOW.0 - 1000), None)
}

fn welcome_for(offer: &Offer) -> Welcome {
    let node = Node { node: offer.node, mailbox: offer.mailbox, ..samples::node() };
    let grant: Grant = samples::grant(&fleet(), &operator());
    Welcome {
        fleet: fleet().public(),
        successor: Some(Digest([1; 32])),
        certificate: Certificate { node: signed(&operator(), &node), chain: vec![signed(&fleet(), &grant)] },
        relays: signed(&fleet(), &samples::relays(&[&key(RELAY)])),
        revocations: Some(RevocationList { list: signed(&fleet(), &samples::revocations(&fleet(), 1, &[], &[])), chain: vec![] }),
        publishers: vec![key(60).public()],
    }
}

fn code() -> Code {
    Code::parse("482913").unwrap()
}

/// What a network does to each of the five messages, and how the run ended on both sides.
struct Run<'a> {
    guest: Proof<'a>,
    maker: Proof<'a>,
    alter: &'a dyn Fn(usize, Vec<u8>) -> Vec<u8>,
    welcome: &'a dyn Fn(&Offer) -> Welcome,
    relay: SecretKey,
    own: Time,
}

impl<'a> Run<'a> {
    fn new(guest: Proof<'a>, maker: Proof<'a>) -> Self {
        Run { guest, maker, alter: &|_, message| message, welcome: &welcome_for, relay: key(RELAY), own: NOW }
    }

    /// The agent's end, and the operator's.
    fn go(&self, shown: &mut Attempts) -> (Result<Welcome, PairingError>, Result<PublicKey, PairingError>) {
        let never = || PairingError::malformed("nothing", "never arrived");
        let (guest, join) = Guest::join(self.guest);
        let (maker, answer) = match Maker::answer(self.maker, &(self.alter)(0, join)) {
            Ok(both) => both,
            Err(error) => return (Err(never()), Err(error)),
        };
        let confirm = guest.confirm(&(self.alter)(1, answer), &mut Attempts::typed(), &node_key(), mailbox(), Some("bench-1".to_owned()));
        let (guest, confirm) = match confirm {
            Ok(both) => both,
            Err(error) => return (Err(error), Err(never())),
        };
        let confirmed = match maker.confirm(&(self.alter)(2, confirm), shown) {
            Ok(confirmed) => confirmed,
            Err(error) => return (Err(never()), Err(error)),
        };
        let welcome = (self.welcome)(confirmed.offer());
        let (awaiting, welcome) = confirmed.welcome(&operator(), &welcome).unwrap();
        let welcomed = match guest.welcome(&(self.alter)(3, welcome), &self.relay.public(), &mut clock(), self.own) {
            Ok(welcomed) => welcomed,
            Err(error) => return (Err(error), Err(never())),
        };
        let got = welcomed.welcome().clone();
        (Ok(got), awaiting.stored(&(self.alter)(4, welcomed.stored())))
    }
}

fn failed(run: &Run<'_>) -> PairingError {
    let (guest, maker) = run.go(&mut Attempts::shown());
    match (guest, maker) {
        (Err(error), _) if !error.to_string().contains("never arrived") => error,
        (_, Err(error)) => error,
        (Ok(_), Ok(_)) => panic!("the pairing succeeded"),
        (Err(_), Ok(_)) => panic!("the operator believes in a pairing the agent does not know of"),
    }
}

#[test]
fn the_right_code_pairs_and_is_used_up() {
    let code = code();
    let mut shown = Attempts::shown();
    let (welcome, paired) = Run::new(Proof::Code(&code), Proof::Code(&code)).go(&mut shown);
    assert_eq!(welcome.unwrap().fleet, fleet().public());
    assert_eq!(paired.unwrap(), node_key().public());
    assert!(shown.used_up());
    let (_, again) = Run::new(Proof::Code(&code), Proof::Code(&code)).go(&mut shown);
    assert_eq!(again, Err(PairingError::UsedUp));
}

#[test]
fn a_welcome_names_only_so_many_publishers() {
    let code = code();
    let many = |offer: &Offer| Welcome { publishers: vec![key(60).public(); crate::limits::PUBLISHERS + 1], ..welcome_for(offer) };
    let run = Run { welcome: &many, ..Run::new(Proof::Code(&code), Proof::Code(&code)) };
    assert!(matches!(failed(&run), PairingError::Malformed { message: "the welcome", .. }));
}

#[test]
fn long_and_slotted_codes_pair() {
    for code in [Code::generate_long(0), Code::generate(2), Code::generate_long(17)] {
        let typed = Code::parse(&code.reveal().to_lowercase()).unwrap();
        let (guest, maker) = Run::new(Proof::Code(&typed), Proof::Code(&code)).go(&mut Attempts::shown());
        assert!(guest.is_ok() && maker.is_ok());
    }
}

#[test]
fn a_wrong_code_or_slot_shows_at_the_maker_and_three_burn_it() {
    let shown = code();
    let mut attempts = Attempts::shown();
    for wrong in ["482914", "2-482913", "000000"] {
        let wrong = Code::parse(wrong).unwrap();
        let (guest, maker) = Run::new(Proof::Code(&wrong), Proof::Code(&shown)).go(&mut attempts);
        assert!(guest.is_err());
        assert_eq!(maker, Err(PairingError::WrongCode));
    }
    let (_, maker) = Run::new(Proof::Code(&shown), Proof::Code(&shown)).go(&mut attempts);
    assert_eq!(maker, Err(PairingError::UsedUp), "even the right code comes too late");
}

#[test]
fn runs_begun_side_by_side_share_one_count() {
    let (shown, wrong) = (code(), Code::parse("111111").unwrap());
    let mut attempts = Attempts::shown();
    let runs: Vec<_> = (0..10)
        .map(|_| {
            let (guest, join) = Guest::join(Proof::Code(&wrong));
            let (maker, answer) = Maker::answer(Proof::Code(&shown), &join).unwrap();
            (guest.confirm(&answer, &mut Attempts::typed(), &node_key(), mailbox(), None).unwrap().1, maker)
        })
        .collect();
    let outcomes: Vec<_> = runs.into_iter().map(|(confirm, maker)| maker.confirm(&confirm, &mut attempts).unwrap_err()).collect();
    assert_eq!(outcomes.iter().filter(|error| **error == PairingError::WrongCode).count(), 3);
    assert_eq!(outcomes.iter().filter(|error| **error == PairingError::UsedUp).count(), 7);
}

#[test]
fn an_agent_that_typed_a_code_runs_once() {
    let code = code();
    let mut typed = Attempts::typed();
    for run in 0..2 {
        let (guest, join) = Guest::join(Proof::Code(&code));
        let (_, answer) = Maker::answer(Proof::Code(&code), &join).unwrap();
        let outcome = guest.confirm(&answer, &mut typed, &node_key(), mailbox(), None);
        assert_eq!(outcome.is_ok(), run == 0);
    }
}

#[test]
fn an_agent_that_shows_a_code_counts_what_it_sent() {
    // A relay that plays the operator may test each confirmation against a guess and hang up: no failure ever shows.
    let (code, guess) = (code(), Code::parse("999999").unwrap());
    let mut shown = Attempts::shown();
    for run in 0..5 {
        let (guest, join) = Guest::join(Proof::Code(&code));
        let (_, answer) = Maker::answer(Proof::Code(&guess), &join).unwrap();
        assert_eq!(guest.confirm(&answer, &mut shown, &node_key(), mailbox(), None).is_ok(), run < 3);
    }
}

#[test]
fn any_altered_message_ends_the_run() {
    let code = code();
    for which in 0..5 {
        for at in [0, 1, 16, 32, usize::MAX] {
            let alter = move |message: usize, mut bytes: Vec<u8>| {
                if message == which {
                    let at = at.min(bytes.len() - 1);
                    bytes[at] ^= 0x40;
                }
                bytes
            };
            failed(&Run { alter: &alter, ..Run::new(Proof::Code(&code), Proof::Code(&code)) });
        }
    }
}

#[test]
fn cut_empty_and_repeated_messages_end_the_run() {
    let code = code();
    for which in 0..5 {
        let cut = move |message: usize, mut bytes: Vec<u8>| {
            if message == which {
                bytes.pop();
            }
            bytes
        };
        let empty = move |message: usize, bytes: Vec<u8>| if message == which { vec![] } else { bytes };
        let alters: [&dyn Fn(usize, Vec<u8>) -> Vec<u8>; 2] = [&cut, &empty];
        for alter in alters {
            failed(&Run { alter, ..Run::new(Proof::Code(&code), Proof::Code(&code)) });
        }
    }
}

#[test]
fn a_man_in_the_middle_with_his_own_runs_gets_neither_side() {
    let (code, guess) = (code(), Code::parse("000001").unwrap());
    let mallory = key(77);
    // Towards the operator he plays the agent, towards the agent the operator, with a guess each.
    let (guest, join) = Guest::join(Proof::Code(&code));
    let (as_guest, his_join) = Guest::join(Proof::Code(&guess));
    let (maker, answer) = Maker::answer(Proof::Code(&code), &his_join).unwrap();
    let (as_maker, his_answer) = Maker::answer(Proof::Code(&guess), &join).unwrap();
    let (guest, confirm) = guest.confirm(&his_answer, &mut Attempts::typed(), &node_key(), mailbox(), None).unwrap();
    let (_, his_confirm) = as_guest.confirm(&answer, &mut Attempts::typed(), &mallory, mailbox(), None).unwrap();
    assert_eq!(as_maker.confirm(&confirm, &mut Attempts::shown()).unwrap_err(), PairingError::WrongCode);
    let mut shown = Attempts::shown();
    assert_eq!(maker.confirm(&his_confirm, &mut shown).unwrap_err(), PairingError::WrongCode);
    assert_eq!(shown.left(), 2);
    // What he cannot open he cannot answer: a welcome of any other run does not open.
    let (other, join) = Guest::join(Proof::Code(&guess));
    let (elsewhere, answer) = Maker::answer(Proof::Code(&guess), &join).unwrap();
    let (_, confirm) = other.confirm(&answer, &mut Attempts::typed(), &mallory, mailbox(), None).unwrap();
    let confirmed = elsewhere.confirm(&confirm, &mut Attempts::shown()).unwrap();
    let welcome = welcome_for(confirmed.offer());
    let (_, forged) = confirmed.welcome(&operator(), &welcome).unwrap();
    assert_eq!(guest.welcome(&forged, &key(RELAY).public(), &mut clock(), NOW).unwrap_err(), PairingError::WrongCode);
}

#[test]
fn reflected_messages_are_refused() {
    let code = code();
    let (guest, join) = Guest::join(Proof::Code(&code));
    assert!(guest.confirm(&join, &mut Attempts::typed(), &node_key(), mailbox(), None).is_err());
    let (_, answer) = Maker::answer(Proof::Code(&code), &join).unwrap();
    assert!(Maker::answer(Proof::Code(&code), &answer).is_err());
    let (guest, join) = Guest::join(Proof::Code(&code));
    let (_, answer) = Maker::answer(Proof::Code(&code), &join).unwrap();
    let (guest, confirm) = guest.confirm(&answer, &mut Attempts::typed(), &node_key(), mailbox(), None).unwrap();
    assert!(guest.welcome(&confirm, &key(RELAY).public(), &mut clock(), NOW).is_err());
}

#[test]
fn nothing_of_either_side_is_in_clear() {
    let code = code();
    let seen = std::cell::RefCell::new(Vec::new());
    let watch = |_: usize, bytes: Vec<u8>| {
        seen.borrow_mut().extend_from_slice(&bytes);
        bytes
    };
    let (guest, maker) = Run { alter: &watch, ..Run::new(Proof::Code(&code), Proof::Code(&code)) }.go(&mut Attempts::shown());
    assert!(guest.is_ok() && maker.is_ok());
    let seen = seen.into_inner();
    for secret in
        [&b"bench-1"[..], b"relay.example", b"482913", node_key().public().as_bytes(), fleet().public().as_bytes(), mailbox().as_bytes()]
    {
        assert!(!seen.windows(secret.len()).any(|window| window == secret));
    }
}

#[test]
fn the_agent_checks_what_it_is_given() {
    let code = code();
    type Change = fn(&mut Welcome, &Offer);
    let bad: [Change; 9] = [
        |welcome, _| welcome.fleet = key(50).public(),
        |welcome, _| welcome.certificate.chain.clear(),
        |welcome, _| welcome.certificate.node = signed(&operator(), &samples::node_for(&key(51))),
        |welcome, offer| {
            welcome.certificate.node = signed(&operator(), &Node { node: offer.node, mailbox: samples::agreeing(9), ..samples::node() })
        },
        |welcome, offer| welcome.certificate.node = signed(&operator(), &Node { node: offer.node, aud: key(50).id(), ..samples::node() }),
        |welcome, _| welcome.relays = signed(&fleet(), &samples::relays(&[&key(52)])),
        |welcome, _| welcome.relays = signed(&key(50), &crate::objects::Relays { iss: key(50).id(), ..samples::relays(&[&key(RELAY)]) }),
        |welcome, _| {
            welcome.revocations.as_mut().unwrap().list = signed(&fleet(), &samples::revocations(&fleet(), 1, &[operator().id()], &[]))
        },
        |welcome, _| {
            welcome.relays = signed(&fleet(), &crate::objects::Relays { iat: NOW.plus(90_000), ..samples::relays(&[&key(RELAY)]) })
        },
    ];
    for change in bad {
        let welcome = |offer: &Offer| {
            let mut welcome = welcome_for(offer);
            change(&mut welcome, offer);
            welcome
        };
        let error = failed(&Run { welcome: &welcome, ..Run::new(Proof::Code(&code), Proof::Code(&code)) });
        assert_ne!(error, PairingError::WrongCode);
    }
    let error = failed(&Run { relay: key(53), ..Run::new(Proof::Code(&code), Proof::Code(&code)) });
    assert_eq!(error, PairingError::Relay(key(53).id()));
}

#[test]
fn the_welcome_is_signed_by_the_chains_holder() {
    let code = code();
    // Somebody with the code and a genuine chain he does not hold.
    let (guest, join) = Guest::join(Proof::Code(&code));
    let (maker, answer) = Maker::answer(Proof::Code(&code), &join).unwrap();
    let (guest, confirm) = guest.confirm(&answer, &mut Attempts::typed(), &node_key(), mailbox(), None).unwrap();
    let confirmed = maker.confirm(&confirm, &mut Attempts::shown()).unwrap();
    let welcome = welcome_for(confirmed.offer());
    let (_, message) = confirmed.welcome(&key(78), &welcome).unwrap();
    let error = guest.welcome(&message, &key(RELAY).public(), &mut clock(), NOW).unwrap_err();
    assert_eq!(error.code(), error::Code::BadKey);
}

#[test]
fn pins_stand_in_for_a_code_and_are_checked_beside_one() {
    let code = code();
    let (fleet_id, node_id) = (fleet().id(), node_key().id());
    for (guest, maker) in [(Proof::Pin(fleet_id), Proof::Pin(node_id)), (Proof::Both(&code, fleet_id), Proof::Both(&code, node_id))] {
        let (guest, maker) = Run::new(guest, maker).go(&mut Attempts::shown());
        assert!(guest.is_ok() && maker.is_ok());
    }
    let other = key(90).id();
    assert_eq!(failed(&Run::new(Proof::Pin(other), Proof::Pin(node_id))), PairingError::Pin { found: fleet_id, wanted: other });
    assert_eq!(failed(&Run::new(Proof::Pin(fleet_id), Proof::Pin(other))), PairingError::Pin { found: node_id, wanted: other });
    assert_eq!(failed(&Run::new(Proof::Pin(fleet_id), Proof::Code(&code))), PairingError::WrongCode);
}

#[test]
fn a_man_in_the_middle_of_a_pinned_run_cannot_pass_signatures_on() {
    let (fleet_id, node_id) = (fleet().id(), node_key().id());
    // He knows the empty password, so he opens what the agent sends; the signature in it is over another run.
    let (guest, join) = Guest::join(Proof::Pin(fleet_id));
    let (_, his_join) = Guest::join(Proof::Pin(fleet_id));
    let (as_maker, his_answer) = Maker::answer(Proof::Pin(node_id), &join).unwrap();
    let (maker, _) = Maker::answer(Proof::Pin(node_id), &his_join).unwrap();
    let (_, confirm) = guest.confirm(&his_answer, &mut Attempts::shown(), &node_key(), mailbox(), None).unwrap();
    assert!(as_maker.confirm(&confirm, &mut Attempts::shown()).is_ok());
    assert!(maker.confirm(&confirm, &mut Attempts::shown()).is_err());
}

#[test]
fn a_machine_whose_clock_is_at_1970_pairs_and_learns_the_time() {
    let code = code();
    let mut clock = Clock::new(Time(NOW.0 - 5_000_000), None);
    let (guest, join) = Guest::join(Proof::Code(&code));
    let (maker, answer) = Maker::answer(Proof::Code(&code), &join).unwrap();
    let (guest, confirm) = guest.confirm(&answer, &mut Attempts::typed(), &node_key(), mailbox(), None).unwrap();
    let confirmed = maker.confirm(&confirm, &mut Attempts::shown()).unwrap();
    let welcome = welcome_for(confirmed.offer());
    let (_, message) = confirmed.welcome(&operator(), &welcome).unwrap();
    let welcomed = guest.welcome(&message, &key(RELAY).public(), &mut clock, Time(0)).unwrap();
    assert_eq!(clock.floor(), NOW);
    assert_eq!((welcomed.node().name.as_str(), welcomed.operator()), ("bench-1", &operator().public()));
    assert_eq!(welcomed.revoked().serial(), 1);
    assert_ne!(welcomed.revoked(), &RevokedSet::empty());
    let error = failed(&Run { own: Time(4_070_908_800), ..Run::new(Proof::Code(&code), Proof::Code(&code)) });
    assert_eq!(error.code(), error::Code::Expired);
}

#[test]
fn a_welcome_that_cannot_travel_is_refused_before_it_is_sent() {
    let code = code();
    let (guest, join) = Guest::join(Proof::Code(&code));
    let (maker, answer) = Maker::answer(Proof::Code(&code), &join).unwrap();
    let (_, confirm) = guest.confirm(&answer, &mut Attempts::typed(), &node_key(), mailbox(), None).unwrap();
    let confirmed = maker.confirm(&confirm, &mut Attempts::shown()).unwrap();
    let welcome = Welcome { relays: Blob(vec![0; 65_535]), ..welcome_for(confirmed.offer()) };
    assert!(matches!(confirmed.welcome(&operator(), &welcome), Err(PairingError::TooLarge(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_messages_never_panic_and_never_pair(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let code = code();
        let (guest, join) = Guest::join(Proof::Code(&code));
        prop_assert!(guest.confirm(&bytes, &mut Attempts::typed(), &node_key(), mailbox(), None).is_err());
        prop_assert!(Maker::answer(Proof::Code(&code), &bytes).is_err());
        let (maker, _) = Maker::answer(Proof::Code(&code), &join).unwrap();
        prop_assert!(maker.confirm(&bytes, &mut Attempts::shown()).is_err());
    }
}
