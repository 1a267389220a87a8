//! The manifests of `envoy-configs/gateway/` with a real Envoy Gateway: accepted by the API server, translated by Envoy
//! Gateway, and run by the Envoy of its Deployment.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use penstock_integration::control_plane::{
    Access, Cluster, EnvoyGateway, Registry, Tokens, eventually, free_port, hosts, with_hosts,
};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{
    RENDERED_POLICY, TokenSigner, Traffic, Upstream, UpstreamReply, shop, shop_splits_and_limits, workspace,
};
use serde_json::{Value, json};

mod chain;
mod decisions;
mod native;
mod rendered;

/// Services and their cluster addresses. The test listens on these addresses itself, so no kube-proxy is needed.
const SERVICES: [(&str, [u8; 4]); 4] = [
    ("shop-stable", [127, 0, 96, 11]),
    ("shop-beta", [127, 0, 96, 12]),
    ("reviews-v1", [127, 0, 96, 13]),
    ("reviews-v2", [127, 0, 96, 14]),
];

struct Site {
    cluster: Cluster,
    gateway: EnvoyGateway,
    registry: Registry,
    port: u16,
    service_port: u16,
    _upstreams: Vec<Upstream>,
}

impl Site {
    fn start() -> Result<Self> {
        let cluster = Cluster::knowing(&["gateway-api", "envoy-gateway"])?;
        let registry = Registry::start(&Access::Open)?;
        let gateway = EnvoyGateway::start(&cluster, &registry.docker_config()?)?;
        observe(&cluster)?;
        cluster.namespace("shop", &[])?;
        let mut upstreams = Vec::new();
        let service_port = free_port()?;
        for (name, address) in SERVICES {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"clusterIP": SocketAddr::from((address, 0)).ip(), "ports": [{"name": "http", "port": service_port}]},
            });
            cluster.apply(&service.to_string())?;
            // With this pause, four clients send 200 requests a second.
            upstreams.push(Upstream::at((address, service_port).into(), move |request| {
                let team = request.header("x-team").unwrap_or_default();
                let says = [("x-upstream", name.to_owned()), ("x-saw-path", request.path()), ("x-saw-team", team)];
                let reply = UpstreamReply::Status(200, says.map(|(name, value)| (name.to_owned(), value)).to_vec());
                UpstreamReply::After(Duration::from_millis(20), Box::new(reply))
            })?);
        }
        let site = Site { cluster, gateway, registry, port: free_port()?, service_port, _upstreams: upstreams };
        push(&site.registry, &workspace::module("suite")?.display().to_string(), "suite:0.1.0")?;
        Ok(site)
    }

    /// Applies the manifests with the test's registry and port, and with these texts replaced, each of which must
    /// occur.
    fn apply(&self, folder: &str, replacements: &[(&str, &str)]) -> Result<()> {
        let path = workspace::root().join("envoy-configs/gateway").join(folder).display().to_string();
        let mut text = self.cluster.kubectl(["kustomize", &path])?;
        let ports = [self.port, self.service_port].map(|port| format!("port: {port}\n"));
        let [port, service] = ports.each_ref().map(String::as_str);
        for (from, to) in [("port: 80\n", port), ("port: 8080\n", service)].iter().chain(replacements) {
            ensure!(text.contains(from), "{folder} has no {from:?}");
            text = text.replace(from, to);
        }
        text = text.replace("registry.example.com", &self.registry.address().to_string());
        Ok(self.cluster.apply(&text)?)
    }

    /// The namespace and the labels in the network policy must be those of the Deployment that Envoy Gateway has
    /// created.
    fn the_network_policy_selects_the_gateway(&self) -> Result<()> {
        let policy = self.cluster.get("networkpolicy", "shop", "only-through-the-gateway")?;
        let labels =
            |pointer: &str| policy.pointer(pointer).and_then(Value::as_object).cloned().context(pointer.to_owned());
        let namespace = labels("/spec/ingress/0/from/0/namespaceSelector/matchLabels")?;
        let pods = labels("/spec/ingress/0/from/0/podSelector/matchLabels")?;
        let owner = "gateway.envoyproxy.io/owning-gateway-name=shop";
        let deployment = self.cluster.list("deployment", owner)?.into_iter().next().context("no Deployment")?;
        let template = deployment.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
        let template = template.context("its Pods have no labels")?;
        ensure!(pods.iter().all(|(name, value)| template.get(name) == Some(value)), "{pods:?} are not in {template:?}");
        let place = deployment.pointer("/metadata/namespace").and_then(Value::as_str).context("no namespace")?;
        let place = self.cluster.get("namespace", "default", place)?;
        let place = place.pointer("/metadata/labels").and_then(Value::as_object).context("it has no labels")?;
        ensure!(namespace.iter().all(|(name, value)| place.get(name) == Some(value)), "{namespace:?}, not {place:?}");

        // The same check with the script for operators, with Pods as a cluster would create them.
        let (whole, said) = self.cluster.check_selectors("envoy-configs/gateway/image")?;
        ensure!(!whole && said.contains("MISSING"), "there are no Pods: {said}");
        self.cluster.pod("envoy-gateway-system", "envoy-1", &json!(template))?;
        self.cluster.pod("shop", "shop-1", &json!({"app.kubernetes.io/part-of": "shop"}))?;
        let (whole, said) = self.cluster.check_selectors("envoy-configs/gateway/image")?;
        ensure!(whole, "{said}");
        eprintln!("{said}");
        Ok(())
    }

    /// A Gateway alone, with additional fields in its specification.
    fn gateway_without_manifests(&self, more: &Value) -> Result<()> {
        let mut gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {"gatewayClassName": "eg", "listeners": [{"name": "http", "protocol": "HTTP", "port": self.port}]},
        });
        if let (Some(spec), Some(more)) =
            (gateway.pointer_mut("/spec").and_then(Value::as_object_mut), more.as_object())
        {
            spec.extend(more.clone());
        }
        Ok(self.cluster.apply(&gateway.to_string())?)
    }

    fn apply_text(&self, manifests: &str) -> Result<()> {
        self.cluster.apply(manifests).map_err(|said| anyhow!("{said}\n{manifests}"))?;
        Ok(())
    }

    /// The output of `penstock render` for [`RENDERED_POLICY`] and the Gateway.
    fn rendered(&self, arguments: &[&str]) -> Result<String> {
        let policy = self.cluster.folder().join("policy.yaml");
        fs::write(&policy, RENDERED_POLICY)?;
        let service = |route: &str, name: &str| format!("--service={route}={name}:{}", self.service_port);
        let services = [
            service("stable", "shop-stable"),
            service("beta", "shop-beta"),
            service("v1", "reviews-v1"),
            service("v2", "reviews-v2"),
        ];
        let policy = policy.display().to_string();
        let mut all = vec!["render", policy.as_str(), "--for", "envoy-gateway", "--namespace", "shop"];
        all.extend(["--gateway", "shop", "--host", "shop.example.com"]);
        all.extend(arguments);
        all.extend(services.iter().map(String::as_str));
        penstock(&all)
    }

    fn does_what_the_rendered_policy_says(&self) -> Result<()> {
        self.expect("the default route", &shop("/"), "shop-stable")?;
        self.expect("the beta route", &shop("/").header("x-user-group", "beta"), "shop-beta")?;
        self.expect("the canary", &shop("/reviews"), "reviews-v2")?;
        let limited = shop("/limited").header("x-user", "a");
        let answers = [self.ask(&limited)?.status, self.ask(&limited)?.status];
        ensure!(answers == [200, 429], "{answers:?}");
        let forged = self.ask(&shop("/").header("x-penstock-route", "beta"))?;
        ensure!(is_from("shop-stable", &forged), "a client chose its route: {forged:?}");
        Ok(())
    }

    fn ask(&self, request: &HttpRequest) -> Result<HttpResponse> {
        http::send(Protocol::Http1, ([127, 0, 0, 1], self.port).into(), request)
    }

    fn expect(&self, what: &str, request: &HttpRequest, upstream: &str) -> Result<()> {
        eventually(what, || {
            let response = self.ask(request)?;
            ensure!(is_from(upstream, &response), "{response:?}");
            Ok(())
        })
    }

    /// The conditions in the status of the policy: type, status and message of each.
    fn conditions(&self) -> Result<String> {
        let policy = self.cluster.get("envoyextensionpolicy", "shop", "penstock")?;
        let conditions = policy.pointer("/status/ancestors/0/conditions").and_then(Value::as_array).cloned();
        let text =
            |condition: &Value, name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let lines = conditions.unwrap_or_default();
        Ok(lines
            .iter()
            .map(|it| ["type", "status", "message"].map(|name| text(it, name)).join(" "))
            .collect::<Vec<_>>()
            .join("\n"))
    }

    fn wait_for_condition(&self, words: &str) -> Result<()> {
        eventually(words, || {
            let conditions = self.conditions()?;
            ensure!(conditions.contains(words), "{conditions}");
            Ok(())
        })
    }
}

