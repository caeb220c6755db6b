//! Which cluster and which registry: those that were named, or the embedded ones in the data directory.
//!
//! Whoever holds the data directory serves it on 127.0.0.1 and writes the address into it; whoever finds it held connects there. A holder that
//! is done while others are connected serves on until they have left, for [`GRACE`] at most.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate::broker::{self, Addresses, Broker, BrokerConfig};
use tidegate::kafka::{Client, ClientConfig, GroupProtocol};
use tidegate::registry::Registry;

use crate::args::{ClusterArgs, RegistryArgs};
use crate::failure::{Failure, Kind};
use crate::properties::{self, Properties};
use crate::signals::Interrupt;
use crate::terminal::Terminal;

/// How long a holder serves clients that outlast its own work.
const GRACE: Duration = Duration::from_secs(30);
/// How long a holder that is done lets its own connections close before it says that others are there.
const OWN_CONNECTIONS: Duration = Duration::from_millis(300);
/// How many files a load has open at once with a cluster, and with the embedded broker in the same process: some more than it was seen to need.
const FILES: u64 = 32;
const FILES_WITH_BROKER: u64 = 128;
/// Pause between two looks at something that changes within moments.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a broker named in the data directory may take to answer before its address counts as stale.
const GUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What every command is handed: how to speak, whether to stop, and the embedded broker once this process holds one.
#[derive(Debug)]
pub(crate) struct Context {
    /// The program's voice.
    pub(crate) terminal: Terminal,
    /// The signals.
    pub(crate) interrupt: Interrupt,
    holder: Option<Broker>,
    /// What the command's client properties say, once they were needed.
    properties: Option<Properties>,
}

/// What a command needs of the outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a> {
    /// Which cluster.
    pub(crate) cluster: &'a ClusterArgs,
    /// Which registry; `None` for a command that needs none.
    pub(crate) registry: Option<&'a RegistryArgs>,
    /// How long a load may go without progress; `None` for a command that sends nothing.
    pub(crate) delivery_timeout: Option<Duration>,
}

/// A cluster that answers, and the registry that belongs to it.
#[derive(Debug)]
pub(crate) struct Service {
    /// The cluster.
    pub(crate) client: Client,
    /// Its registry, if one was named or it is the embedded one.
    pub(crate) registry: Option<Registry>,
    /// Whether it is the embedded broker.
    pub(crate) embedded: bool,
}

impl Context {
    /// A context that holds no broker.
    pub(crate) fn new(terminal: Terminal, interrupt: Interrupt) -> Self {
        Self {
            terminal,
            interrupt,
            holder: None,
            properties: None,
        }
    }

    /// What the embedded broker, where this process holds it, could not write of its data directory.
    pub(crate) fn storage_failure(&self) -> Option<String> {
        self.holder.as_ref()?.storage_failure()
    }

    /// Connects to the cluster that was named, or to the embedded one.
    pub(crate) fn connect(&mut self, reach: Reach<'_>) -> Result<Service, Failure> {
        let terminal = self.terminal;
        let properties = self.properties(reach.cluster)?;
        // A registry that cannot be is told before anything is started.
        let named = match reach.registry {
            Some(args) => named_registry(properties, args)?,
            None => None,
        };
        match properties.servers(reach.cluster)? {
            Some(servers) => {
                require_files(FILES)?;
                let config = secured(&servers, reach, properties)?;
                if let Some(warning) = properties::warning(&config.security) {
                    terminal.warn(warning);
                }
                Ok(Service {
                    client: Client::connect(config)?,
                    registry: named,
                    embedded: false,
                })
            }
            None => {
                require_files(FILES_WITH_BROKER)?;
                let (client, url) = self.connect_embedded(reach)?;
                let registry = match (named, url, reach.registry) {
                    (None, Some(url), Some(args)) => {
                        let config = Properties::default().registry(url, args)?;
                        Some(Registry::new(config)?)
                    }
                    (named, ..) => named,
                };
                Ok(Service {
                    client,
                    registry,
                    embedded: true,
                })
            }
        }
    }

    /// How to reach the cluster that was named; `None` for the embedded one.
    pub(crate) fn named_cluster(
        &mut self,
        reach: Reach<'_>,
    ) -> Result<Option<ClientConfig>, Failure> {
        let properties = self.properties(reach.cluster)?;
        let servers = properties.servers(reach.cluster)?;
        servers
            .map(|servers| secured(&servers, reach, properties))
            .transpose()
    }

    /// How a group is to be joined: by which protocol, and with which assignor of the broker's, if one was named.
    pub(crate) fn group(
        &mut self,
        cluster: &ClusterArgs,
    ) -> Result<(GroupProtocol, Option<String>), Failure> {
        self.properties(cluster)?.group()
    }

    /// The registry alone: the one that was named, or the embedded one.
    pub(crate) fn registry(
        &mut self,
        cluster: &ClusterArgs,
        args: &RegistryArgs,
    ) -> Result<Registry, Failure> {
        let properties = self.properties(cluster)?;
        match (
            named_registry(properties, args)?,
            properties.servers(cluster)?,
        ) {
            (Some(registry), _) => Ok(registry),
            (None, Some(_)) => Err(needs_registry()),
            (None, None) => {
                let reach = Reach {
                    cluster,
                    registry: Some(args),
                    delivery_timeout: None,
                };
                self.connect(reach)?.registry.ok_or_else(needs_registry)
            }
        }
    }

