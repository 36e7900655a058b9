use super::*;
use crate::native::{View, Wanted, answer, finish_install};
use crate::policy::PolicyFile;
use outhaul_protocol::describe::PackDescription;
use outhaul_protocol::limits;
use outhaul_protocol::native::{ACTIVATE, LIST, PING, REMOVE, ROLLBACK, STATUS};
use outhaul_protocol::objects::Revocations;
use outhaul_protocol::pack::{self, Contents, Manifest, PACK_SECTION, append_section};
use outhaul_protocol::publisher::PublisherKey;
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::{Reading, Time};
use outhaul_protocol::value::Value;
use std::time::{Duration, Instant};

const NOW: Time = Time(1_800_000_000);
const CLOCK: Reading = Reading { now: NOW, sure: true };

fn publisher() -> PublisherKey {
    PublisherKey::from_bytes(&[60; 32])
}

fn trusting(keys: &[&PublisherKey]) -> Trust {
    let mut trust = Trust::default();
    keys.iter().for_each(|key| trust.publishers.trust(key.public(), None));
    trust
}

/// What this publisher ships with a component.
fn signed_by(key: &PublisherKey, bytes: &Bytes) -> Shipment {
    let signature = pack::read(bytes).ok().map(|contents| key.publish(sha256(bytes), &contents, NOW, None).into_bytes());
    Shipment { signature, downgrade: false }
}

async fn install(packs: &PackSet, bytes: Bytes) -> Result<Installed, Failure> {
    let shipment = signed_by(&publisher(), &bytes);
    packs.install(bytes, &shipment, &trusting(&[&publisher()]), CLOCK).await
}

/// A component under another name and version: its manifest's section is replaced.
fn renamed(bytes: &Bytes, name: &str, version: &str) -> Bytes {
    let manifest = Manifest { name: name.into(), version: version.into(), ..Manifest::default() };
    let mut out = bytes[..8].to_vec();
    let mut rest = &bytes[8..];
    while !rest.is_empty() {
        let (mut length, mut at, mut shift) = (0usize, 1, 0);
        loop {
            length |= usize::from(rest[at] & 0x7f) << shift;
            (at, shift) = (at + 1, shift + 7);
            if rest[at - 1] & 0x80 == 0 {
                break;
            }
        }
        let (section, after) = rest.split_at(at + length);
        let is_manifest = section[0] == 0 && section[at + 1..].starts_with(PACK_SECTION.as_bytes());
        if !is_manifest {
            out.extend_from_slice(section);
        }
        rest = after;
    }
    append_section(&mut out, PACK_SECTION, &manifest.to_json());
    out.into()
}

fn fixture(name: &str) -> Bytes {
    let path = format!("{}/../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).expect(&path).into()
}

fn wanted(bytes: &Bytes) -> Wanted {
    let params = Value::Map(vec![
        ("digest".into(), sha256(bytes).to_string().into()),
        ("size".into(), Value::Int(bytes.len() as i128)),
        ("signature".into(), Value::Bytes(signed_by(&publisher(), bytes).signature.expect("signed"))),
    ]);
    Wanted::of(&params).expect("well formed")
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
        outside: outhaul_host::power::http::Outside::default(),
        seat: outhaul_host::power::seat::Config::default(),
        containers: outhaul_host::power::containers::Config::default(),
    };
    Host::new(config).expect("a host")
}

async fn open(dir: &Path) -> PackSet {
    open_trusting(dir, &trusting(&[&publisher()])).await
}

