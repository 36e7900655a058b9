//! From a permitted request to its answer: look up, judge, connect, secure, fill in the owner's headers, send, and wait within limits.
//! States are types: only what was judged is [`Permitted`], only judged addresses are [`Pinned`], and only they are connected to.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use ::http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use ::http::{HeaderValue, Request, Response, Uri};
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::address::{Network, judge};
use super::body::Limited;
use super::header::Unfilled;
use super::origin::{Host, Scheme};
use super::{Boxed, HttpError, Outside, Permitted, Step, Stream};
use crate::power::secrets::{Vault, not_set};
use crate::power::shell_word;

/// Bytes of an answer's head. Servers allow 8 to 16 KiB in requests; answers with large policies in them reach 32.
const HEAD: usize = 64 << 10;
/// Addresses of one name that are tried.
const TRIED: usize = 8;

/// Times a pack asks for within the owner's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// until the connection stands
    pub connect: Option<Duration>,
    /// from then until the answer's head
    pub first_byte: Option<Duration>,
    /// between two parts of its body
    pub between_bytes: Option<Duration>,
}

/// A permitted request with the addresses that were judged for it.
#[derive(Debug)]
pub struct Pinned {
    permitted: Permitted,
    addresses: Vec<IpAddr>,
    began: Instant,
    deadline: Instant,
}

/// An answer, and the rest of its connection, which must be driven for the body to come.
pub struct Answered {
    /// head and body
    pub response: Response<Limited<Incoming>>,
    /// ends with the connection
    pub connection: Boxed<'static, ()>,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").field("status", &self.response.status()).finish_non_exhaustive()
    }
}

impl Permitted {
    /// Looks the host up, once, and judges every address that comes of it.
    pub async fn pin(self, outside: &Outside) -> Result<Pinned, HttpError> {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(self.grant.timeout_secs);
        let addresses = match &self.target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let found = timeout_at(deadline, outside.resolver.resolve(name)).await.map_err(|_| HttpError::Timeout(Step::Lookup))?;
                found.ok().filter(|found| !found.is_empty()).ok_or_else(|| HttpError::NoAddress(name.clone()))?
            }
        };
        // An owner who grants an address has named it.
        let named: Vec<Network> = self.grant.private.iter().copied().chain(self.origin.address().map(Network::of)).collect();
        // One bad address among good ones is a trick or a mistake; either way the name is not what the owner granted.
        addresses.iter().try_for_each(|address| judge(*address, &named)).map_err(|refused| {
            let (pack, target, address) = (&self.pack, &self.target, refused.address);
            HttpError::Denied(format!(
                "`{target}` leads to {address}, {}, which this machine's policy does not let pack `{pack}` reach; on that machine: agent allow {pack} http {} --private {address}",
                refused.what,
                shell_word(&self.origin.to_string())
            ))
        })?;
        Ok(Pinned { permitted: self, addresses, began, deadline })
    }
}

