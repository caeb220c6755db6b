//! The settings of topics: which exist, what they mean here, and their defaults.
//!
//! All of Kafka's usual topic settings are accepted, kept and described, so that tools work. Those that
//! the broker acts on are in [`TopicSettings`]; the others (retention above all) have no effect: nothing is
//! ever deleted from a topic but the whole topic and, where `cleanup.policy` says `compact`, what compaction
//! takes out.

use crate::config::BrokerConfig;
use crate::journal::Configs;

/// What a setting's value looks like, with the number Kafka's DescribeConfigs gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// One setting that a topic may have.
#[derive(Debug)]
pub(crate) struct TopicConfig {
    pub(crate) name: &'static str,
    pub(crate) config_type: ConfigType,
    pub(crate) default: &'static str,
    /// The values allowed, where they are few.
    choices: &'static [&'static str],
}

const fn config(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    choices: &'static [&'static str],
) -> TopicConfig {
    TopicConfig {
        name,
        config_type,
        default,
        choices,
    }
}

/// The settings, by name. The defaults are Kafka 4's but for retention: nothing is deleted here.
pub(crate) const TOPIC_CONFIGS: &[TopicConfig] = {
    use ConfigType::{Boolean, Double, Int, List, Long, String};
    &[
        config("cleanup.policy", List, "delete", &["delete", "compact"]),
        config(
            "compression.type",
            String,
            "producer",
            &["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"],
        ),
        config(DELETE_RETENTION_MS, Long, "86400000", &[]),
        config("file.delete.delay.ms", Long, "60000", &[]),
        config("flush.messages", Long, "9223372036854775807", &[]),
        config("flush.ms", Long, "9223372036854775807", &[]),
        config("index.interval.bytes", Int, "4096", &[]),
        config("max.compaction.lag.ms", Long, "9223372036854775807", &[]),
        config(MAX_MESSAGE_BYTES, Int, "1048588", &[]),
        config(TIMESTAMP_AFTER_MAX_MS, Long, "3600000", &[]),
        config(TIMESTAMP_BEFORE_MAX_MS, Long, "9223372036854775807", &[]),
        config(
            TIMESTAMP_TYPE,
            String,
            "CreateTime",
            &["CreateTime", "LogAppendTime"],
        ),
        config(MIN_CLEANABLE_DIRTY_RATIO, Double, "0.5", &[]),
        config(MIN_COMPACTION_LAG_MS, Long, "0", &[]),
        config("min.insync.replicas", Int, "1", &[]),
        config("preallocate", Boolean, "false", &["true", "false"]),
        config("retention.bytes", Long, "-1", &[]),
        config("retention.ms", Long, "-1", &[]),
        config(SEGMENT_BYTES, Int, "1073741824", &[]),
        config("segment.index.bytes", Int, "10485760", &[]),
        config("segment.jitter.ms", Long, "0", &[]),
        config(SEGMENT_MS, Long, "604800000", &[]),
        config(
            "unclean.leader.election.enable",
            Boolean,
            "false",
            &["true", "false"],
        ),
    ]
};

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const SEGMENT_BYTES: &str = "segment.bytes";
const SEGMENT_MS: &str = "segment.ms";
const DELETE_RETENTION_MS: &str = "delete.retention.ms";
const MIN_CLEANABLE_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";

/// The smallest segment: some batches have to fit.
const MIN_SEGMENT_BYTES: i64 = 1024;

/// The settings that the broker acts on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TopicSettings {
    /// The largest batch, header included.
    pub(crate) max_message_bytes: usize,
    pub(crate) segment_bytes: u64,
    /// Whether records get the time of the append as their timestamp.
    pub(crate) log_append_time: bool,
    /// How far a record's timestamp may lie after the broker's clock, in milliseconds.
    pub(crate) timestamp_after_max_ms: i64,
    /// How far a record's timestamp may lie before the broker's clock, in milliseconds.
    pub(crate) timestamp_before_max_ms: i64,
    /// The age at which a file is complete, in milliseconds.
    pub(crate) segment_ms: i64,
    /// Whether the topic keeps the last record of each key; all records need one then.
    pub(crate) compacted: bool,
    /// How long compaction leaves tombstones, in milliseconds.
    pub(crate) delete_retention_ms: i64,
    /// The part of the log that must be new before it is compacted.
    pub(crate) min_cleanable_dirty_ratio: f64,
    /// How old records must be before compaction looks at them, in milliseconds.
    pub(crate) min_compaction_lag_ms: i64,
}

impl TopicSettings {
    pub(crate) fn defaults(config: &BrokerConfig) -> Self {
        Self {
            max_message_bytes: config.max_message_bytes,
            segment_bytes: config.segment_bytes,
            log_append_time: false,
            timestamp_after_max_ms: 3_600_000,
            timestamp_before_max_ms: i64::MAX,
            segment_ms: 7 * 24 * 3600 * 1000,
            compacted: false,
            delete_retention_ms: 24 * 3600 * 1000,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
        }
    }

