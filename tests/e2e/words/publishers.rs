//! Whose packs a machine takes: publishers, who trusts them, and who has the last word.

use std::process::Command;

use anyhow::{Context, Result};
use outhaul_tests::process::binary;
use outhaul_tests::stage::{Node, Stage, command, pack};

use super::page::{Page, word};

/// Somebody else who makes packs.
struct Publisher {
    home: tempfile::TempDir,
    key: String,
    /// a pack of theirs, signed
    pack: String,
}

impl Publisher {
    fn new(page: &mut Page) -> Result<Self> {
        let home = tempfile::tempdir()?;
        page.tidy.replace(word(home.path()), "/home/acme");
        let pack_there = home.path().join("thermal.wasm");
        std::fs::copy(pack("thermal"), &pack_there)?;
        let mut acme = Publisher { home, key: String::new(), pack: word(&pack_there) };
        let shown = page.typed(acme.command()?, "relay", "--json publisher show", None)?.ok()?.json()?;
        acme.key = shown["key"].as_str().context("a key")?.to_owned();
        page.typed(acme.command()?, "relay", "pack sign thermal.wasm", None)?.ok()?;
        Ok(acme)
    }

    fn command(&self) -> Result<Command> {
        Ok(command(&binary("relay")?, self.home.path()))
    }
}

#[test]
fn publishers_and_whom_a_machine_trusts() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    let mut page = Page::of("publishers", &stage);
    page.head("keys");
    page.both(&stage, "publisher show")?;
    let acme = Publisher::new(&mut page)?;
    let deploy = format!("pack deploy {} bench-1", acme.pack);

    page.head("a stranger's pack");
    page.both(&stage, &deploy)?;
    page.both(&stage, "publisher trust 12 bench-1")?;
    page.both(&stage, &format!("publisher trust {} --name Acme bench-1", acme.key))?;
    page.head("trusted by the fleet's operator");
    let trust = format!("publisher trust {} --name acme bench-1", acme.key);
    page.both(&stage, &trust)?;
    page.both(&stage, "publisher show")?;
    page.relay(&stage, &deploy)?;
    page.agent_both(&node, "trust list")?;
    page.agent_both(&node, "trust")?;
    page.both(&stage, "publisher distrust nobody bench-1")?;
    page.relay(&stage, "--json publisher distrust acme bench-1")?;
    page.unwritten(&stage, &trust)?.ok()?;
    page.relay(&stage, "publisher distrust acme bench-1")?;
    page.both(&stage, &format!("publisher distrust {} bench-1", acme.key))?;
    page.relay(&stage, "invoke bench-1 thermal.summary")?;
    page.relay(&stage, "pack list bench-1")?;

    last_word(&mut page, &stage, &node, &acme)?;
    changed(&mut page, &stage, &mut node, &acme)?;
    not_signed(&mut page, &stage, &acme)?;
    page.done();
    Ok(())
}

/// The owner of a machine refuses whom the fleet's operators trust.
fn last_word(page: &mut Page, stage: &Stage, node: &Node, acme: &Publisher) -> Result<()> {
    page.head("the machine's owner has the last word");
    page.agent_both(node, "trust publisher 12")?;
    page.agent_both(node, &format!("trust publisher {} --name acme", acme.key))?;
    page.agent_both(node, "trust remove nobody")?;
    page.agent(node, "trust remove acme")?;
    page.agent_both(node, &format!("trust remove {}", acme.key))?;
    page.agent(node, "trust list")?;
    page.head("and its word stands above the fleet's");
    page.both(stage, &format!("publisher trust {} --name acme bench-1", acme.key))?;
    page.agent(node, &format!("--json trust remove {}", acme.key))?;
    page.agent(node, "trust list")?;
    page.both(stage, &format!("publisher trust {} bench-1", acme.key))?;
    page.relay(stage, &format!("pack deploy {} bench-1", acme.pack))?;
    page.agent_both(node, "trust list now")?;
    page.agent_both(node, "trust now")?;
    Ok(())
}

/// A key goes on to another, and one is taken back.
fn changed(page: &mut Page, stage: &Stage, node: &mut Node, acme: &Publisher) -> Result<()> {
    page.head("a key goes on to another");
    page.relay(stage, "publisher rotate")?;
    page.relay(stage, "publisher show")?;
    page.relay(stage, "--json publisher rotate")?;
    page.both(stage, "publisher show now")?;
    page.both(stage, "publisher rotate now")?;
    page.both(stage, &format!("publisher trust {} --rotations none.rotations", acme.key))?;
    page.head("a key is taken back");
    page.both(stage, "publisher revoke nobody")?;
    page.both(stage, &format!("publisher revoke {}", acme.key))?;
    page.both(stage, &format!("pack deploy {} bench-1", acme.pack))?;
    node.agent()?.wait_for("took a newer fleet-signed object")?;
    page.agent(node, "trust list")?;
    Ok(())
}

fn not_signed(page: &mut Page, stage: &Stage, acme: &Publisher) -> Result<()> {
    page.head("unsigned, and signed for something else");
    page.both(stage, &format!("pack deploy --unsigned {} bench-1", word(&pack("thermal"))))?;
    let echo = acme.home.path().join("echo.wasm");
    std::fs::copy(pack("fixtures/echo"), &echo)?;
    std::fs::copy(acme.home.path().join("thermal.wasm.cose"), acme.home.path().join("echo.wasm.cose"))?;
    page.both(stage, &format!("pack deploy {} bench-1", word(&echo)))?;
    Ok(())
}
