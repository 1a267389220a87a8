//! The shop of `istio/` and `envoy-configs/gateway/`, whose manifests have the same policy.

use anyhow::{Result, bail, ensure};

use crate::http::{HttpRequest, HttpResponse};

/// A policy that uses routes, a canary and a limit, for the tests of `penstock render`.
pub const RENDERED_POLICY: &str = "\
rateLimits:
- {name: per-user, matches: [{path: {value: /limited}}], key: [{header: x-user}], limit: {requests: 1, per: 1h}}
routes:
  default: stable
  rules:
  - {name: beta-users, matches: [{headers: [{name: x-user-group, value: beta}]}], route: beta}
canaries:
- {name: reviews, matches: [{path: {value: /reviews}}], variants: [{name: v1, weight: 0}, {name: v2, weight: 1}]}
";

/// A request to the shop.
pub fn shop(path: &str) -> HttpRequest {
    HttpRequest::get(path).at("shop.example.com")
}

/// Tests that the canary of the reviews splits users 90 to 10 and keeps each on one side, and that a greedy user is
/// limited.
pub fn shop_splits_and_limits(ask: impl Fn(&HttpRequest) -> Result<HttpResponse>) -> Result<()> {
    let mut both = [0, 0];
    for user in 0..60 {
        let request = shop("/reviews").header("x-user-id", format!("user-{user}"));
        let first = ask(&request)?.header("x-upstream");
        ensure!(first == ask(&request)?.header("x-upstream"), "user {user} changed sides");
        match first.as_deref() {
            Some("reviews-v1") => both[0] += 1,
            Some("reviews-v2") => both[1] += 1,
            other => bail!("the canary's requests went to {other:?}"),
        }
    }
    ensure!(both[0] > 40 && both[1] > 0, "not 90 to 10: {both:?}");
    let greedy = shop("/").header("x-user-id", "greedy");
    let refused = (0..130).map(|_| ask(&greedy)).find(|answer| !answer.as_ref().is_ok_and(|it| it.status == 200));
    ensure!(matches!(&refused, Some(Ok(response)) if response.status == 429), "no limit: {refused:?}");
    Ok(())
}
