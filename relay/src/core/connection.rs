//! One connection from its acceptance to its clean-up: accepted → proven → admitted → served → gone. The clean-up is a
//! guard's, so that it happens however the task ends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use outhaul_link::accept::{AcceptError, refuse};
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
use super::{admit, clock, guest, node, operator, registry};

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
        Admitted::Node(node) => tasks.spawn(serve_node(hub, socket, node)),
        Admitted::Operator(operator) => tasks.spawn(serve_operator(hub, socket, operator)),
        Admitted::Guest(guest) => tasks.spawn(serve_guest(hub, socket, guest)),
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
            welcome(&session, None);
            Ok(Admitted::Node(Arc::new(NodeSession { session, key: proven.key, id, state: Mutex::default() })))
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
            welcome(&session, found);
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
            welcome(&session, None);
            let guest = Arc::new(GuestSession { session, key: proven.key, id, address: peer.ip() });
            hub.pairings.admit(&guest)?;
            Ok(Admitted::Guest(guest))
        }
    }
}

/// Queued before anybody else knows the session: nothing can come before it.
fn welcome(session: &Session, found: Option<Vec<NodeRecord>>) {
    session.say(&Frame::Welcome {
        session: session.number,
        window: limits::CHANNEL_WINDOW,
        heartbeat_ms: limits::HEARTBEAT_SECS * 1000,
        found: Maybe(found),
    });
}

/// Moves bytes until the session ends; says why it did.
async fn run(socket: Socket, session: &Session, on_frame: impl FnMut(Bytes) -> Result<(), String>) -> String {
    let stop = async {
        tokio::select! {
            reason = session.until_ended() => reason,
            () = session.until_silent() => "the peer fell silent".to_owned(),
        }
    };
    pump(socket, &session.outbox, on_frame, stop).await.to_string()
}

async fn serve_node(hub: Arc<Hub>, socket: Socket, node: Arc<NodeSession>) {
    let _gone = NodeGuard { hub: &hub, node: &node };
    hub.sessions.add_node(&node);
    // Only now: a notice that came between the judgement and the list would have passed this node by.
    let notices = hub.notices.known();
    notices.frames().iter().for_each(|frame| node.session.say(frame));
    if notices.revoked.has_key(&node.id) {
        node.session.end("revoked", "this machine's key is revoked");
    }
    drop(notices);
    tracing::info!(node = %node.id.short(), session = node.session.number, "node connected");
    let ended = run(socket, &node.session, |frame| node::receive(&hub, &node, frame)).await;
    tracing::info!(node = %node.id.short(), session = node.session.number, reason = %ended, "node disconnected");
}

struct NodeGuard<'a> {
    hub: &'a Arc<Hub>,
    node: &'a NodeSession,
}

impl Drop for NodeGuard<'_> {
    fn drop(&mut self) {
        self.hub.sessions.remove_node(self.node);
        self.hub.channels.node_gone(self.node);
        let seen = clock::now().0.saturating_sub(self.node.session.silence().as_secs());
        let id = self.node.id;
        let _ = self.hub.store.submit(move |db| {
            if let Err(error) = db.seen(&[(id, outhaul_protocol::time::Time(seen))]) {
                tracing::warn!(%error, "could not note when a node was last seen");
            }
        });
    }
}

async fn serve_operator(hub: Arc<Hub>, socket: Socket, operator: Arc<OperatorSession>) {
    let _gone = OperatorGuard { hub: &hub, operator: &operator };
    hub.sessions.add_operator(&operator);
    if operator.authority.stands(clock::reading(), &hub.notices.known().revoked).is_err() {
        operator.session.end("revoked", "your grants do not stand any more");
    }
    tracing::debug!(operator = %operator.id.short(), session = operator.session.number, "operator connected");
    let ended = run(socket, &operator.session, |frame| operator::receive(&hub, &operator, frame)).await;
    tracing::debug!(operator = %operator.id.short(), session = operator.session.number, reason = %ended, "operator disconnected");
}

struct OperatorGuard<'a> {
    hub: &'a Arc<Hub>,
    operator: &'a OperatorSession,
}

impl Drop for OperatorGuard<'_> {
    fn drop(&mut self) {
        self.hub.sessions.remove_operator(self.operator);
        self.hub.channels.operator_gone(self.operator);
        self.hub.pairings.operator_gone(self.operator.session.number);
    }
}

async fn serve_guest(hub: Arc<Hub>, socket: Socket, guest: Arc<GuestSession>) {
    let _gone = GuestGuard { hub: &hub, guest: &guest };
    tracing::info!(guest = %guest.id.short(), address = %guest.address, "a machine asks to be paired");
    let ended = run(socket, &guest.session, |frame| guest::receive(&hub, &guest, &frame)).await;
    tracing::info!(guest = %guest.id.short(), reason = %ended, "guest disconnected");
}

struct GuestGuard<'a> {
    hub: &'a Arc<Hub>,
    guest: &'a GuestSession,
}

impl Drop for GuestGuard<'_> {
    fn drop(&mut self) {
        self.hub.pairings.guest_gone(self.guest);
    }
}
