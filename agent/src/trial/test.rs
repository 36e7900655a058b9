//! `agent pack test`: the conformance checks, then the pack's own cases.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use outhaul_console::output::Output;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::text::escape_control;
use serde::Deserialize;

use super::cases::Cases;
use super::report::Report;
use super::{Test, Trial, conformance, read, short_digest};

/// The longest one call may take: nobody waits longer for a test.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The author's file in a pack's folder; more of it is `relay pack build`'s business.
const PROJECT: &str = "outhaul.toml";

/// The whole of it; gives the exit status.
pub(super) async fn test(what: &Test, home: Option<PathBuf>, output: Output) -> Result<u8, Failure> {
    let subject = Subject::of(what)?;
    let bytes = read(&subject.component)?;
    let digest = short_digest(&bytes);
    let cases = subject.cases.as_deref().map(Cases::read).transpose()?;
    let trial = match Trial::load(bytes, home).await {
        Ok(trial) => trial,
        Err(failure) => {
            let mut report = Report::new(subject.component.display().to_string());
            report.add("conformance", "it loads, as it would when it is deployed", Err(failure.message));
            return Ok(report.show(output));
        }
    };
    let version = escape_control(trial.pack().version()).into_owned();
    let mut report = Report::new(format!("{} {version} ({digest})", trial.active.name()));
    conformance::check(&trial, &mut report).await;
    if let Some(cases) = cases {
        cases.run(&trial, &mut report).await;
    }
    Ok(report.show(output))
}

/// What is tested.
#[derive(Debug)]
struct Subject {
    component: PathBuf,
    cases: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Project {
    name: String,
}

impl Subject {
    fn of(what: &Test) -> Result<Self, Failure> {
        if !what.pack.is_dir() {
            return Ok(Subject { component: what.pack.clone(), cases: what.cases.clone() });
        }
        let folder = &what.pack;
        let build = || format!("relay pack build {}", folder.display());
        let Project { name } = outhaul_home::read_toml(&folder.join(PROJECT))?;
        let component = folder.join("build").join(format!("{name}.wasm"));
        if !component.is_file() {
            return Err(Failure::new(Code::BadUsage, format!("`{}` was not built", folder.display())).hint(build()));
        }
        if let Some(newer) = newer(folder, modified(&component)) {
            return Err(Failure::new(Code::BadUsage, format!("`{}` is newer than what was built", newer.display())).hint(build()));
        }
        let own = folder.join("tests/cases.toml");
        Ok(Subject { component, cases: what.cases.clone().or_else(|| own.is_file().then_some(own)) })
    }
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Folders of a pack that do not decide its component.
const ASIDE: [&str; 5] = ["build", "target", "tests", "node_modules", "__pycache__"];
/// Endings of files that do not, either.
const BESIDE: [&str; 4] = ["wasm", "cose", "md", "lock"];

/// A source that changed since, or in the same tick of the file system's clock.
fn newer(folder: &Path, since: SystemTime) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || ASIDE.contains(&name.as_str()) {
            continue;
        }
        if entry.is_dir() {
            if let Some(found) = newer(&entry, since) {
                return Some(found);
            }
        } else if modified(&entry) >= since && !entry.extension().is_some_and(|ending| BESIDE.iter().any(|other| ending == *other)) {
            return Some(entry);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(folder: &Path) -> Result<Subject, Failure> {
        Subject::of(&Test { pack: folder.to_owned(), cases: None })
    }

    #[test]
    fn what_was_not_built_lately_is_not_tested() {
        let dir = tempfile::tempdir().expect("a folder");
        let touch = |name: &str, secs: u64| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(&path, "name = \"a\"\n").expect("written");
            let file = std::fs::File::options().write(true).open(&path).expect("open");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).expect("set");
        };
        touch("outhaul.toml", 1);
        touch("src/lib.rs", 2);
        let failure = subject(dir.path()).expect_err("not built");
        assert!(failure.message.ends_with("was not built"), "{failure}");
        touch("build/a.wasm", 3);
        touch("tests/cases.toml", 9);
        touch("README.md", 9);
        let found = subject(dir.path()).expect("built");
        assert!(found.component.ends_with("build/a.wasm") && found.cases.expect("there").ends_with("tests/cases.toml"));
        touch("src/lib.rs", 4);
        let failure = subject(dir.path()).expect_err("changed");
        assert!(failure.message.contains("src/lib.rs` is newer"), "{failure}");
    }
}
