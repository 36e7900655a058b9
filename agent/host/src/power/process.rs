//! The `process` power: programs of the machine, one granted program at a time.
//!
//! Promises: no shell is ever put in between (`argv` goes to the kernel as it is); only a granted program runs, found through the
//! owner's entry and never through a caller's `PATH`; the environment is built here and a caller adds only names that policy lists; a
//! child starts in a granted directory, leads its own process group, and the whole group is dead when its [`Child`] is dropped, when
//! its time is up, or (the child itself) when the agent dies.
//!
//! Not promised: a program that starts a session of its own (`setsid`) leaves the group and may outlive the call; a service manager's
//! control group is the remedy for that. What a granted program does with its arguments is its own affair: see [`runs_anything`], and
//! [`Shape`] for saying which arguments it may get.

mod argument;
mod child;
mod entry;
mod glob;
mod output;
mod program;
mod shape;
mod start;

use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

pub use child::{Child, Exit, PIPE_BYTES, Pipe, PipeWriter, Running, Signal, drain};
pub use entry::{Entry, check_folder, check_variable};
pub use program::{check_entry, runs_anything, steers_programs};
pub use shape::Shape;

/// What one pack may run: `[packs.NAME] process = { … }` of `agent.toml`. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Programs: a bare name (looked up in [`SEARCH`] only) or an absolute path, alone or narrowed.
    pub allow: Vec<Entry>,
    /// Names of environment variables a caller may set. What steers the dynamic loader, and `PATH`, stay refused even if listed.
    pub env: Vec<String>,
    /// Directories a caller may choose to start in, each with all below it.
    pub cwd: Vec<PathBuf>,
    /// Seconds a child may live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_secs: Option<u64>,
    /// Folders that no path argument may lead into, canonical: the agent's own.
    #[serde(skip)]
    pub keep_out: Vec<PathBuf>,
}

impl Grant {
    /// Grants nothing, for who needs one that lasts.
    pub const NOTHING: &'static Grant =
        &Grant { allow: Vec::new(), env: Vec::new(), cwd: Vec::new(), max_secs: None, keep_out: Vec::new() };
}

/// Where a bare program name is looked up, in this order; also every child's `PATH`.
pub const SEARCH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// What a pack asks to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables added to the fixed ones; of a name given twice the last counts.
    pub env: Vec<(String, String)>,
    /// Where it starts; the agent's home directory when absent.
    pub cwd: Option<String>,
}

/// Why nothing runs. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProcessError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// A granted program, or a directory inside a granted one, is not there.
    #[error("{0}")]
    NotFound(String),
    /// A ceiling of the agent or of the system was reached.
    #[error("{0}")]
    Limit(String),
    /// The request makes no sense, or the system refused it.
    #[error("{0}")]
    Failed(String),
}

/// Starts a granted program. Without `stdin` the child reads end of file. Call it inside a Tokio runtime with I/O and time enabled.
pub async fn spawn(pack: &str, grant: &Grant, spec: Spec, stdin: bool) -> Result<Running, ProcessError> {
    let (name, granted) = (pack.to_owned(), grant.clone());
    let prepared = blocking(move || program::prepare(&name, &granted, spec)).await?;
    start::start(pack, prepared, stdin).await
}

/// Which entry of `allow` lets a program run with these arguments. Starts nothing; looks at paths, so that it may block.
pub fn judge(pack: &str, grant: &Grant, argv: &[String]) -> Result<usize, ProcessError> {
    program::judge(pack, grant, argv).map(|allowed| allowed.entry)
}

/// The canonical path a program would be run from, when it is granted.
pub async fn which(pack: &str, grant: &Grant, program: &str) -> Result<PathBuf, ProcessError> {
    let (pack, grant, program) = (pack.to_owned(), grant.clone(), program.to_owned());
    blocking(move || program::find(&pack, &grant, &program).map(|found| found.canonical)).await
}

/// Looking at paths may hang (a dead network mount): it must not hang a runtime worker.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ProcessError> + Send + 'static) -> Result<T, ProcessError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(source) => Err(ProcessError::Failed(format!("looking for the program was cut short: {source}"))),
    }
}

#[cfg(test)]
mod tests;
