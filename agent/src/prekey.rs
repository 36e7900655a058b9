//! Short-lived keys that channels are opened to. The private half lives in memory only; what was seen under a prekey is
//! remembered while it lives, so a first message works once, also across restarts, without a store on disk.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::keys::{Digest, KeyId, SecretKey, X25519Secret};
use outhaul_protocol::limits;
use outhaul_protocol::objects::Prekey;
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::Time;

/// The current prekey and the one before it.
#[derive(Debug)]
pub struct Prekeys {
    boot: [u8; 16],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    serial: u64,
    current: Slot,
    previous: Option<Slot>,
}

#[derive(Debug)]
struct Slot {
    secret: Arc<X25519Secret>,
    signed: Verified<Prekey>,
    ephemerals: HashSet<[u8; 32]>,
    channels: HashSet<ChannelId>,
}

/// Why a first message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Seen {
    /// Its ephemeral key or channel id came before.
    #[error("this opening was seen before")]
    Replayed,
    /// The prekey is gone, or has opened all the channels it may.
    #[error("the prekey is past its time")]
    Expired,
}

impl Prekeys {
    /// A first prekey for this boot.
    #[must_use]
    pub fn new(key: &SecretKey, fleet: KeyId, boot: [u8; 16], now: Time) -> Self {
        let current = Slot::new(key, fleet, boot, 1, now);
        Prekeys { boot, state: Mutex::new(State { serial: 1, current, previous: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current one, to announce.
    #[must_use]
    pub fn signed(&self) -> Vec<u8> {
        self.state().current.signed.bytes().to_vec()
    }

    /// A new one; the current becomes the previous, the previous is forgotten with all that was seen under it.
    pub fn rotate(&self, key: &SecretKey, fleet: KeyId, now: Time) {
        let mut state = self.state();
        state.serial += 1;
        let next = Slot::new(key, fleet, self.boot, state.serial, now);
        state.previous = Some(std::mem::replace(&mut state.current, next));
    }

    /// The keys a first message may be for, newest first.
    #[must_use]
    pub fn candidates(&self) -> Vec<(Digest, Arc<X25519Secret>)> {
        let state = self.state();
        std::iter::once(&state.current).chain(&state.previous).map(|slot| (slot.signed.digest(), slot.secret.clone())).collect()
    }

    /// Takes the ephemeral key and channel id of an opening that verified; each works once. True when the prekey has
    /// opened so many channels that it should be rotated.
    pub fn take(&self, prekey: Digest, ephemeral: [u8; 32], channel: ChannelId) -> Result<bool, Seen> {
        let mut state = self.state();
        let known = std::iter::once(&state.current).chain(&state.previous).any(|slot| slot.channels.contains(&channel));
        if known {
            return Err(Seen::Replayed);
        }
        let State { current, previous, .. } = &mut *state;
        let slot = std::iter::once(current).chain(previous).find(|slot| slot.signed.digest() == prekey).ok_or(Seen::Expired)?;
        if slot.ephemerals.len() >= limits::PREKEY_OPENINGS {
            return Err(Seen::Expired);
        }
        if !slot.ephemerals.insert(ephemeral) {
            return Err(Seen::Replayed);
        }
        slot.channels.insert(channel);
        Ok(slot.ephemerals.len() >= limits::PREKEY_OPENINGS)
    }
}

impl Slot {
    fn new(key: &SecretKey, fleet: KeyId, boot: [u8; 16], serial: u64, now: Time) -> Self {
        let secret = X25519Secret::generate();
        let prekey = Prekey { iss: key.id(), aud: fleet, iat: now, boot, serial, key: secret.public(), min_version: 1, max_version: 1 };
        Slot { secret: Arc::new(secret), signed: Signed::sign(key, &prekey), ephemerals: HashSet::new(), channels: HashSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ephemeral_and_a_channel_id_work_once_and_a_prekey_twice_removed_is_gone() {
        let (key, fleet) = (SecretKey::generate(), KeyId([1; 32]));
        let prekeys = Prekeys::new(&key, fleet, [0; 16], Time(1));
        let first = prekeys.candidates()[0].0;
        assert_eq!(prekeys.take(first, [1; 32], [1; 16]), Ok(false));
        assert_eq!(prekeys.take(first, [1; 32], [2; 16]), Err(Seen::Replayed));
        assert_eq!(prekeys.take(first, [2; 32], [1; 16]), Err(Seen::Replayed));
        prekeys.rotate(&key, fleet, Time(2));
        assert_eq!(prekeys.candidates().len(), 2);
        assert_eq!(prekeys.take(first, [1; 32], [3; 16]), Err(Seen::Replayed));
        assert_eq!(prekeys.take(prekeys.candidates()[0].0, [9; 32], [1; 16]), Err(Seen::Replayed));
        prekeys.rotate(&key, fleet, Time(3));
        assert_eq!(prekeys.take(first, [4; 32], [4; 16]), Err(Seen::Expired));
    }
}
