//! The agent's binary; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    outhaul_agent::cli::main()
}
