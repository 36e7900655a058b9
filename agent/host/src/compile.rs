//! Compiling, in a process of its own: a compiler bomb must not take the agent, and the compiler's memory must not stay in it.
//!
//! The child is the agent's own program. It limits itself, reads the component on its standard input and writes one byte for the engine's
//! kind and the compiled code on its standard output; what goes wrong it says on its standard error. The agent believes it as it would
//! believe its own compiler: the bytes go into a cache that only this agent can sign.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use bytes::Bytes;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits::PACK;
use outhaul_protocol::text::escape_control;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::engine::{Kind, compiling};
use crate::limits;

/// Where packs are compiled.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// In this process: for tests and for measuring.
    InProcess,
    /// In a child that runs [`compile_child`].
    Child {
        /// the agent's own program
        program: PathBuf,
        /// what makes it call [`compile_child`]
        args: Vec<OsString>,
    },
}

/// Compiled code for one engine.
pub(crate) struct Artefact {
    pub(crate) kind: Kind,
    pub(crate) code: Vec<u8>,
}

impl Compiler {
    /// Compiles a component; `pack` is its name for the sentence that says why not.
    pub(crate) async fn compile(&self, pack: &str, wasm: Bytes) -> Result<Artefact, Failure> {
        let said = match self {
            Compiler::InProcess => tokio::task::spawn_blocking(move || compile(&wasm))
                .await
                .unwrap_or_else(|error| Err(format!("the compiler failed: {error}"))),
            Compiler::Child { program, args } => in_child(program, args, wasm).await,
        };
        said.map_err(|why| Failure::new(Code::PackRejected, format!("pack `{pack}` does not compile: {why}")))
    }
}

/// The synchronous engine refuses what needs concurrency while it still reads, long before it makes code: asking it first is cheap.
fn compile(wasm: &[u8]) -> Result<Artefact, String> {
    let with = |kind| compiling(kind)?.precompile_component(wasm);
    let (kind, code) = match with(Kind::Sync) {
        Ok(code) => (Kind::Sync, Ok(code)),
        Err(_) => (Kind::Async, with(Kind::Async)),
    };
    match code {
        Ok(code) => Ok(Artefact { kind, code }),
        Err(error) => Err(brief(&format!("{error:#}"))),
    }
}

/// Text of a compiler or a guest, on one line and of a length people read.
pub(crate) fn brief(text: &str) -> String {
    let text = text.trim();
    let short: String = text.chars().take(limits::MESSAGE).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{}{more}", escape_control(&short.replace('\n', " ")))
}

async fn in_child(program: &Path, args: &[OsString], wasm: Bytes) -> Result<Artefact, String> {
    let mut child = start(program, args).map_err(|error| format!("the compiler `{}` could not be started: {error}", program.display()))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err("the compiler has no pipes".into());
    };
    let patience = limits::compiler_time(wasm.len());
    let feed = async move {
        let mut stdin = stdin;
        // A compiler that gives up early closes its end; what it says counts, not our failed write.
        drop(stdin.write_all(&wasm).await);
    };
    let work = async {
        let ((), code, says) = tokio::join!(feed, beginning(stdout, limits::ARTEFACT + 1), beginning(stderr, limits::COMPILER_SAYS));
        std::io::Result::Ok((child.wait().await?, code?, says?))
    };
    let (status, mut code, says) = tokio::time::timeout(patience, work)
        .await
        .map_err(|_| format!("it took longer than {} s", patience.as_secs()))?
        .map_err(|error| format!("the compiler's answer could not be read: {error}"))?;
    if !status.success() {
        let says = brief(&String::from_utf8_lossy(&says));
        return Err(match status.code() {
            Some(1) if !says.is_empty() => says,
            _ => format!("the compiler was stopped at its limits ({status}) {says}").trim_end().to_owned(),
        });
    }
    if code.len() as u64 > limits::ARTEFACT {
        return Err(format!("its code is larger than {} MiB", limits::ARTEFACT >> 20));
    }
    let kind = code.first().copied().and_then(Kind::of_tag).ok_or("the compiler answered nothing sensible")?;
    code.remove(0);
    Ok(Artefact { kind, code })
}

