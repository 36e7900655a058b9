use super::*;
use crate::run::{BUILT, unix_now};
use crate::testing::{Fleet, home};
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::limits;
use outhaul_protocol::objects::Rights;
use outhaul_protocol::publisher::PublisherKey;

struct Machine {
    _dir: tempfile::TempDir,
    home: Home,
    fleet: Fleet,
    key: SecretKey,
    clock: Clock,
}

/// A machine of a fleet, paired and on disk.
fn paired() -> (Machine, Membership) {
    let (dir, home) = home();
    let machine = Machine { _dir: dir, home, fleet: Fleet::new(), key: SecretKey::generate(), clock: Clock::new(BUILT, None) };
    let membership = machine.welcomed("bench-1");
    membership.store(&machine.home).expect("stored");
    (machine, membership)
}

impl Machine {
    fn welcomed(&self, name: &str) -> Membership {
        self.fleet.member(&self.home, &self.key, name, self.clock.read(unix_now()))
    }

    fn notice(&mut self, membership: &mut Membership, kind: &str, signed: &Blob, chain: Vec<Blob>) -> Result<bool, Failure> {
        membership.accept_notice(kind, &signed.0, chain, &mut self.clock, unix_now())
    }
}

#[test]
fn what_was_stored_is_read_back() {
    let (machine, membership) = paired();
    let again = Membership::load(&machine.home).expect("stored");
    assert_eq!(again.fleet(), membership.fleet());
    assert_eq!((again.labels(), again.serials()), (membership.labels(), membership.serials()));
    assert_eq!((again.certificate_bytes(), again.relays_bytes()), (membership.certificate_bytes(), membership.relays_bytes()));
    assert_eq!((again.revoked(), again.relay_keys()), (membership.revoked(), vec![machine.fleet.relay.public()]));
    assert_eq!(again.labels().name, "bench-1");
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_the_pins() {
    use std::os::unix::fs::PermissionsExt as _;
    let (machine, _) = paired();
    let mode = |path: &str| std::fs::metadata(machine.home.join(path)).expect(path).permissions().mode() & 0o777;
    let folder = format!("agent/pins/{}", machine.fleet.id());
    assert_eq!((mode(&folder), mode(&format!("{folder}/fleet.toml")), mode("agent/mailbox.key")), (0o700, 0o600, 0o600));
}

#[test]
fn an_unpaired_machine_says_so() {
    let (_dir, home) = home();
    assert_eq!(Membership::load(&home).expect_err("nothing there").code, Code::NotPaired);
    assert_eq!(current_fleet(&home), Ok(None));
}

#[test]
fn a_pairing_cut_short_leaves_the_fleet_before() {
    let (machine, _) = paired();
    let other = Machine { fleet: Fleet::new(), key: SecretKey::generate(), clock: machine.clock, ..paired().0 };
    // All but the last write.
    let half = Membership { folder: pins(&machine.home).join(other.fleet.id().to_string()), ..other.welcomed("other") };
    create_private_dir(&half.folder).expect("made");
    half.keep_record().expect("written");
    assert_eq!(Membership::load(&machine.home).expect("whole").fleet().id(), machine.fleet.id());
    half.store(&machine.home).expect("stored");
    assert_eq!(Membership::load(&machine.home).expect("whole").fleet().id(), other.fleet.id());
}

#[test]
fn altered_pins_are_refused_with_a_way_out() {
    let (machine, _) = paired();
    let path = machine.home.join(format!("agent/pins/{}/fleet.toml", machine.fleet.id()));
    let text = std::fs::read_to_string(&path).expect("there");
    let other = Fleet::new().key.public().to_string();
    for (from, to) in [
        (machine.fleet.key.public().to_string(), other),
        ("certificate = \"".into(), "certificate = \"AAAA".into()),
        ("accepted".into(), "excepted".into()),
    ] {
        std::fs::write(&path, text.replacen(&from, &to, 1)).expect("altered");
        let failure = Membership::load(&machine.home).expect_err("altered");
        assert_eq!(failure.code, Code::BadConfig, "{failure}");
    }
}

#[test]
fn starts_are_counted_on_disk_and_pairing_again_keeps_the_count() {
    let (machine, mut membership) = paired();
    assert_eq!((membership.bump_boot(), membership.bump_boot()), (Ok(1), Ok(2)));
    let mut again = machine.welcomed("bench-1");
    again.absorb(&machine.home).expect("read");
    again.store(&machine.home).expect("stored");
    assert_eq!(Membership::load(&machine.home).expect("stored").bump_boot(), Ok(3));
}

#[test]
fn the_floor_of_the_clock_is_written_once_in_a_while() {
    let (machine, mut membership) = paired();
    let floor = membership.clock_floor().expect("from the pairing");
    membership.keep_clock_floor(floor.plus(FLOOR_STEP - 1)).expect("kept");
    assert_eq!(Membership::load(&machine.home).expect("there").clock_floor(), Some(floor));
    membership.keep_clock_floor(floor.plus(FLOOR_STEP)).expect("kept");
    assert_eq!(Membership::load(&machine.home).expect("there").clock_floor(), Some(floor.plus(FLOOR_STEP)));
}

#[test]
fn newer_relays_of_the_fleet_are_taken_and_survive() {
    let (mut machine, mut membership) = paired();
    let newer = machine.fleet.relays(2, unix_now());
    assert_eq!(machine.notice(&mut membership, "relays", &newer, vec![]), Ok(true));
    assert_eq!(machine.notice(&mut membership, "relays", &newer, vec![]), Ok(false));
    let old = machine.fleet.relays(1, unix_now());
    assert_eq!(machine.notice(&mut membership, "relays", &old, vec![]), Ok(false));
    assert_eq!(Membership::load(&machine.home).expect("there").serials().relays, 2);
}

#[test]
fn relays_of_nobody_of_two_truths_or_of_tomorrow_are_refused() {
    let (mut machine, mut membership) = paired();
    let foreign = Fleet::new().relays(9, unix_now());
    assert!(machine.notice(&mut membership, "relays", &foreign, vec![]).is_err());
    let twin = machine.fleet.relays(1, unix_now().plus(5));
    assert_eq!(machine.notice(&mut membership, "relays", &twin, vec![]).expect_err("two of one serial").code, Code::BadSignature);
    let future = machine.fleet.relays(7, unix_now().plus(3 * 86_400));
    assert!(machine.notice(&mut membership, "relays", &future, vec![]).is_err());
    assert_eq!(membership.serials().relays, 1);
    assert_eq!(machine.notice(&mut membership, "weather", &future, vec![]), Ok(false), "kinds of a newer version are let be");
}

#[test]
fn revocations_by_the_fleet_or_a_holder_of_the_right_count_and_others_do_not() {
    let (mut machine, mut membership) = paired();
    let (lost, owner) = (SecretKey::generate().id(), &machine.fleet.owner);
    let (list, chain) = (machine.fleet.revocations(owner, 2, &[lost]), machine.fleet.chain());
    let nobody = SecretKey::generate();
    let (forged, none) = (machine.fleet.revocations(&nobody, 3, &[]), vec![machine.fleet.grant(&nobody, Rights::default())]);
    assert_eq!(machine.notice(&mut membership, "revocations", &list, chain), Ok(true));
    assert!(machine.notice(&mut membership, "revocations", &forged, none).is_err());
    let again = Membership::load(&machine.home).expect("there");
    assert!(again.revoked().has_key(&lost));
    assert_eq!((again.serials().revocations, again.revocations_bytes().expect("there").0), (2, list.0));
}

#[test]
fn a_rename_is_taken_and_another_nodes_certificate_is_not() {
    let (mut machine, mut membership) = paired();
    let mailbox = mailbox(&machine.home).expect("there").public();
    let (renamed, chain) = (machine.fleet.node(machine.key.public(), mailbox, "kiosk-7", 2), machine.fleet.chain());
    let other = machine.fleet.node(SecretKey::generate().public(), mailbox, "kiosk-8", 3);
    let moved = machine.fleet.node(machine.key.public(), X25519Secret::generate().public(), "kiosk-7", 4);
    assert_eq!(machine.notice(&mut membership, "certificate", &renamed, chain.clone()), Ok(true));
    assert_eq!(machine.notice(&mut membership, "certificate", &other, chain.clone()).expect_err("not ours").code, Code::WrongNode);
    assert_eq!(machine.notice(&mut membership, "certificate", &moved, chain).expect_err("not our mailbox").code, Code::BadKey);
    assert_eq!((membership.labels().name.as_str(), membership.certificate_serial()), ("kiosk-7", 2));
    assert_eq!(Membership::load(&machine.home).expect("there").labels().name, "kiosk-7");
}

#[test]
fn what_cannot_be_written_does_not_count() {
    let (mut machine, mut membership) = paired();
    std::fs::remove_dir_all(pins(&machine.home)).expect("gone");
    let newer = machine.fleet.relays(2, unix_now());
    assert!(machine.notice(&mut membership, "relays", &newer, vec![]).is_err());
    assert_eq!(membership.serials().relays, 1);
}

#[test]
fn publishers_come_with_the_pairing_change_by_word_and_survive() {
    let (mut machine, _) = paired();
    let key = |n: u8| PublisherKey::from_bytes(&[n; 32]);
    machine.fleet.publishers = vec![key(1).public()];
    let mut membership = machine.welcomed("bench-1");
    membership.store(&machine.home).expect("stored");
    let trusts = |n: u8| Membership::load(&machine.home).expect("there").publishers().of(&key(n).id()).cloned();
    assert!(trusts(1).is_some() && trusts(2).is_none());
    assert_eq!(membership.trust_publisher(key(2).public(), Some("acme".into())), Ok(true));
    assert_eq!(membership.trust_publisher(key(2).public(), None), Ok(false), "twice is once");
    assert_eq!(trusts(2).and_then(|publisher| publisher.name), Some("acme".to_owned()));
    let mut again = machine.welcomed("bench-1");
    again.absorb(&machine.home).expect("read");
    assert_eq!(again.publishers().len(), 2, "to pair again forgets nobody");
    assert_eq!(membership.distrust_publisher(&key(2).id()), Ok(true));
    assert_eq!(membership.distrust_publisher(&key(2).id()), Ok(false));
    assert!(trusts(2).is_none());
    let many: Vec<_> = (0..limits::PUBLISHERS).map(|_| PublisherKey::generate().public()).collect();
    let full = many.into_iter().find_map(|key| membership.trust_publisher(key, None).err()).expect("there is an end");
    assert_eq!(full.code, Code::TooLarge);
}

#[test]
fn a_publishers_next_key_is_kept_and_a_revoked_key_has_none() {
    let (mut machine, _) = paired();
    let key = |n: u8| PublisherKey::from_bytes(&[n; 32]);
    machine.fleet.publishers = vec![key(1).public(), key(5).public()];
    let mut membership = machine.welcomed("bench-1");
    membership.store(&machine.home).expect("stored");
    let rotation = |from: u8, to: u8| key(from).hand_on(&key(to), unix_now());
    let mut trusted = membership.publishers();
    assert_eq!(membership.follow_rotations(&[rotation(1, 2), rotation(2, 3)], &mut trusted), Ok(true));
    assert_eq!(membership.follow_rotations(&[rotation(1, 2), rotation(8, 9)], &mut trusted), Ok(false), "known, and about nobody");
    let line = Membership::load(&machine.home).expect("there").publishers();
    assert_eq!(line.of(&key(3).id()).map(|publisher| publisher.ids().next()), Some(Some(key(1).id())));
    assert_eq!(trusted, line);
    assert_eq!(membership.follow_rotations(&[rotation(1, 4)], &mut trusted).expect_err("two heirs").code, Code::BadSignature);
    let (list, chain) = (machine.fleet.revocations(&machine.fleet.key, 2, &[key(5).id()]), vec![]);
    machine.notice(&mut membership, "revocations", &list, chain).expect("newer");
    assert_eq!(membership.follow_rotations(&[rotation(5, 6)], &mut trusted).expect_err("a thief's heir").code, Code::Revoked);
    assert_eq!(membership.distrust_publisher(&key(3).id()), Ok(true), "by any of its keys");
    assert!(membership.publishers().of(&key(1).id()).is_none());
}
