//! Many packs on one node, and one pack for many nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outhaul_home::read_secret_key;
use outhaul_link::operator::Operator;
use outhaul_protocol::keys::SecretKey;
use outhaul_tests::process::Process;
use outhaul_tests::stage::{Node, pack};

use crate::Effort;
use crate::agent::{announced, start};
use crate::sandbox::deploy;
use crate::table::{Row, median, millis};
use crate::world::World;

/// Packs of every agent.
const EMBEDDED: usize = 3;
/// The pack that is shipped; its name has seven letters.
const PACK: &str = "thermal";
/// How long agents settle before their memory is read.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = many_packs(effort).await?;
    rows.push(many_nodes(effort)?);
    Ok(rows)
}

/// A node with fifty packs, started from its cache.
async fn many_packs(effort: Effort) -> Result<Vec<Row>> {
    let count = effort.of(50, 10);
    let world = World::start()?;
    let mut node = world.stage.node("bench-1")?;
    let (session, channel) = world.ends.channel("bench-1").await?;
    let component = std::fs::read(pack(PACK))?;
    for at in 0..count - EMBEDDED {
        deploy(&session, &channel, &under_another_name(&component, at)?).await?;
    }
    let key: SecretKey = read_secret_key(&node.file("agent.key"))?;
    let (operator, _) = Operator::start(world.ends.operator().await?, world.ends.dialer.key.clone());
    announced(&operator, key.id(), None).await?;
    let mut starts = Vec::new();
    for _ in 0..effort.of(7, 3) {
        node.stop()?;
        starts.push(start(&mut node, &operator, key.id()).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let pss = node.agent()?.pss_kib()? as f64 / 1024.0;
    Ok(vec![
        Row::new(format!("{count} packs: start to announced, warm cache, median"), median(&starts), "ms").at_most(300.0),
        Row::new(format!("{count} packs: PSS {} s after start", SETTLE.as_secs()), pss, "MiB").at_most(60.0),
    ])
}

/// The same component with each of its names written over by one as long: another pack with other commands.
fn under_another_name(component: &[u8], at: usize) -> Result<Vec<u8>> {
    let name = format!("therm{at:02}");
    ensure!(name.len() == PACK.len(), "a name as long as `{PACK}`");
    let (mut bytes, mut from) = (component.to_vec(), 0);
    while let Some(found) = bytes[from..].windows(PACK.len()).position(|part| part == PACK.as_bytes()) {
        from += found;
        bytes[from..from + PACK.len()].copy_from_slice(name.as_bytes());
    }
    Ok(bytes)
}

/// One pack for every node of a machine, by one document: until each runs it.
fn many_nodes(effort: Effort) -> Result<Row> {
    let count = effort.of(200, 10);
    let world = World::start()?;
    let mut nodes: Vec<Node> = Vec::with_capacity(count);
    for at in 0..count {
        nodes.push(world.stage.paired(&format!("bench-{at}"))?);
    }
    // All at once, as after a power cut; the first starts compile the embedded packs and are not measured.
    for node in &mut nodes {
        node.agent = Some(Process::start(node.command(&["run"])?)?);
    }
    for node in &mut nodes {
        node.agent()?.wait_for("connected")?;
    }
    let path = pack(PACK);
    let file = path.to_str().unwrap_or_default();
    let began = Instant::now();
    world.stage.run(&["--timeout", "120s", "pack", "deploy", file, "--to", "all"])?.ok()?;
    let took = millis(began.elapsed()) / 1000.0;
    for node in &nodes {
        ensure!(Path::new(&node.file("packs")).exists(), "`{}` has no pack", node.name);
    }
    Ok(Row::new(format!("deploy of {PACK} to {count} agents of this machine"), took, "s").at_most(10.0))
}
