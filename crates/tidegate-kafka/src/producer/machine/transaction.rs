//! Transactions: when they begin, when they may end, and what becomes of them when anything goes wrong.
//!
//! ```text
//!             InitProducerId        Begin           Commit          all acknowledged      answered
//!   Starting ----------------> Idle ------> Open ----------> Committing ------------> Ending --------> Idle
//!                               ^            |                   |                      |
//!                               |            '------ anything that dooms it ------------'
//!                               |                                v
//!                               '--- Renewing <------------- Aborting
//! ```
//!
//! The rules, each marked with its name where it is kept:
//! - **all acknowledged**: EndTxn only when nothing is in flight. Between EndTxn and the marker a partition leader still takes a batch of
//!   the old epoch, which would then count for the wrong transaction. And none at all if nothing was written: the coordinator, which knows
//!   of no transaction, would refuse it.
//! - **resolved**: until EndTxn has an answer it is asked again word for word, and nothing is sent. Only a plain success is a commit.
//! - **rolled back**: whatever dooms a transaction, the way out is one: drop every link, forget every batch, EndTxn(abort), and leave it to
//!   the caller to read its position back and go on from there.
//! - **next epoch**: nothing of one transaction may reach into the next. Under the new protocol every EndTxn ends the epoch (KIP-890). Under
//!   the old one we do that ourselves (InitProducerId with our own identity, KIP-360) after a roll-back, and when a request was lost: a copy
//!   of it may still come, and a late EndTxn would end whatever is open by then. In a new epoch every sequence starts from 0.
//! - **one owner**: who is told that its epoch is not the current one asks EndTxn(abort), which checks the epoch and disturbs nobody. If
//!   that is refused too, another instance owns the id, and we stop. InitProducerId would take it back, and be taken back in turn, for ever;
//!   even with an identity it would end the other's open transaction, for the coordinator compares epochs only where none is open.
//!
//! Before `transaction.version` 2 a transaction that the coordinator ended for taking too long looks the same as one of an instance that was
//! replaced, so there it stops the producer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{CoordinatorAnswer, CoordinatorRequest, Outcome, Protocol};
use super::{
    Action, BrokenRule, ErrorKind, FIRST_BACK_OFF, Identity, LONGEST_BACK_OFF, LinkId,
    MARKER_BACK_OFF, Machine, Route, Rules, Slot, Time,
};
use crate::retry::{self, CoordinatorVerdict};

/// How long a refused EndTxn(abort) may be due to the markers of the transaction before.
const SETTLING: Duration = Duration::from_secs(2);

/// The last epoch of all is there to fence a producer with: no transaction can be ended under it, so who is told of it asks for a new id.
const FENCING_EPOCH: i16 = i16::MAX;

/// There is no such transaction, or it ended the other way.
const INVALID_TXN_STATE: i16 = 48;

/// The last transaction is still being completed.
const CONCURRENT_TRANSACTIONS: i16 = 51;

/// The coordinator knows another producer id.
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;

/// Who we are before the coordinator has said so.
const NOBODY: Identity = Identity {
    producer_id: -1,
    epoch: -1,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The transactional id has to be taken over.
    Starting,
    /// No transaction is open.
    Idle,
    /// Batches may be sealed and sent.
    Open,
    /// No more will be sealed; those that were have to be acknowledged.
    Committing,
    /// EndTxn(commit) is asked for.
    Ending,
    /// EndTxn(abort) is asked for, because of this.
    Aborting { why: String },
    /// The transaction has ended like this, but its epoch must not be used any more.
    Renewing(Outcome),
}

/// The one question to the coordinator that has no answer yet.
#[derive(Debug)]
struct Question {
    request: CoordinatorRequest,
    /// Whether it is on its way; else it is to be asked from `not_before` on.
    asked: bool,
    not_before: Time,
    since: Time,
    deadline: Time,
    /// Whether the coordinator has to be looked up first.
    find: bool,
    tries: u32,
    /// The answer does not matter any more.
    void: bool,
}

