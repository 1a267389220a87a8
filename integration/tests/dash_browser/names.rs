//! Names that others choose, in policies, requests and admin interfaces: the page shows them as text, and does not cut off
//! long ones.

use std::fs;

use anyhow::{Result, ensure};
use penstock_integration::{Browser, Dash, Page, Upstream, UpstreamReply};
use serde_json::{Value, json};

use super::{check_accessible, check_quiet, text};

/// A script would run if the page interpreted this as HTML.
const MARKUP: &str = "<img src=x onerror=\"window.taken=1\">";

/// A long word at which a line cannot break.
fn long(start: &str) -> String {
    format!("{start}-{}", "x".repeat(200))
}

/// A policy in which all names are made by `name` from a word.
fn policy(name: &dyn Fn(&str) -> String) -> Value {
    json!({
        "egress": {"rules": [{"name": name("rule"), "owner": name("owner"), "reason": name("reason"), "expires": "2099-01-01T00:00:00Z",
            "to": [{"host": name("host"), "ports": [443]}]}]},
        "rateLimits": [{"name": name("limit"), "key": [], "limit": {"requests": 1, "per": "1h"}}],
        "routes": {"rules": [{"name": name("way"), "route": name("route")}]},
        "canaries": [{"name": name("canary"), "variants": [{"name": name("first"), "route": name("route")}, {"name": name("second")}]}],
    })
}

/// A simulated admin interface with such names and with increasing counters.
fn admin(name: impl Fn(&str) -> String) -> Result<Upstream> {
    let part = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
    };
    let stat = |stat: String, value: u64| json!({"name": stat, "value": value});
    let counter = |section: &str, rule: &str, outcome: &str| {
        stat(
            format!(
                "wasmcustom.penstock.requests_total.section.{section}.rule.{}.outcome.{outcome}",
                part(&name(rule))
            ),
            7,
        )
    };
    let plugin = name("plugin");
    let stats = json!({"stats": [
        counter("egress", "rule", "denied"), counter("egress", "rule", "allowed"),
        counter("rateLimits", "limit", "limited"), counter("routes", "way", "matched"),
        stat(format!("wasmcustom.penstock.variant_requests_total.rule.{}.variant.{}", part(&name("canary")), part(&name("first"))), 7),
        stat(format!("wasmcustom.penstock.policy_hash.plugin.{}", part(&plugin)), 281_474_976_710_655),
        stat(format!("http.{}.downstream_rq_total", name("listener")), 7),
    ]});
    let info = json!({"version": "c/1.40.0/Clean", "uptime_current_epoch": "3600s",
        "node": {"id": name("node"), "metadata": {"NAMESPACE": name("namespace")}}});
    let dump = json!({"stat_prefix": name("listener"), "http_filters": [
        {"name": plugin, "vm_config": {}, "configuration": {"value": policy(&name).to_string()}}]});
    Upstream::forgetful(move |request| match request.path() {
        path if path.starts_with("/stats") => UpstreamReply::Json(stats.clone()),
        path if path.starts_with("/server_info") => UpstreamReply::Json(info.clone()),
        path if path.starts_with("/config_dump") => UpstreamReply::Json(dump.clone()),
        _ => UpstreamReply::Status(404, Vec::new()),
    })
}

/// A line of an access log with such names.
fn line(name: impl Fn(&str) -> String) -> String {
    json!({"method": name("GET"), "authority": name("asked"), "path": name("/path"), "status": 403, "requestId": name("id"),
        "details": format!("penstock_egress_{}", name("because")), "egressRule": name("rule"), "source": "203.0.113.7",
        "penstockRoute": name("route"), "scheme": name("scheme")})
    .to_string()
}

/// Checks that no part of a name became an element, and that no script ran.
fn check_text(page: &mut Page, what: &str) -> Result<()> {
    let made = page.evaluate(
        "[window.taken ?? null, document.querySelectorAll('img, iframe, object, embed, script:not([src]), [onerror]').length]",
    )?;
    ensure!(made == json!([null, 0]), "{what}: {made}");
    Ok(())
}

const DIALOG: &str = "document.querySelector('#inspect')";

