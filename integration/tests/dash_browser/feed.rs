//! The live feed of decisions: a request that a real Envoy refuses appears on the page, with its rule and an explanation.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::free_port;
use penstock_integration::demo::json::of_yaml;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{
    Bootstrap, Browser, Dash, Envoy, Listener, PATIENCE, Page, Route, Upstream, UpstreamReply, WasmFilter, workspace,
};
use serde_json::{Value, json};

use super::states::hash;
use super::{check_accessible, check_quiet, picture, source, text};

fn policy() -> Value {
    json!({
        "settings": {"filterState": true},
        "egress": {"rules": [
            {"name": "cards", "owner": "payments", "reason": "card charges", "methods": ["GET"],
             "to": [{"host": "cards.example.com", "ports": [80]}]}]},
        "rateLimits": [{"name": "per-user", "key": [{"header": "x-user"}], "onMissingKey": "Skip",
            "limit": {"requests": 1, "per": "1h"}, "capacity": 64}],
        "routes": {"default": "stable"},
    })
}

/// The access log and the cluster that the documentation shows, which send to the port `als`.
fn shipped(als: u16) -> Result<Value> {
    let text = fs::read_to_string(workspace::root().join("observability/envoy-decisions.yaml"))?;
    ensure!(text.contains("port_value: 9912"), "{text}");
    Ok(serde_json::from_str(&of_yaml(&text.replace("port_value: 9912", &format!("port_value: {als}")))?)?)
}

/// An Envoy with the access log that the documentation shows, which sends to the port `als`.
pub(crate) fn envoy(als: u16) -> Result<(Envoy, Upstream)> {
    envoy_over(als, None)
}

/// As [`envoy`], with this transport socket for the connection to the dash.
pub(crate) fn envoy_over(als: u16, transport: Option<Value>) -> Result<(Envoy, Upstream)> {
    let mut shipped = shipped(als)?;
    if let Some(transport) = transport {
        shipped["clusters"][0]["transport_socket"] = transport;
    }
    let upstream = Upstream::forgetful(|_| UpstreamReply::Status(200, vec![]))?;
    let mut bootstrap = Bootstrap::new()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy())?.named("penstock"))?;
    let listener = Listener::new("ingress").discovered(filter).manager("access_log", shipped["access_log"].clone());
    let envoy = bootstrap
        .listener(listener.route(Route::any().to("stable")))
        .cluster("stable", upstream.address())
        .any_cluster(shipped["clusters"][0].clone())
        .start()?;
    Ok((envoy, upstream))
}

/// An Envoy that sends its decisions to a dash, which shows it as the cluster `east`.
pub(crate) struct FeedStage {
    pub(crate) envoy: Envoy,
    /// The address of the Envoy's listener.
    pub(crate) at: SocketAddr,
    pub(crate) dash: Dash,
    pub(crate) upstream: Upstream,
}

impl FeedStage {
    pub(crate) fn start() -> Result<FeedStage> {
        FeedStage::with(&[])
    }

    /// As [`FeedStage::start`], with more arguments for the dash.
    pub(crate) fn with(more: &[String]) -> Result<FeedStage> {
        let als = free_port()?;
        let (envoy, upstream) = envoy(als)?;
        let at = envoy.address("ingress")?;
        let log = ["--als".to_owned(), format!("east=127.0.0.1:{als}")];
        let dash = Dash::start(&[&source("east", &envoy)[..], &log, more].concat())?;
        dash.wait_for("east", |snapshot| snapshot["endpoints"][0]["alive"] == true)?;
        Ok(FeedStage { envoy, at, dash, upstream })
    }
}

pub(crate) fn get(host: &str, path: &str) -> HttpRequest {
    HttpRequest::new("GET", host, path).header("x-user", "ann")
}

pub(crate) fn send(at: SocketAddr, request: &HttpRequest) -> Result<u16> {
    Ok(http::send(Protocol::Http1, at, request)?.status)
}

