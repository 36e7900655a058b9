//! Powers that a machine's owner grants item by item: what a pack is told without a grant, what its owner types, and what
//! comes of it then.

use anyhow::{Context, Result};
use outhaul_tests::stage::{Node, Stage, pack};

use super::page::{Page, word};

#[test]
fn what_is_granted_and_what_a_pack_then_may() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    for name in ["files", "kv", "web", "secretive", "seat"] {
        stage.run(&["pack", "deploy", &word(&pack(&format!("fixtures/{name}"))), "bench-1"])?.ok()?;
    }
    let mut page = Page::of("powers", &stage);
    folders(&mut page, &stage, &node)?;
    values(&mut page, &stage, &node)?;
    requests(&mut page, &stage, &node)?;
    secrets(&mut page, &stage, &node)?;
    programs(&mut page, &stage, &node)?;
    seat(&mut page, &stage, &node)?;
    page.head("all of it");
    page.agent_both(&node, "policy show")?;
    page.done();
    Ok(())
}

fn folders(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("a"), "hello")?;
    let path = word(folder.path());
    page.tidy.replace(path.clone(), "/srv/data");
    let write = format!("invoke bench-1 folders.write --params '{{\"path\":\"{path}/a\",\"text\":\"x\",\"how\":\"create\"}}'");

    page.head("folders: none is granted");
    page.both(stage, &format!("invoke bench-1 folders.read path={path}/a"))?;
    page.agent_both(node, "policy explain files")?;
    page.agent_both(node, &format!("policy explain files files {path}/a"))?;
    page.head("folders: what makes no sense");
    for what in [
        "files",
        "files srv",
        "files /srv/../etc",
        "files /srv:z",
        "files /srv:r --max-mib 5",
        "files /srv /opt --at /data",
        "files /srv --max-mib 0",
    ] {
        page.agent_both(node, &format!("allow files {what}"))?;
    }
    page.agent(node, "deny files files /srv:z")?;
    page.head("folders: granted to read, then to change");
    page.agent_both(node, &format!("allow files files {path}"))?;
    page.agent(node, "allow files files /no/such/folder:c --max-mib 5 --at /out")?;
    page.both(stage, &format!("invoke bench-1 folders.read path={path}/a"))?;
    page.relay(stage, &format!("invoke bench-1 folders.read path={path}/b"))?;
    page.both(stage, &write)?;
    page.agent_both(node, &format!("policy explain files files {path}/a:w"))?;
    page.agent(node, &format!("allow files files {path}:w"))?;
    page.relay(stage, &write)?;
    page.agent(node, &format!("policy explain files files {path}/a:w"))?;
    page.head("folders: the agent's own stays its own");
    let home = word(node.home.path());
    page.agent(node, &format!("allow files files {home}:rlw"))?;
    page.relay(stage, &format!("invoke bench-1 folders.read path={home}/agent/agent.key"))?;
    page.agent(node, &format!("deny files files {home} /no/such/folder"))?;
    page.agent(node, &format!("deny files files {path}:w"))?;
    Ok(())
}

fn values(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    page.head("values that a pack keeps");
    let put = "invoke bench-1 keep.put key=token value=aGVsbG8=";
    page.both(stage, put)?;
    page.agent(node, "allow kv kv token")?;
    page.agent(node, "allow kv kv --max-kib 0")?;
    page.agent(node, "allow kv kv --max-kib 8")?;
    page.relay(stage, put)?;
    page.both(stage, "invoke bench-1 keep.get key=token")?;
    page.both(stage, "invoke bench-1 keep.fill key=big bytes=9000")?;
    page.agent(node, "policy explain kv")?;
    Ok(())
}

/// A GET as the fixture `web` takes it.
fn fetch(scheme: &str, authority: &str, method: &str) -> String {
    let request = serde_json::json!({
        "method": method, "scheme": scheme, "authority": authority, "path": "/healthz", "headers": [], "body": null,
    });
    format!("invoke bench-1 web.fetch --params '{}'", serde_json::json!({"request": request, "redirects": 0}))
}

