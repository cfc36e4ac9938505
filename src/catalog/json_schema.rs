//! The catalog as one JSON Schema (draft 7) of an event in structured JSON mode.

use serde_json::{Value as Json, json};

use super::{Catalog, schemas};

/// A schema that accepts every event that this gateway can send, and no event of another type.
#[must_use]
pub fn json_schema(catalog: &Catalog) -> Json {
    let reference = |name: &str| json!({ "$ref": format!("#/definitions/{name}") });
    let mut definitions = schemas(catalog);
    let mut each = Vec::new();
    for event in &catalog.events {
        let mut schema = event.envelope(&reference);
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("examples".to_owned(), json!([event.rendered()]));
        }
        definitions.insert(event.name.to_string(), schema);
        each.push(reference(&event.name));
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": format!("urn:tidegate:catalog:{}", catalog.gateway),
        "title": format!("Events of {}", catalog.gateway),
        "description": "CloudEvents 1.0, structured JSON. Receivers must ignore members that they do not know.",
        "anyOf": each,
        "definitions": definitions,
    })
}
