//! The sink of a job: rows, and the position behind them, so that a run that was killed is gone on with.
//!
//! Exactly once, both are in one transaction, and nothing is ever sent twice. At least once, the position is written after the rows were acknowledged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate_core::clock::Clock as _;
use tidegate_core::job::{Delivery, JOB_VERSION, JobIdentity, JobPosition, Repeat};
use tidegate_core::position::LoadPosition;
use tidegate_core::produce::{OutRecord, Produce, Reject, Settled, SinkError, UnknownOffset};
use tidegate_kafka::admin::NewTopic;
use tidegate_kafka::producer::{Producer, ProducerConfig, ProducerRecord, Topic, Transactional};
use tidegate_kafka::{Client, Error, ErrorKind, Isolation, OffsetSpec};
use tidegate_kafka::{outcomes_behind, read_committed};

use crate::bridge::MARKERS_PAUSE;
use crate::bridge::clock::SystemClock;
use crate::bridge::sink::{TopicSink, told};

/// How long the markers of a transaction that was ended may take to be seen.
const MARKERS_PATIENCE: Duration = Duration::from_secs(10);

/// How often a commit looks whether the topic is the one it was, besides the last one, which always does.
const TOPIC_INTERVAL: Duration = Duration::from_secs(5);

/// What a run of a job is opened with.
#[derive(Debug, Clone)]
pub struct Job {
    /// What makes it this job; `identity.job` is its transactional id and the key of its positions.
    pub identity: JobIdentity,
    /// Its inputs, in order.
    pub sources: Vec<String>,
    /// Where rejected rows are written, as an absolute path.
    pub rejects_file: Option<String>,
    /// The topic that rejected rows are written to, in the same transactions as the records around them. It must exist.
    pub rejects_topic: Option<String>,
    /// The topic that holds positions: compacted, with one partition.
    pub positions_topic: String,
    /// How long a transaction may stay open.
    pub transaction_timeout: Duration,
    /// Whether to forget where the job stands, and begin again.
    pub restart: bool,
}

/// Writes a job's records to one topic, and with each commit the position behind them.
#[derive(Debug)]
pub struct JobSink {
    sink: TopicSink,
    positions: Topic,
    positions_topic: String,
    client: Client,
    opened: Instant,
    /// When it was last seen that the topic is the one it was.
    topic_seen: Instant,
    seconds_before: f64,
    /// What is written next, but for the place.
    next: JobPosition,
}

impl JobSink {
    /// Takes the job over: an earlier run that still lives is fenced, and what it left open is rolled back. Also gives where the job stands;
    /// `None` if it never committed anything, or is to begin again. Both topics must exist. A job that is delivered at least once fences nobody.
    ///
    /// # Errors
    /// As [`TopicSink::open`], and as [`read_committed`]; [`ErrorKind::Topic`] if the cluster has lost the end of an earlier transaction of the job.
    pub fn open(
        client: &Client,
        config: ProducerConfig,
        job: Job,
    ) -> Result<(Self, Option<JobPosition>), SinkError> {
        let is_transactional = job.identity.delivery == Delivery::ExactlyOnce;
        let transactional = is_transactional.then(|| Transactional {
            timeout: job.transaction_timeout,
            ..Transactional::new(&job.identity.job)
        });
        let config = ProducerConfig {
            transactional,
            ..config
        };
        let mut sink = TopicSink::open(client, config, &job.identity.topic)?;
        let producer = sink.producer();
        let positions = producer.topic(&job.positions_topic)?;
        if let Some(rejects) = &job.rejects_topic {
            sink.keep_rejects(rejects, Some(&job.identity.job))?;
        }
        let producer = sink.producer();
        if is_transactional {
            let topics = [&job.identity.topic, &job.positions_topic];
            let topics = topics.into_iter().chain(&job.rejects_topic);
            check_ended(client, producer, topics)?;
        }
        let found = if job.restart {
            // A restart that dies before its first commit must not leave the old position to go on from.
            write(producer, positions, &job.identity.job, None)?;
            None
        } else {
            read_position(client, &job.positions_topic, &job.identity.job)?
        };
        let mut sink = Self {
            positions,
            positions_topic: job.positions_topic.clone(),
            client: client.clone(),
            opened: Instant::now(),
            topic_seen: Instant::now(),
            seconds_before: found.as_ref().map_or(0.0, |found| found.seconds),
            next: next_of(job, found.as_ref(), sink.partitions()),
            sink,
        };
        if !is_transactional {
            // Should this run die before it has kept a position, the next one must know whose records these are.
            sink.next
                .producer_ids
                .push(sink.sink.producer().producer_id());
            sink.keep()?;
        }
        Ok((sink, found))
    }

