//! Every option that changes records, resolved: what stands in receipts and positions, so that the same records can be derived again.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate::core::encode::ValueFormat;
use tidegate::core::key::KeyChoice;
use tidegate::core::partition::Partitioner;
use tidegate::core::schema::RecordPlan;

use crate::args::{CsvArgs, RecordArgs};
use crate::failure::{Failure, Kind};
use crate::inputs::{Inputs, value_format};
use crate::signals::Interrupt;
use crate::value_schema;
use crate::values::Delimiter;

/// The options of a load, none of them left to a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedOptions {
    /// How values are written.
    pub(crate) format: ValueFormat,
    /// The schema, in Avro's JSON form, as text: its id in a registry depends on every character.
    pub(crate) schema: String,
    /// Columns of the key; empty without one.
    pub(crate) key: Vec<String>,
    /// Columns that rows are grouped by; empty without grouping.
    pub(crate) group_by: Vec<String>,
    /// The character between columns.
    pub(crate) delimiter: String,
    /// Cell text that means null.
    pub(crate) null: Option<String>,
    /// Longest row in bytes.
    pub(crate) max_row_size: u64,
    /// How partitions are chosen.
    pub(crate) partitioner: Partitioner,
}

impl ResolvedOptions {
    /// What inputs and the plan of their records come to.
    pub(crate) fn of(inputs: &Inputs, records: &RecordPlan) -> Self {
        let owned = |columns: Vec<&str>| columns.into_iter().map(str::to_owned).collect();
        let format = inputs.format();
        Self {
            format: records.format(),
            schema: records.schema_json().to_owned(),
            key: owned(records.key_columns()),
            group_by: owned(records.group_columns()),
            delimiter: char::from(format.delimiter).to_string(),
            null: format.null_token.clone(),
            max_row_size: format.max_row_size as u64,
            partitioner: Partitioner::default(),
        }
    }

