//! Client properties: what a file, `-X` and the environment say about the cluster, the registry, and who asks.
//!
//! The files are those that Kafka's own tools and librdkafka's take, as cloud providers hand them out. What is known stands in one table
//! ([`keys`]); what is not known is an error, for a slip of the pen in `security.protocol` must not end in a connection without it. A flag wins over
//! `-X`, `-X` over the file, the file over the environment. No value of a secret appears in an error, nor in `Debug`.

use std::fmt;
use std::path::Path;

use tidegate::kafka::GroupProtocol;

use crate::args::{ClusterArgs, RegistryArgs};
use crate::failure::{Failure, Kind};
use keys::{Known, Setting, look_up, name_of, nearest};

mod file;
mod jaas;
pub(crate) mod keys;
mod registry;
mod security;
mod token;

pub(crate) use security::warning;

/// Names the cluster where nothing else does.
const SERVERS_VARIABLE: &str = "KAFKA_BOOTSTRAP_SERVERS";
/// Names the registry where nothing else does.
const REGISTRY_VARIABLE: &str = "SCHEMA_REGISTRY_URL";

/// One property that was typed after `-X`.
#[derive(Clone)]
pub(crate) struct Typed {
    name: String,
    value: String,
}

impl Typed {
    /// Reads `KEY=VALUE`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        Some(Self {
            name: name.trim().to_owned(),
            value: value.trim_start().to_owned(),
        })
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}=..", self.name)
    }
}

/// All that was said.
#[derive(Debug, Default)]
pub(crate) struct Properties {
    given: Vec<Given>,
    /// What was not followed, and why.
    ignored: Vec<String>,
}

/// One property that is followed.
#[derive(Clone)]
struct Given {
    setting: Setting,
    name: &'static str,
    value: String,
    /// File and line, or `-X`.
    origin: String,
}

impl fmt::Debug for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}=..")
    }
}

impl fmt::Display for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.origin, self.name)
    }
}

impl Given {
    /// A failure that is this property's.
    fn wrong(&self, why: impl fmt::Display) -> Failure {
        Failure::new(Kind::Usage, format!("{self}: {why}"))
    }
}

