//! Clients of a Qdrant server that tests and programs use beside edge-sync's own.
//!
//! - [`rest`]: a small blocking REST client.
//! - [`python`]: a Python with packages from its registry. The programs for it, and those for Node, are
//!   in this package's folder.

pub mod python;
pub mod rest;
