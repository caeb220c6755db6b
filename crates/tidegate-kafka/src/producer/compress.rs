//! Compression, off the appending thread: sealed batches go to several threads in turn, and are put in order again behind them.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender};

use tidegate_wire::{BatchBody, Compression, Compressor};

use super::machine::{BatchId, Slot};
use super::runner::Signal;
use super::shared::Shared;

/// A batch that takes no more records. Numbered from 0 without a gap, in the order of sealing.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) slot: Slot,
    pub(super) batch: BatchId,
    pub(super) body: BatchBody,
    /// What it is counted for against the budget.
    pub(super) charge: usize,
    pub(super) first_tag: u64,
    pub(super) last_tag: u64,
    /// The number of its transaction; 0 without any.
    pub(super) transaction: u64,
}

/// The compressor's thread: until nobody can send it any more batches.
pub(super) fn run(
    codec: Compression,
    batches: &Receiver<Sealed>,
    driver: &SyncSender<Signal>,
    shared: &Shared,
) {
    let mut compressor = Compressor::new();
    let mut scratch = Vec::new();
    for mut sealed in batches {
        pack(
            &mut sealed.body,
            codec,
            &mut compressor,
            &mut scratch,
            shared,
        );
        if driver.send(Signal::Sealed(sealed)).is_err() {
            return;
        }
    }
}

/// Compresses a body. What waits for the network then takes no more memory than it has bytes, and the large buffer it was built in
/// is free for the next batch.
fn pack(
    body: &mut BatchBody,
    codec: Compression,
    compressor: &mut Compressor,
    scratch: &mut Vec<u8>,
    shared: &Shared,
) {
    let spare = body.compress(compressor, codec, std::mem::take(scratch));
    let is_compressed = body.compression != Compression::None;
    let large = if is_compressed || body.records.len() < body.records.capacity() / 2 {
        let mut exact = shared.take_packed(body.records.len());
        exact.extend_from_slice(&body.records);
        std::mem::replace(&mut body.records, exact)
    } else {
        Vec::new()
    };
    // Compressed: `spare` is what the batch was built in, and `large` the scratch that it was compressed into.
    let (built_in, for_next) = if is_compressed {
        (spare, large)
    } else {
        (large, spare)
    };
    *scratch = for_next;
    if built_in.capacity() > 0 {
        shared.give_buffer(built_in);
    }
}

/// Puts batches in the order of their numbers again. Holds as many at most as the compressors can be ahead of the slowest of them.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    next: u64,
    early: BTreeMap<BatchId, Sealed>,
}

impl Reorder {
    pub(super) fn push(&mut self, sealed: Sealed) {
        self.early.insert(sealed.batch, sealed);
    }

    pub(super) fn pop(&mut self) -> Option<Sealed> {
        let sealed = self.early.remove(&BatchId(self.next))?;
        self.next += 1;
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::machine::Identity;
    use tidegate_wire::BatchBuilder;

    fn shared() -> Shared {
        Shared::new(Identity {
            producer_id: 1,
            epoch: 0,
        })
    }

    fn body(capacity: usize, records: usize) -> BatchBody {
        let mut builder = BatchBuilder::with_buffer(Vec::with_capacity(capacity), 0);
        for _ in 0..records {
            builder.append(None, None, Some(b"the same again and again and again"), &[]);
        }
        builder.finish()
    }

    #[test]
    fn what_waits_takes_no_more_memory_than_its_bytes() {
        let (shared, mut compressor, mut scratch) = (shared(), Compressor::new(), Vec::new());
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let mut small = body(1 << 20, 100);
            pack(&mut small, codec, &mut compressor, &mut scratch, &shared);
            assert_eq!(small.compression, codec);
            assert!(
                small.records.capacity() < 2 * small.records.len(),
                "{codec}"
            );
            // The buffer that it was built in is there for the next batch.
            assert!(shared.take_buffer().capacity() >= 1 << 20, "{codec}");
        }
    }

    #[test]
    fn a_full_batch_that_is_not_compressed_is_not_copied() {
        let (shared, mut compressor, mut scratch) = (shared(), Compressor::new(), Vec::new());
        let mut full = body(4000, 90);
        let address = full.records.as_ptr();
        pack(
            &mut full,
            Compression::None,
            &mut compressor,
            &mut scratch,
            &shared,
        );
        assert_eq!(full.records.as_ptr(), address);
    }

    #[test]
    fn batches_leave_in_the_order_of_their_numbers() {
        let sealed = |number| Sealed {
            slot: Slot(0),
            batch: BatchId(number),
            body: body(0, 1),
            charge: 0,
            first_tag: 0,
            last_tag: 0,
            transaction: 0,
        };
        let mut reorder = Reorder::default();
        reorder.push(sealed(1));
        assert!(reorder.pop().is_none());
        reorder.push(sealed(0));
        let numbers: Vec<u64> = std::iter::from_fn(|| reorder.pop())
            .map(|sealed| sealed.batch.0)
            .collect();
        assert_eq!(numbers, [0, 1]);
    }
}
