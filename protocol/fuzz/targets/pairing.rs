//! Each message of a pairing, as hostile bytes to either side.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::keys::{SecretKey, X25519Secret};
use outhaul_protocol::pairing::{Attempts, Code, Guest, Maker, Proof};

fuzz_target!(|data: &[u8]| {
    let code = Code::parse("482913").expect("a code");
    let (guest, join) = Guest::join(Proof::Code(&code));
    assert!(Maker::answer(Proof::Code(&code), data).is_err() || data.len() == join.len());
    let mut attempts = Attempts::typed();
    let _ = guest.confirm(
        data,
        &mut attempts,
        &SecretKey::from_bytes(&[7; 32]),
        X25519Secret::from_bytes(&[8; 32]).public(),
        Some("bench-1".into()),
    );
    let (maker, _) = Maker::answer(Proof::Code(&code), &join).expect("an honest join");
    assert!(maker.confirm(data, &mut Attempts::shown()).is_err());
});
