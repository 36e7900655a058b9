//! `agent.toml`: what the machine's owner wrote down. Mistakes are refused with path, line and key, so every rule about a
//! value lives in that value's type here and is judged while the file is read. What the grants mean is
//! [`crate::policy`]'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use outhaul_home::Home;
use outhaul_host::power::{call, camera, containers, files, http, kv, location, notify, process, screen, secrets};
use outhaul_link::url::RelayUrl;
use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::{Digest, PublicKey};
use outhaul_protocol::limits;
use outhaul_protocol::objects::valid_name;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The file's place in the home.
pub const FILE: &str = "agent/agent.toml";
/// What a pack's key begins with when it names one version instead of a name.
pub const DIGEST_KEY: &str = "sha256:";

/// The whole file. All of it has defaults: a machine without one grants what only reads, and has no relay yet.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Where the relay is; `agent pair` writes it.
    #[serde(deserialize_with = "relay_url")]
    pub relay: Option<String>,
    /// The name this machine asks for when it is paired.
    #[serde(deserialize_with = "name")]
    pub name: Option<String>,
    /// A PEM file of certificate authorities, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Allows `ws://` to another machine.
    pub allow_plaintext: bool,
    /// Ceilings of calls.
    pub limits: Limits,
    /// The camera power's own settings.
    pub camera: camera::Config,
    /// Where the machine's containers are.
    pub containers: Containers,
    /// What every pack may without being asked.
    pub defaults: Defaults,
    /// Whose packs are taken here beside those that the fleet trusts, and whose are not.
    pub publishers: Publishers,
    /// Grants, by a pack's name or by `sha256:DIGEST`.
    pub packs: BTreeMap<PackKey, PackPolicy>,
    /// Who is asked where this machine is.
    pub location: location::Config,
    /// Where messages are shown.
    pub notify: notify::Config,
    /// Whose screens are seen.
    pub screen: screen::Config,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of one call's sandbox.
    #[serde(deserialize_with = "memory_mib")]
    pub memory_mib: u32,
    /// Output of one call.
    #[serde(deserialize_with = "at_least_one")]
    pub output_mib: u64,
    /// Calls under way.
    #[serde(deserialize_with = "calls")]
    pub calls: usize,
    /// The longest a call may run.
    #[serde(deserialize_with = "at_least_one")]
    pub deadline_secs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory_mib: 64, output_mib: 4096, calls: limits::CALLS, deadline_secs: 86_400 }
    }
}

/// `[containers]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Containers {
    /// The socket of Docker or Podman, instead of the first that is found.
    pub socket: Option<Folder>,
}

/// `[defaults]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Powers of every pack. Only what reads can stand here: programs and cameras are granted pack by pack.
    pub powers: Vec<ReadOnly>,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { powers: vec![ReadOnly::System, ReadOnly::Gpu] }
    }
}

/// `[publishers]`: the owner's word, which stands above what the fleet says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publishers {
    /// Publishers whose packs may be installed, by the owner's names for them; `agent trust publisher` writes it.
    pub trust: BTreeMap<String, Key>,
    /// Publishers whose packs are refused though the fleet trusts them; `agent trust remove` writes it.
    pub refuse: BTreeMap<String, Key>,
}

/// A power that only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadOnly {
    /// The machine's own figures.
    System,
    /// Its graphics processors'.
    Gpu,
}

/// Whom a table of grants is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackKey {
    /// A name: the embedded pack's, or that of the publisher or version in the table.
    Name(String),
    /// One version, whatever it calls itself.
    Digest(Digest),
}

impl PackKey {
    /// Reads a name or `sha256:` and 64 digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(DIGEST_KEY) {
            Some(digits) => digits.parse().ok().map(PackKey::Digest),
            None => valid_name(text).then(|| PackKey::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for PackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackKey::Name(name) => f.write_str(name),
            PackKey::Digest(digest) => write!(f, "{DIGEST_KEY}{digest}"),
        }
    }
}

