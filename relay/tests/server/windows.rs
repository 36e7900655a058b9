//! Many busy channels to one reader that reads slowly: it keeps its link and gets every byte.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outhaul_link::budget::Budget;
use outhaul_link::outbox::Outbox;
use outhaul_link::pipe::{Pipe, Received};
use outhaul_link::{Windows, pump};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::channel::{Binding, Initiator, Responder};
use outhaul_protocol::frame::{ChannelFrame, ChannelId};
use outhaul_protocol::inner::{Lane, OpenPayload, OpenedPayload, Serials};
use outhaul_protocol::keys::{Digest, KeyId, SecretKey, X25519Public, X25519Secret, random};
use outhaul_protocol::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::world::World;

const NODES: usize = 4;
/// Data messages in each channel: together far more than the relay and the kernel would take.
const MESSAGES: u64 = 20;
/// Bytes that pass to the reader before it stops again.
const PASS: u64 = 3 << 20;

const CHANNELS: usize = NODES * limits::CHANNELS_PER_OPERATOR;

fn binding(node: KeyId, channel: ChannelId) -> Binding {
    Binding { version: 1, fleet: KeyId([0; 32]), node, prekey: Digest([0; 32]), channel }
}

/// A node's end: answers openings, and sends in each channel as fast as it may.
struct Node {
    id: KeyId,
    prekey: X25519Secret,
    outbox: Outbox,
    budget: Budget,
    pipes: HashMap<ChannelId, Arc<Pipe>>,
    sending: JoinSet<()>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Node {
    async fn serve(world: Arc<World>, key: Arc<SecretKey>, name: String, prekey: X25519Secret, waiting: Arc<watch::Sender<usize>>) {
        let connected = world.node(&key, &name).await.connected;
        let (outbox, budget) = (Outbox::new(limits::SOCKET_QUEUE / 4), Budget::new(connected.window));
        let (pipes, sending) = (HashMap::new(), JoinSet::new());
        waiting.send_modify(|ready| *ready += 1);
        let mut node = Node { id: key.id(), prekey, outbox: outbox.clone(), budget, pipes, sending, waiting };
        let handler = |frame: Bytes| {
            node.frame(&frame);
            Ok(())
        };
        pump(connected.socket, &outbox, handler, std::future::pending()).await;
    }

    fn frame(&mut self, frame: &[u8]) {
        match ChannelFrame::peek(frame) {
            Some(Ok(ChannelFrame::Open { channel, noise, .. })) => self.open(channel, noise),
            Some(Ok(ChannelFrame::Data { channel, noise })) => {
                let said = self.pipes[&channel].receive(noise).expect("honest");
                assert!(!matches!(said, Some(Received::Data { .. })), "the reader only reads");
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    fn open(&mut self, channel: ChannelId, noise: &[u8]) {
        let (responder, opened) = Responder::open(&binding(self.id, channel), &self.prekey, noise).expect("opens");
        let theirs = OpenPayload::decode(&opened.payload).expect("a payload").window;
        let ours = self.budget.join(channel).expect("room");
        let serials = Serials::default();
        let answer =
            OpenedPayload { boot: [0; 16], clock: 0, sure: false, certificate: 1, announce: Digest([0; 32]), serials, window: ours };
        let (session, second) = responder.answer(&answer.encode()).expect("answers");
        self.outbox.push(ChannelFrame::Data { channel, noise: &second }.encode(), None).expect("room");
        let pipe = Pipe::new(session, self.outbox.clone(), self.budget.clone(), Windows { theirs, ours });
        self.pipes.insert(channel, pipe.clone());
        self.sending.spawn(send(pipe, self.waiting.clone()));
    }
}

async fn send(pipe: Arc<Pipe>, waiting: Arc<watch::Sender<usize>>) {
    for seq in 0..MESSAGES {
        let bytes = vec![seq as u8; limits::DATA_CHUNK];
        counted(pipe.send_data([7; 16], Lane::Stdout, seq, &bytes), &waiting).await.expect("the channel lives");
    }
    waiting.send_modify(|waiting| *waiting += 1);
}

/// Counts the future among those that wait, while it does.
async fn counted<F: Future>(future: F, waiting: &watch::Sender<usize>) -> F::Output {
    let (mut future, mut waits) = (pin!(future), false);
    poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        if poll.is_pending() != waits {
            waits = poll.is_pending();
            waiting.send_modify(|waiting| if waits { *waiting += 1 } else { *waiting -= 1 });
        }
        poll
    })
    .await
}

/// Passes everything to the relay, and from it only as much as is allowed.
async fn slow_path(listener: TcpListener, relay: std::net::SocketAddr, allowed: watch::Receiver<u64>, passed: watch::Sender<u64>) {
    let (mut peer, _) = listener.accept().await.expect("connects");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
    let mut relay = socket.connect(relay).await.expect("connects");
    let ((mut peer_in, mut peer_out), (mut relay_in, mut relay_out)) = (peer.split(), relay.split());
    let mut allowed = allowed;
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let so_far = *passed.borrow();
            let most = *allowed.wait_for(|allowed| *allowed > so_far).await.expect("the test lives") - so_far;
            let most = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            let length = relay_in.read(&mut buffer[..most]).await.expect("the relay keeps the link");
            assert!(length > 0, "the relay has cut a reader that is only slow");
            peer_out.write_all(&buffer[..length]).await.expect("passes");
            passed.send_modify(|passed| *passed += length as u64);
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut peer_in, &mut relay_out) => panic!("the reader went away"),
    }
}

