//! Schemas and the registry: which schema, under which subject, whether it may be registered, and what becomes of a job when its subject goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Exits, Folder, count, on, records};
use serde_json::{Value, json};
use tidegate_testkit::{Cluster, Kind, for_each_cluster};

/// A record `acme.R` with a long `a`, and perhaps more.
fn schema(more: &str) -> String {
    format!(
        r#"{{"type": "record", "name": "R", "namespace": "acme", "fields": [{{"name": "a", "type": "long"}}{more}]}}"#
    )
}

/// Publishes the rows `1` and `2` of a column `a`.
fn publish(cluster: &Cluster, folder: &Folder, topic: &str) -> tidegate_testkit::Tidegate {
    let file = folder.file("a.csv", "a\n1\n2\n");
    on(cluster, ["publish", &file, "-t", topic]).args(["--create-topic", "-o", "json"])
}

/// The subject's latest schema id; none where there is no such subject.
fn latest(cluster: &Cluster, subject: &str) -> Option<u64> {
    let shown = on(
        cluster,
        ["schema", "show", "-t", "any", "--subject", subject],
    );
    let shown = shown.args(["-o", "json"]).run();
    match shown.code {
        Some(0) => shown.json()["schema_id"].as_u64(),
        Some(6) => None,
        _ => panic!("{shown}"),
    }
}

#[test]
fn a_schema_is_taken_by_its_id() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("by-id"));
        let file = folder.file("r.avsc", schema(""));
        let other = cluster.unique("elsewhere");
        let registered = on(
            cluster,
            ["schema", "register", &file, "-t", &other, "-o", "json"],
        );
        let id = registered.exits(0).json()["schema_id"].clone();
        let text = id.to_string();
        let flags = ["--schema-id", &text];
        let checked = [
            "schema",
            "check",
            &folder.file("a.csv", "a\n1\n"),
            "-t",
            &topic,
        ];
        on(cluster, checked).args(flags).exits(0);
        let published = publish(cluster, &folder, &topic)
            .args(flags)
            .arg("--verify");
        assert_eq!(published.exits(0).json()["schema_id"], id);
        assert_eq!(latest(cluster, &format!("{topic}-value")), None);
        let unknown = publish(cluster, &folder, &cluster.unique("no-id"));
        let unknown = unknown.args(["--schema-id", "2000000000"]).exits(6);
        assert!(unknown.stdout.contains("2000000000"), "{unknown}");
        // The id that a job began with is not changed by typing another.
        let again = publish(cluster, &folder, &topic).args(["--schema-id", "2000000000"]);
        let again = again.exits(2);
        assert!(
            again.stdout.contains("--schema-id says 2000000000"),
            "{again}"
        );
    });
}

#[test]
fn subjects_are_named_by_strategy() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("strategy"));
        let record = cluster.unique("r").replace('-', "_");
        let text = schema("").replace("\"R\"", &format!("{record:?}"));
        let file = folder.file("r.avsc", text);
        for (strategy, subject) in [
            ("topic", format!("{topic}-value")),
            ("record", format!("acme.{record}")),
            ("topic-record", format!("{topic}-acme.{record}")),
        ] {
            assert_eq!(latest(cluster, &subject), None);
            let flags = [
                "--subject-strategy",
                strategy,
                "--schema",
                &file,
                "--restart",
            ];
            let published = publish(cluster, &folder, &topic).args(flags).exits(0);
            assert_eq!(
                latest(cluster, &subject),
                published.json()["schema_id"].as_u64()
            );
        }
        let unnamed = publish(cluster, &folder, &cluster.unique("unnamed"));
        let unnamed = unnamed.args(["--subject-strategy", "record"]).exits(2);
        assert!(unnamed.stdout.contains("no schema is named"), "{unnamed}");
    });
}

