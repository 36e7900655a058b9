//! One call from its opening to its ending. A lost link does not end it: the call is attached to by its id over a new
//! one, for as long as a node keeps what it has to say. It is never sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_link::backoff::Backoff;
use outhaul_link::channel::{CallEvent, CallHandle, CallSender, CallSpec, Channel, Outcome};
use outhaul_link::operator::Operator;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Lookup;
use outhaul_protocol::inner::Lane;
use outhaul_protocol::limits;
use outhaul_protocol::objects::DeploymentDocument;
use outhaul_protocol::time::Time;

use super::book::{Book, Known, Seen};
use super::room::now;
use super::session::{Dialer, Session, target_of};

/// What a call says as it goes.
#[derive(Debug)]
pub enum Happening {
    /// Output.
    Data {
        /// on this lane
        lane: Lane,
        /// these bytes
        bytes: Bytes,
    },
    /// The one ending, its receipt verified.
    Ended(Box<Outcome>),
    /// The link is lost: [`Drive::reach_again`].
    Lost(String),
}

/// A call under way.
#[derive(Debug)]
pub struct Drive {
    dialer: Arc<Dialer>,
    book: Book,
    node: Known,
    link: Operator,
    channel: Channel,
    handle: Option<CallHandle>,
    backoff: Backoff,
    /// output came since the link was last lost
    progress: bool,
    /// the node was asked to stop the call, over this link or one before
    cancelled: AtomicBool,
}

impl Drive {
    /// Opens a channel with the call in its first message.
    pub async fn start(session: Session, seen: &Seen, spec: &CallSpec) -> Result<Drive, Failure> {
        let target = session.target(seen)?;
        let Session { dialer, link, book } = session;
        let opened = link.open(&dialer.caller(), &target, Some(spec), now()).await;
        let (channel, handle) = opened.map_err(|failure| by_its_clock(dialer.explain(failure), seen))?;
        dialer.tell_newer(&channel, &seen.known).await;
        Ok(Drive::on(dialer, book, seen, link, (channel, handle)))
    }

    /// The same when the node must hear our news before the call: one round trip more.
    pub async fn start_told(session: Session, seen: &Seen, spec: &CallSpec) -> Result<Drive, Failure> {
        let target = session.target(seen)?;
        let Session { dialer, link, book } = session;
        let opened = link.open(&dialer.caller(), &target, None, now()).await;
        let (channel, _) = opened.map_err(|failure| by_its_clock(dialer.explain(failure), seen))?;
        dialer.tell_newer(&channel, &seen.known).await;
        let handle = Some(channel.call(spec, now()).await?);
        Ok(Drive::on(dialer, book, seen, link, (channel, handle)))
    }

    fn on(dialer: Arc<Dialer>, book: Book, seen: &Seen, link: Operator, (channel, handle): (Channel, Option<CallHandle>)) -> Drive {
        Drive {
            dialer,
            book,
            node: seen.known.clone(),
            link,
            channel,
            handle,
            backoff: Backoff::default(),
            progress: true,
            cancelled: AtomicBool::new(false),
        }
    }

