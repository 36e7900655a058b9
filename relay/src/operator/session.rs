//! An operator's link to a relay of its fleet: where it is, whether it may be trusted, and which node is meant.
//! The lookup of a node rides with the handshake, so that a one-shot call costs no round trip for it.

use std::path::PathBuf;
use std::sync::Arc;

use outhaul_link::channel::{Caller, Channel, NodeTarget};
use outhaul_link::dial::{Identity, Target, dial};
use outhaul_link::operator::Operator;
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask, Lookup, NodeRecord, Role};
use outhaul_protocol::inner::{Inner, Serials};
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey};
use outhaul_protocol::objects::{Certificate, Node, RevocationList};
use outhaul_protocol::signed::Signed;

use super::book::{Book, Known, Seen};
use super::enrol::Enroller;
use super::room::{Fleet, Room};

/// Everything a link is made of; dials as often as it takes.
#[derive(Debug)]
pub struct Dialer {
    /// the operator's folder
    pub room: Room,
    /// its fleet
    pub fleet: Fleet,
    /// its key
    pub key: Arc<SecretKey>,
    /// its grants
    pub chain: Vec<Blob>,
    target: Target,
}

impl Dialer {
    /// Reads who the operator is and where its relay is: the flag, `operator.toml`, the relay of this home.
    pub fn new(room: Room, relay: Option<&str>, ca: Option<PathBuf>) -> Result<Dialer, Failure> {
        let (fleet, key, chain) = (room.fleet()?, room.key()?, room.chain()?);
        let target = target(&room, relay, ca)?;
        Ok(Dialer { room, fleet, key, chain, target })
    }

    /// Where it dials.
    #[must_use]
    pub fn url(&self) -> &RelayUrl {
        &self.target.url
    }

    /// Dials, and asks for nodes on the way.
    pub async fn dial(&self, lookup: Option<Lookup>) -> Result<(Operator, Vec<NodeRecord>), Failure> {
        let credential = Blob(Chain { grants: self.chain.clone() }.encode());
        let identity = Identity { role: Role::Operator, key: &self.key, credential, lookup };
        let connected = dial(&self.target, identity, |key| self.trust(key)).await.map_err(|failure| self.explain(failure))?;
        Ok(Operator::start(connected, self.key.clone()))
    }

    /// Only a relay that the fleet key names is shown anything.
    fn trust(&self, key: &PublicKey) -> Result<(), Failure> {
        let listed = self.fleet.relays.as_ref().map_or(&[][..], |relays| &relays.keys);
        if listed.contains(key) {
            return Ok(());
        }
        let id = key.id().to_string();
        let failure =
            Failure::new(Code::BadKey, format!("relay `{}` shows key {}, which is none of the fleet's relays", self.target.url, &id[..20]));
        Err(failure.hint(format!("if that is your relay's key, the fleet's owner adds it: relay use {} --relay-key {id}", self.target.url)))
    }

    /// A relay's refusal says little; an operator can often see for itself why.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        match (failure.code, self.fleet.authority(&self.chain)) {
            (Code::RelayRefused | Code::NotGranted | Code::NotPaired | Code::Expired | Code::Revoked, Err(own)) => own,
            (Code::Revoked, Ok(_)) => {
                failure.hint("whoever gave the grant took it back; a new grant needs a new key where the key itself is revoked")
            }
            (Code::NotGranted, Ok(_)) => failure.hint("is it a relay of another fleet? `relay operator show` tells this operator's"),
            _ => failure,
        }
    }

    /// The operator as channels know it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let relays = self.fleet.relays.as_ref().map_or(0, |relays| relays.serial);
        let serials = Serials { relays, revocations: self.fleet.revoked.serial() };
        Caller { key: self.key.clone(), chain: self.chain.clone(), serials }
    }

    /// The operator as certificates know it.
    #[must_use]
    pub fn enroller(&self) -> Enroller {
        Enroller { fleet: self.fleet.clone(), key: self.key.clone(), chain: self.chain.clone(), room: self.room.clone() }
    }

    /// Hands the node what it does not know yet: relays, revocations, its own newer certificate.
    pub async fn tell_newer(&self, channel: &Channel, node: &Known) {
        let theirs = channel.node();
        let mut newer = Vec::new();
        if let Some(relays) = self.fleet.relays.as_ref().filter(|relays| relays.serial > theirs.serials.relays) {
            newer.push(("relays", Blob(relays.bytes().to_vec()), Vec::new()));
        }
        if let Some(list) = self.fleet.revocations.as_ref().filter(|_| self.fleet.revoked.serial() > theirs.serials.revocations) {
            newer.push(("revocations", list.list.clone(), list.chain.clone()));
        }
        if node.node.serial > theirs.certificate
            && let Ok(certificate) = Certificate::decode(&node.certificate)
        {
            newer.push(("certificate", certificate.node, certificate.chain));
        }
        for (kind, signed, chain) in newer {
            // A channel that is over says so to the call on it.
            let _ = channel.notify(kind, signed, chain).await;
        }
    }

    /// Takes what the node knew better. It is verified like everything else; a damaged one is the node's trouble,
    /// not the call's.
    pub fn take_newer(&self, channel: &Channel) {
        for notice in channel.take_notices() {
            let Inner::Notice { kind, signed, chain } = notice else { continue };
            let taken = match kind.as_str() {
                "relays" => self.room.take_relays(&self.fleet, &signed.0).map(|_| ()),
                "revocations" => self.room.take_revocations(&self.fleet, &RevocationList { list: signed, chain }).map(|_| ()),
                _ => Ok(()),
            };
            if let Err(failure) = taken {
                tracing::warn!(kind, %failure, "the node sent a notice that does not verify");
            }
        }
    }
}

