//! The order of an upload: what is asked next, and what is done with the answer.
//!
//! Invariants, whatever the server and whatever stands in front of it do:
//! - the queue moves on only over operations that the server confirmed in the shape of the request,
//!   or that were put aside;
//! - an operation is put aside only for an answer of Qdrant that refuses it, or for failing alone,
//!   several times, while the server confirms another write;
//! - a refusal in the same words for [`MOST_ALIKE`] operations in a row stops the queue;
//! - nothing is sent before the collection was found to be the one that holds what was acknowledged.

use std::time::Duration;

use crate::answer::{Answer, NoAnswer, Request};
use crate::backoff::{Backoff, BackoffOptions};
use crate::binding::{Binding, Target};
use crate::collection::{LocalVectors, ServerCollection, creation_body};
use crate::facts::Facts;
pub use crate::sizes::Limits;
use crate::sizes::Sizes;
use crate::verdict::{Class, Failure, Verdict, judge_read, judge_write, no_answer};
use crate::words::fingerprint;

/// So many operations in a row may be put aside with the same words; the next such refusal stops the
/// queue. It may be about every write: a limit of the collection, a missing shard key.
pub const MOST_ALIKE: u32 = 5;

/// A point that no device writes. Deleting it changes nothing and shows whether writes pass, and how
/// far the server has numbered its operations.
pub const PROBE_POINT: &str = "ed6e0000-5e1f-8000-8000-000000000000";

/// Failures without a usable answer of one operation alone before it is put aside.
const LONE_FAILURES: u32 = 3;

/// The server's own time limit, in seconds, once ours has cut a write off: less than the host's 60 s,
/// so that the server can say that it has taken the write.
const SERVER_TIMEOUT: u32 = 45;

/// Confirmed requests after which an idle worker asks how many points the server holds.
const CONCLUDE_AFTER: u32 = 100;

/// A refused request of fewer bytes than this says more about the server than about the operation.
const SMALL_REQUEST: usize = 64 << 10;

/// How to upload.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most operations and bytes of a request, and most points of one operation in it. Default: 10
    /// operations, 8 MiB, 10,000 points.
    pub limits: Limits,
    /// Waits between attempts.
    pub backoff: BackoffOptions,
    /// Failures in a row after which [`Uploader::gives_up`]. Default: 8.
    pub attempts: u32,
    /// Longest wait that a run in the foreground does. Default: 1 minute.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits {
                operations: 10,
                bytes: 8 << 20,
                points: 10_000,
                present_only: false,
            },
            backoff: BackoffOptions::default(),
            attempts: 8,
            patience: Duration::from_secs(60),
        }
    }
}

/// What a person has allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Take the place that the settings name for the one that was bound before.
    pub rebind: bool,
    /// Everything that the shard holds is queued again: a collection that is gone may be made anew,
    /// and one that is another may be taken.
    pub resend: bool,
}

/// A run of the log that one request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first operation of the run.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Operations that the request stands for.
    pub operations: u32,
    /// Points of the first operation that the request carries.
    pub points: u32,
    /// Points of the first operation that come after them.
    pub rest: u32,
    /// The request.
    pub request: Request,
}

/// How far an operation that goes out in pieces has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The operation.
    pub sequence: u64,
    /// Points of it that are dealt with.
    pub points: u32,
}

/// Where the queue and the shard stand.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The last operation that the server confirmed, or that was put aside.
    pub acknowledged: u64,
    /// Whether the shard was ever restored from a server.
    pub restored: bool,
    /// How many operations at the end of what is dealt with were put aside without a gap, in the
    /// same words.
    pub refused_in_a_row: u32,
    /// The words of the last of them.
    pub refused_words: String,
    /// Their HTTP status.
    pub refused_status: u16,
    /// The collection that holds what was acknowledged.
    pub binding: Option<Binding>,
    /// The shard's configuration: the body of `PUT /collections/{c}`; empty without a shard.
    pub config: String,
    /// The configuration that the shard was made from.
    pub creation: String,
}

/// The shard's side.
pub trait Queue {
    /// What the driver's own side fails with.
    type Error;

    /// The next operations, from the first one that is not acknowledged. `done`: how far the first
    /// one has come; nothing if that is another operation. None when nothing waits.
    ///
    /// # Errors
    /// The shard's.
    fn next_batch(
        &mut self,
        limits: Limits,
        until: Option<u64>,
        done: Option<Progress>,
    ) -> Result<Option<Batch>, Self::Error>;

