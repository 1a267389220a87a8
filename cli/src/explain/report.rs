//! What a decision's notes and the policy say together, section by section: the JSON form of `penstock explain`.

use penstock_policy::wire::WireDecision;
use serde::Serialize;

use crate::place::Place;

/// One explained decision, of one policy or the part of it that runs in one place.
#[derive(Debug, Serialize)]
pub struct PlacedExplanation {
    /// The place; absent: the whole policy runs in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
    /// The file and object of the policy, when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The decision.
    #[serde(flatten)]
    pub report: Explanation,
}

/// Several decisions, each in one place, and the decision of the whole policy in one plugin.
#[derive(Debug, Serialize)]
pub struct ExplanationByPlace<'v> {
    /// The whole policy, when there is one.
    #[serde(flatten)]
    pub whole: Option<Explanation>,
    /// Each part by itself.
    pub places: &'v [PlacedExplanation],
}

/// One explained decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Method, URL.
    pub request: String,
    /// When it was decided, RFC 3339.
    pub time: String,
    /// As `penstock replay` prints it.
    pub decision: WireDecision,
    /// The sections of the policy in the order in which they run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressReport>,
    /// The limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<LimitsReport>,
    /// The route rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<RulesReport>,
    /// The canaries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<CanariesReport>,
}

/// A rule, limit or canary with `matches` that was considered: its entry that came nearest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// Its name.
    pub name: String,
    /// Whether the entry holds.
    pub matches: bool,
    /// How many of its conditions hold.
    pub held: usize,
    /// Every condition in the order in which it is asked; empty: it takes every request.
    pub conditions: Vec<ConditionReport>,
}

/// One condition.
#[derive(Debug, Serialize)]
pub struct ConditionReport {
    /// In words.
    pub condition: String,
    /// What the request has.
    pub actual: String,
    /// Whether it holds.
    pub holds: bool,
}

/// `egress`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressReport {
    /// `allow`, `audit` or `deny`.
    pub outcome: &'static str,
    /// Why it is not `allow`, as in the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The destination's normal form; absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port, given or implied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `authority`, `connection` or `scheme`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_from: Option<&'static str>,
    /// The verified identity of the caller, if a rule needed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Whether a rule with `paths` was selected.
    pub path_scoped: bool,
    /// The path that `paths` saw and that is forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_path: Option<String>,
    /// Entries of `deny` that cover the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied_by: Vec<String>,
    /// The rules whose hosts cover the destination, as far as they were evaluated; those that allow it first, then the
    /// nearest.
    pub rules: Vec<EgressRuleReport>,
    /// How many were evaluated beyond those shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Hosts of the rules that look like the destination's, when none covers it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub similar_hosts: Vec<String>,
}

/// One rule that the destination selects.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRuleReport {
    /// Its name.
    pub name: String,
    /// The team or person that is responsible for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Why it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Why it does not allow the request; absent: it allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<&'static str>,
    /// What the rule requires there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wants: Option<String>,
}

/// `rateLimits`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// `passed`, `limited` or `notReached`.
    pub outcome: &'static str,
    /// The limits that applied.
    pub limits: Vec<LimitReport>,
    /// The nearest of those whose `matches` do not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// One limit that matched.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitReport {
    /// Its name.
    pub name: String,
    /// `passed`, `limited`, `skipped` or `missingKey`.
    pub outcome: &'static str,
    /// Whether it is in Shadow, so that it only reports.
    pub shadow: bool,
    /// The parts of the key.
    pub key: Vec<(String, String)>,
    /// The part of the key that the request does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The cluster of the rate-limit service that decides; how it answers is assumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The request's cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// Whether the cost header had a value that is not a cost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bad_cost: bool,
    /// The header of the response that says what the request has cost; `cost` is what is reserved until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
    /// What the full bucket holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The bucket before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BucketReport>,
    /// The bucket after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<BucketReport>,
    /// Seconds until a repetition would pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// Whether it shares a bucket with other keys, for want of room.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
}

/// A bucket at one instant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketReport {
    /// Requests of cost 1 that would pass.
    pub remaining: u32,
    /// Seconds until it is full: its debt.
    pub debt_seconds: f64,
}

/// `routes`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesReport {
    /// `rule`, `failedOver`, `redirect`, `default`, `none` or `notReached`.
    pub outcome: &'static str,
    /// The rule that won.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<Considered>,
    /// Others that match and come after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_match: Vec<String>,
    /// The nearest of those that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// `canaries`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanariesReport {
    /// `variant`, `none`, `routeDecided` (a route rule did already) or `notReached`.
    pub outcome: &'static str,
    /// The route rule that names the canary, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// The canary that chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// The nearest of those before it that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// How a canary chose.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Its name and conditions.
    pub canary: Considered,
    /// The override that beat the weights, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overridden_by: Option<String>,
    /// What keeps the user on a variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<StickyKey>,
    /// The ramp at this instant, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<String>,
    /// In document order.
    pub variants: Vec<VariantReport>,
    /// The variant that override or weights give, when a rollback is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

/// A canary's key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StickyKey {
    /// Where it comes from.
    pub from: String,
    /// Its value.
    pub value: String,
    /// Whether it is random.
    pub random: bool,
    /// Whether it is a new user's.
    pub new: bool,
}

/// One variant for this key.
#[derive(Debug, Serialize)]
pub struct VariantReport {
    /// Its name.
    pub name: String,
    /// The value of the route header.
    pub route: String,
    /// Of all requests, 0 to 1.
    pub share: f64,
    /// Its uniform number for the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u: Option<f64>,
    /// `share / -ln u`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Whether the request gets it.
    pub chosen: bool,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}
