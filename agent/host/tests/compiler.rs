//! The compiler in a process of its own. This program plays both parts: started with `compile` it is the child.

use std::process::ExitCode;

use bytes::Bytes;
use outhaul_host::{Compiler, Host, HostConfig};
use outhaul_protocol::error::Code;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("compile") {
        return outhaul_host::compile_child();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        a_child_compiles_for_both_engines().await;
        what_a_child_refuses_is_told().await;
    });
    println!("test result: ok. the compiling child compiles and refuses");
    ExitCode::SUCCESS
}

fn host() -> Host {
    let program = std::env::current_exe().expect("ourselves");
    Host::new(HostConfig {
        cache: None,
        cache_key: [1; 32],
        compiler: Compiler::Child { program, args: vec!["compile".into()] },
        memory_bytes: 64 << 20,
        calls: 4,
        camera_test_pattern: false,
        kv: None,
        outside: outhaul_host::power::http::Outside::default(),
        containers: outhaul_host::power::containers::Config::default(),
    })
    .expect("a host")
}

fn wasm(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

async fn a_child_compiles_for_both_engines() {
    let host = host();
    for (name, command) in [("fixtures/echo", "echo.say"), ("system", "system.run")] {
        let pack = host.load(wasm(name).into()).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        assert!(pack.command(command).is_some());
    }
}

async fn what_a_child_refuses_is_told() {
    let mut broken = wasm("fixtures/echo");
    let middle = broken.len() / 3;
    broken[middle..middle + 64].fill(0xff);
    let failure = host().load(Bytes::from(broken)).await.expect_err("refused");
    assert_eq!(failure.code, Code::PackRejected);
    assert!(failure.message.starts_with("pack `echo` does not compile: "), "{}", failure.message);
    assert!(!failure.message.contains("stopped at its limits"), "{}", failure.message);
}
