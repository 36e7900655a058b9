//! A long output: two gibibytes of a remote `head`, sealed, with digests, to nowhere; and beside it the same three
//! programs passing plain bytes. Memory of relay and agent must not follow the length.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use outhaul_tests::stage::Node;

use crate::Effort;
use crate::plain::Plain;
use crate::table::{Row, median};
use crate::world::World;

/// The node the bytes come from.
const NODE: &str = "bench-1";
/// The short stream that peaks are compared with: long enough to fill every window many times over.
const SHORT: u64 = 64 << 20;
/// What a peak may grow by from the short stream to the long one: a window and an allocator's mood.
const GROWTH_MIB: f64 = 8.0;

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut world = World::start()?;
    let mut node = world.stage.node(NODE)?;
    node.run(&["allow", "system", "process", "head"])?.ok()?;
    sealed(&world, SHORT)?;
    let short = peaks(&mut world, &mut node)?;
    let bytes = effort.of(2 << 30, 256 << 20);
    let plain = Plain::prepare(&world)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.of(3, 1) {
        ours.push(sealed(&world, bytes)?);
        theirs.push(plain.run(bytes)?);
    }
    let long = peaks(&mut world, &mut node)?;
    let (ours, theirs) = (median(&ours), median(&theirs));
    let size = if bytes >= 1 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) };
    let flat = |name: &str, short: f64, long: f64| {
        let words = format!("peak {short:.1} MiB after {} MiB, {long:.1} at the end", SHORT >> 20);
        Row::new(format!("{name}'s peak memory, growth"), long - short, "MiB").at_most(GROWTH_MIB).note(words)
    };
    Ok(vec![
        Row::new(format!("sealed, {size}"), ours, "MB/s"),
        Row::new(format!("plain, {size}"), theirs, "MB/s"),
        Row::new("sealed to plain", ours / theirs, "×").at_least(0.55),
        flat("relay", short.0, long.0),
        flat("agent", short.1, long.1),
    ])
}

/// Megabytes a second of `relay run … head -c`, process start included.
fn sealed(world: &World, bytes: u64) -> Result<f64> {
    let count = bytes.to_string();
    let mut command = world.stage.command(&["run", NODE, "--timeout", "60s", "--", "head", "-c", &count, "/dev/zero"])?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let output = command.output().context("relay run")?;
    let took = began.elapsed().as_secs_f64();
    ensure!(output.status.success(), "relay run: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(bytes as f64 / took / 1e6)
}

/// Peak resident memory of relay and agent, in MiB.
fn peaks(world: &mut World, node: &mut Node) -> Result<(f64, f64)> {
    let mib = |kib: u64| kib as f64 / 1024.0;
    Ok((mib(world.stage.relay()?.peak_kib()?), mib(node.agent()?.peak_kib()?)))
}
