//! The machine, event by event: what a schedule of the simulator would only hit by chance.

use super::*;

const TOPIC_GONE: i16 = 3;
const NOT_LEADER: i16 = 6;
const UNKNOWN_PRODUCER: i16 = 59;

struct Bench {
    machine: Machine,
    now: u64,
    batches: u64,
}

fn answer(code: i16, base_offset: i64) -> Answer {
    Answer {
        code,
        base_offset,
        throttle: Duration::ZERO,
        new_leader: None,
        message: None,
    }
}

fn led_by(node: i32) -> Leader {
    Leader::Known(Leadership { node, epoch: 1 })
}

impl Bench {
    /// Partitions that are led by node 1, over this many links.
    fn new(partitions: u32, links: usize) -> Self {
        let identity = Identity {
            producer_id: 9,
            epoch: 0,
        };
        let rules = Rules::new(Duration::from_secs(60), links);
        let mut machine = Machine::new(identity, rules);
        for _ in 0..partitions {
            machine.add_partition();
        }
        Self {
            machine,
            now: 0,
            batches: 0,
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.machine
            .handle(Duration::from_millis(self.now), event, &mut actions);
        actions
    }

    fn seal(&mut self, slot: u32) -> Vec<Action> {
        let batch = BatchId(self.batches);
        self.batches += 1;
        self.tell(Event::Sealed {
            slot: Slot(slot),
            batch,
            records: 10,
        })
    }

    fn answer(&mut self, link: u64, answer: Answer) -> Vec<Action> {
        let link = LinkId(link);
        self.tell(Event::Answered { link, answer })
    }

    /// Seals one batch for each partition and sees to it that all are on links to node 1.
    fn started(partitions: u32, links: usize) -> Self {
        let mut bench = Self::new(partitions, links);
        for slot in 0..partitions {
            bench.seal(slot);
        }
        // The first question was about the first partition alone; the next one is about the others.
        for slots in [vec![0], (1..partitions).collect()] {
            let leaders = slots.into_iter().map(|slot| (Slot(slot), led_by(1)));
            bench.tell(Event::Metadata(leaders.collect()));
        }
        for link in 0..links as u64 {
            bench.tell(Event::Opened(LinkId(link)));
        }
        bench
    }
}

fn sends(actions: &[Action]) -> Vec<(u64, u32, u64, i32)> {
    let of = |action: &Action| match action {
        Action::Send {
            link,
            slot,
            batch,
            sequence,
            ..
        } => Some((link.0, slot.0, batch.0, *sequence)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn failure(actions: &[Action]) -> Option<&Failure> {
    actions.iter().find_map(|action| match action {
        Action::Fail(failure) => Some(failure),
        _ => None,
    })
}

#[test]
fn a_first_batch_looks_up_its_leader_opens_a_link_and_goes_alone() {
    let mut bench = Bench::new(1, 3);
    let asked = vec![Action::RefreshMetadata(vec![Slot(0)])];
    assert_eq!(bench.seal(0), asked);
    assert_eq!(bench.seal(0), []);
    let opened = bench.tell(Event::Metadata(vec![(Slot(0), led_by(7))]));
    let open = Action::Open {
        link: LinkId(0),
        node: 7,
    };
    assert_eq!(opened, [open]);
    assert_eq!(sends(&bench.tell(Event::Opened(LinkId(0)))), [(0, 0, 0, 0)]);
    let acknowledged = bench.answer(0, answer(0, 500));
    let settled = Action::Settle {
        slot: Slot(0),
        batch: BatchId(0),
        base_offset: Some(500),
    };
    assert_eq!(acknowledged[0], settled);
    assert_eq!(sends(&acknowledged), [(0, 0, 1, 10)]);
}

#[test]
fn partitions_of_one_broker_share_a_few_links_evenly() {
    let bench = Bench::started(7, 3);
    let sizes: Vec<usize> = bench
        .machine
        .links
        .values()
        .map(|link| link.slots.len())
        .collect();
    assert_eq!(sizes, [3, 2, 2]);
}

#[test]
fn a_link_takes_a_bounded_number_of_requests_and_serves_its_partitions_in_turn() {
    let mut bench = Bench::started(4, 1);
    for _ in 0..4 {
        bench.answer(0, answer(0, 0));
    }
    let mut sent = Vec::new();
    for _ in 0..20 {
        for slot in 0..4 {
            sent.extend(sends(&bench.seal(slot)));
        }
    }
    assert_eq!(sent.len(), MAX_PER_LINK);
    let by_slot = |slot| sent.iter().filter(|(_, of, ..)| *of == slot).count();
    assert_eq!([by_slot(0), by_slot(1), by_slot(2), by_slot(3)], [4; 4]);
}

#[test]
fn a_moved_leader_that_the_answer_names_needs_no_metadata() {
    let mut bench = Bench::started(1, 1);
    let moved = Answer {
        new_leader: Some(Leadership { node: 2, epoch: 5 }),
        ..answer(NOT_LEADER, -1)
    };
    let actions = bench.answer(0, moved.clone());
    let open = Action::Open {
        link: LinkId(1),
        node: 2,
    };
    assert_eq!(actions, [Action::Close(LinkId(0)), open]);
    assert_eq!(sends(&bench.tell(Event::Opened(LinkId(1)))), [(1, 0, 0, 0)]);
    // The same term again would lead in circles.
    let actions = bench.answer(1, moved);
    assert_eq!(actions, [Action::Close(LinkId(1))]);
    bench.now = 10_000;
    let asked = vec![Action::RefreshMetadata(vec![Slot(0)])];
    assert_eq!(bench.tell(Event::Tick), asked);
}

#[test]
fn the_pause_before_a_repair_grows_until_something_is_acknowledged() {
    let mut bench = Bench::started(1, 1);
    let mut pauses = Vec::new();
    for link in 0..9 {
        let why = "reset".to_owned();
        let link = LinkId(link);
        bench.tell(Event::Lost { link, why });
        let due = bench.machine.wake_at().unwrap();
        pauses.push(u64::try_from(due.as_millis()).unwrap() - bench.now);
        bench.now = u64::try_from(due.as_millis()).unwrap();
        bench.tell(Event::Tick);
        bench.tell(Event::Metadata(vec![(Slot(0), led_by(1))]));
        bench.tell(Event::Opened(LinkId(link.0 + 1)));
    }
    assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    bench.answer(9, answer(0, 0));
    assert_eq!(bench.machine.partitions[0].repairs, 0);
}

#[test]
fn a_broker_that_throttles_is_left_alone_on_all_its_links() {
    let mut bench = Bench::started(2, 2);
    let throttled = Answer {
        throttle: Duration::from_millis(300),
        ..answer(0, 0)
    };
    bench.answer(0, throttled);
    bench.answer(1, answer(0, 0));
    assert_eq!(sends(&bench.seal(0)), []);
    assert_eq!(sends(&bench.seal(1)), []);
    assert_eq!(bench.machine.wake_at(), Some(Duration::from_millis(300)));
    bench.now = 300;
    assert_eq!(sends(&bench.tell(Event::Tick)).len(), 2);
}

#[test]
fn without_any_progress_it_fails_at_the_deadline_saying_what_went_wrong_last() {
    let mut bench = Bench::started(1, 1);
    let why = "127.0.0.1:1: connection refused".to_owned();
    let link = LinkId(0);
    bench.tell(Event::Lost { link, why });
    bench.now = 59_999;
    assert!(failure(&bench.tell(Event::Tick)).is_none());
    bench.now = 60_000;
    let actions = bench.tell(Event::Tick);
    let failed = failure(&actions).unwrap();
    assert_eq!(failed.kind, ErrorKind::Timeout);
    assert!(
        failed.why.contains("60 s") && failed.why.contains("refused"),
        "{}",
        failed.why
    );
    assert_eq!(bench.seal(0), []);
    assert_eq!(bench.machine.wake_at(), None);
}

#[test]
fn an_idle_time_is_no_time_without_progress() {
    let mut bench = Bench::started(1, 1);
    bench.answer(0, answer(0, 0));
    bench.now = 3_600_000;
    assert!(failure(&bench.tell(Event::Tick)).is_none());
    assert!(failure(&bench.seal(0)).is_none());
    assert_eq!(
        bench.machine.wake_at(),
        Some(Duration::from_millis(3_660_000))
    );
}

#[test]
fn what_is_refused_for_good_fails_at_once_and_names_its_batch() {
    let mut bench = Bench::started(1, 1);
    let too_large = Answer {
        message: Some("the limit is 100".to_owned()),
        ..answer(10, -1)
    };
    let actions = bench.answer(0, too_large);
    let failed = failure(&actions).unwrap();
    assert_eq!(failed.kind, ErrorKind::TooLarge);
    assert_eq!(failed.code, Some(10));
    assert_eq!(
        (failed.slot, failed.batch),
        (Some(Slot(0)), Some(BatchId(0)))
    );
    assert_eq!(failed.why, "MESSAGE_TOO_LARGE (10): the limit is 100");
}

#[test]
fn a_topic_is_missing_only_after_a_while() {
    let mut bench = Bench::started(1, 1);
    bench.answer(0, answer(TOPIC_GONE, -1));
    let mut failed = None;
    while failed.is_none() {
        bench.now += 500;
        let asked = bench.tell(Event::Tick);
        if asked.is_empty() {
            continue;
        }
        let actions = bench.tell(Event::Metadata(vec![(Slot(0), Leader::Missing)]));
        failed = failure(&actions).cloned();
    }
    assert_eq!(failed.unwrap().kind, ErrorKind::TopicMissing);
    assert!((10_000..12_000).contains(&bench.now), "{}", bench.now);
}

#[test]
fn a_topic_that_was_created_again_is_another_one() {
    let mut bench = Bench::new(1, 1);
    bench.seal(0);
    let actions = bench.tell(Event::Metadata(vec![(Slot(0), Leader::Recreated)]));
    assert_eq!(failure(&actions).unwrap().kind, ErrorKind::TopicMissing);
}

#[test]
fn a_forgotten_producer_gets_a_new_id_once_nothing_is_in_doubt() {
    let mut bench = Bench::started(2, 2);
    // Partition 1 has a batch in flight while partition 0 is told that its producer is unknown.
    let actions = bench.answer(0, answer(UNKNOWN_PRODUCER, -1));
    assert_eq!(actions, [Action::Close(LinkId(0))]);
    bench.seal(1);
    let actions = bench.answer(1, answer(0, 0));
    assert!(
        actions.contains(&Action::RenewIdentity) && sends(&actions).is_empty(),
        "{actions:?}"
    );
    let identity = Identity {
        producer_id: 10,
        epoch: 0,
    };
    let actions = bench.tell(Event::Renewed(identity));
    // Partition 1 goes on under the new id from sequence 0, its head alone.
    assert_eq!(sends(&actions), [(1, 1, 2, 0)]);
    assert_eq!(bench.machine.identity(), identity);
}

#[test]
fn a_producer_that_is_forgotten_with_batches_in_doubt_stops() {
    let mut bench = Bench::started(1, 1);
    let why = "reset".to_owned();
    let link = LinkId(0);
    bench.tell(Event::Lost { link, why });
    bench.now = 20;
    bench.tell(Event::Tick);
    bench.tell(Event::Metadata(vec![(Slot(0), led_by(1))]));
    bench.tell(Event::Opened(LinkId(1)));
    let actions = bench.answer(1, answer(UNKNOWN_PRODUCER, -1));
    assert!(failure(&actions).unwrap().why.contains("in doubt"));
}

#[test]
fn a_gap_before_the_head_stops() {
    let mut bench = Bench::started(1, 1);
    bench.answer(0, answer(0, 0));
    bench.seal(0);
    let actions = bench.answer(0, answer(45, -1));
    let failed = failure(&actions).unwrap();
    assert_eq!(failed.kind, ErrorKind::Delivery);
    assert!(failed.why.contains("may be lost"), "{}", failed.why);
}

#[test]
fn a_broker_that_answers_what_nobody_asked_loses_its_link() {
    let mut bench = Bench::started(1, 1);
    bench.answer(0, answer(0, 0));
    assert_eq!(bench.answer(0, answer(0, 0)), [Action::Close(LinkId(0))]);
}

#[test]
fn an_answer_of_a_dropped_link_changes_nothing() {
    let mut bench = Bench::started(1, 1);
    let why = "reset".to_owned();
    let link = LinkId(0);
    bench.tell(Event::Lost { link, why });
    assert_eq!(bench.answer(0, answer(0, 77)), []);
    assert_eq!(bench.machine.unsettled(), 1);
}

/// A transaction on partitions led by node 1, its first batch sent over link 0.
fn in_transaction(protocol: Protocol) -> Bench {
    let mut bench = Bench::new(1, 1);
    let rules = Rules::new(Duration::from_secs(60), 1);
    bench.machine = Machine::transactional(rules, Duration::from_secs(60));
    bench.machine.add_partition();
    bench.tell(Event::Tick);
    assert_eq!(bench.coordinator(0, Some(ours(7))), [Action::Ready]);
    bench.tell(Event::Begin(protocol));
    bench
}

fn ours(epoch: i16) -> Identity {
    Identity {
        producer_id: 9,
        epoch,
    }
}

impl Bench {
    fn coordinator(&mut self, code: i16, identity: Option<Identity>) -> Vec<Action> {
        self.tell(Event::CoordinatorAnswered(CoordinatorAnswer {
            code,
            identity,
        }))
    }

    /// Seals a batch and brings it on its way over link 0.
    fn send_first(&mut self) {
        self.seal(0);
        self.tell(Event::Metadata(vec![(Slot(0), led_by(1))]));
        let sent = self.tell(Event::Opened(LinkId(0)));
        assert_eq!(sends(&sent), [(0, 0, self.batches - 1, 0)]);
    }
}

fn end(epoch: i16, commit: bool, find: bool) -> Action {
    let request = CoordinatorRequest::EndTxn {
        identity: ours(epoch),
        commit,
        protocol: Protocol::New,
    };
    Action::AskCoordinator { request, find }
}

#[test]
fn a_transaction_ends_once_all_is_acknowledged_and_until_then_word_for_word() {
    let mut bench = in_transaction(Protocol::New);
    bench.send_first();
    assert_eq!(bench.tell(Event::Commit), []);
    let settled = bench.answer(0, answer(0, 5));
    assert_eq!(settled[1..], [end(7, true, false)]);
    assert_eq!(bench.tell(Event::CoordinatorLost("reset".to_owned())), []);
    bench.now += 20;
    assert_eq!(bench.tell(Event::Tick), [end(7, true, true)]);
    let ended = bench.coordinator(0, Some(ours(8)));
    assert_eq!(ended, [Action::Ended(Outcome::Committed)]);
    assert_eq!(bench.machine.identity(), ours(8));
}

#[test]
fn a_commit_of_nothing_asks_nobody() {
    for protocol in [Protocol::Old, Protocol::New] {
        let mut bench = in_transaction(protocol);
        let ended = bench.tell(Event::Commit);
        assert_eq!(ended, [Action::Ended(Outcome::Committed)]);
    }
}

#[test]
fn a_refused_epoch_is_a_roll_back_or_the_end() {
    const FENCED: i16 = 90;
    let mut bench = in_transaction(Protocol::New);
    bench.send_first();
    let doomed = bench.answer(0, answer(47, -1));
    assert_eq!(doomed, [Action::Close(LinkId(0)), end(7, false, false)]);
    assert_eq!(bench.machine.unsettled(), 0);
    // The coordinator may only be behind with its markers, for a while.
    assert_eq!(bench.coordinator(FENCED, None), []);
    bench.now += 2_000;
    assert_eq!(bench.tell(Event::Tick), [end(7, false, false)]);
    let ended = bench.coordinator(FENCED, None);
    assert_eq!(failure(&ended).unwrap().kind, ErrorKind::Fenced);
}

#[test]
fn the_old_protocol_adds_a_partition_before_its_first_batch() {
    let mut bench = in_transaction(Protocol::Old);
    let sealed = bench.seal(0);
    let request = CoordinatorRequest::AddPartitions {
        identity: ours(7),
        slots: vec![Slot(0)],
    };
    let asked = Action::AskCoordinator {
        request,
        find: false,
    };
    assert!(sealed.contains(&asked), "{sealed:?}");
    bench.tell(Event::Metadata(vec![(Slot(0), led_by(1))]));
    assert_eq!(bench.tell(Event::Opened(LinkId(0))), []);
    assert_eq!(sends(&bench.coordinator(0, None)), [(0, 0, 0, 0)]);
}