/// What a transactional producer knows beside its windows.
#[derive(Debug)]
pub(super) struct Transactions {
    phase: Phase,
    protocol: Protocol,
    /// Old protocol: partitions that the coordinator knows to be part of the transaction, and those that it has to be told of.
    added: BTreeSet<Slot>,
    wanted: BTreeSet<Slot>,
    /// Whether the cluster may know of this transaction.
    touched: bool,
    /// Whether a request of this epoch was lost and may still arrive.
    in_doubt: bool,
    /// Whether markers of the last transaction may still be on their way, and whether that was one of this very epoch.
    trails_markers: bool,
    trails_own_epoch: bool,
    /// Whether this transaction has to wait for another epoch for that reason.
    awaits_epoch: bool,
    question: Option<Question>,
    /// How long taking over may last.
    start_timeout: Time,
    last_trouble: String,
}

impl Transactions {
    /// Whether batches are taken.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Committing)
    }

    /// Whether a batch that was not sent yet may go to this partition.
    pub(super) fn may_start(&self, slot: Slot) -> bool {
        self.is_open()
            && !self.awaits_epoch
            && (self.protocol == Protocol::New || self.added.contains(&slot))
    }

    /// A batch of the partition is sealed: under the old protocol the coordinator has to know before it is sent.
    pub(super) fn sealed(&mut self, slot: Slot) {
        if self.protocol == Protocol::Old && !self.added.contains(&slot) {
            self.wanted.insert(slot);
        }
    }

    /// A batch goes out.
    pub(super) fn sent(&mut self) -> Protocol {
        self.touched = true;
        self.protocol
    }

    /// When something is due, though no answer comes.
    pub(super) fn wake_at(&self) -> Option<Time> {
        let question = self
            .question
            .as_ref()
            .filter(|question| !question.asked && !question.void)?;
        Some(question.not_before.min(question.deadline))
    }

    fn ask(&mut self, now: Time, timeout: Time, request: CoordinatorRequest) {
        // An answer that is still on its way is waited for: the coordinator answers one after the other.
        self.question = Some(Question {
            request,
            asked: false,
            not_before: now,
            since: now,
            deadline: now + timeout,
            find: false,
            tries: 0,
            void: false,
        });
    }

    /// What has to be asked next, if nothing is being asked.
    fn next_request(
        &mut self,
        identity: Identity,
        all_acknowledged: bool,
    ) -> Option<CoordinatorRequest> {
        match &self.phase {
            Phase::Starting => Some(CoordinatorRequest::InitProducerId(None)),
            Phase::Open | Phase::Committing if self.awaits_epoch => {
                Some(CoordinatorRequest::InitProducerId(Some(identity)))
            }
            Phase::Open | Phase::Committing if !self.wanted.is_empty() => {
                self.touched = true;
                Some(CoordinatorRequest::AddPartitions {
                    identity,
                    slots: self.wanted.iter().copied().collect(),
                })
            }
            Phase::Committing if all_acknowledged => {
                self.phase = Phase::Ending;
                Some(self.end(identity, true))
            }
            Phase::Aborting { .. } => Some(self.end(identity, false)),
            Phase::Renewing(_) => Some(CoordinatorRequest::InitProducerId(Some(identity))),
            Phase::Idle | Phase::Open | Phase::Committing | Phase::Ending => None,
        }
    }

    fn end(&self, identity: Identity, commit: bool) -> CoordinatorRequest {
        CoordinatorRequest::EndTxn {
            identity,
            commit,
            protocol: self.protocol,
        }
    }
}

impl Machine {
    /// A machine without partitions that first takes its transactional id over, within `start_timeout`, and then does nothing outside of
    /// transactions.
    pub fn transactional(rules: Rules, start_timeout: Time) -> Self {
        let mut machine = Self::new(NOBODY, rules);
        machine.transactions = Some(Transactions {
            phase: Phase::Starting,
            protocol: Protocol::Old,
            added: BTreeSet::new(),
            wanted: BTreeSet::new(),
            touched: false,
            in_doubt: false,
            trails_markers: false,
            trails_own_epoch: false,
            awaits_epoch: false,
            question: None,
            start_timeout,
            last_trouble: String::new(),
        });
        machine
    }

    pub(super) fn begin(&mut self, protocol: Protocol) {
        if let Some(transactions) = &mut self.transactions
            && transactions.phase == Phase::Idle
        {
            transactions.phase = Phase::Open;
            transactions.protocol = protocol;
            transactions.touched = false;
            // next epoch: AddPartitionsToTxn waits for the markers of the last transaction. Under the new protocol nothing does: a leader that
            // has not seen its marker yet would take the first batch of the same epoch for one more of the last transaction.
            transactions.awaits_epoch = protocol == Protocol::New
                && transactions.trails_own_epoch
                && !self.rules.break_rule(BrokenRule::SameEpochAtChange);
        }
    }

