//! The correct form of a wrong value, where the engine only names the expected type.

mod foreign;

/// The suggested replacement of `value`, which is given as JSON; `None` when the engine's own message is enough.
pub fn form(path: &str, value: Option<&str>, message: &str) -> Option<String> {
    if let Some(names) = message.strip_prefix("needs one of: ") {
        return one_of(names);
    }
    if message.starts_with("is required") {
        return required(path);
    }
    if let Some(field) = message.strip_prefix("unknown field `").and_then(|rest| rest.strip_suffix('`')) {
        return foreign::field(path, field);
    }
    let value = value.filter(|value| value.len() <= 80 && !value.ends_with('…'))?;
    let (is, expected) = message.split_once(", expected ")?;
    let (field, is_entry) = match path.rsplit('.').next()?.split_once('[') {
        Some((field, _)) => (field, true),
        None => (path.rsplit('.').next()?, false),
    };
    let unquoted = value.trim_matches('"');
    if let (Some(names), "is a string") = (expected.strip_prefix("an object with one of: "), is)
        && let Some(form) = names.split(", ").find(|name| *name == unquoted).and_then(|name| key_form(name, field))
    {
        return Some(format!("write an object: {form}"));
    }
    if expected == "a whole number" && is == "is a string" {
        let port = [("https", "443"), ("http", "80")].into_iter().find(|(name, _)| *name == unquoted);
        let number = || unquoted.strip_suffix('%').filter(|number| number.parse::<u32>().is_ok());
        return match field {
            "ports" | "defaultPort" => port.map(|(_, number)| format!("write the number: {number}")),
            _ => number().map(|number| format!("write only the number: {number}")),
        };
    }
    if is == "is a list" && expected == "a string: a method" {
        return Some("write one method; others are entries of their own: [{method: GET}, {method: POST}]".to_owned());
    }
    if is == "is a list" && expected == "an object" && matches!(path, "routes" | "egress") {
        return Some(format!("write `rules:` below `{path}:`, and the list below that"));
    }
    if is == "is a string" && expected == "an object" {
        let form = match path {
            "routes" => Some(format!("{{default: {value}}}")),
            _ if path.starts_with("egress.rules[") && is_entry && field == "rules" => {
                Some(format!("{{name: {value}, to: [{{host: {value}}}]}}"))
            }
            _ => None,
        };
        if form.is_some() {
            return form.map(|form| format!("write an object: {form}"));
        }
    }
    if expected.starts_with("a list") {
        return match (is, field) {
            ("is an object", "headers") if path.contains("request.") || path.contains("response.") => {
                Some("write pairs: [[x-user-group, beta]]".to_owned())
            }
            ("is an object", "headers" | "queryParams" | "cookies") => {
                Some(format!("write a list of conditions: {}", conditions(value)))
            }
            ("is an object", "variants") => {
                Some("write a list: [{name: v1, weight: 90}, {name: v2, weight: 10}]".to_owned())
            }
            ("is a string" | "is a number", "key") => None,
            ("is a string" | "is a number", _) if holds_texts(field) => Some(format!("write a list: [{value}]")),
            _ => None,
        };
    }
    if !expected.starts_with("an object") || is != "is a string" {
        return None;
    }
    let form = match (field, is_entry) {
        ("path", false) | ("paths", true) => format!("{{type: PathPrefix, value: {value}}}"),
        ("limit", false) => "{requests: 5, per: 1m}".to_owned(),
        ("headers" | "queryParams" | "cookies", true) => format!("{{name: {value}, type: Present}}"),
        ("to" | "deny", true) => format!("{{host: {value}}}"),
        ("variants", true) => format!("{{name: {value}, weight: 50}}"),
        ("stickiness", false) => format!("{{header: {value}}}"),
        ("retries", false) => "{attempts: 2, retryOn: [5xx]}".to_owned(),
        _ => return None,
    };
    Some(format!("write an object: {form}"))
}

/// The whole form of a part of a key, or of what stickiness goes by.
fn key_form(name: &str, field: &str) -> Option<&'static str> {
    Some(match name {
        "sourceAddress" => "{sourceAddress: {}}",
        "header" => "{header: x-user-id}",
        // Of a canary, which may set it.
        "cookie" if field == "stickiness" => "{cookie: {name: session}}",
        "cookie" => "{cookie: session}",
        "queryParam" => "{queryParam: user}",
        "peer" => "{peer: {}}",
        _ => return None,
    })
}

