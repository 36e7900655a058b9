//! What decides a component's bytes, next to its sources. The stamps of `plugins/dist` digest this folder, so whatever has
//! no say in the bytes stays out of it.

pub mod docs;
pub mod encode;
pub mod toolchain;

/// WIT that was read, for those who make packs of more than one folder.
pub use wit_parser::Resolve;
