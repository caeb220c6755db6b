//! The pipeline's sink on Kafka: one topic, written by one idempotent producer.

use std::time::Duration;

use tidegate_core::produce::{
    Consume as _, OutRecord, Produce, Reject, RolledBack, Settled, SinkError, UnknownOffset,
};
use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord, SettledBatch, Topic};
use tidegate_kafka::{Client, Error, ErrorKind, Isolation, OffsetSpec};
use tidegate_wire::RecordHeader;

use crate::bridge::reader::{ReadRange, TopicReader};
use crate::bridge::rejects::RejectsTopic;

/// Writes records to one topic, acknowledged by all in-sync replicas.
#[derive(Debug)]
pub struct TopicSink {
    client: Client,
    name: String,
    producer: Producer,
    topic: Topic,
    batches: Vec<SettledBatch>,
    producer_ids: Vec<i64>,
    /// Empty between two records: its memory is used again.
    headers: Vec<RecordHeader<'static>>,
    /// Where rejected rows go.
    rejects: Option<RejectsTopic>,
}

/// The client's errors as the pipeline has them: a rollback has a name of its own there, also where it is the fate
/// of a single batch.
pub(super) fn told(error: Error) -> SinkError {
    if error.kind() == ErrorKind::RolledBack {
        let reason = error.to_string();
        return Box::new(RolledBack { reason });
    }
    error.into()
}

impl TopicSink {
    /// A producer on `topic`, which must exist.
    ///
    /// # Errors
    /// As [`Producer::open`] and [`Producer::topic`].
    pub fn open(client: &Client, config: ProducerConfig, topic: &str) -> Result<Self, Error> {
        let mut producer = Producer::open(client.clone(), config)?;
        let handle = producer.topic(topic)?;
        let sink = Self {
            client: client.clone(),
            name: topic.to_owned(),
            producer,
            topic: handle,
            batches: Vec::new(),
            producer_ids: Vec::new(),
            headers: Vec::new(),
            rejects: None,
        };
        Ok(sink)
    }

    /// Sees that the topic is the one it was and has the partitions it had. Records of a topic that was made anew are gone with the old one; in a topic that has grown
    /// other people's records of a key go to another partition, and nobody could verify or go on with the load. A cluster that cannot say so now is no reason to end it.
    pub(super) fn check_topic(&self) -> Result<(), Error> {
        let then = self.topic.partitions();
        match self.producer.look_at(self.topic)? {
            Some(now) if now > then => {
                let message = other_partitions(&self.name, then, now);
                Err(Error::new(ErrorKind::Topic, message))
            }
            _ => Ok(()),
        }
    }

    /// Hands over what the producer has settled, in its order.
    fn hand_over(&mut self, settled: &mut Vec<Settled>) {
        for batch in self.batches.drain(..) {
            if batch.topic != self.topic {
                // A rejected row is no record of the load. If it failed, so has the producer, and says so itself.
                continue;
            }
            if batch.result.is_ok() && !self.producer_ids.contains(&batch.producer_id) {
                self.producer_ids.push(batch.producer_id);
            }
            settled.push(Settled {
                partition: batch.partition,
                records: batch.records,
                base_offset: batch.base_offset,
                first_tag: batch.first_tag,
                last_tag: batch.last_tag,
                outcome: batch.result.map_err(told),
            });
        }
    }
}

impl TopicSink {
    /// Keeps rejected rows in another topic, which must exist. `job` stands in their headers, where there is one.
    ///
    /// # Errors
    /// As [`Producer::topic`].
    pub fn keep_rejects(&mut self, topic: &str, job: Option<&str>) -> Result<(), Error> {
        let rejects = RejectsTopic::open(&self.client, &mut self.producer, topic, &self.name, job)?;
        self.rejects = Some(rejects);
        Ok(())
    }

    pub(super) fn put_reject(&mut self, reject: &Reject<'_>) -> Result<(), Error> {
        match &self.rejects {
            Some(rejects) => rejects.put(&mut self.producer, reject),
            None => Err(Error::new(
                ErrorKind::Configuration,
                "a row was rejected, and there is no topic for such rows",
            )),
        }
    }

    /// The name of the topic for rejected rows.
    pub(super) fn rejects_topic(&self) -> Option<&str> {
        self.rejects.as_ref().map(RejectsTopic::name)
    }

    pub(super) fn producer(&mut self) -> &mut Producer {
        &mut self.producer
    }

