//! Malformed CSV of every kind, through the program (T26, T27): each row is accepted or rejected, memory stays bounded, and without a place for bad rows the
//! load stops with exit code 3.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::load::Load;
use common::{Exits, Folder, count, on};
use tidegate_testkit::matrix::{Cell, Counts};
use tidegate_testkit::program::wait_until;
use tidegate_testkit::{Cluster, for_each_cluster};

/// A number, a date and a text; none of them may be null.
const SCHEMA: &str = r#"{"type": "record", "name": "s", "fields": [
    {"name": "a", "type": "long"},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "text", "type": "string"}]}"#;

/// One kind of malformed row: its name, the row's bytes, and how many rows are rejected of it.
const BAD_ROWS: [(&str, &[u8], u64); 12] = [
    ("a quote within a field", b"2,2020-01-02,a\"b\n", 1),
    ("text behind a quoted field", b"2,2020-01-02,\"a\"b\n", 1),
    ("too few fields", b"2,2020-01-02\n", 1),
    ("too many fields", b"2,2020-01-02,x,y\n", 1),
    ("a number that does not parse", b"two,2020-01-02,x\n", 1),
    (
        "a number that is too large",
        b"9223372036854775808,2020-01-02,x\n",
        1,
    ),
    ("a date that does not parse", b"2,2020-02-30,x\n", 1),
    (
        "an empty cell where none may be null",
        b",2020-01-02,x\n",
        1,
    ),
    ("invalid UTF-8", b"2,2020-01-02,\xff\xfe\n", 1),
    ("a NUL", b"2,2020-01-02\x00,x\n", 1),
    ("an unclosed quote at the end", b"2,2020-01-02,\"x\n", 1),
    ("a row of one field", b"2\n", 1),
];

/// A file whose second row is the malformed one; an unclosed quote takes what is behind it unless that is the end.
fn around(row: &[u8], is_last: bool) -> Vec<u8> {
    let behind: &[u8] = if is_last {
        b""
    } else {
        b"3,2020-01-03,three\n"
    };
    [b"a,day,text\n1,2020-01-01,one\n", row, behind].concat()
}

#[test]
fn t26_each_malformed_row_is_rejected_or_stops_the_load() {
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(26, "malformed rows of twelve kinds").on(cluster.kind());
        for (kind, row, rejected) in BAD_ROWS {
            let is_last = kind.contains("unclosed");
            let load = Load::of(cluster, around(row, is_last));
            let schema = load.folder.file("s.avsc", SCHEMA);
            let publish = || load.publish().args(["--schema", &schema, "--key", "a"]);
            let stopped = publish().run();
            assert_eq!(stopped.code, Some(3), "{kind}\n{stopped}");
            assert!(stopped.stderr.contains("row 2"), "{kind}\n{stopped}");
            assert!(stopped.stderr.contains("line 3"), "{kind}\n{stopped}");
            let rejects = load.folder.name("rejects.jsonl");
            let ended = publish().args(["--rejects", &rejects, "--verify"]).run();
            assert_eq!(ended.code, Some(0), "{kind}\n{ended}");
            let rows = &ended.json()["rows"];
            let good = if is_last { vec![1] } else { vec![1, 3] };
            let accepted = good.len() as u64;
            assert_eq!(rows["accepted"], accepted, "{kind}\n{ended}");
            assert_eq!(rows["rejected"], rejected, "{kind}\n{ended}");
            assert_eq!(rows["read"], accepted + rejected, "{kind}\n{ended}");
            let written = std::fs::read_to_string(&rejects).unwrap();
            assert_eq!(written.lines().count() as u64, rejected, "{kind}");
            let counts = Counts::of_keys(cluster.bootstrap(), &load.topic, good);
            cell = cell.fired(2).counts(counts).code(stopped.code);
        }
        cell.code(Some(0)).record();
    });
}

