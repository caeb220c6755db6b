//! A topic in memory, a sink and a reader on it, a group, and the inputs of the tests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_core::Result;
use tidegate_core::clock::ManualClock;
use tidegate_core::digest::PrefixDigest;
use tidegate_core::encode::ValueFormat;
use tidegate_core::event::Event;
use tidegate_core::job::Delivery;
use tidegate_core::position::LoadPosition;
use tidegate_core::produce::{
    Committed, Consume, ConsumedHeader, ConsumedRecord, OutRecord, Produce, Reject, RolledBack,
    Settled, SinkError, UnknownOffset,
};
use tidegate_core::publish::{CommitCadence, HoldOn, Outcome, PublishOptions, publish};
use tidegate_core::read::{CsvFormat, RowReader, Source};
use tidegate_core::receipt::{RECEIPT_VERSION, Receipt, SourceIdentity};
use tidegate_core::rejects::{OnBadRow, RejectsOptions};
use tidegate_core::schema::{PlanRequest, RecordPlan};

/// The producer id of every record that the sink of these tests writes.
pub(crate) const OURS: i64 = 4000;

/// An input in memory, read in small pieces with pauses between them.
pub(crate) struct Text(pub(crate) Vec<u8>);

impl Source for Text {
    type Reader = Pieces;

    fn open(&self) -> std::io::Result<Pieces> {
        Ok(Pieces::new(self.0.clone(), 61))
    }
}

/// Gives a few bytes at a time, and before them has nothing.
pub(crate) struct Pieces {
    input: Cursor<Vec<u8>>,
    size: usize,
    is_ready: bool,
}

impl Pieces {
    pub(crate) fn new(bytes: Vec<u8>, size: usize) -> Self {
        Self {
            input: Cursor::new(bytes),
            size,
            is_ready: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let size = buffer.len().min(self.size);
        self.input.read(&mut buffer[..size])
    }
}

/// Rows of `ts,id,cpu`, three to a timestamp; those for which `is_bad` says so have no number for `cpu`.
pub(crate) fn rows(count: u64, is_bad: impl Fn(u64) -> bool) -> Text {
    let mut text = String::from("ts,id,cpu\n");
    for row in 1..=count {
        let cpu = if is_bad(row) {
            "broken".to_owned()
        } else {
            format!("{row}.5")
        };
        text.push_str(&format!("{},c{row},{cpu}\n", (row - 1) / 3));
    }
    Text(text.into_bytes())
}

/// How rows become records in a test.
pub(crate) struct Setup {
    pub(crate) csv: CsvFormat,
    pub(crate) plan: RecordPlan,
    pub(crate) rejects: RejectsOptions,
    pub(crate) schema_id: Option<u32>,
    pub(crate) commits: CommitCadence,
    pub(crate) hold_last: bool,
}

impl Setup {
    /// One record a row, as JSON, with `ts` as its key.
    pub(crate) fn rows() -> Self {
        Self::compile(ROW_SCHEMA, ValueFormat::Json, &[])
    }

    /// One record a row, as Avro behind Confluent's header.
    pub(crate) fn avro() -> Self {
        Self {
            schema_id: Some(7),
            ..Self::compile(ROW_SCHEMA, ValueFormat::Avro, &[])
        }
    }

    /// One record for consecutive rows of one `ts`, as JSON.
    pub(crate) fn groups() -> Self {
        Self::compile(GROUP_SCHEMA, ValueFormat::Json, &["ts".to_owned()])
    }

    fn compile(schema: &str, format: ValueFormat, group_by: &[String]) -> Self {
        Self::with(schema, group_by, |request| request.format = format).unwrap()
    }

