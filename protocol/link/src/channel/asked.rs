//! What is asked of a node, bound to the channel it is asked in, and what the node's receipt must say of it.

use std::time::Duration;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::evidence::Tally;
use outhaul_protocol::inner::{CallId, Ending, Inner, QuickCall};
use outhaul_protocol::keys::{Digest, random, salted, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Call, Evidence, Receipt};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::Time;
use outhaul_protocol::value::Value;

use super::opening::Ends;

/// One command to run.
#[derive(Debug, Clone)]
pub struct CallSpec {
    /// `<interface>.<function>`
    pub command: String,
    /// parameters by name
    pub params: Value,
    /// how long it may run
    pub deadline: Option<Duration>,
    /// the pack it was typed against
    pub pack: Option<Digest>,
    /// how long it may wait for its start
    pub start_within: Duration,
    /// evidence `channel`: not signed, where the grants allow it
    pub quick: bool,
    /// input follows
    pub input: bool,
}

impl CallSpec {
    /// A signed call without deadline.
    pub fn new(command: impl Into<String>, params: Value) -> Self {
        let start_within = Duration::from_secs(limits::START_WITHIN_SECS);
        CallSpec { command: command.into(), params, deadline: None, pack: None, start_within, quick: false, input: false }
    }
}

/// How a call ended, with the node's word for it.
#[derive(Debug)]
pub struct Outcome {
    /// the result, or why not
    pub result: Result<Value, Failure>,
    /// verified against the node's key and this call
    pub receipt: Verified<Receipt>,
}

/// What the receipt must say.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    payload: Digest,
    command: String,
    salt: [u8; 16],
    params: Digest,
    evidence: Evidence,
}

/// A call ready to go.
pub(super) struct Asked {
    pub(super) id: CallId,
    /// the signed object, or the encoded message of a quick call
    pub(super) message: Vec<u8>,
    pub(super) expected: Expected,
}

impl Ends {
    /// A signed call; its message is the signed object, for the opening or for [`Inner::Call`].
    pub(super) fn signed(&self, spec: &CallSpec, now: Time) -> Result<Asked, Failure> {
        let (id, salt, params) = (random(), random(), params_of(spec)?);
        let digest = salted(&salt, &params);
        let call = Call {
            iss: self.caller.key.id(),
            aud: self.target.key.id(),
            exp: None,
            iat: now,
            id,
            opening: Some(self.opening),
            seq: None,
            command: spec.command.clone(),
            params: Blob(params),
            salt,
            at: millis(self.opened_at.elapsed()),
            start_within_ms: millis(spec.start_within),
            deadline_ms: spec.deadline.map(millis),
            pack: spec.pack,
            input: spec.input.then_some(true),
        };
        let signed = Signed::sign(&self.caller.key, &call);
        let expected =
            Expected { payload: signed.payload_digest(), command: call.command, salt, params: digest, evidence: Evidence::Signed };
        Ok(Asked { id, message: signed.into_bytes(), expected })
    }

    /// A call whose evidence is the channel.
    pub(super) fn quick(&self, spec: &CallSpec) -> Result<Asked, Failure> {
        let (id, params) = (random(), params_of(spec)?);
        let digest = salted(&id, &params);
        let call = QuickCall {
            id,
            command: spec.command.clone(),
            params: Blob(params),
            at: millis(self.opened_at.elapsed()),
            start_within_ms: millis(spec.start_within),
            deadline_ms: spec.deadline.map(millis),
            pack: spec.pack,
            input: spec.input.then_some(true),
        };
        let payload = sha256(&call.encode());
        let expected = Expected { payload, command: call.command.clone(), salt: id, params: digest, evidence: Evidence::Channel };
        Ok(Asked { id, message: Inner::Quick { call }.encode(), expected })
    }

    /// Checks an ending against the call and its receipt. A wrong receipt ends the channel: the node, or somebody who
    /// has its prekey, is lying.
    pub(super) fn outcome(&self, id: CallId, ending: Ending, expected: &Expected, tally: Tally) -> Result<Outcome, String> {
        let receipt = Signed::<Receipt>::from_bytes(&ending.receipt.0)
            .and_then(|signed| signed.verify(&self.target.key))
            .map_err(|error| format!("the receipt does not verify: {error}"))?;
        let outcome = ending.failure.as_ref().map_or("done", |failure| failure.code.as_str());
        let value = ending.value.as_ref().map_or(&[][..], |value| &value.0);
        let lanes = tally.lanes();
        let fits = receipt.call == id
            && receipt.payload == expected.payload
            && receipt.signer == self.caller.key.id()
            && receipt.evidence == expected.evidence
            && receipt.command == expected.command
            && receipt.params == expected.params
            && receipt.outcome == outcome
            && receipt.lanes == lanes
            && receipt.output == Some(tally.digest(&expected.salt, value));
        if !fits {
            return Err("the receipt is for another call or output".into());
        }
        let malformed = |error: &dyn std::fmt::Display| format!("the ending is malformed: {error}");
        let result = match ending.failure {
            Some(failure) => Err(failure.read().map_err(|error| malformed(&error))?),
            None => Ok(if value.is_empty() { Value::Null } else { Value::from_cbor(value).map_err(|error| malformed(&error))? }),
        };
        Ok(Outcome { result, receipt })
    }
}

fn params_of(spec: &CallSpec) -> Result<Vec<u8>, Failure> {
    let params = spec.params.to_cbor();
    if params.len() > limits::VALUE {
        let text = format!("parameters are {} bytes, at most {} are allowed", params.len(), limits::VALUE);
        return Err(Failure::new(Code::TooLarge, text).hint("send large data as the call's input"));
    }
    Ok(params)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
