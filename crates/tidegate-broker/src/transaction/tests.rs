//! The rules of one transactional id, call by call, and what a restart does to all of them.

use tidegate_wire::ProducerStamp;

use super::machine::*;
use super::*;
use crate::journal::Configs;
use crate::log::parse_header;
use crate::testing::{batch_at, stamp};

const NOW: i64 = 1_000_000;
const TIMEOUT: i32 = 60_000;

/// Hands out this producer id where a new one is needed.
const FRESH: i64 = 77;

fn fresh() -> Result<i64, i16> {
    Ok(FRESH)
}

fn none_left() -> Result<i64, i16> {
    panic!("no new producer id is needed")
}

fn caller(producer_id: i64, epoch: i16) -> Caller {
    Caller { producer_id, epoch }
}

fn place() -> Touched {
    Touched::partition("usage", 3)
}

/// Producer 7 at `epoch`, in `state`.
fn at(state: State, epoch: i16) -> Transaction {
    let mut transaction = Transaction::new(7, TIMEOUT, NOW);
    transaction.epoch = epoch;
    transaction.state = state;
    if state == State::Ongoing || state.marker().is_some() {
        transaction.touched = place();
        transaction.started_ms = NOW;
    }
    transaction
}

fn init(before: &Transaction, expected: Option<Caller>) -> Result<Transaction, i16> {
    match before.init(expected, TIMEOUT, Protocol::Second, NOW, fresh)? {
        Init::Ready(next) => Ok(next),
        Init::Abort(next) => panic!("to be aborted first: {next:?}"),
    }
}

fn prepared(ending: Result<Ending, i16>) -> Transaction {
    match ending.unwrap() {
        Ending::Prepared(next) => next,
        Ending::Repeated => panic!("taken for a resend"),
    }
}

#[test]
fn each_init_brings_an_epoch_and_no_way_back() {
    let mut transaction = Transaction::new(7, TIMEOUT, NOW);
    for epoch in 0..5 {
        transaction = init(&transaction, None).unwrap();
        assert_eq!((transaction.producer_id, transaction.epoch), (7, epoch));
        assert_eq!(transaction.last_epoch, NO_EPOCH);
    }
}

#[test]
fn a_producer_that_goes_on_fences_nobody_but_itself() {
    let before = at(State::CompleteCommit, 4);
    let after = init(&before, Some(caller(7, 4))).unwrap();
    assert_eq!((after.epoch, after.last_epoch), (5, 4));
    // The answer was lost: asked again, it gets the same epoch.
    let again = init(&after, Some(caller(7, 4))).unwrap();
    assert_eq!((again.epoch, again.last_epoch), (5, 4));
    // Another producer came: the way back is closed.
    let other = init(&after, None).unwrap();
    for stale in [caller(7, 4), caller(7, 5), caller(8, 6)] {
        assert_eq!(init(&other, Some(stale)), Err(codes::PRODUCER_FENCED));
    }
}

#[test]
fn used_up_epochs_bring_a_new_producer_id() {
    let before = at(State::CompleteAbort, i16::MAX - 1);
    let after = init(&before, None).unwrap();
    assert_eq!((after.producer_id, after.epoch), (FRESH, 0));
    assert_eq!((after.previous_producer_id, after.last_epoch), (7, -1));

    let after = init(&before, Some(caller(7, i16::MAX - 1))).unwrap();
    assert_eq!((after.producer_id, after.epoch), (FRESH, 0));
    let again = init(&after, Some(caller(7, i16::MAX - 1))).unwrap();
    assert_eq!((again.producer_id, again.epoch), (FRESH, 0));
    let refused = init(&after, Some(caller(7, i16::MAX - 2)));
    assert_eq!(refused, Err(codes::PRODUCER_FENCED));
}