/// Waits until the feed has a line that contains `what`. Returns the time since `since`.
fn wait_for_line(page: &mut Page, what: &str, since: Instant) -> Result<Duration> {
    let lines = "[...document.querySelectorAll('#decisions tbody tr')]";
    page.wait(&format!("{lines}.some((row) => row.innerText.includes({}))", Value::from(what)))?;
    Ok(since.elapsed())
}

const DIALOG: &str = "document.querySelector('#inspect')";

#[test]
fn a_refused_request_is_on_the_page_within_two_seconds_and_one_click_explains_it() -> Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let FeedStage { mut envoy, at, dash, upstream: _upstream } = FeedStage::start()?;
    let mut page = browser.page(1440, 900)?;
    page.prefer("light")?;
    page.open(&dash.url())?;
    page.wait(&format!("/No refusals yet/.test({})", text("#decisions")))?;

    // Not measured: Envoy's connection to the dash must be opened first.
    ensure!(send(at, &get("first.example.net", "/"))? == 403);
    wait_for_line(&mut page, "first.example.net", Instant::now())?;
    // Other work of the machine can delay the page, so five of at most thirty requests are enough.
    let mut times = Vec::new();
    let soon = |times: &[Duration]| times.iter().filter(|time| **time < Duration::from_secs(2)).count();
    for number in 0..30 {
        let host = format!("evil-{number}.example.net");
        let started = Instant::now();
        ensure!(send(at, &get(&host, "/steal?secret=1"))? == 403);
        times.push(wait_for_line(&mut page, &host, started)?);
        if soon(&times) == 5 {
            break;
        }
    }
    println!("on the page after {times:?}");
    ensure!(soon(&times) == 5, "{times:?}");
    let shown = page.evaluate(&text("#decisions"))?;
    let shown = shown.as_str().unwrap_or_default();
    for expected in ["hostNotAllowed", "Refused", "127.0.0.0/24", "/steal?…", "Nothing was dropped"] {
        ensure!(shown.contains(expected), "{expected}: {shown}");
    }
    ensure!(!shown.contains("secret"), "{shown}");

    // Each line names its rule: a limit, and an egress rule.
    ensure!(send(at, &get("cards.example.com:80", "/charges"))? == 200);
    ensure!(send(at, &get("cards.example.com:80", "/charges"))? == 429);
    wait_for_line(&mut page, "Limit: per-user", Instant::now())?;
    ensure!(send(at, &HttpRequest::new("DELETE", "cards.example.com:80", "/charges"))? == 403);
    wait_for_line(&mut page, "Egress: cards", Instant::now())?;
    check_accessible(&mut page, "the feed")?;
    page.evaluate("document.querySelector('#decisions').scrollIntoView()")?;
    picture(&mut page, "dash-decisions.png")?;

    // The line's button, pressed by the keyboard, opens the explanation.
    let row =
        "[...document.querySelectorAll('#decisions tbody tr')].find((row) => row.innerText.includes('Egress: cards'))";
    page.evaluate(&format!("{row}.querySelector('button.small').focus()"))?;
    page.press("Enter", false)?;
    page.wait(&format!("/methodNotAllowed/.test({DIALOG}.querySelector('.answer')?.innerText ?? '')"))?;
    let command = page.evaluate(&format!("{DIALOG}.querySelector('.command').innerText"))?;
    check_accessible(&mut page, "the explanation")?;
    picture(&mut page, "dash-explain.png")?;
    // The copied command can be run and gives the same result.
    let command = command.as_str().context("no command")?.to_owned();
    let binary = workspace::dist().join("penstock");
    let said =
        Command::new("sh").args(["-c", &command.replacen("penstock", &binary.display().to_string(), 1)]).output()?;
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    ensure!(out.contains("methodNotAllowed") && out.contains("cards"), "{command}: {out}{err}");
    // A changed request is explained anew: another method is allowed.
    page.evaluate(&format!("{DIALOG}.querySelector('[name=method]').value = 'GET'"))?;
    page.evaluate(&format!("{DIALOG}.querySelector('form').requestSubmit()"))?;
    page.wait(&format!("/egress: allowed/.test({DIALOG}.querySelector('.answer').innerText)"))?;
    for (width, height) in [(360, 640), (3840, 2160)] {
        page.size(width, height)?;
        let too_wide = page.evaluate(&format!("{DIALOG}.scrollWidth - {DIALOG}.clientWidth"))?;
        ensure!(too_wide == 0, "{width}: the dialog is {too_wide} pixels too wide");
        check_accessible(&mut page, &format!("the explanation, {width} pixels wide"))?;
    }
    page.size(1440, 900)?;
    page.evaluate(&format!("{DIALOG}.close()"))?;
    ensure!(page.evaluate("document.activeElement.classList.contains('small')")? == true, "the focus is lost");

    // A click on the rule shows its owner and its last refusals.
    page.evaluate(&format!("{row}.querySelector('button.link').click()"))?;
    page.wait(&format!("/owner: payments/.test({DIALOG}.innerText) && /methodNotAllowed/.test({DIALOG}.innerText)"))?;
    check_accessible(&mut page, "the rule")?;
    picture(&mut page, "dash-rule.png")?;
    page.evaluate(&format!("{DIALOG}.close()"))?;

    // The filters are part of the URL, so a page that is opened with it has the same filters.
    page.evaluate("{ const input = document.querySelector('#decisions [name=host]'); input.value = 'evil-3'; input.dispatchEvent(new Event('input', {bubbles: true})); }")?;
    page.wait(
        "document.querySelectorAll('#decisions tbody tr').length === 1 && location.hash.includes('host=evil-3')",
    )?;
    let shared = page.evaluate("location.href")?;
    let mut other = browser.page(1440, 900)?;
    other.open(shared.as_str().context("no address")?)?;
    wait_for_line(&mut other, "evil-3.example.net", Instant::now())?;
    ensure!(other.evaluate("document.querySelectorAll('#decisions tbody tr').length")? == 1);
    check_quiet(&other, &dash)?;
    check_quiet(&page, &dash)?;
    envoy.check_healthy()
}

