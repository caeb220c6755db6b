//! Compressed inputs: published, gone on with and verified as what is in them; and nothing is sent of a file that is damaged anywhere.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::load::{Load, PATIENCE, ROWS};
use common::{Exits, Folder, count, on, tidegate, usage};
use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::proxy::{ApiKey, Rule, Verb};
use tidegate_testkit::{Cluster, Finished, Tidegate, for_each_cluster};

/// With a schema of its own a load does not read its file to infer one.
const SCHEMA: &str =
    r#"{"type": "record", "name": "usage", "fields": [{"name": "timestamp", "type": "long"}]}"#;

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// With a checksum, as the zstd command writes it.
fn zstd(content: &str) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(content: &str) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// With a checksum, as the xz command writes it.
fn xz(content: &str) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.set_check_sum_type(lzma_rust2::CheckType::Crc64);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Packs the thirds of `content` apart, in the middle of rows.
fn in_parts(pack: fn(&str) -> Vec<u8>, content: &str) -> Vec<u8> {
    let (one, rest) = content.split_at(content.len() / 3);
    let (two, three) = rest.split_at(rest.len() / 2);
    [one, two, three].map(pack).concat()
}

/// A load of a file into a topic that is not there yet, with [`SCHEMA`].
fn publish_with_schema(load: &Load<'_>) -> Tidegate {
    let schema = load.folder.file("usage.avsc", SCHEMA);
    load.publish().args(["--schema", &schema])
}

#[test]
fn what_is_in_a_compressed_file_is_published_and_verified() {
    for_each_cluster(|cluster| {
        let content = usage(300, 1);
        for (packed, kind) in [
            (gzip(&content), "gzip"),
            (in_parts(gzip, &content), "gzip"),
            (in_parts(zstd, &content), "zstd"),
            (in_parts(bzip2, &content), "bzip2"),
            (in_parts(xz, &content), "xz"),
        ] {
            let load = Load::of(cluster, packed);
            let receipt = load.folder.name("receipt.json");
            let flags = ["--verify", "--receipt", &receipt];
            let published = load.publish().args(flags).exits(0);
            let summary = published.json();
            assert_eq!(
                (&summary["rows"]["read"], &summary["verify"]["status"]),
                (&json!(300), &json!("same")),
                "{published}"
            );
            let told = format!(
                "usage.csv ({} bytes unpacked from {kind}, about 300 rows)",
                grouped(&content)
            );
            assert!(published.stderr.contains(&told), "{published}");
            assert_eq!(load.ticks(), (0..300).collect::<Vec<_>>());
            let written: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
            assert_eq!(written["sources"][0]["length"], content.len());
            on(cluster, ["verify", &load.file, "-t", &load.topic]).exits(0);
            tidegate(["verify", "--receipt", &receipt, "-b", cluster.bootstrap()]).exits(0);
            let again = load.publish().exits(0).json();
            assert_eq!(again["status"], "already-published");
            let restarted = load.publish().arg("--restart").exits(0).json();
            assert_eq!(restarted["records"]["delivered"], 300);
            assert_eq!(count(cluster, &load.topic), 600);
        }
    });
}

/// A number as people are told it.
fn grouped(content: &str) -> String {
    let (thousands, rest) = (content.len() / 1_000, content.len() % 1_000);
    format!("{thousands},{rest:03}")
}

/// What is in it counts, not how it is packed.
#[test]
fn t01_a_killed_load_goes_on_however_its_file_is_packed_by_then() {
    for_each_cluster(|cluster| {
        let content = usage(ROWS, 1);
        let mut cell = Cell::new(1, "killed, and the file is packed otherwise by then");
        for (before, after) in [
            (in_parts(gzip, &content), in_parts(gzip, &content)),
            (in_parts(zstd, &content), in_parts(zstd, &content)),
            (in_parts(gzip, &content), content.clone().into_bytes()),
            (content.clone().into_bytes(), in_parts(zstd, &content)),
            (in_parts(bzip2, &content), in_parts(bzip2, &content)),
            (in_parts(xz, &content), in_parts(xz, &content)),
        ] {
            let load = Load::of(cluster, before);
            let proxy = load.proxy();
            let end = proxy.inject(load.ends(Verb::Hold).nth(2));
            let running = load.through(proxy.bootstrap()).start();
            assert!(end.wait_fired(1, PATIENCE));
            assert_eq!(running.kill().code, None);
            drop(proxy);
            std::fs::write(&load.file, after).unwrap();
            let summary = load.complete();
            let resumed_at = summary["resumed_at_row"].as_u64().unwrap();
            assert!(0 < resumed_at && resumed_at < u64::from(ROWS), "{summary}");
            cell = cell.fired(1).counts(load.counts(ROWS));
        }
        cell.on(cluster.kind()).code(Some(0)).record();
    });
}

