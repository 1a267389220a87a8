//! The dash's API: responses match its OpenAPI document, and a Prometheus provides the history.

use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Browser, Dash, Listener, PATIENCE, Prometheus, Route, workspace};
use serde_json::{Value, json};

use super::feed::{FeedStage, get, send};
use super::stage::{self, Visitors};
use super::{check_accessible, check_quiet, picture, source, text};

/// The dash's OpenAPI document, with which responses are compared.
struct DocumentedApi(Value);

impl DocumentedApi {
    fn check(&self, operation: &str, status: u16, answer: &Value) -> Result<()> {
        let mut operations = self.0["paths"]
            .as_object()
            .context("no paths")?
            .values()
            .flat_map(|path| path.as_object().unwrap().values());
        let found = operations.find(|one| one["operationId"] == operation).context("no operation")?;
        let schema = &found["responses"][status.to_string()]["content"]["application/json"]["schema"];
        ensure!(schema.is_object(), "{operation}: {status} is not documented");
        let schema = json!({"$ref": schema["$ref"], "components": self.0["components"]});
        let schema = jsonschema::validator_for(&schema)?;
        let wrong: Vec<String> =
            schema.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
        ensure!(wrong.is_empty(), "{operation}: {wrong:#?}\n{answer:#}");
        Ok(())
    }
}

#[test]
fn the_api_answers_as_its_document_says() -> Result<()> {
    // A proxy with a canary that is rolled back, a ramp, limits and rules; a proxy that does not respond; and one without
    // the filter.
    let (shop, _upstreams) = stage::envoy(false)?;
    let _visitors = Visitors::of(&shop, true)?;
    let plain = Bootstrap::new()?.listener(Listener::new("plain").route(Route::any())).start()?;
    let more =
        [source("shop", &shop), source("plain", &plain), ["--envoy".to_owned(), "void=http://127.0.0.1:1".to_owned()]];
    let FeedStage { mut envoy, at, dash, upstream: _upstream } = FeedStage::with(&more.concat())?;
    ensure!(send(at, &get("first.example.net", "/"))? == 403);
    ensure!(send(at, &HttpRequest::new("DELETE", "cards.example.com:80", "/charges"))? == 403);
    let until = Instant::now() + PATIENCE;
    while dash.get("/api/v1/clusters/east/decisions", None)?.json()["decisions"]
        .as_array()
        .is_none_or(|list| list.len() < 2)
    {
        ensure!(Instant::now() < until, "no decisions");
        thread::sleep(Duration::from_millis(100));
    }
    // Waits until the cluster contains everything that a cluster can contain.
    dash.wait_for("shop", |cluster| {
        let has = |list: &str| cluster[list].as_array().is_some_and(|list| !list.is_empty());
        let canaries = cluster["canaries"].as_array().into_iter().flatten();
        let rolled_back = canaries.clone().any(|one| one["variants"][1]["breaker"] == "open");
        ["routes", "rateLimits", "egress", "refusals", "drift", "problems"].into_iter().all(has)
            && rolled_back
            && canaries.clone().any(|one| one["ramp"].is_object())
    })?;
    dash.wait_for("void", |cluster| cluster["endpoints"][0]["error"].is_string())?;
    let described = DocumentedApi(dash.get("/api/v1/openapi.json", None)?.json());
    for (operation, path, status) in [
        ("me", "me", 200),
        ("clusters", "clusters", 200),
        ("cluster", "clusters/east", 200),
        ("cluster", "clusters/shop", 200),
        ("cluster", "clusters/plain", 200),
        ("cluster", "clusters/void", 200),
        ("cluster", "clusters/west", 404),
        ("decisions", "clusters/east/decisions?outcome=all&limit=5", 200),
        ("decisions", "clusters/east/decisions?hots=x", 400),
        ("rule", "clusters/east/rules/egress/cards", 200),
        ("rule", "clusters/east/rules/egress/none", 404),
        ("decisions", "clusters/shop/decisions", 200),
        ("rule", "clusters/shop/rules/rateLimits/per-user", 200),
        ("rule", "clusters/shop/rules/canaries/reviews", 200),
        ("history", "clusters/east/history?seconds=3600", 200),
        ("history", "clusters/shop/history?seconds=3600", 200),
        ("history", "clusters/east/history?seconds=NaN", 400),
    ] {
        let answer = dash.get(&format!("/api/v1/{path}"), None)?;
        ensure!(answer.status == status, "{path}: {} {}", answer.status, answer.text());
        described.check(operation, status, &answer.json())?;
    }
    let question =
        json!({"method": "DELETE", "scheme": "http", "host": "cards.example.com:80", "path": "/", "at": 1.5});
    let huge = json!({"method": "GET", "host": "a", "path": "/".repeat(70_000)});
    for (body, kind, status) in [
        (question.to_string(), "application/json", 200),
        ("{".to_owned(), "application/json", 400),
        (json!({"method": "GET"}).to_string(), "application/json", 422),
        (question.to_string(), "text/plain", 415),
        (huge.to_string(), "application/json", 413),
    ] {
        let request = HttpRequest::new("POST", &dash.address().to_string(), "/api/v1/clusters/east/explain");
        let request = request.header("content-type", kind).body(body);
        let answer = http::send(Protocol::Http1, dash.address(), &request)?;
        ensure!(answer.status == status, "{kind}: {} {}", answer.status, answer.text());
        described.check("explain", status, &answer.json())?;
    }
    // All operations of the document were called above. Only 401 and 403 were not tested.
    let paths = described.0["paths"].as_object().context("no paths")?;
    ensure!(paths.len() == 7, "{:?}", paths.keys());
    envoy.check_healthy()
}

