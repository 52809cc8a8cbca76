//! What somebody meets who has just begun: what the command takes, what it says, how it is stopped.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_sync_host::SyncRecord;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use regex::Regex;
use serde_json::{Value, json};

use crate::served::edge_sync;
use crate::support::{COLLECTION, component_file, server};

/// After so long without what a test waits for, it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs a command with `input` on standard input.
fn run(data: &Path, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = edge_sync(data, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its input");
    // One that is refused early does not read.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    Ran {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// What a command prints that has to succeed.
pub fn out(data: &Path, arguments: &[&str], input: &[u8]) -> String {
    let ran = run(data, arguments, input);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    ran.out
}

fn colours(data: &Path) {
    out(data, &["create", "--size", "2", "--distance", "dot"], b"");
    let points = b"{\"id\":1,\"vector\":[1,0],\"payload\":{\"warm\":true}}\n\
                   {\"id\":2,\"vector\":[0,1],\"payload\":{\"warm\":false}}\n";
    out(data, &["upsert"], points);
}

fn count(data: &Path) -> u64 {
    let text = out(data, &["--json", "count"], b"");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value["count"].as_u64().expect("a count")
}

pub fn interrupt(id: u32) {
    let sent = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -INT {id}"))
        .status();
    assert!(sent.expect("sh").success());
}

#[test]
fn the_first_command_says_that_it_prepares_the_component_and_the_next_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| {
        let mut command = edge_sync(&data, arguments);
        let output = command
            .env("EDGE_SYNC_CACHE", folder.path().join("cache"))
            .output()
            .expect("the command");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let told = run(&["create", "--size", "2", "--distance", "dot"]);
    assert_eq!(
        told,
        "note: preparing the component, once; this takes a while\n"
    );
    assert_eq!(run(&["count"]), "");
    let prepared = edge_sync(&data, &["--json", "prepare"])
        .env("EDGE_SYNC_CACHE", folder.path().join("cache"))
        .output();
    let prepared = prepared.expect("the command").stdout;
    assert_eq!(prepared, b"{\"compiled\":false}\n");
}

/// The component has no names of its functions; those beside it are for whoever reads a log.
#[test]
fn a_trap_is_told_with_the_names_of_functions() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    colours(&data);
    // More than the memory that there is: the allocation of the body ends the instance.
    let body = folder.path().join("body.json");
    fs::write(&body, format!("{{{}}}", " ".repeat(40 << 20))).expect("written");
    let scroll = |component: &Path| {
        let output = edge_sync(&data, &["--memory-mib", "48", "scroll"])
            .arg(&body)
            .env("EDGE_SYNC_LOG", "edge_sync_host=error")
            .env("EDGE_SYNC_COMPONENT", component)
            .output()
            .expect("the command");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("memory limit"), "{told}");
        told
    };
    let beside = component_file();
    let told = scroll(&beside);
    assert!(told.contains(": cabi_realloc"), "{told}");
    // Names of another component explain nothing.
    let copy = folder.path().join("edge_sync.wasm");
    fs::copy(&beside, &copy).expect("a copy");
    for names in [None, Some("another\nright\nwrong\n")] {
        if let Some(names) = names {
            fs::write(folder.path().join("edge_sync.names"), names).expect("written");
        }
        let told = scroll(&copy);
        assert!(!told.contains(": cabi_realloc"), "{told}");
        assert!(told.contains(": function "), "{told}");
    }
}

