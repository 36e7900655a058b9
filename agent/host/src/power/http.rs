//! The `http` power: requests of a pack to granted hosts, dialled by the host.
//!
//! Promises: a request leaves only when its scheme, host, port and method are granted ([`Permitted`]); its host is looked up once, all
//! that comes of that is judged, and the connection goes to an address that was judged ([`Pinned`]), so that no second look-up can
//! say otherwise; TLS unless the entry itself says `http://`; the owner's headers, secrets in them, are added last and only for the
//! host they are bound to; one connection per request, so that nothing is left for the next; bodies, heads and time have ceilings.
//! Redirects are the pack's to follow, each a request of its own.
//!
//! Not promised: what a granted host does with a request, or whether it answers with what it was sent.

mod address;
mod body;
mod grant;
mod header;
mod origin;
mod send;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

pub use address::Network;
pub use body::Limited;
pub use grant::{Grant, Permitted, Verb, judge_typed};
pub(crate) use header::RESERVED;
pub use header::{Field, Template};
pub use origin::{Origin, Scheme};
pub use send::{Answered, Pinned, Times};

use super::secrets::Vault;
use outhaul_protocol::secret::SecretBytes;

/// Look-ups of names at once, of all packs: each holds a thread for as long as the system's resolver takes, which no deadline of ours
/// shortens.
const RESOLVERS: usize = 32;

/// A future in a box.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection, whatever it is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Finds the addresses of a name.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses, in the order to try them.
    fn resolve<'a>(&'a self, name: &'a str) -> Boxed<'a, std::io::Result<Vec<IpAddr>>>;
}

/// Puts TLS on a connection.
pub trait Secure: fmt::Debug + Send + Sync {
    /// Returns once the other side proved that it is `host`, a name or an address.
    fn secure<'a>(&'a self, tcp: TcpStream, host: &'a str) -> Boxed<'a, Result<Box<dyn Stream>, TlsError>>;
}

/// Why there is no TLS.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    /// The other side did not prove who it is.
    #[error("{0}")]
    Certificate(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

/// What packs need of the world outside of the sandbox.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Finds addresses.
    pub resolver: Arc<dyn Resolve>,
    /// Puts TLS on connections.
    pub tls: Arc<dyn Secure>,
    /// Has the owner's secrets.
    pub vault: Arc<dyn Vault>,
}

/// The system's resolver, no TLS and no secrets: for hosts that are not an agent's.
impl Default for Outside {
    fn default() -> Self {
        Outside { resolver: Arc::new(SystemResolver), tls: Arc::new(Nothing), vault: Arc::new(Nothing) }
    }
}

/// The resolver of the system.
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Boxed<'a, std::io::Result<Vec<IpAddr>>> {
        static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(RESOLVERS)));
        Box::pin(async move {
            let place = PLACES.clone().acquire_owned().await.map_err(std::io::Error::other)?;
            let name = name.to_owned();
            let looked_up = tokio::task::spawn_blocking(move || {
                // Kept until the resolver is done, also when nobody waits any more.
                let _place = place;
                std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).map(|all| all.map(|address| address.ip()).collect())
            });
            looked_up.await.map_err(std::io::Error::other)?
        })
    }
}

#[derive(Debug)]
struct Nothing;

impl Secure for Nothing {
    fn secure<'a>(&'a self, _: TcpStream, _: &'a str) -> Boxed<'a, Result<Box<dyn Stream>, TlsError>> {
        Box::pin(async { Err(TlsError::Failed("this host has no TLS".into())) })
    }
}

impl Vault for Nothing {
    fn get(&self, _: &str) -> Result<Option<SecretBytes>, String> {
        Ok(None)
    }
}

/// Why a request fails. The pack gets the kind; only a refusal's sentence is for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HttpError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// More requests under way than this call may have.
    #[error("{0} requests of this call are under way, and no more are allowed")]
    TooMany(usize),
    /// The name leads nowhere.
    #[error("`{0}` has no address")]
    NoAddress(String),
    /// Nobody takes the connection.
    #[error("connect to {address}: {source}", address = .0, source = .1)]
    Unreachable(IpAddr, String),
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The owner's or the pack's time for it is over.
    #[error("{0} took too long")]
    Timeout(Step),
    /// The request's body is over the ceiling, in bytes.
    #[error("the request's body is longer than {0} bytes")]
    RequestBody(u64),
    /// The answer's body is over the ceiling, in bytes.
    #[error("the answer's body is longer than {0} bytes")]
    ResponseBody(u64),
    /// The answer's head is over the ceiling.
    #[error("the answer's head has too many or too long headers")]
    ResponseHead,
    /// The connection broke off.
    #[error("the connection broke off")]
    Broken,
    /// What came is not HTTP.
    #[error("{0}")]
    Protocol(String),
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Finding the address.
    Lookup,
    /// Connecting, TLS included.
    Connect,
    /// Until the answer's head was there.
    Answer,
    /// Until its body was.
    Body,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Lookup => "the look-up of the name",
            Step::Connect => "the connection",
            Step::Answer => "the answer",
            Step::Body => "the answer's body",
        })
    }
}

#[cfg(test)]
mod tests;
