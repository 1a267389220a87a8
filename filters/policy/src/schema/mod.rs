//! The JSON Schema (draft 2020-12) of the document, made from the declarations that read it.
//!
//! `object!`, `words!` and `one_of!` describe what they declare, so a field cannot be read without being described. The
//! few types that are read by hand are described by hand, and a test compares their fields with those that the decoder
//! knows.

mod definitions;
mod objects;
mod scalars;

use serde_json::{Map, Value};

pub use definitions::{Definitions, Describe, Field, Object};
pub(crate) use definitions::{key, one_of};

/// The schema's identifier, under which editors store it.
pub const ID: &str = "https://penstock-proxy.github.io/penstock/penstock.schema.json";

/// The schema of the whole document.
pub fn document() -> Value {
    let mut definitions = Definitions::default();
    whole(&mut definitions)
}

/// Every object of the document, outer ones before what is in them.
pub fn objects() -> Vec<Object> {
    let mut definitions = Definitions::default();
    whole(&mut definitions);
    definitions.into_objects()
}

fn whole(definitions: &mut Definitions) -> Value {
    let root = objects::whole(definitions);
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("$id".to_owned(), ID.into());
    schema.insert("title".to_owned(), "Penstock policy".into());
    if let Some(key) = root.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
        && let Some(Value::Object(root)) = definitions.take(key)
    {
        schema.extend(root);
    }
    schema.insert("$defs".to_owned(), definitions.all().into());
    schema.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_object_describes_exactly_the_fields_that_its_reader_knows() {
        let mut definitions = Definitions::default();
        let schema = whole(&mut definitions);
        assert!(definitions.known().len() > 20, "{}", definitions.known().len());
        for (key, known) in definitions.known() {
            let object = if key == objects::WHOLE { &schema } else { &schema["$defs"][key] };
            let mut described: Vec<&String> = object["properties"].as_object().unwrap().keys().collect();
            let mut known: Vec<&String> = known.iter().collect();
            described.sort();
            known.sort();
            assert_eq!(described, known, "{key}");
        }
    }

    /// The lint `missing_docs` checks only public items: not the fields of private objects, nor those of `one_of!`.
    #[test]
    fn every_field_says_what_it_is_for() {
        let schema = document();
        let definitions = schema["$defs"].as_object().unwrap().iter();
        for (key, object) in definitions.chain([(&"the document".to_owned(), &schema)]) {
            for (name, field) in object["properties"].as_object().into_iter().flatten() {
                let said = field.get("description").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
                assert!(said, "{key}.{name}");
            }
        }
    }
}
