//! The documents of an artifact: its config, its manifest, its signature's manifest, and an index of what refers to it.
//! They are made of what they describe alone, so that pushing the same pack again pushes the same bytes.

use std::collections::BTreeMap;

use oci_client::manifest::{
    ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest,
};
use outhaul_protocol::keys::sha256;
use serde::{Deserialize, Serialize};

/// Media type of a component's config.
pub const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of a component.
pub const COMPONENT: &str = "application/wasm";
/// Type of the artifact that a signature is.
pub const SIGNATURE: &str = "application/vnd.outhaul.pack.signature.v1";
/// Media type of the signature itself, a `COSE_Sign1` (RFC 9052).
pub const COSE: &str = "application/cose";
/// Media type of a config that says nothing, with its two bytes.
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

/// What a pack's manifest tells whoever browses a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// the pack's name
    pub name: String,
    /// its version
    pub version: String,
    /// one sentence
    pub description: Option<String>,
    /// who made it
    pub authors: Option<String>,
    /// SPDX expression
    pub licences: Option<String>,
    /// interfaces it exports
    pub exports: Vec<String>,
    /// interfaces it imports
    pub imports: Vec<String>,
}

/// The config of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    architecture: String,
    os: String,
    layer_digests: Vec<String>,
    component: Interfaces,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Interfaces {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// A digest as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: digest(bytes),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// The config of a component. Its time is the epoch: it says nothing, and the bytes stay the same.
#[must_use]
pub(crate) fn config(about: &About, component: &[u8]) -> Vec<u8> {
    let config = Config {
        created: "1970-01-01T00:00:00Z".into(),
        author: about.authors.clone(),
        architecture: "wasm".into(),
        os: "wasip2".into(),
        layer_digests: vec![digest(component)],
        component: Interfaces { exports: about.exports.clone(), imports: about.imports.clone() },
    };
    json(&config)
}

/// The manifest of a component.
#[must_use]
pub(crate) fn manifest(about: &About, config: &[u8], component: &[u8]) -> Vec<u8> {
    let said = [
        ("title", Some(format!("{}.wasm", about.name))),
        ("version", Some(about.version.clone())),
        ("description", about.description.clone()),
        ("authors", about.authors.clone()),
        ("licenses", about.licences.clone()),
    ];
    let annotations: BTreeMap<String, String> =
        said.into_iter().filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?))).collect();
    json(&OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        config: descriptor(CONFIG, config),
        layers: vec![descriptor(COMPONENT, component)],
        annotations: Some(annotations),
        ..OciImageManifest::default()
    })
}

/// The manifest of a signature of the artifact `subject`.
#[must_use]
pub(crate) fn signature_manifest(subject: &[u8], signature: &[u8]) -> Vec<u8> {
    json(&OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        artifact_type: Some(SIGNATURE.into()),
        config: descriptor(EMPTY.0, EMPTY.1),
        layers: vec![descriptor(COSE, signature)],
        subject: Some(descriptor(OCI_IMAGE_MEDIA_TYPE, subject)),
        ..OciImageManifest::default()
    })
}

/// The blob of a config that says nothing.
pub(crate) fn empty() -> &'static [u8] {
    EMPTY.1
}

/// An index of what refers to an artifact, with one more signature in it.
#[must_use]
pub(crate) fn index_with(index: OciImageIndex, signature_manifest: &[u8]) -> Vec<u8> {
    let OciDescriptor { media_type, digest, size, .. } = descriptor(OCI_IMAGE_MEDIA_TYPE, signature_manifest);
    let mut manifests = index.manifests;
    if !manifests.iter().any(|entry| entry.digest == digest) {
        let artifact_type = Some(SIGNATURE.into());
        manifests.push(ImageIndexEntry { media_type, digest, size, platform: None, annotations: None, artifact_type });
    }
    json(&OciImageIndex {
        schema_version: 2,
        media_type: Some(OCI_IMAGE_INDEX_MEDIA_TYPE.into()),
        manifests,
        artifact_type: None,
        annotations: index.annotations,
    })
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("plain fields")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pretty(bytes: &[u8]) -> String {
        let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        serde_json::to_string_pretty(&value).expect("JSON")
    }

    #[test]
    fn an_artifact_is_what_other_tools_expect() {
        let about = About {
            name: "thermal".into(),
            version: "1.2.0".into(),
            description: Some("Reads sensors".into()),
            exports: vec!["outhaul:thermal/thermal".into()],
            imports: vec!["outhaul:host/system@0.1.0".into()],
            ..About::default()
        };
        let config = config(&about, b"\0asm");
        let manifest = manifest(&about, &config, b"\0asm");
        insta::assert_snapshot!(format!("{}\n{}", pretty(&config), pretty(&manifest)));
        insta::assert_snapshot!(pretty(&signature_manifest(&manifest, b"signature")));
    }

    #[test]
    fn an_index_keeps_what_was_in_it_and_takes_a_signature_once() {
        let empty = OciImageIndex { schema_version: 2, media_type: None, manifests: Vec::new(), artifact_type: None, annotations: None };
        let once = index_with(empty, b"first");
        let twice = index_with(serde_json::from_slice(&once).expect("an index"), b"first");
        assert_eq!(once, twice);
        let both: OciImageIndex =
            serde_json::from_slice(&index_with(serde_json::from_slice(&once).expect("an index"), b"second")).expect("an index");
        assert_eq!(both.manifests.iter().map(|entry| entry.digest.clone()).collect::<Vec<_>>(), [digest(b"first"), digest(b"second")]);
    }
}
