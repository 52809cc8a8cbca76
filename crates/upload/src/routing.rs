//! Which part of a collection the device is in step with: the whole of it, the shards of one shard
//! key, or the points of one tenant. What that adds to each request is added here.
//!
//! A tenant's points are told apart by a payload field. In a collection with shard keys they lie in
//! a shard that small tenants share (the *fall-back* key), until the tenant is promoted to a key of
//! its own; the server is asked with both keys and takes the tenant's own once that is there.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::answer::Request;

/// The key that small tenants share if the settings name no other.
const FALLBACK: &str = "default";

/// Keys and names are this long at most, in bytes.
const MAX_BYTES: usize = 1024;

/// A shard key (`sharding_method: custom`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ShardKey {
    /// A whole number.
    Number(u64),
    /// A name.
    Keyword(String),
}

impl FromStr for ShardKey {
    type Err = String;

    /// A whole number is one, any other text a name. Text in double quotes is JSON: `"7"` is a name.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = if text.starts_with('"') {
            serde_json::from_str(text)
                .map(Self::Keyword)
                .map_err(|error| format!("`{text}` is no JSON string: {error}"))?
        } else {
            match text.parse() {
                // As it is written: `007` and `+7` are names.
                Ok(number) if u64::to_string(&number) == text => Self::Number(number),
                _ => Self::Keyword(text.to_owned()),
            }
        };
        match &key {
            Self::Keyword(name) if name.is_empty() => Err("a shard key cannot be empty".to_owned()),
            Self::Keyword(name) if name.len() > MAX_BYTES => Err(format!(
                "a shard key has {MAX_BYTES} bytes at most; this one has {}",
                name.len()
            )),
            _ => Ok(key),
        }
    }
}

/// As JSON.
impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Keyword(name) => write!(f, "{}", Value::from(name.as_str())),
        }
    }
}

/// A payload field that tells one tenant's points from those of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// A key of the payload; no path.
    pub field: String,
    /// A string, a whole number or a truth value.
    pub value: Value,
}

impl Tenant {
    /// Checks both.
    ///
    /// # Errors
    /// What is wrong with the field or the value.
    pub fn new(field: &str, value: Value) -> Result<Self, String> {
        if field.is_empty() || field.len() > MAX_BYTES {
            return Err(format!("the field has 1 to {MAX_BYTES} bytes"));
        }
        if field.contains(['.', '[', ']', '"']) {
            return Err(format!(
                "the field `{field}` is a path; a tenant's field is a key of the payload itself"
            ));
        }
        let is_whole = value.is_u64() || value.is_i64();
        match &value {
            Value::String(text) if text.is_empty() => Err("the value is empty".to_owned()),
            Value::String(_) | Value::Bool(_) => Ok(()),
            Value::Number(_) if is_whole => Ok(()),
            _ => Err("the value is a string, a whole number or a truth value".to_owned()),
        }?;
        Ok(Self {
            field: field.to_owned(),
            value,
        })
    }

    /// The condition that its points meet.
    fn condition(&self) -> Value {
        json!({"key": self.field, "match": {"value": self.value}})
    }

    /// The key that it has of its own once it is promoted.
    fn key(&self) -> ShardKey {
        match &self.value {
            Value::Number(number) => number
                .as_u64()
                .map_or_else(|| ShardKey::Keyword(number.to_string()), ShardKey::Number),
            Value::String(name) => ShardKey::Keyword(name.clone()),
            other => ShardKey::Keyword(other.to_string()),
        }
    }
}

impl FromStr for Tenant {
    type Err = String;

    /// `FIELD=VALUE`. A value that is a whole number, `true`, `false` or a JSON string is that; any
    /// other is text.
    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not FIELD=VALUE"))?;
        let parsed = serde_json::from_str(value)
            .ok()
            .filter(|parsed: &Value| {
                parsed.is_u64() || parsed.is_i64() || parsed.is_boolean() || parsed.is_string()
            })
            .filter(|parsed| {
                let written = parsed.to_string();
                parsed.is_string() || written == value
            });
        Self::new(field, parsed.unwrap_or_else(|| Value::from(value)))
    }
}

/// `FIELD=VALUE`, the value as JSON.
impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field, self.value)
    }
}

/// Which shards of a collection of several a device follows: a number, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub enum FollowedShards {
    /// All of them, also where one alone was followed before.
    All,
    /// The one of this number.
    One(u32),
}

