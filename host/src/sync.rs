//! Carrying batches from the shard's queue to the server. What to ask next, what an answer means and
//! what then is [`edge_sync_upload`]'s; here are only the instances, the waiting and the report.

use std::time::Duration;

use edge_sync_clock::now_ms;
use edge_sync_upload as upload;
use edge_sync_upload::{
    Answer, Batch, Binding, Class, Failure, Limits, NoAnswer, NoAnswerKind, Permissions, Request,
    Standing, Step, Target, Uploader,
};

use crate::cancel::Cancel;
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::reports::SyncReport;
use crate::setters::setters;
use crate::shard::Shard;
use crate::types::{BatchLimits, FailureClass, QueueLimits, QueueProgress as Done, ServerFailure};

pub use edge_sync_upload::BackoffOptions;

/// How to upload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncOptions {
    /// How much goes into a request. Default: 10 operations at first, up to 1,000, and 8 MiB.
    pub batch: BatchLimits,
    /// Waits between attempts.
    pub backoff: BackoffOptions,
    /// Failures in a row after which a sync gives up. The background worker never gives up.
    /// Default: 8.
    pub attempts: u32,
    /// How long a restore waits for the server's optimizer before it asks for a snapshot: one that is
    /// taken meanwhile may hold deleted points. Default: one minute.
    pub settle: Duration,
    /// Longest wait between two attempts of a sync in the foreground. A server that asks for more
    /// ends the sync. Default: 1 minute.
    pub patience: Duration,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        let upload::Options {
            backoff,
            attempts,
            patience,
            ..
        } = upload::Options::default();
        SyncOptions {
            batch: BatchLimits::default(),
            backoff,
            attempts,
            patience,
            settle: Duration::from_secs(60),
        }
    }
}

setters!(SyncOptions {
    batch: BatchLimits,
    backoff: BackoffOptions,
    attempts: u32,
    settle: Duration,
    patience: Duration,
});

/// Which way a sync goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// What waits goes up, then what others wrote comes down.
    #[default]
    Both,
    /// Uploads only.
    Push,
    /// Downloads only. What waits for upload stays as it is.
    Pull,
}

/// What a person has allowed, for one sync.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SyncPermissions {
    /// Take the server and the collection of the settings for the ones that were synced with before,
    /// in a new place.
    pub rebind: bool,
    /// Queue everything that the shard holds again, for a collection that has lost it or is another
    /// one; it is created if it is not there.
    pub resend: bool,
    /// Create the shard key of the settings if the collection does not have it, whoever made the
    /// collection.
    pub create_shard_key: bool,
}

setters!(SyncPermissions {
    rebind: bool,
    resend: bool,
    create_shard_key: bool,
});

impl upload::Queue for &Shard {
    type Error = Error;

    fn next_batch(
        &mut self,
        limits: Limits,
        until: Option<u64>,
        done: Option<upload::Progress>,
    ) -> Result<Option<Batch>> {
        let limits = QueueLimits {
            operations: limits.operations,
            bytes: limits.bytes,
            points: limits.points,
            present_only: limits.present_only,
        };
        let done = done.map(|done| Done {
            sequence: done.sequence,
            points: done.points,
        });
        Ok(
            Shard::next_batch(self, limits, until, done)?.map(|batch| Batch {
                first: batch.first,
                last: batch.last,
                operations: batch.operations,
                points: batch.points,
                rest: batch.rest,
                request: Request::new(
                    &batch.request.method,
                    batch.request.path,
                    batch.request.body,
                ),
            }),
        )
    }

    fn acknowledge(&mut self, last: u64) -> Result<()> {
        Shard::acknowledge(self, last)
    }

    fn reject(&mut self, sequence: u64, status: u16, message: &str) -> Result<()> {
        Shard::reject(self, sequence, status, message)
    }

    fn standing(&mut self) -> Result<Standing> {
        Shard::standing(self).map(standing)
    }

    fn changing_vectors(&mut self) -> Result<Vec<String>> {
        Shard::changing_vectors(self)
    }

    fn bind(&mut self, binding: &Binding) -> Result<()> {
        Shard::bind(self, wit_binding(binding))
    }
}

/// What the component says of the queue, for the upload machine.
pub(crate) fn standing(standing: crate::types::QueueStanding) -> Standing {
    Standing {
        acknowledged: standing.acknowledged,
        restored: standing.restored,
        refused_in_a_row: standing.refused_in_a_row,
        refused_words: standing.refused_words,
        refused_status: standing.refused_status,
        binding: standing.binding.map(|bound| Binding {
            url: bound.url,
            collection: bound.collection,
            shard_key: bound.shard_key,
            tenant: bound.tenant,
            shard: bound.shard,
            alias_of: bound.alias_of,
            id: bound.id,
            operation: bound.operation,
            points: bound.points,
            lost: bound.lost,
        }),
        config: standing.config,
        creation: standing.creation,
    }
}

