//! The demo of `rateLimits`.

use anyhow::Result;

use super::screen::Widths;
use super::section::DemoSection;
use super::stage::{DemoStep, Stage};
use crate::RateLimitService;
use crate::http::{self, HttpRequest, HttpResponse, Protocol};
use crate::listener::{Listener, Route};

pub(super) const SECTION: DemoSection = DemoSection {
    name: "limits",
    title: "Rate limits: exact per key, shared by all workers",
    policy: include_str!("../../demo/limits.yaml"),
    routes,
    walk,
    visit,
    try_it: &["-H 'x-user: you' {url}/", "-H 'x-pages: 2' {url}/export"],
    edit_it: "give `per-user` another `burst` and see that what was taken stays taken",
};

/// The rate-limit service that counts for all proxies. `None` when it is not installed (`make setup` installs it).
pub(super) fn service() -> Result<Option<RateLimitService>> {
    // The policy has the limits: the service only needs to know the domain.
    if RateLimitService::is_there() { RateLimitService::start(&["domain: demo\ndescriptors: []\n"]) } else { Ok(None) }
}

fn routes(listener: Listener) -> Listener {
    listener.route(Route::any().answers(200, "passed\n"))
}

/// A new user after every ten requests, who stays within the limit, and mallory, who does not.
fn visit(number: usize) -> HttpRequest {
    let request = HttpRequest::get(if number % 40 == 7 { "/export" } else { "/" });
    if number.is_multiple_of(4) {
        request.header("x-user", "mallory")
    } else {
        request.header("x-user", format!("visitor-{}", number / 10))
    }
}

/// The status, and what a refused client is told.
fn outcome(response: &HttpResponse) -> String {
    match response.header("retry-after") {
        Some(wait) => format!("{}, again in {wait} s", response.status),
        None => response.status.to_string(),
    }
}

fn walk(stage: &mut Stage) -> Result<()> {
    stage.say("30 requests at once against a limit of 20, over connections of their own:");
    let widths = Widths { request: 36, answer: 24 };
    stage.screen.heads(widths);
    for (user, why) in [("anna", "a burst of 30 meets a limit of 20"), ("ben", "another key, another bucket")] {
        let answer = burst(stage, "/", user)?;
        stage.judge(widths, &format!("30 × GET / x-user: {user}"), &answer, "20 passed, 10 refused", why);
    }

    stage.say("A request must pass every limit that matches it, and a refused one takes nothing:");
    let export = |user: &str, pages: &str| HttpRequest::get("/export").header("x-user", user).header("x-pages", pages);
    stage.table(
        outcome,
        &[
            DemoStep::new(export("carl", "2"), "200", "two of the three exports"),
            DemoStep::new(export("carl", "2"), "429, again in 1200 s", "two more are too many: one has to come back"),
            DemoStep::new(export("dora", "1"), "200", "the refused request took nothing: one was left"),
            DemoStep::new(HttpRequest::get("/").header("x-user", "carl"), "200", "carl's own limit is far away"),
        ],
    )?;
    for_all_proxies(stage)
}

/// A global limit, with a local limit in front of it.
fn for_all_proxies(stage: &mut Stage) -> Result<()> {
    stage.say(
        "A limit for all proxies together is counted by envoyproxy/ratelimit and Redis; a local one shields them:",
    );
    let Some(service) = &stage.service else {
        stage.say("(skipped: `make setup` brings the service)");
        return Ok(());
    };
    let asked = || stage.envoy.admin().stat("cluster.ratelimit.upstream_rq_total");
    // The first call of the service waits for a connection.
    burst(stage, "/shared", "dora")?;
    let before = asked()?;
    let awake = burst(stage, "/shared", "erin")?;
    let asked = asked()? - before;
    service.hang()?;
    let hung = burst(stage, "/shared", "fred")?;
    service.wake()?;

    let widths = Widths { request: 36, answer: 24 };
    stage.screen.heads(widths);
    let label = |user: &str| format!("30 × GET /shared x-user: {user}");
    stage.judge(widths, &label("erin"), &awake, "5 passed, 25 refused", "the service lets 5 pass");
    stage.judge(widths, "", &format!("asked {asked} times"), "asked 7 times", "the shield refused 23 by itself");
    stage.judge(
        widths,
        &label("fred"),
        &hung,
        "7 passed, 23 refused",
        "the service hung: onFailure is Allow, the shield holds",
    );
    Ok(())
}

/// The results of thirty requests of a user.
fn burst(stage: &Stage, path: &str, user: &str) -> Result<String> {
    let request = HttpRequest::get(path).header("x-user", user);
    let mut passed = 0;
    for protocol in Protocol::ALL.into_iter().cycle().take(30) {
        passed += usize::from(http::send(protocol, stage.address()?, &request)?.status == 200);
    }
    Ok(format!("{passed} passed, {} refused", 30 - passed))
}
