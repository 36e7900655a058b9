//! What a node says of itself: its announce's content, the list of its packs, their descriptions, its heartbeat. The
//! announce is signed as a whole (the signature is [`crate::objects`]' business) and names the list by its digest, the
//! list names the descriptions by theirs: a relay asks for each only once, and whoever has verified the announce can
//! take the rest from anybody. Texts are as their authors wrote them: whoever shows one escapes it ([`crate::text`]).

use crate::cbor::{self, Cbor, DecodeError, Item, cbor_map};
use crate::error::{Code, Failure};
use crate::limits;
use crate::scan::{self, Ceiling};
use crate::types::Command;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What is known of a machine, text to text. Keys are free; these are the ones every agent sends when it knows them.
pub type Facts = BTreeMap<String, String>;

/// Keys of [`Facts`].
pub mod fact {
    /// The machine's own name for itself.
    pub const HOSTNAME: &str = "hostname";
    /// Operating system and architecture, such as `linux-x86_64`.
    pub const PLATFORM: &str = "platform";
    /// Name and version of the operating system.
    pub const OS: &str = "os";
    /// Its kernel's version.
    pub const KERNEL: &str = "kernel";
    /// Processor and number of cores.
    pub const CPU: &str = "cpu";
    /// Bytes of memory.
    pub const MEMORY: &str = "memory";
    /// Names of graphics processors.
    pub const GPUS: &str = "gpus";
    /// Version of the agent.
    pub const AGENT: &str = "agent";
}

/// Types nest deeper than other objects: one level of CBOR for each of theirs.
const DESCRIPTION: Ceiling = Ceiling { bytes: limits::DESCRIPTION, depth: limits::DEPTH * 2, items: limits::VALUE_ITEMS };
const ANNOUNCE: Ceiling = Ceiling { bytes: limits::ANNOUNCE, depth: limits::DEPTH, items: limits::SIGNED_ITEMS };
const PACK_LIST: Ceiling = Ceiling { bytes: limits::PACK_LIST, depth: limits::DEPTH, items: limits::SIGNED_ITEMS * 2 };

cbor_map! {
    /// A pack as callers need it: what it wants and what it can do.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct PackDescription {
        /// name
        0 => name: String,
        /// version
        1 => version: String,
        /// SHA-256 of the component
        2 => digest: [u8; 32],
        /// powers it asks for
        3 => powers: Vec<String>,
        /// interfaces it exports
        4 => interfaces: Vec<Interface>,
        /// their functions
        5 => commands: Vec<Command>,
    }

    /// An interface of a pack.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Interface {
        /// snake_case name, the first half of its commands' names
        0 => name: String,
        /// what people read
        1 => doc: Option<String>,
    }

    /// What an announce says; the signed object around it carries it as bytes.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct AnnounceContent {
        /// how often this agent has started
        0 => boot_count: u64,
        /// rises with each announce of one boot
        1 => seq: u64,
        /// about the machine
        2 => facts: BTreeMap<String, String>,
        /// of the list of its active packs, [`PackList::digest`]
        3 => packs: [u8; 32],
        /// figures the agent counts
        4 => counters: Option<BTreeMap<String, u64>>,
        /// sorted names of the interfaces that answer; left out when they do not fit here, the list has them too
        5 => capabilities: Option<Vec<String>>,
    }

    /// An active pack in the list.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AnnouncedPack {
        /// name
        0 => name: String,
        /// version
        1 => version: String,
        /// SHA-256 of the component
        2 => digest: [u8; 32],
        /// [`PackDescription::digest`]
        3 => description: [u8; 32],
        /// names of the interfaces that answer
        4 => interfaces: Vec<String>,
        /// powers it asks for and policy does not grant
        5 => denied: Vec<String>,
        /// those of them that the owner has not decided on since the pack began to ask for them
        6 => waiting: Vec<String>,
    }

    /// A node's figures, sent every 15 s. Not signed: shown as the relay's word.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Heartbeat {
        /// of all cores together
        0 => cpu_percent: f32,
        /// of physical memory
        1 => memory_percent: f32,
        /// of the machine
        2 => uptime_secs: u64,
        /// absent where there is no driver
        3 => gpus: Option<GpuSummary>,
    }

    /// All graphics processors of a node together.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GpuSummary {
        /// how many
        0 => count: u32,
        /// bytes
        1 => memory_used: u64,
        /// bytes
        2 => memory_total: u64,
        /// percent, the mean of those that tell
        3 => utilization: Option<u32>,
    }
}

