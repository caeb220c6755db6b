//! The clusters that tests get are usable: topics can be made, filled and read, and their registries answer.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use kafka_protocol::messages::{ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidegate_registry::{Registry, RegistryConfig};
use tidegate_testkit::for_each_cluster;
use tidegate_testkit::log::assert_exactly_once;
use tidegate_testkit::proxy::{ApiKey, Proxy, Rule, Verb};
use tidegate_testkit::raw::RawClient;
use tidegate_wire::{BatchBuilder, ProducerStamp, encode_header};

fn produce(
    client: &mut RawClient,
    topic: &str,
    partition: i32,
    values: &[Vec<u8>],
) -> std::io::Result<ProduceResponse> {
    let mut builder = BatchBuilder::with_buffer(Vec::new(), 1_700_000_000_000);
    for value in values {
        builder.append(None, Some(b"key"), Some(value), &[]);
    }
    let body = builder.finish();
    let mut batch = encode_header(&body, ProducerStamp::NONE).to_vec();
    batch.extend_from_slice(&body.records);
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch.into()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    client.call(&request, 8)
}

#[test]
fn a_new_topic_is_empty_and_the_registry_answers() {
    for_each_cluster(|cluster| {
        let topic = cluster.unique("empty");
        let mut client = RawClient::connect(cluster.bootstrap()).unwrap();
        client
            .create_topic(&topic, 3, &[("retention.ms", "-1")])
            .unwrap();
        assert_eq!(client.partitions(&topic).unwrap(), [0, 1, 2]);
        assert_eq!(client.read_topic(&topic).unwrap(), []);
        assert!(
            client.create_topic(&topic, 3, &[]).is_err(),
            "it is there already"
        );
        let registry = Registry::new(RegistryConfig::new(cluster.registry_url())).unwrap();
        assert_eq!(registry.latest(&topic).unwrap(), None);
    });
}

#[test]
fn what_was_produced_is_read_back() {
    for_each_cluster(|cluster| {
        let topic = cluster.unique("filled");
        let mut client = RawClient::connect(cluster.bootstrap()).unwrap();
        client.create_topic(&topic, 2, &[]).unwrap();
        let mut sent: BTreeMap<i32, Vec<Vec<u8>>> = BTreeMap::new();
        for round in 0..20_u32 {
            let partition = i32::from(round % 3 == 0);
            let values: Vec<Vec<u8>> = (0..round + 1)
                .map(|number| format!("{round}/{number}").into_bytes())
                .collect();
            let answer = produce(&mut client, &topic, partition, &values).unwrap();
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            sent.entry(partition).or_default().extend(values);
        }
        let found = client.read_topic(&topic).unwrap();
        assert_exactly_once(&sent, &found);
        assert!(
            found
                .iter()
                .all(|record| record.key.as_deref() == Some(b"key"))
        );
        let counts = sent
            .iter()
            .map(|(partition, values)| (*partition, i64::try_from(values.len()).unwrap()));
        assert_eq!(client.end_offsets(&topic).unwrap(), counts.collect());
    });
}

/// The acknowledgement of a batch is lost behind the append, on a real broker as on ours.
#[test]
fn a_lost_acknowledgement_is_not_a_lost_batch() {
    for_each_cluster(|cluster| {
        let topic = cluster.unique("proxied");
        let proxy = Proxy::start(cluster.bootstrap()).unwrap();
        let mut client = RawClient::connect(proxy.bootstrap()).unwrap();
        client.create_topic(&topic, 1, &[]).unwrap();
        let reset = Rule::new(ApiKey::Produce, Verb::Reset).topic(&topic);
        let lost = proxy.inject(reset.on_answer().nth(2));
        let batch = |text: &str| [text.as_bytes().to_vec()];
        produce(&mut client, &topic, 0, &batch("told")).unwrap();
        produce(&mut client, &topic, 0, &batch("not told")).unwrap_err();
        assert!(lost.wait_fired(1, Duration::ZERO) && lost.answered() == 1);
        let mut direct = RawClient::connect(cluster.bootstrap()).unwrap();
        let found = direct.read_topic(&topic).unwrap();
        let sent = [batch("told"), batch("not told")].concat();
        assert_exactly_once(&BTreeMap::from([(0, sent)]), &found);
    });
}
