//! The component: a Qdrant Edge shard, its log and the exchange with a Qdrant server, behind the
//! WIT interfaces of `wit/`.
//!
//! `directory` knows where things are on disk, `store` the way of a write, `room` whether there is
//! memory and disk for one, `reserve` holds some of the disk back, `queue` has what waits for upload,
//! `rejected` what was put aside, `peek` both beside another instance, `resend` how all of it comes to
//! wait again, `binding` which collection it is for, `http` one exchange over the network, `courier`
//! the exchange with a Qdrant server, `download` a snapshot on its way, `ledger` the snapshots to
//! delete from the server, `settled` whether a snapshot can be trusted, `restore` how a generation is
//! replaced, `sync` the whole in one call, `cli` the `wasi:cli/run` command line. The rest of this
//! file and `convert` are glue.

mod binding;
mod bindings;
mod cli;
mod convert;
mod courier;
mod directory;
mod download;
mod error;
mod exports;
mod failed_read;
mod http;
mod ledger;
mod listing;
mod peek;
mod pull;
mod queue;
mod rejected;
mod resend;
mod reserve;
mod restore;
mod room;
mod settled;
mod store;
mod sync;
mod trial;

bindings::export!(Component with_types_in bindings);

/// Implements every exported interface; stateless itself, see [`exports`].
struct Component;