/// Opens the first rule of each table with the keyboard, and calls `check` while it is shown.
fn open_all(page: &mut Page, mut check: impl FnMut(&mut Page, &str) -> Result<()>) -> Result<()> {
    for (section, word) in
        [("egress", "rule"), ("rateLimits", "limit"), ("routes", "way"), ("canaries", "canary"), ("decisions", "rule")]
    {
        let button =
            format!("document.querySelector('#{section} .name.link, #{section} h3 .link, #{section} tbody .link')");
        page.wait(&format!("{button} != null"))?;
        page.evaluate(&format!("{button}.focus()"))?;
        page.press("Enter", false)?;
        page.wait(&format!("{DIALOG}.open && {DIALOG}.querySelector('pre')?.innerText.includes('name: ')"))?;
        let shown = page.evaluate(&format!("{DIALOG}.innerText"))?;
        ensure!(shown.as_str().is_some_and(|text| text.contains(word)), "{section}: {shown}");
        check(page, section)?;
        page.press("Escape", false)?;
        page.wait(&format!("!{DIALOG}.open && document.activeElement === {button}"))?;
    }
    Ok(())
}

#[test]
fn names_are_text_wherever_they_come_from() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let with_markup = |word: &str| format!("{word} {MARKUP}");
    let proxy = admin(with_markup)?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    fs::write(&log, line(with_markup) + "\n")?;
    let sources = [format!("--envoy=east=http://{}", proxy.address()), format!("--tail=east={}", log.display())];
    let dash = Dash::start(&sources)?;
    let mut page = browser.page(1440, 900)?;
    page.open(&dash.url())?;
    // The page shows each name as it is written.
    for (section, words) in [
        ("egress", &["rule", "owner", "reason", "host"][..]),
        ("rateLimits", &["limit"]),
        ("routes", &["way"]),
        ("canaries", &["canary", "first", "second"]),
        ("decisions", &["asked", "/path", "because", "rule", "id"]),
        ("endpoints", &["namespace"]),
    ] {
        for word in words {
            page.wait(&format!("{}.includes({})", text(&format!("#{section}")), Value::from(with_markup(word))))?;
        }
    }
    page.wait("document.querySelectorAll('svg.graph .node').length > 3")?;
    check_text(&mut page, "the page")?;
    open_all(&mut page, |page, section| {
        ensure!(page.evaluate(&format!("{DIALOG}.innerText.includes({})", Value::from(MARKUP)))? == true, "{section}");
        check_text(page, section)
    })?;
    page.evaluate("document.querySelector('#decisions button.small').click()")?;
    page.wait(&format!("{DIALOG}.querySelector('.answer pre.command') != null"))?;
    check_text(&mut page, "the explanation")?;
    check_accessible(&mut page, "the explanation")?;
    check_quiet(&page, &dash)
}

#[test]
fn long_names_fit_from_phones_to_walls_and_a_chosen_theme_stays() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let proxy = admin(long)?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    fs::write(&log, line(long) + "\n")?;
    let sources = [format!("--envoy=east=http://{}", proxy.address()), format!("--tail=east={}", log.display())];
    let dash = Dash::start(&sources)?;
    let mut page = browser.page(1440, 900)?;
    page.prefer("light")?;
    page.open(&dash.url())?;
    page.wait("['egress', 'rateLimits', 'routes', 'decisions'].every((id) => document.querySelector(`#${id} tbody tr`) != null)")?;
    page.wait("document.querySelectorAll('svg.graph .node').length > 3")?;
    for (width, height) in [(360, 640), (1440, 900), (3840, 2160)] {
        page.size(width, height)?;
        let check = |page: &mut Page, what: &str, node: &str| -> Result<()> {
            let too_wide = page.evaluate(&format!("{node}.scrollWidth - {node}.clientWidth"))?;
            ensure!(too_wide == 0, "{what}, {width} pixels: {too_wide} too wide");
            Ok(())
        };
        check(&mut page, "the page", "document.documentElement")?;
        open_all(&mut page, |page, section| check(page, section, DIALOG))?;
        check_accessible(&mut page, &format!("{width} pixels"))?;
    }
    page.size(1440, 900)?;

    // The system prefers light, and the user selects dark. The selection is kept when the page is opened again, until the
    // user changes it.
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = page.evaluate(ground)?;
    let choose = |theme: &str| {
        format!(
            "{{ const select = document.querySelector('#theme'); select.value = '{theme}'; select.dispatchEvent(new Event('change')); }}"
        )
    };
    page.evaluate(&choose("dark"))?;
    let dark = page.evaluate(ground)?;
    ensure!(dark != light, "{dark}");
    check_accessible(&mut page, "dark by choice")?;
    page.open(&dash.url())?;
    page.wait("document.querySelector('#egress tbody tr') != null")?;
    ensure!(page.evaluate(ground)? == dark && page.evaluate("document.querySelector('#theme').value")? == "dark");
    page.evaluate(&choose("light"))?;
    page.prefer("dark")?;
    ensure!(page.evaluate(ground)? == light);
    page.evaluate(&choose("system"))?;
    ensure!(page.evaluate(ground)? == dark);
    check_quiet(&page, &dash)
}