/// The known word that an unknown one probably means: the only one that begins or ends like it.
pub fn meant(value: Option<&str>, help: Option<&str>) -> Option<String> {
    let value = value?.trim_matches('"').to_ascii_lowercase();
    let names = help?.strip_prefix("expected one of: ").filter(|names| !names.contains(';'))?;
    let start = value.get(..3)?;
    let is_like = |name: &&str| {
        let name = name.to_ascii_lowercase();
        name.contains(&value) || name.starts_with(start)
    };
    let mut near = names.split(", ").filter(is_like);
    match (near.next(), near.next()) {
        (Some(name), None) => Some(format!("expected one of: {names}; did you mean `{name}`?")),
        _ => None,
    }
}

/// What to write where the field at `path`, which a policy must have, is missing.
fn required(path: &str) -> Option<String> {
    let (parent, field) = path.rsplit_once('.')?;
    let holder = parent.rsplit('.').next().unwrap_or(parent).split('[').next().unwrap_or(parent);
    let form = match (holder, field) {
        ("rateLimits", "key") => {
            "add `key: [{sourceAddress: {}}]` to count each client by itself, or `key: []` to count all together"
        }
        ("rateLimits", "limit") => "add `limit: {requests: 100, per: 1m}`",
        ("limit", "requests") => "add `requests: 100`",
        ("limit", "per") => "add `per: 1m`",
        ("rules", "to") => "add `to: [{host: api.example.com}]`",
        ("canaries", "variants") => "add `variants: [{name: v1, weight: 90}, {name: v2, weight: 10}]`",
        ("variants", "weight") => "add `weight: 10`; the share is this number divided by the sum of all weights",
        ("ramp", "variant") => "add `variant: v2`, the variant whose share grows",
        ("ramp", "startsAt") => "add `startsAt: \"2027-01-31T09:30:00Z\"`",
        ("headers", "name") => "add `name: x-user-group`",
        ("queryParams" | "cookies", "name") => "add the parameter's or cookie's `name`",
        ("egress" | "rules" | "rateLimits" | "canaries" | "variants", "name") => {
            "add `name: …` with a name that is unique in this list; reports and counters use it"
        }
        ("path", "value") => "add `value: /cart`",
        _ => return None,
    };
    Some(form.to_owned())
}

/// What to write where none of these fields is given.
fn one_of(names: &str) -> Option<String> {
    let form = match names {
        "host, cidr" => "write {host: api.example.com}, or {cidr: 192.0.2.0/24} for addresses",
        "header, cookie" => {
            "add a condition, such as cookie: {name: beta, value: \"1\"} or header: {name: x-beta, type: Present}"
        }
        "route, canary, redirect" => "add a destination: `route: NAME`, `canary: NAME` or `redirect: {scheme: https}`",
        "retryOn, on" => "add when to retry: `retryOn: [5xx]`",
        _ => return None,
    };
    Some(form.to_owned())
}

/// Whether a list has strings or numbers instead of objects.
fn holds_texts(field: &str) -> bool {
    ["methods", "hostnames", "ports", "from", "upgrades", "values", "matchedPaths"].contains(&field)
}

/// Converts `{"x-a":"b"}` to conditions.
fn conditions(value: &str) -> String {
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(value).unwrap_or_default();
    let mut all: Vec<String> = map
        .iter()
        .filter_map(|(name, value)| value.as_str().map(|value| format!("{{name: {name}, value: {value}}}")))
        .collect();
    if all.is_empty() {
        all.push("{name: x-user-group, value: beta}".to_owned());
    }
    format!("[{}]", all.join(", "))
}

#[cfg(test)]
mod tests {
    use penstock_policy::Module;

    use super::*;
    use crate::yaml::Located;

