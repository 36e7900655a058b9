//! Operators: who they are, what they may, and how it is taken back.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use outhaul_protocol::keys::{PublicKey, SecretKey};
use outhaul_protocol::objects::{Grant, Rights};
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::Time;
use outhaul_tests::process::{Ran, binary};
use outhaul_tests::stage::{Stage, command, pack};

use super::page::{Page, word};

/// Somebody else, with a home of their own.
struct Colleague(tempfile::TempDir);

impl Colleague {
    fn new(page: &mut Page, shown: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        page.tidy.replace(word(home.path()), shown);
        Ok(Colleague(home))
    }

    fn types(&self, page: &mut Page, line: &str) -> Result<Ran> {
        page.typed(command(&binary("relay")?, self.0.path()), "relay", line, None)
    }

    fn both(&self, page: &mut Page, line: &str) -> Result<Ran> {
        self.types(page, line)?;
        self.types(page, &format!("--json {line}"))
    }

    fn key(&self, page: &mut Page) -> Result<String> {
        let shown = self.types(page, "--json operator show")?.ok()?.json()?;
        Ok(shown["key"].as_str().context("a key")?.to_owned())
    }
}

/// A grant as its owner would have signed it once; it is over now.
fn old_grant(stage: &Stage, holder: &str) -> Result<String> {
    let fleet: SecretKey = outhaul_home::read_secret_key(&stage.home.path().join("operator/fleet.key"))?;
    let holder: PublicKey = holder.parse()?;
    let all = || vec!["*".to_owned()];
    let (iss, aud, cti) = (fleet.id(), fleet.id(), [7; 16]);
    let grant = Grant {
        iss,
        aud,
        cti,
        holder,
        iat: Time(1_600_000_000),
        exp: Time(1_700_000_000),
        commands: all(),
        nodes: all(),
        evidence_channel: false,
        rights: Rights::default(),
        delegate: false,
        holder_kind: None,
    };
    let signed = STANDARD.encode(Signed::sign(&fleet, &grant).bytes());
    Ok(text(&serde_json::json!({"fleet": fleet.public().to_string(), "chain": [signed]})))
}

fn text(json: &serde_json::Value) -> String {
    format!("outhaul-grant-1.{}", URL_SAFE_NO_PAD.encode(json.to_string()))
}

/// The same grant with one bit of its signature turned.
fn damaged(word: &str) -> Result<String> {
    let body = word.trim().strip_prefix("outhaul-grant-1.").context("a grant")?;
    let mut json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body)?)?;
    let mut grant = STANDARD.decode(json["chain"][0].as_str().context("a link")?)?;
    *grant.last_mut().context("a signature")? ^= 1;
    json["chain"][0] = STANDARD.encode(grant).into();
    Ok(text(&json))
}

#[test]
fn what_an_operator_may_and_may_not() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let _other = stage.node("bench-2")?;
    let mut page = Page::of("operators", &stage);
    page.head("the owner");
    page.both(&stage, "operator show")?;
    page.both(&stage, "operator grants")?;

    page.head("a colleague asks to join");
    let colleague = Colleague::new(&mut page, "/home/cleo")?;
    colleague.types(&mut page, "operator show")?;
    let key = colleague.key(&mut page)?;
    for line in [
        "operator add Cleo 12",
        "operator add cleo 12",
        &format!("operator add cleo {key}"),
        "operator grant bob --commands gpu.* --nodes * --for 30d",
    ] {
        page.both(&stage, line)?;
    }
    for what in [
        "--commands gpu --nodes bench-1 --for 30d",
        "--commands gpu.* --nodes site= --for 30d",
        "--commands gpu.*",
        "--commands gpu.* --nodes * --for soon",
    ] {
        page.both(&stage, &format!("operator grant cleo {what}"))?;
    }
    let grant = "operator grant cleo --commands 'system.*,gpu.*' --nodes bench-1 --for 30d";
    let granted = page.relay(&stage, grant)?.ok()?.stdout.trim().to_owned();

    page.head("accepting");
    for (what, given) in
        [("half of it", granted[..granted.len() / 2].to_owned()), ("damaged", damaged(&granted)?), ("long over", old_grant(&stage, &key)?)]
    {
        page.head(&format!("accepting: {what}"));
        page.typed(command(&binary("relay")?, colleague.0.path()), "relay", "operator accept -", Some(&given))?;
        page.typed(command(&binary("relay")?, colleague.0.path()), "relay", "--json operator accept -", Some(&given))?;
    }
    page.head("accepting: somebody else's");
    page.relay_with(&stage, "operator accept -", &granted)?;
    page.head("accepting: as it was given");
    for json in ["", "--json "] {
        page.typed(command(&binary("relay")?, colleague.0.path()), "relay", &format!("{json}operator accept -"), Some(&granted))?;
    }
    colleague.both(&mut page, "operator show")?;
    colleague.both(&mut page, "operator grants")?;

    page.head("what the grant allows, and what not");
    let thermal = word(&pack("thermal"));
    colleague.types(&mut page, "nodes")?;
    colleague.types(&mut page, "ping bench-1")?;
    for line in [
        "invoke bench-1 camera.list",
        "invoke bench-2 gpu.list",
        "run bench-2 -- uname",
        "pack list bench-1",
        "nodes rename bench-1 mine",
        "nodes remove bench-1",
    ] {
        colleague.both(&mut page, line)?;
    }
    for line in [format!("pack deploy {thermal} bench-1").as_str(), "pair new", "operator revoke cleo", "nodes label bench-1 site=west"] {
        colleague.both(&mut page, line)?;
    }
    colleague.both(&mut page, &format!("operator grant {key} --commands * --nodes * --for 1d"))?;
    colleague.types(&mut page, "pair new --detach")?;

    page.head("the owner takes it back");
    page.both(&stage, "operator revoke nobody")?;
    page.both(&stage, "operator grants")?;
    page.relay(&stage, "operator revoke cleo")?;
    page.relay(&stage, "operator grants")?;
    page.relay(&stage, "operator add anna 00")?;
    let own = stage.run(&["--json", "operator", "show"])?.ok()?.json()?;
    page.both(&stage, &format!("operator revoke {}", own["key"].as_str().context("a key")?))?;
    page.relay(&stage, &format!("--json operator revoke {key}"))?;
    for line in ["nodes", "invoke bench-1 gpu.list", "run bench-1 -- uname", "pair list"] {
        colleague.both(&mut page, line)?;
    }
    page.head("another, for programs to read");
    let other = SecretKey::generate().public();
    page.relay(&stage, &format!("--json operator grant {other} --commands 'gpu.*' --nodes '*' --for 30d --packs --delegate"))?;
    page.done();
    Ok(())
}
