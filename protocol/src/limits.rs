//! Every ceiling of the protocol, with its reason. Nothing from a peer is believed about its own size.

/// Bytes of one WebSocket message before authentication: hellos and pairing messages are far smaller.
pub const FRAME_BEFORE_AUTH: usize = 64 << 10;
/// Bytes of one WebSocket message after authentication: a Noise message is at most 64 KiB, blobs travel in cuts of this size.
pub const FRAME: usize = 1 << 20;
/// Nesting of any CBOR item we accept: our deepest object has eight levels, values of packs get the rest.
pub const DEPTH: usize = 16;
/// Items in a signed object: a chain of four grants with all rights has under a hundred.
pub const SIGNED_ITEMS: usize = 4_096;
/// Items in a call, a result or another value of a pack; one item costs about 100 bytes once decoded.
pub const VALUE_ITEMS: usize = 65_536;
/// Bytes of a signed object other than a call.
pub const SIGNED: usize = 64 << 10;
/// Bytes of one message inside a channel; it is cut into Noise messages.
pub const INNER: usize = 1 << 20;
/// Bytes of one Noise message, by the Noise specification, section 3.
pub const NOISE: usize = 65_535;
/// Bytes of a call's parameters, and of its result value: larger things are streams.
pub const VALUE: usize = 512 << 10;
/// Bytes of a `list<u8>` in a value; larger bytes are a `stream<u8>`.
pub const BYTES_VALUE: usize = 64 << 10;
/// Bytes one call may have unacknowledged. 1 MiB carries 20 MB/s over a 50 ms path; a channel's windows together stay under [`CHANNEL_WINDOW`].
pub const CALL_WINDOW: u32 = 1 << 20;
/// Bytes one channel may have unacknowledged: four busy calls at full speed.
pub const CHANNEL_WINDOW: u32 = 4 << 20;
/// Bytes the relay queues for one socket before it disconnects it: a full channel, and what else can come at once. The
/// next four fit in it together.
pub const SOCKET_QUEUE: usize = 8 << 20;
/// Bytes of bulk that may be under way to one link in all its channels: what the welcome announces to a node, and what
/// [`crate::credit::pool`] shares out. A lone channel gets [`CHANNEL_WINDOW`] of it.
pub const LINK_WINDOW: u32 = 11 << 19;
/// Bytes of answers or parts of blobs that a link has asked for and not got: two parts, four descriptions, or a page of nodes.
pub const ANSWERS: usize = 1 << 20;
/// Bytes of openings the relay queues for a node; beyond them openings are refused. An operator gets none, so that its
/// link window is larger by these.
pub const OPENINGS: usize = 1 << 20;
/// Bytes left for what no window counts: ends of channels, credits of the first [`CHANNELS`], cancels.
pub const UNCOUNTED: usize = SOCKET_QUEUE - LINK_WINDOW as usize - ANSWERS - OPENINGS;
/// What each part of a bulk message costs of a window beyond its bytes: heads, padding and seal, so that a million
/// one-byte messages cannot hide a gigabyte of frames inside a window.
pub const MESSAGE_COST: u64 = 352;
/// Bytes of output in one data message: fits one Noise message with its headers, so that bulk is never cut.
pub const DATA_CHUNK: usize = 65_000;
/// Bytes of an announce: facts, names of what answers, the digest of the list of packs; sent on each connect of each node.
pub const ANNOUNCE: usize = 2 << 10;
/// Bytes of a node's list of packs: some hundreds of them.
pub const PACK_LIST: usize = 64 << 10;
/// Bytes of a pack's description (its commands with types and docs).
pub const DESCRIPTION: usize = 256 << 10;
/// Bytes of a pack's component: larger than any interpreter pack seen (Python: 18 MiB).
pub const PACK: usize = 64 << 20;
/// Bytes of a pack's manifest: forty reasons of the longest kind.
pub const MANIFEST: usize = 16 << 10;
/// Bytes of a pack's docs: what a description may hold of them.
pub const DOCS: usize = DESCRIPTION;
/// Bytes of one of a pack's standard metadata sections.
pub const ABOUT: usize = 4 << 10;
/// Powers a pack may ask for, and platforms it may name: there are far fewer.
pub const ASKED: usize = 32;
/// Bytes of the reason for one of them: a sentence or two.
pub const REASON: usize = 320;
/// Bytes of a pack's version.
pub const VERSION: usize = 64;
/// Publishers a machine trusts, and replaced keys it remembers: a fleet has a few, each replaced once in years.
pub const PUBLISHERS: usize = 64;
/// Deployments that a relay hands out and a node knows, one a name: far more packs than any node runs.
pub const DEPLOYMENTS: usize = 256;
/// Bytes of all of them together with their chains: a node is handed them on each connect.
pub const DEPLOYMENTS_BYTES: usize = 1 << 20;
/// Targets of one deployment: more than a fleet has roles and sites to tell apart.
pub const TARGETS: usize = 32;
/// Nodes of all types of a pack together. Types refer to each other: a kilobyte of them can unfold to a gigabyte.
pub const TYPE_NODES: usize = 16_384;
/// Nesting of a type. A description that nests deeper is read by nobody.
pub const TYPE_DEPTH: usize = 24;
/// Commands of one pack.
pub const COMMANDS: usize = 512;
/// Bytes of a blob in one frame.
pub const BLOB_CHUNK: usize = 512 << 10;
/// Calls under way on one agent.
pub const CALLS: usize = 256;
/// Calls under way in one pack.
pub const CALLS_PER_PACK: usize = 64;
/// Channels open at one agent, and of one operator there.
pub const CHANNELS: usize = 64;
/// See [`CHANNELS`].
pub const CHANNELS_PER_OPERATOR: usize = 16;
/// Channels of one operator's link: what its window has room for ([`crate::credit::pool`]).
pub const CHANNELS_PER_LINK: usize = 2_048;
/// Openings one agent tries in a second: each costs it a quarter of a millisecond.
pub const OPENINGS_PER_SEC: u32 = 20;
/// Seconds a half-open channel may take.
pub const CHANNEL_OPEN_SECS: u64 = 10;
/// Seconds after which a channel ends.
pub const CHANNEL_LIFE_SECS: u64 = 24 * 3600;
/// Messages after which a channel ends, each way.
pub const CHANNEL_MESSAGES: u64 = 1 << 32;
/// Seconds between heartbeats, each way.
pub const HEARTBEAT_SECS: u64 = 15;
/// Heartbeats missed before a link is dead.
pub const HEARTBEATS_MISSED: u32 = 2;
/// Seconds a handshake may take, TCP and TLS included.
pub const HANDSHAKE_SECS: u64 = 10;
/// Seconds between two prekeys; with [`PREKEY_OPENINGS`] it bounds the memory of seen ephemerals and the delay of a first message.
pub const PREKEY_SECS: u64 = 600;
/// Openings under one prekey.
pub const PREKEY_OPENINGS: usize = 65_536;
/// Grants in a chain.
pub const CHAIN: usize = 4;
/// Seconds a call may wait for its start unless it says otherwise.
pub const START_WITHIN_SECS: u64 = 30;
/// The most it may say.
pub const START_WITHIN_MAX_SECS: u64 = 600;
/// Seconds two sure clocks may differ.
pub const CLOCK_SKEW_SECS: u64 = 120;
/// Seconds output and ending of a call are kept for its caller to attach again.
pub const CALL_KEPT_SECS: u64 = 600;
/// Wrong pairing codes before the maker makes a new one.
pub const CODE_FAILURES: u32 = 3;
/// Codes one `relay pair new` shows, each after the one before was used up by wrong tries. A person who mistypes gets nine
/// tries; whoever guesses gets no more than nine in a million, and not as many as fit in the time nobody looks.
pub const CODES: u32 = 3;
/// Seconds a pairing code lives by default.
pub const CODE_TTL_SECS: u64 = 300;
/// Pairing codes outstanding at one relay, and requests waiting for approval.
pub const PAIRINGS: usize = 64;
/// Sealed messages below this are padded.
pub const PAD_BELOW: usize = 1024;
/// To a multiple of this.
pub const PAD_STEP: usize = 256;
/// Characters of a name of a node, pack or label (RFC 1123's label).
pub const NAME: usize = 63;
