use super::*;
use crate::native::{View, answer, finish_install};
use crate::policy::PolicyFile;
use outhaul_protocol::describe::PackDescription;
use outhaul_protocol::limits;
use outhaul_protocol::native::{ACTIVATE, LIST, PING, REMOVE, ROLLBACK, STATUS};
use outhaul_protocol::value::Value;
use std::time::{Duration, Instant};

const NOW: Time = Time(1_800_000_000);

fn fixture(name: &str) -> Bytes {
    let path = format!("{}/../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).expect(&path).into()
}

/// A host that compiles in this process: there is no agent binary to start.
fn test_host(dir: &Path) -> Host {
    let config = HostConfig {
        cache: Some(dir.join("cache")),
        cache_key: [7; 32],
        compiler: Compiler::InProcess,
        memory_bytes: 64 << 20,
        calls: 4,
        camera_test_pattern: false,
        kv: None,
    };
    Host::new(config).expect("a host")
}

async fn open(dir: &Path) -> PackSet {
    PackSet::with(test_host(dir), Shelf::new(dir)).await.expect("opened")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn the_standard_packs_answer_from_the_start() {
    let dir = folder();
    let packs = open(dir.path()).await;
    assert_eq!(packs.count(), 3);
    let system = packs.find("system").expect("answers");
    assert!(system.embedded() && system.has_command("system.info") && !system.has_command("system.nothing"));
    assert_eq!(embedded_digest("system"), Some(system.digest()));
    let announced = packs.announced();
    assert_eq!(announced.iter().map(|pack| pack.name.as_str()).collect::<Vec<_>>(), ["camera", "gpu", "system"]);
    for pack in &announced {
        let bytes = packs.description(&pack.description).expect("is there");
        let description = PackDescription::from_bytes(&bytes).expect("well formed");
        assert_eq!((description.name.as_str(), description.digest), (pack.name.as_str(), pack.digest));
        assert!(description.commands.iter().all(|command| command.doc.is_some()), "{}", pack.name);
    }
    assert!(packs.description(&[0; 32]).is_none() && packs.find("echo").is_none());
}

#[tokio::test]
async fn a_pack_is_installed_replaced_and_rolled_back() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let (one, two) = (fixture("fixtures/echo"), fixture("fixtures/echo-next"));
    let first = packs.install(one.clone(), NOW).await.expect("installed");
    assert_eq!((first.active.name(), first.replaced), ("echo", None));
    let under_way = packs.find("echo").expect("answers");
    let second = packs.install(two.clone(), NOW).await.expect("installed");
    assert_eq!(second.replaced, Some(sha256(&one)));
    assert_eq!(
        (under_way.digest(), packs.find("echo").expect("answers").digest()),
        (sha256(&one), sha256(&two)),
        "a call keeps its version"
    );
    let back = packs.rollback("echo").await.expect("there is one before");
    assert_eq!((back.active.digest(), back.replaced), (sha256(&one), Some(sha256(&two))));
    let again = packs.activate("echo", sha256(&two)).await.expect("is here");
    assert_eq!(again.active.digest(), sha256(&two));
    let list: Vec<_> =
        packs.list().await.into_iter().filter(|listed| listed.name == "echo").map(|listed| (listed.digest, listed.active)).collect();
    assert_eq!(list, [(sha256(&two), true), (sha256(&one), false)]);

    let reopened = open(dir.path()).await;
    assert_eq!(reopened.find("echo").expect("survives").digest(), sha256(&two));
    assert_eq!(reopened.rollback("echo").await.expect("survives too").active.digest(), sha256(&one));
    assert_eq!(reopened.remove("echo").await.expect("removed").len(), 2);
    assert!(reopened.find("echo").is_none() && open(dir.path()).await.find("echo").is_none());
    assert_eq!(reopened.remove("echo").await.expect_err("gone").code, Code::BadParams);
}

#[tokio::test]
async fn installing_twice_is_once_and_an_interface_has_one_pack() {
    let dir = folder();
    let packs = open(dir.path()).await;
    packs.install(fixture("fixtures/echo"), NOW).await.expect("installed");
    let again = packs.install(fixture("fixtures/echo"), NOW).await.expect("the same");
    assert_eq!(again.replaced, None);
    assert_eq!(packs.rollback("echo").await.expect_err("nothing before").code, Code::BadParams);
    let taken = packs.install(fixture("fixtures/clash"), NOW).await.expect_err("gpu answers already");
    assert_eq!(taken.code, Code::CommandTaken);
    assert!(packs.find("gpu").expect("still").embedded());
    assert!(packs.named("clash").is_none());
}

#[tokio::test]
async fn what_does_not_load_changes_nothing() {
    let dir = folder();
    let packs = open(dir.path()).await;
    for bytes in [Bytes::from_static(b"not wasm"), fixture("fixtures/unknown-import"), fixture("gpu").slice(..1000)] {
        packs.install(bytes, NOW).await.expect_err("refused");
    }
    assert_eq!((packs.count(), Shelf::new(dir.path()).index()), (3, Ok(Index::default())));
    assert!(!dir.path().join("packs").exists(), "nothing was written");
}

#[tokio::test]
async fn embedded_packs_can_be_activated_but_not_removed() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let same = packs.install(fixture("gpu"), NOW).await.expect("is here already");
    assert!(same.active.embedded() && same.replaced.is_none());
    let digest = embedded_digest("gpu").expect("embedded");
    assert!(packs.activate("gpu", digest).await.expect("active already").active.embedded());
    for failure in
        [packs.remove("gpu").await.expect_err("came with the agent"), packs.rollback("gpu").await.expect_err("nothing before").clone()]
    {
        assert_eq!(failure.code, Code::BadParams);
    }
}

