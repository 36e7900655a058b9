//! What the machine says about itself in its announce: labels for people, never anything a decision rests on.

use std::collections::BTreeMap;

use outhaul_host::power;
use outhaul_protocol::describe::fact;

/// Bytes of one fact: an announce is small.
const FACT: usize = 120;

/// Gathers facts once per start.
#[must_use]
pub fn gather() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        let mut value = value;
        while value.len() > FACT {
            value.pop();
        }
        if !value.is_empty() {
            facts.insert(key.to_owned(), value);
        }
    };
    put(fact::AGENT, env!("CARGO_PKG_VERSION").into());
    put(fact::PLATFORM, format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH));
    if let Ok(read) = power::system::read() {
        put(fact::HOSTNAME, read.os.hostname);
        put(fact::OS, format!("{} {}", read.os.name, read.os.version).trim().to_owned());
        put(fact::KERNEL, read.os.kernel);
        put(fact::CPU, format!("{} × {}", read.cpu.logical, read.cpu.model.trim()));
        put(fact::MEMORY, format!("{:.1} GiB", read.memory.total as f64 / f64::from(1 << 30)));
    }
    if let Some(gpus) = power::gpu::summary() {
        put(fact::GPUS, format!("{} × {}", gpus.count, gpus.names.first().map_or("GPU", String::as_str)));
    }
    facts
}
