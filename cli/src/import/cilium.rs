//! Cilium's `toFQDNs`: the names that the pods of a policy may connect to. `*` stays within a label; `**.` matches
//! several labels.

use penstock_policy::document::Node;

use super::draft::PolicyDraft;
use super::objects::{Objects, map, text};
use super::reader::{FieldReader, KubernetesObject};
use super::report::ImportReport;

/// The label with a pod's service account.
const ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";

pub fn policies(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let kinds = ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"];
    let found = kinds.iter().flat_map(|kind| objects.of(kind, "cilium.io"));
    let all: Vec<(String, Node)> =
        found.flat_map(|(file, node)| each(node).into_iter().map(|node| (file.clone(), node))).collect();
    // A Penstock policy applies to pods of one kind, or to callers that it can identify.
    let selectors: Vec<String> = all
        .iter()
        .map(|(_, node)| {
            let object = KubernetesObject::open(node, report);
            format!("{} {:?}", object.in_namespace(), object.spec.take("endpointSelector"))
        })
        .collect();
    // It applies to the Pods of other policies, too.
    let denied = all.iter().map(|(_, node)| Denied::of(denials(node))).max().unwrap_or_default();
    let is_one_place = selectors.windows(2).all(|two| two.first() == two.last());
    for (file, node) in &all {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        let callers = callers(&object, report);
        let spec = &object.spec;
        spec.ignore(&["description"]);
        spec.elsewhere(
            &["ingress", "ingressDeny", "enableDefaultDeny", "nodeSelector"],
            "the platform's own policy still applies",
            report,
        );
        if let Some(rules) = spec.take("egressDeny") {
            let what = rules.to_string();
            match Denied::of(Some(rules)) {
                Denied::Nothing => {
                    report.elsewhere("spec.egressDeny", what, "it denies nothing that a policy can allow")
                }
                Denied::Addresses => {
                    let consequence =
                        "rules for addresses are left out; the platform denies these addresses to names, too";
                    report.lost("spec.egressDeny", what, consequence);
                }
                Denied::Anything => {
                    report.lost("spec.egressDeny", what, "every rule is left out: it may deny a part of it")
                }
            }
        }
        let from = match callers {
            Some(caller) => {
                let what = format!("pods of {caller}");
                report.elsewhere("spec.endpointSelector", what, "the trust domain cluster.local is assumed");
                Some(caller)
            }
            None if is_one_place => {
                let what = "the Pods that it applies to";
                report.elsewhere("spec.endpointSelector", what, "the policy applies wherever you deploy it");
                None
            }
            None => {
                let what = "policies for different Pods that `from` cannot distinguish";
                report.lost(
                    "spec.endpointSelector",
                    what,
                    "it allows nothing: import the policies of one kind of Pods at a time",
                );
                draft.no_egress_rule(format!("{}: {what}", report.place("spec.endpointSelector")));
                continue;
            }
        };
        for (i, rule) in spec.objects("egress", report).iter().enumerate() {
            let name = format!("{}-{}", object.name, i + 1);
            egress(&name, rule, from.as_deref(), denied, draft, report);
        }
        for (field, value) in spec.rest() {
            report.lost(&spec.at(field), value.to_string(), "requests are decided without it");
        }
    }
}

fn denials(object: &Node) -> Option<&Node> {
    object.get("spec")?.get("egressDeny")
}

/// What `egressDeny` can take from the rules, at most. A policy denies for all callers or for none, and does not know the addresses of
/// names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Denied {
    /// Nothing that a rule can allow.
    #[default]
    Nothing,
    /// Addresses.
    Addresses,
    /// Names, too.
    Anything,
}

impl Denied {
    fn of(rules: Option<&Node>) -> Denied {
        match rules {
            None | Some(Node::Null) => Denied::Nothing,
            Some(Node::List(rules)) => rules.iter().map(Denied::by).max().unwrap_or_default(),
            Some(_) => Denied::Anything,
        }
    }

    /// What one rule denies.
    fn by(rule: &Node) -> Denied {
        let Node::Map(fields) = rule else { return Denied::Anything };
        let list = |field: &str| match rule.get(field) {
            Some(Node::List(items)) => items.as_slice(),
            _ => &[],
        };
        let is = |node: Option<&Node>, words: &[&str]| matches!(node, Some(Node::String(text)) if words.contains(&text.as_str()));
        let ports: Vec<&Node> = list("toPorts")
            .iter()
            .flat_map(|to| match to.get("ports") {
                Some(Node::List(ports)) => ports.iter().collect::<Vec<&Node>>(),
                _ => vec![to],
            })
            .collect();
        let is_other = |port: &&Node| is(port.get("protocol"), &["UDP", "SCTP", "ICMP", "ICMPv6"]);
        if rule.get("icmps").is_some() || !ports.is_empty() && ports.iter().all(is_other) {
            return Denied::Nothing;
        }
        let of_fields = fields.iter().filter(|(field, _)| field != "toPorts").map(|(field, _)| match field.as_str() {
            "toCIDR" | "toCIDRSet" => Denied::Addresses,
            // Destinations in the cluster, which neither names nor ranges of a rule reach.
            "toEndpoints" | "toServices" | "toNodes" => Denied::Nothing,
            "toEntities" if list("toEntities").iter().all(|entity| is(Some(entity), &IN_CLUSTER)) => Denied::Nothing,
            _ => Denied::Anything,
        });
        // Without a destination, it denies every one.
        of_fields.max().unwrap_or(Denied::Anything)
    }
}

