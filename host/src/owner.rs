//! A thread that owns a value; closures are sent to it and run one after the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// The component's calls run on the owner's stack: what Wasmtime grants the guest, and the host's
/// own frames above it.
const STACK_BYTES: usize = crate::component::GUEST_STACK_BYTES + (4 << 20);

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

pub(crate) struct Owner<S> {
    what: &'static str,
    jobs: Option<mpsc::Sender<Job<S>>>,
    thread: Option<JoinHandle<Option<S>>>,
    /// Set when the value is wanted back at the end. Otherwise it is dropped on the owner's
    /// thread, since dropping may call the guest, which needs the stack.
    wanted: Arc<AtomicBool>,
    /// Calls that were sent and have not ended.
    waiting: Arc<AtomicUsize>,
}

/// Counts a call while it is there: until it has ended, and before its caller has the outcome, or
/// until it is clear that nobody carries it out.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn begin(waiting: &Arc<AtomicUsize>) -> Counted {
        waiting.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(waiting))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What an owner does when nothing was asked of it for a while.
struct Idle<S> {
    after: Duration,
    then: fn(&mut S),
}

impl<S: Send + 'static> Owner<S> {
    /// `what` names the thread, and the owner in errors.
    pub(crate) fn spawn(what: &'static str, state: S) -> Result<Owner<S>> {
        Owner::start(what, state, None)
    }

    /// [`Owner::spawn`]; `then` is called when nothing was asked of it for as long as `after`.
    pub(crate) fn spawn_idle(
        what: &'static str,
        state: S,
        after: Duration,
        then: fn(&mut S),
    ) -> Result<Owner<S>> {
        Owner::start(what, state, Some(Idle { after, then }))
    }

    fn start(what: &'static str, mut state: S, idle: Option<Idle<S>>) -> Result<Owner<S>> {
        let waiting = Arc::new(AtomicUsize::new(0));
        let (jobs, inbox) = mpsc::channel::<Job<S>>();
        let wanted = Arc::new(AtomicBool::new(false));
        let give_back = Arc::clone(&wanted);
        let thread = Builder::new()
            .name(format!("edge-sync {what}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Some(job) = next(&inbox, &mut state, idle.as_ref()) {
                    job(&mut state);
                }
                give_back.load(Ordering::Acquire).then_some(state)
            })
            .map_err(Error::io("start a thread for", what))?;
        Ok(Owner {
            what,
            jobs: Some(jobs),
            thread: Some(thread),
            wanted,
            waiting,
        })
    }

    /// How many calls were sent and have not ended.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Runs `job` after those sent before it, and does not wait for it.
    pub(crate) fn tell(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        let counted = Counted::begin(&self.waiting);
        // An owner that is gone needs to be told nothing.
        let _ = self.send(Box::new(move |state| {
            job(state);
            drop(counted);
        }));
    }

    /// Runs `job` on the owner's thread after those sent before it, and waits for the outcome.
    pub(crate) fn call<R, F>(&self, job: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut S) -> Result<R> + Send + 'static,
    {
        let (reply, outcome) = mpsc::sync_channel(1);
        let counted = Counted::begin(&self.waiting);
        self.send(Box::new(move |state| {
            let outcome = job(state);
            drop(counted);
            // A caller that is gone does not need the outcome.
            let _ = reply.send(outcome);
        }))?;
        outcome.recv().map_err(|_| Error::Closed(self.what))?
    }

    /// [`Owner::call`] for async callers. The job runs even if the future is dropped.
    pub(crate) fn call_async<R, F>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<R>> + Send + 'static
    where
        R: Send + 'static,
        F: FnOnce(&mut S) -> Result<R> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let counted = Counted::begin(&self.waiting);
        let sent = self.send(Box::new(move |state| {
            let outcome = job(state);
            drop(counted);
            let _ = reply.send(outcome);
        }));
        let what = self.what;
        async move {
            sent?;
            outcome.await.map_err(|_| Error::Closed(what))?
        }
    }

    /// Ends the thread after the calls that wait, and takes the value back.
    pub(crate) fn into_inner(mut self) -> Result<S> {
        self.wanted.store(true, Ordering::Release);
        self.jobs = None;
        self.thread
            .take()
            .and_then(|thread| thread.join().ok()?)
            .ok_or(Error::Closed(self.what))
    }

    fn send(&self, job: Job<S>) -> Result<()> {
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .ok_or(Error::Closed(self.what))
    }
}

/// The next job; none once nobody can send one.
fn next<S>(
    inbox: &mpsc::Receiver<Job<S>>,
    state: &mut S,
    idle: Option<&Idle<S>>,
) -> Option<Job<S>> {
    if let Some(idle) = idle {
        match inbox.recv_timeout(idle.after) {
            Ok(job) => return Some(job),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => (idle.then)(state),
        }
    }
    inbox.recv().ok()
}

impl<S> Drop for Owner<S> {
    /// Waits for the thread, so that what the value holds (a lock, unflushed data) is released
    /// when the owner is gone.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_run_in_order_on_one_thread_and_the_value_comes_back() {
        let owner = Owner::spawn("test", Vec::new()).unwrap();
        let threads: Vec<_> = (0..10)
            .map(|n| {
                owner
                    .call(move |values: &mut Vec<i32>| {
                        values.push(n);
                        Ok(std::thread::current().id())
                    })
                    .unwrap()
            })
            .collect();
        assert!(threads.iter().all(|id| *id == threads[0]));
        assert_eq!(owner.into_inner().unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_panicking_call_is_an_error_for_it_and_those_after() {
        let owner = Owner::spawn("test", ()).unwrap();
        let outcome: Result<()> = owner.call(|_| panic!("deliberate"));
        assert!(matches!(outcome, Err(Error::Closed("test"))));
        assert!(matches!(owner.call(|_| Ok(())), Err(Error::Closed("test"))));
    }
}
