//! Keys and first grants. `relay init` makes the owner's: fleet, operator and publisher key, the owner's own grant. A first plain
//! `relay serve` does the same and adds what the relay itself needs on one machine. With `relay serve --fleet KEY` the
//! relay makes its own key only: no secret of the fleet ever lies there.
//!
//! What the operator's folder holds, and how, is [`crate::operator::Room`]'s business. The relay's holds
//! `relay.key`, and in a one-machine set-up `enrol.key` with `enrol.chain`: they certify nodes for codes that the relay
//! keeps, and are stolen with it; so the grant says `holder = "relay"`, enrols only, and lasts thirty days at most.

use std::fmt;
use std::path::{Path, PathBuf};

use outhaul_home::{Home, PRIVATE, load_or_create_secret_key, read_optional, write_atomic};
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{Authority, RELAY_HELD_SECS, RevokedSet, verify_chain};
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{PublicKey, SecretKey, random};
use outhaul_protocol::objects::{Enrol, Grant, HolderKind, Relays, Rights};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::Reading;

use crate::config::Settings;
use crate::operator::{Room, now};

/// New files: what each is, and where.
pub type Files = Vec<(&'static str, PathBuf)>;

/// How long the owner's own grant lasts: the fleet key lies beside it, so a shorter one would protect from nothing.
const OWNER_SECS: u64 = 10 * 365 * 24 * 3600;
/// The relay's own grant is renewed when less than this is left of its thirty days.
const RENEW_SECS: u64 = RELAY_HELD_SECS / 2;

/// What was made, and whose it is; printed on stderr.
#[derive(Debug, Clone)]
pub struct Made {
    /// the fleet's key: what agents pin, and what `relay serve --fleet` takes
    pub fleet: PublicKey,
    /// the operator's key here
    pub operator: PublicKey,
    /// what each new file is
    pub files: Files,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, path) in &self.files {
            writeln!(f, "made {what}: {}", path.display())?;
        }
        Ok(())
    }
}

/// Makes what the owner of a fleet needs on their own machine; what is there already stays.
pub fn init_owner(home: &Home) -> Result<Made, Failure> {
    let room = Room::of(home);
    if let (Some(pinned), None) = (room.fleet_pin()?, room.fleet_key()?) {
        return Err(Failure::new(
            Code::BadConfig,
            format!("`{}` already belongs to fleet {}, whose key is kept elsewhere", home.join("operator").display(), pinned.id().short()),
        )
        .hint("use another `--home` for a fleet of your own"));
    }
    home.operator()?;
    let mut files = Vec::new();
    let (fleet, new) = load_or_create_secret_key(&room.path("fleet.key"), SecretKey::generate)?;
    note(&mut files, new, "the fleet key, the root of all trust; keep a copy of it offline", room.path("fleet.key"));
    let (operator, new) = room.key_or_new()?;
    note(&mut files, new, "this operator's key", room.path("operator.key"));
    let (_, new) = room.publisher_or_new()?;
    note(&mut files, new, "the publisher's key, which signs the packs deployed from here", room.path("publisher.key"));
    let clock = Reading::sure(now());
    let stands = room.chain().is_ok_and(|chain| {
        verify_chain(&fleet.public(), &chain, clock, &RevokedSet::empty()).is_ok_and(|authority| *authority.holder() == operator.public())
    });
    if !stands {
        room.adopt(&fleet.public(), &[Blob(owner_grant(&fleet, &operator.public()))], None)?;
        note(&mut files, true, "the owner's grant: every command on every node, all rights, ten years", room.path("grants/own"));
    }
    Ok(Made { fleet: fleet.public(), operator: operator.public(), files })
}

fn note(files: &mut Files, new: bool, what: &'static str, path: PathBuf) {
    if new {
        files.push((what, path));
    }
}

fn owner_grant(fleet: &SecretKey, holder: &PublicKey) -> Vec<u8> {
    let any = || vec!["*".to_owned()];
    let grant = Grant {
        iss: fleet.id(),
        aud: fleet.id(),
        exp: now().plus(OWNER_SECS),
        iat: now(),
        cti: random(),
        holder: *holder,
        commands: any(),
        nodes: any(),
        evidence_channel: true,
        rights: Rights::all(),
        delegate: true,
        holder_kind: None,
    };
    Signed::sign(fleet, &grant).into_bytes()
}

/// The key and grant by which a relay certifies nodes itself.
#[derive(Debug)]
pub struct RelayEnrol {
    /// held by the relay
    pub key: SecretKey,
    /// its grants
    pub chain: Vec<Blob>,
    /// the owner's folder, for whom new machines trust to publish
    pub room: Room,
}

