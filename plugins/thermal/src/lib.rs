//! Pack `thermal`: `thermal.summary`, `thermal.read`. The example of a pack that an agent has never seen: not embedded,
//! deployed while it runs. Where a machine has no sensor it says so; it never makes up a temperature.

wit_bindgen::generate!({
    path: ["../../wit/v0.1/host", "wit"],
    world: "outhaul:thermal/thermal-pack",
    generate_all,
});

use exports::outhaul::thermal::thermal::{Guest, Overview, Sensor, ThermalError};
use outhaul::host::log::{self, Level};
use outhaul::host::system::{self, SystemError};

struct Pack;

impl Guest for Pack {
    fn summary() -> Result<Overview, ThermalError> {
        let facts = system::read()?;
        Ok(Overview {
            hottest: hottest(sensors()?),
            load: facts.load,
            uptime: facts.uptime,
        })
    }

    fn read(zone: Option<String>) -> Result<Vec<Sensor>, ThermalError> {
        let all = sensors()?;
        let known = all
            .iter()
            .map(|sensor| sensor.label.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let zone = zone.unwrap_or_default();
        let found: Vec<_> = all
            .into_iter()
            .filter(|sensor| matches(&sensor.label, &zone))
            .collect();
        match (found.is_empty(), known.is_empty()) {
            (false, _) => Ok(found),
            (true, true) => Err(ThermalError::NoSensor(
                "this machine has no temperature sensor".into(),
            )),
            (true, false) => Err(ThermalError::NoSensor(format!(
                "no sensor is called `{zone}`; there are: {known}"
            ))),
        }
    }
}

/// What the machine's sensors say. One that says nothing a number can hold is left out, and the log says so.
fn sensors() -> Result<Vec<Sensor>, ThermalError> {
    let (readable, broken): (Vec<_>, Vec<_>) = system::sensors()?
        .into_iter()
        .partition(|sensor| sensor.celsius.is_finite());
    for sensor in broken {
        log::write(
            Level::Warn,
            &format!("sensor `{}` has no reading", sensor.label),
        );
    }
    Ok(readable)
}

fn hottest(sensors: Vec<Sensor>) -> Option<Sensor> {
    sensors
        .into_iter()
        .max_by(|a, b| a.celsius.total_cmp(&b.celsius))
}

fn matches(label: &str, zone: &str) -> bool {
    label
        .to_ascii_lowercase()
        .contains(&zone.to_ascii_lowercase())
}

impl From<SystemError> for ThermalError {
    fn from(error: SystemError) -> Self {
        match error {
            SystemError::Denied(why) => Self::Denied(why),
            SystemError::Failed(why) => Self::Failed(why),
        }
    }
}

export!(Pack);
