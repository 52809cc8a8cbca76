//! Every host call of a scripted life as a crash point; see `docs/testing-faults.md`.

use edge_sync_host::Component;
use edge_sync_tests::simulator::guest::Program;
use edge_sync_tests::simulator::server::Server;
use edge_sync_tests::simulator::sweep::{Broken, Recording, Report, Rest, Share, record, sweep};
use edge_sync_tests::simulator::{scripts, snapshot};

use crate::support::setting;

/// The share that CI runs: every how many-th crash point. A prime, so that it does not fall into
/// step with the regular sequences of calls.
const CI_STRIDE: usize = 23;

fn program() -> Program {
    let path = Component::find(None).expect("EDGE_SYNC_COMPONENT; `cargo xtask test` sets it");
    Program::load(&path).expect("the component is compiled and linked")
}

fn announce(recording: &Recording, share: &Share, report: &Report) {
    println!(
        "{} host calls, {} of which change something or end a step; {} crashes tried \
         (every {}th, from the {}th), {} violations",
        recording.calls,
        recording.moments.len(),
        report.crashes,
        share.stride,
        share.offset,
        report.violations.len()
    );
}

#[test]
fn nothing_is_lost_wherever_the_component_stops() {
    let program = program();
    let server = Server::new(snapshot::maker());
    let seed = setting("EDGE_SYNC_SEED").unwrap_or(1);
    let recording = record(&program, server, scripts::life(), seed, &Broken::default())
        .unwrap_or_else(|violation| panic!("without a crash: {violation}"));
    let sweep_of = std::env::var("EDGE_SYNC_SWEEP").unwrap_or_default();
    if sweep_of == "list" {
        for moment in 0..recording.moments.len() {
            println!("{moment}: {}", recording.describe(moment));
        }
        return;
    }
    let full = sweep_of == "full";
    let share = Share {
        stride: setting("EDGE_SYNC_SWEEP_STRIDE")
            .map_or(if full { 1 } else { CI_STRIDE }, |stride| stride as usize),
        offset: setting("EDGE_SYNC_SWEEP_OFFSET").unwrap_or(0) as usize,
        cuts: setting("EDGE_SYNC_SWEEP_CUTS").unwrap_or(if full { 4 } else { 1 }),
        rest: if full { Rest::Whole } else { Rest::Short },
        patience: setting("EDGE_SYNC_SWEEP_PATIENCE").unwrap_or(10) as usize,
    };
    let report = sweep(&program, &recording, share);
    announce(&recording, &share, &report);
    let texts: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "seed {seed}\n{}", texts.join("\n\n"));
}
