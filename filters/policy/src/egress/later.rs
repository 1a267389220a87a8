//! Checks that the sections after `egress` do not change the target of a request, because exactly the request that the
//! egress rules matched must be forwarded.

use crate::document::{At, Context};
use crate::redirection::redirects_request;
use crate::routes::{RouteRuleDocument, RoutesDocument};
use crate::settings::Settings;

/// Checks the other sections of a document that has `egress`; returns `false` after a problem.
pub(crate) fn check_later_sections(settings: &Settings, routes: Option<&RoutesDocument>, cx: &mut Context) -> bool {
    let mut fine = true;
    let name = &*settings.route_header.0;
    if redirects_request(name) {
        let at = At::Root.field("settings");
        let message = format!("`{name}` changes the request's target, and the policy has `egress`");
        cx.problem_at(&at.field("routeHeader"), message, "name a header of your own".to_owned());
        fine = false;
    }
    let at = At::Root.field("routes");
    let at = at.field("rules");
    for (number, rule) in routes.into_iter().flat_map(|routes| routes.rules.0.iter().enumerate()) {
        fine &= check_rule(rule, &at.index(number), cx);
    }
    fine
}

fn check_rule(rule: &RouteRuleDocument, at: &At<'_>, cx: &mut Context) -> bool {
    let mut fine = true;
    let mut problem = |at: &At<'_>, message: String, help: &str| {
        cx.problem_at(at, message, help.to_owned());
        fine = false;
    };
    if let Some(rewrite) = &rule.rewrite {
        let at = at.field("rewrite");
        for (field, is_there) in [("hostname", rewrite.hostname.is_some()), ("path", rewrite.path.is_some())] {
            if is_there {
                let message = format!("a new {field} would change what the egress rules have matched");
                let help = "leave it out: rewrite in the route of the proxy that the request goes to next, or redirect";
                problem(&at.field(field), message, help);
            }
        }
    }
    if let Some(changes) = &rule.request_headers {
        let at = at.field("requestHeaders");
        let written = [("set", &changes.set), ("add", &changes.add)];
        let written = written.into_iter().flat_map(|(list, fields)| fields.iter().map(move |f| (list, &*f.name.0)));
        for (list, name) in written.chain(changes.remove.iter().map(|name| ("remove", &*name.0))) {
            if redirects_request(name) {
                let message =
                    format!("`{name}` would change the request's target after the egress rules have matched it");
                problem(&at.field(list), message, "leave it out: the proxy forwards what the egress rules matched");
            }
        }
    }
    fine
}