/// Who a relay is.
#[derive(Debug)]
pub struct Identity {
    /// its own key
    pub key: SecretKey,
    /// the fleet it serves
    pub fleet: PublicKey,
    /// what it may certify by, in a one-machine set-up
    pub enrol: Option<RelayEnrol>,
    /// whether the fleet key lies in this home, so that the relay may renew grants and list itself
    pub owner_here: bool,
    /// what this start made
    pub made: Files,
}

/// Who the relay of this home is: by its configuration when that names a fleet, else by what lies in the home, else a
/// new fleet on this one machine.
pub fn identity(home: &Home, settings: &Settings) -> Result<Identity, Failure> {
    match settings.fleet {
        Some(fleet) => {
            let (key, made) = relay_key(home)?;
            Ok(Identity { key, fleet, enrol: None, owner_here: false, made })
        }
        None => set_up_one_machine(home),
    }
}

/// The set-up on one machine: owner, operator and relay in one home. Also finds it again, and renews what runs out.
pub fn set_up_one_machine(home: &Home) -> Result<Identity, Failure> {
    let room = Room::of(home);
    let (key, mut made) = relay_key(home)?;
    if let (Some(fleet), None) = (room.fleet_pin()?, room.fleet_key()?) {
        // An operator's machine: it knows its fleet and cannot sign for it.
        return Ok(Identity { key, fleet, enrol: None, owner_here: false, made });
    }
    let mut files = init_owner(home)?.files;
    files.append(&mut made);
    let fleet_key = room.fleet_key()?.ok_or_else(|| Failure::new(Code::Internal, "the fleet key just made is gone"))?;
    let (enrol, new) = relay_enrol(home, &fleet_key)?;
    if new {
        note(&mut files, true, "the relay's own grant: it may certify nodes for codes it keeps, thirty days", home.join(ENROL_CHAIN));
    }
    Ok(Identity { key, fleet: fleet_key.public(), enrol: Some(enrol), owner_here: true, made: files })
}

const ENROL_KEY: &str = "relay/enrol.key";
const ENROL_CHAIN: &str = "relay/enrol.chain";

fn relay_key(home: &Home) -> Result<(SecretKey, Files), Failure> {
    let path = home.relay()?.join("relay.key");
    let (key, new) = load_or_create_secret_key(&path, SecretKey::generate)?;
    let mut made = Vec::new();
    note(&mut made, new, "the relay's key", path);
    Ok((key, made))
}

/// The relay's enrolling key with a grant that has at least half of its thirty days before it; whether that is new.
pub fn relay_enrol(home: &Home, fleet: &SecretKey) -> Result<(RelayEnrol, bool), Failure> {
    home.relay()?;
    let (key, _) = load_or_create_secret_key(&home.join(ENROL_KEY), SecretKey::generate)?;
    let path = home.join(ENROL_CHAIN);
    if let Some(chain) = standing_chain(&path, &fleet.public(), &key)? {
        return Ok((RelayEnrol { key, chain, room: Room::of(home) }, false));
    }
    let any = || vec!["*".to_owned()];
    let grant = Grant {
        iss: fleet.id(),
        aud: fleet.id(),
        exp: now().plus(RELAY_HELD_SECS),
        iat: now(),
        cti: random(),
        holder: key.public(),
        commands: Vec::new(),
        nodes: Vec::new(),
        evidence_channel: false,
        rights: Rights { enrol: Some(Enrol { names: any(), labels: any() }), ..Rights::default() },
        delegate: false,
        holder_kind: Some(HolderKind::Relay),
    };
    let chain = vec![Blob(Signed::sign(fleet, &grant).into_bytes())];
    write_atomic(&path, &Chain { grants: chain.clone() }.encode(), PRIVATE)?;
    Ok((RelayEnrol { key, chain, room: Room::of(home) }, true))
}

fn standing_chain(path: &Path, fleet: &PublicKey, key: &SecretKey) -> Result<Option<Vec<Blob>>, Failure> {
    let Some(bytes) = read_optional(path)? else { return Ok(None) };
    let Ok(chain) = Chain::decode(&bytes) else { return Ok(None) };
    let fresh = |authority: Authority| *authority.holder() == key.public() && authority.expires() > now().plus(RENEW_SECS);
    Ok(verify_chain(fleet, &chain.grants, Reading::sure(now()), &RevokedSet::empty()).is_ok_and(fresh).then_some(chain.grants))
}

/// `relay use`: signs a list of relays with this one first, and keeps it for this operator. Needs the fleet key here.
pub fn list_relay(home: &Home, url: &RelayUrl, relay: &PublicKey) -> Result<Verified<Relays>, Failure> {
    relist(home, relay, |urls| {
        let text = url.to_string();
        urls.retain(|known| *known != text);
        urls.insert(0, text);
    })
}

