//! Records: the one place where reading, grouping and encoding meet.
//!
//! A [`RecordStream`] is pulled: each step gives one encoded record, or the rows that were rejected, borrowed until the next step. Publishing,
//! verifying and counting all pull from it, so what is verified is by construction what would have been published. From row to record nothing
//! is allocated once the buffers have grown to the size of the largest.

use std::io::Read;

use crate::around::Surroundings;
use crate::digest::PrefixDigest;
use crate::encode::{CellError, ENCODING_HINT, Op, SchemaIds, ValueFormat, confluent_header};
use crate::error::ErrorPosition;
use crate::group::{Complete, GroupStep, Grouping};
use crate::key::KeyBuffer;
use crate::position::InputEnd;
use crate::produce::Headers;
use crate::read::reader::Advance;
use crate::read::{BadRow, BadRowKind, Header, Place, Position, ReadCounts, Row, RowReader};
use crate::schema::{RecordPlan, Shape};
use crate::seen::SeenGroups;
use crate::{Error, ErrorKind, Result};

/// A record, encoded.
#[derive(Debug, Clone, Copy)]
pub struct EncodedRecord<'a> {
    /// The key; `None` without one.
    pub key: Option<&'a [u8]>,
    /// The value, with Confluent's header where a schema id is known.
    pub value: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
    /// The timestamp, in milliseconds since the Unix epoch; `None`: the moment at which it is sent.
    pub timestamp: Option<i64>,
    /// How many rows are in it; at least 1.
    pub rows: u32,
    /// The number of the first of them, from 1.
    pub first_row: u64,
    /// The number of the last of them. Rejected rows stand between the two only in groups that go on without their bad rows.
    pub last_row: u64,
    /// The physical line on which the first of them starts, from 1.
    pub first_line: u64,
    /// Where the row behind the last of them starts: reading from there gives exactly the rest.
    pub end: Position,
}

/// What [`RecordStream::next`] gives.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next record.
    Record(EncodedRecord<'a>),
    /// Rows that are in no record, each with its reason; at least one. The rows of a rejected group may come in several steps.
    Bad(&'a [BadRow]),
    /// The input has nothing at present: it answered [`WouldBlock`](std::io::ErrorKind::WouldBlock). The next step asks it again.
    Idle,
    /// The input has ended.
    End,
}

/// What [`RecordStream::advance`] came to, with nothing borrowed and nothing moved: a record is put together where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// [`RecordStream::record`].
    Record,
    /// [`RecordStream::bad`].
    Bad,
    Idle,
    End,
}

/// Makes records of the rows of an input, by a plan.
///
/// ```
/// use tidegate_core::encode::ValueFormat;
/// use tidegate_core::read::{CsvFormat, RowReader};
/// use tidegate_core::records::{RecordStream, Step};
/// use tidegate_core::schema::{PlanRequest, RecordPlan};
///
/// let csv = CsvFormat::default();
/// let reader = RowReader::open("ts,cpu\n7,0.5\n".as_bytes(), csv.clone())?;
/// let schema = r#"{"type": "record", "name": "Usage", "fields": [
///     {"name": "ts", "type": "long"}, {"name": "cpu", "type": "double"}]}"#;
/// let plan = RecordPlan::compile(&PlanRequest {
///     format: ValueFormat::Json,
///     ..PlanRequest::new(schema, reader.header())
/// })?;
/// let mut records = RecordStream::new(reader, &plan, None)?;
/// let Step::Record(record) = records.next()? else { panic!("the row is good") };
/// assert_eq!(record.key, Some(&b"7"[..]));
/// assert_eq!(record.value, br#"{"ts":7,"cpu":0.5}"#);
/// assert!(matches!(records.next()?, Step::End));
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RecordStream<'p, R> {
    reader: RowReader<R>,
    plan: &'p RecordPlan,
    /// How many bytes of `value` are the header that all values share.
    header_len: usize,
    /// The value of the record given last; what is behind it means nothing.
    value: Vec<u8>,
    value_len: usize,
    key: KeyBuffer,
    around: Surroundings,
    bad: Vec<BadRow>,
    grouping: Grouping,
    /// The group that was given last.
    group: Complete,
    /// The first row of the record that is the last of the input, where that is marked; 0 for none.
    marked: u64,
    /// Whether that record was given, by this stream or one before it.
    is_marked: bool,
    rows_read: u64,
}

impl<'p, R: Read> RecordStream<'p, R> {
    /// A stream of the rows that `reader` has not read yet. With their schema ids, Avro values and keys get Confluent's header.
    ///
    /// # Errors
    /// [`ErrorKind::InputChanged`] when the reader's header is not the one the plan was compiled for, and [`ErrorKind::Internal`] for a
    /// schema id of what is not Avro and has no place for one.
    pub fn new(
        reader: RowReader<R>,
        plan: &'p RecordPlan,
        schema_ids: impl Into<SchemaIds>,
    ) -> Result<Self> {
        Self::go_on(reader, plan, schema_ids.into(), &InputEnd::default(), false)
    }

