//! A page: lines that were typed, and what came of each.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use outhaul_tests::process::{Line, PATIENCE, Process, Ran};
use outhaul_tests::stage::{Node, Stage, pack};

use super::tidy::Tidy;

/// What people never should read: the insides of a program.
const INSIDES: &[&str] = &["panicked", "RUST_BACKTRACE", "Some(", "Err(", "KeyId(", "Other(", "Error {", "unwrap"];

/// The pages there are, by name: [`super::cover`] reads these and no others.
pub(super) const PAGES: &[&str] = &[
    "help-relay",
    "help-agent",
    "first",
    "no-fleet",
    "serve",
    "pairing",
    "approval",
    "nodes",
    "calls",
    "programs",
    "packs",
    "operators",
    "machine",
    "powers",
    "links",
    "authors",
    "publishers",
];

/// One of [`PAGES`], being written.
pub(super) struct Page {
    name: &'static str,
    text: String,
    pub(super) tidy: Tidy,
}

impl Page {
    pub(super) fn new(name: &'static str) -> Self {
        assert!(PAGES.contains(&name), "`{name}` is not among the pages");
        let mut tidy = Tidy::default();
        let dist = pack("");
        let dist = dist.parent().expect("a pack lies in a folder");
        tidy.replace(dist.to_string_lossy(), "dist");
        Page { name, text: String::new(), tidy }
    }

    /// The same with a stage: its folder and its address vary.
    pub(super) fn of(name: &'static str, stage: &Stage) -> Self {
        let mut page = Page::new(name);
        page.tidy.replace(stage.home.path().to_string_lossy(), "/home/anna");
        page
    }

    /// What the next lines are about.
    pub(super) fn head(&mut self, words: &str) {
        self.text.push_str(&format!("\n# {words}\n"));
    }

    /// Types a line for the operator, in the stage's home.
    pub(super) fn relay(&mut self, stage: &Stage, line: &str) -> Result<Ran> {
        self.typed(stage.command(&[])?, "relay", line, None)
    }

    /// The same with something on stdin.
    pub(super) fn relay_with(&mut self, stage: &Stage, line: &str, stdin: &str) -> Result<Ran> {
        self.typed(stage.command(&[])?, "relay", line, Some(stdin))
    }

    /// Types a line as a person, then as a program; gives what the program got.
    pub(super) fn both(&mut self, stage: &Stage, line: &str) -> Result<Ran> {
        self.relay(stage, line)?;
        self.relay(stage, &format!("--json {line}"))
    }

    /// Types a line on a machine.
    pub(super) fn agent(&mut self, node: &Node, line: &str) -> Result<Ran> {
        self.tidy.replace(node.home.path().to_string_lossy(), "/home/box");
        self.typed(node.command(&[])?, "agent", line, None)
    }

    /// Types a line on a machine as a person, then as a program.
    pub(super) fn agent_both(&mut self, node: &Node, line: &str) -> Result<Ran> {
        self.agent(node, line)?;
        self.agent(node, &format!("--json {line}"))
    }

    /// Runs a line to its end and writes down what came.
    pub(super) fn typed(&mut self, mut command: Command, program: &str, line: &str, stdin: Option<&str>) -> Result<Ran> {
        command.args(words(line));
        let ran = taken(&mut command, stdin)?;
        self.write(program, line, &ran);
        Ok(ran)
    }

    /// Types a line for the operator without writing it down.
    pub(super) fn unwritten(&self, stage: &Stage, line: &str) -> Result<Ran> {
        taken(stage.command(&[])?.args(words(line)), None)
    }

