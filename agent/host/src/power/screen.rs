//! The `screen` power: one JPEG of what a display shows, a grant per display. Displays are the monitors of an X11 server; on a Wayland
//! desktop, whose own windows no X11 server can see, it says so rather than give a picture without them.
//!
//! What a screen shows is private: nothing of it is logged or kept.

mod place;
mod x11;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

pub use self::place::Place;
use super::picture::pixels::{Frame, Layout};
use super::picture::shrink::{RGB, fitting, shrink};
pub use super::picture::{MEDIA_TYPE, Size};
use super::{shell_word, shown};
use crate::limits::{SCREEN_AT_ONCE as AT_ONCE, SCREEN_PATIENCE as PATIENCE};

/// The displays that one pack may see: `screen = true` or `screen = { displays = ["HDMI-1"] }` of `agent.toml`. The default grants none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Every display, those to come included.
    pub all: bool,
    /// These, by id.
    pub displays: Vec<String>,
}

impl Grant {
    fn allows(&self, id: &str) -> bool {
        self.all || self.displays.iter().any(|display| display == id)
    }
}

/// `[screen]` of `agent.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The X11 server, instead of that of DISPLAY: `:0`.
    pub display: Option<Place>,
    /// How long the server may take, instead of the usual time.
    #[serde(skip)]
    pub patience: Option<Duration>,
}

/// Why there is no picture. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScreenError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// No screen that this agent can see.
    #[error("{0}")]
    Unavailable(String),
    /// No display, or none like that.
    #[error("{0}")]
    NoneFound(String),
    /// The server refused.
    #[error("{0}")]
    Failed(String),
}

/// A display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Display {
    /// What a shot names it by: `HDMI-1`.
    pub id: String,
    /// Its size.
    pub size: Size,
    /// The one that its user takes for the main one.
    pub primary: bool,
    /// Where it lies on the server's screen.
    corner: (i16, i16),
}

/// What picture is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// A display's id; the primary one, else the first granted one, when absent.
    pub display: Option<String>,
    /// Scaled down to this width; the display's own without it.
    pub max_width: Option<u32>,
    /// 1 to 100.
    pub quality: u8,
}

/// A picture taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The display's id.
    pub display: String,
    /// Its size in fact.
    pub size: Size,
    /// A whole JPEG file.
    pub data: Vec<u8>,
}

/// The screens of this machine.
#[derive(Debug)]
pub struct Screens {
    config: Config,
    turns: Arc<Semaphore>,
}

impl Screens {
    /// Those of the server that the configuration names.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Screens { config, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The granted displays.
    pub async fn displays(&self, pack: &str, grant: &Grant) -> Result<Vec<Display>, ScreenError> {
        if *grant == Grant::default() {
            return Err(denied(pack, None));
        }
        tracing::info!(pack, "a pack lists this machine's displays");
        let mut displays = self.ask(|server| server.displays()).await?;
        displays.retain(|display| grant.allows(&display.id));
        Ok(displays)
    }

    /// Takes one picture.
    pub async fn snap(&self, pack: &str, grant: &Grant, shot: Shot) -> Result<Picture, ScreenError> {
        check(&shot)?;
        if *grant == Grant::default() {
            return Err(denied(pack, shot.display.as_deref()));
        }
        if let Some(id) = shot.display.as_deref().filter(|id| !grant.allows(id)) {
            return Err(denied(pack, Some(id)));
        }
        tracing::info!(pack, display = shot.display.as_deref().map(shown), "a pack takes a picture of this machine's screen");
        let grant = grant.clone();
        self.ask(move |server| {
            let mut displays = server.displays()?;
            displays.retain(|display| grant.allows(&display.id));
            let display = choose(displays, shot.display.as_deref())?;
            let pixels = server.pixels(&display)?;
            picture(display, pixels, &shot)
        })
        .await
    }

    /// Asks the server, on a thread that may wait for it. Whoever gives up a call does not take its turn from the thread.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&x11::Server) -> Result<T, ScreenError> + Send + 'static,
    ) -> Result<T, ScreenError> {
        let deadline = Instant::now() + self.config.patience.unwrap_or(PATIENCE);
        let turn = self.turn(deadline).await?;
        let place = match &self.config.display {
            Some(place) => place.clone(),
            None => Place::of_session().map_err(ScreenError::Unavailable)?,
        };
        let socket = place.connect(deadline).await.map_err(ScreenError::Unavailable)?;
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&x11::Server::open(&place, socket, deadline)?)
        });
        asked.await.unwrap_or_else(|error| Err(ScreenError::Failed(format!("the picture was not taken: {error}"))))
    }

    async fn turn(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ScreenError> {
        let busy = || ScreenError::Failed("other calls to this agent are taking pictures, and none ended in time".into());
        let turn = timeout_at(deadline.into(), Arc::clone(&self.turns).acquire_owned()).await.map_err(|_| busy())?;
        turn.map_err(|_| busy())
    }
}

fn check(shot: &Shot) -> Result<(), ScreenError> {
    if !(1..=100).contains(&shot.quality) {
        return Err(ScreenError::Failed(format!("quality {} is not between 1 and 100", shot.quality)));
    }
    if shot.max_width == Some(0) {
        return Err(ScreenError::Failed("a picture is at least one pixel wide".into()));
    }
    Ok(())
}

fn denied(pack: &str, id: Option<&str>) -> ScreenError {
    let (what, item) = match id {
        Some(id) => (format!("display `{}`", shown(id)), format!(" {}", shell_word(id))),
        None => ("the screen".into(), String::new()),
    };
    ScreenError::Denied(format!(
        "this machine's policy does not let pack `{pack}` see {what}; on that machine: agent allow {pack} screen{item}"
    ))
}

fn choose(displays: Vec<Display>, wanted: Option<&str>) -> Result<Display, ScreenError> {
    let here: Vec<String> = displays.iter().map(|display| format!("`{}`", shown(&display.id))).collect();
    let here = if here.is_empty() { "none that is granted".into() } else { here.join(", ") };
    let found = match wanted {
        Some(id) => displays.into_iter().find(|display| display.id == id),
        // The first of those that are equally good.
        None => displays.into_iter().rev().max_by_key(|display| display.primary),
    };
    found.ok_or_else(|| {
        ScreenError::NoneFound(match wanted {
            Some(id) => format!("this machine has no display `{}` now; there is {here}", shown(id)),
            None => format!("this machine has no display to take a picture of; there is {here}"),
        })
    })
}

fn picture(display: Display, pixels: Vec<u8>, shot: &Shot) -> Result<Picture, ScreenError> {
    const LAYOUT: Layout = Layout::Colours { red: 0, green: 1, blue: 2, step: RGB };
    let odd = || ScreenError::Failed(format!("display `{}` has a size that no picture has", shown(&display.id)));
    let size = fitting(display.size, shot.max_width.unwrap_or(u32::MAX));
    let pixels = if size == display.size { pixels } else { shrink(&pixels, display.size, size).ok_or_else(odd)? };
    let frame = Frame::new(LAYOUT, size, 0, &pixels).ok_or_else(odd)?;
    let data = frame.encode(shot.quality).map_err(ScreenError::Failed)?;
    Ok(Picture { display: display.id, size, data })
}

#[cfg(test)]
mod tests;
