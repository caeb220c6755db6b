//! `tidegate schema`: infer, check, register and show.

use std::path::Path;

use serde_json::{Value, json};
use tidegate::core::infer::{ColumnReport, Inferred};
use tidegate::registry::NewSchema;

use crate::args::{CheckArgs, InferArgs, RecordArgs, RegisterArgs, SchemaCommand, ShowArgs};
use crate::failure::{Failure, Kind};
use crate::inputs::Inputs;
use crate::report::{AnswerSummary, Finished, Summary, grouped};
use crate::service::Context;
use crate::subject_schema::{FileSchema, Schemas, subject_of};

/// Runs the command.
pub(crate) fn run(command: &SchemaCommand, context: &mut Context) -> Result<Finished, Failure> {
    let summary = match command {
        SchemaCommand::Infer(args) => infer(args, context)?,
        SchemaCommand::Check(args) => check(args, context)?,
        SchemaCommand::Register(args) => register(args, context)?,
        SchemaCommand::Show(args) => show(args, context)?,
    };
    Ok(Finished::well(Summary::Answer(summary)))
}

fn infer(args: &InferArgs, context: &Context) -> Result<AnswerSummary, Failure> {
    let inputs = Inputs::prepare(&[&args.file], &args.csv, &context.interrupt)?;
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| stem(&args.file, &inputs));
    let records = RecordArgs {
        group_by: args.group_by.clone(),
        ..RecordArgs::default()
    };
    let inferred = inputs.infer(&name, &records, &args.inference)?;
    for column in &inferred.columns {
        context.terminal.note(&describe(column));
    }
    if args.inference.sample.is_some() {
        let rows = grouped(inferred.rows);
        let note =
            format!("the first {rows} rows were looked at; what comes behind them had no say");
        context.terminal.note(&note);
    }
    if let Some(first) = &inferred.first_not_utf8 {
        let cells = match inferred.not_utf8 {
            1 => "1 cell is".to_owned(),
            count => format!("{} cells are", grouped(count)),
        };
        context.terminal.warn(&format!(
            "{cells} not UTF-8, the first {first}: such a row would be refused; --encoding says what the text is in"
        ));
    }
    if inferred.bad_rows > 0 {
        context.terminal.warn(&format!(
            "{} rows cannot be read and had no say",
            grouped(inferred.bad_rows)
        ));
    }
    let Inferred {
        columns,
        rows,
        bad_rows,
        ..
    } = &inferred;
    let schema = parse(&inferred.schema_json)?;
    let json = json!({ "status": "inferred", "rows": rows, "bad_rows": bad_rows, "not_utf8_cells": inferred.not_utf8, "columns": columns, "schema": schema });
    Ok(AnswerSummary {
        text: pretty(&inferred.schema_json)?,
        json,
    })
}

fn describe(column: &ColumnReport) -> String {
    let nullable = if column.nullable { " or null" } else { "" };
    format!(
        "{}: {}{nullable}, {}",
        column.column, column.avro_type, column.why
    )
}

fn check(args: &CheckArgs, context: &mut Context) -> Result<AnswerSummary, Failure> {
    let inputs = Inputs::prepare(&[&args.file], &args.csv, &context.interrupt)?;
    let needed = args.records.needs_registry();
    let registry = needed.then(|| context.registry(&args.cluster, &args.registry));
    let registry = registry.transpose()?;
    let (schemas, plan) = Schemas::choose(
        &args.schema,
        &args.records,
        &args.topic,
        registry.as_ref(),
        &inputs,
    )?;
    schemas.check_compatible(&plan, registry.as_ref())?;
    let from = schemas.value.describe();
    for warning in plan.warnings() {
        context.terminal.warn(warning);
    }
    let text = format!(
        "{} fits {} ({})\n",
        args.file.display(),
        args.topic,
        match schemas.describe_key() {
            None => from.clone(),
            Some(key) => format!("{from}; key: {key}"),
        }
    );
    let json = json!({ "status": "fits", "topic": args.topic, "schema_from": from, "key_schema_from": schemas.describe_key(), "warnings": plan.warnings() });
    Ok(AnswerSummary { text, json })
}

fn register(args: &RegisterArgs, context: &mut Context) -> Result<AnswerSummary, Failure> {
    let registry = context.registry(&args.cluster, &args.registry)?;
    let schema = FileSchema::read(&args.schema, &args.references, Some(&registry))?;
    let subject = subject_of(&args.subject, &args.topic, || Ok(schema.text.clone()))?;
    let id = registry.register(
        &subject,
        NewSchema {
            text: &schema.text,
            references: &schema.references,
        },
    )?;
    let text = format!("{subject}: schema id {id}\n");
    Ok(AnswerSummary {
        text,
        json: json!({ "status": "registered", "subject": subject, "schema_id": id }),
    })
}

fn show(args: &ShowArgs, context: &mut Context) -> Result<AnswerSummary, Failure> {
    let subject = match &args.subject {
        Some(named) => named.clone(),
        None => format!("{}-value", args.topic),
    };
    let registry = context.registry(&args.cluster, &args.registry)?;
    let Some(latest) = registry.latest(&subject)? else {
        let failure = Failure::new(
            Kind::Schema,
            format!("the registry has no schema for the subject {subject}"),
        );
        return Err(failure.hint("`tidegate schema register` puts one there; publishing does too"));
    };
    context.terminal.note(&format!(
        "{subject} version {}, schema id {}",
        latest.version, latest.id
    ));
    let json = json!({
        "status": "found", "subject": subject, "version": latest.version, "schema_id": latest.id, "schema": parse(&latest.schema)?,
    });
    Ok(AnswerSummary {
        text: pretty(&latest.schema)?,
        json,
    })
}

/// The file's name without folder and extension, and without the one for compression; what stdin is called where it has none.
fn stem(file: &Path, inputs: &Inputs) -> String {
    let file = if inputs.are_compressed() {
        file.with_extension("")
    } else {
        file.to_owned()
    };
    match file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
    {
        Some(stem) if stem != "-" => stem,
        _ => "record".to_owned(),
    }
}

fn parse(schema: &str) -> Result<Value, Failure> {
    serde_json::from_str(schema)
        .map_err(|error| Failure::new(Kind::Schema, "the schema is not JSON").because(error))
}

fn pretty(schema: &str) -> Result<String, Failure> {
    let value = parse(schema)?;
    let text = serde_json::to_string_pretty(&value);
    text.map(|text| text + "\n").map_err(|error| {
        Failure::new(Kind::Internal, "the schema cannot be written").because(error)
    })
}
