//! The `location` power: where this machine is, by its owner's word, by gpsd, or by the desktop's location service, in that order; the
//! first that is there is the only one asked. Coarse positions are rounded here, so that a pack has nothing to undo.
//!
//! Nothing is kept but the cell that coarse positions were last in, and no position is ever logged.

mod coarse;
mod geoclue;
mod gpsd;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::bus::Address;
use super::shown;
use crate::limits::{LOCATION_ASKING as ASKING, LOCATION_PATIENCE as PATIENCE};

/// What one pack may know: `location = true` or `location = { coarse = true }` of `agent.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// To a tenth of a degree only.
    pub coarse: bool,
}

/// `[location]` of `agent.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the machine stands, by its owner's word; nobody else is asked then.
    pub fixed: Option<Fixed>,
    /// Where gpsd listens: `127.0.0.1:2947`.
    #[serde(deserialize_with = "socket")]
    pub gpsd: Option<SocketAddr>,
    /// The bus that GeoClue is on, instead of the system's.
    pub bus: Option<Address>,
    /// How long a source may take, instead of the usual time.
    #[serde(skip)]
    pub patience: Option<Duration>,
}

/// A place by somebody's word.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Fixed {
    latitude: f64,
    longitude: f64,
    accuracy: f64,
    altitude: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "{ latitude = 52.5, longitude = 13.4 }")]
struct Written {
    latitude: f64,
    longitude: f64,
    accuracy: Option<f64>,
    altitude: Option<f64>,
}

/// Metres where the owner names none: a yard with its buildings.
const FIXED_ACCURACY: f64 = 100.0;

impl TryFrom<Written> for Fixed {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        let Written { latitude, longitude, accuracy, altitude } = written;
        let fixed = Fixed { latitude, longitude, accuracy: accuracy.unwrap_or(FIXED_ACCURACY), altitude };
        fixed.now().checked().map(|_| fixed)
    }
}

fn socket<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let wanted = "an address and a port, such as 127.0.0.1:2947";
    text.parse().map(Some).map_err(|_| de::Error::custom(format!("`{}` is not {wanted}", shown(&text))))
}

impl Fixed {
    fn now(self) -> Position {
        let Fixed { latitude, longitude, accuracy, altitude } = self;
        Position { latitude, longitude, accuracy, altitude, time: now(), source: Source::Fixed }
    }
}

/// Who says where the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Its owner.
    Fixed,
    /// A receiver of satellites.
    Gpsd,
    /// The desktop's location service.
    Geoclue,
}

/// A place on earth, WGS 84.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Position {
    /// Degrees to the north.
    pub latitude: f64,
    /// Degrees to the east.
    pub longitude: f64,
    /// Metres.
    pub accuracy: f64,
    /// Metres above the sea.
    pub altitude: Option<f64>,
    /// Unix seconds.
    pub time: u64,
    /// Who says so.
    pub source: Source,
}

impl Position {
    /// Itself, when there is such a place; else what is wrong with it.
    fn checked(self) -> Result<Self, String> {
        let within = |value: f64, most: f64| value.is_finite() && value.abs() <= most;
        if !within(self.latitude, 90.0) {
            return Err(format!("a latitude of {} is none: it goes from -90 to 90 degrees", self.latitude));
        }
        if !within(self.longitude, 180.0) {
            return Err(format!("a longitude of {} is none: it goes from -180 to 180 degrees", self.longitude));
        }
        // Half the way around the earth: whoever knows no better knows nothing.
        if !within(self.accuracy, 20_037_508.0) || self.accuracy < 0.0 {
            return Err(format!("an accuracy of {} metres is none", self.accuracy));
        }
        if self.altitude.is_some_and(|metres| !within(metres, 100_000.0)) {
            return Err("an altitude is given in metres above the sea, and stays below 100 km".into());
        }
        Ok(self)
    }
}

/// Why there is no position. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocationError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// There is nobody to ask.
    #[error("{0}")]
    Unavailable(String),
    /// Who was asked does not know, or makes no sense.
    #[error("{0}")]
    Failed(String),
}

/// Finds out where the machine is.
#[derive(Debug)]
pub struct Finder {
    config: Config,
    cell: coarse::Cell,
    asking: Semaphore,
}

impl Finder {
    /// Asks whom the configuration names.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Finder { config, cell: coarse::Cell::default(), asking: Semaphore::new(ASKING) }
    }

    /// Where the machine is, as far as the grant goes.
    pub async fn get(&self, pack: &str, grant: Grant) -> Result<Position, LocationError> {
        tracing::info!(pack, coarse = grant.coarse, "a pack asks where this machine is");
        let found = self.find(grant).await?.checked().map_err(LocationError::Failed)?;
        Ok(if grant.coarse { self.cell.round(found) } else { found })
    }

    async fn find(&self, grant: Grant) -> Result<Position, LocationError> {
        if let Some(fixed) = self.config.fixed {
            return Ok(fixed.now());
        }
        let deadline = Instant::now() + self.config.patience.unwrap_or(PATIENCE);
        let busy = || LocationError::Failed("other calls are asking already, and none was answered in time".into());
        let _turn = timeout_at(deadline, self.asking.acquire()).await.map_err(|_| busy())?;
        match self.config.gpsd {
            Some(address) => gpsd::ask(address, deadline).await,
            None => geoclue::ask(self.config.bus.as_ref(), grant.coarse, deadline).await,
        }
    }
}

/// What an owner can do where nobody knows.
fn nobody(tried: &str) -> LocationError {
    LocationError::Unavailable(format!(
        "nothing on this machine says where it is: {tried}; its owner can write under [location] in agent.toml \
         `fixed = {{ latitude = …, longitude = … }}` or, where gpsd runs, `gpsd = \"127.0.0.1:2947\"`"
    ))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