    #[test]
    fn what_lacks_all_of_several_fields_is_told_what_to_write() {
        for (policy, fixed) in [
            ("egress: {rules: [{name: a, to: [{}]}]}", "egress: {rules: [{name: a, to: [{host: api.example.com}]}]}"),
            (
                "egress: {rules: [{name: a, to: [{ports: [1]}]}]}",
                "egress: {rules: [{name: a, to: [{cidr: 192.0.2.0/24}]}]}",
            ),
            ("routes: {rules: [{name: a}]}", "routes: {rules: [{name: a, redirect: {scheme: https}}]}"),
            (
                "routes: {rules: [{name: a, route: b, retries: {attempts: 2}}]}",
                "routes: {rules: [{name: a, route: b, retries: {attempts: 2, retryOn: [5xx]}}]}",
            ),
            (
                "canaries: [{name: c, variants: [{name: v, weight: 1}], overrides: [{variant: v}]}]",
                "canaries: [{name: c, variants: [{name: v, weight: 1}], overrides: [{variant: v, cookie: {name: beta, value: \"1\"}}]}]",
            ),
        ] {
            let check =
                |policy: &str| penstock_policy::check(&Located::read(policy).unwrap().node, Module::Suite).map(drop);
            let wrong = check(policy).expect_err(policy);
            let problem = wrong.iter().next().unwrap();
            let help = form(&problem.path, problem.value.as_deref(), &problem.message).or_else(|| problem.help.clone());
            assert!(help.is_some(), "{problem}");
            assert!(check(fixed).is_ok(), "{fixed}");
        }
    }

    #[test]
    fn what_is_missing_is_proposed_and_the_proposal_is_right() {
        for (policy, path, added) in [
            (
                "rateLimits: [{name: a, limit: {requests: 1, per: 1s}ADDED}]",
                "rateLimits[0].key",
                "key: [{sourceAddress: {}}]",
            ),
            ("rateLimits: [{name: a, limit: {requests: 1, per: 1s}ADDED}]", "rateLimits[0].key", "key: []"),
            ("rateLimits: [{name: a, key: []ADDED}]", "rateLimits[0].limit", "limit: {requests: 100, per: 1m}"),
            ("rateLimits: [{name: a, key: [], limit: {requests: 1ADDED}}]", "rateLimits[0].limit.per", "per: 1m"),
            (
                "rateLimits: [{name: a, key: [], limit: {per: 1sADDED}}]",
                "rateLimits[0].limit.requests",
                "requests: 100",
            ),
            ("egress: {rules: [{name: aADDED}]}", "egress.rules[0].to", "to: [{host: api.example.com}]"),
            (
                "canaries: [{name: cADDED}]",
                "canaries[0].variants",
                "variants: [{name: v1, weight: 90}, {name: v2, weight: 10}]",
            ),
            ("canaries: [{name: c, variants: [{name: vADDED}]}]", "canaries[0].variants[0].weight", "weight: 10"),
            (
                "routes: {rules: [{name: a, route: b, matches: [{path: {type: ExactADDED}}]}]}",
                "routes.rules[0].matches[0].path.value",
                "value: /cart",
            ),
            (
                "routes: {rules: [{name: a, route: b, matches: [{headers: [{value: bADDED}]}]}]}",
                "routes.rules[0].matches[0].headers[0].name",
                "name: x-user-group",
            ),
        ] {
            let check = |added: &str| {
                penstock_policy::check(&Located::read(&policy.replace("ADDED", added)).unwrap().node, Module::Suite)
                    .map(drop)
            };
            let wrong = check("").expect_err(policy);
            let problem =
                wrong.iter().find(|problem| problem.path == path).unwrap_or_else(|| panic!("{path}: {wrong}"));
            let help = form(&problem.path, None, &problem.message).unwrap();
            assert!(help.contains(&format!("`{added}`")), "{help}");
            assert!(check(&format!(", {added}")).is_ok(), "{policy} {added}");
        }
        for (path, value, message, help) in [
            (
                "canaries[0].variants[0].weight",
                "\"90%\"",
                "is a string, expected a whole number",
                "write only the number: 90",
            ),
            (
                "egress.rules[0].to[0].ports[0]",
                "\"https\"",
                "is a string, expected a whole number",
                "write the number: 443",
            ),
            ("routes", "\"a\"", "is a string, expected an object", "write an object: {default: \"a\"}"),
            (
                "routes",
                "[]",
                "is a list, expected an object",
                "write `rules:` below `routes:`, and the list below that",
            ),
            (
                "egress.rules[0]",
                "\"a.test\"",
                "is a string, expected an object",
                "write an object: {name: \"a.test\", to: [{host: \"a.test\"}]}",
            ),
        ] {
            assert_eq!(form(path, Some(value), message).as_deref(), Some(help), "{path}");
        }
    }

