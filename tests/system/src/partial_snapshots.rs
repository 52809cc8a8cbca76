//! The double's partial snapshots: what a follower makes of them is what the server holds, only what
//! changed is sent, and the refusals are the server's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use edge_sync_double::{Fault, Options, QdrantDouble, Rule};
use edge_sync_mirror::{
    Archive, Limits, Lineage, Links, Mirror, Offer, Origin, Outcome, Settings, apply,
};
use serde_json::{Value, json};

const COLLECTION: &str = "/collections/c";
const PARTIAL: &str = "/collections/c/shards/0/snapshot/partial/create";

/// Files of a segment that are sent whatever the client has.
const ALWAYS: [&str; 3] = ["segment_manifest.json", "segment.json", "version.info"];

fn start() -> QdrantDouble {
    let double = QdrantDouble::start(Options::default()).expect("a server");
    make_collection(&double);
    double
}

/// Vectors of every kind and two payload indexes.
fn make_collection(double: &QdrantDouble) {
    let client = double.client();
    let config = json!({
        "vectors": {
            "v": {"size": 32, "distance": "Dot"},
            "q": {"size": 32, "distance": "Cosine",
                  "quantization_config": {"scalar": {"type": "int8", "always_ram": true}}},
            "m": {"size": 4, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
        },
        "sparse_vectors": {"s": {}},
        "optimizers_config": {"indexing_threshold": 1},
    });
    client.result("PUT", COLLECTION, Some(&config));
    for (field, schema) in [("city", "keyword"), ("n", "integer")] {
        let index = json!({"field_name": field, "field_schema": schema});
        client.result("PUT", "/collections/c/index?wait=true", Some(&index));
    }
}

fn point(id: u64) -> Value {
    let wave = |at: u64| f64::from(u32::try_from((id * 31 + at * 7) % 101).expect("small")) / 101.0;
    let dense: Vec<f64> = (0..32).map(wave).collect();
    json!({
        "id": id,
        "vector": {
            "v": dense,
            "q": dense,
            "m": [[wave(1), wave(2), wave(3), wave(4)], [wave(5), wave(6), wave(7), wave(8)]],
            "s": {"indices": [id % 50, 60], "values": [1.0, wave(9)]},
        },
        "payload": {"city": format!("city {}", id % 7), "n": id, "note": "a note ".repeat(5)},
    })
}

fn write(double: &QdrantDouble, method: &str, path: &str, body: &Value) {
    let path = format!("{COLLECTION}{path}?wait=true");
    double.client().result(method, &path, Some(body));
}

fn upsert(double: &QdrantDouble, ids: impl IntoIterator<Item = u64>) {
    let points: Vec<Value> = ids.into_iter().map(point).collect();
    write(double, "PUT", "/points", &json!({ "points": points }));
}

/// Asks on a connection of its own, for nobody can use it after a 304.
fn ask(double: &QdrantDouble, manifest: &str) -> (u16, Vec<u8>) {
    let mut answer = double
        .client()
        .send("POST", PARTIAL, &[], Some(manifest.as_bytes()))
        .expect("an answer");
    let body = answer
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .read_to_vec();
    (answer.status().as_u16(), body.expect("a body"))
}

fn origin() -> Origin {
    Origin {
        url: "http://localhost".to_owned(),
        collection: "c".to_owned(),
        shard: 0,
        shard_key: None,
    }
}

/// A device, without the device: it holds a mirror and follows the server.
struct Follower {
    folder: tempfile::TempDir,
    made: usize,
    mirror: Option<Mirror>,
}

/// What a pull brought.
struct Pulled {
    /// Segments of the mirror before.
    before: BTreeSet<String>,
    /// Files that came, by segment, those that always come left out.
    sent: BTreeMap<String, BTreeSet<String>>,
    lineage: Lineage,
}

impl Follower {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            made: 0,
            mirror: None,
        }
    }

    fn path(&mut self) -> PathBuf {
        self.made += 1;
        self.folder.path().join(self.made.to_string())
    }

    fn archive(&mut self, bytes: &[u8]) -> Archive {
        let path = self.path();
        fs::write(&path, bytes).expect("written");
        Archive::read(&path, Limits::default()).expect("an archive")
    }

    /// The mirror that an answer makes of what was offered, and nothing may be in doubt.
    fn applied(&mut self, offer: &Offer, archive: &Archive) -> Mirror {
        let settings = Settings {
            origin: origin(),
            settled: true,
            links: Links::Try,
        };
        let target = self.path();
        match apply(offer, archive, &target, &settings).expect("applied") {
            Outcome::Applied { mirror, .. } => mirror,
            other => panic!("in doubt: {other:?}"),
        }
    }

    fn offer(&self) -> Offer {
        match &self.mirror {
            Some(mirror) => Offer::of(mirror.clone(), &origin()),
            None => Offer::everything(),
        }
    }

    /// Asks with what is there; the mirror has to become what it would be of everything, and only
    /// what changed may have come.
    fn pull(&mut self, double: &QdrantDouble) -> Pulled {
        let offer = self.offer();
        let (status, answer) = ask(double, &offer.manifest().to_json());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let archive = self.archive(&answer);
        let next = self.applied(&offer, &archive);

        let (status, everything) = ask(double, "{}");
        assert_eq!(status, 200);
        let whole = self.archive(&everything);
        let whole = self.applied(&Offer::everything(), &whole);
        assert_eq!(next.lineage(), whole.lineage());
        assert_same_files(next.folder(), whole.folder());

        let sent = segment_files(&answer);
        let manifests = |mirror: &Mirror| -> BTreeMap<String, Value> {
            serde_json::from_str(&mirror.manifest().to_json()).expect("manifests")
        };
        let before = self.mirror.as_ref().map(manifests).unwrap_or_default();
        for (segment, manifest) in manifests(&next) {
            let old = before.get(&segment).unwrap_or(&Value::Null);
            assert_eq!(
                sent.get(&segment),
                Some(&expected(old, &manifest)),
                "segment {segment}"
            );
        }
        assert_eq!(sent.len(), next.segments().len());

        let (status, body) = ask(double, &next.manifest().to_json());
        assert_eq!((status, body), (304, Vec::new()));
        let lineage = next.lineage().cloned().expect("a lineage");
        self.mirror = Some(next);
        Pulled {
            before: before.into_keys().collect(),
            sent,
            lineage,
        }
    }

    /// The segments that take no points, and those that do.
    fn built(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let segments = self.mirror.as_ref().expect("a mirror").segments();
        let (built, open): (Vec<_>, Vec<_>) = segments
            .iter()
            .partition(|(_, record)| record.files.contains_key("id_tracker.mappings"));
        let names = |list: Vec<(&String, _)>| list.into_iter().map(|(id, _)| id.clone()).collect();
        (names(built), names(open))
    }
}

