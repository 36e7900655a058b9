//! Grants to other operators, and what takes them back. The fleet key signs where it is here, else this operator's own
//! key, when its grant may delegate. What is given is noted, so that it can be listed and revoked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use outhaul_home::{PRIVATE, read_optional, write_atomic};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{Authority, check_grant};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey, random};
use outhaul_protocol::objects::{Grant, RevocationList, Revocations, Rights};
use outhaul_protocol::signed::Signed;
use serde::{Deserialize, Serialize};

use super::room::{Fleet, Room, now};

/// What a grant's text begins with: the version of what follows.
const PREFIX: &str = "outhaul-grant-1.";
/// Bytes of a grant's text: a chain, a list of relays, in base64 twice.
const TEXT: usize = 512 << 10;

/// What is to be granted.
#[derive(Debug, Clone)]
pub struct GrantWish {
    /// to whom
    pub holder: PublicKey,
    /// patterns of commands
    pub commands: Vec<String>,
    /// selectors of nodes
    pub nodes: Vec<String>,
    /// seconds it lasts
    pub secs: u64,
    /// whether the holder may grant on
    pub delegate: bool,
    /// rights beside commands
    pub rights: Rights,
    /// whether quick calls need no signature
    pub evidence_channel: bool,
}

/// What another operator needs to join: printed as one word, taken by `relay operator accept`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantText {
    fleet: String,
    chain: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relays: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    publishers: Vec<String>,
}

/// What a grant's word holds, unproven: [`Room::adopt`] proves it.
#[derive(Debug, Clone)]
pub struct Offered {
    /// the fleet's key
    pub fleet: PublicKey,
    /// the grants, the fleet key's first
    pub chain: Vec<Blob>,
    /// the signed list of relays
    pub relays: Option<Vec<u8>>,
    /// whom machines trust to publish that are paired by who gave it
    pub publishers: Vec<PublicKey>,
}

impl GrantText {
    fn of(fleet: &Fleet, chain: &[Blob], publishers: &[PublicKey]) -> Self {
        GrantText {
            publishers: publishers.iter().map(ToString::to_string).collect(),
            fleet: fleet.key.to_string(),
            chain: chain.iter().map(|grant| STANDARD.encode(&grant.0)).collect(),
            relays: fleet.relays.as_ref().map(|relays| STANDARD.encode(relays.bytes())),
        }
    }

    /// As one word.
    pub fn reveal(&self) -> Result<String, Failure> {
        let json = serde_json::to_vec(self).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json)))
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Result<Offered, Failure> {
        let bad = |what: &str| {
            Failure::new(Code::BadUsage, format!("read grant: {what}")).hint("paste all of what `relay operator grant` printed")
        };
        let word: String = text.split_whitespace().collect();
        if word.len() > TEXT {
            return Err(bad("it is too long"));
        }
        let body = word.strip_prefix(PREFIX).ok_or_else(|| bad("it does not begin with `outhaul-grant-1.`"))?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| bad("a part of it is missing"))?;
        let parts: GrantText = serde_json::from_slice(&json).map_err(|_| bad("a part of it is missing"))?;
        let bytes = |text: &String| STANDARD.decode(text).map_err(|_| bad("a part of it is damaged"));
        let fleet = parts.fleet.parse().map_err(|_| bad("its fleet key is damaged"))?;
        let chain = parts.chain.iter().map(|grant| bytes(grant).map(Blob)).collect::<Result<_, _>>()?;
        let publishers = parts.publishers.iter().map(|key| key.parse().map_err(|_| bad("a publisher's key in it is damaged")));
        let publishers = publishers.collect::<Result<_, _>>()?;
        Ok(Offered { fleet, chain, relays: parts.relays.as_ref().map(bytes).transpose()?, publishers })
    }
}

/// A grant that was given here, as it is noted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    grant: GrantText,
}

/// Whose signature gives and takes here: the fleet key's alone, or the operator's with its chain.
struct Signer {
    key: Arc<SecretKey>,
    chain: Vec<Blob>,
}

fn signer(room: &Room, fleet: &Fleet) -> Result<Signer, Failure> {
    match room.fleet_key()? {
        Some(key) if key.public() == fleet.key => Ok(Signer { key: Arc::new(key), chain: Vec::new() }),
        Some(key) => Err(Failure::new(
            Code::BadKey,
            format!("`fleet.key` here is of fleet {}, the pinned one is {}", key.id().short(), fleet.key.id().short()),
        )),
        None => Ok(Signer { key: room.key()?, chain: room.chain()? }),
    }
}