/// Entities that are in the cluster.
const IN_CLUSTER: [&str; 8] =
    ["cluster", "host", "remote-node", "kube-apiserver", "health", "init", "ingress", "unmanaged"];

/// Splits an object with `specs` into one object for each.
fn each(node: &Node) -> Vec<Node> {
    let (Node::Map(fields), Some(Node::List(specs))) = (node, node.get("specs")) else { return vec![node.clone()] };
    let others: Vec<(String, Node)> =
        fields.iter().filter(|(name, _)| name != "spec" && name != "specs").cloned().collect();
    let specs = node.get("spec").into_iter().chain(specs);
    specs.map(|spec| Node::Map([others.clone(), vec![("spec".to_owned(), spec.clone())]].concat())).collect()
}

/// The identity of the pods, when their service account alone selects them.
fn callers(object: &KubernetesObject<'_>, report: &mut ImportReport) -> Option<String> {
    let selector = object.spec.object("endpointSelector", report)?;
    let labels = selector.pairs("matchLabels", report);
    let name = |key: &str| key.strip_prefix("k8s:").unwrap_or(key).to_owned();
    match labels {
        [(key, Node::String(account))] if name(key) == ACCOUNT && selector.rest().is_empty() => {
            Some(format!("spiffe://cluster.local/ns/{}/sa/{account}", object.in_namespace()))
        }
        _ => None,
    }
}

fn egress(
    name: &str,
    rule: &FieldReader<'_>,
    from: Option<&str>,
    denied: Denied,
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    let lost = |at: &str, what: String, draft: &mut PolicyDraft, report: &mut ImportReport| {
        report.lost(at, what.clone(), "it allows nothing");
        draft.no_egress_rule(format!("{}: {what}", report.place(at)));
    };
    // An invalid list would allow everything that it does not mention.
    let shape = report.conditions(|report| {
        rule.objects("toFQDNs", report);
        for to in rule.objects("toPorts", report) {
            to.objects("ports", report);
            to.object("rules", report).iter().for_each(|rules| drop(rules.objects("http", report)));
        }
        Ok(())
    });
    if let Err(why) = shape {
        return lost(rule.path(), why, draft, report);
    }
    if denied == Denied::Anything {
        return lost(rule.path(), "`egressDeny` may deny a part of it".to_owned(), draft, report);
    }
    let mut hosts: Vec<Node> = Vec::new();
    for entry in rule.objects("toFQDNs", report) {
        if let Some(name) = entry.string("matchName", report) {
            hosts.push(map([("host", text(name.trim_end_matches('.').to_ascii_lowercase()))]));
        }
        if let Some(pattern) = entry.string("matchPattern", report) {
            let below = pattern.strip_prefix("**.").filter(|name| !name.contains('*'));
            match below {
                Some(name) => hosts.push(map([("host", text(format!("*.{name}")))])),
                None if !pattern.contains('*') => hosts.push(map([("host", text(pattern))])),
                None => {
                    let what = format!(
                        "{pattern}: its star is a part of one label, and a star in a policy is one or more labels"
                    );
                    lost(&entry.at("matchPattern"), what, draft, report);
                }
            }
        }
    }
    for field in ["toCIDR", "toCIDRSet"] {
        for (i, item) in rule.list(field, report).iter().enumerate() {
            let at = format!("{}[{i}]", rule.at(field));
            match item {
                item if denied == Denied::Addresses => {
                    lost(&at, format!("{item}: `egressDeny` may deny a part of it"), draft, report);
                }
                Node::String(range) => hosts.push(map([("cidr", text(range.as_str()))])),
                item => match (item.get("cidr"), item.get("except")) {
                    (Some(Node::String(range)), None) => hosts.push(map([("cidr", text(range.as_str()))])),
                    _ => lost(&at, format!("{item}: a range with exceptions, or of a group"), draft, report),
                },
            }
        }
    }
    for field in ["toEntities", "toEndpoints", "toServices", "toGroups", "toNodes"] {
        if let Some(value) = rule.take(field) {
            // An entry for destinations that do not go through an egress proxy, or for all destinations.
            lost(&rule.at(field), value.to_string(), draft, report);
        }
    }
    let messages = rule.take("icmps");
    if let Some(value) = messages {
        report.elsewhere(rule.path(), value.to_string(), "it is not HTTP, and a policy only decides HTTP");
    }
    // HTTP rules of an entry apply to its own ports.
    let mut entries: Vec<Ports> = Vec::new();
    let mut is_lost = false;
    if let Some(authentication) = rule.take("authentication") {
        match authentication.get("mode") {
            Some(Node::String(mode)) if mode == "disabled" => {}
            // The identity in `from` is a verified one.
            Some(Node::String(mode)) if mode == "required" && from.is_some() => {}
            _ => is_lost = true,
        }
    }
    for to in rule.objects("toPorts", report) {
        let mut entry = Ports::default();
        for port in to.objects("ports", report) {
            let protocol = port.string("protocol", report).unwrap_or_else(|| "ANY".to_owned());
            let number = port.string("port", report).unwrap_or_default();
            match number.parse::<i64>() {
                Ok(number) if number > 0 && matches!(protocol.as_str(), "TCP" | "ANY") && !port.has("endPort") => {
                    if !entry.numbers.contains(&Node::Integer(number)) {
                        entry.numbers.push(Node::Integer(number));
                    }
                }
                Ok(_) if matches!(protocol.as_str(), "TCP" | "ANY") => {
                    let what = "a range of ports: a policy lists ports one by one".to_owned();
                    lost(port.path(), what, draft, report);
                }
                _ => {
                    let what = format!("port {number} {protocol}");
                    report.elsewhere(port.path(), what, "it is not HTTP, and a policy only decides HTTP");
                }
            }
        }
        if let Some(rules) = to.object("rules", report) {
            rules.ignore(&["dns"]);
            entry.http.extend(rules.list("http", report).iter().cloned());
            is_lost |= !rules.rest().is_empty();
        }
        is_lost |= to.rest().iter().any(|(field, _)| !matches!(*field, "terminatingTLS" | "originatingTLS"));
        entries.push(entry);
    }
    if !rule.rest().is_empty() || is_lost {
        return lost(rule.path(), "it has conditions that a policy does not have".to_owned(), draft, report);
    }
    let mut all = Vec::new();
    node_of(&hosts, None, from).into_iter().for_each(|node| all.push((node, Vec::new())));
    if !entries.is_empty() || messages.is_some() {
        all.clear();
        // The others only have ports of other protocols.
        for entry in entries.into_iter().filter(|entry| !entry.numbers.is_empty()) {
            all.extend(node_of(&hosts, Some(&entry.numbers), from).map(|node| (node, entry.http)));
        }
    }
    if all.is_empty() {
        draft.no_egress_rule(format!(
            "{}: it names no host, or no port of HTTP, so it allows nothing",
            report.place(rule.path())
        ));
    }
    let is_one = all.len() == 1;
    for (i, (node, http)) in all.into_iter().enumerate() {
        let name = if is_one { name.to_owned() } else { format!("{name}-p{}", i + 1) };
        match http.is_empty() {
            true => draft.egress_rule(&name, node, &report.place(rule.path()), report),
            false => self::http(&name, rule, &node, &http, draft, report),
        }
    }
}

