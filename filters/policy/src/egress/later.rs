//! What the sections after `egress` must not do: change where a request goes or what it requests. What egress matched
//! is what is forwarded.

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
        let message = format!("`{name}` changes what a request asks for, and the document has egress");
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
                let message = format!("a new {field} would undo what egress has matched");
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
                let message = format!("`{name}` would change what a request asks for after egress has matched it");
                problem(&at.field(list), message, "leave it out: what egress matched is what is forwarded");
            }
        }
    }
    fine
}
