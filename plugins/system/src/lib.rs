//! Pack `system`: `system.info`, `system.run`, `system.which`. `run` connects streams of the host with each other (the
//! call's input to the child, the child's output to the call), so that no byte of them enters this pack's memory.
//! Commands and their help: `wit/v0.1/commands/system.wit`.

wit_bindgen::generate!({
    path: ["../../wit/v0.1/host", "../../wit/v0.1/commands"],
    world: "outhaul:commands/system-pack",
    generate_all,
});

use exports::outhaul::commands::system::{Ending, Facts, Guest, ProcessError, SystemError};
use futures_util::future::join3;
use outhaul::host::output::{self, Closed, Lane, Piped};
use outhaul::host::process::{self, Child, KillSignal, Running, Spec};
use wit_bindgen::StreamReader;

struct Pack;

impl Guest for Pack {
    fn info() -> Result<Facts, SystemError> {
        outhaul::host::system::read()
    }

    async fn run(
        argv: Vec<String>,
        cwd: Option<String>,
        env: Option<Vec<(String, String)>>,
    ) -> Result<Ending, ProcessError> {
        let spec = Spec {
            argv,
            env: env.unwrap_or_default(),
            cwd,
        };
        let Running {
            child,
            stdout,
            stderr,
        } = process::spawn(spec, Some(output::input())).await?;
        let (stdout, stderr, exit) = join3(
            send(&child, Lane::Stdout, stdout),
            send(&child, Lane::Stderr, stderr),
            child.wait(),
        )
        .await;
        let exit = exit?;
        Ok(Ending {
            success: exit.code == Some(0),
            exit_code: exit.code,
            signal: exit.signal,
            duration_ms: exit.duration_ms,
            stdout_bytes: stdout.bytes,
            stderr_bytes: stderr.bytes,
            truncated: [stdout.closed, stderr.closed].contains(&Some(Closed::Ceiling)),
        })
    }

    fn which(program: String) -> Result<String, ProcessError> {
        process::which(&program)
    }
}

/// Sends one of the child's streams. When nobody takes any more, the child has nothing left to work for: it would run on
/// into a drain until the deadline.
async fn send(child: &Child, lane: Lane, data: StreamReader<u8>) -> Piped {
    let piped = output::pipe(lane, data).await;
    if piped.closed.is_some() {
        child.kill(KillSignal::Kill);
    }
    piped
}

export!(Pack);
