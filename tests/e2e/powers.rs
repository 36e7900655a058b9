//! What the owner of a machine grants on it, and what callers elsewhere can then do: programs by shape, folders by right, values.

use std::path::Path;

use anyhow::Result;
use outhaul_tests::stage::{Node, Stage, pack};
use serde_json::Value;

fn with(fixture: &str) -> Result<(Stage, Node)> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    deploy(&stage, &pack(fixture))?;
    Ok((stage, node))
}

fn deploy(stage: &Stage, path: &Path) -> Result<()> {
    stage.run(&["pack", "deploy", path.to_str().unwrap(), "bench-1"])?.ok()?;
    Ok(())
}

fn invoke(stage: &Stage, arguments: &[&str]) -> Result<Value> {
    stage.run(&[&["--json", "invoke", "bench-1"], arguments].concat())?.json()
}

#[test]
fn a_program_runs_with_the_arguments_its_shape_has_and_the_hint_allows_the_others() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    node.run(&["allow", "system", "process", "uname -s|-m", "--max-secs", "9", "--concurrent", "2"])?.ok()?;
    assert_eq!(stage.run(&["run", "bench-1", "--", "uname", "-s"])?.ok()?.stdout, "Linux\n");
    let ran = stage.run(&["run", "bench-1", "--", "uname", "-a"])?.exits(255)?;
    assert!(ran.stderr.contains("argument 1 `-a` is not `-s|-m`"), "{}", ran.stderr);
    let hint = ran.stderr.split("agent allow system process ").nth(1).unwrap().trim();
    let item = hint.strip_prefix('\'').and_then(|hint| hint.split('\'').next()).unwrap();
    node.run(&["allow", "system", "process", item])?.ok()?;
    stage.run(&["run", "bench-1", "--", "uname", "-a"])?.ok()?;
    stage.run(&["run", "bench-1", "--", "uname", "-a", "-s"])?.exits(255)?;
    let explained = node.run(&["--json", "policy", "explain", "system", "system.run", "uname", "-a", "-s"])?.ok()?.json()?;
    let finding = &explained["findings"][0];
    assert_eq!(finding["allowed"], false, "{explained}");
    let line = usize::try_from(finding["line"].as_u64().unwrap())?;
    let file = std::fs::read_to_string(node.file("agent.toml"))?;
    assert!(file.lines().nth(line - 1).unwrap().contains("uname"), "line {line} of {file}");
    assert_eq!(finding["remedy"], "agent allow system process 'uname -a -s'");
    Ok(())
}

#[test]
fn a_folder_is_reached_as_far_as_it_is_granted() -> Result<()> {
    let (stage, node) = with("fixtures/files")?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("a"), "hello")?;
    let path = folder.path().to_str().unwrap();
    let read = |stage: &Stage| invoke(stage, &["folders.read", &format!("path={path}/a")]);
    assert_eq!(read(&stage)?["error"]["code"], "command_failed");
    let described = stage.run(&["nodes", "describe", "bench-1"])?.ok()?.stdout;
    assert!(described.contains("files denied"), "{described}");
    node.run(&["allow", "files", "files", path])?.ok()?;
    assert_eq!(read(&stage)?["result"], "hello");
    let write = format!(r#"{{"path":"{path}/a","text":"x","how":"create"}}"#);
    let refused = invoke(&stage, &["folders.write", "--params", &write])?;
    let hint = refused["error"]["hint"].as_str().unwrap();
    assert!(hint.ends_with(&format!("agent allow files files {path}:rlw")), "{refused}");
    node.run(&["allow", "files", "files", &format!("{path}:w")])?.ok()?;
    assert_eq!(invoke(&stage, &["folders.write", "--params", &write])?["result"], 5);
    let shown = node.run(&["policy", "show"])?.ok()?.stdout;
    assert!(shown.contains(&format!("{path}: read, list, write")), "{shown}");
    node.run(&["deny", "files", "files"])?.ok()?;
    assert_eq!(read(&stage)?["ok"], false);
    Ok(())
}

#[test]
fn the_agents_own_folder_is_nobodys() -> Result<()> {
    let (stage, node) = with("fixtures/files")?;
    let home = node.home.path().to_str().unwrap();
    node.run(&["allow", "files", "files", &format!("{home}:rlw"), &format!("{home}/agent:rlw")])?.ok()?;
    for path in ["agent.key", "agent.toml"].map(|name| format!("path={home}/agent/{name}")) {
        let answer = invoke(&stage, &["folders.read", &path])?;
        assert_eq!(answer["ok"], false, "{answer}");
        assert!(answer["error"]["hint"].as_str().unwrap().contains("the agent's own"), "{answer}");
    }
    Ok(())
}

#[test]
fn values_outlive_the_agent_and_the_version_their_owner_goes_on_with() -> Result<()> {
    let (stage, mut node) = with("fixtures/kv")?;
    let put = ["keep.put", "key=token", "value=aGVsbG8="];
    let got = |stage: &Stage| invoke(stage, &["keep.get", "key=token"]);
    let refused = invoke(&stage, &put)?;
    assert_eq!(refused["error"]["code"], "denied", "{refused}");
    node.run(&["allow", "kv", "kv", "--max-kib", "8"])?.ok()?;
    assert_eq!(invoke(&stage, &put)?["ok"], true);
    node.stop()?;
    node.start()?;
    assert_eq!(got(&stage)?["result"], "aGVsbG8=");
    let big = invoke(&stage, &["keep.fill", "key=big", "bytes=9000"])?;
    assert!(big["error"]["detail"]["quota"].is_string(), "{big}");
    // Another version by the same publisher: the same code with a section more.
    let next = stage.home.path().join("kv.wasm");
    let mut wasm = std::fs::read(pack("fixtures/kv"))?;
    wasm.extend([0, 5, 4, b'n', b'e', b'x', b't']);
    std::fs::write(&next, wasm)?;
    deploy(&stage, &next)?;
    assert_eq!(got(&stage)?["result"], "aGVsbG8=");
    node.run(&["deny", "kv", "kv"])?.ok()?;
    assert_eq!(got(&stage)?["error"]["code"], "denied");
    Ok(())
}
