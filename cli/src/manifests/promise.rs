//! Checks the Envoy settings around a plugin that its policy's guarantees depend on; `docs/security-model.md` describes
//! them for users. The module itself sees none of these settings.

use penstock_policy::document::Node;

use super::envoy_fields::camel;
use super::path::join;
use super::platform::Doubt;

/// A connection manager, with its filter chain.
pub struct Surroundings<'n> {
    path: String,
    manager: &'n Node,
    chain: Option<(String, &'n Node)>,
}

/// The properties of a policy that depend on its surroundings.
struct Needs {
    has_egress: bool,
    /// Egress rules have `paths`, so path normalisation matters.
    has_paths: bool,
    /// An identity from a client certificate is used to allow, count or assign requests.
    trusts_certificates: bool,
    allows_certificates: bool,
    hops: i64,
    reads_forwarded: bool,
    default_port: Option<i64>,
}

impl Needs {
    fn of(policy: &Node) -> Needs {
        let egress = policy.get("egress");
        let settings = policy.get("settings");
        let identity = settings.and_then(|settings| settings.get("identity")).or_else(|| egress?.get("identity"));
        let is_certificate = identity.is_none_or(|identity| identity.get("peerCertificate").is_some());
        let allows = egress.is_some_and(|egress| has_field(egress, "from"));
        let counts = ["rateLimits", "canaries"]
            .iter()
            .any(|section| policy.get(section).is_some_and(|it| has_field(it, "peer")));
        let source = settings.and_then(|settings| settings.get("sourceAddress"));
        let number = |node: Option<&Node>| match node {
            Some(Node::Integer(number)) => Some(*number),
            _ => None,
        };
        let hops = number(source.and_then(|source| source.get("trustedHops"))).unwrap_or(0);
        Needs {
            has_egress: egress.is_some(),
            has_paths: egress.is_some_and(|egress| has_field(egress, "paths")),
            trusts_certificates: is_certificate && (allows || counts),
            allows_certificates: is_certificate && allows,
            hops,
            reads_forwarded: hops > 0 || source.is_some_and(|source| source.get("trustedProxies").is_some()),
            default_port: number(egress.and_then(|egress| egress.get("defaultPort"))),
        }
    }
}

/// Whether a policy calls a rate-limit service.
pub fn asks_a_service(policy: &Node) -> bool {
    policy.get("rateLimits").is_some_and(|limits| has_field(limits, "global"))
}

