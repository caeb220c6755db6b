//! Files as people really have them: delimiters, quotes, escapes, comments, no headers, ragged rows, encodings, names that stand twice, patterns of names.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::load::Load;
use common::{Exits, Folder, on, records};
use serde_json::{Value, json};
use tidegate_testkit::{Cluster, for_each_cluster};

/// Publishes a file with these flags, verifies it, and gives the values.
fn publish(cluster: &Cluster, content: &[u8], flags: &[&str]) -> Vec<Value> {
    let (folder, topic) = (Folder::new(), cluster.unique("dialect"));
    let file = folder.file("input.csv", content);
    let arguments = [
        "publish",
        &file,
        "-t",
        &topic,
        "--create-topic",
        "--verify",
        "--format",
        "json",
    ];
    on(cluster, arguments).args(flags).exits(0);
    let found = records(cluster, &topic).into_iter();
    found.map(|record| record["value"].clone()).collect()
}

#[test]
fn each_dialect_is_read_as_it_is_meant() {
    for_each_cluster(|cluster| {
        let two = [json!({"a": 1, "b": "x,y"}), json!({"a": 2, "b": "z"})];
        let cases: [(&[u8], &[&str]); 9] = [
            (b"a;b\n1;x,y\n2;z\n", &["--delimiter", ";"]),
            (b"a|b\n1|x,y\n2|z\n", &["--delimiter", "auto"]),
            (b"a,b\n1,'x,y'\n2,z\n", &["--quote", "'"]),
            (
                b"a\tb\n1\tx,y\n2\tz\n",
                &["--delimiter", "\\t", "--quote", "none"],
            ),
            (b"a,b\n1,x\\,y\n2,z\n", &["--escape", "\\"]),
            (
                b"# made by hand\na,b\n# a comment, with a \" in it\n1,\"x,y\"\n#\n2,z\n#end",
                &["--comment", "#"],
            ),
            (b"1,\"x,y\"\n2,z\n", &["--no-header", "--columns", "a,b"]),
            (b"old,older\n1,\"x,y\"\n2,z\n", &["--columns", "a,b"]),
            (b" a ,\tb\n 1 , \"x,y\" \n2,  z\n", &["--trim"]),
        ];
        for (content, flags) in cases {
            assert_eq!(publish(cluster, content, flags), two, "{flags:?}");
        }
        let quotes = publish(cluster, b"a,b\n1,\"x\"y\n", &["--quote", "none"]);
        assert_eq!(quotes, [json!({"a": 1, "b": "\"x\"y"})]);
        let escaped = b"a,b\n1,\"x\\\"y\\\\\"\n2,\\N\n3,x\\\ny\n";
        let escaped = publish(cluster, escaped, &["--escape", "\\", "--null", "\\N"]);
        let expected = [
            json!({"a": 1, "b": "x\"y\\"}),
            json!({"a": 2, "b": null}),
            json!({"a": 3, "b": "x\ny"}),
        ];
        assert_eq!(escaped, expected);
        let none = publish(cluster, b"7,x\n8,y\n", &["--no-header"]);
        assert_eq!(
            none,
            [json!({"c1": 7, "c2": "x"}), json!({"c1": 8, "c2": "y"})]
        );
    });
}

#[test]
fn ragged_rows_are_evened_out_only_when_asked() {
    for_each_cluster(|cluster| {
        let padded = publish(cluster, b"a,b\n1\n2,x\n", &["--ragged", "pad"]);
        assert_eq!(
            padded,
            [json!({"a": 1, "b": null}), json!({"a": 2, "b": "x"})]
        );
        let cut = publish(cluster, b"a,b\n1,x,y,\n2,z\n", &["--ragged", "drop-extra"]);
        assert_eq!(cut, [json!({"a": 1, "b": "x"}), json!({"a": 2, "b": "z"})]);
        let (folder, topic) = (Folder::new(), cluster.unique("ragged"));
        for (content, flags) in [
            ("a,b\n1,x,y\n", &["--ragged", "pad"][..]),
            ("a,b\n1\n", &["--ragged", "drop-extra"]),
            ("a,b\n1\n", &[]),
        ] {
            let file = folder.file("ragged.csv", content);
            let publish = on(
                cluster,
                [
                    "publish",
                    &file,
                    "-t",
                    &topic,
                    "--create-topic",
                    "--restart",
                ],
            );
            let refused = publish.args(flags).exits(3);
            assert!(refused.stderr.contains("expected 2 fields"), "{refused}");
        }
    });
}

