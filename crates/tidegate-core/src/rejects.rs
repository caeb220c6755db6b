//! Rejects: what becomes of bad rows, and the file that keeps them.
//!
//! A bad row stops the load, or is skipped and written to the rejects file with its place, the reason and its raw bytes, so that it
//! can be mended and loaded later. The file holds one JSON object a line:
//!
//! ```json
//! {"row":5,"line":6,"byte":120,"column":"cpu","kind":"value","reason":"\"x\" is not a double","raw":"t,c,m,x,1"}
//! ```
//!
//! Of a load of several inputs `file` stands first, the one the row is in; `line` and `byte` are places in that, while `row` counts through all of them.
//! `raw` is the row without its line end; where it is not UTF-8 there is `raw_base64` instead. Of a row over the size limit only the beginning is kept, and
//! `raw_length` says how long it was.
//!
//! Length and count of the file stand in the position of the load, so that a resumed or replayed load cuts the file back to what the position
//! knows and never lists a row twice.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, ErrorPosition, Result};
use crate::limits::{MAX_REJECT_GROUPS, REJECT_SHARE_ROWS};
use crate::position::RejectsPosition;
use crate::produce::Reject;
use crate::read::{BadRow, BadRowKind};

/// What a bad row does to the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// The load stops there; what is before it is delivered.
    #[default]
    Stop,
    /// The row is rejected and the load goes on.
    Skip,
}

/// How many rows a load may reject before it stops, over all its runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum MaxRejects {
    /// As many as there are.
    #[default]
    Unlimited,
    /// At most this many.
    Rows(u64),
    /// At most this many of a hundred rows read. Judged at the end, and from [`REJECT_SHARE_ROWS`] rows on also in between.
    Percent(f64),
}

impl MaxRejects {
    /// Whether `rejected` of `read` rows are too many; `last` says that no more rows will come.
    #[must_use]
    pub fn is_exceeded(self, rejected: u64, read: u64, last: bool) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Rows(most) => rejected > most,
            #[expect(
                clippy::cast_precision_loss,
                reason = "a share of rows needs no 53 bits"
            )]
            Self::Percent(most) => {
                (last || read >= REJECT_SHARE_ROWS) && rejected as f64 * 100.0 > read as f64 * most
            }
        }
    }
}

impl std::fmt::Display for MaxRejects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlimited => f.write_str("any number"),
            Self::Rows(most) => write!(f, "{most}"),
            Self::Percent(most) => write!(f, "{most}%"),
        }
    }
}

impl FromStr for MaxRejects {
    type Err = Error;

    /// Reads `100`, `10k`, `2M` or `0.5%`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::option(format!(
                "`{text}` is neither a number of rows (100, 10k) nor a share of them (0.5%)"
            ))
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            return if (0.0..=100.0).contains(&percent) {
                Ok(Self::Percent(percent))
            } else {
                Err(wrong())
            };
        }
        let (digits, factor) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
            _ => (text, 1),
        };
        let rows: u64 = digits.parse().map_err(|_| wrong())?;
        rows.checked_mul(factor).map(Self::Rows).ok_or_else(wrong)
    }
}

/// What to do with bad rows.
#[derive(Debug, Clone, Default)]
pub struct RejectsOptions {
    /// Stop, or skip.
    pub on_bad_row: OnBadRow,
    /// How many may be skipped.
    pub max_rejects: MaxRejects,
    /// Where skipped rows are written; without it, and if the sink does not take them, they are only counted, as a dry run and a verification do.
    pub file: Option<PathBuf>,
    /// Whether they are given to the sink.
    pub to_sink: bool,
}

/// One line of the rejects file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectLine {
    /// The input it stands in, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The row, from 1, counted through all inputs.
    pub row: u64,
    /// The physical line it starts on, from 1.
    pub line: u64,
    /// Where it starts, in bytes of the decompressed input.
    pub byte: u64,
    /// The column that is to blame, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What kind of fault it is.
    pub kind: BadRowKind,
    /// What was found and what was expected, for people.
    pub reason: String,
    /// The row as it stands in the input, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The row as it stands in the input, when it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
    /// Length of the whole row in bytes, when only its beginning is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_length: Option<u64>,
}

