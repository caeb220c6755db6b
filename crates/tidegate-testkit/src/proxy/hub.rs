//! What the threads of the proxy share: rules, routes and listeners, under one lock with one condition.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{Shutdown, shutdown};

use super::connection::Connection;
use super::rules::InForce;

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Names of topics by their ids, learned from answers.
pub(super) type Topics = BTreeMap<[u8; 16], String>;

/// What is true of the proxy at a moment.
#[derive(Default)]
pub(super) struct State {
    /// Never shortened: a rule is known by its place.
    pub(super) rules: Vec<InForce>,
    pub(super) topics: Topics,
    /// The newest version that brokers seem to know, of APIs by their numbers.
    pub(super) newest: BTreeMap<i16, i16>,
    /// The listener's port for each broker.
    routes: BTreeMap<(String, u16), u16>,
    listeners: Vec<Arc<TcpListener>>,
    connections: Vec<Weak<Connection>>,
    opened: u64,
    pub(super) is_refusing: bool,
    pub(super) refused: u64,
    pub(super) is_closed: bool,
}

/// The shared part of a proxy.
#[derive(Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Hub")
            .field("routes", &state.routes)
            .field("opened", &state.opened)
            .field("rules", &state.rules.len())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// The state, to look at it.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all who wait for something.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// Waits until `done`; false if `deadline` passes first, or the proxy ends.
    pub(super) fn wait(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&State) -> bool,
    ) -> bool {
        let mut state = self.state();
        loop {
            if done(&state) {
                return true;
            }
            if state.is_closed {
                return false;
            }
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The port that leads to the broker at `host`:`port`; opened when it is first asked for.
    pub(super) fn route(self: &Arc<Self>, host: &str, port: u16) -> io::Result<u16> {
        let target = (host.to_owned(), port);
        let mut state = self.state();
        if let Some(port) = state.routes.get(&target) {
            return Ok(*port);
        }
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let local = listener.local_addr()?.port();
        state.routes.insert(target.clone(), local);
        state.listeners.push(Arc::clone(&listener));
        drop(state);
        let hub = Arc::clone(self);
        self.spawn(move || hub.accept(&listener, &target));
        Ok(local)
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(std::thread::spawn(work));
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, target: &(String, u16)) {
        while let Ok((client, _)) = listener.accept() {
            if self.state().is_closed {
                return;
            }
            let is_refused = self.change(|state| {
                state.refused += u64::from(state.is_refusing);
                state.is_refusing
            });
            if is_refused {
                reset_when_closed(&client);
                continue;
            }
            let (hub, target) = (Arc::clone(self), target.clone());
            self.spawn(move || hub.serve(client, &target));
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream, target: &(String, u16)) {
        let Ok(upstream) = connect(target) else {
            // What a client sees of a broker that is not there.
            reset_when_closed(&client);
            return;
        };
        let number = self.change(|state| {
            state.opened += 1;
            state.opened
        });
        let broker = format!("{}:{}", target.0, target.1);
        let connection = Connection::new(Arc::clone(self), number, &broker, client, upstream);
        let Ok(connection) = connection else { return };
        let connection = Arc::new(connection);
        self.change(|state| {
            state
                .connections
                .retain(|connection| connection.strong_count() > 0);
            state.connections.push(Arc::downgrade(&connection));
        });
        if self.state().is_closed {
            return;
        }
        let answering = Arc::clone(&connection);
        self.spawn(move || answering.pass_answers());
        connection.pass_requests();
    }

    /// The connections there are now.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        let state = self.state();
        state.connections.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends all listeners, connections and threads.
    pub(super) fn close(&self) {
        let listeners = self.change(|state| {
            state.is_closed = true;
            std::mem::take(&mut state.listeners)
        });
        for listener in listeners {
            // It wakes who accepts. An error says that it is shut already.
            shutdown(&*listener, Shutdown::Both).ok();
        }
        loop {
            for connection in self.connections() {
                connection.close();
            }
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(thread) = threads.pop() else { return };
            drop(threads);
            drop(thread.join());
        }
    }
}

fn connect((host, port): &(String, u16)) -> io::Result<TcpStream> {
    let mut addresses = (host.as_str(), *port).to_socket_addrs()?;
    let address: SocketAddr = addresses
        .next()
        .ok_or_else(|| io::Error::other("no address"))?;
    TcpStream::connect_timeout(&address, CONNECT_PATIENCE)
}

/// Whoever is at the other end sees a reset as soon as the last handle of the socket is gone.
pub(super) fn reset_when_closed(stream: &TcpStream) {
    // An error says that the other end is gone already.
    set_socket_linger(stream, Some(Duration::ZERO)).ok();
}
