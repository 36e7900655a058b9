//! The first message of a channel, and a code as people type it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::channel::{Binding, Responder};
use outhaul_protocol::keys::{Digest, KeyId, X25519Secret};
use outhaul_protocol::pairing::Code;

fuzz_target!(|data: &[u8]| {
    let prekey = X25519Secret::from_bytes(&[7; 32]);
    let binding = Binding { version: 1, fleet: KeyId([1; 32]), node: KeyId([2; 32]), prekey: Digest([3; 32]), channel: [4; 16] };
    assert!(Responder::open(&binding, &prekey, data).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Code::parse(text);
    }
});