#[test]
fn points_come_in_every_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    out(&data, &["create", "--size", "2", "--distance", "dot"], b"");
    let one = r#"{"id":1,"vector":[1,0]}"#;
    let two = r#"{"id":2,"vector":[0,1],"payload":{"a":"b"}}"#;
    let forms = [
        format!("{one}\n{two}\n"),
        format!("\u{feff}{one}\r\n{two}\r\n"),
        format!("[{one},\n{two}]"),
        format!("\u{feff}[\r\n  {one},\r\n  {two}\r\n]\r\n"),
        format!("{{\"points\": [{one}, {two}]}}"),
    ];
    for (index, form) in forms.iter().enumerate() {
        let file = folder.path().join(format!("points-{index}"));
        fs::write(&file, form).expect("written");
        let said = |text: String| {
            assert!(
                text.starts_with("upserted 2 points, up to "),
                "{form}: {text}"
            );
            out(&data, &["delete", "1", "2"], b"");
        };
        said(out(&data, &["upsert", file.to_str().expect("UTF-8")], b""));
        said(out(&data, &["upsert"], form.as_bytes()));
        if !form.starts_with('\u{feff}') {
            said(out(&data, &["upsert", form], b""));
        }
    }
    let table = "id,vector[0],vector[1],name,year\n1,1,0,red,1999\n2,0,1,,\n";
    let file = folder.path().join("points.csv");
    fs::write(&file, table).expect("written");
    out(&data, &["upsert", file.to_str().expect("UTF-8")], b"");
    let found = out(&data, &["--json", "retrieve", "1", "2"], b"");
    assert_eq!(
        found,
        "[{\"id\":1,\"payload\":{\"name\":\"red\",\"year\":1999}},{\"id\":2,\"payload\":{}}]\n"
    );
    let said = out(
        &data,
        &["upsert", "--format", "tsv"],
        b"id\tvector\n3\t[1,1]\n",
    );
    assert_eq!(said, "upserted 1 point, up to sequence 42\n");
}

/// Tables and lists of points hold what `PUT /points` takes, texts among it.
#[test]
fn points_of_a_file_have_texts_that_are_embedded_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let config = json!({
        "vectors": { "dense": { "size": 2, "distance": "Dot" } },
        "sparse_vectors": { "words": { "modifier": "idf" } },
    });
    out(&data, &["create"], config.to_string().as_bytes());
    let document = |text: &str| json!({ "text": text, "model": "qdrant/bm25" });
    let point = |id: u32, text: &str| json!({ "id": id, "vector": { "words": document(text) } });
    let body = json!({ "points": [point(1, "a red stone")] });
    out(
        &data,
        &["upsert", "--body", "-"],
        body.to_string().as_bytes(),
    );
    let lines = format!("{}\n{}\n", point(2, "a red stone"), point(3, "a blue bird"));
    assert_eq!(
        out(&data, &["upsert"], lines.as_bytes()),
        "upserted 2 points, up to sequence 3\n"
    );
    let table = "id\tvector.words\n4\t{\"text\": \"a red stone\", \"model\": \"qdrant/bm25\"}\n";
    assert_eq!(
        out(&data, &["upsert", "--format", "tsv"], table.as_bytes()),
        "upserted 1 point, up to sequence 4\n"
    );
    let stored = |id: &str| {
        let found = out(&data, &["--json", "retrieve", id, "--with-vector"], b"");
        let found: Value = serde_json::from_str(&found).expect("JSON");
        found[0]["vector"].clone()
    };
    let whole = stored("1");
    let values = whole["words"]["values"].as_array();
    assert_eq!(values.map(Vec::len), Some(2), "{whole}");
    assert_eq!((stored("2"), stored("4")), (whole.clone(), whole));
    let query = json!({ "query": document("birds"), "using": "words", "limit": 1 });
    let found = out(&data, &["--json", "search", &query.to_string()], b"");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(found["points"][0]["id"], 3, "{found}");

    // What came before a text that nothing embeds here is written.
    let lines = "{\"id\":5,\"vector\":{}}\n\
                 {\"id\":6,\"vector\":{\"words\":{\"text\":\"x\",\"model\":\"minilm\"}}}\n";
    let ran = run(&data, &["upsert"], lines.as_bytes());
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert_eq!(
        ran.err,
        "error: not supported: line 2, column 27: vector.words: embedding with model \"minilm\"; \
         only \"qdrant/bm25\" runs without a server, embed before calling\n"
    );
    assert_eq!(ran.out, "upserted 1 point, up to sequence 5\n");
    // The points are read before any is compared with the collection; the first that is wrong is told.
    let lines = "{\"id\":7,\"vector\":{\"dense\":[1,0]}}\n{\"id\":8,\"vector\":{\"dense\":[1]}}\n\
                 {\"id\":9,\"vector\":{\"dense\":[1,null]}}\n";
    let ran = run(&data, &["upsert"], lines.as_bytes());
    assert_eq!(
        ran.err,
        "error: line 2, column 27: vector.dense: Vector dimension error: expected dim: 2, got 1\n"
    );
    assert_eq!(ran.out, "upserted 1 point, up to sequence 6\n");
    let ran = run(
        &data,
        &["upsert"],
        b"{\"id\":1,\"vector\":{},\"shard_key\":\"a\"}",
    );
    assert_eq!(
        ran.err,
        "error: line 1, column 33: shard_key: `shard_key` belongs to a whole body of `PUT /points`, \
         which `upsert --body` takes\n"
    );
}

