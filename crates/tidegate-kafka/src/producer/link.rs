//! One link to one broker: writes Produce requests, reads their answers.
//!
//! One thread does both: whenever something is to be sent and the driver allows it, it writes; else it reads one answer. A broker works on
//! one request per connection at a time, so nothing is lost by that, and TLS, whose streams cannot be split, fits in.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use kafka_protocol::messages::ProduceRequest as ProduceMessage;
use kafka_protocol::protocol::VersionRange;
use tidegate_wire::produce::{self, ProduceRequest, TopicRef};
use tidegate_wire::{BatchBody, ProducerStamp, encode_header};

use super::machine::{Answer, Event, Identity, LinkId};
use super::runner::Signal;
use super::shared::Target;
use crate::client::Client;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};

/// Added to the time that the broker may take, for the way there and back.
const TRAVEL: Duration = Duration::from_secs(1);

/// A batch on its way through one link.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) target: Target,
    pub(super) body: Arc<BatchBody>,
    pub(super) identity: Identity,
    pub(super) sequence: i32,
}

/// The link's thread: opens the connection, then works until the driver drops the other end of `queue` or the connection breaks.
pub(super) fn run(
    client: &Client,
    link: LinkId,
    node: i32,
    queue: &Receiver<Dispatch>,
    driver: &SyncSender<Signal>,
) {
    let ended = Link::open(client, node).and_then(|mut open| {
        let socket = open.connection.socket_handle()?;
        // The driver is gone only when the producer is: then nobody wants to know.
        if driver.send(Signal::Opened(link, socket)).is_err() {
            return Ok(());
        }
        open.work(link, queue, driver)
    });
    if let Err(error) = ended {
        let lost = Event::Lost {
            link,
            why: error.to_string(),
        };
        drop(driver.send(Signal::Event(lost)));
    }
}

/// Ends whatever a link's thread is waiting for.
pub(super) fn cut(socket: &TcpStream) {
    // It may be closed already, which is what we want.
    drop(socket.shutdown(Shutdown::Both));
}

struct Link {
    connection: Connection,
    version: i16,
    request_timeout: Duration,
    client_id: String,
    /// For each unanswered request, the version it was sent in is `version`; only their number matters.
    unanswered: VecDeque<i32>,
    frame: Vec<u8>,
}

impl Link {
    fn open(client: &Client, node: i32) -> Result<Self, Error> {
        let config = client.config();
        let mut connection = client.open(node)?;
        connection.set_timeout(config.request_timeout + TRAVEL);
        let ours = VersionRange {
            min: produce::MIN_VERSION,
            max: produce::MAX_VERSION,
        };
        let key = <ProduceMessage as kafka_protocol::protocol::Request>::KEY;
        let version = connection.versions().choose(key, ours)?;
        Ok(Self {
            connection,
            version,
            request_timeout: config.request_timeout,
            client_id: config.client_id.clone(),
            unanswered: VecDeque::new(),
            frame: Vec::new(),
        })
    }

    fn work(
        &mut self,
        link: LinkId,
        queue: &Receiver<Dispatch>,
        driver: &SyncSender<Signal>,
    ) -> Result<(), Error> {
        loop {
            let next = if self.unanswered.is_empty() {
                queue.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                queue.try_recv()
            };
            match next {
                Ok(dispatch) => self.send(&dispatch)?,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {
                    let answer = self.receive()?;
                    if driver
                        .send(Signal::Event(Event::Answered { link, answer }))
                        .is_err()
                    {
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
            transactional: false,
        };
        let header = encode_header(&dispatch.body, stamp);
        let request = ProduceRequest {
            client_id: Some(&self.client_id),
            transactional_id: None,
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
        let prefix = produce::prefix(self.version, correlation, &request)
            .map_err(|error| Error::new(ErrorKind::TooLarge, error.to_string()))?;
        let parts = [
            &prefix[..],
            &dispatch.body.records,
            produce::trailer(self.version),
        ];
        self.connection.send_raw(correlation, &parts)?;
        self.unanswered.push_back(correlation);
        Ok(())
    }

    fn receive(&mut self) -> Result<Answer, Error> {
        self.connection.receive_frame(&mut self.frame)?;
        self.unanswered.pop_front();
        let (_, answer) = produce::parse_answer(self.version, &self.frame).map_err(|error| {
            let message = format!(
                "{}: the answer to Produce: {error}",
                self.connection.address()
            );
            Error::new(ErrorKind::Protocol, message)
        })?;
        let throttle = u64::try_from(answer.throttle_ms).unwrap_or(0);
        Ok(Answer {
            code: answer.error_code,
            base_offset: answer.base_offset,
            throttle: Duration::from_millis(throttle),
        })
    }
}
