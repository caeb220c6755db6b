//! The producer's threads: the ONE place of this crate where threads that live are made.
//!
//! - *compressors*: take sealed batches in turn and hand them, compressed, to the driver;
//! - *driver*: owns the [`Machine`], tells it what happened and carries out what it asks for;
//! - *asker*: asks for metadata and producer ids, which may take a while;
//! - *coordinator*, of a transactional producer: asks the transaction coordinator;
//! - *links*: a few for each broker in use.
//!
//! Every queue between them is bounded. No cycle of full queues can form: links and asker send to the driver, and the driver never waits for
//! them, because the machine limits what is on a link and asks one question of a sort at a time.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_wire::{BatchBody, Compression};

use super::asker::{self, Question};
use super::compress::{self, Reorder, Sealed};
use super::coordinator::{self, Ask};
use super::link::{self, Dispatch, Order};
use super::machine::{
    Action, BatchId, CoordinatorRequest, Event, Failure, Identity, LinkId, MAX_PER_LINK, Machine,
    Outcome, Protocol, Rules, Slot,
};
use super::shared::{Settlement, Shared, Target, rolled_back};
use super::types::Transactional;
use crate::client::{Client, Patience};
use crate::error::{Error, ErrorKind};

/// Sealed batches that wait for each compressor.
const SEALED_QUEUE: usize = 2;

/// Signals that wait for the driver.
const SIGNAL_QUEUE: usize = 256;

/// How long the driver sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// The most request time-outs that one frame may take on a link to a broker that proved slow, and after how many answers it counts as quick
/// again. A whole batch over 64 kbit/s takes most of a minute; a broker that hangs must still be noticed.
const LONGEST_PATIENCE: u32 = 4;
const ANSWERS_UNTIL_QUICK: u32 = 100;

/// What reaches the driver.
#[derive(Debug)]
pub(super) enum Signal {
    /// The next slot's target.
    Target(Target),
    Sealed(Sealed),
    /// A transaction with this number begins.
    Begin(u64, Protocol),
    Event(Event),
    /// A link is open; its socket, so that the driver can cut it.
    Opened(LinkId, TcpStream),
    Lost(LinkId, Error),
    /// The appending thread is gone, and so are the compressors.
    Stop,
}

/// How the threads are set up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) codec: Compression,
    pub(super) compressors: usize,
    pub(super) links_per_node: usize,
    pub(super) transactional: Option<Transactional>,
}

/// The running threads, as the appending thread sees them.
#[derive(Debug)]
pub(super) struct Runner {
    signals: SyncSender<Signal>,
    queues: Vec<SyncSender<Sealed>>,
    compressors: Vec<JoinHandle<()>>,
    driver: Option<JoinHandle<()>>,
    next_batch: u64,
}

impl Runner {
    pub(super) fn start(
        client: &Client,
        setup: Setup,
        shared: &Arc<Shared>,
    ) -> Result<Self, Error> {
        let (signals, inbox) = sync_channel(SIGNAL_QUEUE);
        let (questions, asked) = sync_channel(2);
        let mut runner = Self {
            signals: signals.clone(),
            queues: Vec::new(),
            compressors: Vec::new(),
            driver: None,
            next_batch: 0,
        };
        let asker = {
            let (client, answers) = (client.clone(), signals.clone());
            let work = move || asker::run(&client, &asked, &answers);
            spawn("tidegate-metadata", shared, work)?
        };
        let mut ended = vec![asker];
        let rules = Rules::new(client.config().delivery_timeout, setup.links_per_node);
        let (machine, coordinator) = match &setup.transactional {
            None => (Machine::new(shared.identity(), rules), None),
            Some(transactional) => {
                let start_timeout = client.config().request_timeout * Patience::UNANSWERED;
                let (questions, asked) = sync_channel(1);
                let (client, answers) = (client.clone(), signals.clone());
                let (transactional, features) = (transactional.clone(), Arc::clone(shared));
                let work = move || {
                    coordinator::run(&client, &transactional, &asked, &answers, &features);
                };
                ended.push(spawn("tidegate-transaction", shared, work)?);
                (
                    Machine::transactional(rules, start_timeout),
                    Some(questions),
                )
            }
        };
        let driver = Driver {
            client: client.clone(),
            machine,
            started: Instant::now(),
            targets: Vec::new(),
            batches: HashMap::new(),
            reorder: Reorder::default(),
            links: HashMap::new(),
            slowness: HashMap::new(),
            ended,
            signals: signals.clone(),
            questions: Some(questions),
            coordinator,
            transactional_id: setup.transactional.map(|of| Arc::from(of.id.as_str())),
            transaction: 0,
            over: None,
            shared: Arc::clone(shared),
        };
        let work = move || driver.run(&inbox);
        runner.driver = Some(spawn("tidegate-producer", shared, work)?);
        for _ in 0..setup.compressors {
            let (sender, batches) = sync_channel(SEALED_QUEUE);
            let (signals, buffers) = (signals.clone(), Arc::clone(shared));
            let work = move || compress::run(setup.codec, &batches, &signals, &buffers);
            runner
                .compressors
                .push(spawn("tidegate-compress", shared, work)?);
            runner.queues.push(sender);
        }
        Ok(runner)
    }