#[test]
fn an_open_transaction_is_aborted_before_an_init() {
    for (protocol, last_epoch) in [(Protocol::First, -1), (Protocol::Second, 4)] {
        let open = at(State::Ongoing, 4);
        let init = open.init(None, TIMEOUT, protocol, NOW, none_left).unwrap();
        let Init::Abort(fenced) = init else {
            panic!("not aborted: {init:?}");
        };
        assert_eq!(fenced.state, State::PrepareAbort);
        assert_eq!((fenced.epoch, fenced.last_epoch), (5, last_epoch));
        let meanwhile = fenced.init(None, TIMEOUT, protocol, NOW, none_left);
        assert_eq!(meanwhile, Err(codes::CONCURRENT_TRANSACTIONS));
        // Even for a producer id that only the end of the transaction will bring.
        let next = Some(caller(FRESH, 0));
        let meanwhile = fenced.init(next, TIMEOUT, protocol, NOW, none_left);
        assert_eq!(meanwhile, Err(codes::CONCURRENT_TRANSACTIONS));
        let done = fenced.complete(NOW);
        assert_eq!((done.state, done.epoch), (State::CompleteAbort, 5));
        assert_eq!(done.touched, Touched::default());
    }
}

#[test]
fn partitions_are_added_by_the_current_producer_alone() {
    let empty = at(State::Empty, 4);
    let open = empty
        .add(caller(7, 4), &place(), Protocol::First, NOW)
        .unwrap()
        .unwrap();
    assert_eq!((open.state, open.started_ms), (State::Ongoing, NOW));
    let again = open.add(caller(7, 4), &place(), Protocol::First, NOW + 5);
    assert_eq!(again, Ok(None));
    let more = Touched::partition("usage", 4);
    let grown = open.add(caller(7, 4), &more, Protocol::First, NOW + 5);
    let grown = grown.unwrap().unwrap();
    assert!(grown.touched.covers(&place()) && grown.touched.covers(&more));
    // The time runs from the beginning of the transaction.
    assert_eq!(grown.started_ms, NOW);

    let table = [
        (
            State::Empty,
            caller(8, 4),
            codes::INVALID_PRODUCER_ID_MAPPING,
        ),
        (State::Empty, caller(7, 3), codes::PRODUCER_FENCED),
        (State::Empty, caller(7, 5), codes::PRODUCER_FENCED),
        (
            State::PrepareCommit,
            caller(7, 4),
            codes::CONCURRENT_TRANSACTIONS,
        ),
        (
            State::PrepareAbort,
            caller(7, 4),
            codes::CONCURRENT_TRANSACTIONS,
        ),
    ];
    for (state, who, expected) in table {
        let refused = at(state, 4).add(who, &place(), Protocol::First, NOW);
        assert_eq!(refused, Err(expected), "{state:?} {who:?}");
        assert_eq!(at(state, 4).verify(who, &place()), Err(expected));
    }
    assert_eq!(open.verify(caller(7, 4), &place()), Ok(()));
    assert_eq!(
        open.verify(caller(7, 4), &more),
        Err(codes::TRANSACTION_ABORTABLE)
    );
}

/// What EndTxn comes to: the epoch it leaves, or a code; 0 epochs later for a resend.
fn outcome(ending: Result<Ending, i16>) -> Result<Option<(State, i16)>, i16> {
    ending.map(|ending| match ending {
        Ending::Prepared(next) => Some((next.state, next.epoch)),
        Ending::Repeated => None,
    })
}