impl<'n> Surroundings<'n> {
    /// Every connection manager of a document.
    pub fn of(document: &'n Node) -> Vec<Surroundings<'n>> {
        let mut all = Vec::new();
        walk(document, "", None, &mut all);
        all
    }

    /// Whether a plugin at this place, in a filter with this name, runs in it: as one of its filters, or by discovery.
    pub fn has(&self, plugin: &str, filter: Option<&str>) -> bool {
        let filters = ["http_filters", "httpFilters"].map(|field| join(&self.path, field));
        if filters.iter().any(|filters| plugin.strip_prefix(filters).is_some_and(|rest| rest.starts_with('['))) {
            return true;
        }
        let Some(Node::List(own)) = field(self.manager, "http_filters") else { return false };
        own.iter()
            .any(|own| field(own, "config_discovery").is_some() && filter.is_some() && text(own.get("name")) == filter)
    }

    /// The warnings for this policy, each with its path in the document.
    pub fn doubts(&self, policy: &Node, document: &'n Node) -> Vec<Doubt> {
        let needs = Needs::of(policy);
        let mut doubts = Doubts::default();
        self.addresses(&needs, &mut doubts);
        self.identities(&needs, document, &mut doubts);
        if needs.has_paths {
            self.paths(&mut doubts);
        }
        if needs.has_egress {
            self.authorities(&mut doubts);
            self.rewrites(&mut doubts);
            self.ports(&needs, document, &mut doubts);
        }
        doubts.all
    }

    fn has_tls(&self) -> bool {
        self.chain.as_ref().is_some_and(|(_, chain)| field(chain, "transport_socket").is_some())
    }

    fn addresses(&self, needs: &Needs, doubts: &mut Doubts) {
        let own_hops = matches!(field(self.manager, "xff_num_trusted_hops"), Some(Node::Integer(hops)) if *hops > 0);
        let uses_remote = is_true(field(self.manager, "use_remote_address"));
        if needs.hops > 0 && !uses_remote {
            doubts.add(
                self.path.clone(),
                "`use_remote_address` is not true, and `settings.sourceAddress.trustedHops` counts entries that Envoy has \
                 used up: the rest of `x-forwarded-for` was written by the client, which can so choose its address",
                "set `use_remote_address: true`, or set `trustedHops` to 0, or use `trustedProxies`",
            );
        } else if needs.hops > 0 && own_hops {
            doubts.add(
                self.at("xff_num_trusted_hops"),
                "Envoy and `settings.sourceAddress.trustedHops` both count the proxies in front",
                "set one of them to 0",
            );
        }
        if needs.reads_forwarded && is_true(field(self.manager, "skip_xff_append")) {
            doubts.add(
                self.at("skip_xff_append"),
                "Envoy does not append the peer to `x-forwarded-for`: behind a proxy on the same machine the last entry, which \
                 is the client's, is taken for Envoy's own",
                "remove it if the policy has `settings.sourceAddress`",
            );
        }
    }

    fn identities(&self, needs: &Needs, document: &'n Node, doubts: &mut Doubts) {
        let Some((path, chain)) = &self.chain else { return };
        let Some(socket) = field(chain, "transport_socket") else {
            if needs.allows_certificates {
                doubts.add(
                    path.clone(),
                    "connections here have no TLS, so callers have no identity: rules with `from` allow nobody",
                    "add a `transport_socket` with `require_client_certificate: true`, or set `settings.identity`",
                );
            }
            return;
        };
        if !needs.trusts_certificates {
            return;
        }
        let at = join(path, "transport_socket");
        let named = find(socket, "", &|name, node| {
            (is_called(name, "validation_context_sds_secret_config")).then(|| text(node.get("name"))).flatten()
        });
        let secret = named.and_then(|(_, secret)| {
            find(document, "", &|_, node| {
                (text(node.get("name")) == Some(secret)).then(|| field(node, "validation_context")).flatten()
            })
        });
        let accepts = |_: &str, node: &'n Node| match field(node, "trust_chain_verification") {
            Some(Node::String(word)) if word == "ACCEPT_UNTRUSTED" => Some(()),
            Some(Node::Integer(1)) => Some(()),
            _ => None,
        };
        let here = find(socket, &at, &accepts).map(|(at, ())| at);
        let in_secret = secret
            .and_then(|(at, context)| find(context, &join(&at, "validation_context"), &accepts))
            .map(|(at, ())| at);
        if let Some(at) = here.or(in_secret) {
            doubts.add(
                at,
                "`ACCEPT_UNTRUSTED` accepts every certificate: a caller can claim any identity with a self-signed one",
                "use VERIFY_TRUST_CHAIN (the default), with a `trusted_ca`",
            );
        }
        let is_required = find(socket, "", &|_, node| is_true(field(node, "require_client_certificate")).then_some(()));
        if needs.allows_certificates && is_required.is_none() {
            doubts.add(
                at,
                "clients need no certificate here: rules with `from` refuse every request of a client without one",
                "set `require_client_certificate: true`",
            );
        }
    }

    fn paths(&self, doubts: &mut Doubts) {
        for name in ["normalize_path", "merge_slashes"] {
            if is_true(field(self.manager, name)) {
                doubts.add(
                    self.at(name),
                    format!("`{name}` changes the path before the egress rules see it: they decide and log another path than the client sent"),
                    "remove it: the module converts paths to their canonical form itself",
                );
            }
        }
        let escaped = field(self.manager, "path_with_escaped_slashes_action");
        if text(escaped).is_some_and(|action| action.starts_with("UNESCAPE")) {
            doubts.add(
                self.at("path_with_escaped_slashes_action"),
                "unescapes slashes before the egress rules see them: ambiguous paths are no longer refused",
                "use KEEP_UNCHANGED (the default), or REJECT_REQUEST",
            );
        }
        let options = field(self.manager, "common_http_protocol_options");
        let underscores = options.and_then(|options| field(options, "headers_with_underscores_action"));
        if !matches!(text(underscores), Some("REJECT_REQUEST" | "DROP_HEADER")) {
            doubts.add(
                self.path.clone(),
                "headers with underscores pass: some upstreams treat `x_original_url` as `x-original-url`, which the rules refuse",
                "set `common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}`",
            );
        }
    }

