//! `penstock dash` as a user sees it: in a real Chromium, with real Envoys and traffic.
//!
//! With `WRITE=1`, the test writes the pictures in `docs/images/`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use penstock_integration::{Browser, Dash, Page, browser_tool, workspace};
use serde_json::Value;

mod api;
mod feed;
mod many;
mod names;
mod stage;
mod states;
mod tail;
mod tls;

use stage::{Visitors, envoy};

fn source(cluster: &str, envoy: &penstock_integration::Envoy) -> [String; 2] {
    ["--envoy".to_owned(), format!("{cluster}=http://{}", envoy.admin().address())]
}

/// The text of an element.
fn text(selector: &str) -> String {
    format!("(document.querySelector({})?.innerText ?? '')", Value::from(selector))
}

/// The page reported no errors and sent requests to nothing but the dash.
fn check_quiet(page: &Page, dash: &Dash) -> Result<()> {
    ensure!(page.errors().is_empty(), "the page said: {:#?}", page.errors());
    let strangers: Vec<_> = page.requests().into_iter().filter(|url| !url.starts_with(&dash.url())).collect();
    ensure!(strangers.is_empty(), "the page asked {strangers:?}");
    Ok(())
}

/// The violations that axe-core finds in the page, one line each.
fn accessibility(page: &mut Page) -> Result<Vec<String>> {
    let file = browser_tool("axe.min.js")?.context("there is no axe-core: run scripts/setup/chromium.sh")?;
    let axe = fs::read_to_string(file)?;
    let found = page.evaluate(&format!(
        "{axe}\n;axe.run(document, {{resultTypes: ['violations']}}).then((result) => result.violations.flatMap((rule) => \
         rule.nodes.map((node) => `${{rule.id}}: ${{node.target.join(' ')}}: ${{node.failureSummary}}`)))"
    ))?;
    Ok(serde_json::from_value(found)?)
}

/// Texts in the drawing whose contrast is below 4.5:1. axe-core does not check SVG.
const FAINT: &str = r"
[...document.querySelectorAll('svg.graph text')].map((text) => {
  const parts = (color) => (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  const light = (color) => parts(color).map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const box = text.parentNode.querySelector('rect');
  const ground = text.classList.contains('edge-label') || !box ? getComputedStyle(text.closest('.card')).backgroundColor : getComputedStyle(box).fill;
  const [a, b] = [light(getComputedStyle(text).fill), light(ground)].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), text.textContent];
}).filter(([ratio]) => ratio < 4.5).map(([ratio, what]) => `${what}: ${ratio.toFixed(2)}`)";

fn check_accessible(page: &mut Page, what: &str) -> Result<()> {
    let found = accessibility(page)?;
    ensure!(found.is_empty(), "{what}: {found:#?}");
    let faint = page.evaluate(FAINT)?;
    ensure!(faint.as_array().is_some_and(Vec::is_empty), "{what}: {faint}");
    Ok(())
}

#[test]
fn the_page_shows_at_once_which_canary_fails_and_whose_egress_is_refused() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let (mut east, _upstreams) = envoy(false)?;
    let (mut west, _others) = envoy(true)?;
    let _visitors = [Visitors::of(&east, true)?, Visitors::of(&west, false)?];
    let dash = Dash::start(&[source("east", &east), source("west", &west)].concat())?;
    let mut page = browser.page(1440, 900)?;
    page.prefer("light")?;
    page.open(&dash.url())?;

    // The cluster with the worst problems is shown first, and both clusters have a tab.
    let problems = text("#problems");
    let started = Instant::now();
    page.wait(&format!("/reviews: v2 .*rolled back/.test({problems})"))?;
    page.wait(&format!(
        "/rule stripe .*owner payments.*refuses/.test({problems}) && /hostNotAllowed/.test({problems})"
    ))?;
    println!("named after {:?}", started.elapsed());
    page.wait("document.querySelectorAll('#clusters a').length === 2")?;
    page.wait(&format!("{} === 'Cluster east'", text("#title")))?;

    // Both problems are visible without scrolling, and the canary's own row and the drawing show them, too.
    page.wait("[...document.querySelectorAll('.problem-list li')].filter((line) => line.getBoundingClientRect().bottom < innerHeight).length >= 3")?;
    page.wait(&format!("/Open/.test({})", text("#canaries tr[data-state=error]")))?;
    page.wait("document.querySelector('svg.graph .edge.refused') != null")?;
    page.wait("document.querySelectorAll('svg.graph .node').length > 8")?;

    // A click on a problem leads to its rule.
    page.evaluate("document.querySelector('.problem-list a').click()")?;
    page.wait("document.activeElement.dataset.rule === 'reviews'")?;

    // The numbers are updated.
    let total = "[...document.querySelectorAll('#routes tbody tr')].map((row) => row.innerText).join('|')";
    let before = page.wait(total)?;
    page.wait(&format!("{total} !== {before}"))?;

    // The other cluster has no problems.
    page.evaluate("[...document.querySelectorAll('#clusters a')].find((link) => /west/.test(link.innerText)).click()")?;
    page.wait(&format!("{} === 'Cluster west'", text("#title")))?;
    page.wait(&format!("!/rolled back|refuses|hostNotAllowed/.test({problems})"))?;
    check_quiet(&page, &dash)?;
    east.check_healthy()?;
    west.check_healthy()
}

