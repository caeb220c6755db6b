//! Jobs through the library: each run takes over where the last one was committed, whatever became of it, and every row is in the topic once.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::usage;
use serde_json::json;
use tidegate::bridge::{Job, JobSink, SystemClock, left_open, prepare_positions_topic};
use tidegate::core::encode::{SchemaIds, ValueFormat};
use tidegate::core::event::Event;
use tidegate::core::job::{Delivery, JobIdentity, JobPosition};
use tidegate::core::position::LoadPosition;
use tidegate::core::publish::{CommitCadence, Outcome, PublishOptions, publish};
use tidegate::core::read::{CsvFormat, RowReader, Source};
use tidegate::core::receipt::Status;
use tidegate::core::rejects::RejectsOptions;
use tidegate::core::schema::{PlanRequest, RecordPlan};
use tidegate::kafka::admin::NewTopic;
use tidegate::kafka::producer::{Producer, ProducerConfig, ProducerRecord, Transactional};
use tidegate::kafka::{self, Client, ClientConfig, Isolation, OffsetSpec, read_committed};
use tidegate_broker::{Action, ApiKey, Rule};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::{Cluster, for_each_cluster};

const SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
    {"name": "timestamp", "type": "long"}, {"name": "container_id", "type": "string"},
    {"name": "machine_id", "type": "string"}, {"name": "cpu", "type": "double"}]}"#;

struct Text(String);

impl Source for Text {
    type Reader = Cursor<Vec<u8>>;

    fn open(&self) -> std::io::Result<Self::Reader> {
        Ok(Cursor::new(self.0.clone().into_bytes()))
    }
}

fn create(client: &Client, name: &str, partitions: i32, policy: &str) {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: None,
        configs: BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]),
    };
    client.admin().create_topic(&topic).unwrap();
}

/// One job on one cluster: its input and its topics.
struct Work {
    client: Client,
    input: Text,
    rows: u64,
    job: Job,
}

impl Work {
    fn new(cluster: &Cluster, rows: u32, partitions: i32) -> Self {
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()).unwrap()).unwrap();
        let (topic, positions_topic) = (cluster.unique("rows"), cluster.unique("positions"));
        create(&client, &topic, partitions, "delete");
        prepare_positions_topic(&client, &positions_topic).unwrap();
        let sources = vec!["/data/usage.csv".to_owned()];
        let identity = JobIdentity {
            job: JobIdentity::default_id(&topic, &sources[0]),
            delivery: Delivery::ExactlyOnce,
            topic,
            topic_id: None,
            schema_id: None,
            key_schema_id: None,
            plan: json!({}),
        };
        Self {
            client,
            input: Text(usage(rows, 1)),
            rows: u64::from(rows),
            job: Job {
                identity,
                sources,
                rejects_file: None,
                rejects_topic: None,
                positions_topic,
                transaction_timeout: Duration::from_secs(60),
                restart: false,
            },
        }
    }

    fn open(&self) -> (JobSink, Option<JobPosition>) {
        JobSink::open(&self.client, ProducerConfig::default(), self.job.clone()).unwrap()
    }

    /// A run that commits every few rows, and is told of it.
    fn run(
        &self,
        sink: &mut JobSink,
        position: &LoadPosition,
        interrupt: &AtomicBool,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Outcome {
        let csv = CsvFormat::default();
        let reader = RowReader::open(self.input.open().unwrap(), csv.clone()).unwrap();
        let plan = RecordPlan::compile(&PlanRequest {
            format: ValueFormat::Json,
            ..PlanRequest::new(SCHEMA, reader.header())
        })
        .unwrap();
        let options = PublishOptions {
            csv: &csv,
            plan: &plan,
            schema_ids: SchemaIds::default(),
            rejects: &RejectsOptions::default(),
            commits: CommitCadence {
                interval: Duration::from_secs(60),
                bytes: 400,
                ..CommitCadence::default()
            },
            hold_last: false,
            interrupt,
        };
        publish(
            std::slice::from_ref(&self.input),
            position,
            &options,
            None,
            sink,
            &SystemClock::new(),
            events,
        )
        .unwrap()
    }

    /// Waits until the coordinator has ended the transaction whose last record stands before `end`: its marker stands there.
    fn wait_for_marker(&self, end: i64) {
        let latest = || {
            let offsets = self.client.admin().list_offsets(
                &self.job.identity.topic,
                &[0],
                OffsetSpec::Latest,
                Isolation::ReadUncommitted,
            );
            offsets.unwrap()[0].1
        };
        wait_until(Duration::from_secs(60), || latest() > end).unwrap();
    }

    /// What is committed, as somebody else's client finds it.
    fn counts(&self, cluster: &Cluster) -> Counts {
        let topic = &self.job.identity.topic;
        Counts::of_keys(cluster.bootstrap(), topic, 0..self.rows)
    }

    /// Each row is committed once.
    fn check(&self, partitions: i32) {
        let mut found = Vec::new();
        for partition in 0..partitions {
            read_committed(
                &self.client,
                &self.job.identity.topic,
                partition,
                |record| {
                    let key = std::str::from_utf8(record.key.unwrap()).unwrap();
                    found.push(key.parse::<u64>().unwrap());
                    Ok(())
                },
            )
            .unwrap();
        }
        found.sort_unstable();
        assert_eq!(found, (0..self.rows).collect::<Vec<_>>());
    }
}