#[test]
fn the_end_in_the_first_protocol() {
    use Marker::{Abort, Commit};
    use State::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};
    let invalid = Err(codes::INVALID_TXN_STATE);
    let concurrent = Err(codes::CONCURRENT_TRANSACTIONS);
    let table = [
        (Empty, Commit, invalid),
        (Empty, Abort, invalid),
        (Ongoing, Commit, Ok(Some((PrepareCommit, 4)))),
        (Ongoing, Abort, Ok(Some((PrepareAbort, 4)))),
        (PrepareCommit, Commit, concurrent),
        (PrepareCommit, Abort, invalid),
        (PrepareAbort, Abort, concurrent),
        (PrepareAbort, Commit, invalid),
        (CompleteCommit, Commit, Ok(None)),
        (CompleteCommit, Abort, invalid),
        (CompleteAbort, Abort, Ok(None)),
        (CompleteAbort, Commit, invalid),
    ];
    for (state, marker, expected) in table {
        let end = |who| at(state, 4).end(who, marker, Protocol::First, NOW, none_left);
        assert_eq!(outcome(end(caller(7, 4))), expected, "{state:?} {marker:?}");
        for epoch in [3, 5] {
            let fenced = end(caller(7, epoch));
            assert_eq!(fenced, Err(codes::PRODUCER_FENCED), "{state:?} {marker:?}");
        }
        let unknown = end(caller(8, 4));
        assert_eq!(unknown, Err(codes::INVALID_PRODUCER_ID_MAPPING));
    }
}

#[test]
fn the_end_in_the_second_protocol() {
    use Marker::{Abort, Commit};
    use State::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};
    let invalid = Err(codes::INVALID_TXN_STATE);
    let fenced = Err(codes::PRODUCER_FENCED);
    let concurrent = Err(codes::CONCURRENT_TRANSACTIONS);
    let aborted = Ok(Some((PrepareAbort, 5)));
    // The state is at epoch 4: a resend comes with 3, a new request with 4.
    let table = [
        (Empty, Commit, fenced, invalid),
        (Empty, Abort, fenced, aborted),
        (Ongoing, Commit, fenced, Ok(Some((PrepareCommit, 5)))),
        (Ongoing, Abort, fenced, aborted),
        (PrepareCommit, Commit, concurrent, fenced),
        (PrepareCommit, Abort, invalid, fenced),
        (PrepareAbort, Abort, concurrent, fenced),
        (PrepareAbort, Commit, invalid, fenced),
        (CompleteCommit, Commit, Ok(None), invalid),
        (CompleteCommit, Abort, invalid, aborted),
        (CompleteAbort, Abort, Ok(None), aborted),
        (CompleteAbort, Commit, invalid, invalid),
    ];
    for (state, marker, resent, new) in table {
        let end = |who| at(state, 4).end(who, marker, Protocol::Second, NOW, none_left);
        assert_eq!(outcome(end(caller(7, 3))), resent, "{state:?} {marker:?}");
        assert_eq!(outcome(end(caller(7, 4))), new, "{state:?} {marker:?}");
        for epoch in [2, 5] {
            assert_eq!(outcome(end(caller(7, epoch))), fenced, "{state:?}");
        }
        let unknown = end(caller(8, 4));
        assert_eq!(unknown, Err(codes::INVALID_PRODUCER_ID_MAPPING));
    }
}

#[test]
fn an_end_with_the_last_epoch_goes_on_with_a_new_producer_id() {
    let open = at(State::Ongoing, i16::MAX - 1);
    let last = caller(7, i16::MAX - 1);
    let end = |before: &Transaction| before.end(last, Marker::Commit, Protocol::Second, NOW, fresh);
    let decided = prepared(end(&open));
    // The marker still is the old producer's.
    assert_eq!((decided.producer_id, decided.epoch), (7, i16::MAX));
    let done = decided.complete(NOW);
    assert_eq!((done.producer_id, done.epoch), (FRESH, 0));
    assert_eq!(done.next_producer_id, NO_PRODUCER_ID);
    assert_eq!(end(&done), Ok(Ending::Repeated));
    let abort = done.end(last, Marker::Abort, Protocol::Second, NOW, fresh);
    assert_eq!(abort, Err(codes::INVALID_TXN_STATE));
}

