use super::*;
use crate::testing::{Fleet, home};
use outhaul_link::accept::Acceptor;
use outhaul_protocol::cbor::Maybe;
use outhaul_protocol::pairing::Maker;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What the other side does with this run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Honest,
    /// knows another code
    WrongCode,
    /// the relay that carries it is none of the fleet's
    ForeignRelay,
    /// ends it in so many words
    Ends(&'static str, &'static str),
    /// closes after the confirmation
    Leaves,
    /// closes when the machine has written everything, and does not say that it passed that on
    LeavesLast,
    /// asks for approval first
    Approves,
}

/// A relay with an operator behind it, in one task, for one pairing. Gives the last message's verdict.
async fn relay(listener: TcpListener, fleet: Arc<Fleet>, code: String, other: Other) -> Result<PublicKey, String> {
    let stray = SecretKey::generate();
    let key = if other == Other::ForeignRelay { &stray } else { &fleet.relay };
    let (tcp, _) = listener.accept().await.map_err(|error| error.to_string())?;
    let (mut socket, proven) = Acceptor { tls: None, origins: vec![] }.accept(tcp, key).await.map_err(|error| error.to_string())?;
    assert_eq!(proven.role, Role::Guest);
    let welcome = Frame::Welcome { session: 1, window: outhaul_protocol::limits::LINK_WINDOW, heartbeat_ms: 15_000, found: Maybe(None) };
    socket.send(welcome.encode()).await.map_err(|ended| ended.to_string())?;
    let next = async |socket: &mut outhaul_link::Socket| loop {
        let frame = Frame::decode(&socket.receive().await.map_err(|ended| ended.to_string())?).map_err(|error| error.to_string())?;
        if !matches!(frame, Frame::Ping { .. }) {
            return Ok::<_, String>(frame);
        }
    };
    let Frame::PairJoin { slot, message, facts } = next(&mut socket).await? else { return Err("no join".into()) };
    assert_eq!(facts.is_empty(), slot != 0, "only who waits to be recognised says in the clear what it is: {facts:?}");
    if let Other::Ends(code, message) = other {
        let end = Frame::PairEnd { pairing: 0, code: code.into(), message: message.into() };
        socket.send(end.encode()).await.map_err(|ended| ended.to_string())?;
        return Err("ended".into());
    }
    if other == Other::Approves {
        assert_eq!(slot, 0);
        let pending = Frame::PairPending { request: "r1".into(), expires_at: unix_now().0 + 60 };
        socket.send(pending.encode()).await.map_err(|ended| ended.to_string())?;
        socket.send(Frame::Ping { token: 7 }.encode()).await.map_err(|ended| ended.to_string())?;
        assert_eq!(next(&mut socket).await?, Frame::Pong { token: 7 });
    }
    // In an approval the operator types what the agent showed: the test reads it from where the agent put it.
    let code = if other == Other::Approves { SHOWN.with(|shown| shown.borrow().clone()) } else { code };
    let code = pairing::Code::parse(if other == Other::WrongCode { "000001" } else { &code }).map_err(|error| error.to_string())?;
    let (maker, answer) = Maker::answer(Proof::Code(&code), &message.0).map_err(|error| error.to_string())?;
    let say = |message: Vec<u8>| Frame::PairMessage { pairing: 9, message: Blob(message) }.encode();
    socket.send(say(answer)).await.map_err(|ended| ended.to_string())?;
    let Frame::PairMessage { message, .. } = next(&mut socket).await? else { return Err("no confirmation".into()) };
    if other == Other::Leaves {
        return Err("left".into());
    }
    let confirmed = match maker.confirm(&message.0, &mut Attempts::shown()) {
        Ok(confirmed) => confirmed,
        Err(error) => {
            let end = Frame::PairEnd { pairing: 9, code: error.code().as_str().into(), message: error.to_string() };
            socket.send(end.encode()).await.map_err(|ended| ended.to_string())?;
            return Err(error.to_string());
        }
    };
    let name = confirmed.offer().name.clone().unwrap_or_default();
    let welcome = fleet.welcome(confirmed.offer().node, confirmed.offer().mailbox, &name);
    let (awaiting, message) = confirmed.welcome(&fleet.owner, &welcome).map_err(|error| error.to_string())?;
    socket.send(say(message)).await.map_err(|ended| ended.to_string())?;
    let Frame::PairMessage { message, .. } = next(&mut socket).await? else { return Err("no last word".into()) };
    if other == Other::LeavesLast {
        return Err("left".into());
    }
    let end = Frame::PairEnd { pairing: 9, code: "done".into(), message: String::new() };
    socket.send(end.encode()).await.map_err(|ended| ended.to_string())?;
    awaiting.stored(&message.0).map_err(|error| error.to_string())
}

thread_local! {
    static SHOWN: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

async fn run(home: &Home, fleet: &Arc<Fleet>, other: Other, wish: Wish) -> (Result<Paired, Failure>, Result<PublicKey, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let wish = Wish { relay: Some(format!("ws://{}", listener.local_addr().expect("bound"))), ..wish };
    let code = wish.code.clone().unwrap_or_default();
    let mut news = |news: News<'_>| {
        if let News::Pending { code, .. } = news {
            SHOWN.with(|shown| *shown.borrow_mut() = code.unwrap_or_default().to_owned());
        }
    };
    tokio::join!(pair(home, &wish, &mut news), relay(listener, fleet.clone(), code, other))
}

fn with_code(code: &str) -> Wish {
    Wish { code: Some(code.into()), name: Some("bench-1".into()), ..Wish::default() }
}

fn nothing_is_stored(home: &Home) {
    assert_eq!(pins::current_fleet(home), Ok(None));
    assert!(!home.join("agent/pins").exists() && !home.join(FILE).exists());
}

