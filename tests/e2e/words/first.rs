//! The first minutes: help, lines that make no sense, a home without a fleet, and a relay that starts or does not.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::CommandFactory as _;
use outhaul_tests::process::{Ran, binary};
use outhaul_tests::stage::{Node, Stage, command};

use super::page::{Page, word, words};

/// Every command of a grammar that people are shown, by its words; the first is the program itself.
pub(super) fn commands(root: &clap::Command) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for part in root.get_subcommands().filter(|part| !part.is_hide_set() && part.get_name() != "help") {
        for mut words in commands(part) {
            words.insert(0, part.get_name().to_owned());
            all.push(words);
        }
    }
    all
}

/// A command of somebody who has set nothing: what is set shows in usage lines, and the path of a home would move them.
fn at_home(program: &str, home: &Path) -> Result<Command> {
    let mut command = command(&binary(program)?, home);
    command.env_remove("OUTHAUL_HOME").env_remove("XDG_DATA_HOME").env("HOME", home);
    Ok(command)
}

fn help(program: &str, page: &'static str, root: &clap::Command) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut page = Page::new(page);
    page.tidy.replace(word(home.path()), "/home/anna");
    for words in commands(root) {
        let line = [words.as_slice(), &["--help".to_owned()]].concat().join(" ");
        let ran = page.typed(at_home(program, home.path())?, program, &line, None)?;
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
    }
    page.done();
    Ok(())
}

#[test]
fn the_relay_helps() -> Result<()> {
    help("relay", "help-relay", &outhaul_relay::cli::args::Cli::command())
}

#[test]
fn the_agent_helps() -> Result<()> {
    help("agent", "help-agent", &outhaul_agent::cli::Cli::command())
}

/// Lines that make no sense, each as it is typed behind the program's name; the first is empty.
const TO_RELAY: &str = "
--json
pair
--json pair
pack
--json pack
publisher
--json publisher
operator
--json operator
operator show now
--json operator show now
nodez
--json nodez
nodes --colour
ping
--json ping
pair approve
pair reject
pair list now
pair new --ttl soon
pair new --long --detach
--json pair new --ttl 0
run bench-1 uname -a
--json run bench-1 uname
run bench-1
--timeout 5x run bench-1 -- id
invoke bench-1
invoke bench-1 echo.say --params {} --params-file x
nodes invoke --node bench-1
serve --listen 0.0.0.0
serve --tls-cert chain.pem
--json serve --fleet
init now
--json init now
completions tcsh
--json completions tcsh";
const TO_AGENT: &str = "
--json
pair --code
--json pair --code
allow system
--json deny system
run now
--json run now
status --all
--json status now
policy hide
--json policy hide
policy show all
--json policy show all
policy explain
secret
--json secret
secret set
secret set token hunter2
trust publisher
pack
--json pack
pack run thermal.wasm
pack test";

#[test]
fn a_line_that_makes_no_sense_is_told_what_would() -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut page = Page::new("first");
    page.tidy.replace(word(home.path()), "/home/anna");
    for (program, lines) in [("relay", TO_RELAY), ("agent", TO_AGENT)] {
        for line in lines.split('\n') {
            let ran = page.typed(at_home(program, home.path())?, program, line, None)?;
            let wanted = if words(line).contains(&"run".to_owned()) && program == "relay" { 255 } else { 2 };
            assert_eq!(ran.code, wanted, "{program} {line}: {}{}", ran.stdout, ran.stderr);
        }
    }
    page.done();
    Ok(())
}

#[test]
fn who_has_no_fleet_is_told_the_ways_to_one() -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut page = Page::new("no-fleet");
    page.tidy.replace(word(home.path()), "/home/anna");
    let mut both = |program: &str, line: &str| -> Result<Ran> {
        page.typed(command(&binary(program)?, home.path()), program, line, None)?;
        page.typed(command(&binary(program)?, home.path()), program, &format!("--json {line}"), None)
    };
    for line in ["pair new", "pair list", "pair approve k7f2", "pair reject k7f2", "nodes", "nodes list", "nodes describe bench-1"] {
        assert_eq!(both("relay", line)?.code, 3, "{line}");
    }
    for line in ["nodes rename bench-1 bench-2", "nodes label bench-1 site=west", "nodes remove bench-1", "ping bench-1"] {
        assert_eq!(both("relay", line)?.code, 3, "{line}");
    }
    for line in ["invoke bench-1 gpu.list", "nodes invoke --node bench-1 --command gpu.list", "pack list bench-1"] {
        assert_eq!(both("relay", line)?.code, 3, "{line}");
    }
    for line in ["pack rollback bench-1 echo", "pack remove bench-1 echo", "operator grants", "operator revoke anna"] {
        assert_eq!(both("relay", line)?.code, 3, "{line}");
    }
    let deploy = format!("pack deploy {} bench-1", word(&outhaul_tests::stage::pack("thermal")));
    assert_eq!(both("relay", &deploy)?.code, 3);
    assert_eq!(both("relay", "run bench-1 -- uname -a")?.code, 255);
    both("relay", "operator grant anna --commands '*' --nodes '*' --for 1d")?;
    both("relay", "operator accept outhaul-grant-1.e30")?;
    both("relay", "operator show")?;
    both("agent", "run")?;
    both("agent", "status")?;
    both("agent", "policy")?;
    both("agent", "policy show")?;
    page.done();
    Ok(())
}

