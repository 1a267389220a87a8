//! What operators see: a real Prometheus scrapes a real Envoy with the shipped stats tags, and has every metric that
//! the dashboard and the rules in `observability/` name.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{
    Bootstrap, Envoy, Listener, Prometheus, Reload, Route, Upstream, UpstreamReply, WasmFilter, prometheus_tool,
    workspace,
};
use serde_json::{Value, json};

/// A working Envoy never has this metric; `integration/tests/native.rs` and `alerts` produce failures.
const ONLY_OF_FAILURES: &str = "penstock_internal_errors_total";

const PATIENCE: Duration = Duration::from_secs(120);

/// Queries of dashboards and alerts from before 0.1.0. `legacy-names.yaml` records metrics under the names that they use.
const OLD_QUERIES: [&str; 15] = [
    r#"sum by (penstock_rule) (rate(penstock_routes{penstock_outcome="matched"}[20s]))"#,
    "sum by (instance, penstock_rule) (rate(penstock_host[20s]))",
    r#"increase(penstock_host{penstock_rule="configuration",penstock_outcome="refused"}[20s])"#,
    "avg by (penstock_rule, penstock_variant) (penstock_shares) / 1000",
    r#"sum by (penstock_rule, penstock_outcome) (rate(penstock_canaries{penstock_outcome!~"rolledBack|halfOpen|restored"}[20s])) / ignoring (penstock_outcome) group_left sum by (penstock_rule) (rate(penstock_canaries{penstock_outcome!~"rolledBack|halfOpen|restored"}[20s]))"#,
    "max by (penstock_rule, penstock_variant) (penstock_breakers_state)",
    r#"sum by (penstock_rule, penstock_outcome) (rate(penstock_rateLimits{penstock_outcome=~"passed|limited|wouldLimit|missingKey"}[20s]))"#,
    r#"sum by (job, penstock_rule) (rate(penstock_rateLimits{penstock_outcome=~"error|timeout"}[20s])) > 0"#,
    "max by (penstock_rule, instance) (penstock_slots_used / penstock_slots_capacity)",
    r#"sum by (instance, penstock_rule) (rate(penstock_egressReasons{penstock_outcome="denied"}[20s])) > 0"#,
    "sum by (penstock_rule, penstock_outcome) (rate(penstock_egress[20s]))",
    "min by (instance) (penstock_egressExpiry_days) > 7",
    "time() - penstock_policy_loadedSeconds",
    "histogram_quantile(0.99, sum by (le, penstock_rule) (rate(penstock_decision_nanoseconds_bucket[20s])))",
    "penstock_decision_nanoseconds_sum / penstock_decision_nanoseconds_count",
];

fn folder() -> PathBuf {
    workspace::root().join("observability")
}

fn policy() -> Value {
    json!({
        "egress": {"rules": [{"name": "shop", "to": [{"host": "shop.example.com", "ports": [80]}], "expires": "2099-01-01T00:00:00Z"}]},
        "rateLimits": [
            {"name": "per-user", "key": [{"header": "x-user"}], "onMissingKey": "Skip", "limit": {"requests": 5, "per": "1h"}, "capacity": 64},
            {"name": "shadow", "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "key": [],
             "limit": {"requests": 1, "per": "1h"}, "mode": "Shadow"},
            {"name": "global", "matches": [{"path": {"type": "PathPrefix", "value": "/global"}}], "key": [],
             "limit": {"requests": 1, "per": "1h"},
             "scope": {"global": {"cluster": "nobody", "domain": "shop", "timeout": "1s", "onFailure": "Allow"}}}],
        "routes": {"default": "stable", "rules": [
            {"name": "beta-users", "matches": [{"headers": [{"name": "x-user-group", "value": "beta"}]}], "route": "beta",
             "failover": {"route": "stable", "errorPercent": 100}}]},
        "canaries": [{"name": "reviews", "matches": [{"path": {"type": "PathPrefix", "value": "/reviews"}}],
            "variants": [{"name": "v1", "weight": 3, "route": "stable"}, {"name": "v2", "weight": 1, "route": "beta"}],
            "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": 1000, "errorPercent": 100, "cooldown": "1m"}}],
    })
}

