//! What records have around their values: headers, timestamps, and the partition they go to.

use tidegate_core::ErrorKind;
use tidegate_core::around::{HeaderChoice, TimestampChoice};
use tidegate_core::clock::ManualClock;
use tidegate_core::partition::Partitioner;
use tidegate_core::produce::ConsumedHeader;
use tidegate_core::verify::{Compared, DifferenceKind, VerifyReport, VerifyStatus, verify};

use crate::support::{
    GROUP_SCHEMA, MemoryReader, MemorySink, ROW_SCHEMA, Setup, Text, Topic, receipt, rows,
};

/// Records with a constant header, one from a column, and their timestamp from another.
fn setup(schema: &str, group_by: &[String], columns: [&str; 2]) -> Setup {
    // Choices that outlive the request.
    let headers = Vec::leak(vec![
        HeaderChoice::constant("source=a=b").unwrap(),
        HeaderChoice::column(&format!("name={}", columns[0])).unwrap(),
    ]);
    let timestamp = Box::leak(Box::new(TimestampChoice::Column(columns[1].to_owned())));
    Setup::with(schema, group_by, |request| {
        (request.headers, request.timestamp) = (headers, timestamp);
        request.partitioner = Partitioner::Crc32;
    })
    .unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> Vec<ConsumedHeader> {
    let header = |(name, value): &(&str, &str)| ConsumedHeader {
        name: (*name).to_owned(),
        value: Some(value.as_bytes().to_vec()),
    };
    pairs.iter().map(header).collect()
}

fn check(setup: &Setup, input: &Text, topic: &Topic) -> VerifyReport {
    let interrupt = std::sync::atomic::AtomicBool::new(false);
    let options = setup.options(&interrupt);
    let compared = Compared {
        partitions: i32::try_from(topic.partitions.len()).unwrap(),
        producer_ids: None,
        receipt: None,
    };
    let mut reader = MemoryReader::new(topic.clone());
    verify(
        std::slice::from_ref(input),
        &options,
        &compared,
        &mut reader,
        &ManualClock::new(),
        &mut |_| {},
    )
    .unwrap()
}

#[test]
fn headers_and_timestamps_come_from_constants_and_columns() {
    let setup = setup(ROW_SCHEMA, &[], ["id", "ts"]).skipping();
    let text =
        "ts,id,cpu\n1700000000000,a,1\n2024-01-31T12:30:15Z,,2\n,c,3\n-5,d,4\nx,e,5\n6,f,6\n";
    // The schema has a long where the second row has a time.
    let text = text.replace("2024-01-31T12:30:15Z", "1706704215000");
    let mut sink = MemorySink::new(1);
    let input = Text(text.into_bytes());
    let outcome = setup.publish(&input, &mut sink).unwrap();
    assert_eq!((outcome.rows.accepted, outcome.rows.rejected), (3, 3));
    let topic = sink.topic.borrow().clone();
    let found: Vec<_> = topic.partitions[0]
        .iter()
        .map(|record| (record.timestamp, record.headers.clone()))
        .collect();
    let expected = [
        (
            1_700_000_000_000,
            headers(&[("source", "a=b"), ("name", "a")]),
        ),
        // An empty cell makes no header.
        (1_706_704_215_000, headers(&[("source", "a=b")])),
        (6, headers(&[("source", "a=b"), ("name", "f")])),
    ];
    assert_eq!(found, expected.map(|(time, headers)| (Some(time), headers)));
    receipt(&outcome);

    assert_eq!(check(&setup, &input, &topic).status, VerifyStatus::Same);
    type Change = fn(&mut Topic);
    let changes: [(Change, DifferenceKind, &str); 4] = [
        (
            |topic| topic.partitions[0][1].timestamp = Some(7),
            DifferenceKind::Timestamp,
            "expected 1706704215000, found 7",
        ),
        (
            |topic| drop(topic.partitions[0][0].headers.pop()),
            DifferenceKind::Headers,
            "expected source=\"a=b\", name=\"a\", found source=\"a=b\"",
        ),
        (
            |topic| topic.partitions[0][2].headers[1].value = None,
            DifferenceKind::Headers,
            "found source=\"a=b\", name=null",
        ),
        (
            |topic| topic.partitions[0][2].headers[0].name = "sauce".into(),
            DifferenceKind::Headers,
            "found sauce",
        ),
    ];
    for (change, what, told) in changes {
        let mut changed = topic.clone();
        change(&mut changed);
        let difference = check(&setup, &input, &changed).first_difference.unwrap();
        assert_eq!(difference.what, what);
        assert!(difference.to_string().contains(told), "{difference}");
    }
    // A broker that writes its own time says so, and then there is nothing to compare.
    let mut replaced = topic.clone();
    replaced.partitions[0][1].timestamp = None;
    assert_eq!(check(&setup, &input, &replaced).status, VerifyStatus::Same);
}

#[test]
fn headers_are_in_the_digest() {
    let input = rows(9, |_| false);
    let digest = |setup: &Setup| {
        let outcome = setup.publish(&input, &mut MemorySink::new(1)).unwrap();
        outcome.partitions[0].digest.unwrap()
    };
    let with = |column: &str| setup(ROW_SCHEMA, &[], [column, "ts"]);
    assert_eq!(digest(&with("id")), digest(&with("id")));
    assert_ne!(digest(&with("id")), digest(&with("cpu")));
    assert_ne!(digest(&with("id")), digest(&Setup::rows()));
}

#[test]
fn a_group_has_one_header_and_one_time() {
    let group_by = ["ts".to_owned()];
    let text = "ts,id,cpu\n1,a,1\n1,a,2\n2,b,1\n2,c,2\n3,d,1\n";
    let setup = setup(GROUP_SCHEMA, &group_by, ["id", "ts"]).skipping();
    let (mut sink, input) = (MemorySink::new(1), Text(text.into()));
    let outcome = setup.publish(&input, &mut sink).unwrap();
    let topic = sink.topic.borrow().clone();
    let found: Vec<_> = topic.partitions[0]
        .iter()
        .map(|record| (record.timestamp, record.headers[1].value.clone().unwrap()))
        .collect();
    assert_eq!(found, [(Some(1), b"a".to_vec()), (Some(3), b"d".to_vec())]);
    assert_eq!((outcome.rows.read, outcome.rows.rejected), (5, 2));
    let told = outcome
        .rejects
        .iter()
        .find(|group| group.column.as_deref() == Some("id"));
    let reason = &told.unwrap().first.reason;
    for part in ["the header `name`", "`b` in row 3", "`c` in row 4"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(check(&setup, &input, &topic).status, VerifyStatus::Same);
}

#[test]
fn a_column_that_is_not_there_is_refused() {
    let choice = [HeaderChoice::column("nowhere").unwrap()];
    let headers = HeaderChoice::column("x=nowhere").unwrap();
    assert_eq!(headers.name, "x");
    let refused = Setup::with(ROW_SCHEMA, &[], |request| {
        // A list that outlives the request.
        request.headers = Box::leak(Box::new(choice));
    });
    let error = refused.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Option);
    assert!(error.to_string().contains("--header-column"), "{error}");
}

#[test]
fn all_records_go_to_the_partition_that_was_named() {
    let setup = Setup::with(ROW_SCHEMA, &[], |request| {
        request.partitioner = Partitioner::Only(2);
    });
    let (setup, mut sink) = (setup.unwrap(), MemorySink::new(4));
    let input = rows(9, |_| false);
    setup.publish(&input, &mut sink).unwrap();
    let topic = sink.topic.borrow().clone();
    assert_eq!(topic.partitions[2].len(), 9);
    assert_eq!(check(&setup, &input, &topic).status, VerifyStatus::Same);
}
