//! A relay in a home of its own, and peers that speak frames to it.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_home::Home;
use outhaul_link::dial::{Connected, Identity, Target, dial};
use outhaul_link::operator::Operator;
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask, ChannelFrame, ChannelId, Frame, Lookup, NodeRecord, Role};
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey, X25519Secret, random, sha256};
use outhaul_protocol::objects::{Certificate, Control, Grant, Node, Rights};
use outhaul_protocol::signed::Signed;
use outhaul_relay::config::ServeOptions;
use outhaul_relay::operator::{Room, now};
use outhaul_relay::serve::{Relay, start};
use tokio_util::sync::CancellationToken;

/// A running relay and the owner of its fleet.
pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) relay: Relay,
    pub(crate) fleet: SecretKey,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) chain: Vec<Blob>,
    pub(crate) stop: CancellationToken,
    ca: Option<std::path::PathBuf>,
    _dir: Option<tempfile::TempDir>,
}

/// A connected peer whose frames are sent and read one by one.
pub(crate) struct Peer {
    pub(crate) connected: Connected,
    pub(crate) key: Arc<SecretKey>,
    counter: u64,
}

impl World {
    /// A set-up on one machine.
    pub(crate) async fn new() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::find(Some(dir.path().to_owned())).expect("a home");
        World::in_home(home, Some(dir), ServeOptions::default()).await
    }

    /// One that ends TLS itself, with a certificate that is its own authority.
    pub(crate) async fn with_tls() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::find(Some(dir.path().to_owned())).expect("a home");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).expect("writes");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
        World::in_home(home, Some(dir), ServeOptions { tls_cert: Some(cert), tls_key: Some(key), ..ServeOptions::default() }).await
    }

    async fn in_home(home: Home, dir: Option<tempfile::TempDir>, options: ServeOptions) -> World {
        let stop = CancellationToken::new();
        let ca = options.tls_cert.clone();
        let options = ServeOptions { listen: "127.0.0.1:0".parse().ok(), ..options };
        let relay = start(&home, options, stop.clone()).await.expect("starts");
        let room = Room::of(&home);
        let fleet = room.fleet_key().expect("reads").expect("is the owner's");
        let (key, chain) = (room.key().expect("a key"), room.chain().expect("a chain"));
        World { home, relay, fleet, key, chain, stop, ca, _dir: dir }
    }

    /// Stops the relay and starts it again in the same home.
    pub(crate) async fn restart(self) -> World {
        self.restart_with(|| ()).await
    }

    /// The same with something done to its home in between.
    pub(crate) async fn restart_with(self, change: impl FnOnce()) -> World {
        self.stop.cancel();
        self.relay.join().await.expect("drains");
        change();
        World::in_home(self.home, self._dir, ServeOptions::default()).await
    }

    /// A certificate by the owner.
    pub(crate) fn certificate(&self, key: &PublicKey, name: &str, serial: u64) -> Vec<u8> {
        self.certificate_of(|node| (node.node, node.name, node.serial) = (*key, name.into(), serial))
    }

    pub(crate) fn certificate_of(&self, change: impl FnOnce(&mut Node)) -> Vec<u8> {
        let mut node = Node {
            iss: self.key.id(),
            aud: self.fleet.id(),
            exp: now().plus(3600),
            iat: now(),
            node: self.key.public(),
            mailbox: X25519Secret::generate().public(),
            name: "node".into(),
            labels: Default::default(),
            serial: 1,
            replaces: None,
        };
        change(&mut node);
        Certificate { node: Blob(Signed::sign(&self.key, &node).into_bytes()), chain: self.chain.clone() }.encode()
    }

    /// Another operator of the fleet, with a grant of its own.
    pub(crate) fn operator_with(&self, rights: Rights) -> (Arc<SecretKey>, Vec<Blob>) {
        let key = Arc::new(SecretKey::generate());
        let any = || vec!["*".to_owned()];
        let grant = Grant {
            iss: self.fleet.id(),
            aud: self.fleet.id(),
            exp: now().plus(3600),
            iat: now(),
            cti: random(),
            holder: key.public(),
            commands: any(),
            nodes: any(),
            evidence_channel: false,
            rights,
            delegate: false,
            holder_kind: None,
        };
        (key, vec![Blob(Signed::sign(&self.fleet, &grant).into_bytes())])
    }

    async fn dial(&self, role: Role, key: &SecretKey, credential: Vec<u8>, lookup: Option<Lookup>) -> Result<Connected, Failure> {
        self.dial_at(&self.relay.url().to_string(), role, key, credential, lookup).await
    }

    async fn dial_at(
        &self,
        url: &str,
        role: Role,
        key: &SecretKey,
        credential: Vec<u8>,
        lookup: Option<Lookup>,
    ) -> Result<Connected, Failure> {
        let url = RelayUrl::parse(url).expect("a URL");
        let target = Target { url, roots: Roots { ca: self.ca.clone(), floor: None }, allow_plaintext: false };
        let expected = *self.relay.key();
        let trust = |shown: &PublicKey| if *shown == expected { Ok(()) } else { Err(Failure::new(Code::BadKey, "another relay")) };
        dial(&target, Identity { role, key, credential: Blob(credential), lookup }, trust).await
    }

    pub(crate) async fn try_node(&self, key: &SecretKey, certificate: Vec<u8>) -> Result<Connected, Failure> {
        self.dial(Role::Node, key, certificate, None).await
    }

    /// A node that the fleet knows.
    pub(crate) async fn node(&self, key: &Arc<SecretKey>, name: &str) -> Peer {
        let connected = self.try_node(key, self.certificate(&key.public(), name, 1)).await.expect("lets the node in");
        Peer { connected, key: key.clone(), counter: 0 }
    }

    pub(crate) async fn try_operator(&self, key: &SecretKey, chain: &[Blob], lookup: Option<Lookup>) -> Result<Connected, Failure> {
        self.dial(Role::Operator, key, Chain { grants: chain.to_vec() }.encode(), lookup).await
    }

    /// The owner, as raw frames.
    pub(crate) async fn owner(&self) -> Peer {
        let connected = self.try_operator(&self.key, &self.chain, None).await.expect("lets the owner in");
        Peer { connected, key: self.key.clone(), counter: 0 }
    }

    /// The owner, by another way to the relay.
    pub(crate) async fn owner_at(&self, port: u16) -> Peer {
        let (url, chain) = (format!("ws://127.0.0.1:{port}"), Chain { grants: self.chain.clone() }.encode());
        let connected = self.dial_at(&url, Role::Operator, &self.key, chain, None).await.expect("lets the owner in");
        Peer { connected, key: self.key.clone(), counter: 0 }
    }

    /// Where the relay listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.relay.url().port()).into()
    }

    /// An operator, as the link's client.
    pub(crate) async fn client(&self, key: &Arc<SecretKey>, chain: &[Blob]) -> Operator {
        Operator::start(self.try_operator(key, chain, None).await.expect("lets the operator in"), key.clone()).0
    }

    pub(crate) async fn guest(&self, key: &Arc<SecretKey>) -> Peer {
        let connected = self.dial(Role::Guest, key, Vec::new(), None).await.expect("lets the guest in");
        Peer { connected, key: key.clone(), counter: 0 }
    }

    /// What the relay says of a node.
    pub(crate) async fn record(&self, id: &KeyId) -> Option<NodeRecord> {
        let lookup = Lookup { id: Some(*id), name: None };
        let connected = self.try_operator(&self.key, &self.chain, Some(lookup)).await.expect("lets the owner in");
        connected.found.expect("an answer").pop()
    }

    /// Asks until the relay's word for a node is this one: its clean-up runs beside us.
    pub(crate) async fn until(&self, id: &KeyId, status: &str) {
        while self.record(id).await.is_none_or(|record| record.status != status) {
            tokio::task::yield_now().await;
        }
    }
}

