//! One-shot calls: `relay invoke NODE system.info` from the start of its process to its end, over `ws://` and `wss://`.

use std::time::{Duration, Instant};

use anyhow::Result;
use outhaul_protocol::limits;
use outhaul_tests::stage::{Node, Stage};

use crate::Effort;
use crate::table::{Row, millis, quantile};

/// The node that answers.
const NODE: &str = "bench-1";
/// Between two calls, unmeasured: an agent tries [`limits::OPENINGS_PER_SEC`] openings a second, and each call is one.
const PAUSE: Duration = Duration::from_millis(1500 / limits::OPENINGS_PER_SEC as u64);

pub(crate) fn measure(effort: Effort) -> Result<Vec<Row>> {
    let count = effort.of(50, 10);
    let plain = Stage::start()?;
    let _plain_node = plain.node(NODE)?;
    let folder = tempfile::tempdir()?;
    let (secure, _secure_node) = over_tls(folder.path())?;
    Ok(vec![
        Row::new("invoke system.info, ws, median", one_shots(&plain, count)?, "ms").at_most(15.0),
        Row::new("invoke system.info, wss, median", one_shots(&secure, count)?, "ms"),
    ])
}

fn one_shots(stage: &Stage, count: usize) -> Result<f64> {
    let invoke = ["invoke", NODE, "system.info", "--timeout", "20s"];
    // The first fetches and keeps the pack's description.
    stage.run(&invoke)?.ok()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        let ran = stage.run(&invoke)?;
        times.push(began.elapsed());
        ran.ok()?;
    }
    Ok(millis(quantile(&mut times, 0.5)))
}

/// A relay that ends TLS with a certificate of its own, trusted by the operator's configuration and by the agent's.
fn over_tls(folder: &std::path::Path) -> Result<(Stage, Node)> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let (certificate, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    let stage = Stage::start_with(&["--tls-cert", &certificate, "--tls-key", &key])?;
    std::fs::write(stage.home.path().join("operator/operator.toml"), format!("ca = {certificate:?}\n"))?;
    let mut node = Node::new(NODE)?;
    let (maker, code) = stage.pair_new(&[])?;
    node.run(&["pair", "--relay", &stage.url, "--code", &code, "--name", NODE, "--ca", &certificate])?.ok()?;
    let (status, said) = maker.finish()?;
    anyhow::ensure!(status.success(), "pair new failed: {said:?}");
    node.start()?;
    Ok((stage, node))
}
