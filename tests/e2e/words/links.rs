//! The way to a relay: nobody there, somebody else there, certificates that do not fit, relays of another kind.

use std::path::Path;

use anyhow::{Context, Result};
use outhaul_protocol::keys::SecretKey;
use outhaul_tests::stage::{Node, Stage};

use super::fake::Fake;
use super::page::{Page, word};

/// What is wrong with a relay's certificate.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Expired,
    OfAnAuthority,
}

/// Certificate and key for `localhost` in two files.
fn certificate(folder: &Path, flaw: Flaw) -> Result<(String, String)> {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()])?;
    if flaw == Flaw::Expired {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2020, 2, 1));
    }
    if flaw == Flaw::OfAnAuthority {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let key = rcgen::KeyPair::generate()?;
    let made = params.self_signed(&key)?;
    let (chain, private) = (folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&chain, made.pem())?;
    std::fs::write(&private, key.serialize_pem())?;
    Ok((word(&chain), word(&private)))
}

#[test]
fn why_a_relay_is_not_reached() -> Result<()> {
    let mut stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    let mut page = Page::of("links", &stage);
    page.head("nobody there, and lines that name no relay");
    page.both(&stage, "--relay ws://127.0.0.1:1 nodes")?;
    page.both(&stage, "--relay ws://127.0.0.1:1 run bench-1 -- uname")?;
    for url in ["127.0.0.1:8765", "http://127.0.0.1:8765", "ws://", "ws://192.0.2.1:8765", "ws://127.0.0.1:99999"] {
        page.both(&stage, &format!("--relay {url} nodes"))?;
    }
    page.both(&stage, "--relay ws://127.0.0.1:1 pair new")?;
    // It takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    page.both(&stage, &format!("--relay ws://{} --timeout 200ms nodes", silent.local_addr()?))?;
    page.head("no TLS there");
    let chain = certificate(stage.home.path(), Flaw::None)?.0;
    page.relay(&stage, &format!("--relay {} --ca {chain} nodes", stage.url.replace("ws://", "wss://")))?;
    page.relay(&stage, "--relay wss://localhost:1 --ca none.pem nodes")?;
    certificates(&mut page, &stage)?;

    page.head("a relay of another fleet");
    let other = Stage::start()?;
    page.both(&stage, &format!("--relay {} nodes", other.url))?;
    page.relay(&stage, &format!("use {}", other.url))?;
    node.stop()?;
    let toml = std::fs::read_to_string(node.file("agent.toml"))?;
    std::fs::write(node.file("agent.toml"), toml.replace(&stage.url, &other.url))?;
    let agent = page.begin(node.command(&[])?, "run")?;
    wait_and_stop(&mut page, agent, "cannot connect")?;
    std::fs::write(node.file("agent.toml"), toml)?;

    relays_of_another_kind(&mut page, &stage)?;
    page.head("the relay has stopped");
    stage.relay.take().context("it runs")?.stop()?;
    page.both(&stage, "nodes")?;
    page.both(&stage, "operator revoke 00000000000000000000000000000000")?;
    let agent = page.begin(node.command(&[])?, "run")?;
    wait_and_stop(&mut page, agent, "cannot connect")?;
    page.done();
    Ok(())
}

fn wait_and_stop(page: &mut Page, mut agent: outhaul_tests::Process, wanted: &str) -> Result<()> {
    agent.wait_for(wanted)?;
    agent.signal(libc::SIGTERM);
    page.ended("agent", "run", agent).map(drop)
}

fn certificates(page: &mut Page, stage: &Stage) -> Result<()> {
    for (what, flaw) in [("as it should be", Flaw::None), ("expired", Flaw::Expired), ("an authority's own", Flaw::OfAnAuthority)] {
        let folder = tempfile::tempdir()?;
        page.tidy.replace(word(folder.path()), "/etc/outhaul");
        let (chain, key) = certificate(folder.path(), flaw)?;
        let tls = Stage::start_with(&["--tls-cert", &chain, "--tls-key", &key])?;
        let port = tls.url.rsplit(':').next().context("a port")?.to_owned();
        page.head(&format!("a certificate for localhost, {what}"));
        page.relay(stage, &format!("--ca {chain} use wss://localhost:{port}"))?;
        if flaw == Flaw::None {
            page.relay(stage, &format!("--ca {chain} use wss://127.0.0.1:{port}"))?;
            page.relay(stage, &format!("--relay ws://localhost:{port} nodes"))?;
            let stranger = certificate(stage.home.path(), Flaw::None)?.0;
            page.relay(stage, &format!("--ca {stranger} use wss://localhost:{port}"))?;
            let guest = Node::new("guest")?;
            page.agent(&guest, &format!("pair --relay wss://localhost:{port} --code 482913 --ca {stranger}"))?;
        }
    }
    Ok(())
}

/// Relays that hold the fleet's relay key and say what this version does not expect.
fn relays_of_another_kind(page: &mut Page, stage: &Stage) -> Result<()> {
    let key = || -> Result<SecretKey> { Ok(outhaul_home::read_secret_key(&stage.home.path().join("relay/relay.key"))?) };
    let guest = Node::new("guest")?;
    for (code, message) in [
        ("version", "this relay speaks 7–9, the peer 1–1"),
        ("on_holiday", "come back in spring"),
        ("busy", "too many peers"),
        ("internal", ""),
    ] {
        page.head(&format!("a relay that refuses: {code}"));
        let fake = Fake::refusing(key()?, code, message)?;
        page.both(stage, &format!("--relay {} nodes", fake.url))?;
        page.agent(&guest, &format!("pair --relay {} --code 482913", fake.url))?;
    }
    page.head("a relay that babbles");
    let fake = Fake::saying(key()?, b"babble".to_vec())?;
    page.both(stage, &format!("--relay {} nodes", fake.url))?;
    page.agent(&guest, &format!("pair --relay {} --code 482913", fake.url))?;
    Ok(())
}
