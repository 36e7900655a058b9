//! Pushing to and pulling from a registry.

use std::path::PathBuf;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::TryStreamExt as _;
use http::HeaderValue;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits;

use crate::layout::{self, About, COMPONENT, COSE, SIGNATURE, digest};
use crate::place::Place;

/// How long a registry may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may be silent.
const SILENT: Duration = Duration::from_secs(30);
/// Signatures of one artifact that are looked at.
const SIGNATURES: usize = 16;
/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 4096;

/// A registry, as far as one place in it needs.
pub struct Registry {
    client: Client,
    auth: RegistryAuth,
    place: Place,
}

/// What a push left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// of the artifact's manifest: what a place by digest names
    pub digest: String,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// of the artifact's manifest
    pub digest: String,
    /// the component's bytes
    pub component: Vec<u8>,
    /// publishers' signatures that refer to it, as they lie there: nobody has checked them
    pub signatures: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The credential stays out.
        f.debug_struct("Registry").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client for the registry of a place: with TLS by the system's roots and those of `ca`, a PEM file; without TLS on
    /// this machine, unless `ca` is given. It signs in as Docker's configuration file says.
    ///
    /// # Errors
    /// `bad_usage` for a file of authorities that cannot be read, `registry` for credentials that cannot be had.
    pub fn new(place: Place, ca: Option<PathBuf>) -> Result<Self, Failure> {
        outhaul_link::tls::choose_provider();
        let roots = ca.as_ref().map(|path| {
            let read = std::fs::read(path).map_err(|error| Failure::new(Code::BadUsage, format!("read `{}`: {error}", path.display())));
            read.map(|data| Certificate { encoding: CertificateEncoding::Pem, data })
        });
        let config = ClientConfig {
            protocol: if place.is_local() && ca.is_none() { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: roots.transpose()?.into_iter().collect(),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENT),
            platform_resolver: None,
            user_agent: concat!("outhaul/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| refused(&place, &error))?;
        let auth = credentials(place.0.resolve_registry())?;
        Ok(Registry { client, auth, place })
    }

    /// Pushes a component, and its signature as an artifact that refers to it.
    ///
    /// # Errors
    /// `registry` when it cannot be reached or refuses.
    pub async fn push(&self, about: &About, component: Vec<u8>, signature: Option<&[u8]>) -> Result<Pushed, Failure> {
        let config = layout::config(about, &component);
        let manifest = layout::manifest(about, &config, &component);
        self.sign_in(RegistryOperation::Push).await?;
        self.put_blob(component).await?;
        self.put_blob(config).await?;
        self.put_manifest(&self.place.0, manifest.clone(), OCI_IMAGE_MEDIA_TYPE).await?;
        if let Some(signature) = signature {
            self.push_signature(&manifest, signature).await?;
        }
        Ok(Pushed { digest: digest(&manifest) })
    }

    async fn push_signature(&self, subject: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let manifest = layout::signature_manifest(subject, signature);
        let tag = digest(subject).replace(':', "-");
        self.put_blob(layout::empty().to_vec()).await?;
        self.put_blob(signature.to_vec()).await?;
        self.put_manifest(&self.place.tagged(format!("{tag}.cose")), manifest.clone(), OCI_IMAGE_MEDIA_TYPE).await?;
        // A registry that does not list it by itself is of before version 1.1 of the specification: then the index under
        // the tag of the subject's digest is the client's to keep.
        let known = self.referrers(&digest(subject)).await?;
        if known.manifests.iter().any(|entry| entry.digest == digest(&manifest)) {
            return Ok(());
        }
        self.put_manifest(&self.place.tagged(tag), layout::index_with(known, &manifest), OCI_IMAGE_INDEX_MEDIA_TYPE).await
    }

    /// Pulls a component, whoever pushed it, and the signatures that refer to it.
    ///
    /// # Errors
    /// `registry` when it cannot be reached, refuses, or has no component there; `digest_mismatch` when it serves other
    /// bytes than it was asked for; `too_large` for more than a pack may have.
    pub async fn pull(&self) -> Result<Pulled, Failure> {
        self.sign_in(RegistryOperation::Pull).await?;
        let (manifest, digest) = self.manifest(&self.place.0).await?;
        let [layer] = manifest.layers.as_slice() else {
            return Err(self.no_pack(&format!("it has {} layers, a component one", manifest.layers.len())));
        };
        if layer.media_type != COMPONENT {
            return Err(self.no_pack(&format!("its layer is `{}`, not `{COMPONENT}`", layer.media_type.escape_debug())));
        }
        let component = self.blob(layer, limits::PACK).await?;
        let referrers = self.referrers(&digest).await?;
        let mut signatures = Vec::new();
        for entry in referrers.manifests.iter().take(SIGNATURES) {
            // Other tools' signatures refer to it as well.
            let (manifest, _) = self.manifest(&self.place.at(&entry.digest)).await?;
            let ours = manifest.subject.as_ref().is_some_and(|subject| subject.digest == digest);
            if let Some(layer) = manifest.layers.iter().find(|layer| ours && layer.media_type == COSE) {
                signatures.push(self.blob(layer, SIGNATURE_BYTES).await?);
            }
        }
        Ok(Pulled { digest, component, signatures })
    }

    /// Anonymous where there is no credential; a registry that wants none says so.
    async fn sign_in(&self, operation: RegistryOperation) -> Result<(), Failure> {
        self.client.auth(&self.place.0, &self.auth, operation).await.map(|_| ()).map_err(|error| refused(&self.place, &error))
    }

    async fn put_blob(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        let digest = digest(&bytes);
        self.client.push_blob(&self.place.0, bytes, &digest).await.map(|_| ()).map_err(|error| refused(&self.place, &error))
    }

    async fn put_manifest(&self, to: &Reference, manifest: Vec<u8>, media_type: &'static str) -> Result<(), Failure> {
        let done = self.client.push_manifest_raw(to, manifest, HeaderValue::from_static(media_type)).await;
        done.map(|_| ()).map_err(|error| refused(&self.place, &error))
    }

    async fn manifest(&self, of: &Reference) -> Result<(OciImageManifest, String), Failure> {
        let accepted = [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE];
        let (bytes, found) =
            self.client.pull_manifest_raw(of, &self.auth, &accepted).await.map_err(|error| refused(&self.place, &error))?;
        let actual = digest(&bytes);
        if found != actual || of.digest().is_some_and(|wanted| wanted != actual) {
            return Err(self.other_bytes(of.digest().unwrap_or(&found), &actual));
        }
        let manifest =
            serde_json::from_slice(&bytes).map_err(|error| self.no_pack(&format!("its manifest is none of one artifact: {error}")))?;
        Ok((manifest, actual))
    }

    async fn blob(&self, of: &OciDescriptor, most: usize) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure::new(Code::TooLarge, format!("`{}` is larger than {most} bytes, the most that is taken", self.place));
        if usize::try_from(of.size).is_ok_and(|size| size > most) {
            return Err(too_large());
        }
        let mut stream = self.client.pull_blob_stream(&self.place.0, of).await.map_err(|error| refused(&self.place, &error))?;
        let mut bytes = Vec::new();
        loop {
            match stream.try_next().await {
                Ok(Some(part)) if bytes.len() + part.len() > most => return Err(too_large()),
                Ok(Some(part)) => bytes.extend_from_slice(&part),
                Ok(None) => break,
                // The library has looked at the digest too, and ends the stream with an error.
                Err(_) if digest(&bytes) != of.digest && bytes.len() as i64 >= of.size => break,
                Err(error) => return Err(Failure::new(Code::Registry, format!("`{}` broke off: {error}", self.place))),
            }
        }
        match digest(&bytes) == of.digest {
            true => Ok(bytes),
            false => Err(self.other_bytes(&of.digest, &digest(&bytes))),
        }
    }

    async fn referrers(&self, digest: &str) -> Result<OciImageIndex, Failure> {
        let asked = self.client.pull_referrers(&self.place.at(digest), Some(SIGNATURE)).await;
        let mut index = asked.map_err(|error| refused(&self.place, &error))?;
        // A registry need not filter.
        index.manifests.retain(|entry| entry.artifact_type.as_deref().is_none_or(|kind| kind == SIGNATURE));
        Ok(index)
    }

    fn no_pack(&self, why: &str) -> Failure {
        Failure::new(Code::Registry, format!("`{}` is no component: {why}", self.place))
    }

    fn other_bytes(&self, wanted: &str, found: &str) -> Failure {
        let text = format!("the registry of `{}` gave other bytes than the digest it was asked for", self.place);
        Failure::new(Code::DigestMismatch, text)
            .hint(format!("asked for {wanted}, got {found}: do not use this registry until you know why"))
    }
}