impl RejectLine {
    fn new(file: Option<&str>, bad: &BadRow) -> Self {
        let text = std::str::from_utf8(&bad.raw).ok();
        Self {
            file: file.map(str::to_owned),
            row: bad.row,
            line: bad.line,
            byte: bad.byte,
            column: bad.column.clone(),
            kind: bad.kind,
            reason: bad.reason.clone(),
            raw: text.map(str::to_owned),
            raw_base64: text.is_none().then(|| STANDARD.encode(&bad.raw)),
            raw_length: (bad.raw_len > bad.raw.len() as u64).then_some(bad.raw_len),
        }
    }
}

/// The rejects file, open for writing.
#[derive(Debug)]
struct RejectsFile {
    path: PathBuf,
    writer: BufWriter<File>,
    length: u64,
}

impl RejectsFile {
    /// Opens the file as `at` left it: made anew at the start of a load, otherwise cut to the length the position knows.
    fn open(path: &Path, at: RejectsPosition) -> Result<Self> {
        let failed = |error| {
            Error::local_file(
                format!("cannot open the rejects file {}", path.display()),
                error,
            )
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(at.length == 0)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if found.len() < at.length {
            let message = format!(
                "the rejects file {} is shorter than the load left it: {} bytes, not {}",
                path.display(),
                found.len(),
                at.length
            );
            return Err(Error::new(ErrorKind::LocalFile, message));
        }
        cut(&mut file, at.length).map_err(failed)?;
        let path = path.to_path_buf();
        Ok(Self {
            path,
            writer: BufWriter::new(file),
            length: at.length,
        })
    }

    fn write(&mut self, line: &RejectLine) -> Result<()> {
        let mut line =
            serde_json::to_vec(line).map_err(|error| self.failed(io::Error::from(error)))?;
        line.push(b'\n');
        self.writer
            .write_all(&line)
            .map_err(|error| self.failed(error))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Takes back what was written behind `length`.
    fn go_back(&mut self, length: u64) -> Result<()> {
        let cut = self
            .writer
            .flush()
            .and_then(|()| cut(self.writer.get_mut(), length));
        cut.map_err(|error| self.failed(error))?;
        self.length = length;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.writer.flush().map_err(|error| self.failed(error))?;
        let file = self.writer.get_ref();
        if file.metadata().is_ok_and(|found| found.is_file()) {
            file.sync_all().map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::local_file(
            format!("cannot write the rejects file {}", self.path.display()),
            error,
        )
    }
}

/// Cuts a file to `length`, to go on writing there. A pipe or a terminal (`/dev/stderr`) can be a place for rejects too; it has no length to cut.
fn cut(file: &mut File, length: u64) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
    }
    Ok(())
}

/// The bad rows of one attempt.
#[derive(Debug)]
pub struct Rejects {
    on_bad_row: OnBadRow,
    max_rejects: MaxRejects,
    file: Option<RejectsFile>,
    /// Whether rows are given to the sink, and how many were in it by now.
    to_sink: bool,
    sent: u64,
    /// The input that is read, and whether there are others.
    input: Option<String>,
    is_one_of_several: bool,
    rows: u64,
    summary: RejectSummary,
}

impl Rejects {
    /// Begins with what `at` says was rejected before.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFile`] when the file cannot be opened, or is not what `at` says.
    pub fn open(options: &RejectsOptions, at: RejectsPosition) -> Result<Self> {
        let file = options
            .file
            .as_deref()
            .map(|path| RejectsFile::open(path, at))
            .transpose()?;
        Ok(Self {
            on_bad_row: options.on_bad_row,
            max_rejects: options.max_rejects,
            file,
            to_sink: options.to_sink,
            sent: at.sent,
            input: None,
            is_one_of_several: false,
            rows: at.rows,
            summary: RejectSummary::default(),
        })
    }

    /// What comes from here on is of this input, perhaps one of several.
    pub(crate) fn begin_input(&mut self, name: Option<String>, is_one_of_several: bool) {
        (self.input, self.is_one_of_several) = (name, is_one_of_several);
    }