impl Properties {
    /// Reads the file and what was typed.
    pub(crate) fn gather(args: &ClusterArgs) -> Result<Self, Failure> {
        let mut properties = Self::default();
        if let Some(path) = &args.command_config {
            properties.read(path)?;
        }
        let mut typed = Self::default();
        for property in &args.properties {
            if let Some(given) = typed.classify(&property.name, &property.value, "-X")? {
                typed.given.retain(|other| other.setting != given.setting);
                typed.given.push(given);
            }
        }
        properties
            .given
            .retain(|given| typed.get(given.setting).is_none());
        properties.given.append(&mut typed.given);
        properties.ignored.append(&mut typed.ignored);
        Ok(properties)
    }

    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.display();
        let bytes = std::fs::read(path).map_err(|error| {
            Failure::new(Kind::LocalIo, format!("cannot read {name}")).because(error)
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
                .split(|&byte| byte == b'\n')
                .count();
            let failure = Failure::new(Kind::Usage, format!("{name}:{line}: this is not UTF-8"));
            failure.hint("a character outside of ASCII can be written as \\u and its four hexadecimal digits")
        })?;
        let entries = file::parse(&text)
            .map_err(|(line, why)| Failure::new(Kind::Usage, format!("{name}:{line}: {why}")))?;
        for entry in entries {
            let origin = format!("{name}:{}", entry.line);
            let Some(given) = self.classify(&entry.key, &entry.value, &origin)? else {
                continue;
            };
            match self.get(given.setting) {
                Some(other) if other.value != given.value => {
                    let why = format!("{other} says otherwise: leave one of them out");
                    return Err(given.wrong(why));
                }
                Some(_) => {}
                None => self.given.push(given),
            }
        }
        Ok(())
    }

    /// What a property is; none if it is not followed.
    fn classify(
        &mut self,
        name: &str,
        value: &str,
        origin: &str,
    ) -> Result<Option<Given>, Failure> {
        match look_up(name) {
            Some(Known::Followed(setting, name)) => Ok(Some(Given {
                setting,
                name,
                value: value.trim().to_owned(),
                origin: origin.to_owned(),
            })),
            Some(Known::Ignored(reason)) => {
                self.ignored
                    .push(format!("{origin}: {name} is not followed: {reason}"));
                Ok(None)
            }
            Some(Known::Refused(reason)) => Err(Failure::new(
                Kind::Usage,
                format!("{origin}: {name}: {reason}"),
            )),
            None => {
                let message = format!("{origin}: there is no property \"{name}\"");
                let failure = Failure::new(Kind::Usage, message);
                let failure = match nearest(name) {
                    Some(near) => failure.hint(format!("did you mean {near}?")),
                    None => failure,
                };
                Err(failure.hint("-X help lists all that are known"))
            }
        }
    }

    /// What was not followed, and why: for those who ask.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The brokers to ask first: none for the embedded broker.
    ///
    /// # Errors
    /// Where the properties describe a cluster, and none is named.
    pub(crate) fn servers(&self, args: &ClusterArgs) -> Result<Option<String>, Failure> {
        let named = args.bootstrap_server.clone();
        let named = named.or_else(|| self.text(Setting::Servers));
        let named = named.or_else(|| variable(SERVERS_VARIABLE));
        let describes_one = [Setting::Protocol, Setting::Mechanism, Setting::Jaas];
        let described = describes_one.iter().find_map(|&setting| self.get(setting));
        match (named, described) {
            (None, Some(given)) => Err(given
                .wrong("it describes a cluster, and none is named")
                .hint(format!(
                    "-b, --bootstrap-server (or {}) names it; the embedded broker needs no properties",
                    name_of(Setting::Servers)
                ))),
            (named, _) => Ok(named),
        }
    }

    /// The name that the brokers know the client by, if one was given.
    pub(crate) fn client_id(&self) -> Option<String> {
        self.text(Setting::ClientId)
    }

    /// By which protocol a group is joined, and how the broker is to divide its partitions where that was said.
    ///
    /// # Errors
    /// There is no such protocol, or an assignor of the broker's is named for a group that divides by itself.
    pub(crate) fn group(&self) -> Result<(GroupProtocol, Option<String>), Failure> {
        let protocol = match self.get(Setting::GroupProtocol) {
            None => GroupProtocol::Classic,
            Some(given) => match given.value.to_ascii_lowercase().as_str() {
                "" | "classic" => GroupProtocol::Classic,
                "consumer" => GroupProtocol::Consumer,
                _ => return Err(given.wrong("it takes classic or consumer")),
            },
        };
        let assignor = self.text(Setting::RemoteAssignor);
        match self.get(Setting::RemoteAssignor) {
            Some(given) if assignor.is_some() && protocol == GroupProtocol::Classic => {
                let why = "it needs group.protocol=consumer: in a classic group the members divide the partitions";
                Err(given.wrong(why))
            }
            _ => Ok((protocol, assignor)),
        }
    }

    /// The registry's URL; none where none is named.
    pub(crate) fn registry_url(&self, args: &RegistryArgs) -> Option<String> {
        let named = args.registry.clone();
        named
            .or_else(|| self.text(Setting::RegistryUrl))
            .or_else(|| variable(REGISTRY_VARIABLE))
    }

    fn get(&self, setting: Setting) -> Option<&Given> {
        self.given.iter().find(|given| given.setting == setting)
    }

    /// The value, if it is not empty.
    fn text(&self, setting: Setting) -> Option<String> {
        let value = self.get(setting).map(|given| given.value.clone());
        value.filter(|value| !value.is_empty())
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first line of a file that holds a secret.
fn secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(Kind::LocalIo, format!("cannot read {}", file.display())).because(error)
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => {
            let message = format!(
                "{} holds no secret: its first line is empty",
                file.display()
            );
            Err(Failure::new(Kind::Usage, message))
        }
    }
}

#[cfg(test)]
mod tests;
