//! `tidegate verify`: the same file and topic agree, and whatever was tampered with is named.

mod common;

use std::collections::BTreeMap;

use common::{Exits, Folder, on, usage};
use serde_json::{Value, json};
use tidegate::kafka::admin::NewTopic;
use tidegate::kafka::producer::{Producer, ProducerConfig, ProducerRecord};
use tidegate::kafka::{Client, ClientConfig};
use tidegate_testkit::{Cluster, for_each_cluster};
use tidegate_wire::RecordHeader;

fn publish(cluster: &Cluster, file: &str, topic: &str, receipt: &str) {
    on(
        cluster,
        [
            "publish",
            file,
            "-t",
            topic,
            "--create-topic",
            "--receipt",
            receipt,
        ],
    )
    .exits(0);
}

#[test]
fn a_changed_cell_is_named_by_line_and_column() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(5, 2));
        let (topic, receipt) = (cluster.unique("cell"), folder.name("receipt.json"));
        publish(cluster, &file, &topic, &receipt);
        on(cluster, ["verify", &file, "-t", &topic]).exits(0);
        // Line 8 is the row of tick 3, container 1.
        let tampered = usage(5, 2).replace("3,c_1,n_1,1.5", "3,c_1,n_1,9.5");
        std::fs::write(&file, tampered).unwrap();
        let differs = on(cluster, ["verify", &file, "-t", &topic, "-o", "json"]).exits(9);
        let json = differs.json();
        assert_eq!(
            (&json["status"], &json["exit_code"]),
            (&json!("differs"), &json!(9))
        );
        let difference = &json["first_difference"];
        assert_eq!(
            (
                &difference["line"],
                &difference["column"],
                &difference["offset"]
            ),
            (&json!(8), &json!("cpu"), &json!(6))
        );
        assert!(differs.stderr.contains("line 8"), "{differs}");
    });
}

#[test]
fn a_missing_and_a_surplus_row_are_found() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(5, 2));
        let (topic, receipt) = (cluster.unique("rows"), folder.name("receipt.json"));
        publish(cluster, &file, &topic, &receipt);
        for wrong in [
            usage(4, 2),
            usage(6, 2),
            usage(5, 2).replace("2,c_2,n_2,2.5\n", ""),
        ] {
            std::fs::write(&file, wrong).unwrap();
            let differs = on(cluster, ["verify", &file, "-t", &topic, "-o", "json"]).exits(9);
            assert_eq!(differs.json()["status"], "differs", "{differs}");
        }
    });
}

#[test]
fn a_receipt_knows_its_own_records_among_others() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let (first, second) = (
            folder.file("first.csv", usage(3, 1)),
            folder.file("second.csv", usage(4, 1)),
        );
        let topic = cluster.unique("foreign");
        let receipts = [folder.name("first.json"), folder.name("second.json")];
        publish(cluster, &first, &topic, &receipts[0]);
        publish(cluster, &second, &topic, &receipts[1]);
        for (receipt, records) in receipts.iter().zip([3, 4]) {
            let same = on(cluster, ["verify", "--receipt", receipt, "-o", "json"])
                .exits(0)
                .json();
            assert_eq!(
                (&same["status"], &same["records"]),
                (&json!("same"), &json!(records))
            );
        }
        let job = on(cluster, ["verify", &first, "-t", &topic, "-o", "json"]).exits(0);
        assert_eq!(job.json()["records"], 3, "its position knows them too");
        let copy = folder.file("copy.csv", usage(3, 1));
        let whole = on(cluster, ["verify", &copy, "-t", &topic]).run();
        assert_eq!(
            whole.code,
            Some(9),
            "without a receipt or a position the whole topic is compared\n{whole}"
        );
    });
}

#[test]
fn verify_needs_the_topic_and_the_file() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", usage(1, 1));
        on(cluster, ["verify", &file, "-t", &cluster.unique("missing")]).exits(6);
        on(cluster, ["verify", &folder.name("missing.csv"), "-t", "t"]).exits(11);
        let (topic, receipt) = (cluster.unique("gone"), folder.name("receipt.json"));
        publish(cluster, &file, &topic, &receipt);
        std::fs::write(
            &file,
            "timestamp,container_id,machine_id,cpu\n0,c_1,n_1,7.5\n",
        )
        .unwrap();
        let changed = on(cluster, ["verify", "--receipt", &receipt, "-o", "json"]).run();
        let json: Value = changed.json();
        assert!(
            matches!(changed.code, Some(3 | 9)),
            "the file is another one now\n{changed}"
        );
        assert_ne!(json["status"], "same");
    });
}

/// Headers are content: somebody else's record with the same key and value is another one.
#[test]
fn a_header_that_was_added_differs() {
    for_each_cluster(|cluster| {
        let folder = Folder::new();
        let file = folder.file("usage.csv", "timestamp,cpu\n1,0.5\n");
        let topic = cluster.unique("headers");
        let client = Client::connect(ClientConfig::new(cluster.bootstrap()).unwrap()).unwrap();
        let wanted = NewTopic {
            name: topic.clone(),
            partitions: Some(1),
            replication_factor: None,
            configs: BTreeMap::new(),
        };
        client.admin().create_topic(&wanted).unwrap();
        let mut producer = Producer::open(client, ProducerConfig::default()).unwrap();
        let handle = producer.topic(&topic).unwrap();
        let header = RecordHeader {
            name: "trace",
            value: Some(b"1"),
        };
        let record = ProducerRecord {
            key: Some(b"1"),
            value: Some(br#"{"timestamp":1,"cpu":0.5}"#),
            headers: &[header],
            timestamp: None,
            tag: 1,
        };
        producer.append(handle, 0, record).unwrap();
        producer.flush(&mut Vec::new()).unwrap();
        let arguments = [
            "verify", &file, "-t", &topic, "--format", "json", "-o", "json",
        ];
        let differs = on(cluster, arguments).exits(9).json();
        assert_eq!(differs["first_difference"]["what"], "headers", "{differs}");
    });
}
