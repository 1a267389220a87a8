//! The section of the document, and the checks of its fields against each other.

use std::time::Duration;

use super::effects::{HeaderChanges, Retries};
use super::redirect::Redirect;
use super::rewrite::{PathRewrite, Rewrite};
use crate::document::{
    At, Context, GatewayDuration, Name, Named, Node, NonEmpty, PositiveDuration, RouteName, Whole, object, words,
};
use crate::matching::{PathMatch, RequestMatch};

words! {
    /// Which rule wins if several match.
    pub enum Precedence {
        /// The first in the document.
        FirstMatch = "FirstMatch",
        /// The most specific, by the order of the Gateway API.
        GatewayApi = "GatewayAPI",
    }
}

object! {
    /// The section `routes`: which route a request takes.
    pub struct RoutesDocument {
        /// The route if no rule matches. Without it, such a request gets no route header.
        default as "default": Option<RouteName>,
        /// Which rule wins if several match.
        precedence as "precedence": Precedence = Precedence::FirstMatch,
        /// The rules.
        rules as "rules": Named<RouteRuleDocument> = Named::default(),
    }
}

object! {
    /// A rule, which chooses a route, a canary or a redirect.
    pub struct RouteRuleDocument one of ["route", "canary", "redirect"] check = RouteRuleDocument::check {
        /// The name of the rule, unique among the rules.
        name as "name": Name,
        /// The rule matches a request if one of these entries matches. Default: every request.
        matches as "matches": Option<NonEmpty<RequestMatch>>,
        /// The value of the route header. A rule has exactly one of `route`, `canary` and `redirect`.
        route as "route": Option<RouteName>,
        /// The name of a canary that chooses the route.
        canary as "canary": Option<Name>,
        /// A redirect for the client.
        redirect as "redirect": Option<Redirect>,
        /// Changes of the request's headers.
        request_headers as "requestHeaders": Option<HeaderChanges>,
        /// Changes of the response's headers, for responses of the upstream and of the policy.
        response_headers as "responseHeaders": Option<HeaderChanges>,
        /// Changes of the path and the host.
        rewrite as "rewrite": Option<Rewrite>,
        /// The timeout for the request and all its retries. `0s` means no timeout.
        timeout as "timeout": Option<GatewayDuration>,
        /// Retries after failures.
        retries as "retries": Option<Retries>,
        /// Another route to use while this one fails.
        failover as "failover": Option<Failover>,
    }
}

object! {
    /// Another route to use while the rule's own route fails.
    pub struct Failover {
        /// The value of the route header while the rule's own route fails.
        route as "route": RouteName,
        /// The percentage of failed requests from which on the route counts as failing.
        error_percent as "errorPercent": Whole<1, 100> = Whole(50),
        /// The length of the sliding window in which requests are counted.
        window as "window": PositiveDuration = PositiveDuration(Duration::from_secs(10)),
        /// The minimum number of requests in the window. With fewer, the route does not count as failing.
        min_requests as "minRequests": Whole<1, 1_000_000> = Whole(20),
        /// How long the other route is used before the rule's own route gets requests again as a probe.
        cooldown as "cooldown": PositiveDuration = PositiveDuration(Duration::from_secs(30)),
    }
}

impl RouteRuleDocument {
    /// Checks which of the rule's other fields make sense with a redirect.
    fn check_redirect(&self, redirect: &Redirect, at: &At<'_>, cx: &mut Context) -> bool {
        let mut fine = true;
        let beside = [
            ("requestHeaders", self.request_headers.is_some()),
            ("rewrite", self.rewrite.is_some()),
            ("timeout", self.timeout.is_some()),
            ("retries", self.retries.is_some()),
            ("failover", self.failover.is_some()),
        ];
        for (field, _) in beside.into_iter().filter(|(_, given)| *given) {
            let help = "remove it: a redirected request goes to no upstream".to_owned();
            cx.problem_at(&at.field(field), "has no meaning beside `redirect`", help);
            fine = false;
        }
        if let Some(list) = self.response_headers.as_ref().and_then(|changes| changes.list_of("location")) {
            let response = at.field("responseHeaders");
            let help = "take `location` out".to_owned();
            cx.problem_at(&response.field(list), "changes `location`, which the redirect writes itself", help);
            fine = false;
        }
        let any = [RequestMatch::default()];
        let entries = self.matches.as_ref().map_or(&any[..], |entries| &entries.0);
        if let Some(entry) = entries.iter().position(|entry| redirect.leads_back_to(entry)) {
            let which = match &self.matches {
                Some(_) => format!("what matches[{entry}] takes"),
                None => "every request".to_owned(),
            };
            let help = "change the scheme, the host, the port or the path".to_owned();
            cx.problem_at(
                &at.field("redirect"),
                format!("leads {which} back to itself: the client would never stop"),
                help,
            );
            fine = false;
        }
        fine
    }

    /// Checks across the fields.
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let mut fine = self.redirect.as_ref().is_none_or(|redirect| self.check_redirect(redirect, at, cx));
        if let Some(failover) = &self.failover {
            let at = at.field("failover");
            if self.canary.is_some() {
                let help = "leave it out, and give the canary a `rollback`".to_owned();
                cx.problem_at(&at, "watches a route, but the rule has none: its canary chooses the route", help);
                fine = false;
            }
            if self.route.as_ref() == Some(&failover.route) {
                let node = Node::String(failover.route.0.to_string());
                cx.problem(&at.field("route"), &node, "is the rule's own route", "name another one".to_owned());
                fine = false;
            }
        }
        let paths = [
            ("rewrite", self.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref())),
            ("redirect", self.redirect.as_ref().and_then(|redirect| redirect.path.as_ref())),
        ];
        for (field, _) in paths.into_iter().filter(|(_, path)| path.is_some_and(PathRewrite::replaces_prefix)) {
            let prefixed = |entry: &RequestMatch| matches!(entry.path, Some(PathMatch::Prefix(_)));
            if !self.matches.as_ref().is_some_and(|entries| entries.0.iter().all(prefixed)) {
                let help = "give every entry of `matches` a path of type PathPrefix, or use ReplaceFullPath".to_owned();
                cx.problem_at(&at.field(field).field("path"), "ReplacePrefixMatch has no prefix to replace", help);
                fine = false;
            }
        }
        if let (Some(GatewayDuration(timeout)), Some(PositiveDuration(per_try))) =
            (self.timeout, self.retries.as_ref().and_then(|retries| retries.per_try_timeout))
            && !timeout.is_zero()
            && per_try > timeout
        {
            let retries = at.field("retries");
            let help = "an attempt cannot take longer than the rule's `timeout`: make it shorter".to_owned();
            cx.problem_at(&retries.field("perTryTimeout"), "is longer than the timeout", help);
            fine = false;
        }
        fine
    }
}
