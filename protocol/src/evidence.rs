//! What receipts are about: both ends tally a call's output in the same way, so that the node can sign it and the
//! caller can check it without either keeping the bytes.

use crate::inner::Lane;
use crate::keys::{Digest, Hasher, LaneHasher};
use crate::objects::LaneBytes;

/// Bytes and running digest of each lane of a call.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    lanes: [(u64, Option<LaneHasher>); 4],
}

impl Tally {
    /// Counts bytes of a lane, in order.
    pub fn add(&mut self, lane: Lane, bytes: &[u8]) {
        let Some((count, hasher)) = self.lanes.get_mut(lane as usize) else { return };
        *count += bytes.len() as u64;
        hasher.get_or_insert_with(LaneHasher::default).update(bytes);
    }

    /// Bytes of a lane so far.
    #[must_use]
    pub fn bytes(&self, lane: Lane) -> u64 {
        self.lanes.get(lane as usize).map_or(0, |(count, _)| *count)
    }

    /// As a receipt lists them: lanes that carried something.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneBytes> {
        let used = self.lanes.iter().enumerate().filter(|(_, (_, hasher))| hasher.is_some());
        used.map(|(lane, (bytes, _))| LaneBytes { lane: lane as u64, bytes: *bytes }).collect()
    }

    /// The salted digest of a call's whole output: result value (empty when it failed), then each used lane with its
    /// number, length and BLAKE3.
    #[must_use]
    pub fn digest(self, salt: &[u8; 16], value: &[u8]) -> Digest {
        let mut all = Hasher::new();
        all.update(salt);
        all.update(&(value.len() as u64).to_be_bytes());
        all.update(value);
        for (lane, (bytes, hasher)) in self.lanes.into_iter().enumerate() {
            if let Some(hasher) = hasher {
                all.update(&[lane as u8]);
                all.update(&bytes.to_be_bytes());
                all.update(&hasher.finish().0);
            }
        }
        all.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_of_a_stream_does_not_matter_but_lane_order_and_salt_do() {
        let (mut one, mut two, mut three) = (Tally::default(), Tally::default(), Tally::default());
        one.add(Lane::Stdout, b"abc");
        two.add(Lane::Stdout, b"a");
        two.add(Lane::Stdout, b"bc");
        three.add(Lane::Stderr, b"abc");
        assert_eq!(one.clone().digest(&[0; 16], b"v"), two.digest(&[0; 16], b"v"));
        assert_ne!(one.clone().digest(&[0; 16], b"v"), three.digest(&[0; 16], b"v"));
        assert_ne!(one.clone().digest(&[1; 16], b"v"), one.clone().digest(&[0; 16], b"v"));
        assert_eq!(one.lanes(), vec![LaneBytes { lane: 1, bytes: 3 }]);
    }
}
