//! The inputs of a command, in their order: several files, or one stream.
//!
//! All of them are opened before anything is done, so that a mistyped name or another header is found at once.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::Path;

use tidegate::core::encode::{CellFormat, TimeAmbiguity, ValueFormat};
use tidegate::core::infer::{InferOptions, Inferred, infer_all};
use tidegate::core::job::JobIdentity;
use tidegate::core::key::KeyChoice;
use tidegate::core::limits::MAX_INPUTS;
use tidegate::core::read::{CsvFormat, Header};
use tidegate::core::schema::{PlanRequest, RecordPlan};

use crate::args::{AmbiguityChoice, CsvArgs, Format, JsonTimes, RecordArgs};
use crate::failure::{Failure, Kind};
use crate::input::Input;
use crate::report::grouped;
use crate::service::Context;
use crate::signals::Interrupt;
use crate::values::Pair;

/// Opened inputs, at least one. All of them are written in the same way and have the same header.
#[derive(Debug)]
pub(crate) struct Inputs {
    all: Vec<Input>,
    csv: CsvArgs,
    format: CsvFormat,
    cells: CellFormat,
    header: Header,
}

impl Inputs {
    /// Opens them (`-` is standard input) and reads their headers.
    pub(crate) fn prepare<P: AsRef<Path>>(
        paths: &[P],
        csv: &CsvArgs,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let format = csv_format(csv)?;
        if paths.len() > MAX_INPUTS {
            let message = format!(
                "{} inputs: one load takes at most {MAX_INPUTS}, for its position names them all",
                grouped(paths.len() as u64)
            );
            let failure = Failure::new(Kind::Usage, message);
            return Err(failure.hint("load them in several runs, each with a --job of its own"));
        }
        if paths.len() > 1 {
            paths
                .iter()
                .try_for_each(|path| refuse_stream(path.as_ref()))?;
        }
        let open = |path: &P| Input::prepare(path.as_ref(), &format, interrupt);
        let all: Vec<Input> = paths.iter().map(open).collect::<Result<_, _>>()?;
        let Some(first) = all.first() else {
            return Err(Failure::new(Kind::Usage, "there is no input"));
        };
        let header = first.header().clone();
        check_several(&all)?;
        Ok(Self {
            all,
            csv: csv.resolved(),
            format,
            cells: cell_format(csv),
            header,
        })
    }

    /// Each of them, in order.
    pub(crate) fn all(&self) -> &[Input] {
        &self.all
    }

    /// What they are called in messages.
    pub(crate) fn name(&self) -> String {
        match self.all.as_slice() {
            [] => String::new(),
            [only] => only.name(),
            [first, second] => format!("{} and {}", first.name(), second.name()),
            [first, others @ ..] => format!("{} and {} others", first.name(), others.len()),
        }
    }

    /// What they are called in receipts and positions.
    pub(crate) fn identities(&self) -> Vec<String> {
        self.all.iter().map(Input::identity).collect()
    }

    /// The id of the job of a load to `topic` that was given none.
    pub(crate) fn default_job(&self, topic: &str) -> String {
        let first = self.all.first().map(Input::identity).unwrap_or_default();
        JobIdentity::default_id(topic, &first)
    }

    /// How they are written.
    pub(crate) fn format(&self) -> &CsvFormat {
        &self.format
    }

    /// How they are written, as it would be typed, with nothing left to a default.
    pub(crate) fn csv(&self) -> &CsvArgs {
        &self.csv
    }

