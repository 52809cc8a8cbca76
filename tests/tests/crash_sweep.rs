//! Every host call of a scripted life as a crash point; see `docs/testing-faults.md`.

use edge_sync_tests::simulator::disk::Names;
use edge_sync_tests::simulator::guest::Program;
use edge_sync_tests::simulator::server::Server;
use edge_sync_tests::simulator::sweep::{Broken, Crash, Rest, record};
use edge_sync_tests::simulator::{scripts, snapshot};

#[test]
fn probe() {
    let path = std::env::var("EDGE_SYNC_COMPONENT").unwrap();
    let t = std::time::Instant::now();
    let program = Program::load(path.as_ref()).unwrap();
    println!("loaded {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let mut steps = scripts::life();
    if let Ok(n) = std::env::var("STEPS") {
        steps.truncate(n.parse().unwrap());
    }
    let server = Server::new(snapshot::maker());
    let recording =
        record(&program, server, steps, 1, &Broken::default()).unwrap_or_else(|v| panic!("{v}"));
    println!(
        "recorded {:?}: {} calls, {} moments",
        t.elapsed(),
        recording.calls,
        recording.moments.len()
    );
    let stride: usize = std::env::var("STRIDE")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(50);
    let from: usize = std::env::var("FROM")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let mut bad = 0;
    for moment in (from..recording.moments.len()).step_by(stride) {
        for crash in [
            Crash::Kill,
            Crash::PowerCut(Names::InOrder, moment as u64),
            Crash::PowerCut(Names::AnySubset, moment as u64),
        ] {
            let t = std::time::Instant::now();
            let outcome = recording.visit(&program, moment, crash, Rest::Short);
            println!(
                "{moment} {crash:?} {} {:?}",
                recording.describe(moment),
                t.elapsed()
            );
            if let Err(v) = outcome {
                println!("VIOLATION {v}");
                bad += 1;
                if bad > 10 {
                    panic!();
                }
            }
        }
    }
}
