//! TLS by rustls: the system's roots or one CA file for those who dial, a certificate and key for those who listen. Packs' own
//! requests are secured here too, so that there is one place that decides whom to believe.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::handshake::{EXPORTER_LABEL, Exporter};
use outhaul_protocol::time::Time;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Whom a dialer trusts.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// A PEM file of certificate authorities instead of the system's.
    pub ca: Option<PathBuf>,
    /// When it certainly is later than this: a machine whose clock starts in 1970 would find every certificate too new.
    pub floor: Option<Time>,
}

/// Why there is no TLS on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecureError {
    /// The other side did not prove who it is.
    #[error("{0}")]
    Certificate(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

/// Makes this crate's choice of cryptography that of the process, for libraries that bring TLS and no choice of their own.
pub fn choose_provider() {
    // An error says that it is chosen already, by us: nobody else does.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Roots {
    /// Puts TLS on a connection to `host`, a name or an address, which the other side must prove to be.
    pub async fn secure(&self, tcp: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, SecureError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| SecureError::Failed(error.to_string()))?;
        let roots = self.clone();
        let client = tokio::task::spawn_blocking(move || roots.client()).await;
        let client =
            client.map_err(|error| SecureError::Failed(error.to_string()))?.map_err(|failure| SecureError::Failed(failure.message))?;
        tokio_rustls::TlsConnector::from(client).connect(name, tcp).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(why)) => {
                    SecureError::Certificate(format!("its certificate is not valid for `{host}`: {why}"))
                }
                _ => SecureError::Failed(error.to_string()),
            }
        })
    }

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
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, error))?;
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
        Err(error) => Err(unread(path, error)),
    }
}

/// A file that is not there is another mistake than one that is no PEM.
fn unread(path: &Path, error: rustls_pki_types::pem::Error) -> Failure {
    match error {
        rustls_pki_types::pem::Error::Io(error) => Failure::new(Code::BadConfig, format!("TLS file `{}`: {error}", path.display())),
        other => bad(path, &other.to_string()),
    }
}

fn bad(path: &Path, what: &str) -> Failure {
    Failure::new(Code::BadConfig, format!("TLS file `{}`: {what}", path.display())).hint("it must be PEM")
}

/// Why TLS to a relay came to nothing, in words, and what a person can do about it.
pub(crate) fn trouble(error: &std::io::Error) -> (String, &'static str) {
    use rustls::CertificateError as Bad;
    let plain = "is it a relay with TLS that answers there, and is the port right?";
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(bad)) => match bad {
            Bad::NotValidForNameContext { expected, presented } => {
                // Each comes as `DnsName("relay.example")` or `IpAddress(192.0.2.7)`.
                let bare = |name: &String| name.split(['(', ')']).nth(1).unwrap_or(name).trim_matches('"').to_owned();
                let (host, names) = (expected.to_str(), presented.iter().map(bare).collect::<Vec<_>>().join(", "));
                (
                    format!("its certificate is not for `{host}`, but for {names}"),
                    "dial a name that stands in it, or give the relay one for this name",
                )
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                ("its certificate has expired".to_owned(), "renew it there; or is this machine's clock wrong?")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                ("its certificate is not valid yet".to_owned(), "is this machine's clock wrong?")
            }
            // The verifier's own error type is no dependency of ours.
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
                "its certificate is an authority's own, which no server may show".to_owned(),
                "make one that says `basicConstraints = CA:FALSE`, and name it with --ca FILE",
            ),
            _ => ("nobody this machine trusts vouches for its certificate".to_owned(), "name its authority with --ca FILE"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            ("what answers there speaks no TLS".to_owned(), "is it a relay without TLS? that is ws://")
        }
        _ => (error.to_string(), plain),
    }
}

/// The RFC 9266 exporter of a finished TLS connection.
pub(crate) fn exporter<Data>(connection: &rustls::ConnectionCommon<Data>) -> Option<Exporter> {
    connection.export_keying_material([0u8; 32], EXPORTER_LABEL, Some(&[])).ok()
}
