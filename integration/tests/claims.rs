//! Claims of tokens that Envoy's own JWT filter has verified, and metadata that other filters set.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, TokenSigner, WasmFilter};
use serde_json::{Value, json};

/// Envoy's JWT filter: requests without a token pass, those with an invalid one do not. `field` is the metadata field
/// in which it stores the claims.
fn jwt(signer: &TokenSigner, field: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"tests": {
            "issuer": TokenSigner::ISSUER,
            "local_jwks": signer.local_jwks(),
            "payload_in_metadata": field,
        }},
        "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
            {"provider_name": "tests"}, {"allow_missing": {}},
        ]}}}],
    })
}

/// Envoy's filter that sets metadata.
fn set_metadata(namespace: &str, value: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": namespace, "value": value}],
    })
}

fn routed(listener: Listener, policy: Value, routes: &[&str]) -> Result<Envoy> {
    let filter = WasmFilter::new("suite", policy)?;
    let listener = listener.wasm(&filter).routes_named(routes).route(Route::any());
    Bootstrap::new()?.listener(listener).start()
}

/// The response of Envoy's route table: the name of the route, or `none`.
fn answer(envoy: &Envoy, protocol: Protocol, request: &HttpRequest) -> Result<(u16, String)> {
    let response = http::send(protocol, envoy.ingress()?, request)?;
    Ok((response.status, response.text()))
}

fn rule(name: &str, conditions: Value) -> Value {
    json!({"name": name, "route": name, "matches": [conditions]})
}

#[test]
fn rules_match_the_claims_of_a_verified_token_and_nothing_that_a_client_writes() -> Result<()> {
    let signer = TokenSigner::new()?;
    let claim = |name: &str, value: &str| json!({"claims": [{"name": name, "value": value}]});
    let policy = json!({"routes": {"rules": [
        rule("tier", claim("tier", "pro")),
        rule("group", claim("groups", "ops")),
        rule("team", claim("realm.team", "search")),
        rule("age", claim("age", "42")),
        rule("admin", claim("admin", "true")),
        rule("dotted", claim("https://shop.example.com/role", "buyer")),
        rule("free", json!({"claims": [
            {"name": "tier", "type": "Present"}, {"name": "tier", "value": "pro", "invert": true},
        ]})),
    ]}});
    let routes = ["tier", "group", "team", "age", "admin", "dotted", "free"];
    let listener = Listener::new("ingress").filter("envoy.filters.http.jwt_authn", jwt(&signer, "payload"));
    let mut envoy = routed(listener, policy, &routes)?;
    for protocol in Protocol::ALL {
        for (claims, route) in [
            (json!({"tier": "pro"}), "tier"),
            (json!({"tier": "free", "groups": ["dev", "ops"]}), "group"),
            (json!({"realm": {"team": "search"}}), "team"),
            (json!({"age": 42}), "age"),
            (json!({"age": "42"}), "age"),
            (json!({"age": 42.5}), "none"),
            (json!({"admin": true}), "admin"),
            (json!({"admin": false}), "none"),
            (json!({"https://shop.example.com/role": "buyer"}), "dotted"),
            (json!({"tier": "free"}), "free"),
            (json!({"tier": ["free", "pro"]}), "tier"),
            // A number in metadata is eight bytes; this is a string of that length.
            (json!({"tier": "12345678"}), "free"),
            (json!({}), "none"),
        ] {
            let request = HttpRequest::get("/").header("authorization", signer.bearer(&claims)?);
            assert_eq!(answer(&envoy, protocol, &request)?, (200, route.to_owned()), "{protocol} {claims}");
        }
        let forged = HttpRequest::get("/").header("tier", "pro").header("x-jwt-claim-tier", "pro");
        assert_eq!(answer(&envoy, protocol, &forged)?.1, "none", "{protocol}: no token, no claims");
        let other = TokenSigner::new()?.bearer(&json!({"tier": "pro"}))?;
        let wrong = HttpRequest::get("/").header("authorization", other);
        assert_eq!(answer(&envoy, protocol, &wrong)?.0, 401, "{protocol}: another's token does not pass at all");
    }
    envoy.check_healthy()
}

#[test]
fn without_the_filter_that_verifies_it_a_token_has_no_claims() -> Result<()> {
    let signer = TokenSigner::new()?;
    let policy = json!({"routes": {"rules": [rule("tier", json!({"claims": [{"name": "tier", "value": "pro"}]}))]}});
    let mut envoy = routed(Listener::new("ingress"), policy, &["tier"])?;
    let request = HttpRequest::get("/").header("authorization", signer.bearer(&json!({"tier": "pro"}))?);
    assert_eq!(answer(&envoy, Protocol::Http1, &request)?.1, "none");
    envoy.check_healthy()
}

