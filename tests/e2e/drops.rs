//! The link is dropped during pairing a thousand times: at the end of every message and in the middle of it, on the
//! machine's side and on the maker's. Whatever the moment, a machine is paired whole or not at all, its operator is told,
//! no guess is lost or won, and a new code pairs at once.

use anyhow::{Context, Result, ensure};
use outhaul_tests::middle::{Middle, Part, Trick};
use outhaul_tests::process::Process;
use outhaul_tests::stage::Node;
use outhaul_tests::wire::{Break, Carried, Way, Wire};

use crate::middle::{Scene, end_of};

/// Drops on the machines' side, and on the makers'.
const MACHINES: usize = 880;
const MAKERS: usize = 120;
/// Side by side.
const LANES: usize = 3;

/// How often a pairing broke before the machine had sent its keys, before and after it wrote, and too late to matter.
#[derive(Debug, Default, Clone, Copy)]
struct Rows {
    asked: u32,
    confirmed: u32,
    written: u32,
    told: u32,
}

/// Where to drop: around the end of every message, and evenly over all bytes; the latest first.
fn plan(carried: &Carried, count: usize) -> Vec<Break> {
    let around = |at: Break| [at.after.saturating_sub(1), at.after, at.after + 1].map(|after| Break { after, ..at });
    let mut all: Vec<Break> = carried.boundaries().into_iter().flat_map(around).take(count / 4).collect();
    let rest = count - all.len();
    for number in 0..rest {
        let way = if number % 2 == 0 { Way::Up } else { Way::Down };
        all.push(Break { way, after: length(carried, way) * number / rest });
    }
    all.sort_by_key(|at| std::cmp::Reverse(at.after * 1000 / length(carried, at.way)));
    all
}

fn length(carried: &Carried, way: Way) -> usize {
    if way == Way::Up { carried.up.len() } else { carried.down.len() }
}

/// A maker and one machine after another, with a wire that breaks in between.
struct Lane<'s> {
    scene: &'s Scene,
    middle: Middle,
    wire: Wire,
    number: usize,
    machines: usize,
    node: Node,
    maker: Option<Process>,
    code: String,
    /// drops that the maker's code has outlived
    outlived: u32,
    rows: Rows,
}

impl<'s> Lane<'s> {
    fn new(scene: &'s Scene, number: usize) -> Result<Self> {
        let middle = scene.middle()?;
        let wire = scene.runtime.block_on(Wire::to(&middle.address()))?;
        let (maker, code) = scene.stage.pair_new(&["--relay", &middle.url()])?;
        let (node, maker, rows) = (name(number, 0)?, Some(maker), Rows::default());
        Ok(Lane { scene, middle, wire, number, machines: 0, node, maker, code, outlived: 0, rows })
    }

    /// The maker has come to its end: what it said. Another takes its place.
    fn renew(&mut self) -> Result<(i32, String)> {
        // The old one first, so that its slot is free.
        let ended = end_of(self.maker.take().context("a maker waits")?)?;
        let (maker, code) = self.scene.stage.pair_new(&["--relay", &self.middle.url()])?;
        (self.maker, self.code, self.outlived) = (Some(maker), code, 0);
        Ok(ended)
    }

    fn another_machine(&mut self) -> Result<()> {
        self.machines += 1;
        self.node = name(self.number, self.machines)?;
        Ok(())
    }

    /// Drops the machine's link there.
    fn drop_machine(&mut self, at: Break) -> Result<()> {
        let (connections, runs) = (self.wire.connections(), self.middle.tales().len());
        self.wire.breaks(Some(at));
        let ran = self.scene.pair(&self.node, &self.wire.url(), &self.code)?;
        self.scene.runtime.block_on(async {
            self.wire.quiet().await;
            self.middle.quiet().await;
        });
        let tales = self.middle.tales();
        // One guess is one connection and one run: a machine never tries again by itself.
        ensure!(self.wire.connections() == connections + 1 && tales.len() <= runs + 1, "it dialed or asked again");
        let paired = self.scene.paired(&self.node, &ran)?;
        ensure!(paired || [6, 8].contains(&ran.code), "it ended {}: {}", ran.code, ran.stderr);
        match tales.get(runs).map_or(0, |tale| tale.from_guest) {
            0 => {
                ensure!(!paired, "{}", ran.stdout);
                self.outlived += 1;
                self.rows.asked += 1;
            }
            1 => {
                let (status, said) = self.renew()?;
                ensure!(
                    status == 8 && said.contains("was certified") && said.contains(&self.node.name),
                    "the maker ended {status}: {said}"
                );
                ensure!(!paired || ran.stderr.contains("may not have heard"), "{}", ran.stderr);
                *(if paired { &mut self.rows.written } else { &mut self.rows.confirmed }) += 1;
            }
            _ => {
                let (status, said) = self.renew()?;
                ensure!(paired && status == 0 && said.contains("paired: "), "the maker ended {status}: {said}");
                self.rows.told += 1;
            }
        }
        if paired { self.another_machine() } else { Ok(()) }
    }

