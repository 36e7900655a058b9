//! gpsd's protocol: lines of JSON over TCP. A subscription is one line, then reports come until somebody hangs up. Lines, their number and
//! the time are bounded: whoever listens there may be anybody.

use std::net::SocketAddr;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{LocationError, Position, Source, nobody, now};
use crate::limits::{GPSD_LINE as LINE, GPSD_LINES as LINES};

const WATCH: &[u8] = b"?WATCH={\"enable\":true,\"json\":true};\n";
/// Metres of a receiver that does not say how far it may be off: what one among buildings is.
const UNKNOWN_ERROR: f64 = 100.0;

/// What of a report counts here. A receiver leaves out what it does not know.
#[derive(Deserialize)]
struct Report {
    class: String,
    mode: Option<u8>,
    lat: Option<f64>,
    lon: Option<f64>,
    /// Above the sea: newer ones.
    #[serde(rename = "altMSL")]
    above_sea: Option<f64>,
    /// The same of older ones.
    alt: Option<f64>,
    eph: Option<f64>,
    epx: Option<f64>,
    epy: Option<f64>,
    time: Option<String>,
    message: Option<String>,
}

/// What came of listening so far; told when time is up.
#[derive(Clone, Copy)]
enum Heard {
    Nothing,
    Gpsd,
    NoFix,
}

/// Asks the gpsd at an address for a position.
pub(super) async fn ask(address: SocketAddr, deadline: Instant) -> Result<Position, LocationError> {
    let failed = |why: &str| LocationError::Failed(format!("gpsd at {address} {why}"));
    let mut heard = Heard::Nothing;
    let connected = timeout_at(deadline, TcpStream::connect(address)).await.map_err(|_| failed("does not answer"))?;
    let stream = connected.map_err(|error| nobody(&format!("gpsd at {address} cannot be reached ({error})")))?;
    match timeout_at(deadline, listen(stream, &mut heard)).await {
        Ok(Ok(position)) => Ok(position),
        Ok(Err(why)) => Err(failed(&why)),
        Err(_) => Err(failed(match heard {
            Heard::Nothing => "accepts a connection and says nothing",
            Heard::Gpsd => "has no receiver that reports",
            Heard::NoFix => "has a receiver that does not know where it is yet",
        })),
    }
}

/// The first position; else why there will be none.
async fn listen(stream: TcpStream, heard: &mut Heard) -> Result<Position, String> {
    let broke = |error: std::io::Error| format!("broke off: {error}");
    let mut stream = BufReader::new(stream);
    stream.write_all(WATCH).await.map_err(broke)?;
    let mut line = Vec::new();
    for _ in 0..LINES {
        line.clear();
        (&mut stream).take(LINE).read_until(b'\n', &mut line).await.map_err(broke)?;
        match line.last() {
            None => return Err("hung up".into()),
            Some(b'\n') => {}
            Some(_) if line.len() as u64 == LINE => return Err(format!("sends lines of more than {LINE} bytes, which gpsd does not")),
            Some(_) => return Err("hung up in the middle of a line".into()),
        }
        let report: Report = serde_json::from_slice(&line).map_err(|_| "does not speak as gpsd does".to_owned())?;
        match report.class.as_str() {
            "TPV" => match report.position() {
                Some(position) => return Ok(position),
                None => *heard = Heard::NoFix,
            },
            "ERROR" => return Err(format!("refuses: {}", super::shown(&report.message.unwrap_or_default()))),
            _ if matches!(heard, Heard::Nothing) => *heard = Heard::Gpsd,
            _ => {}
        }
    }
    Err(format!("sent {LINES} reports without a position"))
}

impl Report {
    /// From mode 2 on a receiver knows where it is, from mode 3 on how high.
    fn position(&self) -> Option<Position> {
        let mode = self.mode.filter(|mode| *mode >= 2)?;
        let sides = self.epx.zip(self.epy).map(|(x, y)| x.hypot(y));
        Some(Position {
            latitude: self.lat?,
            longitude: self.lon?,
            accuracy: self.eph.or(sides).unwrap_or(UNKNOWN_ERROR),
            altitude: self.above_sea.or(self.alt).filter(|_| mode >= 3),
            time: self.time.as_deref().and_then(unix_seconds).unwrap_or_else(now),
            source: Source::Gpsd,
        })
    }
}

/// `2026-11-26T00:30:00.000Z` in Unix seconds.
fn unix_seconds(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok();
    let separators = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if !text.ends_with('Z') || separators.iter().any(|&(at, mark)| text.get(at..at + 1) != Some(mark)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years from March have their leap day last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_time_is_unix_time() {
        assert_eq!(unix_seconds("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(unix_seconds("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(unix_seconds("2026-11-26T00:30:00.500Z"), Some(1_795_653_000));
        for wrong in [
            "",
            "2026",
            "2026-11-26 00:30:00Z",
            "2026-13-26T00:30:00Z",
            "20é6-11-26T00:30:00Z",
            "1969-12-31T23:59:59Z",
            "+026-11-26T00:30:00Z",
        ] {
            assert_eq!(unix_seconds(wrong), None, "{wrong}");
        }
    }
}
