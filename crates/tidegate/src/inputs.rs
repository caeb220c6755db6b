//! The inputs of a command, in their order: several files, or one stream.
//!
//! All of them are opened before anything is done, so that a mistyped name or another header is found at once.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tidegate::core::encode::{CellFormat, TimeAmbiguity, ValueFormat};
use tidegate::core::infer::{InferOptions, Inferred, infer_all};
use tidegate::core::job::JobIdentity;
use tidegate::core::key::KeyChoice;
use tidegate::core::limits::MAX_INPUTS;
use tidegate::core::read::{CsvFormat, Header, Ragged, ReadRow, Source};
use tidegate::core::schema::{PlanRequest, RecordPlan};

use crate::args::{
    AmbiguityChoice, CsvArgs, Format, InferenceArgs, JsonTimes, RaggedChoice, RecordArgs,
};
use crate::encoding::NamedEncoding;
use crate::failure::{Failure, Kind};
use crate::input::{Input, InputFormat};
use crate::report::{counted, grouped};
use crate::service::Context;
use crate::signals::Interrupt;
use crate::values::{Character, Delimiter, Pair};

/// Delimiters that are looked for where none is said.
const USUAL_DELIMITERS: [u8; 4] = *b",;\t|";

/// So many rows show which delimiter a file has.
const FIRST_ROWS: usize = 1_000;

/// Opened inputs, at least one. All of them are written in the same way and have the same header.
#[derive(Debug)]
pub(crate) struct Inputs {
    all: Vec<Input>,
    csv: CsvArgs,
    format: CsvFormat,
    /// How it was found out what they are written like, where that was not said.
    evidence: Option<String>,
    cells: CellFormat,
    header: Header,
    /// Ends what reads all of them.
    interrupt: Interrupt,
}

