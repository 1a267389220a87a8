//! The scenarios: each puts real Envoys into a state and says which alerts it must cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{
    Bootstrap, Envoy, Listener, Reload, Route, Upstream, UpstreamReply, WasmFilter, grpc_cluster, wait_until, workspace,
};
use serde_json::{Value, json};

use super::recording::ScrapeRecording;
use super::{AlertScenario, ExpectedAlert};

/// All scenarios.
pub const ALL: [fn() -> Result<AlertScenario>; 9] =
    [failed, refused, refused_first, restarted, drifted, missing, flapping, limited, refused_egress];

/// Modules export their counters once a second.
const SECOND: Duration = Duration::from_millis(1_300);

fn policy(route: &str) -> Value {
    json!({"routes": {"default": route}})
}

fn bootstrap(policy: &Value) -> Result<Bootstrap> {
    let mut bootstrap = Bootstrap::new()?.stats_tags()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy)?.named("edge"))?;
    let route = Route::any().answers(200, "fine\n");
    Ok(bootstrap.listener(Listener::new("ingress").discovered(filter).route(route)))
}

/// An Envoy that accepts this policy.
fn envoy(policy: &Value) -> Result<Envoy> {
    let envoy = bootstrap(policy)?.start()?;
    reported(&envoy)?;
    Ok(envoy)
}

/// An Envoy whose first policy is refused.
fn without_policy() -> Result<Envoy> {
    bootstrap(&json!({"routes": 1}))?.may_refuse().start()
}

/// An Envoy without the filter.
fn plain() -> Result<Envoy> {
    let route = Route::any().answers(200, "fine\n");
    Bootstrap::new()?.stats_tags()?.listener(Listener::new("ingress").route(route)).start()
}

/// Waits until the plugin reports which policy it runs.
fn reported(envoy: &Envoy) -> Result<()> {
    let has_hash = || Ok(envoy.admin().stat("wasmcustom.penstock.policy_hash.plugin.edge")? > 0);
    wait_until("the policy's hash", has_hash)
}

fn counted(envoy: &Envoy, metric: &str, count: u64) -> Result<()> {
    wait_until(metric, || Ok(envoy.admin().stat(&format!("wasmcustom.penstock.{metric}"))? == count))
}

fn send(envoy: &Envoy, request: &HttpRequest) -> Result<u16> {
    Ok(http::send(Protocol::Http1, envoy.ingress()?, request)?.status)
}

fn is_refused(envoy: &mut Envoy) -> Result<()> {
    let reload = envoy.reload("edge", json!({"routes": 1}))?;
    ensure!(matches!(reload, Reload::Refused(_)), "{reload:?}");
    Ok(())
}

const REFUSED: &str = "a has refused a policy for edge and runs the previous one, or none";

/// The summary when the proxy never ran a policy: its metrics do not name the plugin.
const FIRST_REFUSED: &str = "a has refused a policy and runs the previous one, or none";

fn has_refused(minute: usize, job: &'static str) -> ExpectedAlert {
    let labels = [("instance", "a"), ("job", job), ("plugin", "edge"), ("severity", "critical")];
    ExpectedAlert::fires("PenstockPolicyRefused", minute, &labels, REFUSED)
}

/// A working Envoy never makes the module fail, so this is a native body that panics on request.
fn failed() -> Result<AlertScenario> {
    let library = workspace::library_that_panics()?;
    let folder = library.parent().unwrap().to_owned();
    let flag = "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";
    let filter = WasmFilter::library("suite", &library, policy("stable")).named("edge");
    let listener = Listener::new("ingress").wasm(&filter).route(Route::any().answers(200, "fine\n"));
    let envoy = Bootstrap::new()?
        .environment("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", folder)
        .field("layered_runtime", json!({"layers": [{"name": "static", "static_layer": {flag: true}}]}))
        .stats_tags()?
        .listener(listener)
        .start()?;
    reported(&envoy)?;
    let mut recording = ScrapeRecording::default();
    for minute in 0..5 {
        if minute == 3 {
            ensure!(send(&envoy, &HttpRequest::get("/").header("x-penstock-trap", "1"))? == 503);
            counted(&envoy, "internal_errors_total.operation.panic", 1)?;
        }
        recording.scrape("native", &[("a", Some(&envoy))])?;
    }
    let labels = [("instance", "a"), ("job", "native"), ("operation", "panic"), ("severity", "critical")];
    let alert = "PenstockInternalError";
    Ok(AlertScenario {
        name: "one request that the module could not decide is a page, although its counter was not there before",
        recording,
        minutes: 20,
        expected: vec![
            ExpectedAlert::silence(alert, 2),
            ExpectedAlert::fires(alert, 5, &labels, "a: calls of the module to the proxy fail (panic)"),
            ExpectedAlert::silence(alert, 12),
        ],
    })
}

