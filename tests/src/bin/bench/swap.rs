//! What packs do to each other: one that is swapped under load, and one that takes all of a core.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outhaul_link::channel::{CallSpec, Channel};
use outhaul_protocol::value::Value;
use outhaul_tests::process::Process;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::calls::call;
use crate::table::{Row, median, micros, millis, quantile};
use crate::world::World;

/// The node that answers.
const NODE: &str = "bench-1";
/// Calls a second while packs are swapped.
const RATE: u64 = 500;
/// When a pack that never ends is to be stopped.
const LIMIT: Duration = Duration::from_secs(1);

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = swaps(effort).await?;
    rows.extend(noise(effort).await?);
    Ok(rows)
}

/// A pack that goes back and forth between two versions while it is called all the time.
async fn swaps(effort: Effort) -> Result<Vec<Row>> {
    let world = World::start()?;
    let _node = world.stage.node(NODE)?;
    world.deploy("fixtures/echo", NODE)?;
    world.deploy("fixtures/echo-next", NODE)?;
    let (_session, calling) = world.ends.channel(NODE).await?;
    let (_other, swapping) = world.ends.channel(NODE).await?;
    let stop = CancellationToken::new();
    let load = tokio::spawn(load(calling, stop.clone()));
    let (count, began) = (effort.of(1_000, 50), Instant::now());
    let name = Value::Map(vec![("name".into(), "echo".into())]);
    for _ in 0..count {
        call(&swapping, &CallSpec::new("pack.rollback", name.clone())).await?;
    }
    let took = began.elapsed().as_secs_f64();
    stop.cancel();
    let (answered, failed) = load.await??;
    Ok(vec![
        Row::new(format!("{count} hot swaps under {RATE} calls/s, swaps"), f64::from(count) / took, "/s"),
        Row::new("calls that failed meanwhile", failed as f64, "").at_most(0.0).note(format!("of {}", answered + failed)),
    ])
}

/// Calls at an even pace until it is told to stop: how many had an answer of either version, and how many had not.
async fn load(channel: Channel, stop: CancellationToken) -> Result<(usize, usize)> {
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    let (mut calls, mut answered, mut failed) = (JoinSet::new(), 0, 0);
    let mut count = |result: Result<Value>| match result {
        Ok(Value::Text(text)) if text.contains("hello") => answered += 1,
        other => {
            eprintln!("a call failed: {other:?}");
            failed += 1;
        }
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = pace.tick() => {
                let channel = channel.clone();
                calls.spawn(async move { call(&channel, &said()).await });
            }
            Some(done) = calls.join_next() => count(done?),
        }
    }
    while let Some(done) = calls.join_next().await {
        count(done?);
    }
    Ok((answered, failed))
}

fn said() -> CallSpec {
    CallSpec::new("echo.say", Value::Map(vec![("text".into(), "hello".into())]))
}

/// Another pack's calls beside one that spins, against the same beside a native program that does.
async fn noise(effort: Effort) -> Result<Vec<Row>> {
    let world = World::start()?;
    let _node = world.stage.node(NODE)?;
    world.deploy("fixtures/echo", NODE)?;
    world.deploy("fixtures/hostile", NODE)?;
    let (_session, channel) = world.ends.channel(NODE).await?;
    let (_other, spinning) = world.ends.channel(NODE).await?;
    let time = Duration::from_millis(effort.of(3_000, 500));
    let (mut native, mut within) = (Vec::new(), Vec::new());
    for _ in 0..effort.of(3, 1) {
        {
            let mut busy = Command::new("sh");
            busy.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            let _busy = Process::start(busy)?;
            native.push(p99(&channel, time).await?);
        }
        let spin = CallSpec { deadline: Some(time * 2), ..CallSpec::new("hostile.spin", Value::Map(Vec::new())) };
        let handle = spinning.call(&spin, outhaul_relay::operator::now()).await?;
        within.push(p99(&channel, time).await?);
        let _ = handle.finish(|_, _| ()).await;
    }
    let mut late = Vec::new();
    for _ in 0..effort.of(5, 2) {
        let spin = CallSpec { deadline: Some(LIMIT), ..CallSpec::new("hostile.spin", Value::Map(Vec::new())) };
        let began = Instant::now();
        ensure!(call(&spinning, &spin).await.is_err(), "it came to an end by itself");
        late.push(millis(began.elapsed().saturating_sub(LIMIT)));
    }
    let (native, within) = (median(&native), median(&within));
    Ok(vec![
        Row::new("p99 of calls beside a native busy loop", native, "ms"),
        Row::new("p99 of calls beside a pack that spins", within, "ms"),
        Row::new("what the pack adds to the p99", (within - native).max(0.0), "ms").at_most(2.0),
        Row::new("a pack that spins, stopped after its limit", median(&late), "ms").at_most(10.0),
    ])
}

/// Milliseconds of all but the slowest hundredth of calls, one after the other.
async fn p99(channel: &Channel, time: Duration) -> Result<f64> {
    let (until, mut times) = (Instant::now() + time, Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        call(channel, &said()).await?;
        times.push(began.elapsed());
    }
    Ok(micros(quantile(&mut times, 0.99)) / 1000.0)
}
