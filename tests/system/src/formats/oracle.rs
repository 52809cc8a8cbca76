//! A collection in plain maps: what every write leaves behind and what every read answers, without
//! an index, a segment or a file.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Map, Value, json};

/// Ids in the order in which they are scrolled through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    Number(u64),
    Uuid(u128),
}

impl Id {
    pub fn of(value: &Value) -> Self {
        match value.as_str() {
            Some(text) => {
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                Self::Uuid(u128::from_str_radix(&digits, 16).expect("a UUID"))
            }
            None => Self::Number(value.as_u64().expect("an id")),
        }
    }

    pub fn json(self) -> Value {
        match self {
            Self::Number(number) => json!(number),
            Self::Uuid(bits) => {
                let hex = format!("{bits:032x}");
                json!(format!(
                    "{}-{}-{}-{}-{}",
                    &hex[..8],
                    &hex[8..12],
                    &hex[12..16],
                    &hex[16..20],
                    &hex[20..]
                ))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Cosine,
    Dot,
    Euclid,
    Manhattan,
    /// The sum over the query's rows of the best dot product with a row of the point.
    MaxSim,
    /// The dot product of those that have an index in common.
    Sparse,
    /// Weighted by frequencies, which depend on the segments: not searched here, only stored.
    SparseIdf,
}

#[derive(Clone, Debug, Default)]
pub struct Point {
    /// As REST shows them.
    pub vectors: BTreeMap<String, Value>,
    pub payload: Map<String, Value>,
}

#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Shared with clones until changed: every write is tried on a clone.
    pub points: BTreeMap<Id, Rc<Point>>,
    pub vectors: BTreeMap<String, Metric>,
    /// Fields with an index.
    pub indexes: BTreeSet<String>,
}

/// A request that has to be refused, and leaves everything as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

impl Oracle {
    /// What the request does, as the REST API defines it.
    pub fn write(&mut self, method: &str, path: &str, body: &Value) -> Result<(), Refused> {
        match (method, path) {
            ("PUT", "/points") => self.upsert(body),
            ("POST", "/points/delete") => {
                for id in self.selected(body) {
                    self.points.remove(&id);
                }
                Ok(())
            }
            ("PUT", "/points/vectors") => self.update_vectors(body),
            ("POST", "/points/vectors/delete") => {
                let names = strings(&body["vector"]);
                if names.iter().any(|name| !self.vectors.contains_key(name)) {
                    return Err(Refused);
                }
                self.change(body, |point| {
                    point.vectors.retain(|name, _| !names.contains(name));
                })
            }
            ("POST", "/points/payload") => {
                let payload = object(&body["payload"]);
                let key = body["key"].as_str().map(parsed_path);
                self.change(body, |point| {
                    set(&mut point.payload, key.as_deref(), payload)
                })
            }
            ("PUT", "/points/payload") => {
                let payload = object(&body["payload"]);
                self.change(body, |point| point.payload.clone_from(payload))
            }
            ("POST", "/points/payload/delete") => {
                let keys: Vec<_> = strings(&body["keys"])
                    .iter()
                    .map(|key| parsed_path(key))
                    .collect();
                self.change(body, |point| {
                    for key in &keys {
                        remove(&mut point.payload, key);
                    }
                })
            }
            ("POST", "/points/payload/clear") => self.change(body, |point| point.payload.clear()),
            ("POST", "/points/batch") => {
                for operation in body["operations"].as_array().expect("operations") {
                    let (kind, body) = object(operation).iter().next().expect("an operation");
                    let (method, path) = match kind.as_str() {
                        "upsert" => ("PUT", "/points"),
                        "delete" => ("POST", "/points/delete"),
                        "set_payload" => ("POST", "/points/payload"),
                        "overwrite_payload" => ("PUT", "/points/payload"),
                        "delete_payload" => ("POST", "/points/payload/delete"),
                        "clear_payload" => ("POST", "/points/payload/clear"),
                        "update_vectors" => ("PUT", "/points/vectors"),
                        "delete_vectors" => ("POST", "/points/vectors/delete"),
                        other => panic!("{other}"),
                    };
                    self.write(method, path, body)?;
                }
                Ok(())
            }
            ("PUT", "/index") => {
                let field = body["field_name"].as_str().expect("a field");
                self.indexes.insert(field.to_owned());
                Ok(())
            }
            _ => {
                if let Some(field) = path.strip_prefix("/index/") {
                    self.indexes.remove(field);
                    return Ok(());
                }
                let name = path.strip_prefix("/vectors/").expect("a known request");
                if method == "PUT" {
                    let metric = if body["sparse"].is_object() {
                        Metric::SparseIdf
                    } else {
                        Metric::Dot
                    };
                    self.vectors.insert(name.to_owned(), metric);
                } else {
                    self.vectors.remove(name).ok_or(Refused)?;
                    for point in self.points.values_mut().map(Rc::make_mut) {
                        point.vectors.remove(name);
                    }
                }
                Ok(())
            }
        }
    }

    fn upsert(&mut self, body: &Value) -> Result<(), Refused> {
        let points = body["points"].as_array().expect("points");
        for point in points {
            self.known(&point["vector"])?;
        }
        let mode = body["update_mode"].as_str().unwrap_or("upsert");
        let before = self.points.clone();
        for point in points {
            let id = Id::of(&point["id"]);
            let passes = match before.get(&id) {
                None => mode != "update_only",
                Some(_) if mode == "insert_only" => false,
                Some(old) => {
                    body["update_filter"].is_null() || matches(&body["update_filter"], id, old)
                }
            };
            // Without a condition a point may be there twice, and the second counts.
            if passes {
                self.points.insert(
                    id,
                    Rc::new(Point {
                        vectors: self.stored(&point["vector"]),
                        payload: point["payload"].as_object().cloned().unwrap_or_default(),
                    }),
                );
            }
        }
        Ok(())
    }

    fn update_vectors(&mut self, body: &Value) -> Result<(), Refused> {
        let points = body["points"].as_array().expect("points");
        for point in points {
            self.known(&point["vector"])?;
            if !self.points.contains_key(&Id::of(&point["id"])) {
                return Err(Refused);
            }
        }
        let before = self.points.clone();
        for point in points {
            let id = Id::of(&point["id"]);
            let passes = body["update_filter"].is_null()
                || matches(&body["update_filter"], id, &before[&id]);
            if passes {
                let vectors = self.stored(&point["vector"]);
                let old = Rc::make_mut(self.points.get_mut(&id).expect("checked"));
                old.vectors.extend(vectors);
            }
        }
        Ok(())
    }

    fn known(&self, vectors: &Value) -> Result<(), Refused> {
        let known = object(vectors)
            .keys()
            .all(|name| self.vectors.contains_key(name));
        if known { Ok(()) } else { Err(Refused) }
    }

    /// As they come back: cosine keeps directions only.
    fn stored(&self, vectors: &Value) -> BTreeMap<String, Value> {
        object(vectors)
            .iter()
            .map(|(name, value)| {
                let value = match self.vectors[name] {
                    Metric::Cosine => json!(direction(&floats(value))),
                    Metric::Sparse | Metric::SparseIdf => {
                        let indices = value["indices"].as_array().expect("indices");
                        let values = value["values"].as_array().expect("values");
                        let sorted: BTreeMap<u64, &Value> = indices
                            .iter()
                            .map(|index| index.as_u64().expect("an index"))
                            .zip(values)
                            .collect();
                        json!({
                            "indices": sorted.keys().collect::<Vec<_>>(),
                            "values": sorted.values().collect::<Vec<_>>(),
                        })
                    }
                    _ => value.clone(),
                };
                (name.clone(), value)
            })
            .collect()
    }

    /// Applies `change` to the points selected; those listed must exist.
    fn change(&mut self, body: &Value, change: impl Fn(&mut Point)) -> Result<(), Refused> {
        let ids = self.selected(body);
        if ids.iter().any(|id| !self.points.contains_key(id)) {
            return Err(Refused);
        }
        for id in ids {
            if let Some(point) = self.points.get_mut(&id).map(Rc::make_mut) {
                change(point);
            }
        }
        Ok(())
    }

    fn selected(&self, body: &Value) -> Vec<Id> {
        match body["points"].as_array() {
            Some(ids) => ids.iter().map(Id::of).collect(),
            None => self.matching(&body["filter"]),
        }
    }

    pub fn matching(&self, filter: &Value) -> Vec<Id> {
        self.points
            .iter()
            .filter(|(id, point)| matches(filter, **id, point))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The result of `POST /points/scroll` for everything.
    pub fn scroll(&self) -> Vec<Value> {
        self.points
            .iter()
            .map(|(id, point)| {
                json!({ "id": id.json(), "payload": point.payload, "vector": point.vectors })
            })
            .collect()
    }

    /// The result of an exact `POST /points/query`, without versions.
    pub fn nearest(&self, name: &str, query: &Value, filter: &Value, limit: usize) -> Value {
        let metric = self.vectors[name];
        let mut scored: Vec<(f64, Id)> = self
            .points
            .iter()
            .filter(|(id, point)| matches(filter, **id, point))
            .filter_map(|(id, point)| Some((score(metric, query, point.vectors.get(name)?)?, *id)))
            .collect();
        scored.sort_by(|(a, _), (b, _)| match metric {
            Metric::Euclid | Metric::Manhattan => a.total_cmp(b),
            _ => b.total_cmp(a),
        });
        let points: Vec<_> = scored
            .into_iter()
            .take(limit)
            .map(|(score, id)| json!({ "id": id.json(), "score": score }))
            .collect();
        json!({ "points": points })
    }

    /// The result of an exact `POST /facet`.
    pub fn facet(&self, field: &str) -> Value {
        let mut counts: BTreeMap<String, (Value, u64)> = BTreeMap::new();
        for point in self.points.values() {
            let values: BTreeMap<String, Value> = values_at(&point.payload, &parsed_path(field))
                .into_iter()
                .flat_map(elements)
                .filter(|value| !value.is_null())
                .map(|value| (value.to_string(), value.clone()))
                .collect();
            for (key, value) in values {
                counts.entry(key).or_insert((value, 0)).1 += 1;
            }
        }
        let mut hits: Vec<_> = counts.into_values().collect();
        hits.sort_by(|(_, a), (_, b)| b.cmp(a));
        let hits: Vec<_> = hits
            .into_iter()
            .map(|(value, count)| json!({ "value": value, "count": count }))
            .collect();
        json!({ "hits": hits })
    }
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .map(|item| item.as_str().expect("a string").to_owned())
        .collect()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

fn floats(value: &Value) -> Vec<f64> {
    let items = value.as_array().expect("a vector");
    items
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

fn direction(values: &[f64]) -> Vec<f64> {
    let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length == 0.0 {
        return values.to_vec();
    }
    values.iter().map(|x| x / length).collect()
}

/// None for points that such a search does not find at all.
fn score(metric: Metric, query: &Value, stored: &Value) -> Option<f64> {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let rows = |value: &Value| -> Vec<Vec<f64>> {
        value.as_array().expect("rows").iter().map(floats).collect()
    };
    Some(match metric {
        Metric::Dot => dot(&floats(query), &floats(stored)),
        Metric::Cosine => dot(&direction(&floats(query)), &floats(stored)),
        Metric::Euclid => {
            let (a, b) = (floats(query), floats(stored));
            let squares: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
            squares.sqrt()
        }
        Metric::Manhattan => {
            let (a, b) = (floats(query), floats(stored));
            a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum()
        }
        Metric::MaxSim => {
            let stored = rows(stored);
            rows(query)
                .iter()
                .map(|row| {
                    stored
                        .iter()
                        .map(|other| dot(row, other))
                        .fold(f64::NEG_INFINITY, f64::max)
                })
                .sum()
        }
        Metric::Sparse => return sparse_score(query, stored),
        Metric::SparseIdf => panic!("not searched here"),
    })
}

fn sparse_score(query: &Value, stored: &Value) -> Option<f64> {
    let entries = |value: &Value| -> BTreeMap<u64, f64> {
        let indices = value["indices"].as_array().expect("indices");
        let indices = indices.iter().map(|n| n.as_u64().expect("an index"));
        indices.zip(floats(&value["values"])).collect()
    };
    let stored = entries(stored);
    let products: Vec<f64> = entries(query)
        .into_iter()
        .filter_map(|(index, value)| Some(value * stored.get(&index)?))
        .collect();
    (!products.is_empty()).then(|| products.into_iter().sum())
}

/// A step of a payload path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Every,
}

fn parsed_path(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in text.split('.') {
        let (key, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        steps.push(Step::Key(key.to_owned()));
        while let Some((index, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            steps.push(match index {
                "" => Step::Every,
                index => Step::Index(index.parse().expect("an index")),
            });
            rest = after;
        }
    }
    steps
}

fn values_at<'a>(payload: &'a Map<String, Value>, path: &[Step]) -> Vec<&'a Value> {
    let Some((Step::Key(key), rest)) = path.split_first() else {
        return Vec::new();
    };
    let mut values: Vec<&Value> = payload.get(key).into_iter().collect();
    for step in rest {
        values = values
            .into_iter()
            .flat_map(|value| -> Vec<&Value> {
                match step {
                    Step::Key(key) => value.get(key).into_iter().collect(),
                    Step::Index(index) => value
                        .as_array()
                        .and_then(|items| items.get(*index))
                        .into_iter()
                        .collect(),
                    Step::Every => value.as_array().into_iter().flatten().collect(),
                }
            })
            .collect();
    }
    values
}

/// A value, or those of an array.
fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        other => vec![other],
    }
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        if value.is_null() {
            into.remove(key);
        } else {
            into.insert(key.clone(), value.clone());
        }
    }
}

/// Sets keys of the object at `path`, which is made if something else is in its way.
fn set(payload: &mut Map<String, Value>, path: Option<&[Step]>, from: &Map<String, Value>) {
    let Some(path) = path else {
        merge(payload, from);
        return;
    };
    let mut whole = Value::Object(std::mem::take(payload));
    set_at(&mut whole, path, from);
    if let Value::Object(map) = whole {
        *payload = map;
    }
}

fn set_at(value: &mut Value, path: &[Step], from: &Map<String, Value>) {
    let make_object = |value: &mut Value| {
        if !value.is_object() {
            *value = json!({});
        }
    };
    let make_array = |value: &mut Value| {
        if !value.is_array() {
            *value = json!([]);
        }
    };
    let Some((step, rest)) = path.split_first() else {
        make_object(value);
        merge(value.as_object_mut().expect("made"), from);
        return;
    };
    match step {
        Step::Key(key) => {
            make_object(value);
            let inner = value.as_object_mut().expect("made");
            set_at(inner.entry(key.clone()).or_insert(Value::Null), rest, from);
        }
        Step::Index(index) => {
            make_array(value);
            if let Some(inner) = value.get_mut(*index) {
                set_at(inner, rest, from);
            }
        }
        Step::Every => {
            make_array(value);
            for inner in value.as_array_mut().expect("made") {
                set_at(inner, rest, from);
            }
        }
    }
}

/// Removes what is at `path`; elements of arrays stay, unless all of them go.
fn remove(payload: &mut Map<String, Value>, path: &[Step]) {
    let mut whole = Value::Object(std::mem::take(payload));
    remove_at(&mut whole, path);
    if let Value::Object(map) = whole {
        *payload = map;
    }
}

fn remove_at(value: &mut Value, path: &[Step]) {
    match path {
        [Step::Key(key)] => {
            if let Some(map) = value.as_object_mut() {
                map.shift_remove(key);
            }
        }
        [Step::Every] => {
            if let Some(items) = value.as_array_mut() {
                items.clear();
            }
        }
        [Step::Index(_)] | [] => {}
        [Step::Key(key), rest @ ..] => {
            if let Some(inner) = value.as_object_mut().and_then(|map| map.get_mut(key)) {
                remove_at(inner, rest);
            }
        }
        [Step::Index(index), rest @ ..] => {
            if let Some(inner) = value.as_array_mut().and_then(|items| items.get_mut(*index)) {
                remove_at(inner, rest);
            }
        }
        [Step::Every, rest @ ..] => {
            for inner in value.as_array_mut().into_iter().flatten() {
                remove_at(inner, rest);
            }
        }
    }
}

/// Whether a point matches a REST filter; null matches all.
pub fn matches(filter: &Value, id: Id, point: &Point) -> bool {
    clauses(filter, &|condition| {
        if let Some(ids) = condition["has_id"].as_array() {
            return ids.iter().any(|listed| Id::of(listed) == id);
        }
        if let Some(name) = condition["has_vector"].as_str() {
            return point.vectors.contains_key(name);
        }
        if condition.get("must").is_some() || condition.get("should").is_some() {
            return matches(condition, id, point);
        }
        holds(condition, &point.payload)
    })
}

fn clauses(filter: &Value, check: &dyn Fn(&Value) -> bool) -> bool {
    let list = |key: &str| filter[key].as_array();
    list("must").is_none_or(|all| all.iter().all(check))
        && list("must_not").is_none_or(|none| !none.iter().any(check))
        && list("should").is_none_or(|any| any.iter().any(check))
        && filter["min_should"].as_object().is_none_or(|some| {
            let least = some["min_count"].as_u64().expect("a count");
            let all = some["conditions"].as_array().expect("conditions");
            all.iter().filter(|condition| check(condition)).count() as u64 >= least
        })
}

/// Whether a condition on the payload holds.
fn holds(condition: &Value, payload: &Map<String, Value>) -> bool {
    if let Some(nested) = condition["nested"].as_object() {
        let mut path = parsed_path(nested["key"].as_str().expect("a key"));
        path.push(Step::Every);
        return values_at(payload, &path).iter().any(|element| {
            element.as_object().is_some_and(|element| {
                clauses(&nested["filter"], &|condition| holds(condition, element))
            })
        });
    }
    let at = |key: &Value| values_at(payload, &parsed_path(key.as_str().expect("a key")));
    if let Some(empty) = condition["is_empty"].as_object() {
        return at(&empty["key"])
            .iter()
            .all(|value| value.is_null() || value.as_array().is_some_and(Vec::is_empty));
    }
    if let Some(null) = condition["is_null"].as_object() {
        return at(&null["key"])
            .iter()
            .any(|value| elements(value).iter().any(|value| value.is_null()));
    }
    let values = at(&condition["key"]);
    if let Some(bounds) = condition["values_count"].as_object() {
        let count = |value: &&Value| match value {
            Value::Null => 0.0,
            Value::Array(items) => items.len() as f64,
            _ => 1.0,
        };
        if values.is_empty() {
            return within(0.0, bounds);
        }
        return values.iter().any(|value| within(count(value), bounds));
    }
    values
        .into_iter()
        .flat_map(elements)
        .any(|value| holds_for(condition, value))
}

fn within(number: f64, bounds: &Map<String, Value>) -> bool {
    bounds.iter().all(|(bound, limit)| {
        let limit = limit.as_f64().expect("a number");
        match bound.as_str() {
            "lt" => number < limit,
            "lte" => number <= limit,
            "gt" => number > limit,
            _ => number >= limit,
        }
    })
}

fn holds_for(condition: &Value, value: &Value) -> bool {
    if let Some(matching) = condition["match"].as_object() {
        if let Some(wanted) = matching.get("value") {
            return value == wanted;
        }
        if let Some(any) = matching.get("any").and_then(Value::as_array) {
            return any.contains(value);
        }
        let except = matching["except"].as_array().expect("a known match");
        return !value.is_null() && !except.contains(value);
    }
    if let Some(range) = condition["range"].as_object() {
        if let (Some(time), Some(_)) = (value.as_str(), range.values().find(|v| v.is_string())) {
            // All in one form, so that text sorts as time does.
            return range.iter().all(|(bound, limit)| {
                let limit = limit.as_str().expect("a time");
                match bound.as_str() {
                    "lt" => time < limit,
                    "lte" => time <= limit,
                    "gt" => time > limit,
                    _ => time >= limit,
                }
            });
        }
        return value.as_f64().is_some_and(|number| within(number, range));
    }
    let area = condition["geo_bounding_box"]
        .as_object()
        .expect("a known condition");
    let degrees = |point: &Value, axis: &str| point[axis].as_f64();
    let inside = |axis: &str, low: &Value, high: &Value| match (
        degrees(value, axis),
        degrees(low, axis),
        degrees(high, axis),
    ) {
        (Some(at), Some(low), Some(high)) => low <= at && at <= high,
        _ => false,
    };
    inside("lon", &area["top_left"], &area["bottom_right"])
        && inside("lat", &area["bottom_right"], &area["top_left"])
}
