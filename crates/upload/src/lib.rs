//! What to ask a Qdrant server next, what its answer means, and what then.
//!
//! A pure crate: it opens no file and no connection, and reads no clock. The host library and the
//! component drive the same [`Uploader`] over their own [`Queue`] and [`Server`].
//!
//! - [`answer`]: requests, answers, Qdrant's envelope.
//! - [`verdict`]: what an answer means. Only Qdrant's envelope condemns data, and only the shape
//!   that the request must have confirms it.
//! - [`collection`], [`binding`]: which collection it is, and whether it is the one that holds what
//!   was acknowledged.
//! - [`uploader`]: the order of things: batches that shrink and grow, operations that are isolated
//!   and put aside, refusals that stop the queue.
//! - [`backoff`], [`download`]: when to try again.
//! - [`keeps_enough`]: whether a restore would drop so many points that a mistake is likely.
//! - [`routing`], [`placement`]: which part of the collection is meant, what that adds to requests,
//!   and on which shards it is.
//! - [`without_key`]: taking the API key out of what a server says.
//! - [`facts`]: looking after writes that the server took but did not confirm.

pub mod answer;
pub mod backoff;
mod behind;
pub mod binding;
pub mod collection;
pub mod download;
pub mod facts;
mod losses;
pub mod placement;
pub mod routing;
mod secret;
mod sizes;
mod streak;
pub mod uploader;
pub mod verdict;
mod words;

pub use answer::{Answer, NoAnswer, NoAnswerKind, Request};
pub use backoff::{Backoff, BackoffOptions};
pub use binding::{Binding, Target};
pub use collection::{LocalVectors, ServerCollection};
pub use download::DownloadAttempts;
pub use losses::keeps_enough;
pub use placement::{Parts, Placement};
pub use routing::{FollowedShards, NamedPart, Routing, Setting, ShardKey, Tenant};
pub use secret::without_key;
pub use streak::{is_about_a_point, refusal_fingerprint};
pub use uploader::{
    Batch, Limits, Options, Permissions, Progress, Queue, RestoreCheck, SETTINGS, Server, Standing,
    Step, Uploader,
};
pub use verdict::{Class, Failure, Verdict, judge_read, judge_write};
pub use words::same_words;
