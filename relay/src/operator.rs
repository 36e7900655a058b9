//! The operator: who calls, what it keeps on its own machine, and what it does over a link. Everything it believes
//! about nodes it has verified under the pinned fleet key; the relay's word counts for status and last-seen only.
//!
//! [`Room`] is the folder, [`Book`] the nodes known there, [`Session`] a link that is up; [`Drive`] runs one call to
//! its ending, through lost links. Nothing here prints: the command line does.

mod book;
mod commands;
pub mod deployments;
mod drive;
mod enrol;
mod grants;
mod publishers;
mod room;
mod session;

pub use book::{Announced, Book, Known, Seen};
pub use commands::{Meant, answering, capabilities_of, description_of, find_command, packs_of};
pub use drive::{Drive, Happening};
pub use enrol::{Enroller, NameWish, host_name};
pub use grants::{GrantText, GrantWish, Offered, delegates, give, given, revoke, revoke_at, revoke_publisher, words};
pub use publishers::{OWN, Rotated, read_rotations};
pub use room::{Config, FINGERPRINT_DIGITS, Fleet, Room, now};
pub use session::{Dialer, Session};
pub(crate) use session::{target, unexpected};
