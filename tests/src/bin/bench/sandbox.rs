//! The sandbox: what one call of a pack costs inside the agent's host, and how soon a new pack answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use outhaul_host::measure::Typed;
use outhaul_host::power::{files, kv, location, process, screen};
use outhaul_host::{CallIo, CallRequest, Compiler, Grants, Host, HostConfig, Pack};
use outhaul_link::channel::{CallSpec, Channel};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::frame::{Answer, Ask};
use outhaul_protocol::keys::{random, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::value::Value;
use outhaul_relay::operator::{Session, now};
use outhaul_tests::stage::pack;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::calls::call;
use crate::table::{Row, median, micros, millis, quantile};
use crate::world::World;

/// The node that is taught.
const NODE: &str = "bench-1";
/// A pack of about 50 KB that no agent has.
const PACK: &str = "fixtures/flow";

/// Longest an install may take: a language's interpreter is compiled.
const COMPILE: Duration = Duration::from_secs(240);
/// Memory one call may have, as an agent's.
const MEMORY: usize = 64 << 20;

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = sandboxes(effort).await?;
    rows.push(deploys(effort).await?);
    Ok(rows)
}

/// Instantiation and call of the fixture that answers four devices: as the agent does it, and through typed bindings.
async fn sandboxes(effort: Effort) -> Result<Vec<Row>> {
    let host = Host::new(HostConfig {
        cache: None,
        cache_key: [0; 32],
        compiler: Compiler::InProcess,
        memory_bytes: MEMORY,
        calls: limits::CALLS,
        camera_test_pattern: false,
        kv: None,
        outside: outhaul_host::power::http::Outside::default(),
        seat: outhaul_host::power::seat::Config::default(),
        containers: outhaul_host::power::containers::Config::default(),
    })?;
    let devices = host.load(Bytes::from(std::fs::read(pack("fixtures/devices"))?)).await?;
    let (typed, grants, all) = (Typed::bind(&devices)?, Arc::new(Grants::default()), Arc::new(every_grant()?));
    let count = effort.of(5_000, 500);
    let (mut dynamic_times, mut typed_times, mut granted_times) = (Vec::new(), Vec::new(), Vec::new());
    // In turns; the first turn warms pools and caches and does not count.
    for turn in 0..=effort.of(5, 3) {
        let began = Instant::now();
        for _ in 0..count {
            ensure!(matches!(dynamically(&devices, &grants).await?, Value::Array(four) if four.len() == 4), "not four devices");
        }
        let between = Instant::now();
        for _ in 0..count {
            ensure!(typed.four(grants.clone()).await? == 4, "not four devices");
        }
        let granted = Instant::now();
        for _ in 0..count {
            ensure!(matches!(dynamically(&devices, &all).await?, Value::Array(four) if four.len() == 4), "not four devices");
        }
        if turn > 0 {
            dynamic_times.push(micros(between - began) / f64::from(count));
            typed_times.push(micros(granted - between) / f64::from(count));
            granted_times.push(micros(granted.elapsed()) / f64::from(count));
        }
    }
    let (dynamic, typed) = (median(&dynamic_times), median(&typed_times));
    Ok(vec![
        Row::new("instantiate + dynamic call, four devices", dynamic, "µs").at_most(30.0),
        Row::new("the same with every power granted", median(&granted_times), "µs").at_most(30.0),
        Row::new("instantiate + typed call, four devices", typed, "µs"),
        Row::new("dynamic to typed", dynamic / typed, "×").at_most(1.5),
    ])
}

