//! JavaScript: componentize-js puts the code, already loaded, into an engine's memory. It is npm's, run by node, found
//! from the pack's folder as node finds everything.

use std::process::Command;

use outhaul_protocol::error::Failure;

use super::{Made, Site, missing, tool};
use crate::project::write;

/// The code, from a pack's folder.
const CODE: &str = "src/pack.js";
/// What node runs: paths and world come as arguments, the package from the folder it runs in.
const SCRIPT: &str = include_str!("componentize.mjs");

pub(super) fn make(site: &Site<'_>) -> Result<Made, Failure> {
    let node =
        tool::find("node").ok_or_else(|| missing("JavaScript packs need `node`, 20 or newer", "on Debian: apt-get install nodejs npm"))?;
    let package = site.folder.join("node_modules/@bytecodealliance/componentize-js/package.json");
    let version = std::fs::read(&package).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let version = version.and_then(|package| Some(package.get("version")?.as_str()?.to_owned())).ok_or_else(|| {
        missing("JavaScript packs need `@bytecodealliance/componentize-js`", format!("in `{}`: npm install", site.folder.display()))
    })?;
    let output = site.made("js").join("component.wasm");
    write(&output, b"")?;
    let mut command = Command::new(node);
    command.current_dir(site.folder).args(["--input-type=module", "--eval", SCRIPT, CODE, "wit", site.wit.world_name()]).arg(&output);
    tool::run("componentize-js", &mut command)?;
    Ok(Made { component: tool::read(&output)?, by: format!("componentize-js {version}") })
}
