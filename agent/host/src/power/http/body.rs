//! Bodies with a ceiling of bytes, and for what comes in, of time. Nothing is collected here: frames pass as they come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{HttpError, Step};

/// A body that ends with an error when it is longer, or takes longer, than it may.
#[derive(Debug)]
pub struct Limited<B> {
    inner: B,
    left: u64,
    over: HttpError,
    clock: Option<Clock>,
}

/// Until when a body must have come, and its next part.
#[derive(Debug)]
struct Clock {
    deadline: Pin<Box<Sleep>>,
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

impl<B> Limited<B> {
    /// A request's.
    pub(super) fn sent(inner: B, most: u64) -> Self {
        Limited { inner, left: most, over: HttpError::RequestBody(most), clock: None }
    }

    /// An answer's. `place` is given back with it.
    pub(super) fn received(inner: B, most: u64, deadline: Instant, silence: Option<Duration>, place: OwnedSemaphorePermit) -> Self {
        let silence = silence.map(|silence| (silence, Box::pin(sleep(silence))));
        let clock = Clock { deadline: Box::pin(sleep_until(deadline)), silence, _place: place };
        Limited { inner, left: most, over: HttpError::ResponseBody(most), clock: Some(clock) }
    }
}

impl Clock {
    /// Whether the time is over; wakes when it is.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let silent = self.silence.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        self.deadline.as_mut().poll(cx).is_ready() || silent
    }

    fn heard(&mut self) {
        if let Some((silence, sleep)) = &mut self.silence {
            sleep.as_mut().reset(Instant::now() + *silence);
        }
    }
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<HttpError>,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let me = self.get_mut();
        let frame = Pin::new(&mut me.inner).poll_frame(cx);
        // Also when there is something: a body that never pauses would never meet its clock.
        if let Some(clock) = &mut me.clock {
            if frame.is_ready() {
                clock.heard();
            }
            if clock.is_over(cx) {
                return Poll::Ready(Some(Err(HttpError::Timeout(Step::Body))));
            }
        }
        let frame = ready!(frame);
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            me.left = me.left.checked_sub(length).ok_or_else(|| me.over.clone())?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
