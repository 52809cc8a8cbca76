//! A thread that owns a value; closures are sent to it and run one after the other. Where that was
//! asked for, a caller who finds nobody else there runs its closure itself: two threads that wake each
//! other take longer than a short call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::call_stack::CallStack;
use crate::error::{Error, Result};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

pub(crate) struct Actor<S> {
    what: &'static str,
    jobs: Option<mpsc::Sender<Job<S>>>,
    thread: Option<JoinHandle<Option<S>>>,
    value: Arc<Mutex<Option<S>>>,
    /// What callers run their calls on; none where all calls go to the thread. Locked after the value.
    stack: Option<Mutex<CallStack>>,
    /// Set when the value is wanted back at the end. Otherwise it is dropped on the actor's
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

    /// Counts the call if it is the only one.
    fn begin_alone(waiting: &Arc<AtomicUsize>) -> Option<Counted> {
        waiting
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        Some(Counted(Arc::clone(waiting)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What an actor does when nothing was asked of it for a while.
struct Idle<S> {
    after: Duration,
    then: fn(&mut S),
}

impl<S: Send + 'static> Actor<S> {
    /// `what` names the thread, and the actor in errors.
    pub(crate) fn spawn(what: &'static str, value: S) -> Result<Actor<S>> {
        Actor::start(what, value, None)
    }

    /// [`Actor::spawn`]; whoever calls while no other call is there runs it on its own thread.
    pub(crate) fn spawn_lending(what: &'static str, value: S) -> Result<Actor<S>> {
        let mut actor = Actor::start(what, value, None)?;
        actor.stack = CallStack::new()
            .map_err(Error::io("get a stack for", what))?
            .map(Mutex::new);
        Ok(actor)
    }

    /// [`Actor::spawn`]; `then` is called when nothing was asked of it for as long as `after`.
    pub(crate) fn spawn_idle(
        what: &'static str,
        value: S,
        after: Duration,
        then: fn(&mut S),
    ) -> Result<Actor<S>> {
        Actor::start(what, value, Some(Idle { after, then }))
    }

    fn start(what: &'static str, value: S, idle: Option<Idle<S>>) -> Result<Actor<S>> {
        let waiting = Arc::new(AtomicUsize::new(0));
        let (jobs, inbox) = mpsc::channel::<Job<S>>();
        let wanted = Arc::new(AtomicBool::new(false));
        let give_back = Arc::clone(&wanted);
        let value = Arc::new(Mutex::new(Some(value)));
        let owned = Arc::clone(&value);
        let thread = Builder::new()
            .name(format!("edge-sync {what}"))
            .stack_size(CallStack::BYTES)
            .spawn(move || {
                // A panic is an error for its caller and for those after.
                let _ = catch_unwind(AssertUnwindSafe(|| work(&inbox, &owned, idle.as_ref())));
                drop(inbox);
                let is_sound = !owned.is_poisoned();
                let value = lock(&owned).take();
                value.filter(|_| is_sound && give_back.load(Ordering::Acquire))
            })
            .map_err(Error::io("start a thread for", what))?;
        Ok(Actor {
            what,
            jobs: Some(jobs),
            thread: Some(thread),
            value,
            stack: None,
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
        // An actor that is gone needs to be told nothing.
        let _ = self.send(Box::new(move |state| {
            job(state);
            drop(counted);
        }));
    }

    /// Runs `job` after those sent before it, and waits for the outcome.
    pub(crate) fn call<R, F>(&self, job: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut S) -> Result<R> + Send + 'static,
    {
        // WASI's calls wait within a runtime, which a thread of another runtime must not.
        if let Some(stack) = &self.stack
            && Handle::try_current().is_err()
            && let Some(counted) = Counted::begin_alone(&self.waiting)
        {
            return self.call_here(stack, counted, job);
        }
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

    /// Runs `job` on this thread.
    fn call_here<R, F>(&self, stack: &Mutex<CallStack>, counted: Counted, job: F) -> Result<R>
    where
        F: FnOnce(&mut S) -> Result<R>,
    {
        let closed = || Error::Closed(self.what);
        catch_unwind(AssertUnwindSafe(|| {
            let mut value = self.value.lock().map_err(|_| closed())?;
            let value = value.as_mut().ok_or_else(closed)?;
            let outcome = lock(stack).run(|| job(value));
            drop(counted);
            outcome
        }))
        .unwrap_or_else(|_| Err(closed()))
    }

    /// [`Actor::call`] for async callers. The job runs even if the future is dropped.
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

/// Runs jobs until nobody can send one.
fn work<S>(inbox: &mpsc::Receiver<Job<S>>, value: &Mutex<Option<S>>, idle: Option<&Idle<S>>) {
    // Poisoned by a caller's job that panicked.
    let value = || value.lock().ok();
    while let Some(job) = next(inbox, value, idle) {
        match value().as_deref_mut() {
            Some(Some(value)) => job(value),
            _ => return,
        }
    }
}

/// The next job; none once nobody can send one.
fn next<'a, S: 'a>(
    inbox: &mpsc::Receiver<Job<S>>,
    value: impl Fn() -> Option<MutexGuard<'a, Option<S>>>,
    idle: Option<&Idle<S>>,
) -> Option<Job<S>> {
    if let Some(idle) = idle {
        match inbox.recv_timeout(idle.after) {
            Ok(job) => return Some(job),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(value) = value()?.as_mut() {
                    (idle.then)(value);
                }
            }
        }
    }
    inbox.recv().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Drop for Actor<S> {
    /// Waits for the thread, so that what the value holds (a lock, unflushed data) is released
    /// when the actor is gone.
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
        let actor = Actor::spawn("test", Vec::new()).unwrap();
        let threads: Vec<_> = (0..10)
            .map(|n| {
                actor
                    .call(move |values: &mut Vec<i32>| {
                        values.push(n);
                        Ok(std::thread::current().id())
                    })
                    .unwrap()
            })
            .collect();
        assert!(threads.iter().all(|id| *id == threads[0]));
        assert_eq!(actor.into_inner().unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_caller_runs_its_call_itself_unless_another_is_there() {
        let actor = Arc::new(Actor::spawn_lending("test", Vec::new()).unwrap());
        let here = std::thread::current().id();
        let push = |n| {
            move |values: &mut Vec<i32>| {
                values.push(n);
                Ok(std::thread::current().id())
            }
        };
        assert_eq!(actor.call(push(0)).unwrap(), here);
        // In the order sent, though the first of these holds the thread up.
        let (go_on, held_up) = mpsc::channel::<()>();
        actor.tell(move |values| {
            held_up.recv().unwrap();
            values.push(1);
        });
        let other = Arc::clone(&actor);
        let caller = std::thread::spawn(move || {
            let at = other.call(push(2)).unwrap();
            (at, std::thread::current().id())
        });
        while actor.waiting() < 2 {
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        let (at, caller) = caller.join().unwrap();
        assert!(at != caller && at != here);
        let actor = Arc::into_inner(actor).unwrap();
        assert_eq!(actor.into_inner().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn within_a_runtime_the_thread_runs_the_call() {
        let actor = Actor::spawn_lending("test", ()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let at = runtime.block_on(async { actor.call(|()| Ok(std::thread::current().id())) });
        assert_ne!(at.unwrap(), std::thread::current().id());
    }

    #[test]
    fn calls_of_many_threads_are_all_made() {
        let actor = Actor::spawn_lending("test", 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let add = |value: &mut u32| {
                            *value += 1;
                            Ok(())
                        };
                        actor.call(add).unwrap();
                    }
                });
            }
        });
        assert_eq!(actor.into_inner().unwrap(), 4000);
    }

    #[test]
    fn a_call_has_the_stack_that_the_component_needs_on_a_thread_with_less() {
        fn deep(left: usize) -> usize {
            let frame = std::hint::black_box([left; 128]);
            match left {
                0 => 0,
                _ => deep(left - 1) + usize::from(frame[127] == left),
            }
        }
        let actor = Arc::new(Actor::spawn_lending("test", ()).unwrap());
        let small = Builder::new()
            .stack_size(256 << 10)
            .spawn(move || actor.call(|()| Ok(deep(crate::component::GUEST_STACK_BYTES / 1024))));
        assert!(small.unwrap().join().unwrap().unwrap() > 0);
    }

    #[test]
    fn a_panicking_call_is_an_error_for_it_and_those_after() {
        for spawn in [Actor::spawn, Actor::spawn_lending] {
            let actor = spawn("test", ()).unwrap();
            let outcome: Result<()> = actor.call(|_| panic!("deliberate"));
            assert!(matches!(outcome, Err(Error::Closed("test"))));
            assert!(matches!(actor.call(|_| Ok(())), Err(Error::Closed("test"))));
            actor.tell(|_| ());
            assert!(matches!(actor.into_inner(), Err(Error::Closed("test"))));
        }
    }
}
