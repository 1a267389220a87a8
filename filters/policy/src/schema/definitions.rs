//! Collects the schema of a document from the declarations of its types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::document::{Decode, Empty, Kind, Named, NonEmpty, Whole};

/// A type of the document that can describe what it reads.
pub trait Describe: Decode {
    /// Whether a field of the type must be given.
    const REQUIRED: bool = true;

    /// The schema of its values: a reference into `schema`, or the schema itself.
    fn describe(schema: &mut Definitions) -> Value;

    /// The value as a document would write it, for showing defaults; `None` where there is nothing to show.
    fn written(&self) -> Option<Value> {
        None
    }
}

/// One field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in the document.
    pub name: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Its schema, with `description` and `default`.
    pub schema: Value,
}

/// One object of the document, for reference pages.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name among the definitions.
    pub key: String,
    /// What it is.
    pub description: String,
    /// In the order in which they are declared.
    pub fields: Vec<Field>,
}

impl Field {
    /// The field may be left out, and then has this value.
    pub fn or<T: Describe>(mut self, default: &T) -> Field {
        self.required = false;
        if let (Some(value), Value::Object(schema)) = (default.written(), &mut self.schema) {
            schema.insert("default".to_owned(), value);
        }
        self
    }

    /// The field may be left out.
    pub fn optional(mut self) -> Field {
        self.required = false;
        self
    }
}

/// The definitions so far, by name.
#[derive(Debug, Default)]
pub struct Definitions {
    definitions: BTreeMap<String, Value>,
    /// The fields that the decoder of each object knows, for comparison with the schema.
    known: BTreeMap<String, Vec<String>>,
    /// The objects, outer ones before those inside them.
    objects: Vec<Object>,
}

/// The name of the type `name`, declared in `module`: the section and the type without `Document`.
pub fn key(module: &str, name: &str) -> String {
    let module = module.split("::").nth(1).unwrap_or(module);
    match name.strip_suffix("Document").unwrap_or(name) {
        "" => module.to_owned(),
        name => format!("{module}.{name}"),
    }
}

/// The keywords that require exactly one of the fields; empty when there are none.
pub fn one_of(fields: &[&str]) -> Value {
    match fields {
        [] => json!({}),
        fields => json!({"oneOf": fields.iter().map(|field| json!({"required": [field]})).collect::<Vec<_>>()}),
    }
}

