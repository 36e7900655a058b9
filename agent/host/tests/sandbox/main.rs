//! The sandbox against the packs in `plugins/dist`: what runs, what is refused, and what hurts nobody but itself.

mod ceilings;
mod conformance;
mod containers;
mod crafted;
mod files;
mod greed;
mod kv;
mod loading;
mod neighbours;
mod outside;
mod podman;
mod powers;
mod seat;
mod streams;
mod support;
mod values;
mod wasi;
mod web;
