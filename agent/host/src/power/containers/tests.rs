//! Runtimes that hang, never end or lie, played at a socket; and what is judged before any runtime is asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::limits::ATTACHED_PER_CALL;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn grant() -> Grant {
    let grant: Grant = serde_json::from_value(json!({"images": ["busybox:*"]})).expect("a grant");
    Grant { owner: "name-x".into(), ..grant }
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn mount(source: &Path) -> Spec {
    let mount = Mount { source: source.display().to_string(), target: "/d".into(), writable: false };
    Spec { image: "busybox".into(), mounts: vec![mount], ..Spec::default() }
}

/// A grant of folders that are there.
fn mounting(folders: &[&Path]) -> Grant {
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    serde_json::from_value(json!({"images": ["busybox:*"], "mounts": folders})).expect("a grant")
}

#[test]
fn no_amount_of_processors_is_rounded_to_none() {
    for cpus in [1e-10, 1e-5, 0.009, 0.0, f64::MIN_POSITIVE] {
        let spec = Spec { image: "busybox".into(), cpus: Some(cpus), ..Spec::default() };
        assert!(matches!(create::judge("x", &grant(), &[], spec), Err(ContainersError::Failed(_))), "{cpus}");
    }
    let spec = Spec { image: "busybox".into(), cpus: Some(0.01), ..Spec::default() };
    assert_eq!(create::judge("x", &grant(), &[], spec).expect("granted").nano_cpus, 10_000_000);
}

#[test]
fn nothing_is_mounted_that_another_container_could_have_put_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = std::fs::canonicalize(dir.path()).expect("there");
    let at = |name: &str| folder.join(name);
    for name in ["out", "secret", "data"] {
        std::fs::create_dir(at(name)).expect("made");
    }
    // What a container with `out` made of a folder in it, and links of the owner's that lead through there.
    std::os::unix::fs::symlink(at("secret"), at("out/models")).expect("linked");
    std::os::unix::fs::symlink(at("out"), at("way")).expect("linked");
    std::os::unix::fs::symlink("out/models", at("short")).expect("linked");
    std::os::unix::fs::symlink("./../secret", at("data/link")).expect("linked");
    let judged =
        |grant: &Grant, source: &Path| create::judge("x", grant, &[], mount(source)).map(|permitted| permitted.binds[0].source.clone());
    for name in ["out/models", "way/models", "short"] {
        let grant = mounting(&[&at(name)]);
        assert_eq!(judged(&grant, &at(name)), Ok(at("secret")), "{name}: nobody else may write there");
        let grant = Grant { unsteady: vec![at("out")], ..grant };
        let error = judged(&grant, &at(name)).expect_err("others may");
        assert!(matches!(&error, ContainersError::Denied(why) if why.contains("which containers may change")), "{name}: {error}");
    }
    // Nor does such a folder make good what a link in another one leads to.
    let grant = Grant { unsteady: vec![at("out")], ..mounting(&[&at("out/models"), &at("data")]) };
    assert!(matches!(judged(&grant, &at("data/link")), Err(ContainersError::Denied(_))));
    assert_eq!(judged(&mounting(&[&at("secret"), &at("data")]), &at("data/link")), Ok(at("secret")));
    // The folder itself is theirs and may be seen.
    let grant = Grant { unsteady: vec![at("out")], ..mounting(&[&at("out")]) };
    assert_eq!(judged(&grant, &at("out")), Ok(at("out")));
    std::os::unix::fs::symlink("round", at("round")).expect("linked");
    assert!(matches!(judged(&mounting(&[&at("round")]), &at("round")), Err(ContainersError::NotFound(_))));
}

#[test]
fn a_source_that_runtimes_would_read_otherwise_is_never_mounted() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    let folder = std::fs::canonicalize(dir.path()).expect("there");
    let names: [&[u8]; 5] = [b"data,source=x", b"a:b", b"a\nb", b"\xff", b"a b"];
    let grant = mounting(&[&folder]);
    for (number, name) in names.into_iter().enumerate() {
        let real = folder.join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir(&real).expect("made");
        let link = folder.join(format!("link{number}"));
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let judged = create::judge("x", &grant, &[], mount(&link));
        match name == b"a b" {
            true => assert_eq!(judged.expect("plain enough").binds[0].source, real),
            false => assert!(matches!(judged, Err(ContainersError::Denied(why)) if why.contains("no runtime can be told")), "{number}"),
        }
    }
}

