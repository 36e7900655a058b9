//! A man in the middle of pairings, between the real programs: he relays, alters, repeats, reflects and crosses what they
//! say, with the relay's genuine key or with one of his own, and gets neither side, nor anything to read.

use anyhow::{Context, Result, ensure};
use outhaul_home::Home;
use outhaul_link::dial::{self, Identity, Target};
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::frame::{Facts, Frame, Role};
use outhaul_protocol::keys::{PublicKey, SecretKey, X25519Secret};
use outhaul_protocol::pairing::{Attempts, Code, Guest, Proof};
use outhaul_relay::operator::Room;
use outhaul_tests::impostor::Impostor;
use outhaul_tests::middle::{Middle, Part, Trick};
use outhaul_tests::process::{Process, Ran};
use outhaul_tests::stage::{Node, Stage};
use tokio::runtime::Runtime;

/// An operator whose relay may be in the hands of somebody else.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) runtime: Runtime,
    fleet: PublicKey,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let stage = Stage::start()?;
        let fleet = Room::of(&Home::find(Some(stage.home.path().to_owned()))?).fleet()?.key;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Scene { stage, runtime, fleet })
    }

    /// A relay in the middle with the relay's genuine key.
    pub(crate) fn middle(&self) -> Result<Middle> {
        let key: SecretKey = outhaul_home::read_secret_key(&self.stage.home.path().join("relay/relay.key"))?;
        self.runtime.block_on(Middle::start(key))
    }

    /// `agent pair` there.
    pub(crate) fn pair(&self, node: &Node, url: &str, code: &str) -> Result<Ran> {
        node.run(&["pair", "--relay", url, "--code", code, "--name", &node.name])
    }

    /// The machine's word, held against its disk: paired means whole and with this fleet, anything else means nothing.
    pub(crate) fn paired(&self, node: &Node, ran: &Ran) -> Result<bool> {
        if ran.code == 0 {
            let current = std::fs::read_to_string(node.file("pins/current"))?;
            ensure!(current.trim() == self.fleet.id().to_string(), "{} is pinned to {current}", node.name);
            node.run(&["status"])?.ok()?;
            return Ok(true);
        }
        ensure!(!node.file("pins").exists() && !node.file("agent.toml").exists(), "{} kept something\n{}", node.name, ran.stderr);
        ensure!(ran.stderr.contains("error: ") && ran.stdout.is_empty(), "{}{}", ran.stdout, ran.stderr);
        Ok(false)
    }

    /// What nobody but the two ends may know of this machine and its fleet; the name, last, until the machine was
    /// certified: then the operator asks the relay whether somebody else has it.
    fn secrets(&self, node: &Node, code: &str) -> Result<Vec<Vec<u8>>> {
        let mailbox: X25519Secret = outhaul_home::read_secret_key(&node.file("mailbox.key"))?;
        let digits = code.rsplit('-').next().unwrap_or_default();
        let (name, mailbox) = (node.name.as_bytes().to_vec(), mailbox.public().as_bytes().to_vec());
        Ok(vec![digits.into(), self.fleet.as_bytes().to_vec(), mailbox, name])
    }
}

/// The id a node goes by among people.
fn short_id(node: &Node) -> Result<String> {
    let key: SecretKey = outhaul_home::read_secret_key(&node.file("agent.key"))?;
    Ok(key.id().short())
}

/// A maker's end: its status and all that it said.
pub(crate) fn end_of(maker: Process) -> Result<(i32, String)> {
    let (status, said) = maker.finish()?;
    let text = said.iter().map(|line| format!("{}\n", line.text())).collect();
    Ok((status.code().context("it ended by itself")?, text))
}

/// What becomes of the maker of a code when one message was tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// it waits on: the right machine may still come
    Waits,
    /// it ends with this status
    Ends(i32),
    /// it waits for a word that was kept from it, until somebody stops it
    Stuck,
}

