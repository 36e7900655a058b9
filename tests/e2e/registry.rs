//! Packs in OCI registries: a real one, read and written by another tool's library too, and ones that lie.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use outhaul_protocol::keys::sha256;
use outhaul_tests::process::{Process, Ran, binary};
use outhaul_tests::stage::{Stage, command, pack};
use outhaul_tests::tools::{find, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Debian's `docker-registry` on a free port; it is of before the referrers API.
struct Registry {
    _process: Process,
    _folder: TempDir,
    host: String,
}

impl Registry {
    /// None where it is not installed, which is told.
    fn start(test: &str) -> Result<Option<Self>> {
        let program = match find("docker-registry", "docker-registry") {
            Ok(program) => program,
            Err(missing) => return skip(test, &missing).map(|()| None),
        };
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.yml");
        let text = json!({
            "version": 0.1,
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": "127.0.0.1:0"},
        });
        // YAML takes JSON.
        std::fs::write(&config, text.to_string())?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&config);
        let mut process = Process::start(command)?;
        let line = process.wait_for("listening on ")?.text().to_owned();
        let host = line.split("listening on ").nth(1).and_then(|rest| rest.split('"').next()).context("an address")?.to_owned();
        Ok(Some(Registry { _process: process, _folder: folder, host }))
    }

    fn place(&self, what: &str) -> String {
        format!("oci://{}/{what}", self.host)
    }
}

/// A person with a folder and a home of their own.
struct Desk {
    folder: TempDir,
    home: TempDir,
}

impl Desk {
    fn new() -> Result<Self> {
        let desk = Desk { folder: tempfile::tempdir()?, home: tempfile::tempdir()? };
        std::fs::copy(pack("thermal"), desk.folder.path().join("thermal.wasm"))?;
        Ok(desk)
    }

    fn relay(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = command(&binary("relay")?, self.home.path());
        // Nobody's credentials.
        command.env("DOCKER_CONFIG", self.home.path());
        Ok(Ran::of(command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output()?))
    }

    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.path().join(name);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    }
}

#[test]
fn a_pack_goes_to_a_registry_and_comes_back_with_its_signature() -> Result<()> {
    let Some(registry) = Registry::start("packs in a registry")? else { return Ok(()) };
    let (author, user) = (Desk::new()?, Desk::new()?);
    let place = registry.place("packs/thermal:0.1.0");
    let pushed = author.relay(&["pack", "push", "thermal.wasm", &place])?.ok()?;
    let exact = pushed.stdout.trim().to_owned();
    assert!(exact.starts_with(&format!("{place}@sha256:")), "{exact}");

    // The component that lies there is the same, and gets its signature.
    user.relay(&["pack", "pull", &place])?.ok()?;
    assert_eq!(user.file("thermal.wasm")?, author.file("thermal.wasm")?);
    let verified = user.relay(&["pack", "verify", "thermal.wasm"])?.exits(7)?;
    assert!(verified.stderr.contains("who is not known here"), "{}", verified.stderr);
    let publisher = author.relay(&["--json", "publisher", "show"])?.ok()?.json()?;
    let key = publisher["key"].as_str().context("a key")?.to_owned();
    user.relay(&["pack", "verify", "thermal.wasm", "--publisher", &key])?.ok()?;

    // Pushed again it is the same artifact; by its digest it is found too.
    let again = author.relay(&["--json", "pack", "push", "thermal.wasm", &place])?.ok()?.json()?;
    assert_eq!(again["exact"], json!(exact));
    let digest = again["digest"].as_str().context("a digest")?;
    let by_digest = registry.place(&format!("packs/thermal@{digest}"));
    let pulled = user.relay(&["--json", "pack", "pull", &by_digest, "--out", "again.wasm"])?.ok()?.json()?;
    assert_eq!((&pulled["signed"], &pulled["name"]), (&json!(true), &json!("thermal")));

    // What lies there and is something else stays.
    std::fs::write(user.folder.path().join("thermal.wasm"), "mine")?;
    let kept = user.relay(&["pack", "pull", &place])?.exits(2)?;
    assert!(kept.stderr.contains("`--out FILE` writes elsewhere"), "{}", kept.stderr);
    assert_eq!(user.file("thermal.wasm")?, b"mine");
    user.relay(&["pack", "pull", &place, "--force"])?.ok()?;
    assert_eq!(user.file("thermal.wasm")?, author.file("thermal.wasm")?);

    let missing = user.relay(&["pack", "pull", &registry.place("packs/thermal:9")])?.exits(6)?;
    assert!(missing.stderr.contains("is not there"), "{}", missing.stderr);
    Ok(())
}

