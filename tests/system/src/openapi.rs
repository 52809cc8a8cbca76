//! Checks answers against Qdrant 1.19's OpenAPI description.
//!
//! The description is looser than the server: no field of the envelope is required, and
//! `anyOf: [X, {nullable: true}]` means nothing in plain JSON Schema. [`Description`] therefore
//! reads it strictly: `nullable` is a null type, objects with listed properties have no others,
//! and the envelope has to be complete.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The API description, and the validators built from it so far.
#[derive(Debug)]
pub struct Description {
    paths: Map<String, Value>,
    components: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Description {
    /// The description that the server of the fixture came with.
    pub fn load() -> Self {
        let path = edge_sync_fixtures::folder().join("qdrant-openapi-1.19.json.gz");
        let file = File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        let mut document: Value = serde_json::from_reader(GzDecoder::new(file))
            .unwrap_or_else(|e| panic!("parse {}: {e}", path.display()));
        let mut components = document["components"].take();
        make_strict(&mut components);
        let Value::Object(paths) = document["paths"].take() else {
            panic!("{} has no paths", path.display());
        };
        Self {
            paths,
            components,
            validators: Mutex::default(),
        }
    }

    /// Every operation: method (upper case), path template, operation id.
    pub fn operations(&self) -> Vec<(String, String, String)> {
        let operations = self.paths.iter().flat_map(|(path, methods)| {
            methods
                .as_object()
                .into_iter()
                .flatten()
                .map(move |(method, operation)| {
                    let id = operation["operationId"].as_str().unwrap_or_default();
                    (method.to_uppercase(), path.clone(), id.to_owned())
                })
        });
        operations.collect()
    }

    /// The id of the operation that a path belongs to.
    pub fn operation(&self, method: &str, path: &str) -> Option<String> {
        let template = self.template(method, path)?;
        let mut operations = self.operations().into_iter();
        let (_, _, id) = operations.find(|(m, t, _)| m == method && t == template)?;
        Some(id)
    }

    /// The template that a request path (without query string) falls under.
    pub fn template(&self, method: &str, path: &str) -> Option<&str> {
        let segments: Vec<_> = path.split('/').collect();
        let method = method.to_lowercase();
        let fits = |template: &&String| {
            let parts: Vec<_> = template.split('/').collect();
            parts.len() == segments.len()
                && parts.iter().zip(&segments).all(|(part, segment)| {
                    part == segment || (part.starts_with('{') && !segment.is_empty())
                })
        };
        let with_method = self
            .paths
            .iter()
            .filter(|(_, methods)| methods.get(&method).is_some());
        with_method
            .map(|(template, _)| template)
            .filter(fits)
            .min_by_key(|template| template.matches('{').count())
            .map(String::as_str)
    }

    /// Checks the body of an answer.
    ///
    /// # Errors
    /// Every way in which it departs from the description.
    pub fn check(&self, method: &str, path: &str, status: u16, body: &Value) -> Result<(), String> {
        let path = path.split('?').next().unwrap_or_default();
        let place = format!("{method} {path} -> {status}");
        let template = self
            .template(method, path)
            .ok_or_else(|| format!("{place}: the description has no such operation"))?;
        let key = format!("{method} {template} {status}");
        let validator = self.validator(&key, method, template, status)?;
        let mut problems: Vec<String> = validator
            .iter_errors(body)
            .map(|error| format!("at `{}`: {error}", error.instance_path()))
            .collect();
        problems.extend(envelope_problem(template, status, body));
        if problems.is_empty() {
            return Ok(());
        }
        Err(format!("{place}: {}\n{body}", problems.join("; ")))
    }

    fn validator(
        &self,
        key: &str,
        method: &str,
        template: &str,
        status: u16,
    ) -> Result<Arc<Validator>, String> {
        let mut validators = self.validators.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(validator) = validators.get(key) {
            return Ok(Arc::clone(validator));
        }
        let responses = &self.paths[template][method.to_lowercase()]["responses"];
        let response = [
            status.to_string(),
            format!("{}XX", status / 100),
            "default".to_owned(),
        ]
        .iter()
        .find_map(|name| responses.get(name))
        .ok_or_else(|| format!("{key}: the description has no such response"))?;
        let mut schema = response["content"]
            .as_object()
            .and_then(|content| content.values().next())
            .map(|content| content["schema"].clone())
            .unwrap_or_else(|| json!({}));
        make_strict(&mut schema);
        // `result` is whatever the schema says, and errors leave it out.
        let document = json!({"allOf": [schema], "components": self.components});
        let validator = jsonschema::draft202012::options()
            .build(&document)
            .map_err(|error| format!("{key}: the description is not a schema: {error}"))?;
        let validator = Arc::new(validator);
        validators.insert(key.to_owned(), Arc::clone(&validator));
        Ok(validator)
    }
}

/// What the description forgets to require.
fn envelope_problem(template: &str, status: u16, body: &Value) -> Option<String> {
    if ["/", "/healthz", "/livez", "/readyz", "/metrics"].contains(&template) {
        return None;
    }
    if !body["time"].is_number() {
        return Some("`time` is missing".to_owned());
    }
    match status {
        200 if body["status"] != "ok" => Some("`status` is not `ok`".to_owned()),
        200 if body.get("result").is_none() => Some("`result` is missing".to_owned()),
        202 if body["status"] != "accepted" => Some("`status` is not `accepted`".to_owned()),
        400.. if !body["status"]["error"].is_string() => {
            Some("`status.error` is missing".to_owned())
        }
        _ => None,
    }
}

/// Turns OpenAPI 3.0 schemas into JSON Schema, and closes objects.
pub fn make_strict(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(make_strict),
        Value::Object(schema) => {
            for (name, part) in schema.iter_mut() {
                // Examples and defaults are data.
                if name != "example" && name != "default" && name != "enum" {
                    make_strict(part);
                }
            }
            schema.remove("format");
            let is_schema_of_object = schema.get("properties").is_some_and(Value::is_object)
                && !schema.contains_key("$ref");
            if is_schema_of_object && !schema.contains_key("additionalProperties") {
                schema.insert("additionalProperties".to_owned(), json!(false));
            }
            if schema.get("nullable").is_some_and(Value::is_boolean) {
                let nullable = schema.remove("nullable") == Some(json!(true));
                if nullable {
                    allow_null(schema);
                }
            }
        }
        _ => {}
    }
}