#[test]
fn a_flood_of_refusals_is_bounded_and_dropped_decisions_are_counted() -> Result<()> {
    let FeedStage { mut envoy, at, dash, upstream: _upstream } = FeedStage::start()?;
    let decisions = || -> Result<Value> {
        let answer = dash.get("/api/v1/clusters/east/decisions?limit=500", None)?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(answer.json())
    };
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    // Four clients send requests until more have arrived within a second than the feed keeps.
    let (is_enough, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = || -> Result<()> {
        let mut connection = http::h2::Http2Connection::open(at)?;
        while !is_enough.load(Ordering::SeqCst) {
            ensure!(connection.request(&get("evil.example.net", "/"))?.status == 403);
            sent.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let clients = [0; 4].map(|_| scope.spawn(client));
        let mut seen = decisions();
        while seen.as_ref().is_ok_and(|answer| number(&answer["counts"]["dropped"]) == 0) && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
            seen = decisions();
        }
        is_enough.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        seen.map(|_| ())
    })?;
    let sent = sent.load(Ordering::SeqCst);
    loop {
        let answer = decisions()?;
        let (counts, shown) = (&answer["counts"], answer["decisions"].as_array().context("no list")?.len());
        if number(&counts["received"]) + number(&answer["proxiesDropped"]) == sent {
            ensure!(number(&counts["dropped"]) > 0, "{counts}");
            let kept = number(&counts["received"]) - number(&counts["dropped"]);
            ensure!(shown as u64 == kept.min(500), "{shown} of {counts}");
            break;
        }
        ensure!(Instant::now() < until, "{sent} were sent: {counts} {}", answer["proxiesDropped"]);
        thread::sleep(Duration::from_millis(200));
    }
    envoy.check_healthy()
}

