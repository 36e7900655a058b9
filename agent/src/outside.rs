//! What packs' requests and secrets go through on this machine: the system's resolver and roots, and the owner's vault.

use std::sync::Arc;

use outhaul_home::Home;
use outhaul_host::power::http::{Boxed, Outside, Secure, Stream, SystemResolver, TlsError};
use outhaul_link::tls::{Roots, SecureError};
use tokio::net::TcpStream;

use crate::vault::Vault;

/// Everything outside of the sandbox that packs may be granted to use.
#[must_use]
pub fn of(home: &Home) -> Outside {
    Outside { resolver: Arc::new(SystemResolver), tls: Arc::new(SystemTls), vault: Arc::new(Vault::new(home)) }
}

/// TLS with the system's roots. The file of `ca` is the relay's and vouches for nobody else.
#[derive(Debug)]
struct SystemTls;

impl Secure for SystemTls {
    fn secure<'a>(&'a self, tcp: TcpStream, host: &'a str) -> Boxed<'a, Result<Box<dyn Stream>, TlsError>> {
        Box::pin(async move {
            match Roots::default().secure(tcp, host).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(SecureError::Certificate(why)) => Err(TlsError::Certificate(why)),
                Err(SecureError::Failed(why)) => Err(TlsError::Failed(why)),
            }
        })
    }
}
