//! `relay pair`: this end of pairings. The code is made here and never leaves but on the screen; the relay carries the
//! exchange and learns nothing. What a new node is called is certified here, and it is paired when it said that it has
//! written everything down.

mod desk;

use std::time::Duration;

use outhaul_console::interrupts::Interrupts;
use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::describe::fact;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask, Frame, Pending};
use outhaul_protocol::keys::KeyId;
use outhaul_protocol::limits;
use outhaul_protocol::pairing::{Attempts, Code as PairingCode};
use outhaul_protocol::text::escape_control;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::desk::{Desk, Step};
use super::Context;
use super::args::{PairApprove, PairNew};
use super::nodes::publish;
use super::output::table;
use super::time::{ago, span};
use crate::operator::{FINGERPRINT_DIGITS, Known, NameWish, Session, now, revoke, unexpected};

/// How long a machine may take for the exchange once an operator took it up.
const EXCHANGE: Duration = Duration::from_secs(30);
/// `relay pair new`.
pub(super) async fn new(context: &Context, how: &PairNew) -> Result<u8, Failure> {
    let ttl_secs = how.ttl.map_or(limits::CODE_TTL_SECS, |ttl| ttl.as_secs().max(1));
    let mut session = context.session().await?;
    if how.detach {
        return detached(context, &session, ttl_secs, how.name.clone()).await;
    }
    session.dialer.enroller().check()?;
    let mut wish = NameWish { name: how.name.clone(), ..NameWish::default() };
    if let Some(old) = &how.replace {
        wish.replace = Some(session.node(old).await?.known);
    }
    let mut frames = session.link.pairing_frames();
    let mut interrupts = Interrupts::new()?;
    // Each pass is one code.
    for left in (0..limits::CODES).rev() {
        let (slot, ttl) = slot(&session, ttl_secs).await?;
        let code = if how.long { PairingCode::generate_long(slot.shown) } else { PairingCode::generate(slot.shown) };
        show_code(context, &session, &code, ttl);
        let until = Instant::now() + Duration::from_secs(ttl);
        let mut desk = Desk::new(&mut session, Some(&code), None, Attempts::shown(), wish.clone());
        let ended = tokio::select! {
            biased;
            () = interrupts.next() => Err(Failure::new(Code::Cancelled, "cancelled; the code is worth nothing any more")),
            paired = wait(context, &mut desk, &mut frames, until) => paired,
        };
        let ended = ended.map_err(|failure| desk.explain(failure));
        desk.dismiss();
        if !matches!(ended, Err(Failure { code: Code::RelayUnreachable, .. })) {
            // The relay forgets an expired slot by itself; this is courtesy.
            let _ = session.tell(Ask::PairClose { slot: slot.number }).await;
        }
        if let Some(known) = ended? {
            return paired(context, &mut session, *known, wish.replace.as_ref()).await;
        }
        if left > 0 {
            context.out.talk("three wrong tries: that code is worth nothing any more; here is another");
        }
    }
    Err(Failure::new(Code::NotPaired, format!("wrong tries used up {} codes", limits::CODES))
        .hint("somebody may be guessing: the relay's log says who asks to be paired; then make a new code"))
}

struct Slot {
    /// at the relay
    number: u64,
    /// in the code: the first slot shows none
    shown: u16,
}

async fn slot(session: &Session, ttl_secs: u64) -> Result<(Slot, u64), Failure> {
    let Answer::Slot { slot, expires_at } = session.link.ask(Ask::PairNew { ttl_secs }).await? else {
        return Err(unexpected("a slot for a code"));
    };
    let shown = match slot {
        1 => 0,
        slot => u16::try_from(slot).ok().filter(|slot| (2..1000).contains(slot)).ok_or_else(|| unexpected("a slot that can be shown"))?,
    };
    // The relay may allow less than was asked; its clock may differ, and then our own wish counts.
    let allowed = expires_at.saturating_sub(now().0);
    Ok((Slot { number: slot, shown }, if allowed == 0 { ttl_secs } else { allowed.min(ttl_secs) }))
}

fn show_code(context: &Context, session: &Session, code: &PairingCode, ttl: u64) {
    let digits = code.reveal();
    let command = format!("agent pair --relay {} --code {}", session.dialer.url(), *digits);
    context.out.either(|| code_text(&digits, ttl, &command), || json!({"code": *digits, "expires_at": now().0 + ttl, "command": command}));
    context.out.talk("waiting until the machine is paired; Ctrl-C ends the code");
}

