//! A Rust compiler that makes WebAssembly. The one of `rustup target add` when it is there; else Debian's, which brings no
//! target but the standard library's source, so that Cargo builds the library too. Flags make the bytes the same
//! wherever they are built: no path of the machine, no source location, no `Debug` text.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outhaul_protocol::error::{Code, Failure};

/// What packs are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// No system at all: what a pack imports is what it asks for.
    Unknown,
    /// WASI 0.2.
    Wasi,
}

impl Target {
    /// Its name.
    #[must_use]
    pub fn triple(self) -> &'static str {
        match self {
            Self::Unknown => "wasm32-unknown-unknown",
            Self::Wasi => "wasm32-wasip2",
        }
    }

    /// Where Cargo puts a crate's wasm file.
    #[must_use]
    pub fn output(self, target_folder: &Path, name: &str) -> PathBuf {
        target_folder.join(self.triple()).join("release").join(format!("{}.wasm", name.replace('-', "_")))
    }
}

/// A compiler for one target.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// What stands in stamps: compiler and linker.
    pub line: String,
    target: Target,
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    builds_std: bool,
    /// Folders for `PATH`.
    path: Vec<PathBuf>,
    linker: Option<PathBuf>,
    /// Folders of native libraries.
    libraries: Vec<PathBuf>,
}

/// What Cargo is to build.
#[derive(Debug)]
pub struct Build<'a> {
    /// the folder of a workspace or crate
    pub folder: &'a Path,
    /// packages of it, all in one go: features are the union of what they ask for, so a crate built alone would have other
    /// bytes; none is the folder's own
    pub crates: &'a [&'a str],
    /// where Cargo puts what it makes
    pub target_folder: &'a Path,
    /// a folder whose path must not be in the bytes, and what stands there instead
    pub hidden: (&'a Path, &'a str),
    /// whether the lock file must be as it should be
    pub locked: bool,
}

/// Debian's packages that together make a toolchain, for the hint.
const DEBIAN: &str = "rustc-web cargo-web rust-web-src wasi-libc";

impl Toolchain {
    /// Finds one, or says how to get one.
    pub fn find(target: Target) -> Result<Self, Failure> {
        let home = Home::of("rustc".as_ref()).map_err(|why| {
            missing(format!("Rust packs need `rustc`, also for its linker: {why}")).hint("install Rust with rustup: https://rustup.rs")
        })?;
        if home.has(target) {
            return Ok(Self::of_rustup(target, &home));
        }
        Self::of_debian(target, &home).map_err(|why| {
            missing(format!("no Rust compiler for {}: {why}", target.triple()))
                .hint(format!("rustup target add {}; or on Debian: apt-get install --no-install-recommends {DEBIAN}", target.triple()))
        })
    }

    fn of_rustup(target: Target, home: &Home) -> Self {
        let cargo = home.sysroot.join("bin/cargo");
        Self {
            line: format!("{}, its own library and linker", home.version),
            target,
            cargo: if cargo.is_file() { cargo } else { "cargo".into() },
            rustc: home.rustc.clone(),
            sysroot: home.sysroot.clone(),
            builds_std: false,
            path: Vec::new(),
            linker: None,
            libraries: Vec::new(),
        }
    }

