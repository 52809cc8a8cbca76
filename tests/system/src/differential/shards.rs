//! Random requests to devices of a collection of several shards: after a sync, each answers as the
//! server does for the part of the collection that the device holds.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_sync_double::QdrantDouble;
use edge_sync_fixtures::all_kinds;
use edge_sync_host::{EdgeSync, ServerSettings};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::random::{beginning, config, read, runner, writing};
use super::{Agreement, Ask, COLLECTION, comparable, size};
use crate::support::{cluster, component, impatient, push, setting};

/// Rounds unless `EDGE_SYNC_DIFFERENTIAL_CASES` says otherwise. All are on the same collection.
const ROUNDS: u64 = 8;

/// Writes, and then reads, of a round.
const WRITES: std::ops::Range<usize> = 1..16;
const READS: std::ops::Range<usize> = 10..30;

/// A device, and the shard key of its part of the collection.
struct Member {
    edge: EdgeSync,
    key: Option<Value>,
}

impl Member {
    fn new(folder: &Path, server: &QdrantDouble, config: &Value, key: Option<&Value>) -> Self {
        let mut settings = ServerSettings::new(server.url(), COLLECTION);
        if let Some(key) = key {
            let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            settings = settings.shard_key(name);
        }
        let edge = EdgeSync::builder(component(), folder)
            .server(settings)
            .sync_options(impatient())
            .open_or_create(&config.to_string())
            .expect("a shard");
        Self {
            edge,
            key: key.cloned(),
        }
    }

    /// The result, or the words of a refusal.
    fn ask(&self, ask: &Ask) -> Result<Value, String> {
        let path = ask.path.strip_prefix("/collections/c").expect("its path");
        let body = ask.body.as_deref().unwrap_or_default();
        let body = std::str::from_utf8(body).expect("JSON");
        let answer = self.edge.shard().request(&ask.method, path, body);
        let answer = answer.map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&answer).expect("JSON"))
    }

    /// What the server answers for the device's part of the collection.
    fn ask_server(&self, server: &QdrantDouble, ask: &Ask) -> Result<Value, String> {
        let body = ask.body.as_deref().unwrap_or_default();
        let mut body: Value = serde_json::from_slice(body).expect("JSON");
        if let Some(key) = &self.key {
            match body.get_mut("searches") {
                Some(Value::Array(searches)) => {
                    for search in searches {
                        search["shard_key"] = key.clone();
                    }
                }
                _ => body["shard_key"] = key.clone(),
            }
        }
        let headers = [("content-type", "application/json")];
        let body = body.to_string().into_bytes();
        let answer = server
            .client()
            .call_raw(&ask.method, &ask.path, &headers, Some(&body));
        let (status, mut answer) = answer.expect("an answer");
        if status >= 400 {
            return Err(answer["status"]["error"].to_string());
        }
        let mut result = answer["result"].take();
        forget_keys(&mut result);
        Ok(result)
    }

    /// Puts one read to both; how they differ.
    fn compare(&self, server: &QdrantDouble, ask: &Ask) -> Result<bool, String> {
        let (ours, theirs) = (self.ask(ask), self.ask_server(server, ask));
        let differ = |what: &str| {
            let key = &self.key;
            Err(format!(
                "{key:?}: {ask:?}: {what}\n    device: {ours:?}\n    server: {theirs:?}"
            ))
        };
        match (&ours, &theirs) {
            (Err(_), Err(_)) => Ok(false),
            (Ok(ours), Ok(theirs)) => {
                let same = match ask.agreement {
                    Agreement::Size if size(ours) == size(theirs) => Ok(()),
                    Agreement::Size => Err("size".to_owned()),
                    Agreement::Result => {
                        all_kinds::same_result("", &comparable(theirs), &comparable(ours))
                    }
                };
                same.map(|()| true).or_else(|what| differ(&what))
            }
            _ => differ("one of them refuses"),
        }
    }
}

/// By default a server sends no payload with points that are asked for by id, and a shard does.
fn with_payload(ask: &Ask) -> Ask {
    let mut ask = ask.clone();
    if ask.path.ends_with("/points") {
        let body = ask.body.as_deref().unwrap_or_default();
        let mut body: Value = serde_json::from_slice(body).expect("JSON");
        body["with_payload"] = json!(true);
        ask.body = Some(body.to_string().into_bytes());
    }
    ask
}

/// A server tells of each point from which key's shard it is.
fn forget_keys(result: &mut Value) {
    match result {
        Value::Array(items) => items.iter_mut().for_each(forget_keys),
        Value::Object(fields) => {
            if fields.contains_key("id") {
                fields.remove("shard_key");
            }
            fields.values_mut().for_each(forget_keys);
        }
        _ => {}
    }
}

fn all_sync(members: &[Member]) {
    // What goes up first is there for all others.
    for member in members {
        let pushed = push(&member.edge);
        assert_eq!(pushed.remaining, 0, "{pushed:?}");
    }
    for member in members {
        member.edge.pull().expect("a pull");
    }
}

/// Rounds of writes to any device, a sync of all, and reads of each.
fn answers_alike(sharding: &Value, parts: &[Option<Value>]) {
    let rounds = setting("EDGE_SYNC_DIFFERENTIAL_CASES").unwrap_or(ROUNDS);
    let seed = setting("EDGE_SYNC_SEED").unwrap_or(1);
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    let client = server.client();
    let path = format!("/collections/{COLLECTION}");
    let mut config = config();
    for (name, value) in sharding.as_object().expect("an object") {
        config[name] = value.clone();
    }
    client.result("PUT", &path, Some(&config));
    for key in parts.iter().flatten() {
        let body = json!({ "shard_key": key });
        client.result("PUT", &format!("{path}/shards"), Some(&body));
    }
    let members: Vec<Member> = parts
        .iter()
        .enumerate()
        .map(|(number, key)| {
            let folder = folder.path().join(number.to_string());
            Member::new(&folder, &server, &config, key.as_ref())
        })
        .collect();
    let start = Ask::json("PUT", &format!("{path}/points"), &beginning());
    for member in &members {
        member.ask(&start).expect("points to begin with");
    }
    all_sync(&members);

    let (alike, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    // A round changes what the next one finds, so none is made smaller.
    let mut runner = runner(seed, rounds, 0);
    let writes = prop::collection::vec((0..parts.len(), writing()), WRITES);
    let reads = prop::collection::vec(read(), READS);
    let optimizes = prop::bool::weighted(0.3);
    let outcome = runner.run(&(writes, optimizes, reads), |(writes, optimizes, reads)| {
        for (number, write) in &writes {
            // One that is refused is none.
            let _ = members[*number].ask(write);
        }
        all_sync(&members);
        if optimizes {
            server.optimize(COLLECTION).expect("optimized");
            all_sync(&members);
        }
        for member in &members {
            for ask in &reads {
                let ask = &with_payload(ask);
                let counter = match member.compare(&server, ask).map_err(TestCaseError::fail)? {
                    true => &alike,
                    false => &refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("seed {seed}: {error}");
    }
    let (alike, refused) = (alike.into_inner(), refused.into_inner());
    eprintln!("{alike} answered and {refused} refused alike");
    assert!(alike > refused, "most requests are wrong");
}

#[test]
fn devices_over_two_shards_answer_as_the_server() {
    answers_alike(&json!({"shard_number": 2}), &[None, None]);
}

#[test]
fn devices_over_three_keys_answer_as_the_server() {
    let keys = [json!("a"), json!("b"), json!(7)].map(Some);
    answers_alike(&json!({"sharding_method": "custom"}), &keys);
}