/// Something of every power, as `agent.toml` would have it.
fn every_grant() -> Result<Grants> {
    Ok(Grants {
        gpu: true,
        system: true,
        process: Some(process::Grant { allow: serde_json::from_value(json!(["df", "uname"]))?, ..process::Grant::default() }),
        camera: Some(serde_json::from_value(json!(true))?),
        http: Some(Arc::new(serde_json::from_value(json!({"hosts": ["api.example.org"]}))?)),
        secrets: serde_json::from_value(json!(["api_token"]))?,
        files: Some(files::Grant { folders: serde_json::from_value(json!([{"path": "/tmp", "read": true}]))?, keep_out: Vec::new() }),
        kv: Some(kv::Grant { max_kib: kv::USUAL_KIB, owner: "bench".into() }),
        call: serde_json::from_value(json!(["gpu.*"]))?,
        location: Some(location::Grant { coarse: true }),
        notify: true,
        screen: Some(screen::Grant { all: true, displays: Vec::new() }),
        containers: Some(Arc::new(serde_json::from_value(json!({"images": ["ghcr.io/acme/*"], "mounts": ["/srv:r"]}))?)),
        time: Some(Duration::from_secs(60)),
    })
}

async fn dynamically(devices: &Pack, grants: &Arc<Grants>) -> Result<Value> {
    let ((output, _outputs), (_inputs, input)) = (mpsc::channel(1), mpsc::channel(1));
    let request = CallRequest {
        command: "devices.four".into(),
        params: Value::Map(Vec::new()),
        grants: grants.clone(),
        io: CallIo { output, input },
        deadline: Some(Duration::from_secs(60)),
        cancel: CancellationToken::new(),
        label: String::new(),
        output_limit: u64::MAX,
        shared_only: false,
        others: None,
    };
    Ok(devices.call(request).await?)
}

/// From the first byte to the relay until the first answer, over one open link. Every round ships a component that
/// nobody has compiled yet.
async fn deploys(effort: Effort) -> Result<Row> {
    let world = World::start()?;
    let _node = world.stage.node(NODE)?;
    let (session, channel) = world.ends.channel(NODE).await?;
    let component = std::fs::read(pack(PACK))?;
    let mut times = Vec::new();
    for _ in 0..effort.of(9, 3) {
        let fresh = unlike_any(&component);
        let began = Instant::now();
        deploy(&session, &channel, &fresh).await?;
        let params = Value::Map(vec![("n".into(), Value::Int(0))]);
        let answer = call(&channel, &spec("flow.events", params)).await?;
        times.push(began.elapsed());
        ensure!(answer == Value::Int(0), "flow.events answered {answer:?}");
    }
    let title = format!("deploy of {} KB to first answer, median", component.len() / 1000);
    Ok(Row::new(title, millis(quantile(&mut times, 0.5)), "ms").at_most(250.0))
}

/// Stores a component at the relay and has the node of the channel install it, signed by this home.
pub(crate) async fn deploy(session: &Session, channel: &Channel, component: &[u8]) -> Result<()> {
    let (digest, total) = (sha256(component), component.len() as u64);
    let mut offset = 0;
    while offset < total {
        let end = component.len().min(offset as usize + limits::BLOB_CHUNK);
        let bytes = Blob(component[offset as usize..end].to_vec());
        let Answer::Stored { bytes } = session.link.ask(Ask::PutBlob { digest, offset, total, bytes }).await? else {
            anyhow::bail!("the relay did not store the pack");
        };
        ensure!(bytes > offset, "the relay stored nothing");
        offset = bytes;
    }
    let publisher = session.dialer.room.publisher_or_new()?.0;
    let signature = publisher.publish(digest, &outhaul_protocol::pack::read(component)?, now(), None).into_bytes();
    let params = vec![
        ("digest".into(), Value::Text(digest.to_string())),
        ("size".into(), Value::Int(total.into())),
        ("signature".into(), Value::Bytes(signature)),
    ];
    call(channel, &CallSpec { deadline: Some(COMPILE), ..CallSpec::new("pack.install", Value::Map(params)) }).await?;
    Ok(())
}

fn spec(command: &str, params: Value) -> CallSpec {
    CallSpec { deadline: Some(Duration::from_secs(30)), ..CallSpec::new(command, params) }
}

/// The same component with a custom section of random bytes behind it (component model, binary format: id 0, length,
/// name, content), so that its digest is new.
fn unlike_any(component: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"bench";
    let nonce: [u8; 16] = random();
    let length = (1 + NAME.len() + nonce.len()) as u8;
    [component, &[0, length, NAME.len() as u8], NAME, &nonce].concat()
}