    /// Goes on with what an attempt before this one has summed up.
    pub(crate) fn sum_up_behind(&mut self, summary: RejectSummary) {
        self.summary = summary;
    }

    /// What was rejected, by kind and column.
    pub(crate) fn summary(&mut self) -> &mut RejectSummary {
        &mut self.summary
    }

    /// Takes bad rows that belong together: one row, or a group that one of them spoiled.
    ///
    /// # Errors
    /// [`ErrorKind::BadRow`] with the row to blame when bad rows stop the load; then none is counted.
    /// [`ErrorKind::LocalFile`] when the file cannot be written; what `send` fails with.
    pub fn take(
        &mut self,
        rows: &[BadRow],
        mut send: impl FnMut(&Reject<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.on_bad_row == OnBadRow::Stop {
            return culprit(rows).map_or(Ok(()), |bad| Err(stopping(bad)));
        }
        self.summary.begin_step();
        for bad in rows {
            let several = self.input.as_deref().filter(|_| self.is_one_of_several);
            if let Some(file) = &mut self.file {
                file.write(&RejectLine::new(several, bad))?;
            }
            // A load that goes on comes to rows again that are in the sink already.
            if self.to_sink && self.rows >= self.sent {
                send(&Reject {
                    number: self.rows,
                    input: self.input.as_deref(),
                    row: bad,
                })?;
                self.sent = self.rows + 1;
            }
            self.summary.add(several, bad);
            self.rows += 1;
        }
        Ok(())
    }

    /// Takes back what was rejected behind `at`.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFile`].
    pub fn go_back(&mut self, at: RejectsPosition) -> Result<()> {
        self.rows = at.rows;
        self.summary.go_back();
        match &mut self.file {
            Some(file) => file.go_back(at.length),
            None => Ok(()),
        }
    }

    /// Checks what was rejected against what may be, after `read` rows; `last` says that no more will come.
    ///
    /// # Errors
    /// [`ErrorKind::TooManyRejects`].
    pub fn check(&self, read: u64, last: bool) -> Result<()> {
        if !self.max_rejects.is_exceeded(self.rows, read, last) {
            return Ok(());
        }
        let (rejected, most) = (self.rows, self.max_rejects);
        Err(Error::new(
            ErrorKind::TooManyRejects,
            format!("{rejected} of {read} rows are bad, at most {most} may be"),
        ))
    }

    /// Rows rejected so far, over all runs of the load.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Brings what was written to the disk, and says how much it is.
    ///
    /// # Errors
    /// [`ErrorKind::LocalFile`].
    pub fn sync(&mut self) -> Result<RejectsPosition> {
        if let Some(file) = &mut self.file {
            file.sync()?;
        }
        Ok(self.position())
    }

    /// What was written and counted so far; on the disk only after [`sync`](Self::sync).
    #[must_use]
    pub fn position(&self) -> RejectsPosition {
        RejectsPosition {
            length: self.file.as_ref().map_or(0, |file| file.length),
            rows: self.rows,
            sent: self.sent,
        }
    }
}

/// Rejected rows of one kind and column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectGroup {
    /// What kind of fault they have; `None` for all that are beyond [`MAX_REJECT_GROUPS`] kinds and columns.
    pub kind: Option<BadRowKind>,
    /// The column that is to blame, where one is.
    pub column: Option<String>,
    /// How many they are.
    pub count: u64,
    /// The first of them.
    pub first: FirstReject,
    /// As many of them as there were before the rows that were taken last, where everything given was worked off, and at the last commit.
    #[serde(skip)]
    before: u64,
    #[serde(skip)]
    between: u64,
    #[serde(skip)]
    committed: u64,
}

/// An example of a rejected row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstReject {
    /// The input it stands in, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The row, from 1, counted through all inputs.
    pub row: u64,
    /// The physical line it starts on.
    pub line: u64,
    /// What was found and what was expected.
    pub reason: String,
}

/// What one run has rejected, by kind and column, in the order of their first rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RejectSummary {
    groups: Vec<RejectGroup>,
}

