//! `agent pair`: this machine joins a fleet. [`Run`] decides frame by frame and does no I/O; [`pair`] dials, keeps the
//! link alive while somebody makes up their mind, and writes the pins before it says that they are written.
//!
//! One run per code typed: whoever sits in between gets one guess. Nothing is stored until everything was checked.

use std::path::PathBuf;
use std::time::Duration;

use outhaul_home::{Home, Lock};
use outhaul_link::dial::{self, Connected, Identity, Target};
use outhaul_link::tls::Roots;
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Facts, Frame, PAIR_DONE, Role};
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey, X25519Public};
use outhaul_protocol::objects::valid_name;
use outhaul_protocol::pairing::{self, Attempts, Guest, GuestConfirming, PairingError, Proof, Welcomed};
use outhaul_protocol::text::escape_control;
use outhaul_protocol::time::{Clock, Time};
use tokio::time::Instant;

use crate::config::{AgentConfig, FILE};
use crate::edit::ConfigEdit;
use crate::pins::{self, Membership};
use crate::run::{BUILT, unix_now};

/// How long the other side, a program, may take for each step once it has a code.
const STEP: Duration = Duration::from_secs(30);
/// How long a request waits for a person at most, whatever the relay promises.
const APPROVAL: Duration = Duration::from_secs(24 * 3600);
/// How long the relay may take to read our last message before the socket goes.
const LINGER: Duration = Duration::from_secs(1);
/// Characters of a peer's sentence that are repeated to a person.
const SENTENCE: usize = 300;

/// What was typed.
#[derive(Debug, Default)]
pub struct Wish {
    /// The relay; that of `agent.toml` without.
    pub relay: Option<String>,
    /// The code; without one, an operator approves this machine by the digits it shows.
    pub code: Option<String>,
    /// The name it would like.
    pub name: Option<String>,
    /// The fleet's id, told ahead.
    pub fleet: Option<String>,
    /// A PEM file of certificate authorities for `wss://`.
    pub ca: Option<PathBuf>,
    /// Leaves the fleet it belongs to.
    pub replace: bool,
}

/// What happens while a person waits.
#[derive(Debug)]
pub enum News<'a> {
    /// The relay answered.
    Reached {
        /// it
        relay: &'a RelayUrl,
    },
    /// The request waits for an operator.
    Pending {
        /// the request's short name
        request: &'a str,
        /// when it is given up
        expires_at: Time,
        /// what the operator types; none where both ends were told each other's keys
        code: Option<&'a str>,
        /// this machine's id, for an operator who was told it ahead
        node: KeyId,
    },
}

/// A machine that belongs to a fleet now.
#[derive(Debug)]
pub struct Paired {
    /// its id
    pub node: KeyId,
    /// its name, as the operator chose it
    pub name: String,
    /// the fleet
    pub fleet: KeyId,
    /// the relay
    pub relay: RelayUrl,
    /// whether it belonged to this fleet before
    pub again: bool,
    /// whether the relay says that the operator was told; else the operator learns it when `agent run` connects
    pub heard: bool,
}

/// How this machine and the operator know each other.
#[derive(Debug)]
struct Knowledge {
    code: Option<pairing::Code>,
    pin: Option<KeyId>,
    /// 0 asks for approval
    slot: u64,
    /// whether a person here has to show the code to the operator
    shown: bool,
}

impl Knowledge {
    fn of(wish: &Wish) -> Result<Self, Failure> {
        let pin = wish.fleet.as_deref().map(fingerprint).transpose()?;
        let typed = wish.code.as_deref().map(pairing::Code::parse).transpose();
        let typed =
            typed.map_err(|error| Failure::new(Code::BadUsage, error.to_string()).hint("type the code as `relay pair new` shows it"))?;
        Ok(match typed {
            // The first code at a relay shows no slot and has slot 1 there.
            Some(code) => Knowledge { slot: u64::from(code.slot().max(1)), code: Some(code), pin, shown: false },
            None if pin.is_some() => Knowledge { code: None, pin, slot: 0, shown: false },
            None => Knowledge { code: Some(pairing::Code::generate(0)), pin, slot: 0, shown: true },
        })
    }

    fn proof(&self) -> Result<Proof<'_>, Failure> {
        match (&self.code, self.pin) {
            (Some(code), None) => Ok(Proof::Code(code)),
            (Some(code), Some(pin)) => Ok(Proof::Both(code, pin)),
            (None, Some(pin)) => Ok(Proof::Pin(pin)),
            (None, None) => Err(Failure::new(Code::Internal, "a pairing without code and fingerprint")),
        }
    }
}

