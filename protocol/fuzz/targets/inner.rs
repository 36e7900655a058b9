//! Messages inside a channel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::inner::{DataMessage, EventMessage, Inner, OpenPayload, OpenedPayload, QuickCall};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Inner::decode(data) {
        Inner::decode(&message.encode()).expect("what we wrote is read");
    }
    let _ = DataMessage::peek(data);
    let _ = OpenPayload::decode(data);
    let _ = OpenedPayload::decode(data);
    let _ = QuickCall::decode(data);
    let _ = EventMessage::decode(data);
});