/// What is unusual and still a file: each of these has the rows 1 and 2.
#[test]
fn t26_unusual_files_are_read_as_what_they_are() {
    let utf_16: Vec<u8> = "\u{feff}a,day,text\n1,2020-01-01,x\n2,2020-01-02,y\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let files: [(&str, Vec<u8>, &[&str]); 6] = [
        (
            "a byte order mark",
            b"\xef\xbb\xbfa,day,text\n1,2020-01-01,x\n2,2020-01-02,y\n".to_vec(),
            &[],
        ),
        (
            "CRLF",
            b"a,day,text\r\n1,2020-01-01,x\r\n2,2020-01-02,y\r\n".to_vec(),
            &[],
        ),
        (
            "CR alone",
            b"a,day,text\r1,2020-01-01,x\r2,2020-01-02,y\r".to_vec(),
            &[],
        ),
        (
            "no line end at the end",
            b"a,day,text\n1,2020-01-01,x\n2,2020-01-02,y".to_vec(),
            &[],
        ),
        (
            "line ends in quotes",
            b"a,day,text\n1,2020-01-01,\"x\n\nx\"\n2,2020-01-02,y\n".to_vec(),
            &[],
        ),
        ("UTF-16", utf_16, &["--encoding", "utf-16le"]),
    ];
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(26, "byte order marks, CR alone, UTF-16 and the like");
        for (kind, bytes, flags) in &files {
            let load = Load::of(cluster, bytes);
            let schema = load.folder.file("s.avsc", SCHEMA);
            let flags = flags
                .iter()
                .copied()
                .chain(["--schema", &schema, "--key", "a", "--verify"]);
            let ended = load.publish().args(flags).run();
            assert_eq!(ended.code, Some(0), "{kind}\n{ended}");
            assert_eq!(ended.json()["rows"]["accepted"], 2, "{kind}\n{ended}");
            let counts = Counts::of_keys(cluster.bootstrap(), &load.topic, [1, 2]);
            cell = cell.fired(1).counts(counts);
        }
        cell.on(cluster.kind()).code(Some(0)).record();
    });
}

/// What is no file of rows at all: nothing is created for it.
#[test]
fn t26_headers_that_are_none_are_refused() {
    let utf_16: Vec<u8> = "a,day,text\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for_each_cluster(|cluster| {
        let mut cell = Cell::new(26, "headers that are none");
        for (kind, bytes) in [
            ("nothing", b"".to_vec()),
            (
                "an unclosed quote",
                b"a,\"day,text\n1,2020-01-01,x\n".to_vec(),
            ),
            ("invalid UTF-8", b"a,\xff,text\n1,2020-01-01,x\n".to_vec()),
            ("UTF-16 that nobody said", utf_16.clone()),
        ] {
            let load = Load::of(cluster, bytes);
            let ended = load.publish().run();
            assert_eq!(ended.code, Some(3), "{kind}\n{ended}");
            assert!(ended.stderr.contains("usage.csv"), "{kind}\n{ended}");
            assert_eq!(count(cluster, &load.topic), -1, "{kind}");
            cell = cell.fired(1).code(ended.code);
        }
        cell.on(cluster.kind()).record();
    });
}

/// A name that stands twice is made two, and told.
#[test]
fn t26_columns_of_the_same_name_are_told_apart() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, "a,b,a\n0,x,5\n1,y,6\n");
        let ended = load.publish().args(["--key", "a", "--verify"]).exits(0);
        assert!(ended.stderr.contains("a#2"), "{ended}");
        load.cell(26, "two columns of the same name")
            .fired(1)
            .counts(load.counts(2))
            .code(ended.code)
            .record();
    });
}

/// A hundred thousand columns, of which the schema wants one.
#[test]
fn t27_a_hundred_thousand_columns() {
    const COLUMNS: usize = 100_000;
    for_each_cluster(|cluster| {
        let names: Vec<String> = (0..COLUMNS).map(|column| format!("c{column}")).collect();
        let row = |first: usize| format!("{first}{}\n", ",7".repeat(COLUMNS - 1));
        let text = format!(
            "{}\n{}{}short,row\n{}",
            names.join(","),
            row(0),
            row(1),
            row(2)
        );
        let load = Load::of(cluster, text);
        let schema =
            r#"{"type": "record", "name": "s", "fields": [{"name": "c0", "type": "long"}]}"#;
        let schema = load.folder.file("s.avsc", schema);
        let rejects = load.folder.name("rejects.jsonl");
        let flags = ["--schema", &schema, "--key", "c0", "--rejects", &rejects];
        let ended = load.publish().args(flags).exits(0);
        let rows = &ended.json()["rows"];
        assert_eq!(
            (&rows["accepted"], &rows["rejected"]),
            (&3.into(), &1.into()),
            "{ended}"
        );
        load.cell(27, "100,000 columns")
            .fired(1)
            .counts(load.counts(3))
            .code(ended.code)
            .record();
    });
}