    /// As [`new`](Self::new), where the input had ended at the reader's position. With `hold_last` the last group of the input is left unread.
    pub(crate) fn go_on(
        reader: RowReader<R>,
        plan: &'p RecordPlan,
        schema_ids: SchemaIds,
        end: &InputEnd,
        hold_last: bool,
    ) -> Result<Self> {
        check_header(plan.header(), reader.header())?;
        if schema_ids.value.is_some() && plan.format() == ValueFormat::Json {
            return Err(Error::internal(
                "a schema id was given for JSON values, which have no place for one",
            ));
        }
        let key = KeyBuffer::new(plan, schema_ids.key)?;
        let value = schema_ids
            .value
            .map_or_else(Vec::new, |id| confluent_header(id).to_vec());
        Ok(Self {
            header_len: value.len(),
            grouping: Grouping::new(reader.mark(), end, hold_last, key.clone()),
            value_len: 0,
            group: Complete::default(),
            value,
            key,
            around: Surroundings::default(),
            bad: Vec::new(),
            marked: 0,
            is_marked: end.is_marked,
            rows_read: 0,
            reader,
            plan,
        })
    }

    /// The next record, or the next rejected rows.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the input cannot be read. What is wrong with a row is no error but a [`Step::Bad`].
    #[expect(
        clippy::should_implement_trait,
        reason = "a record borrows from the stream, which an Iterator's item cannot"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Step<'_>> {
        Ok(match self.advance()? {
            Given::Record => Step::Record(self.record()),
            Given::Bad => Step::Bad(&self.bad),
            Given::Idle => Step::Idle,
            Given::End => Step::End,
        })
    }

    /// What [`next`](Self::next) does, for callers that ask for the record themselves.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Given> {
        if self.plan.is_grouped() {
            self.advance_group()
        } else {
            self.advance_row()
        }
    }

    /// The record that was given last. Means nothing after anything else.
    #[inline]
    pub(crate) fn record(&mut self) -> EncodedRecord<'_> {
        if self.plan.is_grouped() {
            return self.record_of_group();
        }
        let row = self.reader.current();
        let (first, end) = (row.start(), row.end());
        EncodedRecord {
            key: self.key.key(self.plan, &row),
            value: &self.value[..self.value_len],
            headers: self.around.headers(&self.plan.around),
            timestamp: self.around.timestamp(),
            rows: 1,
            first_row: first.row + 1,
            last_row: first.row + 1,
            first_line: first.line,
            end,
        }
    }

    fn record_of_group(&self) -> EncodedRecord<'_> {
        let group = self.group;
        EncodedRecord {
            key: self.grouping.key(),
            value: &self.value[..self.value_len],
            headers: self.grouping.around().headers(&self.plan.around),
            timestamp: self.grouping.around().timestamp(),
            rows: group.rows,
            first_row: group.first.row + 1,
            last_row: group.end.row,
            first_line: group.first.line,
            end: group.end,
        }
    }

    /// The rejected rows that were given last.
    pub(crate) fn bad(&self) -> &[BadRow] {
        &self.bad
    }

    /// Where a later stream may begin to give exactly what this one has not given yet: behind the last record or rejected row, and, with
    /// groups, never inside one.
    #[must_use]
    pub fn position(&self) -> Position {
        if self.plan.is_grouped() {
            self.grouping.boundary().position
        } else {
            self.reader.position()
        }
    }

    /// Where the reader has come to.
    pub(crate) fn read_to(&self) -> Position {
        self.reader.position()
    }

    /// All that a load keeps of the input at [`position`](Self::position).
    pub(crate) fn place(&mut self) -> Result<Place> {
        let mark = if self.plan.is_grouped() {
            self.grouping.boundary()
        } else {
            self.reader.mark()
        };
        let mut place = self.reader.place(mark)?;
        if self.plan.is_grouped() {
            self.grouping.add_to(&mut place.end);
        }
        place.end.is_marked = self.is_marked;
        Ok(place)
    }

    /// The place before the rejected rows that were given last; with groups, before the first of those given since the last record.
    pub(crate) fn place_before_rejected(&mut self) -> Result<Place> {
        if self.plan.is_grouped() {
            return self.place();
        }
        let mark = self.reader.mark_before();
        let mut place = self.reader.place(mark)?;
        place.end.is_marked = self.is_marked;
        Ok(place)
    }

    /// The record that begins with this row is the last of the input, and is made so.
    pub(crate) fn mark_last(&mut self, first_row: u64) {
        (self.marked, self.grouping.marked) = (first_row, first_row);
    }

    /// What is known of the groups before, to go on with.
    pub(crate) fn remember(&mut self, seen: Option<Box<SeenGroups>>) {
        self.grouping.remember(seen);
    }

    /// Takes that back.
    pub(crate) fn forget(&mut self) -> Option<Box<SeenGroups>> {
        self.grouping.forget()
    }

    /// Notes which record is the last one; behind it there can be no other.
    #[cold]
    fn note_last(&mut self, first: Position) -> Result<()> {
        if self.is_marked {
            let message = "a record begins here, and the one before it was published as the last of the input already";
            let position = ErrorPosition {
                byte: first.byte,
                line: first.line,
                row: first.row + 1,
                column: None,
            };
            return Err(Error::new(ErrorKind::InputChanged, message).at(position));
        }
        self.is_marked = first.row + 1 == self.marked;
        Ok(())
    }

    /// The digest of all that was read for what was given so far.
    pub(crate) fn digest(&mut self) -> Option<PrefixDigest> {
        self.reader.digest()
    }

    /// How many rows were given so far, in records and as rejected ones. At the end these are all rows of the input.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// What was passed over or evened out so far.
    #[must_use]
    pub fn counts(&self) -> ReadCounts {
        self.reader.counts()
    }

    #[inline]
    fn advance_row(&mut self) -> Result<Given> {
        match self.reader.advance(None)? {
            Advance::Row => {}
            Advance::Bad(bad) => {
                self.rows_read += 1;
                return Ok(self.reject(*bad));
            }
            Advance::Idle => return Ok(Given::Idle),
            Advance::End => return Ok(Given::End),
        }
        self.rows_read += 1;
        let row = self.reader.current();
        let quick = self.plan.quick.as_ref();
        let quick = quick.and_then(|quick| quick.encode(&row, &mut self.value, self.header_len));
        if let Some(end) = quick {
            self.value_len = end;
        } else if let Err(bad) = self.encode() {
            return Ok(self.reject(bad));
        }
        let row = self.reader.current();
        if let Err(bad) = self.key.fill(self.plan, &row) {
            return Ok(self.reject(bad));
        }
        if !self.plan.around.is_nothing()
            && let Err(bad) = self.around.fill(self.plan, &row)
        {
            return Ok(self.reject(bad));
        }
        if self.plan.marks_last() {
            let first = row.start();
            self.note_last(first)?;
        }
        Ok(Given::Record)
    }

    /// Runs the plan's operations over the row at hand.
    fn encode(&mut self) -> std::result::Result<(), BadRow> {
        let row = self.reader.current();
        let Shape::Row { ops } = self.plan.shape(row.number() == self.marked) else {
            unreachable!("a row of its own makes no group");
        };
        self.value.truncate(self.header_len);
        let encoded = self.plan.encode(ops, &row, &mut self.value);
        self.value_len = self.value.len();
        encoded.map_err(|error| bad_cell(self.plan, ops, &row, error))
    }

    fn advance_group(&mut self) -> Result<Given> {
        self.bad.clear();
        let group = match self
            .grouping
            .advance(&mut self.reader, self.plan, &mut self.bad)?
        {
            GroupStep::Complete(group) => group,
            GroupStep::Rejected => {
                self.rows_read += self.bad.len() as u64;
                return Ok(Given::Bad);
            }
            GroupStep::Idle => return Ok(Given::Idle),
            GroupStep::End => return Ok(Given::End),
        };
        self.rows_read += u64::from(group.rows);
        if self.plan.marks_last() {
            self.note_last(group.first)?;
        }
        self.value.truncate(self.header_len);
        self.grouping.put_value(self.plan.format, &mut self.value);
        (self.value_len, self.group) = (self.value.len(), group);
        Ok(Given::Record)
    }

    /// Gives one bad row.
    #[cold]
    fn reject(&mut self, bad: BadRow) -> Given {
        self.bad.clear();
        self.bad.push(bad);
        Given::Bad
    }
}

