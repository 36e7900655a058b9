//! `relay pack push` and `pull` with an OCI registry, and deploying from one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outhaul_author::component::Types;
use outhaul_home::{read_optional, write_atomic};
use outhaul_oci::layout::About;
use outhaul_oci::{Place, Pulled, Registry};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::sha256;
use outhaul_protocol::objects::Publication;
use outhaul_protocol::pack::{self, Contents};
use outhaul_protocol::publisher::Trust;
use outhaul_protocol::signed::Signed;
use outhaul_protocol::text::escape_control;
use outhaul_protocol::time::Reading;
use serde_json::json;

use super::Context;
use super::args::PackPull;
use super::pack::read;
use super::sign::{FOR_ALL, beside, signature, trust_here};
use crate::operator::now;

/// How long a registry may take for all of it; `--timeout` says otherwise.
const WHOLE: Duration = Duration::from_secs(300);

/// `relay pack push FILE oci://…`.
pub(super) async fn push(context: &Context, file: &Path, place: Place, unsigned: bool) -> Result<u8, Failure> {
    let bytes = read(file)?;
    let (contents, types) = (pack::read(&bytes)?, Types::read(&bytes)?);
    let signature = match unsigned {
        true => None,
        false => Some(signature(context, file, &bytes)?),
    };
    let registry = Registry::new(place.clone(), context.global.ca.clone())?;
    let pushed = within(context, registry.push(&about(&contents, &types), bytes, signature.as_deref())).await?;
    let exact = format!("{}@{}", place.to_string().split('@').next().unwrap_or_default(), pushed.digest);
    context.out.either(
        || exact.clone(),
        || json!({"ok": true, "place": place.to_string(), "exact": exact, "digest": pushed.digest, "signed": signature.is_some()}),
    );
    Ok(0)
}

fn about(contents: &Contents, types: &Types) -> About {
    let (manifest, about) = (&contents.manifest, &contents.about);
    About {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: about.description.clone(),
        authors: about.authors.clone(),
        licences: about.licences.clone(),
        exports: types.exports(),
        imports: types.imports(),
    }
}

/// `relay pack pull`.
pub(super) async fn pull(context: &Context, how: &PackPull) -> Result<u8, Failure> {
    let place: Place = how.from.parse()?;
    let pulled = pulled(context, &place).await?;
    let contents = pack::read(&pulled.component)?;
    let file = match &how.out {
        Some(file) => file.clone(),
        None => PathBuf::from(format!("{}.wasm", contents.manifest.name)),
    };
    let signature = best_signature(context, &pulled)?;
    for (path, bytes) in [(file.clone(), Some(&pulled.component)), (beside(&file), signature.as_ref())] {
        let there = read_optional(&path)?;
        if there.as_ref().is_some_and(|there| Some(there) != bytes) && !how.force {
            let text = format!("`{}` is there and is something else", path.display());
            return Err(Failure::new(Code::BadUsage, text).hint("`--out FILE` writes elsewhere, `--force` over it"));
        }
    }
    keep(&file, &pulled.component, signature.as_deref())?;
    let (name, version, digest) = (&contents.manifest.name, escape_control(&contents.manifest.version), sha256(&pulled.component));
    let signed = if signature.is_some() { "its signature lies beside it" } else { "not signed" };
    context.out.either(
        || format!("{}: {name} {version} ({}), {signed}", file.display(), digest.short()),
        || {
            json!({
                "ok": true,
                "file": file,
                "name": name,
                "version": contents.manifest.version,
                "digest": digest.to_string(),
                "artifact": pulled.digest,
                "signed": signature.is_some(),
            })
        },
    );
    Ok(0)
}

/// What to deploy: as it is named, or a file in this home's cache with what a registry has.
pub(super) async fn local(context: &Context, named: &str) -> Result<String, Failure> {
    if !named.starts_with(outhaul_oci::place::SCHEME) {
        return Ok(named.to_owned());
    }
    let pulled = pulled(context, &named.parse()?).await?;
    let signature = best_signature(context, &pulled)?;
    let file = context.room.create("cache")?.join(format!("{}.wasm", sha256(&pulled.component)));
    keep(&file, &pulled.component, signature.as_deref())?;
    Ok(file.display().to_string())
}

async fn pulled(context: &Context, place: &Place) -> Result<Pulled, Failure> {
    let registry = Registry::new(place.clone(), context.global.ca.clone())?;
    within(context, registry.pull()).await
}

async fn within<T>(context: &Context, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let limit = context.global.timeout.unwrap_or(WHOLE);
    let late = || Failure::new(Code::Deadline, format!("the registry took longer than {limit:?}")).hint("`--timeout T` gives it more");
    tokio::time::timeout(limit, work).await.map_err(|_| late())?
}

/// Of the signatures for these very bytes, that of a publisher known here, else the first. It is judged again by whoever
/// installs the pack.
fn best_signature(context: &Context, pulled: &Pulled) -> Result<Option<Vec<u8>>, Failure> {
    let digest = sha256(&pulled.component);
    let about_it = |bytes: &&Vec<u8>| Signed::<Publication>::from_bytes(bytes).is_ok_and(|signed| signed.unverified().component == digest);
    let all: Vec<&Vec<u8>> = pulled.signatures.iter().filter(about_it).collect();
    if all.len() < 2 {
        return Ok(all.first().map(|bytes| bytes.to_vec()));
    }
    let trust: Trust = trust_here(context)?;
    let known = all.iter().find(|bytes| trust.admit(Some(bytes), digest, Reading::sure(now())).is_ok());
    Ok(known.or(all.first()).map(|bytes| bytes.to_vec()))
}

/// A component and its signature; one that lay beside an earlier component goes.
fn keep(file: &Path, component: &[u8], signature: Option<&[u8]>) -> Result<(), Failure> {
    write_atomic(file, component, FOR_ALL)?;
    let path = beside(file);
    match signature {
        Some(signature) => write_atomic(&path, signature, FOR_ALL),
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::new(Code::BadUsage, format!("remove `{}`: {error}", path.display())))
            }
            _ => Ok(()),
        },
    }
}
