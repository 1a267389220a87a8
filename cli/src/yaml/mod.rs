//! Parses YAML (and so JSON) to the document's tree, with the place of each value.
//!
//! The parser is a port of libyaml, like that of kubectl, so both accept the same texts. The meaning of a plain scalar
//! such as `on` or `0443` depends on the reader of the document, so it is decided for each document: see [`Schema`].

mod envoy_json;
mod error;
mod explain;
mod located;
mod reader;
mod scalar;

use penstock_policy::document::Node;

pub use error::NotYaml;
pub use located::Located;
pub use scalar::{Schema, Surprise};

impl Located {
    /// Parses one YAML document; JSON is parsed as JSON. Empty text is `null`.
    ///
    /// # Errors
    /// Returns an error for invalid syntax, several documents, a mapping key that is not a scalar, nesting deeper than
    /// 128 levels, or aliases that expand to more than a million values.
    pub fn read(text: &str) -> Result<Located, NotYaml> {
        let mut documents = Located::read_all(text)?;
        match documents.len() {
            1 => documents.pop().ok_or_else(|| NotYaml::at(0, "there is no document")),
            _ => {
                let second = documents.get(1).map_or(0, Located::start);
                Err(NotYaml::at(second, "found a second YAML document; a policy file holds one").help(
                    "put each policy into its own file; `penstock check` also reads manifests of several documents",
                ))
            }
        }
    }

    /// Parses any number of documents, at least one, each with its places in the whole text.
    ///
    /// # Errors
    /// Errors are those of [`Located::read`].
    pub fn read_all(text: &str) -> Result<Vec<Located>, NotYaml> {
        match looks_like_json(text).then(|| Node::from_json(text.as_bytes())) {
            // JSON that a YAML parser refuses (escaped surrogates) is still JSON; only the places are lost.
            Some(Ok(node)) => Ok(vec![Located::json(node, text)]),
            _ => reader::read(text),
        }
    }

    /// The same, but text that looks like JSON is parsed as YAML, too.
    ///
    /// # Errors
    /// Errors are those of [`Located::read`].
    pub fn read_yaml(text: &str) -> Result<Vec<Located>, NotYaml> {
        reader::read(text)
    }

    /// Parses strict JSON, as the modules parse their configuration.
    ///
    /// # Errors
    /// Returns an error for text that is not one JSON value.
    pub fn read_json(text: &str) -> Result<Located, NotYaml> {
        match Node::from_json(text.as_bytes()) {
            Ok(node) => Ok(Located::json(node, text)),
            Err(error) => Err(explain::json(&error, text)),
        }
    }

    /// Parses JSON as Envoy parses its own files, which is less strict.
    ///
    /// # Errors
    /// Returns an error for text that Envoy refuses, too.
    pub fn read_envoy_json(text: &str) -> Result<Located, NotYaml> {
        envoy_json::read(text)
    }

    fn json(node: Node, text: &str) -> Located {
        let places = envoy_json::read(text).map(|located| located.places);
        Located { node, schema: Schema::Json, places: places.unwrap_or_default(), surprises: Vec::new() }
    }
}

