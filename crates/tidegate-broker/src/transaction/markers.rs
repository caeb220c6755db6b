//! Writing the markers that end a transaction, at once, late, or after a restart.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;

use super::machine::{Partitions, Touched, Transaction};
use super::{Held, Slot};
use crate::error::Error;
use crate::faults::{Action, Ruling, Seen};
use crate::journal::Change;
use crate::log::{AppendError, End};
use crate::shared::{Shared, now_ms};
use crate::sync::lock;
use crate::topics::Topic;
use tidegate_wire::Marker;

/// When a marker is tried again that could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// The version of WriteTxnMarkers that faults see.
const WRITE_TXN_MARKERS: i16 = 1;

/// Writes the markers of the transaction in `held`, which has been decided, and completes it. What a fault
/// holds back or the disk refuses is written later.
pub(super) fn finish(shared: &Arc<Shared>, slot: &Arc<Slot>, held: &mut Held) {
    let Some(end) = end_of(shared, &held.transaction) else {
        return;
    };
    for (topic, partition) in places(&held.transaction.touched.partitions) {
        let ruling = judge(shared, slot, &topic, partition);
        if is_let_through(ruling.action) && write(shared, &end, &topic, partition).is_ok() {
            held.transaction.touched.remove_partition(&topic, partition);
            continue;
        }
        let late = Late {
            shared: Arc::clone(shared),
            slot: Arc::clone(slot),
            end,
            topic,
            partition,
        };
        drop(tokio::spawn(late.write(ruling)));
    }
    complete(shared, slot, held);
}

/// Notes that the transaction has ended, if no marker is missing.
fn complete(shared: &Arc<Shared>, slot: &Arc<Slot>, held: &mut Held) {
    if !held.transaction.touched.partitions.is_empty() {
        return;
    }
    let change = completed(&slot.id, &held.transaction);
    let Change::TransactionCompleted { transaction, .. } = &change else {
        return;
    };
    let next = transaction.clone();
    if shared.commit(change).is_ok() {
        held.transaction = next;
        return;
    }
    let (shared, slot) = (Arc::clone(shared), Arc::clone(slot));
    drop(tokio::spawn(async move {
        tokio::time::sleep(RETRY).await;
        let mut held = lock(&slot.held);
        if held.transaction.state.marker().is_some() {
            complete(&shared, &slot, &mut held);
        }
    }));
}

fn completed(id: &str, transaction: &Transaction) -> Change {
    Change::TransactionCompleted {
        id: id.to_owned(),
        producer_id: transaction.producer_id,
        transaction: transaction.complete(now_ms()),
    }
}

/// A marker that is written later.
struct Late {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    end: End,
    topic: String,
    partition: i32,
}

impl Late {
    async fn write(self, mut ruling: Ruling) {
        loop {
            match ruling.action {
                Action::Delay(time) => tokio::time::sleep(time).await,
                Action::Hold => ruling.wait_for_release().await,
                _ => {
                    tokio::time::sleep(RETRY).await;
                    ruling = judge(&self.shared, &self.slot, &self.topic, self.partition);
                    if !is_let_through(ruling.action) {
                        continue;
                    }
                }
            }
            if self.try_write() {
                return;
            }
            ruling = Ruling::PASS;
        }
    }

    /// Whether there is nothing more to do.
    fn try_write(&self) -> bool {
        let mut held = lock(&self.slot.held);
        // Nobody else ends it meanwhile: a decided transaction only waits for its markers.
        if write(&self.shared, &self.end, &self.topic, self.partition).is_err() {
            return false;
        }
        let touched = &mut held.transaction.touched;
        touched.remove_partition(&self.topic, self.partition);
        complete(&self.shared, &self.slot, &mut held);
        true
    }
}

/// Writes what a crash left undone. What is in the log already is not written twice.
pub(super) fn finish_at_start(shared: &Shared, id: &str, held: &mut Held) -> Result<(), Error> {
    let Some(end) = end_of(shared, &held.transaction) else {
        return Ok(());
    };
    for (name, partition) in places(&held.transaction.touched.partitions) {
        let topic = shared.topics.by_name(&name);
        let log = topic.and_then(|topic| topic.partition(partition));
        let open = log.and_then(|log| log.log().producers().open_transaction(end.producer_id));
        if open.is_some() {
            write(shared, &end, &name, partition).map_err(|error| Error::marker(&name, error))?;
        }
    }
    let change = completed(id, &held.transaction);
    if let Change::TransactionCompleted { transaction, .. } = &change {
        held.transaction = transaction.clone();
    }
    shared
        .commit(change)
        .map_err(|refusal| Error::journal(&refusal.message))
}

/// Aborts open transactions that no transactional id answers for, so that readers need not wait for an end
/// that never comes. A mere crash leaves none; a power failure may, if it takes the journal's last lines and
/// spares the log.
pub(super) fn end_orphans(
    shared: &Shared,
    is_coordinated: impl Fn(i64, &Touched) -> bool,
) -> Result<(), Error> {
    for topic in shared.topics.all() {
        for (index, partition) in (0..).zip(topic.partitions()) {
            let open = partition.log().producers().with_open_transactions();
            for (producer_id, epoch) in open {
                if is_coordinated(producer_id, &Touched::partition(&topic.name, index)) {
                    continue;
                }
                let end = End {
                    marker: Marker::Abort,
                    producer_id,
                    epoch,
                    coordinator_epoch: shared.leader_epoch(),
                    timestamp: now_ms(),
                };
                append(&topic, index, &end).map_err(|error| Error::marker(&topic.name, error))?;
            }
        }
    }
    Ok(())
}

fn end_of(shared: &Shared, transaction: &Transaction) -> Option<End> {
    Some(End {
        marker: transaction.state.marker()?,
        producer_id: transaction.producer_id,
        epoch: transaction.epoch,
        coordinator_epoch: shared.leader_epoch(),
        timestamp: now_ms(),
    })
}

fn places(partitions: &Partitions) -> Vec<(String, i32)> {
    let places = partitions.iter().flat_map(|(topic, partitions)| {
        let partitions = partitions.iter();
        partitions.map(move |partition| (topic.clone(), *partition))
    });
    places.collect()
}

fn judge(shared: &Shared, slot: &Slot, topic: &str, partition: i32) -> Ruling {
    shared.config.faults.judge(|| Seen {
        api_key: ApiKey::WriteTxnMarkers,
        version: WRITE_TXN_MARKERS,
        correlation_id: 0,
        client_id: String::new(),
        connection: 0,
        partitions: vec![(topic.to_owned(), partition)],
        group: None,
        transactional_id: Some(slot.id.clone()),
    })
}

/// Whether the marker is written now. An answer to the coordinator itself cannot get lost.
fn is_let_through(action: Action) -> bool {
    matches!(
        action,
        Action::Pass | Action::DropAnswer | Action::DisconnectAfter
    )
}

/// Appends a marker. A partition that has been deleted needs none.
fn write(shared: &Shared, end: &End, topic: &str, partition: i32) -> Result<(), AppendError> {
    match shared.topics.by_name(topic) {
        Some(topic) => append(&topic, partition, end),
        None => Ok(()),
    }
}

fn append(topic: &Topic, partition: i32, end: &End) -> Result<(), AppendError> {
    match topic.partition(partition) {
        Some(partition) => partition.append_marker(end, &topic.settings()),
        None => Ok(()),
    }
}
