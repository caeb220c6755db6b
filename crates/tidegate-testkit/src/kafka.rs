//! Starts a real Apache Kafka: one node here, three in [`replicated`], one with every kind of security in [`secure`]; all with KRaft, on free ports of 127.0.0.1.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::server::{ServerProcess, free_ports};
use installation::{Installation, common, on_free_ports, wait_until_ready};

pub mod certificates;
mod installation;
pub mod replicated;
pub mod secure;

/// The version that tests run on unless told otherwise.
pub const DEFAULT_VERSION: &str = "4.3.1";

/// A broker of its own; stopped and its data removed when dropped.
#[derive(Debug)]
pub struct RealKafka {
    server: ServerProcess,
    address: SocketAddr,
    installation: Installation,
    dir: TempDir,
}

impl RealKafka {
    /// Fetches Kafka `version` (once) and starts it. `properties` are added to its configuration, one `name=value` a line.
    ///
    /// # Errors
    /// Java or Maven is missing, the download fails, or the broker does not come up; the message says which.
    pub fn start(version: &str, properties: &str) -> io::Result<Self> {
        let installation = Installation::of(version)?;
        on_free_ports(|| Self::start_once(&installation, properties))
    }

    fn start_once(installation: &Installation, properties: &str) -> io::Result<Self> {
        let dir = new_folder()?;
        let [port, controller] = free_ports()?;
        fs::write(
            dir.path().join("server.properties"),
            configuration(dir.path(), port, controller, properties),
        )?;
        installation.format(dir.path(), &[])?;
        let server = installation.launch(dir.path())?;
        let mut kafka = Self {
            server,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            installation: installation.clone(),
            dir,
        };
        wait_until_ready(&mut kafka.server, kafka.address)?;
        Ok(kafka)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process, to send it signals.
    pub fn server(&mut self) -> &mut ServerProcess {
        &mut self.server
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// An orderly stop, as an operator does it.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Starts it again on the same data and port, after [`kill`](Self::kill) or [`stop`](Self::stop), and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> io::Result<()> {
        self.server.kill();
        self.server = self.installation.launch(self.dir.path())?;
        wait_until_ready(&mut self.server, self.address)
    }
}

fn new_folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("tidegate-kafka-").tempdir()
}

fn configuration(dir: &Path, port: u16, controller: u16, properties: &str) -> String {
    let common = common(&dir.join("data"), 1);
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
{common}{properties}
"
    )
}

/// Whether a broker answers ApiVersions. Kafka opens its port before it takes requests; it takes requests only once it is part of its cluster.
///
/// # Errors
/// No connection, or it broke.
pub fn answers_api_versions(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Length 10; API key 18, version 0, correlation id 7, client id null.
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    // Length; correlation id; error code.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    Ok(answer[4..] == [0, 0, 0, 7, 0, 0])
}