/// Also those of a group that a killed load begins with again.
#[test]
fn what_was_evened_out_or_passed_over_is_counted_over_all_runs() {
    for_each_cluster(|cluster| {
        for grouped in [false, true] {
            let mut content = String::from("timestamp,container_id,machine_id\n");
            for row in 0..40 {
                let evened = if row % 2 == 0 { "" } else { ",m" };
                content.push_str(&format!("{row},c{evened}\n{row},d,m\n\n"));
            }
            let load = Load::of(cluster, content);
            let mut flags = vec!["--ragged", "pad"];
            if grouped {
                flags.extend(["--group-by", "timestamp"]);
            }
            load.kill_after(10, &flags);
            let went_on = load.publish().args(&flags).arg("--verify").exits(0).json();
            assert!(went_on["resumed_at_row"].as_u64() > Some(0), "{went_on}");
            let counts = ["blank_lines", "comment_lines", "evened_rows"];
            let counts = counts.map(|name| went_on[name].as_u64().unwrap());
            assert_eq!(counts, [40, 0, 20], "{went_on}");
        }
    });
}

#[test]
fn encodings_are_read_as_text() {
    for_each_cluster(|cluster| {
        let expected = [
            json!({"name": "Zürich", "n": 1}),
            json!({"name": "€", "n": 2}),
        ];
        let text = "name,n\nZürich,1\n€,2\n";
        let latin = b"name,n\nZ\xfcrich,1\n\x80,2\n";
        let wide = |bytes: fn(u16) -> [u8; 2], mark: bool| -> Vec<u8> {
            let text = format!("{}{text}", if mark { "\u{feff}" } else { "" });
            text.encode_utf16().flat_map(bytes).collect()
        };
        let cases: [(Vec<u8>, &[&str]); 6] = [
            (text.into(), &[]),
            (latin.to_vec(), &["--encoding", "latin1"]),
            (wide(u16::to_le_bytes, true), &[]),
            (wide(u16::to_be_bytes, true), &[]),
            (wide(u16::to_le_bytes, false), &["--encoding", "utf-16le"]),
            (wide(u16::to_be_bytes, true), &["--encoding", "utf-16"]),
        ];
        for (content, flags) in cases {
            assert_eq!(publish(cluster, &content, flags), expected, "{flags:?}");
        }
        let (folder, topic) = (Folder::new(), cluster.unique("encoding"));
        let damaged = folder.file("damaged.csv", b"name,n\n\x81 ,1\n");
        let publish = on(
            cluster,
            ["publish", &damaged, "-t", &topic, "--create-topic"],
        );
        let refused = publish.args(["--encoding", "shift_jis"]).exits(11);
        assert!(
            refused.stderr.contains("byte 7 is no text in Shift_JIS"),
            "{refused}"
        );
        let marked = folder.file("marked.csv", wide(u16::to_be_bytes, true));
        let contradicted = on(cluster, ["publish", &marked, "-t", &topic])
            .args(["--encoding", "latin1"])
            .exits(11);
        let mark = "byte order mark of UTF-16BE, but --encoding says windows-1252";
        assert!(contradicted.stderr.contains(mark), "{contradicted}");
        let unknown =
            on(cluster, ["publish", &damaged, "-t", &topic]).args(["--encoding", "klingon"]);
        unknown.exits(2);
    });
}

