//! Inputs that grow between two runs of a load: what comes of it is what one load of the whole would have come to, or it is refused.

use proptest::prelude::*;
use tidegate_core::position::LoadPosition;
use tidegate_core::publish::{CommitCadence, Outcome};
use tidegate_core::read::{ReadCounts, Source};
use tidegate_core::receipt::{PartitionReceipt, Status};
use tidegate_core::{Error, ErrorKind};

use crate::support::{Commits, Fault, MemorySink, Pieces, Setup};

const HEADER: &str = "ts,id,cpu";

/// An input of which only the beginning is there yet, read in pieces.
struct Prefix<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl Source for Prefix<'_> {
    type Reader = Pieces;

    fn open(&self) -> std::io::Result<Pieces> {
        Ok(Pieces::new(self.bytes.to_vec(), self.size))
    }
}

/// What a load comes to that nothing disturbs.
#[derive(Debug, PartialEq)]
struct Result {
    values: Vec<String>,
    rows: tidegate_core::receipt::RowCounts,
    read_counts: ReadCounts,
    partitions: Vec<(u64, u64, Option<tidegate_core::digest::Hash128>)>,
    source: tidegate_core::digest::PrefixDigest,
    rejects: String,
}

impl Result {
    fn of(setup: &Setup, values: Vec<String>, outcome: &Outcome) -> Self {
        let partition = |one: &PartitionReceipt| (one.records, one.rows, one.digest);
        let rejects = std::fs::read(setup.rejects.file.as_ref().unwrap()).unwrap();
        Self {
            values,
            rows: outcome.rows,
            read_counts: outcome.read_counts,
            partitions: outcome.partitions.iter().map(partition).collect(),
            source: outcome.source,
            rejects: String::from_utf8(rejects).unwrap(),
        }
    }
}

/// Goes on with a load from where it was committed.
fn go_on(
    setup: &Setup,
    commits: &std::rc::Rc<std::cell::RefCell<Commits>>,
    input: &Prefix<'_>,
    faults: Vec<(usize, Fault)>,
) -> std::result::Result<Outcome, Error> {
    let mut sink = MemorySink::transactional(commits);
    (sink.batch_records, sink.faults) = (2, faults);
    let position = Commits::position(commits);
    let mut outcome = setup.publish_from(&position, input, &mut sink, None, &mut |_| {})?;
    match outcome.error.take() {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// A load into a transactional sink whose input is given anew for each run.
struct Load {
    setup: Setup,
    commits: std::rc::Rc<std::cell::RefCell<Commits>>,
}

impl Load {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            commits: Commits::new(1),
        }
    }

    fn holding(mut self) -> Self {
        self.setup.hold_last = true;
        self
    }

    fn run(&self, input: &str) -> std::result::Result<Outcome, Error> {
        let input = Prefix {
            bytes: input.as_bytes(),
            size: 7,
        };
        go_on(&self.setup, &self.commits, &input, Vec::new())
    }

    /// The rows read by then, and the records in the topic, of a run that completes.
    fn complete(&self, input: &str) -> (u64, u64) {
        let outcome = self.run(input).unwrap();
        assert_eq!(outcome.status, Status::Complete);
        (outcome.rows.read, self.commits.borrow().topic.records())
    }

    /// What a run says whose input is not what it must be; nothing is published by it.
    fn refused(&self, input: &str) -> String {
        let before = self.commits.borrow().topic.clone();
        let error = self.run(input).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
        assert_eq!(self.commits.borrow().topic, before);
        error.to_string()
    }

    fn values(&self) -> Vec<String> {
        self.commits.borrow().topic.values()
    }
}

#[test]
fn a_last_row_may_get_its_line_end_and_nothing_else() {
    let first = "ts,id,cpu\n1,a,1\n2,b,2";
    for (more, rows) in [
        ("", 2),
        ("\n", 2),
        ("\r\n", 2),
        ("\r", 2),
        ("\n3,c,3", 3),
        ("\r3,c,3", 3),
    ] {
        let load = Load::new(Setup::rows());
        assert_eq!(load.complete(first), (2, 2));
        let outcome = load.run(&format!("{first}{more}")).unwrap();
        assert_eq!(
            (outcome.rows.read, outcome.read_counts.blank_lines),
            (rows, 0)
        );
        assert_eq!(outcome.source.bytes, (first.len() + more.len()) as u64);
    }
    let load = Load::new(Setup::rows());
    load.complete(first);
    for more in ["5\n", ",\n", "\"\n"] {
        let said = load.refused(&format!("{first}{more}"));
        assert_eq!(
            said,
            "row 2 (line 3): it had no line end when it was loaded, and what the input has grown by continues it"
        );
    }
    // Half a line end, then the other half: no blank line.
    assert_eq!(load.complete(&format!("{first}\r")), (2, 2));
    let outcome = load.run(&format!("{first}\r\n\n3,c,3\n")).unwrap();
    assert_eq!((outcome.rows.read, outcome.read_counts.blank_lines), (3, 1));
    // Grown behind a line end: nothing to ask.
    assert_eq!(
        load.complete(&format!("{first}\r\n\n3,c,3\n4,d,4\n")),
        (4, 4)
    );
}