impl FollowedShards {
    /// The number, of one alone.
    pub fn number(self) -> Option<u32> {
        match self {
            Self::All => None,
            Self::One(number) => Some(number),
        }
    }
}

impl FromStr for FollowedShards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::One)
                .map_err(|_| format!("`{text}` is neither the number of a shard nor `all`")),
        }
    }
}

impl TryFrom<Value> for FollowedShards {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

/// What settings, or a binding, say of the part: each as [`Routing::read`] takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedPart {
    /// Which shards are followed.
    pub shard: Option<FollowedShards>,
    /// A shard key.
    pub shard_key: Option<String>,
    /// A tenant.
    pub tenant: Option<String>,
}

impl NamedPart {
    /// What the settings leave to the binding: everything, unless they name a part. That all shards
    /// are followed names none; it only says that no bound number counts any more.
    #[must_use]
    pub fn or_bound(self, bound: Self) -> Self {
        let one = matches!(self.shard, Some(FollowedShards::One(_)));
        if one || self.shard_key.is_some() || self.tenant.is_some() {
            return self;
        }
        Self {
            shard: self.shard.or(bound.shard),
            ..bound
        }
    }

    /// The number of the only shard that is followed.
    pub fn shard_number(&self) -> Option<u32> {
        self.shard.and_then(FollowedShards::number)
    }
}

/// A setting that names a part of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The number of a shard.
    Shard,
    /// A shard key.
    ShardKey,
    /// A tenant.
    Tenant,
}

impl Setting {
    /// Its name, as a field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::ShardKey => "shard_key",
            Self::Tenant => "tenant",
        }
    }
}

/// Which part of a collection. Default: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    key: Option<ShardKey>,
    tenant: Option<Tenant>,
    shard: Option<u32>,
}

impl Routing {
    /// `key`: the shard key whose shards are meant. With a `tenant`, whose own key is its value, the
    /// key that small tenants share. `shard`: only the shard of this number.
    ///
    /// # Errors
    /// A shard's number beside a key or a tenant.
    pub fn new(
        key: Option<ShardKey>,
        tenant: Option<Tenant>,
        shard: Option<u32>,
    ) -> Result<Self, String> {
        if shard.is_some() && (key.is_some() || tenant.is_some()) {
            return Err(
                "a shard's number and a shard key or a tenant cannot go together".to_owned(),
            );
        }
        Ok(Self { key, tenant, shard })
    }

    /// As settings have it: text that [`ShardKey`] and [`Tenant`] read.
    ///
    /// # Errors
    /// Which of them is wrong, and why.
    pub fn read(
        shard_key: Option<&str>,
        tenant: Option<&str>,
        shard: Option<u32>,
    ) -> Result<Self, (Setting, String)> {
        let key = shard_key.map(str::parse).transpose();
        let tenant = tenant.map(str::parse).transpose();
        Self::new(
            key.map_err(|why| (Setting::ShardKey, why))?,
            tenant.map_err(|why| (Setting::Tenant, why))?,
            shard,
        )
        .map_err(|why| (Setting::Shard, why))
    }

    /// The tenant whose points are meant.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// The shard that the settings name by its number.
    pub fn shard(&self) -> Option<u32> {
        self.shard
    }

    /// The key that the settings name.
    pub fn named_key(&self) -> Option<&ShardKey> {
        self.key.as_ref()
    }

    /// The key whose shards hold these points and no others, if there is one.
    pub fn own_key(&self) -> Option<ShardKey> {
        match &self.tenant {
            Some(tenant) => Some(tenant.key()),
            None => self.key.clone(),
        }
    }

    /// The key that the tenant shares with others as long as it has none of its own.
    pub fn shared_key(&self) -> Option<ShardKey> {
        let tenant = self.tenant.as_ref()?;
        let named = self.key.clone().filter(|key| key != &tenant.key());
        Some(named.unwrap_or_else(|| ShardKey::Keyword(FALLBACK.to_owned())))
    }

    /// What a binding says of the part; none for the whole. A shard's number is no part: writes go to
    /// the whole collection.
    pub fn part(&self) -> Option<String> {
        match (&self.tenant, &self.key) {
            (Some(tenant), _) => Some(format!("tenant {tenant}")),
            (None, Some(key)) => Some(format!("shard key {key}")),
            (None, None) => None,
        }
    }

    /// The `shard_key` of a request to a collection that has shard keys.
    pub fn shard_key(&self) -> Option<Value> {
        let own = self.own_key()?;
        Some(match self.shared_key() {
            Some(fallback) => json!({"target": own, "fallback": fallback}),
            None => json!(own),
        })
    }

