//! One fact about a request, and how a platform represents it.

use smallvec::SmallVec;

/// A JSON value in the platform's representation.
pub trait FactTree: Sized {
    /// The value of a field of the object; `None` when it does not exist or this is not an object.
    fn field(&self, name: &str) -> Option<Self>;
    /// The value, in a form that conditions can compare.
    fn fact(&self) -> Fact;
}

/// The value of one fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    values: SmallVec<[Box<[u8]>; 1]>,
    is_there: bool,
}

impl Fact {
    /// A text.
    pub fn text(text: &[u8]) -> Fact {
        Fact { values: SmallVec::from_iter([text.into()]), is_there: true }
    }

    /// A number, as JSON writes it.
    pub fn number(number: f64) -> Fact {
        Fact::text(number_text(number).as_bytes())
    }

    /// `true` or `false`.
    pub fn boolean(value: bool) -> Fact {
        Fact::text(if value { b"true" } else { b"false" })
    }

    /// An object: it is present, but equals no value.
    pub fn object() -> Fact {
        Fact { values: SmallVec::new(), is_there: true }
    }

    /// A list: any of its elements may match. An empty list counts as absent.
    pub fn list(elements: impl Iterator<Item = Fact>) -> Fact {
        let mut list = Fact::default();
        for element in elements {
            list.is_there |= element.is_there;
            list.values.extend(element.values);
        }
        list
    }

    /// Whether the request has it.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// The texts that a condition compares with.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.values.iter().map(|value| &**value)
    }
}

/// A number as JSON writes it: whole numbers without a fraction, very large and very small ones with an exponent.
fn number_text(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if (1e-6..1e21).contains(&size) {
        number.to_string()
    } else {
        format!("{number:e}")
    }
}

#[cfg(any(test, feature = "json-facts"))]
impl FactTree for &serde_json::Value {
    fn field(&self, name: &str) -> Option<Self> {
        self.get(name)
    }

    /// Numbers pass through a double, as they do in the proxy.
    fn fact(&self) -> Fact {
        use serde_json::Value;
        match self {
            Value::Null => Fact::default(),
            Value::Bool(value) => Fact::boolean(*value),
            Value::Number(number) => Fact::number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Fact::text(text.as_bytes()),
            Value::Array(elements) => Fact::list(elements.iter().map(|element| (&element).fact())),
            Value::Object(_) => Fact::object(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn numbers_are_written_as_json_writes_them() {
        for (number, text) in [
            (42.0, "42"),
            (-7.0, "-7"),
            (0.0, "0"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1_767_225_600.0, "1767225600"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e20, "100000000000000000000"),
            (1e21, "1e21"),
            (1e-7, "1e-7"),
        ] {
            assert_eq!(number_text(number), text);
        }
    }
}
