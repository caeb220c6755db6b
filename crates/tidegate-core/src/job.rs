//! Jobs: a load that can be gone on with has an identity, and a record in the positions topic that says where it stands.
//!
//! There is one record for each commit, with the job's id as its key. The topic is compacted, so the last one of a job stays. Its value is one JSON object; [`JOB_VERSION`] is its format. A reader takes what it knows, ignores fields it does not
//! know, and refuses a higher version: a position that is only half understood would lose rows or send them twice.
//!
//! ```json
//! {
//!   "position": 1, "tidegate": "0.1.0", "job": "usage:/data/usage.csv", "delivery": "exactly-once", "is_complete": false,
//!   "topic": "usage", "topic_id": "Q0xHTTNTVlVCcmNrZVd5Zw", "schema_id": 1, "plan": {},
//!   "sources": ["/data/usage.csv"],
//!   "load": {"input": {"byte": 4242, "line": 121, "row": 120}, "prefix": {"bytes": 4242, "hash": "..."}, "records": 12, "...": 0},
//!   "rejects_file": null, "producer_ids": [4000], "repeats": [], "runs": 1,
//!   "started_at": 1700000000000, "written_at": 1700000000042, "seconds": 0.042
//! }
//! ```
//!
//! `load` stands in the last of the `sources` that was begun; of those before it, it has length, digest and rows (`finished`).
//!
//! # Delivery
//! Exactly once, the record is in the same transaction as the rows it speaks of. At least once, it is written after they were acknowledged; a run
//! that dies in between leaves records behind it that the next run sends again. Which these are is known: [`Repeat`] keeps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::position::LoadPosition;
use crate::{Error, ErrorKind, Result};

/// The version of the format that this program writes, and the highest it reads.
pub const JOB_VERSION: u32 = 1;

/// Where a job stands. See the [module](self) for the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobPosition {
    /// Version of the format.
    #[serde(rename = "position")]
    pub version: u32,
    /// Version of the program that wrote it.
    #[serde(rename = "tidegate")]
    pub program: String,
    /// What it was written by and for.
    #[serde(flatten)]
    pub identity: JobIdentity,
    /// Whether the input had ended there.
    pub is_complete: bool,
    /// The inputs, in order.
    pub sources: Vec<String>,
    /// Where it stands in them, and what is in the topic.
    pub load: LoadPosition,
    /// Where rejected rows are written, as an absolute path; `None` where none were to be written.
    pub rejects_file: Option<String>,
    /// The topic that rejected rows are written to; `None` where they go to none.
    #[serde(default)]
    pub rejects_topic: Option<String>,
    /// Producer ids of all runs so far, oldest first.
    pub producer_ids: Vec<i64>,
    /// Of a job that is delivered at least once: what earlier runs have sent beyond the position that the run after them began at.
    pub repeats: Vec<Repeat>,
    /// How many runs the job has had.
    pub runs: u32,
    /// When the first of them began, in milliseconds since 1970.
    pub started_at: i64,
    /// When this was written.
    pub written_at: i64,
    /// How long all runs took up to here, by the monotonic clock.
    pub seconds: f64,
}

/// What a load promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Every accepted row is in the topic once, whatever happened on the way.
    ExactlyOnce,
    /// Every accepted row is in the topic; once within a run, perhaps again in the next one.
    AtLeastOnce,
}

impl std::fmt::Display for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        })
    }
}

/// Records of a run that the next run sent again: all of these producer ids above these offsets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// The producer ids of the run.
    pub producer_ids: Vec<i64>,
    /// By partition: the job's last offset at the position the next run began at; `None` where it had none.
    pub after: Vec<Option<i64>>,
}

impl Repeat {
    /// Whether the record at this place is one of them.
    #[must_use]
    pub fn holds(&self, producer_id: i64, partition: i32, offset: i64) -> bool {
        let after = usize::try_from(partition)
            .ok()
            .and_then(|index| self.after.get(index));
        self.producer_ids.contains(&producer_id)
            && after.is_some_and(|after| after.is_none_or(|after| offset > after))
    }
}