    /// Whether there is one: named, or the embedded one.
    pub(crate) fn has_registry(
        &mut self,
        cluster: &ClusterArgs,
        args: &RegistryArgs,
    ) -> Result<bool, Failure> {
        let properties = self.properties(cluster)?;
        Ok(properties.registry_url(args).is_some() || properties.servers(cluster)?.is_none())
    }

    /// The client properties, which are read once.
    fn properties(&mut self, cluster: &ClusterArgs) -> Result<&Properties, Failure> {
        if self.properties.is_none() {
            let properties = Properties::gather(cluster)?;
            if self.terminal.is_verbose() {
                for ignored in properties.ignored() {
                    self.terminal.note(ignored);
                }
            }
            self.properties = Some(properties);
        }
        Ok(self.properties.get_or_insert_default())
    }

    /// Becomes the holder of the data directory, or a guest of the one that is.
    fn connect_embedded(&mut self, reach: Reach<'_>) -> Result<(Client, Option<String>), Failure> {
        let deadline = Instant::now() + reach.cluster.connect_timeout.max(GUEST_TIMEOUT);
        loop {
            let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let config = BrokerConfig {
                registry_listen: Some(free_port),
                ..BrokerConfig::new(&reach.cluster.data_dir)
            };
            match Broker::start(config) {
                Ok(broker) => {
                    let broker = self.holder.insert(broker);
                    let client =
                        Client::connect(client_config(&broker.address().to_string(), reach)?)?;
                    return Ok((client, broker.registry_url()));
                }
                Err(error) if error.kind() == broker::ErrorKind::Locked => {
                    if let Some(guest) = visit(reach)? {
                        return Ok(guest);
                    }
                    if Instant::now() >= deadline || self.interrupt.is_set() {
                        return Err(Failure::from(error));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the embedded broker, if this process holds it, once its other clients have left.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let Some(broker) = self.holder.take() else {
            return Ok(());
        };
        let settled = Instant::now() + OWN_CONNECTIONS;
        while broker.connections() > 0 && Instant::now() < settled {
            std::thread::sleep(PAUSE);
        }
        if broker.connections() > 0 && !self.interrupt.is_set() {
            let seconds = GRACE.as_secs();
            self.terminal.note(&format!(
                "other clients use the embedded broker at {}: serving them until they leave, {seconds} s at most",
                broker.address()
            ));
            let deadline = Instant::now() + GRACE;
            while broker.connections() > 0 && Instant::now() < deadline && !self.interrupt.is_set()
            {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(broker.stop()?)
    }
}

/// The registry that was named, if one was.
fn named_registry(
    properties: &Properties,
    args: &RegistryArgs,
) -> Result<Option<Registry>, Failure> {
    let Some(url) = properties.registry_url(args) else {
        return Ok(None);
    };
    Ok(Some(Registry::new(properties.registry(url, args)?)?))
}

/// Connects to the broker that holds the data directory; `None` while it cannot be reached, for its address may be stale or not written yet.
fn visit(reach: Reach<'_>) -> Result<Option<(Client, Option<String>)>, Failure> {
    let Ok(Some(addresses)) = Addresses::read(&reach.cluster.data_dir) else {
        return Ok(None);
    };
    let mut config = client_config(&addresses.kafka.to_string(), reach)?;
    config.connect_timeout = config.connect_timeout.min(GUEST_TIMEOUT);
    Ok(Client::connect(config)
        .ok()
        .map(|client| (client, addresses.registry)))
}

/// What connections to a cluster that was named go by.
fn secured(
    servers: &str,
    reach: Reach<'_>,
    properties: &Properties,
) -> Result<ClientConfig, Failure> {
    let mut config = client_config(servers, reach)?;
    config.security = properties.security()?;
    if let Some(id) = properties.client_id() {
        config.client_id = id;
    }
    Ok(config)
}

/// What every connection goes by, but for who asks.
fn client_config(servers: &str, reach: Reach<'_>) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig::new(servers)?;
    config.connect_timeout = reach.cluster.connect_timeout;
    config.request_timeout = reach.cluster.request_timeout;
    if let Some(timeout) = reach.delivery_timeout {
        config.delivery_timeout = timeout;
    }
    Ok(config)
}

/// Avro was asked for on a cluster without a registry.
pub(crate) fn needs_registry() -> Failure {
    Failure::new(
        Kind::Usage,
        "Avro needs a Schema Registry, and none was named",
    )
    .hint("--registry URL (or SCHEMA_REGISTRY_URL) names it")
    .hint("--format json does without one")
}

/// Makes sure that so many files may be open: whoever gets no socket cannot tell that from a broker that is away, and would ask for a long time.
fn require_files(needed: u64) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    // Up to the hard limit it is the process's own choice.
    let raised = Rlimit {
        current: Some(needed),
        ..limit
    };
    if limit.maximum.is_none_or(|maximum| maximum >= needed)
        && setrlimit(Resource::Nofile, raised).is_ok()
    {
        return Ok(());
    }
    let allowed = limit.current.unwrap_or(0);
    let message = format!("only {allowed} open files are allowed, and {needed} are needed");
    Err(Failure::new(Kind::LocalIo, message).hint(format!("allow more: `ulimit -n {needed}`")))
}
