//! The trail: the digest of the input up to any place at which a load may have to go on later.
//!
//! Bytes are hashed when the window gives them up, or when a digest is asked for; so hashing costs nothing per row, and what was read ahead of
//! such a place is not in its digest. A place that the window leaves behind while it may still be asked for (the start of a group, say) keeps its digest.

use super::buffer::Buffer;
use crate::digest::{PrefixDigest, PrefixHasher};

/// The hasher that follows a window.
#[derive(Debug)]
pub(super) struct Trail {
    /// Stands in what the window has consumed and still holds, or at its start.
    hasher: PrefixHasher,
    /// Digests of places that the hasher has left behind.
    kept: Vec<PrefixDigest>,
}

impl Trail {
    /// A trail that begins where `hasher` stands.
    pub(super) fn new(hasher: PrefixHasher) -> Self {
        Self {
            hasher,
            kept: Vec::new(),
        }
    }

    /// Takes in what the window is about to give up. `places` may still be asked for, though they lie behind; all others before the window are not.
    pub(super) fn follow(&mut self, buffer: &Buffer, places: &mut [u64]) {
        self.kept.retain(|kept| places.contains(&kept.bytes));
        places.sort_unstable();
        for place in places {
            let is_kept = self.kept.iter().any(|kept| kept.bytes == *place);
            if !is_kept && *place >= self.hasher.bytes() && *place < buffer.byte() {
                self.advance(buffer, *place);
                self.kept.push(self.hasher.digest());
            }
        }
        self.advance(buffer, buffer.byte());
    }

    /// The digest of the first `byte` bytes. `None` for a place that was left behind.
    pub(super) fn at(&mut self, buffer: &Buffer, byte: u64) -> Option<PrefixDigest> {
        if byte == 0 {
            return Some(PrefixDigest::empty());
        }
        if let Some(kept) = self.kept.iter().find(|kept| kept.bytes == byte) {
            return Some(*kept);
        }
        self.advance(buffer, byte);
        Some(self.hasher.digest()).filter(|digest| digest.bytes == byte)
    }

    fn advance(&mut self, buffer: &Buffer, to: u64) {
        let (bytes, base) = buffer.consumed();
        let index = |byte: u64| usize::try_from(byte.saturating_sub(base)).unwrap_or(usize::MAX);
        if let Some(next) = bytes.get(index(self.hasher.bytes())..index(to)) {
            self.hasher.update(next);
        }
    }
}