/// A fleet's id as people copy it.
fn fingerprint(text: &str) -> Result<KeyId, Failure> {
    let digits: String = text.chars().filter(|character| !matches!(character, ' ' | ':' | '-')).collect();
    digits.to_lowercase().parse().map_err(|_| {
        Failure::new(Code::BadUsage, "`--fleet` is not a fleet's id of 64 hexadecimal digits")
            .hint("`relay operator show` prints it; a part of it is not enough to pin a fleet")
    })
}

/// One run of the pairing, decided frame by frame.
struct Run<'a> {
    stage: Stage,
    pairing: Option<u64>,
    key: &'a SecretKey,
    mailbox: X25519Public,
    name: Option<String>,
    /// whether the code is the one shown here
    shown: bool,
    relay: PublicKey,
    clock: &'a mut Clock,
    now: Time,
}

enum Stage {
    Asked(Box<Guest>),
    Confirming(Box<GuestConfirming>),
    Over,
}

/// What a frame leads to.
enum Step {
    Nothing,
    Send(Box<Frame>),
    Pending { request: String, expires_at: Time },
    Welcomed(Box<Welcomed>),
}

impl Run<'_> {
    fn take(&mut self, frame: Frame) -> Result<Step, Failure> {
        match frame {
            Frame::Ping { token } => Ok(Step::Send(Box::new(Frame::Pong { token }))),
            Frame::PairPending { request, expires_at } => Ok(Step::Pending { request, expires_at: Time(expires_at) }),
            Frame::PairMessage { pairing, message } => self.message(pairing, &message.0),
            Frame::PairEnd { code, message, .. } | Frame::Goodbye { code, message } => Err(ended(&code, &message, self.shown)),
            // Newer relays may have more to say to a guest.
            _ => Ok(Step::Nothing),
        }
    }

    fn message(&mut self, pairing: u64, message: &[u8]) -> Result<Step, Failure> {
        if *self.pairing.get_or_insert(pairing) != pairing {
            return Err(Failure::new(Code::BadSignature, "the relay mixes two pairings"));
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asked(guest) => {
                let (confirming, message) = guest.confirm(message, &mut Attempts::typed(), self.key, self.mailbox, self.name.clone())?;
                self.stage = Stage::Confirming(Box::new(confirming));
                Ok(Step::Send(Box::new(Frame::PairMessage { pairing, message: Blob(message) })))
            }
            Stage::Confirming(confirming) => {
                let welcomed = confirming.welcome(message, &self.relay, self.clock, self.now).map_err(unproven)?;
                Ok(Step::Welcomed(Box::new(welcomed)))
            }
            Stage::Over => Err(Failure::new(Code::BadSignature, "the relay sends more than a pairing has")),
        }
    }
}

/// What the other side brought does not hold; where somebody can act, how.
fn unproven(error: PairingError) -> Failure {
    let hint = match &error {
        PairingError::Relay(_) => Some("another relay answers at this address, or the fleet does not list this one: check --relay"),
        PairingError::Pin { .. } => Some("the code belongs to another fleet than --fleet names"),
        _ => None,
    };
    let failure = Failure::from(error);
    hint.map_or(failure.clone(), |hint| failure.hint(hint))
}

/// Why a pairing is over, in the relay's or the operator's words.
fn ended(code: &str, message: &str, shown: bool) -> Failure {
    let code = Code::parse(code).unwrap_or(Code::RelayRefused);
    let message: String = escape_control(message).chars().take(SENTENCE).collect();
    let failure = Failure::new(code, if message.is_empty() { "the pairing was ended by the other side".into() } else { message });
    match code {
        Code::NotPaired if shown => failure.hint("the digits this machine shows are to be typed there; `agent pair` again shows new ones"),
        Code::NotPaired => {
            failure.hint("check the digits and the machine they came from; each code works once, `relay pair new` makes another")
        }
        Code::Expired => failure.hint("codes live for some minutes: make a new one with `relay pair new`"),
        Code::Denied => failure.hint("ask whoever runs that fleet; nothing was stored here"),
        Code::Busy => failure.hint("too many machines are being paired there; try again in a moment"),
        _ => failure,
    }
}

/// A revoked key stays so; the way back is a new one, and the owner's to take.
pub(crate) fn anew(home: &Home, failure: Failure) -> Failure {
    match (failure.code, &failure.hint) {
        (Code::Revoked, None) => failure.hint(format!(
            "it stays so; to come back as a new node, move `{}` away and pair again: agent pair --relay URL --code CODE",
            home.join("agent/agent.key").display()
        )),
        _ => failure,
    }
}

/// The name to ask for: the wish, else `agent.toml`'s, else what the machine calls itself.
fn wished_name(wish: &Wish, config: &AgentConfig, facts: &Facts) -> Result<Option<String>, Failure> {
    if let Some(name) = &wish.name {
        if !valid_name(name) {
            let wanted = "lower-case letters, digits and dashes, at most 63, no dash first";
            return Err(Failure::new(Code::BadUsage, format!("`{}` is not a name: {wanted}", name.escape_debug())));
        }
        return Ok(Some(name.clone()));
    }
    let hostname = facts.get(outhaul_protocol::describe::fact::HOSTNAME).map(|name| sanitised(name));
    Ok(config.name.clone().or(hostname.flatten()))
}

