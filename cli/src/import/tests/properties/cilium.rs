//! <https://docs.cilium.io/en/stable/security/policy/language/#dns-based>: a rule of `egress` allows what one of its
//! names and one of its entries of `toPorts` allow; an entry's HTTP rules apply to its own ports.

use super::*;

const NAMES: [&str; 3] = ["a.example.com", "b.example.com", "c.test"];
const PATTERNS: [&str; 4] = ["**.example.com", "*.example.com", "c.test", "*"];
const ASKED: [&str; 5] = ["a.example.com", "b.example.com", "x.a.example.com", "c.test", "example.com"];

#[derive(Clone, Debug)]
struct Entry {
    ports: Vec<u16>,
    http: Vec<(Option<&'static str>, Option<&'static str>)>,
}

#[derive(Clone, Debug)]
struct Rule {
    names: Vec<&'static str>,
    patterns: Vec<&'static str>,
    entries: Vec<Entry>,
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let method = prop::option::of(prop::sample::select(&["GET", "POST"][..]));
    let path = prop::option::of(prop::sample::select(&["/a", "/a/.*", "/.*"][..]));
    let entry = (prop::sample::subsequence(&[80, 443, 8080][..], 1..3), prop::collection::vec((method, path), 0..3));
    let entry = entry.prop_map(|(ports, http)| Entry { ports, http });
    let rule = (
        prop::sample::subsequence(&NAMES[..], 0..3),
        prop::sample::subsequence(&PATTERNS[..], 0..2),
        prop::collection::vec(entry, 0..3),
    );
    prop::collection::vec(rule.prop_map(|(names, patterns, entries)| Rule { names, patterns, entries }), 1..4)
}

fn json_of(rule: &Rule) -> Value {
    let names = rule.names.iter().map(|name| json!({"matchName": name}));
    let patterns = rule.patterns.iter().map(|pattern| json!({"matchPattern": pattern}));
    let entries: Vec<Value> = rule
        .entries
        .iter()
        .map(|entry| {
            let ports: Vec<Value> =
                entry.ports.iter().map(|port| json!({"port": port.to_string(), "protocol": "TCP"})).collect();
            let http: Vec<Value> = entry
                .http
                .iter()
                .map(|(method, path)| {
                    let fields = [("method", method), ("path", path)]
                        .into_iter()
                        .filter_map(|(name, value)| Some((name.to_owned(), json!((*value)?))));
                    Value::Object(fields.collect())
                })
                .collect();
            match http.is_empty() {
                true => json!({"ports": ports}),
                false => json!({"ports": ports, "rules": {"http": http}}),
            }
        })
        .collect();
    let mut json = json!({"toFQDNs": names.chain(patterns).collect::<Vec<_>>()});
    if !entries.is_empty() {
        json["toPorts"] = entries.into();
    }
    json
}

/// Whether a Cilium pattern matches a name.
fn fits(pattern: &str, host: &str) -> bool {
    match (pattern.strip_prefix("**."), pattern.strip_prefix("*.")) {
        (Some(rest), _) => host.strip_suffix(rest).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
        (_, Some(rest)) => {
            let label = host.strip_suffix(rest).and_then(|label| label.strip_suffix('.'));
            label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
        }
        _ => pattern == "*" || pattern == host,
    }
}

fn allows(rules: &[Rule], host: &str, port: u16, method: &str, path: &str) -> bool {
    let is_path = |pattern: &str| match pattern.strip_suffix(".*") {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    };
    rules.iter().any(|rule| {
        let is_host = rule.names.contains(&host) || rule.patterns.iter().any(|pattern| fits(pattern, host));
        let is_entry = |entry: &Entry| {
            let http = |(m, p): &(Option<&str>, Option<&str>)| m.is_none_or(|m| m == method) && p.is_none_or(is_path);
            entry.ports.contains(&port) && (entry.http.is_empty() || entry.http.iter().any(http))
        };
        is_host && (rule.entries.is_empty() || rule.entries.iter().any(is_entry))
    })
}

proptest! {
    #[test]
    fn a_cilium_policy_allows_nothing_that_cilium_denies(rules in rules()) {
        let egress: Vec<Value> = rules.iter().map(json_of).collect();
        let object = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": egress}});
        let (_, policy, _, text) = policy_of(&[object]);
        for host in ASKED {
            for port in [80, 443, 8080] {
                for (method, path) in [("GET", "/a"), ("POST", "/a/b"), ("GET", "/c")] {
                    let json = json!({"method": method, "scheme": "https", "authority": format!("{host}:{port}"), "path": path});
                    let request: WireRequest = serde_json::from_value(json).unwrap();
                    let is_allowed = request.decide(&policy, &mut World::new(Timestamp(0), 0)).status.is_none();
                    let expected = allows(&rules, host, port, method, path);
                    prop_assert!(!is_allowed || expected, "{method} {host}:{port}{path} is allowed\n{text}");
                    // A policy cannot express a wildcard within one label; it can express everything else.
                    let sayable: Vec<Rule> = rules.iter().cloned().map(|mut rule| {
                        rule.patterns.retain(|pattern| !pattern.contains('*') || pattern.starts_with("**"));
                        rule
                    }).collect();
                    let must = allows(&sayable, host, port, method, path);
                    prop_assert!(is_allowed || !must, "{method} {host}:{port}{path} is refused\n{text}");
                }
            }
        }
    }
}
