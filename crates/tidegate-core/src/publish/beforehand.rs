//! What must be known of an input before it is loaded, and takes reading it: which of its records is the last one, and which groups an earlier run has
//! loaded.

use std::io::Read;
use std::sync::atomic::Ordering;

use crate::encode::SchemaIds;
use crate::position::{InputEnd, LoadPosition};
use crate::publish::PublishOptions;
use crate::publish::inputs::Told;
use crate::read::{Position, RowReader, Source, Start};
use crate::records::{RecordStream, Step};
use crate::seen::SeenGroups;
use crate::{Error, ErrorKind, Result};

/// Steps between two looks at the interrupt flag.
const STEPS_PER_LOOK: u64 = 4_096;

/// Tells the stream which record of its input is the last one, where that is marked. To find it the whole input is read once more, by the same plan: any
/// row behind may be a bad one.
pub(super) fn mark_last<S: Source, R: Read>(
    source: &S,
    position: &LoadPosition,
    rows_before: u64,
    options: &PublishOptions<'_>,
    stream: &mut RecordStream<'_, R>,
) -> Result<()> {
    if !options.plan.marks_last() {
        return Ok(());
    }
    let mut found = || match last_record(source, rows_before, options)? {
        Some((first_row, last_row)) => {
            if last_row <= position.input.row && !position.end.is_marked {
                let message = format!(
                    "the record of row {first_row} is the last of the input, and was published as one with others behind it"
                );
                return Err(Error::new(ErrorKind::InputChanged, message));
            }
            stream.mark_last(first_row);
            Ok(())
        }
        None => Ok(()),
    };
    found().map_err(|error: Error| error.in_source(source.name()))
}

/// First and last row of the last record of an input; `None` without any, or when the load is interrupted meanwhile.
fn last_record<S: Source>(
    source: &S,
    rows_before: u64,
    options: &PublishOptions<'_>,
) -> Result<Option<(u64, u64)>> {
    let input = source
        .open()
        .map_err(|error| Error::input("cannot open the input", error))?;
    let (plan, start) = (
        options.plan,
        Start {
            position: Position {
                row: rows_before,
                ..Position::START
            },
            ..Start::default()
        },
    );
    let reader = RowReader::go_on(input, options.csv, plan.header(), start)?;
    let mut stream = RecordStream::go_on(
        reader,
        plan,
        SchemaIds::default(),
        &InputEnd::default(),
        false,
    )?;
    let (mut last, mut steps) = (None, 0_u64);
    loop {
        steps += 1;
        if steps.is_multiple_of(STEPS_PER_LOOK) && options.interrupt.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match stream.next()? {
            Step::Record(record) => last = Some((record.first_row, record.last_row)),
            Step::Bad(_) | Step::Idle => {}
            Step::End => return Ok(last),
        }
    }
}

/// The groups of what was loaded before, where one that comes again is an error.
pub(super) fn seen_groups<S: Source>(
    sources: &[S],
    position: &LoadPosition,
    options: &PublishOptions<'_>,
    told: Told<'_>,
) -> Result<Option<Box<SeenGroups>>> {
    let plan = options.plan;
    if !plan.is_grouped() {
        return Ok(None);
    }
    let mut seen = Box::<SeenGroups>::default();
    if plan.strict_groups && position.bytes() > 0 {
        let mut rows_before = 0;
        let ends = position.finished.iter().map(|input| input.digest.bytes);
        let rows = position.finished.iter().map(|input| input.rows).chain([0]);
        let ends = ends.chain([position.input.byte]);
        for ((source, end), rows) in sources.iter().zip(ends).zip(rows) {
            let mut learn = || {
                let input = source
                    .open()
                    .map_err(|error| Error::input("cannot open the input", error))?;
                let reader = RowReader::open(input, options.csv.clone())?;
                let columns = (plan.group_columns.as_slice(), rows_before);
                seen.learn(reader, columns, end, &mut *told)
            };
            learn().map_err(|error: Error| error.in_source(source.name()))?;
            rows_before += rows;
        }
    }
    Ok(Some(seen))
}