#[test]
fn t24_a_file_that_has_grown_by_a_member_is_gone_on_with() {
    for_each_cluster(|cluster| {
        let (content, more) = (usage(300, 1), usage(310, 1));
        let added = &more[content.len()..];
        let mut cell = Cell::new(24, "a compressed file is still being written");
        for pack in [gzip, zstd, bzip2, xz] {
            let load = Load::of(cluster, pack(&content));
            load.publish().exits(0);
            // It is still being written.
            let part = pack(added);
            let half = [pack(&content).as_slice(), &part[..part.len() / 2]].concat();
            std::fs::write(&load.file, half).unwrap();
            let refused = load.publish().exits(3);
            assert!(refused.stderr.contains("still being written"), "{refused}");
            assert_eq!(count(cluster, &load.topic), 300);
            let whole = [pack(&content), part].concat();
            std::fs::write(&load.file, whole).unwrap();
            let grown = load.publish().arg("--verify").exits(0).json();
            assert_eq!(
                (
                    &grown["resumed_at_row"],
                    &grown["rows"]["read"],
                    &grown["verify"]["status"]
                ),
                (&json!(300), &json!(310), &json!("same"))
            );
            assert_eq!(load.ticks(), (0..310).collect::<Vec<_>>());
            cell = cell.fired(1).counts(load.counts(310)).code(refused.code);
        }
        cell.on(cluster.kind()).record();
    });
}

/// Data of which each part, wherever it is cut or changed, is noticed: behind the header, which holds a time and the like.
fn damaged(packed: &[u8]) -> impl Iterator<Item = (Vec<u8>, &'static str)> {
    let places = (0..8).map(|part| 12 + (packed.len() - 12) * part / 8);
    let cut = places.clone().chain([10, packed.len() - 1]);
    let cut = cut.map(|place| (packed[..place].to_vec(), "cut off: it ends at byte"));
    // The low bits of the last byte only fill up the last stream of bzip2.
    let changed = places.map(|place| (place, 1));
    let changed = changed
        .chain([(packed.len() - 1, 0x80)])
        .map(|(place, bit)| {
            let mut bytes = packed.to_vec();
            bytes[place] ^= bit;
            (bytes, "data ")
        });
    cut.chain(changed)
}

#[test]
fn t24_nothing_is_sent_of_a_damaged_file() {
    for_each_cluster(|cluster| {
        // Much more than is read for the header.
        let content = usage(40_000, 1);
        let mut cell = Cell::new(24, "a compressed file is cut off or changed anywhere");
        for pack in [gzip, zstd, bzip2, xz] {
            let packed = in_parts(pack, &content);
            let load = Load::of(cluster, "");
            for (bytes, said) in damaged(&packed) {
                std::fs::write(&load.file, bytes).unwrap();
                let refused = publish_with_schema(&load).exits(3);
                let error = refused.json()["error"].clone();
                assert_eq!(error["kind"], "input", "{refused}");
                let message = error["message"].as_str().unwrap();
                assert!(message.starts_with(&load.file), "{refused}");
                assert!(message.contains(said), "{refused}");
                assert!(!error["hints"][0].as_str().unwrap().is_empty());
            }
            // Inferring reads it to its end, too.
            std::fs::write(&load.file, &packed[..packed.len() - 1]).unwrap();
            for failed in [
                load.publish().exits(3),
                publish_with_schema(&load).arg("--dry-run").exits(3),
                tidegate(["schema", "infer", &load.file]).exits(3),
            ] {
                assert!(failed.stderr.contains(&load.file), "{failed}");
                assert!(failed.stderr.contains("cut off"), "{failed}");
            }
            assert_eq!(count(cluster, &load.topic), -1, "nothing was created");
            let subject = ["schema", "show", "-t", &load.topic];
            on(cluster, subject).exits(6);
            std::fs::write(&load.file, &packed).unwrap();
            publish_with_schema(&load).exits(0);
            assert_eq!(count(cluster, &load.topic), 40_000);
            cell = cell.fired(damaged(&packed).count() as u64);
            cell = cell.counts(load.counts(40_000));
            // Nor is damage called a difference of the topic.
            for (bytes, _) in damaged(&packed).skip(10) {
                std::fs::write(&load.file, bytes).unwrap();
                let verify = on(cluster, ["verify", &load.file, "-t", &load.topic]);
                verify.exits(3);
            }
        }
        cell.on(cluster.kind()).code(Some(3)).record();
    });
}

/// What half of a member is by the time the load is sent, a later run reads; what is overwritten is noticed where it ends.
#[test]
fn t24_a_file_that_changes_behind_the_check_is_read_as_it_was_or_refused() {
    for_each_cluster(|cluster| {
        let (content, more) = (usage(40_000, 1), usage(40_010, 1));
        let (whole, part) = (gzip(&content), gzip(&more[content.len()..]));
        let load = Load::of(cluster, &whole);
        let half = [whole.as_slice(), &part[..part.len() / 2]].concat();
        let sent = change_before_it_is_sent(&load, &half).exits(0).json();
        assert_eq!(sent["rows"]["read"], 40_000);
        std::fs::write(&load.file, [whole.clone(), part].concat()).unwrap();
        let grown = load.publish().arg("--verify").exits(0).json();
        assert_eq!(
            (&grown["this_run"]["rows"], &grown["verify"]["status"]),
            (&json!(10), &json!("same"))
        );
        let load = Load::of(cluster, &whole);
        let mut broken = whole.clone();
        broken[whole.len() - 1] ^= 1;
        let refused = change_before_it_is_sent(&load, &broken).exits(3);
        let error = refused.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&load.file), "{refused}");
        assert!(message.contains("damaged at byte"), "{refused}");
        load.cell(24, "a compressed file changes behind its check")
            .fired(2)
            .code(Some(0))
            .code(refused.code)
            .record();
    });
}

