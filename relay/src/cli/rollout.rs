//! `relay pack push` and the forms with `--to`: a document that nodes follow by themselves, also those that come later.

mod canary;

use std::path::Path;
use std::time::Duration;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::sha256;
use outhaul_protocol::objects::{Release, Target, check_selector, valid_name};
use outhaul_protocol::pack;
use outhaul_protocol::text::escape_control;
use serde_json::{Value as Json, json};

use super::Context;
use super::args::{PackDeploy, PackOn};
use super::many::{State, follow, states};
use super::output::failure_text;
use super::pack::{INSTALL, read, short, store};
use super::sign::signature;
use crate::operator::deployments::{Newest, Order, documents, find_release, newest, placed, publish, sign};
use crate::operator::{Seen, Session};

/// `relay pack push`.
pub(super) async fn push(context: &Context, file: &Path) -> Result<u8, Failure> {
    let session = context.session().await?;
    let (name, release) = pushed(context, &session, file, false).await?;
    let digest = release.component;
    context.out.either(
        || format!("the relay has {name} {} ({})", escape_control(&release.version), digest.short()),
        || json!({"ok": true, "name": name, "version": release.version, "digest": digest.to_string()}),
    );
    Ok(0)
}

/// Hands the relay a component, signed; its name, and what a document says of it.
async fn pushed(context: &Context, session: &Session, file: &Path, downgrade: bool) -> Result<(String, Release), Failure> {
    let bytes = read(file)?;
    let (contents, component) = (pack::read(&bytes)?, sha256(&bytes));
    let signature = signature(context, file, &bytes)?;
    store(context, session, component, &bytes).await?;
    context.room.note_pushed(component, &signature)?;
    let rotations = context.room.rotations()?.iter().map(|rotation| Blob(rotation.encode())).collect();
    let version = contents.manifest.version;
    Ok((contents.manifest.name, Release { version, component, signature: Blob(signature), rotations, downgrade }))
}

/// `NAME@VERSION`, where that is what is written.
pub(super) fn named(text: &str) -> Option<(&str, &str)> {
    text.split_once('@').filter(|(name, version)| valid_name(name) && !version.is_empty() && !Path::new(text).exists())
}

/// A version that was pushed from here or stands in a document.
pub(super) async fn known_release(context: &Context, session: &Session, name: &str, version: &str) -> Result<Release, Failure> {
    let (dialer, mut orders) = (&session.dialer, Vec::new());
    let told = documents(session).await?;
    let from_relay = told.iter().find(|(found, _)| found == name).map(|(_, document)| document);
    orders.extend(newest(&dialer.room, &dialer.fleet, name, from_relay)?.order);
    let mut found = find_release(&context.room.pushed(), &orders, name, version);
    match (found.pop(), found.is_empty()) {
        (Some(mut release), true) => {
            if release.rotations.is_empty() {
                release.rotations = context.room.rotations()?.iter().map(|rotation| Blob(rotation.encode())).collect();
            }
            Ok(Release { downgrade: false, ..release })
        }
        (Some(_), false) => Err(Failure::new(Code::BadUsage, format!("`{name}@{}` means several components", version.escape_debug()))
            .hint("name the file instead")),
        (None, _) => Err(Failure::new(Code::BadUsage, format!("no version {} of pack `{name}` is known here", version.escape_debug()))
            .hint("relay pack push FILE, or name the file instead")),
    }
}

/// What `--to` says, as documents have it.
fn terms(to: &[String]) -> Result<Vec<String>, Failure> {
    let mut terms: Vec<String> = to.iter().map(|term| if term == "all" { "*".to_owned() } else { term.clone() }).collect();
    terms.iter().try_for_each(|term| check_selector(term)).map_err(|error| Failure::new(Code::BadUsage, format!("`--to`: {error}")))?;
    if terms.iter().any(|term| term == "*") {
        terms = vec!["*".to_owned()];
    }
    terms.sort_unstable();
    terms.dedup();
    Ok(terms)
}