/// An entry of `toPorts`.
#[derive(Default)]
struct Ports {
    numbers: Vec<Node>,
    http: Vec<Node>,
}

/// A rule for these hosts and ports; `None` when there is no host.
fn node_of(hosts: &[Node], ports: Option<&Vec<Node>>, from: Option<&str>) -> Option<Vec<(&'static str, Node)>> {
    let to: Vec<Node> = hosts
        .iter()
        .map(|host| match (host.clone(), ports) {
            (Node::Map(mut entries), Some(ports)) => {
                entries.push(("ports".to_owned(), Node::List(ports.clone())));
                Node::Map(entries)
            }
            (host, _) => host,
        })
        .collect();
    let mut node = Vec::new();
    node.extend(from.map(|from| ("from", Node::List(vec![text(from)]))));
    let has_hosts = !to.is_empty();
    node.push(("to", Node::List(to)));
    has_hosts.then_some(node)
}

/// One rule for each HTTP rule of an entry.
fn http(
    name: &str,
    rule: &FieldReader<'_>,
    node: &[(&'static str, Node)],
    http: &[Node],
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    let lost = |at: &str, what: String, draft: &mut PolicyDraft, report: &mut ImportReport| {
        report.lost(at, what.clone(), "it allows nothing");
        draft.no_egress_rule(format!("{}: {what}", report.place(at)));
    };
    for (i, entry) in http.iter().enumerate() {
        let at = format!("{}.toPorts.rules.http[{i}]", rule.path());
        let reader = FieldReader::new(entry, &at, report);
        let mut node = node.to_vec();
        if let Some(method) = reader.string("method", report).filter(|method| !method.is_empty()) {
            match super::matching::methods_of(&method) {
                Some(methods) => node.push(("methods", Node::List(methods.into_iter().map(text).collect()))),
                None => {
                    lost(&at, format!("method {method}: a policy only matches methods by name"), draft, report);
                    continue;
                }
            }
        }
        if let Some(path) = reader.string("path", report).filter(|path| !path.is_empty()) {
            let path = map([("type", text("RegularExpression")), ("value", text(path))]);
            node.push(("paths", Node::List(vec![path])));
        }
        if let Some((field, value)) = reader.rest().first() {
            lost(&at, format!("{field} {value}: an egress rule has no such condition"), draft, report);
            continue;
        }
        draft.egress_rule(&format!("{name}-{}", i + 1), node, &report.place(&at), report);
    }
}
