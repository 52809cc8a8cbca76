//! Every host call of a scripted life as a crash point; see `docs/testing-faults.md`.

use std::sync::Arc;

use edge_sync_simulator::bindings::exports::edge_sync::shard::types::{Durability, Options};
use edge_sync_simulator::guest::Program;
use edge_sync_simulator::life::{Step, options};
use edge_sync_simulator::server::Server;
use edge_sync_simulator::shard::Maker;
use edge_sync_simulator::sweep::{
    Broken, Recording, Report, Rest, Share, fail_each, record, sweep,
};
use edge_sync_simulator::world::Habits;
use edge_sync_simulator::{scripts, snapshot};

use crate::support::{program, setting};

/// The share that CI runs: every how many-th crash point. A prime, so that it does not fall into
/// step with the regular sequences of calls.
const CI_STRIDE: usize = 23;

/// Which moments CI crashes a second time after, and which moments of the opening those are.
const CI_STRIDE_TWICE: usize = 311;
const CI_STRIDE_OPENING: usize = 13;

/// These lives are shorter.
const CI_STRIDE_UPLOADS: usize = 7;
const CI_STRIDE_REFUSALS: usize = 7;
const CI_STRIDE_IDLE: usize = 7;

/// This one is longer, and each of its ends is a pull of everything.
const CI_STRIDE_PULLS: usize = 53;
const CI_STRIDE_FAILING: usize = 211;

/// Graphs are built in it.
const CI_STRIDE_OPTIMIZATIONS: usize = 503;
const CI_STRIDE_FAILING_OPTIMIZATIONS: usize = 1009;

fn recorded(program: &Program, steps: Vec<Step>, options: Options) -> Recording {
    let server = Server::new(snapshot::maker());
    record(program, server, steps, options, seed(), &Broken::default())
        .unwrap_or_else(|violation| panic!("seed {}, without a crash: {violation}", seed()))
}

/// A life that pulls, with links or where the file system refuses them.
fn recorded_pulls(program: &Program, steps: Vec<Step>, refuses_links: bool) -> Recording {
    let server = Server::following(Arc::new(Maker::default()));
    let broken = Broken {
        habits: Habits {
            refuses_links,
            ..Habits::default()
        },
        ..Broken::default()
    };
    let recording = record(program, server, steps, options(), seed(), &broken)
        .unwrap_or_else(|violation| panic!("seed {}, without a crash: {violation}", seed()));
    let links = recording.moments.iter().filter(|moment| {
        // A link changes the disk, so each that was made is a crash point.
        moment.call.name == "descriptor.link-at"
    });
    let links = links.count();
    println!("{links} links");
    assert_eq!(links == 0, refuses_links);
    recording
}

fn seed() -> u64 {
    setting("EDGE_SYNC_SEED").unwrap_or(1)
}

fn number(name: &str, default: usize) -> usize {
    setting(name).map_or(default, |value| value as usize)
}

/// Every `stride`-th crash point, stopped and with one power cut of each kind, unless the
/// environment says otherwise.
fn share(stride: usize, rest: Rest) -> Share {
    Share {
        stride: number("EDGE_SYNC_SWEEP_STRIDE", stride),
        offset: number("EDGE_SYNC_SWEEP_OFFSET", 0),
        cuts: number("EDGE_SYNC_SWEEP_CUTS", 1) as u64,
        rest,
        patience: number("EDGE_SYNC_SWEEP_PATIENCE", 10),
    }
}

fn tried(program: &Program, recording: &Recording, share: Share) {
    let report = sweep(program, recording, share);
    told(recording, &report, share, "crashes");
}

fn told(recording: &Recording, report: &Report, share: Share, what: &str) {
    println!(
        "{} host calls, {} of which change something or end a step; {} {what} tried \
         (every {}th, from the {}th), {} violations",
        recording.calls,
        recording.moments.len(),
        report.crashes,
        share.stride,
        share.offset,
        report.violations.len()
    );
    let texts: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "seed {}\n{}", seed(), texts.join("\n\n"));
}

#[test]
fn nothing_is_lost_wherever_the_component_stops() {
    let program = program();
    let recording = recorded(&program, scripts::life(), options());
    let sweep_of = std::env::var("EDGE_SYNC_SWEEP").unwrap_or_default();
    if sweep_of == "list" {
        for moment in 0..recording.moments.len() {
            println!("{moment}: {}", recording.describe(moment));
        }
        return;
    }
    let share = if sweep_of == "full" {
        Share {
            cuts: number("EDGE_SYNC_SWEEP_CUTS", 4) as u64,
            ..share(1, Rest::Whole)
        }
    } else {
        share(CI_STRIDE, Rest::Short)
    };
    tried(&program, &recording, share);
}

