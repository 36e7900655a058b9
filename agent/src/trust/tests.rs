use super::*;
use crate::config::FILE;
use crate::run::unix_now;
use crate::testing::{Fleet, home};
use outhaul_protocol::error::Code;
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::publisher::{PublisherKey, Unproven};
use outhaul_protocol::time::{Clock, Reading};

fn key(n: u8) -> PublisherKey {
    PublisherKey::from_bytes(&[n; 32])
}

fn file(home: &Home) -> String {
    std::fs::read_to_string(home.join(FILE)).unwrap_or_default()
}

/// A machine whose fleet trusts publishers 1 and 2, of whom 1 went on to 11 and 2 was revoked.
fn paired(home: &Home) -> Membership {
    let mut fleet = Fleet::new();
    fleet.publishers = vec![key(1).public(), key(2).public()];
    let mut membership = fleet.member(home, &SecretKey::generate(), "bench-1", Reading::sure(unix_now()));
    membership.store(home).expect("stored");
    let mut trusted = membership.publishers();
    membership.follow_rotations(&[key(1).hand_on(&key(11), unix_now())], &mut trusted).expect("follows");
    let list = fleet.revocations(&fleet.key, 2, &[key(2).id()]);
    let mut clock = Clock::new(crate::run::BUILT, None);
    membership.accept_notice("revocations", &list.0, vec![], &mut clock, unix_now()).expect("newer");
    membership
}

#[test]
fn the_owners_word_stands_above_the_fleets_and_a_revocation_above_both() {
    let (_dir, home) = home();
    paired(&home);
    let judged = |n: u8| read(&home).expect("read").judge(&key(n).id()).map(drop);
    assert_eq!((judged(1), judged(11), judged(2)), (Ok(()), Ok(()), Err(Unproven::Revoked(key(2).id()))));
    assert_eq!(judged(3), Err(Unproven::Stranger(key(3).id())));
    trust(&home, &key(3).public().to_string(), Some("acme")).expect("trusted");
    trust(&home, &key(2).public().to_string(), None).expect("said, and worth nothing");
    assert_eq!((judged(3), judged(2)), (Ok(()), Err(Unproven::Revoked(key(2).id()))));
    remove(&home, &key(11).public().to_string()).expect("refused");
    assert_eq!((judged(1), judged(11)), (Err(Unproven::Refused(key(1).id())), Err(Unproven::Refused(key(11).id()))), "all its keys");
    insta::assert_snapshot!(Trusted::read(&home).expect("read").text(), @r"
    fdf72a088f18  refused; known from the fleet
      key          66be7e332c7a453332bd9d0a7f7db055f5c5ef1a06ada66d98b39fb6810c473a
      fingerprint  fdf72a088f18f7399e8c52bce448441501f759a595a86980e5d9a422a01e5d55
      replaced     34750f98bd59fcfc946da45aaabe933be154a4b5094e1c4abf42866505f3c97e
    6a3803d5f059  revoked; known from agent.toml
      key          8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394
      fingerprint  6a3803d5f059902a1c6dafbc9ba4729212f7caac08634cc3ae76b27529f03827
    acme  trusted; known from agent.toml
      key          ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1
      fingerprint  b62e867fa2f33afe62d5d6b1642e1621d543307846b2a57b897e710919b76709
    ");
    trust(&home, &key(1).public().to_string(), Some("theirs")).expect("taken back");
    assert_eq!((judged(1), judged(11)), (Ok(()), Ok(())));
    remove(&home, "acme").expect("removed");
    assert_eq!(judged(3), Err(Unproven::Stranger(key(3).id())));
    assert!(!file(&home).contains(&key(3).public().to_string()));
}

#[test]
fn a_machine_without_a_fleet_trusts_by_its_owners_word_alone() {
    let (_dir, home) = home();
    assert_eq!(Trusted::read(&home).expect("read").text(), "no publisher is trusted; packs that came with the agent are\n");
    let text = key(3).public().to_string().to_uppercase();
    assert!(trust(&home, &text, None).expect("trusted").contains("may be installed here"));
    assert!(trust(&home, &text, None).expect("again").contains("already"));
    assert!(read(&home).expect("read").judge(&key(3).id()).is_ok());
    assert_eq!(trust(&home, &key(4).public().to_string(), Some(&key(3).id().short())).expect_err("taken").code, Code::BadUsage);
    for wrong in ["acme", "12", &key(5).id().to_string()[..40]] {
        assert_eq!(trust(&home, wrong, None).expect_err(wrong).code, Code::BadUsage);
    }
    assert_eq!(remove(&home, &key(4).public().to_string()).expect_err("nobody").code, Code::BadUsage);
    let json = Trusted::read(&home).expect("read").json();
    assert_eq!(
        (&json[0]["state"], &json[0]["by"], &json[0]["key"]),
        (&"trusted".into(), &"owner".into(), &key(3).public().to_string().into())
    );
}