impl<'de> Deserialize<'de> for PackKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wanted = "a pack's name or `sha256:` and 64 hexadecimal digits";
        PackKey::parse(&text).ok_or_else(|| de::Error::custom(format!("`{}` is not {wanted}", text.escape_debug())))
    }
}

/// `[packs.NAME]`: what one pack may. An absent power is as the defaults have it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table of powers")]
pub struct PackPolicy {
    /// The publisher whose pack of this name the grants belong to. `agent allow` writes it.
    pub publisher: Option<Key>,
    /// The one version they belong to; with a publisher, both must fit.
    #[serde(deserialize_with = "digest")]
    pub digest: Option<Digest>,
    /// The powers that the version asked for which the owner decided on; one that asks for more waits for the owner
    /// again. `agent allow` and `agent deny` write it.
    pub asked: Option<Vec<String>>,
    /// Programs it may run.
    pub process: Option<Process>,
    /// Cameras it may use.
    #[serde(deserialize_with = "camera_grant")]
    pub camera: Option<camera::Grant>,
    /// Folders it may use.
    #[serde(deserialize_with = "folders")]
    pub files: Option<Vec<files::Folder>>,
    /// KiB of values it may keep; none are a refusal.
    #[serde(deserialize_with = "kv_grant")]
    pub kv: Option<u64>,
    /// Figures of graphics processors.
    pub gpu: Option<bool>,
    /// The machine's figures.
    pub system: Option<bool>,
    /// Whom it may send web requests to.
    pub http: Option<http::Grant>,
    /// Secrets it may read.
    pub secrets: secrets::Grant,
    /// Commands of other packs it may call.
    pub call: call::Grant,
    /// How well it may know where the machine is; none inside is a refusal.
    #[serde(deserialize_with = "location_grant")]
    pub location: Option<Option<location::Grant>>,
    /// Whether it may show messages.
    pub notify: Option<bool>,
    /// Displays it may see.
    #[serde(deserialize_with = "screen_grant")]
    pub screen: Option<screen::Grant>,
    /// Containers it may run.
    pub containers: Option<containers::Grant>,
}

/// `process = { … }`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "{ allow = [\"df\"], env = […], cwd = […], max_secs = … }")]
pub struct Process {
    /// Programs, by name or absolute path, alone or narrowed.
    pub allow: Vec<process::Entry>,
    /// Variables a caller may set.
    pub env: Vec<Variable>,
    /// Folders a caller may start a program in.
    pub cwd: Vec<Folder>,
    /// Seconds a program may run.
    pub max_secs: Option<u64>,
}

impl Process {
    /// The same for the power that enforces it.
    #[must_use]
    pub fn grant(&self) -> process::Grant {
        process::Grant {
            allow: self.allow.clone(),
            env: self.env.iter().map(|variable| variable.0.clone()).collect(),
            cwd: self.cwd.iter().map(|folder| folder.0.clone()).collect(),
            max_secs: self.max_secs,
            keep_out: Vec::new(),
        }
    }
}

macro_rules! checked {
    ($($(#[$meta:meta])* $name:ident($inner:ty) from $parse:ident;)*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $parse(&String::deserialize(from)?).map($name).map_err(de::Error::custom)
            }
        }
    )* };
}

checked! {
    /// A variable's name.
    Variable(String) from variable;
    /// An absolute path.
    Folder(PathBuf) from folder;
    /// A publisher's public key.
    Key(PublicKey) from key;
}

/// Whether a variable may stand in `env`.
pub fn variable(text: &str) -> Result<String, String> {
    process::check_variable(text).map(|()| text.to_owned())
}

/// Whether a folder may stand in `cwd`.
pub fn folder(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    process::check_folder(path).map(|()| path.to_owned())
}

fn key(text: &str) -> Result<PublicKey, String> {
    text.to_ascii_lowercase().parse().map_err(|error| format!("`{}` is not a publisher's key: {error}", text.escape_debug()))
}

