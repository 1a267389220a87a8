//! The demo of `routes`.

use anyhow::Result;

use super::screen::Widths;
use super::section::DemoSection;
use super::stage::{DemoStep, Stage};
use crate::discovery::Reload;
use crate::http::{HttpRequest, HttpResponse};
use crate::listener::{Listener, Route};

const POLICY: &str = include_str!("../../demo/routes.yaml");

pub(super) const SECTION: DemoSection = DemoSection {
    name: "routes",
    title: "Routes: the policy names the route, Envoy's own route table takes the request there",
    policy: POLICY,
    routes,
    walk,
    visit,
    try_it: &[
        "{url}/",
        "-H 'x-user-group: beta' {url}/",
        "-H 'x-penstock-route: beta' {url}/",
        "-H 'host: a.staging.example.com' {url}/",
        "--http2-prior-knowledge '{url}/v1/items?page=2'",
    ],
    edit_it: "for a start, change `default: stable` to `default: beta`, or misspell something",
};

/// Envoy responds itself instead of an upstream: each route returns its name and the path that it saw.
fn routes(listener: Listener) -> Listener {
    let names = ["stable", "beta", "staging", "items", "preview", "gold", "api", "maintenance"];
    let listener = names.into_iter().fold(listener, |listener, name| {
        listener.route(Route::named(name).answers(200, &format!("{name}\n")).echo(&[":path", "x-api-version"]))
    });
    listener.route(Route::any().answers(200, "no route\n"))
}

/// Requests for the different rules, in turn.
fn visit(number: usize) -> HttpRequest {
    match number % 8 {
        0 => HttpRequest::get("/").header("x-user-group", "beta"),
        1 => HttpRequest::get("/").at("a.staging.example.com"),
        2 | 3 => HttpRequest::get("/items/42"),
        4 => HttpRequest::get("/v1/items?page=2"),
        5 => HttpRequest::get("/").header("cookie", "plan=gold"),
        _ => HttpRequest::get("/"),
    }
}

/// The route that responded.
fn route(response: &HttpResponse) -> String {
    response.text().trim().to_owned()
}

/// The route, and the path that it saw.
fn route_and_path(response: &HttpResponse) -> String {
    let version = response.header("x-saw-x-api-version").map(|version| format!(", version {version}"));
    let path = response.header("x-saw-path").unwrap_or_default();
    format!("{} sees {path}{}", route(response), version.unwrap_or_default())
}

fn walk(stage: &mut Stage) -> Result<()> {
    let get = HttpRequest::get;
    let staging = |host: &str| get("/").at(host);
    let robot = get("/").header("cookie", "plan=gold").header("user-agent", "searchbot/2");
    stage.table(
        route,
        &[
            DemoStep::new(get("/"), "stable", "no rule matches: the default"),
            DemoStep::new(get("/").header("x-user-group", "beta"), "beta", "rule beta-users"),
            DemoStep::new(
                get("/").header("x-user-group", "staff").header("x-user-group", "beta"),
                "beta",
                "any value of a repeated header counts",
            )
            .http2(),
            DemoStep::new(get("/").header("x-user-group", "Beta"), "stable", "values compare byte for byte"),
            DemoStep::new(
                get("/").header("x-penstock-route", "beta"),
                "stable",
                "a client never chooses the route itself",
            ),
            DemoStep::new(staging("a.b.staging.example.com"), "staging", "rule staging-hosts: * is one label or more"),
            DemoStep::new(staging("staging.example.com"), "stable", "… and never none"),
            DemoStep::new(get("/items/42"), "items", "rule numbered-items"),
            DemoStep::new(get("/items/42/parts"), "stable", "an expression must match the whole path"),
            DemoStep::new(get("/?preview=1"), "preview", "rule previews"),
            DemoStep::new(HttpRequest::new("POST", "example.com", "/?preview=1"), "stable", "… which is for GET"),
            DemoStep::new(get("/").header("cookie", "theme=dark; plan=gold"), "gold", "rule gold-members"),
            DemoStep::new(robot, "stable", "… which is not for robots"),
            DemoStep::new(get("/items/7").header("x-user-group", "beta"), "beta", "two rules match: the first wins"),
        ],
    )?;

    stage.say("What a rule changes is what the upstream gets:");
    stage.table(
        route_and_path,
        &[
            DemoStep::new(get("/v1/items?page=2"), "api sees /v2/items?page=2, version 2", "rule old-api"),
            DemoStep::new(get("/v10"), "stable sees /v10", "a prefix is whole segments"),
        ],
    )?;
    reload(stage)
}

/// Reloads first a policy with a typo, then a valid one.
fn reload(stage: &mut Stage) -> Result<()> {
    stage.say("A policy changes without a restart and without a drained connection, or not at all:");
    let widths = Widths { request: 36, answer: 11 };
    stage.screen.heads(widths);
    let typo = POLICY.replacen("matches:", "mathces:", 1);
    let renamed = POLICY.replacen("default: stable ", "default: maintenance ", 1);
    for (what, policy, expected, then) in [
        ("a policy with a typo", typo.as_str(), "refused", "stable"),
        ("a policy with another default", renamed.as_str(), "taken", "maintenance"),
        ("the first policy again", POLICY, "taken", "stable"),
    ] {
        let (answer, why) = match stage.reload(policy)? {
            Reload::Taken => ("taken", "every worker runs it".to_owned()),
            refused @ Reload::Refused(_) => ("refused", refused.reasons().join("; ")),
        };
        stage.judge(widths, what, answer, expected, &why);
        let response = crate::http::send(crate::http::Protocol::Http1, stage.address()?, &HttpRequest::get("/"))?;
        let why = if expected == "refused" { "the old policy keeps serving" } else { "live at once" };
        stage.judge(widths, "GET /", &route(&response), then, why);
    }
    Ok(())
}
