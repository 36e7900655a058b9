//! The way to the container runtime: a unix socket, and nothing else. Each request has a connection of its own; what comes back over it is
//! counted as it is read, so that no answer and no piece of a stream is larger than it may be, whoever listens there.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ContainersError;
use crate::limits::{RUNTIME_ANSWER as ANSWER, RUNTIME_TIME as TIME};
use crate::power::shown;

/// Where runtimes listen, in the order in which they are looked for; those of the agent's own user come after them.
const USUAL: [&str; 3] = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"];
/// The same below `$XDG_RUNTIME_DIR`.
const USERS: [&str; 2] = ["podman/podman.sock", "docker.sock"];
/// The oldest version of the interface that has all we say: Docker 20.10, Podman 3.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };
/// The newest that we were written for.
const NEWEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 53 };
/// Characters of a runtime's own words that a sentence repeats.
const WORDS: usize = 400;

/// The socket of the container runtime: the owner's, else the first that is there.
pub(super) fn socket(owners: Option<&Path>) -> Result<PathBuf, ContainersError> {
    let is_socket = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if let Some(path) = owners {
        let gone = || format!("there is no container runtime: `{}`, which agent.toml names as `socket`, is no socket", path.display());
        return if is_socket(path) { Ok(path.to_owned()) } else { Err(ContainersError::NoRuntime(gone())) };
    }
    let users = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let users = users.into_iter().flat_map(|dir| USERS.map(|name| dir.join(name)));
    let places: Vec<PathBuf> = USUAL.iter().map(PathBuf::from).chain(users).collect();
    places.iter().find(|path| is_socket(path)).cloned().ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|path| format!("`{}`", path.display())).collect();
        ContainersError::NoRuntime(format!(
            "no container runtime was found on this machine; looked at {}; another place is named in agent.toml: [containers] socket = \"…\"",
            looked.join(", ")
        ))
    })
}

/// A runtime that answered.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// where it listens
    pub(super) socket: PathBuf,
    /// how to ask it
    pub(super) version: ClientVersion,
    /// whether it is Podman, which takes GPUs another way
    pub(super) podman: bool,
    /// connections for what is answered soon
    places: Arc<Semaphore>,
}

impl Runtime {
    /// Asks who listens at a socket.
    pub(super) async fn meet(socket: PathBuf, places: Arc<Semaphore>) -> Result<Self, ContainersError> {
        let version = timed(TIME, Link::new(&socket, &OLDEST, Some(&places))?.docker.version()).await.map_err(Failed::plain)?;
        let number = |text: Option<&str>| {
            let (major, minor) = text?.split_once('.')?;
            Some((major.parse::<usize>().ok()?, minor.parse::<usize>().ok()?))
        };
        let (major, minor) = number(version.api_version.as_deref()).unwrap_or((1, 0));
        if (major, minor) < (OLDEST.major_version, OLDEST.minor_version) {
            return Err(ContainersError::NoRuntime(format!(
                "the container runtime at `{}` speaks version {major}.{minor}, and {OLDEST} is the oldest that will do",
                socket.display()
            )));
        }
        let newest = (NEWEST.major_version, NEWEST.minor_version);
        let (major_version, minor_version) = (major, minor).min(newest);
        let podman = version.components.unwrap_or_default().iter().any(|part| part.name.contains("Podman"));
        Ok(Runtime { socket, version: ClientVersion { major_version, minor_version }, podman, places })
    }

    /// Asks something by its path, in the version we speak. Answers name states that the client library does not know, and one of them
    /// must not spoil the whole: they are said in its words.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        let link = self.link().map_err(|error| Failed::Other(error.to_string()))?;
        let answer = timed(TIME, link.ask(Method::GET, &format!("/v{}{path}", self.version), Vec::new())).await?;
        let unreadable = |_| Failed::Other("its answer cannot be read".into());
        let mut answer: Json = serde_json::from_slice(&answer).map_err(unreadable)?;
        match &mut answer {
            Json::Array(list) => list.iter_mut().for_each(|item| translate(item.get_mut("State"))),
            one => translate(one.pointer_mut("/State/Status")),
        }
        serde_json::from_value(answer).map_err(unreadable)
    }

    /// A link for requests that are answered soon: they wait for their turn.
    pub(super) fn link(&self) -> Result<Link, ContainersError> {
        Link::new(&self.socket, &self.version, Some(&self.places))
    }

    /// A link for what stays open. Who takes one has a place of another kind.
    pub(super) fn lasting_link(&self) -> Result<Link, ContainersError> {
        Link::new(&self.socket, &self.version, None)
    }
}

/// A container's state in words that all know; nothing where it is none of them.
fn translate(state: Option<&mut Json>) {
    let Some(Json::String(state)) = state else { return };
    let known = match state.as_str() {
        "stopped" => "exited",
        "configured" | "initialized" => "created",
        known @ ("created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead" | "stopping") => known,
        _ => "",
    };
    *state = known.to_owned();
}

/// A client whose answers share one meter.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) docker: Docker,
    socket: PathBuf,
    meter: Meter,
    places: Option<Arc<Semaphore>>,
}

