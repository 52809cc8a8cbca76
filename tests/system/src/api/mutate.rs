//! Requests that are nearly right: the examples, changed at random places into what nobody would
//! send. Everything comes from a seed, so that a finding is repeated by it.

use fastrand::Rng;
use serde_json::{Map, Number, Value, json};

use super::examples::{Example, newer_reads, newer_writes, reads, refusals, writes};

/// A request to be sent, as text: it may not be JSON any more.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// HTTP method.
    pub method: &'static str,
    /// Path below the collection.
    pub path: String,
    /// Body.
    pub body: String,
}

/// Makes [`Mutant`]s.
pub struct Mutator {
    corpus: Vec<Example>,
    /// Subtrees of the corpus, to be put where they do not belong.
    parts: Vec<Value>,
    keys: Vec<String>,
}

const STRINGS: &[&str] = &[
    "",
    " ",
    "a[",
    "a[]",
    "a[].b",
    "[]",
    "a[0]",
    "a[999999999999]",
    "\"a b\".c",
    "a..b",
    ".",
    "$score",
    "$score[0]",
    "$score[99999999999]",
    "$",
    "\u{0}",
    "é",
    "e\u{301}",
    "\u{202e}abc",
    "😀👩‍👩‍👧‍👦",
    "ﬁﬂ ﷺ",
    "Ⱥ",
    "İ",
    "ß",
    "กขฃคฅฆง",
    "東京都に住む",
    "𠜎𠜱",
    "red stone",
    "red",
    "(",
    ".*",
    "\\",
    "%00",
    "/",
    "9999-12-31T23:59:59Z",
    "-262143-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "2024-02-30",
    "1970-01-01",
    "2024-01-01T25:00:00Z",
    "+275760-09-13T00:00:00Z",
    "2024-01-01T00:00:00+99:99",
    "NaN",
    "inf",
    "-1",
    "1e999",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "550e8400e29b41d4a716446655440000",
    "urn:uuid:550e8400-e29b-41d4-a716-446655440000",
    "cos",
    "rows",
    "words",
    "plain",
    "n",
    "f",
    "kw",
    "tags",
    "title",
    "body",
    "when",
    "at",
    "flag",
    "u",
    "tenant",
    "offers",
    "offers[].price",
    "ranked",
    "rrf",
    "dbsf",
    "random",
    "desc",
    "qdrant/bm25",
    "keyword",
    "text",
    "geo",
];

/// Unlikely, wrong and dangerous values.
fn leaf(rng: &mut Rng) -> Value {
    match rng.u8(0..24) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => 0.into(),
        3 => (-1).into(),
        4 => u64::MAX.into(),
        5 => i64::MIN.into(),
        6 => (u64::from(u32::MAX) + rng.u64(0..3) - 1).into(),
        7 => (1_u64 << rng.u32(0..64)).into(),
        8 => rng.u64(0..400).into(),
        9 => real(f64::MAX),
        10 => real(f64::MIN_POSITIVE / 4.0),
        11 => real(-0.0),
        12 => real(f64::from(f32::MAX) * (rng.f64() + 0.5)),
        13 => real((rng.f64() - 0.5) * 10_f64.powi(rng.i32(-40..40))),
        14 => json!([]),
        15 => json!({}),
        16 => json!([[]]),
        17 => json!({ "": null }),
        18 => {
            let unit = STRINGS[rng.usize(..STRINGS.len())];
            Value::String(unit.repeat(rng.usize(0..2000)))
        }
        19 => Value::Array(vec![real(rng.f64()); dimensions(rng)]),
        20 => json!({
            "indices": (0..dimensions(rng)).map(|_| rng.u32(..)).collect::<Vec<_>>(),
            "values": vec![rng.f64(); dimensions(rng)],
        }),
        21 => Value::Array(vec![json!([1.0, 2.0]); dimensions(rng)]),
        _ => STRINGS[rng.usize(..STRINGS.len())].into(),
    }
}