/// The files that a server sends of a segment, by its rule.
fn expected(old: &Value, new: &Value) -> BTreeSet<String> {
    let version = |manifest: &Value, file: &str| match manifest["file_versions"].get(file) {
        Some(Value::Null) => manifest["segment_version"].as_u64(),
        Some(version) => version.as_u64(),
        None => None,
    };
    let files = new["file_versions"].as_object().expect("files");
    files
        .keys()
        .filter(|file| {
            let now = version(new, file).expect("a version");
            match version(old, file) {
                None => true,
                Some(then) => then < now || (then, now) == (0, 0),
            }
        })
        .cloned()
        .collect()
}

/// The files of each segment in an archive, by segment.
fn segment_files(archive: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut reader = tar::Archive::new(archive);
    for entry in reader.entries().expect("entries") {
        let entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let Some((segment, file)) = path
            .strip_prefix("segments/")
            .and_then(|path| path.split_once("/files/"))
        else {
            continue;
        };
        let files = found.entry(segment.to_owned()).or_default();
        if !ALWAYS.contains(&file) {
            files.insert(file.to_owned());
        }
    }
    found
}

/// Every file of two mirrors' segments is the same, byte for byte.
fn assert_same_files(one: &Path, other: &Path) {
    let files = |root: &Path| {
        let root = root.join("segments");
        let mut found = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).expect("below").to_owned();
                    found.insert(name, path);
                }
            }
        }
        found
    };
    let (one, other) = (files(one), files(other));
    assert!(one.keys().eq(other.keys()));
    for (name, path) in &one {
        let same = fs::read(path).expect("read") == fs::read(&other[name]).expect("read");
        assert!(same, "{} differs", name.display());
    }
}

fn completed(double: &QdrantDouble) -> Vec<String> {
    let path = format!("{COLLECTION}/optimizations?with=completed");
    let told = double.client().result("GET", &path, None);
    let completed = told["completed"].as_array().expect("a list");
    let id = |done: &Value| done["uuid"].as_str().expect("an id").to_owned();
    completed.iter().map(id).collect()
}

