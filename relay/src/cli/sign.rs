//! `relay pack sign` and `verify`, and what `deploy` ships beside a component: its publisher's signature, in a file of its
//! own, so that the component's digest is the same signed or not.

use std::path::{Path, PathBuf};

use outhaul_home::{read_optional, read_secret_key, write_atomic};
use outhaul_protocol::chain::RevokedSet;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, KeyId, PublicKey, sha256};
use outhaul_protocol::objects::{Publication, Release};
use outhaul_protocol::pack::{self, Contents};
use outhaul_protocol::publisher::{PublisherKey, Publishers, Trust, Unproven};
use outhaul_protocol::signed::Signed;
use outhaul_protocol::text::escape_control;
use outhaul_protocol::time::Reading;
use outhaul_protocol::value::Value;
use serde_json::json;

use super::Context;
use super::args::PackSign;
use super::pack::read;
use crate::operator::{OWN, now};

/// Mode of a signature: it is no secret.
pub(super) const FOR_ALL: u32 = 0o644;

/// Where a component's signature lies.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".cose");
    path.into()
}

/// `relay pack sign`.
pub(super) fn sign(context: &Context, how: &PackSign) -> Result<u8, Failure> {
    let bytes = read(&how.file)?;
    let contents = pack::read(&bytes)?;
    let key = match &how.key {
        Some(path) => read_secret_key(path)?,
        None => own_key(context)?,
    };
    let until = how.lasts.map(|lasts| now().plus(lasts.as_secs().max(1)));
    let signed = key.publish(sha256(&bytes), &contents, now(), until);
    let path = beside(&how.file);
    write_atomic(&path, signed.bytes(), FOR_ALL)?;
    context.out.either(
        || format!("{}: {} by publisher {}", path.display(), what(&signed), key.id()),
        || {
            let mut json = described(&signed);
            (json["file"], json["publisher"]) = (path.display().to_string().into(), key.public().to_string().into());
            json
        },
    );
    Ok(0)
}

/// This home's key; a new one is told of, with what others compare it by.
pub(super) fn own_key(context: &Context) -> Result<PublisherKey, Failure> {
    let (key, new) = context.room.publisher_or_new()?;
    if new {
        let path = context.room.path("publisher.key");
        context.out.talk(&format!("made this publisher's key: {} (fingerprint {})", path.display(), key.id()));
    }
    Ok(key)
}

fn what(said: &Publication) -> String {
    let digest = said.component.short();
    let until = said.exp.map_or_else(String::new, |exp| format!(", to be installed until {}", exp));
    format!("{} {} ({digest}{until}) is signed", escape_control(&said.name), escape_control(&said.version))
}

fn described(said: &Publication) -> serde_json::Value {
    json!({
        "ok": true,
        "name": said.name,
        "version": said.version,
        "digest": said.component.to_string(),
        "manifest": said.manifest.to_string(),
        "fingerprint": said.iss.to_string(),
        "signed_at": said.iat.0,
        "until": said.exp.map(|exp| exp.0),
    })
}

/// `relay pack verify`.
pub(super) fn verify(context: &Context, file: &Path, publisher: Option<&str>) -> Result<u8, Failure> {
    let bytes = read(file)?;
    let signature = signature_of(file)?.ok_or_else(|| {
        let text = format!("`{}` is not signed: there is no `{}`", file.display(), beside(file).display());
        Failure::new(Code::BadSignature, text).hint("relay pack sign FILE")
    })?;
    let trust = match publisher {
        Some(wanted) => {
            let mut publishers = Publishers::default();
            publishers.trust(context.room.publisher_key(wanted)?, None);
            Trust { publishers, ..trust_here(context)? }
        }
        None => trust_here(context)?,
    };
    let vouched = trust.admit(Some(&signature), sha256(&bytes), Reading::sure(now())).map_err(|why| match why {
        Unproven::Stranger(id) => {
            let of = if publisher.is_some() { "is another than the one named" } else { "is not known here" };
            Failure::new(Code::BadKey, format!("the pack is signed by publisher {id}, who {of}"))
                .hint("with the key they show you: relay pack verify FILE --publisher KEY")
        }
        why => not_whole(why),
    })?;
    vouched.check(&pack::read(&bytes)?).map_err(not_whole)?;
    let name = vouched.publisher().name.as_deref();
    context.out.either(
        || format!("{} by {} {}", what(vouched.publication()), called(name), vouched.key().id()),
        || {
            let mut json = described(vouched.publication());
            (json["publisher"], json["known_as"]) = (vouched.key().to_string().into(), name.into());
            json
        },
    );
    Ok(0)
}