    /// Their length in bytes, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.all.iter().map(Input::length).sum()
    }

    /// Whether they can be read again.
    pub(crate) fn is_file(&self) -> bool {
        self.all.iter().all(Input::is_file)
    }

    /// Whether they are compressed files.
    pub(crate) fn are_compressed(&self) -> bool {
        self.all.iter().all(Input::is_compressed)
    }

    /// Reads those to their ends that are compressed, unless that was done.
    pub(crate) fn check(&self, context: &Context) -> Result<(), Failure> {
        self.all.iter().try_for_each(|input| input.check(context))
    }

    /// How many they are and how large, for people.
    pub(crate) fn describe(&self) -> String {
        if let [only] = self.all.as_slice() {
            return only.describe();
        }
        let mut parts = vec![format!("{} files", grouped(self.all.len() as u64))];
        if let Some(bytes) = self.length() {
            parts.push(format!("{} bytes", grouped(bytes)));
        }
        if let Some(rows) = self.all.iter().map(Input::rows_guess).sum::<Option<u64>>() {
            parts.push(format!("about {} rows", grouped(rows)));
        }
        parts.join(", ")
    }

    /// Infers a schema from the rows.
    pub(crate) fn infer(
        &self,
        record_name: &str,
        group_by: &[String],
        format: Format,
    ) -> Result<Inferred, Failure> {
        if !self.is_file() {
            let failure = Failure::new(
                Kind::Usage,
                format!(
                    "no schema: {} can be read only once, so none can be inferred from it",
                    self.name()
                ),
            );
            return Err(failure.hint(
                "--schema FILE.avsc names one; `tidegate schema infer` makes one from a file",
            ));
        }
        let options = InferOptions {
            record_name,
            group_by,
            cells: &self.cells,
            format: value_format(format),
        };
        Ok(infer_all(&self.all, &self.header, &self.format, &options)?)
    }

    /// Compiles the plan of their records.
    pub(crate) fn plan(&self, schema: &str, args: &RecordArgs) -> Result<RecordPlan, Failure> {
        let key = if args.no_key {
            KeyChoice::None
        } else if args.key.is_empty() {
            KeyChoice::Default
        } else {
            KeyChoice::Columns(args.key.clone())
        };
        let map: Vec<(String, String)> = args
            .map
            .iter()
            .map(|Pair(field, column)| (field.clone(), column.clone()))
            .collect();
        let (headers, timestamp) = (args.headers()?, args.timestamp()?);
        let set = args.constants();
        let request = PlanRequest {
            map: &map,
            iso_times: args.json_times == Some(JsonTimes::Iso),
            cells: &self.cells,
            format: value_format(args.format()),
            key: &key,
            group_by: &args.group_by,
            headers: &headers,
            timestamp: &timestamp,
            partitioner: args.partitioner(),
            set: &set,
            mark_last: args.mark_last.as_deref(),
            strict_groups: args.strict_groups,
            partial_groups: args.partial_groups,
            ..PlanRequest::new(schema, &self.header)
        };
        Ok(RecordPlan::compile(&request)?)
    }
}

/// A stream can only be loaded alone. It is told by its name: to open one may have to wait for whoever writes it.
fn refuse_stream(path: &Path) -> Result<(), Failure> {
    let is_special = |found: Metadata| !found.is_file() && !found.is_dir();
    let is_stream = path == Path::new("-") || fs::metadata(path).is_ok_and(is_special);
    if !is_stream {
        return Ok(());
    }
    let name = path.display();
    let message = format!("{name} can be read only once, and so only be loaded alone");
    Err(Failure::new(Kind::Usage, message).hint("put it into a file first"))
}

/// What only several inputs can have wrong with them.
fn check_several(all: &[Input]) -> Result<(), Failure> {
    let Some(first) = all.first() else {
        return Ok(());
    };
    let mut known = HashSet::new();
    for input in all {
        let name = input.name();
        if !known.insert(input.identity()) {
            let message = format!("{name} is named twice, and its rows would be there twice");
            return Err(Failure::new(Kind::Usage, message));
        }
        if input.header() != first.header() {
            let columns = |input: &Input| input.header().names().join(", ");
            let message = format!(
                "{name}: its columns are {}, and those of {} are {}: inputs of one load must agree",
                columns(input),
                first.name(),
                columns(first)
            );
            return Err(Failure::new(Kind::Input, message));
        }
    }
    Ok(())
}

/// The format as the pipeline has it.
fn value_format(format: Format) -> ValueFormat {
    match format {
        Format::Avro => ValueFormat::Avro,
        Format::Json => ValueFormat::Json,
    }
}

fn csv_format(csv: &CsvArgs) -> Result<CsvFormat, Failure> {
    let max_row_size = usize::try_from(csv.max_row_size()).map_err(|_| {
        Failure::new(
            Kind::Usage,
            "--max-row-size is larger than this machine can address",
        )
    })?;
    let format = CsvFormat {
        delimiter: csv.delimiter.unwrap_or_default().0,
        max_row_size,
        ..CsvFormat::default()
    };
    format.check()?;
    Ok(format)
}

fn cell_format(csv: &CsvArgs) -> CellFormat {
    CellFormat {
        null_tokens: csv.null.clone(),
        time_formats: csv.time_format.clone(),
        time_zone: csv.time_zone.clone(),
        time_ambiguity: match csv.time_ambiguity {
            None | Some(AmbiguityChoice::Error) => TimeAmbiguity::Error,
            Some(AmbiguityChoice::Earlier) => TimeAmbiguity::Earlier,
            Some(AmbiguityChoice::Later) => TimeAmbiguity::Later,
        },
        booleans: csv
            .boolean
            .iter()
            .map(|Pair(yes, no)| (yes.clone(), no.clone()))
            .collect(),
    }
}
