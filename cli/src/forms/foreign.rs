//! Fields that other products have: what to write instead.

/// What to write instead of the unknown `field`, which ends this path; `None` when no product is known to have it.
pub fn field(path: &str, field: &str) -> Option<String> {
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    let holder = parent.rsplit('.').next().unwrap_or(parent).split('[').next().unwrap_or(parent);
    let section = path.split(['.', '[']).next().unwrap_or(path);
    let form = match (section, holder, field) {
        ("egress", "egress", "allow" | "allowed" | "allowlist" | "hosts" | "domains") => {
            "rules: [{name: api, to: [{host: api.example.com}]}]"
        }
        ("egress", "rules", "host" | "hosts" | "hostnames" | "domains" | "destination" | "destinations") => {
            "to: [{host: api.example.com}]"
        }
        ("egress", "rules", "port" | "ports") => "to: [{host: api.example.com, ports: [443]}]",
        (
            _,
            "key" | "stickiness",
            "ip" | "clientIp" | "clientIP" | "client_ip" | "sourceIp" | "sourceIP" | "remoteAddress" | "remote_address",
        ) => "sourceAddress: {}",
        (_, "limit", "rps" | "requestsPerSecond" | "requests_per_second" | "rate" | "average") => {
            "requests: 5, per: 1s"
        }
        (_, "limit", "unit" | "period" | "interval" | "window" | "fillInterval" | "fill_interval") => "per: 1m",
        (_, "path" | "paths", "prefix") => "type: PathPrefix, value: /cart",
        (_, "path" | "paths", "exact") => "type: Exact, value: /cart",
        (_, "path" | "paths", "regex" | "safeRegex" | "safe_regex") => {
            r#"type: RegularExpression, value: "/cart/[0-9]+""#
        }
        (_, "headers" | "queryParams" | "cookies", "exact") => "value: beta",
        (_, "headers" | "queryParams" | "cookies", "prefix") => "type: Prefix, value: beta",
        (_, "headers" | "queryParams" | "cookies", "regex" | "safeRegex" | "safe_regex") => {
            r#"type: RegularExpression, value: "beta-[0-9]+""#
        }
        (_, "headers" | "queryParams" | "cookies", "present" | "presentMatch" | "present_match") => "type: Present",
        ("canaries", "canaries", "weight" | "weights" | "route" | "routes" | "split" | "percent") => {
            "variants: [{name: v1, weight: 90}, {name: v2, weight: 10}]"
        }
        ("routes", "rules", "cluster" | "destination" | "backend" | "backends" | "backendRefs" | "service" | "to") => {
            return Some("write `route: beta`: the platform's own routes define the destination of `beta`".to_owned());
        }
        ("routes", "redirect", "host") => "hostname: shop.example.com",
        _ => return None,
    };
    Some(format!("write `{form}`"))
}

#[cfg(test)]
mod tests {
    use penstock_policy::Module;

    use super::*;
    use crate::yaml::Located;

    #[test]
    fn what_is_proposed_for_a_field_of_another_product_is_right() {
        for (policy, wrong) in [
            ("egress: {FIELD}", "allow: [a.test]"),
            ("egress: {rules: [{name: a, FIELD}]}", "hosts: [a.test]"),
            ("egress: {rules: [{name: a, FIELD}]}", "port: 1"),
            ("rateLimits: [{name: a, key: [{FIELD}], limit: {requests: 1, per: 1s}}]", "ip: {}"),
            ("canaries: [{name: c, stickiness: {FIELD}, variants: [{name: v, weight: 1}]}]", "clientIP: {}"),
            ("rateLimits: [{name: a, key: [], limit: {FIELD}}]", "rps: 5"),
            ("rateLimits: [{name: a, key: [], limit: {requests: 1, FIELD}}]", "unit: second"),
            ("routes: {rules: [{name: a, route: b, matches: [{path: {FIELD}}]}]}", "prefix: /a"),
            ("routes: {rules: [{name: a, route: b, matches: [{path: {FIELD}}]}]}", "exact: /a"),
            ("routes: {rules: [{name: a, route: b, matches: [{path: {FIELD}}]}]}", "regex: /a"),
            ("routes: {rules: [{name: a, route: b, matches: [{headers: [{name: x, FIELD}]}]}]}", "exact: a"),
            ("routes: {rules: [{name: a, route: b, matches: [{headers: [{name: x, FIELD}]}]}]}", "prefix: a"),
            ("routes: {rules: [{name: a, route: b, matches: [{queryParams: [{name: x, FIELD}]}]}]}", "regex: a"),
            ("routes: {rules: [{name: a, route: b, matches: [{cookies: [{name: x, FIELD}]}]}]}", "present: true"),
            ("canaries: [{name: c, FIELD}]", "weight: 5"),
            ("routes: {rules: [{name: a, FIELD}]}", "cluster: b"),
            ("routes: {rules: [{name: a, redirect: {FIELD}}]}", "host: a.test"),
        ] {
            let check = |field: &str| {
                let text = policy.replace("FIELD", field);
                penstock_policy::check(&Located::read(&text).unwrap().node, Module::Suite).map(drop)
            };
            let problems = check(wrong).expect_err(policy);
            let told = problems.iter().find_map(|problem| {
                crate::forms::form(&problem.path, None, &problem.message)
                    .filter(|_| problem.message.starts_with("unknown"))
            });
            let told = told.unwrap_or_else(|| panic!("{wrong}: {problems}"));
            let right = told.split('`').nth(1).unwrap();
            assert!(check(right).is_ok(), "{policy} {right}: {:?}", check(right));
        }
        assert_eq!(field("routes.rules[0].matchs", "matchs"), None);
    }
}
