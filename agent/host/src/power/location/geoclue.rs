//! GeoClue 2, the location service of Linux desktops, on the system's bus. A client of our own for each question; it goes with its
//! connection, and GeoClue stops looking when the last one is gone. What a signal says is not believed, only that it came: anybody on the
//! bus can send one, but only GeoClue answers under its name.

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::{LocationError, Position, Source, nobody, now};
use crate::power::bus::{Address, Bus, BusError, Object, Usual};

const SERVICE: &str = "org.freedesktop.GeoClue2";
const MANAGER: Object<'static> =
    Object { service: SERVICE, path: "/org/freedesktop/GeoClue2/Manager", interface: "org.freedesktop.GeoClue2.Manager" };
const CLIENT: &str = "org.freedesktop.GeoClue2.Client";
const LOCATION: &str = "org.freedesktop.GeoClue2.Location";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Whom GeoClue's own configuration knows this agent as.
const DESKTOP_ID: &str = "outhaul";
/// Levels of accuracy: all that is asked for is what the grant lets through.
const NEIGHBOURHOOD: u32 = 5;
const EXACT: u32 = 8;
/// No place yet.
const NOWHERE: &str = "/";

/// Asks GeoClue for a position.
pub(super) async fn ask(bus: Option<&Address>, coarse: bool, deadline: Instant) -> Result<Position, LocationError> {
    match timeout_at(deadline, locate(bus, coarse)).await {
        Ok(located) => located.map_err(explain),
        Err(_) => Err(LocationError::Failed("GeoClue gave no position in time: it may have no receiver and know no networks here".into())),
    }
}

fn explain(error: BusError) -> LocationError {
    match error {
        BusError::NoBus(why) => nobody(&format!("[location] names no source, and there is no system bus to ask GeoClue on ({why})")),
        BusError::NoService => nobody("[location] names no source, and GeoClue is not installed"),
        BusError::Refused(why) => LocationError::Failed(format!(
            "GeoClue does not let this agent know ({why}); the machine's administrator can add a section [{DESKTOP_ID}] with `allowed=true` \
             to /etc/geoclue/geoclue.conf"
        )),
        BusError::Failed(why) => LocationError::Failed(format!("GeoClue failed: {why}")),
    }
}

async fn locate(address: Option<&Address>, coarse: bool) -> Result<Position, BusError> {
    let bus = Bus::connect(address, Usual::System).await?;
    let path: OwnedObjectPath = bus.call(MANAGER, "GetClient", &()).await?.body().deserialize()?;
    let client = Object { service: SERVICE, path: path.as_str(), interface: CLIENT };
    let level = if coarse { NEIGHBOURHOOD } else { EXACT };
    set(&bus, client, "DesktopId", Variant::from(DESKTOP_ID)).await?;
    set(&bus, client, "RequestedAccuracyLevel", Variant::from(level)).await?;
    let mut moved = bus.signals(client, "LocationUpdated").await?;
    bus.call(client, "Start", &()).await?;
    loop {
        let place: OwnedObjectPath = get(&bus, client, "Location").await?;
        if place.as_str() != NOWHERE {
            return read(&bus, Object { service: SERVICE, path: place.as_str(), interface: LOCATION }).await;
        }
        if moved.next().await.is_none() {
            return Err(BusError::Failed("the bus hung up".into()));
        }
    }
}

async fn read(bus: &Bus, place: Object<'_>) -> Result<Position, BusError> {
    let altitude: f64 = get(bus, place, "Altitude").await?;
    // Seconds and microseconds; older ones do not tell.
    let time = get::<(u64, u64)>(bus, place, "Timestamp").await.map_or_else(|_| now(), |(seconds, _)| seconds);
    Ok(Position {
        latitude: get(bus, place, "Latitude").await?,
        longitude: get(bus, place, "Longitude").await?,
        accuracy: get(bus, place, "Accuracy").await?,
        // The least number there is stands for "unknown".
        altitude: Some(altitude).filter(|metres| *metres > f64::MIN),
        time,
        source: Source::Geoclue,
    })
}

async fn set(bus: &Bus, at: Object<'_>, name: &str, value: Variant<'_>) -> Result<(), BusError> {
    bus.call(Object { interface: PROPERTIES, ..at }, "Set", &(at.interface, name, value)).await.map(drop)
}

async fn get<T>(bus: &Bus, at: Object<'_>, name: &str) -> Result<T, BusError>
where
    T: TryFrom<OwnedVariant>,
{
    let answer = bus.call(Object { interface: PROPERTIES, ..at }, "Get", &(at.interface, name)).await?;
    let value: OwnedVariant = answer.body().deserialize()?;
    T::try_from(value).map_err(|_| BusError::Failed(format!("its `{name}` is of another type than it should be")))
}
