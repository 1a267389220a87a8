//! What the dash needs of the engine: parsing a line of an access log, explaining a decision, writing a rule as YAML.

use penstock_dash::app::Engine;
use penstock_dash::feed::explain::Explained;
use penstock_dash::feed::{AccessLogEntry, FilterStates};
use penstock_policy::wire::WireRequest;
use serde_json::{Map, Value};

use crate::explain;
use crate::traffic::log::{self, Line};
use crate::yaml::Located;
use crate::yaml_text;

/// The dash's view of the engine.
pub const ENGINE: Engine = Engine { read_line, explain: explained, to_yaml };

/// Keys in the documented access logs for plain Envoy, Istio and Envoy Gateway, and other usual names for the same
/// values.
const DETAILS: &[&str] = &["details", "response_code_details", "responseCodeDetails"];
const STATUS: &[&str] = &["status", "response_code", "responseCode", "status_code"];
const ID: &[&str] = &["decisionId", "x-penstock-decision-id", "requestId", "request_id", "x-request-id"];
const ROUTE: &[&str] = &["penstockRoute", "x-penstock-route"];

/// Parses a line of a JSON access log.
fn read_line(line: &[u8]) -> Option<AccessLogEntry> {
    let (Line::Request(request) | Line::WithoutTime(request)) = log::json(line) else { return None };
    let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let text = |keys: &[&str]| -> Option<String> {
        keys.iter().find_map(|key| match fields.get(*key)? {
            // Envoy writes `-` for an absent value.
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty() && text != "-"),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    };
    let WireRequest { method, scheme, authority, path, headers, source_address, sni, peer, time, .. } = *request;
    Some(AccessLogEntry {
        at: time.map(|time| time.0 as f64 / 1e9),
        method,
        scheme,
        authority,
        path,
        status: text(STATUS).and_then(|status| status.parse().ok()).unwrap_or_default(),
        details: text(DETAILS).unwrap_or_default(),
        address: source_address,
        caller: peer,
        sni,
        states: FilterStates {
            rule: text(&["penstockRule"]),
            variant: text(&["penstockVariant"]),
            reason: text(&["penstockReason"]),
            held_back: text(&["penstockHeldBack"]),
            egress_rule: text(&["egressRule"]),
            egress_outcome: text(&["egressOutcome"]),
            egress_reason: text(&["egressReason"]),
        },
        route: text(ROUTE),
        id: text(ID),
        headers,
    })
}

fn explained(policy: &Value, request: &Value) -> Result<Explained, String> {
    let request: WireRequest = serde_path_to_error::deserialize(request)
        .map_err(|error| format!("the request's {}: {}", error.path(), error.inner()))?;
    let located = Located::read_json(&policy.to_string()).map_err(|error| error.to_string())?;
    explain::one_request(&located.node, &request).map_err(|error| format!("{error:#}"))
}

fn to_yaml(part: &Value) -> String {
    match Located::read_json(&part.to_string()) {
        Ok(located) => yaml_text::block(&located.node, 0),
        // The value came as JSON.
        Err(_) => part.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_the_documented_access_logs_are_read() {
        let line = json!({"time": "2026-01-01T00:00:01Z", "requestId": "r-1", "decisionId": "-", "method": "GET",
            "authority": "api.test", "path": "/v1?x=1", "status": 403, "details": "penstock_egress_pathNotAllowed",
            "source": "203.0.113.7", "penstockRoute": "-", "egressRule": "cards", "egressOutcome": "deny"});
        let logged = read_line(line.to_string().as_bytes()).unwrap();
        assert_eq!((&*logged.authority, &*logged.path, logged.status), ("api.test", "/v1?x=1", 403));
        assert_eq!((&*logged.details, logged.id.as_deref()), ("penstock_egress_pathNotAllowed", Some("r-1")));
        assert_eq!((logged.states.egress_rule.as_deref(), logged.route), (Some("cards"), None));
        assert_eq!(logged.at, Some(1_767_225_601.0));
        // Istio's own names, and lines in other formats.
        let line = br#"{"start_time":"x","method":"GET","authority":"a","path":"/","response_code":"429","response_code_details":"penstock_rateLimits_limited"}"#;
        let logged = read_line(line).unwrap();
        assert_eq!((logged.status, &*logged.details, logged.at), (429, "penstock_rateLimits_limited", None));
        for line in ["", "[info] starting", "{}", "[1]", r#"{"method":1}"#] {
            assert!(read_line(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_policy_that_runs_explains_a_request() {
        let policy = json!({"egress": {"rules": [{"name": "cards", "owner": "payments", "reason": "charges", "to": [{"host": "cards.test"}]}]}});
        let request = json!({"method": "GET", "scheme": "https", "authority": "evil.test", "path": "/"});
        let explained = explained(&policy, &request).unwrap();
        assert!(explained.refused && explained.text.contains("hostNotAllowed"), "{explained:?}");
        assert_eq!(explained.decision.pointer("/decision/reason"), Some(&json!("hostNotAllowed")));
        let error =
            super::explained(&policy, &json!({"method": "GET", "authority": "a", "path": "/", "sourceAddress": "x"}));
        assert!(error.is_err_and(|error| error.starts_with("the request's sourceAddress: ")));
        assert!(super::explained(&json!({"routes": 1}), &request).is_err());
    }

    #[test]
    fn a_rule_is_written_as_yaml() {
        let rule = json!({"name": "cards", "to": [{"host": "cards.test", "ports": [443]}]});
        assert_eq!(to_yaml(&rule), "name: cards\nto:\n- host: cards.test\n  ports: [443]\n");
    }
}
