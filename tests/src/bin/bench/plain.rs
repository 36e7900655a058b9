//! The plain half of the stream row: a child's output through the same three processes as opaque frames, with the same
//! chunk and the same channel window, and nothing sealed, hashed, signed or sandboxed. `bench plain-source` stands for
//! the agent, the relay is the relay, `bench plain-sink` stands for the command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use outhaul_link::dial::Connected;
use outhaul_link::outbox::Outbox;
use outhaul_link::pump;
use outhaul_protocol::frame::{ChannelFrame, ChannelId};
use outhaul_protocol::keys::{KeyId, SecretKey, random};
use outhaul_protocol::limits;
use outhaul_tests::Process;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, mpsc};

use crate::forward::pong;
use crate::world::{Ends, Member, World};

/// The word of the first process.
pub(crate) const SOURCE: &str = "plain-source";
/// The word of the last one.
pub(crate) const SINK: &str = "plain-sink";

/// Bytes of one frame, as in a sealed stream.
const CHUNK: usize = limits::DATA_CHUNK;
/// Bytes under way, as in a channel.
const WINDOW: u64 = limits::CHANNEL_WINDOW as u64;
/// Bytes after which credit is given back.
const CREDIT: u64 = WINDOW / 4;
/// A child's pipe, as the agent's.
const PIPE: usize = 1 << 20;

/// The source, waiting for a sink.
#[derive(Debug)]
pub(crate) struct Plain {
    home: PathBuf,
    url: String,
    node: KeyId,
    _source: Process,
    _folder: tempfile::TempDir,
}

impl Plain {
    /// Starts the source and waits until it is linked.
    pub(crate) fn prepare(world: &World) -> Result<Self> {
        let member = world.ends.enrol("plain")?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("member");
        let text = format!("{}\n{}\n", hex::encode(*member.key.to_bytes()), hex::encode(&member.certificate));
        std::fs::write(&file, text)?;
        let (home, url) = (world.stage.home.path().to_owned(), world.stage.url.clone());
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SOURCE).args([home.as_path(), Path::new(&url), &file]);
        let mut source = Process::start(command)?;
        source.wait_for("linked")?;
        Ok(Plain { home, url, node: member.id(), _source: source, _folder: folder })
    }

    /// Megabytes a second, the sink's start included.
    pub(crate) fn run(&self, bytes: u64) -> Result<f64> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SINK).arg(&self.home).args([&self.url, &self.node.to_string(), &bytes.to_string()]);
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output()?;
        let took = began.elapsed().as_secs_f64();
        ensure!(output.status.success(), "{SINK}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(bytes as f64 / took / 1e6)
    }
}

/// `plain-source HOME URL MEMBER`: serves one channel after another until it is ended.
pub(crate) fn source(arguments: &[String]) -> Result<()> {
    let [home, url, file] = arguments else { bail!("usage: {SOURCE} HOME URL MEMBER") };
    let text = std::fs::read_to_string(file)?;
    let (seed, certificate) = text.trim().split_once('\n').context("a seed and a certificate")?;
    let seed: [u8; 32] = hex::decode(seed)?.try_into().ok().context("a seed of 32 bytes")?;
    let member = Member { key: SecretKey::from_bytes(&seed), certificate: hex::decode(certificate)? };
    let ends = Ends::of(Path::new(home), url)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let connected = ends.node(&member).await?;
        println!("linked");
        serve(connected).await
    })
}

/// How far the sink is.
#[derive(Debug, Default)]
struct Credit {
    consumed: AtomicU64,
    changed: Notify,
}

