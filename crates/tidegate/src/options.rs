//! Every option that changes records, resolved: what stands in receipts and positions, so that the same records can be derived again.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate::core::encode::ValueFormat;
use tidegate::core::partition::Partitioner;
use tidegate::core::schema::RecordPlan;
use tidegate::registry::Registry;

use crate::args::{CsvArgs, Format, RecordArgs, ReferenceArgs, SchemaArgs};
use crate::failure::{Failure, Kind};
use crate::inputs::Inputs;
use crate::signals::Interrupt;
use crate::subject_schema::FileSchema;
use crate::values::Delimiter;

/// The options of a load, none of them left to a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedOptions {
    /// The schema, in Avro's JSON form, as text: its id in a registry depends on every character.
    pub(crate) schema: String,
    /// The schema of the keys, where they have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_schema: Option<String>,
    /// What becomes of the rows.
    pub(crate) records: RecordArgs,
    /// How the CSV is written.
    pub(crate) csv: CsvArgs,
}

impl ResolvedOptions {
    /// What inputs, the plan of their records and what was typed come to.
    pub(crate) fn of(inputs: &Inputs, records: &RecordPlan, typed: &RecordArgs) -> Self {
        let owned = |columns: Vec<&str>| columns.into_iter().map(str::to_owned).collect();
        let key: Vec<String> = owned(records.key_columns());
        Self {
            schema: records.schema_json().to_owned(),
            key_schema: records.key_schema_json().map(str::to_owned),
            records: RecordArgs {
                format: Some(match records.format() {
                    ValueFormat::Avro => Format::Avro,
                    ValueFormat::Json => Format::Json,
                }),
                group_by: owned(records.group_columns()),
                no_key: key.is_empty(),
                key_format: match records.key_format() {
                    _ if key.is_empty() => None,
                    format => Some(format.into()),
                },
                key,
                partitioner: match records.partitioner() {
                    Partitioner::Only(_) => None,
                    other => Some(other),
                },
                ..typed.clone()
            },
            csv: inputs.csv().clone(),
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
        let inputs = Inputs::prepare(files, &self.csv, interrupt)?;
        let records = inputs.plan(&self.schema, self.key_schema.as_deref(), &self.records)?;
        Ok((inputs, records))
    }

    /// Refuses options that were typed and are others. What was not typed is as it was. `schema_id` is the one the load was begun with.
    pub(crate) fn refuse_others(
        &self,
        typed: &Typed<'_>,
        schema_id: Option<u32>,
        registry: Option<&Registry>,
    ) -> Result<(), Failure> {
        refuse_others(&flags(typed.records)?, &flags(&self.records.in_force())?)?;
        let mut csv = typed.csv.clone();
        // Whoever leaves the delimiter to the evidence takes the one that was found.
        csv.delimiter = csv.delimiter.filter(|typed| *typed != Delimiter::Auto);
        refuse_others(&flags(&csv)?, &flags(&self.csv.in_force())?)?;
        if let Some(id) = typed.schema.schema_id
            && schema_id != Some(id)
        {
            let known = schema_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(other("schema-id", &id.to_string(), &known));
        }
        if let Some(path) = &typed.schema.schema {
            let file = FileSchema::read(path, &typed.schema.references, registry)?;
            refuse_other_schema("schema", &file, Some(&self.schema))?;
        }
        if let Some(path) = &typed.schema.key_schema {
            let file = FileSchema::read(path, &ReferenceArgs::default(), registry)?;
            refuse_other_schema("key-schema", &file, self.key_schema.as_deref())?;
        }
        Ok(())
    }
}

/// White space between the words of a schema changes nothing.
fn refuse_other_schema(flag: &str, typed: &FileSchema, known: Option<&str>) -> Result<(), Failure> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    if parse(&typed.complete).is_some_and(|typed| Some(typed) == known.and_then(parse)) {
        return Ok(());
    }
    let named = format!("{}", typed.path.display());
    Err(other(flag, &named, "another schema"))
}

/// What was typed of the options that change records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Typed<'a> {
    /// Which schema.
    pub(crate) schema: &'a SchemaArgs,
    /// What becomes of the rows.
    pub(crate) records: &'a RecordArgs,
    /// How the CSV is written.
    pub(crate) csv: &'a CsvArgs,
}

/// The flags that were typed, or are in force, by their names.
fn flags(args: &impl Serialize) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(args) {
        Ok(Value::Object(flags)) => Ok(flags),
        Ok(_) | Err(_) => Err(Failure::new(
            Kind::Internal,
            "the options cannot be written as JSON",
        )),
    }
}

fn refuse_others(typed: &Map<String, Value>, known: &Map<String, Value>) -> Result<(), Failure> {
    let differs = typed
        .iter()
        .find(|(flag, value)| known.get(*flag) != Some(value));
    let Some((flag, value)) = differs else {
        return Ok(());
    };
    let known = known.get(flag).map_or_else(|| "none".to_owned(), shown);
    Err(other(flag, &shown(value), &known))
}

/// The value of a flag as it is typed.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
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
    use crate::values::Delimiter;

    const SCHEMA: &str =
        r#"{"type": "record", "name": "a", "fields": [{"name": "a", "type": "long"}]}"#;

    fn known() -> ResolvedOptions {
        ResolvedOptions {
            schema: SCHEMA.to_owned(),
            key_schema: None,
            records: RecordArgs {
                format: Some(Format::Avro),
                key: vec!["a".to_owned()],
                ..RecordArgs::default()
            },
            csv: CsvArgs {
                delimiter: Some(Delimiter::default()),
                ..CsvArgs::default()
            },
        }
    }

    fn judge(schema: &SchemaArgs, records: &RecordArgs, csv: &CsvArgs) -> Result<(), Failure> {
        let typed = Typed {
            schema,
            records,
            csv,
        };
        known().refuse_others(&typed, Some(7), None)
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
                records.format = Some(Format::Json);
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
                csv.delimiter = Some(Delimiter::Byte(b';'));
            }),
            ("--null", |_, csv| {
                csv.null = vec!["NA".to_owned()];
            }),
        ];
        let (mut records, csv) = Default::default();
        judge(&SchemaArgs::default(), &records, &csv).unwrap();
        for (flag, change) in changes {
            let (mut records, mut csv) = Default::default();
            change(&mut records, &mut csv);
            let refused = judge(&SchemaArgs::default(), &records, &csv).unwrap_err();
            assert_eq!(refused.kind(), Kind::Usage);
            assert!(refused.to_string().starts_with(flag), "{refused}");
        }
        records.key = vec!["a".to_owned()];
        let by_id = |id| SchemaArgs {
            schema_id: Some(id),
            ..SchemaArgs::default()
        };
        judge(&by_id(7), &records, &csv).unwrap();
        let refused = judge(&by_id(8), &records, &csv).unwrap_err();
        assert!(refused.to_string().starts_with("--schema-id"), "{refused}");
        let schema = |path| SchemaArgs {
            schema: Some(path),
            ..SchemaArgs::default()
        };
        judge(&schema(same), &records, &csv).unwrap();
        let refused = judge(&schema(another), &records, &csv).unwrap_err();
        assert!(refused.to_string().starts_with("--schema"), "{refused}");
    }
}
