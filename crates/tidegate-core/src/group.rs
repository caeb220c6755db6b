//! Grouping: consecutive rows that are equal in the group-by columns make one record.
//!
//! Cells are compared by their text. A group ends where another one begins, or with the input; the same values later in the file begin a new group.
//!
//! A group is sent whole or not at all. So a bad row rejects the group it belongs to: each of its rows is given as a bad row that names the cause. A
//! bad row whose group-by cells were read before its fault belongs to the group they say, unless rows of one group stand on both sides of it:
//! then it belongs to that one. A bad row whose group-by cells cannot be read may belong to the group before it or the one behind it, and rejects
//! both.
//!
//! Rows of a rejected group are given as soon as that is known; only those of a group that may still be sent are held, up to
//! [`MAX_GROUP_SIZE`].
//!
//! A group that only the end of the input ended may go on should the input grow. What was decided about it is kept ([`LastGroup`]), and a row
//! behind it that would have decided it otherwise is an error; or, with `hold_last`, nothing is decided, and the input ends before it.

use std::io::Read;

use crate::around::Surroundings;
use crate::digest::Hash128;
use crate::encode::{ValueFormat, put_long};
use crate::error::ErrorPosition;
use crate::key::KeyBuffer;
use crate::limits::{MAX_GROUP_ROWS, MAX_GROUP_SIZE};
use crate::position::{InputEnd, LastGroup, Stray};
use crate::read::reader::Advance;
use crate::read::{
    BadRow, BadRowKind, Mark, Marks, Position, ReadCounts, Row, RowReader, show_text,
};
use crate::records::{bad_cell, bad_row};
use crate::schema::{RecordPlan, Shape};
use crate::seen::{SeenGroups, digest_of};
use crate::{Error, ErrorKind, Result};

/// A group that is complete.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Complete {
    pub(crate) rows: u32,
    pub(crate) first: Position,
    pub(crate) end: Position,
}

/// What [`Grouping::advance`] came to.
#[derive(Debug)]
pub(crate) enum GroupStep {
    Complete(Complete),
    /// Rows were rejected.
    Rejected,
    /// The input has nothing at present.
    Idle,
    End,
}

/// The cells of one row in the group-by columns.
#[derive(Debug, Default)]
struct GroupValues {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl GroupValues {
    fn set<'a>(&mut self, texts: impl Iterator<Item = &'a [u8]>) {
        self.bytes.clear();
        self.ends.clear();
        for text in texts {
            self.bytes.extend_from_slice(text);
            self.ends.push(self.bytes.len());
        }
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }

    /// As [`LastGroup::cells`] has it.
    fn digest(&self) -> Hash128 {
        digest_of(self.texts(), &mut Vec::new())
    }

    /// Runs for every row, so it is written out: left to an iterator it became a call.
    #[inline]
    fn are_those_of(&self, row: &Row<'_>, columns: &[usize]) -> bool {
        let mut start = 0;
        for (column, end) in columns.iter().zip(&self.ends) {
            if row.field(*column) != &self.bytes[start..*end] {
                return false;
            }
            start = *end;
        }
        true
    }
}

/// A row of the open group, of which only the place is kept; its raw bytes stand in [`Grouping::held_raw`].
#[derive(Debug, Clone, Copy)]
struct HeldRow {
    start: Position,
    raw_end: usize,
}

/// How far the open group is.
#[derive(Debug, Default)]
enum State {
    /// No group is open.
    #[default]
    Between,
    /// Its rows are held.
    Open,
    /// It is rejected, for this reason.
    Rejected(String),
}