/// Applies the shipped log format and stats tags to all Gateways.
fn observe(cluster: &Cluster) -> Result<()> {
    let path = workspace::root().join("envoy-configs/gateway/observability").display().to_string();
    let text = cluster.kubectl(["kustomize", &path])?;
    let (from, to) = ("\nspec:\n", "\nspec:\n  routingType: Service\n");
    ensure!(text.contains(from), "{text}");
    cluster.apply(&text.replace(from, to))?;
    let class = r#"{"spec": {"parametersRef": {"name": "penstock"}}}"#;
    cluster.kubectl(["patch", "gatewayclass", "eg", "--type=merge", "--patch", class]).map(drop)
}

fn push(registry: &Registry, module: &str, name: &str) -> Result<()> {
    let to = format!("{}/penstock/{name}", registry.address());
    let output = with_hosts(&hosts(registry.folder())?, &workspace::dist().join("penstock"))
        .args(["image", "push", module, &to])
        .env("DOCKER_CONFIG", registry.docker_config()?)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn is_from(upstream: &str, response: &HttpResponse) -> bool {
    response.header("x-upstream").as_deref() == Some(upstream)
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn envoy_gateway_runs_the_suite_from_a_registry_and_survives_what_operators_do() -> Result<()> {
    let site = Site::start()?;
    let told = ("    config:\n", "    config:\n      settings: {filterState: true}\n");
    site.apply("image", &[told])?;
    site.wait_for_condition("Accepted True")?;
    let mut proxy = site.gateway.proxy(&site.cluster, "shop", "shop", site.port)?;

    eprintln!("- from an image: routes, canary, limit");
    let beta = |header: &str| shop("/").header(header, "beta");
    site.expect("the stable route", &shop("/"), "shop-stable")?;
    site.expect("the beta route", &beta("x-user-group"), "shop-beta")?;
    ensure!(is_from("shop-stable", &site.ask(&beta("x-penstock-route"))?), "a client chose its route");
    shop_splits_and_limits(|request| site.ask(request))?;
    // A host without a route never reaches the filter, because a filter is enabled by a route.
    ensure!(site.ask(&shop("/").at("other.example.com"))?.status == 404);

    eprintln!("- counters have labels");
    eventually("counters", || {
        let page = proxy.admin().get("/stats/prometheus?filter=penstock")?;
        let limit = page
            .lines()
            .find(|line| line.starts_with("penstock_requests_total{") && line.contains("section=\"rateLimits\""))
            .context("no limit")?;
        ensure!(limit.contains("rule=\"per-user\"") && limit.contains("outcome="), "{limit}");
        Ok(())
    })?;

    eprintln!("- the NetworkPolicy selects the Pods that Envoy Gateway deploys");
    site.the_network_policy_selects_the_gateway()?;

    eprintln!("- a mistake in the policy leaves the old one serving");
    site.apply("image", &[("name: x-user-group", "nmae: x-user-group")])?;
    proxy.wait_for_log("configuration refused: routes.rules[0].matches[0].headers[0]")?;
    site.expect("the beta route", &beta("x-user-group"), "shop-beta")?;
    // As documented in docs/envoy-gateway.md.
    ensure!(site.conditions()?.contains("Accepted True Policy has been accepted."), "{}", site.conditions()?);
    let why = "message Error adding/updating listener(s) shop/shop/http: Unable to create Wasm plugin penstock";
    eventually("Envoy Gateway's word of it", || {
        let log = site.gateway.log();
        ensure!(log.contains("Envoy rejected the last update") && log.contains(why), "{log}");
        Ok(())
    })?;
    ensure!(proxy.admin().stat("listener_manager.lds.update_rejected")? > 0, "Envoy does not count it");

    eprintln!("- a new policy and a new module under 200 requests a second lose none that clients do not send again");
    // The manifest's limit is for manual use.
    let roomy = ("requests: 100", "requests: 1000000");
    site.apply("image", &[roomy, ("x-user-group", "x-first")])?;
    site.expect("the policy", &beta("x-first"), "shop-beta")?;
    push(&site.registry, &another_suite(site.cluster.folder())?, "suite:0.2.0")?;
    let started = Instant::now();
    let traffic = Traffic::start(4, ([127, 0, 0, 1], site.port).into(), &shop("/"), |response| {
        ensure!(response.status == 200, "{response:?}");
        Ok(())
    });
    site.apply("image", &[roomy, ("x-user-group", "x-second")])?;
    site.expect("the new policy", &beta("x-second"), "shop-beta")?;
    traffic.wait_for(200)?;
    site.apply("image", &[roomy, ("x-user-group", "x-third"), ("suite:0.1.0", "suite:0.2.0")])?;
    site.expect("the new module", &beta("x-third"), "shop-beta")?;
    traffic.wait_for(200)?;
    site.apply("image", &[roomy])?;
    site.expect("the old module", &beta("x-user-group"), "shop-beta")?;
    traffic.wait_for(200)?;
    let mut tally = traffic.stop()?;
    // Envoy Gateway puts filters into listeners, and a changed listener drains: HTTP/2 connections get GOAWAY, and
    // requests that arrive afterwards are not processed. Ordinary clients repeat them on a new connection; this client
    // does not.
    let before = tally.failures.len();
    tally.failures.retain(|failure| !failure.ends_with("the connection ended: NO_ERROR "));
    let told = before - tally.failures.len();
    let (took, failed) = (started.elapsed(), tally.failures.len());
    eprintln!("  {} requests in {took:?}, {failed} failed, {told} connections told to go away", tally.good);
    ensure!(tally.failures.is_empty() && tally.good >= 500, "{tally:?}");

    eprintln!("- the access log says what decided");
    eventually("a line", || {
        let lines = proxy.access_log();
        let line = lines.iter().find(|line| line["penstockRoute"] == "beta").context("none about beta")?;
        ensure!(line["penstockRule"] == "routes/beta-users" && line["status"] == 200, "{line}");
        let line = lines.iter().find(|line| line["status"] == 429).context("none of a limit")?;
        ensure!(line["details"] == "penstock_rateLimits_limited", "{line}");
        Ok(())
    })?;

    decisions::reach_the_dash(&site, &proxy)?;

    eprintln!("- from a registry that wants tokens");
    let tokens = Tokens::start()?;
    let closed = Registry::start(&tokens.access())?;
    push(&closed, &another_suite(site.cluster.folder())?, "suite:0.4.0")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "registry", "namespace": "shop"},
        "stringData": {".dockerconfigjson": closed.docker_config_json().to_string()},
    });
    site.cluster.apply(&secret.to_string())?;
    let url =
        format!("url: {}/penstock/suite:0.4.0\n        pullSecretRef:\n          name: registry", closed.address());
    site.apply("image", &[("url: registry.example.com/penstock/suite:0.1.0", &url), ("x-user-group", "x-token")])?;
    site.expect("the policy", &beta("x-token"), "shop-beta")?;

    eprintln!("- from an HTTP server, by digest");
    let artifact = site.registry.manifest("penstock/suite", "0.1.0-artifact")?;
    let digest = artifact.pointer("/layers/0/digest").and_then(Value::as_str).context("no layer")?;
    let url = format!("http://{}/v2/penstock/suite/blobs/{digest}", site.registry.address());
    let zeros = "0".repeat(64);
    let from_http = |digest: &str| {
        site.apply(
            "http",
            &[("x-user-group", "x-http"), ("https://modules.example.com/suite.wasm", &url), (&zeros, digest)],
        )
    };
    let digest = digest.trim_start_matches("sha256:");
    from_http(digest)?;
    site.expect("the policy", &beta("x-http"), "shop-beta")?;

    eprintln!("- a module that cannot be had fails closed and shows in the status");
    let wrong = digest.replace(|c: char| c.is_ascii_digit(), "0");
    from_http(&wrong)?;
    site.wait_for_condition("Accepted False")?;
    eprintln!("  {}", site.conditions()?);
    eventually("a refusal", || {
        let response = site.ask(&shop("/"))?;
        ensure!(response.status == 500, "{response:?}");
        Ok(())
    })?;
    site.apply("image", &[("suite:0.1.0", "suite:9.9.9")])?;
    site.wait_for_condition("MANIFEST_UNKNOWN")?;
    eprintln!("  {}", site.conditions()?);
    ensure!(site.ask(&shop("/"))?.status == 500, "not refused");

    eprintln!("- a registry that is down: what was fetched keeps serving, also after a change of the policy");
    site.apply("image", &[])?;
    site.expect("the beta route", &beta("x-user-group"), "shop-beta")?;
    let mut site = site;
    site.registry.down();
    site.apply("image", &[("x-user-group", "x-offline")])?;
    site.expect("the new policy", &beta("x-offline"), "shop-beta")?;
    site.apply("image", &[("suite:0.1.0", "suite:0.3.0")])?;
    site.wait_for_condition("Accepted False")?;
    eprintln!("  {}", site.conditions()?);
    Ok(())
}