/// The first bytes of what a child writes. The rest is read and forgotten: a child must not wait for a reader who has seen enough.
async fn beginning(pipe: impl AsyncRead + Unpin, most: u64) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut pipe) = (Vec::new(), pipe.take(most));
    pipe.read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await?;
    Ok(bytes)
}

fn start(program: &Path, args: &[OsString]) -> std::io::Result<Child> {
    Command::new(program)
        .args(args)
        .env_clear()
        // Each thread of the compiler has an arena of its own, each arena 64 MiB of addresses.
        .env("RAYON_NUM_THREADS", limits::COMPILER_THREADS.to_string())
        .env("MALLOC_ARENA_MAX", "2")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// The compiling child, from limits to exit status. Call it before anything else in the agent's hidden subcommand.
pub fn compile_child() -> ExitCode {
    match confine().map_err(|error| format!("the compiler could not limit itself: {error}")).and_then(|()| compile_stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            drop(writeln!(std::io::stderr(), "{why}"));
            ExitCode::FAILURE
        }
    }
}

fn compile_stdin() -> Result<(), String> {
    let mut wasm = Vec::new();
    let read = std::io::stdin().lock().take(PACK as u64 + 1).read_to_end(&mut wasm).map_err(|error| error.to_string())?;
    if read > PACK {
        return Err(format!("it is larger than {} MiB", PACK >> 20));
    }
    let cpu = limits::compiler_cpu_secs(wasm.len());
    at_most(Resource::Cpu, cpu).map_err(|error| format!("the compiler could not limit itself: {error}"))?;
    let artefact = compile(&wasm)?;
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&[artefact.kind.tag()]).and_then(|()| stdout.write_all(&artefact.code)).and_then(|()| stdout.flush());
    written.map_err(|error| error.to_string())
}

/// Everything a compiler does not need is taken away before the first byte of a stranger's pack is read.
fn confine() -> rustix::io::Result<()> {
    at_most(Resource::As, limits::COMPILER_MEMORY)?;
    at_most(Resource::Cpu, limits::compiler_cpu_secs(PACK))?;
    at_most(Resource::Core, 0)?;
    at_most(Resource::Fsize, 0)?;
    at_most(Resource::Nofile, 16)?;
    // On a machine that runs out of memory this is who should go.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    Ok(())
}

/// Lowers a limit of this process, for good.
fn at_most(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let old = rustix::process::getrlimit(resource);
    let most = old.maximum.map_or(most, |maximum| most.min(maximum));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn with_script(script: &str) -> String {
        let compiler = Compiler::Child { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
        match compiler.compile("x", Bytes::from_static(b"wasm")).await {
            Ok(artefact) => format!("{:?} {}", artefact.kind, String::from_utf8_lossy(&artefact.code)),
            Err(failure) => {
                assert_eq!(failure.code, Code::PackRejected);
                failure.message
            }
        }
    }

    #[tokio::test]
    async fn a_childs_answer_is_its_kind_and_the_code() {
        assert_eq!(with_script("printf S; cat").await, "Sync wasm");
        assert_eq!(with_script("printf A; cat").await, "Async wasm");
    }

    #[tokio::test]
    async fn every_end_of_a_compiler_has_its_sentence() {
        assert_eq!(with_script("echo 'bad\n magic' >&2; exit 1").await, "pack `x` does not compile: bad  magic");
        assert!(with_script("kill -9 $$").await.contains("stopped at its limits (signal: 9 (SIGKILL))"));
        assert!(with_script("exit 0").await.contains("nothing sensible"));
        assert!(with_script("printf Q").await.contains("nothing sensible"));
        let gone = Compiler::Child { program: "/nonexistent".into(), args: Vec::new() };
        assert!(gone.compile("x", Bytes::new()).await.is_err_and(|failure| failure.message.contains("could not be started")));
    }

    #[tokio::test]
    async fn what_a_compiler_says_is_short_and_on_one_line() {
        let said = with_script("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1").await;
        assert!(said.chars().count() < limits::MESSAGE + 100, "{}", said.len());
        assert_eq!(brief(" a\nb\u{1b}c "), "a b\\u{1b}c");
    }

    #[test]
    fn a_compiler_refuses_nonsense() {
        assert!(compile(b"").is_err());
        assert!(compile(b"\0asm\x0d\0\x01\0").is_ok());
    }
}