#[test]
fn a_job_goes_on_where_it_was_committed() {
    for_each_cluster(|cluster| {
        let work = Work::new(cluster, 300, 2);
        let (mut sink, found) = work.open();
        assert_eq!(found, None);
        let (interrupt, mut commits) = (AtomicBool::new(false), 0);
        let outcome = work.run(
            &mut sink,
            &LoadPosition::start(),
            &interrupt,
            &mut |event| {
                if let Event::Committed { .. } = event {
                    commits += 1;
                    interrupt.store(commits == 3, Ordering::Relaxed);
                }
            },
        );
        assert_eq!((outcome.status, commits), (Status::Interrupted, 3));
        // Nobody says goodbye: the next run takes the job over.
        let (mut next, found) = work.open();
        let found = found.unwrap();
        assert_eq!((found.runs, found.is_complete), (1, false));
        assert_eq!(found.load, outcome.position.unwrap());
        assert!(found.load.input.row > 0 && found.load.input.row < work.rows);
        let outcome = work.run(&mut next, &found.load, &AtomicBool::new(false), &mut |_| {});
        assert_eq!(
            (outcome.status, outcome.rows.read),
            (Status::Complete, work.rows)
        );
        work.check(2);
        // The first run was fenced, and learns it at its next commit.
        let late = work.run(&mut sink, &found.load, &AtomicBool::new(false), &mut |_| {});
        let cause = late.error.unwrap().into_source().unwrap();
        let cause = cause.downcast_ref::<kafka::Error>().unwrap();
        assert_eq!(cause.kind(), kafka::ErrorKind::Fenced, "{cause}");
        drop(next);
        let (_, found) = work.open();
        let found = found.unwrap();
        assert_eq!((found.runs, found.is_complete), (2, true));
        assert_eq!(found.load.records, work.rows);
        work.check(2);
    });
}

/// A topic that loses positions, or spreads them, is refused; one that is right is used as it is.
#[test]
fn the_topic_for_positions_must_keep_them() {
    for_each_cluster(|cluster| {
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()).unwrap()).unwrap();
        for (partitions, policy, said) in [
            (1, "delete", "cleanup.policy delete"),
            (2, "compact", "2 partitions"),
        ] {
            let name = cluster.unique("positions");
            create(&client, &name, partitions, policy);
            let refused = prepare_positions_topic(&client, &name).unwrap_err();
            assert_eq!(refused.kind(), kafka::ErrorKind::Topic);
            assert!(refused.to_string().contains(said), "{refused}");
        }
        let name = cluster.unique("positions");
        prepare_positions_topic(&client, &name).unwrap();
        prepare_positions_topic(&client, &name).unwrap();
        let configs = client.admin().topic_configs(&name).unwrap();
        assert_eq!(configs["segment.bytes"], "16777216");
    });
}

