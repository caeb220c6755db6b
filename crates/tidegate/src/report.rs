//! Closing summaries: for people, and as exactly one JSON object on stdout.
//!
//! The JSON names are a contract (docs/cli.md): fields may be added, those that are there keep name and meaning.

use serde::Serialize;
use serde_json::{Map, Value, json};

use tidegate::core::balance::{BalanceStatus, PartitionBalance};
use tidegate::core::job::Delivery;
use tidegate::core::read::ReadCounts;
use tidegate::core::receipt::{PartitionReceipt, RecordCounts, RowCounts};
use tidegate::core::rejects::RejectGroup;
use tidegate::core::verify::{Difference, VerifyStatus};

use crate::args::OutputForm;
use crate::failure::{Failure, Kind};

/// How many partitions a summary for people lists.
const SHOWN_PARTITIONS: usize = 20;
/// How many sorts of rejected rows it lists.
const SHOWN_REJECTS: usize = 10;

/// Everything a command leaves behind: its summary, and the failure that ended it.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What the command has to say.
    pub(crate) summary: Summary,
    /// Why it did not end well.
    pub(crate) failure: Option<Failure>,
}

impl Finished {
    /// A command that did what was asked.
    pub(crate) fn well(summary: Summary) -> Self {
        Self {
            summary,
            failure: None,
        }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.failure
            .as_ref()
            .map_or(0, |failure| failure.kind().exit_code())
    }
}

/// The summary of a command.
#[derive(Debug)]
pub(crate) enum Summary {
    /// Nothing to sum up: the command's output was its answer, or it failed before it began.
    Nothing,
    /// A load.
    Publish(Box<PublishSummary>),
    /// A group's state.
    Balance(BalanceSummary),
    /// A comparison.
    Verify(VerifySummary),
    /// What was printed by `consume`.
    Consume(ConsumeSummary),
    /// What was asked for: about schemas, about jobs.
    Answer(AnswerSummary),
}

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LoadStatus {
    /// Every accepted row is in the topic.
    Complete,
    /// An earlier run had brought every accepted row into the topic; nothing was sent.
    AlreadyPublished,
    /// A signal ended it; what was delivered is stated.
    Interrupted,
    /// `--dry-run`: nothing was sent.
    Planned,
    /// It stopped before the end.
    Failed,
}

/// What this process did, as against the whole job.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct RunFigures {
    /// Rows read.
    pub(crate) rows: u64,
    /// Records delivered.
    pub(crate) records: u64,
    /// Wall-clock seconds from the first byte read to the last acknowledgement.
    pub(crate) seconds: f64,
    /// Rows a second over that time.
    pub(crate) rows_per_second: f64,
}

impl RunFigures {
    /// Figures over `seconds`; a run too short to measure has no rate.
    pub(crate) fn new(rows: u64, records: u64, seconds: f64) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate for people; row counts stay far below 2^53"
        )]
        let rate = if seconds > 0.0 {
            rows as f64 / seconds
        } else {
            0.0
        };
        Self {
            rows,
            records,
            seconds: round(seconds, 1_000.0),
            rows_per_second: round(rate, 1.0),
        }
    }
}

fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

/// Summary of `publish`.
#[derive(Debug, Serialize)]
pub(crate) struct PublishSummary {
    /// How the load ended; it does not speak of wait and verify.
    pub(crate) status: LoadStatus,
    /// Target topic.
    pub(crate) topic: String,
    /// Input as typed.
    pub(crate) source: String,
    /// The job's id; null for a load that cannot be gone on with.
    pub(crate) job: Option<String>,
    /// What was promised.
    pub(crate) delivery: Delivery,
    /// Rows by outcome.
    pub(crate) rows: RowCounts,
    /// What was passed over or evened out.
    #[serde(flatten)]
    pub(crate) read_counts: ReadCounts,
    /// Records by outcome.
    pub(crate) records: RecordCounts,
    /// Per partition that took records.
    pub(crate) partitions: Vec<PartitionReceipt>,
    /// Schema id in the records; null with JSON.
    pub(crate) schema_id: Option<u32>,
    /// Id of the schema of Avro keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_schema_id: Option<u32>,
    /// Row at which a resumed load went on; null: it began at the start.
    pub(crate) resumed_at_row: Option<u64>,
    /// What this process did.
    pub(crate) this_run: RunFigures,
    /// What people should know though nothing failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// What this run has rejected, by kind and column, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rejects: Vec<RejectGroup>,
    /// `--wait-group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait: Option<BalanceSummary>,
    /// `--verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verify: Option<VerifySummary>,
}

