//! Commands of packs: their answers, and each way in which there is none.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use outhaul_agent::quarantine::TRAPS;
use outhaul_tests::process::{PATIENCE, Process};
use outhaul_tests::stage::{Node, Stage, pack};

use super::page::{Page, configure, word};

fn deploy(stage: &Stage, fixtures: &[&str]) -> Result<()> {
    for fixture in fixtures {
        let path = pack(&format!("fixtures/{fixture}"));
        stage.run(&["pack", "deploy", &path.to_string_lossy(), "bench-1"])?.ok()?;
    }
    Ok(())
}

#[test]
fn what_a_command_answers_and_why_it_does_not() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.paired("bench-1")?;
    configure(&node, "\n[camera]\ntest_pattern = true\n[packs.camera]\ncamera = { devices = [\"test-pattern\"] }\n")?;
    node.start()?;
    deploy(&stage, &["echo", "values", "devices", "flow", "hostile", "greedy"])?;
    let mut page = Page::of("calls", &stage);
    answers(&mut page, &stage)?;
    parameters(&mut page, &stage)?;
    bytes(&mut page, &stage)?;
    failures(&mut page, &stage)?;
    ceilings(&mut page, &stage, &node)?;
    quarantine(&mut page, &stage)?;
    unfinished(&mut page, &stage, &mut node)?;
    page.done();
    Ok(())
}

fn answers(page: &mut Page, stage: &Stage) -> Result<()> {
    page.head("answers");
    page.both(stage, "invoke bench-1 echo.say text=hello")?;
    page.both(stage, "nodes invoke --node bench-1 --command echo.say --params '{\"text\":\"hello\"}'")?;
    page.both(stage, "invoke bench-1 devices.four")?;
    let person = "{\"value\":{\"name\":\"Ada\",\"nick_name\":null,\"home\":{\"x\":1,\"y\":-2},\"tags\":[\"a\",\"b\"],\"colour\":\"dark_blue\",\"photo\":\"AAEC\"}}";
    for line in
        [format!("invoke bench-1 values.same_record --params '{person}'").as_str(), "invoke bench-1 values.same_variant value=circle:1"]
    {
        page.relay(stage, line)?;
    }
    for value in [
        "same_flags value=read value=run_all",
        "same_pairs --params '{\"value\":[[\"a\",\"b\"],[\"c\",\"d\"]]}'",
        "nothing",
        "same_option",
        "same_f64 value=NaN",
    ] {
        page.both(stage, &format!("invoke bench-1 values.{value}"))?;
    }
    page.relay(stage, "invoke bench-1 flow.events n=2")?;
    page.relay_with(stage, "invoke bench-1 flow.cat -i", "some input\n")?;
    page.both(stage, "invoke bench-1 flow.two")?;
    for command in ["system.info", "node.status", "node.ping"] {
        page.shape(stage, &format!("--json invoke bench-1 {command}"))?;
    }
    Ok(())
}

fn parameters(page: &mut Page, stage: &Stage) -> Result<()> {
    page.head("parameters that do not fit");
    for what in [
        "echo.say",
        "echo.say txt=hello",
        "echo.say text=a text=b",
        "echo.say text",
        "echo.say text=a --params '{\"text\":\"b\"}'",
        "echo.say --params '{\"text\":7}'",
        "echo.say --params '{\"text\"'",
        "echo.say --params '[1]'",
        "echo.say --params-file none.json",
        "echo.say text=@none.txt",
        "values.same_u8 value=300",
        "values.same_bool value=maybe",
        "values.same_char value=ab",
        "values.same_enum value=green",
        "values.same_enum value=dark-blu",
        "values.same_bytes value=%%%",
        "values.same_point --params '{\"value\":{\"x\":1}}'",
        "values.same_point --params '{\"value\":{\"x\":1,\"y\":2,\"z\":3}}'",
        "values.same_numbers value=1 value=x",
        "values.two_parameters times=2",
    ] {
        let ran = page.both(stage, &format!("invoke bench-1 {what}"))?;
        assert_eq!(ran.code, 2, "{what}: {}", ran.stdout);
    }
    page.head("too large");
    let file = stage.home.path().join("large.txt");
    std::fs::write(&file, vec![b'x'; 600 << 10])?;
    page.both(stage, "invoke bench-1 echo.say text=@large.txt")?;
    Ok(())
}

fn bytes(page: &mut Page, stage: &Stage) -> Result<()> {
    page.head("bytes");
    page.both(stage, "invoke bench-1 flow.count bytes=5 --out five.bin")?;
    page.relay(stage, "--json invoke bench-1 flow.bare bytes=5")?;
    page.relay(stage, "invoke bench-1 flow.bare bytes=5")?;
    page.relay(stage, "invoke bench-1 flow.bare bytes=5 --out none/five.bin")?;
    page.relay(stage, "--json invoke bench-1 flow.bare bytes=30000000")?;
    let snap = "invoke bench-1 camera.snap device=test-pattern --out photo.jpg";
    // Each picture has a size of its own.
    let told = page.relay(stage, snap)?.ok()?.stdout;
    let size = told.lines().find_map(|line| line.trim().strip_prefix("bytes:")).context("a size")?;
    page.tidy.replace(size.trim(), "56000");
    let told = page.relay(stage, &format!("--json {snap}"))?.ok()?.json()?;
    page.tidy.replace(told["result"]["data"]["bytes"].to_string(), "56000");
    assert!(Path::new(&stage.home.path().join("photo.jpg")).exists());
    page.both(stage, "invoke bench-1 camera.snap device=video7 --out photo.jpg")?;
    Ok(())
}

