//! The relay as its peers meet it: real sockets on port 0, raw frames of nodes, operators and guests.

mod channels;
mod deployments;
mod fleet;
mod pairing;
mod registry;
mod requests;
mod windows;
mod world;