/// A publisher as this home calls it.
fn called(name: Option<&str>) -> String {
    match name {
        Some(OWN) => "this home's publisher".to_owned(),
        Some(name) => format!("{name}, publisher"),
        None => "publisher".to_owned(),
    }
}

/// How a component stands by the signature that lies beside it, as this home sees it. For looking at; whoever installs it judges anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing lies beside it.
    Unsigned,
    /// The signature holds: the publisher, and what this home calls it.
    Holds(PublicKey, Option<String>),
    /// It says this publisher, whose key this home does not have, so that nothing is proven.
    Stranger(KeyId),
    /// It proves nothing: why.
    Broken(String),
}

impl Standing {
    /// Of a component in a file.
    pub(super) fn of(context: &Context, file: &Path, bytes: &[u8], contents: &Contents) -> Result<Self, Failure> {
        let Some(signature) = signature_of(file)? else { return Ok(Standing::Unsigned) };
        let digest = sha256(bytes);
        if let Err(failure) = checked(file, &signature, digest, contents) {
            return Ok(Standing::Broken(failure.message));
        }
        Ok(match trust_here(context)?.admit(Some(&signature), digest, Reading::sure(now())) {
            Ok(vouched) => match vouched.check(contents) {
                Ok(()) => Standing::Holds(*vouched.key(), vouched.publisher().name.clone()),
                Err(why) => Standing::Broken(why.to_string()),
            },
            Err(Unproven::Stranger(id)) => Standing::Stranger(id),
            Err(why) => Standing::Broken(why.to_string()),
        })
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Standing::Unsigned => "not signed".to_owned(),
            Standing::Holds(key, name) => format!("by {} {}", called(name.as_deref()), key.id()),
            Standing::Stranger(id) => {
                format!("by publisher {id}, it says, who is not known here; with their key: relay pack verify FILE --publisher KEY")
            }
            Standing::Broken(why) => format!("no: {why}"),
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> serde_json::Value {
        let (state, fingerprint, known_as, why) = match self {
            Standing::Unsigned => ("unsigned", None, None, None),
            Standing::Holds(key, name) => ("holds", Some(key.id()), name.as_deref(), None),
            Standing::Stranger(id) => ("unknown_publisher", Some(*id), None, None),
            Standing::Broken(why) => ("broken", None, None, Some(why)),
        };
        json!({ "state": state, "fingerprint": fingerprint.map(|id| id.to_string()), "known_as": known_as, "why": why })
    }
}

/// Whom this home trusts to sign packs.
pub(super) fn trust_here(context: &Context) -> Result<Trust, Failure> {
    Ok(Trust { publishers: context.room.known_publishers()?, refused: Vec::new(), revoked: revoked(context)? })
}

/// What this home knows to be revoked; one without a fleet knows nothing.
fn revoked(context: &Context) -> Result<RevokedSet, Failure> {
    match context.room.fleet_pin()? {
        Some(_) => Ok(context.room.fleet()?.revoked),
        None => Ok(RevokedSet::empty()),
    }
}

fn signature_of(file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    read_optional(&beside(file))
}

/// How a component is to be shipped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shipping {
    /// bare, whatever lies beside it
    pub(super) unsigned: bool,
    /// also where the node has had a newer version
    pub(super) downgrade: bool,
}

/// The parameters of `pack.install`. The signature is the file beside the component; without one, this home signs.
pub(super) fn shipped(context: &Context, file: &Path, bytes: &[u8], how: Shipping) -> Result<Value, Failure> {
    let digest = sha256(bytes);
    let mut params = vec![("digest".into(), digest.to_string().into()), ("size".into(), Value::Int(bytes.len() as i128))];
    if !how.unsigned {
        params.push(("signature".into(), Value::Bytes(signature(context, file, bytes)?)));
        let rotations = context.room.rotations()?;
        if !rotations.is_empty() {
            let bytes = rotations.iter().map(|rotation| Value::Bytes(rotation.encode())).collect();
            params.push(("rotations".into(), Value::Array(bytes)));
        }
    }
    if how.downgrade {
        params.push(("downgrade".into(), Value::Bool(true)));
    }
    Ok(Value::Map(params))
}

/// A component's signature: the file beside it, or this home's.
pub(super) fn signature(context: &Context, file: &Path, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let (digest, contents) = (sha256(bytes), pack::read(bytes)?);
    match signature_of(file)? {
        Some(signature) => checked(file, &signature, digest, &contents),
        None => signed_here(context, digest, &contents),
    }
}

