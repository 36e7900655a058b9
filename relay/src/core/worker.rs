//! A thread that owns something slow, a database or a folder, and does jobs on it one after the other. The reactor never
//! waits for a disk. The queue is bounded: whoever cannot wait is refused.

use outhaul_protocol::error::{Code, Failure};
use tokio::sync::{mpsc, oneshot};

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Jobs that may wait: a whole fleet announcing at once, a few KiB each.
const JOBS: usize = 16_384;

/// The handle; the thread ends when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    jobs: mpsc::Sender<Job<T>>,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay is too busy")]
pub(crate) struct Full;

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread.
    pub(crate) fn start(name: &str, mut owned: T) -> Result<Self, Failure> {
        let (jobs, mut queue) = mpsc::channel::<Job<T>>(JOBS);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut owned);
                }
            })
            .map_err(|error| Failure::new(Code::Internal, format!("start thread `{name}`: {error}")))?;
        Ok(Worker { jobs })
    }

    /// Queues a job for those who cannot wait.
    pub(crate) fn submit(&self, job: impl FnOnce(&mut T) + Send + 'static) -> Result<(), Full> {
        self.jobs.try_send(Box::new(job)).map_err(|_| Full)
    }

    /// Does a job and waits for what it gives.
    pub(crate) async fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut T) -> R + Send + 'static) -> Result<R, Failure> {
        let (sender, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |owned| {
            let _ = sender.send(job(owned));
        });
        let gone = || Failure::new(Code::Internal, "the relay's store has stopped");
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}