/// What Docker's configuration file knows for a registry: other tools sign in there, `docker login` first of all.
fn credentials(registry: &str) -> Result<RegistryAuth, Failure> {
    match docker_credential::get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(name, password)) => Ok(RegistryAuth::Basic(name, password)),
        // As Docker does: the token stands where the password would.
        Ok(DockerCredential::IdentityToken(token)) => Ok(RegistryAuth::Bearer(token)),
        Err(
            CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError
            | CredentialRetrievalError::NoCredentialConfigured,
        ) => Ok(RegistryAuth::Anonymous),
        Err(error) => {
            Err(Failure::new(Code::Registry, format!("read the credential for `{registry}` from Docker's configuration: {error}")))
        }
    }
}

/// A registry's answer, in a sentence: what it wrote is not ours and is cut.
fn refused(place: &Place, error: &OciDistributionError) -> Failure {
    let host = place.0.resolve_registry();
    let failure = |text: String| Failure::new(Code::Registry, text);
    let unknown = || {
        failure(format!("`{place}` is not there"))
            .hint("a tag, a digest or the repository may be mistyped, or may be for others' eyes only")
    };
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            failure(format!("the registry {host} does not let us in")).hint(format!("sign in first: docker login {host}"))
        }
        OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. } => unknown(),
        OciDistributionError::RegistryError { envelope, .. } => {
            let is = |wanted: &[OciErrorCode]| envelope.errors.iter().any(|error| wanted.contains(&error.code));
            if is(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound, OciErrorCode::BlobUnknown]) {
                return unknown();
            }
            if is(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                return failure(format!("the registry {host} does not allow that")).hint(format!("sign in first: docker login {host}"));
            }
            failure(format!("the registry {host} refused: {}", brief(&envelope.to_string())))
        }
        OciDistributionError::DigestError(error) => Failure::new(
            Code::DigestMismatch,
            format!("the registry of `{place}` gave other bytes than the digest it was asked for: {error}"),
        ),
        OciDistributionError::RequestError(error) => failure(format!("the registry {host} cannot be reached: {}", brief(&causes(error)))),
        error => failure(format!("the registry {host}: {}", brief(&error.to_string()))),
    }
}

/// The innermost cause says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

fn brief(text: &str) -> String {
    outhaul_protocol::text::escape_control(text).chars().take(300).collect()
}
