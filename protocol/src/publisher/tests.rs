use super::*;
use crate::error::{Code, Failure};
use crate::keys::sha256;
use crate::objects::samples::{self, NOW};
use crate::pack::{Docs, Manifest};
use crate::time::{Reading, Time};
use proptest::prelude::*;

const COMPONENT: &[u8] = b"a component";

fn key(n: u8) -> PublisherKey {
    PublisherKey::from_bytes(&[n; 32])
}

fn contents(name: &str, version: &str) -> Contents {
    let manifest = Manifest { name: name.into(), version: version.into(), ..Manifest::default() };
    Contents { manifest_digest: sha256(&manifest.to_json()), manifest, docs: Docs::default(), about: crate::pack::About::default() }
}

fn trusting(keys: &[&PublisherKey]) -> Trust {
    let mut trust = Trust::default();
    keys.iter().for_each(|key| trust.publishers.trust(key.public(), None));
    trust
}

fn signature(by: &PublisherKey) -> Vec<u8> {
    by.publish(sha256(COMPONENT), &contents("thermal", "1.2.0"), NOW, None).into_bytes()
}

fn admit(trust: &Trust, signature: Option<&[u8]>) -> Result<Vouched, Unproven> {
    trust.admit(signature, sha256(COMPONENT), Reading::sure(NOW))
}

#[test]
fn a_trusted_signature_over_exactly_this_pack_is_taken() {
    let mine = key(1);
    let vouched = admit(&trusting(&[&key(2), &mine]), Some(&signature(&mine))).unwrap();
    assert_eq!((vouched.publisher().key(), vouched.key()), (&mine.public(), &mine.public()));
    assert_eq!(vouched.check(&contents("thermal", "1.2.0")), Ok(()));
    for (name, version) in [("thermal", "1.2.1"), ("gpu", "1.2.0")] {
        assert!(matches!(vouched.check(&contents(name, version)), Err(Unproven::Identity { .. })), "{name} {version}");
    }
    let more = Contents { manifest_digest: sha256(b"asks for more"), ..contents("thermal", "1.2.0") };
    assert!(matches!(vouched.check(&more), Err(Unproven::Manifest { .. })));
}

#[test]
fn stripped_forged_swapped_and_unknown_signatures_are_refused() {
    let (mine, other) = (key(1), key(2));
    let trust = trusting(&[&mine]);
    assert_eq!(admit(&trust, None), Err(Unproven::Unsigned));
    assert_eq!(admit(&trust, Some(&signature(&other))), Err(Unproven::Stranger(other.id())));
    let elsewhere = mine.publish(sha256(b"another"), &contents("thermal", "1.2.0"), NOW, None);
    assert!(matches!(admit(&trust, Some(elsewhere.bytes())), Err(Unproven::Component { .. })));
    // The thief of no key at all: the right words under a signature of another key that calls itself mine.
    let mut forged = signature(&mine);
    let at = forged.len() - 1;
    forged[at] ^= 1;
    assert_eq!(admit(&trust, Some(&forged)).unwrap_err().code(), Code::BadSignature);
    assert_eq!(admit(&trust, Some(b"")).unwrap_err().code(), Code::BadSignature);
}

#[test]
fn a_signature_of_another_kind_by_the_same_key_is_no_publication() {
    let rotation = key(1).hand_on(&key(2), NOW);
    assert!(matches!(admit(&trusting(&[&key(1)]), Some(&rotation.old.0)), Err(Unproven::Object(_))));
}

#[test]
fn a_signature_that_ended_installs_no_more_but_keeps_what_is_there() {
    let mine = key(1);
    let trust = trusting(&[&mine]);
    let signed = mine.publish(sha256(COMPONENT), &contents("thermal", "1.2.0"), NOW, Some(NOW.plus(10)));
    let at = |now: Time| trust.admit(Some(signed.bytes()), sha256(COMPONENT), Reading::sure(now));
    assert!(at(NOW.plus(9)).is_ok());
    assert_eq!(at(NOW.plus(10)), Err(Unproven::Expired(NOW.plus(10))));
    assert_eq!(at(Time(NOW.0 - 2 * 86_400)), Err(Unproven::NotYet(NOW)));
    assert!(trust.keep(Some(signed.bytes()), sha256(COMPONENT)).is_ok());
}

#[test]
fn what_a_revoked_key_signed_counts_nowhere() {
    let mine = key(1);
    let mut trust = trusting(&[&mine]);
    let vouched = admit(&trust, Some(&signature(&mine))).unwrap();
    let list = samples::revocations(&samples::fleet(), 1, &[mine.id()], &[]);
    let list = crate::signed::Signed::sign(&samples::fleet(), &list);
    trust.revoked = trust.revoked.follow(&list, &samples::fleet().public()).unwrap();
    assert_eq!(admit(&trust, Some(&signature(&mine))), Err(Unproven::Revoked(mine.id())));
    assert_eq!(trust.keep(Some(&signature(&mine)), sha256(COMPONENT)), Err(Unproven::Revoked(mine.id())));
    assert_eq!(trust.review(&vouched), Err(Unproven::Revoked(mine.id())));
}

