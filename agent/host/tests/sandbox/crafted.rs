//! Components no compiler would make, written by hand.

use std::time::Duration;

use bytes::Bytes;
use outhaul_protocol::error::Code;
use serde_json::json;

use crate::support::{Caller, call, host};

/// A component of this text, with a name.
fn component(text: &str) -> Bytes {
    let mut wasm = wat::parse_str(text).expect("text");
    let (name, identity) = (b"outhaul:pack", br#"{"name":"crafted","version":"1.0.0"}"#);
    let length = u8::try_from(1 + name.len() + identity.len()).expect("short");
    wasm.extend([0, length, u8::try_from(name.len()).expect("short")]);
    wasm.extend(name.iter().chain(identity));
    wasm.into()
}

/// A component whose core has this text, and which lifts `f` of it with this type into interface `x`.
fn lifted(core: &str, types: &str, function: &str) -> Bytes {
    component(&format!(
        r#"(component
            (core module $m {core})
            (core instance $i (instantiate $m))
            {types}
            (func $f {function})
            (instance $x (export "f" (func $f)))
            (export "test:crafted/x@0.1.0" (instance $x)))"#
    ))
}

async fn refused(wasm: Bytes) -> (Code, String) {
    let failure = host().load(wasm).await.expect_err("refused");
    (failure.code, failure.message)
}

#[tokio::test]
async fn types_that_unfold_without_end_are_refused() {
    let core = r#"(memory (export "m") 1) (func (export "f") (param i32 i32))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)"#;
    let bomb = |depth: usize, kind: fn(usize) -> String| {
        let types: String = (1..=depth).map(|level| format!("(type $t{level} {})", kind(level - 1))).collect();
        let function = format!(
            r#"(param "x" (list $t{depth})) (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "realloc")))"#
        );
        lifted(core, &format!("(type $t0 (tuple u8 u8)){types}"), &function)
    };
    let wide = |level| format!("(tuple $t{level} $t{level})");
    let deep = |level| format!("(list $t{level})");
    assert!(host().load(bomb(3, wide)).await.is_ok());
    for wasm in [bomb(16, wide), bomb(60, deep)] {
        let (code, message) = refused(wasm).await;
        assert_eq!(code, Code::PackRejected);
        assert!(message.contains("function `x.f`: the pack's types have more than"), "{message}");
    }
}

