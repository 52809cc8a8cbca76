//! What an opening does to a shard's files, and what it does not have to read.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use edge_sync_host::{EdgeSync, Point};
use edge_sync_log::View;
use serde_json::json;

use crate::support::{all_points, component};

/// Two segments, one of them with an index.
const CONFIG: &str = r#"{
    "vectors": {
        "one": {"size": 16, "distance": "Cosine"},
        "other": {"size": 8, "distance": "Dot"}
    },
    "optimizers_config": {"indexing_threshold": 1}
}"#;

fn points(ids: std::ops::Range<u64>) -> Vec<Point> {
    let vector = |id: u64, size: u64| (0..size).map(move |at| ((id * 7 + at) % 11) as f32 + 1.0);
    ids.map(|id| {
        Point::new(id.into())
            .with_vector("one", vector(id, 16).collect::<Vec<_>>())
            .with_vector("other", vector(id, 8).collect::<Vec<_>>())
            .payload(&json!({ "n": id }))
            .expect("an object")
    })
    .collect()
}

fn open(data: &Path) -> EdgeSync {
    let edge = EdgeSync::builder(component(), data).open().expect("opens");
    assert_eq!(edge.shard().notes(), Vec::<String>::new());
    edge
}

/// Every file and folder below: which it is, its length, and what tells its bytes from others.
fn files(folder: &Path) -> BTreeMap<String, (u64, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::metadata(&path).expect("its metadata");
            let mut bytes = DefaultHasher::new();
            if metadata.is_dir() {
                folders.push(path.clone());
            } else {
                fs::read(&path).expect("its bytes").hash(&mut bytes);
            }
            let state = (metadata.ino(), metadata.len(), bytes.finish());
            found.insert(path.display().to_string(), state);
        }
    }
    found
}

#[test]
fn a_shard_that_is_only_read_keeps_its_files_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(CONFIG)
        .expect("a shard");
    edge.shard().upsert(points(0..400)).expect("a write");
    assert!(edge.shard().optimize().expect("an optimization"));
    edge.shard().upsert(points(400..420)).expect("a write");
    let held = all_points(&edge);
    drop(edge);
    // The configuration that the engine resolves follows the segments, which are other ones now.
    drop(open(&data));

    let before = files(&data.join("generations/2/shard"));
    assert!(before.len() > 40, "{before:?}");
    for _ in 0..2 {
        let edge = open(&data);
        assert_eq!(all_points(&edge), held);
        drop(edge);
        assert_eq!(files(&data.join("generations/2/shard")), before);
    }
}

#[test]
fn a_checkpoint_says_how_far_files_are_filled() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(CONFIG)
        .expect("a shard");
    edge.shard().upsert(points(0..300)).expect("a write");
    edge.shard().flush().expect("a checkpoint");
    // Beyond what the first checkpoint has, and the shard goes back to that.
    edge.shard().upsert(points(300..9000)).expect("a write");
    let held = all_points(&edge);
    drop(edge);
    for _ in 0..3 {
        let edge = open(&data);
        assert_eq!(all_points(&edge), held);
        drop(edge);
    }

    let journals = fs::read_dir(data.join("generations/1/rollback")).expect("a folder");
    let journals: Vec<_> = journals.map(|entry| entry.expect("one").path()).collect();
    let [journal] = journals.as_slice() else {
        panic!("{journals:?}");
    };
    let mut filled = BTreeMap::new();
    for record in View::look(journal).expect("a journal").read(0) {
        let payload = record.expect("a record").payload;
        // docs/log-format.md: a kind, a length, a length without the zeros, a path.
        if let [8, rest @ ..] = payload.as_slice() {
            let number = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("8"));
            let path = String::from_utf8(rest[16..].to_vec()).expect("UTF-8");
            filled.insert(path, (number(0), number(8)));
        }
    }
    let page = filled
        .iter()
        .find(|(path, _)| path.ends_with("payload_storage/page_0.dat"));
    let Some((_, (length, data_length))) = page else {
        panic!("{filled:?}");
    };
    assert_eq!(*length, 32 << 20);
    assert!((9000..8 << 20).contains(data_length), "{data_length}");
}