#[test]
fn a_delimiter_is_found_by_evidence_or_not_at_all() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("auto"));
        let find = |content: &str| {
            let file = folder.file("auto.csv", content);
            let publish = on(
                cluster,
                [
                    "publish",
                    &file,
                    "-t",
                    &topic,
                    "--create-topic",
                    "--restart",
                ],
            );
            publish.args(["--delimiter", "auto"])
        };
        let found = find("a;b\n\"x;y\";1,5\nz;2,5\n").exits(0);
        assert!(
            found.stderr.contains("delimiter ; by 3 rows of 2 cells"),
            "{found}"
        );
        let tie = find("a;b,c\n1;2,3\n").exits(3);
        assert!(tie.stderr.contains("each of , ;"), "{tie}");
        let none = find("a\n1\n2\n").exits(3);
        assert!(none.stderr.contains("none of , ; \\t |"), "{none}");
        let header = find("a;b\n").exits(0);
        assert!(
            header.stderr.contains("delimiter ; by 1 row of 2 cells"),
            "{header}"
        );
        // Found once, it stands with the job: verify needs not be told.
        find("a;b\n1;2\n").exits(0);
        on(cluster, ["verify", &folder.name("auto.csv"), "-t", &topic]).exits(0);
    });
}

#[test]
fn names_that_stand_twice_or_are_missing_are_usable() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("names"));
        let file = folder.file("names.csv", "a,,a\n1,x,2\n");
        let publish = on(
            cluster,
            ["publish", &file, "-t", &topic, "--create-topic", "--verify"],
        );
        let published = publish.args(["--key", "a#2"]).exits(0);
        assert!(
            published.stderr.contains("column 3 is called `a#2`"),
            "{published}"
        );
        assert!(
            published
                .stderr
                .contains("has no name in the header and is called `column 2`"),
            "{published}"
        );
        let found = &records(cluster, &topic)[0];
        assert_eq!(
            (&found["key"], &found["value"]),
            (&json!("2"), &json!({"a": 1, "column_2": "x", "a_2": 2}))
        );
    });
}

#[test]
fn a_pattern_of_names_stands_for_its_files_in_order() {
    for_each_cluster(|cluster| {
        let (folder, topic) = (Folder::new(), cluster.unique("pattern"));
        for (name, content) in [
            ("p2.csv", "a\n2\n"),
            ("p1.csv", "a\n1\n"),
            ("q.csv", "a\n3\n"),
        ] {
            folder.file(name, content);
        }
        let pattern = folder.name("p?.csv");
        on(
            cluster,
            [
                "publish",
                &pattern,
                "-t",
                &topic,
                "--create-topic",
                "--verify",
            ],
        )
        .exits(0);
        let found: Vec<Value> = records(cluster, &topic)
            .iter()
            .map(|record| record["value"]["a"].clone())
            .collect();
        assert_eq!(found, [json!(1), json!(2)]);
        let none = on(cluster, ["publish", &folder.name("r*.csv"), "-t", &topic]).exits(11);
        assert!(none.stderr.contains("no file has a name like"), "{none}");
    });
}

/// Killed in the middle of a file without a header, with comments, in UTF-16: it goes on there.
#[test]
fn a_killed_load_goes_on_in_any_dialect() {
    for_each_cluster(|cluster| {
        let mut text = String::from("\u{feff}# a comment before all rows\n");
        for row in 0..40 {
            text.push_str(&format!("{row};c_{row};\"n;{row}\"\n# ü {row}\n"));
        }
        let content: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let load = Load::of(cluster, content);
        let columns = "timestamp,container_id,machine_id";
        let flags = [
            "--no-header",
            "--columns",
            columns,
            "--delimiter",
            ";",
            "--comment",
            "#",
        ];
        load.kill_after(10, &flags);
        let went_on = load.publish().args(flags).arg("--verify").exits(0).json();
        assert_eq!(went_on["resumed_at_row"], 10, "{went_on}");
        assert_eq!(load.ticks(), (0..40).collect::<Vec<_>>());
        assert_eq!(went_on["comment_lines"], 41, "{went_on}");
        let again = load.publish().args(flags).exits(0).json();
        assert_eq!(again["comment_lines"], 41, "{again}");
        let refused = load.publish().args(["--comment", ";"]).exits(2);
        assert!(refused.stdout.contains("--comment"), "{refused}");
    });
}
