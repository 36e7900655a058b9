//! Every frame and sealed message: its bytes pinned in hex, its round trip, and no panic on flipped or cut bytes.
//! The vectors are for whoever writes an agent in another language. `OUTHAUL_WRITE_VECTORS=1` writes them anew.

use std::fmt::Write;

use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::frame::{Answer, Ask, ChannelFrame, Facts, Frame, Lookup, NodeRecord, Pending, Trouble};
use outhaul_protocol::inner::{
    DataMessage, Ending, EventMessage, Inner, Lane, OpenPayload, OpenedPayload, QuickCall, Serials, WireFailure,
};
use outhaul_protocol::keys::{Digest, KeyId, PublicKey, SecretKey};
use outhaul_protocol::objects::DeploymentDocument;
use proptest::prelude::*;

fn key() -> PublicKey {
    SecretKey::from_bytes(&[1; 32]).public()
}

fn blob() -> Blob {
    Blob(vec![0xaa, 0xbb])
}

fn record() -> NodeRecord {
    NodeRecord {
        certificate: blob(),
        status: "online".into(),
        connected_at: 1_800_000_000,
        last_seen: 1_800_000_001,
        heartbeat: Some(blob()),
        announce: None,
        prekey: Some(blob()),
    }
}

fn frames() -> Vec<(&'static str, Frame)> {
    let facts = Facts::from([("hostname".to_owned(), "bench".to_owned())]);
    let digest = Digest([3; 32]);
    let lookup = Lookup { id: Some(KeyId([2; 32])), name: None };
    vec![
        ("hello", Frame::Hello { min: 1, max: 1, nonce: [9; 32] }),
        ("challenge", Frame::Challenge { version: 1, nonce: [8; 32], key: key(), proof: blob() }),
        ("prove", Frame::Prove { role: 2, key: key(), proof: blob(), credential: blob(), lookup: Maybe(Some(lookup)) }),
        ("welcome", Frame::Welcome { session: 7, window: 5 << 20, heartbeat_ms: 15_000, found: Maybe(Some(vec![record()])) }),
        ("refused", Frame::Refused { code: "not_paired".into(), message: "unknown".into() }),
        ("ping", Frame::Ping { token: 1 }),
        ("pong", Frame::Pong { token: 1 }),
        ("heartbeat", Frame::Heartbeat { figures: blob() }),
        ("announce", Frame::Announce { signed: blob() }),
        ("prekey", Frame::Prekey { signed: blob() }),
        ("want", Frame::Want { digest }),
        ("description", Frame::Description { digest, bytes: blob() }),
        ("goodbye", Frame::Goodbye { code: "drain".into(), message: "restarting".into() }),
        ("notice", Frame::Notice { signed: blob(), kind: "relays".into(), chain: vec![blob()] }),
        ("request", Frame::Request { id: 4, body: blob(), control: Maybe(None) }),
        ("reply", Frame::Reply { id: 4, body: Maybe(Some(blob())), error: Maybe(None) }),
        (
            "reply-error",
            Frame::Reply { id: 4, body: Maybe(None), error: Maybe(Some(Trouble { code: "busy".into(), message: "x".into(), hint: None })) },
        ),
        ("pair-join", Frame::PairJoin { slot: 1, message: blob(), facts: facts.clone() }),
        ("pair-pending", Frame::PairPending { request: "r1".into(), expires_at: 5 }),
        ("pair-message", Frame::PairMessage { pairing: 3, message: blob() }),
        ("pair-end", Frame::PairEnd { pairing: 3, code: "denied".into(), message: "wrong code".into() }),
        ("pair-offer", Frame::PairOffer { pairing: 3, slot: 1, message: blob(), key: key(), facts }),
        ("blob-get", Frame::BlobGet { digest, offset: 65_536 }),
        ("blob-part", Frame::BlobPart { digest, offset: 0, total: 2, bytes: blob() }),
    ]
}

