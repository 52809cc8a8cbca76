//! The order of an upload: what is asked next, and what is done with the answer.
//!
//! Invariants, whatever the server and whatever stands in front of it do:
//! - the queue moves on only over operations that the server confirmed in the shape of the request,
//!   or that were put aside;
//! - an operation is put aside only for an answer of Qdrant that refuses it, or for failing alone,
//!   several times, each time next to another write that the server confirmed, and more often than
//!   the other writes around it let expect;
//! - refusals of [`MOST_ALIKE`] operations in the same words, or of [`MOST_REFUSED`] in whatever
//!   words, with none of their kind confirmed in between, stop the queue;
//! - nothing is sent before the collection was found to be the one that holds what was acknowledged;
//!   finding that out reads, and deletes a point that no device writes ([`PROBE_POINT`]). A
//!   collection that has no identity then gets one in its metadata.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::answer::{Answer, NoAnswer, Request};
use crate::backoff::{Backoff, BackoffOptions};
use crate::behind;
use crate::binding::{Binding, Target};
use crate::collection::{LocalVectors, ServerCollection, creation_body, has_shard, identity_body};
use crate::facts::Facts;
use crate::placement::Placement;
use crate::routing::ShardKey;
pub use crate::sizes::Limits;
use crate::sizes::Sizes;
pub use crate::streak::{MOST_ALIKE, MOST_REFUSED};
use crate::streak::{Streak, is_about_a_point};
use crate::verdict::{
    Class, Failure, QDRANT_TOO_LARGE, Verdict, judge_read, judge_write, no_answer, operation_of,
};

/// A point that no device writes. Deleting it changes nothing and shows whether writes pass, and how
/// far the server has numbered its operations.
pub const PROBE_POINT: &str = "ed6e0000-5e1f-8000-8000-000000000000";

/// From so many failures without a usable answer on, an operation that is alone is under suspicion.
const LONE_FAILURES: u32 = 2;

/// Failures of one operation alone, alike and each next to a confirmed write, before it is put aside.
/// Fewer would take a network that drops every third exchange for a fault of the operation.
const MOST_BLAME: u32 = 4;

/// The same of failures that differ. What is wrong with an operation mostly shows in one way; a bad
/// network shows in many.
const MOST_MIXED_BLAME: u32 = 12;

/// An operation is put aside for failing alone once a faultless one would fail so often in less than
/// one case of this many, by how often the other writes next to it failed.
const DOUBT: f64 = 1_000.0;

/// So often may the server take an operation without confirming it.
const MOST_TAKEN: u32 = 24;

/// The server's own time limit, in seconds, once a time limit has cut a write off: less than the
/// host's 60 s, so that the server can say that it has taken the write. Halved, down to the least,
/// while something on the way has less patience or the server does not take so much.
const SERVER_TIMEOUT: u32 = 45;
const LEAST_SERVER_TIMEOUT: u32 = 5;

/// So often is the number of a collection's operations asked for in vain.
const MOST_MUTE: u32 = 3;

/// So long after the last look at the collection, it is looked at again before the next write, in
/// milliseconds. Writes do not put that off: an alias may move under a worker that is never idle.
const LOOK_AGAIN: u64 = 60_000;

/// Confirmed requests after which an idle worker asks how many points the server holds.
const CONCLUDE_AFTER: u32 = 100;

/// A refused request of fewer bytes than this says more about the server than about the operation.
const SMALL_REQUEST: usize = 64 << 10;

/// How to upload.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operations of the first request, and most bytes of a request and points of one operation in it.
    /// Default: 10 operations, 8 MiB, 10,000 points.
    pub limits: Limits,
    /// Most operations of a request, to which the first grows while answers come quickly. Default:
    /// 1,000.
    pub most_operations: u32,
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
            most_operations: 1000,
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
    /// The shard key that the settings name may be created, whoever made the collection.
    pub create_shard_key: bool,
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
    /// words of the last one (see [`crate::refusal_fingerprint`]). Those in other words are passed
    /// over, as are those that named a missing point: a new point and the change to it are refused
    /// in turn.
    pub refused_in_a_row: u32,
    /// The server's words for the last of them.
    pub refused_words: String,
    /// Its HTTP status.
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
    /// How many of them were next to a write that the server confirmed.
    blame: u32,
    /// The last ones of these that had the same status.
    alike: u32,
    /// Their status; none if no answer came.
    blamed_for: Option<u16>,
    /// The last writes next to it that change nothing.
    probes: Probes,
    /// Other writes did not pass either when it failed: it may be what takes the server down. How
    /// often it was looked after since.
    checks: Option<u32>,
    /// Another write was confirmed right before this attempt.
    cleared: bool,
    /// A failed attempt may have been applied.
    perhaps_applied: bool,
    /// How often the server took it without confirming it.
    taken: u32,
    /// The server did not have the shard key that it went to.
    missed_key: bool,
}

/// How the last probes ended.
#[derive(Debug, Default)]
struct Probes {
    count: u32,
    /// A bit for each, the newest lowest: it failed.
    failed: u16,
}

impl Probes {
    fn note(&mut self, failed: bool) {
        self.count = self.count.saturating_add(1).min(u16::BITS);
        self.failed = self.failed << 1 | u16::from(failed);
    }

    /// How likely any write fails, by the rule of succession.
    fn chance_to_fail(&self) -> f64 {
        f64::from(self.failed.count_ones() + 1) / f64::from(self.count + 2)
    }
}

/// A shard key that writes would go to, and the collection does not have.
struct MissingKey {
    key: ShardKey,
    /// The peer that said so.
    peer: Option<u64>,
}

/// What a failure names as the request where the settings are refused before anything is asked.
pub const SETTINGS: &str = "settings";

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
    /// How long the last write took, where a clock that did not jump tells.
    took: Option<Duration>,
    head: Head,
    streak: Streak,
    /// Failures in a row without a usable answer.
    unclear: u32,
    /// In seconds; 0 for none.
    server_timeout: u32,
    /// The server does not take a time limit.
    no_server_timeout: bool,
    /// Requests that were confirmed since the server was last asked how many points it holds.
    confirmed: u32,
    /// The collection was found to be the right one, just now.
    ready: bool,
    /// When it was last looked at, in milliseconds since 1970.
    looked_at: Option<u64>,
    /// Looks at the collection in a row at which its operations could not be numbered.
    mute: u32,
    /// It was found so, and nothing has told otherwise since.
    known: bool,
    /// What the check before a restore found against the collection.
    finding: Option<Binding>,
    binding: Binding,
    /// What `binding` says in the directory.
    stored: Option<Binding>,
    /// The number that the probe's deletion gets tells how far its shard has come.
    numbered: bool,
    /// All operations of the collection are numbered in one sequence.
    one_sequence: bool,
    /// The collection has shard keys.
    keyed: bool,
    /// Something was acknowledged although the collection has given no number yet.
    without_number: bool,
    /// The collection takes no identity from this device.
    takes_no_identity: bool,
    /// The last look showed that it is the bound collection, and did not go back.
    proven: bool,
}