#[tokio::test]
async fn an_installed_pack_that_is_damaged_does_not_keep_the_agent_down() {
    let dir = folder();
    let digest = {
        let packs = open(dir.path()).await;
        packs.install(fixture("fixtures/echo"), NOW).await.expect("installed").active.digest()
    };
    std::fs::write(dir.path().join(format!("packs/{digest}.wasm")), b"damaged").expect("written");
    let packs = open(dir.path()).await;
    assert_eq!(packs.count(), 3);
    let listed = packs.list().await.into_iter().find(|listed| listed.name == "echo").expect("is told");
    assert!(!listed.active);
    packs.install(fixture("fixtures/echo"), NOW).await.expect("deployed again");
    assert!(open(dir.path()).await.find("echo").is_some(), "that mends it");
}

#[tokio::test]
async fn a_change_is_told_also_to_who_asks_later() {
    let dir = folder();
    let packs = open(dir.path()).await;
    packs.install(fixture("fixtures/echo"), NOW).await.expect("installed");
    packs.changed().await;
}

#[tokio::test]
async fn the_calls_of_one_pack_have_an_end() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let active = packs.find("system").expect("answers");
    let mut places = Vec::new();
    for _ in 0..limits::CALLS_PER_PACK {
        places.push(active.place(Duration::ZERO).await.expect("free"));
    }
    assert_eq!(active.place(Duration::ZERO).await.expect_err("none is left").code, Code::Busy);
    places.pop();
    drop(active.place(Duration::ZERO).await.expect("one is free again"));
}

#[tokio::test]
async fn the_agents_own_commands_answer_as_they_are_described() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let policy = PolicyFile::at(dir.path().join("agent.toml")).expect("none");
    let view = View { packs: &packs, policy: &policy, now: NOW, started: Instant::now(), boot_count: 3, calls: 1 };
    let name = |name: &str| Value::Map(vec![("name".into(), name.into())]);
    let echo = fixture("fixtures/echo");
    let mut said = vec![("pack.install", finish_install(&view, echo.clone(), sha256(&echo)).await.expect("installed"))];
    finish_install(&view, fixture("fixtures/echo-next"), sha256(&fixture("fixtures/echo-next"))).await.expect("installed");
    let version = Value::Map(vec![("name".into(), "echo".into()), ("digest".into(), sha256(&echo).to_string().into())]);
    for (command, params) in [
        (PING, Value::Map(vec![])),
        (STATUS, Value::Map(vec![])),
        (LIST, Value::Map(vec![])),
        (ROLLBACK, name("echo")),
        (ACTIVATE, version),
        (REMOVE, name("echo")),
    ] {
        said.push((command, answer(&view, command, &params).await.expect(command)));
    }
    for (command, value) in said {
        let described = crate::native::find(command).expect("described");
        value.check(described.result.as_ref().expect("gives something")).expect(command);
    }
    let mixed = finish_install(&view, echo, Digest([0; 32])).await.expect_err("another digest");
    assert_eq!(mixed.code, Code::DigestMismatch);
}

#[tokio::test]
async fn an_install_says_which_powers_are_missing() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, "[packs.thermal]\nsystem = false\n").expect("written");
    let policy = PolicyFile::at(path).expect("good");
    let view = View { packs: &packs, policy: &policy, now: NOW, started: Instant::now(), boot_count: 1, calls: 0 };
    let thermal = fixture("thermal");
    let done = finish_install(&view, thermal.clone(), sha256(&thermal)).await.expect("installed all the same");
    assert_eq!(done.get("denied_powers"), Some(&Value::Array(vec!["system".into()])));
}
