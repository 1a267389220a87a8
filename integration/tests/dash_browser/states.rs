//! What the page shows to users with restricted access, and when something is missing.

use std::fs;

use anyhow::{Result, ensure};
use penstock_integration::{Bootstrap, Browser, Dash, Listener, Page, Route};
use serde_json::{Value, json};

use super::stage::{Visitors, envoy};
use super::{check_accessible, check_quiet, source, text};

/// The page's errors, except responses with 401 or 403, which browsers report as errors, too.
fn surprises(page: &Page) -> Vec<String> {
    let expected =
        |error: &String| ["status of 401", "status of 403", "status of 404"].iter().any(|text| error.contains(text));
    page.errors().into_iter().filter(|error| !expected(error)).collect()
}

pub(crate) fn hash(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_token_opens_its_workspace_and_nothing_else() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let (mut east, _upstreams) = envoy(false)?;
    let _visitors = Visitors::of(&east, true)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("dash.yaml");
    let admin = format!("http://{}", east.admin().address());
    // JSON is valid YAML.
    let config = json!({
        "clusters": [{"name": "east", "envoys": [admin]}, {"name": "west", "envoys": [admin]}],
        "workspaces": [
            {"name": "payments", "clusters": ["east"], "owners": ["payments"], "tokens": [hash("correct horse")]},
            {"name": "platform", "clusters": ["*"], "tokens": [hash("battery staple")]}],
    });
    fs::write(&file, config.to_string())?;
    let dash = Dash::start(&["--config".to_owned(), file.display().to_string()])?;

    // The data is not only hidden: the API refuses it.
    for (path, token, status) in [
        ("/api/v1/clusters", None, 401),
        ("/api/v1/clusters", Some("correct hors"), 401),
        ("/api/v1/clusters/east", Some("correct horse"), 200),
        ("/api/v1/clusters/west", Some("correct horse"), 403),
        ("/api/v1/clusters/west", Some("battery staple"), 200),
    ] {
        let answer = dash.get(path, token)?;
        ensure!(answer.status == status, "{path} with {token:?}: {} {}", answer.status, answer.text());
    }

    let mut page = browser.page(1280, 900)?;
    page.prefer("light")?;
    page.open(&dash.url())?;
    page.wait("!document.querySelector('#token-form').hidden && document.activeElement.id === 'token'")?;
    ensure!(page.evaluate("document.querySelector('#view').hidden")? == true);
    check_accessible(&mut page, "token form")?;
    page.write("correct hors")?;
    page.press("Enter", false)?;
    page.wait(&format!("/does not know this token/.test({})", text("#token-problem")))?;
    page.wait("document.activeElement.id === 'token'")?;
    page.write("correct horse")?;
    page.press("Enter", false)?;

    // Only what belongs to the workspace: one cluster, and one owner's rules.
    page.wait(&format!("{} === 'payments'", text("#workspace")))?;
    page.wait("document.querySelector('#egress tbody tr') != null")?;
    ensure!(page.evaluate("document.querySelectorAll('#clusters a').length")? == 1);
    let rules = page.evaluate("[...document.querySelectorAll('#egress tbody tr')].map((row) => row.dataset.rule)")?;
    ensure!(rules == json!(["stripe"]), "{rules}");
    let shown = page.evaluate("document.documentElement.outerHTML")?;
    ensure!(!shown.as_str().unwrap_or("").contains("own-services"), "{shown}");

    // Opens another cluster by its URL.
    page.evaluate("location.hash = '#/west'")?;
    page.wait(&format!("/payments, may not see the cluster west. It may see: east/.test({})", text("#notice")))?;
    ensure!(page.evaluate("document.querySelector('#view').hidden")? == true);
    page.evaluate("location.hash = '#/nowhere'")?;
    page.wait(&format!("/may not see the cluster nowhere/.test({})", text("#notice")))?;
    page.evaluate("location.hash = '#/east'")?;
    page.wait(&format!("{} === 'Cluster east' && !document.querySelector('#view').hidden", text("#title")))?;

    // The token is stored in this tab only, and never in a URL.
    ensure!(page.evaluate("document.cookie + Object.keys(localStorage) + location.href.includes('horse')")? == "false");
    ensure!(page.requests().iter().all(|url| !url.contains("horse")), "{:?}", page.requests());
    page.evaluate("document.querySelector('#sign-out').click()")?;
    page.wait("!document.querySelector('#token-form').hidden && sessionStorage.length === 0")?;
    ensure!(page.evaluate("document.querySelector('#view').hidden")? == true);
    ensure!(surprises(&page).is_empty(), "{:#?}", surprises(&page));
    east.check_healthy()
}

