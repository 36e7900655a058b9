//! `relay serve`.
use outhaul_home::Home;
use outhaul_protocol::error::Failure;
use tokio_util::sync::CancellationToken;
use crate::config::ServeOptions;

/// Serves until `shutdown` is cancelled.
pub async fn run(_home: &Home, _options: ServeOptions, _shutdown: CancellationToken) -> Result<(), Failure> {
    unimplemented!("being written")
}
