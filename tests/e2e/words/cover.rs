//! The pages against the grammar and the codes: every command is there as a person and as a program types it, once well
//! and once badly; every error code is there, but those that only a relay or a machine which lies could cause.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory as _;
use outhaul_protocol::error::Code;

use super::first::commands;
use super::page::{PAGES, words};

/// Codes that no page can show, and why.
const ELSEWHERE: &[(Code, &str)] = &[
    (Code::WrongNode, "a call that was moved to another node or channel: the hostile relay's tests"),
    (Code::Truncated, "a node that ends a stream short of what it signed: the command line's tests"),
];

/// A command that no page can show well, and why.
const UNSHOWN: &[(&str, &str)] = &[("relay pack build", "needs a compiler that not every machine has: the authors' tests")];

/// One line that was typed, and what came of it.
struct Entry {
    program: String,
    command: Vec<String>,
    json: bool,
    status: i32,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("e2e/words/snapshots")
}

/// The text of all pages; a snapshot that is no page is left over from one.
fn pages() -> Result<String> {
    let mut all = String::new();
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "snap") {
            names.insert(path.file_stem().context("a name")?.to_string_lossy().into_owned());
            all.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    assert_eq!(names, PAGES.iter().map(|name| (*name).to_owned()).collect());
    Ok(all)
}

/// The deepest command that a line's words name.
fn command(root: &clap::Command, line: &[String]) -> Vec<String> {
    let (mut at, mut path) = (root, Vec::new());
    let mut words = line.iter();
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "--relay" | "--timeout" | "--ca") {
            words.next();
        } else if let Some(part) = at.find_subcommand(word) {
            path.push(word.clone());
            at = part;
        } else if !word.starts_with('-') {
            break;
        }
    }
    path
}

fn entries(text: &str, grammars: &BTreeMap<&str, clap::Command>) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut typed = None;
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("$ ") {
            typed = line.split_once(' ').map(|(program, rest)| (program.to_owned(), words(rest))).or(Some((line.to_owned(), Vec::new())));
        } else if let Some(status) = line.strip_prefix("= ").and_then(|status| status.parse().ok()) {
            let Some((program, line)) = typed.take() else { continue };
            let before: Vec<String> = line.iter().take_while(|word| *word != "--").cloned().collect();
            let json = before.iter().any(|word| word == "--json");
            let command = command(&grammars[program.as_str()], &before);
            let help = before.iter().any(|word| word == "--help");
            if !help {
                all.push(Entry { program, command, json, status });
            }
        }
    }
    all
}

#[test]
fn every_command_is_shown_well_and_badly_to_people_and_to_programs() -> Result<()> {
    let grammars = BTreeMap::from([("relay", outhaul_relay::cli::args::Cli::command()), ("agent", outhaul_agent::cli::Cli::command())]);
    let entries = entries(&pages()?, &grammars);
    let mut missing = Vec::new();
    for (program, grammar) in &grammars {
        for command in commands(grammar) {
            let part = command.iter().fold(grammar, |at, word| at.find_subcommand(word).expect("it was listed"));
            for (json, well) in [(false, true), (true, true), (false, false), (true, false)] {
                // A word that only leads to others does nothing by itself.
                let unshown = UNSHOWN.iter().any(|(known, _)| *known == format!("{program} {}", command.join(" ")));
                if well && (unshown || part.is_subcommand_required_set()) || command.is_empty() {
                    continue;
                }
                let fits = |entry: &&Entry| {
                    entry.program == *program && entry.command == command && entry.json == json && (entry.status == 0) == well
                };
                if !entries.iter().any(|entry| fits(&entry)) {
                    missing.push(format!("{program} {} (json: {json}, well: {well})", command.join(" ")));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no page shows:\n{}", missing.join("\n"));
    Ok(())
}

#[test]
fn every_code_is_shown_or_told_why_not() -> Result<()> {
    let pages = pages()?;
    for code in Code::ALL {
        let shown = pages.contains(&format!("\"code\": \"{code}\""));
        let elsewhere = ELSEWHERE.iter().any(|(known, _)| known == code);
        assert!(shown != elsewhere, "`{code}` is {}", if shown { "shown, and said to be shown elsewhere" } else { "on no page" });
    }
    Ok(())
}
