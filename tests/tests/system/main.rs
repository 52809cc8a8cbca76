//! Whole-system tests, in one program because linking the engine takes long.

mod api_table;
mod bad_input;
mod ceilings;
mod commands;
mod crash_sweep;
mod differential;
mod double_conformance;
mod double_faults;
mod fixture_over_rest;
mod fixture_restore;
mod formats;
mod fuzz_requests;
mod hostile_snapshots;
mod killed;
mod long_runs;
mod mutations;
mod offline_online;
mod programs;
mod python_client;
mod random_schedules;
mod readme;
mod serve;
mod served;
mod stock_engine;
mod support;
