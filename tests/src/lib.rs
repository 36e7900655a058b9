//! The stage that tests, story and bench play on: real `relay` and `agent` processes in homes of their own, on port 0,
//! ended by pid when their handle goes. Nothing here sleeps to wait: it reads lines until the one it waits for comes.

pub mod faketime;
pub mod hostile;
pub mod impostor;
pub mod middle;
pub mod outsider;
pub mod packs;
pub mod process;
pub mod seat;
pub mod stage;
pub mod tools;
pub mod vm;
pub mod wire;

pub use process::{Line, Process, Ran, binary};
pub use stage::{Node, Stage};