fn code_text(code: &str, ttl: u64, command: &str) -> String {
    format!("code     {code}\nexpires  in {}\ncommand  {command}", span(ttl))
}

/// Waits for a machine; none when the code is used up.
async fn wait(
    context: &Context,
    desk: &mut Desk<'_>,
    frames: &mut mpsc::Receiver<Frame>,
    until: Instant,
) -> Result<Option<Box<Known>>, Failure> {
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame.ok_or_else(|| lost(desk.session))?,
            () = tokio::time::sleep_until(until) => return Err(Failure::new(Code::Deadline, "the code expired before a machine was paired").hint("`relay pair new` makes another")),
        };
        match desk.take(frame).await? {
            Step::Nothing => {}
            Step::Paired(known) => return Ok(Some(known)),
            Step::Failed(error) => {
                let left = desk.left();
                let tries = match left {
                    0 => "no try is".to_owned(),
                    1 => "one try is".to_owned(),
                    left => format!("{left} tries are"),
                };
                context.out.talk(&format!("a machine tried and failed: {}; {tries} left", escape_control(&error.to_string())));
                if desk.used_up() {
                    return Ok(None);
                }
            }
        }
    }
}

fn lost(session: &Session) -> Failure {
    let why = session.link.over().unwrap_or_else(|| "it ended".into());
    Failure::new(Code::RelayUnreachable, format!("the link to the relay is over: {why}"))
        .hint("the code ended with it; `relay pair new` makes another")
}

/// Everybody who must know it is told.
async fn paired(context: &Context, session: &mut Session, known: Known, replaced: Option<&Known>) -> Result<u8, Failure> {
    // The machine has stored it: that stays true whatever fails here.
    publish_node(session, &known, replaced).await.map_err(|failure| {
        let message = format!("`{}` ({}) is paired, but {}", known.node.name, known.id().short(), failure.message);
        Failure { message, ..failure }
    })?;
    let text = format!("paired: {} ({})", known.node.name, known.id().short());
    // JSON's one object on stdout was the code.
    if context.out.json {
        context.out.talk(&text)
    } else {
        context.out.data(&text)
    }
    context.out.talk("next, on that machine: agent run");
    Ok(0)
}

async fn publish_node(session: &mut Session, known: &Known, replaced: Option<&Known>) -> Result<(), Failure> {
    session.book.keep(known)?;
    session.tell(Ask::PutCertificate { certificate: Blob(known.certificate.clone()) }).await?;
    if let Some(old) = replaced.filter(|old| old.id() != known.id()) {
        let list = revoke(&session.dialer.room, &session.dialer.fleet, &[old.id()], &[])?;
        publish(session, list).await?;
        session.remove(old.id()).await?;
        session.book.forget(&old.id())?;
    }
    Ok(())
}

async fn detached(context: &Context, session: &Session, ttl_secs: u64, name: Option<String>) -> Result<u8, Failure> {
    let Answer::Code { code, expires_at } = session.link.ask(Ask::PairDetached { ttl_secs, name: Maybe(name) }).await? else {
        return Err(unexpected("a code"));
    };
    let code = PairingCode::parse(&code).map_err(|_| unexpected("a code"))?.reveal();
    let command = format!("agent pair --relay {} --code {}", session.dialer.url(), *code);
    let ttl = expires_at.saturating_sub(now().0);
    context.out.either(|| code_text(&code, ttl, &command), || json!({"code": *code, "expires_at": expires_at, "command": command}));
    context.out.talk("the relay keeps this code and certifies the machine itself");
    Ok(0)
}

async fn pendings(session: &Session) -> Result<Vec<Pending>, Failure> {
    match session.link.ask(Ask::PairList {}).await? {
        Answer::Pendings { pendings } => Ok(pendings),
        _ => Err(unexpected("the pending requests")),
    }
}

/// The name a waiting machine gives itself; nothing of it is proven.
fn given_name(pending: &Pending) -> &str {
    let facts = &pending.facts;
    facts.get("name").or_else(|| facts.get(fact::HOSTNAME)).map_or("-", String::as_str)
}