/// The suite with different bytes: a custom section that is ignored.
fn another_suite(folder: &Path) -> Result<String> {
    let mut module = fs::read(workspace::module("suite")?)?;
    module.extend(b"\0\x08\x07rebuilt");
    let path = folder.join("suite.wasm");
    fs::write(&path, module)?;
    Ok(path.display().to_string())
}

/// Verifies the signer's tokens at the Gateway if a request has one, and writes these claims into headers.
fn security_policy(signer: &TokenSigner, claims: Option<Value>) -> Value {
    let mut provider = json!({
        "name": "example", "issuer": TokenSigner::ISSUER,
        "localJWKS": {"type": "Inline", "inline": signer.jwks().to_string()},
    });
    if let (Some(claims), Some(fields)) = (claims, provider.as_object_mut()) {
        fields.insert("claimToHeaders".to_owned(), claims);
    }
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "tokens", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "shop"}],
            "jwt": {"optional": true, "providers": [provider]},
        },
    })
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn rules_and_limits_go_by_the_claims_of_a_security_policy() -> Result<()> {
    let site = Site::start()?;
    let signer = TokenSigner::new()?;
    let security = security_policy(&signer, None);
    site.apply(
        "image",
        &[
            ("    config:\n", "    config:\n      settings: {claims: {path: [example]}}\n"),
            ("- headers:\n            - name: x-user-group", "- claims:\n            - name: groups"),
            ("- header: x-user-id", "- claim: sub"),
        ],
    )?;
    site.cluster.apply(&security.to_string())?;
    site.wait_for_condition("Accepted True")?;
    let _proxy = site.gateway.proxy(&site.cluster, "shop", "shop", site.port)?;
    let bearer = |claims: Value| signer.bearer(&claims);
    let with = |token: String| shop("/").header("authorization", token);
    site.expect("the beta route", &with(bearer(json!({"groups": ["dev", "beta"]}))?), "shop-beta")?;
    site.expect("the stable route", &with(bearer(json!({"groups": ["dev"]}))?), "shop-stable")?;
    let forged = shop("/").header("groups", "beta").header("x-user-group", "beta");
    site.expect("the stable route without a token", &forged, "shop-stable")?;
    ensure!(site.ask(&with(TokenSigner::new()?.bearer(&json!({"groups": "beta"}))?))?.status == 401, "another's token");
    let greedy = with(bearer(json!({"sub": "greedy"}))?);
    let refused = (0..130).map(|_| site.ask(&greedy)).find(|answer| !answer.as_ref().is_ok_and(|it| it.status == 200));
    ensure!(matches!(&refused, Some(Ok(response)) if response.status == 429), "no limit: {refused:?}");
    let other = site.ask(&with(bearer(json!({"sub": "other"}))?))?;
    ensure!(other.status == 200, "one user's limit is another's: {other:?}");
    Ok(())
}

