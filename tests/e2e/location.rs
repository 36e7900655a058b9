//! Where a machine is: by its owner's word, by Debian's gpsd, and by a service that answers on a real bus as GeoClue does. GeoClue's own
//! daemon wants a receiver or the network, and the tests have neither.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt as _;
use outhaul_tests::seat::{Bus, Gpsd};
use outhaul_tests::stage::{Node, Stage, pack};
use outhaul_tests::tools::skip;
use serde_json::Value as Json;
use zbus::{Connection, Message, MessageStream, ObjectPath, Variant};

/// A machine with the fixture, its owner's settings, and a grant to the fixture.
pub(crate) fn machine(settings: &str, grant: &[&str]) -> Result<(Stage, Node)> {
    let stage = Stage::start()?;
    let mut node = stage.paired("bench-1")?;
    let path = node.file("agent.toml");
    let before = std::fs::read_to_string(&path)?;
    std::fs::write(&path, format!("{before}\n{settings}\n"))?;
    node.start()?;
    stage.run(&["pack", "deploy", pack("fixtures/seat").to_str().context("text")?, "bench-1"])?.ok()?;
    if !grant.is_empty() {
        node.run(&[&["allow", "seat"], grant].concat())?.ok()?;
    }
    Ok((stage, node))
}

pub(crate) fn invoke(stage: &Stage, arguments: &[&str]) -> Result<Json> {
    stage.run(&[&["--json", "invoke", "bench-1"], arguments].concat())?.json()
}

#[test]
fn a_machine_that_stands_still_is_where_its_owner_says() -> Result<()> {
    let (stage, mut node) = machine("[location]\nfixed = { latitude = 52.5163, longitude = 13.3777, accuracy = 5.0 }", &[])?;
    let denied = invoke(&stage, &["seat.where"])?;
    assert_eq!(denied["error"]["code"], "denied", "{denied}");
    assert!(denied.to_string().contains("agent allow seat location"), "{denied}");
    node.run(&["allow", "seat", "location", "--coarse"])?.ok()?;
    let coarse = invoke(&stage, &["seat.where"])?["result"].clone();
    assert_eq!((&coarse["latitude"], &coarse["longitude"]), (&52.5.into(), &13.4.into()));
    assert_eq!((&coarse["accuracy"], &coarse["altitude"], &coarse["source"]), (&10_000.0.into(), &Json::Null, &"fixed".into()));
    node.run(&["deny", "seat", "location"])?.ok()?;
    node.run(&["allow", "seat", "location"])?.ok()?;
    assert_eq!(invoke(&stage, &["seat.where"])?["result"]["latitude"], 52.5163);
    node.agent()?.wait_for("a pack asks where this machine is")?;
    ensure!(!node.agent()?.transcript().contains("52.5"), "a place is never logged");
    Ok(())
}

#[test]
fn gpsd_says_where_a_receiver_is_and_that_it_does_not_know() -> Result<()> {
    const FIX: &[&str] = &[
        "GPGGA,120000.00,5230.978,N,01322.662,E,1,08,0.9,34.0,M,40.0,M,,",
        "GPGSA,A,3,04,05,09,12,24,25,29,31,,,,,1.5,0.9,1.2",
        "GPRMC,120000.00,A,5230.978,N,01322.662,E,0.0,0.0,261126,,,A",
    ];
    let gpsd = match Gpsd::start(FIX)? {
        Ok(gpsd) => gpsd,
        Err(missing) => return skip("gpsd_says_where_a_receiver_is", &missing),
    };
    let (stage, _node) = machine(&format!("[location]\ngpsd = \"{}\"", gpsd.address), &["location"])?;
    let found = invoke(&stage, &["seat.where"])?;
    let place = &found["result"];
    let near = |what: &str, wanted: f64| place[what].as_f64().is_some_and(|value| (value - wanted).abs() < 1e-4);
    ensure!(near("latitude", 52.5163) && near("longitude", 13.3777) && near("altitude", 34.0), "{found}");
    assert_eq!((&place["source"], &place["time"]), (&"gpsd".into(), &1_795_694_400.into()), "{found}");
    ensure!(place["accuracy"].as_f64().is_some_and(|metres| metres > 0.0 && metres < 1_000.0), "{found}");
    drop(gpsd);
    let gone = invoke(&stage, &["seat.where"])?;
    ensure!(gone["error"]["message"].as_str().is_some_and(|why| why.starts_with("unavailable: ") && why.contains("fixed = {")), "{gone}");
    Ok(())
}

/// What a client asked of the service.
#[derive(Debug, Default)]
struct Asked {
    desktop: String,
    level: u32,
    started: bool,
    /// looked for the place before there was one
    early: bool,
}

const CLIENT: &str = "/org/freedesktop/GeoClue2/Client/1";
const PLACE: &str = "/org/freedesktop/GeoClue2/Client/1/Location/0";

