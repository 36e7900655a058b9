//! The compiler in a process of its own. This program plays both parts: started with `compile` it is the child.

use std::process::{Command, ExitCode, Stdio};

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
    a_child_has_taken_its_own_liberties_before_it_reads();
    println!("test result: ok. the compiling child compiles and refuses");
    ExitCode::SUCCESS
}

/// While it waits for the component, its limits stand: a stranger's pack finds a process that can do nothing but compile.
fn a_child_has_taken_its_own_liberties_before_it_reads() {
    let program = std::env::current_exe().expect("ourselves");
    let mut child = Command::new(program).arg("compile").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
    let limits = || std::fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("there");
    let limit = |name: &str| {
        let text = limits();
        let line = text.lines().find(|line| line.starts_with(name)).expect(name);
        line[name.len()..].split_whitespace().next().expect("a number").to_owned()
    };
    // The last one it sets.
    while limit("Max open files") != "16" {
        std::thread::yield_now();
    }
    assert_eq!(limit("Max address space"), (2u64 << 30).to_string());
    assert_eq!(limit("Max cpu time"), (5 + 20 * 68).to_string(), "for the largest pack there may be");
    assert_eq!((limit("Max core file size"), limit("Max file size")), ("0".into(), "0".into()));
    drop(child.stdin.take());
    child.wait().expect("ends");
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
        seat: outhaul_host::power::seat::Config::default(),
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
