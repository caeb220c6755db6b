//! Inference: whatever a file holds, no row of it that can be read is refused by the schema it suggests, in neither format.

use tidegate_core::encode::{CellFormat, ValueFormat};
use tidegate_core::infer::{InferOptions, infer};
use tidegate_core::read::{BadRowKind, CsvFormat, RowReader};
use tidegate_core::records::{RecordStream, Step};
use tidegate_core::schema::{PlanRequest, RecordPlan};

use crate::given;

/// Checks it with whatever these bytes stand for.
pub fn check(data: &[u8]) {
    let Some(input) = given::<(u8, &[u8])>(data) else {
        return;
    };
    let (what, bytes) = input;
    let format = if what & 1 == 0 {
        ValueFormat::Avro
    } else {
        ValueFormat::Json
    };
    let mut cells = CellFormat::default();
    if what & 2 != 0 {
        cells.null_tokens.push("NA".to_owned());
    }
    if what & 8 != 0 {
        cells.time_zone = Some("Europe/Zurich".to_owned());
    }
    if what & 16 != 0 {
        cells.time_formats = vec!["%d.%m.%Y %H:%M".to_owned(), "%H:%M:%S".to_owned()];
    }
    if what & 32 != 0 {
        cells.booleans.push(("ja".to_owned(), "nein".to_owned()));
    }
    let csv = CsvFormat::default();
    let Ok(reader) = RowReader::open(bytes, csv.clone()) else {
        return;
    };
    let group_by: Vec<String> = if what & 4 == 0 {
        Vec::new()
    } else {
        reader.header().names()[..1].to_vec()
    };
    let options = InferOptions {
        looks_for_nulls: true,
        sample: None,
        cells: &cells,
        format,
        group_by: &group_by,
        record_name: "fuzz",
        set: &[],
        mark_last: None,
    };
    let Ok(inferred) = infer(reader, &options) else {
        return;
    };
    let reader = RowReader::open(bytes, csv).expect("it could be opened before");
    // The schema says all that the options said of its columns.
    let unsaid = CellFormat::default();
    let plan = RecordPlan::compile(&PlanRequest {
        cells: if what & 64 == 0 { &cells } else { &unsaid },
        format,
        group_by: &group_by,
        ..PlanRequest::new(&inferred.schema_json, reader.header())
    });
    let plan = plan.unwrap_or_else(|error| panic!("{error}\n{}", inferred.schema_json));
    let mut records = RecordStream::new(reader, &plan, None).expect("the header is the same");
    loop {
        match records.next().expect("a slice can be read") {
            Step::Record(_) | Step::Idle => {}
            Step::Bad(rows) => {
                // What is no text cannot be a string; which encoding it is in nobody can tell for the user.
                let refused = rows
                    .iter()
                    .find(|row| row.kind == BadRowKind::Value && str::from_utf8(&row.raw).is_ok());
                assert!(refused.is_none(), "{refused:?}\n{}", inferred.schema_json);
            }
            Step::End => return,
        }
    }
}
