//! Packs that call packs: the agent's side of the power `call`. A nested call is judged like any other but for its operator, who signed
//! the outermost one: which commands a pack may call is the word of the machine's owner, and what the called pack may do is its own policy.
//!
//! No pack stands twice in a chain, so that chains end and packs never wait for their own places; chains are short. What is called ends
//! with the call that made it, also when its own publisher counts no more meanwhile.

use std::sync::Arc;
use std::time::Duration;

use outhaul_host::power::call::{Asked, CallError, Failed, Others, Work};
use outhaul_host::{CallIo, CallRequest};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::KeyId;
use outhaul_protocol::limits;
use outhaul_protocol::text::escape_control;
use outhaul_protocol::types::Command;
use outhaul_protocol::value::{Value, params_from_json, parse_json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::calls::Running;
use crate::packs::Active;
use crate::run::Node;

/// Packs in a chain of calls, the first included: a flow of steps that wrap tools has three.
const CHAIN: usize = 4;
/// How long a nested call waits for a place of its pack. Others of the same pack may be waiting for each other.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// Calls that one operator's call may have under way below it, all together: a tree of them must leave sandboxes for others.
const TREE: usize = 32;

/// The other packs, as one call sees them.
#[derive(Debug)]
pub(crate) struct Neighbours {
    node: Arc<Node>,
    running: Arc<Running>,
    chain: Vec<String>,
    operator: KeyId,
    room: Room,
}

/// Room for calls below an operator's: its own share, and the machine's for all of them.
#[derive(Debug, Clone)]
struct Room {
    tree: Arc<Semaphore>,
    machine: Arc<Semaphore>,
}

impl Room {
    fn new(machine: Arc<Semaphore>) -> Self {
        Room { tree: Arc::new(Semaphore::new(TREE)), machine }
    }

    /// Room for one more, held until it is dropped.
    fn take(&self) -> Result<[OwnedSemaphorePermit; 2], CallError> {
        let tree = self.tree.clone().try_acquire_owned();
        let tree = tree
            .map_err(|_| CallError::Limit(format!("{TREE} calls below this operator's are under way, which is as many as it may have")))?;
        let machine = self.machine.clone().try_acquire_owned();
        let full = |_| CallError::Limit("as many calls of packs to packs as this machine takes are under way".into());
        Ok([tree, machine.map_err(full)?])
    }
}

impl Neighbours {
    /// For an operator's call of a pack.
    pub(crate) fn of(node: Arc<Node>, running: Arc<Running>, pack: &str, operator: KeyId) -> Self {
        let room = Room::new(node.calls.nested());
        Neighbours { node, running, chain: vec![pack.to_owned()], operator, room }
    }

    /// The same, one pack further down.
    fn below(&self, pack: &str) -> Self {
        let chain = self.chain.iter().map(String::as_str).chain([pack]).map(str::to_owned).collect();
        Neighbours { node: self.node.clone(), running: self.running.clone(), chain, operator: self.operator, room: self.room.clone() }
    }

    fn find(&self, command: &str) -> Result<(Arc<Active>, Command), CallError> {
        let unknown = || CallError::Unknown(format!("this machine has no command `{}`", escape_control(command)));
        let (interface, _) = command.split_once('.').ok_or_else(unknown)?;
        if matches!(interface, "node" | "pack") {
            return Err(CallError::Unknown(format!("`{}` is the agent's own, for operators only", escape_control(command))));
        }
        let active = self.node.packs.find(interface).ok_or_else(unknown)?;
        let command = active.pack().command(command).cloned().ok_or_else(unknown)?;
        Ok((active, command))
    }

    /// The same, noted as a part of the operator's call: whoever takes the pack away from here on ends that call too. A pack that was
    /// taken away in between is not found again.
    fn claim(&self, command: &str) -> Result<(Arc<Active>, Command), CallError> {
        let (mut found, _) = self.find(command)?;
        loop {
            self.running.uses(found.digest());
            let (now, command) = self.find(command)?;
            if now.digest() == found.digest() {
                return Ok((now, command));
            }
            found = now;
        }
    }
}

/// Whether a pack may stand next in a chain.
fn admits(chain: &[String], pack: &str) -> Result<(), CallError> {
    let shown = || chain.iter().map(String::as_str).chain([pack]).collect::<Vec<_>>().join(" → ");
    if chain.iter().any(|above| above == pack) {
        return Err(CallError::Limit(format!("pack `{pack}` is in this chain of calls already: {}", shown())));
    }
    if chain.len() >= CHAIN {
        return Err(CallError::Limit(format!("a chain of calls has at most {CHAIN} packs: {}", shown())));
    }
    Ok(())
}

impl Others for Neighbours {
    fn prepare(&self, asked: Asked) -> Result<Work, CallError> {
        let (active, command) = self.claim(&asked.command)?;
        admits(&self.chain, active.name())?;
        let json = parse_json(&asked.params).map_err(|failure| CallError::BadParams(failure.message))?;
        let params = params_from_json(&json, &command).map_err(|failure| CallError::BadParams(said(failure)))?;
        active.conduct().check(active.name())?;
        let room = self.room.take()?;
        let below = self.below(active.name());
        tracing::debug!(chain = below.chain.join(" → "), command = command.name, "a pack calls another");
        let work = below.run(active, command, params, asked);
        Ok(Box::pin(async move {
            let _held = room;
            work.await
        }))
    }
}

impl Neighbours {
    async fn run(self, active: Arc<Active>, command: Command, params: Value, asked: Asked) -> Result<String, CallError> {
        let _place = active.place(PLACE_WAIT).await?;
        let node = self.node.clone();
        let label = format!("{} {} {}", self.operator.short(), hex::encode(&self.running.key.id[..4]), self.chain.join(">"));
        let request = CallRequest {
            command: asked.command,
            params,
            grants: node.policy.grants_for(active.name(), &active.digest().0, active.origin()),
            io: CallIo { output: asked.output, input: asked.input },
            // The call that made it has one, and takes this one with it.
            deadline: None,
            cancel: CancellationToken::new(),
            label,
            output_limit: node.policy_limits().output,
            // Only signed calls come this far.
            shared_only: false,
            others: Some(Arc::new(self)),
        };
        let result = active.pack().call(request).await;
        active.note(result.as_ref().err());
        match result {
            Ok(value) if value.to_cbor().len() > limits::VALUE => {
                Err(Failure::new(Code::TooLarge, format!("the result of `{}` is larger than {} bytes", command.name, limits::VALUE)).into())
            }
            Ok(value) => Ok(value.to_json(command.result.as_ref()).to_string()),
            Err(failure) => Err(failed(failure, &command)),
        }
    }
}

/// A sentence with its hint, for errors that are one text.
fn said(failure: Failure) -> String {
    match failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message,
    }
}

