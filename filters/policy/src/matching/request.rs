//! One entry of `matches`: everything given must hold.

use super::facts::{ClaimCondition, MetadataCondition};
use super::host::{HostPattern, HostSet};
use super::path::PathMatch;
use super::regex::Asked;
use super::text::{Condition, HeaderCondition, PairCondition};
use crate::asked::AskedNames;
use crate::document::{At, Context, Decode, Fields, Kind, Method, Node, NonEmpty};
use crate::request::Request;

/// A compiled entry; without any condition it holds for every request.
#[derive(Clone, Debug, Default)]
pub struct RequestMatch {
    /// The one method.
    pub method: Option<Box<[u8]>>,
    /// The host is one of these.
    pub hostnames: Option<HostSet>,
    /// The path.
    pub path: Option<PathMatch>,
    /// All of these hold.
    pub headers: Box<[Condition]>,
    /// All of these hold.
    pub query_params: Box<[Condition]>,
    /// All of these hold.
    pub cookies: Box<[Condition]>,
    /// All of these hold, on claims and other metadata; their names are those of [`crate::facts::FactName`].
    pub facts: Box<[Condition]>,
}

impl RequestMatch {
    /// Whether everything given holds for `request`; the cheap conditions first.
    pub fn holds(&self, request: &Request<'_>) -> bool {
        self.method.as_deref().is_none_or(|method| method == request.method)
            && self.path.as_ref().is_none_or(|path| {
                path.matches_with(request.path, request.answers().map(|answers| (answers, Asked::Path)))
            })
            && self.hostnames.as_ref().is_none_or(|hosts| hosts.contains(request.host))
            && self.headers.iter().all(|condition| condition.holds_for_header(request))
            && self.query_params.iter().all(|condition| condition.holds_for_query_param(request))
            && self.cookies.iter().all(|condition| condition.holds_for_cookie(request))
            && self.facts.iter().all(|condition| condition.holds_for_fact(request))
    }

    /// Adds the names of headers, cookies, query parameters and facts that it asks for.
    pub(crate) fn add_names(&self, asked: &mut AskedNames) {
        self.headers.iter().for_each(|condition| asked.headers.add(&condition.name));
        self.cookies.iter().for_each(|condition| asked.cookies.add(&condition.name));
        self.query_params.iter().for_each(|condition| asked.query_params.add(&condition.name));
        self.facts.iter().for_each(|condition| asked.facts.add(&condition.name));
    }

    /// Whether it holds for every request because nothing is given.
    pub fn is_unconditional(&self) -> bool {
        self.method.is_none()
            && self.hostnames.is_none()
            && self.path.is_none()
            && self.headers.is_empty()
            && self.query_params.is_empty()
            && self.cookies.is_empty()
            && self.facts.is_empty()
    }
}

impl Decode for RequestMatch {
    const KIND: Kind =
        Kind::Object(&["method", "hostnames", "path", "headers", "queryParams", "cookies", "claims", "metadata"]);

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        if matches!(node, Node::Map(entries) if entries.is_empty()) {
            let help = "give a condition, or leave `matches` out to match every request".to_owned();
            cx.problem(at, node, "has no condition", help);
            return None;
        }
        let fields = Fields::open::<Self>(node, at, cx)?;
        let method = fields.get::<Option<Method>>("method", at, cx);
        let hostnames = fields.get::<Option<NonEmpty<HostPattern>>>("hostnames", at, cx);
        let path = fields.get::<Option<PathMatch>>("path", at, cx);
        let headers = fields.get::<Option<NonEmpty<HeaderCondition>>>("headers", at, cx);
        let query_params = fields.get::<Option<NonEmpty<PairCondition>>>("queryParams", at, cx);
        let cookies = fields.get::<Option<NonEmpty<PairCondition>>>("cookies", at, cx);
        let facts = facts(&fields, at, cx);
        let (Some(method), Some(hostnames), Some(path), Some(headers), Some(query_params), Some(cookies), Some(facts)) =
            (method, hostnames, path, headers, query_params, cookies, facts)
        else {
            return None;
        };
        let pairs = |list: Option<NonEmpty<PairCondition>>| list.into_iter().flat_map(|l| l.0).map(|c| c.0).collect();
        Some(RequestMatch {
            method: method.map(|method| method.0.into_boxed_bytes()),
            hostnames: hostnames.map(|patterns| HostSet::new(patterns.0)),
            path,
            headers: headers.into_iter().flat_map(|list| list.0).map(|condition| condition.0).collect(),
            query_params: pairs(query_params),
            cookies: pairs(cookies),
            facts,
        })
    }
}

/// The conditions on claims and on other metadata.
#[inline(never)]
fn facts(fields: &Fields<'_>, at: &At<'_>, cx: &mut Context) -> Option<Box<[Condition]>> {
    let claims = fields.get::<Option<NonEmpty<ClaimCondition>>>("claims", at, cx);
    let metadata = fields.get::<Option<NonEmpty<MetadataCondition>>>("metadata", at, cx);
    let claims = claims?.into_iter().flat_map(|list| list.0).map(|condition| condition.0);
    let metadata = metadata?.into_iter().flat_map(|list| list.0).map(|condition| condition.0);
    Some(claims.chain(metadata).collect())
}
