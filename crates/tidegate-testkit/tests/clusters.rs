//! The clusters that tests get are usable: topics can be made and read, and their registries answer.

use tidegate_registry::{Registry, RegistryConfig};
use tidegate_testkit::for_each_cluster;
use tidegate_testkit::raw::RawClient;

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