    fn keep(&mut self) -> Result<(), Error> {
        self.next.written_at = SystemClock::new().unix_millis();
        self.next.seconds = self.seconds();
        let job = &self.next.identity.job;
        write(self.sink.producer(), self.positions, job, Some(&self.next))
    }

    /// Sees now and then, and at the end of the load, that the topic is the one it was.
    fn check_topic(&mut self, is_last: bool) -> Result<(), Error> {
        if is_last || self.topic_seen.elapsed() >= TOPIC_INTERVAL {
            self.sink.check_topic()?;
            self.topic_seen = Instant::now();
        }
        Ok(())
    }

    /// Waits until the rejected rows of a transaction can be read.
    fn wait_for_rejects(&mut self, producer_id: i64) -> Result<(), Error> {
        let Some(topic) = self.sink.rejects_topic().map(str::to_owned) else {
            return Ok(());
        };
        let partitions = self.sink.producer().topic(&topic)?.partitions();
        wait_for_markers(&self.client, &topic, partitions, producer_id).map(drop)
    }

    /// What runs before this one have sent beyond the position that the run after them began at.
    #[must_use]
    pub fn repeats(&self) -> &[Repeat] {
        &self.next.repeats
    }

    /// How long all runs took until now, by the monotonic clock.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.seconds_before + self.opened.elapsed().as_secs_f64()
    }
}

/// What a run writes that goes on from `found`, but for the place.
fn next_of(job: Job, found: Option<&JobPosition>, partitions: i32) -> JobPosition {
    let now = SystemClock::new().unix_millis();
    let mut next = JobPosition {
        version: JOB_VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        identity: job.identity,
        is_complete: false,
        sources: job.sources,
        load: LoadPosition::start(),
        rejects_file: job.rejects_file,
        rejects_topic: job.rejects_topic,
        producer_ids: Vec::new(),
        repeats: Vec::new(),
        runs: 1,
        started_at: now,
        written_at: now,
        seconds: 0.0,
    };
    let Some(found) = found else { return next };
    (next.load, next.is_complete) = (found.load.clone(), found.is_complete);
    next.producer_ids.clone_from(&found.producer_ids);
    next.repeats.clone_from(&found.repeats);
    if next.identity.delivery == Delivery::AtLeastOnce {
        let known = |id: &i64| {
            let mut before = found.repeats.iter();
            before.any(|repeat| repeat.producer_ids.contains(id))
        };
        next.repeats.push(Repeat {
            producer_ids: found
                .producer_ids
                .iter()
                .copied()
                .filter(|id| !known(id))
                .collect(),
            after: (0..partitions)
                .map(|partition| found.load.last_offset(partition))
                .collect(),
        });
    }
    next.runs = found.runs + 1;
    next.started_at = found.started_at;
    next
}

/// Makes sure that the topic for positions is there and keeps them: compacted, so that the last position of a job stays, and with one partition, so that
/// there is one last. Creates it where it is missing.
///
/// # Errors
/// [`ErrorKind::Topic`] for one that is set up otherwise; as [`Admin::create_topic`](tidegate_kafka::admin::Admin::create_topic).
pub fn prepare_positions_topic(client: &Client, name: &str) -> Result<(), Error> {
    let admin = client.admin();
    let found = match admin.describe_topic(name)? {
        Some(found) => found,
        None => {
            let configs = [
                ("cleanup.policy", "compact"),
                ("segment.bytes", "16777216"),
                ("segment.ms", "3600000"),
            ];
            let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            // Two jobs may begin at the same time.
            admin.ensure_topic(&NewTopic {
                name: name.to_owned(),
                partitions: Some(1),
                replication_factor: None,
                configs: configs.into(),
            })?;
            admin.describe_topic(name)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::TopicMissing,
                    format!("{name} was deleted at once"),
                )
            })?
        }
    };
    let partitions = found.partitions.len();
    if partitions != 1 {
        let message = format!("{name} has {partitions} partitions, and positions need one");
        return Err(Error::new(ErrorKind::Topic, message));
    }
    let configs = match admin.topic_configs(name) {
        Ok(configs) => configs,
        // To read the settings is a right of its own, which nothing else here needs.
        Err(error) if error.kind() == ErrorKind::Authorization => return Ok(()),
        Err(error) => return Err(error),
    };
    match configs.get("cleanup.policy").map(String::as_str) {
        Some("compact") => Ok(()),
        policy => {
            let policy = policy.unwrap_or("unknown");
            let message = format!(
                "{name} has cleanup.policy {policy}: positions in it would be deleted in time, and the job be sent again; it must be compact"
            );
            Err(Error::new(ErrorKind::Topic, message))
        }
    }
}