impl Link {
    fn new(socket: &Path, version: &ClientVersion, places: Option<&Arc<Semaphore>>) -> Result<Self, ContainersError> {
        let meter = Meter(Arc::new(AtomicU64::new(ANSWER)));
        let (path, counted, turns) = (socket.to_owned(), meter.clone(), places.cloned());
        let dial = move |request| dial(path.clone(), counted.clone(), turns.clone(), request);
        // The name stands in a header that no runtime reads; the time is for the head of an answer, ours is for all of it.
        let docker = Docker::connect_with_custom_transport(dial, Some("http://localhost"), TIME.as_secs() * 2, version);
        let docker = docker.map_err(|error| ContainersError::Failed(error.to_string()))?;
        Ok(Link { docker, socket: socket.to_owned(), meter, places: places.cloned() })
    }

    /// Asks something by its path, as it stands; the answer as it came.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Error> {
        let request = http::Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(bollard::body_full(body.into()))?;
        let response = dial(self.socket.clone(), self.meter.clone(), self.places.clone(), request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(body);
        }
        #[derive(serde::Deserialize)]
        struct Refusal {
            message: String,
        }
        let message = serde_json::from_slice::<Refusal>(&body).map_or_else(|_| "it does not say why".into(), |refusal| refusal.message);
        Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
    }

    /// Whether more came than may.
    pub(super) fn is_overrun(&self) -> bool {
        self.meter.0.load(Ordering::Relaxed) == OVERRUN
    }

    /// What was read so far was used up: a stream may go on.
    pub(super) fn go_on(&self) {
        let _ = self.meter.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left != OVERRUN).then_some(ANSWER));
    }
}

async fn dial(
    path: PathBuf,
    meter: Meter,
    places: Option<Arc<Semaphore>>,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    // Who waits has a deadline around the whole request.
    let place = match places {
        Some(places) => Some(places.acquire_owned().await.expect("it is never closed")),
        None => None,
    };
    // A path alone, as servers want it; and which versions there are is asked in no version, for a runtime refuses those it has not.
    let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
    let asked = if asked.ends_with("/version") { "/version" } else { asked };
    *request.uri_mut() = Uri::try_from(asked).map_err(|error| Error::from(http::Error::from(error)))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let stream = UnixStream::connect(&path).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(Metered { stream, meter, _place: place })).await?;
    // It ends when nobody waits for an answer any more, or reads its body.
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await?)
}

/// A meter that was passed.
const OVERRUN: u64 = u64::MAX;

/// What is said then.
pub(super) fn overrun() -> String {
    format!("it answered with more than {} MiB", ANSWER >> 20)
}

/// Bytes that may still come, or [`OVERRUN`].
#[derive(Debug, Clone)]
struct Meter(Arc<AtomicU64>);

struct Metered {
    stream: UnixStream,
    meter: Meter,
    /// given back when the connection is closed
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        let counted = self.meter.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(if left == OVERRUN { OVERRUN } else { left.checked_sub(read).unwrap_or(OVERRUN) })
        });
        match counted {
            Ok(left) if left != OVERRUN && left >= read => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(io::Error::other(overrun()))),
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The runtime said no: its status and words.
    Refused(u16, String),
    /// It is not there.
    Gone(String),
    /// It took too long.
    Late(Duration),
    /// Anything else.
    Other(String),
}

impl Failed {
    /// The runtime's failure as a pack hears it, where its status means nothing special.
    pub(super) fn plain(self) -> ContainersError {
        match self {
            Failed::Gone(why) => ContainersError::NoRuntime(format!("the container runtime of this machine does not answer: {why}")),
            Failed::Late(time) => {
                ContainersError::Failed(format!("the container runtime of this machine did not answer within {} s", time.as_secs()))
            }
            Failed::Refused(409, why) => ContainersError::Conflict(format!("the container runtime refused: {why}")),
            Failed::Refused(_, why) => ContainersError::Failed(format!("the container runtime refused: {why}")),
            Failed::Other(why) => ContainersError::Failed(format!("the container runtime of this machine: {why}")),
        }
    }

    /// Whether what was asked for is not there, or no more.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Failed::Refused(404, _))
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let words = |text: &str| shown(&text.chars().take(WORDS).collect::<String>());
        match error {
            Error::DockerResponseServerError { status_code, message } => Failed::Refused(status_code, words(message.trim())),
            Error::IOError { err } if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Failed::Gone(err.to_string())
            }
            Error::IOError { err } if err.kind() == io::ErrorKind::PermissionDenied => {
                Failed::Gone(format!("{err}; the agent's user must be allowed to use its socket"))
            }
            Error::RequestTimeoutError => Failed::Late(TIME),
            Error::DockerStreamError { error } => Failed::Refused(500, words(error.trim())),
            // What it could not read may hold what nobody else should.
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => Failed::Other("its answer cannot be read".into()),
            error => Failed::Other(chain(&error)),
        }
    }
}

/// An error with what is behind it: hyper's own say next to nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    shown(&text)
}

/// A request with its deadline.
pub(super) async fn timed<T>(time: Duration, request: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(time, request).await {
        Ok(answer) => answer.map_err(Failed::from),
        Err(_) => Err(Failed::Late(time)),
    }
}
