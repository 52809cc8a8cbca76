//! Carrying batches from the shard's queue to the server, and what to do when that fails.

use std::time::Duration;

use crate::backoff::{Backoff, BackoffOptions};
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::signal::Cancel;
use crate::types::{BatchLimits, FailureClass, UploadBatch, UploadRequest};

/// After this many accepted batches in a row, a byte limit that a 413 lowered is doubled, to see
/// whether the server takes more again.
const PROBE_AFTER: u32 = 64;

/// How to upload.
#[derive(Clone, Debug)]
pub struct SyncOptions {
    /// Most operations and bytes a batch. Default: 10 operations, 8 MiB.
    pub batch: BatchLimits,
    /// Waits between attempts.
    pub backoff: BackoffOptions,
    /// Failures in a row after which a sync gives up. The background worker never gives up.
    /// Default: 8, which is about a minute.
    pub attempts: u32,
    /// How long a restore waits for the server's optimizer before it asks for a snapshot: one that is
    /// taken meanwhile may hold deleted points. Default: one minute.
    pub settle: Duration,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        SyncOptions {
            batch: BatchLimits::default(),
            backoff: BackoffOptions::default(),
            attempts: 8,
            settle: Duration::from_secs(60),
        }
    }
}

/// What a sync did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SyncReport {
    /// Operations that the server confirmed.
    pub uploaded: u64,
    /// Requests that carried them.
    pub requests: u64,
    /// Operations that the server refused, moved to the rejected log.
    pub rejected: u64,
    /// Operations that still wait.
    pub remaining: u64,
    /// True if the collection was not there and has been created.
    pub created_collection: bool,
    /// Why the sync gave up, if it did. The queue is kept.
    pub failure: Option<Error>,
}

/// What a sync tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// So many operations of so many are with the server or in the rejected log.
    Uploaded {
        /// Operations done with in this sync.
        done: u64,
        /// Operations that the queue held when it began.
        total: u64,
    },
    /// The server refused an operation.
    Rejected {
        /// Its sequence.
        sequence: u64,
        /// Why.
        failure: &'a Error,
    },
    /// An exchange failed in passing and will be tried again.
    Waiting {
        /// How long until then.
        after: Duration,
        /// Why.
        failure: &'a Error,
    },
}

/// The shard's side.
pub(crate) trait Queue {
    fn next_batch(&self, limits: BatchLimits, until: Option<u64>) -> Result<Option<UploadBatch>>;
    fn acknowledge(&self, last: u64) -> Result<()>;
    fn reject(&self, sequence: u64, status: u16, message: &str) -> Result<()>;
    /// The body that creates the collection.
    fn config(&self) -> Result<String>;
    fn queued(&self) -> Result<u64>;
}

/// The network's side.
pub(crate) trait Server {
    fn ensure_collection(&self, config: &str) -> Result<bool>;
    fn send(&self, request: UploadRequest) -> Result<()>;
}

impl Queue for Shard {
    fn next_batch(&self, limits: BatchLimits, until: Option<u64>) -> Result<Option<UploadBatch>> {
        Shard::next_batch(self, limits, until)
    }

    fn acknowledge(&self, last: u64) -> Result<()> {
        Shard::acknowledge(self, last)
    }

    fn reject(&self, sequence: u64, status: u16, message: &str) -> Result<()> {
        Shard::reject(self, sequence, status, message)
    }

    fn config(&self) -> Result<String> {
        Ok(self.info()?.config)
    }

    fn queued(&self) -> Result<u64> {
        Ok(self.queue_status()?.queued)
    }
}

impl Server for Courier {
    fn ensure_collection(&self, config: &str) -> Result<bool> {
        Courier::ensure_collection(self, config)
    }

    fn send(&self, request: UploadRequest) -> Result<()> {
        Courier::send(self, request)
    }
}

/// What one step of an upload came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing waits.
    Done,
    /// The collection is there; true if it was created just now.
    Collection(bool),
    Uploaded(u32),
    Rejected {
        sequence: u64,
        failure: Error,
    },
    /// The batch was refused as a whole; a smaller one comes next.
    Smaller,
    /// Passing: go on after this long.
    Wait {
        after: Duration,
        failure: Error,
    },
    /// Going on is pointless until a person has changed something.
    Stop(Error),
}

/// Uploads step by step, and remembers what it learnt about the server.
#[derive(Debug)]
pub(crate) struct Uploader {
    options: SyncOptions,
    backoff: Backoff,
    /// Operations a batch now: halved towards the operation at fault, doubled on success.
    operations: u32,
    /// Bytes a batch now: halved by 413.
    bytes: u32,
    accepted: u32,
    ensured: bool,
}

