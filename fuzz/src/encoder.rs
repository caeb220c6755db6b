//! The encoder: any row for a schema with every type. What it takes is a record to apache-avro, to the decoder, and, as JSON, to serde_json; what
//! it refuses has a reason and leaves no trace in the next record.

use apache_avro::Schema;
use tidegate_core::decode::Decoder;
use tidegate_core::encode::ValueFormat;
use tidegate_core::read::{CsvFormat, RowReader};
use tidegate_core::records::{RecordStream, Step};
use tidegate_core::schema::{PlanRequest, RecordPlan};

use crate::given;

const SCHEMA: &str = include_str!("../every-type.avsc");
const HEADER: &str = include_str!("../every-type.header");

/// Writes all rows; says which were taken.
fn encode(input: &str, format: ValueFormat, mut take: impl FnMut(&[u8])) -> Vec<bool> {
    let reader = RowReader::open(input.as_bytes(), CsvFormat::default()).expect("a header");
    let plan = RecordPlan::compile(&PlanRequest {
        format,
        ..PlanRequest::new(SCHEMA, reader.header())
    });
    let plan = plan.expect("the schema fits the header");
    let mut records = RecordStream::new(reader, &plan, None).expect("the same header");
    let mut taken = Vec::new();
    loop {
        match records.next().expect("a slice can be read") {
            Step::Record(record) => {
                take(record.value);
                taken.push(true);
            }
            Step::Bad(rows) => {
                assert!(rows.iter().all(|row| !row.reason.is_empty()));
                taken.push(false);
            }
            Step::Idle => {}
            Step::End => return taken,
        }
    }
}

/// Checks it with whatever these bytes stand for.
pub fn check(data: &[u8]) {
    let Some(rows) = given::<&str>(data) else {
        return;
    };
    let input = format!("{}\n{rows}\n", HEADER.trim());
    let schema = Schema::parse_str(SCHEMA).expect("a schema");
    let decoder = Decoder::new(SCHEMA).expect("a schema");
    encode(&input, ValueFormat::Avro, |value| {
        let mut rest = value;
        apache_avro::from_avro_datum(&schema, &mut rest, None).expect("a record");
        assert!(rest.is_empty(), "{rest:?} is left");
        decoder.to_json(value).expect("a record");
    });
    encode(&input, ValueFormat::Json, |value| {
        serde_json::from_slice::<serde_json::Value>(value).expect("JSON");
    });
}