/// `relay pair list`.
pub(super) async fn list(context: &Context) -> Result<u8, Failure> {
    let session = context.session().await?;
    let all = pendings(&session).await?;
    if all.is_empty() && !context.out.json {
        context.out.talk("nobody waits");
    }
    context.out.either(|| pendings_text(&all, now().0), || all.iter().map(pending_json).collect());
    Ok(0)
}

fn pendings_text(all: &[Pending], now: u64) -> String {
    let row = |pending: &Pending| {
        let fingerprint = pending.key.id().to_string()[..FINGERPRINT_DIGITS].to_owned();
        let platform = pending.facts.get(fact::PLATFORM).map_or("-", String::as_str).to_owned();
        vec![pending.request.clone(), given_name(pending).to_owned(), fingerprint, platform, ago(pending.asked_at, now)]
    };
    match all {
        [] => String::new(),
        all => table(&["REQUEST", "NAME", "FINGERPRINT", "PLATFORM", "ASKED"], &all.iter().map(row).collect::<Vec<_>>()),
    }
}

fn pending_json(pending: &Pending) -> Json {
    json!({
        "request": pending.request,
        "name": given_name(pending),
        "fingerprint": pending.key.id().to_string(),
        "facts": pending.facts,
        "asked_at": pending.asked_at,
        "expires_at": pending.expires_at,
    })
}

/// The one that is meant: its request or the start of it, else the name it gave.
fn choose<'p>(all: &'p [Pending], text: &str) -> Result<&'p Pending, Failure> {
    let by = |fits: &dyn Fn(&Pending) -> bool| all.iter().filter(|pending| fits(pending)).collect::<Vec<_>>();
    let exact = by(&|pending| pending.request == text);
    let named = by(&|pending| given_name(pending) == text);
    let begun = by(&|pending| !text.is_empty() && pending.request.starts_with(text));
    let found = [exact, named, begun].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            Err(Failure::new(Code::BadUsage, format!("nobody waits as `{}`", text.escape_debug())).hint("`relay pair list` shows who does"))
        }
        _ => Err(Failure::new(Code::BadUsage, format!("several machines wait as `{}`", text.escape_debug()))
            .hint("name one by its request; compare fingerprints")),
    }
}

/// `relay pair approve`.
pub(super) async fn approve(context: &Context, how: &PairApprove) -> Result<u8, Failure> {
    let mut session = context.session().await?;
    session.dialer.enroller().check()?;
    let all = pendings(&session).await?;
    let pending = choose(&all, &how.request)?;
    let pin = how.node.as_deref().map(|text| pin(pending, text)).transpose()?;
    let code = match (&how.code, pin) {
        (Some(digits), _) => Some(digits.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(ask_digits(context, pending).await?),
    };
    let code =
        code.map(|digits| PairingCode::parse(&digits)).transpose().map_err(|error| Failure::new(Code::BadUsage, error.to_string()))?;
    let wish = NameWish { name: how.name.clone(), ..NameWish::default() };
    let mut frames = session.link.pairing_frames();
    session.tell(Ask::PairTake { request: pending.request.clone() }).await?;
    let mut desk = Desk::new(&mut session, code.as_ref(), pin, Attempts::typed(), wish);
    let ended = exchange(&mut desk, &mut frames).await.map_err(|failure| desk.explain(failure));
    if ended.is_err() {
        // What was said to the machine is on its way when this is answered.
        let _ = session.link.ask(Ask::Status {}).await;
    }
    paired(context, &mut session, *ended?, None).await?;
    if context.out.json {
        context.out.json(&json!({"ok": true}));
    }
    Ok(0)
}

/// One run with the machine that was taken up.
async fn exchange(desk: &mut Desk<'_>, frames: &mut mpsc::Receiver<Frame>) -> Result<Box<Known>, Failure> {
    let until = Instant::now() + EXCHANGE;
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame.ok_or_else(|| lost(desk.session))?,
            () = tokio::time::sleep_until(until) => return Err(Failure::new(Code::Deadline, "the machine did not answer").hint("is `agent pair` still waiting there?")),
        };
        let over = match &frame {
            Frame::PairEnd { message, .. } => {
                Some(Failure::new(Code::NotPaired, format!("the pairing ended early: {}", escape_control(message))))
            }
            _ => None,
        };
        let step = desk.take(frame).await?;
        if let Some(failure) = over {
            return Err(failure);
        }
        match step {
            Step::Nothing => {}
            Step::Paired(known) => return Ok(known),
            Step::Failed(error) => {
                return Err(Failure::from(error).hint("that machine must ask again: `agent pair` there shows new digits"));
            }
        }
    }
}

