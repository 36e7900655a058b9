//! One call's life at the node: said → verified → admitted → running → ended, with a receipt in every case.
//!
//! States are types. [`Said`] is what somebody inside a channel said; [`Verified`](outhaul_protocol::signed::Verified)
//! calls come out of a signature only; [`Admitted`] comes out of [`admit`] only, and nothing else can be run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outhaul_host::{CallIo, CallRequest, Output};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::{CallId, Ending, EventMessage, Inner, Lane, QuickCall, WireFailure};
use outhaul_protocol::keys::{Digest, salted, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Call, Evidence, Receipt};
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::Time;
use outhaul_protocol::value::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::calls::{CallKey, Inlet, Running};
use crate::channel::OpenChannel;
use crate::link::Link;
use crate::native;
use crate::neighbours::Neighbours;
use crate::outlet::Outlet;
use crate::packs::Active;

/// Chunks of output between a pack and its outlet: enough to overlap, small beside the call's window.
const OUTPUT_CHUNKS: usize = 4;
/// Chunks of input between the inlet and a pack.
const INPUT_CHUNKS: usize = 4;

/// A call as it was said, not verified yet.
#[derive(Debug)]
pub struct Said {
    /// its id
    pub id: CallId,
    /// what to run
    pub command: String,
    params: Vec<u8>,
    salt: [u8; 16],
    payload: Digest,
    /// milliseconds since the opening, by the operator's clock
    pub at: u64,
    /// how long after that it may still begin
    pub start_within_ms: u64,
    deadline_ms: Option<u64>,
    pack: Option<Digest>,
    input: bool,
    evidence: Evidence,
    signed: Option<Signed<Call>>,
}

impl Said {
    /// A signed call.
    #[must_use]
    pub fn signed(signed: Signed<Call>) -> Self {
        let call = signed.unverified().clone();
        Said {
            id: call.id,
            command: call.command,
            params: call.params.0,
            salt: call.salt,
            payload: signed.payload_digest(),
            at: call.at,
            start_within_ms: call.start_within_ms,
            deadline_ms: call.deadline_ms,
            pack: call.pack,
            input: call.input == Some(true),
            evidence: Evidence::Signed,
            signed: Some(signed),
        }
    }

    /// A call whose evidence is the channel.
    #[must_use]
    pub fn quick(call: QuickCall) -> Self {
        Said {
            payload: sha256(&call.encode()),
            id: call.id,
            command: call.command,
            params: call.params.0,
            salt: call.id,
            at: call.at,
            start_within_ms: call.start_within_ms,
            deadline_ms: call.deadline_ms,
            pack: call.pack,
            input: call.input == Some(true),
            evidence: Evidence::Channel,
            signed: None,
        }
    }
}

/// A call that passed every check and has its place. Only [`admit`] makes one.
#[derive(Debug)]
struct Admitted {
    params: Value,
    target: Target,
    deadline: Option<Duration>,
}

#[derive(Debug)]
enum Target {
    Native,
    Pack(Arc<Active>),
}

/// The call's place among those of its channel, before anything about it is believed.
#[must_use]
pub fn register(open: &OpenChannel, said: &Said) -> Arc<Running> {
    Arc::new(Running {
        key: CallKey { operator: open.operator_id(), id: said.id },
        chain: open.authority.digest(),
        outlet: Outlet::new(said.id, open.pipe.clone()),
        inlet: Inlet::new(said.input),
        cancel: CancellationToken::new(),
        reason: Mutex::new(None),
        packs: Mutex::default(),
    })
}

/// Judges and runs a call to its one ending.
pub async fn serve(link: &Arc<Link>, open: &Arc<OpenChannel>, running: Arc<Running>, mut said: Said) {
    let began = Instant::now();
    let started_at = link.node.reading().now;
    let admitted = admit(link, open, &running, &mut said);
    let taken = admitted.is_ok();
    let (pack, result) = match admitted {
        Ok(admitted) => {
            let pack = match &admitted.target {
                Target::Pack(active) => Some(active.digest()),
                Target::Native => None,
            };
            (pack, run(link, open, &running, &said, admitted).await)
        }
        Err(failure) => (None, Err(failure)),
    };
    end(link, &running, &said, pack, result, Span { began, started_at });
    running.outlet.send().await;
    if taken {
        link.node.calls.ended(&running.key);
    }
}

struct Span {
    began: Instant,
    started_at: Time,
}

fn escaped(text: &str) -> String {
    outhaul_protocol::text::escape_control(text).into_owned()
}

