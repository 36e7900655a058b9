//! Frames of channels go where they belong, as they are, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use outhaul_protocol::frame::ChannelFrame;
use outhaul_protocol::keys::{SecretKey, random};
use outhaul_protocol::limits;

use crate::world::{Peer, World};

async fn pair(world: &World) -> (Peer, Peer) {
    (world.owner().await, world.node(&Arc::new(SecretKey::generate()), "bench-1").await)
}

#[tokio::test]
async fn bytes_pass_as_they_came_both_ways() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    let channel = random();
    let opened = operator.open(channel, node.id()).await;
    assert_eq!(node.bytes().await.expect("the opening"), opened);
    // A longer form of the same lengths than our encoder writes: forwarded, not written anew.
    let mut data = vec![0x83, 0x15, 0x50];
    data.extend(channel);
    data.extend([0x59, 0x01, 0x00]);
    data.extend([0xa7; 256]);
    node.raw(data.clone()).await;
    assert_eq!(operator.bytes().await.expect("an answer"), data);
    for length in [0, 1, 300, limits::NOISE] {
        let data = ChannelFrame::Data { channel, noise: &vec![0x5a; length] }.encode();
        operator.raw(data.clone()).await;
        assert_eq!(node.bytes().await.expect("data"), data);
    }
    operator.raw(ChannelFrame::Close { channel, code: "done" }.encode()).await;
    assert_eq!(node.closed(&channel).await, "done");
    assert_eq!(operator.closed(&channel).await, "done");
    node.raw(ChannelFrame::Data { channel, noise: b"late" }.encode()).await;
    operator.settle().await;
}

#[tokio::test]
async fn who_closes_a_channel_hears_so_behind_all_that_was_under_way() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    let channel = random();
    operator.open(channel, node.id()).await;
    node.bytes().await.expect("the opening");
    let data = ChannelFrame::Data { channel, noise: &[1; limits::NOISE] }.encode();
    for _ in 0..3 {
        node.raw(data.clone()).await;
    }
    node.settle().await;
    operator.raw(ChannelFrame::Close { channel, code: "done" }.encode()).await;
    for _ in 0..3 {
        assert_eq!(operator.bytes().await.expect("data"), data);
    }
    assert_eq!(operator.closed(&channel).await, "done");
}

#[tokio::test]
async fn openings_that_a_node_does_not_read_are_refused_and_do_not_cost_it_its_link() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    // The node reads nothing: the kernel takes a few MiB, the relay one, then openings are turned away.
    let mut passed = 0;
    let turned_away = async {
        loop {
            let channel = random();
            operator.raw(ChannelFrame::Open { channel, node: node.id(), noise: &[0; limits::NOISE] }.encode()).await;
            operator.raw(ChannelFrame::Close { channel, code: "done" }.encode()).await;
            match operator.closed(&channel).await.as_str() {
                "done" => passed += 1,
                other => return other.to_owned(),
            }
        }
    };
    let code = tokio::time::timeout(Duration::from_secs(60), turned_away).await.expect("turned away before that");
    assert_eq!(code, "busy");
    // What is in the way, an opening and an end each, is read; then the node is as reachable as before.
    for _ in 0..2 * passed {
        node.bytes().await.expect("keeps its link");
    }
    let last = operator.open([1; 16], node.id()).await;
    assert_eq!(node.bytes().await.expect("keeps its link"), last);
}

#[tokio::test]
async fn a_foreign_session_can_neither_use_nor_close_nor_take_a_channel() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    let mut other_operator = world.owner().await;
    let mut other_node = world.node(&Arc::new(SecretKey::generate()), "bench-2").await;
    let channel = random();
    operator.open(channel, node.id()).await;
    node.bytes().await.expect("the opening");
    let (data, close) = (ChannelFrame::Data { channel, noise: b"x" }.encode(), ChannelFrame::Close { channel, code: "done" }.encode());
    for intruder in [&mut other_operator, &mut other_node] {
        intruder.raw(data.clone()).await;
        intruder.raw(close.clone()).await;
        intruder.settle().await;
    }
    other_operator.open(channel, node.id()).await;
    assert_eq!(other_operator.closed(&channel).await, "replayed");
    let honest = ChannelFrame::Data { channel, noise: b"honest" }.encode();
    operator.raw(honest.clone()).await;
    assert_eq!(node.bytes().await.expect("data"), honest, "nothing came before it, and the channel lives");
}

#[tokio::test]
async fn a_channel_ends_with_either_end() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    let offline = random();
    operator.open(offline, SecretKey::generate().id()).await;
    assert_eq!(operator.closed(&offline).await, "node_offline");
    let channel = random();
    operator.open(channel, node.id()).await;
    node.bytes().await.expect("the opening");
    let again = world.node(&node.key, "bench-1").await;
    assert_eq!(operator.closed(&channel).await, "link_lost");
    assert_eq!(node.goodbye().await, "replaced");
    let (mut node, channel) = (again, random());
    operator.open(channel, node.id()).await;
    node.bytes().await.expect("the opening");
    drop(operator);
    assert_eq!(node.closed(&channel).await, "link_lost");
}

#[tokio::test]
async fn a_node_carries_so_many_channels_of_one_operator_and_no_more() {
    let world = World::new().await;
    let (mut operator, node) = pair(&world).await;
    for at in 0..limits::CHANNELS_PER_OPERATOR {
        operator.open([at as u8; 16], node.id()).await;
    }
    operator.open([0xff; 16], node.id()).await;
    assert_eq!(operator.closed(&[0xff; 16]).await, "busy");
    operator.raw(ChannelFrame::Close { channel: [0; 16], code: "done" }.encode()).await;
    assert_eq!(operator.closed(&[0; 16]).await, "done");
    operator.open([0xfe; 16], node.id()).await;
    operator.settle().await;
}

#[tokio::test]
async fn who_overruns_a_channel_loses_it_and_the_reader_stays() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    let channel = random();
    operator.open(channel, node.id()).await;
    node.bytes().await.expect("the opening");
    let data = ChannelFrame::Data { channel, noise: &vec![0; limits::NOISE] }.encode();
    // The node reads nothing: the kernel takes a few MiB, the relay a window and a half, then it is over.
    for _ in 0..1024 {
        operator.raw(data.clone()).await;
    }
    assert_eq!(operator.closed(&channel).await, "too_large");
    assert_eq!(node.closed(&channel).await, "too_large");
    node.settle().await;
}

#[tokio::test]
async fn nodes_open_no_channels_and_nonsense_ends_a_session() {
    let world = World::new().await;
    let (mut operator, mut node) = pair(&world).await;
    node.open(random(), operator.id()).await;
    assert_eq!(node.goodbye().await, "bad_params");
    for nonsense in [vec![], vec![0x83, 0x15], vec![0xff; 10], vec![0x81, 0x18, 0x63]] {
        let mut node = world.node(&node.key, "bench-1").await;
        node.raw(nonsense).await;
        assert_eq!(node.goodbye().await, "bad_params");
    }
    operator.settle().await;
}