/// The group at hand.
#[derive(Debug)]
pub(crate) struct Grouping {
    state: State,
    values: GroupValues,
    first: Position,
    rows: u32,
    held: Vec<HeldRow>,
    held_raw: Vec<u8>,
    before: Vec<u8>,
    items: Vec<u8>,
    after: Vec<u8>,
    key: Vec<u8>,
    has_key: bool,
    /// Where the key of a row is made.
    row_key: KeyBuffer,
    around: Surroundings,
    /// The cells of its first row in the columns that must be equal in all of them.
    shared: GroupValues,
    /// The groups there were before.
    seen: Option<Box<SeenGroups>>,
    /// The first row of the record that is the last of its input, where that is marked; 0 for none.
    pub(crate) marked: u64,
    /// What is known about the bad rows since the last good one.
    stray: Stray,
    /// Bad rows behind the open group that may turn out to be inside it.
    strays: Vec<BadRow>,
    strays_size: usize,
    /// The last bad row that was given.
    given: u64,
    /// A row was read that is not in a group yet.
    row_at_hand: bool,
    input_ended: bool,
    /// Where the last group that was given ends, and the last row of the open one.
    marks: Marks,
    /// The group that the end of the input ended: in this run, or in the one before, until another group begins.
    closed: Option<LastGroup>,
    /// What of that is known at the boundary.
    known: Known,
    /// Whether the last group of the input is left for later.
    hold_last: bool,
    is_held: bool,
}

/// What a position says of groups.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    group: Option<LastGroup>,
    stray: Stray,
}

impl Grouping {
    pub(crate) fn new(start: Mark, end: &InputEnd, hold_last: bool, row_key: KeyBuffer) -> Self {
        let (group, stray) = (end.group, end.stray);
        Self {
            state: State::Between,
            values: GroupValues::default(),
            first: start.position,
            rows: 0,
            held: Vec::new(),
            held_raw: Vec::new(),
            before: Vec::new(),
            items: Vec::new(),
            after: Vec::new(),
            key: Vec::new(),
            has_key: false,
            row_key,
            around: Surroundings::default(),
            shared: GroupValues::default(),
            seen: None,
            marked: 0,
            stray,
            strays: Vec::new(),
            strays_size: 0,
            given: 0,
            row_at_hand: false,
            input_ended: false,
            marks: Marks {
                boundary: start,
                end: start,
            },
            closed: group,
            known: Known { group, stray },
            hold_last,
            is_held: false,
        }
    }

    /// Behind the last group that was given, whether as a record or row by row.
    pub(crate) fn boundary(&self) -> Mark {
        self.marks.boundary
    }

    /// Adds to `end` what was decided at the boundary because the input ended there.
    pub(crate) fn add_to(&self, end: &mut InputEnd) {
        (end.group, end.stray) = (self.known.group, self.known.stray);
        end.is_held |= self.is_held;
    }

    /// Reads on until there is something to give. Rejected rows are in `bad`.
    pub(crate) fn advance<R: Read>(
        &mut self,
        reader: &mut RowReader<R>,
        plan: &RecordPlan,
        bad: &mut Vec<BadRow>,
    ) -> Result<GroupStep> {
        while bad.is_empty() {
            if self.row_at_hand {
                let counts = reader.counts();
                if let Some(complete) = self.place(&reader.current(), counts, plan, bad)? {
                    return Ok(GroupStep::Complete(complete));
                }
                continue;
            }
            if self.input_ended {
                if self.hold_last && !matches!(self.state, State::Between) {
                    self.is_held = true;
                    return Ok(GroupStep::End);
                }
                if let Some(complete) = self.end_group(plan, bad) {
                    return Ok(GroupStep::Complete(complete));
                }
                if bad.is_empty() {
                    self.marks.boundary = reader.mark();
                    self.known = Known {
                        group: self.closed,
                        stray: self.stray,
                    };
                    return Ok(GroupStep::End);
                }
                continue;
            }
            match reader.advance(Some(&self.marks))? {
                Advance::Row => self.row_at_hand = true,
                Advance::Bad(row) => self.stray(*row, reader, plan, bad)?,
                Advance::Idle => return Ok(GroupStep::Idle),
                Advance::End => self.input_ended = true,
            }
        }
        Ok(GroupStep::Rejected)
    }

    /// Puts the row at hand into the open group or a new one; or ends the open group first and leaves the row at hand.
    fn place(
        &mut self,
        row: &Row<'_>,
        counts: ReadCounts,
        plan: &RecordPlan,
        bad: &mut Vec<BadRow>,
    ) -> Result<Option<Complete>> {
        let columns = &plan.group_columns;
        if matches!(self.state, State::Between) {
            if self.give_strays(bad) {
                return Ok(None);
            }
            self.begin(row, plan)?;
        } else if self.values.are_those_of(row, columns) {
            if self.stray != Stray::None && matches!(self.state, State::Open) {
                if plan.partial_groups {
                    self.give_strays(bad);
                } else {
                    self.reject("a row inside it cannot be read", plan, bad);
                }
            }
            self.stray = Stray::None;
        } else {
            return Ok(self.end_group(plan, bad));
        }
        self.row_at_hand = false;
        self.marks.end = Mark {
            position: row.end(),
            counts,
        };
        self.add(row, plan, bad);
        Ok(None)
    }