#[test]
fn a_last_group_may_not_go_on() {
    let first = "ts,id,cpu\n1,a,1\n2,b,2\n";
    let load = Load::new(Setup::groups());
    assert_eq!(load.complete(first), (2, 2));
    assert_eq!(
        load.refused(&format!("{first}\n2,c,3\n")),
        "row 3 (line 5): it belongs to the group that was the last of the input (ts = `2`), and its record was published already"
    );
    for bad in ["2\n", "\"\n"] {
        let said = load.refused(&format!("{first}{bad}3,c,3\n"));
        assert!(
            said.contains("row 3 (line 4)") && said.contains("bad row"),
            "{said}"
        );
    }
    // A bad row whose group can be read, and is another one, does no harm.
    let load = Load::new(Setup::groups().skipping());
    load.complete(first);
    assert_eq!(load.complete(&format!("{first}3\n")), (3, 2));
    load.refused(&format!("{first}3\n2,c,3\n"));
    assert_eq!(load.complete(&format!("{first}3\n4,c,3\n2,d,4\n")), (5, 4));

    let rejected = format!("{first}3\n");
    let load = Load::new(Setup::groups().skipping());
    assert_eq!(load.complete(&rejected), (3, 2));
    // The bad row was one of group 3: its other rows are rejected with it.
    let outcome = load.run(&format!("{rejected}3,c,3\n4,d,4\n")).unwrap();
    assert_eq!((outcome.rows.accepted, outcome.rows.rejected), (3, 2));
    let broken = format!("{first}3,c,broken\n");
    let load = Load::new(Setup::groups().skipping());
    load.complete(&broken);
    let said = load.refused(&format!("{broken}3,c,3\n"));
    assert!(said.ends_with("its rows were rejected already"), "{said}");
}

#[test]
fn a_quote_that_the_end_had_closed_may_not_go_on() {
    let first = "ts,id,cpu\n1,a,1\n2,\"b,2\n3,c,3\n";
    let load = Load::new(Setup::rows().skipping());
    assert_eq!(load.complete(first), (3, 2));
    assert_eq!(load.complete(first), (3, 2), "nothing has changed");
    let said = load.refused(&format!("{first}4,d,4\n"));
    assert!(
        said.starts_with("row 2 (line 3): a quote in it was not closed"),
        "{said}"
    );
    let load = Load::new(Setup::rows().skipping()).holding();
    assert_eq!(load.complete(first), (1, 1));
    assert_eq!(load.complete(&format!("{first}4,d\",4\n")), (2, 2));
}

#[test]
fn what_may_go_on_is_held() {
    let load = Load::new(Setup::rows()).holding();
    for (input, done) in [
        ("ts,id,cpu", (0, 0)),
        ("ts,id,cpu\n1,a", (0, 0)),
        ("ts,id,cpu\n1,a,1", (0, 0)),
        ("ts,id,cpu\n1,a,1\r", (1, 1)),
        ("ts,id,cpu\n1,a,1\r\n", (1, 1)),
        ("ts,id,cpu\n1,a,1\r\n2,\"b", (1, 1)),
        ("ts,id,cpu\n1,a,1\r\n2,\"b\n3,c", (1, 1)),
        ("ts,id,cpu\n1,a,1\r\n2,\"b\n3,c\",2\n", (2, 2)),
        ("ts,id,cpu\n1,a,1\r\n2,\"b\n3,c\",2\n\n\n", (2, 2)),
    ] {
        let outcome = load.run(input).unwrap();
        let position = outcome.position.unwrap();
        assert_eq!(position.prefix.bytes, position.input.byte);
        assert!(position.input.byte <= input.len() as u64);
        assert_eq!(
            position.end.is_held,
            position.input.byte < input.len() as u64,
            "{input:?}"
        );
        assert_eq!(
            (outcome.rows.read, outcome.records.delivered),
            done,
            "{input:?}"
        );
    }
    assert_eq!(
        load.values(),
        [
            r#"{"ts":1,"id":"a","cpu":1.0}"#,
            r#"{"ts":2,"id":"b\n3,c","cpu":2.0}"#
        ]
    );
    let load = Load::new(Setup::groups()).holding();
    assert_eq!(load.complete("ts,id,cpu\n1,a,1\n"), (0, 0));
    assert_eq!(load.complete("ts,id,cpu\n1,a,1\n1,b,2\n2"), (0, 0));
    assert_eq!(load.complete("ts,id,cpu\n1,a,1\n1,b,2\n2,c,3\n"), (2, 1));
    let mut load = load;
    load.setup.hold_last = false;
    assert_eq!(load.complete("ts,id,cpu\n1,a,1\n1,b,2\n2,c,3\n"), (3, 2));
}

