//! Both ends of the link handshake against hostile bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::handshake::{Challenge, PeerHello};
use outhaul_protocol::keys::SecretKey;

fuzz_target!(|data: &[u8]| {
    let key = SecretKey::from_bytes(&[7; 32]);
    if let Ok(challenge) = Challenge::answer(data, &key, None) {
        assert!(challenge.proven(data).is_err());
    }
    assert!(PeerHello::new().challenged(data, None).is_err());
});