    /// A transaction that was rolled back meanwhile has ended already, and stays so.
    pub(super) fn commit(&mut self) {
        if let Some(transactions) = &mut self.transactions
            && transactions.phase == Phase::Open
        {
            transactions.phase = Phase::Committing;
        }
    }

    pub(super) fn abort(&mut self, now: Time, actions: &mut Vec<Action>) {
        let is_open = |transactions: &Transactions| transactions.phase == Phase::Open;
        if self.transactions.as_ref().is_some_and(is_open) {
            self.roll_back(now, "as was asked for".to_owned(), actions);
        }
    }

    /// Asks the coordinator what has to be asked, again if need be.
    pub(super) fn advance_transaction(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        // all acknowledged
        let all = self.unsettled == 0 || self.rules.break_rule(BrokenRule::EndBeforeAcks);
        if transactions.question.is_none() {
            let untouched = transactions.phase == Phase::Committing && !transactions.touched;
            if untouched && self.unsettled == 0 {
                return self.end_with(Outcome::Committed, actions);
            }
            if let Some(request) = transactions.next_request(self.identity, all) {
                let timeout = match transactions.phase {
                    Phase::Starting => transactions.start_timeout,
                    _ => self.rules.delivery_timeout,
                };
                transactions.ask(now, timeout, request);
            }
        }
        let Some(question) = &mut transactions.question else {
            return;
        };
        if question.asked {
            return;
        }
        if now >= question.deadline {
            // resolved: whether the transaction is committed is in the log, for whoever takes over next to read.
            let why = format!("{}: not in time", describe(&question.request));
            let why = match transactions.last_trouble.as_str() {
                "" => why,
                trouble => format!("{why}; last trouble: {trouble}"),
            };
            return self.fail(ErrorKind::Timeout, None, None, why, actions);
        }
        if now >= question.not_before {
            question.asked = true;
            question.tries += 1;
            let request = question.request.clone();
            let find = question.find;
            let ends = matches!(request, CoordinatorRequest::EndTxn { commit: true, .. });
            actions.push(Action::AskCoordinator { request, find });
            if ends && self.rules.break_rule(BrokenRule::ProduceWhileEnding) {
                self.end_with(Outcome::Committed, actions);
            }
        }
    }

    pub(super) fn coordinator_answered(
        &mut self,
        now: Time,
        answer: CoordinatorAnswer,
        actions: &mut Vec<Action>,
    ) {
        let Some(question) = self.take_answered() else {
            return;
        };
        let why = describe_code(describe(&question.request), answer.code);
        let mut verdict = retry::coordinator(answer.code);
        if answer.code == INVALID_TXN_STATE && self.rules.break_rule(BrokenRule::InvalidIsCommitted)
        {
            verdict = CoordinatorVerdict::Done;
        }
        if verdict == CoordinatorVerdict::Again || self.may_settle(now, &question, answer.code) {
            let find = retry::coordinator_moved(answer.code);
            let first_pause = match answer.code {
                CONCURRENT_TRANSACTIONS => MARKER_BACK_OFF,
                _ => FIRST_BACK_OFF,
            };
            return self.ask_again(now, question, (find, first_pause), why);
        }
        match (question.request, verdict) {
            (_, CoordinatorVerdict::Stop) => self.refused(&answer, why, actions),
            (CoordinatorRequest::InitProducerId(_), CoordinatorVerdict::Done) => {
                self.initialised(answer.identity, actions);
            }
            (CoordinatorRequest::InitProducerId(_), _) => self.replaced(&answer, why, actions),
            (CoordinatorRequest::AddPartitions { slots, .. }, CoordinatorVerdict::Done) => {
                self.added(slots);
            }
            (CoordinatorRequest::EndTxn { commit, .. }, CoordinatorVerdict::Done) => {
                self.ended(commit, answer.identity, actions);
            }
            (CoordinatorRequest::EndTxn { commit: false, .. }, CoordinatorVerdict::Fenced) => {
                self.replaced(&answer, why, actions);
            }
            // Nothing is open, or it is not known under our producer id: the next epoch makes sure of both.
            (CoordinatorRequest::EndTxn { commit: false, .. }, _) => self.renew_aborted(),
            (
                CoordinatorRequest::AddPartitions { .. }
                | CoordinatorRequest::EndTxn { commit: true, .. },
                _,
            ) => self.roll_back(now, why, actions),
        }
    }

