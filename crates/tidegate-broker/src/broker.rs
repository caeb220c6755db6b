//! A broker's life: start, serve, stop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::address::{Addresses, DirectoryLock};
use crate::config::{BrokerConfig, MAX_TRANSACTION_VERSION};
use crate::error::Error;
use crate::faults::Faults;
use crate::log::Truncation;
use crate::shared::Shared;
use crate::{registry, server};

/// How long a stop waits for requests that are being worked on.
const STOP_WITHIN: Duration = Duration::from_millis(800);

/// Threads for work that blocks (forcing files to the disk).
const BLOCKING_THREADS: usize = 2;

/// A running broker. Dropping it stops it as [`Broker::stop`] does, without telling of errors.
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Addresses,
    truncations: Vec<Truncation>,
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    lock: Option<DirectoryLock>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("addresses", &self.addresses)
            .field("data_dir", &self.shared.config.data_dir)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// What listens, made before the broker's thread so that errors have somebody to go to.
struct Listening {
    kafka: std::net::TcpListener,
    registry: Option<(std::net::TcpListener, axum::Router)>,
}

impl Broker {
    /// Takes the data directory, reads what is in it, and serves. Returns when clients can connect.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) if another broker holds the directory;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if a file in it is damaged, naming file and byte;
    /// [`Io`](crate::ErrorKind::Io) if the system refuses a file, an address or a thread.
    pub fn start(config: BrokerConfig) -> Result<Self, Error> {
        if config.default_partitions < 1 {
            return Err(Error::configuration("default_partitions is below 1"));
        }
        if !(0..=MAX_TRANSACTION_VERSION).contains(&config.transaction_version) {
            return Err(Error::configuration("transaction_version is not 0, 1 or 2"));
        }
        let lock = DirectoryLock::take(&config.data_dir)?;
        let removed = |error| Error::file("tidy", &config.data_dir, error);
        Addresses::remove(&config.data_dir).map_err(removed)?;
        let shared = Arc::new(Shared::open(config)?);
        let listening = Listening::open(&shared.config)?;
        let addresses = listening.addresses()?;
        let truncations = shared.topics.truncations();
        let (stopping, stopped) = watch::channel(false);
        let thread = spawn(Arc::clone(&shared), listening, stopped)?;
        let broker = Self {
            shared,
            addresses,
            truncations,
            stopping,
            thread: Some(thread),
            lock: Some(lock),
        };
        let dir = &broker.shared.config.data_dir;
        broker
            .addresses
            .write(dir)
            .map_err(|error| Error::file("write the address into", dir, error))?;
        Ok(broker)
    }

    /// Where Kafka clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses.kafka
    }

    /// The registry's base URL, if there is one.
    #[must_use]
    pub fn registry_url(&self) -> Option<String> {
        self.addresses.registry.clone()
    }

    /// Faults to inject, for tests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.config.faults
    }

    /// How many Kafka clients' connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connection_count()
    }

    /// Ends of log files that were dropped at the start, because a crash had cut them off. After the death of
    /// a process nothing acknowledged is among them; after a power failure there may be.
    #[must_use]
    pub fn truncations(&self) -> &[Truncation] {
        &self.truncations
    }

    /// What could not be written of the data directory last, with its path; none if there was no such thing.
    #[must_use]
    pub fn storage_failure(&self) -> Option<String> {
        self.shared.storage_failure()
    }

    /// Ends all connections, forces everything to the disk and leaves the data directory to others. Takes a
    /// second at most, and the time the disk needs.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if the disk refuses.
    pub fn stop(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    /// Ends as a killed process does, as far as clients and files can tell: connections break, nothing is
    /// forced to the disk, and the address file stays behind. For tests.
    pub fn crash(mut self) {
        self.end_thread();
        self.lock = None;
    }

    fn end_thread(&mut self) {
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            drop(thread.join());
        }
        // What still runs in the background must leave the files alone before the next broker has them.
        self.shared.topics.close();
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        if self.lock.is_none() {
            return Ok(());
        }
        self.end_thread();
        let dir = &self.shared.config.data_dir;
        let synced = self.shared.sync();
        let removed = Addresses::remove(dir);
        self.lock = None;
        synced
            .and(removed)
            .map_err(|error| Error::file("finish writing", dir, error))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.shut_down());
    }
}

impl Listening {
    fn open(config: &BrokerConfig) -> Result<Self, Error> {
        let registry = match config.registry_listen {
            None => None,
            Some(address) => {
                let dir = config.data_dir.join("registry");
                let store = std::fs::create_dir_all(&dir)
                    .and_then(|()| registry::Store::open(&dir))
                    .map_err(|error| Error::file("open the registry in", &dir, error))?;
                Some((bind(address)?, registry::router(Arc::new(store))))
            }
        };
        Ok(Self {
            kafka: bind(config.listen)?,
            registry,
        })
    }

    fn addresses(&self) -> Result<Addresses, Error> {
        let address = |listener: &std::net::TcpListener| {
            listener
                .local_addr()
                .map_err(|error| Error::io("tell the address listened on", error))
        };
        let registry = match &self.registry {
            Some((listener, _)) => Some(format!("http://{}", address(listener)?)),
            None => None,
        };
        Ok(Addresses {
            kafka: address(&self.kafka)?,
            registry,
            process_id: std::process::id(),
        })
    }
}

fn bind(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let listener = std::net::TcpListener::bind(address);
    listener
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| Error::io(format_args!("listen on {address}"), error))
}

/// Starts the thread that owns the runtime; returns when it serves.
fn spawn(
    shared: Arc<Shared>,
    listening: Listening,
    stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(shared.config.worker_threads.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("tidegate-broker")
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the broker's threads", error))?;
    let (started, starting) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("tidegate-broker".to_owned())
        .spawn(move || run(runtime, shared, listening, stopped, &started))
        .map_err(|error| Error::io("start the broker's thread", error))?;
    match starting.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(Error::io("serve", error)),
        Err(_) => Err(Error::io("serve", io::Error::other("the thread has ended"))),
    }
}

fn run(
    runtime: Runtime,
    shared: Arc<Shared>,
    listening: Listening,
    stopped: watch::Receiver<bool>,
    started: &mpsc::SyncSender<io::Result<()>>,
) {
    runtime.block_on(async move {
        let listeners = TcpListener::from_std(listening.kafka).and_then(|kafka| {
            let registry = match listening.registry {
                Some((listener, router)) => Some((TcpListener::from_std(listener)?, router)),
                None => None,
            };
            Ok((kafka, registry))
        });
        let (kafka, registry) = match listeners {
            Ok(listeners) => listeners,
            // Whoever started the broker waits for this; if it does not, nobody is left to tell.
            Err(error) => return drop(started.send(Err(error))),
        };
        if started.send(Ok(())).is_err() {
            return;
        }
        if let Some((listener, router)) = registry {
            let mut stopped = stopped.clone();
            drop(tokio::spawn(async move {
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
            }));
        }
        let tidied = Arc::clone(&shared);
        drop(tokio::task::spawn_blocking(move || tidied.topics.compact()));
        let timed = Arc::clone(&shared);
        let timers = tokio::spawn(async move {
            tokio::join!(
                timed.groups.run_timers(),
                timed.transactions.run_timers(&timed)
            );
        });
        server::serve(kafka, shared, stopped).await;
        timers.abort();
    });
    runtime.shutdown_timeout(STOP_WITHIN);
}