    /// The server has confirmed everything up to `last`.
    ///
    /// # Errors
    /// The shard's.
    fn acknowledge(&mut self, last: u64) -> Result<(), Self::Error>;

    /// Puts the first operation aside.
    ///
    /// # Errors
    /// The shard's.
    fn reject(&mut self, sequence: u64, status: u16, message: &str) -> Result<(), Self::Error>;

    /// Where the queue and the shard stand.
    ///
    /// # Errors
    /// The shard's.
    fn standing(&mut self) -> Result<Standing, Self::Error>;

    /// Names of vectors that queued operations add or drop.
    ///
    /// # Errors
    /// The shard's.
    fn changing_vectors(&mut self) -> Result<Vec<String>, Self::Error>;

    /// Keeps, durably, which collection it is.
    ///
    /// # Errors
    /// The shard's.
    fn bind(&mut self, binding: &Binding) -> Result<(), Self::Error>;
}

/// The network's side.
pub trait Server {
    /// What the driver's own side fails with.
    type Error;

    /// Sends one request and reads the answer whole.
    ///
    /// # Errors
    /// Of the driver; that there is no answer is none.
    fn exchange(&mut self, request: &Request) -> Result<Result<Answer, NoAnswer>, Self::Error>;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// A new UUID.
    fn fresh_id(&mut self) -> String;
}

/// What one step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing waits.
    Done,
    /// The collection is the right one; true if it was created just now.
    Collection {
        /// Whether it was created.
        created: bool,
    },
    /// The server confirmed a request. It ended so many operations; none if it was a piece.
    Uploaded {
        /// Operations that are done with.
        operations: u32,
    },
    /// An operation was put aside.
    Rejected {
        /// Which.
        sequence: u64,
        /// Why.
        failure: Failure,
    },
    /// Go on at once.
    Again,
    /// Passing: go on after this long.
    Wait {
        /// How long.
        after: Duration,
        /// Why.
        failure: Failure,
    },
    /// Going on is pointless until a person has changed something.
    Stop(Failure),
}

/// What the check before a restore came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreCheck {
    /// The collection may be restored from; the binding to store with the switch.
    Ready(Binding),
    /// Passing: ask again after this long.
    Wait {
        /// How long.
        after: Duration,
        /// Why.
        failure: Failure,
    },
    /// A person is needed.
    Stop(Failure),
}

/// What is known of the first operation of the queue.
#[derive(Debug, Default)]
struct Head {
    sequence: u64,
    /// Points of it that are dealt with.
    done: u32,
    present_only: bool,
    /// Why it goes to the rejected log in the end, although a part of it was confirmed.
    refusal: Option<Failure>,
    /// Failures without a usable answer while it was alone.
    lone_failures: u32,
    /// How often the server took it without confirming it.
    taken: u32,
}

/// Refusals in a row.
#[derive(Debug, Default)]
struct Streak {
    count: u32,
    words: String,
}

/// What a write that changes nothing showed.
enum Probe {
    Passes,
    Fails(Failure),
    Stops(Failure),
}

/// Uploads step by step, and remembers what it learnt about the server.
#[derive(Debug)]
pub struct Uploader {
    target: Target,
    options: Options,
    permissions: Permissions,
    backoff: Backoff,
    sizes: Sizes,
    head: Head,
    streak: Streak,
    /// Failures in a row without a usable answer.
    unclear: u32,
    server_timeout: bool,
    /// Requests that were confirmed since the server was last asked how many points it holds.
    confirmed: u32,
    /// The collection was found to be the right one.
    ready: bool,
    binding: Binding,
    /// What `binding` says in the directory.
    stored: Option<Binding>,
    /// Operation numbers of the collection come from one sequence.
    numbered: bool,
}

impl Uploader {
    /// An uploader to one collection. `seed` makes the jitter of the waits.
    pub fn new(target: Target, options: Options, seed: u64) -> Self {
        Self {
            target,
            backoff: Backoff::new(options.backoff.clone(), seed),
            sizes: Sizes::new(options.limits),
            options,
            permissions: Permissions::default(),
            head: Head::default(),
            streak: Streak::default(),
            unclear: 0,
            server_timeout: false,
            confirmed: 0,
            ready: false,
            binding: Binding::default(),
            stored: None,
            numbered: false,
        }
    }

