//! A Kafka client of forty lines: one connection, one request at a time, versions fixed here. What it says of a topic does not come through the
//! client under test. [`describe`] and [`read_committed`] know clusters of several brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tidegate_wire::frame::read_frame;
use tidegate_wire::{Batch, Batches};

use crate::log::LogRecord;

const METADATA: i16 = 9;
const CREATE_TOPICS: i16 = 5;
const LIST_OFFSETS: i16 = 5;
const FETCH: i16 = 11;
/// Isolation levels of Fetch.
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;
/// How long a broker waits for something to answer with, at the end of a partition.
const FETCH_WAIT_MS: i32 = 100;
/// The largest answer, and the largest batch once decompressed.
const LIMIT: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// ListOffsets' name for the end of a partition.
const LATEST: i64 = -1;

/// A connection to a single-node cluster.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    correlation_id: i32,
}

impl RawClient {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(bootstrap: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(bootstrap)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            correlation_id: 0,
        })
    }

    /// Creates a topic and waits until all its partitions can be read.
    ///
    /// # Errors
    /// The broker refuses, or the connection fails.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> io::Result<()> {
        use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
        let configs = configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string((*name).to_owned()))
                .with_value(Some(StrBytes::from_string((*value).to_owned())))
        });
        let topic_request = CreatableTopic::default()
            .with_name(topic_name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic_request])
            .with_timeout_ms(30_000);
        let answer = self.call(&request, CREATE_TOPICS)?;
        check(
            "CreateTopics",
            answer.topics.first().map_or(-1, |topic| topic.error_code),
        )?;
        let wanted = usize::try_from(partitions).unwrap_or(0);
        let started = Instant::now();
        // Metadata names a leader some moments before the leader knows that it is one.
        while !self
            .end_offsets(topic)
            .is_ok_and(|ends| ends.len() == wanted)
        {
            if started.elapsed() > PATIENCE {
                let message = format!("{topic} got no leaders");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The partitions of a topic that have a leader.
    ///
    /// # Errors
    /// There is no such topic, or the connection fails.
    pub fn partitions(&mut self, topic: &str) -> io::Result<Vec<i32>> {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(false);
        let answer = self.call(&request, METADATA)?;
        let found = answer
            .topics
            .first()
            .ok_or_else(|| io::Error::other("Metadata without the topic"))?;
        // 5: no leader yet, some moments after the topic was created.
        if found.error_code != 5 {
            check("Metadata", found.error_code)?;
        }
        let led = found
            .partitions
            .iter()
            .filter(|partition| partition.error_code == 0);
        let mut partitions: Vec<i32> = led.map(|partition| partition.partition_index).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The offset behind the last record of each partition (isolation `read_uncommitted`).
    ///
    /// # Errors
    /// There is no such topic, or the connection fails.
    pub fn end_offsets(&mut self, topic: &str) -> io::Result<BTreeMap<i32, i64>> {
        let partitions = self.partitions(topic)?;
        self.ends_of(topic, &partitions)
    }

    /// The offset behind the last record of a partition that this broker leads.
    ///
    /// # Errors
    /// It does not lead it, or the connection fails.
    pub fn end_offset(&mut self, topic: &str, partition: i32) -> io::Result<i64> {
        let ends = self.ends_of(topic, &[partition])?;
        let end = ends.get(&partition).copied();
        end.ok_or_else(|| io::Error::other("ListOffsets without the partition"))
    }

    fn ends_of(&mut self, topic: &str, partitions: &[i32]) -> io::Result<BTreeMap<i32, i64>> {
        let partitions = partitions.iter().map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(LATEST)
        });
        let wanted = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![wanted]);
        let answer = self.call(&request, LIST_OFFSETS)?;
        let mut ends = BTreeMap::new();
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            check("ListOffsets", partition.error_code)?;
            ends.insert(partition.partition_index, partition.offset);
        }
        Ok(ends)
    }

    /// Every data record of a topic up to its end now, whatever transaction it belongs to; ordered by partition and offset. Checks the checksum of
    /// every batch.
    ///
    /// # Errors
    /// There is no such topic, a batch is damaged, or the connection fails.
    pub fn read_topic(&mut self, topic: &str) -> io::Result<Vec<LogRecord>> {
        let mut records = Vec::new();
        for (partition, end) in self.end_offsets(topic)? {
            let mut offset = 0;
            while offset < end {
                let bytes = self.fetch(topic, partition, offset)?;
                let next = append_records(&bytes, partition, offset, &mut records)?;
                if next <= offset {
                    return Err(io::Error::other(format!(
                        "{topic}-{partition}: nothing at offset {offset} of {end}"
                    )));
                }
                offset = next;
            }
        }
        Ok(records)
    }

    fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> io::Result<Vec<u8>> {
        let found = self.fetch_at(topic, partition, offset, READ_UNCOMMITTED)?;
        Ok(found
            .records
            .map(|bytes| bytes.to_vec())
            .unwrap_or_default())
    }

    fn fetch_at(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        isolation: i8,
    ) -> io::Result<PartitionData> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(16 << 20);
        let wanted = FetchTopic::default()
            .with_topic(topic_name(topic))
            .with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_isolation_level(isolation)
            .with_topics(vec![wanted]);
        let answer = self.call(&request, FETCH)?;
        let found = answer.responses.into_iter().next();
        let found = found.and_then(|topic| topic.partitions.into_iter().next());
        let found = found.ok_or_else(|| io::Error::other("Fetch without the partition"))?;
        check("Fetch", found.error_code)?;
        Ok(found)
    }

    /// Shows what is committed in one partition from `offset` on: all but the records of aborted transactions, up to the first that is still open.
    /// Gives the offset behind it.
    fn read_partition_committed(
        &mut self,
        topic: &str,
        partition: i32,
        mut offset: i64,
        show: &mut dyn FnMut(LogRecord),
    ) -> io::Result<i64> {
        let mut aborting: BTreeSet<i64> = BTreeSet::new();
        loop {
            let found = self.fetch_at(topic, partition, offset, READ_COMMITTED)?;
            let bytes = found.records.unwrap_or_default();
            if bytes.is_empty() && offset >= found.last_stable_offset {
                return Ok(offset);
            }
            let mut aborted = found.aborted_transactions.unwrap_or_default();
            aborted.sort_by_key(|aborted| aborted.first_offset);
            let mut aborted = aborted.into_iter().peekable();
            for batch in Batches::new(&bytes) {
                let batch = batch?;
                let header = *batch.header();
                let begins = |next: &AbortedTransaction| next.first_offset <= header.base_offset;
                while let Some(next) = aborted.next_if(begins) {
                    aborting.insert(next.producer_id.0);
                }
                if header.is_control() {
                    // Whatever the marker says, the producer's transaction ends with it.
                    aborting.remove(&header.producer_id);
                } else if !(header.is_transactional() && aborting.contains(&header.producer_id)) {
                    show_batch(&batch, partition, offset, show)?;
                }
                offset = header.next_offset();
            }
        }
    }

    /// Sends a request in that version and waits for its answer.
    ///
    /// # Errors
    /// The connection fails, or the answer cannot be read.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("tidegate-testkit")));
        let mut frame = vec![0; 4];
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(io::Error::other)?;
        let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        let mut answer = Vec::new();
        read_frame(&mut self.stream, LIMIT, &mut answer)?;
        let mut answer = io::Cursor::new(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(io::Error::other)?;
        if header.correlation_id != self.correlation_id {
            return Err(io::Error::other("an answer to another request"));
        }
        R::Response::decode(&mut answer, version).map_err(io::Error::other)
    }
}

