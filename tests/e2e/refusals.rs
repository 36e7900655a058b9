//! Calls that a node must not run, brought to it by a relay that lets everybody in: each is refused by the node itself,
//! with its own code, and stands in its log.

use anyhow::{Context, Result, ensure};
use outhaul_protocol::frame::ChannelFrame;
use outhaul_protocol::keys::{KeyId, SecretKey};
use outhaul_protocol::objects::Grant;
use outhaul_protocol::time::Time;
use outhaul_tests::faketime::real_time;
use outhaul_tests::outsider::{Outsider, Went, fleet_key, grant};
use std::sync::Arc;

use crate::hostile::{Scene, runtime, token};

/// A day, in seconds.
const DAY: u64 = 24 * 3600;

async fn call(scene: &Scene, who: &Outsider, fleet: KeyId, node: usize, command: &str) -> Result<Went> {
    let key: SecretKey = outhaul_home::read_secret_key(&scene.nodes[node].0.file("agent.key"))?;
    who.call(&scene.hostile, &scene.stage.url, fleet, &key, command).await
}

/// The node refuses the channel with this code, and says so.
async fn refused(scene: &mut Scene, who: &Outsider, fleet: KeyId, code: &str) -> Result<()> {
    let went = call(scene, who, fleet, 0, "node.ping").await?;
    ensure!(went.code() == code && went.receipt.is_none(), "{code} was wanted: {went:?}");
    let agent = scene.nodes[0].0.agent()?;
    agent.wait_until(code, |line| line.text().contains("opening refused") && line.text().contains(&format!("code={code}")))?;
    Ok(())
}

#[test]
fn forged_and_expired_grants_open_no_channel() -> Result<()> {
    runtime()?.block_on(async {
        let mut scene = Scene::new(&["bench-1"]).await?;
        let fleet = fleet_key(scene.stage.home.path())?;
        let (id, now) = (fleet.id(), Time(real_time()));
        let stranger = Arc::new(SecretKey::generate());
        let by_stranger = |grant| Outsider { key: stranger.clone(), chain: vec![grant] };
        // Control: what the fleet key granted is taken.
        let genuine = Outsider::granted(&fleet, |_| ());
        ensure!(call(&scene, &genuine, id, 0, "node.ping").await?.result.is_ok());
        // Somebody else's grant, without the key it is for.
        refused(&mut scene, &by_stranger(genuine.chain[0].clone()), id, "bad_key").await?;
        // A fleet of one's own; one's own signature under the fleet's name; a changed grant.
        refused(&mut scene, &by_stranger(grant(&stranger, stranger.public(), |_| ())), id, "bad_key").await?;
        let mut forged = grant(&fleet, stranger.public(), |_| ());
        *forged.0.last_mut().context("a signature")? ^= 1;
        refused(&mut scene, &by_stranger(forged), id, "bad_signature").await?;
        refused(&mut scene, &Outsider { key: stranger.clone(), chain: Vec::new() }, id, "not_granted").await?;
        // Genuine and past its time, and not yet of its time.
        let times = |iat: Time, exp: Time| move |grant: &mut Grant| (grant.iat, grant.exp) = (iat, exp);
        let past = times(Time(now.0 - 2 * DAY), Time(now.0 - DAY));
        refused(&mut scene, &Outsider::granted(&fleet, past), id, "expired").await?;
        let future = times(now.plus(2 * DAY), now.plus(3 * DAY));
        refused(&mut scene, &Outsider::granted(&fleet, future), id, "expired").await?;
        ensure!(call(&scene, &genuine, id, 0, "node.ping").await?.result.is_ok());
        Ok(())
    })
}

#[test]
fn a_call_outside_its_grant_or_for_another_node_is_refused_with_a_receipt() -> Result<()> {
    runtime()?.block_on(async {
        let mut scene = Scene::new(&["one", "two"]).await?;
        let fleet = fleet_key(scene.stage.home.path())?;
        let narrow = Outsider::granted(&fleet, |grant| (grant.commands, grant.nodes) = (vec!["gpu.*".into()], vec!["one".into()]));
        ensure!(call(&scene, &narrow, fleet.id(), 0, "node.ping").await?.result.is_ok());
        for (node, command) in [(0, "system.info"), (0, "pack.list"), (1, "gpu.list"), (1, "node.ping")] {
            let went = call(&scene, &narrow, fleet.id(), node, command).await?;
            ensure!(went.code() == "not_granted", "{command}: {went:?}");
            let receipt = went.receipt.context("a receipt")?;
            ensure!((receipt.command.as_str(), receipt.outcome.as_str()) == (command, "not_granted"), "{receipt:?}");
            let agent = scene.nodes[node].0.agent()?;
            agent.wait_until("the refusal", |line| line.text().contains("outcome=not_granted") && line.text().contains(command))?;
        }
        // An opening that the relay brings to another node than it names.
        scene.hostile.redirect(Some(scene.nodes[1].1));
        let went = call(&scene, &narrow, fleet.id(), 0, "node.ping").await?;
        ensure!(went.code() == "wrong_node", "{went:?}");
        scene.nodes[1].0.agent()?.wait_for("code=wrong_node")?;
        Ok(())
    })
}

#[test]
fn a_first_message_that_comes_again_is_refused_by_name_before_and_after_a_restart() -> Result<()> {
    runtime()?.block_on(async {
        let mut scene = Scene::new(&["bench-1"]).await?;
        let id = scene.nodes[0].1;
        let (first, tokens) = (token(), scene.all_is_well("bench-1").await?);
        scene.hostile.forget();
        scene.attempt("bench-1", &first).await?.result?;
        let opening = scene.hostile.recorded().into_iter().next().context("a first message")?;
        let Some(Ok(ChannelFrame::Open { channel, .. })) = ChannelFrame::peek(&opening) else { anyhow::bail!("no opening was recorded") };
        // While its channel is open it is passed over; once that is closed it is a message that was seen before.
        scene.hostile.inject(&id, ChannelFrame::Close { channel, code: "done" }.encode());
        scene.hostile.inject(&id, opening.clone());
        scene.nodes[0].0.agent()?.wait_for("code=replayed")?;
        // After a restart nothing opens it any more.
        scene.nodes[0].0.stop()?;
        scene.hostile.without(&id).await;
        scene.nodes[0].0.start()?;
        scene.hostile.node(&id, None).await;
        scene.hostile.inject(&id, opening);
        scene.nodes[0].0.agent()?.wait_for("code=expired")?;
        scene.only_asked(&[first.clone(), tokens])?;
        ensure!(scene.executions().get(&first) == Some(&1));
        Ok(())
    })
}