impl RejectSummary {
    /// Rows come that belong together.
    fn begin_step(&mut self) {
        for group in &mut self.groups {
            group.before = group.count;
        }
    }

    fn add(&mut self, input: Option<&str>, bad: &BadRow) {
        let is_own =
            |group: &&mut RejectGroup| group.kind == Some(bad.kind) && group.column == bad.column;
        if let Some(group) = self.groups.iter_mut().find(is_own) {
            group.count += 1;
            return;
        }
        let is_full = self.groups.len() >= MAX_REJECT_GROUPS;
        if is_full && let Some(rest) = self.groups.last_mut().filter(|rest| rest.kind.is_none()) {
            rest.count += 1;
            return;
        }
        // The last place is for all the others.
        let is_rest = self.groups.len() + 1 >= MAX_REJECT_GROUPS;
        self.groups.push(RejectGroup {
            kind: (!is_rest).then_some(bad.kind),
            column: bad.column.clone().filter(|_| !is_rest),
            count: 1,
            first: FirstReject {
                file: input.map(str::to_owned),
                row: bad.row,
                line: bad.line,
                reason: bad.reason.clone(),
            },
            before: 0,
            between: 0,
            committed: 0,
        });
    }

    /// Before the rows that were taken last all that had been given was worked off.
    pub(crate) fn mark_between(&mut self) {
        for group in &mut self.groups {
            group.between = group.before;
        }
    }

    /// What was taken is committed: all of it, or as far as [`mark_between`](Self::mark_between) says.
    pub(crate) fn mark_committed(&mut self, all: bool) {
        for group in &mut self.groups {
            group.committed = if all { group.count } else { group.between };
        }
    }

    /// Goes back to where all that was given was worked off.
    fn go_back(&mut self) {
        self.set(|group| group.between);
    }

    /// Goes back to the last commit.
    pub(crate) fn roll_back(&mut self) {
        self.set(|group| group.committed);
        for group in &mut self.groups {
            group.between = group.count;
        }
    }

    fn set(&mut self, count: impl Fn(&RejectGroup) -> u64) {
        for group in &mut self.groups {
            group.count = count(group);
        }
        self.groups.retain(|group| group.count > 0);
    }

    /// The kinds and columns, the most frequent first.
    #[must_use]
    pub fn into_groups(mut self) -> Vec<RejectGroup> {
        self.groups
            .sort_by_key(|group| std::cmp::Reverse(group.count));
        self.groups
    }
}

/// The row that is to blame: in a rejected group, the first that has a fault of its own.
fn culprit(rows: &[BadRow]) -> Option<&BadRow> {
    rows.iter()
        .find(|bad| bad.kind != BadRowKind::Group)
        .or_else(|| rows.first())
}

