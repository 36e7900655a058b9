//! The binary `relay`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    outhaul_relay::cli::main()
}