#[test]
fn a_workspace_sees_only_decisions_of_its_clusters_namespaces_and_owners() -> Result<()> {
    let als = free_port()?;
    let (mut envoy, _upstream) = envoy(als)?;
    let at = envoy.address("ingress")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("dash.yaml");
    let workspace = |name: &str, more: Value| {
        let mut workspace = json!({"name": name, "clusters": ["east"], "tokens": [hash(name)]});
        workspace.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        workspace
    };
    let config = json!({
        "clusters": [{"name": "east", "envoys": [format!("http://{}", envoy.admin().address())], "als": format!("127.0.0.1:{als}")},
            {"name": "west", "logs": ["none.log"]}],
        "workspaces": [workspace("platform", json!({})), workspace("payments", json!({"owners": ["payments"]})),
            workspace("mail", json!({"owners": ["mail"]})), workspace("other", json!({"namespaces": ["other"]}))],
    });
    fs::write(&file, config.to_string())?;
    let dash = Dash::start(&["--config".to_owned(), file.display().to_string()])?;
    let get_as = |who: &str, path: &str| dash.get(&format!("/api/v1/clusters/{path}"), Some(who));
    let until = Instant::now() + PATIENCE;
    while get_as("platform", "east/rules/egress/cards")?.status != 200 {
        ensure!(Instant::now() < until, "no policy");
        thread::sleep(Duration::from_millis(100));
    }
    ensure!(send(at, &get("first.example.net", "/"))? == 403);
    ensure!(send(at, &HttpRequest::new("DELETE", "cards.example.com:80", "/charges"))? == 403);
    let seen = |who: &str| -> Result<Vec<String>> {
        let answer = get_as(who, "east/decisions?outcome=refusals")?.json();
        let hosts = answer["decisions"].as_array().context("no list")?.iter();
        Ok(hosts.filter_map(|one| Some(one["host"].as_str()?.to_owned())).collect())
    };
    while seen("platform")?.len() < 2 {
        ensure!(Instant::now() < until, "no decisions");
        thread::sleep(Duration::from_millis(100));
    }
    ensure!(seen("payments")? == ["cards.example.com:80"], "{:?}", seen("payments")?);
    ensure!(seen("mail")?.is_empty() && seen("other")?.is_empty());
    ensure!(get_as("other", "east/decisions")?.json()["counts"]["received"] == 0);
    for (who, path, status) in [
        ("payments", "east/rules/egress/cards", 200),
        ("mail", "east/rules/egress/cards", 404),
        ("other", "east/rules/egress/cards", 404),
        ("platform", "west/decisions", 403),
        ("platform", "west/history?seconds=60", 403),
        ("nobody", "east/decisions", 401),
        ("nobody", "east/history?seconds=60", 401),
        ("nobody", "east/rules/egress/cards", 401),
    ] {
        let answer = get_as(who, path)?;
        ensure!(answer.status == status, "{who} {path}: {} {}", answer.status, answer.text());
        ensure!(status == 200 || !answer.text().contains("charges"), "{}", answer.text());
    }
    // An explanation shows the rules of all owners, so a user who may see only one owner's rules gets none.
    for (who, status) in [("platform", 200), ("payments", 403), ("other", 200), ("nobody", 401)] {
        let request = HttpRequest::new("POST", &dash.address().to_string(), "/api/v1/clusters/east/explain");
        let body = json!({"method": "GET", "host": "evil.test", "path": "/"}).to_string();
        let request =
            request.header("content-type", "application/json").header("authorization", format!("Bearer {who}"));
        let answer = http::send(Protocol::Http1, dash.address(), &request.body(body))?;
        ensure!(answer.status == status, "{who}: {} {}", answer.status, answer.text());
        ensure!(who == "platform" || !answer.text().contains("hostNotAllowed"), "{who}: {}", answer.text());
    }
    envoy.check_healthy()
}

