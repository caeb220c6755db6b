//! Every property that is known: what tidegate does with it, and what it is good for. Names are those of Kafka's Java client and of librdkafka.

/// What a property that is followed sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Servers,
    ClientId,
    Protocol,
    Mechanism,
    Jaas,
    User,
    Password,
    LoginHandler,
    AuthorityFile,
    AuthorityText,
    IdentityFile,
    CertificateFile,
    CertificateText,
    KeyFile,
    KeyText,
    KeyPassword,
    NameCheck,
    VerifyCertificates,
    TokenUrl,
    TokenClient,
    TokenSecret,
    TokenScope,
    TokenExtensions,
    TokenFile,
    TokenCommand,
    TokenAuthorityFile,
    GroupProtocol,
    RemoteAssignor,
    RegistryUrl,
    RegistryUser,
    RegistryUserSource,
    RegistryToken,
    RegistryTokenSource,
    RegistryAuthorityFile,
}

/// A setting, the names it goes by, and what it is.
pub(super) type Followed = (Setting, &'static [&'static str], &'static str);

/// What is followed.
pub(super) const FOLLOWED: &[Followed] = &[
    (
        Setting::Servers,
        &["bootstrap.servers", "metadata.broker.list"],
        "brokers to ask first",
    ),
    (
        Setting::ClientId,
        &["client.id"],
        "the name that brokers know the client by (tidegate)",
    ),
    (
        Setting::Protocol,
        &["security.protocol"],
        "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL (PLAINTEXT)",
    ),
    (
        Setting::Mechanism,
        &["sasl.mechanism", "sasl.mechanisms"],
        "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
    ),
    (
        Setting::Jaas,
        &["sasl.jaas.config"],
        "a login module (Plain, Scram, OAuthBearer) with its options",
    ),
    (
        Setting::User,
        &["sasl.username"],
        "the user of PLAIN and SCRAM",
    ),
    (Setting::Password, &["sasl.password"], "the user's password"),
    (
        Setting::LoginHandler,
        &["sasl.login.callback.handler.class"],
        "Kafka's own handler of OAUTHBEARER; others cannot be run",
    ),
    (
        Setting::AuthorityFile,
        &["ssl.truststore.location", "ssl.ca.location"],
        "the authorities to trust, PEM (those of the system)",
    ),
    (
        Setting::AuthorityText,
        &["ssl.truststore.certificates", "ssl.ca.pem"],
        "the same as text",
    ),
    (
        Setting::IdentityFile,
        &["ssl.keystore.location"],
        "the client's key and certificates in one file, PEM",
    ),
    (
        Setting::CertificateFile,
        &["ssl.certificate.location"],
        "the client's certificates, PEM",
    ),
    (
        Setting::CertificateText,
        &["ssl.keystore.certificate.chain", "ssl.certificate.pem"],
        "the same as text",
    ),
    (
        Setting::KeyFile,
        &["ssl.key.location"],
        "the client's key, PEM",
    ),
    (
        Setting::KeyText,
        &["ssl.keystore.key", "ssl.key.pem"],
        "the same as text",
    ),
    (
        Setting::KeyPassword,
        &["ssl.key.password"],
        "the password of an encrypted key",
    ),
    (
        Setting::NameCheck,
        &["ssl.endpoint.identification.algorithm"],
        "https checks the broker's name in its certificate; nothing or none does not (https)",
    ),
    (
        Setting::VerifyCertificates,
        &["enable.ssl.certificate.verification"],
        "true; certificates are always verified",
    ),
    (
        Setting::TokenUrl,
        &["sasl.oauthbearer.token.endpoint.url"],
        "where client credentials are exchanged for a token (https), or a file: URL with the token",
    ),
    (
        Setting::TokenClient,
        &[
            "sasl.oauthbearer.client.id",
            "sasl.oauthbearer.client.credentials.client.id",
        ],
        "the client that the token is for",
    ),
    (
        Setting::TokenSecret,
        &[
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
        ],
        "that client's secret",
    ),
    (
        Setting::TokenScope,
        &["sasl.oauthbearer.scope"],
        "the scope to ask for",
    ),
    (
        Setting::TokenExtensions,
        &["sasl.oauthbearer.extensions"],
        "name=value,... to send beside the token",
    ),
    (
        Setting::TokenFile,
        &["sasl.oauthbearer.token.file"],
        "a file with the token, read anew for each connection (tidegate's own)",
    ),
    (
        Setting::TokenCommand,
        &["sasl.oauthbearer.token.command"],
        "a command of the shell that prints the token (tidegate's own)",
    ),
    (
        Setting::TokenAuthorityFile,
        &["https.ca.location"],
        "the authorities to trust for that URL, PEM (the well-known ones)",
    ),
    (
        Setting::GroupProtocol,
        &["group.protocol"],
        "how consume joins a group: classic, or consumer for the new protocol of KIP-848 (classic)",
    ),
    (
        Setting::RemoteAssignor,
        &["group.remote.assignor"],
        "with group.protocol=consumer: how the broker divides the partitions, uniform or range (the broker's choice)",
    ),
    (
        Setting::RegistryUrl,
        &["schema.registry.url"],
        "the Schema Registry; several are separated by commas",
    ),
    (
        Setting::RegistryUser,
        &[
            "basic.auth.user.info",
            "schema.registry.basic.auth.user.info",
        ],
        "user:password at the registry",
    ),
    (
        Setting::RegistryUserSource,
        &[
            "basic.auth.credentials.source",
            "schema.registry.basic.auth.credentials.source",
        ],
        "USER_INFO, URL or SASL_INHERIT",
    ),
    (
        Setting::RegistryToken,
        &["bearer.auth.token", "schema.registry.bearer.auth.token"],
        "a bearer token for the registry",
    ),
    (
        Setting::RegistryTokenSource,
        &[
            "bearer.auth.credentials.source",
            "schema.registry.bearer.auth.credentials.source",
        ],
        "STATIC_TOKEN",
    ),
    (
        Setting::RegistryAuthorityFile,
        &[
            "schema.registry.ssl.truststore.location",
            "schema.registry.ssl.ca.location",
        ],
        "the authorities to trust for the registry, PEM",
    ),
];