#[test]
fn the_owner_may_refuse_whom_others_trust() {
    let (mine, next) = (key(1), key(2));
    let mut trust = trusting(&[&mine]);
    trust.refused.push(mine.id());
    assert_eq!(admit(&trust, Some(&signature(&mine))), Err(Unproven::Refused(mine.id())));
    trust.publishers.follow(&mine.hand_on(&next, NOW)).unwrap();
    assert_eq!(admit(&trust, Some(&signature(&next))), Err(Unproven::Refused(next.id())), "an heir is the same publisher");
    let nobody = Trust { refused: vec![mine.id()], ..Trust::default() };
    assert_eq!(admit(&nobody, Some(&signature(&mine))), Err(Unproven::Refused(mine.id())));
}

#[test]
fn a_replaced_key_signs_nothing_new_and_its_heir_is_the_same_publisher() {
    let (old, next) = (key(1), key(2));
    let mut trust = trusting(&[&old]);
    let before = admit(&trust, Some(&signature(&old))).unwrap();
    assert_eq!(trust.publishers.follow(&old.hand_on(&next, NOW)), Ok(true));
    assert_eq!(trust.publishers.follow(&old.hand_on(&next, NOW)), Ok(false), "twice is once");
    let new = admit(&trust, Some(&signature(&next))).unwrap();
    assert_eq!(new.publisher().ids().collect::<Vec<_>>(), [old.id(), next.id()]);
    assert_eq!(admit(&trust, Some(&signature(&old))), Err(Unproven::Replaced { key: old.id(), by: next.id() }));
    assert!(trust.keep(Some(&signature(&old)), sha256(COMPONENT)).is_ok());
    assert_eq!(trust.review(&before).unwrap().publisher().ids().count(), 2);
}

#[test]
fn a_rotation_needs_both_keys_and_says_one_thing() {
    let (old, next, thief) = (key(1), key(2), key(3));
    let mut publishers = trusting(&[&old]).publishers;
    let good = old.hand_on(&next, NOW);
    let halves = [
        Rotation { new: good.old.clone(), ..good.clone() },
        Rotation { old: good.new.clone(), ..good.clone() },
        Rotation { new: old.hand_on(&thief, NOW).new, ..good.clone() },
        Rotation { new: thief.hand_on(&next, NOW).new, ..good.clone() },
        old.hand_on(&old, NOW),
    ];
    for half in halves {
        assert!(matches!(publishers.follow(&half), Err(_) | Ok(false)), "{half:?}");
        assert_eq!(publishers.of(&old.id()).unwrap().keys(), [old.public()]);
    }
    assert_eq!(publishers.follow(&thief.hand_on(&next, NOW)), Ok(false), "about nobody here");
    assert_eq!(publishers.follow(&good), Ok(true));
    let conflict = publishers.follow(&old.hand_on(&thief, NOW)).unwrap_err();
    assert!(matches!(conflict, RotationError::Conflict { .. }) && conflict.code() == Code::BadSignature);
    assert!(publishers.follow(&next.hand_on(&old, NOW)).is_err(), "no key follows itself");
}

#[test]
fn an_heir_who_was_trusted_before_becomes_one_with_the_publisher() {
    let (old, next, last) = (key(1), key(2), key(3));
    let mut publishers = trusting(&[&next, &old]).publishers;
    publishers.follow(&next.hand_on(&last, NOW)).unwrap();
    assert_eq!((publishers.follow(&old.hand_on(&next, NOW)), publishers.len()), (Ok(true), 1));
    assert_eq!(publishers.of(&old.id()).unwrap().key(), &last.public());
    // Somebody else cannot join a line in its middle.
    let stranger = key(9);
    publishers.trust(stranger.public(), None);
    assert!(publishers.follow(&stranger.hand_on(&last, NOW)).is_err());
}

#[test]
fn every_refusal_has_a_sentence_and_a_way_out() {
    let failure = Failure::from(Unproven::Unsigned);
    assert_eq!(failure.message, "the pack comes without a publisher's signature, and unsigned packs are refused");
    assert_eq!(failure.hint.as_deref(), Some("sign it with `relay pack sign FILE` and deploy it again"));
    let text = Unproven::Identity { signed: "gpu\u{1b}[2J 1".into(), found: "thermal 1".into() }.to_string();
    assert!(!text.contains('\u{1b}'), "{text}");
}

proptest! {
    #[test]
    fn one_changed_bit_is_never_vouched_for(bit in any::<prop::sample::Index>()) {
        let mut signed = signature(&key(1));
        let bit = bit.index(signed.len() * 8);
        signed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(admit(&trusting(&[&key(1)]), Some(&signed)).is_err());
    }

    #[test]
    fn random_rotations_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(rotation) = Rotation::decode(&bytes) {
            prop_assert!(trusting(&[&key(1)]).publishers.follow(&rotation).is_err());
        }
    }
}
