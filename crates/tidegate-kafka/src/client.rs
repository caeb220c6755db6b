//! The shared view of a cluster: where its brokers are, who leads what, and how to get a connection to one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::{Message, Request, StrBytes};

use crate::admin::Admin;
use crate::cluster::ClusterView;
use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::retry;

/// Pause before a request is tried again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The shortest time that is given to one of several brokers to answer.
const SHORTEST_TRY: Duration = Duration::from_millis(500);

/// For how long a broker that did not answer is asked only when no other one helps.
const SILENCE: Duration = Duration::from_secs(30);

/// How a request for a coordinator says that it means a group.
const GROUP_KEY: i8 = 0;

/// What a coordinator coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorKind {
    /// A consumer group.
    Group,
    /// A transactional id.
    Transaction,
}

/// A cluster that could be reached. Cheap to clone: all clones share one picture of it.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    view: Mutex<Arc<ClusterView>>,
    /// Idle connections by address, for requests that are rare.
    idle: Mutex<HashMap<String, Connection>>,
    /// Addresses that did not answer, and when that was.
    silent: Mutex<HashMap<String, Instant>>,
}

/// Why each address that was tried failed, most recently.
#[derive(Debug, Default)]
struct Failures(Vec<(String, String)>);

impl Failures {
    fn note(&mut self, address: &str, error: &Error) {
        let why = error.to_string();
        match self.0.iter_mut().find(|(known, _)| known == address) {
            Some((_, latest)) => *latest = why,
            None => self.0.push((address.to_owned(), why)),
        }
    }

