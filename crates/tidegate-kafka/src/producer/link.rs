//! One link to one broker: writes Produce requests, reads their answers.
//!
//! One thread does both: whenever something is to be sent and the driver allows it, it writes; else it reads one answer. A broker works on
//! one request per connection at a time, so little is lost by that, and TLS, whose streams cannot be split, fits in.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use kafka_protocol::messages::ProduceRequest as ProduceMessage;
use kafka_protocol::protocol::{Request, VersionRange};
use tidegate_wire::produce::{self, ProduceRequest, TopicRef};
use tidegate_wire::{BatchBody, ProducerStamp, encode_header};

use super::machine::{Answer, Event, Identity, Leadership, LinkId, Protocol};
use super::runner::Signal;
use super::shared::{Shared, Target};
use crate::client::Client;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};

/// Added to the time that the broker may take, for the way there and back.
const TRAVEL: Duration = Duration::from_secs(1);

/// Time for a connection to come about. A producer that is dropped meanwhile waits for it, so it is not long; trying again costs nothing.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// The last version of Produce under which a partition has to be added to a transaction beforehand; from the next one on the broker that gets
/// the batch adds it (KIP-890).
const LAST_BEFORE_NEW_PROTOCOL: i16 = 11;

/// What the driver asks for.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) link: LinkId,
    pub(super) node: i32,
    /// Request time-outs that this link allows for one frame: more than one if the way to the broker proved slow.
    pub(super) patience: u32,
    pub(super) transactional_id: Option<Arc<str>>,
}

/// A batch on its way through one link.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) target: Target,
    pub(super) body: Arc<BatchBody>,
    pub(super) identity: Identity,
    pub(super) sequence: i32,
    pub(super) transaction: Option<Protocol>,
}

/// The link's thread: opens the connection, then works until the driver drops the other end of `queue` or the connection breaks.
pub(super) fn run(
    client: &Client,
    order: Order,
    queue: &Receiver<Dispatch>,
    driver: &SyncSender<Signal>,
    shared: &Shared,
) {
    let (link, node) = (order.link, order.node);
    let ended = Link::open(client, order).and_then(|mut open| {
        shared.note_features(open.connection.versions());
        let socket = open.connection.socket_handle()?;
        // The driver is gone only when the producer is: then nobody wants to know.
        if driver.send(Signal::Opened(link, socket)).is_err() {
            return Ok(());
        }
        open.work(client, link, queue, driver)
    });
    if let Err(error) = ended {
        client.note_silence_of(node);
        drop(driver.send(Signal::Lost(link, error)));
    }
}

/// Ends whatever a link's thread is waiting for.
pub(super) fn cut(socket: &TcpStream) {
    // It may be closed already, which is what we want.
    drop(socket.shutdown(Shutdown::Both));
}

struct Link {
    connection: Connection,
    /// The highest version of Produce that both sides know.
    version: i16,
    /// Of the requests that are not answered yet.
    sent_versions: VecDeque<i16>,
    request_timeout: Duration,
    client_id: String,
    transactional_id: Option<Arc<str>>,
    frame: Vec<u8>,
}

impl Link {
    fn open(client: &Client, order: Order) -> Result<Self, Error> {
        let config = client.config();
        let mut connection = client.open_within(order.node, OPEN_WITHIN)?;
        connection.set_timeout(config.request_timeout * order.patience + TRAVEL);
        let ours = VersionRange {
            min: produce::MIN_VERSION,
            max: produce::MAX_VERSION,
        };
        let version = connection.versions().choose(ProduceMessage::KEY, ours)?;
        Ok(Self {
            connection,
            version,
            sent_versions: VecDeque::new(),
            request_timeout: config.request_timeout,
            client_id: config.client_id.clone(),
            transactional_id: order.transactional_id,
            frame: Vec::new(),
        })
    }

    fn work(
        &mut self,
        client: &Client,
        link: LinkId,
        queue: &Receiver<Dispatch>,
        driver: &SyncSender<Signal>,
    ) -> Result<(), Error> {
        loop {
            let is_idle = self.connection.in_flight() == 0;
            let next = if is_idle {
                queue.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                queue.try_recv()
            };
            match next {
                // Whoever fell silent on another connection is not waited for once more on this one: there may be another leader by now.
                Ok(_) if is_idle && client.is_silent(self.connection.address()) => {
                    let address = self.connection.address();
                    let message = format!("{address}: fell silent on another connection");
                    return Err(Error::new(ErrorKind::Unreachable, message));
                }
                Ok(dispatch) => self.send(&dispatch)?,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {
                    let answer = self.receive()?;
                    let answered = Signal::Event(Event::Answered { link, answer });
                    if driver.send(answered).is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn send(&mut self, dispatch: &Dispatch) -> Result<(), Error> {
        let stamp = ProducerStamp {
            producer_id: dispatch.identity.producer_id,
            epoch: dispatch.identity.epoch,
            base_sequence: dispatch.sequence,
            transactional: dispatch.transaction.is_some(),
        };
        let version = match dispatch.transaction {
            Some(Protocol::Old) => self.version.min(LAST_BEFORE_NEW_PROTOCOL),
            Some(Protocol::New) | None => self.version,
        };
        let header = encode_header(&dispatch.body, stamp);
        let request = ProduceRequest {
            client_id: Some(&self.client_id),
            transactional_id: self.transactional_id.as_deref(),
            acks: -1,
            timeout_ms: i32::try_from(self.request_timeout.as_millis()).unwrap_or(i32::MAX),
            topic: TopicRef {
                name: &dispatch.target.topic,
                id: dispatch.target.topic_id,
            },
            partition: dispatch.target.partition,
            batch_header: &header,
            body_len: dispatch.body.records.len(),
        };
        let correlation = self.connection.next_correlation_id();
        let prefix = produce::prefix(version, correlation, &request)
            .map_err(|error| Error::new(ErrorKind::TooLarge, error.to_string()))?;
        let trailer = produce::trailer(version);
        self.sent_versions.push_back(version);
        self.connection
            .send_raw(correlation, &[&prefix, &dispatch.body.records, trailer])
    }

    /// The answer to the oldest request: the connection has matched its correlation id.
    fn receive(&mut self) -> Result<Answer, Error> {
        self.connection.receive_frame(&mut self.frame)?;
        let version = self.sent_versions.pop_front().unwrap_or(self.version);
        let (_, answer) = produce::parse_answer(version, &self.frame).map_err(|error| {
            let address = self.connection.address();
            Error::new(
                ErrorKind::Protocol,
                format!("{address}: the answer to Produce: {error}"),
            )
        })?;
        let first_cause = || {
            answer
                .record_errors
                .first()
                .and_then(|error| error.message.clone())
        };
        Ok(Answer {
            code: answer.error_code,
            base_offset: answer.base_offset,
            throttle: Duration::from_millis(u64::try_from(answer.throttle_ms).unwrap_or(0)),
            new_leader: answer
                .current_leader
                .map(|(node, epoch)| Leadership { node, epoch }),
            message: first_cause().or(answer.error_message),
        })
    }
}
