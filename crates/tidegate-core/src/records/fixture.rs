//! What the tests of records, groups, plans and inference share: compile, run, and keep what came out.

use std::io::Read;

use crate::encode::{CellFormat, ValueFormat};
use crate::key::KeyChoice;
use crate::read::{BadRow, CsvFormat, Header, Position, RowReader};
use crate::records::{RecordStream, Step};
use crate::schema::{PlanRequest, RecordPlan};
use crate::{Error, Result};

/// A step, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owned {
    Record {
        key: Option<String>,
        value: Vec<u8>,
        rows: u32,
        first_row: u64,
        last_row: u64,
        end: Position,
    },
    Bad(Vec<BadRow>),
}

/// What a plan is made of, with defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) schema: String,
    pub(crate) csv: CsvFormat,
    pub(crate) cells: CellFormat,
    pub(crate) format: ValueFormat,
    pub(crate) key: KeyChoice,
    pub(crate) group_by: Vec<String>,
    pub(crate) map: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new(schema: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            ..Self::default()
        }
    }

    /// A schema of one record with these fields, in JSON.
    pub(crate) fn fields(fields: &str) -> Self {
        Self::new(format!(
            r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#
        ))
    }

    pub(crate) fn json(mut self) -> Self {
        self.format = ValueFormat::Json;
        self
    }

    pub(crate) fn group_by(mut self, columns: &[&str]) -> Self {
        self.group_by = columns.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn key(mut self, columns: &[&str]) -> Self {
        self.key = KeyChoice::Columns(columns.iter().map(ToString::to_string).collect());
        self
    }

    pub(crate) fn null_token(mut self, token: &str) -> Self {
        self.cells.null_tokens.push(token.into());
        self
    }

    pub(crate) fn plan(&self, header: &Header) -> Result<RecordPlan> {
        RecordPlan::compile(&PlanRequest {
            cells: &self.cells,
            format: self.format,
            key: &self.key,
            group_by: &self.group_by,
            map: &self.map,
            ..PlanRequest::new(&self.schema, header)
        })
    }

    /// The plan for a header, given as its line.
    pub(crate) fn plan_for(&self, header: &str) -> Result<RecordPlan> {
        self.plan(&Header::new(header.split(','))?)
    }

    pub(crate) fn error_for(&self, header: &str) -> Error {
        self.plan_for(header).unwrap_err()
    }

    /// All steps of an input.
    pub(crate) fn run(&self, input: &str) -> Vec<Owned> {
        let reader = RowReader::open(input.as_bytes(), self.csv.clone()).unwrap();
        let plan = self.plan(reader.header()).unwrap();
        collect(RecordStream::new(reader, &plan, None).unwrap())
    }

    /// All values of an input without bad rows, as text.
    pub(crate) fn values(&self, input: &str) -> Vec<String> {
        self.run(input)
            .into_iter()
            .map(|step| match step {
                Owned::Record { value, .. } => String::from_utf8(value).unwrap(),
                Owned::Bad(bad) => panic!("{}", bad[0]),
            })
            .collect()
    }

    /// The bad rows of an input, as messages.
    pub(crate) fn complaints(&self, input: &str) -> Vec<String> {
        let bad = self.run(input).into_iter().filter_map(|step| match step {
            Owned::Bad(bad) => Some(bad),
            Owned::Record { .. } => None,
        });
        bad.flatten().map(|row| row.to_string()).collect()
    }
}

/// Pulls a stream to its end, checking on the way that all rows are accounted for.
pub(crate) fn collect<R: Read>(mut records: RecordStream<'_, R>) -> Vec<Owned> {
    let mut steps = Vec::new();
    let mut rows = 0;
    loop {
        let owned = match records.next().unwrap() {
            Step::Record(record) => {
                rows += u64::from(record.rows);
                Owned::Record {
                    key: record
                        .key
                        .map(|key| String::from_utf8(key.to_vec()).unwrap()),
                    value: record.value.to_vec(),
                    rows: record.rows,
                    first_row: record.first_row,
                    last_row: record.last_row,
                    end: record.end,
                }
            }
            Step::Bad(bad) => {
                assert!(!bad.is_empty());
                rows += bad.len() as u64;
                Owned::Bad(bad.to_vec())
            }
            Step::Idle => continue,
            Step::End => break,
        };
        assert_eq!(records.rows_read(), rows);
        steps.push(owned);
    }
    assert_eq!(
        records.position().row,
        rows,
        "every row is in a record or rejected"
    );
    steps
}