#[test]
fn nothing_is_lost_when_the_opening_after_a_crash_stops_as_well() {
    let program = program();
    let recording = recorded(&program, scripts::life(), options());
    let opening = number("EDGE_SYNC_OPENING_STRIDE", CI_STRIDE_OPENING);
    let share = share(CI_STRIDE_TWICE, Rest::Again(opening));
    tried(&program, &recording, share);
}

#[test]
fn a_refused_operation_is_in_the_rejected_log_or_in_the_queue() {
    let program = program();
    let recording = recorded(&program, scripts::refusals(), options());
    tried(&program, &recording, share(CI_STRIDE_REFUSALS, Rest::Short));
}

#[test]
fn refused_operations_that_are_retried_together_are_queued_or_rejected() {
    let program = program();
    let recording = recorded(&program, scripts::refusals_retried_together(), options());
    tried(&program, &recording, share(CI_STRIDE_REFUSALS, Rest::Short));
}

#[test]
fn a_pull_is_all_or_nothing_wherever_it_stops() {
    let program = program();
    let recording = recorded_pulls(&program, scripts::pulls(), false);
    tried(&program, &recording, share(CI_STRIDE_PULLS, Rest::Short));
}

#[test]
fn a_pull_is_all_or_nothing_where_links_are_refused() {
    let program = program();
    let recording = recorded_pulls(&program, scripts::pulls(), true);
    tried(
        &program,
        &recording,
        share(2 * CI_STRIDE_PULLS, Rest::Short),
    );
}

/// The device goes on from what it has, whichever call of a pull fails.
#[test]
fn a_call_of_a_pull_that_fails_costs_the_pull_at_most() {
    let program = program();
    let recording = recorded_pulls(&program, scripts::pulls(), false);
    let share = share(CI_STRIDE_FAILING, Rest::Short);
    let report = fail_each(&program, &recording, &scripts::pull_sections(), share);
    told(&recording, &report, share, "failures");
}

#[test]
fn an_optimization_is_all_or_nothing_wherever_it_stops() {
    let program = program();
    let recording = recorded_pulls(&program, scripts::optimizations(), false);
    tried(
        &program,
        &recording,
        share(CI_STRIDE_OPTIMIZATIONS, Rest::Short),
    );
}

#[test]
fn an_optimization_is_all_or_nothing_where_links_are_refused() {
    let program = program();
    let recording = recorded_pulls(&program, scripts::optimizations(), true);
    tried(
        &program,
        &recording,
        share(2 * CI_STRIDE_OPTIMIZATIONS, Rest::Short),
    );
}

/// A full disk among the failures.
#[test]
fn a_call_of_an_optimization_that_fails_costs_the_optimization_at_most() {
    let program = program();
    let recording = recorded_pulls(&program, scripts::optimizations(), false);
    let share = share(CI_STRIDE_FAILING_OPTIMIZATIONS, Rest::Short);
    let sections = scripts::optimization_sections();
    let report = fail_each(&program, &recording, &sections, share);
    told(&recording, &report, share, "failures");
}

/// A checkpoint that is not due must leave the watch over the engine's files in place: what is
/// overwritten afterwards has to be there when the opening after a crash goes back.
#[test]
fn a_flush_with_nothing_to_flush_leaves_what_a_crash_needs() {
    let program = program();
    // Nothing else is to make a checkpoint.
    let options = Options {
        flush_after_bytes: None,
        ..options()
    };
    let recording = recorded(&program, scripts::idle_flushes(), options);
    tried(&program, &recording, share(CI_STRIDE_IDLE, Rest::Short));
}

/// Without an fsync for each write, a power cut may take the last ones, but none that an upload, a
/// flush, an opening or a restore has relied on.
#[test]
fn a_power_cut_takes_only_writes_that_nothing_relied_on() {
    let program = program();
    // Nothing else is to bring the log to disk.
    let options = Options {
        flush_after_bytes: None,
        durability: Durability::Os,
        ..options()
    };
    let recording = recorded(&program, scripts::uploads(), options);
    tried(&program, &recording, share(CI_STRIDE_UPLOADS, Rest::Short));
}
