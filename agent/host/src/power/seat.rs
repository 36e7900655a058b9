//! What belongs to the place and the person in front of the machine, with the settings of each: where it is, messages, screens. One for all
//! calls, because turns and allowances are shared.

use super::{location, notify, screen};

/// The settings, each a section of `agent.toml`.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[location]`
    pub location: location::Config,
    /// `[notify]`
    pub notify: notify::Config,
    /// `[screen]`
    pub screen: screen::Config,
}

/// The powers as they are set.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) location: location::Finder,
    pub(crate) notify: notify::Notifier,
    pub(crate) screen: screen::Screens,
}

impl Seat {
    pub(crate) fn new(config: Config) -> Self {
        Seat {
            location: location::Finder::new(config.location),
            notify: notify::Notifier::new(config.notify),
            screen: screen::Screens::new(config.screen),
        }
    }
}