impl Uploader {
    /// An uploader to one collection. `seed` makes the jitter of the waits.
    pub fn new(target: Target, options: Options, seed: u64) -> Self {
        Self {
            target,
            backoff: Backoff::new(options.backoff.clone(), seed),
            sizes: Sizes::new(options.limits, options.most_operations),
            took: None,
            options,
            permissions: Permissions::default(),
            head: Head::default(),
            streak: Streak::default(),
            unclear: 0,
            server_timeout: 0,
            no_server_timeout: false,
            confirmed: 0,
            ready: false,
            looked_at: None,
            mute: 0,
            known: false,
            finding: None,
            binding: Binding::default(),
            stored: None,
            numbered: false,
            one_sequence: false,
            keyed: false,
            without_number: false,
            takes_no_identity: false,
            proven: false,
        }
    }

    /// A request as it goes to the part of the collection that the settings name.
    fn address<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        self.target.routing.address(request, self.keyed)
    }

    fn write<E>(
        &self,
        server: &mut impl Server<Error = E>,
        request: &Request,
    ) -> Result<(Verdict, Option<u64>), E> {
        write(server, &self.address(request))
    }

    fn ask<E>(
        &self,
        server: &mut impl Server<Error = E>,
        request: &Request,
    ) -> Result<Result<serde_json::Value, Failure>, E> {
        ask(server, &self.address(request))
    }

    /// The collection's description, with the number of points of the part that the settings name.
    fn describe<E>(
        &mut self,
        server: &mut impl Server<Error = E>,
    ) -> Result<Result<ServerCollection, Failure>, E> {
        let mut description = match describe(server)? {
            Ok(description) => description,
            failed => return Ok(failed),
        };
        self.keyed = description.shard_keys;
        self.numbered = description.numbers_operations() && self.target.routing.tenant().is_none();
        self.one_sequence = description.is_one_shard();
        if self.target.routing.part().is_none() {
            return Ok(Ok(description));
        }
        let count = Request::new("POST", "/points/count", r#"{"exact":true}"#);
        description.points = match self.ask(server, &count)? {
            Ok(counted) => counted.get("count").and_then(serde_json::Value::as_u64),
            // There is no such key, or strict mode takes no such filter.
            Err(failure) if matches!(failure.class, Class::Reject | Class::Missing) => None,
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(Ok(description))
    }

    fn path(&self) -> String {
        format!("/collections/{}", self.target.collection)
    }

    /// The request that describes the collection, for people.
    fn description(&self) -> String {
        format!("GET {}", self.path())
    }

    /// What a person allows from now on. The collection is looked at again.
    pub fn permit(&mut self, permissions: Permissions) {
        self.permissions = permissions;
        self.forget();
    }

    /// Whether the last look has shown that the collection is the bound one and did not go back to a
    /// backup. What is gone there was deleted then.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether a collection with the identity that is bound has gone on from where it was: by the
    /// numbers of its operations. A tenant's have none that could be compared; others delete its points
    /// as well, so that their number tells nothing either.
    fn goes_on_from(&self, bound: &Binding) -> bool {
        let by_number = bound.operation.is_some() && self.binding.operation > bound.operation;
        let is_tenants = self.target.routing.tenant().is_some() && bound.id.is_some();
        by_number || is_tenants
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
        let Options {
            attempts, patience, ..
        } = self.options;
        self.backoff.gives_up(after, attempts, patience)
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
        self.took = None;
        let Some(batch) = self.next_batch(queue, until)? else {
            return Ok(Step::Done);
        };
        // It may have been replaced since. The clock may jump either way.
        let now = server.now_ms();
        let is_recent = |at: u64| now.abs_diff(at) <= LOOK_AGAIN;
        if !self.ready || !self.looked_at.is_some_and(is_recent) {
            return self.prepare(queue, server, true);
        }
        if let Some(step) = self.look_after(queue, server, &batch)? {
            return Ok(step);
        }
        let mut request = batch.request.clone();
        if self.server_timeout > 0 {
            let separator = if request.path.contains('?') { '&' } else { '?' };
            request.path = format!("{}{separator}timeout={}", request.path, self.server_timeout);
        }
        self.before_deletions(queue, &request)?;
        let sent_at = server.now_ms();
        let (verdict, operation) = self.write(server, &request)?;
        self.took = server
            .now_ms()
            .checked_sub(sent_at)
            .map(Duration::from_millis);
        let operation = operation.filter(|_| self.one_sequence);
        if let Err(why) = self.note_operation(operation) {
            return self.lost(queue, &batch.request, why);
        }
        match verdict {
            Verdict::Confirmed { .. } => self.advance(queue, &batch),
            Verdict::Taken => {
                self.head.taken = self.head.taken.saturating_add(1);
                // Of several operations, reading shows the end; one in the middle may still fail,
                // and all behind it with it.
                if self.head.taken > 1 {
                    self.sizes.shrink(batch.operations, 1, u32::MAX);
                }
                if self.head.taken >= MOST_TAKEN {
                    return Ok(self.stop(never_applied(&batch.request)));
                }
                Ok(self.wait(not_applied(&batch.request)))
            }
            Verdict::Failed(failure) => self.failed(queue, server, &batch, failure),
        }
    }

    /// The next batch, and what is known of its first operation. The queue may have changed: a
    /// person may have moved the first operation out of the way.
    fn next_batch<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        until: Option<u64>,
    ) -> Result<Option<Batch>, E> {
        loop {
            let mut limits = self.sizes.now();
            limits.present_only = self.head.present_only;
            let done = Progress {
                sequence: self.head.sequence,
                points: self.head.done,
            };
            let batch = queue.next_batch(limits, until, Some(done))?;
            let Some(first) = batch.as_ref().map(|batch| batch.first) else {
                return Ok(None);
            };
            if first == self.head.sequence {
                return Ok(batch);
            }
            self.head = Head {
                sequence: first,
                ..Head::default()
            };
            if !limits.present_only {
                return Ok(batch);
            }
            // Cut for another operation: a missing point would be passed over in silence.
        }
    }

    /// Before an operation is sent that went wrong before: perhaps it is applied by now, perhaps it
    /// is what takes the server down.
    fn look_after<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
    ) -> Result<Option<Step>, E> {
        if self.head.taken > 1
            && batch.operations == 1
            && let Some(facts) = Facts::of(&self.address(&batch.request))
        {
            match self.ask(server, &facts.question())? {
                Ok(result) if facts.hold(&result) => return self.advance(queue, batch).map(Some),
                Ok(_) if !self.head.taken.is_multiple_of(4) => {
                    self.head.taken = self.head.taken.saturating_add(1);
                    return Ok(Some(self.wait(not_applied(&batch.request))));
                }
                // Asked again for a confirmation, with the write that is idempotent.
                Ok(_) => {}
                Err(failure) => return Ok(Some(self.passing(failure))),
            }
        }
        self.head.cleared = false;
        let Some(checks) = &mut self.head.checks else {
            return Ok(None);
        };
        *checks = checks.wrapping_add(1);
        // What takes the server down is not sent again before the server is back; now and then it
        // goes out whatever the other write does.
        if checks.is_multiple_of(8) {
            return Ok(None);
        }
        Ok(match self.probe(queue, server)? {
            Probe::Passes => {
                self.head.cleared = true;
                None
            }
            Probe::Fails(failure) => {
                if self.seems_applied(queue, server, batch)? {
                    return self.advance(queue, batch).map(Some);
                }
                Some(self.wait(failure))
            }
            Probe::Stops(failure) => Some(self.stop(failure)),
        })
    }

    /// Whether an attempt that was cut off has been applied all the same, as far as reading tells.
    fn seems_applied<E>(
        &self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
    ) -> Result<bool, E> {
        if !self.head.perhaps_applied {
            return Ok(false);
        }
        let Some(facts) = Facts::of(&self.address(&batch.request)) else {
            return Ok(false);
        };
        // A request that was applied may have deleted them since.
        let facts = facts.or_gone(&self.deleted_behind(queue)?);
        Ok(self
            .ask(server, &facts.question())?
            .is_ok_and(|result| facts.hold(&result)))
    }

    /// Whether fewer points than now would mean anything. Before the first number of a collection
    /// nothing that this device wrote is acknowledged there: the points are those of others, and
    /// nothing would tell their deletions from a loss.
    fn count_tells(&self) -> bool {
        !self.numbered || self.binding.operation.is_some() || self.binding.points > 0
    }

    /// How many points there are tells a collection that lost some from one whose operations are
    /// numbered by several. Deletions of this device must not look like a loss if it is switched off
    /// before the end of the run.
    fn before_deletions<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        request: &Request,
    ) -> Result<(), E> {
        let counts = !self.numbered || self.binding.operation.is_none();
        if counts && self.binding.points > 0 && request.body.contains("\"delete\":") {
            self.binding.points = 0;
            self.store_binding(queue)?;
        }
        Ok(())
    }

    fn failed<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        failure: Failure,
    ) -> Result<Step, E> {
        // Our own time limit for the server may be more than its strict mode takes.
        if self.server_timeout > 0
            && failure.class == Class::Reject
            && failure.message.to_lowercase().contains("timeout")
        {
            self.no_server_timeout = self.server_timeout <= LEAST_SERVER_TIMEOUT;
            self.limit_server();
            return Ok(Step::Again);
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
                self.sizes.fall_back(batch.operations);
                Ok(self.wait(failure))
            }
            Class::TooLarge => self.too_large(queue, server, batch, failure),
            // The key was there when the collection was looked at: is it still the same?
            Class::Reject if self.keyed && is_about_a_key(&failure.message) => {
                self.answered();
                if std::mem::replace(&mut self.head.missed_key, true) {
                    return Ok(self.stop(failure));
                }
                self.ready = false;
                Ok(Step::Again)
            }
            Class::Reject => {
                // Any answer ends a row of requests that got none.
                self.answered();
                // Strict mode limits the ids of a filter.
                let points = if self.head.present_only {
                    batch.points
                } else {
                    1
                };
                if self.sizes.shrink(batch.operations, points, 2) {
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
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        mut failure: Failure,
    ) -> Result<Step, E> {
        let bytes = batch.request.body.len();
        let divisible = batch.operations > 1 || batch.points > 1;
        let counts_points = failure.status == Some(429);
        if counts_points {
            self.sizes.too_many_points(batch.operations, batch.points);
        } else {
            self.sizes.too_many_bytes(bytes, divisible);
        }
        if self.sizes.shrink(batch.operations, batch.points, 2) {
            self.answered();
            return Ok(Step::Again);
        }
        if counts_points {
            return Ok(self.stop(too_much_for_one(failure)));
        }
        let qdrants = failure.message.contains(QDRANT_TOO_LARGE);
        failure.message = format!(
            "the operation has {bytes} bytes, more than the server takes: {}",
            failure.message
        );
        let counts = bytes < SMALL_REQUEST;
        if qdrants {
            return self.put_aside(queue, batch, failure, counts);
        }
        // Whoever answers so may answer so to everything.
        match self.probe(queue, server)? {
            Probe::Passes => self.blame(queue, server, batch, failure, counts),
            Probe::Fails(_) => Ok(self.wait(failure)),
            Probe::Stops(probe) => Ok(self.stop(probe)),
        }
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
                return self.lost(queue, &batch.request, DELETED.to_owned());
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
        let deleted = self.deleted_behind(queue)?;
        let moot = behind::missing(&failure.message).is_some_and(|id| deleted.contains(id));
        if batch.points > 1 && !self.head.present_only {
            // The others may be there all the same, and then nothing was refused.
            let mut nothing_missing = moot;
            if moot && let Some((question, count)) = behind::question(&batch.request, &deleted) {
                match self.ask(server, &question)? {
                    Ok(found) => {
                        nothing_missing = found.as_array().is_some_and(|it| it.len() == count);
                    }
                    Err(failure) => return Ok(self.passing(failure)),
                }
            }
            self.head.present_only = true;
            if !nothing_missing {
                self.head.refusal.get_or_insert(failure);
            }
            return Ok(Step::Again);
        }
        if moot && batch.points <= 1 {
            return self.advance(queue, batch);
        }
        // No form of it passes over what is missing.
        if self.sizes.shrink(batch.operations, batch.points, 2) {
            return Ok(Step::Again);
        }
        if batch.rest > 0 {
            // The other points of the operation still get their change.
            self.head.done = self.head.done.saturating_add(batch.points);
            self.head.refusal.get_or_insert(failure);
            return Ok(Step::Again);
        }
        let counts = !is_about_a_point(&failure.message);
        self.put_aside(queue, batch, failure, counts)
    }

    /// Points that the queue deletes close behind its first operation: what a request could hold
    /// together with it.
    fn deleted_behind<E>(&self, queue: &mut impl Queue<Error = E>) -> Result<BTreeSet<String>, E> {
        let batch = queue.next_batch(self.sizes.most(), None, None)?;
        Ok(batch
            .map(|batch| behind::deleted(&batch.request))
            .unwrap_or_default())
    }

    /// No usable answer. It may be passing, and it may be about this very request.
    fn unclear<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        failure: Failure,
    ) -> Result<Step, E> {
        self.unclear = self.unclear.saturating_add(1);
        let foreign = failure
            .status
            .is_some_and(|status| !(500..=599).contains(&status) && status != 408);
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
            return self.blame(queue, server, batch, failure, true);
        }
        // A time limit somewhere on the way: the write may be applied, and the server could say so
        // in time.
        if failure.perhaps_applied || matches!(failure.status, Some(408 | 504)) {
            self.head.perhaps_applied = true;
            self.limit_server();
        }
        // The way may be too slow for this much in one go. A failing server gets a second try first.
        if failure.perhaps_applied || self.unclear > 1 {
            self.sizes.shrink(batch.operations, batch.points, 8);
        }
        if batch.operations > 1 || batch.points > 1 {
            return Ok(self.wait(failure));
        }
        self.head.lone_failures = self.head.lone_failures.saturating_add(1);
        if std::mem::take(&mut self.head.cleared) {
            return self.blame(queue, server, batch, failure, true);
        }
        if self.head.lone_failures >= LONE_FAILURES {
            match self.probe(queue, server)? {
                Probe::Passes => return self.blame(queue, server, batch, failure, true),
                Probe::Stops(probe) => return Ok(self.stop(probe)),
                Probe::Fails(_) => {
                    self.head.checks.get_or_insert(0);
                    if self.seems_applied(queue, server, batch)? {
                        return self.advance(queue, batch);
                    }
                }
            }
        }
        Ok(self.wait(failure))
    }

    /// The operation of `batch` failed alone, next to another write that the server confirmed. Once
    /// proves little: the fault may have passed in between, and of two servers that take turns, one
    /// may fail at everything.
    fn blame<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        batch: &Batch,
        failure: Failure,
        counts: bool,
    ) -> Result<Step, E> {
        let is_like_the_last = self.head.blame > 0 && self.head.blamed_for == failure.status;
        self.head.alike = if is_like_the_last {
            self.head.alike.saturating_add(1)
        } else {
            1
        };
        self.head.blamed_for = failure.status;
        self.head.blame = self.head.blame.saturating_add(1);
        // The server is there: its failures no longer count towards giving up, and the waits grow
        // anew.
        if self.head.blame == 1 {
            self.backoff.reset();
        } else {
            self.backoff.pardon();
        }
        // Now one other write between two attempts, now two: whatever takes turns, the operation
        // meets all of it.
        if self.head.blame.is_multiple_of(2)
            && let Probe::Stops(probe) = self.probe(queue, server)?
        {
            return Ok(self.stop(probe));
        }
        let failures = i32::try_from(self.head.blame).unwrap_or(i32::MAX);
        let is_unlikely = self.head.probes.chance_to_fail().powi(failures) < 1.0 / DOUBT;
        let are_enough = self.head.alike >= MOST_BLAME || self.head.blame >= MOST_MIXED_BLAME;
        if are_enough && is_unlikely {
            let bytes = batch.request.body.len();
            // A server may close the connection on a large body without a word that arrives.
            let too_large = failure.perhaps_applied && bytes >= SMALL_REQUEST;
            let failure = if too_large {
                Failure {
                    message: format!(
                        "the operation has {bytes} bytes, which may be more than the server takes: \
                         {}",
                        failure.message
                    ),
                    ..failure
                }
            } else {
                failure
            };
            return self.put_aside(queue, batch, failure, counts && !too_large);
        }
        Ok(self.wait(failure))
    }

    /// Asks the server to answer sooner.
    fn limit_server(&mut self) {
        self.server_timeout = match self.server_timeout {
            _ if self.no_server_timeout => 0,
            0 => SERVER_TIMEOUT,
            seconds => (seconds / 2).max(LEAST_SERVER_TIMEOUT),
        };
    }

    /// Writes nothing, in the way of every write.
    fn probe<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
    ) -> Result<Probe, E> {
        let request = probe_request(true);
        let answer = self.write(server, &request)?;
        let probe = self.judge_probe(queue, &request, answer)?;
        self.head.probes.note(!matches!(probe, Probe::Passes));
        Ok(probe)
    }

    fn judge_probe<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        request: &Request,
        (verdict, operation): (Verdict, Option<u64>),
    ) -> Result<Probe, E> {
        let lost = match (&verdict, self.note_operation(operation)) {
            (_, Err(why)) => Some(why),
            (Verdict::Failed(failure), _) if failure.class == Class::Missing => {
                Some(DELETED.to_owned())
            }
            _ => None,
        };
        if let Some(why) = lost {
            return Ok(match self.lost(queue, request, why)? {
                Step::Stop(failure) => Probe::Stops(failure),
                _ => Probe::Fails(not_applied(request)),
            });
        }
        Ok(match verdict {
            // In the server's own log is in: nothing on the way held it up.
            Verdict::Confirmed { .. } | Verdict::Taken => Probe::Passes,
            Verdict::Failed(failure) => match failure.class {
                Class::Stop => Probe::Stops(failure),
                // Qdrant itself refuses the least of all writes.
                Class::Reject => Probe::Stops(Failure {
                    message: format!("the server refuses every write: {}", failure.message),
                    ..failure
                }),
                _ => Probe::Fails(failure),
            },
        })
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
        if counts && let Some(before) = self.streak.full(&failure.message) {
            let message = format!(
                "{before}, so every write may be: {}. Put the collection right, then queue them again \
                 (`rejected retry --all`); or move operations out of the way (`queue skip`)",
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
            self.streak.refused(&failure.message, &batch.request);
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
        self.without_number |= self.binding.operation.is_none();
        // An operation that ends in the rejected log ends no row there.
        if self.head.refusal.is_none() {
            self.streak.confirmed(&batch.request);
        }
        self.sizes.grow(batch.operations, self.took.take());
        let first_number = self
            .stored
            .as_ref()
            .is_some_and(|it| it.operation.is_none())
            && self.binding.operation.is_some();
        if first_number {
            self.store_binding(queue)?;
        }
        if batch.rest > 0 {
            // What failed before failed for other points.
            self.head = Head {
                sequence: self.head.sequence,
                done: self.head.done.saturating_add(batch.points),
                present_only: self.head.refusal.is_some(),
                refusal: self.head.refusal.take(),
                ..Head::default()
            };
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

    fn stop(&mut self, mut failure: Failure) -> Step {
        self.ready = false;
        if let Some(advice) = advice(failure.status)
            && !failure.message.contains(advice)
            && !["`queue skip`", "`sync", "configure", "--create-shard-key"]
                .iter()
                .any(|way| failure.message.contains(way))
        {
            failure.message = format!("{}. {advice}", failure.message);
        }
        Step::Stop(failure.with_class(Class::Stop))
    }

    /// A failure that says nothing about any operation.
    fn passing(&mut self, failure: Failure) -> Step {
        match failure.class {
            Class::TooLarge if failure.status == Some(429) => self.stop(too_much_for_one(failure)),
            // Qdrant finds no read too large.
            Class::Retry | Class::Unclear | Class::TooLarge if failure.status != Some(403) => {
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
        self.known = false;
        self.head = Head::default();
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
        self.ready = false;
        let standing = queue.standing()?;
        self.streak
            .resume(&standing.refused_words, standing.refused_in_a_row);
        // Operations that were put aside, or skipped, have been on no server.
        let fresh = standing.binding.is_none() && !standing.restored;
        if let Some(failure) = self.other_place(standing.binding.as_ref()) {
            return Ok(self.stop(failure));
        }
        let local = LocalVectors::read(&standing.config, &standing.creation);
        let mut created = false;
        let description = match self.describe(server)? {
            Err(failure) if failure.class == Class::Missing => {
                let request = failure.request.clone();
                if !may_create || !(fresh || self.permissions.resend) {
                    self.keep_gone(queue, &standing)?;
                    return Ok(self.stop(Failure::stop(&request, gone_words(&standing))));
                }
                let config = if self.permissions.resend {
                    &standing.config
                } else {
                    &standing.creation
                };
                match self.create(server, config)? {
                    Ok(made) => created = made,
                    Err(failure) => {
                        let message =
                            format!("the collection cannot be created: {}", failure.message);
                        return Ok(self.passing(Failure { message, ..failure }));
                    }
                }
                self.describe(server)?
            }
            other => other,
        };
        let description = match description {
            Ok(description) => description,
            Err(failure) => return Ok(self.passing(failure)),
        };
        if let Err(why) = has_shard(&self.target.routing, description.shards) {
            return Ok(self.stop(Failure::stop(
                SETTINGS,
                format!("{why}. Nothing was uploaded"),
            )));
        }
        let may = match description.may_upload(&local, &[], &self.target.routing) {
            Ok(()) => Ok(()),
            Err(_) => {
                let changing = queue.changing_vectors()?;
                description.may_upload(&local, &changing, &self.target.routing)
            }
        };
        if let Err(why) = may {
            let message = format!(
                "{why}. Nothing was uploaded; configure another collection (with --rebind, if this \
                 shard was synced before), or make one that fits"
            );
            return Ok(self.stop(Failure::stop(&self.description(), message)));
        }
        let missing_key = match self.missing_key(server)? {
            Ok(missing) => missing,
            Err(failure) => return Ok(self.passing(failure)),
        };
        let bound = standing.binding.clone();
        if let Some(MissingKey { key, .. }) = &missing_key
            && let Some(bound) = bound.as_ref().filter(|it| it.is_at(&self.target))
            && !self.permissions.resend
        {
            self.stored = Some(bound.clone());
            self.binding = bound.clone();
            let why = format!("the collection has no shard key {key} any more");
            return self.lost(queue, &Request::new("GET", "/cluster", ""), why);
        }
        if let Some(step) = self.identify(queue, server, bound, &description)? {
            return Ok(step);
        }
        if let Some(missing) = missing_key
            && let Some(step) = self.create_key(server, &missing, &description)?
        {
            return Ok(step);
        }
        if may_create {
            self.give_identity(server)?;
        }
        if created && let Some(index) = self.target.routing.tenant_index() {
            // Without it the tenant's points are found all the same, more slowly.
            let _ = self.write(server, &index)?;
        }
        // A number alone is not worth a write, unless the stored one is no lower bound: a collection
        // that a person has rebound to may count from the beginning.
        let known = self.stored.as_ref().map(|stored| Binding {
            operation: self.binding.operation,
            ..stored.clone()
        });
        let bounded = self
            .stored
            .as_ref()
            .is_some_and(|it| it.operation.is_some() && it.operation <= self.binding.operation);
        if !bounded || known.as_ref() != Some(&self.binding) {
            self.store_binding(queue)?;
        }
        self.permissions = Permissions::default();
        self.ready = true;
        self.looked_at = Some(server.now_ms());
        self.known = true;
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
        self.finding = None;
        let bound = standing
            .and_then(|standing| standing.binding.clone())
            .filter(|bound| !bound.names_no_place());
        if !force && let Some(failure) = self.other_place(bound.as_ref()) {
            return Ok(RestoreCheck::Stop(failure));
        }
        let as_check = |step| match step {
            Step::Wait { after, failure } => RestoreCheck::Wait { after, failure },
            Step::Stop(failure) => RestoreCheck::Stop(failure),
            _ => RestoreCheck::Stop(Failure::stop("restore", "the check ended in an odd step")),
        };
        let description = match self.describe(server)? {
            Ok(description) => description,
            Err(failure) if failure.class == Class::Missing => {
                let is_bound = bound.as_ref().is_none_or(|it| it.is_at(&self.target));
                let words = match standing {
                    Some(standing) if standing.acknowledged > 0 && is_bound => gone_words(standing),
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
        if let Err(why) = description.may_restore(local.as_ref(), &self.target.routing) {
            let why = format!("{why}. Nothing was changed");
            return Ok(RestoreCheck::Stop(Failure::stop(&self.description(), why)));
        }
        let alias = self.alias(server)?;
        let alias_of = match (&alias, &bound) {
            (Alias::Unknown(failure), Some(bound)) if bound.alias_of.is_some() && !force => {
                if is_passing(failure) {
                    return Ok(as_check(self.wait(failure.clone())));
                }
                bound.alias_of.clone()
            }
            (Alias::Unknown(_), _) => None,
            (Alias::Of(name), _) => name.clone(),
        };
        if !force
            && let Some(bound) = &bound
            && let Some(why) = another(bound, &description, &alias)
        {
            return Ok(self.found(bound, &why));
        }
        // Unless the restore comes to its end, the shard stays bound to what it was: this binding is
        // worth nothing then.
        self.stored = None;
        self.ready = false;
        (self.known, self.proven) = (false, false);
        self.binding = Binding {
            alias_of,
            id: description.identity(bound.as_ref().and_then(|bound| bound.id.as_deref())),
            operation: bound
                .as_ref()
                .filter(|_| !force)
                .and_then(|bound| bound.operation),
            points: description.points.unwrap_or_default(),
            ..Binding::to(&self.target)
        };
        // How far the collection has counted, so that it can be told from one made anew later. A key
        // that only permits reading does without.
        if self.numbered {
            let (_, operation) = self.write(server, &probe_request(false))?;
            if let Err(why) = self.note_operation(operation)
                && let Some(bound) = &bound
            {
                return Ok(self.found(bound, &why));
            }
        }
        self.proven = bound
            .as_ref()
            .is_some_and(|bound| !force && self.goes_on_from(bound));
        self.looked_at = Some(server.now_ms());
        Ok(RestoreCheck::Ready(self.binding.clone()))
    }

    /// The check before a restore found another collection.
    fn found(&mut self, bound: &Binding, why: &str) -> RestoreCheck {
        self.known = false;
        self.finding = Some(Binding {
            lost: Some(why.to_owned()),
            ..bound.clone()
        });
        RestoreCheck::Stop(Failure::stop(&self.description(), lost_words(why)))
    }

    /// Keeps, durably, what [`Uploader::check_restore`] found against the collection: it may look
    /// right again later, when others have written to it. To be called after
    /// [`RestoreCheck::Stop`]; does nothing if there is nothing to keep.
    ///
    /// # Errors
    /// The driver's.
    pub fn keep_finding<E>(&mut self, queue: &mut impl Queue<Error = E>) -> Result<(), E> {
        if let Some(finding) = self.finding.take() {
            queue.bind(&finding)?;
            self.stored = Some(finding);
        }
        Ok(())
    }

    /// The binding that a restore has put into the directory, together with what it restored. The
    /// collection has been looked at.
    pub fn restored(&mut self, binding: &Binding) {
        self.binding = binding.clone();
        self.stored = Some(binding.clone());
        self.head = Head::default();
        self.ready = true;
        self.known = true;
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
        let standing = queue.standing()?;
        self.streak
            .resume(&standing.refused_words, standing.refused_in_a_row);
        self.head = Head::default();
        self.binding = binding.clone();
        self.store_binding(queue)?;
        self.ready = true;
        self.known = true;
        Ok(())
    }

    /// Asks the server how many points it holds now, for the next time. To be called at the end of a
    /// run that uploaded something, however it ended.
    ///
    /// # Errors
    /// The driver's.
    pub fn conclude<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
    ) -> Result<(), E> {
        if !self.known {
            return Ok(());
        }
        self.confirmed = 0;
        // With a number, deletions by others can be told from a loss later.
        if self.numbered && self.binding.operation.is_none() && self.without_number {
            let (_, operation) = self.write(server, &probe_request(false))?;
            self.binding.operation = operation;
        }
        if let Ok(description) = self.describe(server)?
            && !has_another_identity(&self.binding, &description)
            && let Some(points) = description.points
            && (self.without_number || self.count_tells())
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

    /// Whether the place that the settings name may be synced with, as far as the binding tells. What
    /// is queued for it before would only wait.
    pub fn accepts_place(&self, bound: Option<&Binding>) -> bool {
        self.other_place(bound).is_none()
    }

    /// The settings name another place than the one that was bound.
    fn other_place(&self, bound: Option<&Binding>) -> Option<Failure> {
        let bound = bound.filter(|bound| !bound.names_no_place())?;
        if self.permissions.rebind || (self.permissions.resend && bound.is_at(&self.target)) {
            return None;
        }
        if let Some(why) = bound.lost.as_ref().filter(|_| bound.is_at(&self.target)) {
            return Some(Failure::stop(&self.description(), lost_words(why)));
        }
        (!bound.is_at(&self.target)).then(|| {
            Failure::stop(
                SETTINGS,
                format!(
                    "this shard is in step with the collection {bound}, and the settings name {}. \
                     If that is the same collection in a new place: `sync --rebind`; to send \
                     everything to it: `sync --rebind --resend`; to take what it holds instead: \
                     `restore --force`",
                    self.target
                ),
            )
        })
    }

    fn create<E>(
        &mut self,
        server: &mut impl Server<Error = E>,
        config: &str,
    ) -> Result<Result<bool, Failure>, E> {
        if let Err(why) = has_shard(&self.target.routing, 1) {
            return Ok(Err(Failure::stop(
                SETTINGS,
                format!("it would have one shard: {why}"),
            )));
        }
        if self.target.routing.creates_keys()
            && let Ok(told) = self.ask(server, &Request::server_wide("GET", "/cluster"))?
            && told.get("status").and_then(serde_json::Value::as_str) == Some("disabled")
        {
            return Ok(Err(Failure::stop(
                SETTINGS,
                "the server has no shard keys, since it is no cluster (QDRANT__CLUSTER__ENABLED); \
                 leave `shard_key` away, or use the server of a cluster",
            )));
        }
        let id = server.fresh_id();
        let body = match creation_body(config, &id, self.target.routing.creates_keys()) {
            Ok(body) => body,
            Err(why) => return Ok(Err(Failure::stop(&format!("PUT {}", self.path()), why))),
        };
        Ok(
            match self.write(server, &Request::new("PUT", "", body))?.0 {
                Verdict::Confirmed { .. } => Ok(true),
                // Another device was faster.
                Verdict::Failed(failure)
                    if failure.class == Class::Reject && failure.status == Some(409) =>
                {
                    Ok(false)
                }
                Verdict::Failed(failure) => Err(failure),
                Verdict::Taken => Ok(true),
            },
        )
    }

    /// Gives an identity to a collection that has none: operations and points of a collection that
    /// somebody makes anew can be as many as they were. A key that may not do so, or a server without
    /// metadata, leaves it without.
    fn give_identity<E>(&mut self, server: &mut impl Server<Error = E>) -> Result<(), E> {
        if self.takes_no_identity || self.binding.id.is_some() {
            return Ok(());
        }
        let id = server.fresh_id();
        let request = Request::new("PATCH", "", identity_body(&id));
        let (verdict, _) = self.write(server, &request)?;
        if let Verdict::Confirmed { .. } = verdict
            && let Ok(description) = describe(server)?
        {
            // Another device may have been as fast.
            self.binding.id = description.identity(None);
        }
        self.takes_no_identity = self.binding.id.is_none();
        Ok(())
    }

    /// The shard key that writes would go to, if the collection does not have it.
    fn missing_key<E>(
        &self,
        server: &mut impl Server<Error = E>,
    ) -> Result<Result<Option<MissingKey>, Failure>, E> {
        let Some(own) = self.target.routing.own_key().filter(|_| self.keyed) else {
            return Ok(Ok(None));
        };
        let question = Request::new("GET", "/cluster", "");
        let told = match self.ask(server, &question)? {
            Ok(told) => told,
            Err(failure) => return Ok(Err(failure)),
        };
        let placement = match Placement::read(&told) {
            Ok(placement) => placement,
            Err(message) => {
                let failure = Failure::stop(&question.describe(), message);
                return Ok(Err(failure.with_class(Class::Unclear)));
            }
        };
        let shared = self.target.routing.shared_key();
        let is_there =
            placement.has_key(&own) || shared.as_ref().is_some_and(|key| placement.has_key(key));
        Ok(Ok((!is_there).then(|| MissingKey {
            key: shared.unwrap_or(own),
            peer: placement.peer,
        })))
    }

    /// Creates a shard key if this device may; a step if it stays away. Where there is one copy of each
    /// shard, it goes to the peer that answers: only a peer that has a shard sends its snapshot.
    fn create_key<E>(
        &mut self,
        server: &mut impl Server<Error = E>,
        MissingKey { key, peer }: &MissingKey,
        description: &ServerCollection,
    ) -> Result<Option<Step>, E> {
        if description.id.is_none() && !self.permissions.create_shard_key {
            let message = format!(
                "the collection has no shard key {key}. Nothing was uploaded; create the key on the \
                 server, or let this device create it (--create-shard-key)"
            );
            let request = Request::new("GET", "/cluster", "").describe();
            return Ok(Some(self.stop(Failure::stop(&request, message))));
        }
        let mut body = serde_json::json!({ "shard_key": key });
        if let Some(peer) = peer.filter(|_| description.replicas == 1) {
            body["placement"] = serde_json::json!([peer]);
        }
        let body = body.to_string();
        match self.ask(server, &Request::new("PUT", "/shards", body))? {
            Ok(_) => Ok(None),
            // Another device was faster.
            Err(failure) if failure.message.contains("already exists") => Ok(None),
            Err(failure) => {
                let message = format!("the shard key {key} cannot be created: {}", failure.message);
                Ok(Some(self.passing(Failure { message, ..failure })))
            }
        }
    }

    /// Which collection the name leads to, if it is an alias.
    fn alias<E>(&mut self, server: &mut impl Server<Error = E>) -> Result<Alias, E> {
        let result = match self.ask(server, &Request::server_wide("GET", "/aliases"))? {
            Ok(result) => result,
            Err(failure) => return Ok(Alias::Unknown(failure)),
        };
        let aliases = result.get("aliases").and_then(|aliases| aliases.as_array());
        Ok(Alias::Of(
            aliases
                .into_iter()
                .flatten()
                .find(|alias| {
                    alias.get("alias_name").and_then(|name| name.as_str())
                        == Some(self.target.collection.as_str())
                })
                .and_then(|alias| alias.get("collection_name")?.as_str().map(str::to_owned)),
        ))
    }

    /// The collection is gone. That is kept where nothing would tell a new one of its name from it.
    fn keep_gone<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        standing: &Standing,
    ) -> Result<(), E> {
        let bound = match &standing.binding {
            Some(bound) => bound.clone(),
            None if standing.restored => Binding::to(&self.target),
            None => return Ok(()),
        };
        self.known = false;
        let told_apart = bound.id.is_some() || bound.operation.is_some();
        if told_apart || !bound.is_at(&self.target) {
            return Ok(());
        }
        self.binding = Binding {
            lost: Some("the collection was not there".to_owned()),
            ..bound
        };
        self.stored = standing.binding.clone();
        self.store_binding(queue)
    }

    /// Whether the collection that is there is the one that was bound; a step if not.
    fn identify<E>(
        &mut self,
        queue: &mut impl Queue<Error = E>,
        server: &mut impl Server<Error = E>,
        bound: Option<Binding>,
        description: &ServerCollection,
    ) -> Result<Option<Step>, E> {
        (self.known, self.proven) = (false, false);
        let alias = self.alias(server)?;
        let new = Binding {
            alias_of: match &alias {
                Alias::Of(name) => name.clone(),
                Alias::Unknown(_) => None,
            },
            id: description.identity(bound.as_ref().and_then(|bound| bound.id.as_deref())),
            points: description.points.unwrap_or_default(),
            ..Binding::to(&self.target)
        };
        let nothing_there = bound.is_none() || self.permissions.resend;
        let bound = bound.filter(|bound| !self.permissions.resend && !bound.names_no_place());
        let Some(mut bound) = bound else {
            self.stored = None;
            self.without_number = false;
            self.binding = new;
            if nothing_there && self.numbered {
                self.binding.points = 0;
            }
            return Ok(None);
        };
        // The number that is stored may be an older one.
        if self.stored.as_ref() == Some(&bound) {
            self.stored = Some(bound.clone());
            bound.operation = bound.operation.max(self.binding.operation);
        } else {
            self.stored = Some(bound.clone());
            self.without_number = false;
        }
        self.binding = bound.clone();
        if self.permissions.rebind {
            return Ok(self.rebind(&bound, new, description));
        }
        let request = Request::new("GET", "", "");
        if let Some(why) = another(&bound, description, &alias) {
            return self.lost(queue, &request, why).map(Some);
        }
        let alias_of = match alias {
            Alias::Of(name) => name,
            Alias::Unknown(failure) if bound.alias_of.is_some() && is_passing(&failure) => {
                return Ok(Some(self.wait(failure)));
            }
            Alias::Unknown(_) => bound.alias_of.clone(),
        };
        self.binding = Binding {
            // Kept until the number of operations has shown that deletions explain fewer points.
            points: bound.points.max(new.points),
            operation: bound.operation,
            alias_of,
            ..new
        };
        // The identity in its metadata comes back with a backup, and the points may be as many: the
        // numbers of its operations tell.
        if self.numbered && bound.operation.is_some() {
            let request = probe_request(false);
            let answer = self.write(server, &request)?;
            match self.judge_probe(queue, &request, answer)? {
                Probe::Passes => self.mute = 0,
                Probe::Fails(failure) => {
                    self.mute = self.mute.saturating_add(1);
                    // Where no write is ever answered, its identity has to do; each write is looked
                    // after by reading then.
                    let cut = failure.perhaps_applied || matches!(failure.status, Some(408 | 504));
                    if !cut || self.mute < MOST_MUTE || bound.id.is_none() {
                        return Ok(Some(self.passing(failure)));
                    }
                }
                Probe::Stops(failure) => return Ok(Some(self.stop(failure))),
            }
        }
        self.proven = self.goes_on_from(&bound);
        if !self.proven && lost_many(bound.points, description.points) {
            let why = fewer_points(bound.points, description.points);
            return self.lost(queue, &request, why).map(Some);
        }
        self.binding.points = bound.points;
        if let Some(points) = description.points
            && self.count_tells()
        {
            self.binding.points = points;
        }
        Ok(None)
    }

    /// A person says that the collection that is there is the one that was bound: moved, or falsely
    /// taken for another. The numbers of its operations may have begun anew. What still tells a
    /// mistake stops this; it says nothing against the place that was bound, and is not kept.
    fn rebind(
        &mut self,
        bound: &Binding,
        new: Binding,
        description: &ServerCollection,
    ) -> Option<Step> {
        let why = if new.id.is_some() && bound.id.is_some() && new.id != bound.id {
            "the collection has another identity".to_owned()
        } else if lost_many(bound.points, description.points) {
            fewer_points(bound.points, description.points)
        } else {
            self.binding = new;
            return None;
        };
        let message = format!(
            "{why}: it is not the one that this shard was in step with. Nothing was uploaded. \
             `sync --rebind --resend` sends it everything that this shard holds; `restore --force` \
             takes what it holds instead"
        );
        Some(self.stop(Failure::stop(&self.description(), message)))
    }
}

/// What the server says of the name.
enum Alias {
    /// The collection that it leads to; none if it is no alias.
    Of(Option<String>),
    /// It does not say.
    Unknown(Failure),
}

/// Why the collection that is there cannot be the bound one, as far as its description tells.
fn another(bound: &Binding, description: &ServerCollection, alias: &Alias) -> Option<String> {
    if let (Alias::Of(now), Some(before)) = (alias, &bound.alias_of) {
        let alias = &bound.collection;
        match now {
            Some(now) if now == before => {}
            Some(now) => {
                return Some(format!(
                    "the alias `{alias}` leads to the collection `{now}` now, not to `{before}`"
                ));
            }
            None => {
                return Some(format!(
                    "`{alias}` was an alias of the collection `{before}`, and is none now"
                ));
            }
        }
    }
    has_another_identity(bound, description)
        .then(|| "the collection was made anew: it has another identity".to_owned())
}

fn has_another_identity(bound: &Binding, description: &ServerCollection) -> bool {
    let id = bound.id.as_deref();
    id.is_some_and(|id| !description.has_identity(id))
}

fn is_passing(failure: &Failure) -> bool {
    let status = failure.status.unwrap_or(503);
    matches!(failure.class, Class::Retry | Class::Unclear)
        && (matches!(status, 408 | 425 | 429) || status >= 500)
}

fn fewer_points(before: u64, now: Option<u64>) -> String {
    format!(
        "the collection holds {} points where it held {before}",
        now.unwrap_or_default()
    )
}

/// What a person can do about a status that stops the queue.
fn advice(status: Option<u16>) -> Option<&'static str> {
    match status {
        Some(401 | 403) => {
            Some("Check the API key, what it permits, and what stands in front of the server")
        }
        Some(507) => Some("Make room on the server, or raise its quota; then run `sync` again"),
        Some(_) => Some(
            "Check the URL and the collection's settings on the server; then run `sync` again, or \
             move the operation out of the way (`queue skip`)",
        ),
        None => None,
    }
}

const DELETED: &str = "the collection was deleted while operations were uploaded to it";

/// Whether so few points are left that deletions alone are an unlikely reason.
fn lost_many(before: u64, now: Option<u64>) -> bool {
    now.is_some_and(|now| now < before / 2)
}

/// How Qdrant says that a shard key is not there, or has to be named.
fn is_about_a_key(message: &str) -> bool {
    message.contains("Shard key")
        && (message.contains("not found") || message.contains("not specified"))
}

fn lost_words(why: &str) -> String {
    // Whoever answered so may have been mistaken, and nothing else speaks against the collection.
    let mistaken = if why == DELETED {
        "; if it is there as it was, `sync --rebind` goes on"
    } else {
        ""
    };
    format!(
        "{why}. Nothing more is uploaded until a person has decided. `sync --resend` sends it \
         everything that this shard holds; `restore --force` takes what it holds instead{mistaken}"
    )
}

fn gone_words(standing: &Standing) -> String {
    let bound = standing.binding.as_ref();
    let which = if bound.is_some_and(|bound| !bound.names_no_place()) {
        "the collection that this shard is in step with is not there any more"
    } else if bound.is_some() || standing.restored {
        "this shard was uploaded or restored before, and the collection is not there"
    } else {
        return "the collection is not there. `sync` creates it".to_owned();
    };
    format!(
        "{which}. Nothing was created. `sync --resend` creates it and sends it everything that this \
         shard holds"
    )
}

/// One point is more than the server's rate limit.
fn too_much_for_one(failure: Failure) -> Failure {
    let message = format!(
        "one point is more than the server takes at once: {}. Nothing passes until its limit \
         (strict mode's `write_rate_limit`) is raised; then run `sync` again",
        failure.message
    );
    Failure { message, ..failure }
}

/// The server has taken the operation again and again.
fn never_applied(request: &Request) -> Failure {
    let mut failure = not_applied(request);
    failure.message = format!(
        "{}, {MOST_TAKEN} times. Look at the collection's status and its optimizer; then run `sync` \
         again, or move the operation out of the way (`queue skip`)",
        failure.message
    );
    failure
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

/// `wait`: answered once it is applied, as other writes are; if not, as soon as it has a number.
fn probe_request(wait: bool) -> Request {
    let body =
        serde_json::json!({"operations": [{"delete": {"points": [PROBE_POINT]}}]}).to_string();
    let path = format!("/points/batch?wait={wait}&ordering=strong");
    Request::new("POST", path, body)
}

/// One write: what the answer means, and the highest number that the server gave.
fn write<E>(
    server: &mut impl Server<Error = E>,
    request: &Request,
) -> Result<(Verdict, Option<u64>), E> {
    Ok(match server.exchange(request)? {
        Ok(answer) => {
            let verdict = judge_write(request, &answer, server.now_ms());
            let number = match &verdict {
                Verdict::Confirmed { operation } => *operation,
                Verdict::Taken => operation_of(&answer),
                Verdict::Failed(_) => None,
            };
            (verdict, number)
        }
        Err(no) => (Verdict::Failed(no_answer(&no)), None),
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
