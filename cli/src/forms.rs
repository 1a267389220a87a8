//! The correct form of a wrong value, where the engine only names the expected type.

/// The suggested replacement of `value`, which is given as JSON; `None` when the engine's own message is enough.
pub fn form(path: &str, value: Option<&str>, message: &str) -> Option<String> {
    let value = value.filter(|value| value.len() <= 80 && !value.ends_with('…'))?;
    let (is, expected) = message.split_once(", expected ")?;
    let (field, is_entry) = match path.rsplit('.').next()?.split_once('[') {
        Some((field, _)) => (field, true),
        None => (path.rsplit('.').next()?, false),
    };
    if expected.starts_with("a list") {
        return match (is, field) {
            ("is an object", "headers") if path.contains("request.") || path.contains("response.") => {
                Some("write pairs: [[x-user-group, beta]]".to_owned())
            }
            ("is an object", "headers" | "queryParams" | "cookies") => {
                Some(format!("write a list of conditions: {}", conditions(value)))
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