fn relay_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    RelayUrl::parse(&text).map_err(|failure| de::Error::custom(failure.message))?;
    Ok(Some(text))
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if valid_name(&text) {
        return Ok(Some(text));
    }
    let wanted = "lower-case letters, digits and dashes, at most 63, no dash first";
    Err(de::Error::custom(format!("`{}` is not a name: {wanted}", text.escape_debug())))
}

fn digest<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Digest>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(|_| de::Error::custom(format!("`{}` is not 64 hexadecimal digits", text.escape_debug())))
}

fn between<'de, D, N>(from: D, least: N, most: N) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + PartialOrd + fmt::Display,
{
    let number = N::deserialize(from)?;
    if number >= least && number <= most {
        Ok(number)
    } else {
        Err(de::Error::custom(format!("{number} is not between {least} and {most}")))
    }
}

fn memory_mib<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    // A sandbox has 32-bit addresses.
    between(from, 1, 4096)
}

fn calls<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    // The pool of sandboxes has as many slots.
    between(from, 1, limits::CALLS)
}

fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    between(from, 1, u64::from(u32::MAX))
}

/// `true`, `false` or `{ max_kib = … }`.
fn kv_grant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    struct Quota;

    impl<'de> Visitor<'de> for Quota {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "true, false or {{ max_kib = {} }}", kv::USUAL_KIB)
        }

        fn visit_bool<E: de::Error>(self, granted: bool) -> Result<u64, E> {
            Ok(if granted { kv::USUAL_KIB } else { 0 })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<u64, A::Error> {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Some {
                #[serde(deserialize_with = "max_kib")]
                max_kib: u64,
            }
            Some::deserialize(de::value::MapAccessDeserializer::new(map)).map(|some| some.max_kib)
        }
    }

    from.deserialize_any(Quota).map(Some)
}

fn max_kib<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    between(from, 1, kv::MOST_KIB)
}

/// Folders; no two under one name.
fn folders<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<files::Folder>>, D::Error> {
    let folders = Vec::<files::Folder>::deserialize(from)?;
    for (number, folder) in folders.iter().enumerate() {
        let name = folder.name();
        if folders[..number].iter().any(|other| other.name() == name) {
            return Err(de::Error::custom(format!("two folders are called `{}`; give one of them another `at`", name.escape_debug())));
        }
    }
    Ok(Some(folders))
}

/// `true`, `false` or `{ devices = […] }`.
fn camera_grant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<camera::Grant>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some {
        devices: Vec<String>,
    }
    let whole = |all| camera::Grant { all, devices: Vec::new() };
    switch_or_table(from, "true, false or { devices = [\"video0\"] }", whole, |Some { devices }| camera::Grant { all: false, devices })
}

/// `true`, `false` or `{ coarse = true }`.
fn location_grant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<location::Grant>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some {
        coarse: bool,
    }
    let whole = |granted: bool| granted.then_some(location::Grant { coarse: false });
    switch_or_table(from, "true, false or { coarse = true }", whole, |Some { coarse }| Option::Some(location::Grant { coarse }))
}

/// `true`, `false` or `{ displays = […] }`.
fn screen_grant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<screen::Grant>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some {
        displays: Vec<String>,
    }
    let whole = |all| screen::Grant { all, displays: Vec::new() };
    switch_or_table(from, "true, false or { displays = [\"HDMI-1\"] }", whole, |Some { displays }| screen::Grant { all: false, displays })
}

/// A grant that is a switch or a table, read by hand: an untagged enum could only say that nothing fits.
fn switch_or_table<'de, D: Deserializer<'de>, T: Deserialize<'de>, G>(
    from: D,
    wanted: &'static str,
    switch: impl FnOnce(bool) -> G,
    table: impl FnOnce(T) -> G,
) -> Result<Option<G>, D::Error> {
    struct Either<S, F, T> {
        wanted: &'static str,
        switch: S,
        table: F,
        read: PhantomData<T>,
    }

    impl<'de, T: Deserialize<'de>, G, S: FnOnce(bool) -> G, F: FnOnce(T) -> G> Visitor<'de> for Either<S, F, T> {
        type Value = G;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.wanted)
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<G, E> {
            Ok((self.switch)(on))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<G, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map)).map(self.table)
        }
    }

    from.deserialize_any(Either { wanted, switch, table, read: PhantomData }).map(Some)
}

