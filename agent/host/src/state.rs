//! What one call's store holds: its grants, its output, its ceilings, the resources it opened. Dropped with the store at the call's
//! end, whatever the end was, and with it every child it started.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::grants::{Grants, Power, not_granted, not_shared};
use crate::limits;
use crate::log::PackLog;
use crate::power::call::Calls;
use crate::power::http::Outside;
use crate::power::seat::Seat;
use crate::power::{camera, containers, files, kv};
use crate::sink::Sink;
use crate::stream::HostStream;
use crate::wasi;
use crate::wasi_http::Http;

/// A call's state.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) ceiling: Ceiling,
    pub(crate) sink: Sink,
    pub(crate) camera: camera::Config,
    pub(crate) log: Arc<PackLog>,
    pub(crate) label: String,
    pub(crate) kv: Arc<kv::Store>,
    pub(crate) containers: Arc<containers::Containers>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) calls: Calls,
    pub(crate) seat: Arc<Seat>,
    /// the first refusal that WASI's errors had no room for
    pub(crate) hint: wasi::filesystem::Refusal,
    /// Why a granted folder is missing: worth a word where no operation was refused.
    pub(crate) left_out: Option<String>,
    grants: Arc<Grants>,
    shared_only: bool,
    refusal: Refusal,
    input: Option<mpsc::Receiver<Bytes>>,
    over: CancellationToken,
    _ends: DropGuard,
    // Last, and only for packs that ask: making one costs as much as a small call.
    wasi: Option<Box<WasiCtx>>,
    http: Option<Box<Http>>,
}

/// What a call brings with it.
pub(crate) struct Brought {
    pub(crate) memory: usize,
    pub(crate) sink: Sink,
    pub(crate) input: mpsc::Receiver<Bytes>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) shared_only: bool,
    pub(crate) camera: camera::Config,
    pub(crate) log: Arc<PackLog>,
    pub(crate) label: String,
    pub(crate) kv: Arc<kv::Store>,
    pub(crate) containers: Arc<containers::Containers>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) calls: Calls,
    pub(crate) seat: Arc<Seat>,
}

/// The first refusal of a call, which its ending repeats. Shared with what goes on beside the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusal(Arc<OnceLock<String>>);

impl Refusal {
    /// Keeps a sentence, unless there is one.
    pub(crate) fn remember(&self, sentence: String) {
        self.0.get_or_init(|| sentence);
    }

    /// What was refused.
    pub(crate) fn sentence(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

impl State {
    pub(crate) fn new(brought: Brought) -> Self {
        let over = CancellationToken::new();
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::HANDLES);
        State {
            table,
            ceiling: Ceiling { memory: brought.memory, used: 0, reached: false },
            sink: brought.sink,
            camera: brought.camera,
            log: brought.log,
            label: brought.label,
            kv: brought.kv,
            containers: brought.containers,
            outside: brought.outside,
            calls: brought.calls,
            seat: brought.seat,
            hint: wasi::filesystem::Refusal::default(),
            left_out: None,
            grants: brought.grants,
            shared_only: brought.shared_only,
            refusal: Refusal::default(),
            input: Some(brought.input),
            _ends: over.clone().drop_guard(),
            over,
            wasi: None,
            http: None,
        }
    }

    /// The pack's name.
    pub(crate) fn pack(&self) -> String {
        self.log.pack().to_owned()
    }

    /// The call's grants, when they allow the power at all; else the refusal, which the call's ending will repeat.
    pub(crate) fn granted(&mut self, power: Power) -> Result<Arc<Grants>, String> {
        let grants = &self.grants;
        let granted = match power {
            Power::Output | Power::Log => true,
            // These refuse each thing themselves, with the very command that would allow it.
            Power::Process | Power::Http | Power::Secrets | Power::Call => true,
            Power::Gpu => grants.gpu,
            Power::System => grants.system,
            Power::Camera => grants.camera.is_some(),
            Power::Files => grants.files.is_some(),
            Power::Kv => grants.kv.is_some(),
            Power::Location => grants.location.is_some(),
            Power::Notify => grants.notify,
            Power::Screen => grants.screen.is_some(),
            Power::Containers => grants.containers.is_some(),
        };
        if self.shared_only && !power.is_shared() {
            return Err(self.deny(not_shared(power)));
        }
        if !granted {
            return Err(self.deny(not_granted(self.log.pack(), power)));
        }
        Ok(Arc::clone(&self.grants))
    }

    /// The folders a call may use. Without a signature of its own it has none, and finds none: WASI has no refusal there.
    pub(crate) fn files(&self) -> Option<files::Grant> {
        self.grants.files.clone().filter(|_| !self.shared_only)
    }

    /// Remembers a refusal. The first one is what the caller hears, whatever the pack makes of it.
    pub(crate) fn deny(&mut self, sentence: String) -> String {
        self.refusal.remember(sentence.clone());
        sentence
    }

    /// What was refused.
    pub(crate) fn denied(&self) -> Option<&str> {
        self.refusal.sentence()
    }

    /// The power `http` of this call, made when it is first asked for, and the table beside it.
    pub(crate) fn http_and_table(&mut self) -> (&mut Http, &mut ResourceTable) {
        let http = self.http.get_or_insert_with(|| {
            let pack = self.log.pack().to_owned();
            Box::new(Http::new(pack, Arc::clone(&self.grants), self.shared_only, Arc::clone(&self.outside), self.refusal.clone()))
        });
        (http, &mut self.table)
    }

    /// What the caller sends, for the first who asks.
    pub(crate) fn input(&mut self) -> HostStream {
        match self.input.take() {
            Some(queue) => HostStream::caller(queue, self.over.clone()),
            None => HostStream::empty(),
        }
    }

    /// Ends with the call.
    pub(crate) fn over(&self) -> CancellationToken {
        self.over.clone()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| {
            let input = self.input.take().map(|queue| HostStream::caller(queue, self.over.clone()));
            Box::new(wasi::context(&self.sink, input))
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// The memory of one call, over all its instances.
pub(crate) struct Ceiling {
    memory: usize,
    used: usize,
    reached: bool,
}

impl Ceiling {
    /// Whether memory was refused.
    pub(crate) fn reached(&self) -> bool {
        self.reached
    }

    /// What it may have.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Ceiling {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.memory {
            self.reached = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.reached |= desired > limits::TABLE;
        Ok(desired <= limits::TABLE)
    }

    fn instances(&self) -> usize {
        limits::INSTANCES
    }

    fn tables(&self) -> usize {
        limits::TABLES
    }

    fn memories(&self) -> usize {
        limits::MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_share_one_ceiling() {
        let mut ceiling = Ceiling { memory: 100, used: 0, reached: false };
        assert!(ceiling.memory_growing(0, 60, None).expect("answer"));
        assert!(ceiling.memory_growing(0, 30, None).expect("answer"));
        assert!(ceiling.memory_growing(60, 70, None).expect("answer"));
        assert!(!ceiling.reached());
        assert!(!ceiling.memory_growing(30, 31, None).expect("answer"));
        assert!(ceiling.reached());
        assert!(!ceiling.table_growing(0, limits::TABLE + 1, None).expect("answer"));
    }
}
