//! Fetching: which partition is read from which broker, from where, and what to do about the answers.
//!
//! Each leader gets one request at a time with all of its partitions that want data, without fetch sessions (KIP-227; epoch -1): a loader's
//! reads are few and large, and a session is one more thing to repair. The next request is sent before the caller sees the data of the last
//! one, so that the broker works while the caller decodes; what is not read yet waits in the socket.
//!
//! Topics go by id where the broker can (Fetch 13 and later, KIP-516), and by name else. With the id a topic that was deleted and created
//! again is noticed; under its name one would go on reading other records at the same offset.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use kafka_protocol::protocol::{Message, Request, VersionRange};
use uuid::Uuid;

use super::assignor::TopicPartition;
use super::records::{FetchedBatches, damaged, offset_after};
use super::{ConsumerConfig, Jump, Reset};
use crate::admin::{Isolation, OffsetSpec};
use crate::client::{Client, RETRY_PAUSE, topic_name};
use crate::cluster::ClusterView;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::retry;

/// The first version that names topics by their ids.
const BY_TOPIC_ID: i16 = 13;

/// How long one look-up or one new connection may hold up a poll.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// A partition of which not even one batch fits into this many bytes is given up.
const LARGEST_PARTITION_FETCH: i32 = 1 << 30;

const CORRUPT_MESSAGE: i16 = 2;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;

/// Where to read a partition from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    At(i64),
    Earliest,
    Latest,
}

/// What is known about a partition's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
}

/// One partition that is read.
#[derive(Debug)]
struct Slot {
    /// Tells an answer to this slot from one to an earlier slot of the same partition, or from another position.
    id: u64,
    start: Start,
    /// Node id and leader epoch.
    leader: Option<(i32, i32)>,
    topic_id: [u8; 16],
    /// The offset that was outside of the log, until it is known where reading goes on.
    outside: Option<i64>,
    paused: bool,
    /// Data that arrived while the partition was paused.
    held: Option<FetchedBatches>,
    in_flight: bool,
    max_bytes: i32,
    ends: Option<Ends>,
    /// When it was served last: who waits longest stands first in the next request, for a broker fills it in that order.
    served: u64,
    /// Since when it cannot be read, and why.
    trouble: Option<(Instant, Error)>,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    request: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    version: i16,
    deadline: Instant,
    asked: BTreeMap<TopicPartition, Asked>,
}

/// What a request asked of one partition.
#[derive(Clone, Copy, Debug)]
struct Asked {
    slot: u64,
    offset: i64,
}

/// All partitions that a consumer reads.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    isolation: Isolation,
    reset: Reset,
    max_wait: Duration,
    max_bytes: i32,
    partition_max_bytes: i32,
    slots: BTreeMap<TopicPartition, Slot>,
    links: BTreeMap<i32, Link>,
    not_before: Instant,
    failing_since: Option<Instant>,
    last_failure: Option<Error>,
    /// What the caller was not told yet, by partition.
    jumps: BTreeMap<TopicPartition, Jump>,
    counter: u64,
}

impl Fetcher {
    pub(super) fn new(client: Client, config: &ConsumerConfig) -> Self {
        let bytes = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Self {
            client,
            isolation: config.isolation,
            reset: config
                .group
                .as_ref()
                .map_or(Reset::None, |group| group.reset),
            max_wait: config.max_wait,
            max_bytes: bytes(config.fetch_max_bytes),
            partition_max_bytes: bytes(config.partition_max_bytes),
            slots: BTreeMap::new(),
            links: BTreeMap::new(),
            not_before: Instant::now(),
            failing_since: None,
            last_failure: None,
            jumps: BTreeMap::new(),
            counter: 0,
        }
    }