fn asks() -> Vec<(&'static str, Ask)> {
    let digest = Digest([3; 32]);
    vec![
        ("ask-nodes", Ask::Nodes { lookup: Lookup { id: None, name: Some("bench-1".into()) } }),
        ("ask-description", Ask::Description { digest }),
        ("ask-status", Ask::Status {}),
        ("ask-nodes-after", Ask::NodesAfter { lookup: Lookup::default(), after: KeyId([2; 32]) }),
        ("ask-deployments-after", Ask::DeploymentsAfter { after: "thermal".into() }),
        ("ask-pair-new", Ask::PairNew { ttl_secs: 300 }),
        ("ask-pair-detached", Ask::PairDetached { ttl_secs: 300, name: Maybe(None) }),
        ("ask-pair-list", Ask::PairList {}),
        ("ask-pair-take", Ask::PairTake { request: "r1".into() }),
        ("ask-pair-reject", Ask::PairReject { request: "r1".into() }),
        ("ask-pair-close", Ask::PairClose { slot: 1 }),
        ("ask-put-certificate", Ask::PutCertificate { certificate: blob() }),
        ("ask-remove-node", Ask::RemoveNode { node: KeyId([2; 32]) }),
        ("ask-put-notice", Ask::PutNotice { kind: "revocations".into(), signed: blob(), chain: vec![] }),
        ("ask-put-blob", Ask::PutBlob { digest, offset: 0, total: 2, bytes: blob() }),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let pending = Pending { request: "r1".into(), key: key(), facts: Facts::new(), asked_at: 1, expires_at: 2 };
    vec![
        ("answer-done", Answer::Done {}),
        ("answer-nodes", Answer::Nodes { nodes: vec![record()] }),
        ("answer-bytes", Answer::Bytes { bytes: blob() }),
        ("answer-status", Answer::Status { version: "0.1.0".into(), uptime_secs: 1, nodes: 2, operators: 3 }),
        ("answer-slot", Answer::Slot { slot: 1, expires_at: 9 }),
        ("answer-code", Answer::Code { code: "482913".into(), expires_at: 9 }),
        ("answer-pendings", Answer::Pendings { pendings: vec![pending] }),
        ("answer-stored", Answer::Stored { bytes: 2 }),
        ("answer-deployments", Answer::Deployments { documents: vec![DeploymentDocument { document: blob(), chain: vec![blob()] }] }),
    ]
}

fn quick() -> QuickCall {
    QuickCall {
        id: [5; 16],
        command: "gpu.list".into(),
        params: Blob(vec![0xa0]),
        at: 12,
        start_within_ms: 30_000,
        deadline_ms: Some(60_000),
        pack: None,
        input: None,
    }
}

fn inners() -> Vec<(&'static str, Inner)> {
    let call = [5; 16];
    let failure = WireFailure { code: "denied".into(), message: "no".into(), hint: Some("ask".into()), detail: None };
    vec![
        ("call", Inner::Call { signed: blob() }),
        ("quick", Inner::Quick { call: quick() }),
        ("accepted", Inner::Accepted { call }),
        ("credit", Inner::Credit { call, consumed: 3, channel_consumed: 70_000, channel_limit: 4_264_304 }),
        ("cancel", Inner::Cancel { call }),
        ("end-done", Inner::End { call, ending: Ending { value: Some(blob()), failure: None, receipt: blob() } }),
        ("end-failed", Inner::End { call, ending: Ending { value: None, failure: Some(failure), receipt: blob() } }),
        ("attach", Inner::Attach { call, from: 2 }),
        ("unknown", Inner::Unknown { call }),
        ("input-end", Inner::InputEnd { call }),
        ("want", Inner::Want { limit: 600_000 }),
        ("recall", Inner::Recall { keep: 45_056 }),
        ("give-back", Inner::GiveBack { room: 20_000 }),
        ("inner-notice", Inner::Notice { kind: "relays".into(), signed: blob(), chain: vec![] }),
    ]
}

fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&str, Vec<u8>)> = frames().into_iter().map(|(name, frame)| (name, frame.encode())).collect();
    all.extend(asks().into_iter().map(|(name, ask)| (name, ask.encode())));
    all.extend(answers().into_iter().map(|(name, answer)| (name, answer.encode())));
    let (channel, node) = ([4; 16], KeyId([2; 32]));
    all.push(("open", ChannelFrame::Open { channel, node, noise: &[1, 2, 3] }.encode()));
    all.push(("data", ChannelFrame::Data { channel, noise: &[1, 2, 3] }.encode()));
    all.push(("close", ChannelFrame::Close { channel, code: "node_offline" }.encode()));
    all.extend(inners().into_iter().map(|(name, inner)| (name, inner.encode())));
    let data = DataMessage { call: [5; 16], lane: Lane::Stdout, seq: 300, bytes: b"hi" };
    all.push(("lane-data", [data.head(), data.bytes.to_vec()].concat()));
    all.push(("event", EventMessage { name: "progress".into(), json: "{}".into() }.encode()));
    let serials = Serials { relays: 1, revocations: 2 };
    all.push(("open-payload", OpenPayload { opening: blob(), chain: vec![blob()], serials, call: Some(blob()), window: 1 << 20 }.encode()));
    let opened = OpenedPayload { boot: [6; 16], clock: 1, sure: true, certificate: 1, announce: Digest([3; 32]), serials, window: 1 << 20 };
    all.push(("opened-payload", opened.encode()));
    all
}