    /// Until the markers of the last transaction are written, the coordinator takes an abort of the next one for one of another instance: of
    /// two epochs, or producer ids, it then only knows the older (`TransactionCoordinator.endTransaction`, KIP-890). So that answer has to stay
    /// the same for a while.
    fn may_settle(&self, now: Time, question: &Question, code: i16) -> bool {
        let aborts = CoordinatorRequest::EndTxn {
            identity: self.identity,
            commit: false,
            protocol: Protocol::New,
        };
        let is_other = code == INVALID_PRODUCER_ID_MAPPING
            || retry::coordinator(code) == CoordinatorVerdict::Fenced;
        is_other && question.request == aborts && now < question.since + SETTLING
    }

    /// The question that was answered, unless the answer does not matter any more.
    fn take_answered(&mut self) -> Option<Question> {
        let transactions = self.transactions.as_mut()?;
        let asked = |question: &mut Question| question.asked;
        let question = transactions.question.take_if(asked)?;
        (!question.void).then_some(question)
    }

    /// resolved: the question is asked again as it was; a coordinator that did not answer may not be it any more.
    pub(super) fn coordinator_lost(&mut self, now: Time, why: String, actions: &mut Vec<Action>) {
        if let Some(transactions) = &mut self.transactions {
            transactions.in_doubt = true;
        }
        let Some(question) = self.take_answered() else {
            return;
        };
        let commits = matches!(
            question.request,
            CoordinatorRequest::EndTxn { commit: true, .. }
        );
        if commits && self.rules.break_rule(BrokenRule::AssumeCommitted) {
            return self.end_with(Outcome::Committed, actions);
        }
        self.ask_again(now, question, (true, FIRST_BACK_OFF), why);
    }

    fn ask_again(
        &mut self,
        now: Time,
        mut question: Question,
        (find, first_pause): (bool, Duration),
        why: String,
    ) {
        if let Some(transactions) = &mut self.transactions {
            let pause = first_pause * (1 << question.tries.saturating_sub(1).min(6));
            question.asked = false;
            question.not_before = now + pause.min(LONGEST_BACK_OFF);
            question.find = find;
            transactions.question = Some(question);
            transactions.last_trouble = why;
        }
    }

    /// The id is ours, and its last transaction has ended and left its markers.
    fn initialised(&mut self, identity: Option<Identity>, actions: &mut Vec<Action>) {
        self.take_identity(identity);
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        if identity.is_some_and(|identity| identity.epoch == FENCING_EPOCH) {
            return; // and asks for the one after that
        }
        // It would have been told to wait.
        transactions.trails_markers = false;
        if transactions.is_open() {
            transactions.awaits_epoch = false;
            for slot in (0u32..).map(Slot).take(self.partitions.len()) {
                self.queue_for_sending(slot);
            }
            return;
        }
        match std::mem::replace(&mut transactions.phase, Phase::Idle) {
            Phase::Renewing(outcome) => {
                transactions.touched = false;
                self.end_with(outcome, actions);
            }
            _ => actions.push(Action::Ready),
        }
    }

    /// Old protocol: batches to these partitions may go out now.
    fn added(&mut self, slots: Vec<Slot>) {
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        for slot in &slots {
            transactions.wanted.remove(slot);
            transactions.added.insert(*slot);
        }
        for slot in slots {
            self.queue_for_sending(slot);
        }
    }

    /// EndTxn is answered with success.
    fn ended(&mut self, commit: bool, identity: Option<Identity>, actions: &mut Vec<Action>) {
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        if commit && self.rules.break_rule(BrokenRule::ProduceWhileEnding) {
            return self.take_identity(identity); // it was told already
        }
        let outcome = match &transactions.phase {
            Phase::Aborting { why } => Outcome::RolledBack { why: why.clone() },
            _ => Outcome::Committed,
        };
        let is_new = transactions.protocol == Protocol::New;
        // next epoch
        if let Some(next) = identity.filter(|_| is_new) {
            // Its transaction took too long, in the last epoch but one.
            if next.epoch == FENCING_EPOCH {
                transactions.phase = Phase::Renewing(outcome);
            } else {
                self.end_with(outcome, actions);
            }
            return self.take_identity(identity);
        }
        let keeps_epoch = if commit {
            !transactions.in_doubt || self.rules.break_rule(BrokenRule::SameEpochAfterResend)
        } else {
            self.rules.break_rule(BrokenRule::SameEpochAfterAbort)
        };
        if keeps_epoch && !is_new {
            transactions.trails_own_epoch = true;
            return self.end_with(outcome, actions);
        }
        transactions.phase = Phase::Renewing(outcome);
    }

