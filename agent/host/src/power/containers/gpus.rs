//! GPUs, lent by UUID. Who has one is what the runtime itself says: the labels of containers that run, of all packs and agents. So it
//! outlives the agent, and nothing is lent twice or forgotten.

use std::fmt;

use super::owned::{CREATED, GPUS, Listed, PACK};
use super::{ContainersError, State};
use crate::power::{gpu, shown};

/// Where the machine's GPUs are learnt from.
pub trait Gpus: Send + Sync + fmt::Debug {
    /// Their UUIDs. Blocks.
    fn uuids(&self) -> Result<Vec<String>, String>;
}

/// The NVIDIA driver.
#[derive(Debug, Clone, Copy)]
pub struct Driver;

impl Gpus for Driver {
    fn uuids(&self) -> Result<Vec<String>, String> {
        match gpu::devices() {
            Ok(devices) => Ok(devices.into_iter().map(|device| device.uuid).collect()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a container is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// No GPU.
    #[default]
    None,
    /// So many, whichever are free.
    Count(u32),
    /// Just these.
    Uuids(Vec<String>),
}

impl Wanted {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Wanted::None => 0,
            Wanted::Count(count) => u64::from(*count),
            Wanted::Uuids(uuids) => uuids.len() as u64,
        }
    }
}

/// Seconds for which a container that was made and does not run yet keeps its GPUs: another agent on this machine may be about to start
/// it. One that died in between keeps them no longer.
const STARTING: u64 = 120;

/// Whether a container has its GPUs now.
pub(super) fn holds(listed: &Listed, now: u64) -> bool {
    match listed.state {
        State::Running | State::Paused => true,
        State::Created => listed.number(CREATED).is_some_and(|made| now.saturating_sub(made) < STARTING),
        State::Ended => false,
    }
}

/// Chooses GPUs that nobody has. `holders` are containers that have some.
pub(super) fn choose(wanted: &Wanted, machine: &[String], holders: &[Listed]) -> Result<Vec<String>, ContainersError> {
    let holder = |uuid: &str| holders.iter().find(|listed| listed.gpus().iter().any(|taken| taken == uuid));
    match wanted {
        Wanted::None => Ok(Vec::new()),
        Wanted::Count(count) => {
            let free: Vec<String> = machine.iter().filter(|uuid| holder(uuid).is_none()).take(*count as usize).cloned().collect();
            if free.len() == *count as usize {
                return Ok(free);
            }
            let taken = machine.len() - machine.iter().filter(|uuid| holder(uuid).is_none()).count();
            let who: Vec<String> = holders.iter().filter(|listed| !listed.gpus().is_empty()).map(whose).collect();
            let who = if who.is_empty() { String::new() } else { format!(": {}", who.join(", ")) };
            Err(ContainersError::Conflict(format!(
                "{count} GPUs are wanted, and this machine has {}, of which {taken} are taken{who}",
                machine.len()
            )))
        }
        Wanted::Uuids(uuids) => {
            for (number, uuid) in uuids.iter().enumerate() {
                if uuids[..number].contains(uuid) {
                    return Err(ContainersError::Failed(format!("GPU `{}` is asked for twice", shown(uuid))));
                }
                if !machine.contains(uuid) {
                    return Err(ContainersError::NotFound(format!("no GPU of this machine has the UUID `{}`", shown(uuid))));
                }
                if let Some(listed) = holder(uuid) {
                    return Err(ContainersError::Conflict(format!("GPU `{uuid}` is taken: {}", whose(listed))));
                }
            }
            Ok(uuids.clone())
        }
    }
}

/// A holder in words: enough to ask its owner, and nothing that a pack could use.
fn whose(listed: &Listed) -> String {
    let owner = listed.label(PACK);
    let owner = if owner.is_empty() { "nobody we know".into() } else { shown(owner) };
    format!("container {} of `{owner}` has {}", &listed.id[..12], shown(listed.label(GPUS)))
}