#[test]
fn limits_count_by_claims_and_canaries_stick_to_them() -> Result<()> {
    let signer = TokenSigner::new()?;
    let policy = json!({
        "settings": {"claims": {"path": ["provider-of-ours"]}},
        "rateLimits": [{"name": "per-user", "key": [{"claim": "sub"}], "onMissingKey": "Skip",
            "limit": {"requests": 4, "per": "1h"}}],
        "canaries": [{"name": "c", "stickiness": {"claim": "sub"},
            "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}],
    });
    let listener = Listener::new("ingress").filter("envoy.filters.http.jwt_authn", jwt(&signer, "provider-of-ours"));
    let mut envoy = routed(listener, policy, &["v1", "v2"])?;
    let mut variants = std::collections::BTreeSet::new();
    for user in 0..16 {
        // A new token each time: the same claim, other bytes.
        let ask = |number: u32| {
            let bearer = signer.bearer(&json!({"sub": format!("u-{user}"), "jti": number.to_string()}))?;
            answer(&envoy, Protocol::Http1, &HttpRequest::get("/").header("authorization", bearer))
        };
        let answers = (0..5).map(ask).collect::<Result<Vec<_>>>()?;
        assert_eq!(answers[4].0, 429, "{answers:?}");
        assert!(answers[..4].iter().all(|answer| answer == &answers[0] && answer.0 == 200), "{answers:?}");
        variants.insert(answers[0].1.clone());
    }
    assert_eq!(variants.len(), 2, "16 users and one variant");
    let anonymous = HttpRequest::get("/").header("sub", "u-1");
    for _ in 0..8 {
        assert_eq!(answer(&envoy, Protocol::Http1, &anonymous)?.0, 200, "without a token the limit does not apply");
    }
    envoy.check_healthy()
}

#[test]
fn conditions_see_metadata_that_any_earlier_filter_set() -> Result<()> {
    let place =
        |path: Value, value: &str| json!({"metadata": [{"namespace": "my.filter", "path": path, "value": value}]});
    let left = json!({"team": "search", "deep": {"list": ["a", "b"], "number": 7, "yes": true}});
    let cases = [
        (place(json!(["team"]), "search"), "r"),
        (place(json!(["deep", "list"]), "b"), "r"),
        (place(json!(["deep", "number"]), "7"), "r"),
        (place(json!(["deep", "yes"]), "true"), "r"),
        (place(json!(["deep"]), "a"), "none"),
        (place(json!(["missing"]), ""), "none"),
    ];
    let mut bootstrap = Bootstrap::new()?;
    for (number, (conditions, _)) in cases.iter().enumerate() {
        let name = format!("listener-{number}");
        let filter =
            WasmFilter::new("suite", json!({"routes": {"rules": [rule("r", conditions.clone())]}}))?.named(&name);
        let listener = Listener::new(&name).filter("set", set_metadata("my.filter", left.clone())).wasm(&filter);
        bootstrap = bootstrap.listener(listener.routes_named(&["r"]).route(Route::any()));
    }
    let mut envoy = bootstrap.start()?;
    for (number, (conditions, route)) in cases.iter().enumerate() {
        let forged = HttpRequest::get("/").header("team", "search");
        let response = http::send(Protocol::Http1, envoy.address(&format!("listener-{number}"))?, &forged)?;
        assert_eq!(response.text(), *route, "{conditions}");
    }
    envoy.check_healthy()
}

#[test]
fn metadata_of_a_later_filter_is_not_visible() -> Result<()> {
    let conditions = json!({"metadata": [{"namespace": "my.filter", "path": ["team"], "value": "search"}]});
    let policy = json!({"routes": {"rules": [rule("r", conditions)]}});
    let filter = WasmFilter::new("suite", policy)?;
    let set = set_metadata("my.filter", json!({"team": "search"}));
    let listener = Listener::new("ingress").wasm(&filter).filter("set", set).routes_named(&["r"]).route(Route::any());
    let mut envoy = Bootstrap::new()?.listener(listener).start()?;
    assert_eq!(answer(&envoy, Protocol::Http1, &HttpRequest::get("/"))?.1, "none");
    envoy.check_healthy()
}