/// Summary of `balance`, and of waiting after a load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BalanceSummary {
    /// Whether the group is done.
    pub(crate) status: BalanceStatus,
    /// 0 or 8.
    pub(crate) exit_code: u8,
    /// Consumer group.
    pub(crate) group: String,
    /// Topic.
    pub(crate) topic: String,
    /// Whether `behind` counts records; false: only the difference of offsets is known.
    pub(crate) exact: bool,
    /// Per partition.
    pub(crate) partitions: Vec<PartitionBalance>,
}

/// Summary of `verify`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VerifySummary {
    /// What came of it.
    pub(crate) status: VerifyStatus,
    /// 0 or 9.
    pub(crate) exit_code: u8,
    /// Records compared.
    pub(crate) records: u64,
    /// Rows they stand for.
    pub(crate) rows: u64,
    /// The first difference; null: none.
    pub(crate) first_difference: Option<Difference>,
    /// Records of other producers that were passed over.
    pub(crate) foreign_records: u64,
    /// Records that were passed over because the load sent them again.
    pub(crate) repeated_records: u64,
    /// The difference in words, or why it cannot be verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Summary of `consume`; stdout holds the records, so it goes to stderr.
#[derive(Clone, Debug)]
pub(crate) struct ConsumeSummary {
    /// Topic.
    pub(crate) topic: String,
    /// Records written.
    pub(crate) records: u64,
}

/// Answer of a command that was asked something.
#[derive(Debug)]
pub(crate) struct AnswerSummary {
    /// What people read on stdout.
    pub(crate) text: String,
    /// What programs read.
    pub(crate) json: Value,
}

/// The closing summary as text for stdout; the failure is told on stderr, but for JSON, which holds it.
pub(crate) fn render(command: &str, finished: &Finished, form: OutputForm, quiet: bool) -> String {
    match (form, &finished.summary) {
        // The records, or the addresses, were the output; a summary among them would break their form.
        (OutputForm::Json, Summary::Consume(_) | Summary::Nothing)
            if finished.failure.is_none() =>
        {
            String::new()
        }
        (OutputForm::Json, _) => format!("{}\n", to_json(command, finished)),
        (OutputForm::Human, Summary::Answer(summary)) => summary.text.clone(),
        (OutputForm::Human, Summary::Nothing | Summary::Consume(_)) => String::new(),
        (OutputForm::Human, _) if quiet => String::new(),
        (OutputForm::Human, Summary::Publish(summary)) => human_publish(summary),
        (OutputForm::Human, Summary::Balance(summary)) => balance_table(summary) + "\n",
        (OutputForm::Human, Summary::Verify(summary)) => human_verify(summary),
    }
}

/// The summary as one JSON object.
fn to_json(command: &str, finished: &Finished) -> Value {
    let body = match &finished.summary {
        Summary::Nothing => json!({ "status": early_status(finished) }),
        Summary::Publish(summary) => json!(summary),
        Summary::Balance(summary) => json!(summary),
        Summary::Verify(summary) => json!(summary),
        Summary::Consume(summary) => {
            json!({ "status": "failed", "topic": summary.topic, "records": summary.records })
        }
        Summary::Answer(summary) => summary.json.clone(),
    };
    let mut object = Map::new();
    object.insert("command".to_owned(), json!(command));
    if let Value::Object(fields) = body {
        object.extend(fields);
    }
    object.insert("exit_code".to_owned(), json!(finished.exit_code()));
    if let Some(failure) = &finished.failure {
        object.insert("error".to_owned(), failure.to_json());
    }
    Value::Object(object)
}

/// The status of a command that ended before it had anything to sum up.
fn early_status(finished: &Finished) -> &'static str {
    match finished.failure.as_ref().map(Failure::kind) {
        Some(Kind::Signal(_)) => "interrupted",
        _ => "failed",
    }
}