#[test]
fn nothing_is_registered_without_leave() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("no-register"));
        let file = folder.file("r.avsc", schema(""));
        let subject = format!("{topic}-value");
        for flags in [&["--schema", file.as_str()][..], &[]] {
            let refused = publish(cluster, &folder, &topic)
                .args(flags)
                .arg("--no-register");
            let refused = refused.exits(6);
            assert!(refused.stdout.contains(&subject), "{refused}");
            assert_eq!(latest(cluster, &subject), None);
            assert_eq!(count(cluster, &topic), -1, "no topic was created either");
        }
        on(cluster, ["schema", "register", &file, "-t", &topic]).exits(0);
        let flags = ["--schema", &file, "--no-register"];
        let published = publish(cluster, &folder, &topic).args(flags).exits(0);
        assert_eq!(
            published.json()["schema_id"].as_u64(),
            latest(cluster, &subject)
        );
    });
}

#[test]
fn what_breaks_is_shown_before_anything_is_sent() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("breaks"));
        let old = folder.file("old.avsc", schema(""));
        on(cluster, ["schema", "register", &old, "-t", &topic]).exits(0);
        let new = folder.file(
            "new.avsc",
            schema(r#", {"name": "added", "type": "string"}"#),
        );
        let file = folder.file("a.csv", "a,added\n1,x\n");
        let check = [
            "schema", "check", &file, "-t", &topic, "--schema", &new, "-o", "json",
        ];
        let dry = [
            "publish", &file, "-t", &topic, "--schema", &new, "-o", "json",
        ];
        for refused in [
            on(cluster, check),
            on(cluster, dry).args(["--create-topic", "--dry-run"]),
        ] {
            let refused = refused.exits(6);
            let error = refused.json()["error"].to_string();
            assert!(error.contains("incompatible with the subject"), "{refused}");
            let reason = "the new schema cannot read old data";
            assert!(
                error.contains(reason) && error.contains("added"),
                "{refused}"
            );
        }
        let wider = folder.file(
            "wider.avsc",
            schema(r#", {"name": "added", "type": "string", "default": "none"}"#),
        );
        let check = ["schema", "check", &file, "-t", &topic, "--schema", &wider];
        on(cluster, check).exits(0);
        assert_eq!(count(cluster, &topic), -1);
    });
}

#[test]
fn types_of_other_subjects_are_used() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("references"));
        let currency = cluster.unique("currency");
        let definition = r#"{"type": "enum", "name": "acme.Currency", "symbols": ["EUR", "CHF"]}"#;
        let definition = folder.file("currency.avsc", definition);
        let register = [
            "schema",
            "register",
            &definition,
            "-t",
            "any",
            "--subject",
            &currency,
        ];
        on(cluster, register).exits(0);
        let more = r#", {"name": "paid", "type": "Currency"}, {"name": "owed", "type": ["null", "acme.Currency"]}"#;
        let file = folder.file("order.avsc", schema(more));
        let rows = folder.file("orders.csv", "a,paid,owed\n1,EUR,\n2,CHF,EUR\n");
        let reference = format!("acme.Currency={currency}");
        let publish = || {
            let arguments = ["publish", &rows, "-t", &topic, "--schema", &file];
            on(cluster, arguments).args(["--create-topic", "--verify", "-o", "json"])
        };
        let unknown = publish().exits(6);
        assert!(unknown.stdout.contains("Currency"), "{unknown}");
        if cluster.kind() == Kind::Embedded {
            let refused = publish().args(["--reference", &reference]).exits(6);
            assert!(refused.stdout.contains("no schema references"), "{refused}");
            return;
        }
        let published = publish().args(["--reference", &reference]).exits(0).json();
        let value = |a, paid, owed: Value| json!({"a": a, "paid": paid, "owed": owed});
        let expected = [value(1, "EUR", Value::Null), value(2, "CHF", json!("EUR"))];
        let found = records(cluster, &topic);
        assert_eq!(found.len(), 2);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found["value"], *expected);
        }
        // The same file goes on with the job; so does the registry's own copy of it.
        let again = publish()
            .args(["--reference", &format!("{reference}:1")])
            .exits(0);
        assert_eq!(again.json()["status"], "already-published");
        let other = cluster.unique("references");
        let id = published["schema_id"].to_string();
        let arguments = [
            "publish",
            &rows,
            "-t",
            &other,
            "--create-topic",
            "--schema-id",
            &id,
        ];
        on(cluster, arguments).arg("--verify").exits(0);
    });
}