    fn authorities(&self, doubts: &mut Doubts) {
        for name in ["strip_any_host_port", "strip_matching_host_port"] {
            if is_true(field(self.manager, name)) {
                doubts.add(
                    self.at(name),
                    format!("`{name}` removes the port before the egress rules see it: they match another port than the client requested"),
                    "leave it out",
                );
            }
        }
    }

    fn rewrites(&self, doubts: &mut Doubts) {
        const CHANGES: [&str; 8] = [
            "host_rewrite_literal",
            "host_rewrite_header",
            "host_rewrite_path_regex",
            "auto_host_rewrite",
            "prefix_rewrite",
            "regex_rewrite",
            "path_rewrite_policy",
            "path_rewrite",
        ];
        let Some(routes) = field(self.manager, "route_config") else { return };
        let changed = find(routes, &self.at("route_config"), &|_, node| {
            CHANGES.into_iter().find(|name| field(node, name).is_some_and(|value| *value != Node::Bool(false)))
        });
        if let Some((at, name)) = changed {
            doubts.add(
                join(&at, name),
                format!("`{name}` changes the request after the egress rules have matched it"),
                "remove it, unless it leads to the destination of the rule",
            );
        }
    }

    fn ports(&self, needs: &Needs, document: &Node, doubts: &mut Doubts) {
        let forwards = |node: &Node| {
            let kind = field(node, "cluster_type").and_then(|kind| text(kind.get("name")));
            kind.is_some_and(|kind| kind.contains("dynamic_forward_proxy"))
        };
        let Some(routes) = field(self.manager, "route_config") else { return };
        let matched = needs.default_port.unwrap_or(if self.has_tls() { 443 } else { 80 });
        let mut said = Vec::new();
        each(routes, &mut |node| said.extend(text(node.get("cluster"))));
        let mut wrong = Vec::new();
        each_at(document, "", &mut |at, node| {
            if text(node.get("name")).is_some_and(|name| said.contains(&name)) {
                if forwards(node) {
                    let goes_to = if field(node, "transport_socket").is_some() { 443 } else { 80 };
                    if goes_to != matched {
                        wrong.push((at.to_owned(), goes_to));
                    }
                }
                let original = field(node, "original_dst_lb_config");
                if original.is_some_and(|config| is_true(field(config, "use_http_header"))) {
                    wrong.push((join(at, "original_dst_lb_config"), 0));
                }
            }
        });
        for (at, port) in wrong {
            if port == 0 {
                doubts.add(
                    at,
                    "a header of the request chooses the address to which this cluster connects, whatever the rules have matched",
                    "leave `use_http_header` out",
                );
                continue;
            }
            doubts.add(
                at,
                format!(
                    "requests whose authority has no port go to port {port} of this cluster, and are matched as port {matched}"
                ),
                format!("set `egress.defaultPort: {port}`"),
            );
        }
    }

    fn at(&self, name: &str) -> String {
        let is_there = self.manager.get(name).is_some();
        join(&self.path, &if is_there { name.to_owned() } else { camel(name) })
    }
}

#[derive(Default)]
struct Doubts {
    all: Vec<Doubt>,
}

impl Doubts {
    fn add(&mut self, path: String, message: impl Into<String>, help: impl Into<String>) {
        self.all.push(Doubt { path, message: message.into(), help: help.into() });
    }
}

/// The connection managers below `node`.
fn walk<'n>(node: &'n Node, path: &str, chain: Option<(&str, &'n Node)>, all: &mut Vec<Surroundings<'n>>) {
    let chain = if field(node, "filters").is_some() { Some((path, node)) } else { chain };
    if field(node, "http_filters").is_some() {
        let chain = chain.map(|(path, chain)| (path.to_owned(), chain));
        all.push(Surroundings { path: path.to_owned(), manager: node, chain });
    }
    match node {
        Node::Map(fields) => fields.iter().for_each(|(name, value)| walk(value, &join(path, name), chain, all)),
        Node::List(items) => {
            items.iter().enumerate().for_each(|(i, item)| walk(item, &format!("{path}[{i}]"), chain, all));
        }
        _ => {}
    }
}