fn check_header(expected: &Header, found: &Header) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InputChanged,
        "the header of the input is not the one that the plan was made for",
    ))
}

/// The bad row of a cell that is no value of its field's type.
#[cold]
pub(crate) fn bad_cell(plan: &RecordPlan, ops: &[Op], row: &Row<'_>, error: CellError) -> BadRow {
    let reason = error.reason(ops, row);
    bad_row(
        row,
        BadRowKind::Value,
        Some(plan.header().names()[error.column].clone()),
        reason,
    )
}

/// The bad row of a key that is not UTF-8.
#[cold]
pub(crate) fn bad_key(plan: &RecordPlan, row: &Row<'_>, column: usize) -> BadRow {
    let reason = format!(
        "expected a key in UTF-8, found {}: {ENCODING_HINT}",
        crate::read::show_text(row.field(column))
    );
    bad_row(
        row,
        BadRowKind::Value,
        Some(plan.header().names()[column].clone()),
        reason,
    )
}

/// A row that was read well and is rejected all the same.
#[cold]
pub(crate) fn bad_row(
    row: &Row<'_>,
    kind: BadRowKind,
    column: Option<String>,
    reason: String,
) -> BadRow {
    BadRow {
        row: row.number(),
        line: row.line(),
        byte: row.start().byte,
        column,
        kind,
        reason,
        raw: row.raw().to_vec(),
        raw_len: row.raw().len() as u64,
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