#[tokio::test]
async fn the_right_code_pairs_and_both_sides_know() {
    let ((_dir, home), fleet) = (home(), Arc::new(Fleet::new()));
    std::fs::create_dir_all(home.join("agent")).expect("made");
    std::fs::write(home.join(FILE), "# mine\n[limits]\ncalls = 3 # few\n").expect("written");
    let (paired, known) = run(&home, &fleet, Other::Honest, with_code("482 913")).await;
    let paired = paired.expect("paired");
    assert_eq!((paired.name.as_str(), paired.fleet, paired.again, paired.heard), ("bench-1", fleet.id(), false, true));
    assert_eq!(known.expect("the operator was told").id(), paired.node);
    assert_eq!(Membership::load(&home).expect("stored").labels().id, paired.node);
    let text = std::fs::read_to_string(home.join(FILE)).expect("there");
    assert!(text.starts_with("# mine\n") || text.contains("# mine"), "{text}");
    assert!(text.contains("calls = 3 # few") && text.contains(&format!("relay = \"{}\"", paired.relay)), "{text}");
    let (again, _) = run(&home, &fleet, Other::Honest, with_code("482913")).await;
    assert!(again.expect("the same fleet").again);
}

#[tokio::test]
async fn a_last_word_that_is_lost_leaves_a_paired_machine_that_says_so() {
    let ((_dir, home), fleet) = (home(), Arc::new(Fleet::new()));
    let (paired, known) = run(&home, &fleet, Other::LeavesLast, with_code("482913")).await;
    let paired = paired.expect("all is on the disk");
    assert!(!paired.heard && known.is_err());
    assert_eq!(Membership::load(&home).expect("stored").labels().id, paired.node);
}

#[tokio::test]
async fn a_slotted_code_knocks_at_its_slot_and_a_plain_one_at_the_first() {
    for (code, slot) in [("2-482913", 2), ("482913", 1), ("abcde-fghij", 1)] {
        assert_eq!(Knowledge::of(&with_code(code)).expect(code).slot, slot);
    }
    assert_eq!(Knowledge::of(&Wish::default()).expect("approval").slot, 0);
    assert!(Knowledge::of(&with_code("48291")).is_err());
}

#[tokio::test]
async fn approval_shows_digits_that_the_operator_types() {
    let ((_dir, home), fleet) = (home(), Arc::new(Fleet::new()));
    let (paired, known) = run(&home, &fleet, Other::Approves, Wish::default()).await;
    assert_eq!(paired.expect("paired").node, known.expect("told").id());
}

#[tokio::test]
async fn every_failure_has_its_own_words_and_stores_nothing() {
    let fleet = Arc::new(Fleet::new());
    let all = [
        Other::WrongCode,
        Other::ForeignRelay,
        Other::Leaves,
        Other::Ends("expired", "the code has expired"),
        Other::Ends("not_paired", "no code waits at this slot"),
        Other::Ends("denied", "rejected\u{1b}[2J by an operator"),
        Other::Ends("busy", "64 pairings are under way"),
    ];
    let mut said = Vec::new();
    for other in all {
        let (_dir, home) = home();
        let (paired, _) = run(&home, &fleet, other, with_code("482913")).await;
        let failure = paired.expect_err("no pairing");
        // How a socket that is gone shows depends on timing.
        let short = fleet_free(failure.message.split(" pairing: ").next().unwrap_or_default());
        said.push(format!("{} {} ({})\n  {}", failure.code.exit(), short, failure.code, failure.hint.unwrap_or_default()));
        nothing_is_stored(&home);
    }
    insta::assert_snapshot!(said.join("\n"));
}

/// Without key ids, which differ from run to run.
fn fleet_free(text: &str) -> String {
    let hex =
        |word: &str| word.trim_end_matches('…').len() >= 12 && word.trim_end_matches('…').bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split(' ').map(|word| if hex(word) { "KEY" } else { word }).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn another_fleet_needs_to_be_asked_for() {
    let ((_dir, home), first, second) = (home(), Arc::new(Fleet::new()), Arc::new(Fleet::new()));
    run(&home, &first, Other::Honest, with_code("482913")).await.0.expect("paired");
    let (refused, known) = run(&home, &second, Other::Honest, with_code("482913")).await;
    assert_eq!(refused.expect_err("another fleet").code, Code::BadUsage);
    assert!(known.is_err(), "the operator is not told a lie");
    assert_eq!(pins::current_fleet(&home), Ok(Some(first.id())));
    let wish = Wish { replace: true, ..with_code("482913") };
    assert_eq!(run(&home, &second, Other::Honest, wish).await.0.expect("on purpose").fleet, second.id());
    assert_eq!(Membership::load(&home).expect("stored").fleet().id(), second.id());
}

#[tokio::test]
async fn a_fleet_told_ahead_is_the_only_one() {
    let ((_dir, home), fleet) = (home(), Arc::new(Fleet::new()));
    let wish = |id: String| Wish { fleet: Some(id), ..with_code("482913") };
    let (refused, _) = run(&home, &fleet, Other::Honest, wish(Fleet::new().id().to_string())).await;
    assert_eq!(refused.expect_err("another fleet").code, Code::BadKey);
    nothing_is_stored(&home);
    run(&home, &fleet, Other::Honest, wish(fleet.id().to_string().to_uppercase())).await.0.expect("this fleet");
    assert_eq!(fingerprint("abc").expect_err("too short").code, Code::BadUsage);
}

#[test]
fn a_hosts_name_becomes_a_nodes_name() {
    for (host, name) in [("Bench_1.example.org", Some("bench-1")), ("-x-", Some("x")), ("", None), ("é", None)] {
        assert_eq!(sanitised(host).as_deref(), name, "{host}");
    }
}
