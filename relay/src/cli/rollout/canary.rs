//! `--canary`: some nodes get a version first, by a document of their own; when it does not go well there, another one gives
//! them back what they had.

use std::time::Duration;

use outhaul_link::channel::CallSpec;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::objects::{Release, Target};
use outhaul_protocol::value::Value;

use super::super::many::{Running, State, each};
use super::super::output::failure_text;
use super::super::pack::{INSTALL, again};
use super::{Rollout, shown};
use crate::operator::{Drive, Seen};

/// How long a health command may take.
const HEALTH: Duration = Duration::from_secs(30);
/// How long nodes may take to go back.
const BACK: Duration = Duration::from_secs(60);

/// Some first; the rest when it went well there.
pub(super) async fn first(
    mut rollout: Rollout<'_>,
    stated: Vec<(Seen, State)>,
    release: Release,
    share: u8,
    health: Option<&str>,
) -> Result<u8, Failure> {
    let chosen = choose(stated, rollout.nodes.len(), share, release.component);
    if chosen.is_empty() {
        let failure = Failure::new(Code::NodeOffline, format!("no node of {} is connected to try it on", shown(&rollout.terms)));
        return Err(failure.hint("deploy it without --canary, or when some of them are there"));
    }
    let base = rollout.targets();
    let (context, names) = (rollout.context, chosen.iter().map(|(seen, _)| seen.known.node.name.as_str()).collect::<Vec<_>>().join(", "));
    context.out.talk(&format!("first on {} of {} nodes: {names}", chosen.len(), rollout.nodes.len()));
    let ids: Vec<String> = chosen.iter().map(|(seen, _)| seen.known.id().to_string()).collect();
    let first = Target { nodes: ids, release: Some(release.clone()), before: None };
    let order = rollout.publish(std::iter::once(first).chain(base.iter().cloned()).collect()).await?;
    let nodes: Vec<Seen> = chosen.iter().map(|(seen, _)| seen.clone()).collect();
    let mut results = rollout.follow(&nodes, &order, INSTALL).await;
    if let Some(command) = health.filter(|_| results.iter().all(Result::is_ok)) {
        for (result, answer) in results.iter_mut().zip(healthy(&rollout, &nodes, command).await) {
            if let Err(failure) = answer {
                *result = Err(failure);
            }
        }
    }
    let Some(failure) = results.iter().find_map(|result| result.as_ref().err()).cloned() else {
        // Built on what was there before: the canaries are among those who are meant.
        if let Some(order) = &mut rollout.known.order {
            order.said.targets = base;
        }
        return rollout.finish(Some(release)).await;
    };
    take_back(&mut rollout, &chosen, base).await?;
    rollout.results = nodes.into_iter().zip(results).collect();
    let text = format!("stopped after {} of {} nodes, and taken back there: {}", chosen.len(), rollout.nodes.len(), failure.message);
    Err(Failure { message: text, ..failure })
}

/// Connected nodes in an order that is another one for each component, as many as the share says, at least one.
fn choose(mut stated: Vec<(Seen, State)>, of: usize, share: u8, component: Digest) -> Vec<(Seen, State)> {
    let rank = |seen: &Seen| sha256(&[&component.0[..], &seen.known.id().0].concat()).0;
    stated.sort_by_key(|(seen, _)| rank(seen));
    stated.truncate((of * usize::from(share)).div_ceil(100).max(1));
    stated
}

/// Whether a command answers on each of these nodes.
async fn healthy(rollout: &Rollout<'_>, nodes: &[Seen], command: &str) -> Vec<Result<(), Failure>> {
    let deadline = rollout.context.global.timeout.unwrap_or(HEALTH);
    let (session, context) = (&rollout.session, rollout.context);
    let spec = CallSpec { deadline: Some(deadline), ..CallSpec::new(command.replace('-', "_"), Value::Map(Vec::new())) };
    let ask = |seen: Seen| {
        let (session, spec) = (again(session)?, spec.clone());
        Ok(async move {
            let work = async { Drive::start(session, &seen, &spec).await?.finish(|_, _| ()).await?.result.map(drop) };
            let late = || Err(Failure::new(Code::Deadline, "the health command did not answer"));
            tokio::time::timeout(deadline + BACK, work).await.unwrap_or_else(|_| late())
        })
    };
    let told = |seen: &Seen, result: &Result<(), Failure>| match result {
        Ok(()) => context.out.talk(&format!("{}: {command} answers", seen.known.node.name)),
        Err(failure) => context.out.talk(&format!("{}: {command}: {}", seen.known.node.name, failure_text(failure, None))),
    };
    each(nodes, ask, told).await
}

/// A document that gives canaries back what they had before.
async fn take_back(rollout: &mut Rollout<'_>, chosen: &[(Seen, State)], base: Vec<Target>) -> Result<(), Failure> {
    let mut back: Vec<Target> = Vec::new();
    for (seen, state) in chosen {
        let release = state.running.as_ref().and_then(had);
        let id = seen.known.id().to_string();
        match back.iter_mut().find(|target| target.release == release) {
            Some(target) => target.nodes.push(id),
            None => back.push(Target { nodes: vec![id], release, before: None }),
        }
    }
    let order = rollout.publish(back.into_iter().chain(base).collect()).await?;
    let nodes: Vec<Seen> = chosen.iter().map(|(seen, _)| seen.clone()).collect();
    rollout.follow(&nodes, &order, BACK).await;
    Ok(())
}

/// What a node ran before, to go back to; nothing where that came with the agent.
fn had(running: &Running) -> Option<Release> {
    let signature = running.signature.clone()?;
    let component = running.digest.parse().ok()?;
    Some(Release { version: running.version.clone(), component, signature: Blob(signature), rotations: Vec::new(), downgrade: true })
}

#[cfg(test)]
mod tests {
    use super::super::super::nodes::tests::seen;
    use super::*;

    #[test]
    fn canaries_are_a_share_of_all_and_at_least_one() {
        let seen = seen();
        let stated = |count: usize| (0..count).map(|_| (seen.clone(), State::default())).collect::<Vec<_>>();
        let chosen = |here, of, share| choose(stated(here), of, share, Digest([1; 32])).len();
        assert_eq!((chosen(10, 10, 10), chosen(10, 10, 11), chosen(10, 10, 1), chosen(3, 10, 50)), (1, 2, 1, 3));
        assert_eq!((chosen(0, 10, 50), chosen(10, 10, 100)), (0, 10));
    }
}
