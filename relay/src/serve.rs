//! `relay serve`: listens, accepts, keeps house, and drains when it is told to stop. Prints on stderr what it made and
//! where it listens; `relay/address` holds the URL while it does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outhaul_home::{Home, Lock, PRIVATE, remove, write_atomic};
use outhaul_link::url::RelayUrl;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ServeOptions, Settings};
use crate::core::{Hub, serve_connection};
use crate::init;
use crate::operator::{FINGERPRINT_DIGITS, Room};

/// Connections whose peer is not yet known. Each costs a few KiB for ten seconds at most.
const HALF_OPEN: usize = 2048;
/// How long sessions may take to hear the last word when the relay stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Between two looks at what has run out.
const TICK: Duration = Duration::from_secs(5);
/// Ticks between two notes of when nodes were last heard: five minutes.
const SEEN_TICKS: u64 = 60;
/// Ticks between two looks at the relay's own grant: a day.
const RENEW_TICKS: u64 = 24 * 3600 / 5;
/// Rest after the system gave no connection: most likely it is out of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is cancelled, then drains.
pub async fn run(home: &Home, options: ServeOptions, shutdown: CancellationToken) -> Result<(), Failure> {
    let relay = start(home, options, shutdown).await?;
    eprintln!("relay listens on {}; its fingerprint is {}", relay.url(), relay.key().id());
    if let Some(next) = &relay.next {
        eprintln!("next{next}");
    }
    relay.join().await
}

/// A relay that listens.
#[derive(Debug)]
pub struct Relay {
    url: RelayUrl,
    key: PublicKey,
    /// after a first run: what a person does next
    next: Option<String>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Relay {
    /// Where it listens, as clients dial it.
    #[must_use]
    pub fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Waits until it has drained.
    pub async fn join(self) -> Result<(), Failure> {
        self.task.await.map_err(|error| Failure::new(Code::Internal, format!("the relay's task: {error}")))?
    }
}

/// What the one-machine set-up trades away.
const TOGETHER: &str = "note: the fleet key lies beside the relay, so whoever takes this machine has the fleet; \
                        `relay init` elsewhere and `relay serve --fleet KEY` here keep them apart";

/// What a person does after a relay's first start, as it reads behind "next".
fn next_step(identity: &init::Identity, listen: SocketAddr, url: &RelayUrl) -> String {
    if identity.owner_here {
        return ": relay pair new".to_owned();
    }
    // How others reach a listener on every address, this machine does not know.
    let there = match listen.ip().is_unspecified() {
        true => format!("{}://HOST:{}", if url.is_tls() { "wss" } else { "ws" }, url.port()),
        false => url.to_string(),
    };
    format!(", on the owner's machine: relay use {there} --relay-key {}", &identity.key.id().to_string()[..FINGERPRINT_DIGITS])
}

/// Starts to listen and serves on a task of its own, until `shutdown` is cancelled.
pub async fn start(home: &Home, options: ServeOptions, shutdown: CancellationToken) -> Result<Relay, Failure> {
    let settings = Settings::read(home, &options)?;
    let lock = Lock::take(&home.relay()?.join("lock"), "relay serve")?;
    let identity = init::identity(home, &settings)?;
    for (what, path) in &identity.made {
        eprintln!("made {what}: {}", path.display());
    }
    let first = !identity.made.is_empty();
    if first {
        eprintln!("the fleet's key is {} (fingerprint {})", identity.fleet, identity.fleet.id());
    }
    if first && identity.owner_here {
        eprintln!("{TOGETHER}");
    }
    raise_file_limit();
    let listener = listen(settings.listen).await?;
    let local = listener.local_addr().map_err(|error| cannot_listen(settings.listen, &error))?;
    let url = url_of(local, settings.tls.is_some())?;
    let next = first.then(|| next_step(&identity, settings.listen, &url));
    let owner = identity.owner_here.then(|| home.clone());
    let hub = Arc::new(Hub::open(home, settings, identity)?);
    take_own_notices(&hub, home, owner.is_some().then_some(&url)).await?;
    let address = Address::write(home, &url)?;
    let key = hub.public();
    let task = tokio::spawn(async move {
        let _held = (lock, address);
        let tasks = TaskTracker::new();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = accept(&hub, listener, &tasks) => {}
            () = keep_house(&hub, owner) => {}
        }
        drain(&hub, &tasks).await;
        Ok(())
    });
    Ok(Relay { url, key, next, task })
}

/// The file that tells clients on this machine where the relay listens.
#[derive(Debug)]
struct Address(PathBuf);