fn allow_null(schema: &mut Map<String, Value>) {
    let about_type = ["type", "anyOf", "oneOf", "$ref", "enum"];
    if about_type.iter().all(|name| !schema.contains_key(*name)) {
        schema.insert("type".to_owned(), json!("null"));
        return;
    }
    let described = Value::Object(std::mem::take(schema));
    schema.insert("anyOf".to_owned(), json!([described, {"type": "null"}]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_sync_fixtures::all_kinds;

    fn answered(result: &Value) -> Value {
        json!({"result": result, "status": "ok", "time": 0.001})
    }

    #[test]
    fn the_real_server_conforms() {
        let description = Description::load();
        let failures: Vec<_> = all_kinds::queries()
            .iter()
            .filter_map(|query| {
                let path = format!("/collections/c{}", query.path);
                description
                    .check(&query.method, &path, 200, &answered(&query.result))
                    .err()
            })
            .collect();
        assert!(failures.is_empty(), "{failures:#?}");
        let info = answered(&all_kinds::collection()["collection"]);
        assert_eq!(
            description.check("GET", "/collections/c", 200, &info),
            Ok(())
        );
    }

    #[test]
    fn departures_are_found() {
        let description = Description::load();
        let check = |status, body: Value| {
            description.check("POST", "/collections/c/points/query", status, &body)
        };
        let point = |fields: Value| answered(&json!({"points": [fields]}));
        assert_eq!(
            check(200, point(json!({"id": 1, "version": 0, "score": 0.5}))),
            Ok(())
        );
        for (what, body) in [
            ("no score", point(json!({"id": 1, "version": 0}))),
            (
                "score is text",
                point(json!({"id": 1, "version": 0, "score": "0.5"})),
            ),
            (
                "negative id",
                point(json!({"id": -1, "version": 0, "score": 0.5})),
            ),
            (
                "unknown field",
                point(json!({"id": 1, "version": 0, "score": 0.5, "scroe": 1})),
            ),
            ("no time", json!({"result": {"points": []}, "status": "ok"})),
            ("no result", json!({"status": "ok", "time": 0.1})),
            (
                "wrong status",
                json!({"result": {"points": []}, "status": "fine", "time": 0.1}),
            ),
        ] {
            assert!(check(200, body).is_err(), "{what} went through");
        }
        assert_eq!(
            check(404, json!({"status": {"error": "gone"}, "time": 0.0})),
            Ok(())
        );
        assert!(check(404, json!({"status": "error", "time": 0.0})).is_err());
        assert!(
            description
                .check("GET", "/nowhere", 200, &json!({}))
                .is_err()
        );
    }
}
