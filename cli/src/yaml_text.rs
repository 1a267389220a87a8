//! Writes a tree as YAML in block style, which YAML 1.1 (Kubernetes) and 1.2 parse alike.

use penstock_policy::document::{Node, is_hidden, visible};

/// Writes `node` as YAML; each line is indented by `indent` spaces and ends with a line break.
pub fn block(node: &Node, indent: usize) -> String {
    let mut text = String::new();
    write(node, indent, &mut text);
    text
}

fn write(node: &Node, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match node {
        Node::Map(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                *out += &format!("{pad}{}:", scalar(key));
                below(value, indent, out);
            }
        }
        Node::List(items) if !items.is_empty() => {
            for item in items {
                match item {
                    // Short lists go on one line, `below`; the first entry of other lists goes on the line of the dash.
                    Node::Map(_) | Node::List(_)
                        if !is_empty(item) && (matches!(item, Node::Map(_)) || !fits(item)) =>
                    {
                        let inside = block(item, indent + 2);
                        *out += &format!("{pad}- {}", inside.get(indent + 2..).unwrap_or_default());
                    }
                    item => {
                        *out += &format!("{pad}-");
                        below(item, indent, out);
                    }
                }
            }
        }
        other => *out += &format!("{pad}{}\n", flow(other)),
    }
}

/// The text after a key or a dash: short values are on the same line.
fn below(value: &Node, indent: usize, out: &mut String) {
    if fits(value) {
        *out += &format!(" {}\n", flow(value));
    } else {
        *out += "\n";
        let deeper = if matches!(value, Node::List(_)) { 0 } else { 2 };
        write(value, indent + deeper, out);
    }
}

/// Whether a value goes on the line of its key.
fn fits(value: &Node) -> bool {
    is_small(value) && (!matches!(value, Node::Map(_) | Node::List(_)) || flow(value).len() <= 80)
}

/// Whether a value is readable on one line: no map in a list, at most two levels deep.
fn is_small(value: &Node) -> bool {
    match value {
        Node::Map(entries) => entries.iter().all(|(_, value)| is_empty(value)),
        Node::List(items) => items.iter().all(is_empty),
        _ => true,
    }
}

/// Whether a value is empty; scalars count as empty.
fn is_empty(node: &Node) -> bool {
    match node {
        Node::Map(entries) => entries.is_empty(),
        Node::List(items) => items.is_empty(),
        _ => true,
    }
}

fn flow(node: &Node) -> String {
    match node {
        // The YAML reader leaves nothing unread.
        Node::Null | Node::Unread(_) => "null".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Integer(value) => value.to_string(),
        Node::Float(value) => value.to_string(),
        Node::String(text) => scalar(text),
        Node::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Node::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// A string, quoted unless every YAML reader interprets it as a string without quotes.
pub fn scalar(text: &str) -> String {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan", "infinity"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { without_hidden(&serde_json::to_string(text).unwrap_or_default()) }
}

/// A quoted string in which invisible characters and characters that may end a line are escaped.
fn without_hidden(quoted: &str) -> String {
    let escape = |c: char| match u32::from(c) {
        _ if !is_hidden(c) => c.to_string(),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    quoted.chars().map(escape).collect()
}

/// The same tree as indented JSON text.
pub fn json(node: &Node) -> String {
    let text = format!("{:#}", value(node));
    // Line breaks inside strings are escaped already.
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// The same tree for `serde_json`. Of duplicate keys the last is kept; no valid policy has any.
pub fn value(node: &Node) -> serde_json::Value {
    match node {
        Node::Null | Node::Unread(_) => serde_json::Value::Null,
        Node::Bool(value) => (*value).into(),
        Node::Integer(value) => (*value).into(),
        Node::Float(value) => (*value).into(),
        Node::String(value) => value.as_str().into(),
        Node::List(items) => items.iter().map(value).collect(),
        Node::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), value(node))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    #[test]
    fn what_is_written_is_read_as_the_same_tree() {
        for text in [
            include_str!("../tests/policies/everything.yaml"),
            include_str!("../tests/policies/shop.yaml"),
            "a: [on, 'off', \"1e3\", 0x1f, '0o17', null, 'é: x', \"a\\nb\", '', {b: {}}, [[1, [2]], []], [[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\", \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"]], '12:30', 1.5, true]",
        ] {
            let node = Located::read(text).unwrap().node;
            let written = block(&node, 4);
            assert_eq!(Located::read(&written).unwrap().node, node, "{written}");
        }
    }

    #[test]
    fn invisible_characters_are_escaped_and_parsed_back() {
        let text = "a\u{2028}b\u{202e}c\u{9b}d\u{e0041}e\u{200b}";
        let node = Node::Map(vec![("k".to_owned(), Node::String(text.to_owned()))]);
        for written in [block(&node, 0), json(&node)] {
            assert!(!written.replace('\n', "").contains(is_hidden), "{written:?}");
            assert_eq!(Located::read(&written).unwrap().node, node, "{written}");
        }
        assert_eq!(block(&node, 0), "k: \"a\\u2028b\\u202ec\\u009bd\\U000e0041e\\u200b\"\n");
    }

    #[test]
    fn what_yaml_1_1_would_take_for_something_else_is_in_quotes() {
        for (text, written) in [
            ("on", "\"on\""),
            ("No", "\"No\""),
            ("5xx", "\"5xx\""),
            ("*.a.test", "\"*.a.test\""),
            ("a-b", "a-b"),
            ("/v2", "/v2"),
        ] {
            assert_eq!(scalar(text), written);
        }
    }
}
