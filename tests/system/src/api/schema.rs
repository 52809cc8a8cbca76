//! What the API description lists, and what of it a request uses.
//!
//! The description is walked along a request body: which fields of which schema it has, which
//! alternative of an `anyOf` it is, which word of a list of words. The same walk without a body
//! lists all there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;

use flate2::read::GzDecoder;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::openapi;

/// Something that a request can have: a field, an alternative or a word of a schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Name of the schema, or of a field of it that has a schema of its own (`Prefetch.prefetch`).
    pub schema: String,
    /// Name of the field, the alternative or the word.
    pub name: String,
}

/// What a [`Part`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A field of an object.
    Field,
    /// One of several forms that a value can have.
    Form,
    /// One of several words.
    Word,
}

/// Parts in the order in which the description has them.
pub type Parts = Vec<(Part, Sort)>;

/// The bodies of requests below `/collections/{collection_name}`.
pub struct Bodies {
    schemas: BTreeMap<String, Value>,
    paths: BTreeMap<String, Value>,
    /// As the server reads them: objects have no other fields than those listed.
    strict: Value,
    validators: HashMap<String, Validator>,
}

impl Bodies {
    /// Of the description that the server of the fixture came with.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn load() -> Self {
        let path = edge_sync_fixtures::folder().join("qdrant-openapi-1.19.json.gz");
        let file = File::open(&path).expect("the API description");
        let mut document: Value =
            serde_json::from_reader(GzDecoder::new(file)).expect("the API description");
        let take = |value: Value| -> BTreeMap<String, Value> {
            serde_json::from_value(value).expect("an object")
        };
        let schemas = document["components"]["schemas"].take();
        let mut strict = json!({ "schemas": schemas });
        openapi::make_strict(&mut strict);
        Self {
            schemas: take(schemas),
            paths: take(document["paths"].take()),
            strict,
            validators: HashMap::new(),
        }
    }

    /// Every request below the collection: method, and path as the description writes it.
    pub fn requests(&self) -> Vec<(String, String)> {
        let below = self.paths.iter().filter_map(|(path, methods)| {
            let path = path.strip_prefix("/collections/{collection_name}")?;
            Some((path, methods.as_object()?))
        });
        below
            .flat_map(|(path, methods)| {
                methods
                    .keys()
                    .map(move |method| (method.to_uppercase(), path.to_owned()))
            })
            .collect()
    }

    /// The schema of a request's body; `path` as the description writes it.
    fn body(&self, method: &str, path: &str) -> Option<Value> {
        let path = format!("/collections/{{collection_name}}{path}");
        let operation = self.paths.get(&path)?.get(method.to_lowercase())?;
        let content = operation["requestBody"]["content"].get("application/json")?;
        Some(content["schema"].clone())
    }

    /// The path as the description writes it.
    pub fn template(&self, method: &str, path: &str) -> Option<String> {
        let path = path.split('?').next().unwrap_or_default();
        let segments: Vec<_> = path.split('/').collect();
        let fits = |template: &String| {
            let parts: Vec<_> = template.split('/').collect();
            parts.len() == segments.len()
                && parts
                    .iter()
                    .zip(&segments)
                    .all(|(part, segment)| part.starts_with('{') || part == segment)
        };
        self.requests()
            .into_iter()
            .filter(|(m, template)| m == method && fits(template))
            .map(|(_, template)| template)
            .min_by_key(|template| template.matches('{').count())
    }

    /// All parts of the bodies of these requests.
    pub fn all(&self, requests: &[(String, String)]) -> Parts {
        let mut walk = Listing {
            bodies: self,
            parts: Vec::new(),
            seen: BTreeSet::new(),
        };
        for (method, path) in requests {
            if let Some(schema) = self.body(method, path) {
                walk.schema(&schema, "");
            }
        }
        walk.parts
    }

    /// The parts that a request uses, each with the JSON that does.
    pub fn used(&mut self, method: &str, path: &str, body: &Value) -> Vec<(Part, Value)> {
        let Some(template) = self.template(method, path) else {
            return Vec::new();
        };
        let Some(schema) = self.body(method, &template) else {
            return Vec::new();
        };
        let mut used = Vec::new();
        self.walk(&schema, "", body, &mut used);
        used
    }

    fn walk(&mut self, schema: &Value, owner: &str, value: &Value, used: &mut Vec<(Part, Value)>) {
        if value.is_null() {
            return;
        }
        if let Some(name) = reference(schema) {
            let target = self.schemas.get(name).cloned().unwrap_or_default();
            return self.walk(&target, name, value, used);
        }
        let note = |name: &str, value: &Value, used: &mut Vec<(Part, Value)>| {
            let part = Part {
                schema: owner.to_owned(),
                name: name.to_owned(),
            };
            used.push((part, value.clone()));
        };
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.walk(part, owner, value, used);
        }
        let forms = forms(schema);
        if let [only] = forms.as_slice() {
            return self.walk(only, owner, value, used);
        }
        if !forms.is_empty() {
            // Any object at all only where nothing says more.
            let open = |form: &&Value| form["additionalProperties"] == true;
            let (open, closed): (Vec<_>, Vec<_>) = forms.iter().partition(open);
            let mut candidates = closed.into_iter().chain(open);
            let Some(form) = candidates.find(|form| self.fits(form, value)) else {
                return;
            };
            note(&self.form_name(form), value, used);
            return self.walk(form, owner, value, used);
        }
        if let (Some(_), Some(word)) = (schema["enum"].as_array(), value.as_str()) {
            note(word, value, used);
        }
        if let Some(object) = value.as_object() {
            for (key, value) in object {
                if let Some(field) = schema["properties"].get(key) {
                    if !self.is_wrapper(owner) {
                        note(key, value, used);
                    }
                    self.walk(field, &format!("{owner}.{key}"), value, used);
                } else if schema["additionalProperties"].is_object() {
                    self.walk(&schema["additionalProperties"], owner, value, used);
                }
            }
        }
        if schema["items"].is_object() {
            for value in value.as_array().into_iter().flatten() {
                self.walk(&schema["items"], owner, value, used);
            }
        }
    }

    fn fits(&mut self, schema: &Value, value: &Value) -> bool {
        let key = schema.to_string();
        if !self.validators.contains_key(&key) {
            let mut schema = schema.clone();
            openapi::make_strict(&mut schema);
            let document = json!({ "allOf": [schema], "components": self.strict });
            let validator = jsonschema::draft202012::options()
                .build(&document)
                .unwrap_or_else(|error| panic!("{key}: {error}"));
            self.validators.insert(key.clone(), validator);
        }
        self.validators[&key].is_valid(value)
    }

    /// A schema that only gives its one field a name: an alternative is called by the field.
    fn is_wrapper(&self, name: &str) -> bool {
        self.schemas.get(name).is_some_and(|schema| {
            let fields = schema["properties"].as_object();
            let required = schema["required"].as_array();
            fields.is_some_and(|fields| fields.len() == 1)
                && required.is_some_and(|required| required.len() == 1)
        })
    }

    fn form_name(&self, form: &Value) -> String {
        if let Some(name) = reference(form) {
            let target = self.schemas.get(name);
            return match target.and_then(|schema| schema["properties"].as_object()) {
                Some(fields) if self.is_wrapper(name) => {
                    fields.keys().next().cloned().unwrap_or_default()
                }
                _ => name.to_owned(),
            };
        }
        match form["type"].as_str() {
            Some("array") => format!("list of {}", plural(&self.form_name(&form["items"]))),
            Some("object") if form["additionalProperties"].is_object() => {
                format!("{} by name", self.form_name(&form["additionalProperties"]))
            }
            Some("object") => "any object".to_owned(),
            Some("string") => match form["format"].as_str() {
                Some(format) => format!("string ({format})"),
                None => "string".to_owned(),
            },
            Some(other) => other.to_owned(),
            None => "value".to_owned(),
        }
    }
}

