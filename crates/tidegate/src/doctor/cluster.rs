//! What the cluster can do, how the topic is set up, and what we may do with them.

use std::collections::BTreeMap;

use tidegate::kafka::{Client, ErrorKind, GroupKind, Operation, TopicView};

use super::Findings;
use crate::args::DoctorArgs;
use crate::failure::{Failure, Kind};
use crate::rights::{self, Need};
use crate::topic::{self, TopicState, TopicWish};

/// A clock that is further away makes records look older, or newer, than they are.
const SKEW_LIMIT_MS: u64 = 5_000;
/// Records that are kept for less may be gone before anybody has read them, or verified them.
const SHORT_RETENTION_MS: u64 = 3_600_000;
/// Our batches are of up to 1 MiB where the topic lets them.
const USUAL_MESSAGE_BYTES: u64 = 1_048_588;

/// Versions and clocks.
pub(crate) fn check_cluster(client: &Client, findings: &mut Findings) {
    if let Some(connection) = findings.take("versions", client.open_any().map_err(Failure::from)) {
        let versions = connection.versions();
        let level = |feature| versions.finalised_feature(feature);
        let metadata =
            level("metadata.version").map_or("none told".to_owned(), |level| level.to_string());
        let transactions = match level("transaction.version") {
            Some(level) if level >= 2 => "each with an epoch of its own (KIP-890)",
            _ => "as before KIP-890",
        };
        let message = format!(
            "{} of the APIs there are; metadata.version {metadata}; transactions {transactions}",
            versions.count()
        );
        findings.ok("versions", message);
    }
    match client.admin().clock_skew() {
        Ok(Some(skew)) => {
            let seconds = skew.milliseconds.unsigned_abs() as f64 / 1_000.0;
            let half = skew.round_trip.as_secs_f64() / 2.0;
            let which = if skew.milliseconds < 0 {
                "behind"
            } else {
                "ahead of"
            };
            let message =
                format!("the cluster's is {seconds:.3} s {which} ours, give or take {half:.3} s");
            if skew.milliseconds.unsigned_abs() > SKEW_LIMIT_MS {
                let hint = "timestamps of records are taken from the clock here, unless --record-timestamp or the topic say otherwise: set the clocks (NTP)";
                findings.warn("clock", message, hint);
            } else {
                findings.ok("clock", message);
            }
        }
        Ok(None) => findings.ok(
            "clock",
            "the cluster does not tell its time (that needs DESCRIBE on the cluster)",
        ),
        Err(error) => findings.fail("clock", &error.into()),
    }
}

/// The topic; `true` if it exists.
pub(crate) fn check_topic(
    client: &Client,
    args: &DoctorArgs,
    name: &str,
    findings: &mut Findings,
) -> bool {
    let wish = TopicWish {
        name,
        partitions: None,
        replication_factor: None,
        may_create: args.create_topic,
        default_partitions: None,
    };
    match findings.take("topic", topic::inspect(client, &wish)) {
        None => return false,
        Some(TopicState::ToCreate(_)) => {
            findings.ok(
                "topic",
                format!("{name}: it does not exist, and could be created"),
            );
            return false;
        }
        Some(TopicState::Exists(_)) => {}
    }
    let described = client.admin().describe_topic(name).map_err(Failure::from);
    let Some(Some(view)) = findings.take("topic", described) else {
        return false;
    };
    check_replicas(client, name, &view, findings);
    match client.admin().topic_configs(name) {
        Ok(configs) => check_settings(name, &configs, findings),
        Err(error) => findings.warn(
            "topic",
            format!("{name}: its settings cannot be read: {error}"),
            "DESCRIBE_CONFIGS on the topic lets them be read; a load goes without",
        ),
    }
    true
}

fn check_replicas(client: &Client, name: &str, view: &TopicView, findings: &mut Findings) {
    let count = view.partitions.len();
    let replicas = view
        .partitions
        .iter()
        .map(|partition| partition.replicas.len());
    let replicas = replicas.min().unwrap_or(0);
    let leaderless: Vec<String> = view
        .partitions
        .iter()
        .filter(|partition| partition.leader < 0)
        .map(|partition| partition.partition.to_string())
        .collect();
    if !leaderless.is_empty() {
        let message = format!(
            "topic {name}: no leader for partition {}",
            leaderless.join(", ")
        );
        let failure = Failure::new(Kind::Unreachable, message);
        findings.fail(
            "topic",
            &failure.hint("see that the brokers with its replicas run"),
        );
    }
    let behind = view.partitions.iter();
    let behind = behind.filter(|partition| partition.isr.len() < partition.replicas.len());
    let behind = behind.count();
    let message = format!("{name}: partitions {count}, replicas {replicas}");
    if behind > 0 {
        let message = format!("{message}; {behind} partitions have replicas that are not in sync");
        findings.warn("topic", message, "see that all brokers run and keep up");
    } else {
        findings.ok("topic", message);
    }
    if let Some(warning) = topic::durability_warning(client, name) {
        findings.warn(
            "topic",
            warning,
            "replication factor 3 with min.insync.replicas=2 outlives any one broker",
        );
    }
}

