use super::*;
use crate::cbor::{Item, encode_item};
use crate::objects::samples::{self, key, node_key, operator};
use crate::objects::*;
use crate::time::Time;
use coset::{CborSerializable, CoseSign1};
use proptest::prelude::*;

/// Reads and verifies bytes as each kind in turn; the kinds that took them.
fn taken_as(bytes: &[u8], by: &[SecretKey]) -> Vec<&'static str> {
    fn takes<T: Payload>(bytes: &[u8], by: &[SecretKey]) -> Option<&'static str> {
        let object = Signed::<T>::from_bytes(bytes).ok()?;
        by.iter().any(|key| object.clone().verify(&key.public()).is_ok()).then_some(T::KIND)
    }
    [
        takes::<Grant>(bytes, by),
        takes::<Node>(bytes, by),
        takes::<Revocations>(bytes, by),
        takes::<Relays>(bytes, by),
        takes::<Prekey>(bytes, by),
        takes::<Announce>(bytes, by),
        takes::<Opening>(bytes, by),
        takes::<Call>(bytes, by),
        takes::<Receipt>(bytes, by),
        takes::<Pair>(bytes, by),
        takes::<Link>(bytes, by),
        takes::<Control>(bytes, by),
        takes::<Publication>(bytes, by),
        takes::<Succession>(bytes, by),
        takes::<Deployment>(bytes, by),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn signers() -> Vec<SecretKey> {
    vec![samples::fleet(), operator(), node_key(), samples::publisher()]
}

#[test]
fn each_kind_is_taken_as_itself_and_as_nothing_else() {
    let all = samples::all();
    assert_eq!(all.len(), samples::KINDS);
    for (kind, bytes) in all {
        assert_eq!(taken_as(&bytes, &signers()), [kind]);
    }
}

#[test]
fn a_payload_that_fits_two_kinds_is_still_of_one() {
    // `link` without an exporter and a payload of the same shape under another domain.
    let content = Link { exporter: None, ..samples::link() };
    let payload = content.to_bytes();
    let header = protected(content.iss);
    for kind in ["pair", "control", "Link", "link/1", ""] {
        let signature = node_key().sign(&covered(kind, &header, &payload));
        let bytes = envelope(&header, &[0xa0], &payload, &signature);
        let error = Signed::<Link>::from_bytes(&bytes).unwrap().verify(&node_key().public()).unwrap_err();
        assert_eq!(error.code(), Code::BadSignature);
    }
}

#[test]
fn bytes_of_each_object_are_pinned() {
    let found: String = samples::all().iter().map(|(kind, bytes)| format!("{kind} {}\n", hex::encode(bytes))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/objects.txt");
    if std::env::var_os("OUTHAUL_WRITE_VECTORS").is_some() {
        let head = "# Signed objects in hex, one of each kind. Key n has the seed n × 32: 1 fleet, 2 operator, 3 node, 60 publisher, 61 its next.\n";
        std::fs::write(path, format!("{head}{found}")).unwrap();
    }
    let pinned = std::fs::read_to_string(path).unwrap();
    for (found, pinned) in found.lines().zip(pinned.lines().filter(|line| !line.starts_with('#'))) {
        assert_eq!(found, pinned);
    }
    assert_eq!(found.lines().count(), pinned.lines().filter(|line| !line.starts_with('#')).count());
}

#[test]
fn another_implementation_reads_the_same() {
    for (kind, bytes) in samples::all() {
        let cose = CoseSign1::from_slice(&bytes).unwrap();
        let header = &cose.protected.header;
        assert_eq!(header.alg, Some(coset::Algorithm::Assigned(coset::iana::Algorithm::Ed25519)));
        let signer = signers().into_iter().find(|key| key.id().0.as_slice() == header.key_id).unwrap();
        let domain = format!("outhaul/{kind}/1");
        cose.verify_signature(domain.as_bytes(), |signature, data| {
            if signer.public().verifies(data, signature.try_into().unwrap()) { Ok(()) } else { Err(()) }
        })
        .unwrap();
    }
}

fn envelope(header: &[u8], unprotected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x84];
    put_bytes(&mut bytes, header);
    bytes.extend_from_slice(unprotected);
    put_bytes(&mut bytes, payload);
    put_bytes(&mut bytes, signature);
    bytes
}

/// A call under this header, honestly signed over it by a signer that wants to be taken.
fn under_header(header: &[u8], unprotected: &[u8]) -> Result<Verified<Call>, VerifyError> {
    let payload = samples::call().to_bytes();
    let signature = operator().sign(&covered("call", header, &payload));
    Signed::<Call>::from_bytes(&envelope(header, unprotected, &payload, &signature))?.verify(&operator().public())
}

fn header(entries: Vec<(Item, Item)>) -> Vec<u8> {
    encode_item(&Item::Map(entries))
}

#[test]
fn only_the_one_header_is_accepted() {
    let kid = || (Item::from(4), Item::Bytes(operator().id().0.to_vec()));
    let alg = |number: i64| (Item::from(1), Item::from(number));
    assert_eq!(header(vec![alg(-19), kid()]), protected(operator().id()));
    assert!(under_header(&protected(operator().id()), &[0xa0]).is_ok());
    let headers = [
        ("no alg", header(vec![kid()])),
        ("EdDSA, not Ed25519", header(vec![alg(-8), kid()])),
        ("ES256", header(vec![alg(-7), kid()])),
        ("alg as text", header(vec![(Item::from(1), Item::from("Ed25519")), kid()])),
        ("no kid", header(vec![alg(-19)])),
        ("empty kid", header(vec![alg(-19), (Item::from(4), Item::Bytes(vec![]))])),
        ("content type", header(vec![alg(-19), (Item::from(3), Item::from(60)), kid()])),
        ("critical", header(vec![alg(-19), (Item::from(2), Item::Array(vec![Item::from(99)])), kid()])),
        ("private", header(vec![alg(-19), kid(), (Item::from(99), Item::Null)])),
        ("alg twice", header(vec![alg(-19), alg(-19), kid()])),
        ("other order", header(vec![kid(), alg(-19)])),
        ("longer integer", [&[0xa2, 0x01, 0x38, 0x12, 0x04, 0x58, 0x20][..], &operator().id().0].concat()),
        ("empty", vec![]),
        ("empty map", vec![0xa0]),
    ];
    for (what, header) in headers {
        let error = under_header(&header, &[0xa0]).unwrap_err();
        assert!(matches!(error, VerifyError::Envelope { .. }), "{what}: {error}");
    }
}

#[test]
fn unprotected_headers_tags_and_what_follows_are_refused() {
    let header = protected(operator().id());
    let unprotected =
        [&[0xa1, 0x01, 0x32][..], &[0xa1, 0x04, 0x41, 0x00], &[0xa1, 0x18, 0x63, 0xf6], &[0x80], &[0xf6], &[0xb8, 0x01, 0x04, 0x00]];
    for unprotected in unprotected {
        assert!(under_header(&header, unprotected).is_err(), "{unprotected:02x?}");
    }
    let good = Signed::sign(&operator(), &samples::call()).into_bytes();
    let changed = [
        [&[0xd2][..], &good].concat(),
        [&good[..], &[0x00]].concat(),
        [&[0x85][..], &good[1..], &[0x00]].concat(),
        [&[0x9f][..], &good[1..], &[0xff]].concat(),
    ];
    for bytes in changed {
        assert!(Signed::<Call>::from_bytes(&bytes).is_err());
    }
}

#[test]
fn times_are_integers() {
    let good = samples::call();
    let claims = |iat: Item| {
        let Item::Map(mut entries) = good.to_item() else { unreachable!() };
        let at = entries.iter().position(|(key, _)| *key == Item::from(6)).unwrap();
        entries[at].1 = iat;
        encode_item(&Item::Map(entries))
    };
    assert!(Call::from_bytes(&claims(Item::from(1))).is_ok());
    let bad = [Item::Float(f64::NAN), Item::Float(1.0e9), Item::Float(f64::INFINITY), Item::from(-1), Item::from("1"), Item::Null];
    for iat in bad {
        let payload = claims(iat);
        let header = protected(good.iss);
        let signature = operator().sign(&covered("call", &header, &payload));
        assert!(Signed::<Call>::from_bytes(&envelope(&header, &[0xa0], &payload, &signature)).is_err());
    }
}

#[test]
fn unknown_missing_and_repeated_claims_are_refused() {
    let Item::Map(entries) = samples::opening().to_item() else { unreachable!() };
    let read = |entries: Vec<(Item, Item)>| Opening::from_bytes(&encode_item(&Item::Map(entries)));
    assert!(read(entries.clone()).is_ok());
    for at in 0..entries.len() {
        let mut missing = entries.clone();
        let taken = missing.remove(at);
        assert!(read(missing).is_err());
        let mut twice = entries.clone();
        twice.push(taken);
        assert!(read(twice).is_err());
    }
    let mut more = entries.clone();
    more.push((Item::from(99), Item::Null));
    assert!(read(more).is_err());
}

#[test]
fn keys_inside_objects_are_checked() {
    let Item::Map(entries) = samples::grant(&samples::fleet(), &operator()).to_item() else { unreachable!() };
    let mut neutral = vec![0; 32];
    neutral[0] = 1;
    for weak in [vec![0; 32], neutral, vec![7; 31]] {
        let entries: Vec<_> = entries
            .iter()
            .cloned()
            .map(|(key, item)| if key == Item::from(-65537) { (key, Item::Bytes(weak.clone())) } else { (key, item) })
            .collect();
        assert!(Grant::from_bytes(&encode_item(&Item::Map(entries))).is_err());
    }
}

#[test]
fn a_signer_who_is_not_the_issuer_is_refused() {
    let payload = samples::call().to_bytes();
    let other = key(99);
    let header = protected(other.id());
    let signature = other.sign(&covered("call", &header, &payload));
    let error = Signed::<Call>::from_bytes(&envelope(&header, &[0xa0], &payload, &signature)).unwrap_err();
    assert_eq!(error.code(), Code::BadKey);
}

#[test]
fn the_key_comes_from_the_caller_never_from_the_object() {
    let call = Signed::sign(&operator(), &samples::call()).into_signed();
    assert_eq!(call.clone().verify(&key(99).public()).unwrap_err().code(), Code::BadKey);
    assert!(call.verify(&operator().public()).is_ok());
}

#[test]
fn a_signature_of_order_two_or_with_a_shifted_scalar_is_refused() {
    let good = Signed::sign(&operator(), &samples::call()).into_bytes();
    let start = good.len() - 64;
    let mut neutral = good.clone();
    neutral[start..].fill(0);
    neutral[start] = 1;
    // s + L names the same scalar: the malleability of lax verifiers.
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut shifted = good.clone();
    let mut carry = 0u16;
    for (byte, add) in shifted[start + 32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    for bytes in [neutral, shifted] {
        let error = Signed::<Call>::from_bytes(&bytes).unwrap().verify(&operator().public()).unwrap_err();
        assert!(matches!(error, VerifyError::Signature { .. }));
    }
}

#[test]
fn ceilings_hold_before_anything_is_built() {
    let big = |length: usize| Announce { content: crate::cbor::Blob(vec![0; length]), ..samples::announce() };
    let fits = Signed::sign(&node_key(), &big(60_000));
    assert!(Signed::<Announce>::from_bytes(fits.bytes()).is_ok());
    let over = Signed::sign(&node_key(), &big(66_000));
    assert!(matches!(Signed::<Announce>::from_bytes(over.bytes()), Err(VerifyError::Malformed { .. })));
    let call = Call { params: crate::cbor::Blob(vec![0; 512 << 10]), ..samples::call() };
    assert!(Signed::<Call>::from_bytes(Signed::sign(&operator(), &call).bytes()).is_ok());
    let grant = Grant { commands: vec!["*".to_owned(); 5_000], ..samples::grant(&samples::fleet(), &operator()) };
    assert!(Signed::<Grant>::from_bytes(Signed::sign(&samples::fleet(), &grant).bytes()).is_err());
}

#[test]
fn what_was_received_is_what_is_kept() {
    let call = Signed::sign(&operator(), &samples::call());
    let received = Signed::<Call>::from_bytes(call.bytes()).unwrap();
    assert_eq!(received.unverified(), &samples::call());
    assert_eq!((received.digest(), received.payload_digest()), (call.digest(), call.payload_digest()));
    assert_eq!(received.payload_digest(), sha256(&samples::call().to_bytes()));
    assert_eq!(received.verify(&operator().public()).unwrap(), call);
    assert_eq!(call.iat, Time(1_800_000_000));
}

proptest! {
    #[test]
    fn one_changed_bit_is_never_taken(which in 0..samples::KINDS, bit in any::<prop::sample::Index>()) {
        let (_, mut bytes) = samples::all().swap_remove(which);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(taken_as(&bytes, &signers()), Vec::<&str>::new());
    }

    #[test]
    fn a_cut_object_is_never_taken(which in 0..samples::KINDS, at in any::<prop::sample::Index>()) {
        let (_, bytes) = samples::all().swap_remove(which);
        prop_assert_eq!(taken_as(&bytes[..at.index(bytes.len())], &signers()), Vec::<&str>::new());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(taken_as(&bytes, &signers()), Vec::<&str>::new());
    }

    #[test]
    fn random_payloads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let header = protected(operator().id());
        let signature = operator().sign(&covered("call", &header, &bytes));
        prop_assert_eq!(taken_as(&envelope(&header, &[0xa0], &bytes, &signature), &signers()), Vec::<&str>::new());
    }
}
