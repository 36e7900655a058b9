//! Packs that call packs: as far as the owner grants it, each under its own policy, and no further than its chain may go.

use anyhow::Result;
use outhaul_tests::stage::{Node, Stage, pack};
use serde_json::{Value, json};

fn with(fixtures: &[&str]) -> Result<(Stage, Node)> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    for fixture in fixtures {
        stage.run(&["pack", "deploy", pack(&format!("fixtures/{fixture}")).to_str().unwrap(), "bench-1"])?.ok()?;
    }
    Ok((stage, node))
}

fn chain(stage: &Stage, how: &str, command: &str, params: Value) -> Result<Value> {
    let params = json!({ "command": command, "params": params.to_string() }).to_string();
    stage.run(&["--json", "invoke", "bench-1", &format!("chain.{how}"), "--params", &params])?.json()
}

#[test]
fn a_pack_calls_what_it_was_granted_and_the_other_runs_under_its_own_policy() -> Result<()> {
    let (stage, node) = with(&["chain"])?;
    let refused = chain(&stage, "collect", "system.info", json!({}))?;
    assert_eq!(refused["error"]["code"], "denied", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().ends_with("agent allow chain call system.info"), "{refused}");
    node.run(&["allow", "chain", "call", "system.*"])?.ok()?;
    let info = chain(&stage, "collect", "system.info", json!({}))?;
    let value: Value = serde_json::from_str(info["result"]["value"].as_str().unwrap())?;
    assert_eq!(value["os"]["arch"], std::env::consts::ARCH, "{value}");
    // It lends nothing: programs are a matter of `system`'s own policy, and the refusal is an answer, not this call's end.
    let uname = || chain(&stage, "forward", "system.run", json!({ "argv": ["uname"] }));
    let refused = uname()?;
    assert_eq!(refused["error"]["code"], "command_failed", "{refused}");
    let failed = &refused["error"]["detail"]["failed"];
    assert_eq!(failed["code"], "denied", "{refused}");
    assert!(failed["message"].as_str().unwrap().ends_with("agent allow system process uname"), "{refused}");
    node.run(&["allow", "system", "process", "uname"])?.ok()?;
    let ran = uname()?;
    assert_eq!((&ran["stdout"], &ran["ok"]), (&json!("Linux\n"), &json!(true)), "{ran}");
    let explained = node.run(&["policy", "explain", "chain", "call", "system.run", "gpu.list"])?.ok()?.stdout;
    assert!(explained.contains("denied\n  not granted: gpu.list") && explained.contains("agent allow chain call gpu.list"), "{explained}");
    node.run(&["deny", "chain", "call", "system.*"])?.ok()?;
    assert_eq!(uname()?["error"]["code"], "denied");
    Ok(())
}

#[test]
fn chains_end_and_the_agents_own_commands_are_no_part_of_them() -> Result<()> {
    let (stage, node) = with(&["chain", "hostile"])?;
    assert!(node.run(&["allow", "chain", "call", "pack.install"])?.exits(2)?.stderr.contains("for operators only"));
    node.run(&["allow", "chain", "call", "*"])?.ok()?;
    let detail = |command: &str, params: Value| -> Result<Value> {
        let answer = chain(&stage, "collect", command, params)?;
        anyhow::ensure!(answer["error"]["code"] == "command_failed", "{answer}");
        Ok(answer["error"]["detail"].clone())
    };
    let own = detail("pack.list", json!({}))?;
    assert_eq!(own["unknown"], "`pack.list` is the agent's own, for operators only");
    let looped = detail("chain.quiet", json!({"command": "chain.quiet"}))?;
    assert_eq!(looped["limit"], "pack `chain` is in this chain of calls already: chain → chain");
    assert_eq!(detail("no.such", json!({}))?["unknown"], "this machine has no command `no.such`");
    // A pack that traps time and again goes out of service, whoever calls it.
    for _ in 0..5 {
        assert_eq!(detail("hostile.trap", json!({}))?["failed"]["code"], "trap");
    }
    assert_eq!(detail("hostile.well", json!({}))?["failed"]["code"], "pack_quarantined");
    Ok(())
}

#[test]
fn what_was_called_ends_with_the_call_that_made_it() -> Result<()> {
    let (stage, node) = with(&["chain"])?;
    node.run(&["allow", "chain", "call", "system.run"])?.ok()?;
    node.run(&["allow", "system", "process", "sh"])?.ok()?;
    let params = json!({ "argv": ["sh", "-c", "echo child $$; exec sleep 300"] }).to_string();
    let params = json!({ "command": "system.run", "params": params }).to_string();
    let mut forward = stage.begin(&["invoke", "bench-1", "chain.forward", "--params", &params])?;
    let pid = forward.wait_for("child")?.text().split_whitespace().nth(1).unwrap().to_owned();
    forward.signal(libc::SIGINT);
    let (status, _) = forward.finish()?;
    assert_eq!(status.code(), Some(130));
    assert!(crate::calls::gone(&pid), "the program that the called pack started still runs");
    Ok(())
}
