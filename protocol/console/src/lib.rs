//! What `relay` and `agent` do alike when a person runs a command: how parameters are typed ([`how`]), where output goes
//! as it comes ([`lanes`]) and input from ([`input`]), how an ending is shown ([`output`], [`ending`]), Ctrl-C ([`interrupts`]). One place, so that a
//! pack that is tried on its author's machine looks as it will on any node.

pub mod ending;
pub mod how;
pub mod input;
pub mod interrupts;
pub mod lanes;
pub mod output;
