//! The inputs of a load, one behind the other: which of them is read, and that those before it are still what they were.
//!
//! Each input is a [`RecordStream`] of its own. Rows are numbered through all of them; bytes and lines begin anew in each.

use std::io::{self, Read};

use crate::digest::{PrefixDigest, PrefixHasher};
use crate::error::ErrorPosition;
use crate::limits::READ_BUFFER;
use crate::position::{FinishedInput, LoadPosition};
use crate::publish::PublishOptions;
use crate::publish::beforehand::mark_last;
use crate::read::{Position, RowReader, Source, Start};
use crate::records::RecordStream;
use crate::seen::SeenGroups;
use crate::{Error, ErrorKind, Result};

/// Told how many bytes were just read again; its error ends that.
pub(super) type Told<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// The input that is read, and those behind it.
pub(super) struct Inputs<'a, 'p, S: Source> {
    sources: &'a [S],
    options: &'a PublishOptions<'p>,
    /// Which of them is read, from 0.
    index: usize,
    /// Rows of those before it.
    rows_before: u64,
    pub(super) stream: RecordStream<'p, S::Reader>,
}

impl<'a, 'p, S: Source> Inputs<'a, 'p, S> {
    /// Brings the inputs to `position`, having read what stands before it again.
    pub(super) fn open(
        sources: &'a [S],
        position: &LoadPosition,
        options: &'a PublishOptions<'p>,
        seen: Option<Box<SeenGroups>>,
        told: Told<'_>,
    ) -> Result<Self> {
        check_finished(sources, &position.finished, told)?;
        let index = position.finished.len();
        let Some(source) = sources.get(index) else {
            return Err(too_few(index + 1, sources.len()));
        };
        let is_last = index + 1 == sources.len();
        let rows_before = position.finished.iter().map(|input| input.rows).sum();
        let mut stream = open(source, position, options, is_last, told)?;
        mark_last(source, position, rows_before, options, &mut stream)?;
        stream.remember(seen);
        Ok(Self {
            sources,
            options,
            index,
            rows_before,
            stream,
        })
    }

    /// Whether there are no others behind the one that is read.
    pub(super) fn is_last(&self) -> bool {
        self.index + 1 == self.sources.len()
    }

    /// What the input that is read is called.
    pub(super) fn name(&self) -> Option<String> {
        self.sources[self.index].name()
    }

    /// Whether there are several to tell apart.
    pub(super) fn are_several(&self) -> bool {
        self.sources.len() > 1
    }

    /// Goes on with the next input behind one that has ended, and gives what that was; `None` behind the last.
    pub(super) fn next_source(&mut self) -> Result<Option<FinishedInput>> {
        if self.is_last() {
            return Ok(None);
        }
        let digest = self.stream.digest();
        let digest = digest.ok_or_else(|| Error::internal("an input was read without a digest"))?;
        let row = self.stream.read_to().row;
        let start = LoadPosition {
            input: Position {
                row,
                ..Position::START
            },
            ..LoadPosition::start()
        };
        let finished = FinishedInput {
            digest,
            rows: row - self.rows_before,
        };
        self.index += 1;
        self.rows_before = row;
        let next = &self.sources[self.index];
        // Nothing stands before the start.
        let seen = self.stream.forget();
        self.stream = open(next, &start, self.options, self.is_last(), &mut |_| Ok(()))?;
        mark_last(next, &start, row, self.options, &mut self.stream)?;
        self.stream.remember(seen);
        Ok(Some(finished))
    }
}

/// The records of an input from `position` on.
fn open<'p, S: Source>(
    source: &S,
    position: &LoadPosition,
    options: &PublishOptions<'p>,
    is_last: bool,
    told: Told<'_>,
) -> Result<RecordStream<'p, S::Reader>> {
    let mut opened = || {
        let mut input = source
            .open()
            .map_err(|error| Error::input("cannot open the input", error))?;
        let hasher = hash_known(&mut input, &position.prefix, told)?;
        refuse_closed_quote(source, position)?;
        // Only the last one may still grow.
        let (header, hold_last) = (options.plan.header(), options.hold_last && is_last);
        let start = Start {
            position: position.input,
            end: position.end,
            hasher: Some(hasher),
            hold_last,
        };
        let reader = RowReader::go_on(input, options.csv, header, start)?;
        let (plan, schema_ids) = (options.plan, options.schema_ids);
        RecordStream::go_on(reader, plan, schema_ids, &position.end, hold_last)
    };
    opened().map_err(|error: Error| error.in_source(source.name()))
}

