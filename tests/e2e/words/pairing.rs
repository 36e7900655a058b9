//! Pairing: what both ends say when it works, and what each of them says when it does not.

use anyhow::{Context, Result};
use outhaul_tests::process::Line;
use outhaul_tests::stage::{Node, Stage};

use super::page::Page;

/// `relay pair new …` that waits, and its code; shown as 482913.
fn code(page: &mut Page, stage: &Stage, line: &str) -> Result<(outhaul_tests::Process, String)> {
    let mut maker = page.begin(stage.command(&[])?, line)?;
    let shown = maker.wait_until("a code", |line| matches!(line, Line::Out(text) if text.contains("code")))?;
    let code = told(shown.text()).context("a code")?;
    page.tidy.replace(code.clone(), if code.len() > 8 { "7Q4M-2X9K-TP" } else { "482913" });
    Ok((maker, code))
}

fn wrong(code: &str) -> &'static str {
    if code == "111111" { "222222" } else { "111111" }
}

#[test]
fn codes() -> Result<()> {
    let stage = Stage::start()?;
    let mut page = Page::of("pairing", &stage);
    let node = Node::new("bench-1")?;
    let pair = |code: &str, more: &str| format!("pair --relay {} --code {code} --name bench-1{more}", stage.url);

    page.head("what is typed wrong");
    for line in ["pair --code 482913", "pair --relay 127.0.0.1:8765 --code 482913", "pair --relay http://127.0.0.1 --code 482913"] {
        page.agent(&node, line)?;
    }
    for more in [" --name Bench", " --fleet 12", " --ca none.pem"] {
        page.agent(&node, &format!("pair --relay wss://127.0.0.1:1 --code 482913{more}"))?;
    }
    page.agent_both(&node, &pair("12", ""))?;
    page.agent_both(&node, &pair("333333", ""))?;

    page.head("a wrong code, then the right one");
    let (maker, right) = code(&mut page, &stage, "pair new")?;
    page.tidy.replace(wrong(&right), "111111");
    page.agent(&node, &pair(wrong(&right), ""))?;
    page.agent(&node, &pair(&right, ""))?;
    page.ended("relay", "pair new", maker)?;
    page.agent(&node, &pair(&right, ""))?;
    page.agent_both(&node, "status")?;

    page.head("again, as programs do, under a name the operator chose");
    let (maker, right) = code(&mut page, &stage, "--json pair new --name bench-9")?;
    page.agent(&node, &format!("--json {}", pair(&right, "")))?;
    page.ended("relay", "--json pair new --name bench-9", maker)?;

    page.head("three wrong guesses, then the maker gives up");
    let (mut maker, right) = code(&mut page, &stage, "pair new")?;
    for _ in 0..3 {
        assert_ne!(node.run(&["pair", "--relay", &stage.url, "--code", wrong(&right)])?.code, 0);
    }
    let next = maker.wait_until("another code", |line| line.text().starts_with("code "))?;
    page.tidy.replace(told(next.text()).context("a code")?, "482913");
    maker.signal(libc::SIGINT);
    page.ended("relay", "pair new", maker)?;

    page.head("a code that ran out, and one that is long");
    let ran = page.relay(&stage, "--json pair new --ttl 1")?;
    page.tidy.replace(told(ran.stdout.lines().next().unwrap_or_default()).context("a code")?, "482913");
    let (maker, long) = code(&mut page, &stage, "pair new --long")?;
    let other = Node::new("bench-2")?;
    page.agent(&other, &format!("pair --relay {} --code {long} --name bench-2", stage.url))?;
    page.ended("relay", "pair new --long", maker)?;

    page.head("one machine in another's place");
    page.both(&stage, "pair new --replace nobody")?;
    let (maker, right) = code(&mut page, &stage, "pair new --replace bench-2")?;
    let third = Node::new("bench-3")?;
    page.tidy.replace(third.home.path().to_string_lossy(), "/home/box");
    page.agent(&third, &format!("pair --relay {} --code {right}", stage.url))?;
    page.ended("relay", "pair new --replace bench-2", maker)?;
    page.agent(&other, "run")?;

    page.head("a revoked machine, at the operator's and on the machine");
    let (maker, right) = code(&mut page, &stage, "pair new")?;
    page.agent(&other, &format!("pair --relay {} --code {right} --name bench-2", stage.url))?;
    page.ended("relay", "pair new", maker)?;
    std::fs::rename(other.file("agent.key"), other.file("old.key"))?;
    page.agent(&other, "run")?;
    let (maker, right) = code(&mut page, &stage, "pair new")?;
    page.agent(&other, &format!("pair --relay {} --code {right} --name bench-2", stage.url))?;
    page.ended("relay", "pair new", maker)?;

    page.head("a code the relay keeps");
    for line in ["pair new --detach", "--json pair new --detach"] {
        let ran = page.relay(&stage, line)?.ok()?;
        page.tidy.replace(told(ran.stdout.lines().next().unwrap_or_default()).context("a code")?, "482913");
    }
    page.done();
    Ok(())
}

/// The code in a line of JSON, after a word, or alone.
fn told(line: &str) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(json) if json.is_object() => json["code"].as_str().map(str::to_owned),
        _ => line.split_whitespace().last().map(str::to_owned),
    }
}

#[test]
fn approvals() -> Result<()> {
    let stage = Stage::start()?;
    let mut page = Page::of("approval", &stage);
    page.head("nobody waits");
    page.both(&stage, "pair list")?;
    page.both(&stage, "pair approve kiosk --code 482913")?;
    page.both(&stage, "pair reject kiosk")?;
    // The third asks for a name that the first has.
    let mut names = ["kiosk-1", "kiosk-2", "kiosk-1"].into_iter();
    for (verb, json) in [
        ("approve", ""),
        ("approve", "--json "),
        ("approve", ""),
        ("wrong", ""),
        ("fingerprint", "--json "),
        ("reject", ""),
        ("reject", "--json "),
    ] {
        page.head(&format!("a machine waits: {verb}"));
        let node = Node::new("kiosk")?;
        page.tidy.replace(node.home.path().to_string_lossy(), "/home/box");
        let line = format!("{json}pair --relay {} --name kiosk", stage.url);
        let mut guest = page.begin(node.command(&[])?, &line)?;
        let shown = guest.wait_until("digits", |line| matches!(line, Line::Out(_)))?;
        let digits = told(shown.text()).context("digits")?;
        let listed = stage.run(&["--json", "pair", "list"])?.ok()?.json()?;
        let request = listed[0]["request"].as_str().context("a request")?.to_owned();
        page.tidy.replace(digits.clone(), "905518");
        page.tidy.replace(wrong(&digits), "111111");
        page.tidy.replace(request.clone(), "k7f2");
        match verb {
            "approve" => {
                page.both(&stage, "pair list")?;
                page.relay_with(&stage, &format!("pair approve {request}"), "\n")?;
                page.relay(&stage, &format!("{json}pair approve kiosk --code {digits} --name {}", names.next().context("a name")?))?;
            }
            "wrong" => drop(page.relay(&stage, &format!("pair approve kiosk --code {}", wrong(&digits)))?),
            "fingerprint" => {
                page.relay(&stage, "pair approve kiosk --node 1234")?;
                page.relay(&stage, &format!("--json pair approve kiosk --node {}", "0".repeat(20)))?;
                guest.signal(libc::SIGINT);
            }
            _ => drop(page.relay(&stage, &format!("{json}pair reject kiosk"))?),
        }
        page.ended("agent", &line, guest)?;
    }
    page.done();
    Ok(())
}