    pub(super) fn put(&mut self, record: OutRecord<'_>) -> Result<(), Error> {
        let partition = record.partition;
        if record.headers.is_empty() {
            let record = ProducerRecord {
                key: record.key,
                value: Some(record.value),
                headers: &[],
                timestamp: record.timestamp,
                tag: record.tag,
            };
            return self.producer.append(self.topic, partition, record);
        }
        self.put_with_headers(record)
    }

    /// Not part of [`put`](Self::put), which is to stay small: most records have none.
    #[inline(never)]
    fn put_with_headers(&mut self, record: OutRecord<'_>) -> Result<(), Error> {
        let partition = record.partition;
        let mut headers: Vec<RecordHeader<'_>> = std::mem::take(&mut self.headers);
        headers.extend(record.headers.iter().map(|(name, value)| RecordHeader {
            name,
            value: Some(value),
        }));
        let record = ProducerRecord {
            key: record.key,
            value: Some(record.value),
            headers: &headers,
            timestamp: record.timestamp,
            tag: record.tag,
        };
        let appended = self.producer.append(self.topic, partition, record);
        self.headers = emptied(headers);
        appended
    }

    pub(super) fn take(&mut self, settled: &mut Vec<Settled>) -> Result<(), Error> {
        let outcome = self.producer.poll(&mut self.batches);
        self.hand_over(settled);
        outcome
    }

    pub(super) fn await_some(
        &mut self,
        timeout: Duration,
        settled: &mut Vec<Settled>,
    ) -> Result<(), Error> {
        let outcome = self.producer.wait(timeout, &mut self.batches);
        self.hand_over(settled);
        outcome.map(drop)
    }

    pub(super) fn await_all(&mut self, settled: &mut Vec<Settled>) -> Result<(), Error> {
        let outcome = self.producer.flush(&mut self.batches);
        self.hand_over(settled);
        outcome
    }
}

/// Why a load ends, or cannot be gone on with, once its topic has another number of partitions.
#[must_use]
pub fn other_partitions(topic: &str, then: i32, now: i32) -> String {
    format!(
        "topic {topic} has {now} partitions now and had {then} when the load began: rows of one key would stand in two of them"
    )
}

/// The memory of a list whose elements are borrowed, for others: an empty list is collected in place.
fn emptied(mut headers: Vec<RecordHeader<'_>>) -> Vec<RecordHeader<'static>> {
    headers.clear();
    let none = headers.into_iter().map_while(|_| None);
    none.collect()
}

impl Produce for TopicSink {
    fn partitions(&self) -> i32 {
        self.topic.partitions()
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        Ok(self.put(record)?)
    }

    fn reject(&mut self, reject: &Reject<'_>) -> Result<(), SinkError> {
        Ok(self.put_reject(reject)?)
    }

    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        Ok(self.take(settled)?)
    }

    fn wait(&mut self, timeout: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        Ok(self.await_some(timeout, settled)?)
    }

    fn seal(&mut self) -> Result<(), SinkError> {
        Ok(self.producer.seal_all()?)
    }

    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.await_all(settled)?;
        Ok(self.check_topic()?)
    }

    /// The batches of a partition stand in the log in the order they settled: so many records of this producer behind the last known offset.
    fn locate(&mut self, unknown: &UnknownOffset) -> Result<Option<i64>, SinkError> {
        let partition = [unknown.partition];
        let admin = self.client.admin();
        let bound = |spec| -> Result<i64, Error> {
            let offsets =
                admin.list_offsets(&self.name, &partition, spec, Isolation::ReadUncommitted)?;
            Ok(offsets.first().map_or(0, |(_, offset)| *offset))
        };
        let start = match unknown.after {
            Some(offset) => offset + 1,
            None => bound(OffsetSpec::Earliest)?,
        };
        let range = ReadRange {
            partition: unknown.partition,
            start,
            end: bound(OffsetSpec::Latest)?,
        };
        let mut reader = TopicReader::open(
            &self.client,
            &self.name,
            &[range],
            Isolation::ReadUncommitted,
        )?;
        let mut skip = unknown.skip;
        while let Some(record) = reader.next(unknown.partition)? {
            if !self.producer_ids.contains(&record.producer_id) {
                continue;
            }
            if skip == 0 {
                return Ok(Some(record.offset));
            }
            skip -= 1;
        }
        Ok(None)
    }

    fn producer_ids(&self) -> Vec<i64> {
        self.producer_ids.clone()
    }
}
