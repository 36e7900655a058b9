//! Drives one call for a person: output as it comes, input if it is wanted, Ctrl-C, the deadline's last resort.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outhaul_console::interrupts::Interrupts;
use outhaul_link::channel::{CallSender, Outcome};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::objects::Receipt;
use outhaul_protocol::signed::Verified;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lanes::Lanes;
use super::output::Output;
use crate::operator::{Drive, Happening};

/// How long a cancelled call may take to end before nobody waits for it any more.
const GRACE: Duration = Duration::from_secs(5);
/// What is left to the network after a call's deadline; the node's clock is the one that counts.
const MARGIN: Duration = Duration::from_secs(5);

/// How a call went.
#[derive(Debug)]
pub(crate) struct Finished {
    /// the result, or why there is none
    pub result: Result<Value, Failure>,
    /// the node's word, if it got through
    pub receipt: Option<Verified<Receipt>>,
}

impl Finished {
    fn failed(failure: Failure) -> Finished {
        Finished { result: Err(failure), receipt: None }
    }
}

/// Input on its way; outlives the channel it goes through.
#[derive(Debug)]
struct Feeder {
    pieces: mpsc::Receiver<Bytes>,
    pending: Option<Bytes>,
}

impl Feeder {
    fn stdin() -> Feeder {
        Feeder { pieces: outhaul_console::input::stdin(), pending: None }
    }

    /// Feeds until the input ends, the call does, or the link is lost; the rest can go through another channel. On a
    /// task of its own: a piece must never be half sent.
    fn feed(mut self, sender: CallSender, lost: CancellationToken) -> JoinHandle<Feeder> {
        tokio::spawn(async move {
            loop {
                if self.pending.is_none() {
                    // A silent input would keep us here although the link is gone.
                    self.pending = tokio::select! {
                        biased;
                        () = lost.cancelled() => return self,
                        piece = self.pieces.recv() => piece,
                    };
                }
                let sent = match &self.pending {
                    Some(piece) => sender.input(piece).await,
                    None => {
                        let _ = sender.input_end();
                        return self;
                    }
                };
                match sent {
                    Ok(()) => self.pending = None,
                    Err(_) => return self,
                }
            }
        })
    }
}

/// Opens a call and waits for its ending. `deadline` is what the call was given; the node keeps it, this is the last resort. The error is
/// that of an opening that failed.
pub(crate) async fn finish(
    out: Output,
    opening: impl Future<Output = Result<Drive, Failure>>,
    lanes: &mut Lanes,
    stdin: bool,
    deadline: Option<Duration>,
) -> Result<Finished, Failure> {
    let mut interrupts = Interrupts::new()?;
    tokio::pin!(opening);
    tokio::select! {
        biased;
        () = interrupts.next() => {}
        drive = &mut opening => return Ok(follow(out, (drive?, None), interrupts, lanes, stdin, deadline).await),
    }
    // The node may have the call already, and only over its channel can it be told to stop.
    let drive = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(Finished::failed(cancelled())),
        drive = tokio::time::timeout(GRACE, opening) => drive,
    };
    match drive {
        Ok(Ok(drive)) => Ok(follow(out, (drive, Some(cancelled())), interrupts, lanes, false, deadline).await),
        // It never began.
        Ok(Err(_)) => Ok(Finished::failed(cancelled())),
        Err(_) => Ok(Finished::failed(Failure::new(Code::Cancelled, "cancelled; the node did not answer, and the call may go on there"))),
    }
}

