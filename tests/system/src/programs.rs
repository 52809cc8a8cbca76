//! `cargo xtask demo` and `cargo xtask bench` run and say what they should.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::built;

/// Runs a program; the environment names the component.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(built(program))
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
    let output = run("demo", &["--json"]);
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

/// A short run of the benchmark.
fn bench(arguments: &[&str]) -> Value {
    let quick: &[&str] = &["--quick", "--json", "--repetitions", "1"];
    let output = run("bench", &[quick, arguments].concat());
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    report
}

fn rows(report: &Value) -> &[Value] {
    report["rows"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn the_benchmark_measures_every_kind_of_work() {
    let report = bench(&["--points", "1000"]);
    for work in ["upsert", "search", "optimize", "load", "restore"] {
        let row = rows(&report)
            .iter()
            .find(|row| row["work"].as_str().is_some_and(|name| name.contains(work)));
        let ratio = row.and_then(|row| row["ratio"]["of_medians"].as_f64());
        assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{work}: {report:#}");
    }
}

#[test]
fn a_benchmark_is_held_against_an_earlier_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("earlier.json");
    let sizes: &[&str] = &[
        "--sizes",
        "100,200",
        "--searches",
        "5",
        "--data",
        "clusters",
    ];
    let report = bench(sizes);
    assert_eq!(rows(&report).len(), 8, "{report:#}");
    std::fs::write(&file, report.to_string()).expect("the earlier run");
    let compare: &[&str] = &["--compare", file.to_str().expect("a name")];
    let report = bench(&[sizes, compare].concat());
    let changes = report["compared"]["changes"].as_array().expect("changes");
    let load = changes
        .iter()
        .find(|change| change["now"]["name"] == "load, 200 points, × native");
    let before = load.and_then(|load| load["before"]["value"].as_f64());
    assert!(before.is_some_and(|ratio| ratio > 0.0), "{report:#}");
}

#[test]
fn the_benchmark_asks_while_a_shard_is_optimized() {
    let report = bench(&["--optimizing", "--points", "600"]);
    assert_eq!(rows(&report).len(), 2);
    for row in rows(&report) {
        for what in ["searches_alone", "searches_beside", "writes_beside"] {
            assert!(row[what]["count"].as_u64() > Some(0), "{what}: {report:#}");
        }
    }
}

#[test]
fn the_benchmark_lets_clients_in_at_every_door() {
    let report = bench(&["--clients", "--points", "400"]);
    // Of the component, without readers and with one.
    for (door, variants) in [("native", 1), ("the host library", 2), ("`serve`", 2)] {
        let of_door = |row: &&Value| row["door"].as_str().is_some_and(|it| it.starts_with(door));
        let clients: Vec<_> = rows(&report).iter().filter(of_door).collect();
        assert_eq!(clients.len(), 3 * variants, "{door}: {report:#}");
        for row in clients {
            assert!(row["waited"]["count"].as_u64() > Some(0), "{report:#}");
        }
    }
}

// Where the system tells a process's memory.
#[cfg(target_os = "linux")]
#[test]
fn the_benchmark_tells_memory_start_and_the_price_of_a_call() {
    let report = bench(&["--footprint", "--points", "400"]);
    let memory = report["memory"].as_array().expect("memory");
    let component = memory
        .iter()
        .find(|row| row["who"] == "component in its host");
    let linear = component.and_then(|row| row["linear"].as_u64());
    assert!(linear.is_some_and(|bytes| bytes > 1 << 20), "{report:#}");
    for row in memory {
        assert!(row["filling_peak"].as_u64() > Some(1 << 20), "{report:#}");
    }
    let report = bench(&["--calls"]);
    assert_eq!(rows(&report).len(), 2, "{report:#}");
    assert_eq!(
        report["own"].as_array().map(Vec::len),
        Some(6),
        "{report:#}"
    );
}

#[test]
fn the_benchmark_finds_the_same_among_every_kind_of_vector() {
    let report = bench(&["--vectors", "--points", "300", "--dimensions", "32"]);
    assert_eq!(rows(&report).len(), 16, "{report:#}");
    for row in rows(&report) {
        // Codes of so few bits are fitted to a random sample of the vectors, natively too.
        let is_fitted = ["turbo quantization, 2 bits", "turbo quantization, 1 bit"]
            .contains(&row["what"].as_str().unwrap_or_default());
        let least = if is_fitted { 0.5 } else { 0.9 };
        assert!(row["agreement"].as_f64() > Some(least), "{row:#}");
        assert!(row["ratio"]["of_medians"].as_f64() > Some(0.0), "{row:#}");
    }
}

#[test]
fn the_benchmark_of_uploads_is_over_both_links() {
    let report = bench(&["--uploads", "--points", "60"]);
    let requests = |link: &str, by: &str| {
        let row = rows(&report).iter().find(|row| {
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
