//! Who makes packs: an author at a desk, without a relay. What needs a compiler is shown by the authors' own tests.

use anyhow::{Context, Result};
use outhaul_tests::process::{Ran, binary};
use outhaul_tests::stage::{command, pack};

use super::page::{Page, word};

#[test]
fn an_author_s_desk() -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut page = Page::new("authors");
    page.tidy.replace(word(home.path()), "/home/ada");
    let desk = Desk(home);
    for fixture in ["thermal", "fixtures/echo", "fixtures/greedy", "fixtures/unknown-import"] {
        let from = pack(fixture);
        std::fs::copy(&from, desk.0.path().join(from.file_name().context("a name")?))?;
    }
    std::fs::write(desk.0.path().join("no.wasm"), "#!/bin/sh\n")?;
    sources(&mut page, &desk)?;
    components(&mut page, &desk)?;
    signatures(&mut page, &desk)?;
    trials(&mut page, &desk)?;
    page.done();
    Ok(())
}

/// A home in which somebody makes packs.
struct Desk(tempfile::TempDir);

impl Desk {
    fn types(&self, page: &mut Page, program: &str, line: &str) -> Result<Ran> {
        page.typed(command(&binary(program)?, self.0.path()), program, line, None)
    }

    fn both(&self, page: &mut Page, program: &str, line: &str) -> Result<Ran> {
        self.types(page, program, line)?;
        self.types(page, program, &format!("--json {line}"))
    }
}

fn sources(page: &mut Page, desk: &Desk) -> Result<()> {
    page.head("from source");
    desk.types(page, "relay", "pack new disk-watch")?;
    desk.types(page, "relay", "--json pack new other --lang js")?;
    for line in ["pack new disk-watch", "pack new Disk", "pack new third --lang cobol", "pack build nowhere"] {
        desk.both(page, "relay", line)?;
    }
    page.head("from source, without a compiler");
    let nothing = tempfile::tempdir()?;
    for json in ["", "--json "] {
        let mut build = command(&binary("relay")?, desk.0.path());
        build.env("PATH", nothing.path());
        page.typed(build, "relay", &format!("{json}pack build disk-watch"), None)?;
    }
    desk.both(page, "agent", "pack test disk-watch")?;
    Ok(())
}

fn components(page: &mut Page, desk: &Desk) -> Result<()> {
    page.head("what is in a component");
    for line in ["pack inspect thermal.wasm", "pack inspect unknown-import.wasm", "pack inspect no.wasm", "pack inspect none.wasm"] {
        desk.both(page, "relay", line)?;
    }
    Ok(())
}

fn signatures(page: &mut Page, desk: &Desk) -> Result<()> {
    page.head("signatures");
    for line in [
        "pack verify thermal.wasm",
        "pack sign no.wasm",
        "pack sign none.wasm",
        "pack sign thermal.wasm --key none.key",
        "pack sign thermal.wasm",
        "pack verify thermal.wasm",
        "pack verify thermal.wasm --publisher 12",
        "pack sign thermal.wasm --for 30d",
        "pack inspect thermal.wasm",
    ] {
        desk.both(page, "relay", line)?;
    }
    let (mine, theirs) = (desk.0.path().join("thermal.wasm.cose"), desk.0.path().join("echo.wasm.cose"));
    std::fs::copy(&mine, &theirs)?;
    page.head("signatures: another component's, a damaged one, a stranger's");
    desk.both(page, "relay", "pack verify echo.wasm")?;
    let mut bytes = std::fs::read(&mine)?;
    *bytes.last_mut().context("a signature")? ^= 1;
    std::fs::write(&mine, bytes)?;
    desk.types(page, "relay", "pack verify thermal.wasm")?;
    std::fs::write(&mine, "no signature")?;
    desk.types(page, "relay", "pack verify thermal.wasm")?;
    let stranger = tempfile::tempdir()?;
    page.tidy.replace(word(stranger.path()), "/home/otto");
    let mut sign = command(&binary("relay")?, stranger.path());
    sign.args(["pack", "sign"]).arg(desk.0.path().join("thermal.wasm"));
    Ran::of(sign.output()?).ok()?;
    desk.both(page, "relay", "pack verify thermal.wasm")?;
    Ok(())
}

fn trials(page: &mut Page, desk: &Desk) -> Result<()> {
    page.head("tried without a relay");
    for line in [
        "pack run echo.wasm echo.say text=hello",
        "pack run echo.wasm echo.fail message=why",
        "pack run echo.wasm echo.sy",
        "pack run echo.wasm echo.say",
        "pack run echo.wasm echo.say text=a --grant teleport",
        "pack run greedy.wasm greedy.try_it",
        "pack run unknown-import.wasm a.b",
        "pack run no.wasm a.b",
    ] {
        desk.both(page, "agent", line)?;
    }
    page.head("tested");
    for line in ["pack test echo.wasm", "pack test unknown-import.wasm", "pack test nowhere", "pack test echo.wasm --cases none.toml"] {
        desk.both(page, "agent", line)?;
    }
    Ok(())
}
