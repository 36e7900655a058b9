//! Certifying nodes: which name a new one gets, and the certificates an operator with the right `enrol` signs.

use std::sync::Arc;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::check_node;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{KeyId, SecretKey};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Certificate, Node, valid_name};
use outhaul_protocol::pairing::{Offer, Welcome};
use outhaul_protocol::signed::Signed;

use super::book::{Book, Known};
use super::room::{Fleet, Room, now};

/// How long a certificate lasts. It outlives its signer's grant on purpose: a node leaves by being revoked.
const CERTIFICATE_SECS: u64 = 10 * 365 * 24 * 3600;
/// Numbers tried behind a name that is taken.
const SUFFIXES: u32 = 10_000;

/// An operator who may certify nodes.
#[derive(Debug, Clone)]
pub struct Enroller {
    /// its fleet
    pub fleet: Fleet,
    /// its key
    pub key: Arc<SecretKey>,
    /// its grants
    pub chain: Vec<Blob>,
    /// its folder, for whom its machines trust to publish
    pub room: Room,
}

/// How a new node is to be called: by the operator's word, else the agent's, else its host's.
#[derive(Debug, Clone, Default)]
pub struct NameWish {
    /// the operator's word; taken as it is
    pub name: Option<String>,
    /// the machine's host name, unproven
    pub host: Option<String>,
    /// the node that gives its name up
    pub replace: Option<Known>,
}

/// A host name as a node's name: lower case, what does not fit becomes a dash, the domain is left out.
#[must_use]
pub fn host_name(host: &str) -> Option<String> {
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let mut name: String = label.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    name.truncate(limits::NAME);
    let name = name.trim_matches('-').to_owned();
    valid_name(&name).then_some(name)
}

impl Enroller {
    /// Whether this operator may certify anything at all: asked before a code is shown.
    pub fn check(&self) -> Result<(), Failure> {
        let authority = self.fleet.authority(&self.chain)?;
        match authority.rights().enrol {
            Some(_) => Ok(()),
            None => Err(Failure::new(Code::NotGranted, "this operator's grant lacks the right `enrol`")
                .hint("the owner gives it with `relay operator grant KEY … --enrol '*'`")),
        }
    }

    /// A certificate with its chain.
    pub fn sign(&self, node: &Node) -> Result<Vec<u8>, Failure> {
        check_node(node, &self.fleet.key).map_err(|what| Failure::new(Code::BadUsage, format!("certify `{}`: it {what}", node.name)))?;
        self.fleet.authority(&self.chain)?.may_enrol(&node.name, &node.labels)?;
        let signed = Blob(Signed::sign(&self.key, node).into_bytes());
        Ok(Certificate { node: signed, chain: self.chain.clone() }.encode())
    }

    /// A certificate for the machine that a pairing brought.
    pub fn certify(&self, book: &mut Book, offer: &Offer, wish: &NameWish) -> Result<Known, Failure> {
        let id = offer.node.id();
        if self.fleet.revoked.has_key(&id) {
            return Err(Failure::new(Code::Revoked, format!("the key of that machine, {}, is revoked", id.short()))
                .hint("it says how it gets a new one; `relay pair new` makes another code"));
        }
        let before = book.known(&id)?;
        let name = choose(book, &id, offer, wish, before.as_ref())?;
        let node = Node {
            iss: self.key.id(),
            aud: self.fleet.key.id(),
            exp: now().plus(CERTIFICATE_SECS),
            iat: now(),
            node: offer.node,
            mailbox: offer.mailbox,
            name,
            labels: before.as_ref().or(wish.replace.as_ref()).map(|known| known.node.labels.clone()).unwrap_or_default(),
            serial: before.as_ref().map_or(1, |known| known.node.serial + 1),
            replaces: wish.replace.as_ref().map(Known::id).filter(|old| *old != id),
        };
        let certificate = self.sign(&node)?;
        Ok(Known { node, certificate, accepted: now(), announce: before.and_then(|known| known.announce) })
    }