/// The binding as the component takes it.
pub(crate) fn wit_binding(binding: &Binding) -> crate::types::Binding {
    crate::types::Binding {
        url: binding.url.clone(),
        collection: binding.collection.clone(),
        shard_key: binding.shard_key.clone(),
        tenant: binding.tenant.clone(),
        shard: binding.shard,
        alias_of: binding.alias_of.clone(),
        id: binding.id.clone(),
        operation: binding.operation,
        points: binding.points,
        lost: binding.lost.clone(),
    }
}

impl upload::Server for &Courier {
    type Error = Error;

    fn exchange(&mut self, request: &Request) -> Result<std::result::Result<Answer, NoAnswer>> {
        match Courier::exchange(self, request) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Error::Server(failure)) => Ok(Err(NoAnswer {
                kind: match failure.class {
                    FailureClass::Retry => NoAnswerKind::Unreached,
                    FailureClass::Stop => NoAnswerKind::Denied,
                    _ => NoAnswerKind::Cut,
                },
                request: failure.request,
                message: failure.message,
            })),
            // A trap may have been about this one exchange; a fresh instance tries again.
            Err(error) if error.ends_instance() => Ok(Err(NoAnswer {
                kind: NoAnswerKind::Cut,
                request: request.describe(),
                message: error.to_string(),
            })),
            Err(error) => Err(error),
        }
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn fresh_id(&mut self) -> String {
        let bits = fastrand::u128(..);
        // RFC 9562, version 4.
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xfff,
            0x8000 | ((bits >> 48) & 0x3fff),
            bits & 0xffff_ffff_ffff
        )
    }
}

/// A failure of the upload machine as an error.
pub(crate) fn server_error(failure: Failure) -> Error {
    Error::Server(ServerFailure {
        class: match failure.class {
            Class::Retry => FailureClass::Retry,
            Class::Unclear => FailureClass::Unclear,
            Class::Stop => FailureClass::Stop,
            Class::Reject => FailureClass::Reject,
            Class::TooLarge => FailureClass::TooLarge,
            Class::Missing => FailureClass::Missing,
        },
        status: failure.status,
        request: failure.request,
        message: failure.message,
        retry_after_ms: failure
            .retry_after
            .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// The machine for one server.
pub(crate) fn uploader(target: Target, options: &SyncOptions) -> Uploader {
    let defaults = upload::Options::default();
    Uploader::new(
        target,
        upload::Options {
            limits: Limits {
                operations: options.batch.operations,
                bytes: options.batch.bytes,
                ..defaults.limits
            },
            most_operations: options.batch.most_operations,
            backoff: options.backoff.clone(),
            attempts: options.attempts,
            patience: options.patience,
        },
        fastrand::u64(..),
    )
}

/// What a person has allowed, for the machine.
pub(crate) fn permit(uploader: &mut Uploader, permissions: SyncPermissions) {
    uploader.permit(Permissions {
        rebind: permissions.rebind,
        resend: permissions.resend,
        create_shard_key: permissions.create_shard_key,
    });
}

/// Looks at the collection, even if nothing waits, unless that was done; then uploads until nothing
/// waits up to `until`, or a failure ends it, which the report tells.
pub(crate) fn run(
    uploader: &mut Uploader,
    shard: &Shard,
    courier: &Courier,
    until: Option<u64>,
    cancel: &Cancel,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<SyncReport> {
    let (mut queue, mut server) = (shard, courier);
    let queued = || shard.queue_status().map(|status| status.queued);
    let total = queued()?;
    let mut report = SyncReport::default();
    uploader.begin();
    loop {
        if cancel.is_cancelled() {
            report.failure = Some(Error::Cancelled);
            break;
        }
        let step = if uploader.is_ready() {
            uploader.step(&mut queue, &mut server, until)?
        } else {
            uploader.prepare(&mut queue, &mut server, true)?
        };
        match step {
            Step::Done => break,
            Step::Again => {}
            Step::Collection { created } => report.created_collection |= created,
            Step::Uploaded { operations } => {
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
                    failure: &server_error(failure),
                });
            }
            Step::Wait { after, failure } => {
                let gives_up = uploader.gives_up(after);
                let failure = server_error(failure);
                if gives_up {
                    report.failure = Some(failure);
                    break;
                }
                progress(Progress::Waiting {
                    after,
                    failure: &failure,
                });
                if let Err(cancelled) = cancel.sleep(after) {
                    report.failure = Some(cancelled);
                    break;
                }
            }
            Step::Stop(failure) => {
                report.failure = Some(server_error(failure));
                break;
            }
        }
    }
    if report.requests > 0 {
        uploader.conclude(&mut queue, &mut server)?;
    }
    report.remaining = queued()?;
    Ok(report)
}