    /// Closes the open group, if there is one; a sound one is complete. Bad rows behind it are given once it is closed.
    fn end_group(&mut self, plan: &RecordPlan, bad: &mut Vec<BadRow>) -> Option<Complete> {
        let is_spoiled = self.stray == Stray::Unknown && !plan.partial_groups;
        if matches!(self.state, State::Open) && is_spoiled {
            self.reject(
                "a row behind it cannot be read and may belong to it",
                plan,
                bad,
            );
        }
        let is_open = match std::mem::take(&mut self.state) {
            State::Between => {
                self.give_strays(bad);
                return None;
            }
            State::Rejected(_) => false,
            // All rows of a partial group may be bad.
            State::Open => self.rows > 0,
        };
        if self.input_ended {
            self.closed = Some(LastGroup {
                cells: self.values.digest(),
                is_published: is_open,
            });
        }
        // Rows behind a rejected group may have been given already: then no load goes on right behind it.
        if self.given <= self.marks.end.position.row {
            self.marks.boundary = self.marks.end;
            self.known = Known {
                group: self.closed,
                stray: Stray::None,
            };
        }
        is_open.then_some(Complete {
            rows: self.rows,
            first: self.first,
            end: self.marks.end.position,
        })
    }

    fn begin(&mut self, row: &Row<'_>, plan: &RecordPlan) -> Result<()> {
        self.values
            .set(plan.group_columns.iter().map(|column| row.field(*column)));
        if let Some(closed) = self.closed.take()
            && closed.cells == self.values.digest()
        {
            return Err(self.continued(closed, row, plan));
        }
        if let Some(seen) = &mut self.seen {
            let name = || named(&self.values, plan);
            seen.begin(self.values.texts(), row, plan.strict_groups, name)?;
        }
        self.first = row.start();
        self.rows = 0;
        self.held.clear();
        self.held_raw.clear();
        self.items.clear();
        let stray = std::mem::take(&mut self.stray);
        self.state = match stray {
            _ if plan.partial_groups => State::Open,
            Stray::Unknown => {
                State::Rejected("a row before it cannot be read and may belong to it".into())
            }
            Stray::Of(cells) if cells == self.values.digest() => {
                State::Rejected("a row of it cannot be read".into())
            }
            Stray::Of(_) | Stray::None => State::Open,
        };
        Ok(())
    }

    /// The error of a row that belongs to the group which the end of the input had ended.
    #[cold]
    fn continued(&self, closed: LastGroup, row: &Row<'_>, plan: &RecordPlan) -> Error {
        let group = self.named(plan);
        let message = format!(
            "it belongs to the group that was the last of the input ({group}), and {}",
            done(closed)
        );
        let position = ErrorPosition {
            byte: row.start().byte,
            line: row.line(),
            row: row.number(),
            column: None,
        };
        Error::new(ErrorKind::InputChanged, message).at(position)
    }

    /// Adds a row to the group it belongs to.
    fn add(&mut self, row: &Row<'_>, plan: &RecordPlan, bad: &mut Vec<BadRow>) {
        if let State::Rejected(cause) = &self.state {
            bad.push(bad_row(
                row,
                BadRowKind::Group,
                None,
                self.reason(cause, plan),
            ));
            return;
        }
        let items = self.items.len();
        if let Err(mut fault) = self.encode(row, plan) {
            if plan.partial_groups {
                self.items.truncate(items);
                bad.push(fault);
                return;
            }
            let cause = fault.to_string();
            fault.reason.push_str("; its group is rejected with it");
            self.reject(&cause, plan, bad);
            bad.push(fault);
            return;
        }
        if self.rows == 0 {
            self.first = row.start();
        }
        self.rows += 1;
        self.held_raw.extend_from_slice(row.raw());
        self.held.push(HeldRow {
            start: row.start(),
            raw_end: self.held_raw.len(),
        });
        let size = self
            .held_raw
            .len()
            .max(self.before.len() + self.items.len() + self.after.len());
        if size > MAX_GROUP_SIZE || self.held.len() > MAX_GROUP_ROWS {
            let cause = format!(
                "it is larger than {} MiB or {MAX_GROUP_ROWS} rows: is the input sorted by the group-by columns, and are they the right ones?",
                MAX_GROUP_SIZE >> 20
            );
            self.reject(&cause, plan, bad);
        }
    }

