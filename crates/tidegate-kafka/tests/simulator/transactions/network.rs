//! The network between instances and cluster, and what the cluster makes of what arrives.

use std::time::Duration;

use tidegate_kafka::producer::machine::{
    Answer, CoordinatorAnswer, CoordinatorRequest, Event, Identity, Leader, Leadership, LinkId,
    Protocol, Slot,
};

use super::coordinator::{FENCED, Markers};
use super::job::Link;
use super::log::INVALID_EPOCH;
use super::world::{Happening, News, Request, World};
use crate::cluster::NODES;

/// The client gives a request up after this time (ms).
const REQUEST_TIMEOUT: u64 = 700;

/// Codes with which a leader refuses a batch for the moment.
const PASSING: [i16; 8] = [3, 6, 7, 14, 16, 19, 51, 74];
/// Codes with which a coordinator refuses for the moment.
const COORDINATOR_PASSING: [i16; 4] = [7, 14, 15, 51];
const NOT_COORDINATOR: i16 = 16;
const CONCURRENT: i16 = 51;

impl World {
    pub(super) fn open(&mut self, who: usize, id: LinkId) {
        let link = Link {
            dropped: false,
            cut: false,
            last_there: self.now,
            last_back: self.now,
        };
        self.instances[who].links.insert(id, link);
        let at = self.now + self.random.between(1, 20);
        self.at(at, Happening::Reaches(who, News::Opened(id)));
    }

    pub(super) fn opened(&mut self, who: usize, id: LinkId) {
        if self.fault() {
            return self.breaks(who, id);
        }
        if !self.instances[who].links[&id].dropped {
            self.tell(who, Event::Opened(id));
        }
    }

    pub(super) fn breaks(&mut self, who: usize, id: LinkId) {
        let link = self.instances[who].links.get_mut(&id);
        if let Some(link) = link.filter(|link| !link.dropped) {
            link.dropped = true;
            self.counts.note("connections that break");
            let why = "reset".to_owned();
            self.tell(who, Event::Lost { link: id, why });
        }
    }

    pub(super) fn metadata(&mut self, who: usize, slots: &[Slot]) {
        if self.fault() {
            let why = "no broker answered".to_owned();
            return self.tell(who, Event::MetadataFailed(why));
        }
        let leader = |slot: &Slot| {
            let node = i32::try_from(slot.0).unwrap() % NODES;
            (*slot, Leader::Known(Leadership { node, epoch: 1 }))
        };
        self.tell(who, Event::Metadata(slots.iter().map(leader).collect()));
    }

    /// Puts a batch on its way: lost with all behind it, or held up for seconds, long after its sender has given up or is gone.
    pub(super) fn send(&mut self, who: usize, id: LinkId, request: Request) {
        let (lost, slow) = (self.fault(), self.fault());
        let travel = self.random.between(1, 15)
            + if slow {
                self.random.between(50, 4_000)
            } else {
                0
            };
        let (now, noticed) = (self.now, self.random.between(1, REQUEST_TIMEOUT));
        let Some(link) = self.instances[who].links.get_mut(&id) else {
            return;
        };
        link.cut |= lost;
        link.last_there = link.last_there.max(now) + travel;
        let (cut, arrival) = (link.cut, link.last_there);
        if !cut {
            self.at(arrival, Happening::Arrives(who, id, request));
        }
        if cut || arrival > now + REQUEST_TIMEOUT {
            let at = now + if lost { noticed } else { REQUEST_TIMEOUT };
            self.at(at, Happening::Reaches(who, News::Breaks(id)));
        }
    }

    pub(super) fn arrives(&mut self, who: usize, id: LinkId, request: Request) {
        if self.instances[who].links[&id].cut {
            return;
        }
        if !self.instances[who].alive {
            self.counts
                .note("batches that arrive after their instance is gone");
        }
        let code_and_offset = self.produce(request);
        let (lost, travel) = (self.fault(), self.random.between(1, 15));
        let (now, noticed) = (self.now, self.random.between(1, REQUEST_TIMEOUT));
        let Some(link) = self.instances[who].links.get_mut(&id) else {
            return;
        };
        if lost {
            link.cut = true;
            return self.at(now + noticed, Happening::Reaches(who, News::Breaks(id)));
        }
        link.last_back = link.last_back.max(now) + travel;
        let at = link.last_back;
        let (code, base_offset) = code_and_offset;
        let answer = Answer {
            code,
            base_offset,
            throttle: Duration::ZERO,
            new_leader: None,
            message: None,
        };
        self.at(at, Happening::Reaches(who, News::Answers(id, answer)));
    }

    /// What the leader makes of a batch.
    fn produce(&mut self, request: Request) -> (i16, i64) {
        if self.fault() {
            self.counts.note("errors before the append");
            return (PASSING[self.random.size(0, PASSING.len() - 1)], -1);
        }
        let Request { slot, identity, .. } = request;
        if !self.logs[slot].has_open(identity) {
            if self.now < self.away_until {
                return (15, -1);
            }
            let asked = match request.protocol {
                Protocol::New => self.add(identity, slot),
                Protocol::Old => self.coordinator.verify(identity, slot),
            };
            match asked {
                Ok(()) => {}
                Err(CONCURRENT) => {
                    self.counts
                        .note("first batches that come before the last markers");
                    return (CONCURRENT, -1);
                }
                // A leader says it like this to a producer.
                Err(FENCED) => return self.refuse_epoch(),
                Err(code) => return (code, -1),
            }
        }
        let appended =
            self.logs[slot].append(identity, request.content, request.sequence, request.records);
        match appended {
            Ok(_) if self.fault() => {
                self.counts.note("errors after the append");
                (20, -1)
            }
            Ok(offset) => (0, offset),
            Err(INVALID_EPOCH) => self.refuse_epoch(),
            Err(code) => (code, -1),
        }
    }