fn failures(page: &mut Page, stage: &Stage) -> Result<()> {
    page.head("no such command");
    for command in ["echo.sy", "echo", "files.read", "node.reboot", "system"] {
        page.both(stage, &format!("invoke bench-1 {command}"))?;
    }
    page.head("the command's own errors");
    page.both(stage, "invoke bench-1 echo.fail message=why")?;
    page.both(stage, "invoke bench-1 echo.fail message=")?;
    page.both(stage, "invoke bench-1 values.ending --params '{\"outcome\":{\"error\":{\"corner\":{\"x\":1,\"y\":2}}}}'")?;
    page.both(stage, "invoke bench-1 values.silent well=false")?;
    page.head("a power that is not granted");
    page.both(stage, "invoke bench-1 greedy.try_it")?;
    page.both(stage, "invoke bench-1 system.which program=uname")?;
    page.head("packs that misbehave");
    for what in ["trap", "recurse from=0", "eat", "huge", "huge_text", "greedy_host"] {
        page.relay(stage, &format!("invoke bench-1 hostile.{what}"))?;
    }
    for what in ["trap", "eat"] {
        page.relay(stage, &format!("--json invoke bench-1 hostile.{what}"))?;
    }
    Ok(())
}

fn ceilings(page: &mut Page, stage: &Stage, node: &Node) -> Result<()> {
    page.head("the caller's deadline");
    page.both(stage, "--timeout 300ms invoke bench-1 hostile.spin")?;
    let before = std::fs::read_to_string(node.file("agent.toml"))?;
    page.head("the machine's deadline and its ceilings");
    configure(node, "\n[limits]\noutput_mib = 1\ndeadline_secs = 1\n")?;
    page.relay(stage, "--json invoke bench-1 hostile.spin")?;
    page.relay(stage, "--json invoke bench-1 hostile.flood total=3000000")?;
    page.head("as many calls as may be");
    std::fs::write(node.file("agent.toml"), &before)?;
    configure(node, "\n[limits]\ncalls = 1\n")?;
    let hold = page.begin_until(stage, "invoke bench-1 flow.hold", "holding")?;
    page.both(stage, "invoke bench-1 echo.say text=hello")?;
    std::fs::write(node.file("agent.toml"), &before)?;
    page.head("Ctrl-C");
    hold.signal(libc::SIGINT);
    page.ended("relay", "invoke bench-1 flow.hold", hold)?;
    let hold = begin_silent(page, stage, "--json invoke bench-1 flow.hold", 0)?;
    hold.signal(libc::SIGINT);
    page.ended("relay", "--json invoke bench-1 flow.hold", hold)?;
    Ok(())
}

/// A pack that traps call after call is not run any more, until somebody ships one.
fn quarantine(page: &mut Page, stage: &Stage) -> Result<()> {
    page.head("a pack that traps again and again");
    for _ in 1..TRAPS {
        assert_eq!(page.unwritten(stage, "invoke bench-1 hostile.trap")?.code, 8);
    }
    page.relay(stage, "invoke bench-1 hostile.trap")?;
    page.both(stage, "invoke bench-1 hostile.well")?;
    page.both(stage, "pack list bench-1")?;
    page.relay(stage, &format!("pack deploy {} bench-1", word(&pack("fixtures/hostile"))))?;
    page.relay(stage, "invoke bench-1 hostile.well")?;
    Ok(())
}

/// Starts a call that says nothing before its end, as with `--json`, and waits until it runs beside so many others.
fn begin_silent(page: &Page, stage: &Stage, line: &str, others: u64) -> Result<Process> {
    let deadline = Instant::now() + PATIENCE;
    // One that has just ended may still be counted.
    loop {
        let there = under_way(page, stage)?;
        if there == others {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "the node runs {there} calls, and never {others}");
    }
    while Instant::now() < deadline {
        let mut process = page.begin(stage.command(&[])?, line)?;
        // It is refused where it came too soon behind the lines before.
        while !process.ended()? && Instant::now() < deadline {
            if under_way(page, stage)? == others + 1 {
                return Ok(process);
            }
        }
    }
    anyhow::bail!("`relay {line}` is never taken")
}

/// How many calls a node runs, without the question.
fn under_way(page: &Page, stage: &Stage) -> Result<u64> {
    let status = page.unwritten(stage, "--json invoke bench-1 node.status")?.json()?;
    Ok(status["result"]["calls"].as_u64().context("a number")?.saturating_sub(1))
}

/// The node goes away under a call.
fn unfinished(page: &mut Page, stage: &Stage, node: &mut Node) -> Result<()> {
    page.head("an agent that stopped and began anew knows no call of before");
    let line = "invoke bench-1 flow.hold";
    let people = page.begin_until(stage, line, "holding")?;
    let program = begin_silent(page, stage, &format!("--json {line}"), 1)?;
    node.stop()?;
    node.start()?;
    page.ended("relay", line, people)?;
    page.ended("relay", &format!("--json {line}"), program)?;
    page.head("an agent that is gone, and nobody who wants to wait for it");
    let mut people = page.begin_until(stage, line, "holding")?;
    node.stop()?;
    people.wait_for("link lost")?;
    people.signal(libc::SIGINT);
    page.ended("relay", line, people)?;
    page.both(stage, "invoke bench-1 echo.say text=hello")?;
    Ok(())
}
