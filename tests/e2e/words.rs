//! Every output and every error of both command lines, as a person or a program gets them: what was typed, stdout (`|`),
//! stderr (`!`), exit status (`=`), one page for each part of the story. [`cover`] holds the pages against the grammar
//! and the error codes: a new command, or a code that no page shows, fails.
//!
//! Read a page as its reader would. `INSTA_UPDATE=always cargo test --workspace --test e2e words` writes them anew.

mod authors;
mod calls;
mod cover;
mod fake;
mod first;
mod links;
mod machine;
mod nodes;
mod operators;
mod packs;
mod page;
mod pairing;
mod powers;
mod programs;
mod publishers;
mod tidy;