    /// Reads them from the plan of a receipt or a position; `whose` says of which, for the error.
    pub(crate) fn parse(plan: &Value, whose: &str) -> Result<Self, Failure> {
        serde_json::from_value(plan.clone()).map_err(|error| {
            Failure::new(Kind::LocalIo, format!("{whose} holds no plan")).because(error)
        })
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Result<Value, Failure> {
        serde_json::to_value(self).map_err(|error| {
            Failure::new(Kind::Internal, "the plan cannot be written as JSON").because(error)
        })
    }

    /// Opens a file as these options say, and compiles the plan of its records.
    pub(crate) fn open<P: AsRef<Path>>(
        &self,
        files: &[P],
        interrupt: &Interrupt,
    ) -> Result<(Inputs, RecordPlan), Failure> {
        let delimiter: Delimiter = self.delimiter.replace('\t', "\\t").parse().map_err(|why| {
            let message = format!("the delimiter {:?} cannot be: {why}", self.delimiter);
            Failure::new(Kind::LocalIo, message)
        })?;
        let csv = CsvArgs {
            delimiter: Some(delimiter),
            null: self.null.clone(),
            max_row_size: Some(self.max_row_size),
        };
        let inputs = Inputs::prepare(files, &csv, interrupt)?;
        let key = if self.key.is_empty() {
            KeyChoice::None
        } else {
            KeyChoice::Columns(self.key.clone())
        };
        let records = inputs.plan_with(&self.schema, self.format, &key, &self.group_by)?;
        Ok((inputs, records))
    }

    /// Refuses options that were typed and are others. What was not typed is as it was.
    pub(crate) fn refuse_others(&self, records: &RecordArgs, csv: &CsvArgs) -> Result<(), Failure> {
        let columns = |columns: &[String]| match columns {
            [] => "none".to_owned(),
            columns => columns.join(","),
        };
        refuse("format", records.format.map(value_format), &self.format)?;
        refuse(
            "group-by",
            typed(&records.group_by).map(columns),
            &columns(&self.group_by),
        )?;
        refuse("key", typed(&records.key).map(columns), &columns(&self.key))?;
        if records.no_key && !self.key.is_empty() {
            return Err(other("no-key", "no key", &columns(&self.key)));
        }
        let delimiter = csv.delimiter.map(|delimiter| char::from(delimiter.0));
        refuse(
            "delimiter",
            delimiter.map(|delimiter| delimiter.to_string()),
            &self.delimiter,
        )?;
        let null = self.null.clone().unwrap_or_else(|| "none".to_owned());
        refuse("null", csv.null.clone(), &null)?;
        refuse("max-row-size", csv.max_row_size, &self.max_row_size)?;
        match &records.schema {
            Some(path) => self.refuse_other_schema(path),
            None => Ok(()),
        }
    }

    /// White space between the words of a schema changes nothing.
    fn refuse_other_schema(&self, path: &Path) -> Result<(), Failure> {
        let typed = value_schema::read(path)?;
        let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
        if parse(&typed).is_some_and(|typed| Some(typed) == parse(&self.schema)) {
            return Ok(());
        }
        let named = format!("{}", path.display());
        Err(other("schema", &named, "another schema"))
    }
}

/// Columns, if any were typed.
fn typed(columns: &[String]) -> Option<&[String]> {
    (!columns.is_empty()).then_some(columns)
}

fn refuse<T: PartialEq + std::fmt::Display>(
    flag: &str,
    typed: Option<T>,
    known: &T,
) -> Result<(), Failure> {
    match typed {
        Some(typed) if typed != *known => Err(other(flag, &typed.to_string(), &known.to_string())),
        _ => Ok(()),
    }
}

/// The failure of an option that was typed otherwise than the load was begun with.
pub(crate) fn other(flag: &str, typed: &str, known: &str) -> Failure {
    let message = format!("--{flag} says {typed}, and the load was begun with {known}");
    Failure::new(Kind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str =
        r#"{"type": "record", "name": "a", "fields": [{"name": "a", "type": "long"}]}"#;

    fn known() -> ResolvedOptions {
        ResolvedOptions {
            format: ValueFormat::Avro,
            schema: SCHEMA.to_owned(),
            key: vec!["a".to_owned()],
            group_by: Vec::new(),
            delimiter: ",".to_owned(),
            null: None,
            max_row_size: 8 << 20,
            partitioner: Partitioner::default(),
        }
    }

    fn nothing_typed() -> (RecordArgs, CsvArgs) {
        let records = RecordArgs {
            schema: None,
            subject: None,
            format: None,
            group_by: Vec::new(),
            key: Vec::new(),
            no_key: false,
        };
        let csv = CsvArgs {
            delimiter: None,
            null: None,
            max_row_size: None,
        };
        (records, csv)
    }

    #[test]
    fn what_was_typed_otherwise_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (same, another) = (folder.path().join("same"), folder.path().join("another"));
        std::fs::write(&same, SCHEMA.replace(": ", ":")).unwrap();
        std::fs::write(&another, SCHEMA.replace("long", "int")).unwrap();
        type Change = fn(&mut RecordArgs, &mut CsvArgs);
        let changes: [(&str, Change); 6] = [
            ("--format", |records, _| {
                records.format = Some(crate::args::Format::Json);
            }),
            ("--group-by", |records, _| {
                records.group_by = vec!["a".to_owned()];
            }),
            ("--no-key", |records, _| {
                records.no_key = true;
            }),
            ("--key", |records, _| {
                records.key = vec!["b".to_owned()];
            }),
            ("--delimiter", |_, csv| {
                csv.delimiter = Some(Delimiter(b';'));
            }),
            ("--null", |_, csv| {
                csv.null = Some("NA".to_owned());
            }),
        ];
        let (mut records, csv) = nothing_typed();
        known().refuse_others(&records, &csv).unwrap();
        for (flag, change) in changes {
            let (mut records, mut csv) = nothing_typed();
            change(&mut records, &mut csv);
            let refused = known().refuse_others(&records, &csv).unwrap_err();
            assert_eq!(refused.kind(), Kind::Usage);
            assert!(refused.to_string().starts_with(flag), "{refused}");
        }
        records.key = vec!["a".to_owned()];
        records.schema = Some(same);
        known().refuse_others(&records, &csv).unwrap();
        records.schema = Some(another);
        let refused = known().refuse_others(&records, &csv).unwrap_err();
        assert!(refused.to_string().starts_with("--schema"), "{refused}");
    }
}
