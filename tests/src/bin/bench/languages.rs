//! What each language costs: the pack of `relay pack new`, built by `relay pack build` with the tools of this machine.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use outhaul_link::channel::CallSpec;
use outhaul_protocol::value::Value;
use outhaul_tests::process::Ran;
use outhaul_tests::stage::pack;

use crate::Effort;
use crate::calls::call;
use crate::sandbox::deploy;
use crate::table::{Row, median, millis};
use crate::world::World;

/// As `relay pack new --lang` has them.
const LANGUAGES: [&str; 4] = ["rust", "c", "js", "python"];
/// Longest a deploy may take: an interpreter is compiled.
const COMPILE: Duration = Duration::from_secs(600);

pub(crate) async fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for language in LANGUAGES {
        match built(language)? {
            Ok(component) => rows.extend(costs(language, &component, effort).await?),
            Err(why) => rows.push(Row::missing(language, why)),
        }
    }
    Ok(rows)
}

/// The component, or what this machine lacks for it.
fn built(language: &str) -> Result<Result<Vec<u8>, String>> {
    let folder = tempfile::tempdir()?;
    let relay = |arguments: &[&str]| -> Result<Ran> {
        let mut command = outhaul_tests::stage::command(&outhaul_tests::binary("relay")?, folder.path());
        command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
        Ok(Ran::of(command.output()?))
    };
    relay(&["pack", "new", "greeter", "--lang", language])?.ok()?;
    if let (Some(modules), "js") = (std::env::var_os("OUTHAUL_TEST_NODE_MODULES"), language) {
        std::os::unix::fs::symlink(modules, folder.path().join("greeter/node_modules"))?;
    }
    let ran = relay(&["pack", "build", "greeter"])?;
    if ran.code != 0 {
        return Ok(Err(ran.stderr.lines().next().unwrap_or("it could not be built").to_owned()));
    }
    Ok(Ok(std::fs::read(folder.path().join("greeter.wasm")).context("the component")?))
}

async fn costs(language: &str, component: &[u8], effort: Effort) -> Result<Vec<Row>> {
    let world = World::start()?;
    let mut node = world.stage.node("bench-1")?;
    // Something else has been called: what the first call of all costs is not the language's.
    let (session, channel) = world.ends.channel("bench-1").await?;
    let echo = std::fs::read(pack("fixtures/echo"))?;
    deploy(&session, &channel, &echo).await?;
    call(&channel, &CallSpec::new("echo.say", Value::Map(vec![("text".into(), "hello".into())]))).await?;
    let before = node.agent()?.pss_kib()?;

    let began = Instant::now();
    tokio::time::timeout(COMPILE, deploy(&session, &channel, component)).await.context("it was never compiled")??;
    let deployed = began.elapsed();
    let greet = CallSpec {
        deadline: Some(Duration::from_secs(60)),
        ..CallSpec::new(
            "greeter.greet",
            Value::Map(vec![("person".into(), Value::Map(vec![("name".into(), "Lovelace".into()), ("title".into(), "Countess".into())]))]),
        )
    };
    let began = Instant::now();
    call(&channel, &greet).await?;
    let first = began.elapsed();
    let mut warm = Vec::new();
    for _ in 0..effort.of(50, 10) {
        let began = Instant::now();
        call(&channel, &greet).await?;
        warm.push(millis(began.elapsed()));
    }
    let after = node.agent()?.pss_kib()?;
    Ok(vec![
        Row::new(format!("{language}: size"), component.len() as f64 / 1e6, "MB"),
        Row::new(format!("{language}: deploy, compiled here"), deployed.as_secs_f64(), "s"),
        Row::new(format!("{language}: first call"), millis(first), "ms"),
        Row::new(format!("{language}: warm call, median"), median(&warm), "ms"),
        Row::new(format!("{language}: the agent's memory, more by"), after.saturating_sub(before) as f64 / 1024.0, "MiB"),
    ])
}
