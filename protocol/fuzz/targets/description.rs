//! What nodes say about themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::describe::{AnnounceContent, Heartbeat, PackDescription, PackList};

fuzz_target!(|data: &[u8]| {
    if let Ok(description) = PackDescription::from_bytes(data) {
        for command in &description.commands {
            let _ = command.signature();
            let _ = command.params_schema();
        }
    }
    let _ = AnnounceContent::from_bytes(data);
    let _ = PackList::from_bytes(data);
    let _ = Heartbeat::from_bytes(data);
});