/// Whether to write the pictures of the documentation. `make` passes a variable that is not set as an empty one.
fn writes_docs() -> bool {
    std::env::var_os("WRITE").is_some_and(|value| !value.is_empty())
}

/// Writes a screenshot to `docs/images/`, or to a temporary folder.
fn picture(page: &mut Page, name: &str) -> Result<()> {
    let folder = if writes_docs() { workspace::root().join("docs/images") } else { env!("CARGO_TARGET_TMPDIR").into() };
    let file = folder.join(name);
    page.screenshot(&file)?;
    let size = fs::metadata(&file)?.len();
    ensure!(size < 200_000, "{name} has {size} bytes");
    Ok(())
}

#[test]
fn the_page_is_readable_in_light_and_dark_on_small_and_large_screens() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let (mut envoy, _upstreams) = envoy(false)?;
    let (mut other, _others) = stage::envoy(true)?;
    let _visitors = [Visitors::of(&envoy, true)?, Visitors::of(&other, false)?];
    let dash = Dash::start(&[source("east", &envoy), source("west", &other)].concat())?;
    let mut page = browser.page(1440, 1000)?;
    page.open(&dash.url())?;
    page.wait(&format!("/rolled back/.test({})", text("#problems")))?;
    page.wait("document.querySelector('svg.graph .edge.refused') != null")?;
    page.evaluate("document.querySelectorAll('details').forEach((details) => details.open = true)")?;

    for (width, height) in [(1440, 1000), (320, 640), (3840, 2160)] {
        page.size(width, height)?;
        for scheme in ["light", "dark"] {
            page.prefer(scheme)?;
            let what = format!("{scheme}, {width} pixels wide");
            check_accessible(&mut page, &what)?;
            let too_wide =
                page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")?;
            ensure!(too_wide == 0, "{what}: {too_wide} pixels too wide");
        }
    }
    // With text twice as large, nothing is lost.
    page.size(720, 500)?;
    ensure!(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")? == 0);
    check_quiet(&page, &dash)?;

    if writes_docs() {
        page.evaluate("document.querySelectorAll('details').forEach((details) => details.open = false)")?;
        page.size(1440, 900)?;
        // Shows a minute of history.
        page.wait("document.querySelector('#routes .spark .stroke').getAttribute('d').split('L').length >= 58")?;
    }
    for scheme in ["light", "dark"] {
        page.prefer(scheme)?;
        page.evaluate("scrollTo(0, 0)")?;
        picture(&mut page, &format!("dash-{scheme}.png"))?;
    }
    page.evaluate("document.querySelector('#egress').scrollIntoView()")?;
    picture(&mut page, "dash-rules.png")?;
    envoy.check_healthy()?;
    other.check_healthy()
}

