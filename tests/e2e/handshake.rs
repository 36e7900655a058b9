//! The first bytes of a link, between the real programs: who shows a wrong key, repeats what it recorded, or is nobody
//! here, is turned away by its own code, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use outhaul_agent::pins::Membership;
use outhaul_home::Home;
use outhaul_link::accept::{AcceptError, Acceptor};
use outhaul_link::dial::{self, Identity, Target};
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::credential::Chain;
use outhaul_protocol::frame::Role;
use outhaul_protocol::keys::SecretKey;
use outhaul_relay::operator::Room;
use outhaul_tests::process::PATIENCE;
use outhaul_tests::stage::{Node, Stage};
use outhaul_tests::wire::{Carried, Wire};

use crate::hostile::runtime;

#[test]
fn an_impostor_at_the_relays_address_is_shown_nothing() -> Result<()> {
    let (runtime, mut stage) = (runtime()?, Stage::start()?);
    let mut node = stage.node("bench-1")?;
    let listen = stage.listen();
    stage.relay.take().context("runs")?.stop()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(&listen))?;
    let (shown, seen) = std::sync::mpsc::channel();
    let impostor = runtime.spawn(async move {
        let (acceptor, key) = (Acceptor { tls: None, origins: Vec::new() }, SecretKey::generate());
        while let Ok((tcp, _)) = listener.accept().await {
            // What it gets out of a peer that has seen its key: nothing, the peer hangs up.
            let hung_up = matches!(acceptor.accept(tcp, &key).await, Err(AcceptError::Ended(_)));
            let _ = shown.send(hung_up);
        }
    });
    node.agent()?.wait_until("the wrong key", |line| line.text().contains("cannot connect") && line.text().contains("code=bad_key"))?;
    for command in [&["nodes"][..], &["ping", "bench-1"], &["pair", "new"]] {
        let ran = stage.run(&[&["--json", "--relay", &stage.url], command].concat())?.exits(7)?;
        let error = &ran.json()?["error"];
        ensure!(error["code"] == "bad_key" && error["hint"].as_str().is_some_and(|hint| hint.contains("relay use")), "{error}");
    }
    // The agent once at least, and each command.
    for _ in 0..4 {
        ensure!(seen.recv_timeout(PATIENCE)?, "somebody went on although the key was wrong");
    }
    // The true relay comes back, and the agent with it.
    impostor.abort();
    let _ = runtime.block_on(impostor);
    stage.start_relay(&listen)?;
    node.agent()?.wait_for("connected")?;
    stage.run(&["ping", "bench-1"])?.ok()?;
    Ok(())
}

/// Sends a peer's first three messages again: upgrade, hello, proof. It waits for an answer after each, until the relay
/// hangs up; gives the last.
fn replay(address: &str, carried: &Carried) -> Result<Vec<u8>> {
    let ends: Vec<usize> = carried.marks.iter().filter(|(up, _)| *up).map(|(_, after)| *after).collect();
    let &[upgrade, hello, proof, ..] = ends.as_slice() else { anyhow::bail!("no whole handshake was recorded") };
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 4096];
    for message in [0..upgrade, upgrade..hello] {
        socket.write_all(&carried.up[message])?;
        ensure!(socket.read(&mut answer)? > 0, "the relay hung up early");
    }
    socket.write_all(&carried.up[hello..proof])?;
    let mut last = Vec::new();
    socket.read_to_end(&mut last)?;
    Ok(last)
}

#[test]
fn a_recorded_hello_and_proof_let_nobody_in_again() -> Result<()> {
    let (runtime, stage) = (runtime()?, Stage::start()?);
    let wire = runtime.block_on(Wire::to(&stage.listen()))?;
    let (maker, code) = stage.pair_new(&[])?;
    let mut node = Node::new("bench-1")?;
    node.run(&["pair", "--relay", &wire.url(), "--code", &code, "--name", "bench-1"])?.ok()?;
    ensure!(maker.finish()?.0.success());
    node.start()?;
    let before = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    let of_node = wire.carried();
    stage.run(&["--relay", &wire.url(), "nodes"])?.ok()?;
    for carried in [of_node, wire.carried()] {
        let answer = replay(&stage.listen(), &carried)?;
        let refused = answer.windows(13).any(|window| window == b"bad_signature");
        ensure!(refused, "{}", String::from_utf8_lossy(&answer));
    }
    // The node's own session is untouched.
    let after = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    ensure!(after[0]["connected_at"] == before[0]["connected_at"] && after[0]["status"] == "online", "{after}");
    Ok(())
}