    /// Whether a collection that this device makes has shard keys.
    pub fn creates_keys(&self) -> bool {
        self.key.is_some()
    }

    /// The request that makes the payload index by which a server finds a tenant's points.
    pub fn tenant_index(&self) -> Option<Request> {
        let tenant = self.tenant.as_ref()?;
        let kind = match &tenant.value {
            Value::Number(_) => "integer",
            Value::Bool(_) => "bool",
            _ => "keyword",
        };
        let mut schema = json!({ "type": kind });
        if kind == "keyword" {
            schema["is_tenant"] = json!(true);
        }
        let body = json!({"field_name": tenant.field, "field_schema": schema});
        Some(Request::new("PUT", "/index?wait=true", body.to_string()))
    }

    /// The request as it goes out: with the shard key if the collection is `keyed`, and for a tenant
    /// with its field on what is stored, and confined to its points. A request that was addressed
    /// before stays as it is.
    pub fn address<'a>(&self, request: &'a Request, keyed: bool) -> Cow<'a, Request> {
        let of_points = !request.server_wide && request.path.starts_with("/points");
        let key = if keyed { self.shard_key() } else { None };
        if !of_points || request.body.is_empty() || (key.is_none() && self.tenant.is_none()) {
            return Cow::Borrowed(request);
        }
        let Ok(Value::Object(mut body)) = serde_json::from_str(&request.body) else {
            return Cow::Borrowed(request);
        };
        let path = request.path.split('?').next().unwrap_or_default();
        if let (true, Some(Value::Array(operations))) =
            (path == "/points/batch", body.get_mut("operations"))
        {
            for operation in operations.iter_mut().filter_map(Value::as_object_mut) {
                for (kind, arguments) in operation {
                    if let Some(arguments) = arguments.as_object_mut() {
                        self.address_operation(kind, arguments, key.as_ref());
                    }
                }
            }
        } else {
            self.address_read(path, &mut body, key.as_ref());
        }
        Cow::Owned(Request {
            method: request.method.clone(),
            path: request.path.clone(),
            body: Value::Object(body).to_string(),
            server_wide: request.server_wide,
        })
    }

    fn address_operation(
        &self,
        kind: &str,
        arguments: &mut Map<String, Value>,
        key: Option<&Value>,
    ) {
        if arguments.contains_key("shard_key") {
            return;
        }
        if let Some(tenant) = &self.tenant {
            confine(tenant, kind, arguments);
        }
        if let Some(key) = key {
            arguments.insert("shard_key".to_owned(), key.clone());
        }
    }

    /// A read of points by their ids has no place for a filter: whoever asks has to look at the
    /// answer.
    fn address_read(&self, path: &str, body: &mut Map<String, Value>, key: Option<&Value>) {
        if body.contains_key("shard_key") {
            return;
        }
        if let Some(tenant) = &self.tenant
            && path != "/points"
        {
            require(body, tenant);
        }
        if let Some(key) = key {
            body.insert("shard_key".to_owned(), key.clone());
        }
    }
}

/// Puts the tenant's field on what is stored, and keeps the operation from the points of others.
fn confine(tenant: &Tenant, kind: &str, arguments: &mut Map<String, Value>) {
    let stamp = |payload: &mut Value| {
        if !payload.is_object() {
            *payload = json!({});
        }
        payload[&tenant.field] = tenant.value.clone();
    };
    match kind {
        "upsert" => {
            for point in arguments
                .get_mut("points")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
            {
                stamp(point.entry("payload").or_insert(Value::Null));
            }
            // A point of somebody else's under the same id stays.
            condition_of_update(arguments, tenant);
        }
        "update_vectors" => condition_of_update(arguments, tenant),
        // The field stays; it would make the point nobody's.
        "overwrite_payload" => {
            stamp(arguments.entry("payload").or_insert(Value::Null));
            require(arguments, tenant);
        }
        "set_payload" => {
            let at_root = arguments.get("key").is_none_or(Value::is_null);
            if at_root
                && let Some(payload) = arguments.get_mut("payload")
                && payload.get(&tenant.field).is_some()
            {
                stamp(payload);
            }
            require(arguments, tenant);
        }
        "delete_payload" => {
            if let Some(keys) = arguments.get_mut("keys").and_then(Value::as_array_mut) {
                keys.retain(|key| key.as_str() != Some(&tenant.field));
            }
            require(arguments, tenant);
        }
        _ => require(arguments, tenant),
    }
}