/// Known, and not followed: the reason, and the names.
pub(super) const IGNORED: &[(&str, &[&str])] = &[
    (
        "an option of the command line says it",
        &[
            "allow.auto.create.topics",
            "auto.offset.reset",
            "auto.register.schemas",
            "compression.codec",
            "compression.type",
            "delivery.timeout.ms",
            "enable.auto.commit",
            "group.id",
            "isolation.level",
            "message.timeout.ms",
            "partitioner",
            "partitioner.class",
            "request.timeout.ms",
            "socket.connection.setup.timeout.ms",
            "socket.connection.setup.timeout.max.ms",
            "socket.timeout.ms",
            "transaction.timeout.ms",
            "transactional.id",
            "use.latest.version",
        ],
    ),
    (
        "tidegate always waits for all replicas in sync and never lets a record overtake another",
        &[
            "acks",
            "enable.idempotence",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "message.send.max.retries",
            "request.required.acks",
            "retries",
        ],
    ),
    (
        "tidegate chooses it by itself",
        &[
            "api.version.request",
            "auto.commit.interval.ms",
            "batch.num.messages",
            "batch.size",
            "broker.address.family",
            "broker.version.fallback",
            "buffer.memory",
            "client.dns.lookup",
            "client.rack",
            "connections.max.idle.ms",
            "default.api.timeout.ms",
            "fetch.max.bytes",
            "fetch.max.wait.ms",
            "fetch.min.bytes",
            "fetch.wait.max.ms",
            "group.instance.id",
            "heartbeat.interval.ms",
            "linger.ms",
            "log.connection.close",
            "max.block.ms",
            "max.partition.fetch.bytes",
            "max.poll.interval.ms",
            "max.poll.records",
            "max.request.size",
            "message.max.bytes",
            "metadata.max.age.ms",
            "metadata.max.idle.ms",
            "metadata.recovery.rebootstrap.trigger.ms",
            "metadata.recovery.strategy",
            "partition.assignment.strategy",
            "queue.buffering.max.kbytes",
            "queue.buffering.max.messages",
            "queue.buffering.max.ms",
            "receive.buffer.bytes",
            "reconnect.backoff.max.ms",
            "reconnect.backoff.ms",
            "request.timeout.max.ms",
            "retry.backoff.max.ms",
            "retry.backoff.ms",
            "sasl.login.connect.timeout.ms",
            "sasl.login.read.timeout.ms",
            "sasl.login.refresh.buffer.seconds",
            "sasl.login.refresh.min.period.seconds",
            "sasl.login.refresh.window.factor",
            "sasl.login.refresh.window.jitter",
            "sasl.login.retry.backoff.max.ms",
            "sasl.login.retry.backoff.ms",
            "sasl.oauthbearer.method",
            "send.buffer.bytes",
            "session.timeout.ms",
            "socket.keepalive.enable",
            "socket.nagle.disable",
            "ssl.cipher.suites",
            "ssl.enabled.protocols",
            "ssl.protocol",
            "ssl.provider",
            "ssl.secure.random.implementation",
            "statistics.interval.ms",
            "topic.metadata.refresh.interval.ms",
        ],
    ),
    (
        "the content of the file says it, and PEM needs no password but that of a key",
        &[
            "schema.registry.ssl.truststore.password",
            "schema.registry.ssl.truststore.type",
            "ssl.keystore.password",
            "ssl.keystore.type",
            "ssl.truststore.password",
            "ssl.truststore.type",
        ],
    ),
    (
        "it is for programs that run in Java or in librdkafka",
        &[
            "auto.include.jmx.reporter",
            "debug",
            "enable.metrics.push",
            "interceptor.classes",
            "key.deserializer",
            "key.serializer",
            "log_level",
            "metric.reporters",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
            "plugin.library.paths",
            "sasl.client.callback.handler.class",
            "sasl.login.class",
            "specific.avro.reader",
            "value.deserializer",
            "value.serializer",
            "value.subject.name.strategy",
        ],
    ),
];

