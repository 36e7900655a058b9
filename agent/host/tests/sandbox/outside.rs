//! The world outside of the sandbox, played: names that lead where a test says, an authority of our own, a vault, and servers on
//! loopback that say what a test wants and remember what they heard.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use outhaul_host::power::http::{Boxed, Outside, Resolve, Secure, Stream, TlsError};
use outhaul_host::power::secrets::Vault;
use outhaul_link::tls::{Roots, SecureError};
use outhaul_protocol::secret::SecretBytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

/// The value of the one secret there is.
pub(crate) const TOKEN: &str = "hunter2-do-not-tell";
/// The one name that our authority vouches for.
pub(crate) const SECURE: &str = "secure.test";

pub(crate) fn outside() -> Outside {
    Outside { resolver: Arc::new(Names), tls: Arc::new(OwnTls), vault: Arc::new(OneSecret) }
}

#[derive(Debug)]
struct Names;

#[derive(Debug, Default)]
struct Entry {
    answers: Vec<Vec<IpAddr>>,
    asked: usize,
}

static NAMES: LazyLock<Mutex<HashMap<String, Entry>>> = LazyLock::new(Mutex::default);

/// Lets a name lead to these addresses: the first answer the first time, and the last from then on.
pub(crate) fn name(name: &str, answers: &[&[&str]]) {
    let answers = answers.iter().map(|answer| answer.iter().map(|ip| ip.parse().expect("an address")).collect()).collect();
    NAMES.lock().expect("whole").insert(name.to_owned(), Entry { answers, asked: 0 });
}

/// How often a name was looked up.
pub(crate) fn asked(name: &str) -> usize {
    NAMES.lock().expect("whole").get(name).map_or(0, |entry| entry.asked)
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Boxed<'a, std::io::Result<Vec<IpAddr>>> {
        let mut names = NAMES.lock().expect("whole");
        let answer = names.get_mut(name).and_then(|entry| {
            entry.asked += 1;
            entry.answers.get(entry.asked - 1).or(entry.answers.last()).cloned()
        });
        Box::pin(async move { answer.ok_or_else(|| std::io::ErrorKind::NotFound.into()) })
    }
}

/// A certificate of our own, and whoever trusts it.
struct Authority {
    acceptor: TlsAcceptor,
    roots: Roots,
    _folder: tempfile::TempDir,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([SECURE.to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).expect("written");
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).expect("fits");
        Authority { acceptor: TlsAcceptor::from(Arc::new(server)), roots: Roots { ca: Some(ca), floor: None }, _folder: folder }
    })
}

#[derive(Debug)]
struct OwnTls;

impl Secure for OwnTls {
    fn secure<'a>(&'a self, tcp: TcpStream, host: &'a str) -> Boxed<'a, Result<Box<dyn Stream>, TlsError>> {
        Box::pin(async move {
            match authority().roots.secure(tcp, host).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(SecureError::Certificate(why)) => Err(TlsError::Certificate(why)),
                Err(SecureError::Failed(why)) => Err(TlsError::Failed(why)),
            }
        })
    }
}

#[derive(Debug)]
struct OneSecret;

impl Vault for OneSecret {
    fn get(&self, name: &str) -> Result<Option<SecretBytes>, String> {
        Ok((name == "token").then(|| SecretBytes::new(TOKEN.as_bytes().to_vec())))
    }
}

/// What a server does, in order.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Says this.
    Say(String),
    /// Says this until nobody listens.
    Repeat(String),
    /// Says nothing until the other side leaves.
    Hold,
}

/// An answer of this body.
pub(crate) fn answer(body: &str) -> Vec<Step> {
    vec![Step::Say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))]
}

/// An answer that leads elsewhere.
pub(crate) fn redirect(location: &str) -> Vec<Step> {
    vec![Step::Say(format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"))]
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Heard {
    /// From the request's line to the empty one, lower-case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A server.
pub(crate) struct Server {
    pub(crate) port: u16,
    heard: mpsc::Receiver<Heard>,
    left: mpsc::Receiver<()>,
}

impl Server {
    /// Answers every request on loopback with these steps.
    pub(crate) async fn start(steps: Vec<Step>) -> Self {
        Self::with(steps, Ipv4Addr::LOCALHOST, None).await
    }

    /// The same over TLS.
    pub(crate) async fn secure(steps: Vec<Step>) -> Self {
        Self::with(steps, Ipv4Addr::LOCALHOST, Some(authority().acceptor.clone())).await
    }

    async fn with(steps: Vec<Step>, address: Ipv4Addr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let ((tell, heard), (gone, left)) = (mpsc::channel(64), mpsc::channel(64));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (steps, tell, gone, tls) = (steps.clone(), tell.clone(), gone.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(tcp, &steps, &tell).await,
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => serve(stream, &steps, &tell).await,
                            Err(_) => return,
                        },
                    }
                    // A test that does not care has dropped its end.
                    let _ = gone.send(()).await;
                });
            }
        });
        Server { port, heard, left }
    }

    /// What it is called in a grant: in the clear, by address.
    pub(crate) fn plain(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next request it heard.
    pub(crate) async fn heard(&mut self) -> Heard {
        self.heard.recv().await.expect("a request")
    }

    /// Whether it heard nothing, or nothing more.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }

    /// Waits until a connection is over.
    pub(crate) async fn left(&mut self) {
        self.left.recv().await.expect("an end");
    }
}

async fn serve(mut stream: impl Stream, steps: &[Step], tell: &mpsc::Sender<Heard>) {
    let Some(heard) = read(&mut stream).await else { return };
    let _ = tell.send(heard).await;
    for step in steps {
        match step {
            Step::Say(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Step::Repeat(text) => while stream.write_all(text.as_bytes()).await.is_ok() {},
            Step::Hold => while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {},
        }
    }
    // Whoever asked closes; a reset would take away what it has not read yet.
    let _ = stream.shutdown().await;
    while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
}

/// A request with its body, whose length stands in its head or which comes in chunks.
async fn read(stream: &mut impl Stream) -> Option<Heard> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let mut body = bytes.split_off(end);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
    let chunked = head.contains("transfer-encoding: chunked");
    while if chunked { !body.ends_with(b"0\r\n\r\n") } else { body.len() < length } {
        (stream.read_buf(&mut body).await.ok()? > 0).then_some(())?;
    }
    Some(Heard { head, body })
}