    /// Types a line until this stands in its answer; it is not written down.
    pub(super) fn wait_for(&self, stage: &Stage, line: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.unwritten(stage, line)?.stdout.contains(wanted) {
                return Ok(());
            }
        }
        anyhow::bail!("`relay {line}` never says `{wanted}`")
    }

    /// Starts a line and waits for its first words; [`Page::ended`] writes it down.
    pub(super) fn begin_until(&self, stage: &Stage, line: &str, wanted: &str) -> Result<Process> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut process = self.begin(stage.command(&[])?, line)?;
            // A call that has just ended may still have its place.
            let later = |said: &str| hurried(said) || said.contains("as many calls as this node takes");
            let said = process.wait_until(wanted, |said| said.text().contains(wanted) || later(said.text()))?;
            if !later(said.text()) {
                return Ok(process);
            }
        }
        anyhow::bail!("`relay {line}` is never taken")
    }

    /// Starts a line whose words are waited for; [`Page::ended`] writes it down.
    pub(super) fn begin(&self, mut command: Command, line: &str) -> Result<Process> {
        command.args(words(line));
        Process::start(command)
    }

    /// Writes down a process that is over.
    pub(super) fn ended(&mut self, program: &str, line: &str, process: Process) -> Result<Ran> {
        use std::os::unix::process::ExitStatusExt as _;
        let (status, said) = process.finish()?;
        let lines = |out: bool| {
            said.iter().filter(|said| matches!(said, Line::Out(_)) == out).map(|said| format!("{}\n", said.text())).collect::<String>()
        };
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).context("an ending")?;
        let ran = Ran { code, bytes: lines(true).into_bytes(), stdout: lines(true), stderr: lines(false) };
        self.write(program, line, &ran);
        Ok(ran)
    }

    /// Types a line whose JSON is of the machine: its leaves are written down by their kind.
    pub(super) fn shape(&mut self, stage: &Stage, line: &str) -> Result<()> {
        let ran = self.unwritten(stage, line)?.ok()?;
        let stdout = format!("{}\n", kinds(&ran.json()?));
        self.write("relay", line, &Ran { stdout, ..ran });
        Ok(())
    }

    /// Writes down what came of a line.
    pub(super) fn write(&mut self, program: &str, line: &str, ran: &Ran) {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        for inside in INSIDES {
            assert!(!said.contains(inside), "`{program} {line}` shows its insides:\n{said}");
        }
        let json = words(line).iter().take_while(|word| *word != "--").any(|word| word == "--json");
        let mut entry = format!("$ {program} {line}\n");
        for out in ran.stdout.lines() {
            let out = if json { self.tidy.json(out) } else { out.to_owned() };
            // An empty line is one too.
            entry.extend(out.split('\n').map(|out| format!("| {out}\n")));
        }
        entry.extend(ran.stderr.lines().map(|err| format!("! {err}\n")));
        let entry = entry.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        self.text.push_str(&format!("{entry}\n= {}\n", ran.code));
    }

    /// The page is full: it is what it was.
    pub(super) fn done(self) {
        let text = self.tidy.tidy(self.text.trim_start());
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(self.name, text));
    }
}

/// A call's JSON with every leaf as the name of its kind: what a machine answers, without the machine.
fn kinds(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), kinds(value))).collect(),
        Value::Array(items) => items.iter().take(1).map(kinds).collect(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "text".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => "none".into(),
    }
}

/// Whether a node only asks for more time between two lines.
fn hurried(said: &str) -> bool {
    said.contains("asked to open too many within a second")
}

/// Runs a command until a node takes it: a page types faster than a node takes openings, and what it refused never ran.
fn taken(command: &mut Command, stdin: Option<&str>) -> Result<Ran> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let ran = run(command, stdin)?;
        if !hurried(&ran.stdout) && !hurried(&ran.stderr) {
            return Ok(ran);
        }
    }
    anyhow::bail!("{command:?} is never taken")
}

/// Runs a command to its end, in its home.
fn run(command: &mut Command, stdin: Option<&str>) -> Result<Ran> {
    let home = command.get_envs().find(|(name, _)| *name == "OUTHAUL_HOME").and_then(|(_, home)| home.map(ToOwned::to_owned));
    if let Some(home) = home {
        command.current_dir(home);
    }
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        // Whoever refused the line before reading it is no failure of ours.
        let _ = pipe.write_all(text.as_bytes());
    }
    Ok(Ran::of(child.wait_with_output()?))
}

/// The words of a line, as a shell takes it apart; single quotes hold together.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => {
                word.push(other);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// A machine that joins a stage's fleet under a name; its agent is not started.
pub(super) fn pair(stage: &Stage, node: &Node) -> Result<()> {
    let (maker, code) = stage.pair_new(&[])?;
    node.run(&["pair", "--relay", &stage.url, "--code", &code, "--name", &node.name])?.ok()?;
    let (status, said) = maker.finish()?;
    anyhow::ensure!(status.success(), "pair new failed: {said:?}");
    Ok(())
}

/// Changes a machine's `agent.toml`: what is there, and more.
pub(super) fn configure(node: &Node, more: &str) -> Result<()> {
    let path = node.file("agent.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    Ok(std::fs::write(&path, format!("{text}{more}"))?)
}

/// A path as a word.
pub(super) fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
