//! Powers, and what the machine's owner grants of them to one pack.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::power::{call, camera, containers, files, http, kv, location, process, screen, secrets};

/// What a pack may ask for: an interface of `outhaul:host`, or a part of WASI that reaches the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Power {
    /// The call's output, input and events. Always granted.
    Output,
    /// The agent's log. Always granted.
    Log,
    /// Programs of the machine.
    Process,
    /// Graphics processors, read only.
    Gpu,
    /// The machine's figures, read only.
    System,
    /// Cameras.
    Camera,
    /// Requests to other machines: `wasi:http/outgoing-handler`.
    Http,
    /// The owner's secrets, by name.
    Secrets,
    /// Folders of the machine, through WASI's file system.
    Files,
    /// Values that outlive a call.
    Kv,
    /// Commands of other packs.
    Call,
    /// Where the machine is.
    Location,
    /// Messages to the person at the machine.
    Notify,
    /// What its screens show.
    Screen,
    /// Containers of the machine's own runtime.
    Containers,
}

impl Power {
    /// All of them.
    pub const ALL: [Power; 15] = [
        Power::Output,
        Power::Log,
        Power::Process,
        Power::Gpu,
        Power::System,
        Power::Camera,
        Power::Http,
        Power::Secrets,
        Power::Files,
        Power::Kv,
        Power::Call,
        Power::Location,
        Power::Notify,
        Power::Screen,
        Power::Containers,
    ];

    /// Its name in WIT and in `agent.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Power::Output => "output",
            Power::Log => "log",
            Power::Process => "process",
            Power::Gpu => "gpu",
            Power::System => "system",
            Power::Camera => "camera",
            Power::Http => "http",
            Power::Secrets => "secrets",
            Power::Files => "files",
            Power::Kv => "kv",
            Power::Call => "call",
            Power::Location => "location",
            Power::Notify => "notify",
            Power::Screen => "screen",
            Power::Containers => "containers",
        }
    }

    /// The power of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Power> {
        Power::ALL.into_iter().find(|power| power.name() == name)
    }

    /// Whether a call that was not signed may use it: what only reads, and what is the call's own.
    #[must_use]
    pub fn is_shared(self) -> bool {
        matches!(self, Power::Output | Power::Log | Power::Gpu | Power::System)
    }

    /// Whether packs import it as a standard interface of WASI and not as one of `outhaul:host`.
    #[must_use]
    pub fn is_wasi(self) -> bool {
        matches!(self, Power::Http | Power::Files)
    }

    /// What `agent allow` wants behind its name, in words; nothing where the power is granted as a whole.
    #[must_use]
    pub fn item(self) -> Option<&'static str> {
        match self {
            Power::Process => Some("PROGRAM"),
            Power::Http => Some("HOST"),
            Power::Secrets => Some("NAME"),
            Power::Files => Some("FOLDER"),
            Power::Call => Some("COMMAND"),
            Power::Containers => Some("IMAGE"),
            _ => None,
        }
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one pack may do. The default grants nothing but its output and log. A call keeps the grants it began with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grants {
    /// may read GPUs
    pub gpu: bool,
    /// may read the machine's figures
    pub system: bool,
    /// programs it may run
    pub process: Option<process::Grant>,
    /// cameras it may use
    pub camera: Option<camera::Grant>,
    /// whom it may send requests to
    pub http: Option<Arc<http::Grant>>,
    /// secrets it may read
    pub secrets: secrets::Grant,
    /// folders it may use
    pub files: Option<files::Grant>,
    /// values it may keep
    pub kv: Option<kv::Grant>,
    /// commands of other packs it may call
    pub call: call::Grant,
    /// how well it may know where the machine is
    pub location: Option<location::Grant>,
    /// may show messages
    pub notify: bool,
    /// displays it may see
    pub screen: Option<screen::Grant>,
    /// containers it may run
    pub containers: Option<Arc<containers::Grant>>,
    /// the longest a call may run by policy; a call that reaches it ends `limit_time`, one that reaches its caller's own deadline `deadline`
    pub time: Option<Duration>,
}

/// The sentence for a power that policy does not grant at all. Refusals within a granted power come from the power itself.
pub(crate) fn not_granted(pack: &str, power: Power) -> String {
    let item = power.item().map(|item| format!(" {item}")).unwrap_or_default();
    format!("this machine's policy does not let pack `{pack}` use `{power}`; on that machine: agent allow {pack} {power}{item}")
}

/// The sentence for a power that an unsigned call may not use.
pub(crate) fn not_shared(power: Power) -> String {
    format!("this call came without a signature of its own, and `{power}` is for signed calls only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_powers_are_those_of_their_interfaces() {
        for power in Power::ALL {
            assert_eq!(Power::parse(power.name()), Some(power));
            assert_eq!(power.to_string(), power.name());
        }
        assert_eq!(Power::parse("teleport"), None);
        assert!(!Power::Process.is_shared() && !Power::Camera.is_shared() && Power::Gpu.is_shared());
        assert!(!Power::Http.is_shared() && !Power::Secrets.is_shared());
    }
}