/// How a call ended, as the pack that made it is told.
fn failed(failure: Failure, command: &Command) -> CallError {
    let ty = command.error.as_ref().and_then(Option::as_ref);
    let detail = failure.detail.map(|detail| detail.to_json(ty).to_string());
    CallError::Failed(Box::new(Failed { code: failure.code, message: failure.message, hint: failure.hint, detail }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_each_pack_once_and_few_of_them() {
        let chain = |packs: &[&str]| packs.iter().map(|pack| (*pack).to_owned()).collect::<Vec<_>>();
        let refused = |packs: &[&str], next| admits(&chain(packs), next).expect_err("refused").to_string();
        assert!(admits(&chain(&["a"]), "b").is_ok() && admits(&chain(&["a", "b", "c"]), "d").is_ok());
        assert_eq!(refused(&["a", "b"], "a"), "pack `a` is in this chain of calls already: a → b → a");
        assert_eq!(refused(&["a", "b", "c", "d"], "e"), "a chain of calls has at most 4 packs: a → b → c → d → e");
    }

    #[test]
    fn a_tree_of_calls_has_its_share_of_the_machine_and_no_more() {
        let machine = Arc::new(Semaphore::new(TREE + 1));
        let (one, other) = (Room::new(machine.clone()), Room::new(machine));
        let deeper = one.clone();
        let held: Vec<_> = (0..TREE).map(|_| deeper.take().expect("room")).collect();
        assert!(one.take().expect_err("its share is gone").to_string().starts_with("32 calls below"));
        let last = other.take().expect("for another there is room");
        assert!(other.take().expect_err("full").to_string().starts_with("as many calls of packs"));
        drop((held, last));
        assert!(one.take().is_ok());
    }

    #[test]
    fn the_commands_own_error_is_told_as_json() {
        let command = Command { name: "a.b".into(), doc: None, params: Vec::new(), result: None, error: Some(None) };
        let failure = Failure { detail: Some("full".into()), ..Failure::new(Code::CommandFailed, "full").hint("wait") };
        let CallError::Failed(failed) = failed(failure, &command) else { panic!("failed") };
        assert_eq!((failed.detail.as_deref(), failed.hint.as_deref(), failed.code), (Some("\"full\""), Some("wait"), Code::CommandFailed));
    }
}