    fn encode(&mut self, row: &Row<'_>, plan: &RecordPlan) -> Result<(), BadRow> {
        let Shape::Group {
            before,
            items,
            after,
        } = plan.shape(row.number() == self.marked)
        else {
            unreachable!("rows are grouped by plans with groups only");
        };
        if self.rows == 0 {
            self.before.clear();
            self.after.clear();
            for (ops, out) in [(before, &mut self.before), (after, &mut self.after)] {
                plan.encode(ops, row, out)
                    .map_err(|error| bad_cell(plan, ops, row, error))?;
            }
            self.row_key.fill(plan, row)?;
            if !plan.around.is_nothing() {
                self.around.fill(plan, row)?;
            }
            let key = self.row_key.key(plan, row);
            self.has_key = key.is_some();
            self.key.clear();
            self.key.extend_from_slice(key.unwrap_or_default());
            let shared = plan.shared_columns.iter();
            self.shared.set(shared.map(|column| row.field(*column)));
        } else {
            if !self.shared.are_those_of(row, &plan.shared_columns) {
                return Err(self.unequal(row, plan));
            }
            if plan.format == ValueFormat::Json {
                self.items.push(b',');
            }
        }
        plan.encode(items, row, &mut self.items)
            .map_err(|error| bad_cell(plan, items, row, error))
    }

    /// The bad row of a cell that is not what it is in the first row of the group, though the whole group has it once.
    #[cold]
    fn unequal(&self, row: &Row<'_>, plan: &RecordPlan) -> BadRow {
        let columns = plan.shared_columns.iter().zip(&plan.shared_uses);
        let mut cells = columns.zip(self.shared.texts());
        let differs = cells.find(|((column, _), text)| row.field(**column) != *text);
        let Some(((column, used_for), text)) = differs else {
            unreachable!("one of the cells differs");
        };
        let name = &plan.header().names()[*column];
        let reason = format!(
            "the column `{name}` makes {used_for}, so it must be the same in all rows of a group: it is {} in row {} and {} in row {}",
            show_text(text),
            self.first.row + 1,
            show_text(row.field(*column)),
            row.number()
        );
        bad_row(row, BadRowKind::Value, Some(name.clone()), reason)
    }

    /// A bad row was read.
    #[cold]
    fn stray<R: Read>(
        &mut self,
        row: BadRow,
        reader: &RowReader<R>,
        plan: &RecordPlan,
        bad: &mut Vec<BadRow>,
    ) -> Result<()> {
        let cells: Option<Vec<Vec<u8>>> = plan
            .group_columns
            .iter()
            .map(|column| reader.sound_field(&row, *column))
            .collect();
        let values = cells.map(|cells| {
            let mut values = GroupValues::default();
            values.set(cells.iter().map(Vec::as_slice));
            values
        });
        let cells = values.as_ref().map(GroupValues::digest);
        if let Some(closed) = self.closed {
            refuse_stray(closed, cells, &row)?;
        }
        let is_inside =
            !matches!(self.state, State::Between) && cells == Some(self.values.digest());
        if is_inside {
            self.stray = Stray::None;
            self.marks.end = reader.mark();
            if matches!(self.state, State::Open) {
                if plan.partial_groups {
                    self.give_strays(bad);
                } else {
                    let cause = row.to_string();
                    self.reject(&cause, plan, bad);
                }
            }
            bad.push(row);
            return Ok(());
        }
        self.stray = match cells {
            Some(cells) if self.stray != Stray::Unknown => Stray::Of(cells),
            _ => Stray::Unknown,
        };
        if !matches!(self.state, State::Open) {
            self.given = row.row;
            bad.push(row);
            return Ok(());
        }
        self.strays_size += row.raw.len();
        self.strays.push(row);
        if self.strays_size > MAX_GROUP_SIZE || self.strays.len() > MAX_GROUP_ROWS {
            // Too many to wait for what comes behind them.
            self.stray = Stray::Unknown;
            self.reject(
                "the rows behind it cannot be read and may belong to it",
                plan,
                bad,
            );
        }
        Ok(())
    }

