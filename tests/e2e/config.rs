//! Configuration speaks plainly: unknown key, missing file, bad value are refused at start, with path and key.

use anyhow::Result;
use outhaul_tests::stage::{Node, Stage};

fn refused(node: &Node, text: &str, words: &[&str]) -> Result<()> {
    std::fs::write(node.file("agent.toml"), text)?;
    let ran = node.run(&["run"])?;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    for word in [&["agent.toml"], words].concat() {
        assert!(ran.stderr.contains(word), "`{word}` is not in: {}", ran.stderr);
    }
    Ok(())
}

#[test]
fn an_agents_mistakes_are_named() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.paired("one")?;
    let relay = format!("relay = \"{}\"\n", stage.url);
    refused(&node, &format!("{relay}colour = 1\n"), &["colour"])?;
    refused(&node, &format!("{relay}[limits]\nmemory_mib = \"much\"\n"), &["memory_mib"])?;
    refused(&node, &format!("{relay}[packs.system]\nprocess = {{ alow = [\"df\"] }}\n"), &["alow"])?;
    refused(&node, &format!("{relay}[packs.system]\nteleport = true\n"), &["teleport"])?;
    refused(&node, "relay = \n", &["line 1"])?;
    Ok(())
}

#[test]
fn a_relays_mistakes_are_named() -> Result<()> {
    let mut stage = Stage::start()?;
    stage.relay.take().unwrap().stop()?;
    let file = stage.home.path().join("relay/relay.toml");
    for (text, word) in [("lissten = \"x\"\n", "lissten"), ("listen = 5\n", "listen"), ("[pairing]\ncode_ttl_secs = -1\n", "code_ttl_secs")]
    {
        std::fs::write(&file, text)?;
        let ran = stage.run(&["serve", "--listen", "127.0.0.1:0"])?.exits(2)?;
        assert!(ran.stderr.contains("relay.toml") && ran.stderr.contains(word), "{}", ran.stderr);
    }
    Ok(())
}

#[test]
fn plaintext_beyond_this_machine_must_be_asked_for_by_name() -> Result<()> {
    let stage = Stage::start()?;
    let other = tempfile::tempdir()?;
    let mut serve = outhaul_tests::stage::command(&outhaul_tests::binary("relay")?, other.path());
    serve.args(["serve", "--listen", "0.0.0.0:0"]);
    let ran = outhaul_tests::Ran::of(serve.output()?);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("allow_plaintext"), "{}", ran.stderr);
    let node = Node::new("one")?;
    let ran = node.run(&["pair", "--relay", "ws://192.0.2.1:8765", "--code", "111111"])?;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("plaintext"), "{}", ran.stderr);
    drop(stage);
    Ok(())
}

#[test]
fn a_key_that_others_can_read_is_refused() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::start()?;
    let node = stage.paired("one")?;
    std::fs::set_permissions(node.file("agent.key"), std::fs::Permissions::from_mode(0o644))?;
    let ran = node.run(&["run"])?;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("agent.key"), "{}", ran.stderr);
    Ok(())
}

#[test]
fn an_agent_listens_on_nothing() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("one")?;
    let pid = node.agent()?.pid();
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        if let Ok(target) = std::fs::read_link(entry?.path()) {
            let target = target.to_string_lossy().into_owned();
            inodes.extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
        }
    }
    assert!(!inodes.is_empty());
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN; any UDP socket would be one too many.
            let ours = inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
            assert!(!(ours && (fields[3] == "0A" || table.starts_with("udp"))), "{line}");
        }
    }
    Ok(())
}

#[test]
fn no_secret_is_logged_at_any_level() -> Result<()> {
    let stage = Stage::start()?;
    let node = Node::new("one")?;
    let (maker, code) = stage.pair_new(&[])?;
    let traced = |mut command: std::process::Command| -> Result<String> {
        let ran = outhaul_tests::Ran::of(command.env("RUST_LOG", "trace").output()?).ok()?;
        Ok(format!("{}{}", ran.stdout, ran.stderr))
    };
    let paired = traced(node.command(&["pair", "--relay", &stage.url, "--code", &code, "--name", "one"])?)?;
    maker.finish()?;
    let mut agent = node.command(&["run"])?;
    agent.env("RUST_LOG", "trace");
    let mut agent = outhaul_tests::Process::start(agent)?;
    agent.wait_for("connected")?;
    let called = traced(stage.command(&["invoke", "one", "system.info"])?)?;
    let (_, ran) = agent.stop()?;
    let logs = format!("{paired}{called}{ran:?}");
    assert!(logs.contains("TRACE") || logs.contains("DEBUG"), "nothing was traced");
    assert!(!paired.contains(&code), "the code was logged");
    for path in [node.file("agent.key"), stage.home.path().join("operator/operator.key"), stage.home.path().join("operator/fleet.key")] {
        let text = std::fs::read_to_string(&path)?;
        let secret = text.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(secret.len() == 64 && !logs.contains(&secret), "{} was logged", path.display());
    }
    Ok(())
}
