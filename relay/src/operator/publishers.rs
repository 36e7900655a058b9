//! What the operator's folder holds about publishers: this home's own publisher key, how it followed older ones, and the
//! names of others who are trusted. What is listed here is pinned by every machine that is paired from here.
//!
//! ```text
//! publisher.key          signs the packs of this home
//! publisher-ID.key       what signed them before, kept until its owner deletes it
//! publisher.rotations    the signed rotations from the first key to the one of now, one a line in base64
//! publishers.toml        names for other publishers' keys
//! ```

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outhaul_home::{PRIVATE, load_or_create_secret_key, read_optional, read_secret_key, read_toml_optional, write_atomic};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use outhaul_protocol::limits;
use outhaul_protocol::objects::Rotation;
use outhaul_protocol::publisher::{PublisherKey, Publishers, replaced_by, verify_rotation};

use super::room::{Room, now};

const KEY: &str = "publisher.key";
const NEXT: &str = "publisher.next.key";
const ROTATIONS: &str = "publisher.rotations";
const NAMES: &str = "publishers.toml";

/// What the own key is called where publishers are named.
pub const OWN: &str = "own";

/// A key that took another's place.
#[derive(Debug)]
pub struct Rotated {
    /// the key so far
    pub old: PublicKey,
    /// the key of now
    pub new: PublicKey,
    /// where the old one's file is kept
    pub kept: std::path::PathBuf,
}

impl Room {
    /// This home's publisher key, if there is one.
    pub fn publisher(&self) -> Result<Option<PublisherKey>, Failure> {
        let path = self.path(KEY);
        if path.exists() { read_secret_key(&path).map(Some) } else { Ok(None) }
    }

    /// This home's publisher key, made on first use; whether it is new.
    pub fn publisher_or_new(&self) -> Result<(PublisherKey, bool), Failure> {
        self.create("")?;
        load_or_create_secret_key(&self.path(KEY), PublisherKey::generate)
    }

    /// Other publishers by name.
    pub fn named_publishers(&self) -> Result<BTreeMap<String, PublicKey>, Failure> {
        let named: BTreeMap<String, String> = read_toml_optional(&self.path(NAMES))?.unwrap_or_default();
        let key = |(name, key): (String, String)| match key.parse() {
            Ok(key) => Ok((name, key)),
            Err(error) => Err(Failure::new(Code::BadConfig, format!("read `{}`, key `{name}`: {error}", self.path(NAMES).display()))),
        };
        named.into_iter().map(key).collect()
    }

    /// Gives a name to another publisher's key.
    pub fn name_publisher(&self, name: &str, key: &PublicKey) -> Result<(), Failure> {
        let mut all = self.named_publishers()?;
        if let Some(other) = all.get(name).filter(|other| *other != key) {
            let text = format!("`{name}` is the publisher with key {} already", other.id().short());
            return Err(Failure::new(Code::BadUsage, text).hint("choose another with --name, or distrust that one first"));
        }
        all.retain(|_, known| known != key);
        // The own key is pinned beside them.
        if all.len() + 1 >= limits::PUBLISHERS {
            return Err(Failure::new(Code::TooLarge, format!("a machine trusts at most {} publishers", limits::PUBLISHERS)));
        }
        all.insert(name.to_owned(), *key);
        self.keep_publishers(&all)
    }

    /// Forgets another publisher; false when it was not known.
    pub fn forget_publisher(&self, key: &PublicKey) -> Result<bool, Failure> {
        let mut all = self.named_publishers()?;
        let before = all.len();
        all.retain(|_, known| known != key);
        if all.len() == before {
            return Ok(false);
        }
        self.keep_publishers(&all).map(|()| true)
    }

    fn keep_publishers(&self, all: &BTreeMap<String, PublicKey>) -> Result<(), Failure> {
        let texts: BTreeMap<&String, String> = all.iter().map(|(name, key)| (name, key.to_string())).collect();
        self.create("")?;
        let text = toml::to_string(&texts).map_err(|error| Failure::new(Code::Internal, format!("write {NAMES}: {error}")))?;
        write_atomic(&self.path(NAMES), text.as_bytes(), PRIVATE)
    }