/// What a cluster says of itself, and of a topic.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// Where each broker listens, by id.
    pub brokers: BTreeMap<i32, String>,
    /// The leader of each partition that has one.
    pub leaders: BTreeMap<i32, i32>,
    /// How many replicas of each partition are in sync.
    pub in_sync: Vec<usize>,
}

/// Asks the first of these brokers that answers.
///
/// # Errors
/// None does.
pub fn describe(brokers: &[SocketAddr], topic: Option<&str>) -> io::Result<View> {
    let wanted =
        topic.map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic))));
    let request = MetadataRequest::default()
        .with_topics(Some(wanted.into_iter().collect()))
        .with_allow_auto_topic_creation(false);
    let mut last = io::Error::other("no broker to ask");
    for broker in brokers {
        let answer = RawClient::connect(&broker.to_string())
            .and_then(|mut client| client.call(&request, METADATA));
        match answer {
            Ok(answer) => {
                let all = answer.brokers.iter();
                let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
                return Ok(View {
                    brokers: all
                        .map(|broker| {
                            (
                                broker.node_id.0,
                                format!("{}:{}", &*broker.host, broker.port),
                            )
                        })
                        .collect(),
                    leaders: partitions
                        .clone()
                        .filter(|partition| partition.error_code == 0)
                        .map(|partition| (partition.partition_index, partition.leader_id.0))
                        .collect(),
                    in_sync: partitions
                        .map(|partition| partition.isr_nodes.len())
                        .collect(),
                });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Shows every committed record of a topic up to its end now, asked of the leader of each partition; ordered by partition and offset.
///
/// # Errors
/// A partition has no leader, a batch is damaged, or a connection fails.
pub fn read_committed(
    brokers: &[SocketAddr],
    topic: &str,
    show: impl FnMut(LogRecord),
) -> io::Result<()> {
    read_committed_from(brokers, topic, &mut BTreeMap::new(), show)
}

/// As [`read_committed`], from these offsets on (of partitions that are not named: from the first), which are moved behind what was shown.
///
/// # Errors
/// As [`read_committed`]; partitions that were read before the error have been shown, and their offsets moved.
pub fn read_committed_from(
    brokers: &[SocketAddr],
    topic: &str,
    offsets: &mut BTreeMap<i32, i64>,
    mut show: impl FnMut(LogRecord),
) -> io::Result<()> {
    let view = describe(brokers, Some(topic))?;
    if view.leaders.len() != view.in_sync.len() {
        return Err(io::Error::other(format!(
            "{topic}: a partition has no leader"
        )));
    }
    for (partition, leader) in &view.leaders {
        let address = view.brokers.get(leader);
        let address = address.ok_or_else(|| io::Error::other("a leader that is not there"))?;
        let mut client = RawClient::connect(address)?;
        let offset = offsets.entry(*partition).or_insert(0);
        *offset = client.read_partition_committed(topic, *partition, *offset, &mut show)?;
    }
    Ok(())
}

/// Adds the data records of `bytes` from `offset` on; answers where to go on.
fn append_records(
    bytes: &[u8],
    partition: i32,
    offset: i64,
    records: &mut Vec<LogRecord>,
) -> io::Result<i64> {
    let mut next = offset;
    for batch in Batches::new(bytes) {
        let batch = batch?;
        next = batch.header().next_offset();
        show_batch(&batch, partition, offset, &mut |record| {
            records.push(record);
        })?;
    }
    Ok(next)
}

/// Shows the records of a batch from `offset` on, if they are data.
fn show_batch(
    batch: &Batch<'_>,
    partition: i32,
    offset: i64,
    show: &mut dyn FnMut(LogRecord),
) -> io::Result<()> {
    batch.check_crc()?;
    if batch.header().is_control() {
        return Ok(());
    }
    let mut scratch = Vec::new();
    for record in batch.records(&mut scratch, LIMIT)? {
        let record = record?;
        if record.offset >= offset {
            show(LogRecord {
                partition,
                offset: record.offset,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
    }
    Ok(())
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn check(what: &str, error_code: i16) -> io::Result<()> {
    if error_code == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{what}: error code {error_code}")))
}