fn refused() -> Result<AlertScenario> {
    let mut recording = ScrapeRecording::default();
    let mut envoy = envoy(&policy("stable"))?;
    for minute in 0..6 {
        if minute == 3 {
            is_refused(&mut envoy)?;
            thread::sleep(SECOND);
        }
        recording.scrape("reload", &[("a", Some(&envoy))])?;
        thread::sleep(SECOND);
    }
    let refused = "PenstockPolicyRefused";
    Ok(AlertScenario {
        name: "a policy that is refused when it is reloaded is an alert at once, and for a quarter of an hour",
        recording,
        minutes: 30,
        expected: vec![
            ExpectedAlert::silence(refused, 2),
            has_refused(3, "reload"),
            has_refused(17, "reload"),
            ExpectedAlert::silence(refused, 19),
            ExpectedAlert::silence("PenstockFilterMissing", 20),
        ],
    })
}

fn refused_first() -> Result<AlertScenario> {
    let mut recording = ScrapeRecording::default();
    let envoy = without_policy()?;
    for _ in 0..4 {
        recording.scrape("first", &[("a", Some(&envoy))])?;
        thread::sleep(SECOND);
    }
    let labels = [("instance", "a"), ("job", "first"), ("severity", "critical")];
    let first = |minute| ExpectedAlert::fires("PenstockPolicyRefused", minute, &labels, FIRST_REFUSED);
    let missing = "a is live and has no Penstock policy";
    Ok(AlertScenario {
        name: "a proxy whose first policy is refused has none for as long as that lasts",
        recording,
        minutes: 40,
        expected: vec![
            first(0),
            first(14),
            first(35),
            ExpectedAlert::fires("PenstockFilterMissing", 6, &labels, missing),
            ExpectedAlert::fires("PenstockFilterMissing", 35, &labels, missing),
        ],
    })
}

fn restarted() -> Result<AlertScenario> {
    let mut recording = ScrapeRecording::default();
    let mut first = envoy(&policy("stable"))?;
    is_refused(&mut first)?;
    thread::sleep(SECOND);
    for _ in 0..20 {
        recording.scrape("restart", &[("a", Some(&first))])?;
    }
    drop(first);
    for _ in 0..2 {
        recording.scrape("restart", &[("a", None)])?;
    }
    // This proxy starts without a policy.
    let second = without_policy()?;
    for _ in 0..3 {
        recording.scrape("restart", &[("a", Some(&second))])?;
        thread::sleep(SECOND);
    }
    let labels = [("instance", "a"), ("job", "restart"), ("severity", "critical")];
    Ok(AlertScenario {
        name: "a refusal after a restart is an alert, although the proxy knows nothing of the module then",
        recording,
        minutes: 40,
        expected: vec![
            has_refused(1, "restart"),
            ExpectedAlert::silence("PenstockPolicyRefused", 18),
            ExpectedAlert::silence("PenstockPolicyRefused", 21),
            ExpectedAlert::fires("PenstockPolicyRefused", 23, &labels, FIRST_REFUSED),
            ExpectedAlert::fires("PenstockPolicyRefused", 39, &labels, FIRST_REFUSED),
        ],
    })
}

fn drifted() -> Result<AlertScenario> {
    let mut recording = ScrapeRecording::default();
    let (mut a, mut b, c) = (envoy(&policy("stable"))?, envoy(&policy("stable"))?, envoy(&policy("stable"))?);
    let hash = |envoy: &Envoy| envoy.admin().stat("wasmcustom.penstock.policy_hash.plugin.edge");
    for minute in 0..27 {
        let moved = match minute {
            3 => Some(&mut a),
            24 => Some(&mut b),
            _ => None,
        };
        if let Some(envoy) = moved {
            let before = hash(envoy)?;
            envoy.must_reload("edge", policy("other"))?;
            wait_until("another hash", || Ok(hash(envoy)? != before))?;
        }
        // The third proxy stops.
        let third = (minute < 24).then_some(&c);
        recording.scrape("drift", &[("a", Some(&a)), ("b", Some(&b)), ("c", third)])?;
    }
    let labels = [("job", "drift"), ("plugin", "edge"), ("severity", "warning")];
    let drift = "PenstockPolicyDrift";
    Ok(AlertScenario {
        name: "proxies that run different policies for a quarter of an hour drift, until they run one",
        recording,
        minutes: 40,
        expected: vec![
            ExpectedAlert::silence(drift, 2),
            ExpectedAlert::silence(drift, 15),
            ExpectedAlert::fires(drift, 20, &labels, "The proxies of drift run 2 different policies as edge"),
            ExpectedAlert::silence(drift, 26),
        ],
    })
}

