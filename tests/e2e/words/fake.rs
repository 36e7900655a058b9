//! A relay that shakes hands with a key it holds, and then says one thing: what no honest relay of this version says.

use std::sync::Arc;

use anyhow::Result;
use outhaul_link::accept::Acceptor;
use outhaul_protocol::frame::Frame;
use outhaul_protocol::keys::SecretKey;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Serves until it is dropped.
pub(super) struct Fake {
    /// where it listens
    pub(super) url: String,
    _runtime: Runtime,
}

impl Fake {
    /// Refuses every peer with these words.
    pub(super) fn refusing(key: SecretKey, code: &str, message: &str) -> Result<Self> {
        Self::saying(key, Frame::Refused { code: code.into(), message: message.into() }.encode())
    }

    /// Says this to every peer that proved itself.
    pub(super) fn saying(key: SecretKey, last: Vec<u8>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("ws://{}", listener.local_addr()?);
        let (key, last) = (Arc::new(key), Arc::new(last));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = Acceptor { tls: None, origins: Vec::new() };
                if let Ok((mut socket, _)) = acceptor.accept(tcp, &key).await
                    && socket.send(last.to_vec()).await.is_ok()
                {
                    // The peer hangs up when it has read it.
                    let _ = socket.receive().await;
                }
            }
        });
        Ok(Fake { url, _runtime: runtime })
    }
}