/// The error of a bad row that stops the load.
pub(crate) fn stopping(bad: &BadRow) -> Error {
    let position = ErrorPosition {
        byte: bad.byte,
        line: bad.line,
        row: bad.row,
        column: bad.column.clone(),
    };
    Error::bad_row(bad.reason.clone(), position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(row: u64, kind: BadRowKind, raw: &[u8]) -> BadRow {
        BadRow {
            row,
            line: row + 1,
            byte: row * 10,
            column: Some("cpu".into()),
            kind,
            reason: "not a double".into(),
            raw: raw.to_vec(),
            raw_len: raw.len() as u64,
        }
    }

    fn skip(file: Option<PathBuf>) -> RejectsOptions {
        RejectsOptions {
            on_bad_row: OnBadRow::Skip,
            max_rejects: MaxRejects::Unlimited,
            file,
            to_sink: false,
        }
    }

    fn lines(path: &Path) -> Vec<RejectLine> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn writes_one_json_object_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.jsonl");
        let mut rejects =
            Rejects::open(&skip(Some(path.clone())), RejectsPosition::default()).unwrap();
        rejects
            .take(
                &[
                    bad(1, BadRowKind::Value, b"a,\"b\nc\""),
                    bad(2, BadRowKind::Group, b"\xff\x00"),
                ],
                |_| Ok(()),
            )
            .unwrap();
        let mut long = bad(3, BadRowKind::TooLarge, b"xx");
        long.raw_len = 9;
        rejects.take(&[long], |_| Ok(())).unwrap();
        let at = rejects.sync().unwrap();
        assert_eq!(
            at,
            RejectsPosition {
                length: std::fs::metadata(&path).unwrap().len(),
                rows: 3,
                sent: 0,
            }
        );
        let found = lines(&path);
        assert_eq!(
            (
                found[0].raw.as_deref(),
                &found[0].raw_base64,
                found[0].raw_length
            ),
            (Some("a,\"b\nc\""), &None, None)
        );
        assert_eq!(
            (&found[1].raw, found[1].raw_base64.as_deref()),
            (&None, Some("/wA="))
        );
        assert_eq!(found[2].raw_length, Some(9));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"row":1,"line":2,"byte":10,"column":"cpu","kind":"value","reason":"not a double","raw":"a,"#), "{text}");
    }

    #[test]
    fn a_replay_cuts_the_file_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.jsonl");
        let options = skip(Some(path.clone()));
        let mut rejects = Rejects::open(&options, RejectsPosition::default()).unwrap();
        rejects
            .take(&[bad(1, BadRowKind::Value, b"1")], |_| Ok(()))
            .unwrap();
        let at = rejects.sync().unwrap();
        rejects
            .take(&[bad(2, BadRowKind::Value, b"2")], |_| Ok(()))
            .unwrap();
        rejects.sync().unwrap();
        let mut again = Rejects::open(&options, at).unwrap();
        again
            .take(&[bad(2, BadRowKind::Value, b"2")], |_| Ok(()))
            .unwrap();
        assert_eq!(again.sync().unwrap().rows, 2);
        assert_eq!(
            lines(&path).iter().map(|line| line.row).collect::<Vec<_>>(),
            [1, 2]
        );

        let ahead = RejectsPosition {
            length: 1 << 20,
            rows: 9,
            sent: 0,
        };
        assert_eq!(
            Rejects::open(&options, ahead).unwrap_err().kind(),
            ErrorKind::LocalFile
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            Rejects::open(&options, at).unwrap_err().kind(),
            ErrorKind::LocalFile,
            "a missing file is not made anew"
        );
    }

    #[test]
    fn stopping_names_the_row_to_blame() {
        let mut rejects =
            Rejects::open(&RejectsOptions::default(), RejectsPosition::default()).unwrap();
        let error = rejects
            .take(
                &[
                    bad(4, BadRowKind::Group, b""),
                    bad(5, BadRowKind::Value, b""),
                ],
                |_| Ok(()),
            )
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRow);
        assert_eq!(
            error.to_string(),
            "row 5 (line 6), column \"cpu\": not a double"
        );
        assert_eq!(rejects.rows(), 0);
    }

    #[test]
    fn judges_numbers_at_once_and_shares_when_they_mean_something() {
        assert!(!MaxRejects::Rows(2).is_exceeded(2, 2, true));
        assert!(MaxRejects::Rows(2).is_exceeded(3, 1_000_000, false));
        assert!(!MaxRejects::Percent(1.0).is_exceeded(1, 1, false));
        assert!(MaxRejects::Percent(1.0).is_exceeded(1, 1, true));
        assert!(MaxRejects::Percent(1.0).is_exceeded(101, 10_000, false));
        assert!(!MaxRejects::Percent(1.0).is_exceeded(100, 10_000, true));
        assert!(!MaxRejects::Percent(0.0).is_exceeded(0, 0, true));
    }

    #[test]
    fn reads_budgets() {
        assert_eq!("100".parse::<MaxRejects>().unwrap(), MaxRejects::Rows(100));
        assert_eq!(
            "10k".parse::<MaxRejects>().unwrap(),
            MaxRejects::Rows(10_000)
        );
        assert_eq!(
            "0.5%".parse::<MaxRejects>().unwrap(),
            MaxRejects::Percent(0.5)
        );
        for wrong in [
            "",
            "k",
            "-1",
            "101%",
            "NaN%",
            "1.5",
            "99999999999999999999M",
        ] {
            assert!(wrong.parse::<MaxRejects>().is_err(), "{wrong}");
        }
    }
}