/// What a trick leads to, message by message: how the machine may end, and what becomes of the maker.
type Row = [(&'static [i32], Maker); 5];

#[test]
fn relayed_as_it_is_it_pairs_and_the_relay_has_read_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let middle = scene.middle()?;
    let (maker, code) = scene.stage.pair_new(&["--relay", &middle.url()])?;
    let node = Node::new("unseen-until-paired")?;
    let ran = scene.pair(&node, &middle.url(), &code)?.ok()?;
    assert!(scene.paired(&node, &ran)?);
    let (status, said) = end_of(maker)?;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains(&node.name) && said.contains(&short_id(&node)?), "{said}");
    // What the operator publishes then holds name and keys, by intention; code and fleet key are in nothing at all.
    let secrets = scene.secrets(&node, &code)?;
    assert!(!middle.saw(&secrets[0]) && !middle.saw(&secrets[1]));
    // The search finds what is there: a machine proves its key to the relay.
    let key: SecretKey = outhaul_home::read_secret_key(&node.file("agent.key"))?;
    assert!(middle.saw(key.public().as_bytes()) && middle.saw(node.name.as_bytes()));
    Ok(())
}

#[test]
fn whatever_is_done_to_a_message_nobody_is_paired_with_anybody_else() -> Result<()> {
    use Maker::{Ends, Stuck, Waits};
    let scene = Scene::new()?;
    let rows: [(Trick, Row); 4] = [
        (Trick::Flip, [(&[3, 7], Waits), (&[3, 7], Waits), (&[3], Waits), (&[3], Ends(8)), (&[0], Ends(7))]),
        (Trick::Cut, [(&[7], Waits), (&[7], Waits), (&[3], Waits), (&[3], Ends(8)), (&[0], Ends(7))]),
        (Trick::Twice, [(&[3], Waits), (&[3], Ends(8)), (&[0], Ends(7)), (&[0], Ends(0)), (&[0], Ends(0))]),
        (Trick::Reflect, [(&[7], Waits), (&[3], Waits), (&[3], Waits), (&[7], Ends(7)), (&[0], Stuck)]),
    ];
    for (trick, parts) in rows {
        for (part, (statuses, maker)) in Part::ALL.into_iter().zip(parts) {
            tampered(&scene, part, trick, statuses, maker).with_context(|| format!("{trick:?} of {part:?}"))?;
        }
    }
    Ok(())
}

fn tampered(scene: &Scene, part: Part, trick: Trick, statuses: &[i32], ends: Maker) -> Result<()> {
    let middle = scene.middle()?;
    let (maker, code) = scene.stage.pair_new(&["--relay", &middle.url()])?;
    middle.play(Some((part, trick)));
    let node = Node::new(&format!("m-{trick:?}-{part:?}").to_lowercase())?;
    let ran = scene.pair(&node, &middle.url(), &code)?;
    ensure!(statuses.contains(&ran.code), "the machine ended {}: {}", ran.code, ran.stderr);
    ensure!(middle.touched() == 1, "{} messages were touched", middle.touched());
    let paired = scene.paired(&node, &ran)?;
    let secrets = scene.secrets(&node, &code)?;
    if ends == Maker::Waits {
        ensure!(!secrets.iter().any(|secret| middle.saw(secret)), "the middle has read something");
        // One altered run does not end the code: the same machine, undisturbed, comes in by it.
        middle.play(None);
        ensure!(scene.paired(&node, &scene.pair(&node, &middle.url(), &code)?.ok()?)?);
        ensure!(end_of(maker)?.0 == 0);
        return Ok(());
    }
    if ends == Maker::Stuck {
        maker.signal(libc::SIGINT);
    }
    let (status, said) = end_of(maker)?;
    ensure!(
        status
            == match ends {
                Maker::Ends(status) => status,
                _ => 130,
            },
        "the maker ended {status}: {said}"
    );
    let id = short_id(&node)?;
    ensure!(said.contains(&id), "the maker does not say whom it certified: {said}");
    match status {
        0 => ensure!(paired && said.contains("paired: "), "{said}"),
        // It knows that somebody knew the code, and says how to find out what became of that.
        _ => {
            ensure!(said.contains("was certified") && said.contains("relay nodes"), "{said}");
            ensure!(!secrets[..3].iter().any(|secret| middle.saw(secret)), "the middle has read something");
        }
    }
    Ok(())
}