    /// Records of `schema`, with whatever else is asked for.
    pub(crate) fn with(
        schema: &str,
        group_by: &[String],
        ask: impl FnOnce(&mut PlanRequest<'_>),
    ) -> Result<Self> {
        let csv = CsvFormat::default();
        let reader = RowReader::open(&b"ts,id,cpu\n"[..], csv.clone()).unwrap();
        let mut request = PlanRequest {
            format: ValueFormat::Json,
            group_by,
            ..PlanRequest::new(schema, reader.header())
        };
        ask(&mut request);
        let plan = RecordPlan::compile(&request)?;
        Ok(Self {
            csv,
            plan,
            rejects: RejectsOptions::default(),
            schema_id: None,
            commits: CommitCadence::default(),
            hold_last: false,
        })
    }

    pub(crate) fn skipping(mut self) -> Self {
        self.rejects.on_bad_row = OnBadRow::Skip;
        self
    }

    pub(crate) fn options<'a>(&'a self, interrupt: &'a AtomicBool) -> PublishOptions<'a> {
        PublishOptions {
            csv: &self.csv,
            plan: &self.plan,
            schema_ids: self.schema_id.into(),
            rejects: &self.rejects,
            commits: self.commits,
            hold_last: self.hold_last,
            interrupt,
        }
    }

    /// Publishes from the start, without a hold, and forgets the events.
    pub(crate) fn publish(&self, input: &Text, sink: &mut MemorySink) -> Result<Outcome> {
        self.publish_from(&LoadPosition::start(), input, sink, None, &mut |_| {})
    }

    pub(crate) fn publish_from<S: Source>(
        &self,
        position: &LoadPosition,
        input: &S,
        sink: &mut MemorySink,
        hold: Option<HoldOn<'_>>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome> {
        self.publish_all(position, std::slice::from_ref(input), sink, hold, events)
    }

    pub(crate) fn publish_all<S: Source>(
        &self,
        position: &LoadPosition,
        inputs: &[S],
        sink: &mut MemorySink,
        hold: Option<HoldOn<'_>>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome> {
        let clock = Rc::clone(&sink.clock);
        let interrupt = Rc::clone(&sink.interrupt);
        let options = self.options(&interrupt);
        publish(inputs, position, &options, hold, sink, &*clock, events)
    }
}

pub(crate) const ROW_SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
    {"name": "ts", "type": "long"}, {"name": "id", "type": "string"}, {"name": "cpu", "type": "double"}]}"#;

pub(crate) const GROUP_SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
    {"name": "ts", "type": "long"},
    {"name": "rows", "type": {"type": "array", "items": {"type": "record", "name": "Row", "fields": [
        {"name": "id", "type": "string"}, {"name": "cpu", "type": "double"}]}}}]}"#;

/// The receipt of a load that wrote to these tests' topic.
pub(crate) fn receipt(outcome: &Outcome) -> Receipt {
    let source = |(digest, number): (PrefixDigest, usize)| SourceIdentity {
        path: format!("usage-{number}.csv"),
        length: digest.bytes,
        xxh3_128: digest.hash,
    };
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        program: "test".into(),
        status: outcome.status,
        delivery: Delivery::AtLeastOnce,
        repeats: Vec::new(),
        may_contain_duplicates: false,
        topic: "usage".into(),
        topic_id: None,
        schema_id: None,
        key_schema_id: None,
        partitioner: "murmur2".into(),
        plan: serde_json::Value::Null,
        sources: outcome.sources().zip(0..).map(source).collect(),
        rows: outcome.rows,
        records: outcome.records,
        read_counts: outcome.read_counts,
        partitions: outcome.partitions.clone(),
        producer_ids: outcome.producer_ids.clone(),
        held: outcome.is_held(),
        rejects: None,
        rejects_topic: None,
        resumed_at_row: None,
        started_at: outcome.started_at,
        finished_at: outcome.finished_at,
        seconds: outcome.seconds,
    };
    // Whatever a load came to, its receipt must be one that can be read again.
    Receipt::parse(receipt.to_json().unwrap().as_bytes()).unwrap()
}

/// A record in the topic.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: i64,
    pub(crate) producer_id: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<ConsumedHeader>,
    pub(crate) timestamp: Option<i64>,
}

impl Stored {
    /// The value as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap()).into_owned()
    }
}

/// A topic: for each partition its records, and the offset of the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) partitions: Vec<Vec<Stored>>,
    pub(crate) next_offsets: Vec<i64>,
    pub(crate) log_start: i64,
    /// The topic for rejected rows: number, row and reason of each.
    pub(crate) rejects: Vec<(u64, u64, String)>,
}

impl Topic {
    pub(crate) fn new(partitions: usize) -> Self {
        Self {
            partitions: vec![Vec::new(); partitions],
            next_offsets: vec![0; partitions],
            log_start: 0,
            rejects: Vec::new(),
        }
    }

    pub(crate) fn records(&self) -> u64 {
        self.partitions
            .iter()
            .map(|records| records.len() as u64)
            .sum()
    }