#[test]
fn bytes_of_each_frame_are_pinned() {
    let mut found = String::from("# Frames of the link, then messages of a channel, in hex.\n");
    for (name, bytes) in vectors() {
        writeln!(found, "{name} {}", hex::encode(bytes)).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/frames.txt");
    if std::env::var_os("OUTHAUL_WRITE_VECTORS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let pinned = std::fs::read_to_string(path).unwrap();
    for (found, pinned) in found.lines().zip(pinned.lines()) {
        assert_eq!(found, pinned);
    }
    assert_eq!(found.lines().count(), pinned.lines().count());
}

#[test]
fn each_reads_back_as_itself() {
    for (name, frame) in frames() {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame), "{name}");
    }
    for (name, ask) in asks() {
        assert_eq!(Ask::decode(&ask.encode()), Ok(ask), "{name}");
    }
    for (name, answer) in answers() {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer), "{name}");
    }
    for (name, inner) in inners() {
        assert_eq!(Inner::decode(&inner.encode()), Ok(inner), "{name}");
    }
    let data = DataMessage { call: [5; 16], lane: Lane::Stderr, seq: 70_000, bytes: &[7; 300] };
    assert_eq!(DataMessage::peek(&[data.head(), data.bytes.to_vec()].concat()), Some(Ok(data)));
    let (channel, node) = ([4; 16], KeyId([2; 32]));
    for frame in [
        ChannelFrame::Open { channel, node, noise: &[1; 300] },
        ChannelFrame::Data { channel, noise: &[1; 65_535] },
        ChannelFrame::Close { channel, code: "busy" },
    ] {
        assert_eq!(ChannelFrame::peek(&frame.encode()), Some(Ok(frame)));
    }
}

#[test]
fn channel_frames_are_no_other_frames() {
    for (name, frame) in frames() {
        assert_eq!(ChannelFrame::peek(&frame.encode()), None, "{name}");
    }
}

#[test]
fn cut_or_lengthened_bytes_are_refused() {
    for (name, bytes) in vectors() {
        for cut in 0..bytes.len() {
            let cut = &bytes[..cut];
            assert!(Frame::decode(cut).is_err() && Ask::decode(cut).is_err() && Inner::decode(cut).is_err(), "{name}");
            assert!(!matches!(ChannelFrame::peek(cut), Some(Ok(_))), "{name}");
            assert!(!matches!(DataMessage::peek(cut), Some(Ok(_))), "{name}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Frame::decode(&longer).is_err(), "{name}");
        assert!(!matches!(ChannelFrame::peek(&longer), Some(Ok(_))), "{name}");
        assert!(!matches!(DataMessage::peek(&longer), Some(Ok(_))), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn flipped_bytes_never_panic(which in 0..vectors().len(), at: usize, bit in 0..8u8) {
        let (_, mut bytes) = vectors().swap_remove(which);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = (Frame::decode(&bytes), Ask::decode(&bytes), Answer::decode(&bytes), Inner::decode(&bytes));
        let _ = (ChannelFrame::peek(&bytes), DataMessage::peek(&bytes), OpenPayload::decode(&bytes), OpenedPayload::decode(&bytes));
    }
}
