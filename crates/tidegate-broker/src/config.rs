//! How a broker is set up. Defaults are Kafka's own where Kafka has the setting.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::faults::Faults;

/// The highest version of the feature `transaction.version`.
pub(crate) const MAX_TRANSACTION_VERSION: i16 = 2;

/// How a [`Broker`](crate::Broker) is set up.
///
/// ```
/// use tidegate_broker::BrokerConfig;
///
/// let config = BrokerConfig {
///     default_partitions: 4,
///     ..BrokerConfig::new("data")
/// };
/// assert!(config.auto_create_topics);
/// ```
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where topics, offsets and schemas are kept. Made if missing; held by one broker at a time.
    pub data_dir: PathBuf,
    /// Where Kafka clients connect. Port 0 takes a free one: see [`Broker::address`](crate::Broker::address).
    pub listen: SocketAddr,
    /// What clients are told to connect to, where that differs from the address they came in by.
    pub advertised: Option<(String, u16)>,
    /// Where the schema registry listens; `None` for no registry.
    pub registry_listen: Option<SocketAddr>,
    /// Partitions of a topic created without a number.
    pub default_partitions: i32,
    /// Whether a Metadata request that allows it (as most clients' do) creates the topics it asks for.
    pub auto_create_topics: bool,
    /// The largest batch taken, compressed, where the topic does not say otherwise (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// The file size at which a partition goes on in a new file (`segment.bytes`).
    pub segment_bytes: u64,
    /// The largest request; a longer one ends its connection.
    pub max_request_bytes: usize,
    /// The bytes of all requests being read or worked on together. Further ones wait.
    pub max_buffered_bytes: usize,
    /// The largest number of connections; one beyond it is closed at once.
    pub max_connections: usize,
    /// The largest answer to a Fetch, but for a single batch that is larger.
    pub fetch_max_bytes: usize,
    /// Log files kept open; others are opened again when needed.
    pub max_open_files: usize,
    /// Idempotent producers remembered per partition. Beyond it the one that has been silent longest is
    /// forgotten, as Kafka does after a day.
    pub max_producers_per_partition: usize,
    /// The version of the feature `transaction.version` that clients are told: 2 for the protocol of KIP-890,
    /// in which every transaction has an epoch of its own, 1 or 0 for the one before. Clients choose by it;
    /// requests of both are understood.
    pub transaction_version: i16,
    /// The longest timeout a transactional producer may ask for (`transaction.max.timeout.ms`).
    pub max_transaction_timeout: Duration,
    /// The shortest session timeout a group member may ask for.
    pub min_session_timeout: Duration,
    /// The longest session timeout a group member may ask for.
    pub max_session_timeout: Duration,
    /// How long a group of the new protocol (KIP-848) goes without a sign of life of a member before it goes on without it
    /// (`group.consumer.session.timeout.ms`).
    pub modern_session_timeout: Duration,
    /// How often members of such a group are to give a sign of life (`group.consumer.heartbeat.interval.ms`).
    pub modern_heartbeat_interval: Duration,
    /// How long an empty group waits for further members after the first. Kafka's quick-start setting is 0.
    pub initial_rebalance_delay: Duration,
    /// The largest number of members of one group.
    pub max_group_size: usize,
    /// Threads that serve requests.
    pub worker_threads: usize,
    /// Faults to inject, for tests.
    pub faults: Faults,
}

impl BrokerConfig {
    /// The defaults, with the data kept in `data_dir`, on a free port of 127.0.0.1, without a registry.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised: None,
            registry_listen: None,
            default_partitions: 1,
            auto_create_topics: true,
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            max_request_bytes: tidegate_wire::frame::MAX_FRAME,
            max_buffered_bytes: 256 << 20,
            max_connections: 1000,
            fetch_max_bytes: 55 << 20,
            max_open_files: 256,
            max_producers_per_partition: 10_000,
            transaction_version: MAX_TRANSACTION_VERSION,
            max_transaction_timeout: Duration::from_secs(15 * 60),
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(30 * 60),
            modern_session_timeout: Duration::from_secs(45),
            modern_heartbeat_interval: Duration::from_secs(5),
            initial_rebalance_delay: Duration::ZERO,
            max_group_size: 1000,
            worker_threads: 2,
            faults: Faults::new(),
        }
    }
}
