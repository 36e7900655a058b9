//! Values of packs: CBOR, and through JSON text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::value::{Value, parse_json};

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Value::from_cbor(data) {
        let bytes = value.to_cbor();
        Value::from_cbor(&bytes).expect("what we wrote is read");
        let _ = value.to_json(None);
        let _ = value.render(None);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_json(text);
    }
});