    /// What a person allows from now on. The collection is looked at again.
    pub fn permit(&mut self, permissions: Permissions) {
        self.permissions = permissions;
        self.ready = false;
    }

    /// Whether the collection has been looked at.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The collection that was found.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The collection is looked at again before anything is sent.
    pub fn forget(&mut self) {
        self.ready = false;
        self.head = Head::default();
    }

    /// Begins a new row of attempts.
    pub fn begin(&mut self) {
        self.backoff.reset();
    }

    /// Whether a run in the foreground should end instead of doing this wait.
    pub fn gives_up(&self, after: Duration) -> bool {
        self.backoff.failures() >= self.options.attempts || after > self.options.patience
    }

    /// Does the next thing. An error is the driver's; what the server or the way to it fails at is a
    /// step.
    ///
    /// # Errors
    /// The driver's.
    pub fn step<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        until: Option<u64>,
    ) -> Result<Step, E> {
        let mut limits = self.sizes.now();
        limits.present_only = self.head.present_only;
        let done = Progress {
            sequence: self.head.sequence,
            points: self.head.done,
        };
        let Some(batch) = queue.next_batch(limits, until, Some(done))? else {
            return Ok(Step::Done);
        };
        if !self.ready {
            return self.prepare(queue, server, true);
        }
        if batch.first != self.head.sequence {
            self.head = Head {
                sequence: batch.first,
                ..Head::default()
            };
        }
        // It was taken before: perhaps it is applied by now.
        if self.head.taken > 1
            && let Some(facts) = Facts::of(&batch.request)
        {
            match ask(server, &facts.question())? {
                Ok(result) if facts.hold(&result) => return self.advance(queue, &batch),
                Ok(_) if !self.head.taken.is_multiple_of(4) => {
                    self.head.taken += 1;
                    return Ok(self.wait(not_applied(&batch.request)));
                }
                // Asked again for a confirmation, with the write that is idempotent.
                Ok(_) => {}
                Err(failure) => return Ok(self.passing(failure)),
            }
        }
        let mut request = batch.request.clone();
        if self.server_timeout {
            let separator = if request.path.contains('?') { '&' } else { '?' };
            request.path = format!("{}{separator}timeout={SERVER_TIMEOUT}", request.path);
        }
        match write(server, &request)? {
            Verdict::Confirmed { operation } => match self.note_operation(operation) {
                Ok(()) => self.advance(queue, &batch),
                Err(why) => self.lost(queue, &batch.request, why),
            },
            Verdict::Taken => {
                self.head.taken += 1;
                Ok(self.wait(not_applied(&batch.request)))
            }
            Verdict::Failed(failure) => self.failed(queue, server, &batch, failure),
        }
    }

    fn failed<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        failure: Failure,
    ) -> Result<Step, E> {
        // Our own time limit for the server may be more than its strict mode takes.
        if self.server_timeout && failure.class == Class::Reject {
            self.server_timeout = false;
            if failure.message.to_lowercase().contains("timeout") {
                return Ok(Step::Again);
            }
        }
        match failure.class {
            Class::Stop => Ok(self.stop(failure)),
            Class::Retry => {
                // A rate limit counts points, so that less at once may pass.
                let limited = failure.status == Some(429);
                let shrunk = limited && self.sizes.shrink(batch.operations, batch.points, 2);
                if shrunk && failure.retry_after.is_none() {
                    return Ok(Step::Again);
                }
                Ok(self.wait(failure))
            }
            Class::TooLarge => self.too_large(queue, batch, failure),
            Class::Reject => {
                // An answer, whatever it says, ends a row of failures to get one.
                self.answered();
                if self.sizes.shrink(batch.operations, 1, 2) {
                    return Ok(Step::Again);
                }
                self.put_aside(queue, batch, failure, true)
            }
            Class::Missing => self.missing(queue, server, batch, failure),
            Class::Unclear => self.unclear(queue, server, batch, failure),
        }
    }

    fn too_large<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        batch: &Batch,
        mut failure: Failure,
    ) -> Result<Step, E> {
        self.answered();
        let bytes = batch.request.body.len();
        let counts_points = failure.status == Some(429);
        if counts_points {
            self.sizes.too_many_operations(batch.operations);
        } else {
            self.sizes.too_many_bytes(bytes);
        }
        if self.sizes.shrink(batch.operations, batch.points, 2) {
            return Ok(Step::Again);
        }
        if counts_points {
            // One point is more than the server's limit: nothing will pass until that is raised.
            return Ok(self.stop(failure));
        }
        failure.message = format!(
            "the operation has {bytes} bytes, more than the server takes: {}",
            failure.message
        );
        self.put_aside(queue, batch, failure, bytes < SMALL_REQUEST)
    }

    /// The server does not have what the request names. Is it the collection, or a point?
    fn missing<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        failure: Failure,
    ) -> Result<Step, E> {
        if let Err(description) = describe(server)? {
            if description.class == Class::Missing {
                self.ready = false;
                let why = "the collection was deleted while operations were uploaded to it";
                return self.lost(queue, &batch.request, why.to_owned());
            }
            return Ok(self.passing(description));
        }
        self.answered();
        // What is to go is gone.
        if batch.request.method == "DELETE" {
            return self.advance(queue, batch);
        }
        if self.sizes.shrink(batch.operations, 1, 2) {
            return Ok(Step::Again);
        }
        if batch.points > 1 && !self.head.present_only {
            self.head.present_only = true;
            self.head.refusal = Some(failure);
            return Ok(Step::Again);
        }
        if batch.rest > 0 {
            // The other points of the operation still get their change.
            self.head.done += batch.points;
            self.head.refusal.get_or_insert(failure);
            return Ok(Step::Again);
        }
        self.put_aside(queue, batch, failure, false)
    }

    /// No usable answer. It may be passing, and it may be about this very request.
    fn unclear<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        failure: Failure,
    ) -> Result<Step, E> {
        self.unclear += 1;
        self.server_timeout |= failure.perhaps_applied;
        let foreign = failure
            .status
            .is_some_and(|status| !(500..=599).contains(&status) && status != 408);
        let alone = batch.operations == 1 && batch.points <= 1;
        if foreign {
            // Something answered that is not Qdrant: to this request, or to every one?
            match self.probe(queue, server)? {
                Probe::Passes => {}
                Probe::Fails(probe) => {
                    let denied = matches!(probe.status, Some(401 | 403));
                    return Ok(if denied {
                        self.stop(failure.with_class(Class::Stop))
                    } else {
                        self.wait(failure)
                    });
                }
                Probe::Stops(probe) => return Ok(self.stop(probe)),
            }
            if self.sizes.shrink(batch.operations, batch.points, 2) {
                return Ok(Step::Again);
            }
            self.head.lone_failures += 1;
            if self.head.lone_failures < 2 {
                return Ok(self.wait(failure));
            }
            return self.put_aside(queue, batch, failure, true);
        }
        // The way may be too slow for this much in one go. A failing server gets a second try first.
        if failure.perhaps_applied || self.unclear > 1 {
            self.sizes.shrink(batch.operations, batch.points, 8);
        }
        if alone {
            self.head.lone_failures += 1;
            if self.head.lone_failures >= LONE_FAILURES {
                match self.probe(queue, server)? {
                    Probe::Passes => return self.put_aside(queue, batch, failure, true),
                    Probe::Stops(probe) => return Ok(self.stop(probe)),
                    Probe::Fails(_) => {}
                }
            }
        }
        Ok(self.wait(failure))
    }

    /// Writes nothing, in the way of every write.
    fn probe<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
    ) -> Result<Probe, E> {
        Ok(match self.send_probe(server)? {
            Verdict::Confirmed { operation } => match self.note_operation(operation) {
                Ok(()) => Probe::Passes,
                Err(why) => match self.lost(queue, &probe_request(), why)? {
                    Step::Stop(failure) => Probe::Stops(failure),
                    _ => Probe::Passes,
                },
            },
            Verdict::Taken => Probe::Passes,
            Verdict::Failed(failure) => match failure.class {
                Class::Missing | Class::Stop => Probe::Stops(failure.with_class(Class::Stop)),
                // Qdrant itself answers.
                Class::Reject => Probe::Passes,
                Class::Retry | Class::Unclear | Class::TooLarge => Probe::Fails(failure),
            },
        })
    }

    fn send_probe<E>(&mut self, server: &mut impl Server<Error = E>) -> Result<Verdict, E> {
        write(server, &probe_request())
    }

    /// Moves the single operation of `batch` to the rejected log. `counts`: whether refusals in the
    /// same words may be about every write.
    fn put_aside<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        batch: &Batch,
        failure: Failure,
        counts: bool,
    ) -> Result<Step, E> {
        let words = fingerprint(&failure.message);
        if counts && self.streak.count >= MOST_ALIKE && self.streak.words == words {
            let message = format!(
                "{MOST_ALIKE} operations in a row were refused in the same words, so every write \
                 may be: {}. Put the collection right, then queue them again (`rejected retry \
                 --all`); or move operations out of the way (`queue skip`)",
                failure.message
            );
            return Ok(self.stop(Failure {
                class: Class::Stop,
                message,
                ..failure
            }));
        }
        let status = failure.status.unwrap_or_default();
        queue.reject(batch.first, status, &failure.message)?;
        if counts {
            if self.streak.words == words {
                self.streak.count += 1;
            } else {
                self.streak = Streak { count: 1, words };
            }
        }
        self.head = Head::default();
        self.sizes.restart();
        self.answered();
        Ok(Step::Rejected {
            sequence: batch.first,
            failure,
        })
    }

    /// The server has applied the request of `batch`.
    fn advance<E>(&mut self, queue: &mut impl Queue<Error = E>, batch: &Batch) -> Result<Step, E> {
        self.answered();
        self.confirmed = self.confirmed.saturating_add(1);
        self.streak = Streak::default();
        self.sizes.grow();
        let first_number = self
            .stored
            .as_ref()
            .is_some_and(|it| it.operation.is_none())
            && self.binding.operation.is_some();
        if first_number {
            self.store_binding(queue)?;
        }
        if batch.rest > 0 {
            self.head.done += batch.points;
            (self.head.lone_failures, self.head.taken) = (0, 0);
            return Ok(Step::Uploaded { operations: 0 });
        }
        let head = std::mem::take(&mut self.head);
        match head.refusal {
            Some(failure) => {
                let status = failure.status.unwrap_or_default();
                queue.reject(batch.first, status, &failure.message)?;
                Ok(Step::Rejected {
                    sequence: batch.first,
                    failure,
                })
            }
            None => {
                queue.acknowledge(batch.last)?;
                Ok(Step::Uploaded {
                    operations: batch.operations,
                })
            }
        }
    }

    fn answered(&mut self) {
        self.backoff.reset();
        self.unclear = 0;
    }

    fn wait(&mut self, failure: Failure) -> Step {
        Step::Wait {
            after: self.backoff.next(failure.retry_after),
            failure,
        }
    }

    fn stop(&mut self, failure: Failure) -> Step {
        self.ready = false;
        Step::Stop(failure.with_class(Class::Stop))
    }

    /// A failure that says nothing about any operation.
    fn passing(&mut self, failure: Failure) -> Step {
        match failure.class {
            Class::Retry | Class::Unclear if !matches!(failure.status, Some(403)) => {
                self.wait(failure)
            }
            _ => self.stop(failure),
        }
    }

    /// The collection is not the one that it was. That is kept, since it may look right again later,
    /// when others have written to it.
    fn lost<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        request: &Request,
        why: String,
    ) -> Result<Step, E> {
        if self.stored.is_some() {
            self.binding.lost = Some(why.clone());
            self.store_binding(queue)?;
        }
        Ok(self.stop(Failure::stop(&request.describe(), lost_words(&why))))
    }

    /// Notes a number that the server gave an operation; why the collection cannot be the one that
    /// it was, if the number is not above all before it.
    fn note_operation(&mut self, operation: Option<u64>) -> Result<(), String> {
        let (true, Some(operation)) = (self.numbered, operation) else {
            return Ok(());
        };
        if let Some(known) = self.binding.operation
            && operation <= known
        {
            return Err(format!(
                "the collection counts its operations from before ({operation}, where {known} was \
                 reached): it was made anew, or went back to a backup"
            ));
        }
        self.binding.operation = Some(operation);
        Ok(())
    }

    fn store_binding<E>(&mut self, queue: &mut impl Queue<Error = E>) -> Result<(), E> {
        if self.stored.as_ref() != Some(&self.binding) {
            queue.bind(&self.binding)?;
            self.stored = Some(self.binding.clone());
        }
        Ok(())
    }

    /// Looks at the collection, even if nothing waits: makes it if this device may, and finds out
    /// whether it is the one that holds what was acknowledged.
    ///
    /// # Errors
    /// The driver's.
    pub fn prepare<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        may_create: bool,
    ) -> Result<Step, E> {
        let standing = queue.standing()?;
        self.streak = if standing.refused_status == 404 {
            Streak::default()
        } else {
            Streak {
                count: standing.refused_in_a_row,
                words: standing.refused_words.clone(),
            }
        };
        let fresh = standing.binding.is_none() && standing.acknowledged == 0 && !standing.restored;
        if let Some(failure) = self.other_place(standing.binding.as_ref()) {
            return Ok(self.stop(failure));
        }
        let local = LocalVectors::read(&standing.config, &standing.creation);
        let mut created = false;
        let description = match describe(server)? {
            Err(failure) if failure.class == Class::Missing => {
                let request = failure.request.clone();
                if !may_create || !(fresh || self.permissions.resend) {
                    return Ok(self.stop(Failure::stop(&request, gone_words(&standing))));
                }
                let config = if self.permissions.resend {
                    &standing.config
                } else {
                    &standing.creation
                };
                match self.create(server, config)? {
                    Ok(made) => created = made,
                    Err(failure) => return Ok(self.passing(failure)),
                }
                describe(server)?
            }
            other => other,
        };
        let description = match description {
            Ok(description) => description,
            Err(failure) => return Ok(self.passing(failure)),
        };
        let may = match description.may_upload(&local, &[]) {
            Ok(()) => Ok(()),
            Err(_) => {
                let changing = queue.changing_vectors()?;
                description.may_upload(&local, &changing)
            }
        };
        if let Err(why) = may {
            return Ok(self.stop(Failure::stop("GET /collections/…", why)));
        }
        let bound = standing.binding.clone();
        if let Some(step) = self.identify(queue, server, bound, &description)? {
            return Ok(step);
        }
        self.store_binding(queue)?;
        self.permissions = Permissions::default();
        self.ready = true;
        Ok(Step::Collection { created })
    }

    /// Looks at the collection before a restore. It is never made here. `standing`: none where there
    /// is no shard yet. `force`: take the collection whatever it is.
    ///
    /// # Errors
    /// The driver's.
    pub fn check_restore<E>(
        &mut self,
        standing: Option<&Standing>,
        server: &mut impl Server<Error = E>,
        force: bool,
    ) -> Result<RestoreCheck, E> {
        let bound = standing.and_then(|standing| standing.binding.clone());
        if !force && let Some(failure) = self.other_place(bound.as_ref()) {
            return Ok(RestoreCheck::Stop(failure));
        }
        let as_check = |step| match step {
            Step::Wait { after, failure } => RestoreCheck::Wait { after, failure },
            Step::Stop(failure) => RestoreCheck::Stop(failure),
            _ => RestoreCheck::Stop(Failure::stop("restore", "the check ended in an odd step")),
        };
        let description = match describe(server)? {
            Ok(description) => description,
            Err(failure) if failure.class == Class::Missing => {
                let words = match standing {
                    Some(standing) if standing.acknowledged > 0 => gone_words(standing),
                    _ => failure.message.clone(),
                };
                return Ok(RestoreCheck::Stop(Failure {
                    class: Class::Stop,
                    message: words,
                    ..failure
                }));
            }
            Err(failure) => return Ok(as_check(self.passing(failure))),
        };
        let local =
            standing.map(|standing| LocalVectors::read(&standing.config, &standing.creation));
        if let Err(why) = description.may_restore(local.as_ref()) {
            return Ok(RestoreCheck::Stop(Failure::stop("GET /collections/…", why)));
        }
        let alias_of = self.alias(server)?;
        if !force
            && let Some(bound) = &bound
            && let Some(why) = another(bound, &description, alias_of.as_deref())
        {
            return Ok(RestoreCheck::Stop(Failure::stop(
                "GET /collections/…",
                lost_words(&why),
            )));
        }
        self.numbered = description.numbers_operations();
        self.binding = Binding {
            url: self.target.url.clone(),
            collection: self.target.collection.clone(),
            alias_of,
            id: description.id.clone(),
            operation: bound.filter(|_| !force).and_then(|bound| bound.operation),
            points: description.points.unwrap_or_default(),
            lost: None,
        };
        // How far the collection has counted, so that it can be told from one made anew later. A key
        // that only permits reading does without.
        if self.numbered
            && let Verdict::Confirmed { operation } = self.send_probe(server)?
            && let Err(why) = self.note_operation(operation)
        {
            return Ok(RestoreCheck::Stop(Failure::stop(
                "POST /collections/…/points/batch",
                lost_words(&why),
            )));
        }
        Ok(RestoreCheck::Ready(self.binding.clone()))
    }

    /// The binding that a restore has put into the directory, together with what it restored. The
    /// collection has been looked at.
    pub fn restored(&mut self, binding: &Binding) {
        self.binding = binding.clone();
        self.stored = Some(binding.clone());
        self.ready = true;
    }

    /// The collection has been looked at before a restore, and the queue may be drained to it.
    ///
    /// # Errors
    /// The driver's.
    pub fn accept<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        binding: &Binding,
    ) -> Result<(), E> {
        self.binding = binding.clone();
        self.store_binding(queue)?;
        self.ready = true;
        Ok(())
    }

    /// Asks the server how many points it holds now, for the next time. To be called at the end of a
    /// run that uploaded something.
    ///
    /// # Errors
    /// The driver's.
    pub fn conclude<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
    ) -> Result<(), E> {
        if !self.ready {
            return Ok(());
        }
        self.confirmed = 0;
        if let Ok(description) = describe(server)?
            && let Some(points) = description.points
        {
            self.binding.points = points;
        }
        self.store_binding(queue)
    }

    /// [`Uploader::conclude`], for a worker that is idle after every few writes: not each time.
    ///
    /// # Errors
    /// The driver's.
    pub fn conclude_now_and_then<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
    ) -> Result<(), E> {
        if self.confirmed < CONCLUDE_AFTER {
            return Ok(());
        }
        self.conclude(queue, server)
    }

    /// The settings name another place than the one that was bound.
    fn other_place(&self, bound: Option<&Binding>) -> Option<Failure> {
        let bound = bound?;
        let permitted = self.permissions.rebind || self.permissions.resend;
        if permitted {
            return None;
        }
        if let Some(why) = &bound.lost {
            return Some(Failure::stop("GET /collections/…", lost_words(why)));
        }
        (!bound.is_at(&self.target)).then(|| {
            Failure::stop(
                "settings",
                format!(
                    "this shard is in step with the collection `{}` at {}, and the settings name \
                     `{}` at {}. If that is the same collection in a new place, use --rebind; to \
                     send everything to it, --rebind --resend",
                    bound.collection, bound.url, self.target.collection, self.target.url
                ),
            )
        })
    }

    fn create<E>(
        &mut self,
        server: &mut impl Server<Error = E>,
        config: &str,
    ) -> Result<Result<bool, Failure>, E> {
        let id = server.fresh_id();
        let body = match creation_body(config, &id) {
            Ok(body) => body,
            Err(why) => return Ok(Err(Failure::stop("PUT /collections/…", why))),
        };
        Ok(match write(server, &Request::new("PUT", "", body))? {
            Verdict::Confirmed { .. } => Ok(true),
            // Another device was faster.
            Verdict::Failed(failure) if failure.status == Some(409) => Ok(false),
            Verdict::Failed(failure) => Err(failure),
            Verdict::Taken => Ok(true),
        })
    }

    /// Which collection the name leads to, if it is an alias. A server that does not say is taken by
    /// its word.
    fn alias<E>(&mut self, server: &mut impl Server<Error = E>) -> Result<Option<String>, E> {
        let request = Request {
            server_wide: true,
            ..Request::new("GET", "/aliases", "")
        };
        let Ok(result) = ask(server, &request)? else {
            return Ok(None);
        };
        let aliases = result.get("aliases").and_then(|aliases| aliases.as_array());
        Ok(aliases
            .into_iter()
            .flatten()
            .find(|alias| {
                alias.get("alias_name").and_then(|name| name.as_str())
                    == Some(self.target.collection.as_str())
            })
            .and_then(|alias| alias.get("collection_name")?.as_str().map(str::to_owned)))
    }

    /// Whether the collection that is there is the one that was bound; a step if not.
    fn identify<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        bound: Option<Binding>,
        description: &ServerCollection,
    ) -> Result<Option<Step>, E> {
        let alias_of = self.alias(server)?;
        self.numbered = description.numbers_operations();
        let new = Binding {
            url: self.target.url.clone(),
            collection: self.target.collection.clone(),
            alias_of,
            id: description.id.clone(),
            operation: None,
            points: description.points.unwrap_or_default(),
            lost: None,
        };
        let Some(bound) = bound.filter(|_| !self.permissions.resend) else {
            self.stored = None;
            self.binding = new;
            return Ok(None);
        };
        self.stored = Some(bound.clone());
        self.binding = bound.clone();
        let request = Request::new("GET", "", "");
        if let Some(why) = another(&bound, description, new.alias_of.as_deref()) {
            return self.lost(queue, &request, why).map(Some);
        }
        self.binding = Binding {
            // Kept until the number of operations has shown that deletions explain fewer points.
            points: bound.points.max(new.points),
            operation: bound.operation,
            ..new
        };
        // Without an identity in its metadata, or with fewer points than before, the numbers of its
        // operations tell.
        let fewer = self.binding.points > description.points.unwrap_or(u64::MAX);
        let unproven = bound.id.is_none();
        let provable = self.numbered && bound.operation.is_some();
        if !provable && lost_many(bound.points, description.points) {
            let why = format!(
                "the collection holds {} points where it held {}",
                description.points.unwrap_or_default(),
                bound.points
            );
            return Ok(Some(
                self.stop(Failure::stop(&request.describe(), lost_words(&why))),
            ));
        }
        if provable && (fewer || unproven) {
            match self.probe(queue, server)? {
                Probe::Passes => {}
                Probe::Fails(failure) => return Ok(Some(self.passing(failure))),
                Probe::Stops(failure) => return Ok(Some(self.stop(failure))),
            }
        }
        self.binding.points = description.points.unwrap_or(bound.points);
        Ok(None)
    }
}

