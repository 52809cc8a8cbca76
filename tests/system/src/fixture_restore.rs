//! A snapshot that a real server made, restored through the component.

use edge_sync_fixtures::all_kinds;
use edge_sync_host::{Cancel, EdgeSync, RestoreSource};

use crate::support::component;

#[test]
fn every_recorded_query_is_answered_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = all_kinds::snapshot_file(folder.path());
    let edge = EdgeSync::builder(component(), folder.path().join("data"))
        .attach()
        .expect("a directory");
    let report = edge
        .restore(&RestoreSource::File(snapshot), &Cancel::new(), |_| {})
        .expect("the snapshot restores");
    assert_eq!(report.points, all_kinds::points().len() as u64);

    let mut wrong = Vec::new();
    let queries = all_kinds::queries();
    for query in &queries {
        let body = query.body.to_string();
        match edge.shard().request(&query.method, &query.path, &body) {
            Ok(result) => {
                let result = serde_json::from_str(&result).expect("JSON");
                if let Err(why) = all_kinds::same_result(&query.name, &query.result, &result) {
                    wrong.push(format!("{}: {why}", query.name));
                }
            }
            Err(error) => wrong.push(format!("{}: {error}", query.name)),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} answers differ:\n{}",
        wrong.len(),
        queries.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = std::fs::read(all_kinds::snapshot_file(folder.path())).expect("the snapshot");
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(crate::support::CONFIG)
        .expect("a shard");
    edge.shard()
        .upsert(vec![crate::support::point(1)])
        .expect("a write");

    let damaged = folder.path().join("damaged.snapshot");
    let cut = good.len() / 2;
    // A cut archive, no archive, and a whole one of another collection.
    let cases: [(&str, &[u8]); 3] = [
        ("cut", good.get(..cut).unwrap_or_default()),
        ("text", b"this is no snapshot"),
        ("other", &good),
    ];
    for (case, bytes) in cases {
        std::fs::write(&damaged, bytes).expect("a file");
        let error = edge
            .restore(
                &RestoreSource::File(damaged.clone()),
                &Cancel::new(),
                |_| {},
            )
            .expect_err(case);
        assert_eq!(error.kind(), "bad-snapshot", "{case}: {error}");
        assert_eq!(edge.shard().count(None).expect("a count"), 1, "{case}");
    }
    let generations = std::fs::read_dir(data.join("generations")).expect("a folder");
    assert_eq!(generations.count(), 1);
    let staged = std::fs::read_dir(data.join("staging")).map_or(0, Iterator::count);
    assert_eq!(staged, 0);
}
