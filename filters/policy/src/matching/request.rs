//! One entry of `matches`. It matches if all its conditions hold.

use super::host::HostSet;
use super::path::PathMatch;
use super::regex::Asked;
use super::text::Condition;
use crate::asked::AskedNames;
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

    /// Adds the names of headers, cookies, query parameters and facts that it reads.
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