/// The checks, in the order of the design; taking the id is the last, one atomic step before the call runs.
fn admit(link: &Link, open: &OpenChannel, running: &Arc<Running>, said: &mut Said) -> Result<Admitted, Failure> {
    let node = &link.node;
    let reading = node.reading();
    if let Some(signed) = said.signed.take() {
        let call = signed.verify(&open.operator)?;
        if call.opening != Some(open.opening) || call.aud != node.id {
            return Err(Failure::new(Code::WrongNode, "the call is for another channel or node"));
        }
        if reading.sure && reading.now.apart(call.iat) > limits::CLOCK_SKEW_SECS {
            return Err(Failure::new(Code::Expired, format!("the call was signed {} s from now", reading.now.apart(call.iat)))
                .hint("set the clocks of both machines"));
        }
    }
    if said.start_within_ms > limits::START_WITHIN_MAX_SECS * 1000 {
        return Err(Failure::new(Code::BadParams, format!("a call may wait for its start at most {} s", limits::START_WITHIN_MAX_SECS)));
    }
    let elapsed = u64::try_from(open.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    if elapsed > said.at.saturating_add(said.start_within_ms) {
        return Err(Failure::new(Code::Expired, "the call came too late to begin").hint("the relay or the network held it back; try again"));
    }
    {
        let membership = node.membership();
        open.authority.allows_call(&said.command, said.evidence, membership.labels(), reading, membership.revoked())?;
    }
    let (target, params) = find(link, said)?;
    let policy = node.policy_limits();
    let wanted = said.deadline_ms.map(Duration::from_millis);
    let deadline = Some(wanted.map_or(policy.deadline, |wanted| wanted.min(policy.deadline)));
    if let Target::Pack(active) = &target {
        running.uses(active.digest());
    }
    node.calls.take(running.clone(), policy.calls)?;
    Ok(Admitted { params, target, deadline })
}

fn find(link: &Link, said: &Said) -> Result<(Target, Value), Failure> {
    let params = Value::from_cbor(&said.params).map_err(|error| Failure::new(Code::BadParams, format!("parameters: {error}")))?;
    let unknown = || {
        Failure::new(Code::UnknownCommand, format!("this node has no command `{}`", escaped(&said.command)))
            .hint("`relay nodes describe` lists its commands")
    };
    let (interface, _) = said.command.split_once('.').ok_or_else(unknown)?;
    if interface == "node" || interface == "pack" {
        let command = native::find(&said.command).ok_or_else(unknown)?;
        outhaul_protocol::value::check_params(&params, command)?;
        return Ok((Target::Native, params));
    }
    let active = link.node.packs.find(interface).ok_or_else(unknown)?;
    if !active.has_command(&said.command) {
        return Err(unknown());
    }
    if said.pack.is_some_and(|wanted| wanted != active.digest()) {
        return Err(Failure::new(Code::PackChanged, format!("another version of pack `{}` is active now", active.name()))
            .hint("run the command again; it is typed anew"));
    }
    active.conduct().check(active.name())?;
    Ok((Target::Pack(active), params))
}

async fn run(link: &Arc<Link>, open: &OpenChannel, running: &Arc<Running>, said: &Said, admitted: Admitted) -> Result<Value, Failure> {
    match admitted.target {
        Target::Native => {
            let work = native::call(link, running, &said.command, &admitted.params);
            tokio::select! {
                biased;
                () = running.cancel.cancelled() => Err(stopped(running)),
                result = work => result,
                () = sending(running) => unreachable!("never ends"),
            }
        }
        Target::Pack(active) => run_pack(link, open, running, said, admitted.params, admitted.deadline, active).await,
    }
}

fn stopped(running: &Running) -> Failure {
    let reason = running.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
    reason.unwrap_or_else(|| Failure::new(Code::Cancelled, "cancelled by the caller"))
}

async fn run_pack(
    link: &Arc<Link>,
    open: &OpenChannel,
    running: &Arc<Running>,
    said: &Said,
    params: Value,
    deadline: Option<Duration>,
    active: Arc<Active>,
) -> Result<Value, Failure> {
    let node = &link.node;
    let _place = tokio::select! {
        biased;
        () = running.cancel.cancelled() => return Err(stopped(running)),
        place = active.place(Duration::from_millis(said.start_within_ms)) => place?,
    };
    let (output, outputs) = mpsc::channel(OUTPUT_CHUNKS);
    let (input, inputs) = mpsc::channel(INPUT_CHUNKS);
    let request = CallRequest {
        command: said.command.clone(),
        params,
        grants: node.policy.grants_for(active.name(), &active.digest().0, active.origin()),
        io: CallIo { output, input: inputs },
        deadline,
        cancel: running.cancel.clone(),
        label: format!("{} {}", open.operator_id().short(), hex::encode(&said.id[..4])),
        output_limit: node.policy_limits().output,
        shared_only: said.evidence == Evidence::Channel,
        others: Some(Arc::new(Neighbours::of(link.node.clone(), running.clone(), active.name(), open.operator_id()))),
    };
    let accepted = async {
        // A call that ends at once needs no word that it began; one that takes its time does.
        tokio::time::sleep(ACCEPT_AFTER).await;
        let _ = open.pipe.send_bulk(&[&Inner::Accepted { call: said.id }.encode()]).await;
        std::future::pending::<()>().await;
    };
    let feeding = async {
        running.inlet.feed(said.id, input).await;
        std::future::pending::<()>().await;
    };
    let work = async {
        let (result, ()) = tokio::join!(active.pack().call(request), pump(running, outputs));
        result
    };
    let result = tokio::select! {
        result = work => result.map_err(|failure| if failure.code == Code::Cancelled { stopped(running) } else { failure }),
        () = accepted => unreachable!("never ends"),
        () = feeding => unreachable!("never ends"),
        () = sending(running) => unreachable!("never ends"),
    };
    active.note(result.as_ref().err());
    result
}

/// Sends what a call says, as its caller takes it.
async fn sending(running: &Running) {
    running.outlet.send().await;
    std::future::pending().await
}

/// How long a call may go on before its caller is told that it began.
const ACCEPT_AFTER: Duration = Duration::from_millis(20);

/// Moves a pack's output to the call's outlet, where it waits for the caller's credit. A cancelled call's output is
/// dropped: its caller must not have to drain it first.
async fn pump(running: &Running, mut outputs: mpsc::Receiver<Output>) {
    while let Some(output) = outputs.recv().await {
        let (lane, bytes) = match output {
            Output::Data { lane, bytes } => (lane_of(lane), bytes),
            Output::Event { name, json } => (Lane::Event, EventMessage { name, json }.encode().into()),
        };
        // A host's chunk may be a megabyte; one data message fits one Noise message.
        let mut rest: bytes::Bytes = bytes;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(limits::DATA_CHUNK));
            tokio::select! {
                biased;
                () = running.cancel.cancelled() => {}
                () = running.outlet.put(lane, part) => {}
            }
        }
    }
}