    /// The suggested form makes the policy valid in every place.
    #[test]
    fn suggested_forms_are_valid() {
        for (policy, wrong) in [
            ("routes: {rules: [{name: a, route: b, matches: [{path: WRONG}]}]}", "/foo"),
            ("routes: {rules: [{name: a, route: b, matches: [{headers: WRONG}]}]}", "{x-a: b}"),
            ("routes: {rules: [{name: a, route: b, matches: [{queryParams: WRONG}]}]}", "{v: two}"),
            ("routes: {rules: [{name: a, route: b, matches: [{headers: [WRONG]}]}]}", "x-a"),
            ("routes: {rules: [{name: a, route: b, matches: [{hostnames: WRONG}]}]}", "a.test"),
            ("routes: {rules: [{name: a, route: b, retries: WRONG}]}", "3x"),
            ("rateLimits: [{name: a, key: [{sourceAddress: {}}], limit: WRONG}]", "5/m"),
            ("egress: {rules: [{name: a, to: [WRONG]}]}", "a.test"),
            ("egress: {deny: [WRONG], rules: []}", "a.test"),
            ("egress: {rules: [{name: a, to: [{host: a.test}], methods: WRONG}]}", "GET"),
            ("egress: {rules: [{name: a, to: [{host: a.test, ports: WRONG}]}]}", "443"),
            ("egress: {rules: [{name: a, to: [{host: a.test}], paths: [WRONG]}]}", "/v1"),
            ("egress: {rules: [{name: a, to: [{host: a.test}], upgrades: WRONG}]}", "websocket"),
            ("canaries: [{name: c, variants: [WRONG, {name: v2, weight: 50}]}]", "v1"),
            ("canaries: [{name: c, stickiness: WRONG, variants: [{name: v2, weight: 50}]}]", "cookie"),
            ("canaries: [{name: c, stickiness: WRONG, variants: [{name: v2, weight: 50}]}]", "sourceAddress"),
            ("rateLimits: [{name: a, key: [WRONG], limit: {requests: 1, per: 1s}}]", "sourceAddress"),
            ("rateLimits: [{name: a, key: [WRONG], limit: {requests: 1, per: 1s}}]", "header"),
            ("rateLimits: [{name: a, key: [WRONG], limit: {requests: 1, per: 1s}}]", "cookie"),
            ("rateLimits: [{name: a, key: [WRONG], limit: {requests: 1, per: 1s}}]", "queryParam"),
            ("canaries: [{name: c, stickiness: WRONG, variants: [{name: v2, weight: 50}]}]", "x-user"),
        ] {
            let problems = |value: &str| {
                let node = Located::read(&policy.replace("WRONG", value)).unwrap().node;
                penstock_policy::check(&node, Module::Suite).map(drop)
            };
            let wrong = problems(wrong).expect_err(policy);
            let problem = wrong.iter().next().unwrap();
            let form = form(&problem.path, problem.value.as_deref(), &problem.message);
            let form = form.unwrap_or_else(|| panic!("{policy}: {}: {}", problem.path, problem.message));
            let value = form.split_once(": ").unwrap().1;
            assert!(problems(value).is_ok(), "{policy}: {form}: {:?}", problems(value));
        }
    }

    #[test]
    fn a_word_of_another_product_is_told_ours() {
        let types = "expected one of: Exact, PathPrefix, RegularExpression";
        for (value, help, expected) in [
            ("\"Regex\"", types, Some("RegularExpression")),
            ("\"prefix\"", types, Some("PathPrefix")),
            ("\"Exactly\"", types, Some("Exact")),
            ("\"Suffix\"", types, None),
            ("\"a\"", types, None),
            ("\"Prefix\"", "expected one of: PathPrefix, HostPrefix", None),
            ("\"x\"", "write 1", None),
        ] {
            let meant = meant(Some(value), Some(help));
            assert_eq!(meant.is_some(), expected.is_some(), "{value}: {meant:?}");
            let name = expected.unwrap_or_default();
            assert!(meant.is_none_or(|meant| meant.ends_with(&format!("did you mean `{name}`?"))), "{value}");
        }
    }

    #[test]
    fn values_with_a_specific_message_get_no_suggested_form() {
        for (path, value, message) in [
            ("rateLimits[0].key", "\"a\"", "is a string, expected a list"),
            ("routes.rules", "\"a\"", "is a string, expected a list"),
            ("routes", "1", "is a number, expected an object"),
            ("a.path", "\"x…", "is a string, expected an object"),
            ("a.path", "\"x\"", "is not a path"),
        ] {
            assert_eq!(form(path, Some(value), message), None, "{path}");
        }
        assert_eq!(form("a.path", None, "is required: expected an object"), None);
    }
}