async fn serve(connected: Connected) -> Result<()> {
    let outbox = Outbox::new(limits::SOCKET_QUEUE / 4);
    let credit = Arc::new(Credit::default());
    let (asked, mut asks) = mpsc::unbounded_channel();
    let on_frame = {
        let (outbox, credit) = (outbox.clone(), credit.clone());
        move |frame: Bytes| match ChannelFrame::peek(&frame) {
            Some(Ok(ChannelFrame::Open { channel, noise, .. })) => {
                credit.consumed.store(0, Ordering::Relaxed);
                asked.send((channel, number(noise)?)).map_err(|_| "the sender is gone".to_owned())
            }
            Some(Ok(ChannelFrame::Data { noise, .. })) => {
                credit.consumed.store(number(noise)?, Ordering::Relaxed);
                credit.changed.notify_one();
                Ok(())
            }
            Some(Ok(ChannelFrame::Close { .. })) => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            None => pong(&outbox, &frame),
        }
    };
    let sending = async {
        while let Some((channel, bytes)) = asks.recv().await {
            send(&outbox, &credit, channel, bytes).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = pump(connected.socket, &outbox, on_frame, std::future::pending()) => bail!("{ended}"),
        sent = sending => sent,
        () = orphaned() => Ok(()),
    }
}

/// Resolves when standard input ends: who started this process is gone.
async fn orphaned() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1)) {}
}

/// Reads the child straight into frames.
async fn send(outbox: &Outbox, credit: &Credit, channel: ChannelId, bytes: u64) -> Result<()> {
    let mut head = ChannelFrame::Data { channel, noise: &[0; CHUNK] }.encode();
    head.truncate(head.len() - CHUNK);
    let mut child = tokio::process::Command::new("head")
        .args(["-c", &bytes.to_string(), "/dev/zero"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut output = child.stdout.take().context("stdout is piped")?;
    // Best effort, as the agent's: a small pipe is slower, not wrong.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE);
    let mut sent = 0;
    loop {
        let mut frame = vec![0; head.len() + CHUNK];
        frame[..head.len()].copy_from_slice(&head);
        let length = output.read(&mut frame[head.len()..]).await?;
        if length == 0 {
            break;
        }
        if length < CHUNK {
            frame = ChannelFrame::Data { channel, noise: &frame[head.len()..head.len() + length] }.encode();
        }
        sent += length as u64;
        while sent > credit.consumed.load(Ordering::Relaxed) + WINDOW {
            credit.changed.notified().await;
        }
        outbox.ready().await;
        outbox.push(frame, None)?;
    }
    child.wait().await?;
    Ok(())
}

/// `plain-sink HOME URL NODE BYTES`: asks for bytes and throws them away as they come.
pub(crate) fn sink(arguments: &[String]) -> Result<()> {
    let [home, url, node, bytes] = arguments else { bail!("usage: {SINK} HOME URL NODE BYTES") };
    let (node, bytes): (KeyId, u64) = (node.parse()?, bytes.parse()?);
    let ends = Ends::of(Path::new(home), url)?;
    // One thread, as the command line has.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let connected = ends.operator().await?;
        let outbox = Outbox::new(limits::SOCKET_QUEUE / 4);
        let channel = random();
        outbox.push(ChannelFrame::Open { channel, node, noise: &bytes.to_be_bytes() }.encode(), None)?;
        let (mut null, whole) = (std::fs::OpenOptions::new().write(true).open("/dev/null")?, Arc::new(Notify::new()));
        let (mut taken, mut told) = (0u64, 0u64);
        let on_frame = {
            let (outbox, whole) = (outbox.clone(), whole.clone());
            move |frame: Bytes| match ChannelFrame::peek(&frame) {
                Some(Ok(ChannelFrame::Data { noise, .. })) => {
                    null.write_all(noise).map_err(|error| error.to_string())?;
                    taken += noise.len() as u64;
                    if taken - told >= CREDIT {
                        told = taken;
                        let frame = ChannelFrame::Data { channel, noise: &taken.to_be_bytes() }.encode();
                        outbox.push(frame, None).map_err(|why| why.to_string())?;
                    }
                    if taken == bytes {
                        whole.notify_one();
                    }
                    Ok(())
                }
                Some(Ok(ChannelFrame::Close { code, .. })) => Err(format!("the channel was closed: {code}")),
                Some(Ok(ChannelFrame::Open { .. })) => Ok(()),
                Some(Err(error)) => Err(error.to_string()),
                None => pong(&outbox, &frame),
            }
        };
        tokio::select! {
            ended = pump(connected.socket, &outbox, on_frame, std::future::pending()) => bail!("{ended}"),
            () = whole.notified() => Ok(()),
        }
    })
}

fn number(bytes: &[u8]) -> Result<u64, String> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| "eight bytes were expected".to_owned())
}