    /// Reads `partition` from `start` on; what was read of it before is forgotten.
    pub(super) fn add(&mut self, partition: TopicPartition, start: Start) {
        self.counter += 1;
        let slot = Slot {
            id: self.counter,
            start,
            leader: None,
            topic_id: [0; 16],
            outside: None,
            paused: false,
            held: None,
            in_flight: false,
            max_bytes: self.partition_max_bytes,
            ends: None,
            served: 0,
            trouble: None,
        };
        self.slots.insert(partition, slot);
    }

    /// Stops reading `partition`; an answer that is on its way is thrown away.
    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.slots.remove(partition);
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) {
        if let Some(slot) = self.slots.get_mut(partition) {
            slot.paused = paused;
        }
    }

    /// The next offset that the caller will see; `None` if the partition is not read, or where to begin is not known yet.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let slot = self.slots.get(partition)?;
        match (&slot.held, slot.start) {
            (Some(held), _) => Some(held.fetch_offset),
            (None, Start::At(offset)) => Some(offset),
            _ => None,
        }
    }

    pub(super) fn ends(&self, partition: &TopicPartition) -> Option<Ends> {
        self.slots.get(partition)?.ends
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.slots.keys()
    }

    /// What arrived while paused, of partitions that are not any more.
    pub(super) fn take_held(&mut self) -> Vec<FetchedBatches> {
        self.slots
            .values_mut()
            .filter(|slot| !slot.paused)
            .filter_map(|slot| slot.held.take())
            .collect()
    }

    /// Finds leaders and first offsets that are missing, and sends a request to each leader that has none open.
    ///
    /// # Errors
    /// What will not get better by itself, and what has not for too long.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.drop_silent_links();
        self.check_patience()?;
        if Instant::now() < self.not_before {
            return Ok(());
        }
        self.find_leaders()?;
        self.find_offsets()?;
        let leaders: BTreeSet<i32> = self
            .slots
            .values()
            .filter_map(|slot| Some(slot.leader?.0))
            .collect();
        for node in leaders {
            self.send_to(node)?;
        }
        Ok(())
    }

    /// When [`advance`](Self::advance) has something to do even though no answer came.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let links = self.links.values();
        let open = links
            .filter_map(|link| Some(link.request.as_ref()?.deadline))
            .min();
        let waiting = self.slots.values().any(Slot::wants_work);
        let retry = waiting
            .then_some(self.not_before)
            .filter(|at| *at > Instant::now());
        open.into_iter().chain(retry).min()
    }

    /// The connections on which an answer is due, by node id.
    pub(super) fn open_connections(&mut self) -> impl Iterator<Item = (i32, &mut Connection)> {
        self.links
            .iter_mut()
            .filter(|(_, link)| link.request.is_some())
            .map(|(node, link)| (*node, &mut link.connection))
    }

    /// Reads the answer of `node`, which has begun to arrive.
    ///
    /// # Errors
    /// What will not get better by itself: missing rights, damaged data, an offset outside of the log without a reset policy.
    pub(super) fn receive(&mut self, node: i32) -> Result<Vec<FetchedBatches>, Error> {
        let Some(link) = self.links.get_mut(&node) else {
            return Ok(Vec::new());
        };
        let Some(request) = link.request.take() else {
            return Ok(Vec::new());
        };
        let mut frame = Vec::new();
        let connection = &mut link.connection;
        let answer = connection
            .receive_frame(&mut frame)
            .and_then(|_| connection.decode::<FetchRequest>(Bytes::from(frame), request.version));
        self.finish(&request);
        match answer {
            Ok(answer) if answer.error_code == 0 => {
                self.failing_since = None;
                self.take_answer(&request, answer)
            }
            Ok(answer) => {
                let error = Error::kafka(
                    format_args!("fetch from broker {node}"),
                    answer.error_code,
                    None,
                );
                if !error.is_retriable() {
                    return Err(error);
                }
                self.drop_link(node, error);
                Ok(Vec::new())
            }
            Err(error) => {
                self.drop_link(node, error);
                Ok(Vec::new())
            }
        }
    }

    fn finish(&mut self, request: &InFlight) {
        for (partition, asked) in &request.asked {
            let slot = self.slots.get_mut(partition);
            if let Some(slot) = slot.filter(|slot| slot.id == asked.slot) {
                slot.in_flight = false;
            }
        }
    }

    fn take_answer(
        &mut self,
        request: &InFlight,
        answer: FetchResponse,
    ) -> Result<Vec<FetchedBatches>, Error> {
        let mut fetched = Vec::new();
        for topic in answer.responses {
            let name = if request.version >= BY_TOPIC_ID {
                self.name_of(request, topic.topic_id.into_bytes())
            } else {
                Some(topic.topic.0.to_string())
            };
            let Some(name) = name else { continue };
            for data in topic.partitions {
                let partition = TopicPartition::new(name.as_str(), data.partition_index);
                if let Some(asked) = request.asked.get(&partition)
                    && let Some(batches) = self.take_partition(&partition, *asked, data)?
                {
                    fetched.push(batches);
                }
            }
        }
        Ok(fetched)
    }

    fn name_of(&self, request: &InFlight, topic_id: [u8; 16]) -> Option<String> {
        request
            .asked
            .keys()
            .find(|partition| {
                self.slots
                    .get(partition)
                    .is_some_and(|slot| slot.topic_id == topic_id)
            })
            .map(|partition| partition.topic.clone())
    }

    fn take_partition(
        &mut self,
        partition: &TopicPartition,
        asked: Asked,
        data: PartitionData,
    ) -> Result<Option<FetchedBatches>, Error> {
        let offset = asked.offset;
        // Taken away, or moved to another offset, since it was asked for.
        let current = |slot: &&mut Slot| slot.id == asked.slot && slot.start == Start::At(offset);
        let Some(slot) = self.slots.get_mut(partition).filter(current) else {
            return Ok(None);
        };
        if data.error_code != 0 {
            self.refused(partition, offset, data.error_code)?;
            return Ok(None);
        }
        slot.trouble = None;
        slot.ends = Some(Ends {
            high_watermark: data.high_watermark,
            last_stable_offset: data.last_stable_offset,
        });
        let bytes = data.records.unwrap_or_default();
        let next_offset = offset_after(&bytes, offset)
            .map_err(|error| damaged(&partition.topic, partition.partition, error))?;
        if next_offset == offset {
            return slot.ask_for_more(partition, bytes.len()).map(|()| None);
        }
        self.counter += 1;
        slot.served = self.counter;
        slot.start = Start::At(next_offset);
        slot.max_bytes = self.partition_max_bytes;
        let aborted = data.aborted_transactions.unwrap_or_default();
        let batches = FetchedBatches {
            topic: partition.topic.clone(),
            partition: partition.partition,
            fetch_offset: offset,
            next_offset,
            high_watermark: data.high_watermark,
            last_stable_offset: data.last_stable_offset,
            bytes,
            aborted: aborted
                .iter()
                .map(|aborted| (aborted.producer_id.0, aborted.first_offset))
                .collect(),
        };
        if slot.paused {
            slot.held = Some(batches);
            return Ok(None);
        }
        Ok(Some(batches))
    }

    fn refused(&mut self, partition: &TopicPartition, offset: i64, code: i16) -> Result<(), Error> {
        let Some(slot) = self.slots.get_mut(partition) else {
            return Ok(());
        };
        if code == OFFSET_OUT_OF_RANGE {
            slot.outside = Some(offset);
            slot.start = match self.reset {
                Reset::Earliest => Start::Earliest,
                Reset::Latest => Start::Latest,
                Reset::None => {
                    let doing = format_args!("read {partition} from offset {offset}");
                    return Err(Error::kafka(
                        doing,
                        code,
                        Some("the log does not hold that offset (any more)"),
                    ));
                }
            };
            return Ok(());
        }
        let error = Error::kafka(format_args!("read {partition}"), code, None);
        // A batch that is damaged in the broker's log stays so.
        if code == CORRUPT_MESSAGE || !retry::is_retriable(code) {
            return Err(error);
        }
        // The leader moved, mostly: look again.
        slot.leader = None;
        slot.note_trouble(error);
        self.pause_all();
        Ok(())
    }

    fn find_leaders(&mut self) -> Result<(), Error> {
        let lost = |slot: &Slot| slot.leader.is_none();
        let topics: BTreeSet<String> = self
            .slots
            .iter()
            .filter(|(_, slot)| lost(slot))
            .map(|(partition, _)| partition.topic.clone())
            .collect();
        if topics.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let view = match self.client.refresh_within(&names, STEP_TIMEOUT) {
            Ok(view) => view,
            Err(error) => return self.fail_or_wait(error),
        };
        let mut unled = false;
        for (partition, slot) in self.slots.iter_mut().filter(|(_, slot)| lost(slot)) {
            match slot.locate(partition, &view) {
                Ok(()) => {}
                Err(error) if error.is_retriable() => {
                    slot.note_trouble(error);
                    unled = true;
                }
                Err(error) => return Err(error),
            }
        }
        if unled {
            self.pause_all();
        }
        Ok(())
    }

    fn find_offsets(&mut self) -> Result<(), Error> {
        for (start, spec) in [
            (Start::Earliest, OffsetSpec::Earliest),
            (Start::Latest, OffsetSpec::Latest),
        ] {
            let mut by_topic: BTreeMap<String, Vec<i32>> = BTreeMap::new();
            for (partition, slot) in &self.slots {
                if slot.start == start && slot.leader.is_some() {
                    by_topic
                        .entry(partition.topic.clone())
                        .or_default()
                        .push(partition.partition);
                }
            }
            for (topic, partitions) in by_topic {
                let found =
                    self.client
                        .admin()
                        .list_offsets(&topic, &partitions, spec, self.isolation);
                match found {
                    Ok(found) => {
                        for (number, offset) in found {
                            self.begin_at(TopicPartition::new(&*topic, number), offset);
                        }
                    }
                    Err(error) => self.fail_or_wait(error)?,
                }
            }
        }
        Ok(())
    }

    fn begin_at(&mut self, partition: TopicPartition, offset: i64) {
        let Some(slot) = self.slots.get_mut(&partition) else {
            return;
        };
        slot.start = Start::At(offset);
        if let Some(outside) = slot.outside.take() {
            let jump = Jump {
                topic: partition.topic.clone(),
                partition: partition.partition,
                from: outside,
                to: offset,
            };
            self.jumps.insert(partition, jump);
        }
    }

    /// The latest jump of each partition that made one since the last call.
    pub(super) fn take_jumps(&mut self) -> Vec<Jump> {
        std::mem::take(&mut self.jumps).into_values().collect()
    }

    fn send_to(&mut self, node: i32) -> Result<(), Error> {
        if self
            .links
            .get(&node)
            .is_some_and(|link| link.request.is_some())
        {
            return Ok(());
        }
        let wanted = self.wanted_from(node);
        if wanted.is_empty() {
            return Ok(());
        }
        if !self.links.contains_key(&node) {
            match self.client.open_within(node, STEP_TIMEOUT) {
                Ok(connection) => {
                    let link = Link {
                        connection,
                        request: None,
                    };
                    self.links.insert(node, link);
                }
                Err(error) => {
                    self.forget_leader(node);
                    return self.fail_or_wait(error);
                }
            }
        }
        match self.send(node, wanted) {
            Err(error) if error.is_retriable() => {
                self.drop_link(node, error);
                Ok(())
            }
            result => result,
        }
    }

    /// The partitions to ask `node` for, those that waited longest first.
    fn wanted_from(&self, node: i32) -> Vec<(TopicPartition, Asked)> {
        let mut wanted: Vec<(u64, (TopicPartition, Asked))> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                slot.leader.is_some_and(|(leader, _)| leader == node) && slot.is_hungry()
            })
            .filter_map(|(partition, slot)| match slot.start {
                Start::At(offset) => {
                    let asked = Asked {
                        slot: slot.id,
                        offset,
                    };
                    Some((slot.served, (partition.clone(), asked)))
                }
                Start::Earliest | Start::Latest => None,
            })
            .collect();
        wanted.sort_by_key(|(served, _)| *served);
        wanted.into_iter().map(|(_, partition)| partition).collect()
    }

    fn send(&mut self, node: i32, partitions: Vec<(TopicPartition, Asked)>) -> Result<(), Error> {
        let Some(link) = self.links.get_mut(&node) else {
            return Ok(());
        };
        let all_have_ids = partitions.iter().all(|(partition, _)| {
            self.slots
                .get(partition)
                .is_some_and(|slot| slot.topic_id != [0; 16])
        });
        let highest = if all_have_ids {
            FetchRequest::VERSIONS.max
        } else {
            BY_TOPIC_ID - 1
        };
        let ours = VersionRange {
            min: FetchRequest::VERSIONS.min,
            max: highest,
        };
        let version = link.connection.versions().choose(FetchRequest::KEY, ours)?;
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(i32::try_from(self.max_wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(self.max_bytes)
            .with_isolation_level(self.isolation.level())
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(topics_of(&partitions, &self.slots, version));
        link.connection.send(&request, version)?;
        for (partition, _) in &partitions {
            if let Some(slot) = self.slots.get_mut(partition) {
                slot.in_flight = true;
            }
        }
        let patience = self.client.config().request_timeout + self.max_wait;
        link.request = Some(InFlight {
            version,
            deadline: Instant::now() + patience,
            asked: partitions.into_iter().collect(),
        });
        Ok(())
    }

    fn drop_silent_links(&mut self) {
        let now = Instant::now();
        let silent: Vec<i32> = self
            .links
            .iter()
            .filter(|(_, link)| {
                link.request
                    .as_ref()
                    .is_some_and(|request| now >= request.deadline)
            })
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            let message = format!("broker {node} did not answer a fetch in time");
            self.drop_link(node, Error::new(ErrorKind::Timeout, message));
        }
    }

    /// The connection is of no more use, and its broker may not lead any more.
    fn drop_link(&mut self, node: i32, why: Error) {
        if let Some(request) = self.links.remove(&node).and_then(|link| link.request) {
            self.finish(&request);
        }
        self.forget_leader(node);
        self.note_failure(why);
    }

    fn forget_leader(&mut self, node: i32) {
        for slot in self.slots.values_mut() {
            if slot.leader.is_some_and(|(leader, _)| leader == node) {
                slot.leader = None;
            }
        }
    }

    fn fail_or_wait(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_retriable() {
            return Err(error);
        }
        self.note_failure(error);
        Ok(())
    }

    fn note_failure(&mut self, error: Error) {
        self.failing_since.get_or_insert_with(Instant::now);
        self.last_failure = Some(error);
        self.pause_all();
    }

    fn pause_all(&mut self) {
        self.not_before = Instant::now() + RETRY_PAUSE;
    }

    /// Nothing may fail for ever without being said.
    fn check_patience(&mut self) -> Result<(), Error> {
        let config = self.client.config();
        for (partition, slot) in &self.slots {
            let Some((since, error)) = &slot.trouble else {
                continue;
            };
            let patience = match error.kind() {
                // A starting broker may not know a topic for a moment; then it is missing.
                ErrorKind::TopicMissing => config.request_timeout,
                _ => config.delivery_timeout,
            };
            if since.elapsed() >= patience {
                let waited = since.elapsed().as_secs();
                return Err(error
                    .repeat()
                    .context(format_args!("{partition} could not be read for {waited} s")));
            }
        }
        if self
            .failing_since
            .is_some_and(|since| since.elapsed() >= config.delivery_timeout)
            && let Some(error) = &self.last_failure
        {
            let waited = config.delivery_timeout.as_secs();
            return Err(error
                .repeat()
                .context(format_args!("nothing could be read for {waited} s")));
        }
        Ok(())
    }
}