/// Where a relay is, by the contract's order.
pub(crate) fn target(room: &Room, relay: Option<&str>, ca: Option<PathBuf>) -> Result<Target, Failure> {
    let config = room.config()?;
    let url = match relay.map(str::to_owned).or(config.relay) {
        Some(url) => url,
        None => room.own_relay()?.ok_or_else(|| {
            Failure::new(Code::RelayUnreachable, "no relay is named and none runs from this home")
                .hint("start `relay serve`, or name one with `--relay URL` or `relay use URL --relay-key FP`")
        })?,
    };
    Ok(Target { url: RelayUrl::parse(&url)?, roots: Roots { ca: ca.or(config.ca), floor: None }, allow_plaintext: config.allow_plaintext })
}

/// The id a record is sorted by, unproven.
fn claimed_id(record: &NodeRecord) -> Option<KeyId> {
    let certificate = Certificate::decode(&record.certificate.0).ok()?;
    Signed::<Node>::from_bytes(&certificate.node.0).ok().map(|node| node.unverified().node.id())
}

/// A link that is up, with the book of nodes beside it.
#[derive(Debug)]
pub struct Session {
    /// how it was dialed, and is again
    pub dialer: Arc<Dialer>,
    /// the link
    pub link: Operator,
    /// the nodes
    pub book: Book,
}

impl Session {
    /// Dials.
    pub async fn open(dialer: Arc<Dialer>) -> Result<Session, Failure> {
        let book = Book::open(&dialer.room, &dialer.fleet)?;
        let (link, _) = dialer.dial(None).await?;
        Ok(Session { dialer, link, book })
    }

    /// Dials with a node in mind.
    pub async fn with_node(dialer: Arc<Dialer>, text: &str) -> Result<(Session, Seen), Failure> {
        let book = Book::open(&dialer.room, &dialer.fleet)?;
        let lookup = lookup(&book, text)?;
        let (link, records) = dialer.dial(Some(lookup)).await?;
        let mut session = Session { dialer, link, book };
        let seen = session.choose(text, records).await?;
        Ok((session, seen))
    }

    /// Which node is meant, newest.
    pub async fn node(&mut self, text: &str) -> Result<Seen, Failure> {
        let records = self.ask(lookup(&self.book, text)?).await?;
        self.choose(text, records).await
    }

    /// All nodes of the fleet, and what does not verify among what the relay told.
    pub async fn nodes(&mut self) -> Result<(Vec<Seen>, Vec<Failure>), Failure> {
        let mut records = self.ask(Lookup::default()).await?;
        let (mut seen, mut bad) = (Vec::with_capacity(records.len()), Vec::new());
        let mut last = None;
        loop {
            for record in &records {
                match self.book.learn(record) {
                    Ok(node) => seen.push(node),
                    Err(failure) => bad.push(failure),
                }
            }
            // A frame holds some hundreds; ids that do not rise would be a relay that leads in circles.
            let Some(after) = records.last().and_then(claimed_id).filter(|id| last.is_none_or(|last| *id > last)) else { break };
            last = Some(after);
            records = match self.link.ask(Ask::NodesAfter { lookup: Lookup::default(), after }).await? {
                Answer::Nodes { nodes } => nodes,
                _ => return Err(unexpected("nodes")),
            };
        }
        seen.sort_by(|one, other| (&one.known.node.name, one.known.id()).cmp(&(&other.known.node.name, other.known.id())));
        Ok((seen, bad))
    }