#[test]
fn missing_data_is_reported_and_nothing_disappears() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let (envoy, _upstreams) = envoy(true)?;
    let _visitors = Visitors::of(&envoy, false)?;
    let plain = Bootstrap::new()?.listener(Listener::new("plain").route(Route::any())).start()?;
    let arguments = [
        source("east", &envoy).to_vec(),
        source("plain", &plain).to_vec(),
        vec!["--envoy".to_owned(), format!("void=http://127.0.0.1:1")],
    ];
    let mut dash = Dash::start(&arguments.concat())?;
    let mut page = browser.page(1280, 900)?;
    page.prefer("dark")?;

    // An Envoy without modules, and a cluster without any data.
    page.open(&format!("{}#/plain", dash.url()))?;
    page.wait(&format!("/runs no Penstock filter/.test({})", text("#problems")))?;
    for (section, says) in [
        ("canaries", "No policy in this cluster has a canary"),
        ("rateLimits", "has a rate limit"),
        ("egress", "controls egress"),
        ("routes", "routes"),
        ("refusals", "Nobody has been refused"),
        ("topology", "No traffic has been counted"),
    ] {
        page.wait(&format!("{}.includes({})", text(&format!("#{section} .empty:not([hidden])")), Value::from(says)))?;
    }
    check_accessible(&mut page, "empty")?;
    page.evaluate("location.hash = '#/void'")?;
    page.wait(&format!("/does not answer/.test({})", text("#problems")))?;
    page.wait(&format!("/no answer/.test({})", text("#endpoints tbody")))?;
    page.evaluate("location.hash = '#/nowhere'")?;
    page.wait(&format!("/There is no cluster nowhere/.test({})", text("#notice")))?;

    // A proxy that stops responding is announced once to screen readers, and its rules stay.
    page.evaluate("location.hash = '#/east'")?;
    page.wait(&format!("/stripe/.test({}) && /answers/.test({})", text("#egress"), text("#endpoints")))?;
    let name = envoy.admin().address().to_string();
    drop(envoy);
    page.wait(&format!("/does not answer/.test({})", text("#problems")))?;
    page.wait(&format!("/Error: .*{name} does not answer/.test(document.querySelector('#announce').textContent)"))?;
    page.wait(&format!("/{name}/.test({})", text("#endpoints tr[data-state=error]")))?;
    check_accessible(&mut page, "dead")?;

    // The same for the dash itself.
    ensure!(surprises(&page).is_empty(), "{:#?}", surprises(&page));
    dash.stop();
    page.wait(&format!("/The dash does not answer; what you see is from/.test({})", text("#notice")))?;
    ensure!(page.evaluate("document.querySelector('#view').hidden")? == false);
    Ok(())
}

#[test]
fn the_page_says_that_nothing_is_wrong_only_while_it_is_known() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let envoy = Bootstrap::suite(&json!({"routes": {"default": "stable"}}), &[])?.start()?;
    let mut dash = Dash::start(&source("east", &envoy))?;
    let mut page = browser.page(1280, 900)?;
    page.open(&dash.url())?;
    let (problems, tab) = (text("#problems"), text("#clusters"));
    let is_well = format!("/Nothing is wrong. 1 proxy answers/.test({problems}) && /fine/.test({tab})");
    let is_unknown = format!(
        "/Nothing was wrong at .* What is wrong now is not known/.test({problems}) && !/fine/.test({tab}) && \
         document.querySelector('#problems').dataset.worst === 'unknown'"
    );
    page.wait(&is_well)?;
    page.evaluate("document.querySelector('#pause').click()")?;
    page.wait(&is_unknown)?;
    check_accessible(&mut page, "unknown")?;
    page.evaluate("document.querySelector('#pause').click()")?;
    page.wait(&is_well)?;
    dash.stop();
    page.wait(&is_unknown)?;
    Ok(())
}

#[test]
fn a_thousand_rules_show_as_fifty_rows_until_all_are_requested() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let (mut envoy, _upstreams) = super::stage::crowded(1_000)?;
    let _visitors = Visitors::of(&envoy, true)?;
    let dash = Dash::start(&source("east", &envoy))?;
    let mut page = browser.page(1280, 900)?;
    page.open(&dash.url())?;
    let rows = "document.querySelectorAll('#egress tbody tr').length";
    page.wait(&format!("{rows} === 50"))?;
    page.wait(&format!("/Show all 1,00\\d rules/.test({})", text("#egress .more")))?;
    // The busiest rules are among those that are shown.
    page.wait(&format!("/own-services/.test({}) && /stripe/.test({0})", text("#egress")))?;

    // Text of a policy is shown as text, not as HTML.
    page.wait(&format!("{}.includes({})", text("#egress"), Value::from(super::stage::MARKUP)))?;
    ensure!(page.evaluate("document.querySelectorAll('img, iframe').length")? == 0);

    // A rule far down the list is found by name, owner or host.
    page.evaluate("document.querySelector('#egress input').focus()")?;
    page.write("host-777.")?;
    page.wait(&format!("{rows} === 1 && /rule-777/.test({})", text("#egress tbody")))?;
    page.wait(&format!("/1 of 1,00\\d rules/.test({})", text("#egress .found")))?;
    page.evaluate("const input = document.querySelector('#egress input'); input.value = ''; input.dispatchEvent(new Event('input'))")?;

    // All rules are shown and the page stays responsive, on a machine that is busy.
    page.evaluate("document.querySelector('#egress .more').click()")?;
    page.wait(&format!("{rows} >= 1000"))?;
    page.evaluate("window.kept = document.querySelectorAll('#egress tbody tr')[900]")?;
    page.evaluate("window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach((entry) => { window.longest = Math.max(window.longest, entry.duration); })).observe({entryTypes: ['longtask']})")?;
    // What else the machine does makes tasks longer, so one of five stretches is enough.
    let mut all = Vec::new();
    while all.len() < 5 && all.last().is_none_or(|longest| *longest >= 1_000.0) {
        page.evaluate("window.longest = 0")?;
        let polls = page.requests().len();
        while page.requests().len() < polls + 10 {
            page.evaluate("new Promise((done) => setTimeout(done, 200))")?;
        }
        all.push(page.evaluate("window.longest")?.as_f64().unwrap_or(0.0));
    }
    println!("longest tasks with 1,000 rows: {all:?} ms");
    ensure!(all.last().is_some_and(|longest| *longest < 1_000.0), "{all:?} ms");
    // Rows are updated in place: they are still the same elements.
    ensure!(page.evaluate("window.kept.isConnected")? == true);
    check_quiet(&page, &dash)?;
    envoy.check_healthy()
}