    /// Rejects the open group: its rows, and the bad ones read since, are given.
    #[cold]
    fn reject(&mut self, cause: &str, plan: &RecordPlan, bad: &mut Vec<BadRow>) {
        let reason = self.reason(cause, plan);
        let mut raw_start = 0;
        for row in self.held.drain(..) {
            let raw = self.held_raw[raw_start..row.raw_end].to_vec();
            raw_start = row.raw_end;
            bad.push(BadRow {
                row: row.start.row + 1,
                line: row.start.line,
                byte: row.start.byte,
                column: None,
                kind: BadRowKind::Group,
                reason: reason.clone(),
                raw_len: raw.len() as u64,
                raw,
            });
        }
        self.give_strays(bad);
        self.state = State::Rejected(cause.to_owned());
    }

    /// Gives the bad rows that were held back, and says whether there were any.
    fn give_strays(&mut self, bad: &mut Vec<BadRow>) -> bool {
        self.strays_size = 0;
        self.given = self.strays.last().map_or(self.given, |row| row.row);
        bad.append(&mut self.strays);
        !bad.is_empty()
    }

    fn reason(&self, cause: &str, plan: &RecordPlan) -> String {
        format!("rejected with its group ({}): {cause}", self.named(plan))
    }

    /// The group by its cells, for people.
    fn named(&self, plan: &RecordPlan) -> String {
        named(&self.values, plan)
    }

    /// Gives it what is known of the groups before.
    pub(crate) fn remember(&mut self, seen: Option<Box<SeenGroups>>) {
        self.seen = seen;
    }

    /// Takes that back.
    pub(crate) fn forget(&mut self) -> Option<Box<SeenGroups>> {
        self.seen.take()
    }

    /// Appends the value of the group that was completed last.
    pub(crate) fn put_value(&self, format: ValueFormat, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        if format == ValueFormat::Avro {
            // The array is one block: the count of its items, then the items, then an empty block.
            put_long(out, i64::from(self.rows));
        }
        out.extend_from_slice(&self.items);
        if format == ValueFormat::Avro {
            put_long(out, 0);
        }
        out.extend_from_slice(&self.after);
    }

    /// What stands around the value of the group that was completed last.
    pub(crate) fn around(&self) -> &Surroundings {
        &self.around
    }

    /// The key of the group that was completed last.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.has_key.then_some(&self.key)
    }
}

/// A group by its cells, for people.
fn named(values: &GroupValues, plan: &RecordPlan) -> String {
    let names = plan.group_columns();
    let values = names.iter().zip(values.texts());
    let values: Vec<_> = values
        .map(|(name, text)| format!("{name} = {}", show_text(text)))
        .collect();
    values.join(", ")
}

/// A bad row behind the group that the end of the input had ended must not be one that would have changed what became of it.
fn refuse_stray(closed: LastGroup, cells: Option<Hash128>, row: &BadRow) -> Result<()> {
    let belongs = match cells {
        Some(cells) if cells == closed.cells => "belongs",
        // What cannot be read rejects the group before it; one that was rejected anyway stays so.
        None if closed.is_published => "may belong",
        _ => return Ok(()),
    };
    let message = format!(
        "it {belongs} to the group that was the last of the input, and {}; besides, it is a bad row: {}",
        done(closed),
        row.reason
    );
    let position = ErrorPosition {
        byte: row.byte,
        line: row.line,
        row: row.row,
        column: row.column.clone(),
    };
    Err(Error::new(ErrorKind::InputChanged, message).at(position))
}

/// What became of a group.
fn done(closed: LastGroup) -> &'static str {
    if closed.is_published {
        "its record was published already"
    } else {
        "its rows were rejected already"
    }
}

#[cfg(test)]
mod tests;
