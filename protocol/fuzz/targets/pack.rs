//! What a component says about itself: the reader of its sections, and the manifest behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::pack::{self, Manifest, PACK_SECTION, append_section};

const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

fuzz_target!(|data: &[u8]| {
    // As it comes; behind a component's header, so that sections are reached; and as the manifest of one.
    let _ = pack::read(data);
    let _ = pack::read(&[EMPTY, data].concat());
    let mut wasm = EMPTY.to_vec();
    append_section(&mut wasm, PACK_SECTION, data);
    if let Ok(contents) = pack::read(&wasm) {
        let again = Manifest::from_json(&contents.manifest.to_json()).expect("what was read is written so that it reads");
        assert_eq!(again, contents.manifest);
    }
});