/// The relay tells whether it is well over plain HTTP: a server as good as any.
fn requests(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    let (host, port) = (stage.listen(), stage.listen().rsplit(':').next().context("a port")?.to_owned());
    let get = fetch("http", &host, "GET");
    page.head("web requests: no host is granted");
    page.both(stage, &get)?;
    page.agent_both(node, "policy explain web")?;
    page.head("web requests: what makes no sense");
    for what in [
        "http",
        "http api.example.org/path",
        "http ftp://api.example.org",
        "http api.example.org --method fetch",
        "http api.example.org --private lan",
        "http api.example.org --header authorization",
        "http *.example.org --header 'authorization=Bearer {secret:token}'",
        "http api.example.org --header 'authorization={secret:To ken}'",
        "http --header a=b",
    ] {
        page.agent_both(node, &format!("allow web {what}"))?;
    }
    page.head("web requests: granted");
    page.agent_both(node, &format!("allow web http http://{host} --header 'authorization=Bearer {{secret:token}}'"))?;
    page.both(stage, &get)?;
    page.typed(node.command(&[])?, "agent", "secret set token", Some("not to be seen\n"))?;
    page.agent(node, "secret list")?;
    page.relay(stage, &get)?;
    page.relay(stage, &fetch("http", &host, "POST"))?;
    page.head("web requests: a name that leads to this machine");
    page.agent(node, &format!("allow web http http://localhost:{port}"))?;
    page.relay(stage, &fetch("http", &format!("localhost:{port}"), "GET"))?;
    page.agent(node, &format!("deny web http http://localhost:{port}"))?;
    Ok(())
}

fn secrets(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    page.head("secrets that a pack reads itself");
    page.both(stage, "invoke bench-1 secretive.tell name=token")?;
    page.agent(node, "allow secretive secrets")?;
    page.agent(node, "allow secretive secrets other")?;
    page.agent(node, "allow secretive secrets token")?;
    page.relay(stage, "invoke bench-1 secretive.tell name=token")?;
    page.relay(stage, "invoke bench-1 secretive.tell name=other")?;
    page.agent_both(node, "secret list")?;
    page.agent(node, "secret remove token")?;
    page.both(stage, "invoke bench-1 secretive.tell name=token")?;
    Ok(())
}

/// Programs by the shape of their arguments.
fn programs(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    page.head("programs: what makes no sense");
    for what in
        ["'uname <'", "'uname [-s'", "'uname <colour>'", "'tail <path:var>'", "'uname -s' --concurrent 0", "'uname -s' --output-mib x"]
    {
        page.agent_both(node, &format!("allow system process {what}"))?;
    }
    page.head("programs: with some arguments and no others");
    page.agent_both(node, "allow system process 'uname -s|-m' --max-secs 9 --concurrent 2 --output-mib 1")?;
    page.relay(stage, "run bench-1 -- uname -s")?;
    page.both(stage, "run bench-1 -- uname -a")?;
    page.relay(stage, "run bench-1 -- uname")?;
    for what in ["system.run uname -s", "process uname -a", "process df", "camera video0", "gpu", "output"] {
        page.agent_both(node, &format!("policy explain system {what}"))?;
    }
    Ok(())
}

/// What no machine of a test has: only words about it.
fn seat(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    page.head("place, messages, screens: nothing is granted");
    for command in ["seat.where", "seat.tell title=Backup body= urgency=low", "seat.snap --out -"] {
        page.both(stage, &format!("invoke bench-1 {command}"))?;
    }
    page.agent_both(node, "policy explain seat")?;
    page.head("place, messages, screens: what makes no sense");
    for what in ["location Berlin", "notify --coarse", "notify me"] {
        page.agent_both(node, &format!("allow seat {what}"))?;
    }
    page.head("place, messages, screens: granted");
    page.agent_both(node, "allow seat location --coarse")?;
    page.agent(node, "allow seat location")?;
    page.agent(node, "allow seat notify")?;
    page.agent(node, "allow seat screen HDMI-1")?;
    page.both(stage, "invoke bench-1 seat.snap display=DP-1 --out -")?;
    page.agent(node, "policy explain seat")?;
    page.agent_both(node, "policy explain seat screen HDMI-1 DP-1")?;
    page.agent(node, "deny seat notify")?;
    page.agent(node, "deny seat screen HDMI-1")?;
    page.agent(node, "policy explain seat notify")?;
    Ok(())
}