    /// Tells the driver where the next slot's batches go. Returns whether it still listens.
    pub(super) fn add_target(&self, target: Target) -> bool {
        self.signals.send(Signal::Target(target)).is_ok()
    }

    /// Tells the driver that a transaction with this number begins. Returns whether it still listens.
    pub(super) fn begin(&self, number: u64, protocol: Protocol) -> bool {
        self.signals.send(Signal::Begin(number, protocol)).is_ok()
    }

    /// Tells the machine something. Returns whether anybody listens.
    pub(super) fn tell(&self, event: Event) -> bool {
        self.signals.send(Signal::Event(event)).is_ok()
    }

    /// Hands a batch on; its number is made here. Returns whether anybody took it.
    pub(super) fn submit(&mut self, make: impl FnOnce(BatchId) -> Sealed) -> bool {
        let number = self.next_batch;
        self.next_batch += 1;
        let turn = number % (self.queues.len() as u64).max(1);
        let queue = usize::try_from(turn)
            .ok()
            .and_then(|turn| self.queues.get(turn));
        queue.is_some_and(|queue| queue.send(make(BatchId(number))).is_ok())
    }

    /// Whether what was submitted can still be settled.
    pub(super) fn is_finished(&self) -> bool {
        self.driver.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Runner {
    /// Ends all threads and waits for them, one after the other along the way of a batch.
    fn drop(&mut self) {
        self.queues.clear();
        // A thread that panicked has said so on standard error; a driver that has ended needs no word.
        for thread in self.compressors.drain(..) {
            drop(thread.join());
        }
        drop(self.signals.send(Signal::Stop));
        if let Some(driver) = self.driver.take() {
            drop(driver.join());
        }
    }
}

/// If one of the threads panics, whoever waits for the producer is told.
struct Panicking(Arc<Shared>);

impl Drop for Panicking {
    fn drop(&mut self) {
        if thread::panicking() {
            let message = "a thread of the producer panicked";
            self.0.fail(Error::new(ErrorKind::Closed, message));
        }
    }
}

fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let panicking = Panicking(Arc::clone(shared));
    let guarded = move || {
        let _panicking = panicking;
        work();
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map_err(|error| Error::io("start a thread of the producer", error))
}

/// A batch between sealing and settlement.
#[derive(Debug)]
struct Waiting {
    body: Arc<BatchBody>,
    slot: Slot,
    charge: usize,
    first_tag: u64,
    last_tag: u64,
}

#[derive(Debug)]
struct LinkHandle {
    node: i32,
    queue: SyncSender<Dispatch>,
    socket: Option<TcpStream>,
    thread: JoinHandle<()>,
}

/// How slow the way to a broker proved to be.
#[derive(Clone, Copy, Debug)]
struct Slowness {
    timeouts: u32,
    answers: u32,
}

#[derive(Debug)]
struct Driver {
    client: Client,
    machine: Machine,
    started: Instant,
    targets: Vec<Target>,
    batches: HashMap<BatchId, Waiting>,
    reorder: Reorder,
    links: HashMap<LinkId, LinkHandle>,
    slowness: HashMap<i32, Slowness>,
    /// The asker, the coordinator's, and threads of dropped links; these end by themselves and are collected now and then.
    ended: Vec<JoinHandle<()>>,
    signals: SyncSender<Signal>,
    questions: Option<SyncSender<Question>>,
    coordinator: Option<SyncSender<Ask>>,
    transactional_id: Option<Arc<str>>,
    /// The number of the latest transaction.
    transaction: u64,
    /// Why it was rolled back, if it was.
    over: Option<String>,
    shared: Arc<Shared>,
}

impl Driver {
    fn run(mut self, inbox: &Receiver<Signal>) {
        let mut actions = Vec::new();
        // A transactional machine has something to ask before anything happens.
        self.tell(Event::Tick, &mut actions);
        loop {
            let now = self.started.elapsed();
            let wait = self
                .machine
                .wake_at()
                .map_or(IDLE, |at| at.saturating_sub(now));
            match inbox.recv_timeout(wait) {
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(signal) => self.take_in(signal, &mut actions),
                Err(RecvTimeoutError::Timeout) => self.tell(Event::Tick, &mut actions),
            }
        }
        self.end(inbox);
    }

    fn take_in(&mut self, signal: Signal, actions: &mut Vec<Action>) {
        match signal {
            Signal::Target(target) => {
                self.targets.push(target);
                self.machine.add_partition();
            }
            Signal::Sealed(sealed) => {
                self.reorder.push(sealed);
                while let Some(sealed) = self.reorder.pop() {
                    self.sealed(sealed, actions);
                }
            }
            Signal::Begin(number, protocol) => {
                self.transaction = number;
                self.over = None;
                self.tell(Event::Begin(protocol), actions);
            }
            Signal::Event(event) => {
                match &event {
                    Event::Answered { link, .. } => self.note_answer(*link),
                    Event::Renewed(identity) => self.shared.renew(*identity),
                    _ => {}
                }
                self.tell(event, actions);
            }
            Signal::Opened(link, socket) => self.opened(link, socket, actions),
            Signal::Lost(link, error) => self.lost(link, &error, actions),
            Signal::Stop => {} // ends the loop that called this
        }
    }

    fn tell(&mut self, event: Event, actions: &mut Vec<Action>) {
        self.machine.handle(self.started.elapsed(), event, actions);
        for action in actions.drain(..) {
            self.carry_out(action);
        }
    }

    /// A link that was dropped while it was being opened is cut here: nobody else can.
    fn opened(&mut self, link: LinkId, socket: TcpStream, actions: &mut Vec<Action>) {
        match self.links.get_mut(&link) {
            Some(handle) => {
                handle.socket = Some(socket);
                self.tell(Event::Opened(link), actions);
            }
            None => link::cut(&socket),
        }
    }

    fn lost(&mut self, link: LinkId, error: &Error, actions: &mut Vec<Action>) {
        let Some(handle) = self.links.remove(&link) else {
            return;
        };
        // A connection that never came about says nothing about how slow the way is.
        if error.kind() == ErrorKind::Timeout && handle.socket.is_some() {
            let slowness = self.slowness.entry(handle.node);
            let slowness = slowness.or_insert(Slowness {
                timeouts: 0,
                answers: 0,
            });
            slowness.timeouts = slowness.timeouts.saturating_add(1);
            slowness.answers = 0;
        }
        self.ended.push(handle.thread);
        let (kind, why) = (error.kind(), error.to_string());
        let event = match kind {
            ErrorKind::Tls
            | ErrorKind::Authentication
            | ErrorKind::Authorization
            | ErrorKind::TooLarge => Event::Refused { kind, why },
            _ => Event::Lost { link, why },
        };
        self.tell(event, actions);
    }

    fn note_answer(&mut self, link: LinkId) {
        let Some(handle) = self.links.get(&link) else {
            return;
        };
        if let Some(slowness) = self.slowness.get_mut(&handle.node) {
            slowness.answers += 1;
            if slowness.answers >= ANSWERS_UNTIL_QUICK {
                self.slowness.remove(&handle.node);
            }
        }
    }

    fn sealed(&mut self, sealed: Sealed, actions: &mut Vec<Action>) {
        let (slot, batch) = (sealed.slot, sealed.batch);
        let records = sealed.body.record_count;
        // Of an attempt that was rolled back while this was still being compressed.
        let late = sealed.transaction != self.transaction || self.over.is_some();
        let waiting = Waiting {
            body: Arc::new(sealed.body),
            slot,
            charge: sealed.charge,
            first_tag: sealed.first_tag,
            last_tag: sealed.last_tag,
        };
        self.batches.insert(batch, waiting);
        if late {
            let why = self.over.as_deref().unwrap_or("another one has begun");
            return self.settle(batch, None, Err(rolled_back(why)));
        }
        match self.shared.failure() {
            Some(error) => self.settle(batch, None, Err(error)),
            None => self.tell(
                Event::Sealed {
                    slot,
                    batch,
                    records,
                },
                actions,
            ),
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Open { link, node } => self.open(link, node),
            Action::Close(link) => self.close(link),
            Action::Send {
                link,
                slot,
                batch,
                identity,
                sequence,
                transaction,
            } => {
                let stamp = (identity, sequence, transaction);
                self.send(link, slot, batch, stamp);
            }
            Action::RefreshMetadata(slots) => {
                let target = |slot: Slot| (slot, self.targets[slot.0 as usize].clone());
                self.ask(Question::Leaders(slots.into_iter().map(target).collect()));
            }
            Action::RenewIdentity => self.ask(Question::Identity),
            Action::AskCoordinator { request, find } => self.ask_coordinator(request, find),
            Action::Ready => {
                self.shared.renew(self.machine.identity());
                self.shared.make_ready();
            }
            Action::Ended(outcome) => self.end_transaction(outcome),
            Action::Settle {
                batch, base_offset, ..
            } => self.settle(batch, base_offset, Ok(())),
            Action::Fail(failure) => self.fail(&failure),
        }
    }

    /// What was not settled is rolled back with the rest.
    fn end_transaction(&mut self, outcome: Outcome) {
        self.shared.renew(self.machine.identity());
        if let Outcome::RolledBack { why } = &outcome {
            self.over = Some(why.clone());
            self.settle_all(&rolled_back(why));
        }
        self.shared.end(outcome);
    }

    fn ask_coordinator(&self, request: CoordinatorRequest, find: bool) {
        let slots = match &request {
            CoordinatorRequest::AddPartitions { slots, .. } => slots.as_slice(),
            _ => &[],
        };
        let targets = slots
            .iter()
            .map(|slot| self.targets[slot.0 as usize].clone())
            .collect();
        if let Some(coordinator) = &self.coordinator {
            // The machine has one question open at a time, so there is room.
            drop(coordinator.try_send(Ask {
                request,
                find,
                targets,
            }));
        }
    }

    fn send(
        &self,
        link: LinkId,
        slot: Slot,
        batch: BatchId,
        (identity, sequence, transaction): (Identity, i32, Option<Protocol>),
    ) {
        let (Some(handle), Some(waiting)) = (self.links.get(&link), self.batches.get(&batch))
        else {
            return;
        };
        let dispatch = Dispatch {
            target: self.targets[slot.0 as usize].clone(),
            body: Arc::clone(&waiting.body),
            identity,
            sequence,
            transaction,
        };
        // There is room, and a link whose thread has ended has said or will say that it is lost.
        drop(handle.queue.try_send(dispatch));
    }

    fn ask(&self, question: Question) {
        if let Some(questions) = &self.questions {
            // The machine has one question of each sort open at a time, so there is room.
            drop(questions.try_send(question));
        }
    }

    fn open(&mut self, link: LinkId, node: i32) {
        self.ended.retain(|thread| !thread.is_finished());
        let timeouts = self
            .slowness
            .get(&node)
            .map_or(0, |slowness| slowness.timeouts);
        let patience = 1 << timeouts.min(LONGEST_PATIENCE.ilog2());
        let order = Order {
            link,
            node,
            patience,
            transactional_id: self.transactional_id.clone(),
        };
        let (queue, dispatches) = sync_channel(MAX_PER_LINK);
        let (client, signals) = (self.client.clone(), self.signals.clone());
        let shared = Arc::clone(&self.shared);
        let work = move || link::run(&client, order, &dispatches, &signals, &shared);
        match spawn("tidegate-link", &self.shared, work) {
            Ok(thread) => {
                let socket = None;
                self.links.insert(
                    link,
                    LinkHandle {
                        node,
                        queue,
                        socket,
                        thread,
                    },
                );
            }
            Err(error) => self.fail(&Failure {
                kind: error.kind(),
                code: None,
                slot: None,
                batch: None,
                why: error.to_string(),
            }),
        }
    }

    fn close(&mut self, link: LinkId) {
        if let Some(handle) = self.links.remove(&link) {
            if let Some(socket) = &handle.socket {
                link::cut(socket);
            }
            self.ended.push(handle.thread);
        }
    }

    fn settle(&mut self, batch: BatchId, base_offset: Option<i64>, result: Result<(), Error>) {
        let Some(waiting) = self.batches.remove(&batch) else {
            return;
        };
        let records = waiting.body.record_count;
        // The link is done with it, so its buffer is free.
        if let Ok(body) = Arc::try_unwrap(waiting.body) {
            if body.compression == Compression::None {
                self.shared.give_buffer(body.records);
            } else {
                self.shared.give_packed(body.records);
            }
        }
        self.shared.settle(Settlement {
            slot: waiting.slot,
            records,
            charge: waiting.charge,
            producer_id: self.machine.identity().producer_id,
            base_offset,
            first_tag: waiting.first_tag,
            last_tag: waiting.last_tag,
            result,
        });
    }

    fn fail(&mut self, failure: &Failure) {
        let message = format!("{}{}", self.place(failure), failure.why);
        let error = Error::failure(failure.kind, failure.code, message);
        self.shared.fail(error.repeat());
        self.settle_all(&error);
    }

    /// Settles every batch with a failure, in the order of sealing.
    fn settle_all(&mut self, error: &Error) {
        let mut unsettled: Vec<BatchId> = self.batches.keys().copied().collect();
        unsettled.sort_unstable();
        for batch in unsettled {
            self.settle(batch, None, Err(error.repeat()));
        }
    }

    /// Where a failure is, as far as is known: `topic usage, partition 3, rows 101 to 250: `.
    fn place(&self, failure: &Failure) -> String {
        let Some(slot) = failure.slot else {
            // What the coordinator refuses is about the id.
            return match (&self.transactional_id, failure.code) {
                (Some(id), Some(_)) => format!("transactional id {id}: "),
                _ => String::new(),
            };
        };
        let target = &self.targets[slot.0 as usize];
        let mut place = format!("topic {}, partition {}", target.topic, target.partition);
        if let Some(waiting) = failure.batch.and_then(|batch| self.batches.get(&batch)) {
            let rows = format!(", rows {} to {}", waiting.first_tag, waiting.last_tag);
            place.push_str(&rows);
        }
        place.push_str(": ");
        place
    }

    /// Cuts all links and waits for every thread; their last signals are taken in so that none waits for room.
    fn end(mut self, inbox: &Receiver<Signal>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link);
        }
        self.questions = None;
        self.coordinator = None;
        for thread in std::mem::take(&mut self.ended) {
            while !thread.is_finished() {
                if let Ok(Signal::Opened(_, socket)) = inbox.recv_timeout(Duration::from_millis(20))
                {
                    link::cut(&socket);
                }
            }
            drop(thread.join());
        }
        // Only now, so that nobody waits for the outcome of what was never sent.
        let closed = "the producer was closed before this was delivered";
        self.settle_all(&Error::new(ErrorKind::Closed, closed));
    }
}