/// An HTTPRoute with weights, a rewrite and a header, for its own host.
const THEIRS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs, namespace: shop}
spec:
  parentRefs: [{name: shop}]
  hostnames: [theirs.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /cart}}]
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-team, value: cart}]}
    backendRefs:
    - {name: reviews-v1, port: 8080, weight: 3}
    - {name: reviews-v2, port: 8080, weight: 1}
  - backendRefs: [{name: shop-stable, port: 8080}]
";

/// The output of `penstock`.
fn penstock(arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new(workspace::dist().join("penstock")).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn an_http_route_with_weights_rewrite_and_header_is_imported_explained_and_served_alike() -> Result<()> {
    let site = Site::start()?;
    site.apply("image", &[])?;
    let theirs = THEIRS.replace("port: 8080", &format!("port: {}", site.service_port));
    site.cluster.apply(&theirs)?;

    eprintln!("- imported, for another host");
    let (route, policy) = (site.cluster.folder().join("theirs.yaml"), site.cluster.folder().join("policy.yaml"));
    fs::write(&route, theirs.replace("theirs.example.com", "ours.example.com"))?;
    let [route, policy] = [&route, &policy].map(|path| path.display().to_string());
    fs::write(&policy, penstock(&["import", &route])?)?;
    penstock(&["check", &policy])?;
    let node =
        penstock::yaml::Located::read(fs::read_to_string(&policy)?.as_str()).map_err(|error| anyhow!("{error}"))?.node;
    let extension = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy",
        "metadata": {"name": "penstock", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "shop"}],
            "wasm": [{
                "name": "penstock", "failOpen": false, "config": penstock::yaml_text::value(&node),
                "code": {"type": "Image", "image": {"url": format!("{}/penstock/suite:0.1.0", site.registry.address())}},
            }],
        },
    });
    let by_header = |name: &str| {
        json!({
            "matches": [{"headers": [{"name": "x-penstock-route", "value": name}]}],
            "backendRefs": [{"name": name, "port": site.service_port}],
        })
    };
    let rest = json!({"backendRefs": [{"name": "shop-stable", "port": site.service_port}]});
    let ours = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "ours", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": "shop"}], "hostnames": ["ours.example.com"],
            "rules": [by_header("reviews-v1"), by_header("reviews-v2"), rest],
        },
    });
    for object in [extension, ours] {
        site.cluster.apply(&object.to_string())?;
    }
    site.wait_for_condition("Accepted True")?;
    let _proxy = site.gateway.proxy(&site.cluster, "shop", "shop", site.port)?;

    eprintln!("- explained");
    let explained = penstock(&["explain", &policy, "--url", "http://ours.example.com/cart/x?y=1", "--output", "json"])?;
    let decision = serde_json::from_str::<Value>(&explained)?;
    let decision = decision.get("decision").context("no decision")?;
    let set = decision.pointer("/headers/set").and_then(Value::as_array).cloned().unwrap_or_default();
    ensure!(set.contains(&json!([":path", "/v2/x?y=1"])) && set.contains(&json!(["x-team", "cart"])), "{decision}");
    ensure!(decision.get("variant").is_some() && decision.get("rule").is_some(), "{decision}");

    eprintln!("- served");
    let saw = |response: &HttpResponse, name: &str| response.header(name).unwrap_or_default();
    for host in ["theirs.example.com", "ours.example.com"] {
        let cart = HttpRequest::get("/cart/x?y=1").at(host);
        eventually("the rewritten path", || {
            let response = site.ask(&cart)?;
            ensure!(saw(&response, "x-saw-path") == "/v2/x?y=1", "{host}: {response:?}");
            Ok(())
        })?;
        let mut first = 0;
        for _ in 0..200 {
            let response = site.ask(&cart)?;
            let alike = (saw(&response, "x-saw-path"), saw(&response, "x-saw-team"));
            ensure!(alike == ("/v2/x?y=1".to_owned(), "cart".to_owned()), "{host}: {response:?}");
            match saw(&response, "x-upstream").as_str() {
                "reviews-v1" => first += 1,
                other => ensure!(other == "reviews-v2", "{host} went to {other:?}"),
            }
        }
        eprintln!("  {host}: {first} of 200 to the one with weight 3 of 4");
        ensure!((110..190).contains(&first), "{host}: {first} of 200");
        let other = site.ask(&HttpRequest::get("/cartoon?z").at(host))?;
        let alike = (saw(&other, "x-upstream"), saw(&other, "x-saw-path"), saw(&other, "x-saw-team"));
        ensure!(alike == ("shop-stable".to_owned(), "/cartoon?z".to_owned(), String::new()), "{host}: {other:?}");
    }
    Ok(())
}
