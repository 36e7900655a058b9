//! What groups measure on: a real relay with its operator, and links to it in the bare, with real keys and certificates
//! but no agent or channel behind them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use outhaul_home::Home;
use outhaul_link::channel::Channel;
use outhaul_link::dial::{Connected, Identity, Target, dial};
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::credential::Chain;
use outhaul_protocol::frame::Role;
use outhaul_protocol::keys::{KeyId, SecretKey, X25519Secret};
use outhaul_protocol::objects::Node as NodeCertificate;
use outhaul_relay::operator::{Dialer, Enroller, Room, Session, now};
use outhaul_tests::stage::{Stage, pack};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long the certificates made here last.
const CERTIFICATE_SECS: u64 = 3600;

/// A relay and who may use it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) ends: Ends,
}

/// Everything that links are made of.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) dialer: Arc<Dialer>,
    enroller: Enroller,
    target: Target,
}

/// A node's key with its certificate.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: SecretKey,
    pub(crate) certificate: Vec<u8>,
}

impl Member {
    pub(crate) fn id(&self) -> KeyId {
        self.key.id()
    }
}

impl World {
    /// A relay with the one-machine set-up.
    pub(crate) fn start() -> Result<Self> {
        let stage = Stage::start()?;
        let ends = Ends::of(stage.home.path(), &stage.url)?;
        Ok(World { stage, ends })
    }

    /// Ships a pack of the tree to a node by the command line.
    pub(crate) fn deploy(&self, name: &str, node: &str) -> Result<()> {
        let path = pack(name);
        self.stage.run(&["pack", "deploy", &path.to_string_lossy(), node])?.ok()?;
        Ok(())
    }
}

impl Ends {
    /// The operator of a home, at a relay.
    pub(crate) fn of(home: &Path, url: &str) -> Result<Self> {
        let home = Home::find(Some(home.to_owned()))?;
        let dialer = Arc::new(Dialer::new(Room::of(&home), Some(url), None)?);
        let target = Target { url: RelayUrl::parse(url)?, roots: Roots::default(), allow_plaintext: false };
        Ok(Ends { enroller: dialer.enroller(), dialer, target })
    }

    /// Certifies a new node.
    pub(crate) fn enrol(&self, name: &str) -> Result<Member> {
        let key = SecretKey::generate();
        let certificate = self.enroller.sign(&NodeCertificate {
            iss: self.enroller.key.id(),
            aud: self.fleet(),
            exp: now().plus(CERTIFICATE_SECS),
            iat: now(),
            node: key.public(),
            mailbox: X25519Secret::generate().public(),
            name: name.to_owned(),
            labels: std::collections::BTreeMap::new(),
            serial: 1,
            replaces: None,
        })?;
        Ok(Member { key, certificate })
    }

    pub(crate) fn fleet(&self) -> KeyId {
        self.dialer.fleet.key.id()
    }

    /// A node's link with nothing behind it.
    pub(crate) async fn node(&self, member: &Member) -> Result<Connected> {
        let identity = Identity { role: Role::Node, key: &member.key, credential: Blob(member.certificate.clone()), lookup: None };
        Ok(dial(&self.target, identity, |_| Ok(())).await?)
    }

    /// An operator's link with nothing behind it.
    pub(crate) async fn operator(&self) -> Result<Connected> {
        let credential = Blob(Chain { grants: self.dialer.chain.clone() }.encode());
        let identity = Identity { role: Role::Operator, key: &self.dialer.key, credential, lookup: None };
        Ok(dial(&self.target, identity, |_| Ok(())).await?)
    }

    /// A link of the command line's kind with a sealed channel to a node.
    pub(crate) async fn channel(&self, node: &str) -> Result<(Session, Channel)> {
        let (session, seen) = Session::with_node(self.dialer.clone(), node).await?;
        let (channel, _) = session.link.open(&self.dialer.caller(), &session.target(&seen)?, None, now()).await?;
        Ok((session, channel))
    }
}

/// Ten thousand links are ten thousand sockets, here and in the relay, which inherits this limit.
pub(crate) fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    ensure!(setrlimit(Resource::Nofile, raised).is_ok(), "the limit of open files cannot be raised");
    Ok(())
}
