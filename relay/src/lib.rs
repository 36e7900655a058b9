//! The relay, where machines and operators meet, and its operator's command line.
//!
//! ```text
//! serve     listens, accepts, drains
//! core      who is connected, whose channel a frame belongs to, what is remembered; opens no payload
//! init      keys and first grants, on the owner's machine or for a set-up on one machine
//! config    relay.toml and the flags of `relay serve`
//! ```

pub mod config;
pub mod core;
pub mod init;
pub mod serve;