impl Address {
    fn write(home: &Home, url: &RelayUrl) -> Result<Self, Failure> {
        let path = home.relay()?.join("address");
        write_atomic(&path, format!("{url}\n").as_bytes(), PRIVATE)?;
        Ok(Address(path))
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        if let Err(failure) = remove(&self.0) {
            tracing::warn!(reason = %failure.message, "the address file stays");
        }
    }
}

async fn listen(at: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(at).await.map_err(|error| cannot_listen(at, &error))
}

fn cannot_listen(at: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Code::BadConfig, format!("listen on `{at}`: {error}"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            failure.hint("another program listens there; choose another with --listen, port 0 takes a free one")
        }
        _ => failure,
    }
}

/// How this machine reaches a listener: one on every address is reached on its own.
fn url_of(mut local: SocketAddr, tls: bool) -> Result<RelayUrl, Failure> {
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => local.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => local.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    RelayUrl::parse(&format!("{}://{local}", if tls { "wss" } else { "ws" }))
}

/// What this home knows of its fleet: a relay beside the fleet key lists itself; beside an operator it takes over what
/// the operator knows. Not on a relay that was only told its fleet's key and is brought notices by operators.
async fn take_own_notices(hub: &Arc<Hub>, home: &Home, listed: Option<&RelayUrl>) -> Result<(), Failure> {
    if let Some(url) = listed {
        init::list_this_relay(home, url, &hub.public())?;
    }
    let room = Room::of(home);
    if room.fleet_pin()?.as_ref() != Some(hub.fleet()) {
        return Ok(());
    }
    let fleet = room.fleet()?;
    let relays = fleet.relays.map(|relays| relays.bytes().to_vec());
    for (kind, signed, chain) in relays
        .into_iter()
        .map(|signed| ("relays", signed, Vec::new()))
        .chain(fleet.revocations.into_iter().map(|list| ("revocations", list.list.0, list.chain)))
    {
        if let Err(failure) = hub.take_notice(kind, signed, chain).await {
            tracing::warn!(kind, reason = %failure.message, "did not take what the operator's folder holds");
        }
    }
    Ok(())
}

/// Takes connections in; at most [`HALF_OPEN`] whose peer is not known.
async fn accept(hub: &Arc<Hub>, listener: TcpListener, tasks: &TaskTracker) {
    let half_open = Arc::new(Semaphore::new(HALF_OPEN));
    let mut troubled = false;
    loop {
        let Ok(permit) = half_open.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, peer)) => {
                troubled = false;
                tasks.spawn(serve_connection(hub.clone(), tasks.clone(), tcp, peer, permit));
            }
            Err(error) => {
                if !troubled {
                    tracing::warn!(%error, "cannot accept connections");
                }
                troubled = true;
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// What happens from time to time.
async fn keep_house(hub: &Arc<Hub>, owner: Option<Home>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 1u64.. {
        tick.tick().await;
        hub.expire();
        if number.is_multiple_of(SEEN_TICKS) {
            hub.note_seen().await;
        }
        if let Some(home) = owner.as_ref().filter(|_| number.is_multiple_of(RENEW_TICKS)) {
            renew(hub, home.clone()).await;
        }
    }
}

/// The relay's own grant lasts thirty days; one that runs longer beside the fleet key gets a new one in time.
async fn renew(hub: &Arc<Hub>, home: Home) {
    let renewed = tokio::task::spawn_blocking(move || match Room::of(&home).fleet_key()? {
        Some(fleet) => init::relay_enrol(&home, &fleet).map(|(enrol, _)| Some(enrol)),
        None => Ok(None),
    });
    match renewed.await {
        Ok(Ok(Some(enrol))) => hub.set_enrol(enrol),
        Ok(Ok(None)) => {}
        Ok(Err(failure)) => tracing::warn!(reason = %failure.message, "could not renew the relay's own grant"),
        Err(error) => tracing::warn!(%error, "could not renew the relay's own grant"),
    }
}

/// Nobody new comes in; everybody here is told, and what is known is written down.
async fn drain(hub: &Arc<Hub>, tasks: &TaskTracker) {
    tracing::info!("draining");
    hub.note_seen().await;
    hub.dismiss();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "some sessions did not end in time");
    }
    hub.flush().await;
}

/// Ten thousand nodes are ten thousand files; a shell's default is a thousand.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        for (local, tls, url) in
            [("0.0.0.0:1", false, "ws://127.0.0.1:1"), ("[::]:2", true, "wss://[::1]:2"), ("192.0.2.7:3", true, "wss://192.0.2.7:3")]
        {
            assert_eq!(url_of(local.parse().expect(local), tls).expect(local).to_string(), url);
        }
    }
}