    /// A publisher's key: `own`, a name that is known here, or the key itself.
    pub fn publisher_key(&self, text: &str) -> Result<PublicKey, Failure> {
        if let Ok(key) = text.trim().to_ascii_lowercase().parse() {
            return Ok(key);
        }
        let found = if text == OWN { self.publisher()?.map(|key| key.public()) } else { self.named_publishers()?.remove(text) };
        found.ok_or_else(|| {
            let text = format!("`{}` is neither a publisher's key of 64 hexadecimal digits nor a known publisher", text.escape_debug());
            Failure::new(Code::BadUsage, text).hint("`relay publisher show` prints a key, here or on the publisher's machine")
        })
    }

    /// How this home's key followed older ones, oldest first.
    pub fn rotations(&self) -> Result<Vec<Rotation>, Failure> {
        let path = self.path(ROTATIONS);
        read_rotations(&read_optional(&path)?.unwrap_or_default())
            .map_err(|what| Failure::new(Code::BadConfig, format!("read `{}`: {what}", path.display())))
    }

    /// Whom a machine that is paired from here trusts: the own key of now, and the publishers named here.
    pub fn pinned_publishers(&self) -> Result<Vec<PublicKey>, Failure> {
        let mut all: Vec<PublicKey> = self.publisher()?.map(|key| key.public()).into_iter().collect();
        for key in self.named_publishers()?.into_values() {
            if !all.contains(&key) {
                all.push(key);
            }
        }
        Ok(all)
    }

    /// The same with their names and older keys, for looking at a signature here.
    pub fn known_publishers(&self) -> Result<Publishers, Failure> {
        let mut all = Publishers::default();
        let rotations = self.rotations()?;
        if let Some(own) = self.publisher()?.map(|key| key.public()) {
            all.trust(own, Some(OWN.to_owned()));
        }
        // Older keys of one's own are found back along the rotations: each is proven by what it names.
        for rotation in rotations.iter().rev() {
            if let Ok(old) = old_key(rotation) {
                all.trust(old, Some(OWN.to_owned()));
                let _ = all.follow(rotation);
            }
        }
        for (name, key) in self.named_publishers()? {
            all.trust(key, Some(name));
        }
        Ok(all)
    }

    /// Makes a new publisher key that the old one hands on to. Whenever this is cut short, one of the two keys is in its
    /// place, and doing it again goes on where it stopped.
    pub fn rotate_publisher(&self) -> Result<Rotated, Failure> {
        let old = self.publisher()?.ok_or_else(|| {
            Failure::new(Code::BadUsage, "there is no publisher key here to replace").hint("`relay publisher show` makes the first one")
        })?;
        let (next, _) = load_or_create_secret_key(&self.path(NEXT), PublisherKey::generate)?;
        let mut rotations = self.rotations()?;
        let done = |rotation: &Rotation| verify_rotation(rotation, &old.public()).is_ok_and(|heir| heir == next.public());
        if !rotations.iter().any(done) {
            rotations.push(old.hand_on(&next, now()));
            let text: String = rotations.iter().map(|rotation| STANDARD.encode(rotation.encode()) + "\n").collect();
            write_atomic(&self.path(ROTATIONS), text.as_bytes(), PRIVATE)?;
        }
        let kept = self.path(format!("publisher-{}.key", old.id().short()));
        let failed = |what: &str, error: &std::io::Error| Failure::new(Code::BadConfig, format!("{what} `{}`: {error}", kept.display()));
        match std::fs::hard_link(self.path(KEY), &kept) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed("keep the old key as", &error)),
            _ => {}
        }
        std::fs::rename(self.path(NEXT), self.path(KEY)).map_err(|error| failed("put the new key beside", &error))?;
        Ok(Rotated { old: old.public(), new: next.public(), kept })
    }
}

/// The key that a rotation of this home's replaced.
fn old_key(rotation: &Rotation) -> Result<PublicKey, outhaul_protocol::publisher::RotationError> {
    use outhaul_protocol::objects::Succession;
    use outhaul_protocol::signed::Signed;
    let said = Signed::<Succession>::from_bytes(&rotation.old.0)?;
    let old = said.unverified().key;
    // Its own signature proves it: whoever wrote this file has held the key.
    verify_rotation(rotation, &old).map(|_| old)
}