    /// A newer certificate of a node: renamed or relabelled.
    pub fn renew(&self, known: &Known, change: impl FnOnce(&mut Node)) -> Result<Known, Failure> {
        let mut node = known.node.clone();
        change(&mut node);
        (node.iss, node.iat, node.exp) = (self.key.id(), now(), now().plus(CERTIFICATE_SECS));
        (node.serial, node.replaces) = (known.node.serial + 1, None);
        // Old name and labels too, or an enroller of kiosks could relabel a server: every agent asks the same.
        self.fleet.authority(&self.chain)?.may_enrol(&known.node.name, &known.node.labels)?;
        let certificate = self.sign(&node)?;
        Ok(Known { node, certificate, accepted: now(), announce: known.announce.clone() })
    }

    /// All that a new node must know of its fleet.
    pub fn welcome(&self, known: &Known) -> Result<Welcome, Failure> {
        let relays = self.fleet.relays.as_ref().ok_or_else(|| {
            Failure::new(Code::BadConfig, "this fleet names no relay yet")
                .hint("`relay use URL --relay-key FP` on the owner's machine signs the list")
        })?;
        let certificate = Certificate::decode(&known.certificate)
            .map_err(|error| Failure::new(Code::Internal, format!("read a new certificate: {error}")))?;
        Ok(Welcome {
            fleet: self.fleet.key,
            successor: None,
            certificate,
            relays: Blob(relays.bytes().to_vec()),
            revocations: self.fleet.revocations.clone(),
            publishers: self.room.pinned_publishers()?,
        })
    }
}