    /// `self` with what `configs` say; they have been [validated](validate).
    pub(crate) fn with(defaults: &Self, configs: &Configs) -> Self {
        fn number<T: std::str::FromStr>(configs: &Configs, name: &str) -> Option<T> {
            configs.get(name)?.trim().parse().ok()
        }
        Self {
            max_message_bytes: number(configs, MAX_MESSAGE_BYTES)
                .unwrap_or(defaults.max_message_bytes),
            segment_bytes: number(configs, SEGMENT_BYTES).unwrap_or(defaults.segment_bytes),
            log_append_time: configs
                .get(TIMESTAMP_TYPE)
                .is_some_and(|value| value == "LogAppendTime"),
            timestamp_after_max_ms: number(configs, TIMESTAMP_AFTER_MAX_MS)
                .unwrap_or(defaults.timestamp_after_max_ms),
            timestamp_before_max_ms: number(configs, TIMESTAMP_BEFORE_MAX_MS)
                .unwrap_or(defaults.timestamp_before_max_ms),
            segment_ms: number(configs, SEGMENT_MS).unwrap_or(defaults.segment_ms),
            delete_retention_ms: number(configs, DELETE_RETENTION_MS)
                .unwrap_or(defaults.delete_retention_ms),
            min_cleanable_dirty_ratio: number(configs, MIN_CLEANABLE_DIRTY_RATIO)
                .unwrap_or(defaults.min_cleanable_dirty_ratio),
            min_compaction_lag_ms: number(configs, MIN_COMPACTION_LAG_MS)
                .unwrap_or(defaults.min_compaction_lag_ms),
            compacted: configs
                .get("cleanup.policy")
                .is_some_and(|value| value.split(',').any(|part| part.trim() == "compact")),
        }
    }

    /// The default of `config` as this broker is set up.
    pub(crate) fn default_value(&self, config: &TopicConfig) -> String {
        match config.name {
            MAX_MESSAGE_BYTES => self.max_message_bytes.to_string(),
            SEGMENT_BYTES => self.segment_bytes.to_string(),
            _ => config.default.to_owned(),
        }
    }
}

/// The setting called `name`.
pub(crate) fn find(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

/// What is wrong with the first of `configs` that cannot be used.
pub(crate) fn validate(configs: &Configs) -> Result<(), String> {
    for (name, value) in configs {
        let config = find(name).ok_or_else(|| format!("unknown topic config name: {name}"))?;
        if !config.accepts(value) {
            return Err(format!("invalid value {value} for configuration {name}"));
        }
    }
    Ok(())
}

impl TopicConfig {
    fn accepts(&self, value: &str) -> bool {
        let value = value.trim();
        match self.config_type {
            ConfigType::Boolean | ConfigType::String => {
                self.choices.is_empty() || self.choices.contains(&value)
            }
            ConfigType::List => value
                .split(',')
                .all(|part| self.choices.contains(&part.trim())),
            ConfigType::Int => value
                .parse::<i32>()
                .is_ok_and(|number| i64::from(number) >= self.minimum()),
            ConfigType::Long => value
                .parse::<i64>()
                .is_ok_and(|number| number >= self.minimum()),
            ConfigType::Double => value
                .parse::<f64>()
                .is_ok_and(|number| (0.0..=1.0).contains(&number)),
        }
    }

    fn minimum(&self) -> i64 {
        match self.name {
            SEGMENT_BYTES => MIN_SEGMENT_BYTES,
            "retention.bytes" | "retention.ms" => -1,
            "min.insync.replicas" => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(name: &str, value: &str) -> Configs {
        Configs::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn defaults_are_valid_and_in_order() {
        let mut names: Vec<_> = TOPIC_CONFIGS.iter().map(|config| config.name).collect();
        for config in TOPIC_CONFIGS {
            assert!(config.accepts(config.default), "{}", config.name);
        }
        names.dedup();
        assert!(names.is_sorted());
        assert_eq!(names.len(), TOPIC_CONFIGS.len());
    }

    #[test]
    fn values_are_checked() {
        assert!(validate(&configs("cleanup.policy", "compact,delete")).is_ok());
        assert!(validate(&configs("cleanup.policy", "shred")).is_err());
        assert!(validate(&configs("segment.bytes", "16777216")).is_ok());
        assert!(validate(&configs("segment.bytes", "1")).is_err());
        assert!(validate(&configs("segment.bytes", "much")).is_err());
        assert!(validate(&configs("retention.ms", "-1")).is_ok());
        assert!(validate(&configs("retention.ms", "-2")).is_err());
        let unknown = validate(&configs("retention.hours", "1")).unwrap_err();
        assert!(unknown.contains("retention.hours"), "{unknown}");
    }

    #[test]
    fn settings_come_from_the_topic_then_from_the_broker() {
        let defaults = TopicSettings::defaults(&BrokerConfig::new("unused"));
        assert_eq!(TopicSettings::with(&defaults, &Configs::new()), defaults);
        let found = TopicSettings::with(&defaults, &configs("max.message.bytes", "2000"));
        assert_eq!(found.max_message_bytes, 2000);
        let found = TopicSettings::with(&defaults, &configs("cleanup.policy", "delete, compact"));
        assert!(found.compacted);
    }
}