impl AgentConfig {
    /// Reads `agent.toml`; without one all is as by default.
    pub fn load(home: &Home) -> Result<Self, Failure> {
        Self::read(&home.join(FILE))
    }

    /// Reads a file; a missing one is an empty one.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Ok(outhaul_home::read_toml_optional(path)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::error::Code;
    use outhaul_protocol::keys::SecretKey;

    fn parse(text: &str) -> Result<AgentConfig, Failure> {
        outhaul_home::parse_toml(text, Path::new("/h/agent.toml"))
    }

    fn wrong(text: &str) -> String {
        let failure = parse(text).expect_err(text);
        assert_eq!(failure.code, Code::BadConfig);
        failure.message.strip_prefix("read `/h/agent.toml`: ").expect("names the file").to_owned()
    }

    #[test]
    fn the_whole_contract_is_read() {
        let (hex, key) = ("ab".repeat(32), SecretKey::from_bytes(&[3; 32]).public());
        let text = format!(
            r#"
relay = "wss://relay.example.org"
name = "bench-1"
ca = "/etc/ca.pem"
allow_plaintext = true
[limits]
memory_mib = 128
output_mib = 1
calls = 8
deadline_secs = 60
[camera]
test_pattern = true
[location]
fixed = {{ latitude = 52.5, longitude = 13.4, accuracy = 20.0 }}
gpsd = "127.0.0.1:2947"
bus = "unix:path=/run/dbus/system_bus_socket"
[notify]
bus = "unix:path=/run/user/1000/bus"
[screen]
display = ":0"
[defaults]
powers = ["gpu"]
[packs.system]
process = {{ allow = ["df", "/usr/bin/uname"], env = ["LANG"], cwd = ["/srv"], max_secs = 3600 }}
[packs.camera]
camera = true
files = [{{ path = "/srv/data", at = "/data", read = true, list = true }}, {{ path = "/srv/in", create = true, max_mib = 100 }}]
[publishers.trust]
acme = "{key}"
[publishers.refuse]
other = "{key}"
[packs.watch]
location = {{ coarse = true }}
notify = true
screen = {{ displays = ["HDMI-1"] }}
[packs.gpu]
location = true
screen = false
[packs.shots]
secrets = ["api_token"]
[packs.shots.http]
hosts = ["api.example.org", "*.example.net:8443", "http://10.0.0.5:8080"]
methods = ["GET", "POST"]
private = ["10.0.0.5", "192.168.7.0/24"]
max_mib = 32
timeout_secs = 60
concurrent = 4
headers."api.example.org" = {{ authorization = "Bearer {{secret:api_token}}" }}
[packs.thermal]
digest = "{hex}"
publisher = "{key}"
asked = ["camera", "system"]
camera = {{ devices = ["video0"] }}
system = false
kv = true
[containers]
socket = "/run/podman/podman.sock"
[packs.work]
containers = {{ images = ["docker.io/library/busybox:*", "ghcr.io/acme/*"], mounts = ["/srv/data:r", "/srv/out:w"], networks = ["bridge"], gpus = 1, memory_mib = 2048, cpus = 2, max = 4, max_secs = 3600, pull = true, capabilities = ["CHOWN"] }}
[packs."sha256:{hex}"]
gpu = true
kv = {{ max_kib = 5 }}
"#
        );
        let config = parse(&text).expect("the contract's own example");
        assert_eq!(config.limits, Limits { memory_mib: 128, output_mib: 1, calls: 8, deadline_secs: 60 });
        assert!(config.camera.test_pattern && config.allow_plaintext);
        assert_eq!(config.defaults.powers, [ReadOnly::Gpu]);
        let system = &config.packs[&PackKey::Name("system".into())];
        let grant = system.process.as_ref().expect("written").grant();
        assert_eq!((grant.allow.len(), grant.max_secs), (2, Some(3600)));
        let folders = config.packs[&PackKey::Name("camera".into())].files.as_ref().expect("written");
        assert_eq!((folders[0].name().as_str(), folders[0].rights.letters().as_str()), ("/data", "rl"));
        assert_eq!((folders[1].name().as_str(), folders[1].rights.letters().as_str(), folders[1].max_mib), ("/srv/in", "c", Some(100)));
        let thermal = &config.packs[&PackKey::Name("thermal".into())];
        assert_eq!(thermal.camera, Some(camera::Grant { all: false, devices: vec!["video0".into()] }));
        assert_eq!((thermal.system, thermal.digest.is_some(), thermal.kv), (Some(false), true, Some(1024)));
        assert_eq!((thermal.system, thermal.digest.is_some()), (Some(false), true));
        assert_eq!((&thermal.publisher, thermal.asked.as_deref()), (&Some(Key(key)), Some(&["camera".to_owned(), "system".into()][..])));
        assert_eq!((&config.publishers.trust["acme"], &config.publishers.refuse["other"]), (&Key(key), &Key(key)));
        assert!(config.packs.contains_key(&PackKey::Digest(Digest([0xab; 32]))));
        let watch = &config.packs[&PackKey::Name("watch".into())];
        assert_eq!((watch.location, watch.notify), (Some(Some(location::Grant { coarse: true })), Some(true)));
        assert_eq!(watch.screen, Some(screen::Grant { all: false, displays: vec!["HDMI-1".into()] }));
        let gpu = &config.packs[&PackKey::Name("gpu".into())];
        assert_eq!((gpu.location, &gpu.screen), (Some(Some(location::Grant { coarse: false })), &Some(screen::Grant::default())));
        assert!(config.location.fixed.is_some() && config.location.gpsd.is_some() && config.screen.display.is_some());
        let shots = &config.packs[&PackKey::Name("shots".into())];
        let http = shots.http.as_ref().expect("written");
        assert_eq!((http.hosts.len(), http.methods.len(), http.private.len(), http.headers.len()), (3, 2, 2, 1));
        let work = config.packs[&PackKey::Name("work".into())].containers.as_ref().expect("written");
        assert_eq!((work.images.len(), work.mounts.len(), work.networks.len(), work.gpus, work.max_secs), (2, 2, 1, 1, Some(3600)));
        assert_eq!(config.containers.socket, Some(Folder("/run/podman/podman.sock".into())));
        assert_eq!((http.max_mib, http.timeout_secs, http.concurrent, shots.secrets.names.len()), (32, 60, 4, 1));
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("").expect("empty");
        assert_eq!(config, AgentConfig::default());
        assert_eq!(config.limits, Limits { memory_mib: 64, output_mib: 4096, calls: 256, deadline_secs: 86_400 });
        assert_eq!(config.defaults.powers, [ReadOnly::System, ReadOnly::Gpu]);
    }

