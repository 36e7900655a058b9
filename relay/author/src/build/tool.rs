//! Programs that other people made: found in `PATH`, run with their talk on stderr.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outhaul_protocol::error::{Code, Failure};

use super::failed;

/// A program of `PATH`.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a program says about itself, when it runs at all: the first line.
pub(super) fn says(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().lines().next().unwrap_or_default().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Runs a tool; what it prints goes to stderr, because stdout is ours. `what` is what it is called in a failure.
pub(super) fn run(what: &str, command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let cannot = |error: &std::io::Error| Failure::new(Code::BadConfig, format!("run `{program}`: {error}"));
    let talk = stderr().map_err(|error| cannot(&error))?;
    match command.stdin(Stdio::null()).stdout(talk).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("{what} failed ({status}); it said why above"))),
        Err(error) => Err(cannot(&error)),
    }
}

fn stderr() -> std::io::Result<Stdio> {
    use std::os::fd::AsFd as _;
    Ok(std::io::stderr().as_fd().try_clone_to_owned()?.into())
}

/// What a tool wrote.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| failed(format!("read what was built, `{}`: {error}", path.display())))
}