impl Peer {
    /// An operator, as raw frames.
    pub(crate) async fn operator(world: &World, key: &Arc<SecretKey>, chain: &[Blob]) -> Peer {
        let connected = world.try_operator(key, chain, None).await.expect("lets the operator in");
        Peer { connected, key: key.clone(), counter: 0 }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.key.id()
    }

    pub(crate) async fn send(&mut self, frame: &Frame) {
        self.raw(frame.encode()).await;
    }

    pub(crate) async fn raw(&mut self, bytes: Vec<u8>) {
        self.connected.socket.send(bytes).await.expect("sends");
    }

    /// The next frame's bytes; notices and pings are not what tests wait for.
    pub(crate) async fn bytes(&mut self) -> Option<Bytes> {
        loop {
            let bytes = self.connected.socket.receive().await.ok()?;
            if ChannelFrame::peek(&bytes).is_some() || !matches!(Frame::decode(&bytes), Ok(Frame::Notice { .. } | Frame::Ping { .. })) {
                return Some(bytes);
            }
        }
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        let bytes = self.bytes().await.expect("a frame");
        Frame::decode(&bytes).expect("not a channel's")
    }

    /// Reads on until the relay says goodbye; its code.
    pub(crate) async fn goodbye(&mut self) -> String {
        loop {
            if let Frame::Goodbye { code, .. } = self.frame().await {
                return code;
            }
        }
    }

    /// Everything sent so far has been handled.
    pub(crate) async fn settle(&mut self) {
        let token = u64::from_le_bytes(random());
        self.send(&Frame::Ping { token }).await;
        while self.frame().await != (Frame::Pong { token }) {}
    }

    /// The next frame is a channel's close with this code.
    pub(crate) async fn closed(&mut self, channel: &ChannelId) -> String {
        loop {
            let bytes = self.bytes().await.expect("a frame");
            if let Some(Ok(ChannelFrame::Close { channel: of, code })) = ChannelFrame::peek(&bytes) {
                assert_eq!(of, *channel);
                return code.to_owned();
            }
        }
    }

    /// A request, signed as one that changes something must be unless `control` says otherwise.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        self.counter += 1;
        let control = self.control(ask, self.counter);
        self.ask_with(ask, Some(control)).await
    }

    pub(crate) fn control(&self, ask: &Ask, counter: u64) -> Blob {
        let control = Control { iss: self.key.id(), transcript: self.connected.transcript, counter, body: sha256(&ask.encode()) };
        Blob(Signed::sign(&self.key, &control).into_bytes())
    }

    pub(crate) async fn ask_with(&mut self, ask: &Ask, control: Option<Blob>) -> Result<Answer, Failure> {
        let id = u64::from_le_bytes(random());
        self.send(&Frame::Request { id, body: Blob(ask.encode()), control: Maybe(control) }).await;
        loop {
            match self.frame().await {
                Frame::Reply { id: of, body, error } if of == id => {
                    return match (body.0, error.0) {
                        (Some(body), None) => Ok(Answer::decode(&body.0).expect("an answer")),
                        (None, Some(trouble)) => Err(trouble.into()),
                        other => panic!("neither answer nor error: {other:?}"),
                    };
                }
                Frame::Goodbye { message, .. } => panic!("the relay closes: {message}"),
                _ => {}
            }
        }
    }

    pub(crate) async fn open(&mut self, channel: ChannelId, node: KeyId) -> Vec<u8> {
        let frame = ChannelFrame::Open { channel, node, noise: &[9; 100] }.encode();
        self.raw(frame.clone()).await;
        frame
    }
}
