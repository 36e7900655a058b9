//! Machines: who is there, what they are called, which one is meant.

use anyhow::{Context as _, Result};
use outhaul_protocol::keys::SecretKey;
use outhaul_tests::stage::{Node, Stage};

use super::page::{Page, pair, word};

/// Two keys whose ids begin with the same four digits, and these.
fn alike() -> Result<(SecretKey, SecretKey, String)> {
    let mut seen = std::collections::HashMap::new();
    loop {
        let key = SecretKey::generate();
        let start = key.id().to_string().chars().take(4).collect::<String>();
        if let Some(other) = seen.remove(&start) {
            return Ok((other, key, start));
        }
        seen.insert(start, key);
    }
}

/// A machine that has a key before it is paired.
fn with_key(name: &str, key: &SecretKey) -> Result<Node> {
    let node = Node::new(name)?;
    outhaul_home::create_private_dir(&node.home.path().join("agent"))?;
    outhaul_home::create_secret_key(&node.file("agent.key"), key)?;
    Ok(node)
}

#[test]
fn which_machines_there_are_and_what_happens_to_them() -> Result<()> {
    let stage = Stage::start()?;
    let mut page = Page::of("nodes", &stage);
    page.head("none yet");
    page.both(&stage, "nodes")?;
    page.both(&stage, "ping bench-1")?;

    let (first, second, start) = alike()?;
    let (mut one, two) = (with_key("bench-1", &first)?, with_key("shelf", &second)?);
    page.tidy.replace(start.clone(), "abcd");
    page.tidy.replace(word(one.home.path()), "/home/box");
    pair(&stage, &one)?;
    pair(&stage, &two)?;
    one.start()?;
    page.head("two, one of them connected");
    page.both(&stage, "nodes")?;
    page.both(&stage, "nodes list")?;
    // Its load comes with the first heartbeat.
    page.wait_for(&stage, "nodes describe bench-1", "\nload ")?;
    page.both(&stage, "nodes describe bench-1")?;
    page.both(&stage, "ping bench-1")?;
    page.relay(&stage, "nodes describe shelf")?;

    let fixture = word(&outhaul_tests::stage::pack("thermal"));
    for (what, node) in [("nobody is called so", "bench"), ("two begin so", start.as_str()), ("known, but not connected", "shelf")] {
        page.head(what);
        for line in
            ["ping NODE", "invoke NODE gpu.list", "nodes invoke --node NODE --command gpu.list", "run NODE -- uname", "pack list NODE"]
        {
            page.both(&stage, &line.replace("NODE", node))?;
        }
        for line in ["pack rollback NODE echo", "pack remove NODE echo", &format!("pack deploy {fixture} NODE")] {
            page.both(&stage, &line.replace("NODE", node))?;
        }
        if node != "shelf" {
            for line in ["nodes describe NODE", "nodes rename NODE other", "nodes label NODE site=west", "nodes remove NODE"] {
                page.both(&stage, &line.replace("NODE", node))?;
            }
        }
    }

    page.head("names and labels");
    for line in ["nodes rename bench-1 Bench", "nodes rename bench-1 shelf", "nodes label bench-1 site"] {
        page.both(&stage, line)?;
    }
    page.relay(&stage, "nodes rename bench-1 desk")?;
    page.relay(&stage, "--json nodes rename shelf cupboard")?;
    for line in ["nodes label desk site=west gpu=none", "nodes label desk gpu=", "nodes label cupboard site=east"] {
        page.both(&stage, line)?;
    }
    page.relay(&stage, "nodes describe desk")?;

    page.head("gone");
    page.relay(&stage, "nodes remove cupboard")?;
    page.agent_both(&two, "run")?;
    page.relay(&stage, "--json nodes remove desk")?;
    let agent = one.agent.take().context("it runs")?;
    page.ended("agent", "run", agent)?;
    page.relay(&stage, "nodes")?;
    page.done();
    Ok(())
}
