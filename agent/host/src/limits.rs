//! Every ceiling of the sandbox, with its reason. What the machine's owner may choose comes in [`HostConfig`](crate::HostConfig).

use std::time::Duration;

pub(crate) use outhaul_protocol::limits::{COMMANDS, TYPE_DEPTH, TYPE_NODES};

/// Memory of the host that one crossing between pack and host may take. A guest's memory limit does not count what it passes or
/// returns, and a dynamic value costs 40 bytes per byte of a list.
pub(crate) const HOSTCALL_FUEL: usize = 16 << 20;
/// How often a running guest is asked to let others run. A spinning guest keeps a worker for one tick at a time.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call after which the ticker sleeps: waking it costs more than a call, so that it lingers between calls.
pub(crate) const TICKS_IDLE: u32 = 100;
/// Stack of guest code. Deep parsers need a few hundred KiB.
pub(crate) const GUEST_STACK: usize = 512 << 10;
/// Stack of a fiber: the guest's and, below it, that of the host functions it calls.
pub(crate) const FIBER_STACK: usize = 2 << 20;
/// Elements of one table. CPython, the largest guest seen, has 10,000.
pub(crate) const TABLE: usize = 65_536;
/// Tables of one call: a component of several modules has one or two each.
pub(crate) const TABLES: usize = 32;
/// Core instances of one call: the module, its shims and adapters, and those of a few composed components.
pub(crate) const INSTANCES: usize = 64;
/// Linear memories of one call. They share the memory ceiling.
pub(crate) const MEMORIES: usize = 8;
/// Handles a guest may hold: streams, children, tasks, pollables. Each takes host memory that no other limit counts.
pub(crate) const HANDLES: usize = 1_024;
/// Entries behind those handles: a stream has three.
pub(crate) const HANDLE_ENTRIES: usize = 8 * HANDLES;
/// Bytes of the headers of one message that a pack makes, as they lie in the host's memory: each of its handles may be one.
pub(crate) const HTTP_FIELDS: usize = 32 << 10;
/// Bytes of a request's body that a pack may write at once; two of them wait per request.
pub(crate) const HTTP_WRITE: usize = 64 << 10;
/// Random bytes a WASI guest gets at once.
pub(crate) const RANDOM: u64 = 1 << 20;
/// Files and folders a call may have open in granted folders: an archiver has a handful.
pub(crate) const OPEN_FILES_PER_CALL: usize = 64;
/// The same for all calls together: half of the 1,024 descriptors that an ordinary process may have, so that links, children and the
/// agent's own files keep theirs.
pub(crate) const OPEN_FILES: usize = 512;
/// Bytes of one read from a file, or of one write to it.
pub(crate) const FILE_CHUNK: usize = 256 << 10;
/// Bytes of a key of a kept value.
pub(crate) const KV_KEY: usize = 256;
/// Bytes of a kept value; what is larger is a file.
pub(crate) const KV_VALUE: usize = 256 << 10;
/// Keys of one pack: their names are all in memory, and one answer lists them.
pub(crate) const KV_KEYS: usize = 4_096;
/// What a kept value counts beside its bytes and its key's: about what its name costs in memory.
pub(crate) const KV_ENTRY: u64 = 64;
/// Calls to other packs that one call may have under way: each takes a sandbox, of which there are 256 for everybody.
pub(crate) const CALLS_AT_ONCE: usize = 8;
/// Bytes that are collected of what another pack says; a photo fits, what is longer is a stream.
pub(crate) const CALL_COLLECTED: usize = 4 << 20;
/// How long a source of positions may take. A receiver that wakes up, or a look at the networks around, takes ten seconds.
pub(crate) const LOCATION_PATIENCE: Duration = Duration::from_secs(20);
/// Questions for a position at once: gpsd serves some dozens of listeners, and others listen too.
pub(crate) const LOCATION_ASKING: usize = 4;
/// Bytes of one of gpsd's lines: its own are at most 10,240.
pub(crate) const GPSD_LINE: u64 = 16 << 10;
/// Lines from gpsd without a position: a receiver that has one says so every second, among some others.
pub(crate) const GPSD_LINES: usize = 1_000;
/// How long a desktop may take to take a message, a service that is started for it included.
pub(crate) const NOTIFY_PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a message's title: about what desktops show of a line.
pub(crate) const NOTIFY_TITLE: usize = 120;
/// Characters of a message's body: more than a bubble holds.
pub(crate) const NOTIFY_BODY: usize = 1_000;
/// Messages a pack may show at once; then one in [`NOTIFY_EVERY`].
pub(crate) const NOTIFY_AT_ONCE: u32 = 5;
/// A person is told things, not occupied.
pub(crate) const NOTIFY_EVERY: Duration = Duration::from_secs(30);
/// How long a display server may take, turns and encoding aside.
pub(crate) const SCREEN_PATIENCE: Duration = Duration::from_secs(10);
/// Pictures of screens at once: each takes some 60 MB at the size of 4K.
pub(crate) const SCREEN_AT_ONCE: usize = 2;
/// Pixels of one display: 8K, and the largest that are sold beside it.
pub(crate) const SCREEN_PIXELS: u64 = 40 << 20;
/// Containers that policy may let one pack run at once.
pub(crate) const CONTAINERS: usize = 64;
/// Containers of one pack that may be there, those that ended included: one answer lists them.
pub(crate) const CONTAINERS_KEPT: usize = 128;
/// MiB of memory that policy may give one container: 4 TiB, more than machines have.
pub(crate) const CONTAINER_MIB: u32 = 4 << 20;
/// Processors that policy may give one container.
pub(crate) const CONTAINER_CPUS: f64 = 1_024.0;
/// The least part of a processor that a container can be given: kernels count a millisecond in a tenth of a second at least.
pub(crate) const CONTAINER_CPUS_LEAST: f64 = 0.01;
/// GPUs that policy may give one pack.
pub(crate) const CONTAINER_GPUS: u32 = 64;
/// Seconds that policy may let a container run: a year.
pub(crate) const CONTAINER_SECS: u64 = 31_536_000;
/// Processes and threads of one container: a server has hundreds, a fork bomb wants all.
pub(crate) const CONTAINER_PIDS: i64 = 4_096;
/// MiB of shared memory where a container asks for none: what runtimes give.
pub(crate) const CONTAINER_SHM_MIB: u32 = 64;
/// What a runtime keeps of one container's log, in two files.
pub(crate) const CONTAINER_LOG: &str = "16m";
/// Bytes of everything that a pack says about one container, so that a request for it stays small.
pub(crate) const CONTAINER_SPEC: usize = 256 << 10;
/// Folders that one container may see.
pub(crate) const CONTAINER_MOUNTS: usize = 32;
/// Bytes of one answer of a container runtime, and of one piece of a stream of them. 128 containers with long labels are 1 MiB.
pub(crate) const RUNTIME_ANSWER: u64 = 16 << 20;
/// How long a container runtime may take to answer. A busy one takes seconds to create a container.
pub(crate) const RUNTIME_TIME: Duration = Duration::from_secs(60);
/// How long it may take to fetch an image: 20 GiB over 100 Mbit/s.
pub(crate) const PULL_TIME: Duration = Duration::from_secs(1_800);
/// The longest a container may take to stop before it is killed.
pub(crate) const STOP_SECS: u32 = 300;
/// How long the end of a container is waited for before it is asked whether the runtime still knows it.
pub(crate) const WAIT_TIME: Duration = Duration::from_secs(60);
/// Between two questions whether a container has ended.
pub(crate) const WAIT_AGAIN: Duration = Duration::from_millis(50);
/// Between the two looks that make a percentage.
pub(crate) const STATS_TIME: Duration = Duration::from_millis(500);
/// Logs, programs in containers, waits for an end and downloads that all calls may have open together: each has a connection of its own.
pub(crate) const ATTACHED: usize = 128;
/// The same for one call: a quarter, so that no call takes all of them.
pub(crate) const ATTACHED_PER_CALL: usize = 32;
/// Connections to the container runtime for whatever is answered soon, all calls together; more wait for their turn.
pub(crate) const RUNTIME_CONNECTIONS: usize = 64;
/// Requests to it that one call may have under way; more wait for their turn.
pub(crate) const RUNTIME_REQUESTS_PER_CALL: usize = 16;
/// Memory that a used slot keeps, zeroed, for the next call. Nearly all packs touch less.
pub(crate) const KEEP_RESIDENT: usize = 1 << 20;
/// Address bits below which a pool of [`SLOTS_NARROW`] is all that fits.
pub(crate) const WIDE_ADDRESSES: u32 = 47;
/// Slots where the kernel has 39 bits of addresses: 4 GiB each leave room for everything else.
pub(crate) const SLOTS_NARROW: usize = 32;
/// Bytes of output taken in one piece: four of them wait in a call's queue.
pub(crate) const CHUNK: usize = 256 << 10;
/// Bytes of an event's JSON, as `output.event` promises.
pub(crate) const EVENT: usize = 64 << 10;
/// Bytes of an event's name.
pub(crate) const EVENT_NAME: usize = 128;
/// Bytes of one line of a pack's log.
pub(crate) const LOG_LINE: usize = 4 << 10;
/// Lines a pack may write to the log at once; then [`LOG_RATE`] a second.
pub(crate) const LOG_BURST: u32 = 100;
/// Lines a second.
pub(crate) const LOG_RATE: u32 = 10;
/// Bytes of an error's text that a failure's message repeats.
pub(crate) const MESSAGE: usize = 512;
/// Compilations at once: each takes a processor and up to [`COMPILER_MEMORY`].
pub(crate) const COMPILERS: usize = 2;
/// Address space of the compiler. 60 KB packs take 300 MB of it, Python's 18 MiB under 2 GiB.
pub(crate) const COMPILER_MEMORY: u64 = 2 << 30;

/// Processor seconds of the compiler for a component of so many bytes: 60 KB take 0.1 s, 18 MiB take 60 s on a slow board.
pub(crate) const fn compiler_cpu_secs(bytes: usize) -> u64 {
    5 + 20 * (bytes as u64).div_ceil(1_000_000)
}

/// How long the agent waits for it: twice its processor's time, for it may have half a processor.
pub(crate) const fn compiler_time(bytes: usize) -> Duration {
    Duration::from_secs(2 * compiler_cpu_secs(bytes))
}

/// Threads of the compiler, so that its memory does not grow with the machine.
pub(crate) const COMPILER_THREADS: usize = 4;
/// Bytes of compiled code: about four times the component.
pub(crate) const ARTEFACT: u64 = 512 << 20;
/// Bytes of what the compiler says when it fails.
pub(crate) const COMPILER_SAYS: u64 = 4 << 10;