async fn open_trusting(dir: &Path, trust: &Trust) -> PackSet {
    PackSet::with(test_host(dir), Shelf::new(dir), trust).await.expect("opened")
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
    let announced: Vec<_> = packs.active().iter().map(|active| active.announced(|_| true, &[])).collect();
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
    let (dir, mine) = (folder(), trusting(&[&publisher()]));
    let packs = open(dir.path()).await;
    let (one, two) = (fixture("fixtures/echo"), fixture("fixtures/echo-next"));
    let first = install(&packs, one.clone()).await.expect("installed");
    assert_eq!((first.active.name(), first.replaced), ("echo", None));
    let under_way = packs.find("echo").expect("answers");
    let second = install(&packs, two.clone()).await.expect("installed");
    assert_eq!(second.replaced, Some(sha256(&one)));
    assert_eq!(
        (under_way.digest(), packs.find("echo").expect("answers").digest()),
        (sha256(&one), sha256(&two)),
        "a call keeps its version"
    );
    let back = packs.rollback("echo", &mine).await.expect("there is one before");
    assert_eq!((back.active.digest(), back.replaced), (sha256(&one), Some(sha256(&two))));
    let again = packs.activate("echo", sha256(&two), &mine).await.expect("is here");
    assert_eq!(again.active.digest(), sha256(&two));
    let list: Vec<_> =
        packs.list().await.into_iter().filter(|listed| listed.name == "echo").map(|listed| (listed.digest, listed.active)).collect();
    assert_eq!(list, [(sha256(&two), true), (sha256(&one), false)]);

    let reopened = open(dir.path()).await;
    assert_eq!(reopened.find("echo").expect("survives").digest(), sha256(&two));
    assert_eq!(reopened.rollback("echo", &mine).await.expect("survives too").active.digest(), sha256(&one));
    assert_eq!(reopened.remove("echo").await.expect("removed").len(), 2);
    assert!(reopened.find("echo").is_none() && open(dir.path()).await.find("echo").is_none());
    assert_eq!(reopened.remove("echo").await.expect_err("gone").code, Code::BadParams);
}

#[tokio::test]
async fn installing_twice_is_once_and_an_interface_has_one_pack() {
    let (dir, mine) = (folder(), trusting(&[&publisher()]));
    let packs = open(dir.path()).await;
    install(&packs, fixture("fixtures/echo")).await.expect("installed");
    let again = install(&packs, fixture("fixtures/echo")).await.expect("the same");
    assert_eq!(again.replaced, None);
    assert_eq!(packs.rollback("echo", &mine).await.expect_err("nothing before").code, Code::BadParams);
    let taken = install(&packs, fixture("fixtures/clash")).await.expect_err("gpu answers already");
    assert_eq!(taken.code, Code::CommandTaken);
    assert!(packs.find("gpu").expect("still").embedded());
    assert!(packs.named("clash").is_none());
}

#[tokio::test]
async fn what_does_not_load_changes_nothing() {
    let dir = folder();
    let packs = open(dir.path()).await;
    for bytes in [Bytes::from_static(b"not wasm"), fixture("fixtures/unknown-import"), fixture("gpu").slice(..1000)] {
        install(&packs, bytes).await.expect_err("refused");
    }
    assert_eq!((packs.count(), Shelf::new(dir.path()).index()), (3, Ok(Index::default())));
    assert!(!dir.path().join("packs").exists(), "nothing was written");
}

#[tokio::test]
async fn embedded_packs_can_be_activated_but_not_removed() {
    let (dir, mine) = (folder(), trusting(&[&publisher()]));
    let packs = open(dir.path()).await;
    let same = install(&packs, fixture("gpu")).await.expect("is here already");
    assert!(same.active.embedded() && same.replaced.is_none());
    let digest = embedded_digest("gpu").expect("embedded");
    assert!(packs.activate("gpu", digest, &mine).await.expect("active already").active.embedded());
    for failure in [
        packs.remove("gpu").await.expect_err("came with the agent"),
        packs.rollback("gpu", &mine).await.expect_err("nothing before").clone(),
    ] {
        assert_eq!(failure.code, Code::BadParams);
    }
}

#[tokio::test]
async fn an_installed_pack_that_is_damaged_does_not_keep_the_agent_down() {
    let dir = folder();
    let digest = {
        let packs = open(dir.path()).await;
        install(&packs, fixture("fixtures/echo")).await.expect("installed").active.digest()
    };
    std::fs::write(dir.path().join(format!("packs/{digest}.wasm")), b"damaged").expect("written");
    let packs = open(dir.path()).await;
    assert_eq!(packs.count(), 3);
    let listed = packs.list().await.into_iter().find(|listed| listed.name == "echo").expect("is told");
    assert!(!listed.active);
    install(&packs, fixture("fixtures/echo")).await.expect("deployed again");
    assert!(open(dir.path()).await.find("echo").is_some(), "that mends it");
}

