//! Whole calls: the fixture `echo` in a real agent, through a real relay, sealed, each with its receipt signed by the
//! node and checked here. Signed by the operator, and with the channel as evidence.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use outhaul_link::channel::{CallSpec, Channel};
use outhaul_protocol::value::Value;
use outhaul_relay::operator::now;
use tokio::task::JoinSet;

use crate::Effort;
use crate::forward::Pair;
use crate::table::{Row, median, micros, quantile};
use crate::world::World;

/// Callers of the rows of rates.
const CALLERS: usize = 50;
/// The node that answers.
const NODE: &str = "bench-1";

/// What one round found.
#[derive(Debug, Clone, Copy)]
struct Round {
    p50: f64,
    rate: f64,
}

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let world = World::start()?;
    let _node = world.stage.node(NODE)?;
    world.deploy("fixtures/echo", NODE)?;
    let (_session, channel) = world.ends.channel(NODE).await?;
    let pair = Pair::open(&world.ends).await?;
    let (signed, quick) = (echo(false), echo(true));
    let time = Duration::from_millis(effort.of(2000, 300));
    for spec in [&signed, &quick] {
        callers(&channel, spec, CALLERS, time / 4).await.context("warm-up")?;
    }

    // In turns, so that a machine that slows down slows all of them.
    let (mut forward, mut one_signed, mut one_quick) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rate_signed, mut rate_quick) = (Vec::new(), Vec::new());
    for _ in 0..effort.of(3, 1) {
        forward.push(pair.round(1, time / 2).await?.p50);
        one_signed.push(callers(&channel, &signed, 1, time / 2).await?.p50);
        one_quick.push(callers(&channel, &quick, 1, time / 2).await?.p50);
        rate_signed.push(callers(&channel, &signed, CALLERS, time).await?.rate);
        rate_quick.push(callers(&channel, &quick, CALLERS, time).await?.rate);
    }
    let (forward, one_signed, one_quick) = (median(&forward), median(&one_signed), median(&one_quick));
    let beside = format!("forwarding p50 beside it {forward:.0} µs");
    Ok(vec![
        Row::new(format!("signed, {CALLERS} callers"), median(&rate_signed), "/s").at_least(5_000.0),
        Row::new(format!("channel as evidence, {CALLERS} callers"), median(&rate_quick), "/s").at_least(12_000.0),
        Row::new("signed, one caller, p50", one_signed, "µs"),
        Row::new("channel as evidence, one caller, p50", one_quick, "µs"),
        Row::new("signed p50 to forwarding p50", one_signed / forward, "×").at_most(4.0).note(beside.clone()),
        Row::new("channel as evidence p50 to forwarding p50", one_quick / forward, "×").at_most(3.0).note(beside),
    ])
}

fn echo(quick: bool) -> CallSpec {
    let text = Value::Map(vec![("text".into(), Value::Text("hello from the bench".into()))]);
    CallSpec { quick, ..CallSpec::new("echo.say", text) }
}

/// So many callers, each calling again as soon as its answer has come.
async fn callers(channel: &Channel, spec: &CallSpec, callers: usize, time: Duration) -> Result<Round> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (channel, spec) = (channel.clone(), spec.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let began = Instant::now();
                call(&channel, &spec).await?;
                let ended = Instant::now();
                if ended >= until {
                    return anyhow::Ok(latencies);
                }
                latencies.push(ended - began);
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        latencies.append(&mut of_one??);
    }
    Ok(Round { p50: micros(quantile(&mut latencies, 0.5)), rate: latencies.len() as f64 / time.as_secs_f64() })
}

/// One call to its ending; its result, its receipt checked.
pub(crate) async fn call(channel: &Channel, spec: &CallSpec) -> Result<Value> {
    let outcome = channel.call(spec, now()).await?.finish(|_, _| ()).await?;
    Ok(outcome.result?)
}
