//! Who is next: readers and writers take turns, each kind in the order of its coming.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::{Error, Result};

/// What a request does with the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

/// Lets a few requests in at once. While both kinds wait, they go in by turns, so that however many
/// readers there are, a writer waits for one between each two writes, and the other way round.
#[derive(Debug)]
pub(crate) struct Turns {
    at_once: usize,
    /// Most requests of a kind that wait. A kind has a queue of its own, so that one cannot fill the
    /// other's.
    queue: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: usize,
    readers: VecDeque<oneshot::Sender<Turn>>,
    writers: VecDeque<oneshot::Sender<Turn>>,
    last: Access,
}

impl State {
    fn waiting(&mut self, kind: Access) -> &mut VecDeque<oneshot::Sender<Turn>> {
        match kind {
            Access::Read => &mut self.readers,
            Access::Write => &mut self.writers,
        }
    }
}

/// The right to be carried out; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Turns>>);

impl Turns {
    pub(crate) fn new(at_once: usize, queue: usize) -> Arc<Self> {
        Arc::new(Self {
            at_once: at_once.max(1),
            queue,
            state: Mutex::new(State {
                running: 0,
                readers: VecDeque::new(),
                writers: VecDeque::new(),
                last: Access::Write,
            }),
        })
    }

    /// Waits until it is this request's turn. Dropping the future gives the place up.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many of its kind wait.
    pub(crate) async fn take(self: &Arc<Self>, kind: Access) -> Result<Turn> {
        let called = {
            let mut state = self.lock();
            if state.running < self.at_once {
                state.running += 1;
                state.last = kind;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            let waiting = state.waiting(kind);
            if waiting.len() >= self.queue {
                waiting.retain(|waiter| !waiter.is_closed());
            }
            if waiting.len() >= self.queue {
                return Err(Error::Overloaded(format!(
                    "{} requests wait already, the most that may",
                    self.queue
                )));
            }
            let (call, called) = oneshot::channel();
            waiting.push_back(call);
            called
        };
        called
            .await
            .map_err(|_| Error::Internal("a request lost its turn".to_owned()))
    }

    /// How many of a kind wait.
    pub(crate) fn waiting(&self, kind: Access) -> usize {
        let mut state = self.lock();
        let waiting = state.waiting(kind);
        waiting.iter().filter(|waiter| !waiter.is_closed()).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one whose turn it is now; without one, there is a place for whoever comes.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.lock();
        for kind in [state.last.other(), state.last] {
            if let Some(next) = state.waiting(kind).pop_front() {
                state.last = kind;
                return Some(next);
            }
        }
        state.running -= 1;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else {
            return;
        };
        while let Some(next) = turns.next() {
            match next.send(Self(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // Gone meanwhile; the place is still this one's to give away.
                Err(mut given_back) => given_back.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    type Waiting = std::pin::Pin<Box<dyn Future<Output = Result<Turn>>>>;

    fn wait(turns: &Arc<Turns>, kind: Access) -> Waiting {
        let turns = Arc::clone(turns);
        let mut waiting: Waiting = Box::pin(async move { turns.take(kind).await });
        assert!(poll(&mut waiting).is_none(), "there is a place");
        waiting
    }

    fn poll(waiting: &mut Waiting) -> Option<Result<Turn>> {
        match waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn now(turns: &Arc<Turns>, kind: Access) -> Result<Turn> {
        let mut taken = pin!(turns.take(kind));
        match taken.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("no place"),
        }
    }

    #[test]
    fn a_writer_waits_for_one_reader_of_many_and_a_reader_for_one_writer() {
        for many in [Access::Read, Access::Write] {
            let turns = Turns::new(1, 300);
            let mut turn = now(&turns, many).unwrap();
            let mut crowd: VecDeque<Waiting> = (0..200).map(|_| wait(&turns, many)).collect();
            for _ in 0..10 {
                let mut alone = wait(&turns, many.other());
                let mut between = 0;
                loop {
                    drop(turn);
                    if let Some(taken) = poll(&mut alone) {
                        turn = taken.unwrap();
                        break;
                    }
                    between += 1;
                    turn = poll(&mut crowd[0]).expect("in its order").unwrap();
                    crowd.pop_front();
                    crowd.push_back(wait(&turns, many));
                }
                assert!(between <= 1, "{between} of {many:?} came before");
            }
        }
    }

    #[test]
    fn a_queue_that_is_full_refuses_its_kind_alone_and_forgets_who_has_gone() {
        let turns = Turns::new(1, 2);
        let turn = now(&turns, Access::Read).unwrap();
        let readers = [wait(&turns, Access::Read), wait(&turns, Access::Read)];
        assert!(matches!(
            now(&turns, Access::Read),
            Err(Error::Overloaded(why)) if why.starts_with("2 requests")
        ));
        let mut writer = wait(&turns, Access::Write);
        assert_eq!(
            (turns.waiting(Access::Read), turns.waiting(Access::Write)),
            (2, 1)
        );
        drop(readers);
        let mut reader = wait(&turns, Access::Read);
        assert_eq!(turns.waiting(Access::Read), 1);
        drop(turn);
        let turn = poll(&mut writer).expect("its turn").unwrap();
        drop(turn);
        drop(poll(&mut reader).expect("its turn").unwrap());
        assert_eq!(turns.lock().running, 0);
    }

    #[test]
    fn a_turn_that_was_given_to_somebody_who_has_gone_goes_on() {
        let turns = Turns::new(2, 10);
        let running = (
            now(&turns, Access::Read).unwrap(),
            now(&turns, Access::Write).unwrap(),
        );
        let given = wait(&turns, Access::Read);
        let mut next = wait(&turns, Access::Read);
        drop(running.0);
        // It has been called, and does not come.
        drop(given);
        drop(poll(&mut next).expect("its turn").unwrap());
        drop(running.1);
        assert_eq!(turns.lock().running, 0);
        drop((
            now(&turns, Access::Read).unwrap(),
            now(&turns, Access::Read).unwrap(),
        ));
    }
}