#[test]
fn two_pairings_that_are_crossed_both_fail() -> Result<()> {
    let scene = Scene::new()?;
    for part in Part::ALL {
        let middle = scene.middle()?;
        middle.play(Some((part, Trick::Swap)));
        let mut sides = Vec::new();
        for side in ["left", "right"] {
            let (maker, code) = scene.stage.pair_new(&["--relay", &middle.url()])?;
            sides.push((Node::new(&format!("{side}-{part:?}").to_lowercase())?, maker, code));
        }
        let begin = |node: &Node, code: &str| {
            Process::start(node.command(&["pair", "--relay", &middle.url(), "--code", code, "--name", &node.name])?)
        };
        let machines = sides.iter().map(|(node, _, code)| begin(node, code)).collect::<Result<Vec<_>>>()?;
        for ((node, maker, code), machine) in sides.into_iter().zip(machines) {
            let (status, said) = end_of(machine)?;
            ensure!((status == 0) == (part == Part::Stored), "{part:?}: {} ended {status}: {said}", node.name);
            ensure!(node.file("pins").exists() == (status == 0), "{part:?}");
            let known = if matches!(part, Part::Welcome | Part::Stored) { 3 } else { 4 };
            let read = scene.secrets(&node, &code)?.into_iter().take(known).find(|secret| middle.saw(secret));
            ensure!(read.is_none(), "{part:?}: the middle has read {read:?}");
            match part {
                Part::Welcome | Part::Stored => {
                    let (status, said) = end_of(maker)?;
                    ensure!([7, 8].contains(&status) && said.contains(&short_id(&node)?), "{part:?}: the maker ended {status}: {said}");
                }
                _ => drop(maker),
            }
        }
    }
    Ok(())
}

#[test]
fn an_impostor_with_a_key_of_its_own_carries_all_and_gets_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let target = Target { url: RelayUrl::parse(&scene.stage.url)?, roots: Roots::default(), allow_plaintext: false };
    let impostor = scene.runtime.block_on(Impostor::before(target))?;
    let (maker, code) = scene.stage.pair_new(&[])?;
    let node = Node::new("unseen")?;
    let ran = scene.pair(&node, &impostor.url(), &code)?.exits(7)?;
    assert!(!scene.paired(&node, &ran)?);
    assert!(ran.stderr.contains("another relay answers at this address"), "{}", ran.stderr);
    let (status, said) = end_of(maker)?;
    assert!(status == 8 && said.contains("bad_key") && said.contains(&short_id(&node)?), "{status}: {said}");
    assert!(impostor.seen_bytes() > 1000);
    assert!(!scene.secrets(&node, &code)?.iter().any(|secret| impostor.saw(secret)));
    // The operator's command line does not even say hello to it.
    let ran = scene.stage.run(&["--json", "--relay", &impostor.url(), "pair", "new"])?.exits(7)?;
    assert_eq!(ran.json()?["error"]["code"], "bad_key");
    // A new code, at the true relay, pairs the same machine at once.
    let (maker, code) = scene.stage.pair_new(&[])?;
    scene.pair(&node, &scene.stage.url, &code)?.ok()?;
    assert_eq!(end_of(maker)?.0, 0);
    Ok(())
}

