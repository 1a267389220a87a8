//! The meaning of a plain scalar, which depends on the reader of the document.

use penstock_policy::document::Node;

/// Who reads a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// YAML 1.2.2's core schema (§10.3.2): `on` and `no` are strings.
    Core,
    /// A Kubernetes object, which kubectl converts to JSON by the rules of YAML 1.1: `on` is `true`, `0443` is 291.
    Kubernetes,
    /// An Envoy configuration, which its YAML parser converts to JSON: `on` is `true`, `0443` is 291, and a number with
    /// a fraction or beyond 32 bits becomes a string.
    Envoy,
    /// JSON: there are no plain scalars.
    Json,
}

/// A plain scalar that readers interpret differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// YAML 1.1 interprets it as a boolean.
    Word(String),
    /// The name of a field is interpreted as a boolean.
    Key(String),
    /// A number that starts with zero, which is octal in YAML 1.1.
    Octal(String),
    /// A number that Envoy passes on as a string.
    Text(String),
}

/// The value of a plain scalar.
pub fn plain(text: &str, schema: Schema) -> (Node, Option<Surprise>) {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return (Node::Null, None),
        "true" | "True" | "TRUE" => return (Node::Bool(true), None),
        "false" | "False" | "FALSE" => return (Node::Bool(false), None),
        _ => {}
    }
    if let Some(value) = word(text) {
        let surprise = Some(Surprise::Word(text.to_owned()));
        return match schema {
            Schema::Kubernetes | Schema::Envoy => (Node::Bool(value), surprise),
            _ => (Node::String(text.to_owned()), surprise),
        };
    }
    if schema == Schema::Envoy {
        return envoy_number(text);
    }
    match number(text, schema) {
        Some(node) if has_leading_zero(text) => (node, Some(Surprise::Octal(text.to_owned()))),
        Some(node) => (node, None),
        None => (Node::String(text.to_owned()), None),
    }
}

/// The words that are booleans in YAML 1.1 and strings in YAML 1.2.
fn word(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// `0443`, `-07`, `08`: several digits, of which the first is zero.
fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

fn number(text: &str, schema: Schema) -> Option<Node> {
    let first = text.trim_start_matches(['+', '-']).bytes().next()?;
    if !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    match schema {
        Schema::Kubernetes => {
            let plain = text.replace('_', "");
            go_integer(&plain).map(Node::Integer).or_else(|| float(&plain))
        }
        _ => {
            let radix = |prefix: &str, radix| {
                let digits = text.strip_prefix(prefix)?;
                i64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['+', '-']))
            };
            let radix = radix("0x", 16).or_else(|| radix("0o", 8));
            radix.or_else(|| text.parse().ok()).map(Node::Integer).or_else(|| float(text))
        }
    }
}

/// The value according to Envoy, for plain scalars that are neither null nor a boolean: integers of 32 bits are
/// numbers, everything else is a string.
fn envoy_number(text: &str) -> (Node, Option<Surprise>) {
    let is_number = number(text, Schema::Core).is_some();
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", text.get(1..)),
        Some(b'+') => ("", text.get(1..)),
        _ => ("", Some(text)),
    };
    let digits = digits.unwrap_or_default();
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (digits.get(2..).unwrap_or_default(), 16),
        [b'0', _, ..] => (digits.get(1..).unwrap_or_default(), 8),
        _ => (digits, 10),
    };
    let whole = match digits.starts_with(['+', '-']) {
        true => None,
        false => i64::from_str_radix(&format!("{sign}{digits}"), radix).ok(),
    };
    match whole {
        Some(whole) if i32::try_from(whole).is_ok() => {
            let surprise = has_leading_zero(text).then(|| Surprise::Octal(text.to_owned()));
            (Node::Integer(whole), surprise)
        }
        Some(whole) => (Node::String(whole.to_string()), Some(Surprise::Text(text.to_owned()))),
        None => (Node::String(text.to_owned()), is_number.then(|| Surprise::Text(text.to_owned()))),
    }
}