/// A request for everything that the policy counts.
fn traffic(envoy: &Envoy) -> Result<()> {
    let send =
        |request: HttpRequest| Ok::<_, anyhow::Error>(http::send(Protocol::Http2, envoy.ingress()?, &request)?.status);
    let get = |path: &str| HttpRequest::new("GET", "shop.example.com:80", path);
    ensure!(send(get("/"))? == 200);
    ensure!(send(get("/fail"))? == 503);
    ensure!(send(get("/api"))? == 200);
    ensure!(send(get("/global"))? == 200);
    ensure!(send(get("/").header("x-user-group", "beta"))? == 200);
    for _ in 0..12 {
        ensure!(send(get("/reviews"))? == 200);
    }
    for user in ["ann", "bob"] {
        let status = send(get("/").header("x-user", user))?;
        ensure!([200, 429].contains(&status), "{status}");
    }
    ensure!(send(HttpRequest::new("GET", "evil.example.com:80", "/"))? == 403);
    ensure!(send(HttpRequest::new("GET", "shop.example.com:81", "/"))? == 403);
    Ok(())
}

/// Every expression of the dashboard's panels with the title of its panel; variables are replaced.
fn panels() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(folder().join("grafana-dashboard.json"))?)?;
    let panels = dashboard.get("panels").and_then(Value::as_array).context("no panels")?;
    let mut all = Vec::new();
    for panel in panels {
        let title = panel.get("title").and_then(Value::as_str).context("no title")?;
        for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let expression = target.get("expr").and_then(Value::as_str).context("no expression")?;
            let filled = expression.replace("$__rate_interval", "20s").replace("$job", ".*").replace("$instance", ".*");
            ensure!(!filled.contains('$'), "{title}: {filled}");
            all.push((title.to_owned(), filled));
        }
    }
    let marks = dashboard.pointer("/annotations/list").and_then(Value::as_array).context("no annotations")?;
    for mark in marks {
        let name = mark.get("name").and_then(Value::as_str).context("no name")?;
        let expression = mark.get("expr").and_then(Value::as_str).context("no expression")?;
        // No breaker opens here, so there is no event to annotate.
        let expression = expression.strip_suffix(" == 2").unwrap_or(expression);
        all.push((format!("marks of {name}"), expression.replace("$job", ".*").replace("$instance", ".*")));
    }
    ensure!(all.len() > 25, "{all:?}");
    Ok(all)
}

/// The metrics that a text names.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut names = BTreeSet::new();
    for word in text.split(|c| !is_part(c)) {
        let is_label = ["envoy_cluster_name", "envoy_response_code_class", "envoy_http_conn_manager_prefix"];
        if (word.starts_with("penstock_") || word.starts_with("penstock:") || word.starts_with("envoy_"))
            && !is_label.contains(&word)
            && !word.ends_with([':', '_'])
        {
            names.insert(word.to_owned());
        }
    }
    names
}