/// A host's name as a node's name: its first part, what does not fit replaced by dashes.
fn sanitised(hostname: &str) -> Option<String> {
    let first = hostname.split('.').next().unwrap_or_default().to_lowercase();
    let plain: String =
        first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(outhaul_protocol::limits::NAME).collect();
    Some(plain.trim_matches('-').to_owned()).filter(|name| valid_name(name))
}

/// Pairs this machine. On return it is on the disk; whether the operator knows is said in [`Paired::heard`]. After an
/// error nothing of the fleet is.
pub async fn pair(home: &Home, wish: &Wish, news: &mut (dyn FnMut(News<'_>) + Send)) -> Result<Paired, Failure> {
    let folder = home.agent()?;
    // A running agent holds the pins in memory and would write the old ones over the new.
    let _lock = Lock::take(&folder.join("lock"), "agent pair")?;
    let config = AgentConfig::load(home)?;
    let knowledge = Knowledge::of(wish)?;
    let facts = crate::facts::gather();
    let name = wished_name(wish, &config, &facts)?;
    let mut target = target(wish, &config)?;
    let (key, _) = outhaul_home::load_or_create_secret_key(&folder.join("agent.key"), SecretKey::generate)?;
    let mailbox = pins::mailbox(home)?.public();
    let mut clock = Clock::new(BUILT, Membership::load(home).ok().and_then(|before| before.clock_floor()));
    target.roots.floor = Some(clock.floor());

    let identity = Identity { role: Role::Guest, key: &key, credential: Blob(Vec::new()), lookup: None };
    // Whoever answers: the operator's signed list says in the end whether this relay is one of the fleet's.
    let mut connected = dial::dial(&target, identity, |_| Ok(())).await?;
    news(News::Reached { relay: &target.url });

    let (guest, join) = Guest::join(knowledge.proof()?);
    let mut run = Run {
        stage: Stage::Asked(Box::new(guest)),
        pairing: None,
        key: &key,
        mailbox,
        name: name.clone(),
        shown: knowledge.shown,
        relay: connected.relay,
        clock: &mut clock,
        now: unix_now(),
    };
    // Somebody has to recognise this machine among those that wait. With a code nobody does: what it is goes sealed.
    let facts = match knowledge.slot {
        0 => facts.into_iter().chain(name.map(|name| ("name".to_owned(), name))).collect(),
        _ => Facts::new(),
    };
    send(&mut connected, Frame::PairJoin { slot: knowledge.slot, message: Blob(join), facts }).await?;
    let welcomed = converse(&mut connected, &mut run, &knowledge, key.id(), news).await.map_err(|failure| anew(home, failure));
    let pairing = run.pairing.unwrap_or_default();
    let kept = welcomed.and_then(|welcomed| Ok((keep(home, wish, &target, key.id(), &welcomed, &clock)?, welcomed)));
    match kept {
        Ok((mut paired, welcomed)) => {
            // It belongs to the fleet now, whatever becomes of the link: a lost last word is no failure.
            let last = Frame::PairMessage { pairing, message: Blob(welcomed.stored()) };
            paired.heard = send(&mut connected, last).await.is_ok() && linger(connected).await;
            Ok(paired)
        }
        Err(failure) => {
            give_up(connected, pairing, failure.code).await;
            Err(failure)
        }
    }
}

fn target(wish: &Wish, config: &AgentConfig) -> Result<Target, Failure> {
    let relay = wish.relay.as_deref().or(config.relay.as_deref());
    let relay = relay.ok_or_else(|| {
        Failure::new(Code::BadUsage, "which relay? none is named").hint("add --relay ws://HOST:8765 or --relay wss://HOST")
    })?;
    let ca = wish.ca.clone().or_else(|| config.ca.clone());
    Ok(Target { url: RelayUrl::parse(relay)?, roots: Roots { ca, floor: None }, allow_plaintext: config.allow_plaintext })
}

async fn send(connected: &mut Connected, frame: Frame) -> Result<(), Failure> {
    connected.socket.send(frame.encode()).await.map_err(|ended| lost(&ended.to_string()))
}

fn lost(why: &str) -> Failure {
    Failure::new(Code::LinkLost, format!("the link to the relay was lost during the pairing: {why}"))
        .hint("nothing was stored; try again with a new code")
}

/// Talks until the welcome stands. Waiting for a person, it shows life; waiting for a program, it has little patience.
async fn converse(
    connected: &mut Connected,
    run: &mut Run<'_>,
    knowledge: &Knowledge,
    node: KeyId,
    news: &mut (dyn FnMut(News<'_>) + Send),
) -> Result<Welcomed, Failure> {
    let mut beat = tokio::time::interval(connected.heartbeat);
    let silence = connected.heartbeat * (outhaul_protocol::limits::HEARTBEATS_MISSED + 1);
    let (mut heard, mut until) = (Instant::now(), Instant::now() + STEP);
    loop {
        let bytes = tokio::select! {
            received = connected.socket.receive() => received.map_err(|ended| lost(&ended.to_string()))?,
            _ = beat.tick() => {
                if heard.elapsed() > silence {
                    return Err(lost("it fell silent"));
                }
                send(connected, Frame::Ping { token: 0 }).await?;
                continue;
            }
            () = tokio::time::sleep_until(until) => {
                return Err(Failure::new(Code::Expired, "nobody answered this pairing in time").hint("is `relay pair new` still waiting there? make a new code"));
            }
        };
        heard = Instant::now();
        let frame = Frame::decode(&bytes)
            .map_err(|error| Failure::new(Code::RelayRefused, format!("the relay sends what is no frame: {error}")))?;
        match run.take(frame)? {
            Step::Nothing => {}
            Step::Send(frame) => {
                if matches!(*frame, Frame::PairMessage { .. }) {
                    until = Instant::now() + STEP;
                }
                send(connected, *frame).await?;
            }
            Step::Pending { request, expires_at } => {
                let request: String = escape_control(&request).chars().take(64).collect();
                let wait = Duration::from_secs(expires_at.since(unix_now())).clamp(STEP, APPROVAL);
                until = Instant::now() + wait;
                let code = knowledge.code.as_ref().filter(|_| knowledge.shown).map(pairing::Code::reveal);
                let code = code.as_ref().map(|code| code.as_str());
                if knowledge.slot == 0 {
                    news(News::Pending { request: &request, expires_at, code, node });
                }
            }
            Step::Welcomed(welcomed) => return Ok(*welcomed),
        }
    }
}

/// Writes what the pairing brought: where the relay is first, and last the pins, which are what counts.
fn keep(home: &Home, wish: &Wish, target: &Target, node: KeyId, welcomed: &Welcomed, clock: &Clock) -> Result<Paired, Failure> {
    let fleet = welcomed.welcome().fleet.id();
    let before = match pins::current_fleet(home) {
        Err(_) if wish.replace => None,
        found => found?,
    };
    if let Some(other) = before.filter(|before| *before != fleet && !wish.replace) {
        let text =
            format!("this machine belongs to fleet {}, and the code is of fleet {}; nothing was changed", other.short(), fleet.short());
        return Err(Failure::new(Code::BadUsage, text).hint("to leave the old fleet, pair again with a new code and --replace"));
    }
    let mut config = ConfigEdit::open(&home.join(FILE))?;
    config.set("relay", &target.url.to_string());
    if let Some(name) = &wish.name {
        config.set("name", name);
    }
    if let Some(ca) = &wish.ca {
        let ca = std::path::absolute(ca).unwrap_or_else(|_| ca.clone());
        config.set("ca", &ca.to_string_lossy());
    }
    let reading = clock.read(unix_now());
    let mut membership = Membership::from_welcome(
        home,
        welcomed.welcome(),
        welcomed.node().clone(),
        welcomed.relays().clone(),
        welcomed.revoked().clone(),
        reading,
    );
    membership.absorb(home)?;
    config.save()?;
    membership.store(home)?;
    let name = membership.labels().name.clone();
    Ok(Paired { node, name, fleet, relay: target.url.clone(), again: before == Some(fleet), heard: false })
}

/// Lets the relay read our last message: a socket closed on unread bytes would take it back. True when it says that it
/// has passed it on.
async fn linger(mut connected: Connected) -> bool {
    let over = async {
        while let Ok(bytes) = connected.socket.receive().await {
            match Frame::decode(&bytes) {
                Ok(Frame::PairEnd { code, .. }) => return code == PAIR_DONE,
                Ok(Frame::Goodbye { .. }) => break,
                _ => {}
            }
        }
        false
    };
    let heard = tokio::time::timeout(LINGER, over).await.unwrap_or(false);
    connected.socket.close().await;
    heard
}

/// Tells the operator that this machine has given up, as far as the link still carries that. The code only: the relay
/// reads it, too.
async fn give_up(mut connected: Connected, pairing: u64, code: Code) {
    let end = Frame::PairEnd { pairing, code: code.as_str().into(), message: format!("the machine gave up: {code}") };
    let _ = tokio::time::timeout(LINGER, connected.socket.send(end.encode())).await;
    connected.socket.close().await;
}

#[cfg(test)]
mod tests;
