//! Loads of several inputs: one sequence of rows, whatever ends a run, and a list of inputs that may only become longer.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use tidegate_core::clock::ManualClock;
use tidegate_core::encode::{CellFormat, ValueFormat};
use tidegate_core::infer::{InferOptions, infer_all};
use tidegate_core::position::LoadPosition;
use tidegate_core::publish::{CommitCadence, Outcome, has_more};
use tidegate_core::read::{CsvFormat, RowReader, Source};
use tidegate_core::receipt::Status;
use tidegate_core::verify::{Compared, VerifyReport, VerifyStatus, verify};
use tidegate_core::{Error, ErrorKind};

use crate::support::{Commits, Fault, MemoryReader, MemorySink, OURS, Pieces, Setup, receipt};

const HEADER: &str = "ts,id,cpu\n";

/// An input with a name, read in pieces.
#[derive(Clone, Debug)]
struct Named {
    name: &'static str,
    text: String,
}

impl Source for Named {
    type Reader = Pieces;

    fn name(&self) -> Option<String> {
        Some(self.name.to_owned())
    }

    fn open(&self) -> std::io::Result<Pieces> {
        Ok(Pieces::new(self.text.clone().into_bytes(), 13))
    }
}

/// An input of these rows.
fn named(name: &'static str, rows: &str) -> Named {
    let text = format!("{HEADER}{rows}");
    Named { name, text }
}

fn three() -> [Named; 3] {
    [
        named("a", "1,c1,0.5\n1,c2,1.5\n"),
        named("b", "1,c3,2.5\n2,c4,3.5\n"),
        named("c", "2,c5,4.5\n"),
    ]
}

/// A load into a transactional sink whose inputs are given anew for each run.
struct Load {
    setup: Setup,
    commits: Rc<RefCell<Commits>>,
}

