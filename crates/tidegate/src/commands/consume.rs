//! `tidegate consume`: print the records of a topic, alone or as a member of a group.
//!
//! A group's offsets are committed after the records were written and flushed, never before: what was not written is read again.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::time::{Duration, Instant};

use tidegate::core::balance::Balance;
use tidegate::kafka::admin::Admin;
use tidegate::kafka::consumer::{
    Consumer, ConsumerConfig, FetchedBatches, GroupConfig, Jump, Reset,
};
use tidegate::kafka::{self, Client, Isolation, OffsetSpec};

use crate::args::{ConsumeArgs, From, IsolationChoice};
use crate::commands::balance::targets_now;
use crate::failure::{Failure, Kind};
use crate::record_output::{Problem, RecordOutput, cannot_write};
use crate::report::{ConsumeSummary, Finished, Summary};
use crate::service::{Context, Reach, Service};
use crate::topic;

/// How long one fetch may wait for data; also how late a signal may be seen.
const POLL: Duration = Duration::from_millis(200);

/// How often a member without partitions looks at how far its group is.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the command.
pub(crate) fn run(args: &ConsumeArgs, context: &mut Context) -> Result<Finished, Failure> {
    if args.group.is_some() && !matches!(args.from, From::Beginning | From::End) {
        let failure = Failure::new(
            Kind::Usage,
            "a group goes on where it has committed: --from takes an offset or a time only without --group",
        );
        return Err(failure);
    }
    let reach = Reach {
        cluster: &args.cluster,
        registry: Some(&args.registry),
        delivery_timeout: None,
    };
    let group = group(args, context)?;
    let service = context.connect(reach)?;
    let mut reading = Reading::open(args, group, &service)?;
    let mut output = RecordOutput::new(
        args.format,
        &args.topic,
        service.registry.as_ref(),
        context.terminal,
    );
    let mut out = BufWriter::new(io::stdout().lock());
    let ended = reading.copy(args, context, &mut output, &mut out);
    let summary = Summary::Consume(ConsumeSummary {
        topic: args.topic.clone(),
        records: reading.written,
    });
    // A member that does not say goodbye keeps its partitions from the others until its session is over.
    let left = reading.leave();
    let failure = match ended? {
        End::Done => left.err(),
        End::Interrupted => Some(context.interrupt.failure()),
    };
    Ok(Finished { summary, failure })
}

/// The group to join, if one was named.
fn group(args: &ConsumeArgs, context: &mut Context) -> Result<Option<GroupConfig>, Failure> {
    let (protocol, remote_assignor) = context.group(&args.cluster)?;
    let reset = match args.from {
        From::End => Reset::Latest,
        _ => Reset::Earliest,
    };
    Ok(args.group.as_ref().map(|id| GroupConfig {
        protocol,
        remote_assignor,
        reset,
        ..GroupConfig::new(id)
    }))
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything that was asked for is written, or nobody reads stdout any more.
    Done,
    /// A signal came.
    Interrupted,
}

/// A topic being read.
struct Reading<'a> {
    topic: &'a str,
    consumer: Consumer,
    in_group: bool,
    /// In a group: what it will have committed once all of it is read.
    rest: Option<Rest>,
    /// Where to stop, per partition; `None` goes on for ever.
    ends: Option<BTreeMap<i32, i64>>,
    /// Next offsets of what was written and not committed.
    uncommitted: BTreeMap<i32, i64>,
    written: u64,
}