#[tokio::test]
async fn exports_that_are_no_commands_are_refused() {
    let text = r#"(core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))"#;
    let outside = component(&format!(r#"(component {text} (export "f" (func $f)))"#));
    assert_eq!(refused(outside).await, (Code::PackRejected, "pack `crafted` exports function `f` outside of an interface".into()));
    let twice = format!(
        r#"(component {text} (instance $x (export "f" (func $f)))
            (export "a:b/x@0.1.0" (instance $x)) (export "c:d/x@0.1.0" (instance $x)))"#
    );
    assert_eq!(refused(component(&twice)).await, (Code::PackRejected, "pack `crafted` exports two interfaces called `x`".into()));
    let nothing = refused(component("(component)")).await;
    assert_eq!(nothing, (Code::PackRejected, "pack `crafted` exports no interface with functions, so that it has no command".into()));
}

#[tokio::test]
async fn imports_of_other_worlds_are_refused_by_name() {
    let import = async |import: &str| refused(component(&format!("(component (import {import}))"))).await.1;
    let offered = |name: &str| format!("pack `crafted` imports `{name}`, which this agent does not offer");
    for http in ["wasi:http/types@0.3.0", "wasi:http/outgoing-handler@0.3.0", "wasi:http/incoming-handler@0.2.0", "outhaul:host/http@0.1.0"]
    {
        assert_eq!(import(&format!(r#""{http}" (instance)"#)).await, offered(http));
    }
    assert_eq!(import(r#""wasi:cli/environment@0.3.0" (instance)"#).await, offered("wasi:cli/environment@0.3.0"));
    for name in ["gpu", "process", "kv"].map(|power| format!("outhaul:host/{power}@0.9.0")) {
        assert_eq!(import(&format!("\"{name}\" (instance)")).await, offered(&name));
    }
    for name in ["outhaul:host/files@0.1.0", "wasi:filesystem/types@0.3.0", "wasi:filesystem/preopens@0.3.0"] {
        assert_eq!(import(&format!("\"{name}\" (instance)")).await, offered(name));
    }
    assert_eq!(import(r#""f" (func)"#).await, "pack `crafted` imports `f`, which is not an interface");
    let other_type = r#"(component (import "outhaul:host/log@0.1.0" (instance (export "write" (func (param "message" string)))))
        (core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f (canon lift (core func $i "f")))
        (instance $x (export "f" (func $f))) (export "a:b/x@0.1.0" (instance $x)))"#;
    let message = refused(component(other_type)).await.1;
    assert!(message.starts_with("pack `crafted` 1.0.0 cannot be linked: ") && message.contains("outhaul:host/log@0.1.0"), "{message}");
}

#[tokio::test]
async fn a_memory_that_begins_over_the_ceiling_is_refused() {
    let (code, message) = refused(lifted(r#"(memory 2000) (func (export "f"))"#, "", r#"(canon lift (core func $i "f"))"#)).await;
    assert_eq!(code, Code::PackRejected, "{message}");
}

#[tokio::test]
async fn a_pack_that_spins_while_it_starts_ends_like_any_other() {
    let wasm = lifted(r#"(func $s (loop br 0)) (start $s) (func (export "f"))"#, "", r#"(canon lift (core func $i "f"))"#);
    let pack = host().load(wasm).await.expect("loads");
    let ended = Caller::new(&pack, "x.f", json!({}), 1).with(|request| request.deadline = Some(Duration::from_millis(50))).run().await;
    assert_eq!(ended.code(), Code::Deadline);
}

#[tokio::test]
async fn an_asynchronous_pack_that_spins_ends_too() {
    let wasm = lifted(r#"(func (export "f") (loop br 0))"#, "", r#"async (canon lift (core func $i "f"))"#);
    let pack = host().load(wasm).await.expect("loads");
    let ended = Caller::new(&pack, "x.f", json!({}), 1).with(|request| request.deadline = Some(Duration::from_millis(50))).run().await;
    assert_eq!(ended.code(), Code::Deadline);
    let spin = Caller::new(&pack, "x.f", json!({}), 1);
    let cancel = spin.request.cancel.clone();
    let beside = async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(spin.run(), beside);
    assert_eq!(ended.code(), Code::Cancelled);
}

#[tokio::test]
async fn memory_is_clean_for_every_call() {
    // Counts up in memory and in a global, and would remember if anything were left.
    let core = r#"(memory 1) (global $g (mut i32) (i32.const 0))
        (func (export "f") (result i32)
            (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
            (global.set $g (i32.add (global.get $g) (i32.const 1)))
            (i32.add (i32.load (i32.const 64)) (global.get $g)))"#;
    let pack = host().load(lifted(core, "", r#"(result u32) (canon lift (core func $i "f"))"#)).await.expect("loads");
    for _ in 0..100 {
        assert_eq!(call(&pack, "x.f", json!({})).await.value(), &outhaul_protocol::value::Value::Int(2));
    }
}

#[tokio::test]
async fn a_pack_that_opens_streams_without_end_is_stopped() {
    let text = r#"(component
        (type $s (stream u8))
        (core func $new (canon stream.new $s))
        (core module $m (import "" "new" (func $new (result i64)))
            (func (export "f") (loop (drop (call $new)) (br 0))))
        (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
        (func $f (canon lift (core func $i "f")))
        (instance $x (export "f" (func $f)))
        (export "test:crafted/x@0.1.0" (instance $x)))"#;
    let pack = host().load(component(text)).await.expect("loads");
    let ended = call(&pack, "x.f", json!({})).await;
    assert_eq!(ended.code(), Code::Trap);
    assert!(ended.failure().message.contains("handle limit"), "{}", ended.failure().message);
}