fn plural(name: &str) -> String {
    if name.starts_with("list of ") {
        return name.replacen("list of", "lists of", 1);
    }
    match name {
        "number" | "string" | "integer" | "boolean" => format!("{name}s"),
        other => other.to_owned(),
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// The alternatives of a schema, without "or null".
fn forms(schema: &Value) -> Vec<Value> {
    let list = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    let is_null = |form: &&Value| {
        let Some(map) = form.as_object() else {
            return false;
        };
        map.get("nullable") == Some(&Value::Bool(true)) && map.len() == 1
    };
    let forms = list.into_iter().flatten();
    forms.filter(|form| !is_null(form)).cloned().collect()
}

/// Lists every part, each schema once.
struct Listing<'a> {
    bodies: &'a Bodies,
    parts: Parts,
    seen: BTreeSet<String>,
}

impl Listing<'_> {
    fn schema(&mut self, schema: &Value, owner: &str) {
        if let Some(name) = reference(schema) {
            if self.seen.insert(name.to_owned())
                && let Some(target) = self.bodies.schemas.get(name)
            {
                self.schema(target, name);
            }
            return;
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.schema(part, owner);
        }
        let forms = forms(schema);
        if forms.len() > 1 {
            for form in &forms {
                self.add(owner, &self.bodies.form_name(form), Sort::Form);
            }
        }
        for form in &forms {
            self.schema(form, owner);
        }
        for word in schema["enum"].as_array().into_iter().flatten() {
            self.add(owner, word.as_str().unwrap_or_default(), Sort::Word);
        }
        let fields = schema["properties"].as_object().into_iter().flatten();
        if !self.bodies.is_wrapper(owner) {
            for (name, _) in fields.clone() {
                self.add(owner, name, Sort::Field);
            }
        }
        for (name, field) in fields {
            self.schema(field, &format!("{owner}.{name}"));
        }
        for inner in ["additionalProperties", "items"] {
            if schema[inner].is_object() {
                self.schema(&schema[inner], owner);
            }
        }
    }

    fn add(&mut self, schema: &str, name: &str, sort: Sort) {
        let part = Part {
            schema: schema.to_owned(),
            name: name.to_owned(),
        };
        if !self.parts.iter().any(|(known, _)| *known == part) {
            self.parts.push((part, sort));
        }
    }
}
