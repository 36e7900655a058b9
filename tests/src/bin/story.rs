//! The whole story on this machine, with its real output: a relay and an agent as real processes, a code, commands, a
//! pack shipped at runtime. `cargo build --workspace && cargo run --bin story`. Everything stays on loopback and in
//! temporary folders; both processes end with the story.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use outhaul_tests::process::{Line, Process, binary};
use outhaul_tests::stage::{command, pack};

/// What a step must end with.
#[derive(Clone, Copy)]
enum Ends {
    /// exit status 0
    Well,
    /// exactly this status
    With(i32),
    /// well, or as it honestly must on a machine without the device
    WellOrWithout(i32),
}

struct Story {
    relay_home: tempfile::TempDir,
    agent_home: tempfile::TempDir,
    without: Vec<String>,
}

impl Story {
    fn step(&mut self, words: &str, shown: &str, program: &str, arguments: &[&str], ends: Ends) -> Result<()> {
        heading(words, shown);
        let home = if program == "relay" { self.relay_home.path() } else { self.agent_home.path() };
        let mut run = command(&binary(program)?, home);
        run.args(arguments).current_dir(self.relay_home.path());
        let (status, said) = Process::start_as_seen(run)?.finish()?;
        said.iter().for_each(|line| println!("  {}", line.text()));
        let code = status.code().with_context(|| format!("`{shown}` ended: {status}"))?;
        let right = match ends {
            Ends::Well => code == 0,
            Ends::With(wanted) => code == wanted,
            Ends::WellOrWithout(without) => code == 0 || code == without,
        };
        anyhow::ensure!(right, "`{shown}` ended with status {code}");
        if code != 0 {
            println!("  (exit status {code})");
            if matches!(ends, Ends::WellOrWithout(_)) {
                self.without.push(shown.to_owned());
            }
        }
        Ok(())
    }
}

fn heading(words: &str, shown: &str) {
    println!("\n# {words}\n$ {shown}");
    let _ = std::io::stdout().flush();
}

fn show_until(process: &mut Process, wanted: &str) -> Result<Line> {
    loop {
        let line = process.next_line().with_context(|| format!("`{wanted}` never came"))?;
        println!("  {}", line.text());
        if line.text().contains(wanted) {
            return Ok(line);
        }
    }
}

fn main() -> Result<()> {
    let mut story = Story { relay_home: tempfile::tempdir()?, agent_home: tempfile::tempdir()?, without: Vec::new() };

    heading("A relay. The first run makes its keys and says what it made and where.", "relay serve --listen 127.0.0.1:0");
    let mut serve = command(&binary("relay")?, story.relay_home.path());
    serve.args(["serve", "--listen", "127.0.0.1:0"]);
    let mut relay = Process::start_as_seen(serve)?;
    show_until(&mut relay, "next: ")?;
    let url = std::fs::read_to_string(story.relay_home.path().join("relay/address"))?.trim().to_owned();

    heading("A code for a new machine; the command waits until it is used.", "relay pair new");
    let mut new = command(&binary("relay")?, story.relay_home.path());
    new.args(["pair", "new"]);
    let mut maker = Process::start_as_seen(new)?;
    let shown = show_until(&mut maker, "agent pair")?;
    let code = shown.text().split_whitespace().skip_while(|word| *word != "--code").nth(1).context("a code in the command")?.to_owned();

    let pair = format!("agent pair --relay {url} --code {code} --name bench-1");
    let arguments = ["pair", "--relay", &url, "--code", &code, "--name", "bench-1"];
    story.step("On the other machine, the command it shows.", &pair, "agent", &arguments, Ends::Well)?;
    println!("\n# …and the first terminal says:");
    let (status, said) = maker.finish()?;
    anyhow::ensure!(status.success(), "`relay pair new` failed");
    // What came before the code was used has been shown.
    said.iter().skip_while(|line| !line.text().starts_with("waiting")).for_each(|line| println!("  {}", line.text()));

    heading("The agent dials out and listens on nothing.", "agent run &");
    let mut run = command(&binary("agent")?, story.agent_home.path());
    run.arg("run");
    let mut agent = Process::start_as_seen(run)?;
    show_until(&mut agent, "connected")?;

    story.step("Who is there.", "relay nodes", "relay", &["nodes"], Ends::Well)?;
    story.step("What it can do.", "relay nodes describe bench-1", "relay", &["nodes", "describe", "bench-1"], Ends::Well)?;
    story.step(
        "Its GPUs, or honestly none.",
        "relay invoke bench-1 gpu.list",
        "relay",
        &["invoke", "bench-1", "gpu.list"],
        Ends::WellOrWithout(1),
    )?;
    story.step("The machine.", "relay invoke bench-1 system.info", "relay", &["invoke", "bench-1", "system.info"], Ends::Well)?;
    story.step(
        "Nobody may run programs yet, and the refusal says who can change that, and how.",
        "relay run bench-1 -- uname -a",
        "relay",
        &["run", "bench-1", "--", "uname", "-a"],
        Ends::With(255),
    )?;
    story.step(
        "The machine's owner allows two programs.",
        "agent allow system process uname sh",
        "agent",
        &["allow", "system", "process", "uname", "sh"],
        Ends::Well,
    )?;
    story.step("And cameras.", "agent allow camera camera", "agent", &["allow", "camera", "camera"], Ends::Well)?;
    story.step(
        "Now it runs; the agent was not restarted.",
        "relay run bench-1 -- uname -a",
        "relay",
        &["run", "bench-1", "--", "uname", "-a"],
        Ends::Well,
    )?;
    let snap = ["invoke", "bench-1", "camera.snap", "--out", "whiteboard.jpg"];
    story.step(
        "A photograph, where there is a camera.",
        "relay invoke bench-1 camera.snap --out whiteboard.jpg",
        "relay",
        &snap,
        Ends::WellOrWithout(1),
    )?;

    let script = "for i in 1 2 3; do echo $i; sleep 1; done; exit 7";
    heading("Output comes as it is produced; the exit status is the program's own.", &format!("relay run bench-1 -- sh -c '{script}'"));
    let mut live = command(&binary("relay")?, story.relay_home.path());
    live.args(["run", "bench-1", "--", "sh", "-c", script]);
    let began = Instant::now();
    let mut live = Process::start_as_seen(live)?;
    while let Some(line) = live.next_line() {
        println!("  {}   (after {:.1} s)", line.text(), began.elapsed().as_secs_f32());
    }
    let (status, _) = live.finish()?;
    anyhow::ensure!(status.code() == Some(7), "the exit status was lost: {status}");
    println!("  (exit status 7)");

    let thermal = pack("thermal");
    let thermal = thermal.to_str().context("a path in UTF-8")?;
    story.step(
        "A pack the agent has never seen, shipped while it runs.",
        "relay pack deploy ./thermal.wasm bench-1",
        "relay",
        &["pack", "deploy", thermal, "bench-1"],
        Ends::Well,
    )?;
    story.step(
        "Its commands answer at once.",
        "relay invoke bench-1 thermal.summary",
        "relay",
        &["invoke", "bench-1", "thermal.summary"],
        Ends::Well,
    )?;
    story.step(
        "And say so where there is no sensor.",
        "relay invoke bench-1 thermal.read zone=cpu",
        "relay",
        &["invoke", "bench-1", "thermal.read", "zone=cpu"],
        Ends::WellOrWithout(1),
    )?;

    agent.stop()?;
    relay.stop()?;
    println!("\nThe story is told.");
    if !story.without.is_empty() {
        println!("This machine lacks the device for: {}. The answers above are the honest ones.", story.without.join("; "));
    }
    Ok(())
}
