//! Packs on their author's machine: a host and a policy that are thrown away, no relay, no key, no name. A grant is what
//! `agent allow` would write into `agent.toml`, read back by the same rules, so that what works here works on any agent
//! whose owner grants the same.

mod cases;
mod conformance;
mod report;
mod run;
mod sample;
mod test;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Args, Subcommand};
use outhaul_console::how::{How, duration};
use outhaul_console::output::Output;
use outhaul_home::{Home, create_private_dir};
use outhaul_host::{Grants, Pack as Loaded, Power};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::pack;

use crate::active::Active;
use crate::config::{AgentConfig, PackKey};
use crate::edit::{ConfigEdit, Items};
use crate::packs;
use crate::policy::Policy;

/// Components below this compile in a moment: their code is not worth keeping.
const KEEP_FROM: usize = 1 << 20;
/// Places in the pool of sandboxes: one call runs at a time, and one of an interpreter has as many memories and tables as
/// this leaves room for.
const PLACES: usize = 8;
/// Compiled code kept, newest first: an author works on one or two packs, and Python's is 80 MB.
const KEPT: usize = 3;

/// `agent pack`.
#[derive(Debug, Subcommand)]
pub enum Pack {
    /// Runs one command of a component here, in a sandbox of its own.
    ///
    /// Output and result are shown as `relay invoke` shows them. The pack may what an agent without agent.toml lets every
    /// pack do, and what --grant adds; nothing is kept.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Runs a pack's own cases and the conformance checks.
    ///
    /// The cases are those of DIR/tests/cases.toml. Checked is what every pack owes whoever runs it: it loads, every
    /// command and parameter is documented, every power is asked for with a reason, every command ends properly without
    /// any grant, and its types read back as they are. Exit status 1 when something failed.
    Test(Test),
}

const RUN_EXAMPLES: &str = "Examples:
  agent pack run thermal.wasm thermal.read zone=cpu
  agent pack run tools.wasm tools.disks --grant process=df,lsblk";

/// `agent pack run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The component, .wasm.
    file: PathBuf,
    /// The command, INTERFACE.FUNCTION.
    command: String,
    /// Grants a power for this run: the words of `agent allow PACK` with `=` and commas. May be repeated.
    #[arg(long, env = "OUTHAUL_GRANT", value_name = "POWER[=ITEM,…]")]
    grant: Vec<String>,
    /// Takes away a power that every pack has by default, or some of its items. May be repeated.
    #[arg(long, env = "OUTHAUL_DENY", value_name = "POWER[=ITEM,…]")]
    deny: Vec<String>,
    /// How long it may take: 500ms, 60 (seconds), 5m. Default: 60 s.
    #[arg(long, env = "OUTHAUL_TIMEOUT", value_name = "T", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    how: How,
    /// Parameters by name; read by their types, as for `relay invoke`.
    #[arg(value_name = "NAME=VALUE")]
    args: Vec<String>,
}

/// `agent pack test`.
#[derive(Debug, Args)]
pub struct Test {
    /// A pack's folder that was built, or a component.
    pack: PathBuf,
    /// Cases to run instead of the folder's.
    #[arg(long, env = "OUTHAUL_CASES", value_name = "FILE")]
    cases: Option<PathBuf>,
}

/// Runs what was typed; gives the exit status.
#[must_use]
pub fn main(command: &Pack, home: Option<PathBuf>, json: bool) -> u8 {
    let output = Output { json };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&Failure::new(Code::Internal, format!("start the runtime: {error}"))),
    };
    let status = runtime.block_on(async {
        match command {
            Pack::Run(what) => run::run(what, home, output).await,
            Pack::Test(what) => test::test(what, home, output).await.unwrap_or_else(|failure| output.fail(&failure)),
        }
    });
    // A thread that reads stdin cannot be waited for.
    runtime.shutdown_background();
    status
}