    fn of_debian(target: Target, rustup: &Home) -> Result<Self, String> {
        let debian = Home::of(&installed("rustc-web", "bin/rustc")?)?;
        if !debian.sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
            return Err("`rust-web-src` is not installed".into());
        }
        let tools = rustup.sysroot.join("lib/rustlib").join(&rustup.host).join("bin");
        let linker = tools.join("rust-lld");
        let version = output(Command::new(&linker).args(["-flavor", "wasm", "--version"]))?;
        let (linker, libraries) = match target {
            Target::Unknown => (Some(linker), Vec::new()),
            // Linked by `wasm-component-ld`, which `rustc` finds on the path, as that finds `wasm-ld`.
            Target::Wasi => (None, installed("wasi-libc", "libc.a")?.parent().map(Into::into).into_iter().collect()),
        };
        Ok(Self {
            line: format!("{}, building std; {}", debian.version, version.trim()),
            target,
            cargo: installed("cargo-web", "bin/cargo")?,
            rustc: debian.rustc,
            sysroot: debian.sysroot,
            builds_std: true,
            path: vec![tools.join("gcc-ld"), tools],
            linker,
            libraries,
        })
    }

    /// Compiles; Cargo's talk goes to stderr.
    pub fn build(&self, build: &Build<'_>) -> Result<(), Failure> {
        let status = self.command(build)?.status().map_err(|error| missing(format!("run `{}`: {error}", self.cargo.display())))?;
        match status.success() {
            true => Ok(()),
            false => Err(Failure::new(Code::CommandFailed, format!("the Rust compiler failed ({status})"))),
        }
    }

    fn command(&self, build: &Build<'_>) -> Result<Command, Failure> {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(build.folder).args(["build", "--release"]);
        cargo.args(build.locked.then_some("--locked")).args(["--target", self.target.triple()]);
        if self.builds_std {
            cargo.args(["-Z", "build-std=std,panic_abort"]);
        }
        cargo.args(build.crates.iter().flat_map(|name| ["-p", name]));
        // What the shell, or the Cargo that runs this, wants of *its* compiler is not meant for this one.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUST"];
            if foreign.iter().any(|prefix| text.starts_with(prefix)) && text != "RUSTUP_HOME" {
                cargo.env_remove(&name);
            }
        }
        cargo.env_remove("LD_LIBRARY_PATH").env_remove("CARGO");
        cargo.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", build.target_folder);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags(build.hidden).join("\x1f"));
        if let Some(linker) = &self.linker {
            let triple = self.target.triple().to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        cargo.env("PATH", join_paths(&self.path, &path)?);
        Ok(cargo)
    }

    fn flags(&self, (folder, shown): (&Path, &str)) -> Vec<String> {
        let std_source = self.sysroot.join("lib/rustlib/src/rust");
        let mut remap = vec![(folder.to_path_buf(), shown), (cargo_home().join("registry/src"), "/crates")];
        remap.extend(std_source.canonicalize().map(|real| (real, "/rust")));
        remap.push((std_source, "/rust"));
        let mut flags: Vec<String> = remap.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect();
        flags.extend(["-Zlocation-detail=none", "-Zfmt-debug=none"].map(String::from));
        flags.extend(self.libraries.iter().map(|folder| format!("-Lnative={}", folder.display())));
        flags
    }
}

/// What is not here.
fn missing(message: String) -> Failure {
    Failure::new(Code::BadConfig, message)
}

/// What a `rustc` says about itself.
struct Home {
    rustc: PathBuf,
    version: String,
    host: String,
    sysroot: PathBuf,
}

impl Home {
    fn of(rustc: &Path) -> Result<Self, String> {
        let about = output(plain(rustc).arg("-vV"))?;
        let sysroot = PathBuf::from(output(plain(rustc).args(["--print", "sysroot"]))?.trim());
        let own = sysroot.join("bin/rustc");
        let says = |line: Option<&str>| line.map(str::to_owned).ok_or_else(|| format!("`{} -vV` says too little", rustc.display()));
        Ok(Self {
            rustc: if own.is_file() { own } else { rustc.to_path_buf() },
            version: says(about.lines().next())?,
            host: says(about.lines().find_map(|line| line.strip_prefix("host: ")))?,
            sysroot,
        })
    }

    /// Whether the standard library for a target is installed.
    fn has(&self, target: Target) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(target.triple()).join("lib");
        let std = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libstd-");
        std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(std))
    }
}

/// A file that a Debian package installed.
fn installed(package: &str, ending: &str) -> Result<PathBuf, String> {
    let list = output(Command::new("dpkg").args(["-L", package])).map_err(|_| format!("`{package}` is not installed"))?;
    let in_system = |line: &&str| line.starts_with("/usr/") && !line.starts_with("/usr/src/");
    let found = list.lines().filter(in_system).find(|line| Path::new(line).ends_with(ending));
    found.map(PathBuf::from).ok_or_else(|| format!("`{package}` has no `{ending}`"))
}

fn plain(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, .. } = command.output().map_err(|error| format!("run `{program}`: {error}"))?;
    match status.success() {
        true => String::from_utf8(stdout).map_err(|_| format!("`{program}` answered no text")),
        false => Err(format!("`{program}` failed ({status})")),
    }
}

fn join_paths(first: &[PathBuf], then: &OsStr) -> Result<OsString, Failure> {
    std::env::join_paths(first.iter().cloned().chain(std::env::split_paths(then)))
        .map_err(|error| missing(format!("put the linker's folder into PATH: {error}")))
}

fn cargo_home() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
