//! Deployments under stress: agent and relay killed in the middle, and calls while versions change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use outhaul_home::Home;
use outhaul_link::channel::CallSpec;
use outhaul_protocol::limits::BLOB_CHUNK;
use outhaul_protocol::value::Value;
use outhaul_relay::operator::{Dialer, Room, Session, now};
use outhaul_tests::packs::{padded, renamed};
use outhaul_tests::process::Process;
use outhaul_tests::stage::{Stage, pack};

use super::{NEW, OLD, file, say, stated};
use crate::hostile::runtime;

#[test]
fn an_agent_killed_at_any_step_runs_one_known_version_and_goes_on() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.ok()?;
    let (mut version, mut serial) = (OLD, 1);
    for step in ["agent started", "took a newer deployment", "pack activated", "deployment done", "connected"] {
        node.stop()?;
        // Each a version that was never there: it is fetched, checked, compiled and swapped in.
        let (next, wanted) = if version == OLD { ("fixtures/echo-next", NEW) } else { ("fixtures/echo", OLD) };
        serial += 1;
        let next = renamed(&pack(next), stage.home.path(), "echo", &format!("1.{serial}.0"))?;
        let ran = stage.run(&["pack", "deploy", next.to_str().unwrap(), "--to", "all"])?.ok()?;
        ensure!(ran.stderr.contains("bench-1 is not connected"), "{}", ran.stderr);
        let mut agent = Process::start(node.command(&["run"])?)?;
        agent.wait_for(step)?;
        agent.kill()?;
        // What lies on the disk is one version, whole.
        let kept = std::fs::read_to_string(node.file("packs/index.toml"))?;
        ensure!(kept.matches("active = ").count() == 1, "{kept}");
        node.start()?;
        let state = stated(&stage, "bench-1", "echo", serial)?;
        ensure!(state["state"] == "applied" && state["serial"] == serial, "{step}: {state}");
        ensure!(say(&stage, "bench-1")? == wanted, "{step}");
        version = wanted;
    }
    Ok(())
}

#[test]
fn a_relay_killed_at_any_step_leaves_one_known_version_and_what_was_published_goes_on() -> Result<()> {
    let mut stage = Stage::start()?;
    let listen = stage.listen();
    stage.log = Some("debug");
    stage.restart_relay()?;
    let mut node = stage.node("bench-1")?;
    stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.ok()?;
    let steps: [(&[&str], bool); 5] = [
        (&["took a part of a pack"], false),
        (&["pack kept"], false),
        (&["deployment taken"], true),
        (&["deployment taken", "hands out a part of a pack"], true),
        (&["deployment taken", "hands out a part of a pack", "announce kept"], true),
    ];
    let mut version = OLD;
    for (number, (lines, published)) in steps.into_iter().enumerate() {
        let (fixture, wanted) = if version == OLD { ("fixtures/echo-next", NEW) } else { ("fixtures/echo", OLD) };
        // Large enough to travel in several parts.
        let next = padded(&pack(fixture), stage.home.path(), "echo", &format!("1.{number}.0"), 3 * BLOB_CHUNK)?;
        let deploy = ["pack", "deploy", next.to_str().unwrap(), "--to", "all"];
        let before = published_serial(&stage)?;
        let deploying = stage.begin(&deploy)?;
        let mut relay = stage.relay.take().unwrap();
        for line in lines {
            relay.wait_for(line)?;
        }
        relay.kill()?;
        drop(deploying);
        stage.start_relay(&listen)?;
        node.agent()?.wait_for("connected")?;
        // What was not said when the line was may have been by the time of the kill; both are whole.
        let after = published_serial(&stage)?;
        ensure!(after == before + 1 || (after == before && !published), "{lines:?}: from {before} to {after}");
        let state = stated(&stage, "bench-1", "echo", after)?;
        ensure!(state["state"] == "applied" && state["serial"] == after, "{lines:?}: {state}");
        ensure!(say(&stage, "bench-1")? == if after == before { version } else { wanted }, "{lines:?}");
        // The same again is how it goes on, and no harm where it went on already.
        stage.run(&deploy)?.ok()?;
        ensure!(say(&stage, "bench-1")? == wanted, "{lines:?}");
        stage.relay()?.wait_for("deployment taken")?;
        version = wanted;
    }
    Ok(())
}

/// The serial of the newest document that the relay has.
fn published_serial(stage: &Stage) -> Result<u64> {
    let status = stage.run(&["--json", "pack", "status", "echo"])?.ok()?.json()?;
    status[0]["serial"].as_u64().context("a serial")
}

/// Calls at once, each waiting for its answer before the next.
const CALLERS: usize = 8;
/// Calls in all, and changes of the version meanwhile.
const CALLS: usize = 10_000;
const SWAPS: usize = 20;

#[test]
fn calls_during_swaps_are_neither_lost_nor_mixed() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.ok()?;
    stage.run(&["pack", "deploy", &file("fixtures/echo-next"), "--to", "all"])?.ok()?;
    runtime()?.block_on(async {
        let home = Home::find(Some(stage.home.path().to_owned()))?;
        let dialer = Arc::new(Dialer::new(Room::of(&home), Some(&stage.url), None)?);
        let (session, seen) = Session::with_node(dialer, "bench-1").await?;
        let (channel, _) = session.link.open(&session.dialer.caller(), &session.target(&seen)?, None, now()).await?;
        let (done, swapped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let (channel, done, swapped) = (channel.clone(), done.clone(), swapped.clone());
            callers.spawn(async move {
                let (mut old, mut new) = (0, 0);
                while done.fetch_add(1, Ordering::Relaxed) < CALLS || !swapped.load(Ordering::Relaxed) {
                    let text = format!("call {caller} {}", old + new);
                    let params = Value::Map(vec![("text".into(), text.as_str().into())]);
                    let spec = CallSpec { deadline: Some(std::time::Duration::from_secs(30)), ..CallSpec::new("echo.say", params) };
                    let answer = channel.call(&spec, now()).await?.finish(|_, _| ()).await?.result?;
                    match answer {
                        Value::Text(answer) if answer == text => old += 1,
                        Value::Text(answer) if answer == format!("next: {text}") => new += 1,
                        other => anyhow::bail!("neither version's answer: {other:?}"),
                    }
                }
                Ok::<_, anyhow::Error>((old, new))
            });
        }
        for _ in 0..SWAPS {
            let command = stage.command(&["pack", "rollback", "echo", "--to", "all"])?;
            let ran = tokio::task::spawn_blocking(move || {
                let mut command = command;
                command.output()
            })
            .await??;
            ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        }
        swapped.store(true, Ordering::Relaxed);
        let (mut old, mut new) = (0, 0);
        while let Some(caller) = callers.join_next().await {
            let (olds, news) = caller??;
            (old, new) = (old + olds, new + news);
        }
        ensure!(old + new >= CALLS && old > 0 && new > 0, "{old} and {new} calls");
        Ok(())
    })
}
