//! The promise held against a relay that means harm: with the relay's genuine key, but without a fleet or operator key,
//! it can delay and lose, and nothing else. Executions are counted where they happen, in a file on the machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use outhaul_home::Home;
use outhaul_link::channel::{CallSpec, Outcome};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{ChannelFrame, NodeRecord};
use outhaul_protocol::keys::{KeyId, SecretKey, random};
use outhaul_protocol::value::Value;
use outhaul_relay::operator::{Dialer, Drive, Room, Session, now, packs_of};
use outhaul_tests::hostile::{Hostile, Mischief};
use outhaul_tests::stage::{Node, Stage};

/// How long a caller waits here for an answer that may never come.
const ANSWER: Duration = Duration::from_millis(1500);

/// Nodes that were paired over an honest relay, which then turned.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) nodes: Vec<(Node, KeyId)>,
    pub(crate) hostile: Hostile,
    proof: PathBuf,
}

impl Scene {
    pub(crate) async fn new(names: &[&str]) -> Result<Self> {
        let mut stage = Stage::start()?;
        let proof = stage.home.path().join("proof");
        let mut nodes = Vec::new();
        for name in names {
            let node = stage.paired(name)?;
            node.run(&["allow", "system", "process", "sh"])?.ok()?;
            let key: SecretKey = outhaul_home::read_secret_key(&node.file("agent.key"))?;
            nodes.push((node, key.id()));
        }
        // The operator has met them once: that is what an older announce is held against.
        let listen = stage.listen();
        stage.relay.take().context("runs")?.stop()?;
        let key = outhaul_home::read_secret_key(&stage.home.path().join("relay/relay.key"))?;
        let hostile = Hostile::start(&listen, key).await?;
        for (node, id) in &mut nodes {
            node.start()?;
            hostile.node(id, None).await;
        }
        Ok(Scene { stage, nodes, hostile, proof })
    }

    fn dialer(&self) -> Result<Arc<Dialer>> {
        let home = Home::find(Some(self.stage.home.path().to_owned()))?;
        Ok(Arc::new(Dialer::new(Room::of(&home), Some(&self.stage.url), None)?))
    }

    /// A call that leaves its token in the proof file when it runs.
    fn spec(&self, token: &str) -> CallSpec {
        let script = format!("echo {token} >> {}; echo answer-{token}", self.proof.display());
        let argv = ["sh", "-c", &script].map(|text| Value::Text(text.to_owned()));
        CallSpec { deadline: Some(ANSWER), ..CallSpec::new("system.run", Value::Map(vec![("argv".into(), Value::Array(argv.to_vec()))])) }
    }

    pub(crate) async fn attempt(&self, name: &str, token: &str) -> Result<Outcome> {
        let spec = self.spec(token);
        let work = async {
            let (session, seen) = Session::with_node(self.dialer()?, name).await?;
            Ok::<Outcome, anyhow::Error>(Drive::start(session, &seen, &spec).await?.finish(|_, _| ()).await?)
        };
        tokio::time::timeout(ANSWER * 2, work).await.context("no answer")?
    }