impl Inputs {
    /// Opens them (`-` is standard input) and reads their headers.
    pub(crate) fn prepare<P: AsRef<Path>>(
        paths: &[P],
        csv: &CsvArgs,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let paths = expand(paths)?;
        let (delimiter, evidence) = match (csv.delimiter.unwrap_or_default(), paths.first()) {
            (Delimiter::Byte(byte), _) => (byte, None),
            (Delimiter::Auto, Some(first)) => {
                let (byte, by) = find_delimiter(first, csv)?;
                (byte, Some(by))
            }
            (Delimiter::Auto, None) => return Err(Failure::new(Kind::Usage, "there is no input")),
        };
        let format = input_format(csv, delimiter)?;
        if paths.len() > MAX_INPUTS {
            let message = format!(
                "{} inputs: one load takes at most {MAX_INPUTS}, for its position names them all",
                grouped(paths.len() as u64)
            );
            let failure = Failure::new(Kind::Usage, message);
            return Err(failure.hint("load them in several runs, each with a --job of its own"));
        }
        if paths.len() > 1 {
            paths.iter().try_for_each(|path| refuse_stream(path))?;
        }
        let open = |path: &PathBuf| Input::prepare(path, &format, interrupt);
        let all: Vec<Input> = paths.iter().map(open).collect::<Result<_, _>>()?;
        let Some(first) = all.first() else {
            return Err(Failure::new(Kind::Usage, "there is no input"));
        };
        let header = first.header().clone();
        check_several(&all)?;
        Ok(Self {
            all,
            csv: CsvArgs {
                delimiter: Some(Delimiter::Byte(delimiter)),
                ..csv.resolved()
            },
            format: format.csv,
            evidence,
            cells: cell_format(csv),
            header,
            interrupt: interrupt.clone(),
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
        let mut text = self.describe_size();
        if let Some(evidence) = &self.evidence {
            text.push_str(", ");
            text.push_str(evidence);
        }
        text
    }

    fn describe_size(&self) -> String {
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
        records: &RecordArgs,
        args: &InferenceArgs,
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
        let set = records.constants();
        let options = InferOptions {
            record_name,
            group_by: &records.group_by,
            set: &set,
            mark_last: records.mark_last.as_deref(),
            cells: &self.cells,
            looks_for_nulls: !args.no_null_tokens,
            sample: args.sample,
            format: value_format(records.format()),
        };
        let interruptible = |input| Interruptible {
            input,
            interrupt: &self.interrupt,
        };
        let sources: Vec<_> = self.all.iter().map(interruptible).collect();
        match infer_all(&sources, &self.header, &self.format, &options) {
            _ if self.interrupt.is_set() => Err(self.interrupt.failure()),
            inferred => Ok(inferred?),
        }
    }

    /// Compiles the plan of their records.
    pub(crate) fn plan(
        &self,
        schema: &str,
        key_schema: Option<&str>,
        args: &RecordArgs,
    ) -> Result<RecordPlan, Failure> {
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
            key_format: args.key_format(),
            key_schema,
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

/// Whether this is a stream. It is told by its name: to open one may have to wait for whoever writes it.
fn is_stream(path: &Path) -> bool {
    let is_special = |found: Metadata| !found.is_file() && !found.is_dir();
    path == Path::new("-") || fs::metadata(path).is_ok_and(is_special)
}

/// A stream can only be loaded alone.
fn refuse_stream(path: &Path) -> Result<(), Failure> {
    if !is_stream(path) {
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

/// How the inputs are written, as far as that is typed.
fn input_format(csv: &CsvArgs, delimiter: u8) -> Result<InputFormat, Failure> {
    let max_row_size = usize::try_from(csv.max_row_size()).map_err(|_| {
        Failure::new(
            Kind::Usage,
            "--max-row-size is larger than this machine can address",
        )
    })?;
    let usual = CsvFormat::default();
    let format = CsvFormat {
        delimiter,
        quote: csv.quote.map_or(usual.quote, |quote| quote.0),
        escape: csv.escape.map(|escape| escape.0),
        comment: csv.comment.map(|comment| comment.0),
        trim: csv.trim,
        has_header: !csv.no_header,
        columns: csv.columns.clone(),
        ragged: match csv.ragged {
            None | Some(RaggedChoice::Error) => Ragged::Error,
            Some(RaggedChoice::Pad) => Ragged::Pad,
            Some(RaggedChoice::DropExtra) => Ragged::DropExtra,
        },
        max_row_size,
    };
    format.check()?;
    let encoding = csv.encoding.as_deref().map(NamedEncoding::parse);
    let encoding = encoding
        .transpose()
        .map_err(|why| Failure::new(Kind::Usage, why))?;
    Ok(InputFormat {
        csv: format,
        encoding: encoding.unwrap_or_default(),
    })
}

/// The delimiter that the first rows of an input show: the only one of the usual ones that parts all of them into the same number of cells.
fn find_delimiter(path: &Path, csv: &CsvArgs) -> Result<(u8, String), Failure> {
    let name = path.display();
    if is_stream(path) {
        let message =
            format!("--delimiter auto reads the beginning twice, and {name} can be read only once");
        return Err(
            Failure::new(Kind::Usage, message).hint("say which it is, as in --delimiter ';'")
        );
    }
    let mut fitting = Vec::new();
    for delimiter in USUAL_DELIMITERS {
        // One that is the quote, say, is not meant.
        let Ok(mut format) = input_format(csv, delimiter) else {
            continue;
        };
        // Rows that are evened out show nothing.
        format.csv.ragged = Ragged::Error;
        if let Some((rows, columns)) = first_rows(path, &format)? {
            fitting.push((delimiter, rows, columns));
        }
    }
    let shown = |delimiters: &[u8]| {
        let shown = delimiters.iter().map(|byte| Character(*byte).to_string());
        shown.collect::<Vec<_>>().join(" ")
    };
    if let [(delimiter, rows, columns)] = fitting[..] {
        let by = format!(
            "delimiter {} by {} of {columns} cells",
            shown(&[delimiter]),
            counted(rows as u64, "row")
        );
        return Ok((delimiter, by));
    }
    let which = if fitting.is_empty() {
        format!("none of {}", shown(&USUAL_DELIMITERS))
    } else {
        let all: Vec<u8> = fitting.iter().map(|(delimiter, ..)| *delimiter).collect();
        format!("each of {}", shown(&all))
    };
    let message = format!(
        "which delimiter {name} has cannot be told: {which} parts all of its first rows into the same number of cells"
    );
    Err(Failure::new(Kind::Input, message).hint("say which it is, as in --delimiter ';'"))
}

/// How many of an input's first rows there are, the header among them, and how many cells each has, if that is the same number for all of them and at
/// least two.
fn first_rows(path: &Path, format: &InputFormat) -> Result<Option<(usize, usize)>, Failure> {
    let Some(mut reader) = Input::peek(path, format)? else {
        return Ok(None);
    };
    let columns = reader.header().len();
    let mut rows = usize::from(format.csv.has_header);
    while rows < FIRST_ROWS {
        match reader.next().map_err(Failure::from)? {
            ReadRow::Row(_) => rows += 1,
            ReadRow::Bad(_) => return Ok(None),
            ReadRow::Idle => {}
            ReadRow::End => break,
        }
    }
    Ok((columns > 1 && rows > 0).then_some((rows, columns)))
}

/// An input whose reading ends with a signal: what reads all of it, long before anything is sent, does not look for one.
struct Interruptible<'a> {
    input: &'a Input,
    interrupt: &'a Interrupt,
}

impl Source for Interruptible<'_> {
    type Reader = InterruptibleReader<<Input as Source>::Reader>;

    fn name(&self) -> Option<String> {
        Source::name(self.input)
    }

    fn open(&self) -> io::Result<Self::Reader> {
        Ok(InterruptibleReader {
            content: Source::open(self.input)?,
            interrupt: self.interrupt.clone(),
        })
    }
}

/// Fails when a signal came.
struct InterruptibleReader<R> {
    content: R,
    interrupt: Interrupt,
}

impl<R: Read> Read for InterruptibleReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_set() {
            return Err(io::Error::other("interrupted"));
        }
        self.content.read(buffer)
    }
}

/// The files that are meant: a name with `*`, `?` or `[` that no file has is a pattern.
fn expand<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        let path = path.as_ref();
        let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']));
        let Some(pattern) = pattern.filter(|_| !path.exists()) else {
            all.push(path.to_owned());
            continue;
        };
        let found = glob::glob(pattern).map_err(|error| {
            Failure::new(Kind::Usage, format!("{pattern} is no pattern of names")).because(error)
        })?;
        // In the order of their names, which is that of the crate too. A folder that cannot be looked into may hold some of them.
        let before = all.len();
        for path in found {
            all.push(path.map_err(|error| {
                let message = format!("cannot look for files like {pattern}");
                Failure::new(Kind::LocalIo, message).because(error)
            })?);
        }
        if all.len() == before {
            let message = format!("no file has a name like {pattern}");
            return Err(Failure::new(Kind::LocalIo, message));
        }
    }
    Ok(all)
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