/// A runtime that answers each request by its path.
struct Played {
    _folder: tempfile::TempDir,
    containers: Arc<Containers>,
}

impl Played {
    /// `answers` gives what is said, whether it is said again and again, and whether the connection stays.
    fn start(answers: impl Fn(&str) -> (Vec<u8>, Then) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("bound");
        let answers = Arc::new(answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answers)));
            }
        });
        let config = Config { socket: Some(socket), node: "n".into(), ..Config::default() };
        Played { _folder: folder, containers: Containers::new(config, &[7; 32]) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    Hold,
    Repeat,
}

async fn serve(mut stream: UnixStream, answers: Arc<impl Fn(&str) -> (Vec<u8>, Then)>) {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(read @ 1..) => head.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (said, then) = answers(head.lines().next().unwrap_or_default());
    if stream.write_all(&said).await.is_err() {
        return;
    }
    match then {
        Then::Close => {}
        Then::Hold => while matches!(stream.read(&mut piece).await, Ok(1..)) {},
        Then::Repeat => while stream.write_all(&said).await.is_ok() {},
    }
}

fn version() -> Vec<u8> {
    answer(r#"{"ApiVersion":"1.45","Version":"26"}"#).into_bytes()
}

/// A listing with one container of the pack.
fn listing() -> Vec<u8> {
    let name = owned::runtime_name("name-x", "n", "w");
    let labels =
        [(owned::PACK, "name-x"), (owned::NODE, "n"), (owned::NAME, "w"), (owned::GPUS, ""), (owned::CREATED, "1"), (owned::UNTIL, "")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let labels = Sealer::new(&[7; 32]).seal(&name, labels);
    answer(&json!([{"Id": ID, "Names": [format!("/{name}")], "Image": "x", "State": "running", "Labels": labels}]).to_string()).into_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_is_an_error_after_a_while() {
    let played = Played::start(|_| (Vec::new(), Then::Hold));
    let error = played.containers.list(&grant()).await.expect_err("no answer");
    assert_eq!(error, ContainersError::Failed("the container runtime of this machine did not answer within 60 s".into()));
    let half = Played::start(|line| {
        if line.contains("/version") {
            (version(), Then::Close)
        } else {
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[".to_vec(), Then::Hold)
        }
    });
    assert!(matches!(half.containers.list(&grant()).await, Err(ContainersError::Failed(why)) if why.contains("within 60 s")));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let played = Played::start(|line| match line.contains("/version") {
        true => (version(), Then::Close),
        false => (format!("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n[{}", " ".repeat(65_536)).into_bytes(), Then::Repeat),
    });
    let error = played.containers.list(&grant()).await.expect_err("too much");
    assert!(matches!(&error, ContainersError::Failed(why) if why.contains("more than 16 MiB")), "{error}");
    let error = played.containers.images(&grant()).await.expect_err("too much");
    assert!(matches!(&error, ContainersError::Failed(why) if why.contains("more than 16 MiB")), "{error}");
}

/// A log's piece that says it has so many bytes.
fn framed(length: u32, bytes: &[u8]) -> Vec<u8> {
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(),
        format!("{:x}\r\n", bytes.len() + 8).as_bytes(),
        &[1, 0, 0, 0],
        &length.to_be_bytes(),
        bytes,
        b"\r\n",
    ]
    .concat()
}

#[tokio::test]
async fn a_runtime_that_dies_in_the_middle_of_a_log_is_told_from_its_end() {
    let played = Played::start(|line| match line {
        line if line.contains("/version") => (version(), Then::Close),
        line if line.contains("/logs") => (framed(5, b"hello"), Then::Close),
        _ => (listing(), Then::Close),
    });
    let mut streams = played.containers.logs(&Share::default(), &grant(), "w", true, None).await.expect("opened");
    assert_eq!(streams.stdout.recv().await.as_deref(), Some(b"hello".as_slice()));
    assert_eq!((streams.stdout.recv().await, streams.stderr.recv().await), (None, None));
    assert!(matches!(streams.attached.wait().await, Err(ContainersError::Failed(_))));
}

#[tokio::test]
async fn a_piece_of_a_log_is_not_kept_beyond_its_bound() {
    let played = Played::start(|line| match line {
        line if line.contains("/version") => (version(), Then::Close),
        // Four GiB are promised, and come.
        line if line.contains("/logs") => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n\x01\0\0\0\xff\xff\xff\xff".to_vec();
            ([head, vec![b'x'; 65_536]].concat(), Then::Repeat)
        }
        _ => (listing(), Then::Close),
    });
    let mut streams = played.containers.logs(&Share::default(), &grant(), "w", true, None).await.expect("opened");
    assert_eq!(streams.stdout.recv().await, None);
    assert!(matches!(streams.attached.wait().await, Err(ContainersError::Failed(why)) if why.contains("more than 16 MiB")));
}

#[tokio::test]
async fn a_runtime_that_lies_about_what_is_whose_gives_nothing_away() {
    // It lists what was not asked for: another pack's, and one whose labels nobody sealed.
    let played = Played::start(|line| match line.contains("/version") {
        true => (version(), Then::Close),
        false => {
            let labels = json!({"outhaul.pack": "name-x", "outhaul.node": "n", "outhaul.name": "w", "outhaul.seal": "00"});
            let name = owned::runtime_name("name-x", "n", "w");
            let list =
                json!([{"Id": ID, "Names": [format!("/{name}")], "Labels": labels, "State": "running"}, {"Id": "short", "Labels": {}}, {}]);
            (answer(&list.to_string()).into_bytes(), Then::Close)
        }
    });
    assert_eq!(played.containers.list(&grant()).await, Ok(Vec::new()));
    for words in ["w", ID, "short"] {
        assert!(matches!(played.containers.stop("x", &grant(), words, 0).await, Err(ContainersError::NotFound(_))));
    }
}

#[tokio::test]
async fn without_a_runtime_it_is_said_where_one_was_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { socket: Some(folder.path().join("none")), ..Config::default() };
    let error = Containers::new(config, &[7; 32]).list(&grant()).await.expect_err("none");
    assert!(matches!(&error, ContainersError::NoRuntime(why) if why.contains("/none`, which agent.toml names")), "{error}");
    // A socket that nobody listens at any more.
    let socket = folder.path().join("sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let config = Config { socket: Some(socket), ..Config::default() };
    assert!(matches!(Containers::new(config, &[7; 32]).list(&grant()).await, Err(ContainersError::NoRuntime(_))));
}

#[tokio::test]
async fn who_leaves_a_log_leaves_the_runtime() {
    let (tell, mut left) = tokio::sync::mpsc::channel(1);
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&piece[..read]).lines().next().unwrap_or_default().to_owned();
                let said = if line.contains("/version") {
                    version()
                } else if line.contains("/logs") {
                    framed(5, b"hello")
                } else {
                    listing()
                };
                stream.write_all(&said).await.expect("listens");
                if line.contains("/logs") {
                    while matches!(stream.read(&mut piece).await, Ok(1..)) {}
                    let _ = tell.send(()).await;
                }
            });
        }
    });
    let containers = Containers::new(Config { socket: Some(socket), node: "n".into(), ..Config::default() }, &[7; 32]);
    let mut streams = containers.logs(&Share::default(), &grant(), "w", true, None).await.expect("opened");
    assert_eq!(streams.stdout.recv().await.as_deref(), Some(b"hello".as_slice()));
    drop(streams);
    let closed = tokio::time::timeout(Duration::from_secs(30), left.recv()).await;
    assert_eq!(closed.expect("the connection is closed"), Some(()));
}