#[test]
fn a_sender_that_is_not_envoy_gets_an_error_and_is_counted() -> Result<()> {
    const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
    let als = free_port()?;
    let dash = Dash::start(&["--als", &format!("east=127.0.0.1:{als}")])?;
    let at = SocketAddr::from(([127, 0, 0, 1], als));
    let post = |path: &str, kind: &str, body: &[u8]| -> Result<(u16, Option<String>)> {
        let request = HttpRequest::new("POST", "dash", path).header("content-type", kind).body(body);
        let answer = http::h2::Http2Connection::open(at)?.request(&request)?;
        Ok((answer.status, answer.header("grpc-status")))
    };
    let grpc = |status: &str| (200, Some(status.to_owned()));
    // A message that is too long, one that is compressed, bytes that are no message, an unknown method, and a request that
    // is not gRPC.
    ensure!(post(METHOD, "application/grpc", &[0, 0xff, 0xff, 0xff, 0xff])? == grpc("8"));
    ensure!(post(METHOD, "application/grpc", &[1, 0, 0, 0, 0])? == grpc("12"));
    ensure!(post(METHOD, "application/grpc", &[0, 0, 0, 0, 2, 0xff, 0xff])? == grpc("3"));
    ensure!(post("/other.Service/Call", "application/grpc", &[0, 0, 0, 0, 0])? == grpc("12"));
    ensure!(post(METHOD, "application/json", b"{}")?.0 == 415);
    ensure!(send(at, &HttpRequest::new("GET", "dash", "/")).is_err(), "it speaks HTTP/1.1");
    // A message that does not name a proxy, and one that contains nothing but the name: `identifier.node.id: edge`.
    ensure!(post(METHOD, "application/grpc", &[0, 0, 0, 0, 0])? == grpc("3"));
    ensure!(post(METHOD, "application/grpc", b"\0\0\0\0\x0a\x0a\x08\x0a\x06\x0a\x04edge")? == grpc("0"));
    let answer = dash.get("/api/v1/clusters/east/decisions", None)?.json();
    ensure!(answer["unreadable"] == 4 && answer["sources"][0]["open"] == 0, "{answer:#}");
    Ok(())
}

/// The CPU time of all threads of a process, in nanoseconds.
fn cpu(pid: u32) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let one = |task: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Ok(tasks.filter_map(one).sum())
}

/// Runs only with `DECISIONS_COST=1`: measures what the access log of the documentation costs for a request that it does
/// not log. The listener has twenty copies of it, so that the cost is larger than the noise of the measurement.
#[test]
fn a_request_that_is_not_logged_costs_the_proxy_less_than_a_microsecond() -> Result<()> {
    const COPIES: usize = 20;
    const REQUESTS: u32 = 5_000;
    if std::env::var_os("DECISIONS_COST").is_none_or(|value| value.is_empty()) {
        return Ok(());
    }
    let shipped = shipped(9)?;
    let one = shipped["access_log"][0].clone();
    let runtime = json!({"layers": [{"name": "none", "static_layer": {"penstock.decisions.sampled": 0}}]});
    let listener = |name: &str| Listener::new(name).route(Route::any());
    let envoy = Bootstrap::new()?
        .concurrency(1)
        .field("layered_runtime", runtime)
        .any_cluster(shipped["clusters"][0].clone())
        .listener(listener("plain"))
        .listener(listener("logged").manager("access_log", Value::Array(vec![one; COPIES])))
        .start()?;
    let mut connections = [
        http::h1::Http1Connection::open(envoy.address("plain")?)?,
        http::h1::Http1Connection::open(envoy.address("logged")?)?,
    ];
    let mut differences = Vec::new();
    for _ in 0..15 {
        let mut used = [0; 2];
        for (connection, used) in connections.iter_mut().zip(&mut used) {
            let before = cpu(envoy.pid())?;
            for _ in 0..REQUESTS {
                ensure!(connection.request(&HttpRequest::new("GET", "a.test", "/"))?.status == 200);
            }
            *used = cpu(envoy.pid())? - before;
        }
        let each = |nanos: u64| nanos as f64 / f64::from(REQUESTS) / 1_000.0;
        let [plain, logged] = used.map(each);
        println!("{plain:.2} µs without, {logged:.2} µs with {COPIES}");
        differences.push((logged - plain) / COPIES as f64);
    }
    differences.sort_by(f64::total_cmp);
    let median = differences[differences.len() / 2];
    println!("{median:.3} µs a request that is not logged");
    ensure!(median <= 1.0, "{differences:?}");
    Ok(())
}