/// A component's bytes.
fn read(file: &Path) -> Result<Bytes, Failure> {
    let bad = |what: &str| Failure::new(Code::BadUsage, format!("read `{}`: {what}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| bad(&error.to_string()))?.len();
    if size > limits::PACK as u64 {
        return Err(bad(&format!("it has {size} bytes, a pack at most {}", limits::PACK)));
    }
    std::fs::read(file).map(Bytes::from).map_err(|error| bad(&error.to_string()))
}

/// A pack that can be called.
#[derive(Debug)]
struct Trial {
    active: Active,
    size: usize,
    /// what it keeps, for as long as it is tried
    _values: tempfile::TempDir,
}

impl Trial {
    /// Loads a component as an agent does when it is deployed.
    async fn load(bytes: Bytes, home: Option<PathBuf>) -> Result<Self, Failure> {
        let manifest = pack::read(&bytes)?.manifest;
        let mut config = AgentConfig::default();
        config.limits.calls = PLACES;
        // What it asks for it gets here: whether an owner grants it is another question.
        config.limits.memory_mib = config.limits.memory_mib.max(manifest.limits.memory_mib.unwrap_or(0).min(4096));
        let size = bytes.len();
        let outside = crate::outside::of(&Home::find(home.clone())?);
        let kept = (size >= KEEP_FROM).then(|| kept(home)).flatten();
        let values = tempfile::tempdir().map_err(|error| Failure::new(Code::Internal, format!("make a folder for values: {error}")))?;
        let host = packs::host(kept.as_deref(), &config, outside, Some(values.path().join("kv")), "trial".into())?;
        let active = Active::on_trial(host.load(bytes).await?)?;
        if let Some(folder) = &kept {
            sweep(&folder.join("cache"));
        }
        Ok(Trial { active, size, _values: values })
    }

    fn pack(&self) -> &Arc<Loaded> {
        self.active.pack()
    }

    /// What the pack may with these grants and refusals, beyond the defaults; and what its author should know of them.
    fn policy(&self, granted: &[String], denied: &[String]) -> Result<(Grants, Vec<String>), Failure> {
        let failed = |error: std::io::Error| Failure::new(Code::Internal, format!("make a folder for the policy: {error}"));
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().join("agent.toml");
        let key = PackKey::Digest(self.active.digest());
        let mut edit = ConfigEdit::open(&path)?;
        let mut notes = Vec::new();
        for text in granted {
            let (power, items) = words("--grant", text)?;
            let more = edit.allow(&key, None, power, &items).map_err(|failure| match power.item() {
                Some(item) if items.items.is_empty() => failure.hint(format!("such as: --grant {power}={item},…")),
                _ => failure,
            });
            notes.extend(more?);
        }
        for text in denied {
            let (power, items) = words("--deny", text)?;
            edit.deny(&key, power, &items)?;
        }
        edit.save()?;
        Ok((Policy::load(&path)?.grants_by(self.active.name(), &self.active.digest().0, self.active.origin()), notes))
    }
}

/// `POWER[=ITEM,…]`
fn words(flag: &str, text: &str) -> Result<(Power, Items), Failure> {
    let (power, items) = text.split_once('=').unwrap_or((text, ""));
    let known = Power::parse(power).ok_or_else(|| {
        let all: Vec<&str> = Power::ALL.iter().map(|power| power.name()).collect();
        Failure::new(Code::BadUsage, format!("`{flag} {}`: there is no power `{}`", text.escape_debug(), power.escape_debug()))
            .hint(format!("the powers are {}", all.join(", ")))
    })?;
    let items = items.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect();
    Ok((known, Items { items, ..Items::default() }))
}

/// Where compiled code of large components is kept between runs; nowhere when there is no home to keep it in.
fn kept(home: Option<PathBuf>) -> Option<PathBuf> {
    let folder = Home::find(home).and_then(|home| home.agent()).map(|agent| agent.join("trials"));
    folder.and_then(|folder| create_private_dir(&folder).map(|()| folder)).ok()
}

/// Removes all but the newest files of compiled code. What cannot be removed costs space only.
fn sweep(cache: &Path) {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for engine in entries(cache) {
        let age = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut files: Vec<PathBuf> = entries(&engine).filter(|path| path.is_file()).collect();
        files.sort_by_key(|path| std::cmp::Reverse(age(path)));
        files.iter().skip(KEPT).for_each(|path| drop(std::fs::remove_file(path)));
    }
}

/// The short form of a component's digest.
fn short_digest(bytes: &[u8]) -> String {
    let digest: Digest = sha256(bytes);
    digest.short().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_power_and_its_items() {
        let (power, items) = words("--grant", "process=df,uname").expect("good");
        assert_eq!((power, items.items), (Power::Process, vec!["df".to_owned(), "uname".into()]));
        assert!(words("--grant", "camera").expect("good").1.items.is_empty());
        let failure = words("--grant", "teleport=x").expect_err("unknown");
        assert_eq!(failure.code, Code::BadUsage);
        assert_eq!(failure.message, "`--grant teleport=x`: there is no power `teleport`");
    }

    #[test]
    fn only_the_newest_compiled_code_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = dir.path().join("engine");
        std::fs::create_dir(&engine).expect("made");
        for at in 0..KEPT + 2 {
            let file = std::fs::File::create(engine.join(at.to_string())).expect("made");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64)).expect("set");
        }
        sweep(dir.path());
        let mut left: Vec<_> = std::fs::read_dir(&engine).expect("there").flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["2", "3", "4"]);
    }
}