fn shown(terms: &[String]) -> String {
    if terms == ["*"] { "all".to_owned() } else { terms.join(" or ") }
}

/// One deployment on its way: whom it is for, and what is known of the pack so far.
struct Rollout<'c> {
    context: &'c Context,
    session: Session,
    name: String,
    terms: Vec<String>,
    nodes: Vec<Seen>,
    known: Newest,
    results: Vec<(Seen, Result<State, Failure>)>,
}

impl<'c> Rollout<'c> {
    /// Looks at everything before anything is changed: who is meant, the newest document, what nodes state.
    async fn prepare(context: &'c Context, mut session: Session, name: String, to: &[String]) -> Result<Self, Failure> {
        let terms = terms(to)?;
        let (all, bad) = session.nodes().await?;
        for failure in &bad {
            context.out.talk(&format!("left out: {}", failure_text(failure, None)));
        }
        let nodes: Vec<Seen> = all.into_iter().filter(|seen| seen.known.node.labels().selected_by(&terms)).collect();
        if nodes.is_empty() {
            let failure = Failure::new(Code::UnknownNode, format!("no node is selected by {}", shown(&terms)));
            return Err(failure.hint("`relay nodes describe NODE` shows labels; `relay nodes label NODE LABEL=VALUE` gives them"));
        }
        let told = documents(&session).await?;
        let from_relay = told.iter().find(|(found, _)| *found == name).map(|(_, document)| document);
        let known = newest(&session.dialer.room, &session.dialer.fleet, &name, from_relay)?;
        if let Some(failure) = &known.passed_over {
            context.out.talk(&format!("not built on the newest deployment of {name}: {}", failure.message));
        }
        Ok(Rollout { context, session, name, terms, nodes, known, results: Vec::new() })
    }

    fn here(&self) -> Vec<Seen> {
        self.nodes.iter().filter(|seen| seen.prekey.is_some()).cloned().collect()
    }

    /// What connected nodes state; a serial that they know and nobody here does is gone beyond.
    async fn ask(&mut self) -> Vec<(Seen, State)> {
        let here = self.here();
        let stated = states(&self.session, &here, &self.name).await;
        let stated: Vec<(Seen, State)> = here.into_iter().zip(stated).filter_map(|(seen, state)| Some((seen, state.ok()?))).collect();
        let highest = stated.iter().map(|(_, state)| state.serial).max().unwrap_or(0);
        let known = self.known.order.as_ref().map_or(0, |order| order.said.serial);
        if highest > known && highest > 0 {
            let text = "nodes follow deployment {} of {}, which neither this home nor the relay has: targets in it that are not named now are lost";
            self.context.out.talk(&text.replacen("{}", &highest.to_string(), 1).replacen("{}", &self.name, 1));
        }
        self.known.serial = self.known.serial.max(highest);
        stated
    }

    fn targets(&self) -> Vec<Target> {
        self.known.order.as_ref().map(|order| order.said.targets.clone()).unwrap_or_default()
    }

    /// Signs and publishes the next document, which is what is built on from then on.
    async fn publish(&mut self, targets: Vec<Target>) -> Result<Order, Failure> {
        let order = sign(&self.session.dialer.enroller(), &self.name, &self.known, targets)?;
        publish(&self.session, &order).await?;
        self.context.out.talk(&format!("deployment {} of {} is published", order.said.serial, self.name));
        self.known = Newest { serial: order.said.serial, order: Some(order.clone()), passed_over: None };
        Ok(order)
    }

