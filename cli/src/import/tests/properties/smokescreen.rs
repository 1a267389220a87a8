//! <https://github.com/stripe/smokescreen#acls>: a service's own domains, then the global deny list, then the global allow
//! list, then its action.

use super::*;

const DOMAINS: [&str; 5] = ["a.example.com", "*.example.com", "b.example.org", "*.example.org", "c.test"];
const ASKED: [&str; 5] = ["a.example.com", "x.a.example.com", "b.example.org", "c.test", "other.test"];

type Service = (&'static str, Vec<&'static str>);

fn domains() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(&DOMAINS[..], 0..3)
}

fn service() -> impl Strategy<Value = Service> {
    (prop::sample::select(&["enforce", "enforce", "report", "open"][..]), domains())
}

fn allows(
    services: &[Service],
    default: Option<&Service>,
    deny: &[&str],
    allow: &[&str],
    caller: usize,
    host: &str,
) -> bool {
    let fits = |list: &[&str]| list.iter().any(|pattern| closeness(pattern, host).is_some());
    let Some((action, domains)) = services.get(caller).or(default) else { return false };
    fits(domains) || (!fits(deny) && (fits(allow) || *action != "enforce"))
}

proptest! {
    #[test]
    fn an_acl_allows_nothing_that_smokescreen_denies(
        services in prop::collection::vec(service(), 1..4), default in prop::option::of(service()),
        deny in domains(), allow in domains()
    ) {
        let json_of = |name: String, (action, domains): &Service| json!({"name": name, "project": "p", "action": action, "allowed_domains": domains});
        let list: Vec<Value> = services.iter().enumerate().map(|(i, service)| json_of(format!("s{i}"), service)).collect();
        let mut acl = json!({"version": "v1", "services": list, "global_deny_list": deny, "global_allow_list": allow});
        if let Some(default) = &default {
            acl["default"] = json_of("default".to_owned(), default);
        }
        let (_, policy, _, text) = policy_of(&[acl]);
        for caller in 0..=services.len() {
            for host in ASKED {
                let peer = if caller < services.len() { format!("smokescreen-role:s{caller}") } else { "spiffe://x/y".to_owned() };
                let json = json!({"method": "CONNECT", "authority": format!("{host}:443"), "path": "", "peer": peer});
                let request: WireRequest = serde_json::from_value(json).unwrap();
                let decision = request.decide(&policy, &mut World::new(Timestamp(0), 0));
                let allowed = decision.status.is_none();
                let expected = allows(&services, default.as_ref(), &deny, &allow, caller, host);
                prop_assert!(!allowed || expected, "{caller} {host} is allowed\n{text}");
                // A policy can always express a service's own list.
                let own = services.get(caller).is_some_and(|(_, domains)| domains.iter().any(|pattern| closeness(pattern, host).is_some()));
                prop_assert!(allowed || !own, "{caller} {host} is refused\n{text}");
            }
        }
    }
}
