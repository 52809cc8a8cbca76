//! What happens to a shard and its queue, for applications that show it.

use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use crate::error::Error;
use crate::reports::PullReport;
use crate::sync_record::FailureNote;

/// Events that are kept for a listener that does not keep up.
const KEPT: usize = 256;

/// Something happened. An event informs; what is queued and stored is asked of the
/// [`Shard`](crate::Shard).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A write was logged: there may be something to upload.
    Queued,
    /// The server has confirmed operations.
    Uploaded {
        /// How many.
        operations: u64,
    },
    /// The server refused an operation, which is in the rejected log now.
    Rejected {
        /// Its sequence.
        sequence: u64,
        /// The server's words.
        message: String,
    },
    /// What others wrote has been fetched: the shard has changed.
    Pulled {
        /// Points before.
        points_before: u64,
        /// Points now.
        points: u64,
        /// The generation in force.
        generation: u64,
    },
    /// The shard was optimized without being asked for it
    /// ([`Builder::auto_optimize`](crate::Builder::auto_optimize)).
    Optimized {
        /// The generation in force.
        generation: u64,
    },
    /// An exchange with the server, or an optimization that nobody asked for, failed in passing; it is
    /// tried again.
    Waiting(FailureNote),
    /// An exchange with the server failed, and it takes a person to go on. The queue is kept.
    Stopped(FailureNote),
    /// The listener was too slow for so many events, which are gone.
    Missed(u64),
}

/// Where events come from.
#[derive(Clone, Debug)]
pub(crate) struct Hub(broadcast::Sender<Event>);

impl Default for Hub {
    fn default() -> Hub {
        Hub(broadcast::channel(KEPT).0)
    }
}

impl Hub {
    pub(crate) fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.0.send(event);
    }

    pub(crate) fn pulled(&self, report: &PullReport) {
        if let Some(opened) = &report.opened {
            self.tell(Event::Pulled {
                points_before: report.points_before,
                points: report.points,
                generation: opened.generation,
            });
        }
    }

    pub(crate) fn waiting(&self, failure: &Error) {
        self.tell(Event::Waiting(FailureNote::of(failure)));
    }

    /// Somebody's interrupt is no failure.
    pub(crate) fn stopped(&self, failure: &Error) {
        if !matches!(failure, Error::Cancelled) {
            self.tell(Event::Stopped(FailureNote::of(failure)));
        }
    }

    pub(crate) fn listen(&self) -> Events {
        Events(self.0.subscribe())
    }
}

/// The events since it was made; see [`EdgeSync::events`](crate::EdgeSync::events). An iterator that
/// waits for the next one and ends when the [`EdgeSync`](crate::EdgeSync) is gone.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; none when there will be no more. Any executor can run the future, which loses
    /// nothing if it is dropped.
    pub async fn next_async(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// An event that has happened already; none if there is none.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.0.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    /// Waits on the calling thread, which must not be one that runs async tasks.
    fn next(&mut self) -> Option<Event> {
        match self.0.blocking_recv() {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_what_happens_from_then_on_and_is_told_what_it_missed() {
        let hub = Hub::default();
        hub.tell(Event::Queued);
        let mut events = hub.listen();
        assert_eq!(events.try_next(), None);
        hub.stopped(&Error::Cancelled);
        hub.stopped(&Error::Internal("a failure".into()));
        assert!(matches!(events.next(), Some(Event::Stopped(_))));
        for operations in 0..KEPT as u64 + 10 {
            hub.tell(Event::Uploaded { operations });
        }
        assert_eq!(events.next(), Some(Event::Missed(10)));
        assert_eq!(events.next(), Some(Event::Uploaded { operations: 10 }));
        drop(hub);
        assert_eq!(
            events.last(),
            Some(Event::Uploaded {
                operations: KEPT as u64 + 9
            })
        );
    }
}