/// The first result of `ask` for a node and the name of its field, with the path of that node.
fn find<'n, T>(node: &'n Node, path: &str, ask: &impl Fn(&str, &'n Node) -> Option<T>) -> Option<(String, T)> {
    let name = path.rsplit('.').next().unwrap_or_default();
    if let Some(found) = ask(name, node) {
        return Some((path.to_owned(), found));
    }
    match node {
        Node::Map(fields) => fields.iter().find_map(|(name, value)| find(value, &join(path, name), ask)),
        Node::List(items) => items.iter().enumerate().find_map(|(i, item)| find(item, &format!("{path}[{i}]"), ask)),
        _ => None,
    }
}

fn each<'n>(node: &'n Node, visit: &mut impl FnMut(&'n Node)) {
    each_at(node, "", &mut |_, node| visit(node));
}

fn each_at<'n>(node: &'n Node, path: &str, visit: &mut impl FnMut(&str, &'n Node)) {
    visit(path, node);
    match node {
        Node::Map(fields) => fields.iter().for_each(|(name, value)| each_at(value, &join(path, name), visit)),
        Node::List(items) => {
            items.iter().enumerate().for_each(|(i, item)| each_at(item, &format!("{path}[{i}]"), visit));
        }
        _ => {}
    }
}

/// Whether anything below has a field with this name.
fn has_field(node: &Node, name: &str) -> bool {
    find(node, "", &|_, node| node.get(name).map(|_| ())).is_some()
}

/// A field of a protobuf message, which files write with its own name or with its JSON name.
fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    node.get(name).or_else(|| node.get(&camel(name)))
}

fn is_called(found: &str, name: &str) -> bool {
    found == name || found == camel(name)
}

fn is_true(node: Option<&Node>) -> bool {
    node == Some(&Node::Bool(true))
}