/// Answers as GeoClue 2 does: a client, its properties, and a place that is there some time after the start, told by a signal.
async fn geoclue(connection: Connection, mut calls: MessageStream, asked: Arc<Mutex<Asked>>, refuses: bool) -> Result<()> {
    while let Some(call) = calls.next().await {
        let call: Message = call?;
        let header = call.header();
        let member = header.member().map(|name| name.as_str().to_owned()).unwrap_or_default();
        match (header.path().map(|path| path.as_str()).unwrap_or_default(), member.as_str()) {
            (_, "GetClient") => connection.reply(&header, &ObjectPath::try_from(CLIENT)?).await?,
            (CLIENT, "Set") => {
                let body = call.body();
                let (_, name, value): (&str, &str, Variant<'_>) = body.deserialize()?;
                {
                    let mut asked = asked.lock().unwrap();
                    match name {
                        "DesktopId" => asked.desktop = value.downcast()?,
                        "RequestedAccuracyLevel" => asked.level = value.downcast()?,
                        _ => {}
                    }
                }
                connection.reply(&header, &()).await?;
            }
            (CLIENT, "Start") if refuses => {
                connection.reply_error(&header, "org.freedesktop.DBus.Error.AccessDenied", &"not for you").await?;
            }
            (CLIENT, "Start") => {
                asked.lock().unwrap().started = true;
                connection.reply(&header, &()).await?;
            }
            (CLIENT, "Get") => {
                let early = !std::mem::replace(&mut asked.lock().unwrap().early, true);
                let place = ObjectPath::try_from(if early { "/" } else { PLACE })?;
                connection.reply(&header, &Variant::from(place)).await?;
                if early {
                    let (old, new) = (ObjectPath::try_from("/")?, ObjectPath::try_from(PLACE)?);
                    let interface = "org.freedesktop.GeoClue2.Client";
                    connection.emit_signal(None::<&str>, CLIENT, interface, "LocationUpdated", &(old, new)).await?;
                }
            }
            (PLACE, "Get") => {
                let body = call.body();
                let (_, name): (&str, &str) = body.deserialize()?;
                let value = match name {
                    "Latitude" => Variant::from(48.8584),
                    "Longitude" => Variant::from(2.2945),
                    "Accuracy" => Variant::from(25.0),
                    "Altitude" => Variant::from(f64::MIN),
                    _ => Variant::from((1_795_694_400_u64, 0_u64)),
                };
                connection.reply(&header, &value).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts the service on a bus.
async fn serve(bus: &Bus, refuses: bool) -> Result<(tokio::task::JoinHandle<Result<()>>, Arc<Mutex<Asked>>)> {
    let connection = zbus::connection::Builder::address(bus.address.as_str()).build().await?;
    let calls = MessageStream::from(&connection);
    connection.request_name("org.freedesktop.GeoClue2").await?;
    let asked = Arc::<Mutex<Asked>>::default();
    Ok((tokio::spawn(geoclue(connection, calls, Arc::clone(&asked), refuses)), asked))
}

#[test]
fn the_desktops_location_service_is_asked_for_no_more_than_is_granted() -> Result<()> {
    let bus = match Bus::start(None)? {
        Ok(bus) => bus,
        Err(missing) => return skip("the_desktops_location_service_is_asked", &missing),
    };
    let (stage, node) = machine(&format!("[location]\nbus = \"{}\"", bus.address), &["location"])?;
    let nobody = invoke(&stage, &["seat.where"])?;
    ensure!(nobody["error"]["message"].as_str().is_some_and(|why| why.contains("GeoClue is not installed")), "{nobody}");

    let runtime = tokio::runtime::Runtime::new()?;
    let (service, asked) = runtime.block_on(serve(&bus, false))?;
    let found = invoke(&stage, &["seat.where"])?;
    let place = &found["result"];
    assert_eq!((&place["latitude"], &place["longitude"], &place["accuracy"]), (&48.8584.into(), &2.2945.into(), &25.0.into()), "{found}");
    assert_eq!((&place["altitude"], &place["source"], &place["time"]), (&Json::Null, &"geoclue".into(), &1_795_694_400.into()));
    {
        let asked = asked.lock().unwrap();
        assert_eq!((asked.desktop.as_str(), asked.level, asked.started), ("outhaul", 8, true));
    }
    node.run(&["allow", "seat", "location", "--coarse"])?.ok()?;
    let coarse = invoke(&stage, &["seat.where"])?;
    assert_eq!((&coarse["result"]["latitude"], &coarse["result"]["longitude"]), (&48.9.into(), &2.3.into()), "{coarse}");
    assert_eq!(asked.lock().unwrap().level, 5, "not even asked for more");
    service.abort();
    assert!(runtime.block_on(service).is_err_and(|error| error.is_cancelled()));

    let (_service, _) = runtime.block_on(serve(&bus, true))?;
    let refused = invoke(&stage, &["seat.where"])?;
    ensure!(refused["error"]["message"].as_str().is_some_and(|why| why.contains("[outhaul]") && why.contains("geoclue.conf")), "{refused}");
    Ok(())
}
