//! The demo of `canaries`.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::screen::Widths;
use super::section::DemoSection;
use super::stage::{DemoStep, Stage};
use crate::discovery::Reload;
use crate::http::{self, HttpRequest, HttpResponse, Protocol};
use crate::listener::{Listener, Route};

const POLICY: &str = include_str!("../../demo/canaries.yaml");

/// The number of users whose requests go through the canary.
const USERS: usize = 1_000;

pub(super) const SECTION: DemoSection = DemoSection {
    name: "canaries",
    title: "Canaries: each user stays on a version, and a failing one is taken back",
    policy: POLICY,
    routes,
    walk,
    visit,
    try_it: &["-H 'x-user-id: you' {url}/", "-H 'x-user-id: you' -H 'x-canary: always' {url}/"],
    edit_it: "give v2 more weight: nobody leaves it",
};

/// v1 never fails; v2 fails on demand.
fn routes(listener: Listener) -> Listener {
    listener
        .route(Route::named("v1").answers(200, "v1\n"))
        .route(Route::header("x-fault", "503").answers(503, "v2\n"))
        .route(Route::named("v2").answers(200, "v2\n"))
}

/// Sends requests of sixty users while v2 fails; some users are testers who select v2 themselves. The breaker opens,
/// probes v2, and opens again.
fn visit(number: usize) -> HttpRequest {
    let request = user(number % 60).header("x-fault", "503");
    if number.is_multiple_of(4) { request.header("x-canary", "always") } else { request }
}

fn version(response: &HttpResponse) -> String {
    response.text().trim().to_owned()
}

fn user(number: usize) -> HttpRequest {
    HttpRequest::get("/").header("x-user-id", format!("user-{number}"))
}

/// The users that are assigned to v2.
fn on_v2(stage: &Stage) -> Result<Vec<bool>> {
    let address = stage.address()?;
    (0..USERS).map(|number| Ok(version(&http::send(Protocol::Http1, address, &user(number))?) == "v2")).collect()
}

fn change(stage: &mut Stage, weights: &str) -> Result<()> {
    let policy = POLICY.replacen("{name: v1, weight: 90}, {name: v2, weight: 10}", weights, 1);
    match stage.reload(&policy)? {
        Reload::Taken => Ok(()),
        refused @ Reload::Refused(_) => bail!("the policy was refused: {}", refused.reasons().join("; ")),
    }
}

fn walk(stage: &mut Stage) -> Result<()> {
    stage.say("1,000 users at 90 to 10, then at 80 to 20:");
    let widths = Widths { request: 42, answer: 20 };
    stage.screen.heads(widths);
    let share = |on: &[bool]| on.iter().filter(|on| **on).count();
    // The users' names are fixed, so the numbers are, too. The tolerance of five standard deviations is for people who
    // change the names.
    let about = |found: usize, wanted: usize| if found.abs_diff(wanted) <= 50 { found } else { wanted };
    let before = on_v2(stage)?;
    let first = share(&before);
    stage.judge(
        widths,
        "1,000 users",
        &format!("{first} on v2"),
        &format!("{} on v2", about(first, 100)),
        "10 %, more or less",
    );
    let again = on_v2(stage)?;
    let moved = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| a != b).count();
    stage.judge(
        widths,
        "the same users again",
        &format!("{} moved", moved(&before, &again)),
        "0 moved",
        "no state: a hash of each name",
    );
    change(stage, "{name: v1, weight: 80}, {name: v2, weight: 20}")?;
    let after = on_v2(stage)?;
    let left = before.iter().zip(&after).filter(|(before, after)| **before && !**after).count();
    let came = share(&after) - (first - left);
    stage.judge(
        widths,
        "weights 80 to 20",
        &format!("{came} came to v2"),
        &format!("{} came to v2", about(came, 100)),
        "the fewest that make it 20 %",
    );
    stage.judge(widths, "who left v2", &format!("{left} left"), "0 left", "raising a weight moves nobody out");

    stage.say("An override beats the weights; v2 fails, and everybody is taken back to v1:");
    let forced = HttpRequest::get("/").header("x-user-id", "user-0").header("x-canary", "always");
    stage.table(version, &[DemoStep::new(forced.clone(), "v2", "x-canary: always")])?;
    let fault = forced.header("x-fault", "503");
    let address = stage.address()?;
    let failed = (0..200)
        .map(|_| http::send(Protocol::Http1, address, &fault))
        .take_while(|response| response.as_ref().is_ok_and(|response| response.status == 503))
        .count();
    let expected = if (20..=60).contains(&failed) { failed } else { 20 };
    let widths = Widths { request: 42, answer: 20 };
    stage.screen.heads(widths);
    stage.judge(
        widths,
        "v2 answers 503",
        &format!("{failed} failures"),
        &format!("{expected} failures"),
        "20 are the minimum; then v2 is out",
    );
    // One worker opened the breaker; the other workers read its state every 50 ms.
    thread::sleep(Duration::from_millis(100));
    let after = on_v2(stage)?;
    stage.judge(widths, "1,000 users", &format!("{} on v2", share(&after)), "0 on v2", "until the cooldown is over");
    change(stage, "{name: v1, weight: 90}, {name: v2, weight: 10}")
}
