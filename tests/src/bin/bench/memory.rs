//! What an idle node costs the relay: proportional set size at 0, 1,000 and 10,000 nodes, each with prekey, announce and
//! two heartbeats behind it; and the same after every node has carried one frame of 64 KiB.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use outhaul_link::operator::Operator;
use outhaul_link::outbox::Outbox;
use outhaul_link::pump;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::{AnnounceContent, AnnouncedPack, Heartbeat, Interface, PackDescription, PackList, fact};
use outhaul_protocol::frame::{Answer, Ask, ChannelFrame, Frame, Lookup};
use outhaul_protocol::keys::{Digest, KeyId, X25519Secret, random};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Announce, Prekey};
use outhaul_protocol::signed::Signed;
use outhaul_relay::operator::now;
use outhaul_tests::process::pss_kib;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::Effort;
use crate::forward::pong;
use crate::table::Row;
use crate::world::{Ends, Member, World};

/// Nodes that connect at once.
const DIALING: usize = 32;
/// Frames of 64 KiB under way: less than the relay queues for one operator.
const CARRYING: usize = 32;
/// What an idle node may cost.
const TARGET_KIB: f64 = 10.0;
/// Between two looks at a process that is settling.
const LOOK: Duration = Duration::from_millis(250);
/// Looks at most.
const LOOKS: usize = 40;

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for count in effort.of(&[1_000, 10_000][..], &[1_000][..]).iter().copied() {
        // A relay of its own for each: what was carried before would be counted too.
        let (idle, carried) = nodes(count).await.with_context(|| format!("{count} nodes"))?;
        rows.push(Row::new(format!("idle node, of {count}"), idle, "KiB").at_most(TARGET_KIB));
        rows.push(Row::new(format!("node that carried 64 KiB, of {count}"), carried, "KiB"));
    }
    Ok(rows)
}

/// KiB for each of so many nodes: idle, and after a frame of 64 KiB.
async fn nodes(count: usize) -> Result<(f64, f64)> {
    let mut world = World::start()?;
    let relay = world.stage.relay()?.pid();
    let (operator, _) = Operator::start(world.ends.operator().await?, world.ends.dialer.key.clone());
    let empty = settled(relay).await?;
    let crowd = Crowd::gather(&world.ends, count).await?;
    arrived(&operator, &crowd).await?;
    let idle = settled(relay).await?;
    carry(&world.ends, &crowd).await?;
    let carried = settled(relay).await?;
    let each = |now: u64| (now as f64 - empty as f64) / count as f64;
    Ok((each(idle), each(carried)))
}