impl Pinned {
    /// Sends a request and waits for its answer's head. `place` is given back with the answer's body.
    pub async fn send<B>(
        self,
        request: Request<B>,
        times: Times,
        outside: &Outside,
        place: OwnedSemaphorePermit,
    ) -> Result<Answered, HttpError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<HttpError>,
    {
        let most = self.permitted.grant.max_mib << 20;
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > most) {
            return Err(HttpError::RequestBody(most));
        }
        let stream = self.connect(times, outside).await?;
        let connected = Instant::now();
        // Last, so that a secret is read only for a connection that stands.
        let request = self.finish(request, outside.vault.clone()).await?.map(|body| Limited::sent(body, most));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD)
            .max_header_size(HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| of_hyper(&error))?;
        let deadline = self.deadline;
        // How it ends is what the answer, or its body, says.
        let mut connection: Boxed<'static, ()> = Box::pin(async move { drop(connection.await) });
        let answer_by = times.first_byte.map_or(deadline, |first| deadline.min(connected + first));
        let response = timeout_at(answer_by, driven(sender.send_request(request), &mut connection)).await;
        let response = response.map_err(|_| HttpError::Timeout(Step::Answer))?.map_err(|error| of_hyper(&error))?;
        if response.body().size_hint().lower() > most {
            return Err(HttpError::ResponseBody(most));
        }
        tracing::debug!(pack = self.permitted.pack, target = %self.permitted.target, status = response.status().as_u16(), "a pack's request was answered");
        let response = response.map(|body| Limited::received(body, most, deadline, times.between_bytes, place));
        let rest = async move { drop(timeout_at(deadline, connection).await) };
        Ok(Answered { response, connection: Box::pin(rest) })
    }

    /// Connects to the first judged address that takes the connection.
    async fn connect(&self, times: Times, outside: &Outside) -> Result<Box<dyn Stream>, HttpError> {
        let by = times.connect.map_or(self.deadline, |connect| self.deadline.min(self.began + connect));
        let tcp = timeout_at(by, self.dial(by)).await.map_err(|_| HttpError::Timeout(Step::Connect))??;
        let target = &self.permitted.target;
        if target.scheme == Scheme::Http {
            return Ok(Box::new(tcp));
        }
        let host = match &target.host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        };
        let secured = timeout_at(by, outside.tls.secure(tcp, &host)).await.map_err(|_| HttpError::Timeout(Step::Connect))?;
        Ok(secured?)
    }

    async fn dial(&self, by: Instant) -> Result<TcpStream, HttpError> {
        let port = self.permitted.target.port;
        let mut failed = HttpError::NoAddress(self.permitted.target.host.to_string());
        let tried = self.addresses.len().min(TRIED);
        for (index, address) in self.addresses.iter().take(TRIED).enumerate() {
            // One address that answers nothing must not take the time of all others.
            let share = by.saturating_duration_since(Instant::now()) / u32::try_from(tried - index).unwrap_or(1);
            match timeout_at(Instant::now() + share, TcpStream::connect(SocketAddr::new(*address, port))).await {
                Ok(Ok(tcp)) => {
                    // Small requests should not wait for company; one that cannot be told so still goes out.
                    drop(tcp.set_nodelay(true));
                    return Ok(tcp);
                }
                Ok(Err(error)) => failed = HttpError::Unreachable(*address, error.to_string()),
                Err(_) => failed = HttpError::Timeout(Step::Connect),
            }
        }
        Err(failed)
    }

    /// Puts the request into the form it has on the wire, with the owner's headers.
    async fn finish<B>(&self, mut request: Request<B>, vault: std::sync::Arc<dyn Vault>) -> Result<Request<B>, HttpError> {
        let Permitted { grant, origin, target, .. } = &self.permitted;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| HttpError::Protocol(format!("the path: {error}")))?;
        let host = HeaderValue::from_str(&target.authority()).map_err(|error| HttpError::Protocol(format!("the host: {error}")))?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let Some(bound) = grant.headers.get(origin).filter(|_| origin.is_one_host()) else { return Ok(request) };
        let bound = bound.clone();
        // The vault reads files.
        let filled = tokio::task::spawn_blocking(move || {
            let fill = |template: &super::Template| template.fill(|name| vault.get(name));
            bound
                .into_iter()
                .map(|(field, template)| fill(&template).map(|value| (field, value)).map_err(|why| (template, why)))
                .collect::<Vec<_>>()
        });
        for filled in filled.await.map_err(|error| HttpError::Protocol(format!("the owner's headers: {error}")))? {
            let (field, value) = filled.map_err(|(template, why)| self.unfilled(&template, why))?;
            headers.insert(field.name(), value);
        }
        Ok(request)
    }

    fn unfilled(&self, template: &super::Template, why: Unfilled) -> HttpError {
        let target = &self.permitted.target;
        HttpError::Denied(match why {
            Unfilled::NotSet(name) => format!("requests to `{target}` need a secret: {}", not_set(name.as_str())),
            Unfilled::Vault(why) => format!("requests to `{target}` need a secret that cannot be read: {why}"),
            Unfilled::Unfit => format!("a header for `{target}`, `{template}`, would have a line break or a control character in it"),
        })
    }
}

/// A request's answer, with its connection driven meanwhile.
async fn driven<T>(answer: impl Future<Output = T>, connection: &mut Boxed<'static, ()>) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = connection.as_mut() => {}
    }
    // The connection is over: what there is of an answer is there, or an error is. It must not be driven again.
    *connection = Box::pin(std::future::ready(()));
    answer.await
}

/// What an engine's error is to us: our own where one of our bodies caused it.
fn of_hyper(error: &hyper::Error) -> HttpError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<HttpError>() {
            return ours.clone();
        }
        source = inner.source();
    }
    match error {
        _ if error.is_parse_too_large() => HttpError::ResponseHead,
        _ if error.is_parse() => HttpError::Protocol("what came is not an answer in HTTP/1.1".into()),
        _ if error.is_timeout() => HttpError::Timeout(Step::Answer),
        _ => HttpError::Broken,
    }
}

impl From<hyper::Error> for HttpError {
    fn from(error: hyper::Error) -> Self {
        of_hyper(&error)
    }
}