/// A table of an id, a vector as a list and a name; the numbers of the vectors one after the other.
fn parquet_file(path: &Path, ids: &[i64], numbers: &[f32]) {
    let schema = "message points {
        REQUIRED INT64 id;
        REQUIRED GROUP vector (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
        REQUIRED BYTE_ARRAY name (UTF8);
    }";
    let schema = parse_message_type(schema).expect("a schema");
    let file = fs::File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(
        file,
        Arc::new(schema),
        Arc::new(WriterProperties::builder().build()),
    )
    .expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("a column").expect("one");
    let written = column.typed::<Int64Type>().write_batch(ids, None, None);
    written.expect("ids");
    column.close().expect("closed");
    let mut column = group.next_column().expect("a column").expect("one");
    // Each list begins with its first number.
    let repeats: Vec<i16> = (0..numbers.len()).map(|at| i16::from(at % 2 > 0)).collect();
    let is_there = vec![1; numbers.len()];
    let lists = column.typed::<FloatType>();
    let written = lists.write_batch(numbers, Some(&is_there), Some(&repeats));
    written.expect("vectors");
    column.close().expect("closed");
    let mut column = group.next_column().expect("a column").expect("one");
    let names: Vec<ByteArray> = ids
        .iter()
        .map(|id| format!("n{id}").as_str().into())
        .collect();
    let written = column
        .typed::<ByteArrayType>()
        .write_batch(&names, None, None);
    written.expect("names");
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
}

#[test]
fn a_parquet_file_is_imported_and_its_mistakes_have_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    out(&data, &["create", "--size", "2", "--distance", "dot"], b"");
    let file = folder.path().join("points.parquet");
    let name = file.to_str().expect("UTF-8");
    parquet_file(&file, &[7, 8], &[1.0, 0.0, 0.0, 1.0]);
    assert_eq!(
        out(&data, &["upsert", name], b""),
        "upserted 2 points, up to sequence 2\n"
    );
    let found = out(
        &data,
        &[
            "--json",
            "search",
            "--vector",
            "0,1",
            "--limit",
            "1",
            "--with-payload",
        ],
        b"",
    );
    assert_eq!(
        found,
        "{\"points\":[{\"id\":8,\"version\":1,\"score\":1.0,\"payload\":{\"name\":\"n8\"}}]}\n"
    );
    parquet_file(&file, &[9, -1], &[1.0, 0.0, 0.0, 1.0]);
    let ran = run(&data, &["upsert", name], b"");
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.starts_with("error: row 2: id: "), "{}", ran.err);
    assert_eq!(ran.out, "upserted 1 point, up to sequence 3\n");
}

