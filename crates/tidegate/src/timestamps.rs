//! Record timestamps that come from a column: what the topic would make of them.

use std::collections::BTreeMap;

use tidegate::bridge::SystemClock;
use tidegate::core::clock::Clock as _;
use tidegate::core::read::{RowReader, Source as _};
use tidegate::core::records::{RecordStream, Step};
use tidegate::core::schema::RecordPlan;
use tidegate::kafka::Client;

use crate::failure::{Failure, Kind};
use crate::inputs::Inputs;

/// The times of so many records are looked at.
const RECORDS: usize = 100;
/// Rows that are read to find them, at most.
const STEPS: usize = 10_000;

/// Settings of a topic that do not go with the first timestamps of a load. Who may not read the settings is not warned.
pub(crate) fn warnings(
    client: &Client,
    topic: &str,
    inputs: &Inputs,
    plan: &RecordPlan,
) -> Result<Vec<String>, Failure> {
    let Some(column) = plan.timestamp_column() else {
        return Ok(Vec::new());
    };
    let Ok(configs) = client.admin().topic_configs(topic) else {
        return Ok(Vec::new());
    };
    let times = first_times(inputs, plan)?;
    let told = judge(&configs, &times, SystemClock::new().unix_millis());
    let told = told.into_iter();
    Ok(told
        .map(|what| format!("--record-timestamp {column}, and topic {topic} {what}"))
        .collect())
}

/// The timestamps of the first records of a file.
fn first_times(inputs: &Inputs, plan: &RecordPlan) -> Result<Vec<i64>, Failure> {
    let mut times = Vec::new();
    let Some(first) = inputs.all().first().filter(|_| inputs.is_file()) else {
        return Ok(times);
    };
    let input = first.open().map_err(|error| {
        Failure::new(Kind::LocalIo, format!("cannot open {}", inputs.name())).because(error)
    })?;
    let reader = RowReader::open(input, inputs.format().clone())?;
    let mut stream = RecordStream::new(reader, plan, None)?;
    for _ in 0..STEPS {
        match stream.next()? {
            Step::Record(record) => times.extend(record.timestamp),
            Step::Bad(_) | Step::Idle => {}
            Step::End => break,
        }
        if times.len() >= RECORDS {
            break;
        }
    }
    Ok(times)
}

/// What a topic with these settings would do to records of these times.
fn judge(configs: &BTreeMap<String, String>, times: &[i64], now: i64) -> Vec<String> {
    let setting = |name: &str| configs.get(name).map(String::as_str);
    if setting("message.timestamp.type") == Some("LogAppendTime") {
        return vec![
            "puts its own time in the place of timestamps (message.timestamp.type=LogAppendTime)"
                .to_owned(),
        ];
    }
    let (Some(earliest), Some(latest)) = (times.iter().min(), times.iter().max()) else {
        return Vec::new();
    };
    // Unlimited is -1 here and the largest number there.
    let limit = |name: &str| {
        let limit: i64 = setting(name)?.parse().ok()?;
        (0..i64::MAX).contains(&limit).then_some(limit)
    };
    let (age, lead) = (now.saturating_sub(*earliest), latest.saturating_sub(now));
    let mut told = Vec::new();
    let deletes = setting("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
    if let Some(kept) = limit("retention.ms").filter(|kept| deletes && age > *kept) {
        told.push(format!(
            "deletes records that are older than retention.ms={kept}: the first ones are of {}, and may be gone at once",
            shown(*earliest)
        ));
    }
    let difference = "message.timestamp.difference.max.ms";
    let bounds = [
        ("message.timestamp.before.max.ms", age, *earliest),
        ("message.timestamp.after.max.ms", lead, *latest),
    ];
    for (name, by, time) in bounds {
        // Brokers before 3.6 have one setting for both.
        let name = if setting(name).is_some() {
            name
        } else {
            difference
        };
        if let Some(most) = limit(name).filter(|most| by > *most) {
            told.push(format!(
                "refuses records that are so far from now ({name}={most}): among the first ones is {}",
                shown(time)
            ));
        }
    }
    told
}

/// A timestamp for people.
fn shown(millis: i64) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{millis} ms since 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3_600 * 1_000;

    fn told(settings: &[(&str, &str)], times: &[i64]) -> String {
        let configs = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        judge(&configs, times, 1_000 * DAY).join("\n")
    }

    #[test]
    fn settings_that_do_not_go_with_the_times_are_told() {
        let (old, now, late) = (900 * DAY, 1_000 * DAY, 1_002 * DAY);
        let week = (7 * DAY).to_string();
        let week = week.as_str();
        assert!(told(&[("retention.ms", week)], &[now, old]).contains("1972-06-19"));
        for right in [
            told(&[("retention.ms", week)], &[now]),
            told(&[("retention.ms", "-1")], &[old]),
            told(
                &[("retention.ms", week), ("cleanup.policy", "compact")],
                &[old],
            ),
            told(
                &[("message.timestamp.before.max.ms", "9223372036854775807")],
                &[old],
            ),
            told(&[("message.timestamp.after.max.ms", "3600000")], &[now]),
            told(&[("retention.ms", week)], &[]),
        ] {
            assert_eq!(right, "");
        }
        let hour = "3600000";
        for name in [
            "message.timestamp.before.max.ms",
            "message.timestamp.difference.max.ms",
        ] {
            assert!(told(&[(name, hour)], &[old]).contains(name));
        }
        assert!(told(&[("message.timestamp.after.max.ms", hour)], &[late]).contains("after"));
        let replaced = told(&[("message.timestamp.type", "LogAppendTime")], &[old]);
        assert!(replaced.contains("its own time"));
    }
}