#[test]
fn the_document_leaves_no_object_open() -> Result<()> {
    // Every object of the document must forbid unknown fields; otherwise this test would not find undocumented ones.
    fn open(schema: &Value, at: &str, found: &mut Vec<String>) {
        if let Value::Object(fields) = schema {
            if schema["type"] == "object"
                && fields.contains_key("properties")
                && schema["additionalProperties"] != false
            {
                found.push(at.to_owned());
            }
            fields.iter().for_each(|(name, value)| open(value, &format!("{at}/{name}"), found));
        }
        if let Value::Array(items) = schema {
            items.iter().enumerate().for_each(|(i, value)| open(value, &format!("{at}/{i}"), found));
        }
    }
    let document: Value = serde_json::from_str(&fs::read_to_string(workspace::root().join("dash/api/openapi.json"))?)?;
    let mut found = Vec::new();
    open(&document["components"]["schemas"], "", &mut found);
    ensure!(found.is_empty(), "{found:#?}");
    // The comparison finds wrong responses.
    let described = DocumentedApi(document);
    let me = json!({"workspace": null, "clusters": [], "readOnly": true, "version": "1", "intervalSeconds": 1.0,
        "connections": 1, "closedConnections": 0});
    described.check("me", 200, &me)?;
    let mut more = me.clone();
    more["token"] = json!("secret");
    let mut less = me;
    less["clusters"] = Value::Null;
    ensure!(described.check("me", 200, &more).is_err() && described.check("me", 200, &less).is_err());
    Ok(())
}

