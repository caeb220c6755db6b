//! The facade's producer: shared by reference, its deliveries told to a callback, its last offsets kept.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidegate_core::partition::Partitioner;
use tidegate_kafka::producer::{
    Producer as KafkaProducer, ProducerConfig, ProducerRecord, SettledBatch, Topic,
};
use tidegate_kafka::{Client, ClientConfig};

use crate::error::Error;
use crate::serializer::AvroSerializer;

/// The outcome of one record batch.
#[derive(Debug)]
pub struct DeliveryReport {
    /// Topic of its records.
    pub topic: String,
    /// Partition of its records.
    pub partition: i32,
    /// Offset of its first record. `None` when it failed, and when the broker took a repeated batch for known without saying where it is.
    pub base_offset: Option<i64>,
    /// How many records it held.
    pub records: u32,
    /// Acknowledged by all in-sync replicas, or why not.
    pub result: Result<(), Error>,
}

impl DeliveryReport {
    /// Offset of its last record, where its first is known.
    #[must_use]
    pub fn last_offset(&self) -> Option<i64> {
        self.base_offset
            .map(|base| base + i64::from(self.records) - 1)
    }
}

/// The last delivered offset of each partition; cheap to clone, all clones see the same.
#[derive(Debug, Clone, Default)]
pub struct LastOffsets {
    offsets: Arc<Mutex<BTreeMap<(String, i32), i64>>>,
}

impl LastOffsets {
    /// No offsets yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps what a report says: the place for it is [`Producer::on_delivery`]. Failed batches change nothing.
    pub fn keep(&self, report: &DeliveryReport) {
        let (Ok(()), Some(last)) = (&report.result, report.last_offset()) else {
            return;
        };
        let mut offsets = lock(&self.offsets);
        let kept = offsets
            .entry((report.topic.clone(), report.partition))
            .or_insert(last);
        *kept = last.max(*kept);
    }

    /// The last offset of a partition.
    #[must_use]
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        lock(&self.offsets)
            .get(&(topic.to_owned(), partition))
            .copied()
    }

    /// All of them: topic, partition, offset.
    #[must_use]
    pub fn to_vec(&self) -> Vec<(String, i32, i64)> {
        let offsets = lock(&self.offsets);
        offsets
            .iter()
            .map(|((topic, partition), offset)| (topic.clone(), *partition, *offset))
            .collect()
    }
}

type Callback = Box<dyn FnMut(&DeliveryReport) + Send>;

/// An idempotent producer that is shared by reference: each method takes `&self`.
///
/// Sending copies the record into the open batch of its partition and returns; batches are sent and acknowledged meanwhile. The callback of
/// [`on_delivery`](Self::on_delivery) runs on the threads that call [`send`](Self::send), [`poll`](Self::poll) and [`flush`](Self::flush), so
/// no report comes while nobody calls.
pub struct Producer {
    state: Mutex<State>,
    callback: Mutex<Option<Callback>>,
}

struct State {
    kafka: KafkaProducer,
    topics: HashMap<String, Topic>,
    names: HashMap<Topic, String>,
    partitioner: Partitioner,
    sent: u64,
    settled: Vec<SettledBatch>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer with the defaults (acks=all, idempotent, lz4) on the cluster at `bootstrap`: `host:port`, several separated by commas.
    ///
    /// # Errors
    /// [`ErrorKind::Kafka`](crate::ErrorKind::Kafka) when the cluster cannot be reached.
    pub fn connect(bootstrap: &str) -> Result<Self, Error> {
        let client = Client::connect(ClientConfig::new(bootstrap)?)?;
        Self::open(client, ProducerConfig::default())
    }

