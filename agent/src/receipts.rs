//! The node's chain of receipts: each is numbered and names the one before it, so that a gap shows.
//!
//! Number and hash are kept on disk, written a moment after they change and at shutdown. A crash can lose the last
//! moment, so a start after one leaves a gap in the numbers rather than using one twice.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::{Digest, SecretKey};
use outhaul_protocol::objects::Receipt;
use outhaul_protocol::signed::{Signed, Verified};
use serde::{Deserialize, Serialize};

/// More receipts than fit between two writes of the state.
const GAP: u64 = 1_000_000;

/// The end of the chain.
#[derive(Debug)]
pub struct Receipts {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    number: u64,
    previous: Digest,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    number: u64,
    previous: String,
    clean: bool,
}

impl Receipts {
    /// Continues the chain kept at `path`.
    pub fn open(path: PathBuf) -> Result<Self, Failure> {
        let kept: Option<Kept> = outhaul_home::read_toml_optional(&path)?;
        let (number, previous) = match kept {
            None => (0, Digest([0; 32])),
            Some(kept) => {
                let previous = kept.previous.parse().unwrap_or(Digest([0; 32]));
                (if kept.clean { kept.number } else { kept.number + GAP }, previous)
            }
        };
        let receipts = Receipts { path, state: Mutex::new(State { number, previous, changed: true }) };
        receipts.keep(false)?;
        Ok(receipts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers, chains and signs a receipt. Its `number` and `previous` are set here.
    #[must_use]
    pub fn sign(&self, key: &SecretKey, mut receipt: Receipt) -> Verified<Receipt> {
        let mut state = self.state();
        state.number += 1;
        receipt.number = state.number;
        receipt.previous = state.previous;
        let signed = Signed::sign(key, &receipt);
        state.previous = signed.digest();
        state.changed = true;
        signed
    }

    /// Writes the state when it changed. `clean` at a proper end, when nothing follows.
    pub fn keep(&self, clean: bool) -> Result<(), Failure> {
        let kept = {
            let mut state = self.state();
            if !state.changed && !clean {
                return Ok(());
            }
            state.changed = false;
            Kept { number: state.number, previous: state.previous.to_string(), clean }
        };
        let text = toml::to_string(&kept).map_err(|error| Failure::new(outhaul_protocol::error::Code::Internal, error.to_string()))?;
        outhaul_home::write_atomic(&self.path, text.as_bytes(), 0o600)
    }
}