#[test]
fn two_publishers_sign_one_pack_and_everybody_finds_the_one_they_know() -> Result<()> {
    let Some(registry) = Registry::start("two signatures in a registry")? else { return Ok(()) };
    let (first, second) = (Desk::new()?, Desk::new()?);
    let place = registry.place("thermal:1");
    for author in [&first, &second] {
        author.relay(&["pack", "push", "thermal.wasm", &place])?.ok()?;
    }
    for author in [&first, &second] {
        author.relay(&["pack", "pull", &place, "--out", "pulled.wasm"])?.ok()?;
        author.relay(&["pack", "verify", "pulled.wasm"])?.ok()?;
    }
    Ok(())
}

#[test]
fn a_node_gets_a_pack_straight_from_a_registry() -> Result<()> {
    let Some(registry) = Registry::start("deploying from a registry")? else { return Ok(()) };
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let place = registry.place("thermal:0.1.0");
    stage.run(&["pack", "push", pack("thermal").to_str().context("a path")?, &place])?.ok()?;
    stage.run(&["pack", "deploy", &place, "bench-1"])?.ok()?;
    stage.run(&["invoke", "bench-1", "thermal.summary"])?.ok()?;
    Ok(())
}

/// The library that `wkg` is built on reads what we push, and we what it pushes.
#[test]
fn other_tools_read_ours_and_we_theirs() -> Result<()> {
    use oci_wasm::{WasmClient, WasmConfig};
    use oci_wasm_client::client::{ClientConfig, ClientProtocol};
    use oci_wasm_client::secrets::RegistryAuth::Anonymous;
    use oci_wasm_client::{Client, Reference};

    let Some(registry) = Registry::start("another tool's artifacts")? else { return Ok(()) };
    let desk = Desk::new()?;
    let component = desk.file("thermal.wasm")?;
    outhaul_link::tls::choose_provider();
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let peer = WasmClient::new(Client::try_from(config)?);
    let at = |tag: &str| format!("{}/thermal:{tag}", registry.host).parse::<Reference>().context("a reference");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    desk.relay(&["pack", "push", "thermal.wasm", &registry.place("thermal:ours")])?.ok()?;
    let (theirs, (_, config, _)) = runtime.block_on(async {
        anyhow::Ok((peer.pull(&at("ours")?, &Anonymous).await?, peer.pull_manifest_and_config(&at("ours")?, &Anonymous).await?))
    })?;
    assert_eq!(theirs.layers.iter().map(|layer| &layer.data[..]).collect::<Vec<_>>(), [&component[..]]);
    let said = config.component.context("a component")?;
    assert!(said.exports.iter().any(|name| name.contains("thermal")), "{said:?}");
    assert_eq!(config.layer_digests, [format!("sha256:{}", sha256(&component))]);

    let (config, layer) = WasmConfig::from_raw_component(component.clone(), None)?;
    runtime.block_on(async { peer.push(&at("theirs")?, &Anonymous, layer, config, None).await })?;
    let pulled = desk.relay(&["--json", "pack", "pull", &registry.place("thermal:theirs"), "--out", "theirs.wasm"])?.ok()?.json()?;
    assert_eq!(pulled["signed"], json!(false));
    assert_eq!(desk.file("theirs.wasm")?, component);
    Ok(())
}

/// A registry that says one thing of a pack and serves another, until it is dropped.
struct Liar {
    host: String,
    _serving: JoinHandle<()>,
}

/// How it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// other bytes than the manifest's digest says
    Component,
    /// a component without end
    Endless,
    /// another manifest than the digest that was asked for
    Manifest,
    /// a manifest of a container image
    Image,
    /// a signature for something else
    Signature,
}

impl Liar {
    fn start(lie: Lie, component: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let serving = std::thread::spawn(move || {
            for connection in listener.incoming() {
                // A caller that hangs up is what is wanted here.
                let _ = connection.and_then(|stream| answer(stream, lie, &component));
            }
        });
        Ok(Liar { host, _serving: serving })
    }
}