/// One guess of somebody who speaks the protocol himself. False when no code waits there.
async fn guess(url: &str, guess: &str) -> Result<bool> {
    let target = Target { url: RelayUrl::parse(url)?, roots: Roots::default(), allow_plaintext: false };
    let (key, code) = (SecretKey::generate(), Code::parse(guess)?);
    let identity = Identity { role: Role::Guest, key: &key, credential: Blob(Vec::new()), lookup: None };
    let mut socket = dial::dial(&target, identity, |_| Ok(())).await?.socket;
    let (guest, join) = Guest::join(Proof::Code(&code));
    socket.send(Frame::PairJoin { slot: 1, message: Blob(join), facts: Facts::new() }.encode()).await?;
    let (pairing, answer) = match Frame::decode(&socket.receive().await?)? {
        Frame::PairMessage { pairing, message } => (pairing, message.0),
        other => return Ok(!matches!(other, Frame::PairEnd { pairing: 0, .. })),
    };
    let mailbox = X25519Secret::generate().public();
    let (_, confirm) = guest.confirm(&answer, &mut Attempts::typed(), &key, mailbox, None)?;
    socket.send(Frame::PairMessage { pairing, message: Blob(confirm) }.encode()).await?;
    let end = Frame::decode(&socket.receive().await?)?;
    ensure!(matches!(&end, Frame::PairEnd { code, .. } if code == "not_paired"), "a guess was answered with {end:?}");
    Ok(true)
}

#[test]
fn who_guesses_and_never_stops_gets_nine_tries() -> Result<()> {
    let scene = Scene::new()?;
    let middle = scene.middle()?;
    let (mut maker, first) = scene.stage.pair_new(&["--relay", &middle.url()])?;
    let mut tried = 0;
    // Between two codes there is none for a moment.
    for number in 0..1000 {
        tried += u32::from(scene.runtime.block_on(guess(&middle.url(), &format!("{number:06}")))?);
        if tried == 3 {
            // The right one of a code that is used up is worth nothing: another is shown.
            maker.wait_until("another code", |line| line.text().contains("\"code\"") && !line.text().contains(&first))?;
        }
        if tried == 9 {
            break;
        }
    }
    let (status, said) = end_of(maker)?;
    assert!(status == 3 && said.contains("somebody may be guessing"), "{status}: {said}");
    assert_eq!(middle.tales().iter().filter(|tale| tale.from_guest > 0).count(), 9);
    assert!(!scene.runtime.block_on(guess(&middle.url(), "999999"))?);
    Ok(())
}

#[test]
fn a_guess_takes_nothing_from_the_machine_that_knew_the_code() -> Result<()> {
    let scene = Scene::new()?;
    let middle = scene.middle()?;
    let (maker, code) = scene.stage.pair_new(&["--relay", &middle.url()])?;
    let node = Node::new("bench-1")?;
    middle.play(Some((Part::Stored, Trick::Hold)));
    let machine = Process::start(node.command(&["pair", "--relay", &middle.url(), "--code", &code, "--name", "bench-1"])?)?;
    scene.runtime.block_on(middle.keeps_one());
    // It has been certified and writes; somebody else's wrong code, or the right one, comes meanwhile.
    let late = Node::new("late")?;
    for typed in [if code == "111111" { "222222" } else { "111111" }, code.as_str()] {
        let ran = scene.pair(&late, &middle.url(), typed)?.exits(3)?;
        assert!(!scene.paired(&late, &ran)?);
    }
    middle.let_go();
    assert_eq!(end_of(machine)?.0, 0);
    let (status, said) = end_of(maker)?;
    assert!(status == 0 && said.contains("paired: bench-1"), "{status}: {said}");
    Ok(())
}

#[test]
fn a_machine_paired_by_another_operator_keeps_one_certificate_after_the_other() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("one")?;
    // An operator whose book knows nothing of it, and another name for it.
    std::fs::remove_dir_all(stage.home.path().join("operator/nodes"))?;
    node.stop()?;
    let (maker, code) = stage.pair_new(&["--name", "two"])?;
    node.run(&["pair", "--relay", &stage.url, "--code", &code])?.ok()?;
    assert_eq!(end_of(maker)?.0, 0);
    node.start()?;
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!((nodes.as_array().map(Vec::len), nodes[0]["name"].as_str()), (Some(1), Some("two")));
    stage.run(&["invoke", "two", "system.info"])?.ok()?;
    Ok(())
}
