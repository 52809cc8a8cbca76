//! What the demo shows and measures, apart from the story itself (`main.rs`).
//!
//! - [`drawing`]: digits as a person sees them, in a terminal or a pipe.
//! - [`neighbours`]: leave-one-out classification by the nearest neighbours.
//! - [`table`]: the closing table, for people and as JSON.

pub mod drawing;
pub mod neighbours;
pub mod table;
