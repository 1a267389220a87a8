//! Compares the response of a real Envoy with the decision of `replay`.

use std::collections::BTreeMap;

use penstock_integration::http::{HttpResponse, Protocol};
use penstock_policy::wire::{Field, WireDecision, WireRequest, as_received};

/// The header with which the filter behind the module shows that the request reached it.
pub const CAME_THROUGH: &str = "x-came-through";
/// Headers that Envoy itself adds to every request.
const OF_ENVOY: [&str; 3] = ["x-request-id", "x-forwarded-proto", "x-envoy-external-address"];

type Names = BTreeMap<String, Vec<String>>;

/// The difference between the response and the decision, or `None` when they agree. `skew` is how many seconds the two
/// clocks may be apart.
pub fn difference(
    protocol: Protocol,
    request: &WireRequest,
    decision: &WireDecision,
    response: &HttpResponse,
    skew: u64,
) -> Option<String> {
    let came_through = response.header(CAME_THROUGH).is_some();
    let is_head = request.method == "HEAD";
    let mut wrong = Vec::new();
    if decision.action == Some("continue") {
        if !came_through {
            return Some(format!("Envoy answers {} {:?}", response.status, response.text()));
        }
        if !is_head {
            let (expected, found) = (forwarded(protocol, request, decision), seen(response));
            for name in expected.keys().chain(found.keys()) {
                if expected.get(name) != found.get(name) && !OF_ENVOY.contains(&name.as_str()) {
                    wrong.push(format!("{name} is {:?}, not {:?}", found.get(name), expected.get(name)));
                }
            }
        }
        for (name, value) in decision.response_changes.set.iter().chain(&decision.response_changes.add) {
            if !response.values(name).any(|found| found == *value) {
                wrong.push(format!("the response has no {name}: {value}"));
            }
        }
        for name in &decision.response_changes.remove {
            if response.header(name).is_some() {
                wrong.push(format!("the response has {name}"));
            }
        }
    } else {
        if came_through {
            return Some("Envoy forwards it".to_owned());
        }
        if Some(response.status) != decision.status {
            wrong.push(format!("the status is {}", response.status));
        }
        if !is_head && Some(response.text()) != decision.body {
            wrong.push(format!("the body is {:?}", response.text()));
        }
    }
    for (name, value) in &decision.response_headers {
        if !response.values(name).any(|found| is_alike(name, &found, value, skew)) {
            wrong.push(format!(
                "the response has {name}: {:?}, not {value:?}",
                response.values(name).collect::<Vec<_>>()
            ));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// The header map behind the module according to the decision.
fn forwarded(protocol: Protocol, request: &WireRequest, decision: &WireDecision) -> Names {
    let mut names = Names::new();
    for (name, value) in request.header_map() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        names.entry(text(name)).or_default().push(text(value));
    }
    if protocol == Protocol::Http2
        && let Some(cookies) = names.get_mut("cookie")
    {
        *cookies = vec![cookies.join("; ")];
    }
    let changes = &decision.headers;
    for (name, value) in &changes.set {
        names.insert(name.clone(), vec![value.clone()]);
    }
    for name in &changes.remove {
        names.remove(name);
    }
    for (name, value) in &changes.add {
        let values = names.entry(name.clone()).or_default();
        values.push(value.clone());
        if values.len() > 1 {
            // Joins the headers that Envoy joins.
            let fields: Vec<Field> =
                values.iter().map(|v| (name.clone().into_bytes(), v.clone().into_bytes())).collect();
            *values = as_received(fields).into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect();
        }
    }
    names
}

/// The header map that the filter behind the module received, one header a line.
fn seen(response: &HttpResponse) -> Names {
    let mut names = Names::new();
    for line in response.text().lines() {
        let colon = line.get(1..).and_then(|rest| rest.find(": ")).map_or(line.len(), |at| at + 1);
        let (name, value) = line.split_at(colon);
        names.entry(name.to_owned()).or_default().push(value.get(2..).unwrap_or_default().to_owned());
    }
    names
}

/// Removes what is random or depends on time: ids and seconds.
fn is_alike(name: &str, found: &str, expected: &str, skew: u64) -> bool {
    if name == "set-cookie" {
        let rest = |cookie: &str| cookie.split_once(';').map(|(_, rest)| rest.to_owned());
        let key = |cookie: &str| cookie.split_once('=').map(|(key, _)| key.to_owned());
        return rest(found) == rest(expected) && key(found) == key(expected);
    }
    if name == "x-penstock-decision-id" {
        return [found, expected].iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let is_of_a_limit = name == "retry-after" || name.contains("ratelimit");
    if !is_of_a_limit {
        return found == expected;
    }
    let parts = |text: &str| -> Vec<String> {
        text.chars().fold(vec![String::new()], |mut parts, next| {
            let last = parts.last_mut().unwrap();
            if last.chars().next_back().is_some_and(|before| before.is_ascii_digit() != next.is_ascii_digit()) {
                parts.push(next.to_string());
            } else {
                last.push(next);
            }
            parts
        })
    };
    let (found, expected) = (parts(found), parts(expected));
    found.len() == expected.len()
        && found.iter().zip(&expected).all(|(one, other)| match (one.parse::<u64>(), other.parse::<u64>()) {
            // Small numbers are no seconds until a limit has room again.
            (Ok(one), Ok(other)) => one.abs_diff(other) <= if one > 60 { skew } else { 0 },
            _ => one == other,
        })
}