/// The highest memory of a process so far, in mebibytes; 0 once it has ended.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) / 1024
}

/// Publishes a stream with a field of so many mebibytes, quoted or not, in its second row.
fn publish_a_field_of(mebibytes: u64, quote: &str, cluster: &Cluster) {
    /// 48 MiB and three batches of 1 MB.
    const BOUND: u64 = 51;
    let (folder, topic) = (Folder::new(), cluster.unique("field"));
    let schema = r#"{"type": "record", "name": "s", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]}"#;
    let (schema, rejects) = (folder.file("s.avsc", schema), folder.name("rejects.jsonl"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["publish", "-", "-t", &topic, "--create-topic", "--key", "a"])
        .args([
            "-b",
            cluster.bootstrap(),
            "--registry",
            cluster.registry_url(),
        ])
        .args(["--schema", &schema, "--rejects", &rejects, "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("a,b\n0,x\n9,{quote}").as_bytes())
        .unwrap();
    let part = vec![b'x'; 1 << 20];
    let mut highest = 0;
    for _ in 0..mebibytes {
        stdin.write_all(&part).unwrap();
        highest = highest.max(peak(child.id()));
    }
    stdin
        .write_all(format!("{quote}\n1,y\n").as_bytes())
        .unwrap();
    drop(stdin);
    wait_until(common::load::PATIENCE, || {
        highest = highest.max(peak(child.id()));
        child.try_wait().unwrap().is_some()
    })
    .unwrap();
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{summary}");
    let rows = &summary["rows"];
    assert_eq!(
        (&rows["accepted"], &rows["rejected"]),
        (&2.into(), &1.into()),
        "{summary}"
    );
    assert!(highest > 4 && highest <= BOUND, "{highest} MiB at the peak");
    let counts = Counts::of_keys(cluster.bootstrap(), &topic, [0, 1]);
    let kind = if quote.is_empty() { "plain" } else { "quoted" };
    Cell::new(27, &format!("a {kind} field of {mebibytes} MiB"))
        .on(cluster.kind())
        .fired(1)
        .counts(counts)
        .code(Some(0))
        .record();
}

#[test]
fn t27_a_field_of_128_mebibytes() {
    for_each_cluster(|cluster| {
        for quote in ["", "\""] {
            publish_a_field_of(128, quote, cluster);
        }
    });
}

#[test]
#[ignore = "takes minutes"]
fn t27_a_field_of_a_gibibyte() {
    for_each_cluster(|cluster| {
        for quote in ["", "\""] {
            publish_a_field_of(1_024, quote, cluster);
        }
    });
}

/// A row over the limit of a row is rejected before anything of it is sent, and what is behind it is sent.
#[test]
fn t28_a_row_over_the_limit_is_rejected_before_it_is_sent() {
    for_each_cluster(|cluster| {
        let large = "x".repeat(100_000);
        let load = Load::of(cluster, format!("a,b\n0,x\n9,{large}\n1,y\n"));
        let rejects = load.folder.name("rejects.jsonl");
        let flags = ["--max-row-size", "64KiB", "--key", "a"];
        let stopped = load.publish().args(flags).exits(3);
        assert!(stopped.stderr.contains("row 2"), "{stopped}");
        let ended = load
            .publish()
            .args(flags)
            .args(["--rejects", &rejects])
            .run();
        let ended = ended.expect_code(0);
        assert_eq!(ended.json()["rows"]["rejected"], 1, "{ended}");
        load.cell(28, "a row over the limit of a row")
            .fired(2)
            .counts(load.counts(2))
            .code(stopped.code)
            .code(ended.code)
            .record();
        let read = on(cluster, ["consume", "-t", &load.topic, "--until-end"]).run();
        assert!(!read.stdout.contains(&large), "nothing of it was sent");
    });
}
