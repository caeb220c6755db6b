//! Texts of times: any text for any type that holds a time, in any of the ways it can be written. What is taken is decoded again and lies
//! in the range of its type.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::decode::Decoder;
use tidegate_core::read::{CsvFormat, Header, RowReader};
use tidegate_core::records::{RecordStream, Step};
use tidegate_core::schema::{PlanRequest, RecordPlan};

const TYPES: [&str; 3] = [
    r#"{"type": "int", "logicalType": "date"}"#,
    r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
    r#"{"type": "long", "logicalType": "timestamp-micros"}"#,
];
const ATTRIBUTES: [&str; 1] = [""];

fuzz_target!(|input: (u8, u8, &str)| {
    let (kind, attributes, text) = input;
    let kind = TYPES[usize::from(kind) % TYPES.len()];
    let attributes = ATTRIBUTES[usize::from(attributes) % ATTRIBUTES.len()];
    let schema = format!(
        r#"{{"type": "record", "name": "R", "fields": [{{"name": "t", "type": {kind}{attributes}}}]}}"#
    );
    let header = Header::new(["t"]).expect("a name");
    let plan = RecordPlan::compile(&PlanRequest::new(&schema, &header)).expect("a sound schema");
    let row = format!("t\n\"{}\"\n", text.replace('"', "\"\""));
    let reader = RowReader::open(row.as_bytes(), CsvFormat::default()).expect("a header");
    let mut records = RecordStream::new(reader, &plan, None).expect("the same header");
    if let Step::Record(record) = records.next().expect("a slice can be read") {
        let decoder = Decoder::new(&schema).expect("a sound schema");
        decoder.to_json(record.value).expect("what was encoded");
    }
});