fn check_settings(name: &str, configs: &BTreeMap<String, String>, findings: &mut Findings) {
    let text = |key: &str| configs.get(key).map_or("?", String::as_str);
    let number = |key: &str| configs.get(key).and_then(|value| value.parse::<u64>().ok());
    let message = format!(
        "{name}: cleanup.policy {}, retention.ms {}, min.insync.replicas {}, max.message.bytes {}, message.timestamp.type {}",
        text("cleanup.policy"),
        text("retention.ms"),
        text("min.insync.replicas"),
        text("max.message.bytes"),
        text("message.timestamp.type"),
    );
    findings.ok("topic", message);
    let is_compacted = text("cleanup.policy").contains("compact");
    if is_compacted {
        let hint =
            "of rows with the same key only the last one stays; rows without a key are refused";
        findings.warn("topic", format!("{name} is compacted"), hint);
    }
    if text("cleanup.policy").contains("delete")
        && let Some(kept) = number("retention.ms").filter(|kept| *kept < SHORT_RETENTION_MS)
    {
        let message = format!("{name} keeps records for {} s only", kept / 1_000);
        findings.warn(
            "topic",
            message,
            "they may be gone before they are read or verified (retention.ms)",
        );
    }
    if let Some(bytes) = number("max.message.bytes").filter(|bytes| *bytes < USUAL_MESSAGE_BYTES) {
        let message = format!("{name} takes batches of {bytes} bytes at most");
        findings.warn(
            "topic",
            message,
            "a row that makes a larger record is refused (max.message.bytes)",
        );
    }
}

/// What a load, and whoever waits for its group, needs to be allowed.
pub(crate) fn check_rights(
    client: &Client,
    args: &DoctorArgs,
    topic: Option<&str>,
    findings: &mut Findings,
) {
    let mut needs = Vec::new();
    if let Some(topic) = topic {
        needs.push(Need::topic(topic, Operation::Write, "publishing needs"));
        needs.push(Need::topic(
            topic,
            Operation::Read,
            "verify and consume need",
        ));
    }
    let positions = &args.job.positions.positions_topic;
    for operation in [Operation::Read, Operation::Write] {
        needs.push(Need::topic(
            positions,
            operation,
            "loading exactly once needs",
        ));
    }
    let job = args.job.job.as_deref();
    needs.extend(job.map(Need::transactional_id));
    let group = args.group.as_deref();
    needs.extend(
        group.map(|group| Need::group(group, "--hold-group, --wait-group and balance need")),
    );
    let Some(given) = findings.take("rights", rights::look(client, &needs)) else {
        return;
    };
    let mut allowed = Vec::new();
    for (need, given) in needs.iter().zip(given) {
        match given {
            Some(false) => findings.fail("rights", &need.missing()),
            Some(true) => allowed.push(need.name()),
            None => {}
        }
    }
    if !allowed.is_empty() {
        findings.ok("rights", allowed.join("; "));
    }
    check_positions(client, positions, findings);
    if job.is_none() {
        findings.ok(
            "rights",
            "WRITE on the transactional id: not looked at (--job names it)",
        );
    }
}

/// The topic for positions: there, or could be created.
fn check_positions(client: &Client, name: &str, findings: &mut Findings) {
    let wish = TopicWish {
        name,
        partitions: Some(1),
        replication_factor: None,
        may_create: true,
        default_partitions: None,
    };
    match topic::inspect(client, &wish) {
        Ok(TopicState::Exists(_)) => {}
        Ok(TopicState::ToCreate(_)) => findings.ok(
            "positions",
            format!("{name}: it does not exist, and could be created"),
        ),
        // Told with the rights.
        Err(failure) if failure.kind() == Kind::Rights => findings.fail(
            "positions",
            &failure
                .hint("--delivery at-least-once does without positions, and may send rows twice"),
        ),
        Err(failure) => findings.fail("positions", &failure),
    }
}

/// How the group stands.
pub(crate) fn check_group(client: &Client, group: &str, findings: &mut Findings) {
    let found = match client.admin().describe_group(group) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::Group => {
            return findings.fail("group", &Failure::from(error));
        }
        // Without the right to see it, that has been told.
        Err(_) => return,
    };
    let members = found.members.len();
    let protocol = match found.kind {
        GroupKind::Classic => "classic",
        GroupKind::Consumer => "consumer",
    };
    match &*found.state {
        "Dead" => findings.warn(
            "group",
            format!("{group}: there is no such group, or nothing is left of it"),
            "a load that is held back waits until it has committed something",
        ),
        state if members == 0 => findings.warn(
            "group",
            format!("{group}: {state}, without members"),
            "see that its consumers run",
        ),
        state => findings.ok(
            "group",
            format!("{group}: {state}, members {members}, group.protocol {protocol}"),
        ),
    }
}
