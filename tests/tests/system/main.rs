//! Whole-system tests, in one program because linking the engine takes long.

mod api_table;
mod bad_input;
mod crash_sweep;
mod double_conformance;
mod double_faults;
mod fixture_over_rest;
mod fixture_restore;
mod formats;
mod fuzz_requests;
mod killed;
mod mutations;
mod offline_online;
mod programs;
mod random_schedules;
mod readme;
mod stock_engine;
mod support;