/// Signs a grant and notes it; gives its id and its text.
pub fn give(room: &Room, fleet: &Fleet, wish: GrantWish) -> Result<([u8; 16], GrantText), Failure> {
    let Signer { key, mut chain } = signer(room, fleet)?;
    let grant = Grant {
        iss: key.id(),
        aud: fleet.key.id(),
        exp: now().plus(wish.secs),
        iat: now(),
        cti: random(),
        holder: wish.holder,
        commands: wish.commands,
        nodes: wish.nodes,
        evidence_channel: wish.evidence_channel,
        rights: wish.rights,
        delegate: wish.delegate,
        holder_kind: None,
    };
    check_grant(&grant, &fleet.key).map_err(|what| Failure::new(Code::BadUsage, format!("the grant {what}")))?;
    chain.push(Blob(Signed::sign(&key, &grant).into_bytes()));
    fleet.authority(&chain)?;
    let text = GrantText::of(fleet, &chain, &room.pinned_publishers()?);
    room.create("grants")?;
    let noted = serde_json::to_vec(&Noted { grant: text.clone() }).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    write_atomic(&room.path(format!("grants/{}.json", hex::encode(grant.cti))), &noted, PRIVATE)?;
    Ok((grant.cti, text))
}

/// The grants given here, oldest first; damaged notes are errors.
pub fn given(room: &Room) -> Result<Vec<Grant>, Failure> {
    let folder = room.path("grants");
    let Ok(listed) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for path in listed.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "json")) {
        let Some(bytes) = read_optional(&path)? else { continue };
        let bad = |what: &dyn std::fmt::Display| Failure::new(Code::BadConfig, format!("read `{}`: {what}", path.display()));
        let noted: Noted = serde_json::from_slice(&bytes).map_err(|error| bad(&error))?;
        let last = noted.grant.chain.last().ok_or_else(|| bad(&"no grant in it"))?;
        let last = STANDARD.decode(last).map_err(|error| bad(&error))?;
        all.push(Signed::<Grant>::from_bytes(&last).map_err(|error| bad(&error))?.unverified().clone());
    }
    all.sort_by_key(|grant| (grant.iat, grant.cti));
    Ok(all)
}

/// A newer document of revocations with these keys and grants in it, written here; the relay is still to be told.
pub fn revoke(room: &Room, fleet: &Fleet, keys: &[KeyId], ctis: &[[u8; 16]]) -> Result<RevocationList, Failure> {
    let Signer { key, chain } = signer(room, fleet)?;
    if !chain.is_empty() {
        fleet.authority(&chain)?.may_revoke()?;
    }
    let mut list = match &fleet.revocations {
        Some(known) => Signed::<Revocations>::from_bytes(&known.list.0)?.unverified().clone(),
        None => Revocations { iss: key.id(), aud: fleet.key.id(), iat: now(), serial: 0, keys: Vec::new(), ctis: Vec::new(), next: None },
    };
    (list.iss, list.iat, list.serial) = (key.id(), now(), list.serial + 1);
    for id in keys {
        if !list.keys.contains(id) {
            list.keys.push(*id);
        }
    }
    for cti in ctis {
        if !list.ctis.contains(cti) {
            list.ctis.push(*cti);
        }
    }
    let list = RevocationList { list: Blob(Signed::sign(&key, &list).into_bytes()), chain };
    room.take_revocations(fleet, &list)?;
    Ok(list)
}

/// A newer document of revocations with these keys in it, written here. Revoking the key one signs with would stop all
/// one's own packs, and is never what was meant.
pub fn revoke_publisher(room: &Room, fleet: &Fleet, key: &PublicKey) -> Result<RevocationList, Failure> {
    if room.publisher()?.is_some_and(|own| own.public() == *key) {
        return Err(Failure::new(Code::BadUsage, "that is the key this home signs packs with: every pack it signed would stop")
            .hint("`relay publisher rotate` first, deploy again, then revoke the old one"));
    }
    revoke(room, fleet, &[key.id()], &[])
}

/// What `relay operator revoke ID` means: a grant given here by the start of its id, else an operator's key.
pub fn revoke_at(room: &Room, text: &str) -> Result<(Vec<KeyId>, Vec<[u8; 16]>), Failure> {
    let text = text.trim();
    let ids: Vec<[u8; 16]> =
        given(room)?.iter().map(|grant| grant.cti).filter(|cti| text.len() >= 4 && hex::encode(cti).starts_with(text)).collect();
    match ids.as_slice() {
        [one] => return Ok((Vec::new(), vec![*one])),
        [] => {}
        many => return Err(Failure::new(Code::BadUsage, format!("`{text}` begins {} grants", many.len())).hint("give more digits")),
    }
    if let Ok(cti) = hex::decode(text).map_err(|_| ()).and_then(|bytes| <[u8; 16]>::try_from(bytes).map_err(|_| ())) {
        return Ok((Vec::new(), vec![cti]));
    }
    room.operator_key(text).map(|key| (vec![key.id()], Vec::new())).map_err(|failure| {
        Failure::new(Code::BadUsage, format!("`{}` is neither a grant's id, nor an operator's name or key", text.escape_debug()))
            .hint(failure.hint.unwrap_or_default())
            .hint("`relay operator grants` lists ids")
    })
}