/// Every job's last committed position in a positions topic, as it stands there, by the job's id. `None`: there is no such topic.
///
/// What a run that still lives is about to commit is not among them.
///
/// # Errors
/// As [`read_committed`].
pub fn job_positions(
    client: &Client,
    positions_topic: &str,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
    match client.admin().describe_topic(positions_topic)? {
        Some(_) => last_positions(client, positions_topic).map(Some),
        None => Ok(None),
    }
}

/// Forgets where a job stands: whoever runs it is fenced, then its position is deleted. A load of that job begins at the first row again.
///
/// # Errors
/// As [`Producer::open`], [`Producer::topic`] and [`Producer::commit`].
pub fn forget_job(client: &Client, positions_topic: &str, job: &str) -> Result<(), Error> {
    let config = ProducerConfig {
        transactional: Some(Transactional::new(job)),
        ..ProducerConfig::default()
    };
    let mut producer = Producer::open(client.clone(), config)?;
    let positions = producer.topic(positions_topic)?;
    write(&mut producer, positions, job, None)
}

/// Makes sure that no transaction of this producer is open, though it has begun none: what the next one commits would commit its records too.
///
/// The producer was just opened, or its transaction rolled back, and with that the coordinator has ended what was open before. Yet Kafka 4.3.1, killed
/// and started again, was seen to take such a transaction for completed without its markers: rows stood in the topic twice.
fn check_ended<'a>(
    client: &Client,
    producer: &mut Producer,
    topics: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    let producer_id = producer.producer_id();
    for topic in topics {
        let partitions = producer.topic(topic)?.partitions();
        if let Some(partition) = wait_for_markers(client, topic, partitions, producer_id)? {
            let message = format!(
                "the cluster has lost the end of an earlier transaction of this job in {topic}-{partition} (producer id {producer_id}): going on could publish rows twice; publish to another topic, under another --job"
            );
            return Err(Error::new(ErrorKind::Topic, message));
        }
    }
    Ok(())
}

/// Waits until no transaction of `producer_id` is open in the topic, and gives the partition in which one still is after all patience.
fn wait_for_markers(
    client: &Client,
    topic: &str,
    partitions: i32,
    producer_id: i64,
) -> Result<Option<i32>, Error> {
    let deadline = Instant::now() + MARKERS_PATIENCE;
    loop {
        let open = left_open(client, topic, partitions, producer_id)?;
        if open.is_none() || Instant::now() >= deadline {
            return Ok(open);
        }
        std::thread::sleep(MARKERS_PAUSE);
    }
}

