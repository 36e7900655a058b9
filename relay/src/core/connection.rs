//! One connection from its acceptance to its clean-up: accepted → proven → admitted → served → gone. The clean-up is a
//! guard's, so that it happens however the task ends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use outhaul_link::accept::{AcceptError, refuse};
use outhaul_link::outbox::Meter;
use outhaul_link::{Socket, pump};
use outhaul_protocol::cbor::Maybe;
use outhaul_protocol::error::Failure;
use outhaul_protocol::frame::{Frame, NodeRecord, Role};
use outhaul_protocol::handshake::Proven;
use outhaul_protocol::limits;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::hub::Hub;
use super::sessions::{GuestSession, NodeSession, OperatorSession, Session};
use super::{admit, registry};

/// Takes a connection to the point where its peer is known or refused, which is when the permit is given back; its
/// session goes on as another of the tasks.
pub(crate) async fn serve(hub: Arc<Hub>, tasks: TaskTracker, tcp: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
    let (socket, proven) = match hub.acceptor.accept(tcp, &hub.key).await {
        Ok(accepted) => accepted,
        Err(AcceptError::Http(path)) => return tracing::debug!(%peer, path = %path.escape_debug(), "answered plain HTTP"),
        Err(error) => return tracing::debug!(%peer, %error, "a connection did not become a link"),
    };
    let is_node = proven.role == Role::Node;
    let admitted = match admit(&hub, proven, peer).await {
        Ok(admitted) => admitted,
        Err(failure) => {
            tracing::info!(%peer, code = %failure.code, reason = %failure.message, "refused a peer");
            return refuse(socket, &admit::public(&failure, is_node)).await;
        }
    };
    drop(permit);
    // A task of its own for the hours to come: what the handshake needed ends with this one.
    match admitted {
        Admitted::Node(node) => tasks.spawn(serve_peer(hub, socket, node)),
        Admitted::Operator(operator) => tasks.spawn(serve_peer(hub, socket, operator)),
        Admitted::Guest(guest) => tasks.spawn(serve_peer(hub, socket, guest)),
    };
}

enum Admitted {
    Node(Arc<NodeSession>),
    Operator(Arc<OperatorSession>),
    Guest(Arc<GuestSession>),
}

async fn admit(hub: &Arc<Hub>, proven: Proven, peer: SocketAddr) -> Result<Admitted, Failure> {
    let id = proven.key.id();
    match proven.role {
        Role::Node => {
            admit::node(hub, &proven).await?;
            let session = hub.sessions.begin();
            welcome(&session, limits::LINK_WINDOW, None);
            Ok(Admitted::Node(Arc::new(NodeSession { session, key: proven.key, id, openings: Meter::default(), state: Mutex::default() })))
        }
        Role::Operator => {
            let authority = admit::operator(hub, &proven)?;
            let found = match proven.lookup {
                Some(lookup) => {
                    let hub_of_store = hub.clone();
                    Some(hub.store.ask(move |db| registry::look_up(db, &hub_of_store, &lookup, None)).await??)
                }
                None => None,
            };
            let session = hub.sessions.begin();
            // Nobody opens channels to an operator.
            welcome(&session, limits::LINK_WINDOW + limits::OPENINGS as u32, found);
            Ok(Admitted::Operator(Arc::new(OperatorSession {
                session,
                key: proven.key,
                id,
                authority,
                transcript: proven.transcript,
                counter: AtomicU64::new(0),
                asking: AtomicUsize::new(0),
                channels: Mutex::default(),
            })))
        }
        Role::Guest => {
            let session = hub.sessions.begin();
            welcome(&session, limits::LINK_WINDOW, None);
            let guest = Arc::new(GuestSession { session, key: proven.key, id, address: peer.ip() });
            hub.pairings.admit(&guest)?;
            Ok(Admitted::Guest(guest))
        }
    }
}

/// Queued before anybody else knows the session: nothing can come before it.
fn welcome(session: &Session, window: u32, found: Option<Vec<NodeRecord>>) {
    session.say(&Frame::Welcome { session: session.number, window, heartbeat_ms: limits::HEARTBEAT_SECS * 1000, found: Maybe(found) });
}

/// What the three kinds of peers do in their session, each in its own way.
pub(super) trait Peer: Send + Sync + 'static {
    fn session(&self) -> &Session;
    /// Takes its place among those that are here; what ended its right to one meanwhile ends it now.
    fn come(self: &Arc<Self>, hub: &Arc<Hub>);
    /// One frame. It must not wait.
    fn receive(self: &Arc<Self>, hub: &Arc<Hub>, frame: Bytes) -> Result<(), Over>;
    /// One line in the log.
    fn part(&self, reason: &str);
    /// Takes out what it left behind.
    fn leave(&self, hub: &Hub);
}

/// Why a frame ends its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer took its leave.
    Goodbye,
    /// The peer did what it may not; it is told.
    Fault(String),
}

impl From<String> for Over {
    fn from(what: String) -> Self {
        Over::Fault(what)
    }
}

impl From<&str> for Over {
    fn from(what: &str) -> Self {
        Over::Fault(what.into())
    }
}

/// A session's life, whoever's it is.
async fn serve_peer<P: Peer>(hub: Arc<Hub>, socket: Socket, peer: Arc<P>) {
    let _gone = Leaving { hub: &hub, peer: &*peer };
    let session = peer.session();
    peer.come(&hub);
    let on_frame = |frame: Bytes| {
        session.hear();
        peer.receive(&hub, frame).map_err(|over| match over {
            Over::Goodbye => "goodbye".to_owned(),
            Over::Fault(what) => session.blame(what),
        })
    };
    let stop = async {
        tokio::select! {
            reason = session.until_ended() => reason,
            () = session.until_silent() => "the peer fell silent".to_owned(),
        }
    };
    let ended = pump(socket, &session.outbox, on_frame, stop).await;
    peer.part(&ended.to_string());
}

struct Leaving<'a, P: Peer> {
    hub: &'a Hub,
    peer: &'a P,
}

impl<P: Peer> Drop for Leaving<'_, P> {
    fn drop(&mut self) {
        self.peer.leave(self.hub);
    }
}
