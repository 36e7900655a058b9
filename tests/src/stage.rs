//! A relay with its operator in one home, agents in homes of their own, and the moves between them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Line, Process, Ran, binary};

/// A relay and its operator.
#[derive(Debug)]
pub struct Stage {
    /// home of relay and operator
    pub home: TempDir,
    /// the relay, while it runs
    pub relay: Option<Process>,
    /// where it listens
    pub url: String,
    extra: Vec<String>,
    /// how much the relay says when it is started next
    pub log: Option<&'static str>,
}

/// A machine with an agent.
#[derive(Debug)]
pub struct Node {
    /// its home
    pub home: TempDir,
    /// the agent, while it runs
    pub agent: Option<Process>,
    /// its name
    pub name: String,
}

/// A command with a clean environment of ours and its home.
pub fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUTHAUL_") {
            command.env_remove(name);
        }
    }
    command.env("OUTHAUL_HOME", home).env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("COLUMNS");
    command
}

impl Stage {
    /// A relay on a free port with the one-machine set-up.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more arguments for `relay serve`.
    pub fn start_with(extra: &[&str]) -> Result<Self> {
        let extra = extra.iter().map(|text| (*text).to_owned()).collect();
        let mut stage = Stage { home: tempfile::tempdir()?, relay: None, url: String::new(), extra, log: None };
        stage.start_relay("127.0.0.1:0")?;
        Ok(stage)
    }

    /// Starts the relay at an address.
    pub fn start_relay(&mut self, listen: &str) -> Result<()> {
        let mut serve = command(&binary("relay")?, self.home.path());
        serve.args(["serve", "--listen", listen]).args(&self.extra).envs(self.log.map(|level| ("RUST_LOG", level)));
        let mut relay = Process::start(serve)?;
        relay.wait_for("listens on")?;
        self.url = std::fs::read_to_string(self.home.path().join("relay/address"))?.trim().to_owned();
        self.relay = Some(relay);
        Ok(())
    }

    /// Its address without the scheme.
    #[must_use]
    pub fn listen(&self) -> String {
        self.url.split("://").nth(1).unwrap_or_default().to_owned()
    }

    /// The running relay.
    pub fn relay(&mut self) -> Result<&mut Process> {
        self.relay.as_mut().context("the relay runs")
    }

    /// Stops the relay and starts it again at the same address.
    pub fn restart_relay(&mut self) -> Result<()> {
        let listen = self.listen();
        if let Some(relay) = self.relay.take() {
            relay.stop()?;
        }
        self.start_relay(&listen)
    }

    /// An operator's command line.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = command(&binary("relay")?, self.home.path());
        command.args(arguments);
        Ok(command)
    }

    /// Runs an operator's command.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        Ok(Ran::of(self.command(arguments)?.stdin(Stdio::null()).output()?))
    }

    /// Starts an operator's command whose lines are waited for.
    pub fn begin(&self, arguments: &[&str]) -> Result<Process> {
        Process::start(self.command(arguments)?)
    }

    /// A new machine, paired by code, with its agent running and connected.
    pub fn node(&self, name: &str) -> Result<Node> {
        let mut node = self.paired(name)?;
        node.start()?;
        Ok(node)
    }

    /// A new machine, paired by code, its agent not started.
    pub fn paired(&self, name: &str) -> Result<Node> {
        let node = Node::new(name)?;
        let (maker, code) = self.pair_new(&[])?;
        node.run(&["pair", "--relay", &self.url, "--code", &code, "--name", name])?.ok()?;
        let (status, said) = maker.finish()?;
        anyhow::ensure!(status.success(), "pair new failed: {said:?}");
        Ok(node)
    }

    /// `relay pair new --json`, waiting, and the code it shows.
    pub fn pair_new(&self, extra: &[&str]) -> Result<(Process, String)> {
        let mut arguments = vec!["--json", "pair", "new"];
        arguments.extend(extra);
        let mut maker = self.begin(&arguments)?;
        let shown = maker.wait_until("a code", |line| matches!(line, Line::Out(text) if text.contains("code")))?;
        let shown: serde_json::Value = serde_json::from_str(shown.text())?;
        let code = shown["code"].as_str().context("a code")?.to_owned();
        Ok((maker, code))
    }
}

impl Node {
    /// A machine with nothing on it.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Node { home: tempfile::tempdir()?, agent: None, name: name.to_owned() })
    }

    /// A command of the agent's.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = command(&binary("agent")?, self.home.path());
        command.args(arguments);
        Ok(command)
    }

    /// Runs a command of the agent's.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        Ok(Ran::of(self.command(arguments)?.stdin(Stdio::null()).output()?))
    }

    /// Starts the agent and waits until it is connected.
    pub fn start(&mut self) -> Result<()> {
        let mut agent = Process::start(self.command(&["run"])?)?;
        agent.wait_for("connected")?;
        self.agent = Some(agent);
        Ok(())
    }

    /// The running agent.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent runs")
    }

    /// Stops the agent.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(agent) = self.agent.take() {
            agent.stop()?;
        }
        Ok(())
    }

    /// A file in its agent folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join("agent").join(name)
    }
}

/// A pack as it is kept in the tree.
#[must_use]
pub fn pack(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist").join(format!("{name}.wasm"))
}