impl Uploader {
    pub(crate) fn new(mut options: SyncOptions) -> Uploader {
        options.batch.operations = options.batch.operations.max(1);
        options.batch.bytes = options.batch.bytes.max(1);
        Uploader {
            backoff: Backoff::new(options.backoff.clone()),
            operations: options.batch.operations,
            bytes: options.batch.bytes,
            accepted: 0,
            ensured: false,
            options,
        }
    }

    /// Does the next thing. An error is the shard's; what the server or the way to it fails at is
    /// a step.
    pub(crate) fn step(
        &mut self,
        queue: &impl Queue,
        server: &impl Server,
        until: Option<u64>,
    ) -> Result<Step> {
        let limits = BatchLimits {
            operations: self.operations,
            bytes: self.bytes,
        };
        let Some(batch) = queue.next_batch(limits, until)? else {
            return Ok(Step::Done);
        };
        if !self.ensured {
            return self.ensure(queue, server);
        }
        let body_bytes = batch.request.body.len();
        match server.send(batch.request) {
            Ok(()) => {
                queue.acknowledge(batch.last)?;
                self.succeeded();
                Ok(Step::Uploaded(batch.operations))
            }
            Err(error) => match (&error, error.failure_class()) {
                (Error::Server(failure), Some(FailureClass::Reject | FailureClass::TooLarge)) => {
                    // An answer, whatever it says, ends a run of failures to get one.
                    self.backoff.reset();
                    if failure.class == FailureClass::TooLarge {
                        self.accepted = 0;
                        self.bytes = u32::try_from(body_bytes)
                            .unwrap_or(u32::MAX)
                            .min(self.bytes)
                            .div_ceil(2)
                            .max(1);
                    }
                    if batch.operations > 1 {
                        self.operations = (batch.operations / 2).max(1);
                        return Ok(Step::Smaller);
                    }
                    queue.reject(
                        batch.first,
                        failure.status.unwrap_or_default(),
                        &failure.message,
                    )?;
                    Ok(Step::Rejected {
                        sequence: batch.first,
                        failure: error,
                    })
                }
                _ => {
                    // No answer at all: perhaps the way is too slow for this much in one go.
                    if !matches!(&error, Error::Server(failure) if failure.status.is_some()) {
                        self.operations = (batch.operations / 2).max(1);
                    }
                    Ok(self.failed(error))
                }
            },
        }
    }

    fn ensure(&mut self, queue: &impl Queue, server: &impl Server) -> Result<Step> {
        Ok(match server.ensure_collection(&queue.config()?) {
            Ok(created) => {
                self.ensured = true;
                Step::Collection(created)
            }
            Err(error) => self.failed(error),
        })
    }

