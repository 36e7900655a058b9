//! The protocol of Outhaul without any I/O, runtime or clock: frames, handshake, pairing, signed objects,
//! the sealed channel, credit, values and types. `cddl/` beside this crate writes it down for other languages.

pub mod cbor;
pub mod chain;
pub mod channel;
pub mod credential;
pub mod credit;
pub mod describe;
pub mod error;
pub mod evidence;
pub mod frame;
pub mod handshake;
pub mod inner;
pub mod keys;
pub mod limits;
pub mod native;
pub mod objects;
pub mod pack;
pub mod pairing;
pub mod publisher;
pub mod scan;
pub mod secret;
pub mod signed;
pub mod text;
pub mod time;
pub mod types;
pub mod value;
