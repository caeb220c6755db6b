//! Schemas that the data suggest: told with their reasons, and published with.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Exits, Folder, on, records, tidegate};
use serde_json::{Value, json};
use tidegate_testkit::for_each_cluster;

const ROWS: &str = "Order No,zip,when,day,price,paid,note,id
1,01067,2024-01-31 12:30,31/12/2024,12.50,yes,NA,123e4567-e89b-12d3-a456-426614174000
2,99974,2024-02-29 00:00:00.5,01/02/2024,NA,no,-,123e4567-e89b-12d3-a456-426614174001
3,10115,NULL,,0.1,yes,fine,123e4567-e89b-12d3-a456-426614174002
";

#[test]
fn types_are_told_with_their_reasons() {
    let folder = Folder::new();
    let file = folder.file("orders.csv", ROWS);
    let inferred = tidegate(["schema", "infer", &file, "-o", "json"])
        .exits(0)
        .json();
    let types: Vec<(&str, &str, bool)> = inferred["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            let text = |key: &str| column[key].as_str().unwrap();
            (
                text("field"),
                text("avro_type"),
                column["nullable"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        types,
        [
            ("Order_No", "long", false),
            ("zip", "string", false),
            ("when", "local-timestamp-millis", true),
            ("day", "date", true),
            ("price", "double", true),
            ("paid", "boolean", false),
            ("note", "string", false),
            ("id", "uuid", false),
        ]
    );
    let fields = &inferred["schema"]["fields"];
    assert_eq!(fields[0]["tidegate.column"], "Order No");
    assert_eq!(fields[2]["tidegate.null"], json!(["", "NULL"]));
    assert_eq!(fields[3]["tidegate.format"], "%d/%m/%Y");
    assert_eq!(
        (&fields[5]["tidegate.true"], &fields[5]["tidegate.false"]),
        (&json!(["yes"]), &json!(["no"]))
    );
    let human = tidegate(["schema", "infer", &file]).exits(0);
    assert!(
        human
            .stderr
            .contains("zip: string, `01067` in row 1 has a leading zero"),
        "{human}"
    );
    assert!(
        human
            .stderr
            .contains("NULL stands for null; 1 cell is null, the first in row 3"),
        "{human}"
    );
}

#[test]
fn what_is_looked_for_can_be_said() {
    let folder = Folder::new();
    let file = folder.file("orders.csv", ROWS);
    let plain = tidegate(["schema", "infer", &file, "--no-null-tokens", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(plain["columns"][4]["avro_type"], "string");
    let named = tidegate(["schema", "infer", &file, "--null", "fine", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (
            &named["columns"][6]["nullable"],
            &named["columns"][4]["avro_type"]
        ),
        (&json!(true), &json!("string"))
    );
    let human = tidegate(["schema", "infer", &file, "--sample", "2"]).exits(0);
    assert!(
        human.stderr.contains("the first 2 rows were looked at"),
        "{human}"
    );
    let sampled = tidegate(["schema", "infer", &file, "--sample", "1", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (&sampled["rows"], &sampled["columns"][2]["nullable"]),
        (&json!(1), &json!(false))
    );
}

#[test]
fn a_file_is_published_with_its_own_schema() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("inferred"));
        let file = folder.file("orders.csv", ROWS);
        on(
            cluster,
            ["publish", &file, "-t", &topic, "--create-topic", "--verify"],
        )
        .exits(0);
        let found = records(cluster, &topic);
        let expected = json!({
            "Order_No": 2, "zip": "99974", "when": 1_709_164_800_500_i64, "day": 19_754, "price": null, "paid": false, "note": "-",
            "id": "123e4567-e89b-12d3-a456-426614174001",
        });
        let second = found
            .iter()
            .find(|record| record["value"]["Order_No"] == 2)
            .unwrap();
        assert_eq!(second["value"], expected);
        let third = found
            .iter()
            .find(|record| record["value"]["Order_No"] == 3)
            .unwrap();
        assert_eq!(
            (&third["value"]["when"], &third["value"]["day"]),
            (&Value::Null, &Value::Null)
        );
        // A row beyond the sample that does not fit is a bad row like any other.
        let sampled = cluster.unique("sampled");
        let rows = folder.file("mixed.csv", "a\n1\n2\nx\n");
        let publish = on(
            cluster,
            [
                "publish",
                &rows,
                "-t",
                &sampled,
                "--create-topic",
                "--sample",
                "2",
            ],
        );
        let refused = publish.exits(3);
        assert!(refused.stderr.contains("expected a long"), "{refused}");
    });
}

#[test]
fn what_is_no_text_is_told() {
    let folder = Folder::new();
    let file = folder.file("latin.csv", b"a,b\n1,Z\xfcrich\nB\xe4r,G\xf6\n");
    let inferred = tidegate(["schema", "infer", &file]).exits(0);
    assert!(
        inferred
            .stderr
            .contains("3 cells are not UTF-8, the first `Z\\xfcrich` in row 1, column `b`"),
        "{inferred}"
    );
    let decoded = tidegate(["schema", "infer", &file, "--encoding", "latin1"]).exits(0);
    assert!(!decoded.stderr.contains("not UTF-8"), "{decoded}");
}
