//! The power `http` on a real machine: granted by command, over the system's TLS, with a secret that is seen where it belongs and
//! nowhere else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};
use outhaul_tests::process::PATIENCE;
use outhaul_tests::stage::{Node, Stage, pack};
use outhaul_tests::{Process, Ran};
use serde_json::{Value, json};

const SECRET: &str = "hunter2-do-not-tell";

/// A web server that answers every request with `hello` and says what it heard.
fn server() -> Result<(String, Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (tell, heard) = sync_channel(16);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(head) = stream.map_err(anyhow::Error::from).and_then(answer) else { continue };
            if tell.send(head).is_err() {
                return;
            }
        }
    });
    Ok((origin, heard))
}

fn answer(mut stream: TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = String::new();
    let mut lines = BufReader::new(stream.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        anyhow::ensure!(lines.read_line(&mut head)? > 0, "it left early");
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")?;
    Ok(head.to_lowercase())
}

fn fetch(stage: &Stage, scheme: &str, authority: &str, path: &str) -> Result<Value> {
    let request = json!({ "method": "GET", "scheme": scheme, "authority": authority, "path": path, "headers": [], "body": null });
    let params = json!({ "request": request, "redirects": 0 }).to_string();
    stage.run(&["--json", "invoke", "bench-1", "web.fetch", "--params", &params])?.json()
}

fn deploy(stage: &Stage) -> Result<()> {
    let path = pack("fixtures/web");
    stage.run(&["pack", "deploy", path.to_str().context("a path")?, "bench-1"])?.ok()?;
    Ok(())
}

/// `agent secret set NAME`, with the value on standard input.
fn set_secret(node: &Node, name: &str, value: &str) -> Result<Ran> {
    let mut set = node.command(&["secret", "set", name])?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    set.stdin.take().context("piped")?.write_all(value.as_bytes())?;
    Ran::of(set.wait_with_output()?).ok()
}

#[test]
fn a_secret_is_set_bound_and_used_and_the_pack_never_sees_it() -> Result<()> {
    let (origin, heard) = server()?;
    let authority = origin.trim_start_matches("http://");
    let stage = Stage::start()?;
    let mut node = stage.paired("bench-1")?;
    let mut agent = node.command(&["run"])?;
    agent.env("RUST_LOG", "trace");
    let mut agent = Process::start(agent)?;
    agent.wait_for("connected")?;
    deploy(&stage)?;
    let refused = fetch(&stage, "http", authority, "/x")?;
    assert_eq!(refused["error"]["code"], "denied");
    assert!(refused["error"]["message"].as_str().unwrap().ends_with(&format!("agent allow web http {origin}")), "{refused}");

    assert!(set_secret(&node, "api_token", &format!("{SECRET}\n"))?.stdout.contains("api_token: set"));
    let allowed = node.run(&["allow", "web", "http", &origin, "--header", "authorization=Bearer {secret:api_token}"])?.ok()?;
    let answered = fetch(&stage, "http", authority, "/x")?;
    assert_eq!(answered["result"]["body"], "hello", "{answered}");
    let head = heard.recv_timeout(PATIENCE)?;
    assert!(head.starts_with("get /x http/1.1\r\n") && head.contains(&format!("\r\nauthorization: bearer {SECRET}\r\n")), "{head}");

    let shown = node.run(&["policy", "show"])?.ok()?;
    assert!(shown.stdout.contains("authorization added for"), "{}", shown.stdout);
    let listed = node.run(&["--json", "secret", "list"])?.ok()?;
    assert_eq!(listed.json()?["secrets"][0]["name"], "api_token");
    node.run(&["deny", "web", "http", &origin])?.ok()?;
    assert_eq!(fetch(&stage, "http", authority, "/x")?["error"]["code"], "denied");
    assert!(node.run(&["secret", "remove", "api_token"])?.ok()?.stdout.contains("removed"));
    let (_, logs) = agent.stop()?;
    let said = format!("{logs:?}{answered}{}{}{}{}", allowed.stdout, allowed.stderr, shown.stdout, listed.stdout);
    assert!(said.contains("TRACE") && !said.contains(SECRET), "the secret was said");
    assert!(!std::fs::read_to_string(node.file("agent.toml"))?.contains(SECRET));
    node.stop()
}

#[test]
fn tls_believes_the_systems_roots_and_nobody_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(path("cert.pem"), made.cert.pem())?;
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem())?;
    // A relay answers a plain question about its health, and this one does so over TLS.
    let tls = Stage::start_with(&["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")])?;
    let authority = tls.listen();
    let answered = ask_over_tls(&path("cert.pem"), &authority)?;
    assert_eq!(answered["result"]["status"], 200, "{answered}");
    // Of the same name, and somebody else's.
    std::fs::write(path("other.pem"), rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?.cert.pem())?;
    let refused = ask_over_tls(&path("other.pem"), &authority)?;
    assert_eq!(refused["error"]["message"], "TLS-certificate-error", "{refused}");
    Ok(())
}

/// What a machine with these roots gets of a relay's health.
fn ask_over_tls(roots: &str, authority: &str) -> Result<Value> {
    let stage = Stage::start()?;
    let node = stage.paired("bench-1")?;
    let mut agent = node.command(&["run"])?;
    agent.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
    let mut agent = Process::start(agent)?;
    agent.wait_for("connected")?;
    deploy(&stage)?;
    node.run(&["allow", "web", "http", authority])?.ok()?;
    let answered = fetch(&stage, "https", authority, "/healthz")?;
    agent.stop()?;
    Ok(answered)
}

#[test]
fn a_secret_is_never_taken_from_the_command_line() -> Result<()> {
    let node = Node::new("bench-1")?;
    let ran = node.run(&["secret", "set", "token", SECRET])?.exits(2)?;
    assert!(!ran.stdout.contains("set"));
    node.run(&["secret", "set", "../agent"])?.exits(2)?;
    assert_eq!(node.run(&["secret", "set", "token"])?.code, 2, "nothing on standard input");
    let mut binary = Vec::new();
    std::fs::File::open("/dev/urandom")?.take(70_000).read_to_end(&mut binary)?;
    let mut set = node.command(&["secret", "set", "large"])?.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It stops reading when it has seen too much.
    let _ = set.stdin.take().context("piped")?.write_all(&binary);
    assert_eq!(Ran::of(set.wait_with_output()?).code, 2);
    Ok(())
}
