//! Calls to services on D-Bus, for the powers that need one. Knows no service and keeps no connection: whoever asks has one of its own,
//! and what a service remembers of it (a request, a subscription) ends with it. Nothing here has a deadline; its callers have.

use serde::{Deserialize, Serialize};
use zbus::message::Message;
use zbus::{Connection, DynamicType, MessageStream};

use super::shown;

/// Where a bus listens: `unix:path=/run/user/1000/bus`. Only sockets of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(String);

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let good = text.starts_with("unix:") && text.parse::<zbus::Address>().is_ok();
        good.then_some(Address(text.clone()))
            .ok_or_else(|| format!("`{}` is not the address of a bus on this machine, such as unix:path=/run/user/1000/bus", shown(&text)))
    }
}

/// The buses that are there without being named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usual {
    /// The machine's.
    System,
    /// That of the user whose agent this is.
    Session,
}

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusError {
    /// There is no bus; why, for people.
    NoBus(String),
    /// Nobody on it has that name, and nobody can be started who would.
    NoService,
    /// The service or the bus does not let this agent.
    Refused(String),
    /// Anything else.
    Failed(String),
}

/// A service's name, and the object and interface of it that is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) service: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
}

/// A connection to a bus; dropping it closes it.
#[derive(Debug)]
pub(super) struct Bus(Connection);

impl Bus {
    pub(super) async fn connect(address: Option<&Address>, usual: Usual) -> Result<Bus, BusError> {
        let address = match (address, usual) {
            (Some(Address(text)), _) => text.parse(),
            (None, Usual::System) => zbus::Address::system(),
            (None, Usual::Session) => zbus::Address::session(),
        };
        let none = |error: zbus::Error| BusError::NoBus(shown(&error.to_string()));
        let connection = zbus::connection::Builder::address(address.map_err(none)?).build().await.map_err(none)?;
        Ok(Bus(connection))
    }

    /// Calls a method.
    pub(super) async fn call<B: Serialize + DynamicType>(&self, at: Object<'_>, method: &str, body: &B) -> Result<Message, BusError> {
        self.0.call_method(Some(at.service), at.path, Some(at.interface), method, body).await.map_err(BusError::from)
    }

    /// The signals of an object from here on.
    pub(super) async fn signals(&self, at: Object<'_>, name: &str) -> Result<MessageStream, BusError> {
        let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal);
        let rule = rule.path(at.path).interface(at.interface).member(name).build()?;
        Ok(MessageStream::for_match_rule(rule, &self.0, None).await?)
    }
}

impl From<zbus::Error> for BusError {
    fn from(error: zbus::Error) -> Self {
        use zbus::fdo::Error as Known;
        let text = shown(&error.to_string());
        match error {
            zbus::Error::FDO(known) => match *known {
                Known::ServiceUnknown(_) | Known::NameHasNoOwner(_) | Known::SpawnServiceNotFound(_) => BusError::NoService,
                Known::AccessDenied(_) | Known::AuthFailed(_) | Known::InteractiveAuthorizationRequired(_) => BusError::Refused(text),
                _ => BusError::Failed(text),
            },
            _ => BusError::Failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_is_a_socket_of_this_machine() {
        let read = |text: &str| Address::try_from(text.to_owned());
        assert!(read("unix:path=/run/user/1000/bus").is_ok() && read("unix:abstract=x,guid=00000000000000000000000000000000").is_ok());
        for text in ["", "tcp:host=example.org,port=1", "unixexec:path=/bin/sh", "autolaunch:", "/run/user/1000/bus", "unix:", "unix:pipe"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