fn missing() -> Result<AlertScenario> {
    let mut recording = ScrapeRecording::default();
    let (first, sidecar) = (envoy(&policy("stable"))?, plain()?);
    for _ in 0..3 {
        recording.scrape("mesh", &[("gone", Some(&first)), ("sidecar", Some(&sidecar))])?;
    }
    drop(first);
    recording.scrape("mesh", &[("gone", None), ("sidecar", Some(&sidecar))])?;
    let second = plain()?;
    for _ in 0..3 {
        recording.scrape("mesh", &[("gone", Some(&second)), ("sidecar", Some(&sidecar))])?;
    }
    let labels = [("instance", "gone"), ("job", "mesh"), ("severity", "critical")];
    let alert = "PenstockFilterMissing";
    Ok(AlertScenario {
        name: "a proxy that comes back without the filter is missing it, and a sidecar that never had it is not",
        recording,
        minutes: 90,
        expected: vec![
            ExpectedAlert::silence(alert, 3),
            ExpectedAlert::silence(alert, 8),
            ExpectedAlert::fires(alert, 10, &labels, "gone is live and has no Penstock policy"),
            ExpectedAlert::fires(alert, 60, &labels, "gone is live and has no Penstock policy"),
            ExpectedAlert::silence(alert, 70),
        ],
    })
}

fn flapping() -> Result<AlertScenario> {
    let fails = Arc::new(AtomicBool::new(true));
    let upstream = Upstream::start({
        let fails = Arc::clone(&fails);
        move |_| UpstreamReply::Status(if fails.load(Ordering::SeqCst) { 503 } else { 200 }, vec![])
    })?;
    let canary = json!({"canaries": [{"name": "shop", "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}],
        "rollback": {"variant": "v2", "to": "v1", "window": "10s", "minRequests": 10, "errorPercent": 50, "cooldown": "2s"}}]});
    let mut bootstrap = Bootstrap::new()?.stats_tags()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", &canary)?.named("edge"))?;
    let listener = Listener::new("ingress").discovered(filter).route(Route::named("v2").to("v2"));
    let envoy = bootstrap
        .cluster("v2", upstream.address())
        .listener(listener.route(Route::any().answers(200, "fine\n")))
        .start()?;
    reported(&envoy)?;
    let mut recording = ScrapeRecording::default();
    const SERIES: &str =
        "penstock_breaker_state{section=\"canaries\",rule=\"shop\",variant=\"v2\",instance=\"a\",job=\"canary\"}";
    let state = || envoy.admin().stat("wasmcustom.penstock.breaker_state.section.canaries.rule.shop.variant.v2");
    for minute in 0..40 {
        fails.store(minute < 14, Ordering::SeqCst);
        if minute >= 3 {
            for _ in 0..60 {
                send(&envoy, &HttpRequest::get("/"))?;
            }
        }
        thread::sleep(SECOND);
        recording.scrape("canary", &[("a", Some(&envoy))])?;
        if minute > 16 && state()? == 0 {
            break;
        }
    }
    let states: Vec<f64> = recording.values(SERIES)?.iter().copied().map(Option::unwrap_or_default).collect();
    let first = states.iter().position(|state| *state == 2.0).unwrap();
    let last = states.iter().rposition(|state| *state == 2.0).unwrap();
    ensure!(states.iter().skip(first).take(last - first).any(|state| *state == 1.0), "it never probed: {states:?}");
    let labels =
        [("job", "canary"), ("rule", "shop"), ("section", "canaries"), ("severity", "warning"), ("variant", "v2")];
    let alert = "PenstockBreakerOpen";
    let mut expected = vec![ExpectedAlert::silence(alert, first.saturating_sub(1))];
    // The alert fires without interruption, whether the breaker is open or half-open at that minute.
    let fires = |minute| ExpectedAlert::fires(alert, minute, &labels, "shop: v2 fails and gets no traffic");
    expected.extend((first + 1..=last + 4).map(fires));
    expected.push(ExpectedAlert::silence(alert, last + 6));
    let minutes = recording.minute().max(last + 10);
    Ok(AlertScenario {
        name: "a breaker that opens again and again is one alert, until five minutes after it was last open",
        recording,
        minutes,
        expected,
    })
}

