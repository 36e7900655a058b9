//! TEMPORARY
use crate::support::*;
use outhaul_host::Output;
use outhaul_protocol::value::Value;
use serde_json::json;
use std::time::Instant;

#[tokio::test]
#[ignore = "timing"]
async fn timing() {
    let devices = pack("devices").await;
    for (name, command, params) in [
        ("devices", "devices.four", json!({})),
        ("echo", "echo.say", json!({"text": "hi"})),
        ("gpu", "gpu.list", json!({})),
        ("system", "system.info", json!({})),
    ] {
        let pack = pack(name).await;
        for _ in 0..3 {
            let begun = Instant::now();
            let n = 2000;
            for _ in 0..n {
                let _ = call(&pack, command, params.clone()).await;
            }
            println!("{command}: {:?}", begun.elapsed() / n);
        }
    }
    drop(devices);
    let echo = pack("echo").await;
    let begun = Instant::now();
    for _ in 0..100 {
        let c = Caller::new(&echo, "echo.say", json!({"text": ""}), 4).with(|r| {
            r.command = "echo.bytes".into();
            r.params = Value::Map(vec![("data".into(), Value::Bytes(vec![1; 65536]))]);
        });
        c.run().await.result.unwrap();
    }
    println!("64 KiB bytes: {:?}", begun.elapsed() / 100);
    let system = pack("system").await;
    let Caller { request, mut outputs, .. } =
        Caller::new(&system, "system.run", json!({"argv": ["head", "-c", "2000000000", "/dev/zero"]}), 4);
    let take = async {
        let mut n = 0;
        let mut c = 0;
        while let Some(Output::Data { bytes, .. }) = outputs.recv().await {
            n += bytes.len();
            c += 1;
        }
        (n, c)
    };
    let begun = Instant::now();
    let (_, (n, c)) = tokio::join!(system.call(request), take);
    println!("pump: {:.0} MB/s in {c} pieces", n as f64 / 1e6 / begun.elapsed().as_secs_f64());
}