    /// How often each token was left.
    pub(crate) fn executions(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in std::fs::read_to_string(&self.proof).unwrap_or_default().lines() {
            *counts.entry(line.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Nothing ran that nobody asked for, and nothing twice.
    pub(crate) fn only_asked(&self, tokens: &[String]) -> Result<()> {
        for (token, count) in self.executions() {
            ensure!(tokens.contains(&token), "{token} ran and nobody asked for it");
            ensure!(count == 1, "{token} ran {count} times");
        }
        Ok(())
    }

    /// The relay is honest again, and the node still answers.
    pub(crate) async fn all_is_well(&self, name: &str) -> Result<String> {
        self.hostile.mischief(Mischief::None);
        self.hostile.redirect(None);
        self.hostile.pretend(None);
        let token = token();
        let mut last = None;
        // Openings beyond twenty a second are turned away; an honest caller tries again.
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            match self.attempt(name, &token).await {
                Ok(outcome) if outcome.result.is_ok() => return Ok(token),
                Ok(outcome) => last = Some(format!("{:?}", outcome.result)),
                Err(error) => last = Some(format!("{error:#}")),
            }
        }
        anyhow::bail!("the node does not answer any more: {last:?}")
    }
}

pub(crate) fn token() -> String {
    hex::encode(random::<12>())
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

#[test]
fn whatever_it_does_to_frames_nothing_runs_twice_or_unasked_and_nothing_is_read() -> Result<()> {
    runtime()?.block_on(async {
        let scene = Scene::new(&["bench-1"]).await?;
        let mut tokens = vec![scene.all_is_well("bench-1").await?];
        let before = scene.executions().len();
        for mischief in [Mischief::FlipOpen, Mischief::Cut, Mischief::PoseAsNode] {
            // First messages that were touched run nothing at all.
            scene.hostile.mischief(mischief);
            let mut round = Vec::new();
            for _ in 0..6 {
                let token = token();
                let answer = scene.attempt("bench-1", &token).await;
                ensure!(answer.is_err(), "{mischief:?} was believed: {answer:?}");
                round.push(token);
            }
            ensure!(scene.executions().len() == before, "{mischief:?} made something run");
        }
        for mischief in
            [Mischief::Flip, Mischief::Duplicate, Mischief::Reorder, Mischief::Drop, Mischief::WithholdAnswers, Mischief::CrossChannels]
        {
            scene.hostile.mischief(mischief);
            let round: Vec<String> = (0..8).map(|_| token()).collect();
            let attempts = round.iter().map(|token| scene.attempt("bench-1", token));
            let answers = join_all(attempts).await;
            tokens.extend(round.iter().cloned());
            for (token, answer) in round.iter().zip(&answers) {
                // An answer that is believed is the true one.
                if let Ok(Outcome { result: Ok(_), .. }) = answer {
                    ensure!(scene.executions().contains_key(token), "{mischief:?}: {token} is said to have run");
                }
            }
        }
        tokens.push(scene.all_is_well("bench-1").await?);
        scene.only_asked(&tokens)?;
        ensure!(scene.hostile.seen_bytes() > 10_000);
        for token in &tokens {
            ensure!(!scene.hostile.saw(token.as_bytes()), "a call or an answer was read");
        }
        ensure!(!scene.hostile.saw(b"system.run") && !scene.hostile.saw(scene.proof.to_str().context("UTF-8")?.as_bytes()));
        // The search finds what is there: announces travel in the clear.
        ensure!(scene.hostile.saw(b"hostname"));
        Ok(())
    })
}

#[test]
fn recorded_frames_run_nothing_again_not_later_not_changed_not_after_a_restart() -> Result<()> {
    runtime()?.block_on(async {
        let mut scene = Scene::new(&["bench-1"]).await?;
        let mut tokens = Vec::new();
        for _ in 0..5 {
            tokens.push(scene.all_is_well("bench-1").await?);
        }
        let recorded = scene.hostile.recorded();
        ensure!(recorded.len() >= 5);
        let id = scene.nodes[0].1;
        let replay = |hostile: &Hostile| {
            for frame in &recorded {
                hostile.inject(&id, frame.clone());
                for _ in 0..200 {
                    let mut changed = frame.clone();
                    let at = 20 + (hostile.random() as usize) % (changed.len() - 20);
                    changed[at] ^= 1 << (hostile.random() % 8);
                    hostile.inject(&id, changed);
                }
            }
        };
        // Under the same prekey.
        replay(&scene.hostile);
        tokens.push(scene.all_is_well("bench-1").await?);
        scene.only_asked(&tokens)?;
        // After a lost link, which changes the prekey.
        for _ in 0..3 {
            let old = scene.hostile.record(&id).and_then(|record| record.prekey);
            scene.hostile.hang_up(&id);
            scene.hostile.node(&id, old.as_ref()).await;
            replay(&scene.hostile);
        }
        tokens.push(scene.all_is_well("bench-1").await?);
        scene.only_asked(&tokens)?;
        // After a restart of the agent.
        let old = scene.hostile.record(&id).and_then(|record| record.prekey);
        scene.nodes[0].0.stop()?;
        scene.hostile.without(&id).await;
        scene.nodes[0].0.start()?;
        scene.hostile.node(&id, old.as_ref()).await;
        replay(&scene.hostile);
        tokens.push(scene.all_is_well("bench-1").await?);
        scene.only_asked(&tokens)?;
        ensure!(scene.hostile.hostile_frames() >= 5_000, "{}", scene.hostile.hostile_frames());
        Ok(())
    })
}

#[test]
fn invented_frames_by_the_ten_thousand_change_nothing() -> Result<()> {
    runtime()?.block_on(async {
        let scene = Scene::new(&["bench-1"]).await?;
        let id = scene.nodes[0].1;
        let mut tokens = vec![scene.all_is_well("bench-1").await?];
        for round in 0..20_000u32 {
            let channel = random();
            let noise: Vec<u8> = match round % 4 {
                // All-zero keys and an all-zero exchange.
                0 => vec![0; 96 + (round as usize % 400)],
                1 => random::<96>().to_vec(),
                2 => [random::<32>().as_slice(), &[0; 200]].concat(),
                _ => Vec::new(),
            };
            let frame = match round % 5 {
                0 => ChannelFrame::Data { channel, noise: &noise }.encode(),
                1 => ChannelFrame::Close { channel, code: "done" }.encode(),
                _ => ChannelFrame::Open { channel, node: id, noise: &noise }.encode(),
            };
            if !scene.hostile.inject(&id, frame) {
                tokio::task::yield_now().await;
            }
        }
        tokens.push(scene.all_is_well("bench-1").await?);
        scene.only_asked(&tokens)?;
        Ok(())
    })
}

#[test]
fn a_call_sent_elsewhere_runs_nowhere() -> Result<()> {
    runtime()?.block_on(async {
        let scene = Scene::new(&["one", "two"]).await?;
        let mut tokens = vec![scene.all_is_well("one").await?];
        scene.hostile.redirect(Some(scene.nodes[1].1));
        for _ in 0..5 {
            ensure!(scene.attempt("one", &token()).await.is_err());
        }
        tokens.push(scene.all_is_well("one").await?);
        scene.only_asked(&tokens)?;
        Ok(())
    })
}

#[test]
fn a_call_held_beyond_its_time_does_not_begin() -> Result<()> {
    runtime()?.block_on(async {
        let mut scene = Scene::new(&["bench-1"]).await?;
        let mut tokens = vec![scene.all_is_well("bench-1").await?];
        let (session, seen) = Session::with_node(scene.dialer()?, "bench-1").await?;
        let target = session.target(&seen)?;
        let (channel, _) = session.link.open(&session.dialer.caller(), &target, None, now()).await?;
        scene.hostile.mischief(Mischief::Hold);
        let late = token();
        let within = Duration::from_millis(300);
        let handle = channel.call(&CallSpec { start_within: within, ..scene.spec(&late) }, now()).await?;
        let began = Instant::now();
        while scene.hostile.holding() == 0 || began.elapsed() <= within * 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        scene.hostile.mischief(Mischief::None);
        scene.hostile.let_go();
        let outcome = tokio::time::timeout(ANSWER * 4, handle.finish(|_, _| ())).await??;
        ensure!(outcome.result.as_ref().is_err_and(|failure| failure.code.as_str() == "expired"), "{:?}", outcome.result);
        scene.nodes[0].0.agent()?.wait_for("outcome=expired")?;
        tokens.push(scene.all_is_well("bench-1").await?);
        scene.only_asked(&tokens)?;
        Ok(())
    })
}

#[test]
fn old_news_and_nodes_of_its_own_are_not_believed() -> Result<()> {
    runtime()?.block_on(async {
        let mut scene = Scene::new(&["bench-1"]).await?;
        let id = scene.nodes[0].1;
        scene.all_is_well("bench-1").await?;
        let old = scene.hostile.record(&id).context("a record")?;
        scene.nodes[0].0.stop()?;
        scene.hostile.without(&id).await;
        scene.nodes[0].0.start()?;
        let new = scene.hostile.node(&id, old.prekey.as_ref()).await;
        scene.all_is_well("bench-1").await?;
        let before = scene.executions().len();
        let pretend = |record: NodeRecord| {
            scene.hostile.pretend(Some(record));
            async { scene.attempt("bench-1", &token()).await.map(|_| ()) }
        };
        // An announce from before the restart: the book keeps the newer one.
        scene.hostile.pretend(Some(NodeRecord { announce: old.announce.clone(), ..new.clone() }));
        let (session, seen) = Session::with_node(scene.dialer()?, "bench-1").await?;
        let order = seen.known.announce.as_ref().context("an announce is known")?.order;
        ensure!(order.0 == 2, "an announce of boot {} was believed after the second", order.0);
        // A list of packs that the announce does not name.
        let refused = packs_of(&session, &seen.known).await.err().map(|failure| failure.code);
        ensure!(refused == Some(Code::DigestMismatch), "{refused:?}");
        // A prekey whose private half is gone.
        ensure!(pretend(NodeRecord { prekey: old.prekey.clone(), ..new.clone() }).await.is_err(), "an old prekey was answered");
        // A prekey the relay made, one of nobody, and a certificate that is none.
        ensure!(pretend(NodeRecord { prekey: Some(Blob(vec![0; 100])), ..new.clone() }).await.is_err());
        ensure!(pretend(NodeRecord { certificate: Blob(vec![0xa0]), ..new.clone() }).await.is_err());
        ensure!(scene.executions().len() == before);
        // A whole node of another fleet: genuine there, nothing here.
        let elsewhere = Scene::new(&["bench-1"]).await?;
        let foreign = elsewhere.hostile.node(&elsewhere.nodes[0].1, None).await;
        scene.hostile.pretend(Some(foreign));
        let mut session = Session::open(scene.dialer()?).await?;
        let (seen, bad) = session.nodes().await?;
        ensure!(seen.is_empty() && !bad.is_empty(), "{seen:?}");
        ensure!(scene.attempt("bench-1", &token()).await.is_err());
        ensure!(scene.executions().len() == before);
        Ok(())
    })
}
