//! What is refused, how it is said, and that nothing is left of it.

use edge_sync_host::{EdgeSync, Error, NamedVector, Point, PointId, Vector};

use crate::support::{CONFIG, component, point, vector};

fn edge(folder: &tempfile::TempDir) -> EdgeSync {
    EdgeSync::builder(component(), folder.path())
        .create(CONFIG)
        .expect("a shard")
}

fn with_vector(name: &str, vector: Vector) -> Point {
    Point {
        vectors: vec![NamedVector {
            name: name.to_owned(),
            vector,
        }],
        ..point(9)
    }
}

#[test]
fn bad_points_name_their_field_and_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge(&folder);
    let cases = [
        (
            "dimension",
            with_vector("", Vector::Dense(vec![1.0; 3])),
            "4",
        ),
        (
            "NaN",
            with_vector("", Vector::Dense(vec![f32::NAN; 4])),
            "finite",
        ),
        (
            "infinite",
            with_vector("", Vector::Dense(vec![f32::INFINITY; 4])),
            "finite",
        ),
        (
            "name",
            with_vector("image", Vector::Dense(vec![1.0; 4])),
            "image",
        ),
        (
            "kind",
            with_vector("", Vector::Multi(vec![vec![1.0; 4]])),
            "",
        ),
        (
            "uuid",
            Point {
                id: PointId::Uuid("no-uuid".to_owned()),
                ..point(9)
            },
            "no-uuid",
        ),
        (
            "payload",
            Point {
                payload: Some("[1]".to_owned()),
                ..point(9)
            },
            "object",
        ),
        (
            "json",
            Point {
                payload: Some("{\"a\":".to_owned()),
                ..point(9)
            },
            "JSON",
        ),
    ];
    for (case, bad, expected) in cases {
        // The good point before it must not be written either.
        let error = edge.shard().upsert(vec![point(1), bad]).expect_err(case);
        let Error::InvalidInput { field, message } = &error else {
            panic!("{case}: {error:?}");
        };
        assert!(field.starts_with("points[1]"), "{case}: {field}");
        assert!(message.contains(expected), "{case}: {message}");
        assert_eq!(edge.shard().count(None).expect("a count"), 0, "{case}");
        assert_eq!(
            edge.shard().queue_status().expect("status").logged,
            0,
            "{case}"
        );
    }
}

#[test]
fn bad_requests_are_refused_with_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge(&folder);
    let cases = [
        (
            "PUT",
            "/points",
            r#"{"points": [{"id": -1, "vector": [1, 2, 3, 4]}]}"#,
        ),
        (
            "PUT",
            "/points",
            r#"{"points": [{"id": "x", "vector": [1, 2, 3, 4]}]}"#,
        ),
        (
            "PUT",
            "/points",
            r#"{"points": [{"id": 1, "vektor": [1, 2, 3, 4]}]}"#,
        ),
        ("PUT", "/points", "{"),
        ("POST", "/points/query", r#"{"query": [1, 2]}"#),
        (
            "POST",
            "/points/query",
            r#"{"query": [1, 2, 3, 4], "using": "image"}"#,
        ),
        (
            "POST",
            "/points/scroll",
            r#"{"filter": {"must": [{"keys": 1}]}}"#,
        ),
        ("POST", "/points/count", r#"{"filter": {"mst": []}}"#),
        (
            "PUT",
            "/index",
            r#"{"field_name": "a", "field_schema": "colour"}"#,
        ),
    ];
    for (method, path, body) in cases {
        let error = edge.shard().request(method, path, body).expect_err(body);
        assert_eq!(error.kind(), "invalid-input", "{body}: {error}");
    }
    let error = edge
        .shard()
        .request("GET", "/nothing", "")
        .expect_err("no such path");
    assert!(
        matches!(error.kind(), "unsupported" | "not-found"),
        "{error}"
    );
    // A deep filter is an error, not the end of the component's stack.
    let deep = format!("{}{}", r#"{"must":["#.repeat(5_000), "]}".repeat(5_000));
    let error = edge.shard().count(Some(&deep)).expect_err("too deep");
    assert_eq!(error.kind(), "invalid-input", "{error}");
    assert_eq!(edge.shard().count(None).expect("still there"), 0);
}

#[test]
fn bad_configurations_create_nothing() {
    let cases = [
        r#"{"vectors": {"size": 0, "distance": "Dot"}}"#,
        r#"{"vectors": {"size": 4, "distance": "Near"}}"#,
        r#"{"vectors": {"size": 4}}"#,
        r#"{"vektors": {"size": 4, "distance": "Dot"}}"#,
        "no JSON",
    ];
    for config in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let created = EdgeSync::builder(component(), folder.path()).create(config);
        let error = created.err().expect(config);
        assert_eq!(error.kind(), "invalid-input", "{config}: {error}");
        let opened = EdgeSync::builder(component(), folder.path()).open();
        assert_eq!(opened.err().expect("nothing there").kind(), "not-found");
    }
}

#[test]
fn a_directory_has_one_host_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge(&folder);
    edge.shard().upsert(vec![point(1)]).expect("a write");
    let second = EdgeSync::builder(component(), folder.path()).open();
    assert_eq!(second.err().expect("locked").kind(), "locked");
    drop(edge);
    let again = EdgeSync::builder(component(), folder.path())
        .open()
        .expect("free again");
    assert_eq!(again.shard().count(None).expect("a count"), 1);
    let found = again
        .shard()
        .search(edge_sync_host::SearchRequest::nearest("", vector(1), 1))
        .expect("a search");
    assert_eq!(found[0].id, PointId::Num(1));
}

#[test]
fn a_damaged_log_is_reported_with_file_and_offset() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge(&folder);
    for id in 0..5 {
        edge.shard().upsert(vec![point(id)]).expect("a write");
    }
    drop(edge);
    let log = std::fs::read_dir(folder.path().join("log"))
        .expect("a folder")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "log"))
        .expect("a segment");
    let mut bytes = std::fs::read(&log).expect("a segment");
    // Everything was flushed at the end, so only the upload reads it.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(&log, bytes).expect("written");
    let opened = EdgeSync::builder(component(), folder.path()).open();
    match opened.err().expect("damage is found") {
        Error::Corrupt(damage) => {
            assert!(damage.file.ends_with(".log"), "{damage:?}");
            assert!(damage.offset.is_some(), "{damage:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_directory_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").expect("a file");
    for attempt in [
        EdgeSync::builder(component(), &file).create(CONFIG),
        EdgeSync::builder(component(), &file).open(),
    ] {
        let error = attempt.err().expect("it is a file").to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
    assert_eq!(
        std::fs::read_to_string(&file).expect("untouched"),
        "no directory"
    );
}

#[cfg(unix)]
#[test]
fn a_directory_without_permissions_is_an_error_and_keeps_its_shard() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let permit = |mode| {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let edge = EdgeSync::builder(component(), &data)
        .create(CONFIG)
        .expect("a shard");
    edge.shard().upsert(vec![point(1)]).expect("a write");
    drop(edge);
    permit(0o000);
    if std::fs::read_dir(&data).is_ok() {
        // For root, permissions are no obstacle; a path below a file is one for everybody.
        println!("not tested: this user may read everything");
    } else {
        let opened = EdgeSync::builder(component(), &data).open();
        let error = opened.err().expect("not readable").to_string();
        assert!(error.contains(&data.display().to_string()), "{error}");
    }
    permit(0o755);
    let edge = EdgeSync::builder(component(), &data)
        .open()
        .expect("readable again");
    assert_eq!(edge.shard().count(None).expect("a count"), 1);
}