/// A process's memory when it has stopped changing.
async fn settled(pid: u32) -> Result<u64> {
    let mut last = pss_kib(pid)?;
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = pss_kib(pid)?;
        if now.abs_diff(last) * 200 <= now {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// Connected nodes.
#[derive(Debug)]
struct Crowd {
    ids: Vec<KeyId>,
    _links: JoinSet<()>,
}

impl Crowd {
    async fn gather(ends: &Ends, count: usize) -> Result<Self> {
        let mut links = JoinSet::new();
        let (joined, mut joins) = mpsc::channel(DIALING);
        let dialing = Arc::new(Semaphore::new(DIALING));
        for at in 0..count {
            let (ends, joined, dialing) = (ends.clone(), joined.clone(), dialing.clone());
            links.spawn(async move {
                let permit = dialing.acquire_owned().await;
                let linked = join(&ends, at).await;
                drop(permit);
                match linked {
                    Ok((member, socket, outbox)) => {
                        let _ = joined.send(Ok(member.id())).await;
                        drop(joined);
                        let on_frame = {
                            let outbox = outbox.clone();
                            move |frame: Bytes| answer(&outbox, &frame)
                        };
                        pump(socket, &outbox, on_frame, std::future::pending()).await;
                    }
                    Err(error) => drop(joined.send(Err(error)).await),
                }
            });
        }
        drop(joined);
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            ids.push(joins.recv().await.context("a node ended early")??);
        }
        Ok(Crowd { ids, _links: links })
    }
}

/// Links a node, with all that an agent says when it comes already queued.
async fn join(ends: &Ends, at: usize) -> Result<(Member, outhaul_link::Socket, Outbox)> {
    let member = ends.enrol(&format!("node-{at}"))?;
    let connected = ends.node(&member).await?;
    let outbox = Outbox::new(limits::SOCKET_QUEUE);
    let heartbeat = Heartbeat { cpu_percent: 3.5, memory_percent: 41.0, uptime_secs: 86_400, gpus: None }.to_bytes();
    for frame in [
        Frame::Prekey { signed: Blob(prekey(ends, &member)) },
        Frame::Announce { signed: Blob(announce(ends, &member, at)) },
        Frame::Heartbeat { figures: Blob(heartbeat.clone()) },
        Frame::Heartbeat { figures: Blob(heartbeat) },
    ] {
        outbox.control(frame.encode())?;
    }
    Ok((member, connected.socket, outbox))
}

fn prekey(ends: &Ends, member: &Member) -> Vec<u8> {
    let prekey = Prekey {
        iss: member.id(),
        aud: ends.fleet(),
        iat: now(),
        boot: random(),
        serial: 1,
        key: X25519Secret::generate().public(),
        min_version: 1,
        max_version: 1,
    };
    Signed::sign(&member.key, &prekey).into_bytes()
}

/// The size of an agent's with its three embedded packs.
fn announce(ends: &Ends, member: &Member, at: usize) -> Vec<u8> {
    let facts = [
        (fact::HOSTNAME, format!("node-{at}")),
        (fact::PLATFORM, "linux-x86_64".into()),
        (fact::OS, "Debian GNU/Linux 12".into()),
        (fact::KERNEL, "6.1.0-28-amd64".into()),
        (fact::CPU, "Intel(R) Xeon(R) Processor, 16 cores".into()),
        (fact::MEMORY, "67108864000".into()),
        (fact::AGENT, "0.1.0".into()),
    ];
    let facts = facts.map(|(key, value)| (key.to_owned(), value)).into();
    let content = AnnounceContent { boot_count: 1, seq: 1, facts, ..AnnounceContent::default() }.with_packs(&list());
    let announce =
        Announce { iss: member.id(), aud: ends.fleet(), iat: now(), boot_count: 1, serial: 1, content: Blob(content.to_bytes()) };
    Signed::sign(&member.key, &announce).into_bytes()
}

fn list() -> PackList {
    let packs = descriptions().into_iter().map(|pack| AnnouncedPack {
        name: pack.name.clone(),
        version: pack.version.clone(),
        digest: pack.digest,
        description: pack.digest(),
        interfaces: pack.interfaces.into_iter().map(|interface| interface.name).collect(),
        denied: Vec::new(),
        waiting: Vec::new(),
    });
    PackList(packs.collect())
}

fn descriptions() -> Vec<PackDescription> {
    let description = |(at, name): (usize, &str)| PackDescription {
        name: name.to_owned(),
        version: "0.1.0".into(),
        digest: [at as u8 + 1; 32],
        powers: vec![name.to_owned()],
        interfaces: vec![Interface { name: name.to_owned(), doc: None }],
        commands: Vec::new(),
    };
    ["camera", "gpu", "system"].into_iter().enumerate().map(description).collect()
}

/// A node's side of its link: descriptions when they are wanted, one large frame when a channel is opened.
fn answer(outbox: &Outbox, frame: &[u8]) -> Result<(), String> {
    let sent = match ChannelFrame::peek(frame) {
        Some(Ok(ChannelFrame::Open { channel, .. })) => {
            outbox.push(ChannelFrame::Data { channel, noise: &vec![0x5a; limits::NOISE] }.encode(), None)
        }
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => return Err(error.to_string()),
        None => match Frame::decode(frame) {
            Ok(Frame::Want { digest }) if digest.0 == list().digest() => {
                outbox.push(Frame::Description { digest, bytes: Blob(list().to_bytes()) }.encode(), None)
            }
            Ok(Frame::Want { digest }) => match descriptions().iter().find(|pack| Digest(pack.digest()) == digest) {
                Some(pack) => {
                    let bytes = pack.to_bytes().map_err(|failure| failure.to_string())?;
                    outbox.push(Frame::Description { digest, bytes: Blob(bytes) }.encode(), None)
                }
                None => Ok(()),
            },
            _ => return pong(outbox, frame),
        },
    };
    sent.map_err(|why| why.to_string())
}

/// Waits until the relay counts all of them and has the last one's announce.
async fn arrived(operator: &Operator, crowd: &Crowd) -> Result<()> {
    for _ in 0..LOOKS {
        let Answer::Status { nodes, .. } = operator.ask(Ask::Status {}).await? else { continue };
        let last = crowd.ids.last().copied();
        let lookup = Lookup { id: last, name: None };
        let Answer::Nodes { nodes: records } = operator.ask(Ask::Nodes { lookup }).await? else { continue };
        if nodes as usize == crowd.ids.len() && records.iter().all(|record| record.announce.is_some()) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    anyhow::bail!("the relay does not count {} nodes", crowd.ids.len())
}

/// Has every node send one frame of 64 KiB to an operator.
async fn carry(ends: &Ends, crowd: &Crowd) -> Result<()> {
    let socket = ends.operator().await?.socket;
    let outbox = Outbox::new(limits::SOCKET_QUEUE);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let on_frame = {
        let outbox = outbox.clone();
        move |frame: Bytes| match ChannelFrame::peek(&frame) {
            Some(Ok(ChannelFrame::Data { channel, noise })) => {
                let _ = arrived.send(noise.len());
                outbox.push(ChannelFrame::Close { channel, code: "done" }.encode(), None).map_err(|why| why.to_string())
            }
            // The echo of our own.
            Some(Ok(ChannelFrame::Close { code: "done", .. })) => Ok(()),
            Some(Ok(ChannelFrame::Close { code, .. })) => Err(format!("the relay closed a channel: {code}")),
            Some(Ok(ChannelFrame::Open { .. })) => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            None => pong(&outbox, &frame),
        }
    };
    let carrying = async {
        let mut under_way = 0;
        for node in &crowd.ids {
            outbox.push(ChannelFrame::Open { channel: random(), node: *node, noise: &[0x5a; 256] }.encode(), None)?;
            under_way += 1;
            if under_way == CARRYING {
                arrivals.recv().await.context("the operator's link ended")?;
                under_way -= 1;
            }
        }
        for _ in 0..under_way {
            ensure!(arrivals.recv().await.context("the operator's link ended")? == limits::NOISE, "a frame was cut");
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = pump(socket, &outbox, on_frame, std::future::pending()) => anyhow::bail!("the operator's link ended: {ended}"),
        carried = carrying => carried,
    }
}
