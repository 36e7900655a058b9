//! What loads, what it then says about itself, and what is refused at the door.

use std::fs;

use bytes::Bytes;
use outhaul_host::{Host, HostConfig, Power};
use outhaul_protocol::error::Code;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{call, config, host, pack, refusal, wasm};

#[tokio::test]
async fn a_pack_says_who_it_is_and_what_it_can() {
    let pack = pack("system").await;
    assert_eq!((pack.name(), pack.version()), ("system", "0.1.0"));
    assert_eq!(pack.digest(), <[u8; 32]>::from(Sha256::digest(wasm("system"))));
    assert_eq!(pack.powers(), [Power::Output, Power::Process, Power::System]);
    let names: Vec<_> = pack.interfaces().iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["system"]);
    assert!(pack.interfaces()[0].doc.as_ref().is_some_and(|doc| doc.starts_with("The machine")));
    let mut signatures: Vec<_> = pack.commands().iter().map(|command| command.signature()).collect();
    signatures.sort_unstable();
    assert_eq!(signatures.len(), 3);
    assert!(
        signatures[1].starts_with("system.run(argv: list<string>, cwd?: string, env?: list<tuple<string, string>>)"),
        "{}",
        signatures[1]
    );
    let run = pack.command("system.run").expect("known");
    assert!(run.doc.as_ref().is_some_and(|doc| doc.starts_with("Runs a program without a shell")));
    assert_eq!(run.params[0].doc.as_deref(), Some("the program and its arguments"));
    let Some(outhaul_protocol::types::Type::Record(ending)) = &run.result else { panic!("a record") };
    let truncated = ending.iter().find(|field| field.name == "truncated").expect("field");
    assert!(truncated.doc.as_ref().is_some_and(|doc| doc.contains("ceiling")));
}

#[tokio::test]
async fn every_standard_pack_loads_with_its_powers() {
    let powers = async |name| pack(name).await.powers().to_vec();
    assert_eq!(powers("gpu").await, [Power::Gpu]);
    assert_eq!(powers("camera").await, [Power::Camera]);
    assert_eq!(powers("thermal").await, [Power::Log, Power::System]);
    assert_eq!(powers("devices").await, []);
    assert_eq!(powers("wasi").await, [Power::Files], "a C library looks for folders");
}

#[tokio::test]
async fn what_does_not_cross_is_refused_with_function_and_type() {
    for (name, sentence) in [
        ("future-result", "pack `future-result`: function `later.value` uses a future"),
        ("nested-option", "pack `nested-option`: function `nested.perhaps` uses an option of an option"),
        ("resource-export", "pack `resource-export`: interface `counter` exports resource `tally`"),
        (
            "stream-parameter",
            "pack `stream-parameter`: function `taker.take` uses a `stream<u8>` elsewhere than as its result or a field of its result's record",
        ),
        ("two-streams", "pack `two-streams`: function `twins.both` uses more than one stream in its result"),
        ("typed-stream", "pack `typed-stream`: function `words.all` uses a stream of other things than bytes"),
    ] {
        assert_eq!(refusal(name).await, (Code::UnsupportedType, sentence.to_owned()));
    }
}

#[tokio::test]
async fn an_import_nobody_knows_is_refused_by_name() {
    let sentence = "pack `unknown-import` imports `outhaul:host/teleport@0.1.0`, which this agent does not offer";
    assert_eq!(refusal("unknown-import").await, (Code::PackRejected, sentence.to_owned()));
}

#[tokio::test]
async fn bytes_that_are_no_pack_are_refused() {
    let refused = async |bytes: Vec<u8>| {
        let failure = host().load(Bytes::from(bytes)).await.expect_err("refused");
        assert_eq!(failure.code, Code::PackRejected, "{failure:?}");
        failure.message
    };
    assert_eq!(refused(b"\x7fELF".to_vec()).await, "the pack is not WebAssembly");
    let whole = wasm("echo").to_vec();
    assert_eq!(refused(whole[..whole.len() / 2].to_vec()).await, "the pack is truncated: a section is longer than the file");
    // The last section stays whole, the code before it does not.
    let mut broken = whole.clone();
    let middle = whole.len() / 3;
    broken[middle..middle + 64].fill(0xff);
    assert!(refused(broken).await.starts_with("pack `echo` does not compile: "));
}

#[tokio::test]
async fn flipped_bytes_are_refused_or_run_in_the_sandbox_like_any_other() {
    let whole = wasm("echo").to_vec();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        if let Ok(pack) = host().load(Bytes::from(flipped)).await
            && pack.command("echo.say").is_some()
        {
            drop(call(&pack, "echo.say", json!({"text": "x"})).await);
        }
    }
}

fn cached(folder: &std::path::Path, key: u8) -> Host {
    Host::new(HostConfig { cache: Some(folder.to_owned()), cache_key: [key; 32], ..config() }).expect("a host")
}

#[tokio::test]
async fn compiled_code_is_kept_and_counts_only_as_this_agent_wrote_it() {
    let folder = tempfile::tempdir().expect("folder");
    let echo = wasm("echo");
    let load = async |key| cached(folder.path(), key).load(echo.clone()).await.expect("loads");
    load(1).await;
    let engine = fs::read_dir(folder.path()).expect("folder").next().expect("one engine").expect("entry").path();
    let file = engine.join(hex::encode(Sha256::digest(&echo)));
    let (kept, time) = (fs::read(&file).expect("kept"), fs::metadata(&file).and_then(|data| data.modified()).expect("time"));
    load(1).await;
    assert_eq!(fs::metadata(&file).and_then(|data| data.modified()).expect("time"), time, "found, not made anew");
    let mut tampered = kept.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    fs::write(&file, &tampered).expect("write");
    let pack = load(1).await;
    assert_eq!(fs::read(&file).expect("kept"), kept, "made anew, to the byte");
    assert_eq!(call(&pack, "echo.say", json!({"text": "hi"})).await.value(), &"hi".into());
    // Another agent's signature is nobody's.
    load(2).await;
    assert_ne!(fs::read(&file).expect("kept"), kept);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_nothing_but_time() {
    let folder = tempfile::tempdir().expect("folder");
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").expect("write");
    let pack = cached(&blocked, 1).load(wasm("echo")).await.expect("loads");
    assert_eq!(call(&pack, "echo.say", json!({"text": "hi"})).await.value(), &"hi".into());
}

#[tokio::test]
async fn a_version_goes_on_while_the_next_one_answers() {
    let (old, new) = (pack("echo").await, pack("echo-next").await);
    assert_eq!((old.name(), old.version()), ("echo", "0.1.0"));
    assert_eq!((new.name(), new.version()), ("echo", "0.2.0"));
    assert_eq!(call(&old, "echo.say", json!({"text": "x"})).await.value(), &"x".into());
    assert_eq!(call(&new, "echo.say", json!({"text": "x"})).await.value(), &"next: x".into());
    assert!(old.command("echo.length").is_none() && new.command("echo.length").is_some());
}
