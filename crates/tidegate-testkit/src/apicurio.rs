//! Starts a real, Confluent-compatible schema registry: Apicurio Registry, in memory, on a free port of 127.0.0.1.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::cache::{cached, maven};
use crate::java::{self, Java};
use crate::server::{ServerProcess, free_ports, http_status};

/// The version for Java 21 and newer.
pub const VERSION: &str = "3.3.3";
/// The last line that runs on Java 17.
pub const OLDER_VERSION: &str = "2.6.13.Final";

const START_PATIENCE: Duration = Duration::from_secs(300);
const API: &str = "/apis/ccompat/v7";

/// Who may do what, where the registry asks for it: all, write, read.
pub const USERS: [(&str, &str, &str); 3] = [
    ("admin", "admin-password", "sr-admin"),
    ("writer", "writer-password", "sr-developer"),
    ("reader", "reader-password", "sr-readonly"),
];

/// What kind of registry to start.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// 3.3.3 or 2.6.13.Final; none: the newest one that an installed Java can run.
    pub version: Option<String>,
    /// Ask for one of [`USERS`] (not in 2.6).
    pub with_users: bool,
    /// A certificate and its key, both PEM: HTTPS instead of HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A registry of its own; stopped when dropped.
#[derive(Debug)]
pub struct RealRegistry {
    server: ServerProcess,
    url: String,
    _dir: TempDir,
}

impl RealRegistry {
    /// Fetches the registry (once) and starts it with the compatibility level BACKWARD, as Confluent's has it.
    ///
    /// # Errors
    /// Java or Maven is missing, the download fails, or the registry does not come up; the message says which.
    pub fn start(options: &RegistryOptions) -> io::Result<Self> {
        let (version, java) = choose(options.version.as_deref())?;
        let home = fetch(&version)?;
        let dir = tempfile::Builder::new()
            .prefix("tidegate-registry-")
            .tempdir()?;
        let [port] = free_ports()?;
        let arguments = arguments(&version, &home, port, options);
        let server = ServerProcess::start(dir.path(), &home, &java.command, &arguments)?;
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let mut registry = Self {
            server,
            url: format!("{scheme}://127.0.0.1:{port}{API}"),
            _dir: dir,
        };
        registry.wait_until_ready(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), options)?;
        Ok(registry)
    }

    /// The base URL of its Confluent-compatible API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process, to send it signals.
    pub fn server(&mut self) -> &mut ServerProcess {
        &mut self.server
    }

    fn wait_until_ready(
        &mut self,
        address: SocketAddr,
        options: &RegistryOptions,
    ) -> io::Result<()> {
        // Apicurio's own default is to check nothing.
        let level = r#"{"compatibility":"BACKWARD"}"#;
        let ask = |method, path, body, wanted| {
            let answer = http_status(address, method, &format!("{API}{path}"), body);
            // It loses an answer now and then, most of all at first: then it is asked again.
            answer.is_ok_and(|status| status == wanted)
        };
        let (is_https, with_users) = (options.tls.is_some(), options.with_users);
        self.server.wait_until("the registry", START_PATIENCE, || {
            if is_https {
                std::net::TcpStream::connect(address).is_ok()
            } else if with_users {
                ask("GET", "/subjects", "", 401)
            } else {
                ask("GET", "/subjects", "", 200) && ask("PUT", "/config", level, 200)
            }
        })
    }
}

fn choose(version: Option<&str>) -> io::Result<(String, Java)> {
    match version {
        Some(version) => Ok((
            version.to_owned(),
            java::find(if version.starts_with("2.") { 17 } else { 21 })?,
        )),
        None => match java::find(21) {
            Ok(java) => Ok((VERSION.to_owned(), java)),
            Err(_) => Ok((OLDER_VERSION.to_owned(), java::find(17)?)),
        },
    }
}

/// The folder with the unpacked registry (159 MB), fetched on first use.
fn fetch(version: &str) -> io::Result<PathBuf> {
    cached(&format!("apicurio-registry-{version}"), |dir| {
        let artifact = format!("-Dartifact=io.apicurio:apicurio-registry-app:{version}:tar.gz:all");
        let target = format!("-DoutputDirectory={}", dir.display());
        let goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy";
        maven(
            dir,
            &[goal, "-Dmdep.useBaseVersion=true", &artifact, &target],
        )?;
        let archive = dir.join(format!("apicurio-registry-app-{version}-all.tar.gz"));
        let unpacked = Command::new("tar")
            .arg("xzf")
            .arg(&archive)
            .arg("-C")
            .arg(dir)
            .status()?;
        if !unpacked.success() {
            return Err(io::Error::other(format!(
                "tar cannot unpack {}",
                archive.display()
            )));
        }
        fs::remove_file(archive)
    })
}

fn arguments(version: &str, home: &Path, port: u16, options: &RegistryOptions) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-Xmx160m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dquarkus.http.host=127.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec();
    match &options.tls {
        None => arguments.push(format!("-Dquarkus.http.port={port}")),
        Some((certificate, key)) => {
            arguments.push(format!(
                "-Dquarkus.http.ssl.certificate.files={}",
                certificate.display()
            ));
            arguments.push(format!(
                "-Dquarkus.http.ssl.certificate.key-files={}",
                key.display()
            ));
            arguments.push(format!("-Dquarkus.http.ssl-port={port}"));
            arguments.push("-Dquarkus.http.port=0".to_owned());
            arguments.push("-Dquarkus.http.insecure-requests=disabled".to_owned());
        }
    }
    if options.with_users {
        let embedded = "-Dquarkus.security.users.embedded";
        arguments.push("-Dquarkus.http.auth.basic=true".to_owned());
        arguments.push("-Dapicurio.auth.role-based-authorization=true".to_owned());
        arguments.push(format!("{embedded}.plain-text=true"));
        for (user, password, role) in USERS {
            arguments.push(format!("{embedded}.users.{user}={password}"));
            arguments.push(format!("{embedded}.roles.{user}={role}"));
        }
    }
    if version.starts_with("2.") {
        arguments.push("-jar".to_owned());
        arguments.push(format!("apicurio-registry-app-{version}-runner.jar"));
    } else {
        // A shared archive of its classes halves the time of every later start.
        arguments.push("-XX:+AutoCreateSharedArchive".to_owned());
        arguments.push(format!(
            "-XX:SharedArchiveFile={}",
            home.join("classes.jsa").display()
        ));
        arguments.push("-Xlog:cds=off".to_owned());
        arguments.push("-Xlog:cds+dynamic=off".to_owned());
        arguments.push("-Dquarkus.management.host=127.0.0.1".to_owned());
        arguments.push("-Dquarkus.management.port=0".to_owned());
        arguments.push("-jar".to_owned());
        arguments.push("quarkus-run.jar".to_owned());
    }
    arguments
}