/// One channel as the reader has it.
enum Channel {
    Opening(Initiator, u64),
    Open(Arc<Pipe>, u64),
}

/// Opens all channels at once, reads what comes, checks that each byte is where it should be.
async fn read(world: Arc<World>, port: u16, nodes: Vec<(KeyId, X25519Public)>, complete: watch::Sender<usize>) {
    let connected = world.owner_at(port).await.connected;
    let (outbox, budget) = (Outbox::new(limits::SOCKET_QUEUE / 4), Budget::new(connected.window));
    let mut channels = HashMap::new();
    for (node, prekey) in nodes.iter().flat_map(|node| std::iter::repeat_n(node, limits::CHANNELS_PER_OPERATOR)) {
        let channel: ChannelId = random();
        let window = budget.join(channel).expect("room");
        let payload = OpenPayload { opening: Blob::default(), chain: Vec::new(), serials: Serials::default(), call: None, window };
        let own = X25519Secret::generate();
        let (initiator, noise) = Initiator::open(&binding(*node, channel), &own, prekey, &payload.encode()).expect("seals");
        outbox.push(ChannelFrame::Open { channel, node: *node, noise: &noise }.encode(), None).expect("room");
        channels.insert(channel, Channel::Opening(initiator, window));
    }
    let handler = |frame: Bytes| {
        let (channel, noise) = match ChannelFrame::peek(&frame) {
            Some(Ok(ChannelFrame::Data { channel, noise })) => (channel, noise),
            Some(other) => panic!("{other:?}"),
            None => return Ok(()),
        };
        match channels.remove(&channel).expect("its own channel") {
            Channel::Opening(initiator, ours) => {
                let (session, answer) = initiator.answered(noise).expect("opens");
                let theirs = OpenedPayload::decode(&answer).expect("a payload").window;
                let pipe = Pipe::new(session, outbox.clone(), budget.clone(), Windows { theirs, ours });
                channels.insert(channel, Channel::Open(pipe, 0));
            }
            Channel::Open(pipe, mut next) => {
                match pipe.receive(noise).expect("honest") {
                    Some(Received::Data { seq, bytes, cost, .. }) => {
                        assert!(seq == next && bytes.len() == limits::DATA_CHUNK && bytes.iter().all(|byte| *byte == seq as u8));
                        next += 1;
                        if pipe.consumed(cost) {
                            pipe.credit([7; 16], next).expect("the channel lives");
                        }
                    }
                    Some(Received::Message(message, _)) => panic!("{message:?}"),
                    None => {}
                }
                complete.send_modify(|complete| *complete += usize::from(next == MESSAGES));
                channels.insert(channel, Channel::Open(pipe, if next == MESSAGES { u64::MAX } else { next }));
            }
        }
        Ok(())
    };
    pump(connected.socket, &outbox, handler, std::future::pending()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_busy_channels_leave_a_slow_reader_its_link_and_lose_no_byte() {
    let world = Arc::new(World::new().await);
    let mut tasks = JoinSet::new();
    let (waiting, mut ready) = watch::channel(0);
    let waiting = Arc::new(waiting);
    let mut nodes = Vec::new();
    for at in 0..NODES {
        let (key, prekey) = (Arc::new(SecretKey::generate()), X25519Secret::generate());
        nodes.push((key.id(), prekey.public()));
        tasks.spawn(Node::serve(world.clone(), key, format!("node-{at}"), prekey, waiting.clone()));
    }
    // From here on the number is of those that wait or are done.
    ready.wait_for(|ready| *ready == NODES).await.expect("the nodes are there");
    waiting.send_replace(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let ((allow, allowed), (pass, mut passed), (done, mut complete)) = (watch::channel(PASS), watch::channel(0), watch::channel(0));
    tasks.spawn(slow_path(listener, world.address(), allowed, pass));
    tasks.spawn(read(world.clone(), port, nodes, done));
    let story = async {
        let all = |complete: &usize| *complete == CHANNELS;
        loop {
            // Only when nobody can send any more does the reader read on, and only so far.
            let limit = *allow.borrow();
            tokio::select! {
                _ = complete.wait_for(all) => return,
                _ = passed.wait_for(|passed| *passed >= limit) => {}
            }
            ready.wait_for(|waiting| *waiting == CHANNELS).await.expect("the senders live");
            allow.send_modify(|allowed| *allowed += PASS);
        }
    };
    tokio::select! {
        done = tokio::time::timeout(Duration::from_secs(120), story) => done.expect("nobody is stuck"),
        ended = tasks.join_next() => panic!("an end gave up: {ended:?}"),
    }
}