/// The focused element: a word for its kind, its text, and whether its focus is visible.
const FOCUSED: &str = r"
(() => {
  const node = document.activeElement;
  const box = node.getBoundingClientRect();
  const style = getComputedStyle(node);
  node.dataset.reached = '';
  return [`${node.tagName.toLowerCase()} ${(node.getAttribute('aria-label') ?? node.innerText ?? '').trim().split('\n')[0]}`,
    box.width > 0 && box.height > 0 && style.visibility === 'visible' && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
})()";

#[test]
fn a_keyboard_reaches_everything_in_the_order_of_the_page() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let (mut east, _upstreams) = envoy(false)?;
    let _visitors = Visitors::of(&east, true)?;
    let dash = Dash::start(&[source("east", &east), source("west", &east)].concat())?;
    let mut page = browser.page(1280, 900)?;
    page.prefer("light")?;
    page.open(&dash.url())?;
    page.wait(&format!("/rolled back/.test({})", text("#problems")))?;
    page.wait("document.querySelector('svg.graph .node') != null")?;
    // Pauses the page by keyboard, so that what is counted below does not change.
    page.evaluate("document.querySelector('#pause').focus()")?;
    page.press(" ", false)?;
    page.wait(&format!(
        "/Paused/.test({}) && document.querySelector('#pause').ariaPressed === 'true'",
        text("#freshness")
    ))?;

    // No element is focused before the first tab stop.
    page.evaluate("document.querySelector('.skip').focus()")?;
    page.press("Tab", true)?;
    ensure!(page.evaluate("document.activeElement === document.body")? == true);
    let mut order = Vec::new();
    while order.len() < 200 {
        page.press("Tab", false)?;
        let state = page.evaluate(FOCUSED)?;
        let what = state.pointer("/0").and_then(Value::as_str).context("no focus")?.to_owned();
        if what.starts_with("body") {
            break;
        }
        ensure!(state.pointer("/1") == Some(&true.into()), "nobody sees that {what:?} has the focus");
        order.push(what);
    }
    ensure!(order.first().is_some_and(|first| first == "a Skip to what is wrong now"), "{order:#?}");
    let missed = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')].filter((node) => node.checkVisibility() && node.dataset.reached == null).map((node) => node.outerHTML)",
    )?;
    ensure!(missed.as_array().is_some_and(Vec::is_empty), "not reached: {missed:#}; reached: {order:#?}");
    let at = |start: &str| {
        order.iter().position(|what| what.starts_with(start)).with_context(|| format!("no {start:?}: {order:#?}"))
    };
    ensure!(at("a east")? < at("button Resume")? && at("button Resume")? < at("a Canary reviews")?, "{order:#?}");
    ensure!(
        at("a Canary reviews")? < at("a Topology")? && at("a Topology")? < at("div Topology, drawn")?,
        "{order:#?}"
    );

    // The first tab stop skips the header; the headings form the outline of the page.
    page.evaluate("document.querySelector('.skip').focus()")?;
    page.press("Enter", false)?;
    page.wait("document.activeElement.id === 'main'")?;
    page.press("Tab", false)?;
    page.wait("document.activeElement.closest('#problems') != null")?;
    let headings = page.evaluate("[...document.querySelectorAll('h1, h2')].filter((node) => node.checkVisibility()).map((node) => node.innerText)")?;
    let expected = [
        "Cluster east",
        "What is wrong now",
        "Topology",
        "History",
        "Decisions, live",
        "Egress",
        "Canaries",
        "Routes",
        "Policy drift",
        "Rate limits",
        "Last refusals",
        "Proxies",
    ];
    ensure!(headings == serde_json::json!(expected), "{headings}");

    // A paused page does not change; a live one continues.
    let numbers = text("#routes tbody");
    let before = page.evaluate(&numbers)?;
    page.evaluate("new Promise((done) => setTimeout(done, 2500))")?;
    ensure!(page.evaluate(&numbers)? == before);
    page.evaluate("document.querySelector('#pause').focus()")?;
    page.press("Enter", false)?;
    page.wait(&format!("{numbers} !== {before} && /Live/.test({})", text("#freshness")))?;

    // Users who prefer reduced motion get none.
    ensure!(
        page.evaluate("getComputedStyle(document.querySelector('#freshness'), '::before').animationName")? == "none"
    );
    check_quiet(&page, &dash)?;
    east.check_healthy()
}
