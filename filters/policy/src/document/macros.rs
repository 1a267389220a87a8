//! How the document's objects, words and choices are declared: each in one place, with its name in the document, its
//! default, and (behind the feature `schema`) its documentation.

/// Declares an object of the document: its fields, their JSON names and defaults, in one place; with the feature
/// `schema` also what they mean, from the doc comments.
///
/// `field as "json": Type` is required unless `Type` is an `Option`; `= expression` gives a default. With
/// `check = path` the function `fn(&Self, &At, &mut Context) -> bool` looks at the fields together; with
/// `one of ["a", "b"]` exactly one of those fields is given; with `; schema = path` a function adds keywords to the schema.
macro_rules! object {
    (
        $(#[$($meta:tt)+])*
        $vis:vis struct $name:ident $(one of [$($one:literal),+])? $(check = $check:path)? $(; schema = $more:path)? {
            $( $(#[$($field_meta:tt)+])* $field:ident as $json:literal : $type:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[$($meta)+])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $( $(#[$($field_meta)+])* pub $field: $type, )*
        }

        impl $crate::document::Decode for $name {
            const KIND: $crate::document::Kind = $crate::document::Kind::Object(&[$($json),*]);

            fn decode(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                cx: &mut $crate::document::Context,
            ) -> Option<Self> {
                let fields = $crate::document::Fields::open::<Self>(node, at, cx)?;
                $( let has_one = fields.has_one_of(&[$($one),+], at, cx); )?
                $( let $field = object!(@get fields, $json, $type, at, cx $(, $default)?); )*
                // All fields in one expression: with a `?` for each, the compiler would generate a separate drop path for each.
                let ($(Some($field),)*) = ($($field,)*) else { return None };
                $( if !has_one { let _: &[&str] = &[$($one),+]; return None; } )?
                let object = $name { $($field,)* };
                $( if !$check(&object, at, cx) { return None; } )?
                Some(object)
            }
        }

        #[cfg(feature = "schema")]
        impl $crate::schema::Describe for $name {
            fn describe(schema: &mut $crate::schema::Definitions) -> serde_json::Value {
                let key = $crate::schema::key(module_path!(), stringify!($name));
                let more = $crate::schema::one_of(&[$($($one),+)?]);
                $( let more = $more(more); )?
                schema.object_with::<Self>(&key, &[$($crate::document::doc_text!($($meta)+)),*].concat(), |schema| vec![
                    $( schema
                        .field::<$type>($json, &[$($crate::document::doc_text!($($field_meta)+)),*].concat())
                        $(.or::<$type>(&$default))? ),*
                ], more)
            }

            fn written(&self) -> Option<serde_json::Value> {
                let fields = [$(($json, $crate::schema::Describe::written(&self.$field))),*];
                Some(fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
            }
        }
    };
    (@get $fields:ident, $json:literal, $type:ty, $at:ident, $cx:ident) => {
        $fields.get::<$type>($json, $at, $cx)
    };
    (@get $fields:ident, $json:literal, $type:ty, $at:ident, $cx:ident, $default:expr) => {
        $fields.get_or::<$type>($json, $default, $at, $cx)
    };
}
pub(crate) use object;

/// Declares that a type is made of an object of the document: `make(document, at, cx)` takes what was read, and may
/// still refuse it with a problem of its own.
macro_rules! made_of {
    ($name:ident, $document:ident, |$read:pat_param, $at:pat_param, $cx:pat_param| $make:expr) => {
        impl $crate::document::Decode for $name {
            const KIND: $crate::document::Kind = <$document as $crate::document::Decode>::KIND;

            fn decode(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                cx: &mut $crate::document::Context,
            ) -> Option<Self> {
                let $read = <$document as $crate::document::Decode>::decode(node, at, cx)?;
                let ($at, $cx) = (at, cx);
                $make
            }
        }

        #[cfg(feature = "schema")]
        impl $crate::schema::Describe for $name {
            fn describe(schema: &mut $crate::schema::Definitions) -> serde_json::Value {
                <$document as $crate::schema::Describe>::describe(schema)
            }
        }
    };
}
pub(crate) use made_of;

/// The text of an attribute that is a doc comment, nothing for another.
#[cfg(feature = "schema")]
macro_rules! doc_text {
    (doc = $text:expr) => {
        $text
    };
    ($($other:tt)*) => {
        ""
    };
}
#[cfg(feature = "schema")]
pub(crate) use doc_text;

/// Declares a field with a fixed set of words.
macro_rules! words {
    (
        $(#[$($meta:tt)+])*
        $vis:vis enum $name:ident { $( $(#[$($variant_meta:tt)+])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[$($meta)+])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $( $(#[$($variant_meta)+])* $variant, )* }

        impl $crate::document::Decode for $name {
            const KIND: $crate::document::Kind = $crate::document::Kind::Words(&[$($word),*]);

            fn decode(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                cx: &mut $crate::document::Context,
            ) -> Option<Self> {
                let $crate::document::Node::String(word) = node else {
                    return $crate::document::wrong_kind::<Self>(node, at, cx);
                };
                match word.as_str() {
                    $( $word => Some($name::$variant), )*
                    _ => $crate::document::unknown_word::<Self>(word, at, cx),
                }
            }
        }

        #[cfg(feature = "schema")]
        impl $crate::schema::Describe for $name {
            fn describe(schema: &mut $crate::schema::Definitions) -> serde_json::Value {
                let key = $crate::schema::key(module_path!(), stringify!($name));
                let words = [$(($word, [$($crate::document::doc_text!($($variant_meta)+)),*].concat())),*];
                schema.words(&key, &[$($crate::document::doc_text!($($meta)+)),*].concat(), &words)
            }

            fn written(&self) -> Option<serde_json::Value> {
                Some(match self { $( $name::$variant => $word, )* }.into())
            }
        }
    };
}
pub(crate) use words;

/// Declares that a type is read from an object in which exactly one of the fields is given, and what each becomes:
/// `"field": Type => function`.
macro_rules! one_of {
    (
        $(#[doc = $doc:literal])*
        $name:ident {
            $( $(#[doc = $field_doc:literal])* $json:literal : $type:ty => $make:expr ),* $(,)?
        }
        $(written = $written:expr)?
    ) => {
        impl $crate::document::Decode for $name {
            const KIND: $crate::document::Kind = $crate::document::Kind::OneOf(&[$($json),*]);

            fn decode(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                cx: &mut $crate::document::Context,
            ) -> Option<Self> {
                let (field, value) = $crate::document::Fields::one::<Self>(node, at, cx)?;
                let at = at.field(field);
                match field {
                    $( $json => <$type as $crate::document::Decode>::decode(value, &at, cx).map($make), )*
                    _ => None,
                }
            }
        }

        #[cfg(feature = "schema")]
        impl $crate::schema::Describe for $name {
            fn describe(schema: &mut $crate::schema::Definitions) -> serde_json::Value {
                let key = $crate::schema::key(module_path!(), stringify!($name));
                schema.one_of::<Self>(&key, concat!($($doc),*), |schema| vec![
                    $( schema.field::<$type>($json, concat!($($field_doc),*)) ),*
                ])
            }

            $(fn written(&self) -> Option<serde_json::Value> {
                let written: fn(&Self) -> Option<serde_json::Value> = $written;
                written(self)
            })?
        }
    };
}
pub(crate) use one_of;

#[cfg(test)]
mod tests {
    use super::super::{At, Context, Decode, Node, Whole};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    object! {
        /// An object with one field of each kind.
        struct Sample {
            /// Required.
            name as "name": String,
            /// Optional.
            note as "someNote": Option<String>,
            /// With a default.
            count as "count": Whole<1, 9> = Whole(3),
        }
    }

    fn read(json: &str) -> (Option<Sample>, Vec<String>) {
        let mut cx = Context::new(String::new(), 0);
        let sample = Sample::decode(&Node::from_json(json.as_bytes()).unwrap(), &At::Root, &mut cx);
        (sample, cx.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let (sample, problems) = read(r#"{"name":"a"}"#);
        let sample = sample.unwrap();
        assert_eq!((sample.name.as_str(), sample.note, sample.count.0), ("a", None, 3));
        assert!(problems.is_empty());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let (sample, problems) = read(r#"{"somenote":"x","count":12,"count":"2","extra":1}"#);
        assert!(sample.is_none());
        assert_eq!(
            problems,
            [
                "somenote: unknown field `somenote`; expected one of: name, someNote, count; did you mean `someNote`?",
                "count: \"2\": is given twice; keep one",
                "extra: unknown field `extra`; expected one of: name, someNote, count",
                "name: is required: expected a string",
                "count: 12: is out of range; write a whole number from 1 to 9",
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_says_how_to_write_it() {
        let (_, problems) = read(r#"{"name":5,"someNote":null,"count":"2"}"#);
        assert_eq!(
            problems,
            [
                "name: 5: is a number, expected a string; put it in quotes: \"5\"",
                "someNote: is null, expected a string; give it a value or leave the field out",
                "count: \"2\": is a string, expected a whole number; write it without quotes: 2",
            ]
        );
    }
}
