//! The library over the real component: what it does when a call goes wrong.
//!
//! `EDGE_SYNC_COMPONENT` names the component, as `cargo xtask test` does; without it the tests
//! fail.

use std::path::Path;
use std::time::Duration;

use edge_sync_host::{
    Component, EdgeSync, Error, Point, PointId, SearchRequest, Selection, ServerSettings, Shard,
    ShardOptions, SyncOptions,
};

const CONFIG: &str = r#"{"vectors": {"size": 4, "distance": "Dot"}}"#;

fn component() -> Component {
    static LOADED: std::sync::OnceLock<Component> = std::sync::OnceLock::new();
    LOADED
        .get_or_init(|| {
            let path = std::env::var_os("EDGE_SYNC_COMPONENT")
                .expect("EDGE_SYNC_COMPONENT, which `cargo xtask test` sets");
            Component::load(Path::new(&path)).unwrap()
        })
        .clone()
}

fn point(id: u64) -> Point {
    Point::new(PointId::Num(id)).with_vector("", vec![id as f32, 1.0, 0.0, 0.0])
}

#[test]
fn what_was_written_is_there_after_closing_and_the_directory_is_free() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    let options = ShardOptions::default();
    let shard = Shard::create(&component, directory.path(), CONFIG, options.clone()).unwrap();
    shard.upsert((1..=10).map(point).collect()).unwrap();
    assert!(matches!(
        Shard::open(&component, directory.path(), options.clone()),
        Err(Error::Locked { holder: Some(holder), .. }) if holder.pid == std::process::id()
    ));
    drop(shard);
    let shard = Shard::open(&component, directory.path(), options.clone()).unwrap();
    assert_eq!(shard.count(None).unwrap(), 10);
    shard.close().unwrap();
    assert!(matches!(shard.count(None), Err(Error::Closed(_))));
    Shard::open(&component, directory.path(), options).unwrap();
}

#[test]
fn directories_without_a_shard_say_so_and_are_left_alone() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("none")] {
        assert!(matches!(
            Shard::open(&component, &path, ShardOptions::default()),
            Err(Error::NotFound(_))
        ));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);

    let attached = Shard::attach(&component, directory.path(), ShardOptions::default()).unwrap();
    assert!(!attached.is_present().unwrap());
    assert!(matches!(attached.count(None), Err(Error::NotFound(_))));
    attached.create_here(CONFIG).unwrap();
    assert_eq!(attached.count(None).unwrap(), 0);
    assert!(matches!(
        attached.create_here(CONFIG),
        Err(Error::AlreadyExists(_))
    ));
}

#[test]
fn running_out_of_memory_costs_one_call() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    let options = ShardOptions::default().memory_bytes(256 << 20);
    let shard = Shard::create(&component, directory.path(), CONFIG, options).unwrap();
    shard.upsert(vec![point(1), point(2)]).unwrap();

    let payload = format!(r#"{{"text": "{}"}}"#, "x".repeat(4 << 20));
    let large = (10..110).map(|id| point(id).with_payload(&payload));
    match shard.upsert(large.collect()) {
        Err(Error::MemoryLimit { call: "upsert", .. }) => {}
        other => panic!("{other:?}"),
    }
    // Nothing of the call was logged, and everything before it is there.
    assert_eq!(shard.count(None).unwrap(), 2);
    let notes = shard.notes();
    assert!(
        notes.iter().any(|note| note.contains("memory limit")),
        "{notes:?}"
    );
    shard.upsert(vec![point(3)]).unwrap();
    assert_eq!(shard.count(None).unwrap(), 3);
}

#[test]
fn a_call_past_its_time_costs_one_call() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    let mut options = ShardOptions::default();
    options.times.optimize = Duration::from_millis(1);
    let config = r#"{
        "vectors": {"size": 64, "distance": "Euclid"},
        "optimizers_config": {"indexing_threshold": 100}
    }"#;
    let shard = Shard::create(&component, directory.path(), config, options).unwrap();
    let points = (0..5000_u64).map(|id| {
        let vector = (0..64_u64).map(|n| (id * 31 % (n + 97)) as f32);
        Point::new(PointId::Num(id)).with_vector("", vector.collect::<Vec<f32>>())
    });
    shard.upsert(points.collect()).unwrap();
    // That costs the builder, beside which the shard goes on.
    match shard.optimize() {
        Err(Error::TimedOut {
            call: "stage-optimize",
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(shard.notes(), Vec::<String>::new());
    match shard.resend() {
        Err(Error::TimedOut { call: "resend", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(shard.queue_status().unwrap().queued, 5000);
    assert_eq!(shard.count(None).unwrap(), 5000);
    assert!(!shard.notes().is_empty());
    let found = shard
        .search(SearchRequest::like_point("", PointId::Num(7), 3))
        .unwrap();
    assert_eq!(found.len(), 3);
}

#[test]
fn refused_input_names_the_field_and_changes_nothing() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    let shard = Shard::create(
        &component,
        directory.path(),
        CONFIG,
        ShardOptions::default(),
    )
    .unwrap();
    let bad = Point::new(PointId::Num(2)).with_vector("", vec![1.0, f32::NAN, 0.0, 0.0]);
    let short = Point::new(PointId::Num(2)).with_vector("", vec![1.0]);
    for wrong in [bad, short] {
        match shard.upsert(vec![point(1), wrong]) {
            Err(Error::InvalidInput { field, .. }) => {
                assert!(field.starts_with("points[1]"), "{field}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shard.count(None).unwrap(), 0);
    assert_eq!(shard.queue_status().unwrap().queued, 0);
}

#[test]
fn an_unreachable_server_leaves_the_queue() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let server = ServerSettings::new(format!("http://127.0.0.1:{port}"), "c");
    let edge = EdgeSync::builder(component, directory.path())
        .server(server)
        .sync_options(SyncOptions::default().attempts(2))
        .create(CONFIG)
        .unwrap();
    edge.shard().upsert((1..=25).map(point).collect()).unwrap();
    let report = edge.sync().unwrap();
    assert_eq!((report.uploaded, report.remaining), (0, 25));
    assert!(matches!(report.failure, Some(Error::Server(_))));
    let record = edge.sync_record();
    assert_eq!(record.queued, 25);
    assert!(record.last_error.is_some() && record.last_sync_ms.is_none());
}

#[tokio::test]
async fn async_callers_share_the_shard() {
    let component = component();
    let directory = tempfile::tempdir().unwrap();
    let shard = Shard::create(
        &component,
        directory.path(),
        CONFIG,
        ShardOptions::default(),
    )
    .unwrap();
    let writers: Vec<_> = (0..8_u64)
        .map(|n| {
            let shard = shard.clone();
            tokio::spawn(async move { shard.upsert_async(vec![point(n)]).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let ids = (0..8).map(PointId::Num).collect();
    let points = shard
        .retrieve_async(ids, Selection::payload())
        .await
        .unwrap();
    assert_eq!(points.len(), 8);
}
