//! The `notify` power: a message to the person at the machine, through the freedesktop.org notification service of their session. Every
//! message names the pack and Outhaul where desktops show it, whatever the pack writes, so that no pack poses as somebody else. There are no
//! icons, no links, no buttons, no answer.
//!
//! What a message says is never logged.

mod text;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use thiserror::Error;
use zbus::Variant;

use super::bus::{Address, Bus, BusError, Object, Usual};
use crate::limits::{NOTIFY_AT_ONCE as AT_ONCE, NOTIFY_EVERY as EVERY, NOTIFY_PATIENCE as PATIENCE};

/// `[notify]` of `agent.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The bus of the session to show messages in, instead of that of the agent's own user.
    pub bus: Option<Address>,
    /// How long the desktop may take, instead of the usual time.
    #[serde(skip)]
    pub patience: Option<Duration>,
}

/// How much a message may disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Urgency {
    Low,
    Normal,
    Critical,
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// One line.
    pub title: String,
    /// More of it; may be empty.
    pub body: String,
    /// How much it may disturb.
    pub urgency: Urgency,
}

/// Why nothing is shown. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotifyError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// Nobody to show it to.
    #[error("{0}")]
    Unavailable(String),
    /// Too long, or too many.
    #[error("{0}")]
    Limit(String),
    /// The desktop refused.
    #[error("{0}")]
    Failed(String),
}

const SERVER: Object<'static> =
    Object { service: "org.freedesktop.Notifications", path: "/org/freedesktop/Notifications", interface: "org.freedesktop.Notifications" };
/// What a server says that reads the body as markup.
const READS_MARKUP: &str = "body-markup";
/// As long as the desktop likes.
const ITS_TIME: i32 = -1;

/// Shows messages.
#[derive(Debug)]
pub struct Notifier {
    config: Config,
    packs: Mutex<HashMap<String, Allowance>>,
}

impl Notifier {
    /// Shows them in the session that the configuration names.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Notifier { config, packs: Mutex::default() }
    }

    /// Shows a message of a pack that may.
    pub async fn show(&self, pack: &str, message: &Message) -> Result<(), NotifyError> {
        let text = text::of(pack, message)?;
        self.take(pack)?;
        tracing::info!(pack, urgency = ?message.urgency, "a pack shows a message to the person at this machine");
        let patience = self.config.patience.unwrap_or(PATIENCE);
        let sent = tokio::time::timeout(patience, self.send(&text, message.urgency)).await;
        match sent {
            Ok(sent) => sent.map_err(|error| self.explain(pack, error)),
            Err(_) => Err(NotifyError::Failed(format!("the desktop did not take the message within {} s", patience.as_secs_f32()))),
        }
    }

    async fn send(&self, text: &text::Text, urgency: Urgency) -> Result<(), BusError> {
        let bus = Bus::connect(self.config.bus.as_ref(), Usual::Session).await?;
        let answer = bus.call(SERVER, "GetCapabilities", &()).await?;
        let can: Vec<String> = answer.body().deserialize()?;
        let body = text.body(can.iter().any(|word| word == READS_MARKUP));
        let hints = HashMap::from([("urgency", Variant::from(urgency as u8))]);
        let (replaces, icon, actions) = (0_u32, "", Vec::<&str>::new());
        let message = (text.application.as_str(), replaces, icon, text.summary.as_str(), body.as_str(), actions, hints, ITS_TIME);
        bus.call(SERVER, "Notify", &message).await.map(drop)
    }

    /// Takes one of a pack's messages, if it has one left.
    fn take(&self, pack: &str) -> Result<(), NotifyError> {
        let now = Instant::now();
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        packs.retain(|name, allowance| name == pack || !allowance.is_whole(now));
        packs.entry(pack.to_owned()).or_insert_with(|| Allowance::whole(now)).take(now).map_err(|wait| {
            let seconds = wait.as_secs() + 1;
            NotifyError::Limit(format!(
                "pack `{pack}` showed its {AT_ONCE} messages; from then on it has one in {} s, the next in {seconds} s",
                EVERY.as_secs()
            ))
        })
    }

    /// What never came up was no message.
    fn give_back(&self, pack: &str) {
        if let Some(allowance) = self.packs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(pack) {
            allowance.left += 1.0;
        }
    }

    fn explain(&self, pack: &str, error: BusError) -> NotifyError {
        match error {
            BusError::NoBus(why) => {
                self.give_back(pack);
                NotifyError::Unavailable(format!(
                    "no desktop session is there to show it in ({why}): the agent must run as a service of the user who is to read it, or \
                     as root with `bus = \"unix:path=/run/user/1000/bus\"` under [notify] in agent.toml"
                ))
            }
            BusError::NoService => {
                self.give_back(pack);
                NotifyError::Unavailable("the session of this agent's user has nothing that shows messages".into())
            }
            BusError::Refused(why) => NotifyError::Failed(format!("the desktop does not let this agent show messages: {why}")),
            BusError::Failed(why) => NotifyError::Failed(format!("the desktop did not take the message: {why}")),
        }
    }
}

/// How many messages a pack has left.
#[derive(Debug)]
struct Allowance {
    left: f64,
    since: Instant,
}

impl Allowance {
    fn whole(now: Instant) -> Self {
        Allowance { left: AT_ONCE.into(), since: now }
    }

    fn at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        (self.left + passed / EVERY.as_secs_f64()).min(AT_ONCE.into())
    }

    fn is_whole(&self, now: Instant) -> bool {
        self.at(now) >= f64::from(AT_ONCE)
    }

    /// Takes one, or says how long until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        (self.left, self.since) = (self.at(now), now);
        if self.left < 1.0 {
            return Err(EVERY.mul_f64(1.0 - self.left));
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
