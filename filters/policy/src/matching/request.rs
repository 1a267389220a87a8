//! One entry of `matches`. It matches if all its conditions hold.

use super::facts::{ClaimCondition, MetadataCondition};
use super::host::{HostPattern, HostSet};
use super::path::PathMatch;
use super::regex::Asked;
use super::text::{Condition, HeaderCondition, PairCondition};
use crate::asked::AskedNames;
use crate::document::{At, Context, Method, NonEmpty, made_of, object};
use crate::request::Request;

/// A compiled entry; without any condition it holds for every request.
#[derive(Clone, Debug, Default)]
pub struct RequestMatch {
    /// The method.
    pub method: Option<Box<[u8]>>,
    /// The host is one of these.
    pub hostnames: Option<HostSet>,
    /// The path.
    pub path: Option<PathMatch>,
    /// All of these conditions must hold.
    pub headers: Box<[Condition]>,
    /// All of these conditions must hold.
    pub query_params: Box<[Condition]>,
    /// All of these conditions must hold.
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

    /// Whether no condition is given, so that it holds for every request.
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

object! {
    /// One entry of `matches`. It matches if all its conditions hold.
    struct RequestMatchDocument check = RequestMatchDocument::check; schema = RequestMatchDocument::is_not_empty {
        /// The method.
        method as "method": Option<Method>,
        /// The host must be one of these. `*.` stands for one or more labels, so `*.example.com` does not include `example.com`.
        hostnames as "hostnames": Option<NonEmpty<HostPattern>>,
        /// The path, without query and fragment.
        path as "path": Option<PathMatch>,
        /// All of these conditions must hold.
        headers as "headers": Option<NonEmpty<HeaderCondition>>,
        /// All of these conditions must hold. If a name is repeated, its first value counts.
        query_params as "queryParams": Option<NonEmpty<PairCondition>>,
        /// All of these conditions must hold.
        cookies as "cookies": Option<NonEmpty<PairCondition>>,
        /// All of these conditions must hold. A request without a verified token has no claims.
        claims as "claims": Option<NonEmpty<ClaimCondition>>,
        /// All of these conditions on the dynamic metadata of earlier filters must hold.
        metadata as "metadata": Option<NonEmpty<MetadataCondition>>,
    }
}

impl RequestMatchDocument {
    #[cfg(feature = "schema")]
    fn is_not_empty(_: serde_json::Value) -> serde_json::Value {
        serde_json::json!({"minProperties": 1})
    }

    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let is_empty = self.method.is_none()
            && self.hostnames.is_none()
            && self.path.is_none()
            && self.headers.is_none()
            && self.query_params.is_none()
            && self.cookies.is_none()
            && self.claims.is_none()
            && self.metadata.is_none();
        // With an unknown field the entry may only be misspelt.
        if is_empty && !cx.has_problem_in(at) {
            let help = "give a condition, or leave `matches` out to match every request".to_owned();
            cx.problem_at(at, "has no condition", help);
        }
        !is_empty
    }
}

made_of!(RequestMatch, RequestMatchDocument, RequestMatch::new);

impl RequestMatch {
    fn new(document: RequestMatchDocument) -> Option<RequestMatch> {
        let pairs = |list: Option<NonEmpty<PairCondition>>| list.into_iter().flat_map(|l| l.0).map(|c| c.0).collect();
        let claims = document.claims.into_iter().flat_map(|list| list.0).map(|condition| condition.0);
        let metadata = document.metadata.into_iter().flat_map(|list| list.0).map(|condition| condition.0);
        Some(RequestMatch {
            method: document.method.map(|method| method.0.into_boxed_bytes()),
            hostnames: document.hostnames.map(|patterns| HostSet::new(patterns.0)),
            path: document.path,
            headers: document.headers.into_iter().flat_map(|list| list.0).map(|condition| condition.0).collect(),
            query_params: pairs(document.query_params),
            cookies: pairs(document.cookies),
            facts: claims.chain(metadata).collect(),
        })
    }
}
