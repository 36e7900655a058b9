//! The agent by itself: how soon it is there, what it holds, how large it is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outhaul_link::operator::Operator;
use outhaul_protocol::frame::{Answer, Ask, Lookup, NodeRecord};
use outhaul_protocol::keys::{KeyId, SecretKey};
use outhaul_tests::stage::Node;
use outhaul_tests::{Process, binary};

use crate::Effort;
use crate::table::{Row, median, millis};
use crate::world::World;

/// Longest an agent may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions to the relay; far below what is measured.
const ASK_EVERY: Duration = Duration::from_micros(500);

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let world = World::start()?;
    // The first start compiles the embedded packs; it is not measured.
    let mut node = world.stage.node("bench-1")?;
    let key: SecretKey = outhaul_home::read_secret_key(&node.file("agent.key"))?;
    let (operator, _) = Operator::start(world.ends.operator().await?, world.ends.dialer.key.clone());
    announced(&operator, key.id(), None).await?;
    let mut starts = Vec::new();
    for _ in 0..effort.of(10, 3) {
        node.stop()?;
        starts.push(start(&mut node, &operator, key.id()).await?);
    }
    let idle = Duration::from_secs(effort.of(60, 5));
    tokio::time::sleep(idle).await;
    let pss = node.agent()?.pss_kib()? as f64 / 1024.0;
    let mut rows = vec![
        Row::new("start to announced, warm cache, median", median(&starts), "ms").at_most(150.0),
        Row::new(format!("PSS {} s after start", idle.as_secs()), pss, "MiB").at_most(15.0),
    ];
    rows.extend(sizes()?);
    Ok(rows)
}

/// Milliseconds from the start of the process until the relay has its new announce.
pub(crate) async fn start(node: &mut Node, operator: &Operator, id: KeyId) -> Result<f64> {
    let before = record(operator, id).await?.and_then(|record| record.announce);
    let began = Instant::now();
    node.agent = Some(Process::start(node.command(&["run"])?)?);
    announced(operator, id, before.map(|announce| announce.0)).await?;
    Ok(millis(began.elapsed()))
}

pub(crate) async fn announced(operator: &Operator, id: KeyId, before: Option<Vec<u8>>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let announce = record(operator, id).await?.filter(|record| record.status == "online").and_then(|record| record.announce);
        if announce.is_some_and(|announce| Some(announce.0) != before) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the agent was not announced within {} s", PATIENCE.as_secs());
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn record(operator: &Operator, id: KeyId) -> Result<Option<NodeRecord>> {
    match operator.ask(Ask::Nodes { lookup: Lookup { id: Some(id), name: None } }).await? {
        Answer::Nodes { nodes } => Ok(nodes.into_iter().next()),
        _ => anyhow::bail!("the relay did not answer with nodes"),
    }
}

/// Of the binaries beside this one, as they were built.
fn sizes() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in ["agent", "relay"] {
        let title = format!("binary `{name}`, stripped");
        let bytes = std::fs::metadata(binary(name)?).context("a binary")?.len();
        rows.push(match (cfg!(debug_assertions), name) {
            (true, _) => Row::missing(title, "only a release build is stripped"),
            (false, "agent") => Row::new(title, bytes as f64 / f64::from(1 << 20), "MiB").at_most(20.0),
            (false, _) => Row::new(title, bytes as f64 / f64::from(1 << 20), "MiB"),
        });
    }
    Ok(rows)
}
