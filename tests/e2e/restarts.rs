//! Relay and agent come and go in every order: the node is found again, once, under its own name.

use anyhow::Result;
use outhaul_tests::stage::{Node, Stage};

fn online(stage: &Stage) -> Result<Vec<(String, String, String)>> {
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(nodes.as_array().unwrap().iter().map(|node| (text(&node["id"]), text(&node["name"]), text(&node["status"]))).collect())
}

fn reconnected(node: &mut Node) -> Result<()> {
    node.agent()?.wait_for("connected")?;
    Ok(())
}

#[test]
fn a_restarted_relay_gets_its_nodes_back_without_a_ghost() -> Result<()> {
    let mut stage = Stage::start()?;
    let (mut one, mut two) = (stage.node("one")?, stage.node("two")?);
    let before = online(&stage)?;
    for _ in 0..3 {
        stage.restart_relay()?;
        reconnected(&mut one)?;
        reconnected(&mut two)?;
        assert_eq!(online(&stage)?, before);
        stage.run(&["ping", "one"])?.ok()?;
    }
    Ok(())
}

#[test]
fn a_killed_relay_is_survived_like_a_stopped_one() -> Result<()> {
    let mut stage = Stage::start()?;
    let mut node = stage.node("one")?;
    let listen = stage.listen();
    stage.relay.take().unwrap().kill()?;
    stage.start_relay(&listen)?;
    reconnected(&mut node)?;
    assert_eq!(online(&stage)?.len(), 1);
    stage.run(&["ping", "one"])?.ok()?;
    Ok(())
}

#[test]
fn a_restarted_or_killed_agent_is_the_same_node() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("one")?;
    let before = online(&stage)?;
    node.stop()?;
    node.start()?;
    assert_eq!(online(&stage)?, before);
    node.agent.take().unwrap().kill()?;
    node.start()?;
    assert_eq!(online(&stage)?, before);
    stage.run(&["ping", "one"])?.ok()?;
    Ok(())
}

#[test]
fn a_second_agent_in_the_same_home_is_told_who_runs() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("one")?;
    let ran = node.run(&["run"])?;
    assert_ne!(ran.code, 0);
    let pid = node.agent()?.pid().to_string();
    assert!(ran.stderr.contains(&pid), "{}", ran.stderr);
    Ok(())
}

#[test]
fn a_call_outlives_the_relay_and_is_taken_up_again() -> Result<()> {
    let mut stage = Stage::start()?;
    let mut node = stage.node("one")?;
    node.run(&["allow", "system", "process", "sh"])?.ok()?;
    let gate = node.home.path().join("gate");
    let script = format!("echo before; while [ ! -e {} ]; do sleep 0.1; done; echo after", gate.display());
    let mut run = stage.begin(&["run", "one", "--", "sh", "-c", &script])?;
    run.wait_for("before")?;
    stage.restart_relay()?;
    reconnected(&mut node)?;
    std::fs::write(&gate, b"")?;
    run.wait_for("after")?;
    let (status, said) = run.finish()?;
    assert!(status.success(), "{said:?}");
    assert_eq!(said.iter().filter(|line| line.text() == "before").count(), 1, "run twice: {said:?}");
    Ok(())
}

#[test]
fn a_removed_node_is_turned_away_for_good() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("one")?;
    stage.run(&["nodes", "remove", "one"])?.ok()?;
    // Refusal is final: the agent ends instead of knocking for ever.
    let (status, said) = node.agent.take().unwrap().finish()?;
    assert_eq!(status.code(), Some(3), "{said:?}");
    assert!(online(&stage)?.is_empty());
    let ran = node.run(&["run"])?;
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    Ok(())
}
