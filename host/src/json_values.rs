//! Values of a host's own types as the JSON text that calls take.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::types::{Point, SearchRequest};

impl Point {
    /// Sets the payload: anything that becomes a JSON object (a struct, a map, `serde_json::json!`).
    ///
    /// Errors: [`Error::InvalidInput`] if it becomes something else.
    pub fn payload(self, value: &impl Serialize) -> Result<Point> {
        let json = to_json("payload", value)?;
        if !json.starts_with('{') {
            return Err(Error::invalid("payload", "must become a JSON object"));
        }
        Ok(self.with_payload(json))
    }
}

impl SearchRequest {
    /// [`SearchRequest::filter`] with anything that becomes a REST filter.
    ///
    /// Errors: as [`to_json`].
    pub fn filter_by(self, filter: &impl Serialize) -> Result<SearchRequest> {
        let json = to_json("filter", filter)?;
        Ok(self.filter(json))
    }
}

/// JSON text of a filter, a configuration or a body, for the calls that take these as text:
/// `shard.count(Some(&to_json("filter", &json!({"must": [...]}))?))`. `field` is what an error names.
///
/// Errors: [`Error::InvalidInput`] for what JSON does not have: a map whose keys are no text.
pub fn to_json(field: &str, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::invalid(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_and_filters_are_anything_that_becomes_json() {
        #[derive(Serialize)]
        struct Colour {
            name: &'static str,
        }
        let point = Point::dense(1, [0.6, 0.8]).payload(&Colour { name: "red" });
        assert_eq!(point.unwrap().payload.unwrap(), r#"{"name":"red"}"#);
        let refused = Point::dense("x", vec![1.0]).payload(&[1]).unwrap_err();
        assert!(refused.to_string().starts_with("payload: "), "{refused}");
        let filter = serde_json::json!({"must": []});
        let request = SearchRequest::nearest("", vec![1.0], 1).filter_by(&filter);
        assert_eq!(request.unwrap().filter.unwrap(), r#"{"must":[]}"#);
    }
}