/// The same from an open call on, which may be one that is not wanted any more.
async fn follow(
    out: Output,
    (mut drive, mut stopping): (Drive, Option<Failure>),
    mut interrupts: Interrupts,
    lanes: &mut Lanes,
    stdin: bool,
    deadline: Option<Duration>,
) -> Finished {
    let mut parted = CancellationToken::new();
    let mut feeding = match drive.sender() {
        Some(sender) if stdin => Some(Feeder::stdin().feed(sender, parted.clone())),
        _ => None,
    };
    let mut limit = deadline.map(|deadline| Instant::now() + 2 * deadline + MARGIN);
    if stopping.is_some() {
        limit = Some(Instant::now() + GRACE);
        drive.cancel();
    }
    loop {
        let until = limit;
        let lost = tokio::select! {
            biased;
            () = interrupts.next() => {
                if stopping.is_some() {
                    return Finished::failed(cancelled());
                }
                (stopping, limit) = (Some(cancelled()), Some(Instant::now() + GRACE));
                drive.cancel();
                continue;
            }
            () = async { tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await }, if until.is_some() => {
                drive.cancel();
                let late = || Failure::new(Code::Deadline, "the call did not end within its deadline, and the node did not say why");
                return Finished::failed(stopping.unwrap_or_else(late));
            }
            happening = drive.next() => match happening {
                Err(failure) => return Finished::failed(stopping.unwrap_or(failure)),
                Ok(Happening::Data { lane, bytes }) => {
                    if stopping.is_none()
                        && let Err(failure) = unless_interrupted(&mut interrupts, lanes.take(lane, bytes)).await
                    {
                        (stopping, limit) = (Some(failure), Some(Instant::now() + GRACE));
                        drive.cancel();
                    }
                    continue;
                }
                Ok(Happening::Ended(outcome)) => {
                    if stopping.is_none() {
                        stopping = unless_interrupted(&mut interrupts, lanes.drain()).await.err();
                    }
                    return ended(*outcome, stopping);
                }
                Ok(Happening::Lost(reason)) => reason,
            },
        };
        if let Some(failure) = stopping {
            return Finished::failed(failure);
        }
        out.talk(&format!("link lost ({}); reaching for the call again", outhaul_protocol::text::escape_control(&lost)));
        std::mem::take(&mut parted).cancel();
        let feeder = match feeding.take() {
            Some(task) => task.await.ok(),
            None => None,
        };
        tokio::select! {
            biased;
            () = interrupts.next() => return Finished::failed(Failure::new(Code::Cancelled, "cancelled; the call may go on at the node, which was out of reach")),
            () = async { tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await }, if until.is_some() => {
                return Finished::failed(Failure::new(Code::Deadline, "the link was lost and not found again in time; the call's outcome is unknown"));
            }
            reached = drive.reach_again() => match reached {
                Ok(()) => out.talk("the link is back"),
                Err(failure) => return Finished::failed(failure),
            },
        }
        feeding = feeder.zip(drive.sender()).map(|(feeder, sender)| feeder.feed(sender, parted.clone()));
    }
}

fn cancelled() -> Failure {
    Failure::new(Code::Cancelled, "cancelled")
}

/// Output may wait for a reader that never reads; Ctrl-C must not wait with it.
async fn unless_interrupted(interrupts: &mut Interrupts, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        biased;
        () = interrupts.next() => Err(cancelled()),
        done = work => done,
    }
}

/// The node's ending. What we stopped the call for is the reason, unless it was done before it heard of it.
fn ended(outcome: Outcome, stopping: Option<Failure>) -> Finished {
    let result = match (outcome.result, stopping) {
        (Err(failure), Some(why)) if failure.code == Code::Cancelled => Err(why),
        (Ok(_), Some(why)) if why.code != Code::Cancelled => Err(why),
        (result, _) => result,
    };
    Finished { result, receipt: Some(outcome.receipt) }
}

/// A receipt as JSON has it.
pub(crate) fn receipt_json(receipt: Option<&Verified<Receipt>>) -> Json {
    receipt.map_or(Json::Null, |receipt| {
        json!({
            "call": hex::encode(receipt.call),
            "node": receipt.iss.to_string(),
            "command": receipt.command,
            "pack": receipt.pack.map(|pack| pack.to_string()),
            "signer": receipt.signer.to_string(),
            "evidence": receipt.evidence.as_str(),
            "started_at": receipt.started_at.0,
            "duration_ms": receipt.duration_ms,
            "outcome": receipt.outcome,
            "number": receipt.number,
            "cose": STANDARD.encode(receipt.bytes()),
        })
    })
}