    /// Drops the maker's link there, in a pairing of its own.
    fn drop_maker(&mut self, wire: &Wire, at: Break) -> Result<()> {
        wire.breaks(Some(at));
        let mut maker = self.scene.stage.begin(&["--json", "pair", "new", "--relay", &wire.url()])?;
        let code = loop {
            let Some(line) = maker.next_line() else { break None };
            let json: serde_json::Value = serde_json::from_str(line.text()).unwrap_or_default();
            if let Some(code) = json["code"].as_str() {
                break Some(code.to_owned());
            }
        };
        let ran = code.map(|code| self.scene.pair(&self.node, &self.middle.url(), &code)).transpose()?;
        let paired = ran.as_ref().map(|ran| self.scene.paired(&self.node, ran)).transpose()?.unwrap_or(false);
        ensure!(ran.as_ref().is_none_or(|ran| [0, 3, 8].contains(&ran.code)), "the machine ended {ran:?}");
        let (status, said) = end_of(maker)?;
        ensure!([0, 6, 8].contains(&status), "the maker ended {status}: {said}");
        ensure!(status != 0 || paired, "the maker believes in a pairing that is none: {said}");
        if paired && status != 0 {
            let told = said.contains("was certified") || said.contains("is paired, but");
            ensure!(told && said.contains(&self.node.name), "nobody says that the machine is paired: {said}");
        }
        if paired { self.another_machine() } else { Ok(()) }
    }

    /// The maker's code has outlived many drops: it has all its tries left, and no more.
    fn the_code_is_worth_what_it_was(&mut self) -> Result<()> {
        ensure!(self.outlived > 30, "only {} drops in a row were early", self.outlived);
        self.wire.breaks(None);
        for _ in 0..2 {
            self.scene.pair(&self.node, &self.wire.url(), self.wrong())?.exits(3)?;
        }
        self.scene.pair(&self.node, &self.wire.url(), &self.code)?.ok()?;
        let (status, said) = self.renew()?;
        ensure!(status == 0, "{said}");
        self.another_machine()?;
        // A wrong code whose failure the machine never hears of is counted like any other.
        self.middle.play(Some((Part::Confirm, Trick::HangUp)));
        for _ in 0..3 {
            self.scene.pair(&self.node, &self.wire.url(), self.wrong())?.exits(8)?;
        }
        let old = self.code.clone();
        let maker = self.maker.as_mut().context("a maker waits")?;
        maker.wait_until("another code", |line| line.text().contains("\"code\"") && !line.text().contains(&old))?;
        self.middle.play(None);
        self.scene.pair(&self.node, &self.wire.url(), &old)?.exits(3)?;
        Ok(())
    }

    fn wrong(&self) -> &'static str {
        if self.code.ends_with("111111") { "222222" } else { "111111" }
    }
}

fn name(lane: usize, machine: usize) -> Result<Node> {
    Node::new(&format!("m-{lane}-{machine:03}"))
}

/// What an undisturbed pairing carries on the machine's wire, and on the maker's.
fn measured(scene: &Scene) -> Result<(Carried, Carried)> {
    let middle = scene.middle()?;
    let wire = || scene.runtime.block_on(Wire::to(&middle.address()));
    let (machines, makers) = (wire()?, wire()?);
    let (maker, code) = scene.stage.pair_new(&["--relay", &makers.url()])?;
    scene.pair(&name(0, 999)?, &machines.url(), &code)?.ok()?;
    ensure!(end_of(maker)?.0 == 0);
    Ok((machines.carried(), makers.carried()))
}

