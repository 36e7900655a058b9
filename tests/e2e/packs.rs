//! Packs at runtime: shipped, swapped, rolled back; and hostile ones, which hurt only their own calls.

use std::path::{Path, PathBuf};

use anyhow::Result;
use outhaul_tests::packs::padded;
use outhaul_tests::stage::{Node, Stage, pack};
use serde_json::Value;

fn deploy(stage: &Stage, name: &str) -> Result<Value> {
    let path = pack(name);
    stage.run(&["--json", "pack", "deploy", path.to_str().unwrap(), "bench-1"])?.json()
}

fn invoke(stage: &Stage, arguments: &[&str]) -> Result<Value> {
    stage.run(&[&["--json", "invoke", "bench-1"], arguments].concat())?.json()
}

fn with(fixture: &str) -> Result<(Stage, Node)> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    let path = pack(fixture);
    stage.run(&["pack", "deploy", path.to_str().unwrap(), "bench-1"])?.ok()?;
    Ok((stage, node))
}

#[test]
fn a_pack_the_agent_never_saw_answers_at_once() -> Result<()> {
    let (stage, _node) = with("thermal")?;
    let summary = invoke(&stage, &["thermal.summary"])?;
    assert!(summary["result"]["uptime"].as_u64().unwrap() > 0, "{summary}");
    let read = invoke(&stage, &["thermal.read", "zone=cpu"])?;
    assert!(read["ok"] == true || read["error"]["code"] == "command_failed", "{read}");
    let listed = stage.run(&["--json", "pack", "list", "bench-1"])?.ok()?;
    assert!(listed.stdout.contains("thermal"));
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert!(nodes[0]["capabilities"].as_array().unwrap().contains(&Value::from("thermal")), "{nodes}");
    Ok(())
}

/// A pack with one interface of this name, whose function `answer` gives 7.
fn small(interface: &str) -> Result<Vec<u8>> {
    let mut wasm = wat::parse_str(format!(
        r#"(component
            (core module $m (func (export "answer") (result i32) i32.const 7))
            (core instance $i (instantiate $m))
            (func $answer (result u32) (canon lift (core func $i "answer")))
            (instance $x (export "answer" (func $answer)))
            (export "test:many/{interface}@0.1.0" (instance $x)))"#
    ))?;
    let (section, identity) = ("outhaul:pack", format!(r#"{{"name":"{interface}","version":"1.0.0"}}"#));
    wasm.extend([0, u8::try_from(1 + section.len() + identity.len())?, u8::try_from(section.len())?]);
    wasm.extend(section.bytes().chain(identity.bytes()));
    Ok(wasm)
}

#[test]
fn a_node_with_sixty_packs_shows_all_of_them_and_each_answers() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    let names: Vec<String> = (0..57).map(|at| format!("one-of-quite-a-few-{at}")).collect();
    for name in &names {
        let path = stage.home.path().join(format!("{name}.wasm"));
        std::fs::write(&path, small(name)?)?;
        // A node tries twenty openings a second; a quick machine deploys faster.
        let deployed = loop {
            let ran = stage.run(&["--json", "pack", "deploy", path.to_str().unwrap(), "bench-1"])?;
            if ran.json()?[0]["error"]["code"] != "busy" {
                break ran;
            }
        };
        deployed.ok()?;
    }
    let mut all: Vec<String> = ["camera", "gpu", "system"].map(str::to_owned).to_vec();
    all.extend(names.iter().map(|name| name.replace('-', "_")));
    all.sort_unstable();
    for _ in 0..2 {
        let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
        assert_eq!(nodes[0]["capabilities"], serde_json::json!(all));
        let described = stage.run(&["--json", "nodes", "describe", "bench-1"])?.ok()?.json()?;
        assert_eq!(described["packs"].as_array().unwrap().len(), 60);
        assert_eq!(invoke(&stage, &["one_of_quite_a_few_56.answer"])?["result"], 7);
        // Shown again from what a new start announces.
        node.stop()?;
        node.start()?;
    }
    Ok(())
}

