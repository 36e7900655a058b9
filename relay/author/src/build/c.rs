//! C: bindings from the WIT, made here; clang or zig compile them with the author's code against a libc for WASI. What of
//! WASI the code then uses (`printf` does) goes through the adapter of the component model's own people.

use std::path::{Path, PathBuf};
use std::process::Command;

use outhaul_protocol::error::Failure;
use wit_bindgen_core::Files;

use super::{Made, Site, failed, missing, tool};
use crate::make::encode;
use crate::project::write;
use crate::sources;

/// The imports an adapter stands in for.
const PREVIEW1: &str = "wasi_snapshot_preview1";

pub(super) fn make(site: &Site<'_>) -> Result<Made, Failure> {
    let compiler = Compiler::find()?;
    let work = site.made("c");
    let bindings = bindings(site, &work)?;
    let module = work.join("module.wasm");
    let mut command = compiler.command();
    command.current_dir(site.folder).args(FLAGS).arg("-I").arg(&work).arg("-o").arg(&module);
    command.args(code(site.folder)?).args(bindings);
    tool::run("the C compiler", &mut command)?;
    let adapter = wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
    let component = encode::from_module(&tool::read(&module)?, Some((PREVIEW1, adapter)))?;
    Ok(Made { component, by: compiler.line })
}

/// Small, and a library: nothing runs before a command is called.
const FLAGS: [&str; 6] = ["-Os", "-mexec-model=reactor", "-Wall", "-fno-ident", "-Wl,--gc-sections", "-Wl,--strip-all"];

/// Writes the bindings; gives what must be compiled or linked of them.
fn bindings(site: &Site<'_>, work: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (mut resolve, mut files) = (site.wit.resolve.clone(), Files::default());
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, site.wit.world, &mut files)
        .map_err(|error| failed(format!("make C bindings of the WIT: {error:#}")))?;
    let mut linked = Vec::new();
    for (name, content) in files.iter() {
        let path = work.join(name);
        write(&path, content)?;
        if name.ends_with(".c") || name.ends_with(".o") {
            linked.push(path);
        }
    }
    Ok(linked)
}

/// The author's code: every `.c` below `src`.
fn code(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let source = folder.join("src");
    let mut files = sources::files(&source, &|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .map_err(|error| failed(format!("read `{}`: {error}", source.display())))?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "c"));
    if files.is_empty() {
        return Err(failed(format!("there is no .c file in `{}`", source.display())));
    }
    Ok(files)
}

/// A compiler with a libc for WASI.
struct Compiler {
    program: PathBuf,
    arguments: Vec<String>,
    line: String,
}

impl Compiler {
    /// The SDK that `WASI_SDK_PATH` names, else clang with the system's libc, else zig, which has all it needs.
    fn find() -> Result<Self, Failure> {
        if let Some(sdk) = std::env::var_os("WASI_SDK_PATH").map(PathBuf::from) {
            let clang = sdk.join("bin/clang");
            let sysroot = format!("--sysroot={}", sdk.join("share/wasi-sysroot").display());
            let found = Self::of(&clang, &["--target=wasm32-wasip1", &sysroot]);
            return found.ok_or_else(|| missing(format!("there is no `{}`", clang.display()), "WASI_SDK_PATH names the SDK's folder"));
        }
        Self::clang().or_else(Self::zig).ok_or_else(|| {
            missing(
                "C packs need clang, lld, a libc for WASI and its compiler-rt; or zig",
                "on Debian: apt-get install --no-install-recommends clang lld wasi-libc libclang-rt-dev-wasm32; or anywhere: pip install ziglang",
            )
        })
    }

    fn clang() -> Option<Self> {
        let (clang, _) = (tool::find("clang")?, tool::find("wasm-ld")?);
        let target = "--target=wasm32-wasi";
        // Clang names the file it would link whether it is there or not.
        let builtins = tool::says(Command::new(&clang).args([target, "-print-libgcc-file-name"]))?;
        let libc = tool::says(Command::new(&clang).args([target, "-print-file-name=libc.a"]))?;
        let whole = [builtins, libc].iter().all(|file| Path::new(file).is_file());
        whole.then(|| Self::of(&clang, &[target])).flatten()
    }

    fn zig() -> Option<Self> {
        let wasi = ["cc", "--target=wasm32-wasi"];
        let python = || {
            let module = [&["-m", "ziglang"], &wasi[..]].concat();
            ["python3", "python"].into_iter().filter_map(tool::find).find_map(|python| Self::of(&python, &module))
        };
        tool::find("zig").and_then(|zig| Self::of(&zig, &wasi)).or_else(python)
    }

    fn of(program: &Path, arguments: &[&str]) -> Option<Self> {
        let line = tool::says(Command::new(program).args(arguments).arg("--version"))?;
        Some(Compiler { program: program.to_owned(), arguments: arguments.iter().map(|word| (*word).to_owned()).collect(), line })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}