#[tokio::test]
async fn a_change_is_told_also_to_who_asks_later() {
    let dir = folder();
    let packs = open(dir.path()).await;
    install(&packs, fixture("fixtures/echo")).await.expect("installed");
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
    let trust = trusting(&[&publisher()]);
    let view = View { packs: &packs, policy: &policy, trust, clock: CLOCK, started: Instant::now(), boot_count: 3, calls: 1 };
    let name = |name: &str| Value::Map(vec![("name".into(), name.into())]);
    let echo = fixture("fixtures/echo");
    let mut said = vec![("pack.install", finish_install(&view, echo.clone(), &wanted(&echo)).await.expect("installed"))];
    let next = fixture("fixtures/echo-next");
    finish_install(&view, next.clone(), &wanted(&next)).await.expect("installed");
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
    let mixed =
        finish_install(&view, echo.clone(), &Wanted { digest: Digest([0; 32]), ..wanted(&echo) }).await.expect_err("another digest");
    assert_eq!(mixed.code, Code::DigestMismatch);
}

#[tokio::test]
async fn a_document_has_what_is_here_answer_without_its_bytes_and_older_only_on_purpose() {
    let (dir, mine) = (folder(), trusting(&[&publisher()]));
    let packs = open(dir.path()).await;
    let (one, two) = (fixture("fixtures/echo"), fixture("fixtures/echo-next"));
    let (older, newer) = (signed_by(&publisher(), &one), signed_by(&publisher(), &two));
    assert!(packs.resume("echo", sha256(&one), &older, &mine).await.expect("nothing against it").is_none(), "it is not here");
    install(&packs, one.clone()).await.expect("installed");
    install(&packs, two.clone()).await.expect("installed");
    let refused = packs.resume("echo", sha256(&one), &older, &mine).await.expect_err("older");
    assert_eq!(refused.code, Code::Replayed);
    let meant = Shipment { downgrade: true, ..older.clone() };
    let back = packs.resume("echo", sha256(&one), &meant, &mine).await.expect("meant").expect("is here");
    assert_eq!((back.active.digest(), back.replaced), (sha256(&one), Some(sha256(&two))));
    for (what, shipment, trust, code) in [
        ("stripped", Shipment { downgrade: true, ..Shipment::default() }, mine.clone(), Code::BadSignature),
        ("another's", Shipment { downgrade: true, ..newer.clone() }, mine.clone(), Code::BadSignature),
        ("a stranger's", meant.clone(), Trust::default(), Code::BadKey),
    ] {
        assert_eq!(packs.resume("echo", sha256(&one), &shipment, &trust).await.expect_err(what).code, code, "{what}");
    }
    std::fs::write(dir.path().join(format!("packs/{}.wasm", sha256(&two))), b"damaged").expect("written");
    assert!(packs.resume("echo", sha256(&two), &newer, &mine).await.expect("to be fetched again").is_none());
    let gpu = embedded_digest("gpu").expect("embedded");
    assert!(packs.resume("gpu", gpu, &Shipment::default(), &mine).await.expect("embedded").expect("is here").active.embedded());
    assert_eq!(packs.resume("echo", gpu, &Shipment::default(), &mine).await.expect_err("another's name").code, Code::PackRejected);
    let deployments = crate::deployments::Deployments::open(dir.path()).expect("none yet");
    let told = crate::deployments::told(&deployments, &packs, Some("echo"));
    told.check(crate::native::find("pack.status").expect("described").result.as_ref().expect("typed")).expect("fits");
    let Value::Array(told) = told else { panic!("a list") };
    let running = told[0].get("running").expect("answers");
    assert_eq!(running.get("digest"), Some(&sha256(&one).to_string().into()));
    assert!(packs.has("echo").await && !packs.has("gpu").await);
}

#[tokio::test]
async fn an_install_says_which_powers_are_missing() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, "[packs.thermal]\nsystem = false\n").expect("written");
    let policy = PolicyFile::at(path).expect("good");
    let trust = trusting(&[&publisher()]);
    let view = View { packs: &packs, policy: &policy, trust, clock: CLOCK, started: Instant::now(), boot_count: 1, calls: 0 };
    let thermal = fixture("thermal");
    let done = finish_install(&view, thermal.clone(), &wanted(&thermal)).await.expect("installed all the same");
    assert_eq!(done.get("denied_powers"), Some(&Value::Array(vec!["system".into()])));
}

