//! What is asked for and what is told, in words of the power's own: no runtime's types go further than this module's neighbours.

use thiserror::Error;

use super::Wanted;

/// Why nothing came of a request. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContainersError {
    /// Policy does not allow it; says how the owner would.
    #[error("{0}")]
    Denied(String),
    /// This machine has no container runtime, or it does not answer.
    #[error("{0}")]
    NoRuntime(String),
    /// The pack has no such container; or an image, folder or GPU is not here.
    #[error("{0}")]
    NotFound(String),
    /// A name or a GPU is taken.
    #[error("{0}")]
    Conflict(String),
    /// As many as policy lets the pack have.
    #[error("{0}")]
    Limit(String),
    /// The request makes no sense, or the runtime refused it.
    #[error("{0}")]
    Failed(String),
}

/// What a pack asks to run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spec {
    /// The image.
    pub image: String,
    /// What the pack calls the container.
    pub name: Option<String>,
    /// Instead of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// The program's arguments; the image's own when empty.
    pub command: Vec<String>,
    /// Variables beside the image's.
    pub env: Vec<(String, String)>,
    /// Who runs it, of the container's users.
    pub user: Option<String>,
    /// Where it starts, in the container.
    pub workdir: Option<String>,
    /// Folders of the machine.
    pub mounts: Vec<Mount>,
    /// GPUs.
    pub gpus: Wanted,
    /// MiB of memory; as much as policy gives when absent.
    pub memory_mib: Option<u32>,
    /// Processors; as many as policy gives when absent.
    pub cpus: Option<f64>,
    /// MiB of shared memory, which counts as memory.
    pub shm_mib: Option<u32>,
    /// Its network; none when absent.
    pub network: Option<String>,
    /// Whether it is removed when it ends.
    pub remove: bool,
}

/// A folder or file of the machine in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub source: String,
    /// Where the container sees it.
    pub target: String,
    /// Whether the container may change it.
    pub writable: bool,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Created,
    /// At work.
    Running,
    /// Held.
    Paused,
    /// Done.
    Ended,
}

/// A container of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 digits.
    pub id: String,
    /// What the pack calls it.
    pub name: String,
    /// Its image, written out.
    pub image: String,
    /// What it is doing.
    pub state: State,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// The status it ended with.
    pub exit_code: Option<i32>,
    /// The GPUs it was given, by UUID.
    pub gpus: Vec<String>,
}

/// What a container uses now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// Percent of one processor.
    pub cpu_percent: f64,
    /// Bytes.
    pub memory_used: u64,
    /// Bytes it may have.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// An image that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name, written out.
    pub reference: String,
    /// `sha256:` and 64 digits, of its settings.
    pub id: String,
    /// Bytes.
    pub size: u64,
}