/// The problems that `promtool check metrics` finds in a scrape.
fn lint(scrape: &str) -> Result<Vec<String>> {
    let Some(promtool) = prometheus_tool("promtool")? else { return Ok(vec![]) };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(scrape.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[test]
fn every_panel_has_data_and_every_rule_its_metrics_in_a_real_prometheus() -> Result<()> {
    let upstream = Upstream::forgetful(|request| match request.path().as_str() {
        "/fail" => UpstreamReply::Status(503, vec![]),
        _ => UpstreamReply::Status(200, vec![]),
    })?;
    let mut bootstrap = Bootstrap::new()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy())?.named("penstock"))?;
    let to = |name: &str| Route::header("x-penstock-route", name).to(name);
    let mut envoy = bootstrap
        .stats_tags()?
        .cluster("stable", upstream.address())
        .cluster("beta", upstream.address())
        .any_cluster(penstock_integration::grpc_cluster("nobody", ([127, 0, 0, 1], 9).into()))
        .listener(Listener::new("ingress").discovered(filter).route(to("stable")).route(to("beta")))
        .start()?;
    let [rules, old_names] = ["rules.yaml", "legacy-names.yaml"].map(|name| folder().join(name));
    let Some(prometheus) = Prometheus::start(&[("envoy", envoy.admin().address())], &[&rules, &old_names])? else {
        return Ok(());
    };
    // A refused policy is visible in metrics, and the old policy stays active.
    ensure!(matches!(envoy.reload("penstock", json!({"routes": 1}))?, Reload::Refused(_)));

    // Seven requests of a user whose limit is five.
    let mut missing = panels()?;
    missing.extend(OLD_QUERIES.map(|query| ("a query with old names".to_owned(), query.to_owned())));
    let started = Instant::now();
    while !missing.is_empty() {
        ensure!(
            started.elapsed() < PATIENCE,
            "no data: {missing:#?}\n{}",
            envoy.admin().get("/stats/prometheus?filter=penstock")?
        );
        traffic(&envoy)?;
        thread::sleep(Duration::from_millis(300));
        let mut still = Vec::new();
        for (title, expression) in missing {
            let results = prometheus.query(&expression).with_context(|| format!("{title}: {expression}"))?;
            // 0/0 gives no number.
            if !results.iter().any(|(_, value)| !value.is_nan()) {
                still.push((title, expression));
            }
        }
        missing = still;
    }

    // Prometheus' own linter only complains that Envoy writes no help texts.
    let scrape = envoy.admin().get("/stats/prometheus")?;
    let is_ours = |line: &&str| line.starts_with("penstock_") || line.starts_with("# TYPE penstock_");
    let ours: String = scrape.lines().filter(is_ours).map(|line| format!("{line}\n")).collect();
    ensure!(
        ours.contains("penstock_requests_total{") && ours.contains("penstock_decision_duration_nanos_bucket{"),
        "{ours}"
    );
    let found: Vec<String> = lint(&ours)?.into_iter().filter(|line| !line.ends_with("no help text")).collect();
    ensure!(found.is_empty(), "{found:#?}");

    let known: BTreeSet<String> = prometheus.names()?.into_iter().collect();
    let text = fs::read_to_string(&rules)?;
    let expressions: String = text.lines().filter(|line| !line.trim_start().starts_with(['#', 's', 'r'])).collect();
    for source in [expressions, panels()?.into_iter().map(|(_, expression)| expression + " ").collect()] {
        let names = metrics(&source);
        ensure!(names.len() > 5, "{names:?}");
        let unknown: Vec<_> = names.difference(&known).filter(|name| *name != ONLY_OF_FAILURES).collect();
        ensure!(unknown.is_empty(), "no proxy has {unknown:?}; there are {known:?}");
    }

    // The labels are those of the documentation.
    let value = |expression: &str| -> Result<Option<f64>> {
        let results = prometheus.query(expression)?;
        ensure!(results.len() <= 1, "{expression}: {results:?}");
        Ok(results.first().map(|(_, value)| *value))
    };
    for (expression, expected) in [
        (r#"penstock_requests_total{section="routes",rule="beta-users",outcome="matched"} > 0"#, None),
        (r#"penstock_requests_total{section="routes",rule="_default",outcome="matched"} > 0"#, None),
        (r#"penstock_requests_total{section="rateLimits",rule="per-user",outcome="limited"} > 0"#, None),
        (r#"penstock_requests_total{section="rateLimits",rule="shadow",outcome="wouldLimit"} > 0"#, None),
        (r#"penstock_requests_total{section="rateLimits",rule="global",outcome="error"} > 0"#, None),
        (r#"penstock_requests_total{section="egress",rule="shop",outcome="allowed"} > 0"#, None),
        (r#"penstock_variant_requests_total{rule="reviews",variant="v2"} > 0"#, None),
        (r#"penstock_egress_reasons_total{reason="hostNotAllowed",outcome="denied"} > 0"#, None),
        (r#"penstock_policy_refusals_total{plugin="penstock"} > 0"#, None),
        (r#"penstock_policy_refused_timestamp_seconds{plugin="penstock"} > time() - 3600"#, None),
        (r#"penstock_decision_duration_nanos_count{plugin="penstock"} > 0"#, None),
        (r#"penstock_rate_limit_keys_used{rule="per-user"}"#, Some(2.0)),
        (r#"penstock_rate_limit_keys_capacity{rule="per-user"}"#, Some(64.0)),
        (r#"penstock_variant_weight{rule="reviews",variant="v2"}"#, Some(250.0)),
        (r#"penstock:variant_weight:ratio{rule="reviews",variant="v2"}"#, Some(0.25)),
        (r#"penstock_breaker_state{section="canaries",rule="reviews",variant="v2"}"#, Some(0.0)),
        (r#"penstock_breaker_state{section="routes",rule="beta-users",variant="beta"}"#, Some(0.0)),
        (r#"penstock_policy_generation{plugin="penstock"}"#, Some(1.0)),
        (r#"penstock_egress_next_expiry_timestamp_seconds{plugin="penstock"} > time() + 7 * 86400"#, None),
        ("penstock:policy_versions", Some(1.0)),
    ] {
        let started = Instant::now();
        loop {
            let found = value(expression)?;
            if found.is_some() && expected.is_none_or(|expected| found == Some(expected)) {
                break;
            }
            ensure!(started.elapsed() < PATIENCE, "{expression}: {found:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
    // Prometheus' numbers represent the hash exactly: it equals Envoy's.
    let hash = envoy.admin().stat("wasmcustom.penstock.policy_hash.plugin.penstock")?;
    ensure!(value("penstock_policy_hash")? == Some(hash as f64) && hash > 0, "{hash}");
    envoy.check_healthy()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() -> Result<()> {
    let Some(promtool) = prometheus_tool("promtool")? else { return Ok(()) };
    for arguments in [
        ["check", "rules", "rules.yaml"],
        ["check", "rules", "legacy-names.yaml"],
        ["test", "rules", "rules-test.yaml"],
        ["test", "rules", "records-test.yaml"],
    ] {
        let output = Command::new(&promtool).args(arguments).current_dir(folder()).output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

#[test]
fn every_alert_is_tested_and_has_a_runbook() -> Result<()> {
    let [rules, tests] = ["rules.yaml", "rules-test.yaml"].map(|name| fs::read_to_string(folder().join(name)));
    let (rules, tests) = (rules?, tests?);
    let operations = fs::read_to_string(workspace::root().join("docs/operations.md"))?.to_lowercase();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        ensure!(tests.contains(&format!("alertname: {alert}")), "{alert} has no test");
        let place = alert.to_lowercase();
        ensure!(rules.contains(&format!("docs/operations.md#{place}\n")), "{alert} has no link");
        ensure!(operations.contains(&format!("\n### {place}\n")), "{alert} has no runbook");
    }
    Ok(())
}

/// The access log and the stats tags of `observability/envoy-access-log.yaml`, with the log written to `log` and the
/// tags uncommented.
fn shipped_log(log: &std::path::Path) -> Result<(Value, Value)> {
    let text = fs::read_to_string(folder().join("envoy-access-log.yaml"))?;
    ensure!(text.contains("path: /dev/stdout"), "{text}");
    let text = text.replace("/dev/stdout", &log.display().to_string());
    let (logs, comments) = text.split_once("# Where a tracer is configured:\n").context("no tags")?;
    let (tags, _filter) =
        comments.split_once("# The first of http_filters:").context("no filter for the original path")?;
    let tags: String =
        tags.lines().filter_map(|line| line.strip_prefix("# ")).map(|line| format!("{line}\n")).collect();
    let read = |yaml: &str, pointer: &str| -> Result<Value> {
        let value: Value = serde_json::from_str(&penstock_integration::demo::json::of_yaml(yaml)?)?;
        value.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {yaml}"))
    };
    Ok((read(logs, "/access_log")?, read(&tags, "/tracing/custom_tags")?))
}

fn watched_policy(filter_state: bool) -> Value {
    let mut policy = policy();
    if let Some(policy) = policy.as_object_mut() {
        policy.insert("settings".to_owned(), json!({"filterState": filter_state}));
        policy.remove("rateLimits");
    }
    policy
}

const TRACE: [(&str, &str); 3] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
    ("baggage", "user=ann,plan=gold"),
];

/// The only line of the access log about `path`.
fn line(log: &std::path::Path, path: &str) -> Result<Value> {
    let started = Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let line = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line.get("path").and_then(Value::as_str) == Some(path));
        if let Some(line) = line {
            return Ok(line);
        }
        // Envoy flushes its buffer every ten seconds.
        ensure!(started.elapsed() < PATIENCE, "{path} is not in {text:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_access_log_says_what_decided_and_the_trace_context_passes_untouched() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for filter_state in [true, false] {
        let log = folder.path().join(format!("log-{filter_state}"));
        let (access_log, _) = shipped_log(&log)?;
        let upstream = Upstream::echo()?;
        let mut bootstrap = Bootstrap::new()?;
        let filter = WasmFilter::new("suite", watched_policy(filter_state))?.named("penstock");
        let filter = bootstrap.discovered(filter)?;
        let to = |name: &str| Route::header("x-penstock-route", name).to("all");
        let listener = Listener::new("ingress").discovered(filter).manager("access_log", access_log);
        let mut envoy = bootstrap
            .cluster("all", upstream.address())
            .listener(listener.route(to("stable")).route(to("beta")))
            .start()?;
        let send = |host: &str, path: &str| {
            let request = HttpRequest::new("GET", host, path)
                .header("x-user-group", if path == "/beta" { "beta" } else { "none" });
            let request = TRACE.iter().fold(request, |request, (name, value)| request.header(name, value));
            http::send(Protocol::Http1, envoy.ingress()?, &request)
        };
        for path in ["/beta", "/reviews", "/else"] {
            ensure!(send("shop.example.com:80", path)?.status == 200);
            let received = upstream.last().context("nothing received")?;
            for (name, value) in TRACE {
                ensure!(received.values(name) == [value], "{name}: {:?}", received.values(name));
            }
        }
        let refused = send("evil.example.com:80", "/refused")?;
        ensure!(refused.status == 403);

        let state = |value: &'static str| if filter_state { Some(value) } else { None };
        let get = |line: &Value, field: &str| line.get(field).and_then(Value::as_str).map(str::to_owned);
        let check = |path: &str, expected: &[(&str, Option<&str>)]| -> Result<()> {
            let line = line(&log, path)?;
            for (field, expected) in expected {
                ensure!(get(&line, field).as_deref() == *expected, "{path} {field} is not {expected:?}: {line}");
            }
            ensure!(get(&line, "traceparent").as_deref() == Some(TRACE[0].1), "{line}");
            Ok(())
        };
        check(
            "/beta",
            &[("penstockRoute", Some("beta")), ("penstockRule", state("routes/beta-users")), ("penstockVariant", None)],
        )?;
        check(
            "/else",
            &[("penstockRoute", Some("stable")), ("penstockRule", state("egress/shop")), ("egressRule", state("shop"))],
        )?;
        let reviews = line(&log, "/reviews")?;
        let variant = if get(&reviews, "penstockRoute").as_deref() == Some("beta") { "v2" } else { "v1" };
        check("/reviews", &[("penstockRule", state("canaries/reviews")), ("penstockVariant", state(variant))])?;
        check(
            "/refused",
            &[
                ("details", Some("penstock_egress_hostNotAllowed")),
                ("decisionId", refused.header("x-penstock-decision-id").as_deref()),
                ("egressOutcome", state("deny")),
                ("egressReason", state("hostNotAllowed")),
                ("penstockRule", None),
            ],
        )?;
        ensure!(refused.header("x-penstock-decision-id").is_some());
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn spans_have_the_shipped_tags() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_, custom_tags) = shipped_log(&folder.path().join("log"))?;
    let (upstream, collector) = (Upstream::echo()?, Upstream::echo()?);
    let mut bootstrap = Bootstrap::new()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", watched_policy(true))?.named("penstock"))?;
    let tracing = json!({
        "provider": {"name": "envoy.tracers.zipkin", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
            "collector_cluster": "collector", "collector_endpoint": "/spans", "collector_endpoint_version": "HTTP_JSON",
        }},
        "custom_tags": custom_tags,
    });
    let to = |name: &str| Route::header("x-penstock-route", name).to("all");
    let listener = Listener::new("ingress").discovered(filter).manager("tracing", tracing);
    let envoy = bootstrap
        .cluster("all", upstream.address())
        .cluster("collector", collector.address())
        .listener(listener.route(to("stable")).route(to("beta")))
        .start()?;
    let request = HttpRequest::new("GET", "shop.example.com:80", "/").header("x-user-group", "beta");
    ensure!(http::send(Protocol::Http1, envoy.ingress()?, &request)?.status == 200);
    let started = Instant::now();
    while collector.requests() == 0 {
        ensure!(started.elapsed() < PATIENCE, "no span arrived");
        thread::sleep(Duration::from_millis(50));
    }
    let spans: Value = serde_json::from_slice(&collector.last().context("no span")?.body)?;
    let tag = |name: &str| spans.pointer(&format!("/0/tags/{name}")).and_then(Value::as_str).map(str::to_owned);
    ensure!(tag("penstock.route").as_deref() == Some("beta"), "{spans}");
    ensure!(tag("penstock.rule").as_deref() == Some("routes/beta-users"), "{spans}");
    Ok(())
}