/// Every refusal in its own words; nothing of it is loaded, kept or remembered.
#[tokio::test]
async fn a_pack_that_nobody_vouches_for_is_refused_with_a_way_out() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let (mine, stranger) = (publisher(), PublisherKey::from_bytes(&[61; 32]));
    let (echo, other) = (fixture("fixtures/echo"), fixture("fixtures/devices"));
    let contents = pack::read(&echo).expect("a pack");
    let say = |digest: Digest, contents: &Contents| {
        let signature = Some(mine.publish(digest, contents, NOW, None).into_bytes());
        Shipment { signature, downgrade: false }
    };
    let mut forged = signed_by(&mine, &echo);
    if let Some(byte) = forged.signature.as_mut().and_then(|signature| signature.last_mut()) {
        *byte ^= 1;
    }
    let named = |name: &str, version: &str| Contents {
        manifest: Manifest { name: name.into(), version: version.into(), ..Manifest::default() },
        ..contents.clone()
    };
    let late = mine.publish(sha256(&echo), &contents, NOW, Some(NOW)).into_bytes();
    let shipments = [
        ("stripped", Shipment::default()),
        ("forged", forged),
        ("unknown publisher", signed_by(&stranger, &echo)),
        ("another pack's", signed_by(&mine, &other)),
        ("another name", say(sha256(&echo), &named("gpu", "0.1.0"))),
        ("another version", say(sha256(&echo), &named("echo", "0.2.0"))),
        ("another manifest", say(sha256(&echo), &Contents { manifest_digest: sha256(b"more"), ..contents.clone() })),
        ("ended", Shipment { signature: Some(late), downgrade: false }),
        ("not a signature", Shipment { signature: Some(b"trust me".to_vec()), downgrade: false }),
    ];
    let mut said = Vec::new();
    for (what, shipment) in shipments {
        let failure = packs.install(echo.clone(), &shipment, &trusting(&[&mine]), CLOCK).await.expect_err(what);
        let early = packs.check(sha256(&echo), &shipment, &trusting(&[&mine]), CLOCK).await.err();
        let when = if early.is_some() { "before a byte is fetched" } else { "before it is compiled" };
        let hint = failure.hint.unwrap_or_default();
        said.push(format!("{what} ({}, {when})\n  {}\n  {hint}", failure.code, failure.message));
        assert!(packs.named("echo").is_none() && !dir.path().join("packs").exists(), "{what}");
    }
    let ids = [(mine.id().short(), "MINE"), (stranger.id().to_string(), "STRANGER")];
    let text = ids.iter().fold(said.join("\n"), |text, (id, name)| text.replace(id, name));
    let text = [(&echo, "ECHO"), (&other, "OTHER")].iter().fold(text, |text, (bytes, name)| text.replace(&sha256(bytes).short(), name));
    insta::assert_snapshot!(text.replace(&contents.manifest_digest.short(), "MANIFEST"));
}

#[tokio::test]
async fn an_older_version_needs_a_word_of_its_own_even_after_the_pack_is_gone() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let (mine, heir) = (publisher(), PublisherKey::from_bytes(&[61; 32]));
    let mut trust = trusting(&[&mine]);
    let (old, new) = (fixture("fixtures/echo"), fixture("fixtures/echo-next"));
    install(&packs, new.clone()).await.expect("installed");
    let failure = install(&packs, old.clone()).await.expect_err("older");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (Code::Replayed, "version 0.1.0 of pack `echo` is older than 0.2.0, which this machine has had from the same publisher",)
    );
    packs.remove("echo").await.expect("removed");
    let packs = open(dir.path()).await;
    assert_eq!(install(&packs, old.clone()).await.expect_err("still older").code, Code::Replayed);
    trust.publishers.follow(&mine.hand_on(&heir, NOW)).expect("follows");
    let by_heir = signed_by(&heir, &old);
    assert_eq!(packs.install(old.clone(), &by_heir, &trust, CLOCK).await.expect_err("the same publisher").code, Code::Replayed);
    let on_purpose = Shipment { downgrade: true, ..by_heir };
    packs.install(old.clone(), &on_purpose, &trust, CLOCK).await.expect("said so");
    // Somebody else's versions are counted apart.
    let other = PublisherKey::from_bytes(&[62; 32]);
    packs.install(old.clone(), &signed_by(&other, &old), &trusting(&[&other]), CLOCK).await.expect("its first");
}

