//! The walk through `rateLimits`.

use anyhow::Result;

use super::Section;
use super::screen::Widths;
use super::stage::{Stage, Step};
use crate::http::{self, Protocol, Request, Response};
use crate::listener::{Listener, Route};

pub(super) const SECTION: Section = Section {
    name: "limits",
    title: "Rate limits: exact per key, shared by all workers",
    policy: include_str!("../../demo/limits.yaml"),
    routes,
    walk,
    visit,
    try_it: &["-i -H 'x-user: you' {url}/", "-i -H 'x-pages: 2' {url}/export"],
    edit_it: "give `per-user` another `burst` and see that what was taken stays taken",
};

fn routes(listener: Listener) -> Listener {
    listener.route(Route::any().answers(200, "passed\n"))
}

/// A new user after every ten requests, who stays within the limit, and mallory, who does not.
fn visit(number: usize) -> Request {
    let request = Request::get(if number % 40 == 7 { "/export" } else { "/" });
    if number.is_multiple_of(4) {
        request.header("x-user", "mallory")
    } else {
        request.header("x-user", format!("visitor-{}", number / 10))
    }
}

/// Status, and what a refused client is told.
fn outcome(response: &Response) -> String {
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
        let request = Request::get("/").header("x-user", user);
        let mut passed = 0;
        for protocol in Protocol::ALL.into_iter().cycle().take(30) {
            let response = http::send(protocol, stage.address()?, &request)?;
            passed += usize::from(response.status == 200);
        }
        let answer = format!("{passed} passed, {} refused", 30 - passed);
        stage.judge(widths, &format!("30 × GET / x-user: {user}"), &answer, "20 passed, 10 refused", why);
    }

    stage.say("A request must pass every limit that matches it, and a refused one takes nothing:");
    let export = |user: &str, pages: &str| Request::get("/export").header("x-user", user).header("x-pages", pages);
    stage.table(
        outcome,
        &[
            Step::new(export("carl", "2"), "200", "two of the three exports"),
            Step::new(export("carl", "2"), "429, again in 1200 s", "two more are too many: one has to come back"),
            Step::new(export("dora", "1"), "200", "the refused request took nothing: one was left"),
            Step::new(Request::get("/").header("x-user", "carl"), "200", "carl's own limit is far away"),
        ],
    )
}
