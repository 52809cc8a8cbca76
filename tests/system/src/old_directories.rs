//! Data directories of earlier versions open: `tests/fixtures/data-directories` has one of each version
//! that wrote another format. `tests/fixtures/README.md` says what is in them.

use std::fs::{self, File};

use edge_sync_host::{EdgeSync, Point, SearchRequest, bound_server};
use flate2::read::GzDecoder;
use serde_json::json;

use crate::support::{all_points, component};

/// The collection that they were uploaded to.
const COLLECTION: &str = "versions";

#[test]
fn a_directory_of_every_earlier_version_opens_and_goes_on() {
    let fixtures = edge_sync_fixtures::folder().join("data-directories");
    let mut versions: Vec<_> = fs::read_dir(fixtures)
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    versions.sort();
    assert!(!versions.is_empty());
    for archive in versions {
        let name = archive.display();
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let file = File::open(&archive).expect("the archive");
        tar::Archive::new(GzDecoder::new(file))
            .unpack(&data)
            .unwrap_or_else(|error| panic!("{name}: {error}"));

        let edge = EdgeSync::builder(component(), &data)
            .open()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // What was flushed, what only the log has, what was overwritten and what was deleted.
        assert_eq!(
            json!(all_points(&edge)),
            json!([
                {"id": 2, "vector": {"d": [0.0, 1.0]}, "payload": {"name": "two", "n": 20}},
                {"id": 4, "vector": {"d": [0.6, 0.8]}, "payload": {"name": "four", "n": 4}},
                {"id": 5, "vector": {"d": [0.8, 0.6]}, "payload": {"name": "five", "n": 5}},
                {
                    "id": "5b1d2f4e-0000-4000-8000-000000000003",
                    "vector": {"s": {"indices": [7], "values": [1.0]}},
                    "payload": {},
                },
            ]),
            "{name}"
        );
        let shard = edge.shard();
        let filter = json!({"must": [{"key": "name", "match": {"value": "five"}}]});
        let request = SearchRequest::nearest("d", vec![1.0, 0.0], 9)
            .filter_by(&filter)
            .expect("a filter");
        assert_eq!(shard.search(request).expect("a search").len(), 1, "{name}");
        let indexes = shard.info().expect("info").payload_schema;
        assert!(
            indexes.contains("keyword") && indexes.contains("integer"),
            "{name}: {indexes}"
        );
        // The queue, the rejected log and the binding.
        let queue = shard.queue_status().expect("a status");
        assert_eq!(
            (
                queue.logged,
                queue.acknowledged,
                queue.queued,
                queue.rejected
            ),
            (9, 6, 3, 1),
            "{name}"
        );
        let rejected = shard.rejected(0, 9).expect("the rejected log");
        assert_eq!(rejected[0].message, "skipped by hand", "{name}");
        let collection = bound_server(&data)
            .expect("a binding")
            .expect("one")
            .collection;
        assert_eq!(collection, COLLECTION, "{name}");
        shard.retry_all_rejected().expect("queued again");
        edge.shard().close().expect("closed");
        drop(edge);

        // And it goes on from there: this version writes to it and opens it again.
        let open = || {
            EdgeSync::builder(component(), &data)
                .open()
                .expect("opened again")
        };
        let edge = open();
        let point = Point::new(6.into()).with_vector("d", vec![1.0, 0.0]);
        edge.shard().upsert(vec![point]).expect("a write");
        edge.shard().flush().expect("a checkpoint");
        drop(edge);
        assert_eq!(all_points(&open()).len(), 5, "{name}");
    }
}
