//! Whole-system tests, in one program because linking the engine takes long.

mod bad_input;
mod fixture_restore;
mod killed;
mod offline_online;
mod programs;
mod readme;
mod stock_engine;
mod support;
