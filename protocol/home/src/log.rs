//! The log: lines on stderr, as `RUST_LOG` asks (`info`, `outhaul_agent=debug,warn`; targets and levels, no spans).

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What `RUST_LOG` asks for, when it asks for anything.
#[must_use]
pub fn asked() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty())
}

/// Starts it, with the filter `ours` unless `RUST_LOG` says otherwise; one JSON object a line on request. A log that is
/// there already stays.
pub fn start(ours: &str, json: bool) {
    let ours = || ours.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let (filter, wrong) = match asked().map(|asked| asked.parse::<Targets>().map_err(|error| (asked, error))) {
        None => (ours(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(wrong)) => (ours(), Some(wrong)),
    };
    // Colour only where a person looks.
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour && !json);
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    if let Some((asked, error)) = wrong {
        tracing::warn!(RUST_LOG = asked, %error, "RUST_LOG is not understood and not followed");
    }
}