/// A doc comment as prose: one paragraph, without the marks of code.
fn prose(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ").replace("[`", "`").replace("`]", "`")
}

impl Definitions {
    /// Defines `key` once and returns the reference to it.
    pub fn define(&mut self, key: &str, schema: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.definitions.contains_key(key) {
            // Inserted first, so that a type that contains itself ends here.
            self.definitions.insert(key.to_owned(), Value::Bool(true));
            let schema = schema(self);
            self.definitions.insert(key.to_owned(), schema);
        }
        json!({"$ref": format!("#/$defs/{key}")})
    }

    /// Removes a definition and returns it.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.definitions.remove(key)
    }

    /// The definitions by name.
    pub(super) fn all(&self) -> Map<String, Value> {
        self.definitions.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Every object, outer ones before what is in them.
    pub(super) fn into_objects(self) -> Vec<Object> {
        self.objects
    }

    /// The fields that the reader of each object knows, by its name.
    #[cfg(test)]
    pub(super) fn known(&self) -> &BTreeMap<String, Vec<String>> {
        &self.known
    }

    /// Defines an object that is read as a `T`.
    pub fn object<T: Decode>(&mut self, key: &str, doc: &str, fields: impl FnOnce(&mut Self) -> Vec<Field>) -> Value {
        self.object_with::<T>(key, doc, fields, json!({}))
    }

    /// The same with further keywords.
    pub fn object_with<T: Decode>(
        &mut self,
        key: &str,
        doc: &str,
        fields: impl FnOnce(&mut Self) -> Vec<Field>,
        more: Value,
    ) -> Value {
        self.define(key, |schema| {
            schema.known.insert(key.to_owned(), known_fields::<T>());
            let place = schema.objects.len();
            let object = Object { key: key.to_owned(), description: prose(doc), fields: Vec::new() };
            schema.objects.push(object);
            let fields = fields(schema);
            if let Some(object) = schema.objects.get_mut(place) {
                object.fields.clone_from(&fields);
            }
            let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
            let mut object = Map::new();
            object.insert("description".to_owned(), prose(doc).into());
            object.insert("type".to_owned(), "object".into());
            if !required.is_empty() {
                object.insert("required".to_owned(), json!(required));
            }
            let properties: Map<String, Value> =
                fields.into_iter().map(|field| (field.name.to_owned(), field.schema)).collect();
            object.insert("properties".to_owned(), properties.into());
            object.insert("additionalProperties".to_owned(), false.into());
            if let Value::Object(more) = more {
                object.extend(more);
            }
            object.into()
        })
    }

    /// Defines a set of words, each with what it means.
    pub fn words(&mut self, key: &str, doc: &str, words: &[(&str, String)]) -> Value {
        self.define(key, |_| {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let meanings: Vec<String> = words.iter().map(|(_, meaning)| prose(meaning)).collect();
            // `enumDescriptions` is read by editors and ignored by other readers.
            json!({"description": prose(doc), "type": "string", "enum": all, "enumDescriptions": meanings})
        })
    }

    /// A field that is read as a `T`.
    pub fn field<T: Describe>(&mut self, name: &'static str, doc: &str) -> Field {
        let mut schema = T::describe(self);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), prose(doc).into());
        }
        Field { name, required: T::REQUIRED, schema }
    }

    /// An object in which exactly one of the fields is given.
    pub fn one_of<T: Decode>(&mut self, key: &str, doc: &str, fields: impl FnOnce(&mut Self) -> Vec<Field>) -> Value {
        let optional = |schema: &mut Self| fields(schema).into_iter().map(Field::optional).collect();
        self.object_with::<T>(key, doc, optional, json!({"minProperties": 1, "maxProperties": 1}))
    }
}

/// The fields that the reader of `T` knows.
fn known_fields<T: Decode>() -> Vec<String> {
    match T::KIND {
        Kind::Object(fields) | Kind::OneOf(fields) => fields.iter().map(|field| (*field).to_owned()).collect(),
        _ => Vec::new(),
    }
}

impl Describe for Empty {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": "object", "additionalProperties": false})
    }
}

impl<T: Describe> Describe for Option<T> {
    const REQUIRED: bool = false;

    fn describe(schema: &mut Definitions) -> Value {
        T::describe(schema)
    }

    fn written(&self) -> Option<Value> {
        self.as_ref()?.written()
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn describe(schema: &mut Definitions) -> Value {
        json!({"type": "array", "items": T::describe(schema)})
    }

    fn written(&self) -> Option<Value> {
        self.iter().map(Describe::written).collect()
    }
}

impl<T: Describe> Describe for NonEmpty<T> {
    fn describe(schema: &mut Definitions) -> Value {
        json!({"type": "array", "minItems": 1, "items": T::describe(schema)})
    }
}

impl<T: Describe> Describe for Named<T> {
    fn describe(schema: &mut Definitions) -> Value {
        json!({"type": "array", "items": T::describe(schema)})
    }

    fn written(&self) -> Option<Value> {
        self.0.iter().map(Describe::written).collect()
    }
}

impl Describe for String {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": "string"})
    }

    fn written(&self) -> Option<Value> {
        Some(self.as_str().into())
    }
}

impl Describe for bool {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": "boolean"})
    }

    fn written(&self) -> Option<Value> {
        Some((*self).into())
    }
}

impl<const MIN: u32, const MAX: u32> Describe for Whole<MIN, MAX> {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }

    fn written(&self) -> Option<Value> {
        Some(self.0.into())
    }
}