/// The first of a topic's partitions in which a transaction of `producer_id` is open. Where the topic may be written and not be read, that cannot be
/// told, and there is none.
///
/// # Errors
/// As [`outcomes_behind`].
pub fn left_open(
    client: &Client,
    topic: &str,
    partitions: i32,
    producer_id: i64,
) -> Result<Option<i32>, Error> {
    let all: Vec<i32> = (0..partitions).collect();
    let latest = |isolation| {
        let admin = client.admin();
        admin.list_offsets(topic, &all, OffsetSpec::Latest, isolation)
    };
    // In this order: what is decided meanwhile only makes the second larger.
    let (stable, end) = (
        latest(Isolation::ReadCommitted)?,
        latest(Isolation::ReadUncommitted)?,
    );
    for ((partition, stable), (_, end)) in stable.into_iter().zip(end) {
        if stable >= end {
            continue;
        }
        match outcomes_behind(client, topic, partition, stable) {
            Ok(outcomes) if outcomes.is_open(producer_id) => return Ok(Some(partition)),
            Err(error) if error.kind() != ErrorKind::Authorization => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// The last committed position of a job. Only meaningful once the job is taken over: until then the run before may still write.
fn read_position(
    client: &Client,
    positions_topic: &str,
    job: &str,
) -> Result<Option<JobPosition>, SinkError> {
    let last = last_positions(client, positions_topic)?.remove(job);
    Ok(last.as_deref().map(JobPosition::parse).transpose()?)
}

/// What a positions topic, which must be there, holds of each job, by the job's id.
fn last_positions(
    client: &Client,
    positions_topic: &str,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut last = BTreeMap::new();
    read_committed(client, positions_topic, 0, |record| {
        let job = String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
        match record.value {
            Some(value) => last.insert(job, value.to_vec()),
            None => last.remove(&job),
        };
        Ok(())
    })?;
    Ok(last)
}

/// Writes the position of a job, or deletes it, and waits for that: in the transaction that is open, else in one of its own; without transactions
/// when everything before it is acknowledged.
fn write(
    producer: &mut Producer,
    positions: Topic,
    job: &str,
    position: Option<&JobPosition>,
) -> Result<(), Error> {
    let value = position.map(JobPosition::to_json).transpose();
    let value = value.map_err(|error| {
        Error::new(ErrorKind::Protocol, "the position cannot be written").with_source(error)
    })?;
    let record = ProducerRecord {
        key: Some(job.as_bytes()),
        value: value.as_deref().map(str::as_bytes),
        tag: position.map_or(0, |position| position.load.input.row),
        ..ProducerRecord::default()
    };
    let is_transactional = producer.is_transactional();
    if is_transactional && !producer.in_transaction() {
        // Rejected rows alone move the position too.
        producer.begin()?;
    }
    producer.append(positions, 0, record)?;
    // The rows have settled: what settles here is the position's own batch.
    let mut settled = Vec::new();
    if is_transactional {
        producer.commit(&mut settled)
    } else {
        producer.flush(&mut settled)
    }
}

impl Produce for JobSink {
    fn partitions(&self) -> i32 {
        self.sink.partitions()
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        if self.is_transactional() && !self.sink.producer().in_transaction() {
            self.sink.producer().begin().map_err(told)?;
        }
        self.sink.put(record).map_err(told)
    }

    fn reject(&mut self, reject: &Reject<'_>) -> Result<(), SinkError> {
        if self.is_transactional() && !self.sink.producer().in_transaction() {
            self.sink.producer().begin().map_err(told)?;
        }
        self.sink.put_reject(reject).map_err(told)
    }

    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.sink.take(settled).map_err(told)
    }

    fn wait(&mut self, timeout: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.sink.await_some(timeout, settled).map_err(told)
    }

    fn seal(&mut self) -> Result<(), SinkError> {
        self.sink.producer().seal_all().map_err(told)
    }

    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.sink.await_all(settled).map_err(told)
    }

    fn idle(&mut self) -> Result<(), SinkError> {
        self.sink.producer().prove_ownership().map_err(told)
    }

    fn locate(&mut self, unknown: &UnknownOffset) -> Result<Option<i64>, SinkError> {
        self.sink.locate(unknown)
    }

    fn is_transactional(&self) -> bool {
        self.next.identity.delivery == Delivery::ExactlyOnce
    }

    fn keeps_positions(&self) -> bool {
        true
    }

    fn commit(&mut self, position: &LoadPosition, is_complete: bool) -> Result<(), SinkError> {
        self.check_topic(is_complete)?;
        self.next.producer_ids = self.producer_ids();
        (self.next.load, self.next.is_complete) = (position.clone(), is_complete);
        // The next transaction may be another producer id's.
        let producer_id = self.sink.producer().producer_id();
        self.keep().map_err(told)?;
        if is_complete && self.is_transactional() {
            let (topic, partitions) = (&self.next.identity.topic, self.partitions());
            // A commit is decided before its markers are written, and readers see it behind them. Who is told that a load is complete may read it
            // at once; if that cannot be seen here it is complete all the same.
            wait_for_markers(&self.client, topic, partitions, producer_id).ok();
            self.wait_for_rejects(producer_id).ok();
        }
        Ok(())
    }

    fn committed(&mut self) -> Result<Option<LoadPosition>, SinkError> {
        // The load may end without beginning another transaction: interrupted, or with nothing left to send.
        self.sink.producer().acknowledge_rollback().map_err(told)?;
        let topics = [&self.next.identity.topic, &self.positions_topic];
        let topics = topics.into_iter().chain(&self.next.rejects_topic);
        check_ended(&self.client, self.sink.producer(), topics)?;
        let job = &self.next.identity.job;
        let found = read_position(&self.client, &self.positions_topic, job)?;
        Ok(found.map(|found| found.load))
    }

    fn producer_ids(&self) -> Vec<i64> {
        let mut ids = self.next.producer_ids.clone();
        let new = self.sink.producer_ids();
        ids.extend(
            new.into_iter()
                .filter(|id| !self.next.producer_ids.contains(id)),
        );
        ids
    }
}