#[test]
fn a_swap_and_a_rollback_change_the_answers_and_survive_a_restart() -> Result<()> {
    let (stage, mut node) = with("fixtures/echo")?;
    let say = |stage: &Stage| -> Result<String> {
        Ok(invoke(stage, &["echo.say", "text=hello"])?["result"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(say(&stage)?, "hello");
    deploy(&stage, "fixtures/echo-next")?;
    let next = say(&stage)?;
    assert!(next != "hello" && next.contains("hello"), "{next}");
    node.stop()?;
    node.start()?;
    assert_eq!(say(&stage)?, next);
    stage.run(&["pack", "rollback", "bench-1", "echo"])?.ok()?;
    assert_eq!(say(&stage)?, "hello");
    stage.run(&["pack", "remove", "bench-1", "echo"])?.ok()?;
    assert_eq!(invoke(&stage, &["echo.say", "text=hello"])?["error"]["code"], "unknown_command");
    Ok(())
}

#[test]
fn every_kind_of_value_crosses_and_comes_back() -> Result<()> {
    let (stage, _node) = with("fixtures/values")?;
    let described = stage.run(&["--json", "nodes", "describe", "bench-1"])?.ok()?.json()?;
    let packs = described["packs"].as_array().unwrap();
    let values = packs.iter().find(|pack| pack["name"] == "values").unwrap();
    let commands: Vec<&str> = values["commands"].as_array().unwrap().iter().map(|command| command["name"].as_str().unwrap()).collect();
    assert!(commands.len() > 20, "{commands:?}");
    for (command, params) in [
        ("values.same_bool", r#"{"value":true}"#),
        ("values.same_u64", r#"{"value":18446744073709551615}"#),
        ("values.same_s64", r#"{"value":-9223372036854775808}"#),
        ("values.same_f64", r#"{"value":"NaN"}"#),
        ("values.same_string", r#"{"value":"gr\u00fc\u00df dich\n"}"#),
    ] {
        let answer = invoke(&stage, &[command, "--params", params])?;
        let sent: Value = serde_json::from_str(params)?;
        assert_eq!(answer["result"], sent["value"], "{command}: {answer}");
    }
    Ok(())
}

#[test]
fn a_result_stream_goes_to_a_file_with_its_digest() -> Result<()> {
    let (stage, _node) = with("fixtures/flow")?;
    let out = stage.home.path().join("out.bin");
    let answer = invoke(&stage, &["flow.count", "bytes=5000000", "--out", out.to_str().unwrap()])?;
    assert_eq!(answer["ok"], true, "{answer}");
    let bytes = std::fs::read(&out)?;
    assert_eq!(bytes.len(), 5_000_000);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    assert_eq!(answer["result"]["data"]["bytes"], 5_000_000);
    Ok(())
}

#[test]
fn a_pack_that_misbehaves_hurts_only_its_own_call() -> Result<()> {
    let (stage, mut node) = with("fixtures/hostile")?;
    for (command, codes) in [
        (&["--timeout", "2s", "hostile.spin"][..], &["deadline", "limit_time"][..]),
        (&["hostile.eat"], &["limit_memory", "trap"]),
        (&["hostile.recurse", "from=0"], &["trap"]),
        (&["hostile.trap"], &["trap"]),
        (&["hostile.huge"], &["too_large", "trap", "limit_memory"]),
    ] {
        let answer = invoke(&stage, command)?;
        let code = answer["error"]["code"].as_str().unwrap_or("none");
        assert!(codes.contains(&code), "{command:?}: {answer}");
        assert!(answer["receipt"]["outcome"] == code, "{answer}");
        stage.run(&["ping", "bench-1"])?.ok()?;
    }
    let peak = node.agent()?.peak_kib()?;
    assert!(peak < 512 << 10, "the agent's peak was {peak} KiB");
    Ok(())
}

#[test]
fn output_beyond_the_ceiling_ends_the_call() -> Result<()> {
    let (stage, node) = with("fixtures/hostile")?;
    let file = node.file("agent.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{text}\n[limits]\noutput_mib = 1\n"))?;
    let answer = invoke(&stage, &["hostile.flood", "total=50000000"])?;
    assert_eq!(answer["error"]["code"], "limit_output", "{answer}");
    Ok(())
}

#[test]
fn a_power_that_was_not_granted_is_denied_whatever_the_pack_made_of_it() -> Result<()> {
    let (stage, node) = with("fixtures/greedy")?;
    let answer = invoke(&stage, &["greedy.try_it"])?;
    assert_eq!(answer["error"]["code"], "denied", "{answer}");
    let said = format!("{}{}", answer["error"]["message"], answer["error"]["hint"]);
    assert!(said.contains("agent allow greedy process"), "{said}");
    assert_eq!(invoke(&stage, &["greedy.idle"])?["ok"], true);
    node.run(&["allow", "greedy", "process", "id"])?.ok()?;
    assert_eq!(invoke(&stage, &["greedy.try_it"])?["ok"], true);
    Ok(())
}

#[test]
fn what_cannot_be_loaded_is_refused_with_the_reason_and_changes_nothing() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    for (fixture, code, word) in [
        ("unknown-import", "pack_rejected", "teleport"),
        ("resource-export", "unsupported_type", "resource"),
        ("nested-option", "unsupported_type", "option"),
        ("future-result", "unsupported_type", "future"),
        ("clash", "command_taken", "gpu"),
    ] {
        let answer = deploy(&stage, &format!("fixtures/{fixture}"))?;
        let error = format!("{answer}");
        assert!(error.contains(code) && error.contains(word), "{fixture}: {error}");
    }
    let garbage = stage.home.path().join("garbage.wasm");
    std::fs::write(&garbage, b"this is no component")?;
    let cut = stage.home.path().join("cut.wasm");
    let whole = std::fs::read(pack("thermal"))?;
    std::fs::write(&cut, &whole[..whole.len() / 2])?;
    // What is no WebAssembly at all, or is cut short and cannot be signed, is not even sent.
    for (path, exit) in [(&garbage as &PathBuf, 2), (&cut, 8)] {
        let ran = stage.run(&["--json", "pack", "deploy", path.to_str().unwrap(), "bench-1"])?;
        assert_eq!(ran.code, exit, "{}{}", ran.stdout, ran.stderr);
    }
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!(nodes[0]["capabilities"], serde_json::json!(["camera", "gpu", "system"]));
    Ok(())
}

#[test]
fn a_pack_that_traps_call_after_call_is_out_until_it_is_deployed_again() -> Result<()> {
    let (stage, _node) = with("fixtures/hostile")?;
    for _ in 0..5 {
        assert_eq!(invoke(&stage, &["hostile.trap"])?["error"]["code"], "trap");
    }
    let refused = invoke(&stage, &["hostile.trap"])?;
    assert_eq!(refused["error"]["code"], "pack_quarantined", "{refused}");
    let listed = stage.run(&["pack", "list", "bench-1"])?.ok()?.stdout;
    assert!(listed.lines().any(|line| line.contains("hostile") && line.contains("quarantined")), "{listed}");
    assert_eq!(invoke(&stage, &["system.info"])?["ok"], true, "others go on");
    deploy(&stage, "fixtures/hostile")?;
    assert_eq!(invoke(&stage, &["hostile.trap"])?["error"]["code"], "trap", "another chance");
    Ok(())
}

#[test]
fn a_wasi_pack_sees_nothing_of_the_machine_and_its_prints_are_output() -> Result<()> {
    let (stage, _node) = with("fixtures/wasi")?;
    let answer = invoke(&stage, &["wasi_hello.greet", "name=edge"])?;
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(answer["stdout"].as_str().unwrap().contains("edge"), "{answer}");
    let peek = invoke(&stage, &["wasi_hello.peek", "path=/etc/passwd"])?;
    assert_eq!(peek["error"]["code"], "command_failed", "{peek}");
    let env = invoke(&stage, &["wasi_hello.env"])?;
    assert_eq!(env["result"], serde_json::json!([]), "{env}");
    Ok(())
}

#[test]
fn kept_machine_code_is_only_believed_when_this_agent_wrote_it() -> Result<()> {
    let (stage, mut node) = with("thermal")?;
    node.stop()?;
    let mut changed = 0;
    for engine in std::fs::read_dir(node.file("cache"))? {
        for entry in std::fs::read_dir(engine?.path())? {
            let path = entry?.path();
            let mut bytes = std::fs::read(&path)?;
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(&path, bytes)?;
            changed += 1;
        }
    }
    assert!(changed >= 4, "{changed}");
    node.start()?;
    assert_eq!(invoke(&stage, &["thermal.summary"])?["ok"], true);
    Ok(())
}

#[test]
fn a_deploy_that_takes_a_while_says_what_the_node_is_at() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let deploy = |path: &Path, flag: &[&str]| stage.run(&[flag, &["pack", "deploy", path.to_str().unwrap(), "bench-1"]].concat())?.ok();
    let large = padded(&pack("fixtures/echo"), stage.home.path(), "echo", "0.2.0", 2_000_000)?;
    let said = deploy(&large, &[])?.stderr;
    assert!(said.contains("the node fetches 2.0 MB\nthe node compiles 2.0 MB, once\n"), "{said}");
    assert!(!deploy(&pack("fixtures/echo-next"), &[])?.stderr.contains("the node"));
    // For programs it is talk all the same.
    let larger = padded(&pack("fixtures/echo"), stage.home.path(), "echo", "0.3.0", 3_000_000)?;
    let ran = deploy(&larger, &["--json"])?;
    assert!(ran.stderr.contains("the node compiles 3.0 MB"), "{}", ran.stderr);
    assert_eq!(ran.json()?[0]["ok"], true);
    Ok(())
}