#[test]
fn a_relay_says_what_it_made_and_why_it_does_not_start() -> Result<()> {
    let stage = Stage::start()?;
    let mut page = Page::of("serve", &stage);
    page.head("a second one, in the same home and at the same address");
    page.both(&stage, "serve --listen 127.0.0.1:0")?;
    let other = Node::new("other")?;
    page.tidy.replace(word(other.home.path()), "/home/otto");
    let elsewhere = || -> Result<_> { Ok(command(&binary("relay")?, other.home.path())) };
    page.typed(elsewhere()?, "relay", &format!("serve --listen {}", stage.listen()), None)?;

    page.head("what a relay refuses to start with");
    for line in [
        "serve --listen 0.0.0.0:0",
        "serve --listen 0.0.0.0:0 --tls-cert none.pem --tls-key none.key",
        "serve --listen 127.0.0.1:0 --fleet 12",
        "--json serve --listen 127.0.0.1:0 --fleet 12",
    ] {
        assert_eq!(page.typed(elsewhere()?, "relay", line, None)?.code, 2, "{line}");
    }
    for text in ["lissten = \"127.0.0.1:8765\"\n", "listen = 5\n", "[pairing]\ncode_ttl_secs = -1\n", "listen = \n", "fleet = \"12\"\n"] {
        std::fs::write(other.home.path().join("relay/relay.toml"), text)?;
        page.head(&format!("relay.toml: {}", text.trim().replace('\n', " ⏎ ")));
        assert_eq!(page.typed(elsewhere()?, "relay", "serve --listen 127.0.0.1:0", None)?.code, 2, "{text}");
    }
    std::fs::remove_file(other.home.path().join("relay/relay.toml"))?;

    page.head("keys on a machine of one's own, a relay elsewhere");
    let owner = Node::new("owner")?;
    page.tidy.replace(word(owner.home.path()), "/home/olga");
    let own = |line: &str, page: &mut Page| page.typed(command(&binary("relay")?, owner.home.path()), "relay", line, None);
    let fleet = own("init", &mut page)?.stdout.trim().to_owned();
    own("init", &mut page)?;
    own("--json init", &mut page)?;
    own("nodes", &mut page)?;
    let third = Node::new("third")?;
    page.tidy.replace(word(third.home.path()), "/srv/outhaul");
    for json in ["", "--json "] {
        let line = format!("{json}serve --listen 127.0.0.1:0 --fleet {fleet}");
        let mut serving = page.begin(command(&binary("relay")?, third.home.path()), &line)?;
        serving.wait_for("listens on")?;
        if json.is_empty() {
            serving.wait_for("next, ")?;
        }
        let address = std::fs::read_to_string(third.home.path().join("relay/address"))?.trim().to_owned();
        let key = outhaul_home::read_secret_key::<outhaul_protocol::keys::SecretKey>(&third.home.path().join("relay/relay.key"))?;
        let fingerprint = key.id().to_string();
        own(&format!("{json}use {address}"), &mut page)?;
        own(&format!("{json}use {address} --relay-key 1234"), &mut page)?;
        own(&format!("{json}use {address} --relay-key {}", "0".repeat(20)), &mut page)?;
        own(&format!("{json}use {address} --relay-key {}", &fingerprint[..20]), &mut page)?;
        own(&format!("{json}nodes"), &mut page)?;
        own(&format!("{json}pair new --detach"), &mut page)?;
        serving.signal(libc::SIGTERM);
        page.ended("relay", &line, serving)?;
    }
    page.head("somebody who only knows the fleet cannot make its relay known");
    let (maker, _) = stage.pair_new(&[])?;
    drop(maker);
    page.relay(&stage, &format!("use {} --relay-key {}", stage.url, "0".repeat(64)))?;
    page.head("a home whose fleet is kept elsewhere makes no other");
    let _ = std::fs::remove_file(owner.home.path().join("operator/fleet.key"));
    own("init", &mut page)?;

    page.head("scripts for shells");
    for shell in ["bash", "--json bash"] {
        let (json, shell) = shell.split_once(' ').map_or(("", shell), |(json, shell)| (json, shell));
        let line = format!("{json} completions {shell}");
        let ran = stage.run(&line.split_whitespace().collect::<Vec<_>>())?.ok()?;
        assert!(ran.stdout.contains("complete -F _relay"), "{}", ran.stdout);
        // The script itself is the library's, and long.
        page.write("relay", line.trim(), &Ran { stdout: "… a script\n".into(), ..ran });
    }
    page.done();
    Ok(())
}