    /// Creates the collection if it is missing, even if nothing waits, and uploads until nothing
    /// waits up to `until`, or a failure ends it, which the report tells.
    pub(crate) fn run(
        &mut self,
        queue: &impl Queue,
        server: &impl Server,
        until: Option<u64>,
        cancel: &Cancel,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<SyncReport> {
        let total = queue.queued()?;
        let mut report = SyncReport::default();
        self.backoff.reset();
        loop {
            if cancel.is_cancelled() {
                report.failure = Some(Error::Cancelled);
                break;
            }
            let step = if self.ensured {
                self.step(queue, server, until)
            } else {
                self.ensure(queue, server)
            };
            match step? {
                Step::Done => break,
                Step::Smaller => {}
                Step::Collection(created) => report.created_collection |= created,
                Step::Uploaded(operations) => {
                    report.uploaded += u64::from(operations);
                    report.requests += 1;
                    let done = report.uploaded + report.rejected;
                    progress(Progress::Uploaded {
                        done,
                        total: total.max(done),
                    });
                }
                Step::Rejected { sequence, failure } => {
                    report.rejected += 1;
                    progress(Progress::Rejected {
                        sequence,
                        failure: &failure,
                    });
                }
                Step::Wait { after, failure } => {
                    if self.backoff.failures() >= self.options.attempts {
                        report.failure = Some(failure);
                        break;
                    }
                    progress(Progress::Waiting {
                        after,
                        failure: &failure,
                    });
                    if cancel.sleep(after).is_err() {
                        report.failure = Some(failure);
                        break;
                    }
                }
                Step::Stop(failure) => {
                    report.failure = Some(failure);
                    break;
                }
            }
        }
        report.remaining = queue.queued()?;
        Ok(report)
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.operations = self
            .operations
            .saturating_mul(2)
            .min(self.options.batch.operations);
        self.accepted += 1;
        if self.accepted >= PROBE_AFTER {
            self.accepted = 0;
            self.bytes = self.bytes.saturating_mul(2).min(self.options.batch.bytes);
        }
    }

    /// A failure that says nothing about the batch.
    fn failed(&mut self, error: Error) -> Step {
        let passing = match &error {
            Error::Server(failure) => failure.class == FailureClass::Retry,
            // A trap may have been about this one exchange; a fresh instance tries again.
            other => other.ends_instance(),
        };
        if !passing {
            // The collection may have been deleted, or the server be another now.
            self.ensured = false;
            return Step::Stop(error);
        }
        let retry_after = match &error {
            Error::Server(failure) => failure.retry_after_ms.map(Duration::from_millis),
            _ => None,
        };
        Step::Wait {
            after: self.backoff.next(retry_after),
            failure: error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::types::ServerFailure;

    /// Operations 1 to `last`, each of `bytes` bytes.
    struct FakeQueue {
        last: u64,
        bytes: u64,
        acknowledged: Cell<u64>,
        rejected: RefCell<Vec<u64>>,
    }

    impl FakeQueue {
        fn new(last: u64, bytes: u64) -> FakeQueue {
            FakeQueue {
                last,
                bytes,
                acknowledged: Cell::new(0),
                rejected: RefCell::default(),
            }
        }
    }

    impl Queue for FakeQueue {
        fn next_batch(
            &self,
            limits: BatchLimits,
            until: Option<u64>,
        ) -> Result<Option<UploadBatch>> {
            let first = self.acknowledged.get() + 1;
            let end = until.unwrap_or(u64::MAX).min(self.last);
            if first > end {
                return Ok(None);
            }
            let fit = (u64::from(limits.bytes) / self.bytes).max(1);
            let last = end.min(first + fit.min(u64::from(limits.operations)) - 1);
            let ids: Vec<String> = (first..=last).map(|id| id.to_string()).collect();
            let body = ids.join(",");
            let padding = ((last - first + 1) * self.bytes) as usize - body.len();
            Ok(Some(UploadBatch {
                first,
                last,
                operations: (last - first + 1) as u32,
                request: UploadRequest {
                    method: "POST".into(),
                    path: "/points/batch?wait=true".into(),
                    body: body + &" ".repeat(padding),
                },
            }))
        }

        fn acknowledge(&self, last: u64) -> Result<()> {
            self.acknowledged.set(last);
            Ok(())
        }

        fn reject(&self, sequence: u64, _: u16, _: &str) -> Result<()> {
            assert_eq!(sequence, self.acknowledged.get() + 1);
            self.acknowledged.set(sequence);
            self.rejected.borrow_mut().push(sequence);
            Ok(())
        }

        fn config(&self) -> Result<String> {
            Ok("{}".into())
        }

        fn queued(&self) -> Result<u64> {
            Ok(self.last - self.acknowledged.get())
        }
    }

    #[derive(Default)]
    struct FakeServer {
        bad: BTreeSet<u64>,
        max_bytes: Option<usize>,
        /// Answers to give before any other, last first.
        failures: RefCell<Vec<Error>>,
        received: RefCell<Vec<u64>>,
        requests: Cell<u32>,
        ensured: Cell<u32>,
    }

    fn failure(class: FailureClass, status: Option<u16>) -> Error {
        Error::Server(ServerFailure {
            class,
            status,
            request: "POST /points/batch".into(),
            message: "scripted".into(),
            retry_after_ms: Some(0),
        })
    }

    impl Server for FakeServer {
        fn ensure_collection(&self, _: &str) -> Result<bool> {
            self.ensured.set(self.ensured.get() + 1);
            Ok(true)
        }

        fn send(&self, request: UploadRequest) -> Result<()> {
            self.requests.set(self.requests.get() + 1);
            if let Some(error) = self.failures.borrow_mut().pop() {
                return Err(error);
            }
            if self.max_bytes.is_some_and(|max| request.body.len() > max) {
                return Err(failure(FailureClass::TooLarge, Some(413)));
            }
            let ids: Vec<u64> = request
                .body
                .trim()
                .split(',')
                .map(|id| id.parse().unwrap())
                .collect();
            if ids.iter().any(|id| self.bad.contains(id)) {
                return Err(failure(FailureClass::Reject, Some(400)));
            }
            self.received.borrow_mut().extend(ids);
            Ok(())
        }
    }

    fn quick() -> SyncOptions {
        SyncOptions {
            backoff: BackoffOptions {
                base: Duration::ZERO,
                cap: Duration::ZERO,
                ..BackoffOptions::default()
            },
            ..SyncOptions::default()
        }
    }

    fn run(uploader: &mut Uploader, queue: &FakeQueue, server: &FakeServer) -> SyncReport {
        uploader
            .run(queue, server, None, &Cancel::new(), &mut |_| {})
            .unwrap()
    }

    proptest! {
        /// Whatever the server refuses, everything else arrives once and in order, and exactly
        /// what it refuses is in the rejected log.
        #[test]
        fn bisection_finds_exactly_the_operations_at_fault(
            last in 1_u64..200,
            bad in proptest::collection::btree_set(1_u64..200, 0..20),
            operations in 1_u32..40,
        ) {
            let queue = FakeQueue::new(last, 10);
            let server = FakeServer { bad: bad.clone(), ..FakeServer::default() };
            let mut options = quick();
            options.batch.operations = operations;
            let report = run(&mut Uploader::new(options), &queue, &server);
            let (expected_bad, expected_good): (Vec<u64>, Vec<u64>) =
                (1..=last).partition(|id| bad.contains(id));
            prop_assert_eq!(&*queue.rejected.borrow(), &expected_bad);
            prop_assert_eq!(&*server.received.borrow(), &expected_good);
            prop_assert_eq!(report.uploaded, expected_good.len() as u64);
            prop_assert_eq!(report.rejected, expected_bad.len() as u64);
            prop_assert!(report.failure.is_none());
        }
    }

    #[test]
    fn a_413_halves_the_batch_and_is_remembered() {
        let queue = FakeQueue::new(2000, 100);
        let server = FakeServer {
            max_bytes: Some(350),
            ..FakeServer::default()
        };
        let report = run(&mut Uploader::new(quick()), &queue, &server);
        assert_eq!(report.uploaded, 2000);
        assert!(queue.rejected.borrow().is_empty());
        // 2 or 3 operations a request fit; a refusal each time would double the requests.
        assert!(server.requests.get() < 1100, "{}", server.requests.get());
    }

    #[test]
    fn one_operation_that_is_too_large_is_rejected() {
        let queue = FakeQueue::new(3, 100);
        let server = FakeServer {
            max_bytes: Some(50),
            ..FakeServer::default()
        };
        let report = run(&mut Uploader::new(quick()), &queue, &server);
        assert_eq!(report.rejected, 3);
    }

    #[test]
    fn passing_failures_are_tried_again_and_a_sync_gives_up_in_the_end() {
        let queue = FakeQueue::new(20, 10);
        let server = FakeServer::default();
        let failures = |count| -> Vec<Error> {
            (0..count)
                .map(|_| failure(FailureClass::Retry, Some(503)))
                .collect()
        };
        *server.failures.borrow_mut() = failures(5);
        let mut uploader = Uploader::new(quick());
        let report = run(&mut uploader, &queue, &server);
        assert_eq!((report.uploaded, report.remaining), (20, 0));

        let queue = FakeQueue::new(20, 10);
        *server.failures.borrow_mut() = failures(100);
        let report = run(&mut uploader, &queue, &server);
        assert_eq!((report.uploaded, report.remaining), (0, 20));
        assert_eq!(
            report.failure.and_then(|error| error.failure_class()),
            Some(FailureClass::Retry)
        );
    }

    #[test]
    fn wrong_settings_stop_at_once_keep_the_queue_and_check_the_collection_again() {
        let queue = FakeQueue::new(20, 10);
        let server = FakeServer::default();
        server
            .failures
            .borrow_mut()
            .push(failure(FailureClass::Stop, Some(401)));
        let mut uploader = Uploader::new(quick());
        let report = run(&mut uploader, &queue, &server);
        assert_eq!((report.remaining, server.requests.get()), (20, 1));
        assert!(report.failure.is_some());
        let report = run(&mut uploader, &queue, &server);
        assert_eq!((report.uploaded, server.ensured.get()), (20, 2));
    }

    #[test]
    fn stops_at_the_barrier() {
        let queue = FakeQueue::new(20, 10);
        let server = FakeServer::default();
        Uploader::new(quick())
            .run(&queue, &server, Some(13), &Cancel::new(), &mut |_| {})
            .unwrap();
        assert_eq!(queue.acknowledged.get(), 13);
    }
}