impl Load {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            commits: Commits::new(1),
        }
    }

    fn run(&self, inputs: &[Named], faults: Vec<(usize, Fault)>) -> Result<Outcome, Error> {
        let mut sink = MemorySink::transactional(&self.commits);
        (sink.batch_records, sink.faults) = (2, faults);
        let position = Commits::position(&self.commits);
        self.setup
            .publish_all(&position, inputs, &mut sink, None, &mut |_| {})
    }

    /// What a run comes to that nothing disturbs.
    fn complete(&self, inputs: &[Named]) -> Outcome {
        let outcome = self.run(inputs, Vec::new()).unwrap();
        assert_eq!(outcome.status, Status::Complete, "{:?}", outcome.error);
        outcome
    }

    /// What a run says whose inputs are not what they must be; nothing is published by it.
    fn refused(&self, inputs: &[Named]) -> String {
        let before = self.commits.borrow().topic.clone();
        let error = match self.run(inputs, Vec::new()) {
            Ok(mut outcome) => outcome.error.take().unwrap(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
        assert_eq!(self.commits.borrow().topic, before);
        error.to_string()
    }

    fn values(&self) -> Vec<String> {
        self.commits.borrow().topic.values()
    }
}

#[test]
fn several_inputs_are_one_sequence_of_rows() {
    let load = Load::new(Setup::rows());
    let outcome = load.complete(&three());
    assert_eq!((outcome.rows.read, outcome.records.delivered), (5, 5));
    let rows: Vec<u64> = outcome.finished.iter().map(|input| input.rows).collect();
    assert_eq!(rows, [2, 2]);
    let lengths: Vec<u64> = outcome.sources().map(|input| input.bytes).collect();
    let expected = three().map(|input| input.text.len() as u64);
    assert_eq!(lengths, expected);

    let whole = Load::new(Setup::rows());
    let rows: Vec<String> = three()
        .iter()
        .map(|input| input.text[HEADER.len()..].to_owned())
        .collect();
    let once = whole.complete(&[named("whole", &rows.concat())]);
    assert_eq!(load.values(), whole.values());
    assert_eq!(once.partitions[0].digest, outcome.partitions[0].digest);
}

#[test]
fn a_group_ends_where_its_input_does() {
    let load = Load::new(Setup::groups());
    let outcome = load.complete(&three());
    assert_eq!((outcome.rows.read, outcome.records.delivered), (5, 4));
}

#[test]
fn what_is_open_at_the_end_of_an_input_is_none_of_the_next_ones_business() {
    let load = Load::new(Setup::rows());
    let inputs = [
        named("unterminated", "1,c1,0.5"),
        named("half a line end", "2,c2,1.5\r"),
        named("no rows", ""),
        named("blank lines", "\n\n3,c3,2.5\n\n"),
        named("last", "4,c4,3.5\n"),
    ];
    let outcome = load.complete(&inputs);
    assert_eq!((outcome.rows.read, outcome.read_counts.blank_lines), (4, 3));

    let load = Load::new(Setup::rows().skipping());
    let inputs = [
        named("open quote", "1,\"c1,0.5\n2,c2,1.5\n"),
        named("next", "3,c3,2.5\n4,\"c4\",3.5\n"),
    ];
    let outcome = load.complete(&inputs);
    assert_eq!((outcome.rows.accepted, outcome.rows.rejected), (3, 1));
}

#[test]
fn inputs_may_be_added_behind_those_that_were_loaded() {
    let load = Load::new(Setup::rows());
    let [a, b, c] = three();
    assert_eq!(load.complete(std::slice::from_ref(&a)).rows.read, 2);
    assert!(has_more(&[a.clone(), b.clone()], &Commits::position(&load.commits)).unwrap());
    assert_eq!(load.complete(&[a.clone(), b.clone()]).rows.read, 4);
    assert!(!has_more(&[a.clone(), b.clone()], &Commits::position(&load.commits)).unwrap());
    let mut grown = b.clone();
    grown.text.push_str("2,c4b,3.75\n");
    // The last one may have grown too.
    assert_eq!(load.complete(&[a.clone(), grown, c]).rows.read, 6);

    let whole = Load::new(Setup::rows());
    let rows = "1,c1,0.5\n1,c2,1.5\n1,c3,2.5\n2,c4,3.5\n2,c4b,3.75\n2,c5,4.5\n";
    whole.complete(&[named("whole", rows)]);
    assert_eq!(load.values(), whole.values());
}

#[test]
fn what_is_held_of_an_input_is_let_go_once_another_follows() {
    let mut setup = Setup::groups();
    setup.hold_last = true;
    let load = Load::new(setup);
    let [a, b, _] = three();
    assert_eq!(load.complete(std::slice::from_ref(&a)).rows.read, 0);
    assert_eq!(load.complete(&[a.clone(), b.clone()]).rows.read, 3);
    assert_eq!(load.complete(&[a, b, named("c", "")]).rows.read, 4);
}

#[test]
fn inputs_inserted_removed_exchanged_or_changed_are_refused() {
    let load = Load::new(Setup::rows());
    let [a, b, c] = three();
    load.complete(&[a.clone(), b.clone()]);
    let mut grown = a.clone();
    grown.text.push_str("1,c9,9.5\n");
    let mut edited = b.clone();
    edited.text = edited.text.replace("2.5", "2.6");
    let refused = [
        (
            "exchanged",
            vec![b.clone(), a.clone()],
            "b: the input is not the one",
        ),
        (
            "inserted",
            vec![a.clone(), c.clone(), b.clone()],
            "c: the input is not the one",
        ),
        (
            "the first removed",
            vec![b.clone(), c.clone()],
            "b: the input is not the one",
        ),
        (
            "the last removed",
            vec![a.clone()],
            "of number 2, and there are 1",
        ),
        (
            "the first grown",
            vec![grown, b.clone()],
            "a: the input has grown since",
        ),
        (
            "the last edited",
            vec![a.clone(), edited],
            "b: the input is not the one",
        ),
    ];
    for (what, inputs, expected) in refused {
        let said = load.refused(&inputs);
        assert!(said.contains(expected), "{what}: {said}");
        assert!(has_more(&inputs, &Commits::position(&load.commits)).is_err());
    }
    assert_eq!(load.complete(&[a, b, c]).rows.read, 5);
}

#[test]
fn another_header_is_refused_where_it_comes() {
    let load = Load::new(Setup::rows());
    let [a, mut b, _] = three();
    b.text = b.text.replace("id", "name");
    let outcome = load.run(&[a, b], Vec::new()).unwrap();
    let error = outcome.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InputChanged);
    let said = error.to_string();
    assert!(said.starts_with("b: the header is another one"), "{said}");
    assert_eq!(load.commits.borrow().topic.records(), 2);
}

