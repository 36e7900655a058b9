//! Runs capability packs: WebAssembly components whose exported functions are a machine's commands.
//!
//! A pack is checked, compiled in a process of its own and linked once ([`Host::load`]); each call ([`Pack::call`]) then runs in a fresh
//! store with its own grants, ceilings and deadline, and ends in exactly one way. This crate is the only home of wasmtime and of the
//! native powers ([`power`]); it knows no relay, no operator and no file but its cache of compiled code. Of the network it knows what
//! packs are granted to ask of it.
//!
//! Read it in this order: `pack` (how one is loaded: `compile`, `cache`, `imports`, `exports`), `call` (how one is called:
//! `convert`, `state`, `sink`, `stream`), `host_v0_1` (what one may import).

mod bindings;
mod cache;
mod call;
mod compile;
mod convert;
mod engine;
mod exports;
mod grants;
mod host_v0_1;
mod imports;
mod limits;
mod log;
pub mod measure;
mod pack;
pub mod power;
mod sink;
mod state;
mod stream;
mod ticker;
mod wasi;
mod wasi_http;

pub use call::{CallIo, CallRequest};
pub use compile::{Compiler, compile_child};
pub use grants::{Grants, Power};
pub use imports::powers_asked;
pub use pack::{Host, HostConfig, Pack};
pub use sink::{Lane, Output};
