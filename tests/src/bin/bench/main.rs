//! The benchmark: starts real relays and agents, measures, prints one table with what was wanted beside what was found.
//! Every figure comes from one run of this program; what is judged by a ratio has its other half measured in the same
//! run, in turns. A missed target is a row that says so, not a failure; a group that could not be measured is one.
//!
//! `bench [--quick] [forward|calls|cli|sandbox|stream|memory|agent|packs|swap|languages]…`, all without a name.

mod agent;
mod calls;
mod cli;
mod forward;
mod languages;
mod load;
mod memory;
mod nats;
mod packs;
mod plain;
mod sandbox;
mod stream;
mod swap;
mod table;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use table::{Row, Table};
use tokio::time::Instant;

/// Longest the whole run may take.
const WHOLE: Duration = Duration::from_secs(590);
/// Longest one group may take: what is slower hangs.
const GROUP: Duration = Duration::from_secs(240);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    quick: bool,
}

impl Effort {
    /// The full count, or the small one of `--quick`.
    pub(crate) fn of<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Rows that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Forward,
    Calls,
    Cli,
    Sandbox,
    Stream,
    Memory,
    Agent,
    Packs,
    Swap,
    Languages,
}

impl Group {
    const ALL: [Group; 10] = [
        Group::Forward,
        Group::Calls,
        Group::Cli,
        Group::Sandbox,
        Group::Stream,
        Group::Memory,
        Group::Agent,
        Group::Packs,
        Group::Swap,
        Group::Languages,
    ];

    fn name(self) -> &'static str {
        match self {
            Group::Forward => "forward",
            Group::Calls => "calls",
            Group::Cli => "cli",
            Group::Sandbox => "sandbox",
            Group::Stream => "stream",
            Group::Memory => "memory",
            Group::Agent => "agent",
            Group::Packs => "packs",
            Group::Swap => "swap",
            Group::Languages => "languages",
        }
    }

    async fn measure(self, effort: Effort) -> Result<Vec<Row>> {
        match self {
            Group::Forward => forward::measure(effort).await,
            Group::Calls => calls::measure(effort).await,
            Group::Cli => cli::measure(effort),
            Group::Sandbox => sandbox::measure(effort).await,
            Group::Stream => stream::measure(effort).await,
            Group::Memory => memory::measure(effort).await,
            Group::Agent => agent::measure(effort).await,
            Group::Packs => packs::measure(effort).await,
            Group::Swap => swap::measure(effort).await,
            Group::Languages => languages::measure(effort).await,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every group could be measured.
fn run(arguments: &[String]) -> Result<bool> {
    match arguments.split_first() {
        // The plain halves of the stream row: processes of their own, as relay and agent are.
        Some((word, rest)) if word == plain::SOURCE => plain::source(rest).map(|()| true),
        Some((word, rest)) if word == plain::SINK => plain::sink(rest).map(|()| true),
        _ => {
            let (effort, groups) = choose(arguments)?;
            world::raise_file_limit()?;
            tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(all(effort, &groups))
        }
    }
}

fn choose(arguments: &[String]) -> Result<(Effort, Vec<Group>)> {
    let (mut effort, mut groups) = (Effort { quick: false }, Vec::new());
    for argument in arguments {
        match Group::ALL.into_iter().find(|group| group.name() == argument) {
            Some(group) if groups.contains(&group) => {}
            Some(group) => groups.push(group),
            None if argument == "--quick" => effort.quick = true,
            None => {
                let names = Group::ALL.map(Group::name).join("|");
                bail!("`{}` is no group\nusage: bench [--quick] [{names}]…", argument.escape_debug())
            }
        }
    }
    Ok((effort, if groups.is_empty() { Group::ALL.to_vec() } else { groups }))
}

async fn all(effort: Effort, groups: &[Group]) -> Result<bool> {
    for name in ["relay", "agent"] {
        outhaul_tests::binary(name)?;
    }
    let (mut table, end) = (Table::new(effort), Instant::now() + WHOLE);
    for group in groups {
        eprintln!("measuring {} …", group.name());
        let limit = end.min(Instant::now() + GROUP);
        match measured(*group, effort, limit).await {
            Ok(rows) => table.add(group.name(), rows),
            Err(error) => table.failed(group.name(), &format!("{error:#}")),
        }
    }
    print!("{table}");
    Ok(table.is_whole())
}

async fn measured(group: Group, effort: Effort, limit: Instant) -> Result<Vec<Row>> {
    ensure!(Instant::now() < limit, "no time was left for it");
    tokio::time::timeout_at(limit, group.measure(effort)).await.context("it did not end in its time")?
}