fn goes_on(earlier: &Lineage, later: &Lineage) {
    assert_eq!(earlier.peer, later.peer);
    assert!(earlier.wal_next < later.wal_next, "{earlier:?} {later:?}");
    let (one, other) = (&earlier.clocks[0], &later.clocks[0]);
    assert!(one.current_tick < other.current_tick);
    assert_ne!(one.token, other.token);
}

#[test]
fn a_follower_ends_with_the_files_of_the_moment_and_gets_only_what_changed() {
    let double = start();
    let mut follower = Follower::new();
    follower.pull(&double);
    upsert(&double, 1..=200);
    let first = follower.pull(&double);
    assert_eq!(completed(&double), Vec::<String>::new());

    // Merged away: the new segment comes whole, the old ones are gone.
    assert!(double.optimize("c").expect("optimized"));
    let optimized = follower.pull(&double);
    assert_eq!(optimized.lineage, first.lineage);
    let (built, open) = follower.built();
    assert!(!built.is_empty() && !open.is_empty(), "{built:?} {open:?}");
    assert!(built.is_disjoint(&optimized.before));
    assert_eq!(
        completed(&double).into_iter().collect::<BTreeSet<_>>(),
        built
    );

    // A new point touches no segment that takes none.
    upsert(&double, [1_000]);
    let appended = follower.pull(&double);
    goes_on(&optimized.lineage, &appended.lineage);
    for segment in &built {
        assert_eq!(appended.sent[segment], BTreeSet::new());
    }

    // A deletion, a changed payload and an overwrite send the payloads of the segment that had the
    // point, and none of its vectors and graphs.
    let changes = [
        ("POST", "/points/delete", json!({"points": [7]})),
        (
            "POST",
            "/points/payload",
            json!({"points": [8], "payload": {"n": 8_000}}),
        ),
        ("PUT", "/points", json!({"points": [point(9)]})),
        (
            "PUT",
            "/points/vectors",
            json!({"points": [{"id": 10, "vector": {"v": vec![0.5; 32]}}]}),
        ),
    ];
    let mut last = appended.lineage;
    for (method, path, body) in &changes {
        write(&double, method, path, body);
        let pulled = follower.pull(&double);
        goes_on(&last, &pulled.lineage);
        last = pulled.lineage;
        let sent: BTreeSet<&String> = built.iter().flat_map(|it| &pulled.sent[it]).collect();
        assert!(!sent.is_empty(), "{path}");
        for file in sent {
            let is_large = [
                "matrix.dat",
                "graph.bin",
                "quantized.data",
                "inverted_index",
            ]
            .iter()
            .any(|name| file.contains(name));
            assert!(!is_large, "{path} sends {file}");
        }
    }

    let index = json!({"field_name": "note", "field_schema": "keyword"});
    write(&double, "PUT", "/index", &index);
    let indexed = follower.pull(&double);
    goes_on(&last, &indexed.lineage);
    let of_the_field = |file: &String| file.contains("note");
    for (segment, files) in &indexed.sent {
        assert!(files.iter().any(of_the_field), "{segment}: {files:?}");
    }
    write(&double, "DELETE", "/index/note", &Value::Null);
    follower.pull(&double);

    // Enough that there is something to build.
    upsert(&double, 150..=400);
    follower.pull(&double);
    let known = completed(&double);
    assert!(double.optimize("c").expect("optimized"));
    follower.pull(&double);
    let now = completed(&double);
    assert!(now.len() > known.len() && now.ends_with(&known), "{now:?}");
    let held = follower.mirror.as_ref().expect("a mirror").segments();
    let new = &now[..now.len() - known.len()];
    assert!(new.iter().all(|id| held.contains_key(id)), "{new:?}");
}

