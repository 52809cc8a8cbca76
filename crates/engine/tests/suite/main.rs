//! The crate's tests, in one program because linking the engine takes long.

mod common;
mod fixture;
mod inputs;
mod operations;
mod real_snapshots;
mod requests;
mod snapshots;
