//! One connection through the proxy: a thread for each direction.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_wire::frame::read_frame;

use super::hub::{Hub, reset_when_closed};
use super::rewrite::rewrite;
use super::rules::{Ruling, Seen, Side, Verb};

/// The largest frame that passes.
const LIMIT: usize = 256 << 20;
/// How long the broker may still work for a client that has left.
const AFTER_DEATH: Duration = Duration::from_secs(30);
/// How often a slow frame moves on.
const TICK: Duration = Duration::from_millis(20);

/// A client, the broker it talks to, and what is between them.
pub(super) struct Connection {
    hub: Arc<Hub>,
    number: u64,
    /// The broker's own address.
    broker: Arc<str>,
    client: TcpStream,
    upstream: TcpStream,
    unanswered: Mutex<VecDeque<Unanswered>>,
    /// Neither side hears of the other any more.
    is_silent: AtomicBool,
    /// The broker is gone, or the connection was cut.
    is_over: AtomicBool,
}

/// A request the broker has and has not answered.
struct Unanswered {
    seen: Seen,
    rule: Option<usize>,
}

impl Connection {
    pub(super) fn new(
        hub: Arc<Hub>,
        number: u64,
        broker: &str,
        client: TcpStream,
        upstream: TcpStream,
    ) -> io::Result<Self> {
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        Ok(Self {
            hub,
            number,
            broker: broker.into(),
            client,
            upstream,
            unanswered: Mutex::default(),
            is_silent: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    /// Carries requests until the client leaves, and then waits for what the broker still works on.
    pub(super) fn pass_requests(&self) {
        let mut frame = Vec::new();
        while read_frame(&mut &self.client, LIMIT, &mut frame).is_ok() {
            if self.is_silent() {
                continue;
            }
            let Some(seen) = Seen::parse(self.number, &self.broker, &frame) else {
                self.reset();
                break;
            };
            if self.pass_request(seen, &frame).is_err() {
                break;
            }
        }
        let deadline = Instant::now() + AFTER_DEATH;
        let is_silent = self.is_silent();
        self.hub.wait((!is_silent).then_some(deadline), |_| {
            self.is_over() || (!self.is_silent() && self.unanswered().is_empty())
        });
        if !self.is_over() {
            self.upstream.shutdown(Shutdown::Both).ok();
        }
    }

    fn pass_request(&self, seen: Seen, frame: &[u8]) -> io::Result<()> {
        let ruling = self.hub.change(|state| state.judge(Side::Request, &seen));
        if !self.prepare(ruling, &self.upstream, frame)? {
            return Ok(());
        }
        if seen.expects_answer() {
            let rule = ruling.rule;
            self.unanswered().push_back(Unanswered { seen, rule });
        }
        self.send(&self.upstream, frame, ruling.verb)
    }

    /// Carries answers until the broker closes the connection.
    pub(super) fn pass_answers(&self) {
        let mut frame = Vec::new();
        while read_frame(&mut &self.upstream, LIMIT, &mut frame).is_ok() {
            if !self.is_silent() && self.pass_answer(&frame).is_err() {
                break;
            }
        }
        if self.is_silent() {
            // Not even the end is heard.
            self.hub.wait(None, |_| self.is_over());
            return;
        }
        self.is_over.store(true, Ordering::SeqCst);
        self.client.shutdown(Shutdown::Both).ok();
        self.hub.change(|_| ());
    }

    fn pass_answer(&self, frame: &[u8]) -> io::Result<()> {
        let Some(Unanswered { seen, rule }) = self.take_unanswered(frame) else {
            self.reset();
            return Err(io::Error::other("an answer to nothing"));
        };
        let rewritten = rewrite(&self.hub, &seen, frame);
        let frame = rewritten.as_deref().unwrap_or(frame);
        let ruling = self.hub.change(|state| {
            state.note_answer(rule, &seen, frame);
            let ruling = state.judge(Side::Answer, &seen);
            state.note_answer(ruling.rule, &seen, frame);
            ruling
        });
        if self.prepare(ruling, &self.client, frame)? {
            // A client that has died does not end what the broker still has to do.
            self.send(&self.client, frame, ruling.verb).ok();
        }
        Ok(())
    }

    fn take_unanswered(&self, frame: &[u8]) -> Option<Unanswered> {
        let correlation_id = i32::from_be_bytes(frame.get(..4)?.try_into().ok()?);
        let mut unanswered = self.unanswered();
        let place = unanswered
            .iter()
            .position(|request| request.seen.correlation_id == correlation_id)?;
        unanswered.remove(place)
    }

    /// Does what comes before a frame is sent; whether it is to be sent at all. An error ends the direction.
    fn prepare(&self, ruling: Ruling, to: &TcpStream, frame: &[u8]) -> io::Result<bool> {
        match ruling.verb {
            Verb::Pass | Verb::Slow(_) => Ok(true),
            Verb::Delay(time) => {
                self.pause(time)?;
                Ok(true)
            }
            Verb::Hold => {
                let is_released = |state: &super::hub::State| {
                    ruling
                        .rule
                        .is_none_or(|index| state.rules[index].is_released)
                };
                let done = self
                    .hub
                    .wait(None, |state| is_released(state) || self.is_over());
                // What was held on a connection that was cut is lost with it.
                if done && !self.is_over() {
                    Ok(true)
                } else {
                    Err(ended())
                }
            }
            Verb::Drop => Ok(false),
            Verb::Reset => {
                let bytes = with_length(frame)?;
                // It may have been cut already.
                write_all(to, &bytes[..bytes.len() / 2]).ok();
                self.reset();
                Err(ended())
            }
            Verb::HalfOpen => {
                self.is_silent.store(true, Ordering::SeqCst);
                self.hub.change(|_| ());
                Ok(false)
            }
        }
    }

    fn pause(&self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        let is_cut = self.hub.wait(Some(deadline), |_| self.is_over());
        if is_cut || self.hub.state().is_closed {
            return Err(ended());
        }
        Ok(())
    }

    fn send(&self, to: &TcpStream, frame: &[u8], verb: Verb) -> io::Result<()> {
        let bytes = with_length(frame)?;
        let Verb::Slow(rate) = verb else {
            return write_all(to, &bytes);
        };
        let ticks = u64::try_from(Duration::from_secs(1).as_millis() / TICK.as_millis())
            .map_err(io::Error::other)?;
        let chunk = usize::try_from((rate / ticks).max(1)).map_err(io::Error::other)?;
        for part in bytes.chunks(chunk) {
            write_all(to, part)?;
            self.pause(TICK)?;
        }
        Ok(())
    }

    /// Both sides see a reset, once both threads have let go.
    pub(super) fn reset(&self) {
        self.end(Shutdown::Read);
    }

    /// Ends both directions, also for who is writing to a peer that does not read.
    pub(super) fn close(&self) {
        self.end(Shutdown::Both);
    }

    fn end(&self, how: Shutdown) {
        self.is_over.store(true, Ordering::SeqCst);
        for stream in [&self.client, &self.upstream] {
            reset_when_closed(stream);
            // No end is sent by this for a reset: it wakes who reads.
            stream.shutdown(how).ok();
        }
        self.hub.change(|_| ());
    }

    fn unanswered(&self) -> MutexGuard<'_, VecDeque<Unanswered>> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

fn with_length(frame: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(frame.len() + 4);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    Ok(bytes)
}

fn write_all(mut to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)
}

fn ended() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionAborted)
}
