//! `builder build` makes every pack of this workspace and writes it to `plugins/dist`; `builder check` says whether what
//! lies there was made from these sources. `plugins/README.md` tells when to run which.

use std::process::ExitCode;

const USAGE: &str = "usage: builder build
       builder check [--compare | --sources]

build      makes all packs and fixtures and writes them to plugins/dist with their stamps
check      fails when a stamp is not of these sources; where the stamped compiler is at hand, also builds
           everything again in another folder and compares the bytes
--compare  fails when the stamped compiler is not at hand
--sources  never builds";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["build"] => builder::build(),
        ["check"] => builder::check(builder::Compare::WherePossible),
        ["check", "--compare"] => builder::check(builder::Compare::Always),
        ["check", "--sources"] => builder::check(builder::Compare::Never),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}
