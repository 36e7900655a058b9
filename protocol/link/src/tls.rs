//! TLS by rustls: the system's roots or one CA file for those who dial, a certificate and key for those who listen.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::handshake::{EXPORTER_LABEL, Exporter};
use outhaul_protocol::time::Time;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Whom a dialer trusts.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// A PEM file of certificate authorities instead of the system's.
    pub ca: Option<PathBuf>,
    /// When it certainly is later than this: a machine whose clock starts in 1970 would find every certificate too new.
    pub floor: Option<Time>,
}

impl Roots {
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, Failure> {
        // The system's roots take 13 ms to load: once per process, and only for those who dial wss.
        static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        let clock = Later(self.floor.unwrap_or(Time(0)));
        if self.ca.is_some() || clock.is_needed() {
            return client_of(self.store()?, clock);
        }
        if let Some(config) = SYSTEM.get() {
            return Ok(config.clone());
        }
        let config = client_of(self.store()?, Later(Time(0)))?;
        Ok(SYSTEM.get_or_init(|| config).clone())
    }

    fn store(&self) -> Result<RootCertStore, Failure> {
        let mut store = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|error| bad(path, &error.to_string()))?;
            }
            return Ok(store);
        }
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        match store.is_empty() {
            false => Ok(store),
            true => Err(Failure::new(Code::BadConfig, "this system has no TLS root certificates")
                .hint("install the ca-certificates package, or name a file with --ca")),
        }
    }
}

/// The machine's clock, or what it knows to have passed, whichever is later.
#[derive(Debug)]
struct Later(Time);

impl Later {
    fn is_needed(&self) -> bool {
        UnixTime::now().as_secs() < self.0.0
    }
}

impl TimeProvider for Later {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = UnixTime::since_unix_epoch(Duration::from_secs(self.0.0));
        Some(if self.is_needed() { floor } else { UnixTime::now() })
    }
}

fn client_of(store: RootCertStore, clock: Later) -> Result<Arc<ClientConfig>, Failure> {
    // The provider is named: without a process-wide default rustls would panic at the first connection.
    let config = ClientConfig::builder_with_details(Arc::new(rustls::crypto::ring::default_provider()), Arc::new(clock))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Code::Internal, format!("TLS: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A listener's certificate chain and key.
#[derive(Clone)]
pub struct ServerTls(pub(crate) tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// Reads PEM files.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Code::Internal, format!("TLS: {error}")))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| bad(certificate, &error.to_string()))?;
        Ok(ServerTls(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(chain) if chain.is_empty() => Err(bad(path, "holds no certificate")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(bad(path, &error.to_string())),
    }
}

fn bad(path: &Path, what: &str) -> Failure {
    Failure::new(Code::BadConfig, format!("TLS file `{}`: {what}", path.display())).hint("it must be PEM")
}

/// The RFC 9266 exporter of a finished TLS connection.
pub(crate) fn exporter<Data>(connection: &rustls::ConnectionCommon<Data>) -> Option<Exporter> {
    connection.export_keying_material([0u8; 32], EXPORTER_LABEL, Some(&[])).ok()
}