/// Runs a load whose file becomes another one between the check and the sending.
fn change_before_it_is_sent(load: &Load<'_>, content: &[u8]) -> Finished {
    let proxy = load.proxy();
    let takeover = Rule::new(ApiKey::InitProducerId, Verb::Hold).transactional_id(load.job());
    let takeover = proxy.inject(takeover);
    let running = load.through(proxy.bootstrap()).start();
    assert!(takeover.wait_fired(1, PATIENCE));
    std::fs::write(&load.file, content).unwrap();
    takeover.release();
    running.finish()
}

/// A file of a few megabytes that holds some hundred gigabytes.
#[test]
fn t04_a_signal_ends_the_check_before_anything_is_sent() {
    for_each_cluster(|cluster| {
        let rows = "1,c_1,n_1,1.5\n".repeat(1 << 22);
        let frame = zstd(&rows);
        let header = zstd("timestamp,container_id,machine_id,cpu\n");
        let load = Load::of(cluster, [header, frame.repeat(3_000)].concat());
        let mut running = publish_with_schema(&load).start();
        thread::sleep(Duration::from_secs(1));
        assert!(running.is_running());
        running.signal(Signal::INT);
        let ended = running.finish().exits(130);
        assert!(ended.elapsed < Duration::from_secs(20), "{ended}");
        assert_eq!(count(cluster, &load.topic), -1, "nothing was created");
        load.cell(4, "SIGINT while a compressed file is checked")
            .fired(1)
            .code(ended.code)
            .record();
    });
}

#[test]
fn a_compressed_stream_is_read_too() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let schema = folder.file("usage.avsc", SCHEMA);
        let publish = |input: &str, topic: &str| {
            let arguments = ["publish", input, "-t", topic, "--create-topic"];
            on(cluster, arguments).args(["--schema", &schema])
        };
        for packed in [gzip, zstd, bzip2, xz].map(|pack| pack(&usage(5_000, 1))) {
            let topic = cluster.unique("packed");
            let sent = publish("-", &topic).input(packed.clone()).exits(0);
            assert!(sent.stderr.contains("a stream unpacked from"), "{sent}");
            assert_eq!(count(cluster, &topic), 5_000);
            // What stands before the end is sent by then: a stream cannot be looked at beforehand.
            let topic = cluster.unique("cut");
            let cut = &packed[..packed.len() - 3];
            let cut = publish("-", &topic).input(cut).exits(3);
            assert!(cut.stderr.contains("stdin: "), "{cut}");
            assert!(cut.stderr.contains("cut off"), "{cut}");
            // Its first bytes come one by one.
            let (topic, pipe) = (cluster.unique("pieces"), folder.name("pipe"));
            let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
            assert!(made.success());
            let running = publish(&pipe, &topic).start();
            let mut writer = OpenOptions::new().write(true).open(&pipe).unwrap();
            for byte in &packed[..12] {
                writer.write_all(&[*byte]).unwrap();
                thread::sleep(Duration::from_millis(30));
            }
            writer.write_all(&packed[12..]).unwrap();
            drop(writer);
            running.finish().exits(0);
            assert_eq!(count(cluster, &topic), 5_000);
            std::fs::remove_file(&pipe).unwrap();
        }
    });
}

#[test]
fn a_schema_is_inferred_from_what_is_in_the_file() {
    let folder = Folder::new();
    let content = usage(100, 1);
    let infer = |name: &str, bytes: &[u8]| {
        let file = folder.file(name, bytes);
        tidegate(["schema", "infer", &file]).exits(0).stdout
    };
    let schema = infer("usage.csv", content.as_bytes());
    assert_eq!(infer("usage.csv.gz", &in_parts(gzip, &content)), schema);
    assert_eq!(infer("usage.zst", &in_parts(zstd, &content)), schema);
    assert_eq!(infer("usage.bz2", &in_parts(bzip2, &content)), schema);
    assert_eq!(infer("usage.csv.xz", &in_parts(xz, &content)), schema);
}

/// The first bytes tell, and not the name.
#[test]
fn a_plain_file_is_plain_whatever_it_is_called() {
    let cluster = Cluster::embedded();
    let folder = Folder::new();
    let (file, topic) = (folder.file("usage.csv.gz", usage(5, 1)), "plain");
    let published = on(&cluster, ["publish", &file, "-t", topic, "--create-topic"]).exits(0);
    assert!(!published.stderr.contains("unpacked"), "{published}");
    assert_eq!(count(&cluster, topic), 5);
}
