//! The component: a Qdrant Edge shard, its log and the exchange with a Qdrant server, behind the
//! WIT interfaces of `wit/`.
//!
//! `directory` knows where things are on disk, `store` the way of a write, `room` whether there is
//! memory and disk for one, `reserve` holds some of the disk back, `queue` has what waits for upload,
//! `rejected` what was put aside, `peek` both beside another instance, `resend` how all of it comes to
//! wait again, `binding` which collection it is for, `http` one exchange over the network, `courier`
//! the exchange with a Qdrant server, `placement` where its shards are, `download` a snapshot on its
//! way, `tenant` the points of one tenant among those of others, `ledger` the snapshots to
//! delete from the server, `settled` whether a snapshot can be trusted, `pull` and `pulled_shard` what to ask
//! for and what of the answer to take, `restore` how a generation is replaced, `optimize` the copy of one that is optimized beside it, `sync` the whole in one call, `cli` the
//! `wasi:cli/run` command line. The rest of this file and `convert` are glue.

mod binding;
mod bindings;
mod cli;
mod convert;
mod courier;
mod directory;
mod download;
mod downloading;
mod error;
mod exports;
mod failed_read;
mod generation;
mod http;
mod instance;
mod ledger;
mod listing;
mod optimize;
mod optimized;
mod peek;
mod placement;
mod pull;
mod pulled_shard;
mod queue;
mod reader;
mod rejected;
mod request;
mod resend;
mod reserve;
mod restore;
mod room;
mod settled;
mod share;
mod store;
mod sync;
mod tenant;
mod trial;
mod upload_request;

bindings::export!(Component with_types_in bindings);

/// Implements every exported interface; stateless itself, see [`exports`].
struct Component;
