//! Smokescreen's ACLs: which services may connect to which domains. A service's own list takes precedence over the
//! global lists; for domains in no list, the service's `action` decides.

use penstock_policy::document::{At, Context, Decode as _, Node};
use penstock_policy::egress::EgressHost;

use super::draft::PolicyDraft;
use super::objects::{map, text};
use super::reader::FieldReader;
use super::report::ImportReport;
use super::table::RuleHost;

/// The scheme of placeholder identities for roles, until the user fills in the certificates' identities.
const ROLE: &str = "smokescreen-role";

/// One rule of an ACL.
struct AclService {
    name: String,
    project: Option<String>,
    action: String,
    domains: Vec<String>,
    place: String,
}

/// Whether a document is an ACL.
pub fn is_one(node: &Node) -> bool {
    let has_action = |node: &Node| node.get("action").is_some() && node.get("name").is_some();
    let services = matches!(node.get("services"), Some(Node::List(items)) if items.iter().any(has_action));
    services || (node.get("default").is_some_and(has_action) && node.get("kind").is_none())
}

/// Reads an ACL.
pub fn acl(node: &Node, draft: &mut PolicyDraft, report: &mut ImportReport) {
    report.object = "ACL".to_owned();
    let reader = FieldReader::new(node, "", report);
    reader.ignore(&["version"]);
    let denied = report.conditions(|report| Ok(reader.strings("global_deny_list", report)));
    let services: Vec<AclService> =
        reader.objects("services", report).iter().map(|service| read(service, report)).collect();
    let default = reader.object("default", report).map(|default| read(&default, report));
    let allow = reader.strings("global_allow_list", report);
    let (deny, allow) = match denied {
        Ok(deny) => (deny, allow),
        Err(why) => {
            report.lost("global_deny_list", why, "global_allow_list allows nothing");
            (vec!["*".to_owned()], Vec::new())
        }
    };
    reader.end(report);
    let all = || services.iter().chain(&default);
    // A policy's Audit mode applies to all rules, so it is only used when no service is enforced.
    let audits =
        default.is_some() && deny.is_empty() && all().all(|service| ["report", "open"].contains(&&*service.action));
    draft.audits |= audits;
    for service in all().filter(|_| !audits) {
        if service.action == "enforce" {
            continue;
        }
        let what =
            format!("action {}: a policy cannot enforce for some services and report for others", service.action);
        report.lost_at(&service.place, what.clone(), "requests to hosts outside its allowed_domains are refused");
        draft.no_egress_rule(format!("{}: {what}", service.place));
    }
    if !services.is_empty() {
        let what = format!("services are identified by the role in their certificate: `{ROLE}:NAME` in `from`");
        report.elsewhere(
            "services",
            what,
            "write the identity of each, such as spiffe://cluster.local/ns/shop/sa/cart",
        );
    }
    for service in &services {
        let caller = caller(service);
        rule(&service.name, service, &service.domains, Some(&caller), draft, report);
    }
    let denied = |domain: &String| deny.iter().any(|deny| meets(deny, domain));
    // Every service with a rule may connect to what is allowed globally and not denied.
    let place = report.place("global_allow_list");
    let (refused, allowed): (Vec<String>, Vec<String>) = allow.into_iter().partition(denied);
    for domain in refused {
        let what = format!(
            "{domain}: global_deny_list contains a part of it, and a policy denies a host for all callers or for none"
        );
        report.lost_at(&place, what.clone(), "it is refused");
        draft.no_egress_rule(format!("{place}: {what}"));
    }
    if !allowed.is_empty() {
        let callers: Vec<String> = services.iter().map(caller).collect();
        let everybody = AclService {
            name: "everybody".to_owned(),
            project: None,
            action: String::new(),
            domains: Vec::new(),
            place,
        };
        match default {
            Some(_) => rule("global-allow-list", &everybody, &allowed, None, draft, report),
            None if callers.is_empty() => {}
            None => rule_for("global-allow-list", &everybody, &allowed, Some(callers), draft, report),
        }
    }
    if let Some(default) = &default {
        // A rule without `from` applies to everyone, including services with their own rule.
        let covered =
            |domain: &String| services.iter().all(|service| service.domains.iter().any(|own| covers(own, domain)));
        let (everybody, some): (Vec<String>, Vec<String>) = default.domains.iter().cloned().partition(covered);
        for domain in some {
            let what = format!("{domain} for callers without a rule: `from` cannot exclude callers");
            report.lost_at(&default.place, what.clone(), "it is refused unless another rule allows it");
            draft.no_egress_rule(format!("{}: {what}", default.place));
        }
        if !everybody.is_empty() {
            rule("default", default, &everybody, None, draft, report);
        }
    }
}

fn caller(service: &AclService) -> String {
    let clean: String = service.name.chars().map(|c| if c.is_ascii_graphic() && c != '*' { c } else { '-' }).collect();
    format!("{ROLE}:{clean}")
}

fn read(service: &FieldReader<'_>, report: &mut ImportReport) -> AclService {
    let found = AclService {
        name: service.string("name", report).unwrap_or_else(|| "default".to_owned()),
        project: service.string("project", report),
        action: service.string("action", report).unwrap_or_default(),
        domains: service.strings("allowed_domains", report),
        place: report.place(service.path()),
    };
    let proxies = service.strings("allowed_external_proxies", report);
    if !proxies.is_empty() {
        let what = "a policy cannot name another proxy";
        report.lost(&service.at("allowed_external_proxies"), what, "such requests are refused");
    }
    if let Some(mitm) = service.take("mitm_domains") {
        report.lost(&service.at("mitm_domains"), mitm.to_string(), "requests are forwarded without it");
    }
    for (field, value) in service.rest() {
        report.lost(&service.at(field), value.to_string(), "requests are decided without it");
    }
    found
}

fn rule(
    name: &str,
    service: &AclService,
    domains: &[String],
    caller: Option<&str>,
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    rule_for(name, service, domains, caller.map(|caller| vec![caller.to_owned()]), draft, report);
}

fn rule_for(
    name: &str,
    service: &AclService,
    domains: &[String],
    callers: Option<Vec<String>>,
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    let is_host = |domain: &&String| {
        EgressHost::decode(&text(domain.as_str()), &At::Root, &mut Context::new(String::new(), 0)).is_some()
    };
    let (good, bad): (Vec<&String>, Vec<&String>) = domains.iter().partition(is_host);
    for domain in bad {
        let what = format!("{domain}: an egress rule cannot contain this host");
        report.lost_at(&service.place, what.clone(), "it is refused");
        draft.no_egress_rule(format!("{}: {what}", service.place));
    }
    if good.is_empty() {
        return draft.no_egress_rule(format!("{}: it allows nothing", service.place));
    }
    let mut node = Vec::new();
    node.extend(service.project.as_ref().map(|project| ("owner", text(project.as_str()))));
    node.extend(callers.map(|callers| ("from", Node::List(callers.into_iter().map(text).collect()))));
    node.push(("to", Node::List(good.into_iter().map(|domain| map([("host", text(domain.as_str()))])).collect())));
    // Clients use tunnels (CONNECT) through a CONNECT proxy, and plain requests.
    node.push(("connect", Node::Bool(true)));
    draft.egress_rule(name, node, &service.place, report);
}

fn meets(a: &str, b: &str) -> bool {
    RuleHost::parse(a).zip(RuleHost::parse(b)).is_none_or(|(a, b)| a.meets(&b))
}

fn covers(a: &str, b: &str) -> bool {
    RuleHost::parse(a).zip(RuleHost::parse(b)).is_some_and(|(a, b)| a.covers(&b))
}