    #[test]
    fn mistakes_have_line_and_key() {
        let all: Vec<String> = [
            "rely = \"ws://x\"",
            "relay = \"http://x\"",
            "relay = 7",
            "name = \"Bench 1\"",
            "[limits]\nmemory = 64",
            "[limits]\nmemory_mib = 0",
            "[limits]\ncalls = 257",
            "[limits]\ndeadline_secs = -1",
            "[camera]\ntest_pattern = \"yes\"",
            "[defaults]\npowers = [\"system\", \"process\"]",
            "[packs.system]\nteleport = true",
            "[packs.system]\nprocess = true",
            "[packs]\nsystem = true",
            "[packs.system]\nprocess = { allow = [\"df\", \"./x\"] }",
            "[packs.system]\nprocess = { allow = [\"df\"], env = [\"A=B\"] }",
            "[packs.system]\nprocess = { allow = [\"df\"],\n cwd = [\"/srv\", \"srv\"] }",
            "[packs.system]\nprocess = { allow = [\"df\"], shell = true }",
            "[packs.system]\nprocess = { allow = [{ program = \"df\", argv = [\"<1..x>\"] }] }",
            "[packs.system]\nprocess = { allow = [{ program = \"df\", arguments = [] }] }",
            "[packs.system]\nprocess = { allow = [{ program = \"df\", concurrent = 0 }] }",
            "[packs.wasi]\nkv = 5",
            "[packs.wasi]\nkv = { max_kib = 0 }",
            "[packs.wasi]\nkv = { max_mib = 1 }",
            "[packs.wasi]\nfiles = [\"/srv\"]",
            "[packs.wasi]\nfiles = [{ path = \"srv\", read = true }]",
            "[packs.wasi]\nfiles = [{ path = \"/srv\" }]",
            "[packs.wasi]\nfiles = [{ path = \"/srv\", read = true, max_mib = 5 }]",
            "[packs.wasi]\nfiles = [{ path = \"/srv\", read = true, execute = true }]",
            "[packs.wasi]\nfiles = [{ path = \"/srv\", read = true, at = \"data\" }]",
            "[packs.wasi]\nfiles = [{ path = \"/srv\", read = true }, { path = \"/opt\", at = \"/srv\", read = true }]",
            "[packs.camera]\ncamera = \"video0\"",
            "[packs.camera]\ncamera = { device = [\"video0\"] }",
            "[packs.shots]\nhttp = true",
            "[packs.shots]\nhttp = { hosts = [\"api.example.org\",\n \"https://example.org/x\"] }",
            "[packs.shots]\nhttp = { hosts = [\"2130706433\"] }",
            "[packs.shots]\nhttp = { hosts = [\"a.org\"], methods = [\"TRACE\"] }",
            "[packs.shots]\nhttp = { hosts = [\"a.org\"], private = [\"10.0.0.5/8\"] }",
            "[packs.shots.http]\nhosts = [\"a.org\"]\nheaders.\"b.org\" = { authorization = \"x\" }",
            "[packs.shots.http]\nhosts = [\"a.org\"]\nheaders.\"a.org\" = { host = \"b.org\" }",
            "[packs.shots.http]\nhosts = [\"a.org\"]\nheaders.\"a.org\" = { authorization = \"{secret:A}\" }",
            "[packs.shots]\nhttp = { hosts = [\"a.org\"], timeout_secs = 0 }",
            "[packs.shots]\nsecrets = [\"Api-Token\"]",
            "[containers]\nsocket = \"docker.sock\"",
            "[packs.work]\ncontainers = true",
            "[packs.work]\ncontainers = { images = [\"busybox\",\n \"*\"] }",
            "[packs.work]\ncontainers = { images = [\"busybox\"], mounts = [\"/run:w\"] }",
            "[packs.work]\ncontainers = { images = [\"busybox\"], networks = [\"host\"] }",
            "[packs.work]\ncontainers = { images = [\"busybox\"], privileged = true }",
            "[packs.work]\ncontainers = { images = [\"busybox\"], capabilities = [\"SYS_ADMIN\"] }",
            "[packs.work]\ncontainers = { images = [\"busybox\"], max = 0 }",
            "[packs.thermal]\ndigest = \"abc\"",
            "[packs.thermal]\npublisher = \"abc\"",
            "[publishers.trust]\nacme = \"0000000000000000000000000000000000000000000000000000000000000000\"",
            "[publishers]\nacme = \"abc\"",
            "[location]\nfixed = { latitude = 91, longitude = 0 }",
            "[location]\ngpsd = \"localhost\"",
            "[notify]\nbus = \"tcp:host=example.org\"",
            "[screen]\ndisplay = \"host:0\"",
            "[packs.watch]\nlocation = \"coarse\"",
            "[packs.watch]\nlocation = { fine = true }",
            "[packs.watch]\nscreen = { display = [] }",
            "[packs.\"Thermal!\"]\ngpu = true",
            "[packs.\"sha256:12\"]\ngpu = true",
        ]
        .into_iter()
        .map(|text| format!("{}\n    {}", text.replace('\n', " ⏎ "), wrong(text)))
        .collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}
