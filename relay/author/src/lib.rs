//! What an author of packs needs: a folder that builds, a component from it, and a look into a component. The only home of
//! wit-parser and wit-component; knows no relay, no agent and no network, and downloads nothing.
//!
//! - [`new`]: a folder that builds, from [`project`]'s languages
//! - [`build`]: from the folder to a component, by each language's own tools
//! - [`make`]: what decides a component's bytes: a compiler for Rust, the component around a module, the docs from WIT
//! - [`component`]: what a component's own types say: commands, imports
//! - [`inspect`]: all that can be known of a pack without running it

pub mod build;
pub mod component;
pub mod inspect;
pub mod make;
pub mod new;
pub mod project;
pub mod sources;
pub mod wit;