/// Reads the inputs again that were read to their ends, to see that they still are what they were, and end where they did.
fn check_finished<S: Source>(
    sources: &[S],
    finished: &[FinishedInput],
    told: Told<'_>,
) -> Result<()> {
    for (source, known) in sources.iter().zip(finished) {
        match has_grown(source, &known.digest, told) {
            Ok(false) => {}
            Ok(true) => {
                let message = format!(
                    "the input has grown since the load read it to its end ({} bytes) and went on with the next one",
                    known.digest.bytes
                );
                let error = Error::new(ErrorKind::InputChanged, message);
                return Err(error.in_source(source.name()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether there is more in the inputs than a load had read at `known`, with which they must begin.
///
/// # Errors
/// [`ErrorKind::InputChanged`] when they begin otherwise; [`ErrorKind::Input`] when one cannot be read.
pub fn has_more<S: Source>(sources: &[S], known: &LoadPosition) -> Result<bool> {
    let told = &mut |_| Ok(());
    check_finished(sources, &known.finished, told)?;
    let index = known.finished.len();
    let Some(source) = sources.get(index) else {
        return Err(too_few(index + 1, sources.len()));
    };
    Ok(has_grown(source, &known.prefix, told)? || sources.len() > index + 1)
}

/// Whether there is more in the input than `known`, with which it must begin.
fn has_grown<S: Source>(source: &S, known: &PrefixDigest, told: Told<'_>) -> Result<bool> {
    let mut grown = || {
        let mut input = source.open().map_err(unreadable)?;
        let mut hasher = hash_known(&mut input, known, told)?;
        hash_up_to(&mut input, known.bytes + 1, &mut hasher, &mut [0], told)?;
        Ok(hasher.bytes() > known.bytes)
    };
    grown().map_err(|error: Error| error.in_source(source.name()))
}

/// Reads what is known of an input again, to see that it is still the same, and gives the hasher as it is behind that.
fn hash_known(input: &mut impl Read, known: &PrefixDigest, told: Told<'_>) -> Result<PrefixHasher> {
    let mut hasher = PrefixHasher::new();
    hash_up_to(
        input,
        known.bytes,
        &mut hasher,
        &mut vec![0; READ_BUFFER],
        told,
    )?;
    if hasher.digest() != *known {
        return Err(changed(known.bytes, hasher.bytes()));
    }
    Ok(hasher)
}

/// Rows behind a quote that only the end of the input had ended are rows only as long as it ends there.
fn refuse_closed_quote<S: Source>(source: &S, position: &LoadPosition) -> Result<()> {
    let Some(quote) = position.end.open_quote else {
        return Ok(());
    };
    let mut input = source.open().map_err(unreadable)?;
    let (mut hasher, mut buffer) = (PrefixHasher::new(), vec![0; READ_BUFFER]);
    let told = &mut |_| Ok(());
    hash_up_to(&mut input, quote.length + 1, &mut hasher, &mut buffer, told)?;
    if hasher.bytes() == quote.length {
        return Ok(());
    }
    let message = "a quote in it was not closed when it was loaded, so what stands behind was taken for rows of its own; the input has grown since, and may close it";
    let place = ErrorPosition {
        byte: quote.row.byte,
        line: quote.row.line,
        row: quote.row.row + 1,
        column: None,
    };
    Err(Error::new(ErrorKind::InputChanged, message).at(place))
}

/// The error of an input that does not begin as the load knows it.
fn changed(known: u64, found: u64) -> Error {
    let message = format!(
        "the input is not the one the load began with: its first {known} bytes have changed (it has {found} of them)"
    );
    Error::new(ErrorKind::InputChanged, message)
}

/// The error of a load that had come to more inputs than there are.
fn too_few(known: usize, found: usize) -> Error {
    let message = format!(
        "the inputs are not those the load began with: it has come to the one of number {known}, and there are {found}"
    );
    Error::new(ErrorKind::InputChanged, message)
}

/// Hashes `input` up to `end` bytes in all, or to its own end.
fn hash_up_to(
    input: &mut impl Read,
    end: u64,
    hasher: &mut PrefixHasher,
    buffer: &mut [u8],
    told: Told<'_>,
) -> Result<()> {
    while hasher.bytes() < end {
        let wanted = usize::try_from(end - hasher.bytes()).unwrap_or(usize::MAX);
        let size = wanted.min(buffer.len());
        match input.read(&mut buffer[..size]) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                told(read as u64)?;
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(())
}

fn unreadable(error: io::Error) -> Error {
    Error::input("cannot read the input again", error)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}
