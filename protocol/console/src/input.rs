//! What a person or a pipe sends to a call.

use std::io::Read as _;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of one piece: goes in one message, so that a piece is sent or not.
const PIECE: usize = 32 << 10;
/// Pieces that may wait.
const WAITING: usize = 2;

/// Standard input, piece by piece until its end. Read on a thread of its own: a read from a terminal cannot be given up,
/// only left behind.
#[must_use]
pub fn stdin() -> mpsc::Receiver<Bytes> {
    let (sender, pieces) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut piece = vec![0; PIECE];
            match stdin.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => piece.truncate(length),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            if sender.blocking_send(piece.into()).is_err() {
                return;
            }
        }
    });
    pieces
}
