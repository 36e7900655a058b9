//! Where an X11 server listens. Only on this machine: what a server elsewhere shows is not this machine's screen, and its words would
//! travel in the clear.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;
use tokio::time::timeout_at;

use crate::power::shown;

/// Where servers have their sockets.
const FOLDER: &str = "/tmp/.X11-unix";

/// A server's socket: `:0`, or `:0.1` for its second screen, or the path of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Place {
    path: PathBuf,
    /// what its key is found by
    pub(super) number: u16,
    pub(super) screen: usize,
}

impl TryFrom<String> for Place {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Place::parse(&text).ok_or_else(|| format!("`{}` is not a display of this machine, such as :0", shown(&text)))
    }
}

impl Place {
    fn parse(text: &str) -> Option<Place> {
        if text.starts_with('/') {
            let path = PathBuf::from(text);
            let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix('X')?.parse().ok());
            return Some(Place { path, number: number.unwrap_or_default(), screen: 0 });
        }
        let (number, screen) = match text.strip_prefix("unix").unwrap_or(text).strip_prefix(':')?.split_once('.') {
            Some((number, screen)) => (number, screen.parse().ok()?),
            None => (text.rsplit(':').next()?, 0),
        };
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u16 = digits.then(|| number.parse().ok()).flatten()?;
        Some(Place { path: Path::new(FOLDER).join(format!("X{number}")), number, screen })
    }

    /// The server of the session that this agent runs in; a sentence where there is none.
    pub(super) fn of_session() -> Result<Place, String> {
        let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Place::among(said("DISPLAY").as_deref(), said("WAYLAND_DISPLAY").is_some())
    }

    fn among(display: Option<&str>, wayland: bool) -> Result<Place, String> {
        match display {
            Some(text) => Place::parse(text)
                .ok_or_else(|| format!("DISPLAY is `{}`, and only screens of this machine can be seen, such as :0", shown(text))),
            None if wayland => Err(WAYLAND.into()),
            None => {
                Err("no desktop session is there to see: the agent must run as a service of the user whose screen it is, with DISPLAY \
                         (and XAUTHORITY) set, or with `display = \":0\"` under [screen] in agent.toml"
                    .into())
            }
        }
    }

    /// Connects; a sentence where nobody is there.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<std::os::unix::net::UnixStream, String> {
        // Without blocking: a server that hangs has a full queue one day.
        let connected = timeout_at(deadline.into(), tokio::net::UnixStream::connect(&self.path)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected
            .and_then(tokio::net::UnixStream::into_std)
            .map_err(|error| format!("no X11 server can be reached at {}: {error}", self.path.display()))
    }
}

/// Why nothing can be seen on a Wayland desktop.
pub(super) const WAYLAND: &str = "this is a Wayland desktop, where programs see no screen but their own windows; this agent takes pictures \
                                  of X11 sessions only";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_a_socket_of_this_machine() {
        let place = |text: &str| Place::parse(text).map(|place| (place.path.display().to_string(), place.number, place.screen));
        assert_eq!(place(":0"), Some(("/tmp/.X11-unix/X0".into(), 0, 0)));
        assert_eq!(place(":12.1"), Some(("/tmp/.X11-unix/X12".into(), 12, 1)));
        assert_eq!(place("unix:3"), Some(("/tmp/.X11-unix/X3".into(), 3, 0)));
        assert_eq!(place("/run/x/X5"), Some(("/run/x/X5".into(), 5, 0)));
        for text in ["", "0", ":", ":x", ":-1", ":+1", ":0.x", "host:0", "localhost:10.0", "tcp/host:0", ":99999", "unix:"] {
            assert_eq!(place(text), None, "{text}");
        }
    }

    #[test]
    fn a_session_without_x11_is_told_for_what_it_is() {
        assert!(Place::among(Some(":1"), true).is_ok());
        assert_eq!(Place::among(None, true), Err(WAYLAND.into()));
        assert!(Place::among(None, false).is_err_and(|why| why.contains("DISPLAY") && why.contains("[screen]")));
        assert!(Place::among(Some("localhost:10.0"), false).is_err_and(|why| why.contains("of this machine")));
    }
}
