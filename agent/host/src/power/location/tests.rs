//! Sources that are not there, say nothing, or mean no good. A real gpsd and a bus are in the end-to-end tests.

use std::future::Future;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const VERSION: &str = "{\"class\":\"VERSION\",\"release\":\"3.22\",\"rev\":\"3.22\",\"proto_major\":3,\"proto_minor\":14}\r\n";
const EXACT: Grant = Grant { coarse: false };
const PATIENT: Duration = Duration::from_secs(20);

fn finder(config: Config) -> Finder {
    Finder::new(config)
}

fn toml(text: &str) -> Result<Config, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Asks a gpsd that is played by a function, with so much patience.
async fn played<F: Future<Output = ()>>(patience: Duration, play: impl FnOnce(TcpStream) -> F) -> Result<Position, LocationError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let finder = finder(Config { gpsd: listener.local_addr().ok(), patience: Some(patience), ..Config::default() });
    let play = async {
        let (mut stream, _) = listener.accept().await.expect("somebody asks");
        let mut watch = [0; 36];
        stream.read_exact(&mut watch).await.expect("a subscription");
        assert_eq!(&watch, b"?WATCH={\"enable\":true,\"json\":true};\n");
        play(stream).await;
        std::future::pending().await
    };
    tokio::select! {
        found = finder.get("p", EXACT) => found,
        never = play => never,
    }
}

/// The same for one that says its lines, then hangs up or says nothing more.
async fn says(patience: Duration, lines: &[&str], hangs_up: bool) -> Result<Position, LocationError> {
    let lines = lines.concat();
    played(patience, async move |mut stream: TcpStream| {
        stream.write_all(lines.as_bytes()).await.expect("heard");
        if !hangs_up {
            std::future::pending::<()>().await;
        }
    })
    .await
}