#[test]
fn a_bad_row_is_named_by_its_input_and_line() {
    let inputs = [
        named("a", "1,c1,0.5\n1,c2,1.5\n"),
        named("b", "1,c3,2.5\n2,c4,broken\n"),
    ];
    let load = Load::new(Setup::rows());
    let error = load.run(&inputs, Vec::new()).unwrap().error.unwrap();
    assert_eq!(error.input_name(), Some("b"));
    let said = error.to_string();
    assert!(
        said.starts_with("b: row 4 (line 3), column \"cpu\""),
        "{said}"
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    let mut setup = Setup::rows().skipping();
    setup.rejects.file = Some(file.path().to_owned());
    assert_eq!(Load::new(setup).complete(&inputs).rows.rejected, 1);
    let rejects = std::fs::read_to_string(file.path()).unwrap();
    assert!(
        rejects.starts_with(r#"{"file":"b","row":4,"line":3,"byte":19,"#),
        "{rejects}"
    );
}

#[test]
fn all_inputs_have_a_say_in_the_schema() {
    let group_by = [];
    let options = InferOptions {
        looks_for_nulls: true,
        sample: None,
        record_name: "usage",
        group_by: &group_by,
        cells: &CellFormat::default(),
        format: ValueFormat::Avro,
        set: &[],
        mark_last: None,
    };
    let csv = CsvFormat::default();
    let header = RowReader::open(HEADER.as_bytes(), csv.clone()).unwrap();
    let inputs = [named("a", "1,7,3\n"), named("b", "2,8,0.5\n")];
    let inferred = infer_all(&inputs, header.header(), &csv, &options).unwrap();
    assert_eq!(inferred.rows, 2);
    let types = inferred.columns.iter().map(|column| &column.avro_type);
    assert_eq!(types.collect::<Vec<_>>(), ["long", "long", "double"]);
    assert!(inferred.columns[2].why.contains("`0.5` in row 2"));

    let mut other = inputs;
    other[1].text = other[1].text.replace("id", "name");
    let error = infer_all(&other, header.header(), &csv, &options).unwrap_err();
    assert_eq!(
        (error.kind(), error.input_name()),
        (ErrorKind::InputChanged, Some("b"))
    );
}

fn compare(load: &Load, inputs: &[Named], outcome: &Outcome) -> Result<VerifyReport, Error> {
    let (interrupt, receipt) = (false.into(), receipt(outcome));
    let compared = Compared {
        partitions: 1,
        producer_ids: Some(&[OURS]),
        receipt: Some(&receipt),
    };
    let mut reader = MemoryReader::new(load.commits.borrow().topic.clone());
    verify(
        inputs,
        &load.setup.options(&interrupt),
        &compared,
        &mut reader,
        &ManualClock::new(),
        &mut |_| {},
    )
}

#[test]
fn several_inputs_are_compared_as_they_were_loaded() {
    let load = Load::new(Setup::rows());
    let inputs = three();
    let outcome = load.complete(&inputs);
    let report = compare(&load, &inputs, &outcome).unwrap();
    assert_eq!((report.status, report.rows), (VerifyStatus::Same, 5));

    let fewer = compare(&load, &inputs[..2], &outcome).unwrap_err();
    assert_eq!(fewer.kind(), ErrorKind::InputChanged);
    assert!(
        fewer.to_string().starts_with("3 inputs were loaded"),
        "{fewer}"
    );
    let mut edited = inputs.clone();
    edited[1].text = edited[1].text.replace("3.5", "3.6");
    let difference = compare(&load, &edited, &outcome).unwrap().first_difference;
    let difference = difference.unwrap();
    assert_eq!(difference.file.as_deref(), Some("b"));
    assert_eq!((difference.row, difference.line), (Some(4), Some(3)));
    assert!(
        difference.to_string().contains(", b, line 3 (row 4)"),
        "{difference}"
    );

    // A change that makes no other record is one all the same.
    let mut reworded = inputs;
    reworded[0].text = reworded[0].text.replace("0.5", "0.50");
    let error = compare(&load, &reworded, &outcome).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InputChanged);
    assert!(error.to_string().contains("usage-0.csv"), "{error}");
}

proptest! {
    /// However rows are spread over inputs, and whatever ends the runs, each of which may find more inputs than the one before: the topic holds what one
    /// undisturbed load of each input by itself would have put there.
    #[test]
    fn inputs_come_once_and_in_order_whatever_dies_or_is_rolled_back(
        counts in proptest::collection::vec(0u64..20, 1..6),
        bad in proptest::collection::btree_set(1u64..60, 0..6),
        grouped: bool,
        commit_bytes in 1u64..300,
        runs in proptest::collection::vec((1usize..6, proptest::collection::vec((0usize..20, prop_oneof![Just(Fault::RollsBack), Just(Fault::Dies), Just(Fault::Fails)]), 0..3)), 0..5),
    ) {
        let setup = || {
            let mut setup = if grouped { Setup::groups() } else { Setup::rows() }.skipping();
            setup.commits = CommitCadence { bytes: commit_bytes, ..CommitCadence::default() };
            setup
        };
        let mut row = 0;
        let inputs: Vec<Named> = counts.iter().map(|count| {
            let rows = (0..*count).map(|_| {
                row += 1;
                let cpu = if bad.contains(&row) { "broken".to_owned() } else { format!("{row}.5") };
                format!("{},c{row},{cpu}\n", row / 3)
            });
            named("input", &rows.collect::<String>())
        }).collect();
        let mut expected = Vec::new();
        let mut rejected = 0;
        for input in &inputs {
            let alone = Load::new(setup());
            rejected += alone.complete(std::slice::from_ref(input)).rows.rejected;
            expected.extend(alone.values());
        }

        let load = Load::new(setup());
        let mut known = 0;
        for (count, faults) in runs.into_iter().chain([(inputs.len(), Vec::new())]) {
            known = known.max(count).min(inputs.len());
            let outcome = load.run(&inputs[..known], faults).unwrap();
            prop_assert_eq!(outcome.rows.accepted + outcome.rows.rejected, outcome.rows.read);
        }
        let position = Commits::position(&load.commits);
        prop_assert_eq!(load.values(), expected);
        prop_assert_eq!((position.input.row, position.rejects.rows), (row, rejected));
        prop_assert_eq!(position.finished.len(), inputs.len() - 1);
        prop_assert_eq!(position.bytes(), inputs.iter().map(|input| input.text.len() as u64).sum::<u64>());
        prop_assert!(!has_more(&inputs, &position).unwrap());
    }
}

/// The position of a load that stands behind its first input says so in its JSON, and of one that does not nothing is said.
#[test]
fn a_position_tells_of_finished_inputs_only_where_there_are_any() {
    let load = Load::new(Setup::rows());
    let text = |position: &LoadPosition| serde_json::to_string(position).unwrap();
    load.complete(&three()[..1]);
    assert!(!text(&Commits::position(&load.commits)).contains("finished"));
    load.complete(&three());
    let position = Commits::position(&load.commits);
    let told = text(&position);
    assert!(
        told.starts_with(r#"{"finished":[{"bytes":28,"hash":""#),
        "{told}"
    );
    assert_eq!(
        serde_json::from_str::<LoadPosition>(&told).unwrap(),
        position
    );
}