    /// Every value, partition by partition.
    pub(crate) fn values(&self) -> Vec<String> {
        self.partitions.iter().flatten().map(Stored::text).collect()
    }

    fn push(&mut self, partition: usize, record: OwnedRecord) -> i64 {
        let offset = self.next_offsets[partition];
        self.next_offsets[partition] += 1;
        self.partitions[partition].push(Stored {
            offset,
            producer_id: OURS,
            key: record.key,
            value: Some(record.value),
            headers: record.headers,
            timestamp: record.timestamp,
        });
        offset
    }
}

/// What goes wrong with a batch, by its number from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not stored, and the answer says why. What is sent later in its partition fails too.
    Fails,
    /// It is stored; the answer says it was there already and not where.
    UnknownOffset,
    /// It is stored and never answered, and neither is anything after it.
    Hangs,
    /// Everything since the last commit, or the beginning, is rolled back.
    RollsBack,
    /// The commit behind it does not take place, or does, and nobody learns which; the sink is done for.
    Dies,
}

/// A batch that is sent and not settled.
struct Sent {
    number: usize,
    partition: usize,
    settled: Settled,
}

/// A sink that writes to a [`Topic`] in batches, and fails as it is told.
pub(crate) struct MemorySink {
    pub(crate) topic: Rc<RefCell<Topic>>,
    pub(crate) clock: Rc<ManualClock>,
    pub(crate) interrupt: Rc<AtomicBool>,
    pub(crate) batch_records: usize,
    /// Offsets that markers take after each batch.
    pub(crate) markers: i64,
    /// A batch settles when it was polled for so often.
    pub(crate) polls_late: u32,
    pub(crate) faults: Vec<(usize, Fault)>,
    pub(crate) fired: usize,
    /// The load is interrupted when so many records were appended.
    pub(crate) interrupt_after: Option<u64>,
    pub(crate) can_locate: bool,
    pub(crate) appended: u64,
    pub(crate) idles: u32,
    /// Called before each append with the records appended so far.
    pub(crate) before_append: Option<Box<dyn FnMut(u64)>>,
    open: Vec<Vec<(OwnedRecord, u64)>>,
    sent: VecDeque<Sent>,
    polls: u32,
    batches: usize,
    broken: Vec<bool>,
    hangs: bool,
    rolled_back: Option<&'static str>,
    /// Whether the commit during which it dies takes place.
    dies: Option<bool>,
    /// Set for a transactional sink: what is there for good.
    pub(crate) commits: Option<Rc<RefCell<Commits>>>,
}

/// What a transactional sink has committed.
pub(crate) struct Commits {
    pub(crate) topic: Topic,
    pub(crate) position: Option<LoadPosition>,
    pub(crate) is_complete: bool,
}

impl Commits {
    /// Of a load that has not begun.
    pub(crate) fn new(partitions: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            topic: Topic::new(partitions),
            position: None,
            is_complete: false,
        }))
    }

    /// Where the load stands.
    pub(crate) fn position(commits: &Rc<RefCell<Self>>) -> LoadPosition {
        commits.borrow().position.clone().unwrap_or_default()
    }
}

#[derive(Clone)]
struct OwnedRecord {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: Vec<ConsumedHeader>,
    timestamp: Option<i64>,
}

impl MemorySink {
    pub(crate) fn new(partitions: usize) -> Self {
        Self::on(Rc::new(RefCell::new(Topic::new(partitions))))
    }

    pub(crate) fn on(topic: Rc<RefCell<Topic>>) -> Self {
        let partitions = topic.borrow().partitions.len();
        Self {
            topic,
            clock: Rc::new(ManualClock::new()),
            interrupt: Rc::new(AtomicBool::new(false)),
            batch_records: 3,
            markers: 0,
            polls_late: 0,
            faults: Vec::new(),
            fired: 0,
            interrupt_after: None,
            can_locate: true,
            appended: 0,
            idles: 0,
            before_append: None,
            open: vec![Vec::new(); partitions],
            sent: VecDeque::new(),
            polls: 0,
            batches: 0,
            broken: vec![false; partitions],
            hangs: false,
            rolled_back: None,
            dies: None,
            commits: None,
        }
    }

    /// A sink whose records are there for good once `commits` has them.
    pub(crate) fn transactional(commits: &Rc<RefCell<Commits>>) -> Self {
        // A new run aborts what the last one left open.
        let topic = commits.borrow().topic.clone();
        let mut sink = Self::on(Rc::new(RefCell::new(topic)));
        sink.commits = Some(Rc::clone(commits));
        sink
    }