/// Why the collection that is there cannot be the bound one, as far as its description tells.
fn another(
    bound: &Binding,
    description: &ServerCollection,
    alias_of: Option<&str>,
) -> Option<String> {
    if bound.id.is_some() && bound.id != description.id {
        return Some("the collection was made anew: it has another identity".to_owned());
    }
    if let (Some(before), Some(now)) = (bound.alias_of.as_deref(), alias_of)
        && before != now
    {
        return Some(format!(
            "the alias `{}` leads to the collection `{now}` now, not to `{before}`",
            bound.collection
        ));
    }
    None
}

/// Whether so few points are left that deletions alone are an unlikely reason.
fn lost_many(before: u64, now: Option<u64>) -> bool {
    now.unwrap_or_default() < before / 2
}

fn lost_words(why: &str) -> String {
    format!(
        "{why}. Nothing was uploaded. `sync --resend` sends it everything that this shard holds; \
         `restore --force` takes what it holds instead"
    )
}

fn gone_words(standing: &Standing) -> String {
    let held = if standing.acknowledged > 0 {
        format!(
            "to which {} operations were uploaded",
            standing.acknowledged
        )
    } else {
        "from which this shard was restored".to_owned()
    };
    format!(
        "the collection {held} is not there. Nothing was created. `sync --resend` creates it and \
         sends it everything that this shard holds"
    )
}

