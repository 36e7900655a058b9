//! Pack `{{name}}`. What its commands take and give is written in `wit/pack.wit`; this is what they do.

wit_bindgen::generate!({ path: "wit", world: "pack", generate_all });

use exports::my::{{snake}}::{{snake}}::{Greeting, Guest, Person, Refusal};
use outhaul::host::system::{self, SystemError};

struct Pack;

impl Guest for Pack {
    fn greet(person: Person) -> Result<Greeting, Refusal> {
        if person.name.is_empty() {
            return Err(Refusal::NoName);
        }
        let title = person.title.map(|title| format!("{title} ")).unwrap_or_default();
        let text = format!("Hello, {title}{}!", person.name);
        Ok(Greeting { text, uptime: system::read()?.uptime })
    }
}

impl From<SystemError> for Refusal {
    fn from(error: SystemError) -> Self {
        match error {
            SystemError::Denied(why) => Refusal::Denied(why),
            SystemError::Failed(why) => Refusal::Failed(why),
        }
    }
}

export!(Pack);
