//! What the feed stores of a logged request.

use std::net::IpAddr;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// A logged request, as an access log contains it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessLogEntry {
    /// The start time in seconds since 1970; absent means the time when the line arrived.
    pub at: Option<f64>,
    /// `:method`.
    pub method: String,
    /// `:scheme`.
    pub scheme: Option<String>,
    /// `:authority`.
    pub authority: String,
    /// The path that the client sent, with query.
    pub path: String,
    /// The status of the response.
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`: `penstock_<section>_<reason>` when a module responded.
    pub details: String,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The verified identity of the caller.
    pub caller: Option<String>,
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    /// The filter state that the modules set.
    pub states: FilterStates,
    /// The route header.
    pub route: Option<String>,
    /// `x-penstock-decision-id` of the response, or `x-request-id` of the request.
    pub id: Option<String>,
    /// The request headers in the log.
    pub headers: Vec<(String, String)>,
}

/// The filter state that the modules set, without the prefix `wasm.penstock.`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterStates {
    /// `rule`: `<section>/<rule>`.
    pub rule: Option<String>,
    /// `variant`.
    pub variant: Option<String>,
    /// `reason`.
    pub reason: Option<String>,
    /// `heldBack`: `<section>/<rule> <reason>, …`.
    pub held_back: Option<String>,
    /// `egress.rule`.
    pub egress_rule: Option<String>,
    /// `egress.outcome`: `audit` or `deny`.
    pub egress_outcome: Option<String>,
    /// `egress.reason`.
    pub egress_reason: Option<String>,
}

impl FilterStates {
    /// The state with this name, with or without the prefix `wasm.`.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        let name = name.strip_prefix("wasm.").unwrap_or(name);
        Some(match name.strip_prefix("penstock.")? {
            "rule" => &mut self.rule,
            "variant" => &mut self.variant,
            "reason" => &mut self.reason,
            "heldBack" => &mut self.held_back,
            "egress.rule" => &mut self.egress_rule,
            "egress.outcome" => &mut self.egress_outcome,
            "egress.reason" => &mut self.egress_reason,
            _ => return None,
        })
    }
}

/// What may be stored about the client of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedPrivacy {
    /// Stores whole client addresses instead of their /24 or /48 network.
    pub full_addresses: bool,
    /// Request headers to store, in lower case.
    pub headers: Vec<String>,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LoggedOutcome {
    /// A module responded instead of the upstream, because of a rule or because it could not decide.
    Refused,
    /// The request was forwarded, but would be refused if the mode were not Audit or Shadow.
    HeldBack,
    /// A route rule redirected it.
    Redirected,
    /// The request was forwarded.
    Passed,
}

/// One decision in the feed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedDecision {
    /// A sequence number that increases with each stored decision.
    pub seq: u64,
    /// The start time of the request in seconds since 1970.
    pub at: f64,
    /// The proxy: its name in the dash if known, or else its node id.
    pub proxy: Option<String>,
    /// The namespace of the proxy.
    pub namespace: Option<String>,
    /// The outcome.
    pub outcome: LoggedOutcome,
    /// The section that decided.
    pub section: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// The egress rule, whichever section decided: it determines who may see the decision.
    #[serde(skip)]
    pub egress_rule: Option<String>,
    /// The variant of the canary.
    pub variant: Option<String>,
    /// The route.
    pub route: Option<String>,
    /// The response's status.
    pub status: u16,
    /// The method.
    pub method: String,
    /// The scheme.
    pub scheme: Option<String>,
    /// The authority.
    pub host: String,
    /// The path without its query.
    pub path: String,
    /// Whether the path had a query.
    pub had_query: bool,
    /// The caller's verified identity.
    pub caller: Option<String>,
    /// The client's address, or its network.
    pub address: Option<String>,
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    /// The id of the decision, or of the request.
    pub id: Option<String>,
    /// The stored request headers.
    pub headers: Vec<(String, String)>,
}

/// The longest text of a decision, in bytes.
const LONGEST: usize = 256;

/// The maximum number of stored headers of a request.
const MOST_HEADERS: usize = 8;

impl LoggedDecision {
    /// Converts a logged request; `now` is used when it has no time.
    pub fn of(logged: AccessLogEntry, privacy: &FeedPrivacy, now: f64) -> LoggedDecision {
        let AccessLogEntry { states, .. } = &logged;
        let own = logged.details.strip_prefix("penstock_");
        let held_back = states.held_back.as_deref().and_then(first_held_back);
        let audited = states.egress_outcome.as_deref() == Some("audit");
        let outcome = match own {
            Some(_) if (300..400).contains(&logged.status) => LoggedOutcome::Redirected,
            Some(_) => LoggedOutcome::Refused,
            None if held_back.is_some() || audited => LoggedOutcome::HeldBack,
            None => LoggedOutcome::Passed,
        };
        let decided = || states.rule.as_deref().and_then(|rule| rule.split_once('/'));
        let egress = |reason: Option<&str>| ("egress", states.egress_rule.as_deref(), reason.map(str::to_owned));
        let (section, rule, reason) = match (outcome, own) {
            (LoggedOutcome::Refused | LoggedOutcome::Redirected, Some(own)) => {
                let (section, reason) = own.split_once('_').unwrap_or((own, ""));
                let rule = match section {
                    "egress" => states.egress_rule.as_deref(),
                    _ => decided().filter(|(of, _)| *of == section).map(|(_, rule)| rule),
                };
                (Some(section), rule, Some(reason.to_owned()).filter(|reason| !reason.is_empty()))
            }
            (LoggedOutcome::HeldBack, _) => {
                let (section, rule, reason) = held_back.unwrap_or_else(|| egress(states.egress_reason.as_deref()));
                (Some(section), rule, reason)
            }
            _ => match (decided(), &states.egress_rule) {
                (Some((section, rule)), _) => (Some(section), Some(rule), states.reason.clone()),
                (None, Some(rule)) => (Some("egress"), Some(rule.as_str()), None),
                (None, None) => (None, None, None),
            },
        };
        let (path, query) = match logged.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (logged.path.as_str(), None),
        };
        let short = |text: Option<&str>| text.map(shortened).filter(|text| !text.is_empty());
        LoggedDecision {
            seq: 0,
            // A clock that is wrong must not keep a line at the top.
            at: logged.at.filter(|at| (now - 86_400.0..now + 60.0).contains(at)).unwrap_or(now),
            proxy: None,
            namespace: None,
            outcome,
            section: short(section),
            rule: short(rule),
            reason: short(reason.as_deref()),
            egress_rule: short(states.egress_rule.as_deref()),
            variant: short(states.variant.as_deref()),
            route: short(logged.route.as_deref()),
            status: logged.status,
            method: shortened(&logged.method),
            scheme: short(logged.scheme.as_deref()),
            host: shortened(&logged.authority),
            path: shortened(path.split('#').next().unwrap_or_default()),
            had_query: query.is_some(),
            caller: short(logged.caller.as_deref()),
            address: logged.address.map(|address| shown(address, privacy.full_addresses)),
            sni: short(logged.sni.as_deref()),
            id: short(logged.id.as_deref()),
            headers: kept(&logged.headers, &privacy.headers),
        }
    }
}

/// The first item: `egress/- hostNotAllowed` of `egress/- hostNotAllowed, rateLimits/soft limited`; `-` means no rule.
fn first_held_back(all: &str) -> Option<(&str, Option<&str>, Option<String>)> {
    let first = all.split(", ").next()?;
    let (place, reason) = first.rsplit_once(' ')?;
    let (section, rule) = place.split_once('/')?;
    Some((section, Some(rule).filter(|rule| *rule != "-"), Some(reason.to_owned())))
}

fn kept(headers: &[(String, String)], names: &[String]) -> Vec<(String, String)> {
    let wanted = headers.iter().filter(|(name, _)| names.contains(name));
    wanted.take(MOST_HEADERS).map(|(name, value)| (name.clone(), shortened(value))).collect()
}

/// At most [`LONGEST`] bytes, with `…` where text was removed.
fn shortened(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let end = (0..=LONGEST - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// An address, or only its network, which shows the client's location but not its identity.
fn shown(address: IpAddr, full: bool) -> String {
    match address.to_canonical() {
        address if full => address.to_string(),
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn decide(details: &str, status: u16, states: FilterStates) -> LoggedDecision {
        let logged = AccessLogEntry { details: details.to_owned(), status, states, ..AccessLogEntry::default() };
        LoggedDecision::of(logged, &FeedPrivacy::default(), 1.0)
    }

    fn said(decision: &LoggedDecision) -> (LoggedOutcome, &str, &str, &str) {
        let text = |text: &'_ Option<String>| -> &str { Box::leak(text.clone().unwrap_or_default().into_boxed_str()) };
        (decision.outcome, text(&decision.section), text(&decision.rule), text(&decision.reason))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn an_answer_of_a_modules_own_is_a_refusal_with_its_rule() {
        let states =
            || FilterStates { rule: some("rateLimits/per-user"), egress_rule: some("mail"), ..FilterStates::default() };
        for (details, status, expected) in [
            ("penstock_egress_hostNotAllowed", 403, (LoggedOutcome::Refused, "egress", "mail", "hostNotAllowed")),
            ("penstock_rateLimits_limited", 429, (LoggedOutcome::Refused, "rateLimits", "per-user", "limited")),
            ("penstock_routes", 404, (LoggedOutcome::Refused, "routes", "", "")),
            ("penstock_routes", 301, (LoggedOutcome::Redirected, "routes", "", "")),
            ("penstock_host_noPolicy", 503, (LoggedOutcome::Refused, "host", "", "noPolicy")),
            ("via_upstream", 503, (LoggedOutcome::Passed, "rateLimits", "per-user", "")),
        ] {
            assert_eq!(said(&decide(details, status, states())), expected, "{details}");
        }
    }

    #[test]
    fn what_audit_or_shadow_held_back_is_no_refusal() {
        let audit = FilterStates {
            egress_outcome: some("audit"),
            egress_reason: some("hostNotAllowed"),
            ..FilterStates::default()
        };
        assert_eq!(
            said(&decide("via_upstream", 200, audit)),
            (LoggedOutcome::HeldBack, "egress", "", "hostNotAllowed")
        );
        let shadow = FilterStates {
            rule: some("canaries/c"),
            held_back: some("rateLimits/a b limited, egress/- hostNotAllowed"),
            ..FilterStates::default()
        };
        assert_eq!(said(&decide("", 200, shadow)), (LoggedOutcome::HeldBack, "rateLimits", "a b", "limited"));
    }

    #[test]
    fn neither_query_nor_client_nor_headers_are_stored_by_default() {
        let logged = AccessLogEntry {
            path: "/cart?token=secret#x".to_owned(),
            address: "203.0.113.77".parse().ok(),
            headers: vec![("cookie".to_owned(), "secret".to_owned()), ("x-user".to_owned(), "ann".to_owned())],
            ..AccessLogEntry::default()
        };
        let decision = LoggedDecision::of(logged.clone(), &FeedPrivacy::default(), 1.0);
        assert_eq!((&*decision.path, decision.address.as_deref()), ("/cart", Some("203.0.113.0/24")));
        assert!(decision.had_query && !serde_json::to_string(&decision).unwrap().contains("secret"));
        let privacy = FeedPrivacy { full_addresses: true, headers: vec!["x-user".to_owned()] };
        let decision = LoggedDecision::of(logged, &privacy, 1.0);
        assert_eq!((decision.address.as_deref(), decision.headers.len()), (Some("203.0.113.77"), 1));
        let six = |text: &str| shown(text.parse().unwrap(), false);
        assert_eq!((six("2001:db8:1:2::3"), six("::ffff:10.1.2.3")), ("2001:db8:1::/48".into(), "10.1.2.0/24".into()));
    }

    #[test]
    fn no_text_is_longer_than_it_may_be() {
        let logged =
            AccessLogEntry { path: "é".repeat(5_000), authority: "a".repeat(256), ..AccessLogEntry::default() };
        let decision = LoggedDecision::of(logged, &FeedPrivacy::default(), 1.0);
        assert!(decision.path.len() <= LONGEST && decision.path.ends_with('…'), "{}", decision.path);
        assert_eq!(decision.host.len(), 256);
    }

    #[test]
    fn a_clock_that_is_far_off_is_not_believed() {
        let at = |at| {
            LoggedDecision::of(
                AccessLogEntry { at: Some(at), ..AccessLogEntry::default() },
                &FeedPrivacy::default(),
                1_000_000.0,
            )
            .at
        };
        assert_eq!([at(999_999.0), at(0.0), at(2_000_000.0), at(f64::NAN)], [999_999.0, 1e6, 1e6, 1e6]);
    }
}