    fn send(&mut self, partition: usize) {
        let records = std::mem::take(&mut self.open[partition]);
        let (Some((_, first_tag)), Some((_, last_tag))) = (records.first(), records.last()) else {
            return;
        };
        let (first_tag, last_tag) = (*first_tag, *last_tag);
        let number = self.batches;
        self.batches += 1;
        let fault = self
            .faults
            .iter()
            .find(|(at, _)| *at == number)
            .map(|(_, fault)| *fault);
        self.fired += usize::from(fault.is_some());
        let mut settled = Settled {
            partition: i32::try_from(partition).unwrap(),
            records: u32::try_from(records.len()).unwrap(),
            base_offset: None,
            first_tag,
            last_tag,
            outcome: Ok(()),
        };
        self.broken[partition] |= fault == Some(Fault::Fails);
        if fault == Some(Fault::Dies) {
            self.dies = Some(number.is_multiple_of(2));
        }
        if fault == Some(Fault::RollsBack) {
            self.roll_back();
            return;
        }
        if self.broken[partition] {
            settled.outcome = Err("the disk of the broker is full".into());
        } else {
            let mut topic = self.topic.borrow_mut();
            let base = topic.next_offsets[partition];
            for (record, _) in records {
                topic.push(partition, record);
            }
            topic.next_offsets[partition] += self.markers;
            settled.base_offset = Some(base).filter(|_| fault != Some(Fault::UnknownOffset));
        }
        self.hangs |= fault == Some(Fault::Hangs);
        self.sent.push_back(Sent {
            number,
            partition,
            settled,
        });
    }

    fn roll_back(&mut self) {
        let partitions = self.broken.len();
        *self.topic.borrow_mut() = match &self.commits {
            Some(commits) => commits.borrow().topic.clone(),
            None => Topic::new(partitions),
        };
        self.sent.clear();
        self.open = vec![Vec::new(); partitions];
        self.rolled_back = Some("the transaction timed out");
    }

    fn check(&mut self) -> Result<(), SinkError> {
        match self.rolled_back.take() {
            None => Ok(()),
            Some(reason) => Err(Box::new(RolledBack {
                reason: reason.into(),
            })),
        }
    }
}

impl Produce for MemorySink {
    fn partitions(&self) -> i32 {
        i32::try_from(self.open.len()).unwrap()
    }

    fn append(&mut self, record: OutRecord<'_>) -> Result<(), SinkError> {
        self.check()?;
        if let Some(before) = &mut self.before_append {
            before(self.appended);
        }
        self.appended += 1;
        if self.interrupt_after == Some(self.appended) {
            self.interrupt.store(true, Ordering::Relaxed);
        }
        let partition = usize::try_from(record.partition).unwrap();
        let header = |(name, value): (&str, &[u8])| ConsumedHeader {
            name: name.to_owned(),
            value: Some(value.to_vec()),
        };
        let owned = OwnedRecord {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.to_vec(),
            headers: record.headers.iter().map(header).collect(),
            timestamp: record.timestamp,
        };
        self.open[partition].push((owned, record.tag));
        if self.open[partition].len() >= self.batch_records {
            self.send(partition);
        }
        self.check()
    }

    fn reject(&mut self, reject: &Reject<'_>) -> Result<(), SinkError> {
        self.check()?;
        let kept = (reject.number, reject.row.row, reject.row.reason.clone());
        self.topic.borrow_mut().rejects.push(kept);
        Ok(())
    }

    fn poll(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.check()?;
        self.polls += 1;
        if self.hangs || self.polls < self.polls_late {
            return Ok(());
        }
        self.polls = 0;
        settled.extend(self.sent.drain(..).map(|sent| sent.settled));
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.clock.advance(timeout);
        self.poll(settled)
    }

    fn seal(&mut self) -> Result<(), SinkError> {
        for partition in 0..self.open.len() {
            self.send(partition);
        }
        self.check()
    }

    fn flush(&mut self, settled: &mut Vec<Settled>) -> Result<(), SinkError> {
        self.seal()?;
        self.polls_late = 0;
        self.poll(settled)
    }

    fn idle(&mut self) -> Result<(), SinkError> {
        self.idles += 1;
        Ok(())
    }

