//! Python: componentize-py puts the code, already imported, into an interpreter's memory. It is PyPI's, a program of its
//! own.

use std::path::PathBuf;
use std::process::Command;

use outhaul_protocol::error::Failure;

use super::{Made, Site, missing, tool};
use crate::project::write;

/// The module with the code, in `src`.
const MODULE: &str = "app";

pub(super) fn make(site: &Site<'_>) -> Result<Made, Failure> {
    let program = find(site).ok_or_else(|| missing("Python packs need `componentize-py`", "pip install componentize-py"))?;
    let by = tool::says(Command::new(&program).arg("--version")).unwrap_or_else(|| "componentize-py".into());
    let output = site.made("python").join("component.wasm");
    write(&output, b"")?;
    let mut command = Command::new(program);
    command.current_dir(site.folder).args(["--wit-path", "wit", "--world", site.wit.world_name(), "--quiet"]);
    command.args(["componentize", MODULE, "--python-path", "src", "--output"]).arg(&output);
    tool::run("componentize-py", &mut command)?;
    Ok(Made { component: tool::read(&output)?, by })
}

/// In a virtual environment of the pack's folder, or in `PATH`.
fn find(site: &Site<'_>) -> Option<PathBuf> {
    let own = site.folder.join(".venv/bin/componentize-py");
    if own.is_file() { Some(own) } else { tool::find("componentize-py") }
}
