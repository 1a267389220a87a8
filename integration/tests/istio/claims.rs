//! Claims of tokens that a RequestAuthentication has verified.

use anyhow::{Result, ensure};
use penstock_integration::TokenSigner;
use penstock_integration::control_plane::Access;
use serde_json::{Value, json};

use super::mesh::{Mesh, is_from};
use super::shop;

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn rules_and_limits_go_by_the_claims_of_a_request_authentication() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    let signer = TokenSigner::new()?;
    let authentication = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "istio-system"},
        "spec": {
            "selector": {"matchLabels": {"istio": "ingressgateway"}},
            "jwtRules": [{"issuer": TokenSigner::ISSUER, "jwks": signer.jwks().to_string()}],
        },
    });
    mesh.cluster.apply(&authentication.to_string())?;
    let by_claims = [
        ("- headers:\n          - name: x-user-group", "- claims:\n          - name: groups"),
        ("- header: x-user-id", "- claim: sub"),
    ];
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &by_claims)?)?;
    mesh.cluster.apply_kustomization(&penstock_integration::workspace::root().join("istio/observability"))?;
    let mut proxy = mesh.gateway("ingress-1")?;
    proxy.wait_for_listener(mesh.port)?;
    let with = |claims: Value| Ok::<_, anyhow::Error>(shop("/").header("authorization", signer.bearer(&claims)?));

    mesh.expect("the beta route", &with(json!({"groups": ["dev", "beta"]}))?, is_from("shop-beta"))?;
    mesh.expect("the stable route", &with(json!({"groups": ["dev"]}))?, is_from("shop-stable"))?;
    let forged = mesh.ask(&shop("/").header("groups", "beta").header("x-user-group", "beta"))?;
    ensure!(is_from("shop-stable")(&forged), "a client wrote a claim: {forged:?}");
    let other = shop("/").header("authorization", TokenSigner::new()?.bearer(&json!({"groups": "beta"}))?);
    ensure!(mesh.ask(&other)?.status == 401, "another's token");

    let greedy = with(json!({"sub": "greedy"}))?;
    let refused = (0..130).map(|_| mesh.ask(&greedy)).find(|answer| !answer.as_ref().is_ok_and(|it| it.status == 200));
    ensure!(matches!(&refused, Some(Ok(response)) if response.status == 429), "no limit: {refused:?}");
    let patient = mesh.ask(&with(json!({"sub": "other"}))?)?;
    ensure!(patient.status == 200, "one user's limit is another's: {patient:?}");
    Ok(())
}
