//! Packs: shipped, swapped, rolled back, taken out, and turned away.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use outhaul_tests::process::PATIENCE;
use outhaul_tests::stage::{Stage, pack};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::page::{Page, word};

#[test]
fn a_pack_s_life_and_what_is_turned_away() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    let two = stage.node("bench-2")?;
    let mut page = Page::of("packs", &stage);
    let file = |name: &str| word(&pack(name));

    page.head("shipped, twice the same, then the next version");
    page.both(&stage, "pack list bench-1")?;
    page.relay(&stage, &format!("pack deploy {} bench-1 bench-2 bench-1", file("thermal")))?;
    for name in ["echo", "echo", "echo-next"] {
        page.relay(&stage, &format!("pack deploy {} bench-1", file(&format!("fixtures/{name}"))))?;
    }
    page.relay(&stage, &format!("--json pack deploy {} bench-1", file("fixtures/greedy")))?;
    page.relay(&stage, &format!("pack deploy {} bench-1", file("fixtures/greedy")))?;
    page.agent(&node, "status")?;
    page.both(&stage, "pack list bench-1")?;

    page.head("an older version");
    page.both(&stage, &format!("pack deploy {} bench-1", file("fixtures/echo")))?;
    page.relay(&stage, &format!("pack deploy --downgrade {} bench-1", file("fixtures/echo")))?;
    page.relay(&stage, &format!("pack deploy {} bench-1", file("fixtures/echo-next")))?;

    in_between(&mut page, &stage)?;

    page.head("back and out");
    page.both(&stage, "pack rollback bench-1 echo")?;
    page.both(&stage, "pack rollback bench-1 thermal")?;
    page.both(&stage, "pack rollback bench-1 files")?;
    page.relay(&stage, "pack remove bench-1 echo")?;
    page.relay(&stage, "--json pack remove bench-1 thermal")?;
    page.both(&stage, "pack remove bench-1 echo")?;
    page.both(&stage, "pack remove bench-1 gpu")?;

    page.head("what is no pack");
    let home = stage.home.path();
    let whole = std::fs::read(pack("thermal"))?;
    std::fs::write(home.join("script.sh"), "#!/bin/sh\n")?;
    std::fs::write(home.join("cut.wasm"), &whole[..whole.len() / 2])?;
    std::fs::write(home.join("empty.wasm"), "")?;
    std::fs::write(home.join("module.wasm"), b"\0asm\x01\0\0\0")?;
    for name in ["none.wasm", "script.sh", "empty.wasm", "cut.wasm", "module.wasm"] {
        page.both(&stage, &format!("pack deploy {name} bench-1"))?;
    }
    page.head("what this agent does not take");
    for name in ["unknown-import", "clash", "resource-export"] {
        page.both(&stage, &format!("pack deploy {} bench-1", file(&format!("fixtures/{name}"))))?;
    }
    for name in ["nested-option", "future-result", "stream-parameter", "two-streams", "typed-stream"] {
        page.relay(&stage, &format!("pack deploy {} bench-1", file(&format!("fixtures/{name}"))))?;
    }
    page.head("one machine takes it, the other is not known");
    page.both(&stage, &format!("pack deploy {} bench-1 nobody", file("fixtures/echo")))?;

    page.head("a relay whose copy of a pack is another");
    stage.run(&["pack", "deploy", &file("fixtures/flow"), "bench-1"])?.ok()?;
    for kept in std::fs::read_dir(home.join("relay/packs"))? {
        let path = kept?.path();
        let mut bytes = std::fs::read(&path)?;
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        std::fs::write(&path, bytes)?;
    }
    page.both(&stage, &format!("pack deploy {} bench-2", file("fixtures/flow")))?;
    drop(two);
    page.done();
    Ok(())
}

/// A call is typed against one version, and its parameter comes only when another has taken the place.
fn in_between(page: &mut Page, stage: &Stage) -> Result<()> {
    page.head("another version comes while a call waits for its parameters");
    let file = |name: &str| word(&pack(&format!("fixtures/{name}")));
    for json in ["", "--json "] {
        page.unwritten(stage, &format!("pack deploy --downgrade {} bench-1", file("echo")))?.ok()?;
        let slow = stage.home.path().join("slow.txt");
        mknodat(CWD, &slow, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let line = format!("{json}invoke bench-1 echo.say text=@{}", word(&slow));
        let call = page.begin(stage.command(&[])?, &line)?;
        let mut text = when_read(&slow)?;
        page.unwritten(stage, &format!("pack deploy {} bench-1", file("echo-next")))?.ok()?;
        text.write_all(b"hello")?;
        drop(text);
        page.ended("relay", &line, call)?;
        std::fs::remove_file(&slow)?;
    }
    Ok(())
}

/// The writing end of a pipe, once somebody reads it.
fn when_read(path: &Path) -> Result<File> {
    let (done, opened) = std::sync::mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || done.send(File::options().write(true).open(path)));
    Ok(opened.recv_timeout(PATIENCE).context("nobody reads it")??)
}
