//! Runs capability packs.
pub mod power;
