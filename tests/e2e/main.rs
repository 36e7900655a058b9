//! End to end over the real binaries, one test binary. Each test has homes of its own and port 0; names read as claims.

#![allow(clippy::unwrap_used, reason = "what is missing in an answer fails the test")]

mod author;
mod calls;
mod camera;
mod clock;
mod config;
mod deployments;
mod drops;
mod grants;
mod handshake;
mod hostile;
mod location;
mod middle;
mod neighbours;
mod notify;
mod packs;
mod pairing;
mod powers;
mod readers;
mod refusals;
mod registry;
mod restarts;
mod run;
mod screen;
mod trust;
mod web;
mod words;
