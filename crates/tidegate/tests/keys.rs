//! Keys with a schema: Avro and JSON, derived or given, registered under a subject of their own, and verified.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::load::Load;
use common::{Exits, on, records};
use serde_json::{Value, json};
use tidegate_testkit::{Cluster, for_each_cluster};

const ROWS: &str = "id,host,cpu\n1,a,0.5\n,,1.5\n3,c,2.5\n";

/// The keys of a topic, in order.
fn keys(cluster: &Cluster, topic: &str) -> Vec<Value> {
    let found = records(cluster, topic);
    found.iter().map(|record| record["key"].clone()).collect()
}

/// The latest schema of a subject.
fn latest(cluster: &Cluster, subject: &str) -> Value {
    let shown = on(
        cluster,
        ["schema", "show", "-t", "any", "--subject", subject],
    );
    let shown = shown.args(["-o", "json"]).exits(0).json();
    json!([shown["schema_id"], shown["schema"]])
}

#[test]
fn avro_keys_have_the_type_of_their_column_and_a_subject_of_their_own() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, ROWS);
        let avro = ["--key", "id", "--key-format", "avro"];
        let summary = load.publish().args(avro).args(["--verify"]);
        let summary = summary.exits(0).json();
        assert_eq!(summary["verify"]["status"], "same", "{summary}");
        assert_eq!(
            keys(cluster, &load.topic),
            [json!(1), Value::Null, json!(3)]
        );
        let subject = format!("{}-key", load.topic);
        let registered = latest(cluster, &subject);
        assert_eq!(registered[0], summary["key_schema_id"]);
        assert_ne!(summary["key_schema_id"], summary["schema_id"]);
        assert!(
            registered[1] == "long" || registered[1] == json!({"type": "long"}),
            "{registered}"
        );

        // Another run finds its job, and the keys it began with.
        let again = load.publish().args(avro).exits(0).json();
        assert_eq!(again["status"], "already-published", "{again}");
        let other = load
            .publish()
            .args(["--key", "id", "--key-format", "string"]);
        let refused = other.exits(2);
        assert!(
            refused.stderr.contains("--key-format says string"),
            "{refused}"
        );
        let verified = on(cluster, ["verify", &load.file, "-t", &load.topic]);
        let verified = verified.args(["-o", "json"]).exits(0).json();
        assert_eq!(verified["status"], "same", "{verified}");
    });
}

#[test]
fn a_keys_schema_may_be_given_and_must_fit_its_subject() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, ROWS);
        let field = |kind: &str| {
            format!(
                r#"{{"type": "record", "name": "K", "fields": [{{"name": "number", "type": ["null", "{kind}"], "tidegate.column": "id"}},
                    {{"name": "host", "type": "string"}}]}}"#
            )
        };
        let schema = load.folder.file("key.avsc", field("int"));
        let another = load.folder.file("another.avsc", field("string"));
        let subject = cluster.unique("machine");
        let flags = |schema: &str| {
            [
                "--key-format",
                "avro",
                "--key-subject",
                &subject,
                "--key-schema",
                schema,
            ]
            .map(str::to_owned)
        };
        let unregistered = load.publish().args(flags(&schema)).args(["--no-register"]);
        let refused = unregistered.exits(6);
        assert!(
            refused.stderr.contains(&subject) || refused.stderr.contains("no schema"),
            "{refused}"
        );
        let planned = load.publish().args(flags(&schema)).args(["--dry-run"]);
        let planned = planned.exits(0);
        assert!(
            planned
                .stderr
                .contains("key id, host (the fields of its schema, schema"),
            "{planned}"
        );
        load.publish()
            .args(flags(&schema))
            .args(["--verify"])
            .exits(0);
        let expected = [
            json!({"number": 1, "host": "a"}),
            Value::Null,
            json!({"number": 3, "host": "c"}),
        ];
        assert_eq!(keys(cluster, &load.topic), expected);

        let refused = load.publish().args(flags(&another)).exits(2);
        assert!(refused.stderr.contains("--key-schema says"), "{refused}");
        let next = Load::of(cluster, ROWS);
        let broken = next.publish().args(flags(&another)).args(["--dry-run"]);
        let broken = broken.exits(6);
        assert!(
            broken
                .stderr
                .contains(&format!("incompatible with the subject {subject}")),
            "{broken}"
        );
        // The registry's latest is taken where no file is named.
        let taken = next.publish().args([
            "--key-format",
            "avro",
            "--key-subject",
            &subject,
            "--verify",
        ]);
        taken.exits(0);
        assert_eq!(keys(cluster, &next.topic), expected);
    });
}

#[test]
fn json_keys_are_values_and_need_no_registry() {
    for_each_cluster(|cluster| {
        for (key, expected) in [
            ("id", [json!("1"), Value::Null, json!("3")]),
            (
                "id,host",
                [
                    json!(r#"{"id":1,"host":"a"}"#),
                    Value::Null,
                    json!(r#"{"id":3,"host":"c"}"#),
                ],
            ),
        ] {
            let load = Load::of(cluster, ROWS);
            let flags = [
                "--format",
                "json",
                "--key-format",
                "json",
                "--key",
                key,
                "--verify",
            ];
            let summary = load.publish().args(flags).exits(0).json();
            assert_eq!(summary["key_schema_id"], Value::Null, "{summary}");
            assert_eq!(keys(cluster, &load.topic), expected);
        }
    });
}

#[test]
fn a_key_that_cannot_have_a_schema_is_refused_before_anything_is_sent() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, ROWS);
        let keyless = load.publish().args(["--key-format", "avro"]).exits(2);
        assert!(
            keyless.stderr.contains("--key names its columns"),
            "{keyless}"
        );
        let schema = load.folder.file("key.avsc", "\"int\"");
        let bad = [
            "--key",
            "host",
            "--key-format",
            "avro",
            "--key-schema",
            &schema,
        ];
        let refused = load.publish().args(bad).exits(3);
        assert!(
            refused.stderr.contains("in the key: ") && refused.stderr.contains("host"),
            "{refused}"
        );
    });
}
