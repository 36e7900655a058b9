//! Outhaul's agent. It dials out to a relay, listens on nothing, and hosts capability packs.
//!
//! A frame arrives ([`link`]), belongs to a channel ([`channel`]), says a call ([`call`]), which is judged by chain and
//! [`policy`] and run by one of the [`packs`], and its answers stream out ([`outlet`]) with a receipt ([`receipts`]).
//! Around that: how this machine joins a fleet ([`pair`], [`pins`]), whose packs it takes ([`trust`]), which of them its fleet
//! wants here ([`deployments`]), what its owner types ([`cli`]), and how an author tries a pack without any of it ([`trial`]).

pub mod active;
pub mod call;
pub mod calls;
pub mod channel;
pub mod cli;
pub mod config;
pub mod deployments;
pub mod edit;
pub mod explain;
pub mod facts;
pub mod link;
pub mod native;
mod neighbours;
pub mod outlet;
pub mod outside;
pub mod packs;
pub mod pair;
pub mod pins;
pub mod policy;
pub mod prekey;
pub mod quarantine;
pub mod receipts;
pub mod run;
pub mod shelf;
pub mod show;
pub mod trial;
pub mod trust;
pub mod vault;

#[cfg(test)]
pub(crate) mod testing;
