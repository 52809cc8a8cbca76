//! `cargo xtask demo` and `cargo xtask bench` run and say what they should.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs a program that was built with the tests; the environment names the component.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

#[test]
fn the_demo_ends_with_devices_that_agree() {
    let output = run(env!("CARGO_BIN_EXE_demo"), &["--json"]);
    let table = json(&output);
    assert!(output.status.success(), "{table:#}");
    assert_eq!(table["agree"], true);
    assert_eq!(table["device_a"]["accuracy"], table["device_b"]["accuracy"]);
    // Five neighbours of the same hand-written digits name most of them rightly; a search that
    // answers at random would name one in ten.
    let accuracy = table["device_a"]["accuracy"].as_f64();
    assert!(accuracy.is_some_and(|share| share > 0.9), "{table:#}");
    for device in ["device_a", "device_b"] {
        assert_eq!(table[device]["points"], table["server_points"]);
    }
    let story = String::from_utf8_lossy(&output.stderr);
    assert!(story.contains("▀") && story.contains("query: "), "{story}");
}

#[test]
fn the_benchmark_measures_every_kind_of_work() {
    let arguments = [
        "--quick",
        "--json",
        "--points",
        "1000",
        "--repetitions",
        "1",
    ];
    let output = run(env!("CARGO_BIN_EXE_bench"), &arguments);
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    let rows = report["rows"].as_array().expect("rows");
    for work in ["upsert", "search", "optimize", "load", "restore"] {
        let row = rows
            .iter()
            .find(|row| row["work"].as_str().is_some_and(|name| name.contains(work)));
        let ratio = row.and_then(|row| row["ratio"]["of_medians"].as_f64());
        assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{work}: {report:#}");
    }
}

#[test]
fn the_benchmark_of_uploads_is_over_both_links() {
    let arguments = [
        "--quick",
        "--json",
        "--uploads",
        "--points",
        "60",
        "--repetitions",
        "1",
    ];
    let output = run(env!("CARGO_BIN_EXE_bench"), &arguments);
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    let rows = report["rows"].as_array().expect("rows");
    let requests = |link: &str, by: &str| {
        let row = rows.iter().find(|row| {
            let is =
                |name: &str, text: &str| row[name].as_str().is_some_and(|it| it.starts_with(text));
            is("link", link) && is("by", by)
        });
        let row = row.unwrap_or_else(|| panic!("{link}, {by}: {report:#}"));
        assert!(row["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
        row["requests"].as_u64()
    };
    for link in ["loopback", "100 ms"] {
        assert_eq!(requests(link, "requests of 500"), Some(1));
        assert_eq!(requests(link, "edge-sync, requests of 10"), Some(6));
    }
}