/// The name of a node that is being paired. What people chose is kept as it is; what machines offer gets a number
/// when it is taken.
fn choose(book: &Book, id: &KeyId, offer: &Offer, wish: &NameWish, before: Option<&Known>) -> Result<String, Failure> {
    if let Some(old) = &wish.replace {
        return Ok(old.node.name.clone());
    }
    let taken = |name: &str| book.names().any(|(other, held)| other != id && held == name);
    if let Some(name) = &wish.name {
        return match (valid_name(name), taken(name)) {
            (true, false) => Ok(name.clone()),
            (false, _) => Err(Failure::new(Code::BadUsage, format!("`{}` is not a node's name", name.escape_debug()))
                .hint("lower-case letters, digits and dashes, at most 63")),
            (true, true) => Err(Failure::new(Code::BadUsage, format!("another node is called `{name}`"))
                .hint(format!("choose another with --name, or move it to the new machine: relay pair new --replace {name}"))),
        };
    }
    if let Some(known) = before {
        return Ok(known.node.name.clone());
    }
    let base = offer.name.clone().or_else(|| wish.host.as_deref().and_then(host_name)).unwrap_or_else(|| "node".to_owned());
    let numbered = (2..SUFFIXES).map(|number| {
        let suffix = format!("-{number}");
        format!("{}{suffix}", &base[..base.len().min(limits::NAME - suffix.len())])
    });
    std::iter::once(base.clone())
        .chain(numbered)
        .find(|name| !taken(name))
        .ok_or_else(|| Failure::new(Code::BadUsage, format!("every name like `{base}` is taken")).hint("choose one with `--name NAME`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::book::tests::Owner;
    use outhaul_protocol::keys::X25519Secret;
    use outhaul_protocol::objects::Relays;

    fn offer(key: &SecretKey, name: Option<&str>) -> Offer {
        Offer { node: key.public(), mailbox: X25519Secret::generate().public(), name: name.map(str::to_owned) }
    }

    fn enroller(owner: &Owner) -> Enroller {
        Enroller { fleet: owner.fleet.clone(), key: owner.key.clone(), chain: owner.chain.clone(), room: owner.room.clone() }
    }

    #[test]
    fn host_names_become_names() {
        for (host, name) in [
            ("Bench-1.lab.example", Some("bench-1")),
            ("my_pc", Some("my-pc")),
            ("_x_", Some("x")),
            ("---", None),
            ("", None),
            ("東京", None),
        ] {
            assert_eq!(host_name(host).as_deref(), name, "{host}");
        }
    }

    #[test]
    fn a_taken_name_gets_a_number_and_a_machine_keeps_its_own() {
        let owner = Owner::new();
        let (enroller, mut book) = (enroller(&owner), owner.book());
        let (one, two) = (SecretKey::generate(), SecretKey::generate());
        let host = NameWish { host: Some("Bench".into()), ..NameWish::default() };
        let first = enroller.certify(&mut book, &offer(&one, None), &host).expect("certifies");
        book.keep(&first).expect("keeps");
        let second = enroller.certify(&mut book, &offer(&two, Some("bench")), &host).expect("certifies");
        let again = enroller.certify(&mut book, &offer(&one, Some("other")), &host).expect("certifies");
        assert_eq!(
            [&first, &second, &again].map(|known| (known.node.name.as_str(), known.node.serial)),
            [("bench", 1), ("bench-2", 1), ("bench", 2)]
        );
    }

    #[test]
    fn a_chosen_name_is_never_changed_in_silence() {
        let owner = Owner::new();
        let (enroller, mut book) = (enroller(&owner), owner.book());
        let (one, two) = (SecretKey::generate(), SecretKey::generate());
        let wish = |name: &str| NameWish { name: Some(name.into()), ..NameWish::default() };
        let first = enroller.certify(&mut book, &offer(&one, None), &wish("bench")).expect("certifies");
        book.keep(&first).expect("keeps");
        let failure = enroller.certify(&mut book, &offer(&two, None), &wish("bench")).expect_err("taken");
        assert_eq!(
            (failure.code, failure.hint.as_deref()),
            (Code::BadUsage, Some("choose another with --name, or move it to the new machine: relay pair new --replace bench"))
        );
        assert!(enroller.certify(&mut book, &offer(&two, None), &wish("No")).is_err());
        let replace = NameWish { replace: Some(first.clone()), ..NameWish::default() };
        let second = enroller.certify(&mut book, &offer(&two, Some("x")), &replace).expect("replaces");
        assert_eq!((second.node.name.as_str(), second.node.replaces), ("bench", Some(first.id())));
        book.keep(&second).expect("keeps");
        assert_eq!(book.resolve("bench").expect("one"), Some(two.id()));
    }

    #[test]
    fn a_new_machine_trusts_the_publishers_of_who_pairs_it() {
        let owner = Owner::new();
        let (enroller, mut book, key) = (enroller(&owner), owner.book(), SecretKey::generate());
        let known = enroller.certify(&mut book, &offer(&key, Some("bench-1")), &NameWish::default()).expect("certifies");
        let own = owner.room.publisher_or_new().expect("made").0.public();
        let other = SecretKey::generate().public();
        owner.room.name_publisher("acme", &other).expect("named");
        let list = Relays { iss: owner.key.id(), aud: owner.fleet.key.id(), iat: now(), serial: 1, keys: vec![], urls: vec![] };
        let fleet = Fleet { relays: Some(Signed::sign(&owner.key, &list)), ..owner.fleet.clone() };
        let welcome = Enroller { fleet, ..enroller }.welcome(&known).expect("a welcome");
        assert_eq!(welcome.publishers, [own, other]);
    }

    #[test]
    fn a_renewed_certificate_follows_the_old_one() {
        let owner = Owner::new();
        let (enroller, mut book, key) = (enroller(&owner), owner.book(), SecretKey::generate());
        let known = book.learn(&owner.node(&key, "bench-1", 1, None)).expect("learns").known;
        let renewed = enroller.renew(&known, |node| node.name = "bench-9".into()).expect("renews");
        assert_eq!((renewed.node.name.as_str(), renewed.node.serial), ("bench-9", 2));
        let record = outhaul_protocol::frame::NodeRecord { certificate: Blob(renewed.certificate), ..owner.node(&key, "x", 1, None) };
        assert_eq!(owner.book().learn(&record).expect("learns").known.node.name, "bench-9");
    }
}