fn text(node: Option<&Node>) -> Option<&str> {
    match node {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    /// A listener with a policy: fields of the manager, of its filter chain, and of the document.
    fn said(policy: &str, manager: &str, chain: &str, document: &str) -> Vec<String> {
        let yaml = format!(
            "{{listeners: [{{filter_chains: [{{filters: [{{typed_config: {{http_filters: [{{name: ours}}]{manager}}}}}]{chain}}}]}}]{document}}}\n"
        );
        let document = Located::read(&yaml).unwrap().node;
        let all = Surroundings::of(&document);
        assert_eq!(all.len(), 1, "{yaml}");
        assert!(all[0].has("listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config", None));
        let policy = Located::read(policy).unwrap().node;
        all[0]
            .doubts(&policy, &document)
            .into_iter()
            .map(|doubt| format!("{}: {}", doubt.path, doubt.message))
            .collect()
    }

    const RIGHT: &str = ", common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}";
    const EGRESS: &str = "egress: {rules: [{name: r, to: [{host: a.test}], paths: [{value: /}]}]}";
    const CALLER: &str = "egress: {rules: [{name: r, from: [x], to: [{host: a.test}]}]}";

    #[test]
    fn each_setting_that_breaks_a_guarantee_is_reported_for_policies_that_need_it() {
        let tls = |fields: &str| format!(", transport_socket: {{typed_config: {{{fields}}}}}");
        let strict =
            "require_client_certificate: true, common_tls_context: {validation_context: {trusted_ca: {filename: ca}}}";
        let untrusted = strict.replace("trusted_ca: {filename: ca}", "trust_chain_verification: ACCEPT_UNTRUSTED");
        let hops = "settings: {sourceAddress: {trustedHops: 1}}";
        let peers = "rateLimits: [{name: l, key: [{peer: {}}], limit: {requests: 1, per: 1s}}]";
        let remote = ", use_remote_address: true";
        let forward = |extra: &str| {
            format!(", clusters: [{{name: out, cluster_type: {{name: envoy.clusters.dynamic_forward_proxy}}{extra}}}]")
        };
        let to_out = ", route_config: {virtual_hosts: [{routes: [{route: {cluster: out}}]}]}";
        for (policy, manager, chain, document, part) in [
            (EGRESS, ", normalize_path: true", String::new(), String::new(), "`normalize_path` changes the path"),
            (EGRESS, ", mergeSlashes: true", String::new(), String::new(), "`merge_slashes` changes the path"),
            (
                EGRESS,
                ", path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
                String::new(),
                String::new(),
                "unescapes",
            ),
            (EGRESS, ", strip_any_host_port: true", String::new(), String::new(), "removes the port"),
            (
                EGRESS,
                ", route_config: {virtual_hosts: [{routes: [{route: {prefix_rewrite: /x}}]}]}",
                String::new(),
                String::new(),
                "`prefix_rewrite` changes the request",
            ),
            (EGRESS, to_out, tls(strict), forward(""), "go to port 80 of this cluster, and are matched as port 443"),
            (
                EGRESS,
                to_out,
                String::new(),
                forward(", transport_socket: {name: tls}"),
                "go to port 443 of this cluster",
            ),
            (
                EGRESS,
                to_out,
                String::new(),
                ", clusters: [{name: out, original_dst_lb_config: {use_http_header: true}}]".to_owned(),
                "a header of the request chooses",
            ),
            (CALLER, "", tls(&untrusted), String::new(), "`ACCEPT_UNTRUSTED` accepts every certificate"),
            (peers, "", tls(&untrusted), String::new(), "`ACCEPT_UNTRUSTED` accepts every certificate"),
            (CALLER, "", tls("common_tls_context: {}"), String::new(), "need no certificate"),
            (CALLER, "", String::new(), String::new(), "no TLS"),
            (hops, "", String::new(), String::new(), "`use_remote_address` is not true"),
            (hops, ", use_remote_address: true, xff_num_trusted_hops: 1", String::new(), String::new(), "both count"),
            (
                hops,
                ", use_remote_address: true, skip_xff_append: true",
                String::new(),
                String::new(),
                "does not append",
            ),
        ] {
            let right = if policy == EGRESS || policy == CALLER { RIGHT } else { "" };
            let said = said(policy, &[manager, right].concat(), &chain, &document);
            assert!(said.len() == 1 && said[0].contains(part), "{part}: {said:?}");
            // The same settings with a policy that needs no such guarantee.
            let other = self::said("routes: {default: a}", &[manager, right].concat(), &chain, &document);
            assert_eq!(other, [] as [&str; 0], "{part}");
        }
        assert!(said(EGRESS, "", "", "")[0].contains("headers with underscores"));
        let without_paths = "egress: {rules: [{name: r, to: [{host: a.test}]}]}";
        assert_eq!(said(without_paths, ", normalize_path: true", "", ""), [] as [&str; 0]);
        for (policy, manager, chain, document) in [
            (EGRESS, RIGHT.to_owned(), String::new(), String::new()),
            (CALLER, RIGHT.to_owned(), tls(strict), String::new()),
            (hops, remote.to_owned(), String::new(), String::new()),
            (EGRESS, [to_out, RIGHT].concat(), tls(strict), forward(", transport_socket: {name: tls}")),
            (
                "egress: {defaultPort: 443, rules: []}",
                [to_out, RIGHT].concat(),
                String::new(),
                forward(", transport_socket: {name: tls}"),
            ),
            (
                "settings: {identity: {workload: {trustDomain: d}}}\negress: {rules: [{name: r, from: [x], to: []}]}",
                RIGHT.to_owned(),
                String::new(),
                String::new(),
            ),
        ] {
            assert_eq!(
                said(policy, &manager, &chain, &document),
                [] as [&str; 0],
                "{policy} {manager} {chain} {document}"
            );
        }
    }

    #[test]
    fn a_filter_that_is_discovered_is_known_by_its_name_and_a_secret_by_its_own() {
        let yaml = "
configs:
- listeners:
  - filter_chains:
    - filters:
      - typed_config: {http_filters: [{name: ours, config_discovery: {}}, {name: router}]}
      transport_socket:
        typed_config:
          require_client_certificate: true
          common_tls_context: {validation_context_sds_secret_config: {name: ca}}
- dynamic_active_secrets:
  - secret: {name: ca, validation_context: {trust_chain_verification: ACCEPT_UNTRUSTED}}
";
        let document = Located::read(yaml).unwrap().node;
        let all = Surroundings::of(&document);
        let place = "configs[9].ecds_filters[0].ecds_filter.typed_config.config";
        assert!(all[0].has(place, Some("ours")));
        assert!(!all[0].has(place, Some("router")) && !all[0].has(place, None));
        let policy = Located::read("rateLimits: [{name: l, key: [{peer: {}}]}]").unwrap().node;
        let doubts = all[0].doubts(&policy, &document);
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        assert_eq!(doubts[0].path, "configs[1].dynamic_active_secrets[0].secret.validation_context");
    }
}
