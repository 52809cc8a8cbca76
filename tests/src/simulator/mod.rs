//! The fault simulator.

pub mod bindings;
pub mod disk;
pub mod faults;
pub mod filesystem;
pub mod guest;
pub mod http;
pub mod life;
pub mod model;
pub mod schedule;
pub mod server;
pub mod sweep;
pub mod world;