/// The whole fingerprint of a request whose start was told ahead.
fn pin(pending: &Pending, text: &str) -> Result<KeyId, Failure> {
    let (text, id) = (text.to_ascii_lowercase(), pending.key.id());
    if text.len() < FINGERPRINT_DIGITS {
        return Err(Failure::new(Code::BadUsage, format!("`--node` needs at least {FINGERPRINT_DIGITS} digits of the fingerprint")));
    }
    match id.to_string().starts_with(&text) {
        true => Ok(id),
        false => Err(Failure::new(Code::BadKey, format!("the machine that waits shows {id}, `--node` is another"))
            .hint("somebody else may be asking in its name")),
    }
}

async fn ask_digits(context: &Context, pending: &Pending) -> Result<String, Failure> {
    context.out.talk(&format!(
        "{} ({}) wants in; type the digits it shows:",
        escape_control(given_name(pending)),
        &pending.key.id().to_string()[..FINGERPRINT_DIGITS]
    ));
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    match line.await {
        Ok(Ok(line)) if !line.trim().is_empty() => Ok(line.trim().to_owned()),
        _ => Err(Failure::new(Code::BadUsage, "no digits were given").hint("type them, or name them with `--code`")),
    }
}

/// `relay pair reject`.
pub(super) async fn reject(context: &Context, text: &str) -> Result<u8, Failure> {
    let session = context.session().await?;
    let all = pendings(&session).await?;
    let pending = choose(&all, text)?;
    session.tell(Ask::PairReject { request: pending.request.clone() }).await?;
    context.out.either(
        || format!("rejected: {} ({})", pending.request, escape_control(given_name(pending))),
        || json!({"ok": true, "request": pending.request}),
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::SecretKey;

    fn pending(request: &str, hostname: &str) -> Pending {
        let facts =
            [(fact::HOSTNAME, hostname), (fact::PLATFORM, "linux-x86_64")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Pending { request: request.into(), key: SecretKey::from_bytes(&[3; 32]).public(), facts, asked_at: 100, expires_at: 400 }
    }

    #[test]
    fn a_code_is_shown_with_the_command_to_paste() {
        insta::assert_snapshot!(code_text("482913", 300, "agent pair --relay ws://127.0.0.1:8765 --code 482913"), @r"
        code     482913
        expires  in 5 min
        command  agent pair --relay ws://127.0.0.1:8765 --code 482913
        ");
    }

    #[test]
    fn who_waits() {
        insta::assert_snapshot!(pendings_text(&[pending("k7", "bench\u{1b}"), pending("k8", "pi")], 130), @r"
        REQUEST  NAME         FINGERPRINT           PLATFORM      ASKED
        k7       bench\u{1b}  b62e867fa2f33afe62d5  linux-x86_64  30 s ago
        k8       pi           b62e867fa2f33afe62d5  linux-x86_64  30 s ago
        ");
        assert_eq!(pendings_text(&[], 1), "");
    }

    #[test]
    fn a_request_is_found_by_itself_its_name_or_its_start() {
        let all = [pending("k7a", "bench"), pending("k7b", "pi"), pending("q1", "pi")];
        for (text, request) in [("k7a", "k7a"), ("bench", "k7a"), ("q", "q1")] {
            assert_eq!(choose(&all, text).expect(text).request, request);
        }
        for text in ["pi", "k7", "", "zzz"] {
            assert_eq!(choose(&all, text).expect_err(text).code, Code::BadUsage);
        }
    }

    #[test]
    fn a_fingerprint_needs_twenty_digits_and_must_fit() {
        let (pending, id) = (pending("k", "x"), SecretKey::from_bytes(&[3; 32]).id());
        assert_eq!(pin(&pending, &id.to_string()[..20]).expect("fits"), id);
        assert_eq!(pin(&pending, &id.to_string()[..19]).expect_err("short").code, Code::BadUsage);
        assert_eq!(pin(&pending, &"0".repeat(20)).expect_err("other").code, Code::BadKey);
    }
}