/// What must be the same in each run of a job, for its records to be those of one load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobIdentity {
    /// The job's id: the key of its positions, and its transactional id.
    pub job: String,
    /// What is promised.
    pub delivery: Delivery,
    /// The topic.
    pub topic: String,
    /// The topic's id, where the cluster tells one: a topic that was deleted and made again is another one.
    pub topic_id: Option<String>,
    /// Id of the schema in the registry; `None` without one.
    pub schema_id: Option<u32>,
    /// Id of the schema of Avro keys; `None` with other keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_schema_id: Option<u32>,
    /// Every option that changes records, with the schema itself, as the caller has them.
    pub plan: Value,
}

impl JobIdentity {
    /// The id of a job that was given none: its topic, and where the first of its inputs is. The others are not in it, for there may be more of them in a later run.
    #[must_use]
    pub fn default_id(topic: &str, first_source: &str) -> String {
        format!("{topic}:{first_source}")
    }
}

impl JobPosition {
    /// The value of its record.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when it cannot be written as JSON, which no position is known to cause.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "the position cannot be written as JSON",
            )
            .with_source(Box::new(error))
        })
    }

    /// Reads the value of a record.
    ///
    /// # Errors
    /// [`ErrorKind::InputChanged`] for a version that is higher than [`JOB_VERSION`], and for what is no position at all.
    pub fn parse(value: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            position: u32,
        }
        let no_position = |error: serde_json::Error| {
            let message =
                format!("what the positions topic holds for the job is no position: {error}");
            Error::new(ErrorKind::InputChanged, message)
        };
        let Version { position } = serde_json::from_slice(value).map_err(no_position)?;
        if position > JOB_VERSION {
            let message = format!(
                "the job's position was written by a newer program (format {position}, this one reads up to {JOB_VERSION})"
            );
            return Err(Error::new(ErrorKind::InputChanged, message));
        }
        serde_json::from_slice(value).map_err(no_position)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn position() -> JobPosition {
        JobPosition {
            version: JOB_VERSION,
            program: "0.1.0".into(),
            identity: JobIdentity {
                job: "usage:/data/usage.csv".into(),
                delivery: Delivery::ExactlyOnce,
                topic: "usage".into(),
                topic_id: Some("id".into()),
                schema_id: Some(1),
                key_schema_id: None,
                plan: json!({"delimiter": ","}),
            },
            is_complete: false,
            sources: vec!["/data/usage.csv".into()],
            load: LoadPosition::start(),
            rejects_file: None,
            rejects_topic: None,
            producer_ids: vec![4000],
            repeats: Vec::new(),
            runs: 1,
            started_at: 1,
            written_at: 2,
            seconds: 0.5,
        }
    }

    #[test]
    fn is_read_as_it_was_written() {
        let position = position();
        let text = position.to_json().unwrap();
        assert!(text.starts_with(r#"{"position":1,"#), "{text}");
        assert_eq!(JobPosition::parse(text.as_bytes()).unwrap(), position);
    }

    #[test]
    fn fields_of_later_programs_are_passed_over_and_later_formats_refused() {
        let mut value = serde_json::to_value(position()).unwrap();
        value["splits"] = json!([1]);
        let text = value.to_string();
        assert_eq!(JobPosition::parse(text.as_bytes()).unwrap(), position());
        value["position"] = json!(JOB_VERSION + 1);
        let refused = JobPosition::parse(value.to_string().as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("newer program"), "{refused}");
        for text in ["", "{}", "[1]", "{\"position\": 1}"] {
            assert!(JobPosition::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn repeats_are_what_stands_behind_the_position() {
        let repeat = Repeat {
            producer_ids: vec![7],
            after: vec![Some(10), None],
        };
        assert!(!repeat.holds(7, 0, 10) && repeat.holds(7, 0, 11));
        assert!(repeat.holds(7, 1, 0) && !repeat.holds(8, 1, 0));
        assert!(!repeat.holds(7, 2, 0), "there was no such partition");
    }
}