impl Slot {
    /// Whether it is to be asked for in the next request.
    fn is_hungry(&self) -> bool {
        !self.paused && !self.in_flight && self.held.is_none()
    }

    /// Whether it needs more than an answer to come.
    fn wants_work(&self) -> bool {
        self.leader.is_none() || !matches!(self.start, Start::At(_)) || self.is_hungry()
    }

    fn note_trouble(&mut self, error: Error) {
        let since = self
            .trouble
            .as_ref()
            .map_or_else(Instant::now, |(since, _)| *since);
        self.trouble = Some((since, error));
    }

    /// Looks up the leader in `view`.
    fn locate(&mut self, partition: &TopicPartition, view: &ClusterView) -> Result<(), Error> {
        let doing = format!("read {partition}");
        let topic = view
            .topic(&partition.topic)
            .map_err(|error| error.context(&doing))?;
        if self.topic_id != [0; 16] && topic.id != [0; 16] && self.topic_id != topic.id {
            let message = format!(
                "{doing}: the topic was deleted and created again, so that its offsets mean something else"
            );
            return Err(Error::new(ErrorKind::Topic, message));
        }
        self.topic_id = topic.id;
        let Some(found) = topic.partition(partition.partition) else {
            return Err(Error::kafka(doing, UNKNOWN_TOPIC_OR_PARTITION, None));
        };
        if !view.brokers.contains_key(&found.leader) {
            return Err(Error::kafka(doing, LEADER_NOT_AVAILABLE, None));
        }
        self.leader = Some((found.leader, found.leader_epoch));
        Ok(())
    }

