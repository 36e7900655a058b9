//! The two engines and how they are set up. A pack without streams and async functions runs on the synchronous one, whose calls cost a
//! quarter; a store never meets the other's engine.
//!
//! What is compiled for one set-up runs on another only if everything that shapes code is the same, so that one function makes both the
//! engine that runs and the engine that compiles; they differ in where memory comes from.

use std::fmt;

use outhaul_protocol::error::{Code, Failure};
use sha2::{Digest, Sha256};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limits;
use crate::ticker::Ticker;

/// Which engine a pack runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No streams, no async functions, no concurrency.
    Sync,
    /// Everything.
    Async,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Sync, Kind::Async];

    /// Its byte in a cached file and between compiler and agent.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Kind::Sync => b'S',
            Kind::Async => b'A',
        }
    }

    /// The kind of a byte.
    pub(crate) fn of_tag(tag: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.tag() == tag)
    }
}

/// Both engines that run packs, with their ticker.
pub(crate) struct Engines {
    sync: Engine,
    concurrent: Engine,
    /// Names the engines among folders of compiled code.
    pub(crate) name: String,
    pub(crate) ticker: Ticker,
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Engines {
    /// Engines for so many calls of so much memory.
    pub(crate) fn new(calls: usize, memory: usize) -> Result<Self, Failure> {
        let sync = pooled(Kind::Sync, calls, memory)?;
        let concurrent = pooled(Kind::Async, calls, memory)?;
        let ticker = Ticker::start(vec![sync.clone(), concurrent.clone()])
            .map_err(|error| Failure::new(Code::Internal, format!("start the epoch thread: {error}")))?;
        let name = name(&[&sync, &concurrent]);
        Ok(Engines { sync, concurrent, name, ticker })
    }

    /// The engine of a kind.
    pub(crate) fn get(&self, kind: Kind) -> &Engine {
        match kind {
            Kind::Sync => &self.sync,
            Kind::Async => &self.concurrent,
        }
    }
}

/// An engine that compiles. It has no pool, so that it fits into a compiler's address space.
pub(crate) fn compiling(kind: Kind) -> wasmtime::Result<Engine> {
    Engine::new(&base(kind))
}

/// An engine that runs what was compiled elsewhere: a compiler that is never asked would still cost a megabyte. It has a pool; without one where the system refuses the addresses.
fn pooled(kind: Kind, calls: usize, memory: usize) -> Result<Engine, Failure> {
    let slots = if address_bits() < limits::WIDE_ADDRESSES { calls.min(limits::SLOTS_NARROW) } else { calls };
    let mut config = base(kind);
    config.enable_compiler(false).allocation_strategy(InstanceAllocationStrategy::Pooling(pool(slots, memory)));
    Engine::new(&config)
        .or_else(|error| {
            tracing::warn!(slots, reason = %error, "no address space for a pool of sandboxes: each call maps its own, which is slower");
            Engine::new(base(kind).enable_compiler(false))
        })
        .map_err(|error| Failure::new(Code::Internal, format!("set up the WebAssembly engine: {error:#}")))
}

/// All that shapes compiled code.
fn base(kind: Kind) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(kind == Kind::Async)
        .epoch_interruption(true)
        .max_wasm_stack(limits::GUEST_STACK)
        .async_stack_size(limits::FIBER_STACK)
        // Nobody reads addresses of a guest's code: a trap's name is what people are told.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(None);
    if kind == Kind::Async {
        config.wasm_component_model_async(true);
    }
    config
}

/// The counters are sized so that the slots of memory are what runs out.
fn pool(slots: usize, memory: usize) -> PoolingAllocationConfig {
    let slots = u32::try_from(slots.max(1)).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(8))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(4))
        .total_stacks(slots.saturating_mul(2))
        .table_elements(limits::TABLE)
        .max_tables_per_module(8)
        .max_memory_size(memory)
        .linear_memory_keep_resident(limits::KEEP_RESIDENT)
        .table_keep_resident(limits::KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// How many bits of addresses a process has here, as the position of the stack tells.
fn address_bits() -> u32 {
    let here = 0u8;
    let address = (&raw const here).addr() as u64;
    u64::BITS - address.leading_zeros()
}

fn name(engines: &[&Engine]) -> String {
    let mut digest = Digesting(Sha256::new());
    for engine in engines {
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut digest);
    }
    hex::encode(&digest.0.finalize()[..16])
}

/// A hasher whose result is the same in every process.
struct Digesting(Sha256);

impl std::hash::Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_the_same_name_each_time() {
        let small = |calls| Engines::new(calls, 1 << 20).expect("engines").name;
        assert_eq!(small(1), small(2));
        assert_eq!(small(1).len(), 32);
    }

    #[test]
    fn a_pool_that_cannot_be_mapped_is_done_without() {
        let engines = Engines::new(60_000_000, 1 << 20).expect("falls back");
        assert_eq!(engines.name.len(), 32);
    }

    #[test]
    fn kinds_have_tags() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_tag(kind.tag()), Some(kind));
        }
        assert_eq!(Kind::of_tag(0), None);
    }
}