/// A host's lane as callers know it.
pub(crate) fn lane_of(lane: outhaul_host::Lane) -> Lane {
    match lane {
        outhaul_host::Lane::Result => Lane::Result,
        outhaul_host::Lane::Stdout => Lane::Stdout,
        outhaul_host::Lane::Stderr => Lane::Stderr,
        outhaul_host::Lane::Event => Lane::Event,
    }
}

/// Signs the receipt and hands the ending to the outlet.
fn end(link: &Link, running: &Running, said: &Said, pack: Option<Digest>, result: Result<Value, Failure>, span: Span) {
    let node = &link.node;
    let (value, failure) = match result {
        Ok(Value::Null) => (None, None),
        Ok(value) => match value.to_cbor() {
            bytes if bytes.len() <= limits::VALUE => (Some(bytes), None),
            bytes => {
                let text = format!("the result is {} bytes, at most {} are allowed", bytes.len(), limits::VALUE);
                (None, Some(Failure::new(Code::TooLarge, text).hint("the pack should return it as a stream")))
            }
        },
        Err(failure) => (None, Some(failure)),
    };
    let tally = running.outlet.close();
    let lanes = tally.lanes();
    let receipt = Receipt {
        iss: node.id,
        aud: running.key.operator,
        iat: node.reading().now,
        call: said.id,
        payload: said.payload,
        signer: running.key.operator,
        evidence: said.evidence,
        command: said.command.clone(),
        pack,
        params: salted(&said.salt, &said.params),
        output: Some(tally.digest(&said.salt, value.as_deref().unwrap_or_default())),
        lanes,
        started_at: span.started_at,
        duration_ms: u64::try_from(span.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        outcome: failure.as_ref().map_or("done", |failure| failure.code.as_str()).to_owned(),
        number: 0,
        previous: Digest([0; 32]),
    };
    let receipt = node.receipts.sign(&node.key, receipt);
    let command = escaped(&said.command);
    match &failure {
        // What the owner of this machine wants to know of: somebody was refused, or a pack misbehaved.
        Some(failure) if !matches!(failure.code, Code::CommandFailed | Code::Cancelled) => {
            tracing::info!(operator = %running.key.operator.short(), command, outcome = %failure.code, reason = %failure.message, number = receipt.number, "call failed");
        }
        _ => tracing::debug!(command, outcome = %receipt.outcome, number = receipt.number, "call ended"),
    }
    let ending = Ending { value: value.map(Blob), failure: failure.as_ref().map(WireFailure::of), receipt: Blob(receipt.into_bytes()) };
    running.outlet.end(ending);
}