impl<'a> Reading<'a> {
    fn open(
        args: &'a ConsumeArgs,
        group: Option<GroupConfig>,
        service: &Service,
    ) -> Result<Self, Failure> {
        let isolation = match args.isolation {
            IsolationChoice::ReadCommitted => Isolation::ReadCommitted,
            IsolationChoice::ReadUncommitted => Isolation::ReadUncommitted,
        };
        let client = &service.client;
        let partitions = topic::partitions(client, &args.topic)?;
        let ends = match args.until_end {
            true => Some(
                client
                    .admin()
                    .list_offsets(&args.topic, &partitions, OffsetSpec::Latest, isolation)?
                    .into_iter()
                    .collect(),
            ),
            false => None,
        };
        let in_group = group.is_some();
        let rest = match &args.group {
            Some(group) if args.until_end => Some(Rest {
                admin: client.admin(),
                group: group.clone(),
                topic: args.topic.clone(),
                partitions: partitions.clone(),
                balance: Balance::new(targets_now(client, &args.topic)?),
                asked: None,
            }),
            _ => None,
        };
        let config = ConsumerConfig {
            isolation,
            group,
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::open(client.clone(), config)?;
        if in_group {
            consumer.subscribe(&[&args.topic])?;
        } else {
            let starts = starts(client, &args.topic, &partitions, args.from, isolation)?;
            consumer.assign(&args.topic, &starts)?;
        }
        Ok(Self {
            topic: &args.topic,
            consumer,
            in_group,
            rest,
            ends,
            uncommitted: BTreeMap::new(),
            written: 0,
        })
    }

    /// Copies records to `out` until the end that was asked for.
    fn copy(
        &mut self,
        args: &ConsumeArgs,
        context: &Context,
        output: &mut RecordOutput<'_>,
        out: &mut impl Write,
    ) -> Result<End, Failure> {
        let limit = args.max.unwrap_or(u64::MAX);
        loop {
            if context.interrupt.is_set() {
                return Ok(End::Interrupted);
            }
            if self.written >= limit || self.at_end()? {
                return Ok(End::Done);
            }
            let polled = self.consumer.poll(POLL)?;
            for jump in self.consumer.take_jumps() {
                context.terminal.warn(&describe(&jump));
            }
            for batches in polled {
                match self.write(&batches, limit, output, out) {
                    Ok(()) => {}
                    Err(Problem::Closed) => return Ok(End::Done),
                    Err(Problem::Failed(failure)) => return Err(failure),
                }
            }
            match out.flush() {
                Ok(()) => self.commit(context)?,
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(End::Done),
                Err(error) => return Err(cannot_write(error)),
            }
        }
    }

    fn write(
        &mut self,
        batches: &FetchedBatches,
        limit: u64,
        output: &mut RecordOutput<'_>,
        out: &mut impl Write,
    ) -> Result<(), Problem> {
        let end = self
            .ends
            .as_ref()
            .and_then(|ends| ends.get(&batches.partition))
            .copied()
            .unwrap_or(i64::MAX);
        let mut problem = None;
        let (written, uncommitted) = (&mut self.written, &mut self.uncommitted);
        let read = batches.for_each_record(|record| {
            if problem.is_some() || *written >= limit || record.offset >= end {
                return Ok(());
            }
            match output.write(batches.partition, &record, out) {
                Ok(()) => {
                    *written += 1;
                    uncommitted.insert(batches.partition, record.offset + 1);
                }
                Err(found) => problem = Some(found),
            }
            Ok(())
        });
        read.map_err(|error| Problem::Failed(error.into()))?;
        problem.map_or(Ok(()), Err)
    }

    /// Commits what was written and flushed.
    fn commit(&mut self, context: &Context) -> Result<(), Failure> {
        if !self.in_group || self.uncommitted.is_empty() {
            return Ok(());
        }
        let offsets: Vec<(&str, i32, i64)> = self
            .uncommitted
            .iter()
            .map(|(partition, offset)| (self.topic, *partition, *offset))
            .collect();
        let committed = self.consumer.commit(&offsets);
        self.uncommitted.clear();
        match committed {
            // A partition that went to another member meanwhile is its to commit: it reads these records again.
            Err(error) if error.kind() == kafka::ErrorKind::Group => {
                context
                    .terminal
                    .note(&format!("not committed here: {error}"));
                Ok(())
            }
            committed => Ok(committed?),
        }
    }

    /// Whether every partition that is read is at its end; in a group: each one of this member's, and if it has none, the whole group's.
    fn at_end(&mut self) -> Result<bool, Failure> {
        let Some(ends) = &self.ends else {
            return Ok(false);
        };
        let done = |partition: i32, end: i64| {
            self.consumer
                .position(self.topic, partition)
                .is_some_and(|position| position >= end)
        };
        if !self.in_group {
            let mut ends = ends.iter();
            return Ok(ends.all(|(partition, end)| *end == 0 || done(*partition, *end)));
        }
        let mine: Vec<i32> = self
            .consumer
            .assignment()
            .into_iter()
            .map(|(_, partition)| partition)
            .collect();
        if mine.is_empty() {
            return self.rest.as_mut().map_or(Ok(false), Rest::is_done);
        }
        let mut mine = mine.iter();
        Ok(mine.all(|partition| ends.get(partition).is_none_or(|end| done(*partition, *end))))
    }

    fn leave(self) -> Result<(), Failure> {
        if self.in_group {
            self.consumer.leave()?;
        }
        Ok(())
    }
}

fn describe(jump: &Jump) -> String {
    format!(
        "topic {}, partition {}: the log does not hold offset {}, where the group had come to; reading goes on at {}",
        jump.topic, jump.partition, jump.from, jump.to
    )
}

/// What a group has still to commit, for a member that has no partitions: there may be fewer of them than members.
struct Rest {
    admin: Admin,
    group: String,
    topic: String,
    partitions: Vec<i32>,
    balance: Balance,
    asked: Option<Instant>,
}

impl Rest {
    fn is_done(&mut self) -> Result<bool, Failure> {
        if self.asked.is_some_and(|asked| asked.elapsed() < LOOK) {
            return Ok(false);
        }
        self.asked = Some(Instant::now());
        let committed = self
            .admin
            .committed(&self.group, &self.topic, &self.partitions)?;
        // Where it went back to is read again, by whoever holds it.
        drop(self.balance.committed(&committed));
        Ok(self.balance.is_balanced())
    }
}

/// The first offset of each partition.
fn starts(
    client: &Client,
    topic: &str,
    partitions: &[i32],
    from: From,
    isolation: Isolation,
) -> Result<Vec<(i32, i64)>, Failure> {
    let admin = client.admin();
    let offsets = |spec| admin.list_offsets(topic, partitions, spec, isolation);
    Ok(match from {
        From::Beginning => offsets(OffsetSpec::Earliest)?,
        From::End => offsets(OffsetSpec::Latest)?,
        From::Offset(offset) => partitions
            .iter()
            .map(|partition| (*partition, offset))
            .collect(),
        From::Time(millis) => {
            // Where no record is that young the broker answers -1: then what comes next is the first.
            let ends: BTreeMap<i32, i64> = offsets(OffsetSpec::Latest)?.into_iter().collect();
            let found = offsets(OffsetSpec::Timestamp(millis))?;
            found
                .into_iter()
                .map(|(partition, offset)| {
                    (
                        partition,
                        if offset < 0 {
                            ends.get(&partition).copied().unwrap_or(0)
                        } else {
                            offset
                        },
                    )
                })
                .collect()
        }
    })
}
