//! Operators and their grants: what one may do, on which nodes, and that taking it back works at once.

use anyhow::{Context, Result};
use outhaul_tests::process::{Ran, binary};
use outhaul_tests::stage::{Stage, command};

/// Somebody else with a key of their own.
struct Guest {
    home: tempfile::TempDir,
    url: String,
}

impl Guest {
    fn new(stage: &Stage) -> Result<Self> {
        Ok(Guest { home: tempfile::tempdir()?, url: stage.url.clone() })
    }

    fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let mut run = command(&binary("relay")?, self.home.path());
        run.args(["--relay", &self.url]).args(arguments);
        Ok(Ran::of(run.output()?))
    }

    /// Gets a grant from the owner.
    fn granted(&self, stage: &Stage, extra: &[&str]) -> Result<()> {
        let key = self.run(&["--json", "operator", "show"])?.ok()?.json()?;
        let key = key["key"].as_str().context("a key")?.to_owned();
        stage.run(&["operator", "add", "guest", &key])?.ok()?;
        let made = stage.run(&[&["--json", "operator", "grant", "guest", "--for", "1d"], extra].concat())?.ok()?.json()?;
        let text = made["grant"].as_str().context("a grant to carry over")?;
        self.run(&["operator", "accept", text])?.ok()?;
        Ok(())
    }
}

#[test]
fn a_grant_allows_its_commands_on_its_nodes_and_nothing_else() -> Result<()> {
    let stage = Stage::start()?;
    let (_one, _two) = (stage.node("one")?, stage.node("two")?);
    let guest = Guest::new(&stage)?;
    guest.granted(&stage, &["--commands", "system.info", "--nodes", "one"])?;
    guest.run(&["invoke", "one", "system.info"])?.ok()?;
    guest.run(&["ping", "one"])?.ok()?;
    for denied in
        [&["invoke", "one", "gpu.list"][..], &["invoke", "two", "system.info"], &["run", "one", "--", "id"], &["pack", "list", "one"]]
    {
        let ran = guest.run(&[&["--json"], denied].concat())?;
        assert!(ran.code == 3 || ran.code == 255, "{denied:?} ended {}: {}{}", ran.code, ran.stdout, ran.stderr);
        assert_eq!(ran.json()?["error"]["code"], "not_granted", "{denied:?}");
    }
    Ok(())
}

#[test]
fn a_star_never_means_packs() -> Result<()> {
    let stage = Stage::start()?;
    let _one = stage.node("one")?;
    let guest = Guest::new(&stage)?;
    guest.granted(&stage, &["--commands", "*", "--nodes", "*"])?;
    guest.run(&["invoke", "one", "system.info"])?.ok()?;
    let pack = outhaul_tests::stage::pack("thermal");
    let ran = guest.run(&["--json", "pack", "deploy", pack.to_str().unwrap(), "one"])?;
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    Ok(())
}

#[test]
fn who_may_ship_packs_does_not_say_whose() -> Result<()> {
    let stage = Stage::start()?;
    let _one = stage.node("one")?;
    let guest = Guest::new(&stage)?;
    guest.granted(&stage, &["--commands", "*", "--nodes", "*", "--packs"])?;
    let thermal = guest.home.path().join("thermal.wasm");
    std::fs::copy(outhaul_tests::stage::pack("thermal"), &thermal)?;
    let thermal = thermal.to_str().unwrap();
    let ran = guest.run(&["--json", "pack", "deploy", thermal, "one"])?.exits(7)?;
    assert_eq!(ran.json()?[0]["error"]["code"], "bad_key", "{}", ran.stdout);
    let own = guest.run(&["--json", "publisher", "show"])?.ok()?.json()?;
    let trust = guest.run(&["--json", "publisher", "trust", own["key"].as_str().unwrap(), "one"])?.exits(3)?;
    assert_eq!(trust.json()?["nodes"][0]["error"]["code"], "not_granted", "{}", trust.stdout);
    // What the owner signed, the guest may ship.
    stage.run(&["pack", "sign", thermal])?.ok()?;
    guest.run(&["pack", "verify", thermal])?.ok()?;
    guest.run(&["pack", "deploy", thermal, "one"])?.ok()?;
    Ok(())
}

#[test]
fn a_stranger_gets_nothing() -> Result<()> {
    let stage = Stage::start()?;
    let _one = stage.node("one")?;
    let stranger = Guest::new(&stage)?;
    let ran = stranger.run(&["nodes"])?;
    assert_ne!(ran.code, 0);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    Ok(())
}

#[test]
fn a_revoked_grant_is_worth_nothing_at_once() -> Result<()> {
    let stage = Stage::start()?;
    let _one = stage.node("one")?;
    let guest = Guest::new(&stage)?;
    guest.granted(&stage, &["--commands", "*", "--nodes", "*"])?;
    guest.run(&["invoke", "one", "system.info"])?.ok()?;
    let grants = stage.run(&["--json", "operator", "grants"])?.ok()?.json()?;
    let listed = grants.as_array().context("a list")?.iter().find(|grant| grant["holder"] == "guest" || grant["name"] == "guest");
    let id = listed.and_then(|grant| grant["id"].as_str()).with_context(|| format!("the guest's grant: {grants}"))?.to_owned();
    stage.run(&["operator", "revoke", &id])?.ok()?;
    let ran = guest.run(&["--json", "invoke", "one", "system.info"])?;
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    // The owner is not touched.
    stage.run(&["invoke", "one", "system.info"])?.ok()?;
    Ok(())
}
