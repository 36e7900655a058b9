//! Puts the host's WIT into the crate, so that `relay pack new` can lay it into an author's folder. Written out as a list
//! of its own: a file more in `wit/` is a power more, and nobody has to remember it here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let host = here.join("../../wit/v0.1/host").canonicalize()?;
    println!("cargo::rerun-if-changed={}", host.display());
    let mut files = fs::read_dir(&host)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "wit"));
    files.sort();
    let mut list = String::from("[\n");
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // Writing to a text cannot fail.
        let _ = writeln!(list, "({name:?}, include_str!({:?})),", file.display());
    }
    list.push(']');
    fs::write(Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("host_wit.rs"), list)
}
