//! Converts YAML policies to the JSON that modules read.

use anyhow::{Result, anyhow};
use penstock::yaml::Located;
use penstock_policy::document::Node;

/// The document as JSON. Nothing is checked and nothing is dropped, not even duplicate keys: validation is the module's
/// job.
pub fn of_yaml(text: &str) -> Result<String> {
    let located = Located::read(text).map_err(|error| {
        let line = text.bytes().take(error.at).filter(|&byte| byte == b'\n').count() + 1;
        anyhow!("line {line} is not YAML: {error}")
    })?;
    let mut json = String::new();
    write(&located.node, &mut json);
    Ok(json)
}

fn write(node: &Node, out: &mut String) {
    match node {
        Node::Null => out.push_str("null"),
        Node::Bool(value) => out.push_str(&value.to_string()),
        Node::Integer(value) => out.push_str(&value.to_string()),
        Node::Float(value) => out.push_str(&serde_json::Value::from(*value).to_string()),
        Node::String(value) => quote(value, out),
        Node::List(items) => {
            list(out, '[', items, write);
            out.push(']');
        }
        // This parser reads lists at once; only the parser of policies leaves them unread.
        Node::Unread(_) => {}
        Node::Map(entries) => {
            list(out, '{', entries, |(key, value), out| {
                quote(key, out);
                out.push(':');
                write(value, out);
            });
            out.push('}');
        }
    }
}

fn list<T>(out: &mut String, open: char, items: &[T], item: impl Fn(&T, &mut String)) {
    out.push(open);
    for (number, one) in items.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        item(one, out);
    }
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::of_yaml;

    #[test]
    fn a_document_keeps_its_order_and_its_repeated_keys() {
        let yaml = "b: [1, 2.5, yes, \"a\\\"b\", null]\na: {x: {}}\na: []\n";
        assert_eq!(of_yaml(yaml).unwrap(), r#"{"b":[1,2.5,"yes","a\"b",null],"a":{"x":{}},"a":[]}"#);
    }

    #[test]
    fn invalid_yaml_is_an_error() {
        assert!(of_yaml("a: [").is_err());
    }
}
