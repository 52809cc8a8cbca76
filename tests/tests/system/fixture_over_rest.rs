//! The fixture's snapshot, restored into the server double, answers over HTTP as the server did.

use edge_sync_tests::double::{Options, QdrantDouble};
use edge_sync_tests::fixture;
use edge_sync_tests::openapi::Description;

#[test]
fn all_recorded_requests_are_answered_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let double = QdrantDouble::start(Options::default()).expect("a server");
    double
        .restore("all-kinds", &fixture::snapshot_file(folder.path()))
        .expect("restored");
    let client = double.client();
    let description = Description::load();
    let mut differences = Vec::new();
    let queries = fixture::queries();
    for query in &queries {
        let path = format!("/collections/all-kinds{}", query.path);
        let (status, answer) = client
            .call(&query.method, &path, Some(&query.body))
            .expect("an answer");
        if status != 200 {
            differences.push(format!("{}: {answer}", query.name));
            continue;
        }
        if let Err(problem) = description.check(&query.method, &path, status, &answer) {
            differences.push(format!("{}: {problem}", query.name));
        }
        if let Err(difference) = fixture::same_result(&query.name, &query.result, &answer["result"])
        {
            differences.push(format!("{}: {difference}", query.name));
        }
    }
    let summary = differences.join("\n");
    assert!(
        differences.is_empty(),
        "of {} answers:\n{summary}",
        queries.len()
    );
}

#[test]
fn the_restored_collection_describes_itself_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let double = QdrantDouble::start(Options::default()).expect("a server");
    double
        .restore("all-kinds", &fixture::snapshot_file(folder.path()))
        .expect("restored");
    let info = double
        .client()
        .result("GET", "/collections/all-kinds", None);
    let server = &fixture::collection()["collection"];
    assert_eq!(info["points_count"], server["points_count"]);
    assert_eq!(info["segments_count"], server["segments_count"]);
    let indexes = |info: &serde_json::Value| {
        let schema = info["payload_schema"]
            .as_object()
            .expect("a schema")
            .clone();
        schema
            .into_iter()
            .map(|(field, index)| (field, index["data_type"].clone()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(indexes(&info), indexes(server));
    for (name, vector) in server["config"]["params"]["vectors"]
        .as_object()
        .expect("vectors")
    {
        let ours = &info["config"]["params"]["vectors"][name];
        for field in ["size", "distance", "datatype", "multivector_config"] {
            assert_eq!(ours.get(field), vector.get(field), "{name}.{field}");
        }
    }
}
