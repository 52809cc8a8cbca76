//! Whole-system tests, in one program because linking the engine takes long.

mod programs;
mod readme;