fn not_applied(request: &Request) -> Failure {
    Failure {
        class: Class::Unclear,
        status: Some(200),
        request: request.describe(),
        message: "the server has taken the write but does not say that it has applied it"
            .to_owned(),
        retry_after: None,
        perhaps_applied: false,
    }
}

fn probe_request() -> Request {
    let body =
        serde_json::json!({"operations": [{"delete": {"points": [PROBE_POINT]}}]}).to_string();
    Request::new("POST", "/points/batch?wait=true&ordering=strong", body)
}

/// One write.
fn write<E>(server: &mut impl Server<Error = E>, request: &Request) -> Result<Verdict, E> {
    Ok(match server.exchange(request)? {
        Ok(answer) => judge_write(request, &answer, server.now_ms()),
        Err(no) => Verdict::Failed(no_answer(&no)),
    })
}

/// One read.
fn ask<E>(
    server: &mut impl Server<Error = E>,
    request: &Request,
) -> Result<Result<serde_json::Value, Failure>, E> {
    let answer = server.exchange(request)?;
    Ok(match answer {
        Ok(answer) => judge_read(&answer, server.now_ms()),
        Err(no) => Err(no_answer(&no)),
    })
}

/// The collection's description. A 404 of Qdrant is [`Class::Missing`].
fn describe<E>(
    server: &mut impl Server<Error = E>,
) -> Result<Result<ServerCollection, Failure>, E> {
    let request = Request::new("GET", "", "");
    Ok(ask(server, &request)?.and_then(|result| {
        ServerCollection::read(&result).map_err(|message| Failure {
            class: Class::Unclear,
            status: Some(200),
            request: request.describe(),
            message,
            retry_after: None,
            perhaps_applied: false,
        })
    }))
}