/// What a relay that starts beside the fleet key adds to the list: its key, and where it listens on this machine in
/// place of where it listened before. Addresses that people gave with `relay use` stay.
pub fn list_this_relay(home: &Home, url: &RelayUrl, relay: &PublicKey) -> Result<Verified<Relays>, Failure> {
    let text = url.to_string();
    relist(home, relay, |urls| {
        if !urls.contains(&text) {
            urls.retain(|known| !is_loopback(known));
            urls.push(text.clone());
        }
    })
}

fn is_loopback(url: &str) -> bool {
    let host = RelayUrl::parse(url).map(|url| url.host().to_owned()).unwrap_or_default();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Changes the list; a list that stays as it is keeps its serial.
fn relist(home: &Home, relay: &PublicKey, urls: impl FnOnce(&mut Vec<String>)) -> Result<Verified<Relays>, Failure> {
    let room = Room::of(home);
    let key = room.fleet_key()?.ok_or_else(|| {
        Failure::new(Code::BadConfig, "sign the list of relays: the fleet key is not in this home")
            .hint("run `relay use` where `relay init` was run")
    })?;
    let fleet = room.fleet()?;
    let known = fleet.relays.clone();
    let mut list = match &known {
        Some(known) => (**known).clone(),
        None => Relays { iss: key.id(), aud: key.id(), iat: now(), serial: 0, keys: Vec::new(), urls: Vec::new() },
    };
    if !list.keys.contains(relay) {
        list.keys.push(*relay);
    }
    urls(&mut list.urls);
    match known {
        Some(known) if *known == list => Ok(known),
        _ => {
            (list.iat, list.serial) = (now(), list.serial + 1);
            room.take_relays(&fleet, Signed::sign(&key, &list).bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeOptions;

    fn home(dir: &tempfile::TempDir) -> Home {
        Home::find(Some(dir.path().to_owned())).expect("a home")
    }

    #[test]
    fn init_makes_everything_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = home(&dir);
        let made = init_owner(&home).expect("makes");
        assert_eq!(made.files.len(), 4);
        let text = made.to_string();
        assert!(text.contains("fleet.key") && text.contains("publisher.key") && text.lines().count() == 4, "{text}");
        let again = init_owner(&home).expect("finds");
        assert!(again.files.is_empty() && again.fleet == made.fleet);
        let room = Room::of(&home);
        let authority = room.fleet().expect("a fleet").authority(&room.chain().expect("a chain")).expect("stands");
        assert_eq!(*authority.holder(), made.operator);
        assert!(authority.may_revoke().is_ok() && authority.rights() == Rights::all());
    }

    #[test]
    fn a_relay_told_its_fleet_makes_no_secret_but_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = home(&dir);
        let fleet = SecretKey::generate().public();
        let options = ServeOptions { fleet: Some(fleet), ..ServeOptions::default() };
        let identity = identity(&home, &Settings::read(&home, &options).expect("settings")).expect("an identity");
        assert!(identity.fleet == fleet && identity.enrol.is_none() && !identity.owner_here);
        assert_eq!(identity.made.len(), 1);
        assert!(!home.join("operator").exists() && !home.join(ENROL_KEY).exists());
    }

    #[test]
    fn one_machine_gets_a_relay_held_grant_that_only_enrols() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = home(&dir);
        let first = set_up_one_machine(&home).expect("sets up");
        assert_eq!(first.made.len(), 6);
        let enrol = first.enrol.expect("a grant");
        let authority = verify_chain(&first.fleet, &enrol.chain, Reading::sure(now()), &RevokedSet::empty()).expect("stands");
        assert_eq!(authority.holder_kind(), Some(HolderKind::Relay));
        assert!(authority.rights().enrol.is_some() && authority.may_revoke().is_err() && !authority.rights().packs);
        let again = set_up_one_machine(&home).expect("finds");
        assert!(again.made.is_empty() && again.key.id() == first.key.id());
        assert_eq!(again.enrol.map(|enrol| enrol.chain), Some(enrol.chain));
    }

    #[test]
    fn the_list_of_relays_grows_and_keeps_its_serial_when_nothing_changes() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = home(&dir);
        let identity = set_up_one_machine(&home).expect("sets up");
        let relay = identity.key.public();
        let url = |text: &str| RelayUrl::parse(text).expect(text);
        let first = list_this_relay(&home, &url("ws://127.0.0.1:1"), &relay).expect("lists");
        assert_eq!(list_this_relay(&home, &url("ws://127.0.0.1:1"), &relay).expect("lists").serial, first.serial);
        let moved = list_this_relay(&home, &url("ws://127.0.0.1:2"), &relay).expect("lists");
        assert_eq!((moved.serial, moved.urls.clone()), (2, vec!["ws://127.0.0.1:2".to_owned()]));
        let used = list_relay(&home, &url("wss://relay.example"), &SecretKey::generate().public()).expect("lists");
        assert_eq!((used.serial, used.keys.len()), (3, 2));
        assert_eq!(used.urls, ["wss://relay.example:443", "ws://127.0.0.1:2"]);
    }
}