    /// A producer with a configuration of your own.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn open(client: Client, config: ProducerConfig) -> Result<Self, Error> {
        let state = State {
            kafka: KafkaProducer::open(client, config)?,
            topics: HashMap::new(),
            names: HashMap::new(),
            partitioner: Partitioner::default(),
            sent: 0,
            settled: Vec::new(),
        };
        Ok(Self {
            state: Mutex::new(state),
            callback: Mutex::new(None),
        })
    }

    /// Sets what is called once for each settled batch. Reports of one partition come in the order of its batches. The callback must not call
    /// this producer.
    pub fn on_delivery(&self, callback: impl FnMut(&DeliveryReport) + Send + 'static) {
        *lock(&self.callback) = Some(Box::new(callback));
    }

    /// Sends a record; its partition follows from the key as in Kafka's Java client (murmur2). Waits while the buffers are full.
    ///
    /// # Errors
    /// [`ErrorKind::Kafka`](crate::ErrorKind::Kafka) when the topic is missing, or a batch failed for good: then every later call fails too.
    pub fn send(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let handle = state.topic(topic)?;
        let partition = state
            .partitioner
            .partition(key, state.sent, handle.partitions());
        let record = ProducerRecord {
            key,
            value,
            headers: &[],
            timestamp: None,
            tag: state.sent,
        };
        let appended = state.kafka.append(handle, partition, record);
        let polled = match appended {
            Ok(()) => {
                state.sent += 1;
                state.kafka.poll(&mut state.settled)
            }
            failed => failed,
        };
        self.tell(state);
        Ok(polled?)
    }

    /// Tells what was settled since the last call. Never waits.
    ///
    /// # Errors
    /// When a batch failed for good.
    pub fn poll(&self) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let polled = state.kafka.poll(&mut state.settled);
        self.tell(state);
        Ok(polled?)
    }

    /// Sends what is buffered and waits until the outcome of every record is known.
    ///
    /// # Errors
    /// When a batch failed for good, or nothing went on for the delivery time-out.
    pub fn flush(&self) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let flushed = state.kafka.flush(&mut state.settled);
        self.tell(state);
        Ok(flushed?)
    }

    /// Calls the callback for each settled batch. The caller holds the state, so reports keep the order in which batches settled.
    fn tell(&self, state: &mut State) {
        let mut callback = lock(&self.callback);
        for batch in state.settled.drain(..) {
            let Some(callback) = callback.as_mut() else {
                continue;
            };
            let report = DeliveryReport {
                topic: state.names.get(&batch.topic).cloned().unwrap_or_default(),
                partition: batch.partition,
                base_offset: batch.base_offset,
                records: batch.records,
                result: batch.result.map_err(Error::from),
            };
            callback(&report);
        }
    }
}

impl State {
    fn topic(&mut self, name: &str) -> Result<Topic, Error> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(*topic);
        }
        let topic = self.kafka.topic(name)?;
        self.topics.insert(name.to_owned(), topic);
        self.names.insert(topic, name.to_owned());
        Ok(topic)
    }
}

/// Serializes `message` and publishes it to `topic`, keyed by its timestamp (see [`AvroSerializer::encode`]).
///
/// # Errors
/// As [`AvroSerializer::encode`] and [`Producer::send`].
pub fn publish(
    producer: &Producer,
    message: &impl Serialize,
    topic: &str,
    serializer: &AvroSerializer,
) -> Result<(), Error> {
    let encoded = serializer.encode(message)?;
    producer.send(topic, encoded.key.as_deref(), Some(&encoded.value))
}

/// What a panic elsewhere left behind is whole: each lock guards values that are replaced in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn report(
        partition: i32,
        base_offset: Option<i64>,
        records: u32,
        result: Result<(), Error>,
    ) -> DeliveryReport {
        DeliveryReport {
            topic: "t".to_owned(),
            partition,
            base_offset,
            records,
            result,
        }
    }

    #[test]
    fn last_offsets_are_kept_per_partition_and_never_go_back() {
        let last = LastOffsets::new();
        let seen = last.clone();
        seen.keep(&report(0, Some(10), 5, Ok(())));
        seen.keep(&report(1, Some(0), 1, Ok(())));
        seen.keep(&report(0, Some(3), 2, Ok(())));
        seen.keep(&report(0, None, 2, Ok(())));
        seen.keep(&report(
            0,
            Some(99),
            1,
            Err(Error::new(ErrorKind::Kafka, "refused")),
        ));
        assert_eq!(last.get("t", 0), Some(14));
        assert_eq!(
            last.to_vec(),
            [("t".to_owned(), 0, 14), ("t".to_owned(), 1, 0)]
        );
    }
}