/// The rights of a chain, in words.
#[must_use]
pub fn words(rights: &Rights) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(enrol) = &rights.enrol {
        words.push(format!("enrol {}", enrol.names.join(",")));
    }
    for (given, word) in [(rights.packs, "packs"), (rights.policy, "policy"), (rights.revoke, "revoke")] {
        if given {
            words.push(word.to_owned());
        }
    }
    words
}

/// Whether a chain may grant on.
#[must_use]
pub fn delegates(authority: &Authority) -> bool {
    authority.grants().last().is_some_and(|grant| grant.delegate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::book::tests::Owner;
    use outhaul_home::Home;

    fn wish(holder: &PublicKey) -> GrantWish {
        GrantWish {
            holder: *holder,
            commands: vec!["gpu.*".into()],
            nodes: vec!["*".into()],
            secs: 3600,
            delegate: false,
            rights: Rights::default(),
            evidence_channel: false,
        }
    }

    #[test]
    fn a_granted_operator_joins_by_one_word() {
        let owner = Owner::new();
        let dir = tempfile::tempdir().expect("a folder");
        let room = Room::of(&Home::find(Some(dir.path().to_owned())).expect("a home"));
        let (key, _) = room.key_or_new().expect("a key");
        let own = owner.room.publisher_or_new().expect("made").0;
        let (cti, text) = give(&owner.room, &owner.fleet, wish(&key.public())).expect("gives");
        let word = text.reveal().expect("a word");
        let Offered { fleet, chain, relays, publishers } = GrantText::parse(&format!("{}\n{}", &word[..40], &word[40..])).expect("parses");
        assert_eq!(publishers, [own.public()], "machines they pair trust the same publishers");
        let authority = room.adopt(&fleet, &chain, relays.as_deref()).expect("joins");
        assert_eq!((*authority.holder(), chain.len()), (key.public(), 2));
        assert_eq!(room.chain().expect("a chain"), chain);
        assert_eq!(given(&owner.room).expect("notes").iter().map(|grant| grant.cti).collect::<Vec<_>>(), [cti]);
        let stranger = give(&owner.room, &owner.fleet, wish(&SecretKey::generate().public())).expect("gives").1;
        let Offered { fleet, chain, relays, .. } = GrantText::parse(&stranger.reveal().expect("a word")).expect("parses");
        assert_eq!(room.adopt(&fleet, &chain, relays.as_deref()).expect_err("not mine").code, Code::BadKey);
    }

    #[test]
    fn a_word_that_was_cut_is_bad_usage() {
        let owner = Owner::new();
        let word = give(&owner.room, &owner.fleet, wish(&SecretKey::generate().public())).expect("gives").1.reveal().expect("a word");
        for cut in ["", "x", &word[..30], &word[..word.len() - 9]] {
            assert_eq!(GrantText::parse(cut).expect_err(cut).code, Code::BadUsage);
        }
    }

    #[test]
    fn revocations_grow_and_survive_the_disk() {
        let owner = Owner::new();
        let key = SecretKey::generate().id();
        let (cti, _) = give(&owner.room, &owner.fleet, wish(&SecretKey::generate().public())).expect("gives");
        let (keys, ctis) = revoke_at(&owner.room, &hex::encode(cti)[..8]).expect("found");
        revoke(&owner.room, &owner.fleet, &keys, &ctis).expect("revokes");
        let fleet = owner.room.fleet().expect("reads");
        revoke(&owner.room, &fleet, &[key], &[]).expect("revokes");
        let fleet = owner.room.fleet().expect("reads");
        assert!(fleet.revoked.has_grant(&cti) && fleet.revoked.has_key(&key));
        assert_eq!(fleet.revoked.serial(), 2);
        assert!(revoke_at(&owner.room, "nobody").is_err());
    }

    #[test]
    fn a_grant_without_delegate_ends_the_chain() {
        let owner = Owner::new();
        let dir = tempfile::tempdir().expect("a folder");
        let room = Room::of(&Home::find(Some(dir.path().to_owned())).expect("a home"));
        let (key, _) = room.key_or_new().expect("a key");
        let text = give(&owner.room, &owner.fleet, wish(&key.public())).expect("gives").1;
        let Offered { fleet, chain, .. } = GrantText::parse(&text.reveal().expect("a word")).expect("parses");
        room.adopt(&fleet, &chain, None).expect("joins");
        let fleet = room.fleet().expect("reads");
        assert_eq!(give(&room, &fleet, wish(&SecretKey::generate().public())).expect_err("may not").code, Code::NotGranted);
        assert_eq!(revoke(&room, &fleet, &[key.id()], &[]).expect_err("may not").code, Code::NotGranted);
    }
}