    fn renew_aborted(&mut self) {
        if let Some(transactions) = &mut self.transactions
            && let Phase::Aborting { why } = &transactions.phase
        {
            let outcome = Outcome::RolledBack { why: why.clone() };
            transactions.phase = Phase::Renewing(outcome);
        }
    }

    /// next epoch: windows are empty, and every partition counts from the start again.
    fn take_identity(&mut self, identity: Option<Identity>) {
        let (Some(transactions), Some(identity)) = (&mut self.transactions, identity) else {
            return;
        };
        // What is lost of an epoch is refused from the next one on.
        transactions.in_doubt = false;
        transactions.trails_own_epoch = false;
        self.identity = identity;
        if self.rules.break_rule(BrokenRule::KeepSequences) {
            return;
        }
        for partition in &mut self.partitions {
            partition.window.restart(self.rules.first_sequence);
        }
    }

    fn end_with(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        if let Some(transactions) = &mut self.transactions {
            transactions.phase = Phase::Idle;
            transactions.trails_markers |= transactions.touched;
            transactions.added.clear();
            transactions.wanted.clear();
            actions.push(Action::Ended(outcome));
        }
    }

    /// rolled back: nothing more of this transaction is sent, and it is aborted. What is on its way already finds the epoch gone.
    pub(super) fn roll_back(&mut self, now: Time, why: String, actions: &mut Vec<Action>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.drop_link(now, link, why.clone(), actions);
        }
        for partition in &mut self.partitions {
            partition.window.clear();
            // No leader is to blame, so none has to be spared: with pauses that grew from roll-back to roll-back, transactions could end
            // up taking too long each time.
            partition.repairs = 0;
            if let Route::Unknown(at) = &mut partition.route {
                *at = now;
            }
        }
        self.lookups.clear();
        self.unsettled = 0;
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        transactions.wanted.clear();
        // A question that is on its way keeps its place until it is answered.
        // Which epoch is ours has to be known in any case.
        let renews =
            |question: &Question| matches!(question.request, CoordinatorRequest::InitProducerId(_));
        let renews = transactions.question.as_ref().is_some_and(renews);
        if !renews {
            transactions.question.take_if(|question| !question.asked);
        }
        if let Some(question) = &mut transactions.question {
            question.void = !renews;
        }
        // Nobody has to be told of a transaction that nobody knows; but until the markers of the last one are written, a reader of the log takes
        // that for undecided, and so would the caller, who reads its position now.
        if renews || (!transactions.touched && transactions.trails_markers) {
            transactions.phase = Phase::Renewing(Outcome::RolledBack { why });
        } else if transactions.touched {
            transactions.phase = Phase::Aborting { why };
        } else {
            self.end_with(Outcome::RolledBack { why }, actions);
        }
    }

    fn refused(&mut self, answer: &CoordinatorAnswer, why: String, actions: &mut Vec<Action>) {
        let kind = retry::kind_of(answer.code);
        self.fail(kind, Some(answer.code), None, why, actions);
    }

    /// one owner: the id is in other hands.
    fn replaced(&mut self, answer: &CoordinatorAnswer, why: String, actions: &mut Vec<Action>) {
        if self.rules.break_rule(BrokenRule::FightForOwnership)
            && let Some(transactions) = &mut self.transactions
        {
            transactions.phase = Phase::Starting;
            return;
        }
        let why = format!(
            "{why}: another instance took the transactional id over, or the transaction took longer than its time-out"
        );
        self.fail(ErrorKind::Fenced, Some(answer.code), None, why, actions);
    }
}

fn describe(request: &CoordinatorRequest) -> &'static str {
    match request {
        CoordinatorRequest::InitProducerId(_) => "take over the transactional id",
        CoordinatorRequest::AddPartitions { .. } => "add partitions to the transaction",
        CoordinatorRequest::EndTxn { commit: true, .. } => "commit the transaction",
        CoordinatorRequest::EndTxn { commit: false, .. } => "abort the transaction",
    }
}

fn describe_code(what: &str, code: i16) -> String {
    format!("{what}: {}", retry::describe(code))
}