fn real(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn dimensions(rng: &mut Rng) -> usize {
    match rng.u8(0..6) {
        0 => rng.usize(0..10),
        1 => rng.usize(0..70_000),
        _ => 4,
    }
}

impl Mutator {
    /// With all examples as the corpus.
    pub fn new() -> Self {
        let mut corpus: Vec<Example> = [writes(), newer_writes(), reads(), newer_reads()]
            .into_iter()
            .flatten()
            // Those with all points would make every other mutant large.
            .filter(|example| example.body.to_string().len() < 10_000)
            // One language is as good as another.
            .filter(|example| !example.name.starts_with("index p.stemmer"))
            .collect();
        corpus.extend(refusals().into_iter().map(|refusal| Example {
            name: format!("{} {}", refusal.schema, refusal.part),
            method: refusal.method,
            path: refusal.path.to_owned(),
            body: refusal.body,
        }));
        let mut parts = Vec::new();
        let mut keys = Vec::new();
        for example in &corpus {
            collect(&example.body, &mut parts, &mut keys);
        }
        keys.sort();
        keys.dedup();
        Self {
            corpus,
            parts,
            keys,
        }
    }

    /// The next one.
    pub fn mutant(&self, rng: &mut Rng) -> Mutant {
        let Example {
            method,
            path,
            mut body,
            ..
        } = self.pick(rng).clone();
        let mut path = path;
        if rng.u8(0..40) == 0 {
            path = match rng.u8(0..3) {
                0 => self.pick(rng).path.clone(),
                1 => format!("{path}/{}", STRINGS[rng.usize(..STRINGS.len())]),
                _ => path.replace('/', "%2F"),
            };
        } else if path.starts_with("/vectors/") || path.starts_with("/index/") {
            // Keep most of the names that the other requests need.
            path.push_str(["", "x", "%20", "é"][rng.usize(..4)]);
        }
        for _ in 0..[1, 1, 1, 2, 3][rng.usize(..5)] {
            self.spoil_somewhere(&mut body, rng);
        }
        let mut text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        if rng.u8(0..30) == 0 && !text.is_empty() {
            let bytes = text.into_bytes();
            let at = rng.usize(..bytes.len());
            let bytes = match rng.u8(0..3) {
                0 => bytes[..at].to_vec(),
                1 => [&bytes[..at], &[rng.u8(..)], &bytes[at..]].concat(),
                _ => [&bytes[..at], b"1e400", &bytes[at..]].concat(),
            };
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Mutant {
            method,
            path,
            body: text,
        }
    }

    fn pick(&self, rng: &mut Rng) -> &Example {
        &self.corpus[rng.usize(..self.corpus.len())]
    }

    /// A part of some request.
    pub fn part(&self, rng: &mut Rng) -> Value {
        if rng.bool() {
            leaf(rng)
        } else {
            self.parts[rng.usize(..self.parts.len())].clone()
        }
    }

    /// Changes one value of a document.
    pub fn spoil_somewhere(&self, document: &mut Value, rng: &mut Rng) {
        let mut target = rng.usize(..count(document));
        self.change(document, &mut target, rng);
    }

    /// Changes the value that is `target` steps ahead.
    fn change(&self, value: &mut Value, target: &mut usize, rng: &mut Rng) -> bool {
        if *target == 0 {
            self.spoil(value, rng);
            return true;
        }
        *target -= 1;
        match value {
            Value::Array(items) => items.iter_mut().any(|item| self.change(item, target, rng)),
            Value::Object(map) => map
                .values_mut()
                .any(|member| self.change(member, target, rng)),
            _ => false,
        }
    }

    fn spoil(&self, value: &mut Value, rng: &mut Rng) {
        match (rng.u8(0..10), &mut *value) {
            (0..=2, Value::Object(map)) if !map.is_empty() => self.spoil_object(map, rng),
            (0..=2, Value::Array(items)) if !items.is_empty() => {
                let at = rng.usize(..items.len());
                match rng.u8(0..4) {
                    0 => drop(items.remove(at)),
                    1 => items.insert(at, leaf(rng)),
                    2 => items.swap(at, 0),
                    _ => {
                        let again = items[at].clone();
                        let times = if rng.u8(0..8) == 0 { 3000 } else { 3 };
                        let times = rng.usize(0..times);
                        items.extend(std::iter::repeat_n(again, times));
                    }
                }
            }
            (0..=2, Value::Number(number)) => {
                let float = number.as_f64().unwrap_or_default();
                *value = match rng.u8(0..6) {
                    0 => real(-float),
                    1 => real(float * 1e10),
                    2 => real(float + 0.5),
                    3 => json!(number.as_u64().unwrap_or_default().saturating_add(1)),
                    4 => json!(number.as_u64().unwrap_or_default().saturating_mul(1 << 20)),
                    _ => Value::String(number.to_string()),
                };
            }
            (0..=2, Value::String(text)) => match rng.u8(0..3) {
                0 => text.push_str(STRINGS[rng.usize(..STRINGS.len())]),
                1 => text.make_ascii_uppercase(),
                _ => *text = text.repeat(rng.usize(0..200)),
            },
            (3, inner) => {
                let depth = match rng.u8(0..4) {
                    0 => rng.usize(0..130),
                    _ => rng.usize(0..36),
                };
                let kind = rng.u8(0..8);
                let mut nested = inner.take();
                for _ in 0..depth {
                    nested = wrapped(nested, kind);
                }
                *value = nested;
            }
            (4..=5, _) => *value = self.parts[rng.usize(..self.parts.len())].clone(),
            _ => *value = leaf(rng),
        }
    }

    fn spoil_object(&self, map: &mut Map<String, Value>, rng: &mut Rng) {
        let at = rng.usize(..map.len());
        let key = map.keys().nth(at).cloned().unwrap_or_default();
        let other = self.keys[rng.usize(..self.keys.len())].clone();
        match rng.u8(0..4) {
            0 => drop(map.remove(&key)),
            1 => {
                let value = map.remove(&key).unwrap_or_default();
                map.insert(other, value);
            }
            2 => drop(map.insert(other, self.part(rng))),
            _ => drop(map.insert(key, self.part(rng))),
        }
    }
}

impl Default for Mutator {
    fn default() -> Self {
        Self::new()
    }
}

fn wrapped(value: Value, kind: u8) -> Value {
    match kind {
        0 => json!([value]),
        1 => json!({ "must": [value] }),
        2 => json!({ "should": value }),
        3 => json!({ "nested": { "key": "offers", "filter": { "must": [value] } } }),
        4 => json!({ "prefetch": value, "query": { "fusion": "rrf" } }),
        5 => json!({ "neg": value }),
        6 => json!({ "sum": [value, 1] }),
        _ => json!({ "a": value }),
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn collect(value: &Value, parts: &mut Vec<Value>, keys: &mut Vec<String>) {
    parts.push(value.clone());
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, parts, keys)),
        Value::Object(map) => {
            for (key, member) in map {
                keys.push(key.clone());
                collect(member, parts, keys);
            }
        }
        _ => {}
    }
}