fn answer(mut stream: TcpStream, lie: Lie, component: &[u8]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut line) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let digest = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
    let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let layer = match lie {
        Lie::Image => describe("application/vnd.oci.image.layer.v1.tar", component),
        Lie::Endless => json!({"mediaType": "application/wasm", "digest": digest(component), "size": 100}),
        _ => describe("application/wasm", component),
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": describe("application/vnd.wasm.config.v0+json", b"{}"), "layers": [layer]});
    let manifest = manifest.to_string().into_bytes();
    let signature = json!({"schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.outhaul.pack.signature.v1",
        "config": describe("application/vnd.oci.empty.v1+json", b"{}"), "layers": [describe("application/cose", b"no signature")],
        "subject": describe(kind, &manifest)});
    let signature = signature.to_string().into_bytes();
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [describe(kind, &signature)]});
    let body: Vec<u8> = match path {
        _ if path.contains("/referrers/") && lie == Lie::Signature => index.to_string().into_bytes(),
        _ if path.contains("/referrers/") => json!({"schemaVersion": 2, "manifests": []}).to_string().into_bytes(),
        _ if path.ends_with(&digest(&signature)) => signature,
        _ if path.contains("/manifests/") && lie == Lie::Manifest => manifest.iter().chain(b" ").copied().collect(),
        _ if path.contains("/manifests/") => manifest,
        _ if path.ends_with(&digest(b"no signature")) => b"no signature".to_vec(),
        _ if path.contains("/blobs/") && lie == Lie::Component => component.iter().rev().copied().collect(),
        _ if path.contains("/blobs/") => component.to_vec(),
        _ => Vec::new(),
    };
    if lie == Lie::Endless && path.contains("/blobs/") {
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[0; 1 << 16])?;
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)?;
    stream.flush()?;
    let _ = reader.read(&mut [0; 16]);
    Ok(())
}

#[test]
fn a_registry_that_lies_is_not_believed() -> Result<()> {
    let desk = Desk::new()?;
    let component = desk.file("thermal.wasm")?;
    let honest = format!("sha256:{}", "ab".repeat(32));
    for (lie, status, code, place) in [
        (Lie::Component, 8, "digest_mismatch", "thermal:1".to_owned()),
        (Lie::Endless, 2, "too_large", "thermal:1".to_owned()),
        (Lie::Manifest, 8, "digest_mismatch", format!("thermal@{honest}")),
        (Lie::Image, 6, "registry", "thermal:1".to_owned()),
    ] {
        let liar = Liar::start(lie, component.clone())?;
        let place = format!("oci://{}/{place}", liar.host);
        let refused = desk.relay(&["--json", "pack", "pull", &place, "--out", "got.wasm"])?.exits(status)?;
        let failure: Value = refused.json()?;
        assert_eq!(failure["error"]["code"], json!(code), "{lie:?}: {failure}");
        assert!(!Path::new(&desk.folder.path().join("got.wasm")).exists(), "{lie:?}");
    }
    // A signature that is none is no signature, and installing is refused without one.
    let liar = Liar::start(Lie::Signature, component)?;
    let pulled = desk.relay(&["--json", "pack", "pull", &format!("oci://{}/thermal:1", liar.host), "--out", "got.wasm"])?.ok()?.json()?;
    assert_eq!(pulled["signed"], json!(false));
    desk.relay(&["pack", "verify", "got.wasm"])?.exits(7)?;
    Ok(())
}

#[test]
fn a_registry_that_is_not_there_and_a_place_that_is_none_are_told() -> Result<()> {
    let desk = Desk::new()?;
    let nowhere = { TcpListener::bind("127.0.0.1:0")?.local_addr()? };
    let refused = desk.relay(&["pack", "push", "thermal.wasm", &format!("oci://{nowhere}/thermal:1")])?.exits(6)?;
    assert!(refused.stderr.contains(&format!("the registry {nowhere} cannot be reached")), "{}", refused.stderr);
    let refused = desk.relay(&["pack", "push", "thermal.wasm", "oci://thermal:1"])?.exits(2)?;
    assert!(refused.stderr.contains("oci://HOST/REPOSITORY:TAG"), "{}", refused.stderr);
    Ok(())
}