/// Rows of a rejected group are written down as they come; the group is held all the same, and all of it is rejected later.
#[test]
fn a_rejected_group_is_held_with_its_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::groups().skipping();
    let rejects = folder.path().join("rejects");
    setup.rejects.file = Some(rejects.clone());
    let load = Load::new(setup).holding();
    let lines = || std::fs::read_to_string(&rejects).unwrap().lines().count();
    let mut input = "ts,id,cpu\n1,a,1\n2,b,broken\n2,c,2\n".to_owned();
    assert_eq!(load.complete(&input), (1, 1));
    assert_eq!(lines(), 0);
    input.push_str("2,d,4\n");
    assert_eq!(load.complete(&input), (1, 1));
    input.push_str("3,d,4\n");
    let outcome = load.run(&input).unwrap();
    assert_eq!((outcome.rows.read, outcome.rows.rejected), (4, 3));
    assert_eq!(lines(), 3);
}

/// What stands behind the row that stopped the load, or in it, was not loaded: it may be corrected.
#[test]
fn the_row_that_stopped_a_load_may_be_corrected() {
    for setup in [Setup::rows, Setup::groups] {
        let load = Load::new(setup());
        let mut input = String::from("ts,id,cpu\n");
        for row in 0..30_000 {
            input.push_str(&format!("{},c{row},1.5\n", row / 3));
        }
        let broken = input.replace("c29000,1.5", "c29000,broken");
        let error = load.run(&broken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRow);
        assert_eq!(error.position().unwrap().row, 29_001);
        let position = Commits::position(&load.commits);
        assert_eq!(position.prefix.bytes, position.input.byte);
        assert!((28_990..=29_000).contains(&position.input.row));
        assert_eq!(load.complete(&input).0, 30_000);
        let mut once = MemorySink::new(1);
        setup()
            .publish(&crate::support::Text(input.into_bytes()), &mut once)
            .unwrap();
        assert_eq!(load.values(), once.topic.borrow().values());
    }
    // A row that is too large for the window, whose beginning is long gone.
    let mut setup = Setup::rows();
    setup.csv.max_row_size = 100;
    let load = Load::new(setup);
    let good = "ts,id,cpu\n1,a,1\n\n";
    let error = load
        .run(&format!("{good}2,{},2\n3,c,3\n", "x".repeat(500_000)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRow);
    assert_eq!(load.complete(&format!("{good}2,b,2\n3,c,3\n")), (3, 3));
}

/// A piece of a file: a row, good or not, a blank line, or noise.
fn piece() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        6 => "[a-z]{0,3}",
        2 => "\"[a-z,\r\n]{0,4}\"",
        1 => Just("\"say \"\"so\"\"\"".to_owned()),
        1 => Just("\"open".to_owned()),
        1 => Just("x\"y".to_owned()),
        1 => Just("\"x\"y".to_owned()),
        1 => Just("much more than fits into a row that may have forty".to_owned()),
    ];
    let end = prop_oneof![4 => Just("\n"), 3 => Just("\r\n"), 1 => Just("\r")];
    let cpu =
        prop_oneof![6 => Just("1.5"), 1 => Just("broken"), 1 => Just("1,2"), 1 => Just("\"2\"")];
    let row = (0u8..3, text, cpu, end.clone())
        .prop_map(|(ts, text, cpu, end)| format!("{ts},{text},{cpu}{end}"));
    prop_oneof![
        12 => row.boxed(),
        2 => end.clone().prop_map(str::to_owned).boxed(),
        1 => (0u8..3, end.clone()).prop_map(|(ts, end)| format!("{ts}{end}")).boxed(),
        1 => end.prop_map(|end| format!("\"{end}")).boxed(),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    text: String,
    cuts: Vec<usize>,
    faults: Vec<Vec<(usize, Fault)>>,
    grouped: bool,
    partitions: usize,
    commit_bytes: u64,
    max_row_size: usize,
    size: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    let text = (end, proptest::collection::vec(piece(), 0..14))
        .prop_map(|(end, pieces)| format!("{HEADER}{end}{}", pieces.concat()));
    let fault = prop_oneof![Just(Fault::RollsBack), Just(Fault::Dies)];
    let faults = proptest::collection::vec((0usize..6, fault), 0..2);
    (
        text,
        proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        proptest::collection::vec(faults, 6),
        any::<bool>(),
        1usize..3,
        prop_oneof![Just(1u64), 1u64..100],
        prop_oneof![Just(40usize), Just(1 << 20)],
        1usize..30,
    )
        .prop_map(
            |(text, cuts, faults, grouped, partitions, commit_bytes, max_row_size, size)| {
                let all = HEADER.len()..=text.len();
                let cut = |at: proptest::sample::Index| all.start() + at.index(all.clone().count());
                let mut cuts: Vec<usize> = cuts.into_iter().map(cut).collect();
                cuts.sort_unstable();
                Case {
                    text,
                    cuts,
                    faults,
                    grouped,
                    partitions,
                    commit_bytes,
                    max_row_size,
                    size,
                }
            },
        )
}