    fn locate(&mut self, unknown: &UnknownOffset) -> Result<Option<i64>, SinkError> {
        let partition = usize::try_from(unknown.partition).unwrap();
        let topic = self.topic.borrow();
        let ours = topic.partitions[partition]
            .iter()
            .filter(|record| record.producer_id == OURS && Some(record.offset) > unknown.after);
        let found = ours
            .map(|record| record.offset)
            .nth(unknown.skip.try_into().unwrap());
        Ok(found.filter(|_| self.can_locate))
    }

    fn is_transactional(&self) -> bool {
        self.commits.is_some()
    }

    fn commit(&mut self, position: &LoadPosition, is_complete: bool) -> Result<(), SinkError> {
        self.check()?;
        assert!(self.sent.is_empty() && self.open.iter().all(Vec::is_empty));
        if self.dies == Some(false) {
            return Err("the connection was lost".into());
        }
        let mut commits = self.commits.as_ref().unwrap().borrow_mut();
        commits.topic = self.topic.borrow().clone();
        // A position is stored as text.
        let text = serde_json::to_string(position).unwrap();
        commits.position = Some(serde_json::from_str(&text).unwrap());
        commits.is_complete = is_complete;
        match self.dies {
            Some(_) => Err("the connection was lost".into()),
            None => Ok(()),
        }
    }

    fn committed(&mut self) -> Result<Option<LoadPosition>, SinkError> {
        Ok(self
            .commits
            .as_ref()
            .and_then(|commits| commits.borrow().position.clone()))
    }

    fn producer_ids(&self) -> Vec<i64> {
        vec![OURS]
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch {} of partition {}", self.number, self.partition)
    }
}

/// Reads a topic from its beginning.
pub(crate) struct MemoryReader {
    pub(crate) topic: Topic,
    next: Vec<usize>,
}

impl MemoryReader {
    pub(crate) fn new(topic: Topic) -> Self {
        let next = vec![0; topic.partitions.len()];
        Self { topic, next }
    }
}

impl Consume for MemoryReader {
    fn next(&mut self, partition: i32) -> Result<Option<ConsumedRecord<'_>>, SinkError> {
        let index = usize::try_from(partition).unwrap();
        let at = self.next[index];
        self.next[index] += 1;
        Ok(self.topic.partitions[index]
            .get(at)
            .map(|stored| ConsumedRecord {
                partition,
                offset: stored.offset,
                producer_id: stored.producer_id,
                key: stored.key.as_deref(),
                value: stored.value.as_deref(),
                headers: &stored.headers,
                timestamp: stored.timestamp,
            }))
    }

    fn log_start(&mut self, _partition: i32) -> Result<Option<i64>, SinkError> {
        Ok(Some(self.topic.log_start))
    }
}

/// A group that commits, each time it is asked, what its schedule says.
pub(crate) struct Group {
    pub(crate) topic: Rc<RefCell<Topic>>,
    /// What is committed, for others to look at.
    pub(crate) commits: Rc<RefCell<Vec<Option<i64>>>>,
    /// For each question: by how many records each partition goes on; `None`: the group cannot be asked. After the last it goes on by one.
    pub(crate) schedule: VecDeque<Option<i64>>,
    pub(crate) asked: Rc<Cell<u32>>,
}

impl Group {
    pub(crate) fn new(topic: &Rc<RefCell<Topic>>, schedule: Vec<Option<i64>>) -> Self {
        let partitions = topic.borrow().partitions.len();
        Self {
            topic: Rc::clone(topic),
            commits: Rc::new(RefCell::new(vec![None; partitions])),
            schedule: schedule.into(),
            asked: Rc::default(),
        }
    }
}

impl Committed for Group {
    fn committed(&mut self) -> Result<Vec<(i32, Option<i64>)>, SinkError> {
        self.asked.set(self.asked.get() + 1);
        let Some(step) = self.schedule.pop_front().unwrap_or(Some(1)) else {
            return Err("the coordinator moves".into());
        };
        let topic = self.topic.borrow();
        let mut commits = self.commits.borrow_mut();
        for (commit, end) in commits.iter_mut().zip(&topic.next_offsets) {
            let next = (commit.unwrap_or(0) + step).clamp(0, *end);
            if step != 0 && (next > 0 || commit.is_some()) {
                *commit = Some(next);
            }
        }
        Ok((0..).zip(commits.iter().copied()).collect())
    }
}
