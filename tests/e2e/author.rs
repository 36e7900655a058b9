//! An author's hour, as it is typed: new, build, inspect, run, test, in each language whose tools are here; and what an
//! author is told when something is wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use outhaul_tests::process::{Ran, binary};
use outhaul_tests::stage::{Stage, command, pack};
use outhaul_tests::tools::{Missing, find, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A desk with nothing on it: no relay, no agent, no key.
struct Desk {
    folder: TempDir,
    home: TempDir,
}

impl Desk {
    fn new() -> Result<Self> {
        Ok(Desk { folder: tempfile::tempdir()?, home: tempfile::tempdir()? })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Ran> {
        let mut command = command(&binary(program)?, self.home.path());
        command.args(arguments).current_dir(self.folder.path()).env("CARGO_TARGET_DIR", shared_target()).stdin(Stdio::null());
        Ok(Ran::of(command.output()?))
    }

    fn relay(&self, arguments: &[&str]) -> Result<Ran> {
        self.run("relay", arguments)
    }

    fn agent(&self, arguments: &[&str]) -> Result<Ran> {
        self.run("agent", arguments)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edit(&self, name: &str, change: impl Fn(&str) -> String) -> Result<()> {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let changed = change(&text);
        anyhow::ensure!(changed != text, "nothing changed in {name}");
        Ok(std::fs::write(path, changed)?)
    }
}

/// Packs of all tests share what they depend on: Debian's route builds the standard library.
fn shared_target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("packs")
}

/// The whole hour in one language.
fn hour(lang: &str, prepare: impl Fn(&Desk) -> Result<()>) -> Result<Desk> {
    let desk = Desk::new()?;
    desk.relay(&["pack", "new", "disk-watch", "--lang", lang])?.ok()?;
    prepare(&desk)?;
    let built = desk.relay(&["--json", "pack", "build", "disk-watch"])?.ok()?.json()?;
    assert_eq!(built["notes"], json!([]), "{built}");
    assert_eq!(built["commands"], json!(["disk_watch.greet"]));
    println!("{lang}: {} bytes", built["size"]);

    let inspected = desk.relay(&["--json", "pack", "inspect", "disk-watch.wasm"])?.ok()?.json()?;
    assert_eq!((&inspected["name"], &inspected["digest"]), (&json!("disk-watch"), &built["digest"]));
    // What a language brings along unasked has no reason.
    let asked: Vec<&Value> = inspected["powers"].as_array().context("a list")?.iter().filter(|power| !power["reason"].is_null()).collect();
    assert_eq!(json!(asked), json!([{"name": "system", "reason": "tells how long the machine has been up", "always": false}]));
    assert!(
        inspected["powers"].as_array().is_some_and(|all| all.iter().all(|power| power["name"] == "system" || power["name"] == "files"))
    );
    assert_eq!(inspected["unknown_imports"], json!([]), "{lang}");
    assert_eq!(inspected["commands"][0]["params"]["properties"]["person"]["description"], "whom");

    let run = |arguments: &[&str]| desk.agent(&[&["--json", "pack", "run", "disk-watch.wasm", "disk_watch.greet"], arguments].concat());
    let said = run(&[r#"person={"name":"Ada","title":"Dr."}"#])?.ok()?.json()?;
    assert_eq!((&said["result"]["text"], &said["receipt"]), (&json!("Hello, Dr. Ada!"), &Value::Null), "{said}");
    let refused = run(&[r#"person={"name":""}"#])?.exits(1)?.json()?;
    assert_eq!(refused["error"]["detail"], "no_name", "{refused}");
    let denied = run(&[r#"person={"name":"Ada"}"#, "--deny", "system"])?.exits(3)?.json()?;
    assert_eq!(denied["error"]["hint"], "try it with: --grant system", "{denied}");

    let tested = desk.agent(&["--json", "pack", "test", "disk-watch"])?.ok()?.json()?;
    assert_eq!(tested["failed"], 0, "{tested}");
    assert!(tested["passed"].as_u64().context("a number")? >= 12, "{tested}");
    Ok(desk)
}

fn rust_is_here() -> Result<(), Missing> {
    let target = Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]).output();
    let has = target.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir());
    if has { Ok(()) } else { find("dpkg", "dpkg").and_then(|_| debians_rust()) }
}

fn debians_rust() -> Result<(), Missing> {
    let installed = Command::new("dpkg").args(["-s", "rustc-web", "cargo-web", "rust-web-src"]).output();
    match installed {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(Missing("there is no Rust target for wasm32-unknown-unknown (Debian's packages rustc-web cargo-web rust-web-src)".into())),
    }
}

#[test]
fn an_hour_in_rust() -> Result<()> {
    if let Err(missing) = rust_is_here() {
        return skip("an_hour_in_rust", &missing);
    }
    let desk = hour("rust", |_| Ok(()))?;
    // The same bytes again, from another folder.
    let first = std::fs::read(desk.path("disk-watch.wasm"))?;
    std::fs::rename(desk.path("disk-watch"), desk.path("elsewhere"))?;
    desk.relay(&["pack", "build", "elsewhere", "--out", "second.wasm"])?.ok()?;
    assert_eq!(std::fs::read(desk.path("second.wasm"))?, first, "a folder's path is in the bytes");
    assert!(first.len() < 64 << 10, "{} bytes", first.len());

    // What changed must be built before it is tested, and what is wrong fails with the reason.
    desk.edit("elsewhere/src/lib.rs", |text| text.replace("Hello, ", "Goodbye, "))?;
    let stale = desk.agent(&["pack", "test", "elsewhere"])?.exits(2)?;
    assert!(stale.stderr.contains("is newer than what was built") && stale.stderr.contains("relay pack build"), "{}", stale.stderr);
    desk.edit("elsewhere/outhaul.toml", |text| text.replace("system = \"tells how long the machine has been up\"", ""))?;
    let noted = desk.relay(&["pack", "build", "elsewhere"])?.ok()?;
    assert!(noted.stderr.contains("note: it imports `system` without a reason"), "{}", noted.stderr);
    let failed = desk.agent(&["pack", "test", "elsewhere"])?.exits(1)?;
    for said in ["FAIL  every power it imports is asked for with a reason", "FAIL  greets by name", "Goodbye, Ada!", "3 failed"] {
        assert!(failed.stdout.contains(said), "{said} is not in\n{}", failed.stdout);
    }

    // A compiler's error is the compiler's to tell, and ours to end with.
    desk.edit("elsewhere/src/lib.rs", |text| text.replace("struct Pack;", "struct Pack"))?;
    let broken = desk.relay(&["pack", "build", "elsewhere"])?.exits(1)?;
    assert!(broken.stderr.contains("src/lib.rs") && broken.stderr.contains("the Rust compiler failed"), "{}", broken.stderr);

    // And it is a pack like any other.
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let shipped = desk.path("second.wasm");
    stage.run(&["pack", "deploy", shipped.to_str().context("a path")?, "bench-1"])?.ok()?;
    let far = stage.run(&["--json", "invoke", "bench-1", "disk_watch.greet", r#"person={"name":"Ada"}"#])?.ok()?.json()?;
    assert_eq!(far["result"]["text"], "Hello, Ada!");
    Ok(())
}

fn c_is_here() -> Result<(), Missing> {
    find("clang", "clang")?;
    find("wasm-ld", "lld")?;
    let whole = |file: &str| Path::new(file).is_file();
    let libgcc = Command::new("clang").args(["--target=wasm32-wasi", "-print-libgcc-file-name"]).output();
    let builtins = libgcc.is_ok_and(|output| whole(String::from_utf8_lossy(&output.stdout).trim()));
    match builtins && whole("/usr/lib/wasm32-wasi/libc.a") {
        true => Ok(()),
        false => Err(Missing("there is no C library for wasm32-wasi (Debian's packages wasi-libc libclang-rt-dev-wasm32)".into())),
    }
}

#[test]
fn an_hour_in_c() -> Result<()> {
    if let Err(missing) = c_is_here() {
        return skip("an_hour_in_c", &missing);
    }
    let desk = hour("c", |_| Ok(()))?;
    let inspected = desk.relay(&["--json", "pack", "inspect", "disk-watch.wasm"])?.ok()?.json()?;
    assert_eq!(inspected["wasi"], json!([]), "a pack that prints nothing needs nothing of WASI");
    // What C prints is the call's output.
    desk.edit("disk-watch/src/pack.c", |text| {
        text.replace("#include <stdlib.h>", "#include <stdio.h>\n#include <stdlib.h>")
            .replace("    uint8_t *text = malloc", "    printf(\"greeting\\n\");\n    fflush(stdout);\n    uint8_t *text = malloc")
    })?;
    desk.relay(&["pack", "build", "disk-watch"])?.ok()?;
    let said = desk.agent(&["--json", "pack", "run", "disk-watch.wasm", "disk_watch.greet", r#"person={"name":"Ada"}"#])?.ok()?.json()?;
    assert_eq!(said["stdout"], "greeting\n", "{said}");
    Ok(())
}

/// A folder with node_modules that hold what JavaScript packs need.
fn node_modules() -> Result<PathBuf, Missing> {
    find("node", "nodejs")?;
    let folder = std::env::var_os("OUTHAUL_TEST_NODE_MODULES").map(PathBuf::from).filter(|folder| folder.is_dir());
    folder.ok_or_else(|| Missing("OUTHAUL_TEST_NODE_MODULES names no folder with npm's @bytecodealliance/componentize-js".into()))
}

#[test]
fn an_hour_in_javascript() -> Result<()> {
    match node_modules() {
        Ok(modules) => hour("js", |desk| Ok(std::os::unix::fs::symlink(&modules, desk.path("disk-watch/node_modules"))?)).map(drop),
        Err(missing) => skip("an_hour_in_javascript", &missing),
    }
}

#[test]
fn an_hour_in_python() -> Result<()> {
    match find("componentize-py", "none; PyPI's componentize-py") {
        Ok(_) => hour("python", |_| Ok(())).map(drop),
        Err(missing) => skip("an_hour_in_python", &missing),
    }
}

#[test]
fn a_missing_tool_is_one_sentence_and_the_command_that_installs_it() -> Result<()> {
    let desk = Desk::new()?;
    let nothing = tempfile::tempdir()?;
    for (lang, sentence, remedy) in [
        ("rust", "Rust packs need `rustc`", "rustup"),
        ("c", "C packs need clang", "apt-get install --no-install-recommends clang lld wasi-libc"),
        ("js", "JavaScript packs need `node`", "apt-get install nodejs npm"),
        ("python", "Python packs need `componentize-py`", "pip install componentize-py"),
    ] {
        desk.relay(&["pack", "new", lang.repeat(2).as_str(), "--lang", lang])?.ok()?;
        let mut command = command(&binary("relay")?, desk.home.path());
        command.args(["pack", "build", lang.repeat(2).as_str()]).current_dir(desk.folder.path()).env("PATH", nothing.path());
        let ran = Ran::of(command.env_remove("WASI_SDK_PATH").output()?).exits(2)?;
        assert!(ran.stderr.contains(sentence) && ran.stderr.contains(remedy), "{lang}: {}", ran.stderr);
        assert!(ran.stderr.lines().count() <= 3, "{lang}: {}", ran.stderr);
    }
    Ok(())
}

#[test]
fn a_component_runs_without_relay_and_says_what_it_may_not() -> Result<()> {
    let desk = Desk::new()?;
    let greedy = pack("fixtures/greedy");
    let greedy = greedy.to_str().context("a path")?;
    let denied = desk.agent(&["pack", "run", greedy, "greedy.try_it"])?.exits(3)?;
    assert!(denied.stderr.contains("process (refused; --grant process=PROGRAM,…)"), "{}", denied.stderr);
    assert!(denied.stderr.contains("hint: try it with: --grant process=id"), "{}", denied.stderr);
    let granted = desk.agent(&["--json", "pack", "run", greedy, "greedy.try_it", "--grant", "process=id"])?.ok()?.json()?;
    assert_eq!(granted["ok"], true, "{granted}");
    let unknown = desk.agent(&["--json", "pack", "run", greedy, "greedy.other"])?.exits(2)?.json()?;
    assert_eq!(unknown["error"]["code"], "unknown_command");
    desk.agent(&["pack", "run", greedy, "greedy.try_it", "--grant", "teleport"])?.exits(2)?;
    let mut entries = std::fs::read_dir(desk.home.path())?;
    assert!(entries.next().is_none(), "a trial leaves nothing behind");
    Ok(())
}

#[test]
fn a_trial_streams_output_and_keeps_limits() -> Result<()> {
    let desk = Desk::new()?;
    let (flow, hostile) = (pack("fixtures/flow"), pack("fixtures/hostile"));
    let (flow, hostile) = (flow.to_str().context("a path")?, hostile.to_str().context("a path")?);
    desk.agent(&["pack", "run", flow, "flow.count", "bytes=300000", "--out", "out.bin"])?.ok()?;
    let bytes = std::fs::read(desk.path("out.bin"))?;
    assert!(bytes.len() == 300_000 && bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    desk.agent(&["pack", "run", flow, "flow.count", "bytes=3"])?.exits(2)?;
    desk.agent(&["pack", "run", hostile, "hostile.spin", "--timeout", "300ms"])?.exits(5)?;
    desk.agent(&["pack", "run", hostile, "hostile.trap"])?.exits(8)?;
    let failed = desk.agent(&["pack", "test", hostile])?.exits(1)?;
    assert!(failed.stdout.contains("FAIL  without any grant `hostile.trap` ends properly"), "{}", failed.stdout);
    let refused = desk.agent(&["pack", "test", pack("fixtures/unknown-import").to_str().context("a path")?])?.exits(1)?;
    assert!(refused.stdout.contains("FAIL  it loads") && refused.stdout.contains("teleport"), "{}", refused.stdout);
    Ok(())
}
