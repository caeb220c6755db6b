//! The batches of one partition between sealing and settlement.

use std::collections::VecDeque;

use super::event::{BatchId, BrokenRule, Rules};

/// Unacknowledged batches of one partition. Brokers remember the last five batches of a producer, and recognise only those when they come
/// again (KIP-98; `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub const MAX_IN_FLIGHT: usize = 5;

/// After so many tries the planted fault [`BrokenRule::GiveUpOne`] gives a batch up.
const TRIES_BEFORE_GIVING_UP: u32 = 3;

#[derive(Debug)]
struct Batch {
    id: BatchId,
    records: u32,
    /// Given at the first sending.
    sequence: Option<i32>,
    sends: u32,
}

/// Why the head of the window must be acknowledged before anything else is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    No,
    /// Nothing of this producer id has been acknowledged on the partition.
    Start,
    /// The window is being sent again.
    Repair,
}

/// Unsettled batches, oldest first; the first `in_flight` of them are on the partition's link.
#[derive(Debug)]
pub(super) struct Window {
    queue: VecDeque<Batch>,
    in_flight: usize,
    alone: Alone,
    next_sequence: i32,
}

impl Window {
    pub(super) fn new(first_sequence: i32) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: 0,
            alone: Alone::Start,
            next_sequence: first_sequence,
        }
    }

    pub(super) fn push(&mut self, id: BatchId, records: u32) {
        self.queue.push_back(Batch {
            id,
            records,
            sequence: None,
            sends: 0,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn head(&self) -> Option<BatchId> {
        self.queue.front().map(|batch| batch.id)
    }

    /// Whether a batch may stand in the log without having been acknowledged.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|batch| batch.sequence.is_some())
    }

    /// Whether the next batch may be sent now; one that has no sequence yet only if `may_start`.
    pub(super) fn may_send(&self, may_start: bool, rules: &Rules) -> bool {
        let next = self.queue.get(self.in_flight);
        next.is_some_and(|batch| may_start || batch.sequence.is_some())
            && self.in_flight < self.allowed(rules)
    }

    /// window, alone: how many may be in flight.
    fn allowed(&self, rules: &Rules) -> usize {
        let alone = match self.alone {
            Alone::No => false,
            Alone::Start => !rules.break_rule(BrokenRule::CrowdAtStart),
            Alone::Repair => !rules.break_rule(BrokenRule::CrowdAfterRepair),
        };
        if alone {
            1
        } else if rules.break_rule(BrokenRule::WideWindow) {
            2 * MAX_IN_FLIGHT
        } else {
            MAX_IN_FLIGHT
        }
    }

    /// The next batch to send, with its sequence. The caller has asked [`may_send`](Self::may_send).
    pub(super) fn send_next(&mut self) -> Option<(BatchId, i32)> {
        let batch = self.queue.get_mut(self.in_flight)?;
        // fixed: what has a sequence keeps it.
        let sequence = match batch.sequence {
            Some(sequence) => sequence,
            None => {
                let sequence = self.next_sequence;
                self.next_sequence = after(sequence, batch.records);
                *batch.sequence.insert(sequence)
            }
        };
        batch.sends += 1;
        self.in_flight += 1;
        Some((batch.id, sequence))
    }

    /// head: takes out the oldest batch, which was acknowledged.
    pub(super) fn settle_head(&mut self) -> Option<BatchId> {
        let head = self.queue.pop_front()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.alone = Alone::No;
        Some(head.id)
    }

    /// repair, alone: nothing is on a link any more; all that was will be sent again in order, the head alone.
    pub(super) fn recall(&mut self, rules: &Rules) {
        self.in_flight = 0;
        // A first window that is sent again stays a first one; to the broker it may still be.
        if self.alone == Alone::No {
            self.alone = Alone::Repair;
        }
        if rules.break_rule(BrokenRule::NewSequence) {
            self.forget_sequences();
        }
        let tried = |batch: &Batch| batch.sends >= TRIES_BEFORE_GIVING_UP;
        if rules.break_rule(BrokenRule::GiveUpOne) && self.queue.front().is_some_and(tried) {
            self.queue.pop_front();
        }
    }

    /// Whether the head was surely not appended when a broker refuses it: it was sent once, and nothing else is in flight whose answer could
    /// say otherwise. (Batches are sent in order, so none behind it was sent before.)
    pub(super) fn head_is_fresh(&self) -> bool {
        self.in_flight == 1 && self.queue.front().is_some_and(|batch| batch.sends == 1)
    }

    /// Every batch will get a sequence anew: only while no batch can be in the log.
    pub(super) fn forget_sequences(&mut self) {
        for batch in &mut self.queue {
            batch.sequence = None;
        }
    }

    /// Starts again for another producer id or epoch, which counts from the start on every partition.
    pub(super) fn restart(&mut self, first_sequence: i32) {
        self.next_sequence = first_sequence;
        self.alone = Alone::Start;
    }

    /// Takes out every batch: their transaction is rolled back.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.in_flight = 0;
    }

    /// The planted fault [`BrokenRule::NoRepair`]: the failed head goes behind the others.
    pub(super) fn send_head_to_the_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(head) = self.queue.pop_front() {
            self.queue.push_back(head);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// The sequence after `records` more records; sequences wrap at 2^31 (KIP-98).
pub(super) fn after(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(next).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rules() -> Rules {
        Rules::new(Duration::from_secs(1), 1)
    }

    fn send_all(window: &mut Window) -> Vec<(u64, i32)> {
        let mut sent = Vec::new();
        while window.may_send(true, &rules()) {
            let (batch, sequence) = window.send_next().unwrap();
            sent.push((batch.0, sequence));
        }
        sent
    }

    fn window_of(batches: u64) -> Window {
        let mut window = Window::new(0);
        for batch in 0..batches {
            window.push(BatchId(batch), 10);
        }
        window
    }

    #[test]
    fn sequences_wrap_at_two_to_the_31() {
        assert_eq!(after(0, 5), 5);
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn the_first_goes_alone_and_then_five_are_in_flight() {
        let mut window = window_of(9);
        assert_eq!(send_all(&mut window), [(0, 0)]);
        assert_eq!(window.settle_head(), Some(BatchId(0)));
        assert_eq!(
            send_all(&mut window),
            [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]
        );
        window.settle_head();
        assert_eq!(send_all(&mut window), [(6, 60)]);
    }

    #[test]
    fn a_recalled_window_is_sent_again_as_it_was_its_head_alone() {
        let mut window = window_of(4);
        send_all(&mut window);
        window.settle_head();
        assert_eq!(send_all(&mut window), [(1, 10), (2, 20), (3, 30)]);
        window.recall(&rules());
        window.push(BatchId(4), 10);
        assert_eq!(send_all(&mut window), [(1, 10)]);
        window.settle_head();
        assert_eq!(send_all(&mut window), [(2, 20), (3, 30), (4, 40)]);
    }

    #[test]
    fn only_a_head_that_was_sent_once_with_nothing_behind_it_is_fresh() {
        let mut window = window_of(2);
        send_all(&mut window);
        assert!(window.head_is_fresh());
        window.recall(&rules());
        send_all(&mut window);
        assert!(!window.head_is_fresh());
    }

    #[test]
    fn while_an_identity_ends_nothing_new_is_started() {
        let mut window = window_of(2);
        window.push(BatchId(2), 1);
        window.send_next().unwrap();
        window.recall(&rules());
        assert!(window.may_send(false, &rules()));
        window.send_next().unwrap();
        window.settle_head();
        assert!(!window.may_send(false, &rules()) && !window.is_in_doubt());
    }
}
