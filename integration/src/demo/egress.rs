//! The demo of `egress`.

use anyhow::{Result, bail};

use super::section::DemoSection;
use super::stage::{DemoStep, Stage};
use crate::discovery::Reload;
use crate::http::{HttpRequest, HttpResponse};
use crate::listener::{Listener, Route};

const POLICY: &str = include_str!("../../demo/egress.yaml");

pub(super) const SECTION: DemoSection = DemoSection {
    name: "egress",
    title: "Egress: nothing goes out unless a rule with an owner says so",
    policy: POLICY,
    routes,
    walk,
    visit,
    try_it: &["-H 'host: api.stripe.com:80' {url}/v1/charges", "-H 'host: evil.test' {url}/"],
    edit_it: "set `mode: Audit` and see what passes then, and what is in the log",
};

fn routes(listener: Listener) -> Listener {
    listener.route(Route::any().answers(200, "forwarded\n").echo(&[":path"]))
}

/// Mostly allowed requests, with occasional refused ones.
fn visit(number: usize) -> HttpRequest {
    let (host, path) = match number % 12 {
        3 => ("evil.test:80", "/"),
        7 => ("api.stripe.com:80", "/v1/refunds"),
        11 => ("old.example.org:80", "/"),
        even if even % 2 == 0 => ("api.stripe.com:80", "/v1/charges/42"),
        _ => ("api.example.com:80", "/"),
    };
    HttpRequest::new("GET", host, path)
}

/// The path that was forwarded, or the status and the reason of the refusal.
fn outcome(response: &HttpResponse) -> String {
    if response.status == 200 {
        return format!("forwards {}", response.header("x-saw-path").unwrap_or_default());
    }
    let body = response.text();
    let reason = body.split(r#""reason":""#).nth(1).and_then(|rest| rest.split('"').next());
    format!("{} {}", response.status, reason.unwrap_or("without a reason"))
}

fn walk(stage: &mut Stage) -> Result<()> {
    let to = |host: &str, path: &str| HttpRequest::new("GET", host, path);
    let stripe = |path: &str| to("api.stripe.com:80", path);
    stage.table(
        outcome,
        &[
            DemoStep::new(stripe("/v1/charges/42"), "forwards /v1/charges/42", "rule stripe"),
            DemoStep::new(stripe("/v1/refunds"), "403 pathNotAllowed", "the rule is for /v1/charges"),
            DemoStep::new(
                HttpRequest::new("DELETE", "api.stripe.com:80", "/v1/charges"),
                "403 methodNotAllowed",
                "GET and POST",
            ),
            DemoStep::new(to("evil.test:80", "/"), "403 hostNotAllowed", "nobody listed it"),
            DemoStep::new(to("api.example.com:80", "/"), "forwards /", "rule example"),
            DemoStep::new(to("secrets.example.com:80", "/"), "403 hostDenied", "deny beats every rule"),
            DemoStep::new(to("169.254.169.254:80", "/latest"), "403 hostDenied", "cloud metadata"),
            DemoStep::new(to("old.example.org:80", "/"), "403 ruleExpired", "rule last-year, until 2026"),
        ],
    )?;

    stage.say("What two readers could read differently is refused, and what was matched is what is forwarded:");
    stage.table(
        outcome,
        &[
            DemoStep::new(stripe("/v1/charges//42/./x"), "forwards /v1/charges/42/x", "the canonical path"),
            DemoStep::new(stripe("/v1/charges/../payouts"), "403 pathNotAllowed", "it is /v1/payouts"),
            DemoStep::new(stripe("/v1/charges/%2e%2e/payouts"), "403 pathNotAllowed", "so is this"),
            DemoStep::new(
                stripe("/v1/charges%2f..%2fpayouts"),
                "400 pathEscapesDelimiter",
                "the next decoder sees another path",
            ),
            DemoStep::new(to("2852039166:80", "/"), "400 hostIsAmbiguousNumber", "169.254.169.254 to some"),
        ],
    )?;

    stage.say(
        "In Audit the same policy lets through what no rule allows and reports it, and still refuses the ambiguous:",
    );
    if let refused @ Reload::Refused(_) = stage.reload(&POLICY.replacen("mode: Enforce", "mode: Audit", 1))? {
        bail!("the policy was refused: {}", refused.reasons().join("; "));
    }
    stage.table(
        outcome,
        &[
            DemoStep::new(to("evil.test:80", "/"), "forwards /", "reported as hostNotAllowed"),
            DemoStep::new(to("2852039166:80", "/"), "400 hostIsAmbiguousNumber", "400 in every mode"),
        ],
    )?;
    stage.reload(POLICY)?;
    Ok(())
}
