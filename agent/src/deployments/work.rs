//! Acts on documents, one after the other, for as long as a link lives: what is to be fetched comes over it. The way in is
//! the same as a signed call's; a document only names what a call would have.

use std::sync::Arc;
use std::time::Instant;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::objects::{Release, Rotation};

use super::{Aim, Job, Judge};
use crate::link::Link;
use crate::native;
use crate::packs::Shipment;

/// Follows documents until it is dropped.
pub(crate) async fn work(link: Arc<Link>) {
    let deployments = &link.node.deployments;
    // Another link, perhaps another relay: it may have what the last one lacked.
    deployments.retry();
    loop {
        tend(&link).await;
        tokio::select! {
            () = deployments.woken() => {}
            () = tokio::time::sleep(deployments.rest(Instant::now())) => {}
        }
    }
}

/// Judges what was offered and does what is due.
async fn tend(link: &Arc<Link>) {
    let (node, deployments) = (&link.node, &link.node.deployments);
    loop {
        let job = {
            let clock = node.reading();
            let membership = node.membership();
            let judge = Judge { fleet: membership.fleet(), node: membership.labels(), clock, revoked: membership.revoked() };
            deployments.take_offered(&judge);
            deployments.next(judge.node, Instant::now())
        };
        let Some(job) = job else { return };
        let outcome = act(link, &job).await;
        if outcome.is_ok() && job.aim != Aim::Keep {
            // Whoever hears that it is done finds what answers now: the announce goes ahead of that word.
            link.announce();
        }
        deployments.settle(&job, outcome, node.reading().now);
    }
}

/// Does what one document asks. It is proven anew: its chain must stand when it is applied, not only when it came.
async fn act(link: &Arc<Link>, job: &Job) -> Result<(), Failure> {
    let node = &link.node;
    let release = {
        let clock = node.reading();
        let membership = node.membership();
        let judge = Judge { fleet: membership.fleet(), node: membership.labels(), clock, revoked: membership.revoked() };
        judge.prove(&job.document)?.target_of(judge.node).and_then(|target| target.release.clone())
    };
    match job.aim {
        Aim::Keep => Ok(()),
        Aim::Out if node.packs.has(&job.name).await => node.packs.remove(&job.name).await.map(drop),
        Aim::Out => Ok(()),
        Aim::Version(component) => match release.filter(|release| release.component == component) {
            Some(release) => install(link, &job.name, &release).await,
            None => Err(Failure::new(Code::Internal, "the node's labels changed while a deployment was followed")),
        },
    }
}

/// What is here already is activated, what is not is fetched.
async fn install(link: &Arc<Link>, name: &str, release: &Release) -> Result<(), Failure> {
    let node = &link.node;
    let malformed = |error| Failure::new(Code::BadSignature, format!("a publisher's rotation is malformed: {error}"));
    let rotation = |bytes: &Blob| Rotation::decode(&bytes.0).map_err(malformed);
    let rotations = release.rotations.iter().map(rotation).collect::<Result<Vec<_>, _>>()?;
    node.follow_rotations(&rotations)?;
    let shipment = Shipment { signature: Some(release.signature.0.clone()), downgrade: release.downgrade };
    match node.packs.resume(name, release.component, &shipment, &node.trust()).await? {
        // What was revoked meanwhile must not have slipped in.
        Some(_) => node.review_trust(),
        None => drop(native::ship(link, release.component, &shipment, &[], native::Progress(None)).await?),
    }
    Ok(())
}