fn limited() -> Result<AlertScenario> {
    let key = |name: &str, more: &Value| {
        let mut limit = json!({"name": name, "key": [{"header": format!("x-{name}")}], "onMissingKey": "Skip",
            "limit": {"requests": 3, "per": "1h"}});
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        limit
    };
    let path = |path: &str| json!([{"path": {"type": "Exact", "value": path}}]);
    let service = json!({"cluster": "nobody", "domain": "d", "timeout": "1s", "onFailure": "Allow"});
    // Small tables, because the busy keys of all limits are counted in parts, 256 sets a second.
    let policy = json!({"rateLimits": [
        key("few", &json!({"capacity": 64})),
        key("full", &json!({"capacity": 8})),
        {"name": "global", "matches": path("/global"), "key": [], "limit": {"requests": 1, "per": "1h"}, "scope": {"global": service}},
    ]});
    let mut bootstrap = Bootstrap::new()?.stats_tags()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", &policy)?.named("edge"))?;
    let envoy = bootstrap
        .any_cluster(grpc_cluster("nobody", ([127, 0, 0, 1], 9).into()))
        .listener(Listener::new("ingress").discovered(filter).route(Route::any().answers(200, "fine\n")))
        .start()?;
    reported(&envoy)?;
    let mut recording = ScrapeRecording::default();
    let outcome =
        |limit: &str, outcome: &str| format!("requests_total.section.rateLimits.rule.{limit}.outcome.{outcome}");
    const BUSY: u64 = 15;
    for minute in 0..BUSY + 2 {
        if (2..BUSY).contains(&minute) {
            // Three of four requests pass.
            for _ in 0..4 {
                send(&envoy, &HttpRequest::get("/").header("x-few", format!("user-{minute}")))?;
            }
            // The workers write their counters one after the other.
            counted(&envoy, &outcome("few", "passed"), 3 * (minute - 1))?;
            counted(&envoy, &outcome("few", "limited"), minute - 1)?;
        }
        if minute == 3 {
            for user in 0..8 {
                send(&envoy, &HttpRequest::get("/").header("x-full", format!("user-{user}")))?;
            }
            wait_until("all keys", || {
                Ok(envoy.admin().stat("wasmcustom.penstock.rate_limit_keys_used.rule.full")? == 8)
            })?;
            // One call of the rate-limit service gets no response.
            send(&envoy, &HttpRequest::get("/global"))?;
            counted(&envoy, &outcome("global", "error"), 1)?;
        }
        recording.scrape("limits", &[("a", Some(&envoy))])?;
    }
    let rule = |rule: &'static str, severity| [("job", "limits"), ("rule", rule), ("severity", severity)];
    let full = [("instance", "a"), ("job", "limits"), ("rule", "full"), ("severity", "warning")];
    let [rejects, fills, service] =
        ["PenstockHighRejectionRate", "PenstockSlotsNearlyFull", "PenstockRateLimitServiceFails"];
    Ok(AlertScenario {
        name: "limits that refuse much, that are full, and whose service failed once",
        recording,
        minutes: 60,
        expected: vec![
            ExpectedAlert::silence(rejects, 10),
            ExpectedAlert::fires(rejects, 14, &rule("few", "warning"), "few refuses 25% of its requests"),
            ExpectedAlert::silence(rejects, 25),
            ExpectedAlert::silence(fills, 2),
            ExpectedAlert::fires(fills, 15, &full, "a: full uses 100% of its capacity"),
            ExpectedAlert::silence(service, 3),
            ExpectedAlert::fires(
                service,
                6,
                &rule("global", "critical"),
                "global: the rate-limit service does not answer",
            ),
            ExpectedAlert::silence(service, 12),
        ],
    })
}

fn refused_egress() -> Result<AlertScenario> {
    let end = time::OffsetDateTime::now_utc() + time::Duration::days(6) + time::Duration::hours(1);
    let end = end.format(&time::format_description::well_known::Rfc3339)?;
    let policy = json!({"egress": {"rules": [{"name": "shop", "to": [{"host": "shop.example.com", "ports": [80]}], "expires": end}]}});
    let envoy = envoy(&policy)?;
    let mut recording = ScrapeRecording::default();
    for minute in 0..16_u64 {
        if (2..14).contains(&minute) {
            for _ in 0..10 {
                ensure!(send(&envoy, &HttpRequest::new("GET", "evil.example.com:80", "/"))? == 403);
            }
            counted(&envoy, "egress_reasons_total.reason.hostNotAllowed.outcome.denied", 10 * (minute - 1))?;
        }
        recording.scrape("egress", &[("a", Some(&envoy))])?;
    }
    let labels = [("instance", "a"), ("job", "egress"), ("reason", "hostNotAllowed"), ("severity", "warning")];
    let ends = [("job", "egress"), ("plugin", "edge"), ("severity", "warning")];
    Ok(AlertScenario {
        name: "a workload that is refused egress again and again, and a rule that ends in six days",
        recording,
        minutes: 30,
        expected: vec![
            ExpectedAlert::silence("PenstockEgressRefused", 6),
            ExpectedAlert::fires("PenstockEgressRefused", 12, &labels, "a is refused egress: hostNotAllowed"),
            ExpectedAlert::silence("PenstockEgressRefused", 22),
            ExpectedAlert::fires(
                "PenstockEgressRuleExpires",
                5,
                &ends,
                "An egress rule of edge expires in 6d 0h 55m 0s",
            ),
        ],
    })
}