    /// The error of the last address, told with those of all.
    fn explain(&self, last: Error) -> Error {
        if last.kafka_code().is_some() || self.0.is_empty() {
            return last;
        }
        let reasons: Vec<&str> = self.0.iter().map(|(_, why)| why.as_str()).collect();
        Error::new(last.kind(), reasons.join("; ")).with_source(last)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks: a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects to any of the bootstrap servers and asks for metadata.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Timeout`], naming every address and why it failed, if none answered within the
    /// connect time-out.
    pub fn connect(config: ClientConfig) -> Result<Self, Error> {
        let deadline = Instant::now() + config.connect_timeout;
        let shared = Shared {
            config,
            view: Mutex::default(),
            idle: Mutex::default(),
            silent: Mutex::default(),
        };
        let client = Self {
            shared: Arc::new(shared),
        };
        // Over all rounds: in the last one there may be no time left for every address.
        let mut failures = Failures::default();
        loop {
            match client.refresh_noting(&[], deadline, &mut failures) {
                Ok(_) => return Ok(client),
                Err(error) if !error.is_retriable() => return Err(failures.explain(error)),
                Err(error) if Instant::now() + RETRY_PAUSE >= deadline => {
                    let waited = client.config().connect_timeout.as_secs_f64();
                    let context = format!("no broker could be reached within {waited:.0} s");
                    let kind = error.settled_kind();
                    return Err(failures.explain(error).context(context).of_kind(kind));
                }
                Err(_) => thread::sleep(RETRY_PAUSE),
            }
        }
    }

    /// What this client was told.
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// The administrative requests.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The newest picture of the cluster.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&lock(&self.shared.view))
    }

    /// Asks for the cluster's brokers and these topics. Never creates a topic. The answer replaces what the view said about
    /// these topics; others stay as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] or [`ErrorKind::Timeout`] if no broker answers within the request time-out.
    pub fn refresh(&self, topics: &[&str]) -> Result<Arc<ClusterView>, Error> {
        self.refresh_before(topics, Instant::now() + self.config().request_timeout)
    }

    /// As [`refresh`](Self::refresh), within `timeout`.
    pub(crate) fn refresh_within(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<Arc<ClusterView>, Error> {
        let timeout = timeout.min(self.config().request_timeout);
        self.refresh_before(topics, Instant::now() + timeout)
    }

    fn refresh_before(
        &self,
        topics: &[&str],
        deadline: Instant,
    ) -> Result<Arc<ClusterView>, Error> {
        let mut failures = Failures::default();
        self.refresh_noting(topics, deadline, &mut failures)
            .map_err(|error| failures.explain(error))
    }

    fn refresh_noting(
        &self,
        topics: &[&str],
        deadline: Instant,
        failures: &mut Failures,
    ) -> Result<Arc<ClusterView>, Error> {
        let names = topics
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect();
        let request = MetadataRequest::default()
            .with_topics(Some(names))
            .with_allow_auto_topic_creation(false);
        let response = self.any_noting(deadline, failures, |client, address, timeout| {
            client.with_connection(address, timeout, |connection| connection.call(&request))
        })?;
        let mut fresh = ClusterView::from_response(&response);
        let mut view = lock(&self.shared.view);
        for (name, topic) in &view.topics {
            fresh
                .topics
                .entry(name.clone())
                .or_insert_with(|| topic.clone());
        }
        if fresh.brokers.is_empty() {
            // A broker that has just started may not know the others yet: keep what we know rather than nothing.
            fresh.brokers.clone_from(&view.brokers);
        }
        *view = Arc::new(fresh);
        Ok(Arc::clone(&view))
    }

    /// Opens a connection of the caller's own to a broker.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the view does not know the node, else as [`Connection::open`].
    pub fn open(&self, node_id: i32) -> Result<Connection, Error> {
        self.open_address(&self.address(node_id)?, self.config().request_timeout)
    }

    /// As [`open`](Self::open), within `timeout`.
    pub(crate) fn open_within(&self, node_id: i32, timeout: Duration) -> Result<Connection, Error> {
        let timeout = timeout.min(self.config().request_timeout);
        self.open_address(&self.address(node_id)?, timeout)
    }

    /// Opens a connection of the caller's own to any broker that answers.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), within the request time-out.
    pub fn open_any(&self) -> Result<Connection, Error> {
        let deadline = Instant::now() + self.config().request_timeout;
        self.any_before(deadline, |client, address, timeout| {
            client.open_address(address, timeout)
        })
    }

    /// Node id of the coordinator of a group or transactional id; waits until there is one.
    ///
    /// # Errors
    /// The broker's refusal, or [`ErrorKind::Timeout`] if there is none within the request time-out.
    pub fn coordinator(&self, kind: CoordinatorKind, key: &str) -> Result<i32, Error> {
        let deadline = Instant::now() + self.config().request_timeout;
        let key_type = match kind {
            CoordinatorKind::Group => GROUP_KEY,
            CoordinatorKind::Transaction => 1,
        };
        loop {
            match self.find_coordinator(key_type, key, deadline) {
                Err(error) if error.is_retriable() && Instant::now() + RETRY_PAUSE < deadline => {
                    thread::sleep(RETRY_PAUSE);
                }
                Err(error) => {
                    return Err(error.context(format_args!("find the coordinator of {key}")));
                }
                Ok(node_id) => return Ok(node_id),
            }
        }
    }

    /// Asks once for the coordinator of a group, within `timeout`.
    pub(crate) fn group_coordinator_within(
        &self,
        group: &str,
        timeout: Duration,
    ) -> Result<i32, Error> {
        let timeout = timeout.min(self.config().request_timeout);
        self.find_coordinator(GROUP_KEY, group, Instant::now() + timeout)
    }

    fn find_coordinator(&self, key_type: i8, key: &str, deadline: Instant) -> Result<i32, Error> {
        // Version 4 asks for several keys at once; older brokers know one (KIP-699).
        const BATCHED: i16 = 4;
        let key = StrBytes::from_string(key.to_owned());
        let (address, code, message, node_id) =
            self.any_before(deadline, |client, address, timeout| {
                client.with_connection(address, timeout, |connection| {
                    let version = connection.versions().choose(
                        FindCoordinatorRequest::KEY,
                        FindCoordinatorRequest::VERSIONS,
                    )?;
                    let request = FindCoordinatorRequest::default().with_key_type(key_type);
                    let request = match version {
                        BATCHED.. => request.with_coordinator_keys(vec![key.clone()]),
                        _ => request.with_key(key.clone()),
                    };
                    let answer = connection.call_version(&request, version)?;
                    let address = connection.address().to_owned();
                    Ok(match answer.coordinators.first() {
                        Some(found) => (
                            address,
                            found.error_code,
                            found.error_message.clone(),
                            found.node_id.0,
                        ),
                        None => (
                            address,
                            answer.error_code,
                            answer.error_message.clone(),
                            answer.node_id.0,
                        ),
                    })
                })
            })?;
        if code != 0 {
            return Err(Error::kafka(address, code, message.as_deref()));
        }
        if !self.view().brokers.contains_key(&node_id) {
            self.refresh_before(&[], deadline)?;
        }
        Ok(node_id)
    }

    /// Sends a request to a broker over a kept connection and waits for the answer. A connection that broke while idle is
    /// replaced once: so only requests that may safely arrive twice go this way.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn call<R: Request>(&self, node_id: i32, request: &R) -> Result<R::Response, Error> {
        let address = self.address(node_id)?;
        self.with_connection(&address, self.config().request_timeout, |connection| {
            connection.call(request)
        })
    }

    /// As [`call`](Self::call), to any broker that answers.
    ///
    /// # Errors
    /// As [`open_any`](Self::open_any) and [`Connection::call`].
    pub fn call_any<R: Request>(&self, request: &R) -> Result<R::Response, Error> {
        let deadline = Instant::now() + self.config().request_timeout;
        self.any_before(deadline, |client, address, timeout| {
            client.with_connection(address, timeout, |connection| connection.call(request))
        })
    }

    /// Runs `operation` on a kept connection to `address`, or on a new one.
    pub(crate) fn with_connection<T>(
        &self,
        address: &str,
        timeout: Duration,
        mut operation: impl FnMut(&mut Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let kept = lock(&self.shared.idle).remove(address);
        if let Some(mut connection) = kept {
            connection.set_timeout(timeout);
            match operation(&mut connection) {
                Err(error)
                    if error.kind() == ErrorKind::Unreachable && error.kafka_code().is_none() => {}
                result => return self.keep_if_sound(connection, result),
            }
        }
        let mut connection = self.open_address(address, timeout)?;
        let result = operation(&mut connection);
        self.keep_if_sound(connection, result)
    }

    fn keep_if_sound<T>(
        &self,
        connection: Connection,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        let broken = matches!(&result, Err(error) if error.kafka_code().is_none());
        if !broken && connection.in_flight() == 0 {
            lock(&self.shared.idle).insert(connection.address().to_owned(), connection);
        }
        result
    }

    /// Tries `operation` on every known address in turn until one succeeds; the brokers of the view first, then the bootstrap servers.
    fn any_before<T>(
        &self,
        deadline: Instant,
        operation: impl Fn(&Self, &str, Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut failures = Failures::default();
        self.any_noting(deadline, &mut failures, operation)
            .map_err(|error| failures.explain(error))
    }

    /// As [`any_before`](Self::any_before), noting in `failures` why each address failed. Returns the last failure.
    fn any_noting<T>(
        &self,
        deadline: Instant,
        failures: &mut Failures,
        operation: impl Fn(&Self, &str, Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut addresses: Vec<String> = self
            .view()
            .brokers
            .values()
            .map(ToString::to_string)
            .collect();
        for address in &self.config().bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        // Whoever was silent just now is asked last: each request would lose time there.
        addresses.sort_by_key(|address| self.is_silent(address));
        let mut last = None;
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // A broker that hangs must not eat the time of the others.
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let timeout = share
                .max(SHORTEST_TRY)
                .min(left)
                .min(self.config().request_timeout);
            match operation(self, address, timeout) {
                Err(error)
                    if error.kafka_code().is_none() && error.kind() != ErrorKind::Configuration =>
                {
                    failures.note(address, &error);
                    self.note_silence(address);
                    last = Some(error);
                }
                result => {
                    self.forget_silence(address);
                    return result;
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(ErrorKind::Timeout, "no time was left to try any broker")
        }))
    }

    /// A broker did not answer, or went away.
    pub(crate) fn note_silence(&self, address: &str) {
        lock(&self.shared.silent).insert(address.to_owned(), Instant::now());
    }

    /// As [`note_silence`](Self::note_silence), by its node id.
    pub(crate) fn note_silence_of(&self, node_id: i32) {
        if let Ok(address) = self.address(node_id) {
            self.note_silence(&address);
        }
    }

    fn forget_silence(&self, address: &str) {
        lock(&self.shared.silent).remove(address);
    }

    /// Whether a broker that is asked at this address fell silent lately, and nobody has got through to it since.
    pub(crate) fn is_silent(&self, address: &str) -> bool {
        let silent = lock(&self.shared.silent);
        silent
            .get(address)
            .is_some_and(|since| since.elapsed() < SILENCE)
    }

    fn open_address(&self, address: &str, timeout: Duration) -> Result<Connection, Error> {
        let connection = Connection::open(address, self.config(), timeout)?;
        self.forget_silence(address);
        Ok(connection)
    }

    /// Where a broker listens.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the view does not know it.
    pub fn address(&self, node_id: i32) -> Result<String, Error> {
        match self.view().brokers.get(&node_id) {
            Some(address) => Ok(address.to_string()),
            None => Err(Error::new(
                ErrorKind::Unreachable,
                format!("broker {node_id} is not in the cluster's metadata"),
            )),
        }
    }

    /// Runs `operation` until it succeeds, fails for good, or [`Patience`] ends; metadata of `topics` is refreshed before each further
    /// try.
    pub(crate) fn retrying<T>(
        &self,
        topics: &[&str],
        mut operation: impl FnMut(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let patience = Patience::new(self.config());
        loop {
            match operation(self) {
                Err(error) if patience.allows_another_try(&error) => {
                    thread::sleep(RETRY_PAUSE);
                    // Its failure shows up as the operation's, with more to say.
                    drop(self.refresh(topics));
                }
                result => return result,
            }
        }
    }
}

/// How long to go on trying.
///
/// A broker that answers "not now" gets one request time-out to change its mind. One that does not answer has used that up with the first
/// try already, and one lost answer must not end a run: that is tried for three time-outs in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    started: Instant,
    request_timeout: Duration,
}

impl Patience {
    /// The longest that all tries take, in request time-outs.
    pub(crate) const UNANSWERED: u32 = 3;

    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            started: Instant::now(),
            request_timeout: config.request_timeout,
        }
    }

    pub(crate) fn allows_another_try(&self, error: &Error) -> bool {
        let limit = match error.kafka_code() {
            Some(_) => self.request_timeout,
            None => self.request_timeout * Self::UNANSWERED,
        };
        error.is_retriable() && self.started.elapsed() + RETRY_PAUSE < limit
    }
}

/// A topic's name in the shape that requests take.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// `Ok` for code 0, else the error that it stands for.
pub(crate) fn check(
    doing: impl std::fmt::Display,
    code: i16,
    said: Option<&str>,
) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    Err(Error::kafka(doing, code, said))
}

/// Runs a request that goes to the coordinator of a group, looking it up again when it moved.
pub(crate) fn at_coordinator<T>(
    client: &Client,
    group: &str,
    mut operation: impl FnMut(&Client, i32) -> Result<T, Error>,
) -> Result<T, Error> {
    let patience = Patience::new(client.config());
    let mut node_id = client.coordinator(CoordinatorKind::Group, group)?;
    loop {
        match operation(client, node_id) {
            Err(error) if patience.allows_another_try(&error) => {
                thread::sleep(RETRY_PAUSE);
                if error.kafka_code().is_none_or(retry::coordinator_moved) {
                    node_id = client.coordinator(CoordinatorKind::Group, group)?;
                }
            }
            result => return result,
        }
    }
}