/// The parameters of `pack.install` for a version that the relay has already.
pub(super) fn shipped_before(release: &Release, downgrade: bool) -> Value {
    let mut params = vec![
        ("digest".into(), release.component.to_string().into()),
        // How long it is, the relay tells; what it is, the digest.
        ("size".into(), Value::Int(0)),
        ("signature".into(), Value::Bytes(release.signature.0.clone())),
    ];
    if !release.rotations.is_empty() {
        let bytes = release.rotations.iter().map(|rotation| Value::Bytes(rotation.0.clone())).collect();
        params.push(("rotations".into(), Value::Array(bytes)));
    }
    if downgrade {
        params.push(("downgrade".into(), Value::Bool(true)));
    }
    Value::Map(params)
}

/// To sign a stranger's pack anew is no way out for who checks it.
fn not_whole(why: Unproven) -> Failure {
    let broken = matches!(why, Unproven::Object(_) | Unproven::Component { .. } | Unproven::Identity { .. } | Unproven::Manifest { .. });
    let failure = Failure::from(why);
    match broken {
        true => failure.hint("it was changed after it was signed, or the signature is another's; get both anew from the publisher"),
        false => failure,
    }
}

/// A signature that is about something else is told here, before anything is sent. Whether it holds is the node's to say.
fn checked(file: &Path, signature: &[u8], digest: Digest, contents: &Contents) -> Result<Vec<u8>, Failure> {
    let at = |failure: Failure| Failure { message: format!("`{}`: {}", beside(file).display(), failure.message), ..failure };
    let signed = Signed::<Publication>::from_bytes(signature).map_err(|error| at(Unproven::from(error).into()))?;
    let said = signed.unverified();
    if said.component != digest {
        let why = Unproven::Component { signed: said.component, found: digest };
        return Err(at(why.into()).hint(format!("sign this component anew: relay pack sign {}", file.display())));
    }
    let found = (&contents.manifest.name, &contents.manifest.version);
    if (&said.name, &said.version) != found {
        let (signed, found) = (format!("{} {}", said.name, said.version), format!("{} {}", found.0, found.1));
        return Err(at(Unproven::Identity { signed, found }.into()));
    }
    Ok(signature.to_vec())
}

fn signed_here(context: &Context, digest: Digest, contents: &Contents) -> Result<Vec<u8>, Failure> {
    let key = own_key(context)?;
    let name = escape_control(&contents.manifest.name);
    context.out.talk(&format!("signed {name} {} with this home's key: publisher {}", contents.manifest.version, key.id()));
    Ok(key.publish(digest, contents, now(), None).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::pack::{About, Docs, Manifest};

    fn contents(version: &str) -> Contents {
        let manifest = Manifest { name: "thermal".into(), version: version.into(), ..Manifest::default() };
        Contents { manifest_digest: sha256(&manifest.to_json()), manifest, docs: Docs::default(), about: About::default() }
    }

    #[test]
    fn a_signature_left_over_from_another_build_is_told_before_anything_is_sent() {
        let (key, file) = (PublisherKey::from_bytes(&[7; 32]), Path::new("thermal.wasm"));
        let signed = key.publish(sha256(b"one build"), &contents("1.0.0"), now(), None);
        assert!(checked(file, signed.bytes(), sha256(b"one build"), &contents("1.0.0")).is_ok());
        let failure = checked(file, signed.bytes(), sha256(b"the next"), &contents("1.0.0")).expect_err("another");
        assert_eq!(
            (failure.code, failure.hint.as_deref()),
            (Code::BadSignature, Some("sign this component anew: relay pack sign thermal.wasm"))
        );
        assert!(failure.message.starts_with("`thermal.wasm.cose`: the signature is for component "), "{failure}");
        assert_eq!(checked(file, signed.bytes(), sha256(b"one build"), &contents("1.1.0")).expect_err("another").code, Code::BadSignature);
        assert_eq!(checked(file, b"", sha256(b"one build"), &contents("1.0.0")).expect_err("none").code, Code::BadSignature);
    }

    #[test]
    fn who_checks_a_changed_pack_is_not_told_to_sign_it() {
        let failure = not_whole(Unproven::Component { signed: sha256(b"one"), found: sha256(b"other") });
        assert_eq!(failure.code, Code::BadSignature);
        assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("anew from the publisher")), "{failure:?}");
    }

    #[test]
    fn the_signature_lies_beside_the_component_under_its_whole_name() {
        assert_eq!(beside(Path::new("/p/thermal.wasm")), Path::new("/p/thermal.wasm.cose"));
        assert_eq!(beside(Path::new("thermal")), Path::new("thermal.cose"));
    }
}