fn human_publish(summary: &PublishSummary) -> String {
    let verb = match summary.status {
        LoadStatus::Complete => "published",
        LoadStatus::AlreadyPublished => "already published",
        LoadStatus::Interrupted => "interrupted",
        LoadStatus::Planned => "planned (nothing was sent)",
        LoadStatus::Failed => "stopped",
    };
    let RowCounts {
        read,
        accepted,
        rejected,
        ..
    } = summary.rows;
    let mut lines = vec![format!("{verb}: {} -> {}", summary.source, summary.topic)];
    lines.push(format!(
        "  rows        {} read, {} accepted, {} rejected",
        grouped(read),
        grouped(accepted),
        grouped(rejected)
    ));
    list_read_counts(summary.read_counts, &mut lines);
    list_rejects(&summary.rejects, &mut lines);
    let run = summary.this_run;
    let delivered = grouped(summary.records.delivered);
    if let Some(row) = summary.resumed_at_row {
        lines.push(format!(
            "  this run    went on after row {}: {}, {}",
            grouped(row),
            counted(run.rows, "row"),
            counted(run.records, "record")
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rounded, non-negative rate"
    )]
    let rate = run.rows_per_second as u64;
    let pace = format!("in {} ({} rows/s)", spoken(run.seconds), grouped(rate));
    lines.push(match summary.status {
        LoadStatus::Planned => {
            format!(
                "  records     {} would be sent {pace}",
                grouped(run.records)
            )
        }
        LoadStatus::AlreadyPublished => format!("  records     {delivered} delivered before"),
        _ => format!("  records     {delivered} delivered {pace}"),
    });
    list_partitions(&summary.partitions, &mut lines);
    let mut text = lines.join("\n") + "\n";
    if let Some(wait) = &summary.wait {
        text.push_str(&balance_table(wait));
        text.push('\n');
    }
    if let Some(verify) = &summary.verify {
        text.push_str(&human_verify(verify));
    }
    text
}

/// What is no row, and what is one only because it was evened out.
fn list_read_counts(counts: ReadCounts, lines: &mut Vec<String>) {
    let said = [
        (counts.blank_lines, "blank line", "skipped"),
        (counts.comment_lines, "comment line", "skipped"),
        (counts.evened_rows, "ragged row", "evened out"),
    ];
    let said = said.into_iter().filter(|(count, ..)| *count > 0);
    let said = said.map(|(count, what, done)| format!("{} {done}", counted(count, what)));
    let said: Vec<String> = said.collect();
    if !said.is_empty() {
        lines.push(format!("              {}", said.join(", ")));
    }
}

/// What was rejected in this run, and an example of each sort.
fn list_rejects(groups: &[RejectGroup], lines: &mut Vec<String>) {
    for group in groups.iter().take(SHOWN_REJECTS) {
        let kind = group.kind.and_then(|kind| match json!(kind) {
            Value::String(name) => Some(name),
            _ => None,
        });
        let kind = kind.unwrap_or_else(|| "others".to_owned());
        let column = group.column.as_ref();
        let column = column.map_or_else(String::new, |column| format!(", column {column}"));
        let first = &group.first;
        let file = first
            .file
            .as_ref()
            .map_or_else(String::new, |file| format!("{file}, "));
        lines.push(format!(
            "    {} {kind}{column}: first {file}row {} (line {}): {}",
            grouped(group.count),
            grouped(first.row),
            grouped(first.line),
            first.reason
        ));
    }
    if groups.len() > SHOWN_REJECTS {
        let rest = groups.iter().skip(SHOWN_REJECTS).map(|group| group.count);
        lines.push(format!("    {} of other sorts", grouped(rest.sum())));
    }
}

/// What is in each partition, as far as anything is.
fn list_partitions(partitions: &[PartitionReceipt], lines: &mut Vec<String>) {
    let filled: Vec<&PartitionReceipt> = partitions
        .iter()
        .filter(|partition| partition.records > 0)
        .collect();
    for partition in filled.iter().take(SHOWN_PARTITIONS) {
        let offsets = match (partition.first_offset, partition.last_offset) {
            (Some(first), Some(last)) => format!("offsets {first} to {last}"),
            _ => "offsets unknown".to_owned(),
        };
        lines.push(format!(
            "  partition {:<3} {}, {offsets}",
            partition.partition,
            counted(partition.records, "record")
        ));
    }
    if filled.len() > SHOWN_PARTITIONS {
        let more = filled.len() - SHOWN_PARTITIONS;
        lines.push(format!(
            "  and {more} partitions more (-o json has them all)"
        ));
    }
}

/// How a group stands, one line per partition.
pub(crate) fn balance_table(summary: &BalanceSummary) -> String {
    let behind: u64 = summary
        .partitions
        .iter()
        .map(|partition| partition.behind)
        .sum();
    let about = if summary.exact { "" } else { "at most " };
    let state = match summary.status {
        BalanceStatus::Balanced => "has committed everything".to_owned(),
        BalanceStatus::Behind => format!("is {about}{} behind", counted(behind, "record")),
    };
    let mut text = format!("group {} on {}: {state}\n", summary.group, summary.topic);
    text.push_str(&format!(
        "  {:>9}  {:>14}  {:>14}  {:>10}",
        "partition", "target", "committed", "behind"
    ));
    for partition in &summary.partitions {
        let committed = partition
            .committed
            .map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        let PartitionBalance {
            partition,
            target,
            behind,
            ..
        } = *partition;
        text.push_str(&format!(
            "\n  {partition:>9}  {target:>14}  {committed:>14}  {behind:>10}"
        ));
    }
    text
}

fn human_verify(summary: &VerifySummary) -> String {
    let compared = format!(
        "{}, {} compared",
        counted(summary.records, "record"),
        counted(summary.rows, "row")
    );
    let foreign = match summary.foreign_records {
        0 => String::new(),
        count => format!(
            ", {} of other producers passed over",
            counted(count, "record")
        ),
    };
    let repeated = match summary.repeated_records {
        0 => String::new(),
        count => format!(", {} sent again by a later run", counted(count, "record")),
    };
    let reason = summary.reason.as_deref().unwrap_or("no reason known");
    match summary.status {
        VerifyStatus::Same => {
            format!(
                "verified: the topic holds what the file says ({compared}{foreign}{repeated})\n"
            )
        }
        VerifyStatus::Differs => format!(
            "verification: the topic DIFFERS from the file ({compared}{foreign}{repeated})\n  {reason}\n"
        ),
        VerifyStatus::CannotVerify => format!("verification: cannot be done: {reason}\n"),
    }
}

/// So many of something: `1 record`, `12 records`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

/// Seconds as people say them: whole ones need few decimals, moments need milliseconds.
fn spoken(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1_000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

/// A number with its digits in groups of three: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> PublishSummary {
        PublishSummary {
            status: LoadStatus::Complete,
            topic: "usage".to_owned(),
            source: "usage.csv".to_owned(),
            job: Some("usage:/data/usage.csv".to_owned()),
            delivery: Delivery::ExactlyOnce,
            rows: RowCounts {
                read: 120,
                accepted: 118,
                rejected: 2,
                failed: 0,
            },
            read_counts: ReadCounts {
                blank_lines: 1,
                comment_lines: 0,
                evened_rows: 3,
            },
            records: RecordCounts {
                delivered: 12,
                failed: 0,
            },
            partitions: vec![PartitionReceipt {
                partition: 0,
                first_offset: Some(0),
                last_offset: Some(11),
                records: 12,
                rows: 118,
                digest: None,
            }],
            schema_id: Some(1),
            key_schema_id: None,
            resumed_at_row: None,
            this_run: RunFigures::new(120, 12, 0.5),
            warnings: Vec::new(),
            rejects: Vec::new(),
            wait: None,
            verify: None,
        }
    }

    #[test]
    fn the_json_summary_has_the_promised_names() {
        let finished = Finished::well(Summary::Publish(Box::new(summary())));
        let json = to_json("publish", &finished);
        assert_eq!(json["command"], "publish");
        assert_eq!(json["status"], "complete");
        assert_eq!(json["exit_code"], 0);
        assert_eq!(
            json["rows"],
            json!({ "read": 120, "accepted": 118, "rejected": 2, "failed": 0 })
        );
        let counts = ["blank_lines", "comment_lines", "evened_rows"].map(|name| json[name].clone());
        assert_eq!(json!(counts), json!([1, 0, 3]));
        let partition = json!({ "partition": 0, "first_offset": 0, "last_offset": 11, "records": 12, "rows": 118, "digest": null });
        assert_eq!(json["partitions"][0], partition);
        assert_eq!(json["resumed_at_row"], Value::Null);
        assert_eq!(json["this_run"]["rows_per_second"], 240.0);
        assert!(json.get("wait").is_none() && json.get("error").is_none());
    }

    #[test]
    fn a_failure_stands_beside_the_summary() {
        let failure = Failure::new(Kind::Input, "row 3 is bad").hint("look at it");
        let finished = Finished {
            summary: Summary::Publish(Box::new(summary())),
            failure: Some(failure),
        };
        let json = to_json("publish", &finished);
        assert_eq!(json["exit_code"], 3);
        assert_eq!(
            json["error"],
            json!({ "kind": "input", "message": "row 3 is bad", "hints": ["look at it"] })
        );
    }

    #[test]
    fn numbers_are_said_as_people_say_them() {
        assert_eq!(
            (counted(1, "row"), counted(12, "row")),
            ("1 row".to_owned(), "12 rows".to_owned())
        );
        assert_eq!(
            (spoken(0.0042), spoken(75.04)),
            ("4 ms".to_owned(), "75.0 s".to_owned())
        );
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn a_quiet_run_prints_no_summary_for_people() {
        let finished = Finished::well(Summary::Publish(Box::new(summary())));
        assert_eq!(render("publish", &finished, OutputForm::Human, true), "");
        let text = render("publish", &finished, OutputForm::Human, false);
        assert!(
            text.contains("120 read, 118 accepted, 2 rejected"),
            "{text}"
        );
        assert!(
            text.contains("\n              1 blank line skipped, 3 ragged rows evened out\n"),
            "{text}"
        );
        assert!(text.contains("12 delivered"), "{text}");
    }
}