    /// What happens next. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Happening, Failure> {
        let handle = self.handle.as_mut().ok_or_else(|| unknown("the call was given up"))?;
        loop {
            return match handle.next().await {
                Some(CallEvent::Accepted) => continue,
                Some(CallEvent::Data { lane, bytes }) => {
                    self.progress = true;
                    Ok(Happening::Data { lane, bytes })
                }
                Some(CallEvent::Ended(outcome)) => {
                    self.dialer.take_newer(&self.channel);
                    Ok(Happening::Ended(outcome))
                }
                Some(CallEvent::Lost(reason)) => Ok(Happening::Lost(self.link.over().unwrap_or(reason))),
                Some(CallEvent::Unknown) => Err(unknown("the node no longer knows the call")),
                None => Err(unknown("the channel ended")),
            };
        }
    }

    /// Hands the node a deployment: a relay that holds it back gains nothing.
    pub async fn hand(&self, document: &DeploymentDocument) {
        // A channel that is over says so to the call on it.
        let _ = self.channel.notify("deployment", document.document.clone(), document.chain.clone()).await;
    }

    /// The sending half, on the channel of now.
    #[must_use]
    pub fn sender(&self) -> Option<CallSender> {
        self.handle.as_ref().map(CallHandle::sender)
    }

    /// Asks the node to stop the call; its ending still comes.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(handle) = &self.handle {
            // Over a link that is lost right now it may not arrive: it is asked again over the next one.
            let _ = handle.cancel();
        }
    }

    /// Dials, with back-off, until the call can be attached to: as long as the node keeps its output and ending.
    /// Input that may have been lost with the link cannot be sent again, so such a call is cancelled.
    pub async fn reach_again(&mut self) -> Result<(), Failure> {
        let settled = self.sender().is_none_or(|sender| sender.settled());
        let since = Instant::now();
        // A channel that is closed as soon as it opens must not be opened in a spin.
        if std::mem::take(&mut self.progress) {
            self.backoff.reset();
        } else {
            tokio::time::sleep(self.backoff.wait()).await;
        }
        loop {
            match self.attach().await {
                Ok(()) if settled => {
                    if self.cancelled.load(Ordering::Relaxed) {
                        self.cancel();
                    }
                    return Ok(());
                }
                Ok(()) => {
                    self.cancel();
                    return Err(Failure::new(Code::LinkLost, "the link was lost while input was under way; the call was cancelled"));
                }
                Err(failure) if may_pass(failure.code) && since.elapsed() < Duration::from_secs(limits::CALL_KEPT_SECS) => {
                    tracing::debug!(%failure, "not yet");
                    tokio::time::sleep(self.backoff.wait()).await;
                }
                Err(failure) => return Err(unknown(&failure.message)),
            }
        }
    }

    async fn attach(&mut self) -> Result<(), Failure> {
        let lookup = Lookup { id: Some(self.node.id()), name: None };
        let (link, records) = self.dialer.dial(Some(lookup)).await?;
        let offline = || Failure::new(Code::NodeOffline, format!("`{}` is not connected", self.node.node.name));
        let mut found = None;
        for record in &records {
            found = found.or(Some(self.book.learn(record)?).filter(|seen| seen.known.id() == self.node.id()));
        }
        let target = target_of(&self.dialer, &found.ok_or_else(offline)?)?;
        let (channel, _) = link.open(&self.dialer.caller(), &target, None, now()).await?;
        let handle = self.handle.take().ok_or_else(|| unknown("the call was given up"))?;
        self.handle = Some(channel.attach(handle)?);
        (self.link, self.channel) = (link, channel);
        Ok(())
    }

    /// Waits for the ending; what the call says meanwhile is handed on.
    pub async fn finish(mut self, mut on_data: impl FnMut(Lane, &Bytes)) -> Result<Outcome, Failure> {
        loop {
            match self.next().await? {
                Happening::Data { lane, bytes } => on_data(lane, &bytes),
                Happening::Ended(outcome) => return Ok(*outcome),
                Happening::Lost(_) => self.reach_again().await?,
            }
        }
    }
}

/// Whether waiting may help.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::RelayUnreachable | Code::LinkLost | Code::NodeOffline | Code::Busy)
}

/// A node that refuses for time's sake says why in a bare code. What time it has, it has signed in its prekey, which is
/// ten minutes old at most.
fn by_its_clock(failure: Failure, seen: &Seen) -> Failure {
    let (name, ours) = (&seen.known.node.name, now());
    match &seen.prekey {
        Some(prekey) if failure.code == Code::Expired && another_time(prekey.iat, ours) => {
            let theirs = prekey.iat;
            failure.hint(format!("the clock of `{name}` says {theirs}, the one here {ours}: set the wrong one right"))
        }
        _ => failure,
    }
}

/// Whether a clock by which a prekey was made then cannot agree with ours.
fn another_time(made: Time, ours: Time) -> bool {
    let ahead = made > ours.plus(limits::CLOCK_SKEW_SECS);
    let behind = made.plus(limits::PREKEY_SECS + limits::CLOCK_SKEW_SECS) < ours;
    ahead || behind
}

fn unknown(why: &str) -> Failure {
    Failure::new(Code::LinkLost, format!("the call's outcome is unknown: {why}")).hint("it may have run; it was not sent again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prekey_tells_a_clock_that_is_off_and_not_one_that_is_merely_old() {
        let ours = Time(1_795_257_215);
        for (made, wrong) in [(ours, false), (ours.plus(120), false), (Time(ours.0 - 720), false), (ours.plus(121), true), (Time(0), true)]
        {
            assert_eq!(another_time(made, ours), wrong, "{made}");
        }
    }
}
