//! Forwarding: 256 opaque bytes from an operator's link through the relay to a node's link and back, both ends in this
//! process; and the same request and reply through nats-server, in turns.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use outhaul_link::outbox::Outbox;
use outhaul_link::pump;
use outhaul_protocol::frame::{ChannelFrame, Frame};
use outhaul_protocol::keys::random;
use outhaul_protocol::limits;
use tokio::task::JoinHandle;

use crate::Effort;
use crate::load::{Load, Round, payload};
use crate::nats::{self, Nats};
use crate::table::{Row, median};
use crate::world::{Ends, World};

/// Requests in flight, of the two rows of rates.
const IN_FLIGHT: [usize; 2] = [50, 128];

/// An operator's and a node's link, and a channel between them.
#[derive(Debug)]
pub(crate) struct Pair {
    load: Arc<Load>,
    outbox: Outbox,
    frames: Arc<Vec<Bytes>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Pair {
    /// Links both ends and opens the channel.
    pub(crate) async fn open(ends: &Ends) -> Result<Self> {
        let member = ends.enrol("forward")?;
        let (node, operator) = (ends.node(&member).await?, ends.operator().await?);
        let (echo, outbox) = (Outbox::new(limits::SOCKET_QUEUE), Outbox::new(limits::SOCKET_QUEUE));
        let responder = tokio::spawn(async move {
            // When this link ends, the relay closes the channel, and the other end says why.
            pump(node.socket, &echo, |frame: Bytes| echo_frame(&echo, frame), std::future::pending()).await;
        });
        let channel = random();
        let frames: Arc<Vec<Bytes>> =
            Arc::new((0..IN_FLIGHT[1]).map(|slot| ChannelFrame::Data { channel, noise: &payload(slot) }.encode().into()).collect());
        let load = Arc::new(Load::default());
        let requester = {
            let (load, outbox, frames) = (load.clone(), outbox.clone(), frames.clone());
            tokio::spawn(async move {
                let on_frame = |frame: Bytes| next_request(&load, &outbox, &frames, &frame);
                let ended = pump(operator.socket, &outbox, on_frame, std::future::pending()).await;
                load.broke(&ended.to_string());
            })
        };
        outbox.push(ChannelFrame::Open { channel, node: member.id(), noise: &payload(0) }.encode(), None)?;
        Ok(Pair { load, outbox, frames, tasks: [responder, requester] })
    }

    /// One round of request and reply.
    pub(crate) async fn round(&self, in_flight: usize, time: Duration) -> Result<Round> {
        self.load.round(in_flight, time, |slot| Ok(self.outbox.push(self.frames[slot].clone(), None)?)).await
    }
}

/// The node's side: data goes back as it came.
fn echo_frame(outbox: &Outbox, frame: Bytes) -> Result<(), String> {
    match ChannelFrame::peek(&frame) {
        Some(Ok(ChannelFrame::Data { .. })) => outbox.push(frame, None).map_err(|why| why.to_string()),
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => pong(outbox, &frame),
    }
}

/// The operator's side: an answer sends the next request of its slot.
fn next_request(load: &Load, outbox: &Outbox, frames: &[Bytes], frame: &[u8]) -> Result<(), String> {
    match ChannelFrame::peek(frame) {
        Some(Ok(ChannelFrame::Data { noise, .. })) => {
            let slot = usize::from(noise[0]);
            if load.answered(slot) { outbox.push(frames[slot].clone(), None).map_err(|why| why.to_string()) } else { Ok(()) }
        }
        Some(Ok(ChannelFrame::Close { code, .. })) => Err(format!("the relay closed the channel: {code}")),
        Some(Ok(ChannelFrame::Open { .. })) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => pong(outbox, frame),
    }
}

/// What keeps a link alive.
pub(crate) fn pong(outbox: &Outbox, frame: &[u8]) -> Result<(), String> {
    if let Ok(Frame::Ping { token }) = Frame::decode(frame) {
        outbox.control(Frame::Pong { token }.encode()).map_err(|why| why.to_string())?;
    }
    Ok(())
}

/// Rounds of both systems, in turns.
#[derive(Debug, Default)]
struct Rounds {
    ours: Vec<Round>,
    theirs: Vec<Round>,
}

impl Rounds {
    fn figures(&self, of: impl Fn(&Round) -> f64 + Copy) -> (f64, Option<f64>) {
        let middle = |rounds: &[Round]| median(&rounds.iter().map(of).collect::<Vec<_>>());
        (middle(&self.ours), (!self.theirs.is_empty()).then(|| middle(&self.theirs)))
    }
}

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let world = World::start()?;
    let pair = Pair::open(&world.ends).await?;
    let nats = match nats::version() {
        Some(_) => Some(Nats::start().await?),
        None => None,
    };
    let time = Duration::from_millis(effort.of(2000, 300));
    let mut rows = Vec::new();
    for in_flight in [1, IN_FLIGHT[0], IN_FLIGHT[1]] {
        let rounds = in_turns(&pair, nats.as_ref(), in_flight, time, effort.of(3, 1))
            .await
            .map_err(|error| anyhow!("{in_flight} in flight: {error:#}"))?;
        if in_flight == 1 { rows.extend(times(&rounds)) } else { rows.extend(rates(&rounds, in_flight)) }
    }
    Ok(rows)
}

async fn in_turns(pair: &Pair, nats: Option<&Nats>, in_flight: usize, time: Duration, rounds: usize) -> Result<Rounds> {
    let mut found = Rounds::default();
    // Once unmeasured: buffers grow, connections find their pace.
    pair.round(in_flight, time / 4).await?;
    if let Some(nats) = nats {
        nats.round(in_flight, time / 4).await?;
    }
    for _ in 0..rounds {
        found.ours.push(pair.round(in_flight, time).await?);
        if let Some(nats) = nats {
            found.theirs.push(nats.round(in_flight, time).await?);
        }
    }
    Ok(found)
}

const NO_NATS: &str = "nats-server is not installed";

fn times(rounds: &Rounds) -> Vec<Row> {
    let ((p50, theirs), (p99, theirs99)) = (rounds.figures(|round| round.p50), rounds.figures(|round| round.p99));
    let mut rows = vec![Row::new("256 B, one in flight, p50", p50, "µs"), Row::new("256 B, one in flight, p99", p99, "µs")];
    match (theirs, theirs99) {
        (Some(theirs), Some(theirs99)) => rows.extend([
            Row::new("NATS, one in flight, p50", theirs, "µs"),
            Row::new("NATS, one in flight, p99", theirs99, "µs"),
            Row::new("p50, ours to NATS", p50 / theirs, "×").at_most(0.8),
        ]),
        _ => rows.push(Row::missing("p50, ours to NATS", NO_NATS).at_most(0.8)),
    }
    rows
}

fn rates(rounds: &Rounds, in_flight: usize) -> Vec<Row> {
    let (rate, theirs) = rounds.figures(|round| round.rate);
    let mut rows = vec![Row::new(format!("256 B, {in_flight} in flight"), rate, "/s")];
    let name = format!("rate at {in_flight}, ours to NATS");
    match theirs {
        Some(theirs) => {
            rows.push(Row::new(format!("NATS, {in_flight} in flight"), theirs, "/s"));
            rows.push(Row::new(name, rate / theirs, "×").at_least(1.5));
        }
        None => rows.push(Row::missing(name, NO_NATS).at_least(1.5)),
    }
    rows
}
