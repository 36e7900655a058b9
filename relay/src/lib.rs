//! The relay, where machines and operators meet, and its operator's command line.
//!
//! ```text
//! serve     listens, accepts, drains
//! core      who is connected, whose channel a frame belongs to, what is remembered; opens no payload
//! init      keys and first grants, on the owner's machine or for a set-up on one machine
//! config    relay.toml and the flags of `relay serve`
//! operator  who calls: folder, book of nodes, link, calls
//! cli       the command line, for all of it
//! ```

pub mod cli;
pub mod config;
pub mod core;
pub mod init;
pub mod operator;
pub mod serve;