#[test]
fn what_is_refused_is_refused_as_the_server_does() {
    let double = start();
    upsert(&double, 1..=3);
    let json = ("content-type", "application/json");
    let refusal = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let mut answer = double
            .client()
            .send_raw("POST", path, headers, Some(body))
            .expect("an answer");
        let kind = answer.headers()["content-type"].to_str().expect("text");
        assert_eq!(kind, "text/plain; charset=utf-8");
        let words = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), words)
    };
    let of_segment = |fields: &str| format!("{{\"x\": {{{fields}}}}}");
    let bodies = [
        (
            String::new(),
            "EOF while parsing a value at line 1 column 0",
        ),
        (
            "{".to_owned(),
            "EOF while parsing an object at line 1 column 1",
        ),
        (
            "null".to_owned(),
            "invalid type: null, expected a map at line 1 column 4",
        ),
        (
            "[]".to_owned(),
            "invalid type: sequence, expected a map at line 1 column 0",
        ),
        (
            of_segment(""),
            "missing field `segment_id` at line 1 column 8",
        ),
        (
            of_segment(r#""segment_id": "x", "segment_version": -1, "file_versions": {}"#),
            "invalid value: integer `-1`, expected u64",
        ),
        (
            of_segment(r#""segment_id": "x", "segment_version": 1, "file_versions": {"f": "1"}"#),
            "data did not match any variant of untagged enum FileVersion",
        ),
        (
            of_segment(r#""segment_id": "x", "segment_id": "x""#),
            "duplicate field `segment_id`",
        ),
    ];
    for (body, words) in bodies {
        let (status, told) = refusal(PARTIAL, &[json], body.as_bytes());
        let expected = format!("Json deserialize error: {words}");
        assert!(told.starts_with(&expected), "{body}: {told}");
        assert_eq!(status, 400, "{body}");
    }
    for headers in [&[][..], &[("content-type", "text/plain")]] {
        let (status, words) = refusal(PARTIAL, headers, b"{}");
        assert_eq!((status, words.as_str()), (400, "Content type error"));
    }
    let large = format!("{{{}}}", " ".repeat(2 << 20));
    let (status, words) = refusal(PARTIAL, &[json], large.as_bytes());
    assert_eq!(status, 413);
    assert_eq!(
        words,
        "JSON payload (2097154 bytes) is larger than allowed (limit: 2097152 bytes)."
    );
    for (path, words) in [
        (
            PARTIAL.replace("/c/", "/other/"),
            "Not found: Collection `other` doesn't exist!",
        ),
        (
            PARTIAL.replace("/0/", "/99/"),
            "Not found: shard 99 not found",
        ),
    ] {
        let (status, told) = refusal(&path, &[json], b"{}");
        assert_eq!((status, told.as_str()), (404, words));
    }
}

#[test]
fn nothing_new_is_said_of_the_same_manifest_only() {
    let double = start();
    upsert(&double, 1..=50);
    let mut follower = Follower::new();
    follower.pull(&double);
    let manifest = follower
        .mirror
        .as_ref()
        .expect("a mirror")
        .manifest()
        .to_json();
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let (segment, fields) = manifest
        .as_object()
        .and_then(|segments| segments.iter().next())
        .expect("a segment");
    let status = |manifest: &Value| ask(&double, &manifest.to_string()).0;

    let mut with_more = manifest.clone();
    with_more[segment]["later"] = json!(1);
    assert_eq!(status(&with_more), 304, "unknown fields are ignored");

    // The segment's version counts where a file has none, and is not the same.
    let files = fields["file_versions"].as_object().expect("files");
    let (unversioned, _) = files.iter().find(|(_, it)| it.is_null()).expect("a null");
    let mut numbered = manifest.clone();
    numbered[segment]["file_versions"][unversioned] = fields["segment_version"].clone();
    assert_eq!(status(&numbered), 200);

    let mut without = manifest.clone();
    without.as_object_mut().expect("an object").remove(segment);
    assert_eq!(status(&without), 200);
}

/// As the server's HTTP library has it: no length, and the words nevertheless.
#[test]
fn words_follow_an_answer_that_nothing_is_new() {
    let double = start();
    upsert(&double, 1..=5);
    let mut follower = Follower::new();
    follower.pull(&double);
    let manifest = follower
        .mirror
        .as_ref()
        .expect("a mirror")
        .manifest()
        .to_json();
    let mut stream = TcpStream::connect(double.address()).expect("connected");
    let request = |line: &str, rest: &str| format!("{line} HTTP/1.1\r\nhost: localhost\r\n{rest}");
    let length = format!("content-length: {}\r\n", manifest.len());
    let head = format!("content-type: application/json\r\n{length}\r\n");
    let post = request(&format!("POST {PARTIAL}"), &head) + &manifest;
    stream.write_all(post.as_bytes()).expect("sent");
    let words = "Partial snapshot for shard 0 contains no changes";
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.ends_with(words.as_bytes()) {
        let read = stream.read(&mut piece).expect("read");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    let answer = String::from_utf8(answer)
        .expect("text")
        .to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.1 304 not modified\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\ncontent-type: text/plain; charset=utf-8\r\n"));
    assert!(!answer.contains("content-length"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");

    // The connection is kept.
    let get = request(
        &format!("GET {COLLECTION}/exists"),
        "connection: close\r\n\r\n",
    );
    stream.write_all(get.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn the_history_outlives_the_server_and_is_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || Options {
        directory: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let double = QdrantDouble::start(options()).expect("a server");
    make_collection(&double);
    upsert(&double, 1..=20);
    let mut follower = Follower::new();
    let before = follower.pull(&double).lineage;
    let peer = |double: &QdrantDouble| {
        let path = format!("{COLLECTION}/cluster");
        double.client().result("GET", &path, None)["peer_id"].as_u64()
    };
    assert_eq!(peer(&double), Some(before.peer));
    drop(double);

    let double = QdrantDouble::start(options()).expect("a server");
    let (status, answer) = ask(&double, "{}");
    assert_eq!(status, 200);
    assert_eq!(follower.archive(&answer).lineage(), Some(&before));
    // An operation that is refused by the shard is logged all the same.
    let (status, _) = double
        .client()
        .call(
            "POST",
            "/collections/c/points/payload?wait=true",
            Some(&json!({"points": [777], "payload": {"n": 1}})),
        )
        .expect("an answer");
    assert_eq!(status, 404);
    let (_, answer) = ask(&double, "{}");
    let refused = follower
        .archive(&answer)
        .lineage()
        .cloned()
        .expect("a lineage");
    goes_on(&before, &refused);
    upsert(&double, [21]);
    goes_on(&refused, &follower.pull(&double).lineage);

    let other = start();
    assert_ne!(peer(&other), Some(before.peer));
}

#[test]
fn faults_strike_it_as_any_other_request() {
    let double = start();
    upsert(&double, 1..=20);
    let strike = |fault: Fault| {
        double.faults().add(
            Rule::on("POST", "/snapshot/partial/create$")
                .times(1)
                .fault(fault),
        );
        double
            .client()
            .send("POST", PARTIAL, &[], Some(b"{}"))
            .map(|mut answer| {
                let kind = answer.headers().get("content-type").cloned();
                let body = answer
                    .body_mut()
                    .with_config()
                    .limit(u64::MAX)
                    .read_to_vec();
                (answer.status().as_u16(), kind, body)
            })
    };
    let (status, kind, body) = strike(Fault::no_such_path()).expect("an answer");
    assert_eq!(
        (status, kind, body.expect("a body")),
        (404, None, Vec::new())
    );
    let (_, _, cut) = strike(Fault::CutBody { after: 1_000 }).expect("a head");
    assert!(cut.is_err());
    assert!(strike(Fault::DropAnswer).is_err());
    let (status, _, short) = strike(Fault::TruncateBody { to: 4_096 }).expect("an answer");
    assert_eq!((status, short.expect("a body").len()), (200, 4_096));
    let read = double.exchanges();
    let asked = read.iter().filter(|it| it.path == PARTIAL);
    assert_eq!(asked.map(|it| it.applied).collect::<Vec<_>>(), [0, 1, 1, 1]);
    Follower::new().pull(&double);
}

#[test]
fn lists_of_optimizations_come_if_they_are_asked_for() {
    let double = start();
    upsert(&double, 1..=200);
    let client = double.client();
    let path = format!("{COLLECTION}/optimizations");
    let with = |query: &str| client.result("GET", &format!("{path}{query}"), None);
    let names = |told: &Value| -> Vec<String> {
        told.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(names(&with("")), ["summary", "running"]);
    assert_eq!(with("?with=completed,queued")["completed"], json!([]));
    assert_eq!(with("?with=queued,")["queued"], json!([]));
    assert!(double.optimize("c").expect("optimized"));
    assert_eq!(names(&with("")), ["summary", "running"]);
    let done = &with("?with=completed")["completed"][0];
    assert_eq!(done["status"], "done");
    assert_eq!(
        with("?with=completed&completed_limit=0")["completed"],
        json!([])
    );
    let (status, words) = client.refusal("GET", &format!("{path}?with=complete"), None);
    assert_eq!(status, 400);
    assert!(
        words.contains("Unknown field in 'with' parameter: complete"),
        "{words}"
    );
}
