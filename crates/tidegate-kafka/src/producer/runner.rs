//! The producer's threads: the ONE place of this crate where threads are made.
//!
//! - *compressor*: takes sealed batches in order and hands them, compressed, to the driver;
//! - *driver*: owns the [`Machine`], tells it what happened and carries out what it asks for;
//! - *asker*: asks for metadata and producer ids, which may take a while;
//! - one *link* for each broker in use.
//!
//! Every queue between them is bounded. No cycle of full queues can form: links and asker send to the driver, and the driver never waits for
//! them, because the machine limits what is on a link and asks one question at a time.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_wire::{BatchBody, Compression, Compressor};

use super::link::{self, Dispatch};
use super::machine::{
    Action, BatchId, Event, Failure, Identity, Leader, LinkId, Machine, Rules, Slot,
};
use super::shared::{Settlement, Shared, Target};
use crate::client::Client;
use crate::error::{Error, ErrorKind};

/// Sealed batches that wait for the compressor.
pub(super) const SEALED_QUEUE: usize = 4;

/// Signals that wait for the driver.
const SIGNAL_QUEUE: usize = 256;

/// More than the machine ever puts on one link.
const LINK_QUEUE: usize = 64;

/// How long the driver sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What the appending thread hands over.
#[derive(Debug)]
pub(super) enum Job {
    Add(Target),
    Sealed(Sealed),
}

/// A batch that takes no more records.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) slot: Slot,
    pub(super) batch: BatchId,
    pub(super) body: BatchBody,
    /// Uncompressed.
    pub(super) bytes: usize,
    pub(super) first_tag: u64,
    pub(super) last_tag: u64,
}

/// What reaches the driver.
#[derive(Debug)]
pub(super) enum Signal {
    Job(Job),
    Event(Event),
    /// A link is open; its socket, so that the driver can cut it.
    Opened(LinkId, TcpStream),
    /// The appending thread is gone.
    Stop,
}

#[derive(Debug)]
enum Question {
    Leaders(Vec<(Slot, Target)>),
    Identity,
}

/// The running threads.
#[derive(Debug)]
pub(super) struct Runner {
    driver: Option<JoinHandle<()>>,
    compressor: Option<JoinHandle<()>>,
}