/// `update_filter`: a point that is there is changed only if it meets the filter.
fn condition_of_update(arguments: &mut Map<String, Value>, tenant: &Tenant) {
    let mut filter = match arguments.remove("update_filter") {
        Some(Value::Object(filter)) => filter,
        _ => Map::new(),
    };
    add_condition(&mut filter, tenant.condition());
    arguments.insert("update_filter".to_owned(), Value::Object(filter));
}

/// Only points that are the tenant's: by its filter, or by the list of ids as a filter.
fn require(arguments: &mut Map<String, Value>, tenant: &Tenant) {
    let mut filter = match arguments.remove("filter") {
        Some(Value::Object(filter)) => filter,
        _ => Map::new(),
    };
    if let Some(points) = arguments.remove("points") {
        add_condition(&mut filter, json!({"has_id": points}));
    }
    add_condition(&mut filter, tenant.condition());
    arguments.insert("filter".to_owned(), Value::Object(filter));
}

/// Adds a condition that must be met, unless it is there.
fn add_condition(filter: &mut Map<String, Value>, condition: Value) {
    let must = filter.entry("must").or_insert_with(|| json!([]));
    if !must.is_array() {
        // One condition, without the list around it.
        *must = json!([must.take()]);
    }
    if let Some(must) = must.as_array_mut()
        && !must.contains(&condition)
    {
        must.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ShardKey {
        text.parse().unwrap()
    }

    fn routing(key: Option<&str>, tenant: Option<&str>) -> Routing {
        Routing::new(
            key.map(|key| key.parse().unwrap()),
            tenant.map(|tenant| tenant.parse().unwrap()),
            None,
        )
        .unwrap()
    }

    fn batch(operations: Value) -> Request {
        let body = json!({ "operations": operations }).to_string();
        Request::new("POST", "/points/batch?wait=true", body)
    }

    fn body(request: &Request) -> Value {
        serde_json::from_str(&request.body).unwrap()
    }

    #[test]
    fn settings_leave_to_the_binding_what_they_do_not_name() {
        let part = |shard: Option<&str>, shard_key: Option<&str>| NamedPart {
            shard: shard.map(|it| it.parse().unwrap()),
            shard_key: shard_key.map(str::to_owned),
            tenant: None,
        };
        for (settings, bound, together) in [
            ((None, None), (Some("1"), None), (Some("1"), None)),
            ((Some("2"), None), (Some("1"), None), (Some("2"), None)),
            ((Some("all"), None), (Some("1"), None), (Some("all"), None)),
            (
                (Some("all"), None),
                (None, Some("k")),
                (Some("all"), Some("k")),
            ),
            ((Some("1"), None), (None, Some("k")), (Some("1"), None)),
            ((None, Some("j")), (Some("1"), None), (None, Some("j"))),
        ] {
            let (settings, bound) = (part(settings.0, settings.1), part(bound.0, bound.1));
            assert_eq!(settings.or_bound(bound), part(together.0, together.1));
        }
    }

    #[test]
    fn keys_are_names_or_whole_numbers() {
        assert_eq!(key("a"), ShardKey::Keyword("a".to_owned()));
        assert_eq!(key("7"), ShardKey::Number(7));
        assert_eq!(key("\"7\""), ShardKey::Keyword("7".to_owned()));
        for name in ["007", "+7", "-7", "7.0", "18446744073709551616"] {
            assert_eq!(key(name), ShardKey::Keyword(name.to_owned()));
        }
        for text in ["a", "7", "\"7\"", "a \"b\""] {
            assert_eq!(key(&key(text).to_string()), key(text));
        }
        assert!("".parse::<ShardKey>().is_err());
        assert!("\"\"".parse::<ShardKey>().is_err());
        assert!("\"a".parse::<ShardKey>().is_err());
    }

    #[test]
    fn tenants_are_a_field_and_a_value() {
        let tenant = |text: &str| text.parse::<Tenant>();
        assert_eq!(tenant("user=anna").unwrap().value, json!("anna"));
        assert_eq!(tenant("user=7").unwrap().value, json!(7));
        assert_eq!(tenant("user=\"7\"").unwrap().value, json!("7"));
        assert_eq!(tenant("user=true").unwrap().value, json!(true));
        assert_eq!(tenant("user=1.50").unwrap().value, json!("1.50"));
        assert_eq!(tenant("user=a=b").unwrap().value, json!("a=b"));
        for wrong in ["user", "=a", "user=", "a.b=c", "a[]=c"] {
            assert!(tenant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_whole_of_a_collection_changes_no_request() {
        let request = batch(json!([{"delete": {"points": [1]}}]));
        assert_eq!(*Routing::default().address(&request, false), request);
        // Keys mean nothing to a collection without them.
        assert_eq!(*routing(Some("a"), None).address(&request, false), request);
    }

    #[test]
    fn every_request_on_points_carries_the_key() {
        let routing = routing(Some("a"), None);
        let request = batch(json!([
            {"upsert": {"points": [{"id": 1, "vector": [1]}]}},
            {"delete": {"points": [2]}},
        ]));
        let sent = routing.address(&request, true);
        for (at, kind) in [(0, "upsert"), (1, "delete")] {
            assert_eq!(body(&sent)["operations"][at][kind]["shard_key"], "a");
        }
        assert_eq!(routing.address(&sent, true), sent);
        let read = Request::new("POST", "/points", json!({"ids": [1]}).to_string());
        assert_eq!(body(&routing.address(&read, true))["shard_key"], "a");
        for other in [
            Request::new(
                "PUT",
                "/index?wait=true",
                json!({"field_name": "a"}).to_string(),
            ),
            Request::new("GET", "", ""),
            Request::new("PUT", "/vectors/v", "{}"),
        ] {
            assert_eq!(*routing.address(&other, true), other);
        }
    }

    #[test]
    fn a_tenant_shares_a_key_until_it_has_its_own() {
        let both = |of: &Routing| of.shard_key().unwrap();
        assert_eq!(
            both(&routing(None, Some("user=anna"))),
            json!({"target": "anna", "fallback": "default"})
        );
        assert_eq!(
            both(&routing(Some("small"), Some("user=7"))),
            json!({"target": 7, "fallback": "small"})
        );
        // The setting may name the tenant's own key as well.
        assert_eq!(
            both(&routing(Some("anna"), Some("user=anna"))),
            json!({"target": "anna", "fallback": "default"})
        );
    }

    #[test]
    fn a_tenant_stamps_its_points_and_keeps_from_those_of_others() {
        let routing = routing(None, Some("user=anna"));
        let condition = json!({"key": "user", "match": {"value": "anna"}});
        let request = batch(json!([
            {"upsert": {"points": [{"id": 1, "vector": [1], "payload": {"a": 1, "user": "eve"}},
                                   {"id": 2, "vector": [1]}]}},
            {"delete": {"points": [3]}},
            {"overwrite_payload": {"payload": {"a": 2}, "points": [1]}},
            {"delete_payload": {"keys": ["a", "user"], "points": [1]}},
            {"set_payload": {"payload": {"b": 1},
                             "filter": {"must": {"key": "a", "match": {"value": 1}}}}},
            {"update_vectors": {"points": [{"id": 1, "vector": [2]}]}},
        ]));
        let sent = routing.address(&request, false);
        let operations = body(&sent)["operations"].clone();
        let points = &operations[0]["upsert"]["points"];
        assert_eq!(points[0]["payload"], json!({"a": 1, "user": "anna"}));
        assert_eq!(points[1]["payload"], json!({"user": "anna"}));
        let only = json!({"must": [condition]});
        assert_eq!(operations[0]["upsert"]["update_filter"], only);
        assert_eq!(
            operations[1]["delete"],
            json!({"filter": {"must": [{"has_id": [3]}, condition]}})
        );
        assert_eq!(
            operations[2]["overwrite_payload"]["payload"],
            json!({"a": 2, "user": "anna"})
        );
        assert_eq!(operations[3]["delete_payload"]["keys"], json!(["a"]));
        let filter = &operations[4]["set_payload"]["filter"]["must"];
        assert_eq!(
            filter,
            &json!([{"key": "a", "match": {"value": 1}}, condition])
        );
        assert_eq!(operations[5]["update_vectors"]["update_filter"], only);
        assert_eq!(body(&routing.address(&sent, false)), body(&sent));
        let count = Request::new("POST", "/points/count", r#"{"exact": true}"#);
        assert_eq!(body(&routing.address(&count, false))["filter"], only);
    }

    #[test]
    fn a_number_and_a_key_do_not_go_together() {
        assert!(Routing::new(Some(key("a")), None, Some(1)).is_err());
        assert!(Routing::new(None, None, Some(1)).is_ok());
    }
}
