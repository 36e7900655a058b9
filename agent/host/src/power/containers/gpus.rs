//! GPUs, lent by UUID. Who has one is what the runtime itself says: the labels of containers that run, of all packs and agents. So it
//! outlives the agent, and nothing is lent twice or forgotten.

use std::fmt;

use super::owned::{CREATED, Listed, NAME};
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
/// it, and looking and starting take four minutes at most. One that died in between keeps them no longer.
const STARTING: u64 = 300;

/// Whether a container has its GPUs now.
pub(super) fn holds(listed: &Listed, now: u64) -> bool {
    match listed.state {
        State::Running | State::Paused => true,
        State::Created => listed.number(CREATED).is_some_and(|made| now.saturating_sub(made) < STARTING),
        State::Ended => false,
    }
}

/// Chooses GPUs that nobody has. `holders` are containers that have some, and `own` those of the pack that asks: it hears of no other's.
pub(super) fn choose(wanted: &Wanted, machine: &[String], holders: &[Listed], own: &[Listed]) -> Result<Vec<String>, ContainersError> {
    let holder = |uuid: &str| holders.iter().find(|listed| listed.gpus().iter().any(|taken| taken == uuid));
    match wanted {
        Wanted::None => Ok(Vec::new()),
        Wanted::Count(count) => {
            let free: Vec<String> = machine.iter().filter(|uuid| holder(uuid).is_none()).take(*count as usize).cloned().collect();
            if free.len() == *count as usize {
                return Ok(free);
            }
            let taken = machine.len() - machine.iter().filter(|uuid| holder(uuid).is_none()).count();
            let mut who: Vec<String> = holders.iter().filter(|listed| !listed.gpus().is_empty()).map(|listed| whose(listed, own)).collect();
            who.sort();
            who.dedup();
            let who = if who.is_empty() { String::new() } else { format!(" by {}", who.join(", ")) };
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
                    return Err(ContainersError::Conflict(format!("GPU `{uuid}` is taken by {}", whose(listed, own))));
                }
            }
            Ok(uuids.clone())
        }
    }
}

/// A holder in words: which of the pack's own it is, and of another's nothing.
fn whose(listed: &Listed, own: &[Listed]) -> String {
    match own.iter().any(|known| known.id == listed.id) {
        true => format!("container `{}`", shown(listed.label(NAME))),
        false => "another's container".into(),
    }
}

/// A GPU of a container that another one has too and keeps: one that runs, or that the runtime made no later. Of two that were made in the
/// same second neither starts.
pub(super) fn earlier(id: &str, gpus: &[String], holders: &[Listed]) -> Option<String> {
    // The runtime forgot it, or its list is older than it: then nobody is known to be later.
    let made = holders.iter().find(|listed| listed.id == id).map_or(i64::MAX, |listed| listed.made);
    let first = |listed: &&Listed| listed.id != id && (listed.state != State::Created || listed.made <= made);
    holders.iter().filter(first).flat_map(Listed::gpus).find(|uuid| gpus.contains(uuid))
}

#[cfg(test)]
mod tests {
    use super::super::owned::{GPUS, PACK};
    use super::*;

    const ONE: &str = "1111111111111111";
    const TWO: &str = "2222222222222222";

    fn holder(id: &str, state: State, made: i64, gpu: &str) -> Listed {
        Listed::played(id, state, made, &[(GPUS, gpu), (PACK, "name-secret"), (NAME, "w"), (CREATED, "1000")])
    }

    #[test]
    fn a_pack_hears_of_its_own_containers_only() {
        let (mine, theirs) = (holder(ONE, State::Running, 1, "GPU-1"), holder(TWO, State::Running, 1, "GPU-2"));
        let (machine, holders) = (["GPU-1".to_owned(), "GPU-2".into()], [mine.clone(), theirs]);
        let said = |wanted: Wanted| choose(&wanted, &machine, &holders, std::slice::from_ref(&mine)).expect_err("taken").to_string();
        assert_eq!(said(Wanted::Uuids(vec!["GPU-1".into()])), "GPU `GPU-1` is taken by container `w`");
        assert_eq!(said(Wanted::Uuids(vec!["GPU-2".into()])), "GPU `GPU-2` is taken by another's container");
        assert_eq!(
            said(Wanted::Count(1)),
            "1 GPUs are wanted, and this machine has 2, of which 2 are taken by another's container, container `w`"
        );
    }

    #[test]
    fn of_two_that_were_made_with_the_same_gpu_at_most_one_starts() {
        let gpus = ["GPU-1".to_owned()];
        let first = |id: &str, holders: &[Listed]| earlier(id, &gpus, holders);
        let created = |id: &str, made: i64| holder(id, State::Created, made, "GPU-1");
        let both = [created(ONE, 5), created(TWO, 6)];
        assert_eq!((first(ONE, &both), first(TWO, &both)), (None, Some("GPU-1".into())));
        let same = [created(ONE, 5), created(TWO, 5)];
        assert!(first(ONE, &same).is_some() && first(TWO, &same).is_some());
        assert!(first(ONE, &[created(ONE, 5), holder(TWO, State::Running, 6, "GPU-1")]).is_some(), "it runs already");
        assert_eq!(first(ONE, &[created(ONE, 5), holder(TWO, State::Running, 1, "GPU-2")]), None);
    }

    #[test]
    fn what_was_made_and_not_started_keeps_its_gpus_as_long_as_starting_takes() {
        let made = holder(ONE, State::Created, 0, "GPU-1");
        assert!(holds(&made, 1_000 + 240) && !holds(&made, 1_000 + STARTING));
    }
}