    /// Waits for these nodes, and tells of each as it is done.
    async fn follow(&self, nodes: &[Seen], order: &Order, patience: Duration) -> Vec<Result<State, Failure>> {
        let (context, name, total, mut done) = (self.context, &self.name, nodes.len(), 0);
        let patience = context.global.timeout.unwrap_or(patience);
        let told = |seen: &Seen, result: &Result<State, Failure>| {
            done += 1;
            let node = &seen.known.node.name;
            match result {
                Err(failure) => context.out.talk(&format!("{node}: {}", failure_text(failure, None))),
                Ok(state) if !context.out.json => context.out.data(&outcome(node, name, state)),
                Ok(_) => {}
            }
            if total > 1 {
                context.out.talk(&format!("{done} of {total} nodes"));
            }
        };
        follow(&self.session, nodes, order, patience, told).await
    }

    /// The document for everybody who is meant, and its outcome on those who are here.
    async fn finish(mut self, release: Option<Release>) -> Result<u8, Failure> {
        let ids: Vec<String> = self.nodes.iter().map(|seen| seen.known.id().to_string()).collect();
        let names: Vec<String> = self.nodes.iter().map(|seen| seen.known.node.name.clone()).collect();
        let covered = |term: &str| ids.iter().any(|id| id == term) || names.iter().any(|name| name == term);
        let targets = placed(&self.targets(), &self.terms, release, covered);
        let order = self.publish(targets).await?;
        let here = self.here();
        let results = self.follow(&here, &order, INSTALL).await;
        self.results = here.into_iter().zip(results).collect();
        for seen in self.nodes.iter().filter(|seen| seen.prekey.is_none()) {
            self.context.out.talk(&format!("{} is not connected: it follows when it comes", seen.known.node.name));
        }
        self.conclude(&order)
    }

    fn conclude(&self, order: &Order) -> Result<u8, Failure> {
        if self.context.out.json {
            let node = |(seen, result): &(Seen, Result<State, Failure>)| {
                let state = result.as_ref().ok();
                json!({
                    "node": seen.known.node.name,
                    "id": seen.known.id().to_string(),
                    "ok": result.is_ok(),
                    "version": state.and_then(|state| state.running.as_ref()).map(|running| &running.version),
                    "error": result.as_ref().err().map(|failure| failure.to_json(None)),
                })
            };
            let waiting: Vec<&str> =
                self.nodes.iter().filter(|seen| seen.prekey.is_none()).map(|seen| seen.known.node.name.as_str()).collect();
            let nodes: Vec<Json> = self.results.iter().map(node).collect();
            let ok = self.results.iter().all(|(_, result)| result.is_ok());
            let digest = order.digest.to_string();
            self.context.out.json(
                &json!({"ok": ok, "name": self.name, "serial": order.said.serial, "digest": digest, "nodes": nodes, "waiting": waiting}),
            );
        }
        Ok(self.results.iter().find_map(|(_, result)| result.as_ref().err()).map_or(0, |failure| failure.code.exit()))
    }
}

/// A node's outcome as people read it.
fn outcome(node: &str, name: &str, state: &State) -> String {
    match (&state.running, &state.version) {
        (Some(running), Some(_)) => {
            let (version, digest) = (escape_control(&running.version), escape_control(&running.digest));
            format!("{node}: {name} {version} ({}) is active", short(&digest))
        }
        (Some(_), None) => format!("{node}: {name} is removed; the one that came with the agent answers"),
        (None, _) => format!("{node}: {name} is removed"),
    }
}

/// `relay pack deploy … --to`.
pub(super) async fn deploy(context: &Context, how: &PackDeploy) -> Result<u8, Failure> {
    let session = context.session().await?;
    // Who is meant is known before a byte is sent: a typing mistake changes nothing anywhere.
    let (mut rollout, release) = match named(&how.pack) {
        Some((name, version)) => {
            let release = known_release(context, &session, name, version).await?;
            let rollout = Rollout::prepare(context, session, name.to_owned(), &how.to).await?;
            (rollout, Release { downgrade: how.downgrade, ..release })
        }
        None => {
            let file = Path::new(&how.pack);
            let name = pack::read(&read(file)?)?.manifest.name;
            let rollout = Rollout::prepare(context, session, name, &how.to).await?;
            let (_, release) = pushed(context, &rollout.session, file, how.downgrade).await?;
            (rollout, release)
        }
    };
    let stated = rollout.ask().await;
    match how.canary {
        Some(share) => canary::first(rollout, stated, release, share, how.health.as_deref()).await,
        None => rollout.finish(Some(release)).await,
    }
}

