//! On the machine: what its owner allows, what its configuration may say, how its agent runs and ends.

use anyhow::Result;
use outhaul_tests::stage::{Node, Stage, pack};

use super::page::{Page, configure};

#[test]
fn what_the_owner_of_a_machine_sees() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.paired("bench-1")?;
    let mut page = Page::of("machine", &stage);
    page.agent_both(&node, "status")?;
    page.agent_both(&node, "policy")?;

    page.head("allowed");
    for line in
        ["allow system process uname", "allow system process uname sh", "allow system process no-such-program-7", "allow camera camera"]
    {
        page.agent(&node, line)?;
    }
    for line in ["allow system process df --env LANG,TZ --cwd /srv --max-secs 60", "allow gpu gpu", "allow system log"] {
        page.agent_both(&node, line)?;
    }
    page.agent(&node, "policy show")?;
    page.head("not allowed");
    for line in [
        "allow files process df",
        "allow Files process df",
        "allow sha256:12 process df",
        "allow system teleport",
        "allow system process",
        "allow system process ./df",
        "allow system process df --cwd srv",
        "allow system process df --env A=B",
        "allow system process df --max-secs never",
        "allow camera camera video0",
        "allow gpu gpu 0",
        "allow camera camera --max-secs 5",
        "deny system output",
        "deny camera camera video0",
        "deny system teleport",
    ] {
        page.agent_both(&node, line)?;
    }
    page.head("taken back");
    for line in ["deny system process df", "deny system process", "deny camera camera", "deny gpu gpu", "deny files process"] {
        page.agent_both(&node, line)?;
    }
    page.agent_both(&node, "policy show")?;
    let text = std::fs::read_to_string(node.file("agent.toml"))?;
    page.head(&format!("agent.toml is then:\n{}", text.trim()));

    owner(&mut page, &node)?;

    page.head("running");
    node.start()?;
    page.agent_both(&node, "run")?;
    page.agent(&node, &format!("pair --relay {} --code 482913", stage.url))?;
    page.agent_both(&node, "status")?;
    stage.run(&["pack", "deploy", &pack("thermal").to_string_lossy(), "bench-1"])?.ok()?;
    page.agent(&node, "allow thermal process uname")?;
    stage.run(&["invoke", "bench-1", "thermal.summary"])?.ok()?;
    stage.run(&["run", "bench-1", "--", "uname"])?.exits(255)?;
    if let Some(agent) = node.agent.take() {
        agent.signal(libc::SIGTERM);
        page.ended("agent", "run", agent)?;
    }
    let mut json = page.begin(node.command(&[])?, "--json --log-json run")?;
    json.wait_for("connected")?;
    json.signal(libc::SIGTERM);
    let (status, _) = json.finish()?;
    page.write(
        "agent",
        "--json --log-json run",
        &outhaul_tests::Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: "… log lines as JSON\n".into(),
            bytes: Vec::new(),
        },
    );
    mistakes(&mut page, &stage, &node)?;
    page.done();
    Ok(())
}

/// Secrets, and why a policy says what it says.
fn owner(page: &mut Page, node: &Node) -> Result<()> {
    page.head("secrets");
    page.agent_both(node, "secret list")?;
    for json in ["", "--json "] {
        page.typed(node.command(&[])?, "agent", &format!("{json}secret set token"), Some("not to be seen\n"))?;
        page.typed(node.command(&[])?, "agent", &format!("{json}secret set Token"), Some("x\n"))?;
    }
    page.agent_both(node, "secret list")?;
    page.agent_both(node, "secret list all")?;
    page.agent(node, "secret remove token")?;
    page.agent_both(node, "secret remove token")?;
    page.typed(node.command(&[])?, "agent", "secret set token", Some("not to be seen\n"))?;
    page.agent(node, "--json secret remove token")?;
    page.agent_both(node, "secret remove Token")?;
    page.agent_both(node, "secret")?;
    page.head("why");
    for line in
        ["policy explain system", "policy explain system process uname -a", "policy explain files", "policy explain system teleport"]
    {
        page.agent_both(node, line)?;
    }
    Ok(())
}

/// Each mistake in the configuration, and who notices.
fn mistakes(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    let good = format!("relay = \"{}\"\n", stage.url);
    for more in [
        "colour = 1",
        "relay = \"ws://127.0.0.1:1\"",
        "[limits]\nmemory_mib = \"much\"",
        "[limits]\ncalls = 0",
        "[packs.system]\nprocess = { alow = [\"df\"] }",
        "[packs.system]\nteleport = true",
        "name =",
        "ca = \"none.pem\"\nrelay = 5",
    ] {
        page.head(&format!("agent.toml: {}", more.replace('\n', " ⏎ ")));
        std::fs::write(node.file("agent.toml"), &good)?;
        configure(node, more)?;
        assert_eq!(page.agent(node, "run")?.code, 2);
    }
    page.head("the same for the commands that only read or change it");
    for line in ["status", "policy", "policy show", "allow gpu gpu", "deny gpu gpu", "pair --code 482913"] {
        page.agent_both(node, line)?;
    }
    page.head("a relay that is not to be reached without TLS, or not named");
    std::fs::write(node.file("agent.toml"), "relay = \"ws://192.0.2.1:8765\"\n")?;
    page.agent(node, "run")?;
    std::fs::write(node.file("agent.toml"), "name = \"bench-1\"\n")?;
    page.agent_both(node, "run")?;

    page.head("keys that others can read, and keys that are damaged");
    std::fs::write(node.file("agent.toml"), &good)?;
    use std::os::unix::fs::PermissionsExt as _;
    let key = node.file("agent.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    page.agent(node, "run")?;
    page.agent(node, "status")?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    std::fs::write(&key, "no key\n")?;
    page.agent(node, "run")?;
    std::fs::write(stage.home.path().join("operator/operator.toml"), "relai = \"x\"\n")?;
    page.both(stage, "nodes")?;
    Ok(())
}
