//! An operator made by hand: any key, any chain of grants, over a relay that asks for neither. What a node makes of that
//! is the node's own doing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use outhaul_link::channel::{CallSpec, Caller, NodeTarget};
use outhaul_link::dial::{self, Identity, Target};
use outhaul_link::operator::Operator;
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::Failure;
use outhaul_protocol::frame::Role;
use outhaul_protocol::inner::Serials;
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey, random};
use outhaul_protocol::objects::{Grant, Prekey, Receipt, Rights};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::Time;
use outhaul_protocol::value::Value;

use crate::faketime::real_time;
use crate::hostile::Hostile;

/// Seconds a grant made here lasts.
const HOUR: u64 = 3600;

/// The operator.
#[derive(Debug)]
pub struct Outsider {
    /// signs its openings and calls
    pub key: Arc<SecretKey>,
    /// what it shows as its grants
    pub chain: Vec<Blob>,
}

/// How a call of its went.
#[derive(Debug)]
pub struct Went {
    /// the result, or why not
    pub result: Result<Value, Failure>,
    /// the node's word on it, when it took the channel
    pub receipt: Option<Verified<Receipt>>,
}

impl Went {
    /// The code it failed with.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.result.as_ref().err().map_or("done", |failure| failure.code.as_str())
    }
}

/// The fleet's key in a home where `relay serve` made it.
pub fn fleet_key(home: &Path) -> Result<SecretKey> {
    Ok(outhaul_home::read_secret_key(&home.join("operator/fleet.key"))?)
}

/// A grant for everything, changed.
#[must_use]
pub fn grant(fleet: &SecretKey, holder: PublicKey, change: impl FnOnce(&mut Grant)) -> Blob {
    let now = Time(real_time());
    let mut grant = Grant {
        iss: fleet.id(),
        aud: fleet.id(),
        exp: now.plus(HOUR),
        iat: now,
        cti: random(),
        holder,
        commands: vec!["*".into()],
        nodes: vec!["*".into()],
        evidence_channel: false,
        rights: Rights::default(),
        delegate: false,
        holder_kind: None,
    };
    change(&mut grant);
    Blob(Signed::sign(fleet, &grant).into_bytes())
}

impl Outsider {
    /// Somebody to whom the fleet granted everything, changed.
    #[must_use]
    pub fn granted(fleet: &SecretKey, change: impl FnOnce(&mut Grant)) -> Self {
        let key = Arc::new(SecretKey::generate());
        let chain = vec![grant(fleet, key.public(), change)];
        Outsider { key, chain }
    }

    /// Calls a command of a node without parameters, through the hostile relay at this address.
    pub async fn call(&self, hostile: &Hostile, url: &str, fleet: KeyId, node: &SecretKey, command: &str) -> Result<Went> {
        let target = Target { url: RelayUrl::parse(url)?, roots: Roots::default(), allow_plaintext: false };
        let identity = Identity { role: Role::Operator, key: &self.key, credential: Blob(Vec::new()), lookup: None };
        let connected = dial::dial(&target, identity, |_| Ok(())).await?;
        let (link, _) = Operator::start(connected, self.key.clone());
        let prekey = hostile.node(&node.id(), None).await.prekey.context("a prekey")?;
        let prekey = Signed::<Prekey>::from_bytes(&prekey.0)?.verify(&node.public())?;
        let target = NodeTarget { fleet, key: node.public(), prekey };
        let serials = Serials { relays: 0, revocations: 0 };
        let caller = Caller { key: self.key.clone(), chain: self.chain.clone(), serials };
        let spec = CallSpec::new(command, Value::Map(Vec::new()));
        match link.open(&caller, &target, Some(&spec), Time(real_time())).await {
            Err(failure) => Ok(Went { result: Err(failure), receipt: None }),
            Ok((_channel, handle)) => {
                let outcome = handle.context("a first call")?.finish(|_, _| ()).await?;
                Ok(Went { result: outcome.result, receipt: Some(outcome.receipt) })
            }
        }
    }
}
