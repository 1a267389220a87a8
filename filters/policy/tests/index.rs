//! The index finds what a linear scan finds, on random policies and requests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]
#![cfg(not(target_arch = "wasm32"))]

use penstock_policy::Request;
use penstock_policy::document::{At, Context, Decode, Node};
use penstock_policy::matching::{Index, RequestMatch};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Small alphabets, so that entries overlap, shadow each other and really match.
fn entry() -> impl Strategy<Value = Value> {
    let host = select(vec!["a.test", "b.a.test", "*.a.test", "*.test", "c.b.a.test"]);
    let path = prop_oneof![
        select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/b"]).prop_map(|v| json!({"type": "PathPrefix", "value": v})),
        select(vec!["/", "/a", "/a/", "/a/b", "/b"]).prop_map(|v| json!({"type": "Exact", "value": v})),
        select(vec!["/a/[a-c]+", "/(a|b)", ".*", "/a.*", "/a/b/.?"])
            .prop_map(|v| json!({"type": "RegularExpression", "value": v})),
    ];
    let condition = || {
        let value = select(vec!["1", "2", "12", ""]);
        let text = prop_oneof![
            4 => value.clone().prop_map(|v| json!({"type": "Exact", "value": v})),
            1 => vec(value, 1..3).prop_map(|v| json!({"type": "In", "values": v})),
            1 => Just(json!({"type": "Present"})),
            1 => select(vec!["1", "2"]).prop_map(|v| json!({"type": "Prefix", "value": v})),
            1 => select(vec!["1", "2"]).prop_map(|v| json!({"type": "Contains", "value": v})),
        ];
        (select(vec!["x", "y", "z"]), text, prop::bool::weighted(0.2)).prop_map(|(name, mut text, invert)| {
            text["name"] = json!(name);
            text["invert"] = json!(invert);
            text
        })
    };
    (
        option::weighted(0.3, select(vec!["GET", "POST"])),
        option::weighted(0.5, vec(host, 1..3)),
        option::weighted(0.7, path),
        option::weighted(0.5, vec(condition(), 1..3)),
        option::weighted(0.2, vec(condition(), 1..3)),
        option::weighted(0.2, vec(condition(), 1..3)),
    )
        .prop_map(|(method, hostnames, path, headers, query, cookies)| {
            let mut entry = serde_json::Map::new();
            for (key, value) in [
                ("method", method.map(|v| json!(v))),
                ("hostnames", hostnames.map(|v| json!(v))),
                ("path", path),
                ("headers", headers.map(|v| json!(v))),
                ("queryParams", query.map(|v| json!(v))),
                ("cookies", cookies.map(|v| json!(v))),
            ] {
                entry.extend(value.map(|value| (key.to_owned(), value)));
            }
            Value::Object(entry)
        })
}

fn compile(entry: &Value) -> RequestMatch {
    if entry.as_object().unwrap().is_empty() {
        return RequestMatch::default();
    }
    let mut cx = Context::new(String::new(), 1 << 24);
    let node = Node::from_json(entry.to_string().as_bytes()).unwrap();
    RequestMatch::decode(&node, &At::Root, &mut cx).unwrap_or_else(|| panic!("{entry}: {:?}", cx.into_problems()))
}

type Pairs = Vec<(&'static str, &'static str)>;

fn request() -> impl Strategy<Value = (&'static str, &'static str, &'static str, Pairs, Pairs, Pairs)> {
    let pairs = || vec((select(vec!["x", "y", "z"]), select(vec!["1", "2", "12", "21", ""])), 0..4);
    (
        select(vec!["GET", "POST", "PUT"]),
        select(vec!["a.test", "A.Test:80", "b.a.test", "d.c.b.a.test.", "test", "", "other"]),
        select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "*", "", "/c/d"]),
        pairs(),
        pairs(),
        pairs(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_index_agrees_with_the_linear_scan(
        entries in vec(entry(), 0..60),
        requests in vec(request(), 1..30),
    ) {
        let entries: Vec<RequestMatch> = entries.iter().map(compile).collect();
        let index = Index::new(&entries);
        for (method, authority, path, headers, query, cookies) in &requests {
            let join = |pairs: &Pairs, by: &str| pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(by);
            let target = format!("{path}?{}", join(query, "&"));
            let cookie = join(cookies, "; ");
            let mut map = vec![
                (&b":method"[..], method.as_bytes()),
                (b":authority", authority.as_bytes()),
                (b":path", target.as_bytes()),
                (b"cookie", cookie.as_bytes()),
            ];
            map.extend(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            let request = Request::new(&map);
            let all: Vec<usize> = (0..entries.len()).filter(|&i| entries[i].holds(&request)).collect();
            prop_assert_eq!(index.first(&entries, &request), all.first().copied());
            let mut each = Vec::new();
            index.each(&entries, &request, |rank| each.push(rank));
            each.sort_unstable();
            each.dedup();
            prop_assert_eq!(each, all);
        }
    }
}
