//! What `doctor` finds: one line for each thing looked at, good or bad, and how to go on where it is bad.
//!
//! | file | what it looks at |
//! |---|---|
//! | `network.rs` | names, connections, TLS and SASL, of the brokers named first and then of all that the cluster has |
//! | `cluster.rs` | versions, clocks, the topic, rights, the group |
//! | `registry.rs` | the registry, and the topic's subject there |
//! | `round_trip.rs` | one record there and back |

use serde_json::{Value, json};

use crate::failure::{Failure, Kind};

pub(crate) mod cluster;
pub(crate) mod network;
pub(crate) mod registry;
pub(crate) mod round_trip;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and may surprise.
    Warn,
    /// A load would fail, or did.
    Fail,
}

impl Level {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    level: Level,
    message: String,
    hints: Vec<String>,
}

/// All that was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    /// The sort of the first failure: the exit code's.
    first: Option<Kind>,
}

impl Findings {
    /// Something is as it should be.
    pub(crate) fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Level::Ok, message.into(), Vec::new());
    }

    /// Something may surprise.
    pub(crate) fn warn(&mut self, check: &'static str, message: impl Into<String>, hint: &str) {
        let hints = if hint.is_empty() {
            Vec::new()
        } else {
            vec![hint.to_owned()]
        };
        self.add(check, Level::Warn, message.into(), hints);
    }

    /// Something does not work.
    pub(crate) fn fail(&mut self, check: &'static str, failure: &Failure) {
        self.first.get_or_insert(failure.kind());
        let hints = failure.hints().to_vec();
        self.add(check, Level::Fail, failure.to_string(), hints);
    }

    /// Keeps what was found, or why not.
    pub(crate) fn take<T>(&mut self, check: &'static str, found: Result<T, Failure>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(failure) => {
                self.fail(check, &failure);
                None
            }
        }
    }

    fn add(&mut self, check: &'static str, level: Level, message: String, hints: Vec<String>) {
        self.list.push(Finding {
            check,
            level,
            message,
            hints,
        });
    }

    /// The worst of all.
    pub(crate) fn level(&self) -> Level {
        let levels = self.list.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }

    /// The failure that the command ends with; none if nothing failed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let kind = self.first?;
        let failed = self.list.iter();
        let failed = failed.filter(|finding| finding.level == Level::Fail);
        let count = failed.count();
        let all = self.list.len();
        Some(Failure::new(
            kind,
            format!("{count} of {all} checks failed"),
        ))
    }

    /// The list for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.list {
            let (level, check) = (finding.level.name(), finding.check);
            text.push_str(&format!("{level:<4}  {check:<10}  {}\n", finding.message));
            for hint in &finding.hints {
                text.push_str(&format!("                  hint: {hint}\n"));
            }
        }
        text
    }

    /// The list for programs.
    pub(crate) fn json(&self) -> Value {
        let list = self.list.iter().map(|finding| {
            json!({
                "check": finding.check,
                "level": finding.level.name(),
                "message": finding.message,
                "hints": finding.hints,
            })
        });
        list.collect()
    }
}
