//! A Kafka client of forty lines: one connection, one request at a time, versions fixed here. What it says of a topic does not come through the
//! client under test.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tidegate_wire::Batches;
use tidegate_wire::frame::read_frame;

use crate::log::LogRecord;

const METADATA: i16 = 9;
const CREATE_TOPICS: i16 = 5;
const LIST_OFFSETS: i16 = 5;
const FETCH: i16 = 11;
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
        let partitions = self.partitions(topic)?.into_iter().map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(partition)
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
            .with_max_wait_ms(1000)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![wanted]);
        let answer = self.call(&request, FETCH)?;
        let found = answer
            .responses
            .first()
            .and_then(|topic| topic.partitions.first());
        let found = found.ok_or_else(|| io::Error::other("Fetch without the partition"))?;
        check("Fetch", found.error_code)?;
        Ok(found
            .records
            .as_ref()
            .map(|bytes| bytes.to_vec())
            .unwrap_or_default())
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

/// Adds the data records of `bytes` from `offset` on; answers where to go on.
fn append_records(
    bytes: &[u8],
    partition: i32,
    offset: i64,
    records: &mut Vec<LogRecord>,
) -> io::Result<i64> {
    let mut next = offset;
    let mut scratch = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch?;
        batch.check_crc()?;
        next = batch.header().next_offset();
        if batch.header().is_control() {
            continue;
        }
        for record in batch.records(&mut scratch, LIMIT)? {
            let record = record?;
            if record.offset >= offset {
                records.push(LogRecord {
                    partition,
                    offset: record.offset,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                });
            }
        }
    }
    Ok(next)
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