#[test]
fn a_transaction_out_of_time_is_told_apart_from_a_fenced_one() {
    // By the second protocol: abort finds it done, commit finds that it was not.
    let done = at(State::Ongoing, 4)
        .fence(Protocol::Second, NOW)
        .complete(NOW);
    let end = |before: &Transaction, marker, protocol| {
        before.end(caller(7, 4), marker, protocol, NOW, none_left)
    };
    let (commit, abort) = (Marker::Commit, Marker::Abort);
    assert_eq!(end(&done, abort, Protocol::Second), Ok(Ending::Repeated));
    let refused = end(&done, commit, Protocol::Second);
    assert_eq!(refused, Err(codes::INVALID_TXN_STATE));
    let next = init(&done, Some(caller(7, 4))).unwrap();
    assert_eq!(next.epoch, 5);
    // Somebody else came meanwhile.
    let taken = init(&done, None).unwrap();
    for marker in [commit, abort] {
        let fenced = end(&taken, marker, Protocol::Second);
        assert_eq!(fenced, Err(codes::PRODUCER_FENCED));
    }
    // By the first protocol nothing but the fencing is seen.
    let done = at(State::Ongoing, 4)
        .fence(Protocol::First, NOW)
        .complete(NOW);
    for marker in [commit, abort] {
        let fenced = end(&done, marker, Protocol::First);
        assert_eq!(fenced, Err(codes::PRODUCER_FENCED));
    }
}

#[test]
fn fencing_a_producer_at_its_last_epoch_does_not_overflow() {
    let open = at(State::Ongoing, i16::MAX - 1);
    for protocol in [Protocol::First, Protocol::Second] {
        let done = open.fence(protocol, NOW).complete(NOW);
        assert_eq!(done.epoch, i16::MAX);
        let next = init(&done, None).unwrap();
        assert_eq!((next.producer_id, next.epoch), (FRESH, 0));
    }
}

#[test]
fn the_state_is_the_same_after_a_journal() {
    let mut transaction = at(State::PrepareCommit, 4);
    transaction.touched.groups.insert("readers".to_owned());
    let line = serde_json::to_string(&transaction).unwrap();
    let found: Transaction = serde_json::from_str(&line).unwrap();
    assert_eq!(found, transaction, "{line}");
}

// After a restart.

#[test]
fn a_transaction_nobody_answers_for_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let shared = crate::testing::shared(dir.path());
    shared
        .create_topic("usage", 1, Configs::new(), false)
        .unwrap();
    let topic = shared.topics.by_name("usage").unwrap();
    let stamp = ProducerStamp {
        transactional: true,
        ..stamp(7, 3, 0)
    };
    // As if a power failure had taken the journal's last lines.
    let batch = batch_at(5, &[b"lost"], stamp);
    let header = parse_header(&batch).unwrap();
    let partition = topic.partition(0).unwrap();
    partition
        .append(&batch, &header, &topic.settings(), 5, false)
        .unwrap();
    assert_eq!(partition.log().last_stable_offset(), 0);
    drop((shared, topic, partition));

    for _ in 0..2 {
        let shared = crate::testing::shared(dir.path());
        let topic = shared.topics.by_name("usage").unwrap();
        let partition = topic.partition(0).unwrap();
        let log = partition.log();
        assert_eq!((log.last_stable_offset(), log.next_offset()), (2, 2));
        let aborted = log.plan_reading(0, true).unwrap().aborted;
        assert_eq!((aborted.len(), aborted[0].first_offset), (1, 0));
    }
}

#[test]
fn an_id_unused_for_long_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let shared = crate::testing::shared(dir.path());
    let day_ms = 24 * 3600 * 1000;
    for (id, days, state) in [
        ("fresh", 6, State::Empty),
        ("stale", 8, State::CompleteCommit),
        ("open", 8, State::Ongoing),
    ] {
        let mut transaction = at(state, 0);
        transaction.updated_ms = now_ms() - days * day_ms;
        let id = id.to_owned();
        shared
            .commit(Change::TransactionChanged { id, transaction })
            .unwrap();
    }
    drop(shared);
    for _ in 0..2 {
        let shared = crate::testing::shared(dir.path());
        let known = shared.transactions.list();
        let known: Vec<_> = known.iter().map(|(id, _)| &**id).collect();
        assert_eq!(known, ["fresh", "open"]);
    }
}