#[tokio::test]
async fn no_call_takes_every_place_and_what_is_over_gives_its_own_back() {
    let played = Played::start(|line| match line {
        line if line.contains("/version") => (version(), Then::Close),
        line if line.contains("/logs") => (framed(5, b"hello"), Then::Hold),
        _ => (listing(), Then::Close),
    });
    let (share, other) = (Share::default(), Share::default());
    let mut open = Vec::new();
    for _ in 0..ATTACHED_PER_CALL {
        open.push(played.containers.logs(&share, &grant(), "w", true, None).await.expect("opened"));
    }
    let full = played.containers.logs(&share, &grant(), "w", true, None).await.expect_err("one too many");
    assert!(matches!(full, ContainersError::Limit(_)), "{full}");
    assert!(matches!(played.containers.wait(&share, &grant(), "w").await, Err(ContainersError::Limit(_))), "a wait is one too");
    assert!(played.containers.logs(&other, &grant(), "w", true, None).await.is_ok(), "another call has its own");
    assert_eq!(played.containers.list(&grant()).await.map(|list| list.len()), Ok(1), "and what is answered soon needs none");
    drop(open);
    let again = async {
        while played.containers.logs(&share, &grant(), "w", true, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("the places are free again");
}

#[tokio::test]
async fn so_many_connections_are_open_and_more_wait_for_their_turn() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (seen, release) = (Arc::new(AtomicUsize::new(0)), tokio_util::sync::CancellationToken::new());
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let (counted, waits) = (Arc::clone(&seen), release.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (counted, waits) = (Arc::clone(&counted), waits.clone());
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap_or(0);
                let said = if String::from_utf8_lossy(&piece[..read]).contains("/version") {
                    version()
                } else {
                    counted.fetch_add(1, Ordering::SeqCst);
                    waits.cancelled().await;
                    listing()
                };
                let _ = stream.write_all(&said).await;
            });
        }
    });
    let containers = Containers::new(Config { socket: Some(socket), node: "n".into(), ..Config::default() }, &[7; 32]);
    let asked: Vec<_> = (0..RUNTIME_CONNECTIONS + 10)
        .map(|_| {
            let containers = Arc::clone(&containers);
            tokio::spawn(async move { containers.list(&grant()).await })
        })
        .collect();
    let all = async {
        while seen.load(Ordering::SeqCst) < RUNTIME_CONNECTIONS || containers.connections.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("as many as may be");
    assert_eq!(seen.load(Ordering::SeqCst), RUNTIME_CONNECTIONS);
    release.cancel();
    for asked in asked {
        assert_eq!(asked.await.expect("ended").map(|list| list.len()), Ok(1));
    }
}

