//! A device's queue and a strict server with something in front of it, for tests of the upload
//! machine. Each test uses a part of it.

#![allow(dead_code, unused_imports)]

mod device;
mod drive;
mod proxy;
mod qdrant;

pub use device::Op;
pub use drive::{End, World};
pub use proxy::{Fault, Rule, page};
pub use qdrant::{Collection, State, tags};