impl Runner {
    pub(super) fn start(
        client: &Client,
        codec: Compression,
        identity: Identity,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
    ) -> Result<Self, Error> {
        let (signals, inbox) = sync_channel(SIGNAL_QUEUE);
        let (questions, asked) = sync_channel(2);
        let asker = {
            let (client, answers) = (client.clone(), signals.clone());
            spawn("tidegate-metadata", move || ask(&client, &asked, &answers))?
        };
        let rules = Rules {
            delivery_timeout: client.config().delivery_timeout,
            broken: None,
        };
        let driver = Driver {
            client: client.clone(),
            machine: Machine::new(identity, rules),
            started: Instant::now(),
            targets: Vec::new(),
            batches: HashMap::new(),
            links: HashMap::new(),
            ended: Vec::new(),
            signals: signals.clone(),
            questions,
            asker,
            shared: Arc::clone(&shared),
        };
        let driver = spawn("tidegate-producer", move || driver.run(&inbox))?;
        let compressor = spawn("tidegate-compress", move || {
            compress(codec, &jobs, &signals, &shared);
        })?;
        Ok(Self {
            driver: Some(driver),
            compressor: Some(compressor),
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.driver.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for all threads; the job queue must be closed.
    pub(super) fn stop(&mut self) {
        for handle in [self.compressor.take(), self.driver.take()]
            .into_iter()
            .flatten()
        {
            // A thread that panicked has said so on standard error.
            drop(handle.join());
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| {
            Error::new(
                ErrorKind::Configuration,
                format!("start the thread {name}: {error}"),
            )
            .with_source(error)
        })
}

/// The compressor's thread. There is one, so batches of a partition stay in order.
fn compress(
    codec: Compression,
    jobs: &Receiver<Job>,
    driver: &SyncSender<Signal>,
    shared: &Shared,
) {
    let mut compressor = Compressor::new();
    for mut job in jobs {
        if let Job::Sealed(sealed) = &mut job {
            // The smallest kept buffer would do; any of them is large enough after the first rounds.
            let spare = Vec::with_capacity(sealed.body.records.len() / 2);
            shared.give_buffer(sealed.body.compress(&mut compressor, codec, spare));
        }
        if driver.send(Signal::Job(job)).is_err() {
            return;
        }
    }
    drop(driver.send(Signal::Stop));
}

/// The asker's thread.
fn ask(client: &Client, questions: &Receiver<Question>, driver: &SyncSender<Signal>) {
    for question in questions {
        let event = match question {
            Question::Leaders(slots) => leaders(client, &slots),
            Question::Identity => match super::init_producer_id(client) {
                Ok(identity) => Event::Renewed(identity),
                Err(error) => Event::RenewalFailed(error.to_string()),
            },
        };
        if driver.send(Signal::Event(event)).is_err() {
            return;
        }
    }
}

fn leaders(client: &Client, slots: &[(Slot, Target)]) -> Event {
    let mut topics: Vec<&str> = slots.iter().map(|(_, target)| &*target.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let view = match client.refresh(&topics) {
        Ok(view) => view,
        Err(error) => return Event::MetadataFailed(error.to_string()),
    };
    let leader_of = |target: &Target| {
        let Some(topic) = view.topics.get(&*target.topic) else {
            return Leader::Missing;
        };
        match topic.error_code {
            0 if topic.id != target.topic_id => Leader::Recreated,
            0 => match topic.partition(target.partition) {
                None => Leader::Missing,
                Some(partition) if view.brokers.contains_key(&partition.leader) => {
                    Leader::Node(partition.leader)
                }
                Some(_) => Leader::Nobody,
            },
            3 => Leader::Missing,
            code => Leader::Refused(code),
        }
    };
    Event::Metadata(
        slots
            .iter()
            .map(|(slot, target)| (*slot, leader_of(target)))
            .collect(),
    )
}

/// A batch between sealing and settlement.
#[derive(Debug)]
struct Waiting {
    body: Arc<BatchBody>,
    slot: Slot,
    bytes: usize,
    first_tag: u64,
    last_tag: u64,
}

#[derive(Debug)]
struct LinkHandle {
    queue: SyncSender<Dispatch>,
    socket: Option<TcpStream>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Driver {
    client: Client,
    machine: Machine,
    started: Instant,
    targets: Vec<Target>,
    batches: HashMap<BatchId, Waiting>,
    links: HashMap<LinkId, LinkHandle>,
    /// Threads of dropped links; they end by themselves and are collected at the end.
    ended: Vec<JoinHandle<()>>,
    signals: SyncSender<Signal>,
    questions: SyncSender<Question>,
    asker: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Driver {
    fn run(mut self, inbox: &Receiver<Signal>) {
        let mut actions = Vec::new();
        loop {
            let now = self.started.elapsed();
            let wait = self
                .machine
                .wake_at()
                .map_or(IDLE, |at| at.saturating_sub(now));
            let event = match inbox.recv_timeout(wait) {
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Signal::Event(event)) => Some(event),
                Ok(Signal::Opened(link, socket)) => self.opened(link, socket),
                Ok(Signal::Job(Job::Add(target))) => {
                    self.targets.push(target);
                    self.machine.add_partition();
                    None
                }
                Ok(Signal::Job(Job::Sealed(sealed))) => self.sealed(sealed),
                Err(RecvTimeoutError::Timeout) => Some(Event::Tick),
            };
            if let Some(event) = event {
                self.machine
                    .handle(self.started.elapsed(), event, &mut actions);
            }
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
        self.end(inbox);
    }

    /// A link that was dropped while it was being opened is cut here: nobody else can.
    fn opened(&mut self, link: LinkId, socket: TcpStream) -> Option<Event> {
        match self.links.get_mut(&link) {
            Some(handle) => {
                handle.socket = Some(socket);
                Some(Event::Opened(link))
            }
            None => {
                link::cut(&socket);
                None
            }
        }
    }

    fn sealed(&mut self, sealed: Sealed) -> Option<Event> {
        let records = sealed.body.record_count;
        let waiting = Waiting {
            body: Arc::new(sealed.body),
            slot: sealed.slot,
            bytes: sealed.bytes,
            first_tag: sealed.first_tag,
            last_tag: sealed.last_tag,
        };
        self.batches.insert(sealed.batch, waiting);
        if let Some(error) = self.shared.failure() {
            self.settle(sealed.batch, None, Err(error));
            return None;
        }
        Some(Event::Sealed {
            slot: sealed.slot,
            batch: sealed.batch,
            records,
        })
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
            } => {
                let (Some(handle), Some(waiting)) =
                    (self.links.get(&link), self.batches.get(&batch))
                else {
                    return;
                };
                let target = self.targets[slot.0 as usize].clone();
                let dispatch = Dispatch {
                    target,
                    body: Arc::clone(&waiting.body),
                    identity,
                    sequence,
                };
                // A link whose thread ended has said or will say that it is lost.
                drop(handle.queue.try_send(dispatch));
            }
            Action::RefreshMetadata(slots) => {
                let target = |slot: Slot| (slot, self.targets[slot.0 as usize].clone());
                self.ask(Question::Leaders(slots.into_iter().map(target).collect()));
            }
            Action::RenewIdentity => self.ask(Question::Identity),
            Action::Settle {
                batch, base_offset, ..
            } => self.settle(batch, base_offset, Ok(())),
            Action::Fail(failure) => self.fail(&failure),
        }
    }

    fn ask(&self, question: Question) {
        // The machine has one question of each sort open at a time, so there is room.
        drop(self.questions.try_send(question));
    }

    fn open(&mut self, link: LinkId, node: i32) {
        self.ended.retain(|thread| !thread.is_finished());
        let (queue, dispatches) = sync_channel(LINK_QUEUE);
        let (client, signals) = (self.client.clone(), self.signals.clone());
        let work = move || link::run(&client, link, node, &dispatches, &signals);
        match spawn("tidegate-link", work) {
            Ok(thread) => {
                self.links.insert(
                    link,
                    LinkHandle {
                        queue,
                        socket: None,
                        thread,
                    },
                );
            }
            Err(error) => {
                let failure = Failure {
                    kind: error.kind(),
                    code: None,
                    slot: None,
                    why: error.to_string(),
                };
                self.fail(&failure);
            }
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
        self.shared.settle(Settlement {
            slot: waiting.slot,
            records: waiting.body.record_count,
            bytes: waiting.bytes,
            base_offset,
            first_tag: waiting.first_tag,
            last_tag: waiting.last_tag,
            result,
        });
    }

    fn fail(&mut self, failure: &Failure) {
        let place = failure.slot.map(|slot| &self.targets[slot.0 as usize]);
        let message = match place {
            Some(target) => format!("{}-{}: {}", target.topic, target.partition, failure.why),
            None => failure.why.clone(),
        };
        let error = Error::failure(failure.kind, failure.code, message);
        self.shared.fail(error.repeat());
        let mut open: Vec<BatchId> = self.batches.keys().copied().collect();
        open.sort_unstable();
        for batch in open {
            self.settle(batch, None, Err(error.repeat()));
        }
    }

    /// Cuts all links and waits for every thread; their last signals are taken in so that none waits for room.
    fn end(mut self, inbox: &Receiver<Signal>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link);
        }
        drop(self.questions);
        let mut threads = self.ended;
        threads.push(self.asker);
        for thread in threads {
            while !thread.is_finished() {
                if let Ok(Signal::Opened(_, socket)) = inbox.recv_timeout(Duration::from_millis(20))
                {
                    link::cut(&socket);
                }
            }
            drop(thread.join());
        }
    }
}
