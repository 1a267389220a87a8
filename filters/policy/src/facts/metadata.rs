//! Envoy's dynamic metadata in its serialised form: `envoy.config.core.v3.Metadata`, whose `filter_metadata` holds a
//! `google.protobuf.Struct` for each namespace. Only the values that a policy asks for are copied.
//!
//! Envoy could also return a single value, but in that form, a number cannot be distinguished from a text of eight
//! bytes: only the whole message distinguishes them.

use super::fact::{Fact, FactTree};
use super::place::FactPlace;
use crate::protobuf::{FieldValue, MessageFields};

/// Values nested deeper than this are not read.
const DEEPEST: u32 = 32;

/// A serialised `envoy.config.core.v3.Metadata`.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'b>(pub &'b [u8]);

impl Metadata<'_> {
    /// The facts at these places; a value that is missing or malformed is no fact.
    pub fn facts(&self, places: &[FactPlace]) -> Vec<Fact> {
        let find = |place: &FactPlace| {
            entry(self.0, 1, &place.namespace)
                .map(|fields| place.find(MetadataValue::Struct(fields)))
                .unwrap_or_default()
        };
        places.iter().map(find).collect()
    }
}

/// A `google.protobuf.Value`.
#[derive(Clone, Copy, Debug)]
enum MetadataValue<'b> {
    Null,
    Number(f64),
    Text(&'b [u8]),
    Boolean(bool),
    /// The serialised `Struct`.
    Struct(&'b [u8]),
    /// The serialised `ListValue`.
    List(&'b [u8]),
}

/// The value of `key` in the map in field `number` of a message; of several the last counts.
fn entry<'b>(message: &'b [u8], number: u64, key: &str) -> Option<&'b [u8]> {
    let mut found = None;
    let mut fields = MessageFields(message);
    while let Some(field) = fields.next()? {
        let (at, FieldValue::Bytes(entry)) = field else { continue };
        if at != number {
            continue;
        }
        let (mut name, mut value) = (&b""[..], &b""[..]);
        let mut parts = MessageFields(entry);
        while let Some(part) = parts.next()? {
            match part {
                (1, FieldValue::Bytes(bytes)) => name = bytes,
                (2, FieldValue::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        if name == key.as_bytes() {
            found = Some(value);
        }
    }
    found
}

impl<'b> MetadataValue<'b> {
    fn read(message: &'b [u8]) -> Option<MetadataValue<'b>> {
        let mut value = MetadataValue::Null;
        let mut fields = MessageFields(message);
        while let Some(field) = fields.next()? {
            value = match field {
                (1, FieldValue::Number(_)) => MetadataValue::Null,
                (2, FieldValue::Fixed(bits)) => MetadataValue::Number(f64::from_bits(bits)),
                (3, FieldValue::Bytes(text)) => MetadataValue::Text(text),
                (4, FieldValue::Number(number)) => MetadataValue::Boolean(number != 0),
                (5, FieldValue::Bytes(fields)) => MetadataValue::Struct(fields),
                (6, FieldValue::Bytes(elements)) => MetadataValue::List(elements),
                _ => value,
            };
        }
        Some(value)
    }

    fn fact_at(&self, depth: u32) -> Fact {
        match self {
            MetadataValue::Null => Fact::default(),
            MetadataValue::Number(number) => Fact::number(*number),
            MetadataValue::Text(text) => Fact::text(text),
            MetadataValue::Boolean(value) => Fact::boolean(*value),
            MetadataValue::Struct(_) => Fact::object(),
            MetadataValue::List(_) if depth >= DEEPEST => Fact::default(),
            MetadataValue::List(message) => {
                let mut fields = MessageFields(message);
                let elements = std::iter::from_fn(|| {
                    loop {
                        match fields.next()?? {
                            (1, FieldValue::Bytes(element)) => return MetadataValue::read(element),
                            _ => continue,
                        }
                    }
                });
                Fact::list(elements.map(|element| element.fact_at(depth + 1)))
            }
        }
    }
}

impl FactTree for MetadataValue<'_> {
    fn field(&self, name: &str) -> Option<Self> {
        match self {
            MetadataValue::Struct(fields) => MetadataValue::read(entry(fields, 1, name)?),
            _ => None,
        }
    }

    fn fact(&self) -> Fact {
        self.fact_at(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::{put_bytes, put_number};
    use serde_json::{Value as Json, json};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn map(message: &mut Vec<u8>, entries: &serde_json::Map<String, Json>, write: fn(&Json) -> Vec<u8>) {
        for (key, value) in entries {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            put_bytes(&mut entry, 2, &write(value));
            put_bytes(message, 1, &entry);
        }
    }

    fn structure(json: &Json) -> Vec<u8> {
        let mut message = Vec::new();
        map(&mut message, json.as_object().unwrap(), value);
        message
    }

    /// Encoded as protobuf does.
    fn value(json: &Json) -> Vec<u8> {
        let mut message = Vec::new();
        match json {
            Json::Null => put_number(&mut message, 1, 0),
            Json::Number(number) => {
                message.push(2 << 3 | 1);
                message.extend_from_slice(&number.as_f64().unwrap().to_le_bytes());
            }
            Json::String(text) => put_bytes(&mut message, 3, text.as_bytes()),
            Json::Bool(value) => put_number(&mut message, 4, (*value).into()),
            Json::Object(_) => put_bytes(&mut message, 5, &structure(json)),
            Json::Array(elements) => {
                let mut list = Vec::new();
                elements.iter().for_each(|element| put_bytes(&mut list, 1, &value(element)));
                put_bytes(&mut message, 6, &list);
            }
        }
        message
    }

    fn metadata(json: &Json) -> Vec<u8> {
        let mut message = Vec::new();
        map(&mut message, json.as_object().unwrap(), structure);
        message
    }

    fn place(namespace: &str, path: &[&str]) -> FactPlace {
        let path = path.iter().map(|part| Box::from(*part)).collect();
        FactPlace { namespace: namespace.into(), path, claim: None }
    }

    #[test]
    fn a_text_of_eight_bytes_is_no_number_and_a_number_no_text() {
        let eight = String::from_utf8(42.0_f64.to_le_bytes().map(|b| b & 0x7f).to_vec()).unwrap();
        let json = json!({"ns": {"text": eight, "number": 42, "yes": true, "list": [1, "a", false, null, {"x": 1}], "o": {"p": "q"}},
            "other": {"text": "o"}});
        let bytes = metadata(&json);
        let find = |namespace: &str, path: &[&str]| Metadata(&bytes).facts(&[place(namespace, path)]).remove(0);
        assert_eq!(find("ns", &["text"]), Fact::text(eight.as_bytes()));
        assert_eq!(find("ns", &["number"]), Fact::text(b"42"));
        assert_eq!(find("ns", &["yes"]), Fact::text(b"true"));
        assert_eq!(find("ns", &["list"]).values().collect::<Vec<_>>(), [&b"1"[..], b"a", b"false"]);
        assert_eq!(find("ns", &["o", "p"]), Fact::text(b"q"));
        assert_eq!(find("ns", &["o"]), Fact::object());
        assert_eq!(find("other", &["text"]), Fact::text(b"o"));
        for (namespace, path) in
            [("ns", &["none"][..]), ("none", &["text"]), ("ns", &["text", "x"]), ("ns", &["list", "x"])]
        {
            assert!(!find(namespace, path).is_there(), "{namespace} {path:?}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_counts_as_everywhere_in_protobuf() {
        let mut bytes = metadata(&json!({"ns": {"a": 1}}));
        bytes.extend(metadata(&json!({"ns": {"a": 2}})));
        assert_eq!(Metadata(&bytes).facts(&[place("ns", &["a"])]), [Fact::text(b"2")]);
    }

    #[test]
    fn lists_within_lists_have_an_end() {
        let json = (0..100).fold(json!("deep"), |inner, _| json!([inner]));
        let bytes = metadata(&json!({"ns": {"a": json}}));
        assert!(!Metadata(&bytes).facts(&[place("ns", &["a"])]).remove(0).is_there());
    }

    #[cfg(not(target_arch = "wasm32"))]
    mod properties {
        use proptest::prelude::*;
        use serde_json::{Value as Json, json};

        use super::super::*;
        use super::{metadata, place};

        fn any_json() -> impl Strategy<Value = Json> {
            let leaf = prop_oneof![
                Just(Json::Null),
                any::<bool>().prop_map(Json::from),
                any::<i32>().prop_map(Json::from),
                "[a-c.]{0,3}".prop_map(Json::from),
            ];
            leaf.prop_recursive(3, 16, 4, |inner| {
                prop_oneof![
                    prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                    prop::collection::hash_map("[a-c]", inner, 0..4).prop_map(|map| map.into_iter().collect()),
                ]
            })
        }

        proptest! {
            #[test]
            fn what_envoy_serialises_is_read_like_the_json_that_it_is(json in any_json(), path in prop::collection::vec("[a-c]", 0..3)) {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let json = json!({"ns": {"a": json}});
                let place = place("ns", &[&["a"], &*path].concat());
                let expected = place.find(&json["ns"]);
                prop_assert_eq!(Metadata(&metadata(&json)).facts(&[place]), [expected]);
            }

            #[test]
            fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
                let places = [place("", &["a"]), FactPlace { claim: Some("a.b".into()), ..place("", &[]) }];
                prop_assert_eq!(Metadata(&bytes).facts(&places).len(), 2);
            }
        }
    }
}