#[test]
fn a_prometheus_gives_the_past_with_its_reloads_and_rollbacks() -> Result<()> {
    let (mut envoy, _upstreams) = stage::envoy(false)?;
    let rules = workspace::root().join("observability/rules.yaml");
    let scraped = [("proxies", envoy.admin().address())];
    let Some(prometheus) = Prometheus::start(&scraped, &[&rules])? else { return Ok(()) };
    let _visitors = Visitors::of(&envoy, true)?;
    let dash = Dash::start(&["--prometheus", &format!("east=http://{}", prometheus.address())])?;
    let described = DocumentedApi(dash.get("/api/v1/openapi.json", None)?.json());
    let wait_for = |what: &str, wanted: &dyn Fn(&Value) -> bool| -> Result<Value> {
        let started = Instant::now();
        loop {
            let answer = dash.get("/api/v1/clusters/east/history?seconds=60", None)?;
            ensure!(answer.status == 200, "{}", answer.text());
            let history = answer.json();
            if wanted(&history) {
                described.check("history", 200, &history)?;
                return Ok(history);
            }
            ensure!(started.elapsed() < PATIENCE, "never {what}: {history:#}");
            thread::sleep(Duration::from_millis(300));
        }
    };
    let marks = |history: &Value, kind: &str| -> Vec<(f64, String)> {
        let marks = history["marks"].as_array().into_iter().flatten().filter(|mark| mark["kind"] == kind);
        marks.map(|mark| (mark["at"].as_f64().unwrap(), mark["name"].as_str().unwrap().to_owned())).collect()
    };
    let newest =
        |history: &Value| history["points"].as_array().and_then(|points| points.last().cloned()).unwrap_or_default();
    let is_there = |history: &Value| {
        let point = newest(history);
        ["requests", "refused", "errors"].iter().all(|rate| point[rate].as_f64() > Some(0.0))
    };
    let history = wait_for("rates and the rollback", &|history| {
        history["source"] == "prometheus" && is_there(history) && !marks(history, "rollback").is_empty()
    })?;
    ensure!(marks(&history, "rollback").iter().all(|(_, name)| name == "reviews: v2"), "{history:#}");
    // The rate is at most the number of all requests that Envoy has counted so far.
    let taken =
        ["ingress", "egress"].map(|listener| envoy.admin().stat(&format!("http.{listener}.downstream_rq_total")));
    let [ingress, egress] = taken;
    let most = (ingress? + egress?) as f64;
    ensure!(newest(&history)["requests"].as_f64() <= Some(most), "{most}: {history:#}");

    // A reload is marked at the time when the proxy accepted the new policy.
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64());
    let before = now()?.floor();
    let mut other = stage::ingress();
    other["routes"]["rules"][0]["name"] = json!("beta-testers");
    envoy.must_reload("ingress", other)?;
    let history = wait_for("the reload", &|history| marks(history, "reload").iter().any(|(at, _)| *at >= before))?;
    let reloads: Vec<_> = marks(&history, "reload").into_iter().filter(|(at, _)| *at >= before).collect();
    ensure!(reloads.len() == 1 && reloads[0].1 == "ingress" && reloads[0].0 <= now()?, "{reloads:?}");

    // The page shows the source of the history, and the marks.
    if let Some(browser) = Browser::start()? {
        let mut page = browser.page(1280, 900)?;
        page.open(&format!("{}#/east", dash.url()))?;
        let history = text("#history");
        page.wait(&format!("/From Prometheus/.test({history}) && /Rollback\\s+reviews: v2/.test({history})"))?;
        page.wait(
            "[...document.querySelectorAll('.chart .highest')].every((label) => /\\d.*\\/s/.test(label.innerText))",
        )?;
        page.evaluate("document.querySelector('#history').scrollIntoView()")?;
        for scheme in ["light", "dark"] {
            page.prefer(scheme)?;
            check_accessible(&mut page, &format!("the history, {scheme}"))?;
            picture(&mut page, &format!("dash-history-{scheme}.png"))?;
        }
        check_quiet(&page, &dash)?;
    }

    // Without Prometheus, the dash shows the history that it has recorded itself, and the reason.
    drop(prometheus);
    let history = wait_for("what the dash has seen", &|history| history["source"] == "dash")?;
    ensure!(history["error"].as_str().is_some_and(|error| !error.is_empty()), "{history:#}");
    envoy.check_healthy()
}