    fn refuse_epoch(&mut self) -> (i16, i64) {
        self.counts.note("batches refused for another epoch");
        (INVALID_EPOCH, -1)
    }

    fn add(&mut self, identity: Identity, slot: usize) -> Result<(), i16> {
        let before = self.coordinator.transaction;
        let added = self.coordinator.add(identity, slot);
        self.watch(before);
        added
    }

    /// A transaction that has begun must not take too long.
    fn watch(&mut self, before: u64) {
        let transaction = self.coordinator.transaction;
        if transaction != before {
            let at = self.now + self.transaction_timeout;
            self.at(at, Happening::TooLong(transaction));
        }
    }

    pub(super) fn too_long(&mut self, transaction: u64) {
        if self.coordinator.is_ongoing() && self.coordinator.transaction == transaction {
            self.counts.note("transactions that take too long");
            self.replace_all_but(None);
            let markers = self.coordinator.fence(self.server);
            self.write_markers(markers);
        }
    }

    /// The epoch of every instance has ended, but for one that is given the next.
    pub(super) fn replace_all_but(&mut self, who: Option<usize>) {
        for (other, instance) in self.instances.iter_mut().enumerate() {
            if Some(other) != who {
                instance.replaced = true;
            }
        }
    }

    fn write_markers(&mut self, markers: Markers) {
        for slot in markers.slots {
            let slow = self.fault();
            let at = self.now + self.random.between(1, if slow { 600 } else { 15 });
            self.at(
                at,
                Happening::Marker(slot, markers.identity, markers.commit),
            );
        }
    }

    /// Puts a question on its way to the coordinator, or to whoever the instance takes for it.
    pub(super) fn ask(&mut self, who: usize, request: CoordinatorRequest, find: bool) {
        if find {
            self.believed[who] = self.moves;
        }
        let of = self.believed[who];
        let question = self.instances[who].question;
        let travel = self.random.between(1, 10);
        let (lost, late) = (self.fault(), self.fault());
        let silent = Happening::Reaches(who, News::CoordinatorSilent(question));
        self.at(self.now + REQUEST_TIMEOUT, silent.clone());
        if lost {
            self.counts.note("lost requests to the coordinator");
            let at = self.now + self.random.between(1, REQUEST_TIMEOUT);
            return self.at(at, silent);
        }
        let mut at = self.now + travel;
        if late {
            self.counts.note("late requests to the coordinator");
            at += self.random.between(100, 5_000);
            let noticed = self.now + self.random.between(1, REQUEST_TIMEOUT);
            self.at(noticed, silent);
        }
        self.at(at, Happening::Asked(who, question, request, of));
    }

    pub(super) fn asked(
        &mut self,
        who: usize,
        question: u64,
        request: &CoordinatorRequest,
        of: u64,
    ) {
        if self.gone_from.is_some_and(|from| self.now >= from) {
            return;
        }
        let is_end = matches!(request, CoordinatorRequest::EndTxn { .. });
        if is_end && !self.instances[who].alive {
            self.counts
                .note("late EndTxn requests of an instance that is gone");
        }
        let answer = if of != self.moves || self.now < self.away_until {
            Err(NOT_COORDINATOR)
        } else if self.fault() {
            Err(COORDINATOR_PASSING[self.random.size(0, COORDINATOR_PASSING.len() - 1)])
        } else {
            self.coordinate(who, question, request)
        };
        if answer.is_err() {
            self.counts.note("refusals of the coordinator");
        }
        let answer = CoordinatorAnswer {
            code: answer.err().unwrap_or(0),
            identity: answer.ok().flatten(),
        };
        if self.fault() {
            self.counts.note("answers of the coordinator lost");
            if is_end && answer.code == 0 {
                self.counts.note("unanswered commits that were decided");
            }
            return;
        }
        let at = self.now + self.random.between(1, 10);
        self.at(
            at,
            Happening::Reaches(who, News::Coordinator(question, answer)),
        );
    }

    fn coordinate(
        &mut self,
        who: usize,
        question: u64,
        request: &CoordinatorRequest,
    ) -> Result<Option<Identity>, i16> {
        let transaction = self.coordinator.transaction;
        let before = self.coordinator.current;
        let (identity, markers) = self.coordinator.handle(request, self.server)?;
        self.watch(transaction);
        let initialises = matches!(request, CoordinatorRequest::InitProducerId(_));
        if initialises && self.coordinator.current != before {
            // A copy that comes late replaces even the instance that sent it; and so does one that finds a transaction open, be it opened by
            // another late request of the same instance.
            let is_given = self.instances[who].question == question && identity.is_some();
            self.replace_all_but(is_given.then_some(who));
            if is_given {
                self.instances[who].replaced = false;
            }
        }
        if identity.is_some_and(|identity| identity.producer_id != before.producer_id) {
            self.rotated = true;
            self.counts
                .note("new producer ids at the end of the epochs");
        }
        let fences = initialises && identity.is_none();
        if let Some(markers) = markers {
            self.write_markers(markers);
        }
        if fences {
            Err(CONCURRENT)
        } else {
            Ok(identity)
        }
    }
}