/// Loads the whole at once; then in steps, as far as it gets.
fn run(case: &Case, hold_last: bool) -> (Result, std::result::Result<Result, Error>) {
    let folder = tempfile::tempdir().unwrap();
    let setup_with = |name: &str| {
        let mut setup = if case.grouped {
            Setup::groups()
        } else {
            Setup::rows()
        }
        .skipping();
        setup.rejects.file = Some(folder.path().join(name));
        setup.csv.max_row_size = case.max_row_size;
        setup.commits = CommitCadence {
            bytes: case.commit_bytes,
            ..CommitCadence::default()
        };
        setup
    };
    let input = |end: usize| Prefix {
        bytes: &case.text.as_bytes()[..end],
        size: case.size,
    };
    let whole = setup_with("whole");
    let mut once = MemorySink::new(case.partitions);
    let outcome = whole
        .publish_from(
            &LoadPosition::start(),
            &input(case.text.len()),
            &mut once,
            None,
            &mut |_| {},
        )
        .unwrap();
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let values = once.topic.borrow().values();
    let expected = Result::of(&whole, values, &outcome);

    let mut parts = setup_with("parts");
    let commits = Commits::new(case.partitions);
    let mut steps = case.cuts.clone();
    steps.push(case.text.len());
    let mut last = None;
    for (index, end) in steps.iter().enumerate() {
        parts.hold_last = hold_last && index + 1 < steps.len();
        for faults in [case.faults[index].clone(), Vec::new()] {
            match go_on(&parts, &commits, &input(*end), faults) {
                Err(error) if error.kind() == ErrorKind::Sink => {}
                Err(error) => return (expected, Err(error)),
                Ok(outcome) => {
                    assert_eq!(outcome.status, Status::Complete);
                    assert!(outcome.source.bytes <= *end as u64);
                    let position = outcome.position.as_ref().unwrap();
                    assert_eq!(position.prefix.bytes, position.input.byte);
                    last = Some(outcome);
                }
            }
        }
    }
    let values = commits.borrow().topic.values();
    (expected, Ok(Result::of(&parts, values, &last.unwrap())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// Cut anywhere, killed and rolled back on the way: what is held until it is whole comes to what one load of the whole comes to.
    #[test]
    fn a_load_that_holds_what_may_go_on_comes_to_the_same(case in case()) {
        let (expected, parts) = run(&case, true);
        prop_assert_eq!(parts.unwrap(), expected);
    }

    /// Without that, the same or a refusal.
    #[test]
    fn a_load_of_what_has_grown_comes_to_the_same_or_is_refused(case in case()) {
        let (expected, parts) = run(&case, false);
        match parts {
            Ok(parts) => prop_assert_eq!(parts, expected),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::InputChanged, "{}", error);
                prop_assert!(error.position().is_some(), "{}", error);
            }
        }
    }
}
