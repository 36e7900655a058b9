//! Rust: Cargo makes a module of the folder's crate, for no system at all unless `wasi = true`.

use std::path::{Path, PathBuf};

use outhaul_protocol::error::{Code, Failure};
use serde::Deserialize;

use super::{Made, Site, failed, tool};
use crate::make::encode;
use crate::make::toolchain::{Build, Target, Toolchain};

#[derive(Deserialize)]
struct Cargo {
    package: Package,
    #[serde(default)]
    lib: Lib,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

#[derive(Deserialize, Default)]
struct Lib {
    name: Option<String>,
}

pub(super) fn make(site: &Site<'_>) -> Result<Made, Failure> {
    let target = if site.project.wasi { Target::Wasi } else { Target::Unknown };
    let name = library(site.folder)?;
    let toolchain = Toolchain::find(target)?;
    let target_folder = target_folder(site)?;
    // Cargo names a crate's own files from the crate's folder, so that its path is nowhere in the bytes; a flag that named it
    // would build everything anew, the standard library included, for each folder that shares a target folder.
    let hidden = (Path::new("/pack"), "/pack");
    toolchain.build(&Build { folder: site.folder, crates: &[], target_folder: &target_folder, hidden, locked: false })?;
    let output = target.output(&target_folder, &name);
    if !output.is_file() {
        return Err(failed(format!("Cargo made no `{}`", output.display())).hint("Cargo.toml wants: [lib] crate-type = [\"cdylib\"]"));
    }
    let made = tool::read(&output)?;
    let component = match target {
        Target::Unknown => encode::from_module(&made, None)?,
        Target::Wasi => made,
    };
    Ok(Made { component, by: toolchain.line })
}

fn library(folder: &Path) -> Result<String, Failure> {
    let cargo: Cargo = outhaul_home::read_toml(&folder.join("Cargo.toml"))?;
    Ok(cargo.lib.name.unwrap_or(cargo.package.name))
}

/// `CARGO_TARGET_DIR` as everywhere; else beside everything else that is made. Packs that share one share what they
/// depend on, the standard library included.
fn target_folder(site: &Site<'_>) -> Result<PathBuf, Failure> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| site.made("cargo"), PathBuf::from);
    std::path::absolute(&folder).map_err(|error| Failure::new(Code::BadConfig, format!("find `{}`: {error}", folder.display())))
}
