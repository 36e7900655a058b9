//! Programs of the system that some tests need and a fresh machine lacks. Such a test is skipped, loudly and with the
//! reason; where `OUTHAUL_REQUIRE_TOOLS` is set, as CI does after installing them all, it fails instead.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Why a test cannot run on this machine; a sentence that says what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

/// A program in PATH or in the administrator's folders, which a user's PATH lacks on Debian.
pub fn find(name: &str, package: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
        .ok_or_else(|| Missing(format!("`{name}` is not installed (Debian's package {package})")))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What a test without its tools ends with: success and a loud word, or a failure where all tools must be there.
pub fn skip(test: &str, missing: &Missing) -> Result<()> {
    if std::env::var_os("OUTHAUL_REQUIRE_TOOLS").is_some() {
        bail!("{test} cannot run: {missing}");
    }
    // To the stream itself: what `eprintln!` says is kept back when a test passes.
    Ok(writeln!(std::io::stderr(), "\n*** SKIPPED: {test}\n*** because {missing}\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_name_and_a_missing_one_tells_its_package() {
        assert!(find("sh", "dash").is_ok_and(|path| path.ends_with("sh")));
        let missing = find("no-such-program", "nowhere").expect_err("is not there");
        assert_eq!(missing.to_string(), "`no-such-program` is not installed (Debian's package nowhere)");
    }
}
