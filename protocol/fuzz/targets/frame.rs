//! Any frame of the link, before and after authentication; what decodes encodes to the same frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul_protocol::frame::{Answer, Ask, ChannelFrame, Frame};

fuzz_target!(|data: &[u8]| {
    let _ = Frame::decode_before_auth(data);
    if let Ok(frame) = Frame::decode(data) {
        let again = Frame::decode(&frame.encode()).expect("what we wrote is read");
        assert_eq!(again.encode(), frame.encode());
    }
    if let Some(Ok(frame)) = ChannelFrame::peek(data) {
        let bytes = frame.encode();
        assert_eq!(ChannelFrame::peek(&bytes), Some(Ok(frame)));
    }
    let _ = Ask::decode(data);
    let _ = Answer::decode(data);
});