fn failure(found: Result<Position, LocationError>) -> String {
    match found {
        Err(LocationError::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_fixed_place_is_its_owners_word_and_coarse_is_rounded_here() {
    let finder = finder(toml(r#"{"fixed": {"latitude": 52.5163, "longitude": 13.3777, "accuracy": 5, "altitude": 34}}"#).expect("read"));
    let exact = finder.get("p", EXACT).await.expect("known");
    assert_eq!((exact.latitude, exact.longitude, exact.accuracy), (52.5163, 13.3777, 5.0));
    assert_eq!((exact.altitude, exact.source), (Some(34.0), Source::Fixed));
    let coarse = finder.get("p", Grant { coarse: true }).await.expect("known");
    assert_eq!((coarse.latitude, coarse.longitude, coarse.accuracy, coarse.altitude), (52.5, 13.4, 10_000.0, None));
}

#[test]
fn a_place_that_is_none_is_refused_in_the_file() {
    for wrong in [
        r#"{"fixed": {"latitude": 91, "longitude": 0}}"#,
        r#"{"fixed": {"latitude": 0, "longitude": -180.1}}"#,
        r#"{"fixed": {"latitude": 0, "longitude": 0, "accuracy": -1}}"#,
        r#"{"fixed": {"latitude": 0, "longitude": 0, "accuracy": 1e300}}"#,
        r#"{"fixed": {"latitude": 0}}"#,
        r#"{"fixed": {"latitude": 0, "longitude": 0, "height": 1}}"#,
        r#"{"gpsd": "localhost"}"#,
        r#"{"gpsd": 2947}"#,
        r#"{"bus": "tcp:host=example.org"}"#,
        r#"{"patience": 1}"#,
    ] {
        assert!(toml(wrong).is_err(), "{wrong}");
    }
    assert!(toml(r#"{"fixed": {"latitude": -90, "longitude": 180}, "gpsd": "[::1]:2947"}"#).is_ok());
}

#[tokio::test]
async fn a_report_with_a_fix_is_a_position() {
    let tpv = "{\"class\":\"TPV\",\"device\":\"/dev/ttyS0\",\"mode\":3,\"time\":\"2026-11-26T00:30:00.500Z\",\"lat\":52.5163,\"lon\":-13.3777,\
               \"alt\":80.1,\"altHAE\":80.1,\"altMSL\":34.5,\"epx\":3.0,\"epy\":4.0,\"speed\":0.1}\n";
    let found = says(PATIENT, &[VERSION, "{\"class\":\"DEVICES\",\"devices\":[]}\n", tpv], false).await.expect("a fix");
    let wanted =
        Position { latitude: 52.5163, longitude: -13.3777, accuracy: 5.0, altitude: Some(34.5), time: 1_795_653_000, source: Source::Gpsd };
    assert_eq!(found, wanted);
    let flat = "{\"class\":\"TPV\",\"mode\":2,\"lat\":1.5,\"lon\":2.5,\"alt\":80.1,\"eph\":7}\n";
    let found = says(PATIENT, &[VERSION, flat], false).await.expect("a fix");
    assert_eq!((found.latitude, found.accuracy, found.altitude), (1.5, 7.0, None));
    let bare = "{\"class\":\"TPV\",\"mode\":2,\"lat\":1.5,\"lon\":2.5}\n";
    assert_eq!(says(PATIENT, &[bare], false).await.expect("a fix").accuracy, 100.0);
}

#[tokio::test]
async fn a_receiver_without_a_fix_is_waited_for_and_then_named() {
    let (none, fix) = ("{\"class\":\"TPV\",\"mode\":1}\n", "{\"class\":\"TPV\",\"mode\":2,\"lat\":1,\"lon\":2,\"eph\":3}\n");
    assert!(says(PATIENT, &[VERSION, none, none, fix], false).await.is_ok());
    let soon = Duration::from_millis(200);
    assert!(failure(says(soon, &[VERSION, none], false).await).ends_with("does not know where it is yet"));
    assert!(failure(says(soon, &[VERSION], false).await).ends_with("has no receiver that reports"));
    assert!(failure(says(soon, &[], false).await).ends_with("says nothing"));
    // Half a position is none, and one that cannot be is an error.
    assert!(failure(says(soon, &["{\"class\":\"TPV\",\"mode\":3,\"lat\":1}\n"], false).await).ends_with("yet"));
    assert!(failure(says(PATIENT, &["{\"class\":\"TPV\",\"mode\":3,\"lat\":1e9,\"lon\":0}\n"], false).await).contains("latitude"));
}

#[tokio::test]
async fn what_is_no_gpsd_is_given_up_at_once() {
    assert!(failure(says(PATIENT, &["SSH-2.0-OpenSSH_9.2\r\n"], false).await).ends_with("does not speak as gpsd does"));
    assert!(failure(says(PATIENT, &["{\"klass\":\"TPV\"}\n"], false).await).ends_with("does not speak as gpsd does"));
    assert!(failure(says(PATIENT, &[VERSION], true).await).ends_with("hung up"));
    assert!(failure(says(PATIENT, &["{\"class\":"], true).await).ends_with("in the middle of a line"));
    let refusal = "{\"class\":\"ERROR\",\"message\":\"Too many \\u001b[2J subscribers\"}\n";
    assert!(failure(says(PATIENT, &[refusal], false).await).ends_with("refuses: Too many \\u{1b}[2J subscribers"));
}

#[tokio::test]
async fn neither_a_line_nor_their_number_is_endless() {
    let flood =
        |piece: &'static str| played(PATIENT, async move |mut stream: TcpStream| while stream.write_all(piece.as_bytes()).await.is_ok() {});
    assert!(failure(flood("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx").await).contains("lines of more than"));
    assert!(failure(flood("{\"class\":\"SKY\"}\n").await).contains("reports without a position"));
}

#[tokio::test]
async fn where_nobody_can_be_asked_the_owner_is_told_what_to_write() {
    let nobody = |found: Result<Position, LocationError>| match found {
        Err(LocationError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    };
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let why = nobody(finder(Config { gpsd: Some(free), ..Config::default() }).get("p", EXACT).await);
    assert!(why.contains(&free.to_string()) && why.contains("fixed = {"), "{why}");
    let dir = tempfile::tempdir().expect("a folder");
    let bus = |name: &str| Address::try_from(format!("unix:path={}", dir.path().join(name).display())).ok();
    let why = nobody(finder(Config { bus: bus("none"), ..Config::default() }).get("p", EXACT).await);
    assert!(why.contains("no system bus") && why.contains("[location]"), "{why}");
    let _silent = tokio::net::UnixListener::bind(dir.path().join("silent")).expect("bound");
    let silent = Config { bus: bus("silent"), patience: Some(Duration::from_millis(200)), ..Config::default() };
    assert!(failure(finder(silent).get("p", EXACT).await).contains("no position in time"));
}