#[tokio::test]
async fn what_lies_on_the_shelf_is_verified_again_at_every_start() {
    let dir = folder();
    let (mine, other) = (publisher(), PublisherKey::from_bytes(&[61; 32]));
    let echo = fixture("fixtures/echo");
    let digest = install(&open(dir.path()).await, echo.clone()).await.expect("installed").active.digest();
    let file = dir.path().join(format!("packs/{digest}.cose"));
    let good = std::fs::read(&file).expect("beside the component");
    let refused = async |trust: &Trust| {
        let packs = open_trusting(dir.path(), trust).await;
        assert!(packs.named("echo").is_none());
        let listed = packs.list().await.into_iter().find(|listed| listed.digest == digest).expect("is told");
        let again = packs.activate("echo", digest, trust).await.expect_err("nor later");
        assert_eq!(listed.refused.as_deref(), Some(again.message.as_str()));
        again.code
    };
    assert_eq!(refused(&trusting(&[])).await, Code::BadKey);
    let swapped = signed_by(&mine, &fixture("fixtures/devices")).signature.expect("signed");
    for (what, bytes) in
        [("swapped", &swapped[..]), ("cut", &good[..40]), ("of another", &signed_by(&other, &echo).signature.expect("signed"))]
    {
        std::fs::write(&file, bytes).expect("altered");
        assert!(matches!(refused(&trusting(&[&mine])).await, Code::BadSignature | Code::BadKey), "{what}");
    }
    std::fs::remove_file(&file).expect("stripped");
    assert_eq!(refused(&trusting(&[&mine])).await, Code::BadSignature);
    std::fs::write(&file, &good).expect("mended");
    assert!(open(dir.path()).await.named("echo").is_some());
}

#[tokio::test]
async fn packs_of_a_publisher_who_counts_no_more_stop_at_once_and_others_go_on() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let (mine, other, fleet) = (publisher(), PublisherKey::from_bytes(&[61; 32]), outhaul_protocol::keys::SecretKey::from_bytes(&[1; 32]));
    let mut trust = trusting(&[&mine, &other]);
    install(&packs, fixture("fixtures/echo")).await.expect("installed");
    let devices = fixture("fixtures/devices");
    packs.install(devices.clone(), &signed_by(&other, &devices), &trust, CLOCK).await.expect("installed");
    // A deployed pack in an embedded one's place, which takes its name back.
    let gpu = renamed(&fixture("gpu"), "gpu", "9.0.0");
    install(&packs, gpu.clone()).await.expect("installed");
    assert!(packs.review(&trust).is_empty());
    let under_way = packs.find("echo").expect("answers");
    let list = Revocations { iss: fleet.id(), aud: fleet.id(), iat: NOW, serial: 1, keys: vec![mine.id()], ctis: vec![], next: None };
    trust.revoked = trust.revoked.follow(&Signed::sign(&fleet, &list), &fleet.public()).expect("follows");
    let mut gone = packs.review(&trust);
    gone.sort();
    let mut wanted = vec![under_way.digest(), sha256(&gpu)];
    wanted.sort();
    assert_eq!(gone, wanted);
    assert!(packs.find("echo").is_none() && packs.find("gpu").expect("the embedded one").embedded());
    assert!(packs.find("devices").is_some_and(|active| !active.embedded()));
    assert_eq!(packs.activate("echo", under_way.digest(), &trust).await.expect_err("nor anew").code, Code::Revoked);
    assert!(open_trusting(dir.path(), &trust).await.find("echo").is_none());
    assert!(packs.review(&trust).is_empty(), "once is enough");
}

#[tokio::test]
async fn a_key_that_was_replaced_keeps_what_it_vouched_for() {
    let dir = folder();
    let packs = open(dir.path()).await;
    let (mine, heir) = (publisher(), PublisherKey::from_bytes(&[61; 32]));
    install(&packs, fixture("fixtures/echo")).await.expect("installed");
    let mut trust = trusting(&[&mine]);
    trust.publishers.follow(&mine.hand_on(&heir, NOW)).expect("follows");
    assert!(packs.review(&trust).is_empty());
    assert!(packs.find("echo").expect("goes on").origin().is_by(&heir.id()), "the heir's grants are its own");
    assert!(open_trusting(dir.path(), &trust).await.find("echo").is_some());
    let next = fixture("fixtures/echo-next");
    let failure = packs.install(next.clone(), &signed_by(&mine, &next), &trust, CLOCK).await.expect_err("replaced");
    assert_eq!(failure.code, Code::BadKey);
    packs.install(next.clone(), &signed_by(&heir, &next), &trust, CLOCK).await.expect("the heir signs");
    assert_eq!(packs.rollback("echo", &trust).await.expect("what it vouched for").active.pack().version(), "0.1.0");
}
