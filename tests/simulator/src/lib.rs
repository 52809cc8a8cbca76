//! The fault simulator: the real component in a world where everything can go wrong.
//!
//! The component runs in Wasmtime as always. What it imports is replaced: [`filesystem`] is
//! `wasi:filesystem` over an in-memory [`disk`], [`http`] is `wasi:http` to an in-memory
//! [`server`], clocks and randomness in [`guest`] come from the seed. No time passes but the
//! simulated, no thread and no socket takes part, so that a run is repeated exactly by its seed.
//!
//! - [`disk`] knows what a power cut may leave, and says why;
//! - [`faults`] what may go wrong with a call, and when;
//! - [`server`] refuses what a real server refuses, and [`front`] is what may stand before it;
//! - [`world`] numbers the calls, lets faults happen, and records the states between them;
//! - [`model`] what a shard holds, as a plain map;
//! - [`life`] drives a device through steps and compares it with what is [`expected`] after each;
//! - [`sweep`] makes every call of a scripted life a crash point, [`scripts`] has the scripts;
//! - [`schedule`] makes random lives with random faults, [`fleet`] those of several devices;
//! - [`snapshot`] makes the server's snapshots with the native engine, and [`shard`] its partial ones,
//!   which `partial` answers with.
//!
//! # What must hold
//! After every fault, the shard opens again, and
//! - every write that returned is there, in the order of the writes of each point; with another
//!   durability than `always`, a power cut may take the last ones, but none that was uploaded;
//! - nothing is there that was never written;
//! - a call that was interrupted took effect as a whole or not at all, and one that answered an
//!   error not at all;
//! - filters, searches and counts agree with the points;
//! - the server gets every write at least once, in order, and nothing else, and ends up with the
//!   model's state; of a point that other devices write as well, with what the last to reach the
//!   server made of it; what the server refuses is in the rejected log until it is tried again or
//!   dropped;
//! - a restore or a pull is all or nothing: the shard holds what it held, or the snapshot with this
//!   device's writes since;
//! - after a pull the mirror's files are the server's, byte for byte, and they stay so whatever is done
//!   to the shard, of which some of them are files, too;
//! - a shard with points that were deleted on the server is told as unsettled;
//! - when nothing fails any more and every device has synced twice, all hold what the server holds;
//! - the component never traps.
//!
//! `docs/testing-faults.md` says how to run it and how to repeat a failure.

pub mod bindings;
pub mod disk;
pub mod exchange;
pub mod expected;
pub mod faults;
pub mod filesystem;
pub mod fleet;
pub mod front;
pub mod guest;
pub mod http;
pub mod life;
pub mod model;
mod operation;
mod partial;
pub mod schedule;
pub mod scripts;
pub mod server;
pub mod shard;
pub mod snapshot;
pub mod sweep;
pub mod world;
