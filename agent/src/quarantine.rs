//! A pack that traps call after call is taken out of service, with the reason, until somebody activates it anew. A trap is
//! always the pack's own defect; ceilings, deadlines and typed errors depend on what it was asked and do not count.
//! Kept in memory: a restart of the agent gives every pack another chance.

use std::sync::{Mutex, MutexGuard, PoisonError};

use outhaul_protocol::error::{Code, Failure};

/// Traps in a row after which a pack is out. One may be a bad parameter; five are a pack that does not work.
pub const TRAPS: u32 = 5;

/// How a pack has behaved since it was activated.
#[derive(Debug, Default)]
pub struct Conduct(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    traps: u32,
    /// set when it is out
    reason: Option<String>,
}

impl Conduct {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a call ended. Whether this very ending put the pack out.
    pub fn note(&self, failure: Option<&Failure>) -> bool {
        let mut state = self.state();
        let Some(trap) = failure.filter(|failure| failure.code == Code::Trap) else {
            // What was under way when the pack went out does not bring it back.
            state.traps = 0;
            return false;
        };
        state.traps += 1;
        if state.reason.is_some() || state.traps < TRAPS {
            return false;
        }
        state.reason = Some(format!("{TRAPS} calls in a row trapped, the last: {}", trap.message));
        true
    }

    /// Why it is out, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }

    /// Somebody activated it: it has another chance.
    pub fn forgive(&self) {
        *self.state() = State::default();
    }

    /// Refuses calls of a pack that is out.
    pub fn check(&self, pack: &str) -> Result<(), Failure> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(Failure::new(Code::PackQuarantined, format!("pack `{pack}` is out of service: {reason}")).hint(format!(
                "deploy a version that works, go back with `relay pack rollback NODE {pack}`, or deploy it again to try once more"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap() -> Failure {
        Failure::new(Code::Trap, "unreachable")
    }

    #[test]
    fn only_traps_in_a_row_count() {
        let conduct = Conduct::default();
        for other in [None, Some(Failure::new(Code::CommandFailed, "")), Some(Failure::new(Code::LimitMemory, ""))] {
            (1..TRAPS).for_each(|_| assert!(!conduct.note(Some(&trap()))));
            assert!(!conduct.note(other.as_ref()));
            assert!(conduct.check("p").is_ok());
        }
    }

    #[test]
    fn out_once_and_until_it_is_activated() {
        let conduct = Conduct::default();
        let put_out: Vec<bool> = (0..TRAPS + 2).map(|_| conduct.note(Some(&trap()))).collect();
        assert_eq!(put_out.iter().filter(|out| **out).count(), 1);
        assert!(!conduct.note(None), "a call that was under way ends well");
        let failure = conduct.check("p").expect_err("out");
        assert_eq!(failure.code, Code::PackQuarantined);
        assert!(failure.message.contains("unreachable") && failure.hint.is_some_and(|hint| hint.contains("rollback")));
        conduct.forgive();
        assert!(conduct.check("p").is_ok() && !conduct.note(Some(&trap())));
    }
}
