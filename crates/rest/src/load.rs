//! How much is done and held at once: the limits of an endpoint, and what counts against them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::room::{Reservation, Room};
use crate::turns::{Access, Turn, Turns};
use crate::{Error, Result};

/// Connections beyond the limit that are told so at the same time. Others are closed without a word.
const TURNED_AWAY: usize = 32;

/// What an endpoint does and holds at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests that the backend is given at once: one more than it carries out, which is there when
    /// one has ended.
    pub at_once: usize,
    /// Open connections. One more is answered 503.
    pub connections: usize,
    /// Requests that wait for their turn, of those that read and of those that write each. One more is
    /// answered 503.
    pub queue: usize,
    /// Bytes of request bodies, over all connections. A request whose body finds no room is answered
    /// 503. A quarter is for small bodies alone; one that is larger than the rest is refused.
    pub bodies: usize,
    /// How long the head of a request is waited for, from the connection's beginning or the answer
    /// before; then the connection is closed.
    pub head_time: Duration,
    /// How long a body may take, and a second more for each 64 KiB of it; then it is answered 408.
    pub body_grace: Duration,
    /// How long a client may take nothing of an answer; then the connection is closed.
    pub answer_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            at_once: 2,
            connections: 512,
            queue: 256,
            bodies: 64 * 1024 * 1024,
            head_time: Duration::from_secs(15),
            body_grace: Duration::from_secs(15),
            answer_time: Duration::from_secs(30),
        }
    }
}

/// [`Limits`] in force, shared by the router and the server.
#[derive(Debug)]
pub struct Load {
    pub(crate) limits: Limits,
    pub(crate) turns: Arc<Turns>,
    pub(crate) room: Room,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) turned_away: Arc<Semaphore>,
    pub(crate) counts: Counts,
}

/// What was refused for what reason.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) queue: AtomicU64,
    pub(crate) bodies: AtomicU64,
    pub(crate) slow_bodies: AtomicU64,
}

impl Load {
    /// Nothing is done or held yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            turns: Turns::new(limits.at_once, limits.queue),
            room: Room::new(limits.bodies),
            connections: Arc::new(Semaphore::new(limits.connections)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            counts: Counts::default(),
            limits,
        })
    }

    /// The largest request body that there can be room for.
    pub fn largest_body(&self) -> usize {
        self.room.largest()
    }

    /// Waits until it is the request's turn.
    pub(crate) async fn turn(&self, kind: Access) -> Result<Turn> {
        let turn = self.turns.take(kind).await;
        if turn.is_err() {
            self.counts.queue.fetch_add(1, Ordering::Relaxed);
        }
        turn
    }

    /// Takes room for a body of `bytes`.
    pub(crate) fn hold_body(&self, bytes: usize) -> Result<Reservation> {
        let mut held = Reservation::default();
        self.room
            .hold(&mut held, bytes)
            .inspect_err(|_| self.count_body())?;
        Ok(held)
    }

    /// What `read` gives, if it takes no longer than the smallest body may.
    pub(crate) async fn in_body_time<T>(&self, read: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.limits.body_grace, read)
            .await
            .map_err(|_| {
                self.counts.slow_bodies.fetch_add(1, Ordering::Relaxed);
                too_slow()
            })
    }

    pub(crate) fn count_body(&self) {
        self.counts.bodies.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub(crate) fn open_connections(&self) -> usize {
        let free = self.connections.available_permits();
        self.limits.connections.saturating_sub(free)
    }
}

/// The answer to a body that comes too slowly.
pub(crate) fn too_slow() -> Error {
    Error::Refused {
        status: 408,
        message: "Request timeout: the body comes too slowly".to_owned(),
    }
}