/// `relay pack rollback PACK --to …`: the same nodes get what they were to have before.
pub(super) async fn rollback(context: &Context, how: &PackOn) -> Result<u8, Failure> {
    let mut rollout = Rollout::prepare(context, context.session().await?, pack_name(&how.first)?, &how.to).await?;
    rollout.ask().await;
    let (name, whom) = (&rollout.name, shown(&rollout.terms));
    let mut sorted = rollout.targets().into_iter().map(|mut target| {
        target.nodes.sort_unstable();
        target
    });
    let Some(target) = sorted.find(|target| target.nodes == rollout.terms) else {
        return Err(Failure::new(Code::BadUsage, format!("no deployment of `{name}` is for {whom}"))
            .hint(format!("`relay pack status {name}` shows for whom there are any")));
    };
    let Some(before) = target.before else {
        return Err(Failure::new(Code::BadUsage, format!("{whom} had no version of `{name}` before"))
            .hint(format!("to take it out: relay pack remove {name} --to {}", how.to.join(" --to "))));
    };
    rollout.finish(Some(Release { downgrade: true, ..before })).await
}

/// `relay pack remove PACK --to …`.
pub(super) async fn remove(context: &Context, how: &PackOn) -> Result<u8, Failure> {
    let mut rollout = Rollout::prepare(context, context.session().await?, pack_name(&how.first)?, &how.to).await?;
    rollout.ask().await;
    rollout.finish(None).await
}

fn pack_name(text: &str) -> Result<String, Failure> {
    match valid_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Failure::new(Code::BadUsage, format!("`{}` is not a pack's name", text.escape_debug()))
            .hint("with --to only the pack is named: relay pack rollback PACK --to role=edge")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::many::Running;
    use super::*;

    #[test]
    fn whom_a_deployment_is_for() {
        let terms_of = |to: &[&str]| terms(&to.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>());
        assert_eq!(terms_of(&["all"]).expect("everybody"), ["*"]);
        assert_eq!(terms_of(&["role=edge", "all"]).expect("everybody"), ["*"]);
        assert_eq!(terms_of(&["role=edge", "bench-1", "bench-1"]).expect("two"), ["bench-1", "role=edge"]);
        assert_eq!(terms_of(&["role=edge,site=west"]).expect("both hold"), ["role=edge,site=west"]);
        for bad in ["", "!x", "role=", "a b", "Bench"] {
            assert_eq!(terms_of(&[bad]).expect_err(bad).code, Code::BadUsage);
        }
        assert_eq!((shown(&["*".into()]), shown(&["a".into(), "b=c".into()])), ("all".to_owned(), "a or b=c".to_owned()));
    }

    #[test]
    fn a_version_by_its_name_and_a_file_by_its_own() {
        assert_eq!(named("thermal@1.2"), Some(("thermal", "1.2")));
        for file in ["thermal.wasm", "./thermal@1.2", "thermal@", "Thermal@1"] {
            assert_eq!(named(file), None, "{file}");
        }
    }

    #[test]
    fn outcomes_as_people_read_them() {
        let running = Running { version: "1.2.0\u{1b}".into(), digest: "ab".repeat(32), ..Running::default() };
        let state = State { running: Some(running), version: Some("1.2.0".into()), ..State::default() };
        assert_eq!(outcome("bench-1", "thermal", &state), "bench-1: thermal 1.2.0\\u{1b} (abababababab) is active");
        assert_eq!(outcome("bench-1", "thermal", &State::default()), "bench-1: thermal is removed");
    }
}
