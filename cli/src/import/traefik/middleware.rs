//! Traefik's Middlewares: limits, headers, redirects and changes of the path.

use penstock_policy::document::Node;

use super::objects::TraefikObjects;
use crate::import::matching::{Match, PathSet};
use crate::import::objects::{RETRY_ON, duration, map, text};
use crate::import::reader::FieldReader;
use crate::import::report::ImportReport;
use crate::import::table::{ImportedRule, RuleAction};

/// A change of the path.
#[derive(Clone, Debug)]
enum PathChange {
    Strip(Vec<String>),
    Add(String),
    Replace(String),
}

/// The combined effect of a route's middlewares.
#[derive(Default)]
pub struct Chain {
    /// Why its requests must not be imported.
    pub leave: Option<String>,
    /// Limits, with their names.
    pub limits: Vec<(String, Vec<(&'static str, Node)>)>,
    protocol: &'static str,
    effects: Vec<(&'static str, Node)>,
    scheme: Option<(String, Vec<(&'static str, Node)>)>,
    path: Option<PathChange>,
}

impl Chain {
    /// No middleware yet, for requests with scheme `http` or `https`.
    pub fn new(protocol: &'static str) -> Chain {
        Chain { protocol, ..Chain::default() }
    }

    /// Adds a middleware.
    pub fn add(&mut self, objects: &TraefikObjects<'_>, name: &str, namespace: &str, report: &mut ImportReport) {
        self.add_below(objects, name, namespace, 0, report);
    }

    fn add_below(
        &mut self,
        objects: &TraefikObjects<'_>,
        name: &str,
        namespace: &str,
        depth: usize,
        report: &mut ImportReport,
    ) {
        const DEEPEST: usize = 8;
        if depth > DEEPEST {
            self.leave.get_or_insert_with(|| format!("Middleware {namespace}/{name}: a chain contains itself"));
            return;
        }
        let Some(node) = objects.named("Middleware", name, namespace) else {
            self.leave.get_or_insert_with(|| format!("Middleware {namespace}/{name} is missing in the input"));
            return;
        };
        let spec =
            FieldReader::new(node.get("spec").unwrap_or(&Node::Null), &format!("Middleware {name}: spec"), report);
        if let Some(chain) = spec.object("chain", report) {
            for item in chain.objects("middlewares", report) {
                let name = item.string("name", report).unwrap_or_default();
                let namespace = item.string("namespace", report).unwrap_or_else(|| namespace.to_owned());
                self.add_below(objects, &name, &namespace, depth + 1, report);
            }
        }
        if let Some(limit) = spec.object("rateLimit", report) {
            self.limit(name, &limit, report);
        }
        if let Some(headers) = spec.object("headers", report) {
            self.headers(&headers, report);
        }
        if let Some(redirect) = spec.object("redirectScheme", report) {
            let scheme = redirect.string("scheme", report).unwrap_or_default();
            let mut node = vec![("scheme", text(scheme.as_str()))];
            node.extend(redirect.integer("port", report).map(|port| ("port", Node::Integer(port))));
            let status = if redirect.flag("permanent", report) { 301 } else { 302 };
            node.push(("statusCode", Node::Integer(status)));
            self.scheme = Some((scheme, node));
        }
        if let Some(strip) = spec.object("stripPrefix", report) {
            strip.ignore(&["forceSlash"]);
            self.change(PathChange::Strip(strip.strings("prefixes", report)));
        }
        if let Some(add) = spec.object("addPrefix", report) {
            self.change(PathChange::Add(add.string("prefix", report).unwrap_or_default()));
        }
        if let Some(replace) = spec.object("replacePath", report) {
            self.change(PathChange::Replace(replace.string("path", report).unwrap_or_default()));
        }
        if let Some(retry) = spec.object("retry", report) {
            // The number of attempts, including the first.
            let attempts = retry.integer("attempts", report).unwrap_or(1) - 1;
            retry.ignore(&["initialInterval"]);
            if attempts > 0 {
                let on = Node::List(vec![text("connect-failure")]);
                self.effects.push(("retries", map([("attempts", Node::Integer(attempts)), (RETRY_ON, on)])));
            }
        }
        for field in ["inFlightReq", "circuitBreaker", "errors"] {
            if let Some(value) = spec.take(field) {
                report.lost(&spec.at(field), value.to_string(), "requests are handled without it");
            }
        }
        spec.elsewhere(
            &["compress", "buffering", "contentType", "passTLSClientCert", "grpcWeb"],
            "configure it in the proxy itself",
            report,
        );
        // Any other middleware may refuse some requests, or send them elsewhere.
        if let Some((field, _)) = spec.rest().first() {
            self.leave.get_or_insert_with(|| format!("Middleware {name}: {field}: a policy has no such feature"));
        }
    }

    fn change(&mut self, change: PathChange) {
        if self.path.is_some() {
            self.leave.get_or_insert_with(|| "two changes of the path, and a rule can have one".to_owned());
        }
        self.path = Some(change);
    }

    fn limit(&mut self, name: &str, limit: &FieldReader<'_>, report: &mut ImportReport) {
        let average = limit.integer("average", report).unwrap_or(0);
        let period = limit.string("period", report).unwrap_or_else(|| "1s".to_owned());
        let period = period.parse::<u64>().map_or(period, |seconds| format!("{seconds}s"));
        let burst = limit.integer("burst", report).unwrap_or(1).max(1);
        let mut key = Node::List(vec![map([("sourceAddress", map([]))])]);
        if let Some(criterion) = limit.object("sourceCriterion", report) {
            if let Some(header) = criterion.string("requestHeaderName", report) {
                key = Node::List(vec![map([("header", text(header))])]);
            } else if criterion.flag("requestHost", report) {
                key = Node::List(vec![map([("hostname", map([]))])]);
            }
            let what = "set `settings.sourceAddress` to define how the client's address is found";
            criterion.elsewhere(&["ipStrategy"], what, report);
        }
        limit.elsewhere(
            &["redis"],
            "each proxy counts separately; `scope: {global: …}` counts for all proxies",
            report,
        );
        for (field, value) in limit.rest() {
            report.lost(&limit.at(field), value.to_string(), "requests are counted without it");
        }
        // Requests that were redirected before are not counted.
        if average <= 0 || self.redirect().is_some() {
            return;
        }
        let Some(per) = duration(&period) else {
            report.lost(&limit.at("period"), period, "the limit is left out");
            return;
        };
        let quota = map([("requests", Node::Integer(average)), ("per", text(per)), ("burst", Node::Integer(burst))]);
        self.limits.push((name.to_owned(), vec![("key", key), ("limit", quota)]));
    }

    fn headers(&mut self, headers: &FieldReader<'_>, report: &mut ImportReport) {
        for (field, effect) in
            [("customRequestHeaders", "requestHeaders"), ("customResponseHeaders", "responseHeaders")]
        {
            let (mut set, mut remove) = (Vec::new(), Vec::new());
            for (name, value) in headers.pairs(field, report) {
                match value {
                    Node::String(value) if value.is_empty() => remove.push(text(name.as_str())),
                    Node::Null => remove.push(text(name.as_str())),
                    Node::String(value) => {
                        set.push(map([("name", text(name.as_str())), ("value", text(value.as_str()))]))
                    }
                    value => set.push(map([("name", text(name.as_str())), ("value", text(value.to_string()))])),
                }
            }
            let mut node = Vec::new();
            if !set.is_empty() {
                node.push(("set", Node::List(set)));
            }
            if !remove.is_empty() {
                node.push(("remove", Node::List(remove)));
            }
            match self.effects.iter_mut().find(|(known, _)| *known == effect) {
                _ if node.is_empty() => {}
                Some(_) => report.lost(
                    &headers.at(field),
                    "headers of a second Middleware",
                    "only those of the first are changed",
                ),
                None => self.effects.push((effect, map(node))),
            }
        }
        for (field, value) in headers.rest() {
            report.lost(&headers.at(field), value.to_string(), "requests are handled without it");
        }
    }

    /// Where all requests are redirected, unless they already have the scheme.
    pub fn redirect(&self) -> Option<Node> {
        self.scheme.as_ref().filter(|(scheme, _)| scheme != self.protocol).map(|(_, node)| map(node.clone()))
    }

    /// A rule with the changes of the middlewares.
    pub fn applied(&self, rule: ImportedRule, report: &mut ImportReport) -> Vec<ImportedRule> {
        let RuleAction::Split(_) = &rule.action else { return vec![rule] };
        let rule = ImportedRule { effects: self.effects.clone(), ..rule };
        let Some(change) = &self.path else { return vec![rule] };
        let rewritten = |rule: &ImportedRule, path: PathSet, kind: &str, value: &str| {
            let matches = rule.matches.iter().map(|entry| Match { path: path.clone(), ..entry.clone() }).collect();
            let path = map([("type", text(kind)), ("value", text(value))]);
            let mut effects = rule.effects.clone();
            effects.insert(0, ("rewrite", map([("path", path)])));
            ImportedRule { matches, effects, ..rule.clone() }
        };
        let leave = |rule: &ImportedRule, path: Option<PathSet>, why: String| ImportedRule {
            matches: rule
                .matches
                .iter()
                .map(|entry| Match { path: path.clone().unwrap_or_else(|| entry.path.clone()), ..entry.clone() })
                .collect(),
            effects: Vec::new(),
            action: RuleAction::Leave(why),
            ..rule.clone()
        };
        let mut rules = Vec::new();
        for entry in &rule.matches {
            let rule = ImportedRule { matches: vec![entry.clone()], ..rule.clone() };
            match (change, &entry.path) {
                (PathChange::Replace(value), path) => {
                    rules.push(rewritten(&rule, path.clone(), "ReplaceFullPath", value))
                }
                (PathChange::Add(prefix), PathSet::Any) => {
                    rules.push(rewritten(&rule, PathSet::Any, "ReplacePrefixMatch", prefix));
                }
                // Removes the first matching prefix of the path, compared by characters.
                (PathChange::Strip(prefixes), PathSet::Letters(letters))
                    if prefixes.iter().find(|prefix| letters.starts_with(prefix.as_str())) == Some(letters)
                        && !letters.ends_with('/') =>
                {
                    rules.push(rewritten(&rule, PathSet::segments(letters), "ReplacePrefixMatch", "/"));
                    let why = format!("the source removes {letters} also within a segment");
                    report.lost("spec.routes", why.clone(), "such requests are left to the platform");
                    rules.push(leave(&rule, Some(PathSet::Letters(letters.clone())), why));
                }
                (change, _) => {
                    let why = format!(
                        "{change:?} for these paths: a policy changes a prefix that it matches, or a whole path"
                    );
                    report.lost("spec.routes", why.clone(), "its requests are left to the platform");
                    rules.push(leave(&rule, None, why));
                }
            }
        }
        rules
    }
}