#[test]
fn bodies_come_as_arguments_and_the_commonest_search_needs_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    colours(data);
    let nearest = "{\"points\":[{\"id\":1,\"version\":1,\"score\":1.0}]}\n";
    let body = r#"{"query": [1, 0], "limit": 1}"#;
    assert_eq!(out(data, &["--json", "search", body], b""), nearest);
    assert_eq!(out(data, &["--json", "search"], body.as_bytes()), nearest);
    let searched =
        |arguments: &[&str]| out(data, &[&["--json", "search"], arguments].concat(), b"");
    assert_eq!(searched(&["--vector", "1,0", "--limit", "1"]), nearest);
    assert_eq!(searched(&["--vector=[1, 0]", "--limit", "1"]), nearest);
    assert_eq!(searched(&["[1, 0]", "--limit", "1"]), nearest);
    // A flag is stronger than the body.
    assert_eq!(
        searched(&[r#"{"query": [1, 0], "limit": 9}"#, "--limit", "1"]),
        nearest
    );
    let cold = r#"{"must": [{"key": "warm", "match": {"value": false}}]}"#;
    assert_eq!(
        searched(&["--vector", "-1,0", "--filter", cold, "--with-payload"]),
        "{\"points\":[{\"id\":2,\"version\":1,\"score\":0.0,\"payload\":{\"warm\":false}}]}\n"
    );
    // `query` is the same command.
    assert_eq!(out(data, &["--json", "query", body], b""), nearest);

    let ids = b"{\"ids\": [2], \"with_payload\": false}";
    let found = "[{\"id\":2}]\n";
    assert_eq!(out(data, &["--json", "retrieve"], ids), found);
    let ids = std::str::from_utf8(ids).expect("UTF-8");
    assert_eq!(out(data, &["--json", "retrieve", ids], b""), found);
    let counted = |arguments: &[&str]| out(data, &[&["--json", "count"], arguments].concat(), b"");
    assert_eq!(
        counted(&[&format!("{{\"filter\": {cold}}}")]),
        "{\"count\":1}\n"
    );
    assert_eq!(counted(&["--filter", cold]), "{\"count\":1}\n");
    let facet = out(
        data,
        &["--json", "scroll", r#"{"limit": 1, "with_payload": false}"#],
        b"",
    );
    assert_eq!(facet, "{\"points\":[{\"id\":1}],\"next_page_offset\":2}\n");
    assert_eq!(
        out(data, &["delete", r#"{"points": [1, 2]}"#], b""),
        "deleted 2 points, up to sequence 3\n"
    );
}

#[test]
fn every_wrong_input_has_words_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    colours(&data);
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let empty = file("empty.jsonl", "");
    let lines = file(
        "lines.jsonl",
        "{\"id\":8,\"vector\":[1,0]}\n\n{\"id\":9,\"vector\":[1,null]}\n",
    );
    let size = file(
        "size.jsonl",
        "{\"id\":8,\"vector\":[1,0]}\n{\"id\":9,\"vector\":[1]}\n",
    );
    let pretty = file(
        "query.json",
        "{\n  \"query\": [1, 0],\n  \"filter\": {\n    \"must\": [\n      {\"key\": \"a\", \"mach\": 1}\n    ]\n  }\n}\n",
    );
    let broken = file("broken.json", "{\n  \"query\": [1, 0\n}\n");
    let here = folder.path().to_str().expect("UTF-8");
    let no_component = ["--component", &lines];
    let cases: Vec<(Vec<&str>, i32, &str, &str)> = vec![
        (
            vec!["search", here],
            3,
            "error: ",
            "that is a folder; expected a file\n",
        ),
        (
            vec!["upsert", here],
            3,
            "error: ",
            "that is a folder; expected a file\n",
        ),
        (
            vec!["search", &empty],
            3,
            "error: ",
            "empty.jsonl: is empty; expected a JSON body\n",
        ),
        (
            vec!["search"],
            3,
            "error: nothing says what to search for: give --vector, or a body",
            "on standard input\n",
        ),
        (
            vec!["upsert", "nowhere.jsonl"],
            3,
            "error: nowhere.jsonl: there is no such file",
            "\n",
        ),
        (
            vec!["upsert", &lines],
            3,
            "error: line 3, column 21: vector[1]: ",
            "expected a finite 32-bit number\n",
        ),
        (
            vec!["upsert", &size],
            3,
            "error: line 2, column 18: vector: ",
            "expected dim: 2, got 1\n",
        ),
        (
            vec!["search", &pretty],
            3,
            "error: line 5: filter.must[0].mach: unknown field",
            "\n",
        ),
        (
            vec!["search", &broken],
            3,
            "error: line 3, column 1: not JSON: expected",
            "\n",
        ),
        (
            vec!["search", "{\"query\": [1, 0]"],
            3,
            "error: column 16: not JSON: EOF",
            "\n",
        ),
        (
            vec!["search", "--vector", "1,x"],
            3,
            "error: --vector: expected numbers",
            "`1,x`\n",
        ),
        (
            vec!["search", "--vector", "1,0", "--filter", "{"],
            3,
            "error: --filter: column 1: not JSON",
            "\n",
        ),
        (
            vec!["search", "--vector", "1,0", "--filter", "nowhere.json"],
            3,
            "error: --filter: column 2: not JSON: `nowhere.json` is no JSON value",
            "a file is named as `@nowhere.json`\n",
        ),
        (
            vec!["search", "--vector", "1,0", "--filter", "@nowhere.json"],
            3,
            "error: --filter: nowhere.json: there is no such file",
            "\n",
        ),
        (
            vec!["search", "--vector", "1,0", "--limit", "4a"],
            2,
            "error: invalid value '4a' for '--limit <LIMIT>': `4a` is not a whole number",
            "",
        ),
        (
            vec!["create"],
            3,
            "error: nothing says what to create: give --size and --distance, or ",
            "on standard input\n",
        ),
        (
            vec!["delete"],
            3,
            "error: no point is named: give ids, or ",
            "on standard input\n",
        ),
        (
            vec!["delete", "abc"],
            3,
            "error: id: `abc` is no point id; expected ",
            "an unsigned integer or a UUID\n",
        ),
        (
            vec!["retrieve", "--", "-1"],
            3,
            "error: id: `-1` is no point id; expected ",
            "an unsigned integer or a UUID\n",
        ),
        (
            vec!["upsert", r#"[{"id": "abc", "vector": [1, 0]}]"#],
            3,
            "error: line 1, column 9: points[0].id: value \"abc\" is not a valid point ID, valid values are ",
            "either an unsigned integer or a UUID\n",
        ),
        (
            vec!["upsert", r#"{"id": 1, "vector": [1, NaN]}"#],
            3,
            "error: line 1, column 25: vector[1]: `NaN` is no number in JSON",
            "\n",
        ),
        (
            vec!["index", "create", "name", "keywrd"],
            3,
            "error: field_schema: unknown index type, expected one of `keyword`, ",
            "`uuid`\n",
        ),
        (
            vec!["request", "GET", "/collections/c/points/1"],
            3,
            "error: path: begins below the collection: `/points/1`",
            "\n",
        ),
        (
            vec!["request", "FOO", "/points"],
            2,
            "error: invalid value 'FOO' for '<METHOD>'",
            "",
        ),
        (
            vec!["rejected", "retry"],
            2,
            "error: setting `sequences`: name operations by their sequences",
            "or give --all\n",
        ),
        (
            vec!["--memory-mib", "0", "info"],
            2,
            "error: setting `memory_mib`: 0 is not in 32..=4096",
            "(--memory-mib, EDGE_SYNC_MEMORY_MIB)\n",
        ),
        (
            vec!["--shard", "1", "--shard-key", "a", "info"],
            2,
            "error: setting `shard`: ",
            "cannot go together\n",
        ),
        (
            vec!["--config-file", "nowhere.toml", "info"],
            2,
            "error: setting `config_file`: nowhere.toml: there is no such file",
            "\n",
        ),
        (
            vec!["--api-key-file", "nowhere", "info"],
            2,
            "error: setting `api_key_file`: nowhere: there is no such file",
            "\n",
        ),
        (
            vec!["--component", "nowhere.wasm", "info"],
            2,
            "error: cannot load the component nowhere.wasm: ",
            "\n",
        ),
        (
            vec!["restore", "--snapshot", "nowhere.snapshot"],
            3,
            "error: nowhere.snapshot: there is no such file",
            "\n",
        ),
        (
            vec!["sync", "--url", "localhost:6333", "--collection", "c"],
            2,
            "error: setting `url`: ",
            "is `http://localhost:6333` meant?\n",
        ),
        (
            [&no_component[..], &["count"]].concat(),
            1,
            "error: cannot use the component: ",
            "lines.jsonl: this is no WebAssembly component: it does not begin as one\n",
        ),
        (
            vec!["--component", here, "count"],
            2,
            "error: cannot load the component ",
            "that is a folder; the component is a file, edge_sync.wasm\n",
        ),
    ];
    for (arguments, code, begin, end) in cases {
        let ran = run(&data, &arguments, b"");
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert!(ran.err.starts_with(begin), "{arguments:?}: {}", ran.err);
        assert!(ran.err.ends_with(end), "{arguments:?}: {}", ran.err);
        // Once, in one line, with one place; wrong flags are told with a word on --help.
        let is_one_line = end.is_empty() || ran.err.lines().count() == 1;
        assert!(is_one_line, "{}", ran.err);
        assert!(ran.err.matches("line ").count() <= 1, "{}", ran.err);
        // What came before the mistake is written and told; nothing else is claimed.
        let kept = ["lines.jsonl", "size.jsonl"].iter().any(|name| {
            let is_upsert = arguments.first() == Some(&"upsert");
            is_upsert && arguments.iter().any(|argument| argument.ends_with(name))
        });
        assert_eq!(
            ran.out.starts_with("upserted 1 point, "),
            kept,
            "{arguments:?}: {}",
            ran.out
        );
        assert!(kept || ran.out.is_empty(), "{arguments:?}: {}", ran.out);
    }
    let of_a_file = run(Path::new(&lines), &["info"], b"");
    assert_eq!(of_a_file.code, 2);
    let end = "is a file; expected a folder, or a place for one\n";
    assert!(of_a_file.err.ends_with(end), "{}", of_a_file.err);
    // Wrong flags too are one JSON object for who asked for that.
    let ran = run(&data, &["--json", "sync", "--push", "--pull"], b"");
    let told: Value = serde_json::from_str(&ran.err).expect("JSON");
    assert_eq!((ran.code, &told["error"]["kind"]), (2, &"usage".into()));
    let words = told["error"]["message"].as_str().expect("words");
    assert!(words.contains("--push") && !words.contains('\n'), "{words}");
    let nothing = run(&data, &["upsert", &empty], b"");
    assert_eq!(nothing.code, 0);
    assert_eq!(
        nothing.out,
        format!("nothing to upsert: there is no point in {empty}\n")
    );

    let misspelt = edge_sync(&data, &["count"])
        .env("EDGE_SYNC_COLLECTON", "x")
        .output()
        .expect("the command");
    assert_eq!(
        String::from_utf8_lossy(&misspelt.stderr),
        "note: EDGE_SYNC_COLLECTON is no variable that edge-sync reads; did you mean \
         EDGE_SYNC_COLLECTION?\n"
    );
}

#[test]
fn receipts_say_what_came_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    colours(data);
    let said = |arguments: &[&str]| out(data, arguments, b"");
    let warm =
        r#"{"filter": {"must": [{"key": "warm", "match": {"value": true}}]}, "payload": {"x": 1}}"#;
    let nobody =
        r#"{"filter": {"must": [{"key": "warm", "match": {"value": "x"}}]}, "payload": {"x": 1}}"#;
    let mixed = r#"{"operations": [{"upsert": {"points": [{"id": 3, "vector": [1, 1]}]}}, {"delete": {"points": [2]}}, {"clear_payload": {"points": [3]}}]}"#;
    for (arguments, text) in [
        (
            vec![
                "payload",
                "set",
                r#"{"payload": {"a": 1}, "points": [1, 2]}"#,
            ],
            "set the payload of 2 points, up to sequence 3\n",
        ),
        (
            vec!["payload", "set", warm],
            "set the payload of 1 point, up to sequence 4\n",
        ),
        (
            vec!["payload", "set", nobody],
            "set the payload of 0 points: nothing to change\n",
        ),
        (
            vec!["payload", "clear", r#"{"points": [1]}"#],
            "cleared the payload of 1 point, up to sequence 5\n",
        ),
        (
            vec![
                "vectors",
                "update",
                r#"{"points": [{"id": 1, "vector": [2, 2]}]}"#,
            ],
            "replaced vectors of 1 point, up to sequence 6\n",
        ),
        (
            vec!["index", "create", "warm", "bool"],
            "created the index of `warm`, up to sequence 7\n",
        ),
        (
            vec!["batch", mixed],
            "applied 3 operations, 2 points before and 2 after, up to sequence 10\n",
        ),
        (
            vec![
                "upsert",
                "--body",
                r#"{"points": [{"id": 1, "vector": [2, 2]}, {"id": 4, "vector": [2, 2]}]}"#,
            ],
            "upserted 2 points, up to sequence 12\n",
        ),
        (
            vec!["delete", "4", "99", "4"],
            "deleted 1 point, up to sequence 13; there is no point 99 here, and the server is told to \
             delete all the same\n",
        ),
        (
            vec!["delete", "99"],
            "deleted no point, up to sequence 14; there is no point 99 here, and the server is told to \
             delete all the same\n",
        ),
        (
            vec!["delete", "--filter", "{}"],
            "deleted 2 points, up to sequence 15\n",
        ),
        (
            vec!["delete", "--filter", "{}"],
            "deleted no point: nothing to change\n",
        ),
        (
            vec!["optimize"],
            "nothing to optimize: 0 points in 1 segment, 0 vectors indexed; a segment gets an index \
             from 9.77 MiB on (`indexing_threshold`)\n",
        ),
    ] {
        assert_eq!(said(&arguments), text, "{arguments:?}");
    }
    let points: String = (1..=1500)
        .map(|id| format!("{{\"id\":{id},\"vector\":[1,0]}}\n"))
        .collect();
    let many = out(data, &["upsert"], points.as_bytes());
    assert_eq!(many, "upserted 1,500 points, up to sequence 1515\n");
    let status = said(&["status"]);
    assert!(
        status.contains("points      1,500 in 1 segment, "),
        "{status}"
    );
    // Programs get numbers and the REST object.
    let receipt = said(&["--json", "payload", "clear", r#"{"points": [1]}"#]);
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert_eq!(
        receipt,
        json!({"operation_id": 1516, "status": "completed"})
    );
    let receipt = said(&["--json", "delete", "1", "99999"]);
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert_eq!(
        (receipt["points"].clone(), receipt["absent"].clone()),
        (json!(1), json!(["99999"]))
    );
}

#[test]
fn an_error_is_printed_once_and_long_waits_only_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    colours(data);
    let config = folder.path().join("settings.toml");
    fs::write(&config, "attempts = 3\n").expect("written");
    let config = config.to_str().expect("UTF-8");
    let arguments = [
        "--config-file",
        config,
        "sync",
        "--url",
        "http://127.0.0.1:1",
        "--collection",
        "x",
    ];
    let ran = run(data, &arguments, b"");
    assert_eq!(ran.code, 6);
    assert_eq!(
        ran.err.matches("refuses connections").count(),
        1,
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("the server at 127.0.0.1:1 refuses"),
        "{}",
        ran.err
    );
    assert_eq!(ran.out, "2 operations still waiting for upload\n");
}

#[test]
fn a_closed_pipe_is_silent() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    colours(data);
    let mut child = edge_sync(data, &["count"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn an_interrupted_upsert_says_how_much_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    colours(data);
    let mut child = edge_sync(data, &["--json", "upsert", "--batch-size", "600"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its input");
    for id in 1..=1250 {
        writeln!(stdin, "{{\"id\":{id},\"vector\":[1,0]}}").expect("it reads");
    }
    stdin.flush().expect("it reads");
    // Two batches are whole; the input goes on.
    let mut receipts = BufReader::new(child.stdout.take().expect("its output")).lines();
    for _ in 0..2 {
        receipts.next().expect("a receipt").expect("a line");
    }
    interrupt(child.id());
    let mut err = String::new();
    let mut stderr = child.stderr.take().expect("its errors");
    stderr.read_to_string(&mut err).expect("UTF-8");
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    let error: Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(
        error["error"]["message"],
        "interrupted: 1,200 points are kept, the last is on line 1,200"
    );
    assert_eq!(count(data), 1200);
    drop(stdin);
}

#[test]
fn an_interrupted_sync_keeps_the_queue_and_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    colours(data);
    let server = server();
    server.stop().expect("down");
    let url = server.url();
    let mut child = edge_sync(data, &["sync", "--url", &url, "--collection", COLLECTION])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let end = Instant::now() + PATIENCE;
    while SyncRecord::load(data).under_way.is_none() {
        assert!(Instant::now() < end, "it does not begin");
        assert!(child.try_wait().expect("its state").is_none(), "it gave up");
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(child.id());
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "interrupted: 2 operations wait in the queue, which is kept\n"
    );
    let record = SyncRecord::load(data);
    assert_eq!((record.last_error, record.under_way), (None, None));
    let status = out(data, &["status"], b"");
    assert!(status.contains("last error  none"), "{status}");
}

#[test]
fn a_watch_makes_the_collection_and_says_how_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    out(data, &["create", "--size", "2", "--distance", "Dot"], b"");
    let server = server();
    let url = server.url();
    let arguments = ["sync", "--watch", "--url", &url, "--collection", COLLECTION];
    let mut child = edge_sync(data, &arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut lines = lines.map(|line| line.expect("UTF-8"));
    let in_step = lines.find(|line| line.starts_with("in step with the server"));
    assert_eq!(
        in_step.as_deref(),
        Some("in step with the server, 0 queued")
    );
    let path = format!("/collections/{COLLECTION}");
    assert_eq!(
        server
            .client()
            .call("GET", &path, None)
            .expect("an answer")
            .0,
        200,
        "made, although nothing waits"
    );
    interrupt(child.id());
    assert_eq!(
        lines.last().as_deref(),
        Some("stopped: everything is uploaded")
    );
    // That is how it ends.
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

/// What a terminal shows of a command, control codes included; none where nothing can play one.
fn on_a_terminal(folder: &Path, data: &Path, arguments: &[&str]) -> Option<String> {
    let shown = folder.join("shown");
    let template = edge_sync(data, arguments);
    let words = std::iter::once(template.get_program()).chain(template.get_args());
    let line: Vec<String> = words
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line.join(" ")])
        .arg(&shown)
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    match script.status() {
        Ok(_) => {
            Some(String::from_utf8_lossy(&fs::read(shown).expect("what it showed")).into_owned())
        }
        Err(error) => {
            eprintln!("no `script` to play a terminal: {error}");
            None
        }
    }
}

#[test]
fn a_terminal_shows_percent_and_whole_rates_and_a_pipe_no_colours() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    colours(&data);
    let file = folder.path().join("points.jsonl");
    let points: String = (1..=5000)
        .map(|id| format!("{{\"id\":{id},\"vector\":[1,0]}}\n"))
        .collect();
    fs::write(&file, points).expect("written");
    let arguments = ["upsert", file.to_str().expect("UTF-8")];
    if let Some(shown) = on_a_terminal(folder.path(), &data, &arguments) {
        assert!(
            shown.contains("upserted 5,000 points, up to sequence 5002"),
            "{shown}"
        );
        let progress = Regex::new(r"\d% ([\d,]+ points?|upserting)").expect("a pattern");
        assert!(progress.is_match(&shown), "{shown}");
        let insane = Regex::new(r"\d\.\d{3,}").expect("a pattern");
        assert!(!insane.is_match(&shown), "{shown}");
    }
    if let Some(shown) = on_a_terminal(folder.path(), &data, &["index", "create", "name", "keywrd"])
    {
        assert!(shown.contains("\u{1b}[31m"), "{shown:?}");
    }
    let piped = edge_sync(&data, &["index", "create", "name", "keywrd"])
        .env("EDGE_SYNC_LOG", "debug")
        .output()
        .expect("the command");
    let err = String::from_utf8_lossy(&piped.stderr);
    assert!(err.contains("DEBUG") && err.contains("error: "), "{err}");
    assert!(!err.contains('\u{1b}'), "{err:?}");
}

#[test]
fn completions_and_manual_pages_are_of_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    for shell in ["bash", "zsh", "fish"] {
        let script = out(data, &["completions", shell], b"");
        for word in ["upsert", "batch-size", "memory-mib"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    let page = out(data, &["man"], b"");
    assert!(page.contains(".TH edge-sync 1"), "{page}");
    let pages = data.join("man1");
    out(data, &["man", pages.to_str().expect("UTF-8")], b"");
    for name in [
        "edge-sync.1",
        "edge-sync-upsert.1",
        "edge-sync-queue-skip.1",
    ] {
        let page = fs::read_to_string(pages.join(name)).expect(name);
        assert!(
            name == "edge-sync.1" || page.contains("Examples:"),
            "{page}"
        );
    }
}
