//! The sink of a job: rows and the position behind them in one transaction, so that a run that was killed is gone on with, and nothing is sent twice.

use std::time::Duration;

use tidegate_core::clock::Clock as _;
use tidegate_core::job::{JOB_VERSION, JobIdentity, JobPosition};
use tidegate_core::position::LoadPosition;
use tidegate_core::produce::{OutRecord, Produce, RolledBack, Settled, SinkError, UnknownOffset};
use tidegate_kafka::admin::NewTopic;
use tidegate_kafka::producer::{ProducerConfig, ProducerRecord, Topic, Transactional};
use tidegate_kafka::{Client, Error, ErrorKind, read_committed};

use crate::bridge::clock::SystemClock;
use crate::bridge::sink::TopicSink;

/// What a run of a job is opened with.
#[derive(Debug, Clone)]
pub struct Job {
    /// What makes it this job; `identity.job` is its transactional id and the key of its positions.
    pub identity: JobIdentity,
    /// Its inputs, in order.
    pub sources: Vec<String>,
    /// The topic that holds positions: compacted, with one partition.
    pub positions_topic: String,
    /// How long a transaction may stay open.
    pub transaction_timeout: Duration,
}

/// Writes a job's records to one topic in transactions, each with the position behind it.
#[derive(Debug)]
pub struct JobSink {
    sink: TopicSink,
    positions: Topic,
    positions_topic: String,
    client: Client,
    /// What is written next, but for the place.
    next: JobPosition,
}

impl JobSink {
    /// Takes the job over: an earlier run that still lives is fenced, and what it left open is rolled back. Also gives where the job stands;
    /// `None` if it never committed anything. Both topics must exist.
    ///
    /// # Errors
    /// As [`TopicSink::open`], and as [`read_committed`].
    pub fn open(
        client: &Client,
        config: ProducerConfig,
        job: Job,
    ) -> Result<(Self, Option<JobPosition>), SinkError> {
        let transactional = Transactional {
            timeout: job.transaction_timeout,
            ..Transactional::new(&job.identity.job)
        };
        let config = ProducerConfig {
            transactional: Some(transactional),
            ..config
        };
        let mut sink = TopicSink::open(client, config, &job.identity.topic)?;
        let positions = sink.producer().topic(&job.positions_topic)?;
        let found = read_position(client, &job.positions_topic, &job.identity.job)?;
        let (runs, started_at) = match &found {
            Some(found) => (found.runs, found.started_at),
            None => (0, SystemClock::new().unix_millis()),
        };
        let next = JobPosition {
            version: JOB_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            identity: job.identity,
            is_complete: false,
            sources: job.sources,
            source: 0,
            load: LoadPosition::start(),
            producer_ids: found
                .as_ref()
                .map_or_else(Vec::new, |found| found.producer_ids.clone()),
            runs: runs + 1,
            started_at,
            written_at: started_at,
        };
        let sink = Self {
            sink,
            positions,
            positions_topic: job.positions_topic,
            client: client.clone(),
            next,
        };
        Ok((sink, found))
    }
}

/// Makes sure that the topic for positions is there and keeps them: compacted, so that the last position of a job stays, and with one partition, so that
/// there is one last. Creates it where it is missing.
///
/// # Errors
/// [`ErrorKind::Topic`] for one that is set up otherwise; as [`Admin::create_topic`](tidegate_kafka::admin::Admin::create_topic).
pub fn prepare_positions_topic(client: &Client, name: &str) -> Result<(), Error> {
    let admin = client.admin();
    let Some(found) = admin.describe_topic(name)? else {
        let configs = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "16777216"),
            ("segment.ms", "3600000"),
        ];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: Some(1),
            replication_factor: None,
            configs: configs.into(),
        };
        return admin.create_topic(&topic);
    };
    let partitions = found.partitions.len();
    if partitions != 1 {
        let message = format!("{name} has {partitions} partitions, and positions need one");
        return Err(Error::new(ErrorKind::Topic, message));
    }
    let configs = admin.topic_configs(name)?;
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

/// The last committed position of a job. Only meaningful once the job is taken over: until then the run before may still write.
fn read_position(
    client: &Client,
    positions_topic: &str,
    job: &str,
) -> Result<Option<JobPosition>, SinkError> {
    let mut last = None;
    read_committed(client, positions_topic, 0, |record| {
        if record.key == Some(job.as_bytes()) {
            last = record.value.map(<[u8]>::to_vec);
        }
        Ok(())
    })?;
    Ok(last.as_deref().map(JobPosition::parse).transpose()?)
}

/// The client's errors as the pipeline has them: it asks for a rollback by its own name.
fn told(error: Error) -> SinkError {
    if error.kind() == ErrorKind::RolledBack {
        let reason = error.to_string();
        return Box::new(RolledBack { reason });
    }
    error.into()
}

impl Produce for JobSink {
    fn partitions(&self) -> i32 {
        self.sink.partitions()
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        if !self.sink.producer().in_transaction() {
            self.sink.producer().begin().map_err(told)?;
        }
        self.sink.put(record).map_err(told)
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
        true
    }

    fn commit(&mut self, position: &LoadPosition, is_complete: bool) -> Result<(), SinkError> {
        self.next.producer_ids = self.producer_ids();
        (self.next.load, self.next.is_complete) = (position.clone(), is_complete);
        self.next.written_at = SystemClock::new().unix_millis();
        let value = self.next.to_json()?;
        let record = ProducerRecord {
            key: Some(self.next.identity.job.as_bytes()),
            value: Some(value.as_bytes()),
            tag: position.input.row,
            ..ProducerRecord::default()
        };
        let producer = self.sink.producer();
        if !producer.in_transaction() {
            // Rejected rows alone move the position too.
            producer.begin().map_err(told)?;
        }
        producer.append(self.positions, 0, record).map_err(told)?;
        // The rows have settled: what settles here is the position's own batch.
        producer.commit(&mut Vec::new()).map_err(told)
    }

    fn committed(&mut self) -> Result<Option<LoadPosition>, SinkError> {
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
