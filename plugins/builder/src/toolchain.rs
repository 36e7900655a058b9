//! A compiler that makes WebAssembly. The one of `rustup target add` when it is there; else Debian's, which brings no
//! target but the standard library's source, so that Cargo builds the library too. Flags make the bytes the same
//! wherever they are built: no path of the machine, no source location, no `Debug` text.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

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
        target_folder
            .join(self.triple())
            .join("release")
            .join(format!("{}.wasm", name.replace('-', "_")))
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

/// Debian's packages that together make a toolchain, for the hint.
const DEBIAN: &str = "rustc-web cargo-web rust-web-src wasi-libc";

impl Toolchain {
    /// Finds one, or says how to get one.
    pub fn find(target: Target) -> Result<Self> {
        let home = Home::of("rustc".as_ref()).context("run `rustc`, whose linker is needed")?;
        if home.has(target) {
            return Self::of_rustup(target, &home);
        }
        Self::of_debian(target, &home).with_context(|| {
            format!(
                "no compiler for {0}\nhint: rustup target add {0}; or on Debian: apt-get install {DEBIAN}",
                target.triple()
            )
        })
    }

    fn of_rustup(target: Target, home: &Home) -> Result<Self> {
        let cargo = home.sysroot.join("bin/cargo");
        Ok(Self {
            line: format!("{}, its own library and linker", home.version),
            target,
            cargo: if cargo.is_file() {
                cargo
            } else {
                "cargo".into()
            },
            rustc: home.rustc.clone(),
            sysroot: home.sysroot.clone(),
            builds_std: false,
            path: Vec::new(),
            linker: None,
            libraries: Vec::new(),
        })
    }

    fn of_debian(target: Target, rustup: &Home) -> Result<Self> {
        let debian = Home::of(&installed("rustc-web", "bin/rustc")?)?;
        let source = debian
            .sysroot
            .join("lib/rustlib/src/rust/library/Cargo.lock");
        ensure!(source.is_file(), "`rust-web-src` is not installed");
        let tools = rustup
            .sysroot
            .join("lib/rustlib")
            .join(&rustup.host)
            .join("bin");
        let linker = tools.join("rust-lld");
        let version = output(Command::new(&linker).args(["-flavor", "wasm", "--version"]))?;
        let (linker, libraries) = match target {
            Target::Unknown => (Some(linker), Vec::new()),
            // Linked by `wasm-component-ld`, which `rustc` finds on the path, as that finds `wasm-ld`.
            Target::Wasi => (
                None,
                installed("wasi-libc", "libc.a")?
                    .parent()
                    .map(Into::into)
                    .into_iter()
                    .collect(),
            ),
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

    /// Compiles crates of the workspace in `plugins`, all in one go: features are the union of what they ask for, so a
    /// crate built alone would have other bytes.
    pub fn build(&self, plugins: &Path, crates: &[&str], target_folder: &Path) -> Result<()> {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(plugins).args([
            "build",
            "--release",
            "--locked",
            "--target",
            self.target.triple(),
        ]);
        if self.builds_std {
            cargo.args(["-Z", "build-std=std,panic_abort"]);
        }
        cargo.args(crates.iter().flat_map(|name| ["-p", name]));
        // What the shell, or the Cargo that runs this builder, wants of *its* compiler is not meant for this one.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUST"];
            if foreign.iter().any(|prefix| text.starts_with(prefix)) && text != "RUSTUP_HOME" {
                cargo.env_remove(&name);
            }
        }
        cargo.env_remove("LD_LIBRARY_PATH").env_remove("CARGO");
        cargo
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", target_folder);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags(plugins)?.join("\x1f"));
        if let Some(linker) = &self.linker {
            let triple = self.target.triple().to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        cargo.env("PATH", join_paths(&self.path, &path)?);
        let status = cargo
            .status()
            .with_context(|| format!("run `{}`", self.cargo.display()))?;
        ensure!(status.success(), "the compiler failed ({status})");
        Ok(())
    }

    fn flags(&self, plugins: &Path) -> Result<Vec<String>> {
        let root = plugins.parent().context("`plugins` has a parent")?;
        let std_source = self.sysroot.join("lib/rustlib/src/rust");
        let mut remap = vec![
            (root.to_path_buf(), "/outhaul"),
            (cargo_home().join("registry/src"), "/crates"),
        ];
        remap.extend(std_source.canonicalize().map(|real| (real, "/rust")));
        remap.push((std_source, "/rust"));
        let mut flags: Vec<String> = remap
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
            .collect();
        flags.extend(["-Zlocation-detail=none", "-Zfmt-debug=none"].map(String::from));
        flags.extend(
            self.libraries
                .iter()
                .map(|folder| format!("-Lnative={}", folder.display())),
        );
        Ok(flags)
    }
}

/// What a `rustc` says about itself.
struct Home {
    rustc: PathBuf,
    version: String,
    host: String,
    sysroot: PathBuf,
}

impl Home {
    fn of(rustc: &Path) -> Result<Self> {
        let about = output(&mut plain(rustc, &["-vV"]))?;
        let sysroot = PathBuf::from(output(&mut plain(rustc, &["--print", "sysroot"]))?.trim());
        let own = sysroot.join("bin/rustc");
        Ok(Self {
            rustc: if own.is_file() {
                own
            } else {
                rustc.to_path_buf()
            },
            version: about
                .lines()
                .next()
                .context("`rustc -vV` says nothing")?
                .to_owned(),
            host: about
                .lines()
                .find_map(|line| line.strip_prefix("host: "))
                .context("`rustc -vV` names no host")?
                .to_owned(),
            sysroot,
        })
    }

    /// Whether the standard library for a target is installed.
    fn has(&self, target: Target) -> bool {
        let folder = self
            .sysroot
            .join("lib/rustlib")
            .join(target.triple())
            .join("lib");
        let std =
            |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libstd-");
        std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(std))
    }
}

/// A file that a Debian package installed.
fn installed(package: &str, ending: &str) -> Result<PathBuf> {
    let list = output(Command::new("dpkg").args(["-L", package]))
        .with_context(|| format!("`{package}` is not installed"))?;
    let in_system = |line: &&str| line.starts_with("/usr/") && !line.starts_with("/usr/src/");
    match list
        .lines()
        .filter(in_system)
        .find(|line| Path::new(line).ends_with(ending))
    {
        Some(path) => Ok(path.into()),
        None => bail!("`{package}` has no `{ending}`"),
    }
}

fn plain(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("LD_LIBRARY_PATH");
    command
}

fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, .. } = command
        .output()
        .with_context(|| format!("run `{}`", command.get_program().to_string_lossy()))?;
    ensure!(
        status.success(),
        "`{}` failed ({status})",
        command.get_program().to_string_lossy()
    );
    Ok(String::from_utf8(stdout)?)
}

fn join_paths(first: &[PathBuf], then: &std::ffi::OsStr) -> Result<OsString> {
    Ok(std::env::join_paths(
        first.iter().cloned().chain(std::env::split_paths(then)),
    )?)
}

fn cargo_home() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}
