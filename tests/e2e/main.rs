//! End to end over the real binaries, one test binary. Each test has homes of its own and port 0; names read as claims.

#![allow(clippy::unwrap_used, reason = "what is missing in an answer fails the test")]

mod calls;
mod camera;
mod config;
mod grants;
mod hostile;
mod packs;
mod pairing;
mod powers;
mod restarts;
mod run;