#[tokio::test]
async fn what_waits_for_its_turn_to_make_a_container_ends_with_its_call() {
    let played = Played::start(|line| match line {
        line if line.contains("/version") => (version(), Then::Close),
        line if line.contains("/images/") => (answer("{}").into_bytes(), Then::Close),
        line => panic!("nothing is made: {line}"),
    });
    let turn = Arc::clone(&played.containers.making).lock_owned().await;
    let spec = || Spec { image: "busybox".into(), ..Spec::default() };
    let (containers, grant) = (Arc::clone(&played.containers), grant());
    let held = Arc::strong_count(&containers);
    let late = tokio::time::timeout(Duration::from_millis(200), containers.run("x", &grant, spec())).await;
    assert!(late.is_err(), "somebody else's turn");
    assert_eq!(Arc::strong_count(&containers), held, "no task goes on");
    drop(turn);
}

#[tokio::test]
async fn nothing_is_mounted_where_the_runtime_does_not_say_what_is_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = std::fs::canonicalize(folder.path()).expect("there");
    for info in [b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(), answer("{}").into_bytes()] {
        let played = Played::start(move |line| match line {
            line if line.contains("/version") => (version(), Then::Close),
            line if line.contains("/info") => (info.clone(), Then::Close),
            line => panic!("nothing is made: {line}"),
        });
        let grant = Grant { owner: "name-x".into(), ..mounting(&[&path]) };
        let ended = played.containers.run("x", &grant, mount(&path)).await;
        assert!(
            matches!(&ended, Err(ContainersError::Failed(why)) if why.contains("refused") || why.contains("does not say")),
            "{ended:?}"
        );
    }
}