/// Known, and cannot be had: following on without them would not be what was meant.
pub(super) const REFUSED: &[(&[&str], &str)] = &[
    (
        &[
            "sasl.kerberos.service.name",
            "sasl.kerberos.principal",
            "sasl.kerberos.keytab",
            "sasl.kerberos.kinit.cmd",
        ],
        KERBEROS,
    ),
    (
        &["config.providers"],
        "values that are looked up elsewhere are not supported: write them into the file",
    ),
    (
        &[
            "sasl.oauthbearer.assertion.file",
            "sasl.oauthbearer.jwt.retriever.class",
        ],
        "this way to a token is not supported: sasl.oauthbearer.token.command can run any other",
    ),
    (
        &["socks.proxy", "proxy.url"],
        "Kafka over a proxy is not supported",
    ),
];

/// What is said of all that is Kerberos.
pub(super) const KERBEROS: &str = "Kerberos (GSSAPI) is not supported: use a listener with SCRAM, OAUTHBEARER, PLAIN over TLS, or certificates";

/// What is done with a property of some name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It sets this; the name is as it stands in the table.
    Followed(Setting, &'static str),
    /// It is not followed, for this reason.
    Ignored(&'static str),
    /// It cannot be had, for this reason.
    Refused(&'static str),
}

/// Looks a name up.
pub(super) fn look_up(name: &str) -> Option<Known> {
    let same = |known: &&&str| **known == name;
    for (setting, names, _) in FOLLOWED {
        if let Some(found) = names.iter().find(same) {
            return Some(Known::Followed(*setting, found));
        }
    }
    let ignored = IGNORED.iter().find(|(_, names)| names.contains(&name));
    let refused = REFUSED.iter().find(|(names, _)| names.contains(&name));
    match (ignored, refused) {
        (Some((reason, _)), _) => Some(Known::Ignored(reason)),
        (_, Some((_, reason))) => Some(Known::Refused(reason)),
        _ => None,
    }
}

/// The first name of a setting, for messages.
pub(super) fn name_of(setting: Setting) -> &'static str {
    let found = FOLLOWED.iter().find(|(other, ..)| *other == setting);
    found.map_or("?", |(_, names, _)| names[0])
}

/// The known name that is the least way from `name`, if one is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let followed = FOLLOWED.iter().flat_map(|(_, names, _)| names.iter());
    let ignored = IGNORED.iter().flat_map(|(_, names)| names.iter());
    let lower = name.to_ascii_lowercase().replace('_', ".");
    followed
        .chain(ignored)
        .map(|known| (strsim::damerau_levenshtein(&lower, known), *known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| distance * 3 <= known.len())
        .map(|(_, known)| known)
}

/// All names with what they are for, as `-X help` prints it.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Client properties, in a file (--command-config FILE) or each by -X KEY=VALUE.\nA flag wins over -X, -X over the file, the file over the environment.\n\nFollowed:\n",
    );
    for (_, names, about) in FOLLOWED {
        text.push_str(&format!("  {}\n      {about}\n", names.join(", ")));
    }
    for (reason, names) in IGNORED {
        text.push_str(&format!("\nNot followed, for {reason}:\n"));
        for name in *names {
            text.push_str(&format!("  {name}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut seen = HashSet::new();
        let followed = FOLLOWED.iter().flat_map(|(_, names, _)| names.iter());
        let ignored = IGNORED.iter().flat_map(|(_, names)| names.iter());
        let refused = REFUSED.iter().flat_map(|(names, _)| names.iter());
        for name in followed.chain(ignored).chain(refused) {
            assert!(seen.insert(name), "{name}");
            assert!(look_up(name).is_some());
        }
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_name() {
        for (typed, meant) in [
            ("secuirty.protocol", "security.protocol"),
            ("sasl_mechanism", "sasl.mechanism"),
            ("SASL.USERNAME", "sasl.username"),
            ("bootstrap.server", "bootstrap.servers"),
            ("ssl.truststore.loction", "ssl.truststore.location"),
            ("schema.registry.uri", "schema.registry.url"),
        ] {
            assert_eq!(nearest(typed), Some(meant));
        }
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn the_page_on_security_names_all_that_is_followed() {
        let page = include_str!("../../../../docs/security.md");
        for (_, names, _) in FOLLOWED {
            for name in *names {
                assert!(page.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn the_help_names_everything() {
        let help = help();
        for name in ["bootstrap.servers", "basic.auth.user.info", "acks"] {
            assert!(help.contains(name), "{name}");
        }
    }
}