    /// Not one whole batch came. Brokers send the first batch whole whatever its size (KIP-74), but only that of the first partition in
    /// the answer: so this one goes first next time, and may be longer.
    fn ask_for_more(&mut self, partition: &TopicPartition, came: usize) -> Result<(), Error> {
        if came == 0 {
            return Ok(());
        }
        if self.max_bytes >= LARGEST_PARTITION_FETCH {
            let message = format!("{partition}: a batch of more than {} bytes", self.max_bytes);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.served = 0;
        self.max_bytes = self
            .max_bytes
            .saturating_mul(2)
            .min(LARGEST_PARTITION_FETCH);
        Ok(())
    }
}

/// The partitions as a request names them, in their order but by topic.
fn topics_of(
    partitions: &[(TopicPartition, Asked)],
    slots: &BTreeMap<TopicPartition, Slot>,
    version: i16,
) -> Vec<FetchTopic> {
    let mut topics: Vec<(&str, FetchTopic)> = Vec::new();
    for (partition, asked) in partitions {
        let Some(slot) = slots.get(partition) else {
            continue;
        };
        let wanted = FetchPartition::default()
            .with_partition(partition.partition)
            .with_current_leader_epoch(slot.leader.map_or(-1, |(_, epoch)| epoch))
            .with_fetch_offset(asked.offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(slot.max_bytes);
        if let Some((_, topic)) = topics.iter_mut().find(|(name, _)| *name == partition.topic) {
            topic.partitions.push(wanted);
            continue;
        }
        // The wrong one of the two is dropped without a word.
        let topic = if version >= BY_TOPIC_ID {
            FetchTopic::default().with_topic_id(Uuid::from_bytes(slot.topic_id))
        } else {
            FetchTopic::default().with_topic(topic_name(&partition.topic))
        };
        topics.push((&partition.topic, topic.with_partitions(vec![wanted])));
    }
    topics.into_iter().map(|(_, topic)| topic).collect()
}
