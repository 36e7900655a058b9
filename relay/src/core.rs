//! The relay's core: pair, authenticate, forward, remember. It trusts nobody's word about authority: credentials are
//! verified under the fleet key, notices too, and what travels in channels is never opened.
//!
//! ```text
//! connection ─ admit ─► node │ operator │ guest ─► sessions (who is here; a newer session replaces an older one)
//!                                 │
//!                                 ├─ channels: whose frame is this, and where does it go; bytes untouched
//!                                 ├─ asks: operators' requests; what changes something is signed over the link
//!                                 ├─ pairings: codes' slots, requests for approval, runs between two ends
//!                                 ├─ notices, deployments: what is signed for all nodes, the newest of each
//!                                 └─ store, blobs: threads of their own; no disk is touched on the reactor
//! ```

mod admit;
mod asks;
mod blobs;
mod channels;
mod clock;
mod connection;
mod deployments;
mod guest;
mod hub;
mod node;
mod notices;
mod operator;
mod pairings;
mod registry;
mod sessions;
mod store;
mod worker;

pub(crate) use connection::serve as serve_connection;
pub use hub::Hub;