/// Reads rotations as `relay publisher rotate` writes them.
pub fn read_rotations(text: &[u8]) -> Result<Vec<Rotation>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let one = |line: &str| {
        let bytes = STANDARD.decode(line).map_err(|error| error.to_string())?;
        let rotation = Rotation::decode(&bytes).map_err(|error| error.to_string())?;
        replaced_by(&rotation).map_err(|error| error.to_string())?;
        Ok(rotation)
    };
    lines.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_home::Home;

    fn room() -> (tempfile::TempDir, Room) {
        let dir = tempfile::tempdir().expect("a folder");
        let room = Room::of(&Home::find(Some(dir.path().to_owned())).expect("a home"));
        (dir, room)
    }

    #[test]
    fn the_key_is_made_once_and_has_a_label_of_its_own() {
        let (_dir, room) = room();
        assert!(room.publisher().expect("none").is_none() && room.pinned_publishers().expect("none").is_empty());
        let (key, new) = room.publisher_or_new().expect("made");
        let (again, old) = room.publisher_or_new().expect("found");
        assert!(new && !old && key.id() == again.id());
        let text = std::fs::read_to_string(room.path(KEY)).expect("there");
        assert!(text.starts_with("outhaul publisher secret key v1: "), "a key has one role");
        assert!(read_secret_key::<outhaul_protocol::keys::SecretKey>(&room.path(KEY)).is_err());
        assert_eq!(room.publisher_key(OWN).expect("known"), key.public());
    }

    #[test]
    fn each_rotation_leads_on_from_the_one_before_and_can_be_cut_anywhere() {
        let (_dir, room) = room();
        assert_eq!(room.rotate_publisher().expect_err("nothing to replace").code, Code::BadUsage);
        let first = room.publisher_or_new().expect("made").0;
        // Cut after the new key was made, then after the rotation was written.
        load_or_create_secret_key(&room.path(NEXT), PublisherKey::generate).expect("made");
        let one = room.rotate_publisher().expect("goes on");
        std::fs::rename(room.path(KEY), room.path(NEXT)).expect("back");
        std::fs::copy(&one.kept, room.path(KEY)).expect("back");
        let same = room.rotate_publisher().expect("goes on");
        assert_eq!((one.old, one.new), (same.old, same.new));
        let two = room.rotate_publisher().expect("again");
        assert_eq!((one.old, one.new == two.old), (first.public(), true));
        assert_eq!(room.publisher().expect("there").map(|key| key.public()), Some(two.new));
        let mut trusted = Publishers::default();
        trusted.trust(first.public(), None);
        let rotations = room.rotations().expect("written");
        assert_eq!(rotations.len(), 2);
        rotations.iter().for_each(|rotation| assert_eq!(trusted.follow(rotation), Ok(true)));
        assert_eq!(trusted.of(&first.id()).map(|publisher| *publisher.key()), Some(two.new));
        let known = room.known_publishers().expect("read");
        assert_eq!((known.len(), known.of(&first.id()).map(|own| own.keys().len())), (1, Some(3)));
        assert_eq!(room.pinned_publishers().expect("read"), [two.new]);
    }

    #[test]
    fn others_are_named_once_each() {
        let (_dir, room) = room();
        let (acme, other) = (PublisherKey::generate().public(), PublisherKey::generate().public());
        room.name_publisher("acme", &acme).expect("named");
        room.name_publisher("acme-2", &acme).expect("renamed");
        room.name_publisher("other", &other).expect("named");
        assert_eq!(room.name_publisher("other", &acme).expect_err("taken").code, Code::BadUsage);
        assert_eq!(room.named_publishers().expect("read"), [("acme-2".to_owned(), acme), ("other".to_owned(), other)].into());
        assert!(room.forget_publisher(&acme).expect("known") && !room.forget_publisher(&acme).expect("gone"));
        assert_eq!(room.publisher_key("nobody").expect_err("unknown").code, Code::BadUsage);
        assert!(read_rotations(b"AAAA\n").is_err() && read_rotations(b"\xff").is_err());
    }
}