impl Cbor for BTreeMap<String, u64> {
    fn to_item(&self) -> Item {
        Item::Map(self.iter().map(|(key, value)| (key.to_item(), value.to_item())).collect())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let mut map = Self::new();
        for (key, value) in item.into_map().map_err(|_| DecodeError::shape("a map was expected"))? {
            if map.insert(String::from_item(key)?, u64::from_item(value)?).is_some() {
                return Err(DecodeError::shape("a key is repeated"));
            }
        }
        Ok(map)
    }
}

impl PackDescription {
    /// Its bytes. A pack whose description nobody would read (too long, types too deep) is refused here, at load.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        let bytes = cbor::encode(self);
        match scan::scan(&bytes, DESCRIPTION) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(Failure::new(Code::PackRejected, format!("describe pack `{}`: {error}", self.name))),
        }
    }

    /// The description of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, DESCRIPTION)
    }

    /// What it is asked for by: SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Self::digest_of(&cbor::encode(self))
    }

    /// The digest of a description's bytes as received.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    /// A command by its name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == name)
    }
}

/// The active packs of a node, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackList(pub Vec<AnnouncedPack>);

impl PackList {
    /// Its bytes; a list over the limit is refused by every reader.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(&self.0)
    }

    /// The list of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, PACK_LIST).map(PackList)
    }

    /// What it is asked for by: SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }

    /// The sorted names of all interfaces that answer: a node's `capabilities`.
    #[must_use]
    pub fn capabilities(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().flat_map(|pack| pack.interfaces.iter().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl AnnounceContent {
    /// Names the list, and what answers by it if there is room.
    #[must_use]
    pub fn with_packs(self, list: &PackList) -> Self {
        let named = AnnounceContent { packs: list.digest(), capabilities: Some(list.capabilities()), ..self };
        match named.to_bytes().len() <= limits::ANNOUNCE {
            true => named,
            false => AnnounceContent { capabilities: None, ..named },
        }
    }

    /// Its bytes; a content over the limit is refused by every reader.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The content of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, ANNOUNCE)
    }
}

impl Heartbeat {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The heartbeat of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, ANNOUNCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Type;
    use crate::types::tests::{any_type, field, system_run};
    use proptest::prelude::*;

    fn description(ty: Type) -> PackDescription {
        PackDescription {
            name: "system".into(),
            version: "0.1.0".into(),
            digest: [7; 32],
            powers: vec!["process".into()],
            interfaces: vec![
                Interface { name: "system".into(), doc: Some("The machine.".into()) },
                Interface { name: "x".into(), doc: None },
            ],
            commands: vec![system_run(), Command { params: vec![field("p", ty)], ..system_run() }],
        }
    }

    fn announce() -> AnnounceContent {
        AnnounceContent {
            boot_count: 3,
            seq: 1,
            facts: [(fact::HOSTNAME, "bench-1"), (fact::PLATFORM, "linux-x86_64")].map(|(key, value)| (key.into(), value.into())).into(),
            packs: [0; 32],
            counters: Some([("calls".to_owned(), 5)].into()),
            capabilities: None,
        }
        .with_packs(&list())
    }

    fn pack(name: &str) -> AnnouncedPack {
        AnnouncedPack {
            name: name.into(),
            version: "0.1.0".into(),
            digest: [1; 32],
            description: [2; 32],
            interfaces: vec![name.into()],
            denied: vec!["gpu".into()],
            waiting: Vec::new(),
        }
    }

    fn list() -> PackList {
        PackList(vec![pack("gpu")])
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            cpu_percent: 12.5,
            memory_percent: 50.0,
            uptime_secs: 86_400,
            gpus: Some(GpuSummary { count: 1, memory_used: 1 << 30, memory_total: 1 << 37, utilization: None }),
        }
    }

    #[test]
    fn golden_announce_and_list() {
        let (one, two, digest) = ("01".repeat(32), "02".repeat(32), hex::encode(list().digest()));
        let hex = format!("81a700636770750165302e312e30025820{one}035820{two}0481636770750581636770750680");
        assert_eq!(hex::encode(list().to_bytes()), hex);
        assert_eq!(PackList::from_bytes(&list().to_bytes()), Ok(list()));
        let hex = format!(
            "a60003010102a268686f73746e616d656762656e63682d3168706c6174666f726d6c6c696e75782d7838365f3634035820{digest}\
             04a16563616c6c7305058163677075"
        );
        assert_eq!(hex::encode(announce().to_bytes()), hex);
        assert_eq!(AnnounceContent::from_bytes(&announce().to_bytes()), Ok(announce()));
    }

    #[test]
    fn however_many_packs_there_are_an_announce_names_them_all() {
        let many = |count: usize, name: &str| PackList((0..count).map(|at| pack(&format!("{name}{at}"))).collect());
        let told = announce().with_packs(&many(100, "pack_of_usual_name_"));
        assert_eq!(told.capabilities.as_ref().map(Vec::len), None, "{} bytes", told.to_bytes().len());
        assert!(AnnounceContent::from_bytes(&told.to_bytes()).is_ok());
        let list = many(60, "pack_");
        let told = announce().with_packs(&list);
        assert_eq!(told.capabilities, Some(list.capabilities()));
        assert!(AnnounceContent::from_bytes(&told.to_bytes()).is_ok());
        assert!(PackList::from_bytes(&many(200, "pack_of_usual_name_").to_bytes()).is_ok());
    }

    #[test]
    fn golden_heartbeat() {
        assert_eq!(hex::encode(heartbeat().to_bytes()), "a400f94a4001f95240021a0001518003a30001011a40000000021b0000002000000000");
        assert_eq!(Heartbeat::from_bytes(&heartbeat().to_bytes()), Ok(heartbeat()));
        let without = Heartbeat { gpus: None, ..heartbeat() };
        assert_eq!(Heartbeat::from_bytes(&without.to_bytes()), Ok(without));
    }

    #[test]
    fn a_description_is_known_by_its_digest() {
        let pack = description(Type::Bool);
        let bytes = pack.to_bytes().unwrap();
        assert_eq!(PackDescription::digest_of(&bytes), pack.digest());
        assert_eq!(pack.command("system.run"), Some(&system_run()));
        assert_eq!(PackDescription::from_bytes(&bytes), Ok(pack));
    }

    #[test]
    fn what_no_reader_takes_is_refused_at_home() {
        let deep = (0..40).fold(Type::Bool, |ty, _| Type::List(Box::new(ty)));
        let failure = description(deep).to_bytes().unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (Code::PackRejected, "describe pack `system`: nested deeper than 32"));
        let mut long = description(Type::Bool);
        long.interfaces[0].doc = Some("x".repeat(limits::DESCRIPTION));
        assert!(long.to_bytes().unwrap_err().message.contains("bytes, at most"));
        let mut large = announce();
        large.facts.insert("x".into(), "y".repeat(limits::ANNOUNCE));
        assert!(AnnounceContent::from_bytes(&large.to_bytes()).is_err());
    }

    #[test]
    fn types_of_everyday_depth_are_described() {
        let deep = (0..20).fold(Type::Bool, |ty, _| Type::Record(vec![field("x", ty)]));
        assert!(description(deep).to_bytes().is_ok());
    }

    proptest! {
        #[test]
        fn round_trip(ty in any_type()) {
            let pack = description(ty);
            prop_assert_eq!(PackDescription::from_bytes(&pack.to_bytes().unwrap()), Ok(pack));
        }

        #[test]
        fn random_flipped_and_cut_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), at in any::<usize>(), bit in 0..8) {
            let _ = PackDescription::from_bytes(&bytes);
            for mut good in [announce().to_bytes(), list().to_bytes(), heartbeat().to_bytes(), description(Type::Stream).to_bytes().unwrap()] {
                let at = at % good.len();
                let read = |bytes: &[u8]| {
                    let _ = (AnnounceContent::from_bytes(bytes), PackList::from_bytes(bytes), Heartbeat::from_bytes(bytes), PackDescription::from_bytes(bytes));
                };
                read(&good[..at]);
                good[at] ^= 1u8 << bit;
                read(&good);
            }
        }
    }
}
