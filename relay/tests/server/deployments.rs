//! Deployments at the relay: who may put one, who is handed which, and what a restart or an old copy changes.

use std::sync::Arc;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{Answer, Ask, Frame};
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::objects::{Deployment, DeploymentDocument, Rights, Target};
use outhaul_protocol::signed::Signed;
use outhaul_relay::operator::now;

use crate::world::{Peer, World};

impl World {
    /// Takes a pack out everywhere, signed by this operator.
    fn deployment(&self, by: &SecretKey, chain: &[Blob], name: &str, serial: u64) -> DeploymentDocument {
        let said = Deployment {
            iss: by.id(),
            aud: self.fleet.id(),
            iat: now(),
            name: name.into(),
            serial,
            previous: None,
            targets: vec![Target { nodes: vec!["*".into()], release: None, before: None }],
        };
        DeploymentDocument { document: Blob(Signed::sign(by, &said).into_bytes()), chain: chain.to_vec() }
    }

    fn own(&self, name: &str, serial: u64) -> DeploymentDocument {
        self.deployment(&self.key, &self.chain, name, serial)
    }
}

fn put(document: &DeploymentDocument) -> Ask {
    Ask::PutNotice { kind: "deployment".into(), signed: document.document.clone(), chain: document.chain.clone() }
}

impl Peer {
    /// The next deployment that the relay hands out.
    async fn handed(&mut self) -> DeploymentDocument {
        loop {
            let bytes = self.connected.socket.receive().await.expect("a frame");
            if let Ok(Frame::Notice { signed, kind, chain }) = Frame::decode(&bytes)
                && kind == "deployment"
            {
                return DeploymentDocument { document: signed, chain };
            }
        }
    }

    async fn deployments(&mut self) -> Vec<DeploymentDocument> {
        let Ok(Answer::Deployments { documents }) = self.ask(&Ask::DeploymentsAfter { after: String::new() }).await else {
            panic!("deployments")
        };
        documents
    }
}

#[tokio::test]
async fn nodes_that_are_here_hear_of_a_deployment_at_once_and_others_when_they_come() {
    let world = World::new().await;
    let (one, two) = (Arc::new(SecretKey::generate()), Arc::new(SecretKey::generate()));
    let mut here = world.node(&one, "bench-1").await;
    here.settle().await;
    let mut owner = world.owner().await;
    let (first, second) = (world.own("thermal", 1), world.own("thermal", 2));
    assert_eq!(owner.ask(&put(&first)).await, Ok(Answer::Done {}));
    assert_eq!(here.handed().await, first);
    assert_eq!(owner.ask(&put(&first)).await, Ok(Answer::Done {}), "the same again is no news");
    assert_eq!(owner.ask(&put(&second)).await, Ok(Answer::Done {}));
    assert_eq!(here.handed().await, second);
    assert_eq!(owner.ask(&put(&first)).await.expect_err("older").code, Code::Replayed);
    let mut later = world.node(&two, "bench-2").await;
    assert_eq!(later.handed().await, second);
    assert_eq!(owner.deployments().await, vec![second.clone()]);
    drop((here, later));
    let world = world.restart().await;
    let mut again = world.node(&one, "bench-1").await;
    assert_eq!(again.handed().await, second, "the newest is kept");
}

#[tokio::test]
async fn obvious_rubbish_is_refused_whoever_brings_it() {
    let (world, stranger) = (World::new().await, World::new().await);
    let mut owner = world.owner().await;
    let (weak, chain) = world.operator_with(Rights::default());
    let mut cut = world.own("thermal", 1);
    cut.document.0.pop();
    let mut edited = world.own("thermal", 1);
    let at = edited.document.0.len() / 2;
    edited.document.0[at] ^= 1;
    for (what, document, code) in [
        ("another fleet's", stranger.own("thermal", 1), Code::BadKey),
        ("without the right", world.deployment(&weak, &chain, "thermal", 1), Code::NotGranted),
        ("under another's chain", world.deployment(&weak, &world.chain, "thermal", 1), Code::BadKey),
        ("without a chain", DeploymentDocument { chain: vec![], ..world.own("thermal", 1) }, Code::NotGranted),
        ("cut", cut, Code::BadSignature),
        ("edited", edited, Code::BadSignature),
        ("of the last serial", world.own("thermal", u64::MAX), Code::BadSignature),
    ] {
        let failure = owner.ask(&put(&document)).await.expect_err(what);
        assert!(failure.code == code || (what == "edited" && failure.code == Code::BadKey), "{what}: {failure:?}");
    }
    assert!(owner.deployments().await.is_empty());
    // One that looks only may ask, and what it brings is judged by what it brings.
    let mut looker = Peer::operator(&world, &weak, &chain).await;
    assert_eq!(looker.ask(&put(&world.own("thermal", 1))).await, Ok(Answer::Done {}));
    assert_eq!(looker.deployments().await.len(), 1);
}

#[tokio::test]
async fn a_relay_from_a_backup_hands_out_what_it_knew_and_takes_what_is_newer() {
    let world = World::new().await;
    let mut owner = world.owner().await;
    let (first, second) = (world.own("thermal", 1), world.own("thermal", 2));
    assert_eq!(owner.ask(&put(&first)).await, Ok(Answer::Done {}));
    drop(owner);
    let world = world.restart().await;
    let file = world.home.join("relay/relay.db");
    let backup = std::fs::read(&file).expect("checkpointed");
    let mut owner = world.owner().await;
    assert_eq!(owner.ask(&put(&second)).await, Ok(Answer::Done {}));
    drop(owner);
    let world = world.restart_with(|| std::fs::write(&file, backup).expect("restored")).await;
    let mut node = world.node(&Arc::new(SecretKey::generate()), "bench-1").await;
    assert_eq!(node.handed().await, first, "it knows no better; nodes do");
    let mut owner = world.owner().await;
    assert_eq!(owner.ask(&put(&second)).await, Ok(Answer::Done {}));
    assert_eq!(node.handed().await, second);
}
