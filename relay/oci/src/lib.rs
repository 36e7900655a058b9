//! Capability packs in OCI registries.
//!
//! A component is an artifact as the CNCF's guidance for WebAssembly lays it out, so that other tools read ours and we
//! theirs: an image manifest whose config is `application/vnd.wasm.config.v0+json` and whose one layer is
//! `application/wasm`. Its publisher's signature is an artifact of its own that refers to that manifest ([`layout`]);
//! registries without the referrers API of OCI's distribution specification 1.1 are served by its tag schema.
//!
//! Nothing here is believed because a registry said it: what is pulled has the digests that were asked for, and whether a
//! signature holds is judged by whoever installs.

pub mod layout;
pub mod place;
pub mod registry;

pub use place::Place;
pub use registry::{Pulled, Pushed, Registry};