/// How the relay of a stage answers a peer; the code, or `welcome`.
fn knock(stage: &Stage, role: Role, key: &SecretKey, credential: Vec<u8>) -> Result<&'static str> {
    let target = Target { url: RelayUrl::parse(&stage.url)?, roots: Roots::default(), allow_plaintext: false };
    let identity = Identity { role, key, credential: Blob(credential), lookup: None };
    let answer = runtime()?.block_on(dial::dial(&target, identity, |_| Ok(())));
    Ok(answer.map_or_else(|failure| failure.code.as_str(), |_| "welcome"))
}

/// A machine's key and the certificate it shows.
fn papers(node: &Node) -> Result<(SecretKey, Vec<u8>)> {
    let membership = Membership::load(&Home::find(Some(node.home.path().to_owned()))?)?;
    Ok((outhaul_home::read_secret_key(&node.file("agent.key"))?, membership.certificate_bytes()))
}

#[test]
fn who_is_nobody_here_is_turned_away_by_name() -> Result<()> {
    let (mut stage, elsewhere) = (Stage::start()?, Stage::start()?);
    let (here, there) = (stage.paired("here")?, elsewhere.paired("there")?);
    let (key, certificate) = papers(&here)?;
    let (foreign, foreign_certificate) = papers(&there)?;
    let chain = Chain { grants: Room::of(&Home::find(Some(stage.home.path().to_owned()))?).chain()? }.encode();
    let stranger = SecretKey::generate();
    let rows = [
        (Role::Node, &key, certificate.clone(), "welcome"),
        (Role::Node, &foreign, foreign_certificate, "not_paired"),
        // Somebody else's certificate is worth nothing without the key.
        (Role::Node, &stranger, certificate.clone(), "not_paired"),
        (Role::Node, &stranger, b"\xa0".to_vec(), "not_paired"),
        (Role::Operator, &stranger, chain, "not_granted"),
        (Role::Operator, &stranger, Vec::new(), "not_granted"),
        (Role::Guest, &stranger, Vec::new(), "welcome"),
    ];
    for (role, key, credential, wanted) in rows {
        let found = knock(&stage, role, key, credential)?;
        ensure!(found == wanted, "{role:?} with key {:?} heard {found}, not {wanted}", key.id());
        if wanted != "welcome" {
            stage.relay()?.wait_for("refused a peer")?;
        }
    }
    // Removed by its operator, its own papers let it in no more.
    stage.run(&["nodes", "remove", "here"])?.ok()?;
    ensure!(knock(&stage, Role::Node, &key, certificate)? == "revoked");
    let log = stage.relay()?.wait_for("refused a peer")?;
    ensure!(log.text().contains("code=revoked"), "{}", log.text());
    Ok(())
}

#[test]
fn a_machine_led_to_another_fleets_relay_shows_it_nothing_and_keeps_trying() -> Result<()> {
    let (stage, elsewhere) = (Stage::start()?, Stage::start()?);
    let mut node = stage.paired("bench-1")?;
    let config = std::fs::read_to_string(node.file("agent.toml"))?;
    std::fs::write(node.file("agent.toml"), config.replace(&stage.url, &elsewhere.url))?;
    let mut agent = outhaul_tests::Process::start(node.command(&["run"])?)?;
    let line = agent.wait_for("cannot connect")?;
    ensure!(line.text().contains("code=bad_key"), "{}", line.text());
    agent.stop()?;
    ensure!(elsewhere.run(&["--json", "nodes"])?.ok()?.json()?.as_array().is_some_and(Vec::is_empty));
    std::fs::write(node.file("agent.toml"), config)?;
    node.start()?;
    stage.run(&["ping", "bench-1"])?.ok()?;
    Ok(())
}