#[test]
fn two_jobs_that_begin_together_share_the_topic_for_positions() {
    for_each_cluster(|cluster| {
        let name = cluster.unique("positions");
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()).unwrap()).unwrap();
        std::thread::scope(|scope| {
            let prepare = || prepare_positions_topic(&client, &name).unwrap();
            let jobs: Vec<_> = (0..6).map(|_| scope.spawn(prepare)).collect();
            for job in jobs {
                job.join().unwrap();
            }
        });
    });
}

/// A pause longer than the transaction time-out (a suspended process, say): what was open is rolled back and sent again.
#[test]
fn t05_a_transaction_that_ran_out_of_time_is_replayed() {
    let cluster = Cluster::embedded();
    let mut work = Work::new(&cluster, 200, 1);
    work.job.transaction_timeout = Duration::from_secs(1);
    let (mut sink, _) = work.open();
    let (mut settled, mut replays) = (0, Vec::new());
    let outcome = work.run(
        &mut sink,
        &LoadPosition::start(),
        &AtomicBool::new(false),
        &mut |event| match event {
            Event::BatchSettled(batch) => {
                settled += 1;
                if settled == 3 {
                    let end = batch.base_offset.unwrap() + i64::from(batch.records);
                    work.wait_for_marker(end);
                }
            }
            Event::Replaying { after_row, .. } => replays.push(after_row),
            _ => {}
        },
    );
    assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
    assert!(replays.len() == 1 && replays[0] > 0, "{replays:?}");
    assert_eq!((outcome.rows.read, outcome.records.delivered), (200, 200));
    work.check(1);
    Cell::new(
        5,
        "a pause longer than the transaction time-out, by the library",
    )
    .on(cluster.kind())
    .fired(replays.len() as u64)
    .counts(work.counts(&cluster))
    .record();
}

/// The answer to a commit is lost, or it was never worked on: the same run goes on, and no row is there twice.
#[test]
fn t13_a_commit_whose_answer_is_lost_is_found_out() {
    let mut cell = Cell::new(13, "the answer to a commit is lost, by the library");
    for action in [Action::DisconnectAfter, Action::Disconnect] {
        let cluster = Cluster::embedded();
        let work = Work::new(&cluster, 200, 1);
        let (mut sink, _) = work.open();
        let fault = Rule::new(ApiKey::EndTxn, action).after(1).times(2);
        let fault = cluster.broker().unwrap().faults().inject(fault);
        let never = AtomicBool::new(false);
        let outcome = work.run(&mut sink, &LoadPosition::start(), &never, &mut |_| {});
        assert_eq!(fault.fired(), 2, "{action:?}");
        assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
        drop(sink);
        let (_, found) = work.open();
        assert!(found.unwrap().is_complete);
        work.check(1);
        cell = cell.on(cluster.kind()).fired(fault.fired());
        cell = cell.counts(work.counts(&cluster));
    }
    cell.record();
}

/// What is asked before a job is gone on with: a transaction that is still open would be committed with the next one.
#[test]
fn a_transaction_that_is_left_open_is_seen() {
    for_each_cluster(|cluster| {
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()).unwrap()).unwrap();
        let topic = cluster.unique("open");
        create(&client, &topic, 3, "delete");
        let open = || {
            let config = ProducerConfig {
                transactional: Some(Transactional::new(&cluster.unique("job"))),
                ..ProducerConfig::default()
            };
            let mut producer = Producer::open(client.clone(), config).unwrap();
            producer.begin().unwrap();
            let slot = producer.topic(&topic).unwrap();
            producer.append(slot, 1, ProducerRecord::default()).unwrap();
            producer.flush(&mut Vec::new()).unwrap();
            producer
        };
        let (mut own, other) = (open(), open());
        let left =
            |producer: &Producer| left_open(&client, &topic, 3, producer.producer_id()).unwrap();
        assert_eq!((left(&own), left(&other)), (Some(1), Some(1)));
        own.commit(&mut Vec::new()).unwrap();
        // The answer comes before the marker.
        wait_until(Duration::from_secs(30), || left(&own).is_none()).unwrap();
        assert_eq!(left(&other), Some(1));
    });
}