fn looks_like_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[', '"'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> String {
        Located::read(yaml).unwrap().node.to_string()
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        assert_eq!(
            json("a: {b: [1, x, 'y', \"z\"]}\nc:\n- d: true\n"),
            r#"{"a":{"b":[1,"x","y","z"]},"c":[{"d":true}]}"#
        );
        assert_eq!(json(r#"{"a":{"b":[1,"x\n"]}}"#), r#"{"a":{"b":[1,"x\n"]}}"#);
        assert_eq!(json(""), "null");
        assert_eq!(json("a: 'no !tag, here'\nb: |\n  x !y, z"), "{\"a\":\"no !tag, here\",\"b\":\"x !y, z\\n\"}");
        assert_eq!(json("{a: \"b && !c\", d: 'e !f', g: h!i}"), r#"{"a":"b && !c","d":"e !f","g":"h!i"}"#);
        assert_eq!(json("{j: [\"!k\", '!l', '!o''p', '!q', '']}"), r#"{"j":["!k","!l","!o'p","!q",""]}"#);
        assert!(["[!a', b]", "[!a\", b]", "{!'a, b: c}"].iter().all(|text| Located::read(text).is_err()));
        assert_eq!(json("{\n\t\"a\":\t\"\\ud83d\\ude00\"}"), "{\"a\":\"😀\"}");
    }

    #[test]
    fn json_in_yaml_may_close_its_braces_anywhere() {
        assert_eq!(json("a: {\n  \"b\": [1,\n2]\n}\nc: [\n\"GET\"\n]\n"), r#"{"a":{"b":[1,2]},"c":["GET"]}"#);
    }

    #[test]
    fn anchors_and_merge_keys_are_followed_but_cannot_explode() {
        assert_eq!(json("a: &x [1]\nb: *x\n"), r#"{"a":[1],"b":[1]}"#);
        assert_eq!(json("a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x}\n"), r#"{"a":{"p":1,"q":2},"b":{"q":3,"p":1}}"#);
        assert_eq!(json("a: {<<: [{p: 1}, {p: 2, q: 3}]}\n"), r#"{"a":{"p":1,"q":3}}"#);
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(Located::read(&bomb).unwrap_err().message.contains("million"));
        let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 16), vec!["*a"; 4000].join(","));
        assert!(Located::read(&long).unwrap_err().message.contains("million"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        for deep in ["- ".repeat(50_000), "[".repeat(50_000), "&a [".repeat(20_000), "{a: ".repeat(20_000)] {
            assert!(Located::read(&deep).is_err());
        }
    }

    #[test]
    fn every_value_is_found_in_the_text() {
        let text = "é: 1\nroutes:\n  rules:\n  - name: a\n    route: 'b c'\n";
        let located = Located::read(text).unwrap();
        let at = |path: &str, key| &text[located.span(path, key)];
        assert_eq!(at("routes.rules[0].route", false), "'b c'");
        assert_eq!(at("routes.rules[0].name", true), "name");
        assert_eq!(at("routes.rules[0].timeout", false), "name: a\n    route: 'b c'\n", "what is missing: its parent");
        assert_eq!(at("routes.default", false), "routes");
        let text = "\u{feff}é: 1\nb: 2";
        assert_eq!(&text[Located::read(text).unwrap().span("b", false)], "2");
        // The place of a value from a merge key is the place of the merge key.
        let text = "a: &x {p: 1}\nb:\n  <<: *x\n";
        assert_eq!(&text[Located::read(text).unwrap().span("b.p", false)], "*x");
    }

    #[test]
    fn errors_are_explained_with_their_place() {
        for (text, at, message) in [
            ("a: [1,\nb: }", "}", "`}`"),
            ("a: 1\n---\nb: 2\n", "b: 2", "second YAML document"),
            ("a: *x", "*x", "`*x` has no anchor `&x` before it"),
            ("a: *.b.test", "*.b", "put the value in quotes: \"*.b.test\""),
            ("a: [*]", "*]", "put the value in quotes: \"*\""),
            ("a: *b", "*b", "in quotes: \"*b\""),
            ("a:\n\tb: 1", "\tb", "a tab"),
            ("- name: x\n    route: y\n", ": y", "`route` is indented deeper than `name` above it"),
            ("- name: x\n route: y\n", "route", "`route`"),
            ("a: b: c\n", ": c", "quotes"),
            ("a: @x\n", "@x", "`@` cannot begin a plain value"),
            ("a: 'x\nb: 1\n", "'x", "the quote is never closed"),
            ("a: [1, 2\nb: 3\n", "[1, 2", "never closed"),
            ("a: \"\\d\"\n", "\\d\"", "`\\d` is not an escape"),
            ("a: -\n", "-", "list item"),
            ("[!a, b]", ",", "whitespace"),
            ("a: {{ .Values.x }}\n", "{ .", "template"),
        ] {
            let error = Located::read(text).unwrap_err();
            let said = format!("{} {}", error.message, error.help.unwrap_or_default());
            assert!(said.contains(message), "{text:?}: {said}");
            assert!(text[error.at..].starts_with(at), "{text:?}: {:?}", &text[error.at..]);
        }
    }

    #[test]
    fn invalid_json_gets_the_modules_message() {
        for (text, message) in [
            ("{\"a\": 1,}", "trailing comma"),
            ("routes: {}", "expected value"),
            ("{\"a\": 1 # x\n}", "expected `,` or `}`"),
            ("{\"a\": 05}", "invalid number"),
            ("", "the text ends where a value should begin"),
            ("{\"a\": [1", "the text ends inside a list"),
        ] {
            let error = Located::read_json(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {}", error.message);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_text_makes_the_reader_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..24)) {
            let text = pieces.concat();
            let _ = Located::read_all(&text);
            let _ = Located::read_json(&text);
        }
    }

    /// A YAML token.
    const PIECES: [&str; 52] = [
        "a",
        "b: ",
        ":",
        "- ",
        "-",
        "\n",
        "\n  ",
        "\n\t",
        "\t",
        " ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'",
        "\"",
        "\\",
        "\\u12",
        "\\x4",
        "|",
        "|+2\n",
        ">-\n  ",
        "#",
        " # x",
        "&a ",
        "*a",
        "!",
        "!!str ",
        "!<x",
        "!e!x ",
        "%YAML 1.1\n",
        "%TAG ! x\n",
        "%x",
        "---",
        "...",
        "\n---\n",
        "? ",
        "<<: ",
        "@",
        "`",
        "0443",
        "~",
        "on",
        "é",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "\r",
        "\r\n",
        "\0",
        "1e3",
    ];
}