/// Like Go's `strconv.ParseInt(text, 0, 64)`: the prefix determines the base, and a leading zero means octal.
fn go_integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", text.get(1..)?),
        b'+' => ("", text.get(1..)?),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (lower.get(2..)?, 16),
        [b'0', b'o', ..] => (lower.get(2..)?, 8),
        [b'0', b'b', ..] => (lower.get(2..)?, 2),
        [b'0', _, ..] => (lower.get(1..)?, 8),
        _ => (lower.as_str(), 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; without a fraction it is an integer, as in JSON that the
/// module parses.
fn float(text: &str) -> Option<Node> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let has_digit = text.bytes().any(|b| b.is_ascii_digit());
    if !has_digit || !text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    let whole = value.trunc() == value && value.abs() <= EXACT;
    Some(if whole { Node::Integer(value as i64) } else { Node::Float(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema_in_files_of_ours() {
        for (text, node) in [
            ("on", Node::String("on".into())),
            ("~", Node::Null),
            ("0x1f", Node::Integer(31)),
            ("0o17", Node::Integer(15)),
            ("1e3", Node::Integer(1000)),
            ("100.0", Node::Integer(100)),
            ("1.5", Node::Float(1.5)),
            (".inf", Node::String(".inf".into())),
            ("1_000", Node::String("1_000".into())),
            ("-5", Node::Integer(-5)),
            ("5s", Node::String("5s".into())),
            ("nan", Node::String("nan".into())),
            ("0x-1", Node::String("0x-1".into())),
        ] {
            assert_eq!(plain(text, Schema::Core).0, node, "{text}");
        }
    }

    /// The results of sigs.k8s.io/yaml 1.6.0, which kubectl uses.
    #[test]
    fn plain_scalars_are_what_kubectl_makes_of_them_in_objects_of_kubernetes() {
        for (text, json) in [
            ("y", "true"),
            ("Off", "false"),
            ("NO", "false"),
            ("True", "true"),
            ("0443", "291"),
            ("-0443", "-291"),
            ("0x1F", "31"),
            ("0X1f", "31"),
            ("0o17", "15"),
            ("0O7", "7"),
            ("0b11", "3"),
            ("1_000", "1000"),
            ("0_7", "7"),
            ("+5", "5"),
            ("-0x1", "-1"),
            ("08", "8"),
            ("1e3", "1000"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1_0.5", "10.5"),
            ("2026-01-01", "\"2026-01-01\""),
            ("12:30:45", "\"12:30:45\""),
            ("_1", "\"_1\""),
            ("0x", "\"0x\""),
            ("0x1p3", "\"0x1p3\""),
            ("0b2", "\"0b2\""),
            ("1e", "\"1e\""),
            ("Infinity", "\"Infinity\""),
            ("1,000", "\"1,000\""),
            ("00", "0"),
        ] {
            assert_eq!(plain(text, Schema::Kubernetes).0.to_string(), json, "{text}");
        }
    }

    /// The values that Envoy 1.40 shows in `node.metadata`; `integration/tests/corpus` verifies them with Envoy.
    #[test]
    fn plain_scalars_are_what_envoy_makes_of_them_in_its_configuration() {
        for (text, json) in [
            ("on", "true"),
            ("oN", "\"oN\""),
            ("~", "null"),
            ("0443", "291"),
            ("08", "\"08\""),
            ("0x1F", "31"),
            ("-0x10", "-16"),
            ("0o17", "\"0o17\""),
            ("1_000", "\"1_000\""),
            ("+5", "5"),
            ("1e3", "\"1e3\""),
            ("100.0", "\"100.0\""),
            ("1.5", "\"1.5\""),
            ("2147483647", "2147483647"),
            ("2147483648", "\"2147483648\""),
            ("-2147483648", "-2147483648"),
            ("0xFFFFFFFF", "\"4294967295\""),
            ("00", "0"),
            ("--1", "\"--1\""),
            ("5abc", "\"5abc\""),
        ] {
            assert_eq!(plain(text, Schema::Envoy).0.to_string(), json, "{text}");
        }
        assert_eq!(plain("1.5", Schema::Envoy).1, Some(Surprise::Text("1.5".into())));
        assert_eq!(plain("5s", Schema::Envoy).1, None);
    }

    #[test]
    fn what_readers_disagree_about_is_noted() {
        assert_eq!(plain("0443", Schema::Core), (Node::Integer(443), Some(Surprise::Octal("0443".into()))));
        assert_eq!(plain("no", Schema::Core).1, Some(Surprise::Word("no".into())));
        for text in ["0", "10", "0x0f", "0.5", "true", "x"] {
            assert_eq!(plain(text, Schema::Core).1, None, "{text}");
        }
    }
}
