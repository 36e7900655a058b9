//! Both ends of Outhaul's link: WebSocket, TLS, handshake, back-off, and the operator's end of sealed channels.
//! The only home of tungstenite and rustls. Knows frames and bytes; what a node or the relay does with them is theirs.

pub mod accept;
pub mod backoff;
pub mod budget;
pub mod channel;
pub mod dial;
mod eager;
mod flow;
pub mod operator;
pub mod outbox;
pub mod pipe;
mod socket;
pub mod tls;
pub mod url;

pub use flow::Windows;
pub use socket::{Ended, Socket, pump};