    async fn ask(&self, lookup: Lookup) -> Result<Vec<NodeRecord>, Failure> {
        match self.link.ask(Ask::Nodes { lookup }).await? {
            Answer::Nodes { nodes } => Ok(nodes),
            _ => Err(unexpected("nodes")),
        }
    }

    /// The book has the last word on who is meant. When it knew another node under this name before, or the relay
    /// has no such node any more, the relay is asked once more by name: a node may have been replaced since.
    async fn choose(&mut self, text: &str, records: Vec<NodeRecord>) -> Result<Seen, Failure> {
        let (mut seen, mut bad) = self.learn(&records);
        let mut chosen = self.book.resolve(text)?;
        let told = |seen: &[Seen], id| seen.iter().any(|node: &Seen| node.known.id() == id);
        if chosen.is_none_or(|id| !told(&seen, id)) && bad.is_none() {
            let again = self.ask(Lookup { id: None, name: Some(text.to_owned()) }).await?;
            let (more, worse) = self.learn(&again);
            seen.extend(more);
            (chosen, bad) = (self.book.resolve(text)?, worse);
        }
        let found = chosen.and_then(|id| seen.iter().position(|node| node.known.id() == id));
        if let Some(at) = found {
            return Ok(seen.swap_remove(at));
        }
        if let Some(failure) = bad {
            return Err(failure);
        }
        match chosen.map(|id| self.book.known(&id)).transpose()?.flatten() {
            Some(known) => Ok(Seen { known, status: "offline".to_owned(), connected_at: 0, last_seen: 0, heartbeat: None, prekey: None }),
            None => Err(self.book.unknown(text)),
        }
    }

    /// What verifies of what the relay told, and why the first that does not does not.
    fn learn(&mut self, records: &[NodeRecord]) -> (Vec<Seen>, Option<Failure>) {
        let (mut seen, mut bad) = (Vec::new(), None);
        for record in records {
            match self.book.learn(record) {
                Ok(node) => seen.push(node),
                Err(failure) => bad = bad.or(Some(failure)),
            }
        }
        (seen, bad)
    }

    /// The node as a channel's other end, if it can be reached.
    pub fn target(&self, seen: &Seen) -> Result<NodeTarget, Failure> {
        target_of(&self.dialer, seen)
    }

    /// Has the relay forget a node; one it does not know is forgotten already.
    pub async fn remove(&self, node: KeyId) -> Result<(), Failure> {
        match self.tell(Ask::RemoveNode { node }).await {
            Err(failure) if failure.code == Code::UnknownNode => Ok(()),
            done => done,
        }
    }

    /// Tells the relay something that needs no answer but that it is done.
    pub async fn tell(&self, ask: Ask) -> Result<(), Failure> {
        match self.link.ask(ask).await? {
            Answer::Done {} => Ok(()),
            _ => Err(unexpected("a confirmation")),
        }
    }
}

/// See [`Session::target`].
pub(crate) fn target_of(dialer: &Dialer, seen: &Seen) -> Result<NodeTarget, Failure> {
    match &seen.prekey {
        Some(prekey) => Ok(NodeTarget { fleet: dialer.fleet.key.id(), key: seen.known.node.node, prekey: prekey.clone() }),
        None => {
            let failure = Failure::new(Code::NodeOffline, format!("`{}` is not connected", seen.known.node.name));
            Err(failure.hint("is `agent run` running there? `relay nodes` shows when it was last seen"))
        }
    }
}

/// What to ask with the handshake: the node the book means, else whatever the relay has by that name.
fn lookup(book: &Book, text: &str) -> Result<Lookup, Failure> {
    let id = book.resolve(text)?.or_else(|| text.parse().ok());
    Ok(match id {
        Some(id) => Lookup { id: Some(id), name: None },
        None => Lookup { id: None, name: Some(text.to_owned()) },
    })
}

pub(crate) fn unexpected(wanted: &str) -> Failure {
    Failure::new(Code::RelayRefused, format!("the relay did not answer with {wanted}"))
        .hint("relay and command line may be of different versions")
}
