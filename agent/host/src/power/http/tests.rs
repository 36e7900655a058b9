//! The power without a sandbox around it: what a body may be, and what a look-up may cost. The rest is tested with a pack.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::*;

/// A body that a test feeds.
struct Fed(mpsc::Receiver<&'static [u8]>);

impl Body for Fed {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.get_mut().0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece)))))
    }
}

async fn received(most: u64, deadline: Duration, silence: Option<Duration>) -> (mpsc::Sender<&'static [u8]>, Limited<Fed>, Arc<Semaphore>) {
    let (feed, fed) = mpsc::channel(4);
    let places = Arc::new(Semaphore::new(1));
    let place = places.clone().acquire_owned().await.expect("free");
    (feed, Limited::received(Fed(fed), most, Instant::now() + deadline, silence, place), places)
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_body_of_the_ceiling_passes_and_a_byte_more_does_not() {
    for (pieces, whole) in [(["abc", "de"], true), (["abc", "def"], false)] {
        let (feed, body, places) = received(5, LONG, None).await;
        for piece in pieces {
            feed.send(piece.as_bytes()).await.expect("room");
        }
        drop(feed);
        let collected = body.collect().await.map(|all| all.to_bytes());
        assert_eq!(collected, if whole { Ok(Bytes::from_static(b"abcde")) } else { Err(HttpError::ResponseBody(5)) });
        assert_eq!(places.available_permits(), 1, "the place is given back with the body");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_ends_at_its_deadline_whether_it_is_silent_or_never_stops() {
    let (_feed, body, _) = received(5, Duration::from_secs(3), None).await;
    assert_eq!(body.collect().await.err(), Some(HttpError::Timeout(Step::Body)));
    let (feed, body, _) = received(u64::MAX, Duration::from_secs(3), None).await;
    let endless = async {
        while feed.send(b"x").await.is_ok() {
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    };
    let (ended, ()) = tokio::join!(body.collect(), endless);
    assert_eq!(ended.err(), Some(HttpError::Timeout(Step::Body)));
}

#[tokio::test(start_paused = true)]
async fn silence_between_two_parts_ends_a_body_and_talk_does_not() {
    let (feed, body, _) = received(u64::MAX, LONG, Some(Duration::from_secs(2))).await;
    let talk = async {
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(1)).await;
            feed.send(b"x").await.expect("listens");
        }
        std::future::pending::<()>().await;
    };
    let mut body = pin!(body);
    let mut parts = 0;
    let read = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => parts += 1,
                other => break other.and_then(Result::err),
            }
        }
    };
    let ended = tokio::select! {
        ended = read => ended,
        () = talk => unreachable!("never ends"),
    };
    assert_eq!((ended, parts), (Some(HttpError::Timeout(Step::Body)), 5));
}

#[tokio::test]
async fn the_systems_resolver_knows_this_machine() {
    let found = SystemResolver.resolve("localhost").await.expect("an address");
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    assert!(SystemResolver.resolve("").await.is_err() || SystemResolver.resolve("no such name").await.is_err());
}
