//! Deployments: documents that nodes follow by themselves.

use anyhow::Result;
use outhaul_tests::stage::{Stage, pack};

use super::page::{Page, word};

#[test]
fn a_pack_for_whoever_has_a_label() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    let mut page = Page::of("deployments", &stage);
    let file = |name: &str| word(&pack(name));
    stage.run(&["nodes", "label", "bench-1", "role=edge"])?.ok()?;

    page.head("nothing yet");
    page.both(&stage, "pack status")?;
    page.both(&stage, "pack status thermal")?;
    page.both(&stage, "pack status thermal echo")?;

    page.head("the relay has it, and its name and version mean it");
    page.both(&stage, "pack push none.wasm")?;
    page.both(&stage, &format!("pack push {}", file("thermal")))?;
    page.both(&stage, "pack deploy thermal@9 --to all")?;
    page.relay(&stage, "pack deploy thermal@0.1 --to role=edge")?;
    page.both(&stage, "pack status thermal")?;
    // By name: a file would be signed anew, and in another second that is another release.
    page.relay(&stage, "--json pack deploy thermal@0.1 --to role=edge")?;

    page.head("mistakes change nothing");
    for line in ["--to role=core", "--to ROLE", "bench-1 --to all", "--to all --canary 0%", "--to all --health thermal.summary"] {
        page.both(&stage, &format!("pack deploy thermal@0.1 {line}"))?;
    }

    page.head("one that is off follows when it comes");
    page.relay(&stage, &format!("pack deploy {} --to bench-1", file("fixtures/echo")))?;
    node.stop()?;
    page.wait_for(&stage, "--json nodes", "offline")?;
    page.relay(&stage, &format!("pack deploy {} --to bench-1", file("fixtures/echo-next")))?;
    node.start()?;
    page.wait_for(&stage, "--json pack status echo", "\"applied\"")?;

    page.head("back and out");
    page.both(&stage, "pack rollback echo --to bench-1")?;
    page.both(&stage, "pack rollback nothing --to bench-1")?;
    page.both(&stage, "pack remove echo --to bench-1")?;
    page.both(&stage, "pack status")?;
    page.done();
    Ok(())
}