fn lane(number: usize, machines: &[Break], makers: &[Break]) -> Result<Rows> {
    let scene = &Scene::new()?;
    let mut lane = Lane::new(scene, number)?;
    for at in machines.iter().skip(number).step_by(LANES) {
        lane.drop_machine(*at).with_context(|| format!("the machine's link dropped after {at:?}"))?;
    }
    lane.the_code_is_worth_what_it_was()?;
    let wire = scene.runtime.block_on(Wire::to(&lane.middle.address()))?;
    for at in makers.iter().skip(number).step_by(LANES) {
        lane.drop_maker(&wire, *at).with_context(|| format!("the maker's link dropped after {at:?}"))?;
    }
    // And a new code pairs at once.
    let (maker, code) = scene.stage.pair_new(&["--relay", &lane.middle.url()])?;
    ensure!(scene.paired(&lane.node, &scene.pair(&lane.node, &lane.middle.url(), &code)?.ok()?)?);
    ensure!(end_of(maker)?.0 == 0);
    Ok(lane.rows)
}

#[test]
fn a_thousand_dropped_links_leave_no_half_paired_machine_and_cost_no_guess() -> Result<()> {
    let (machine, maker) = measured(&Scene::new()?)?;
    let (machines, makers) = (plan(&machine, MACHINES), plan(&maker, MAKERS));
    ensure!(machines.len() + makers.len() == 1000);
    let (machines, makers) = (&machines, &makers);
    let lanes: Vec<Result<Rows>> = std::thread::scope(|scope| {
        let begun: Vec<_> = (0..LANES).map(|number| scope.spawn(move || lane(number, machines, makers))).collect();
        begun.into_iter().map(|lane| lane.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a lane panicked")))).collect()
    });
    let mut all = Rows::default();
    for rows in lanes {
        let rows = rows?;
        all.asked += rows.asked;
        all.confirmed += rows.confirmed;
        all.written += rows.written;
        all.told += rows.told;
    }
    ensure!(all.asked + all.confirmed + all.written + all.told == MACHINES as u32, "{all:?}");
    ensure!([all.asked, all.confirmed, all.written, all.told].iter().all(|row| *row > 0), "a moment was never hit: {all:?}");
    Ok(())
}

#[test]
fn a_link_dropped_on_the_way_through_the_true_relay_costs_nothing_either() -> Result<()> {
    let scene = Scene::new()?;
    let address = scene.stage.listen();
    let wire = scene.runtime.block_on(Wire::to(&address))?;
    let (maker, code) = scene.stage.pair_new(&[])?;
    let first = Node::new("first")?;
    scene.pair(&first, &wire.url(), &code)?.ok()?;
    ensure!(end_of(maker)?.0 == 0);
    let carried = wire.carried();
    // Ten attempts from one address are free; those that reach a welcome are given back.
    let early = carried.up.len() / 2;
    let (maker, code) = scene.stage.pair_new(&[])?;
    let node = Node::new("second")?;
    for after in (0..6).map(|step| early - 10 * step) {
        wire.breaks(Some(Break { way: Way::Up, after }));
        let ran = scene.pair(&node, &wire.url(), &code)?;
        ensure!(!scene.paired(&node, &ran)? && [6, 8].contains(&ran.code), "{}", ran.stderr);
    }
    // In the middle of the welcome: the code is used, the machine has nothing, and both are told.
    wire.breaks(Some(Break { way: Way::Down, after: carried.down.len() - 200 }));
    let ran = scene.pair(&node, &wire.url(), &code)?.exits(8)?;
    ensure!(!scene.paired(&node, &ran)?);
    let (status, said) = end_of(maker)?;
    ensure!(status == 8 && said.contains("`second`") && said.contains("was certified"), "{status}: {said}");
    wire.breaks(None);
    let (maker, code) = scene.stage.pair_new(&[])?;
    scene.pair(&node, &wire.url(), &code)?.ok()?;
    ensure!(end_of(maker)?.0 == 0);
    let nodes = scene.stage.run(&["--json", "nodes"])?.ok()?.json()?;
    ensure!(nodes.as_array().map(Vec::len) == Some(2), "{nodes}");
    Ok(())
}
