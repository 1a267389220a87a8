//! Renders a bootstrap for plain Envoy with a listener for inbound and one for outbound requests.

use std::net::IpAddr;

use penstock_policy::IdentitySource;
use penstock_policy::document::Node;

use super::args::RenderTarget;
use super::names::free;
use super::plan::Plan;
use super::service::RouteService;
use super::text::indented;
use crate::manifests::copied_metadata;
use crate::yaml_text::{json, scalar};

/// The address for inbound requests.
pub const INGRESS_PORT: u16 = 10000;
/// The address for outbound requests.
pub const EGRESS_PORT: u16 = 15443;

/// The whole configuration.
pub fn bootstrap(plan: &Plan<'_>) -> String {
    let mut text = head(plan.args.native);
    let mut clusters = String::new();
    if let Some(policy) = &plan.ingress {
        text += &ingress(plan, policy);
        let mut known: Vec<String> = Vec::new();
        for service in plan.routes.iter().chain(&plan.catch_all) {
            let cluster = cluster_name(service);
            if !known.contains(&cluster) {
                clusters += &self::cluster(service, &cluster);
                known.push(cluster);
            }
        }
    }
    if let Some(policy) = &plan.egress {
        text += &egress(plan, policy);
        clusters += &EGRESS_CLUSTER.replace("penstock-outside", &egress_cluster(plan));
        clusters += if plan.default_port == 443 { EGRESS_TLS } else { "" };
    }
    format!("{text}\n  clusters:\n{clusters}")
}

const HEAD: &str = r#"# Made by `penstock render --for envoy`. Written for Envoy 1.40.
#
# A changed policy here needs a restart; with ECDS (envoy-configs/ecds.yaml) it takes effect without one.

admin:
  # Whoever reaches this page controls the proxy: loopback only.
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}

# Makes labels of the pairs in the names of the module's metrics, penstock.<metric>.<label>.<value>….
stats_config:
  stats_tags:
  - {tag_name: section, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.section\.([^.]+))'}
  - {tag_name: rule, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.rule\.([^.]+))'}
  - {tag_name: variant, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.variant\.([^.]+))'}
  - {tag_name: outcome, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.outcome\.([^.]+))'}
  - {tag_name: reason, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.reason\.([^.]+))'}
  - {tag_name: operation, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.operation\.([^.]+))'}
  - {tag_name: plugin, regex: '^wasmcustom\.penstock\.[^.]+(?:\.[^.]+\.[^.]+)*?(\.plugin\.([^.]+))'}

# Without a limit, clients can open connections until the memory is used up.
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 50000

static_resources:
  listeners:
"#;

/// The start of the bootstrap. Metrics of the native body have labels themselves, but need a flag for the rest of their
/// names.
fn head(native: bool) -> String {
    if !native {
        return HEAD.to_owned();
    }
    let (before, tags_and_after) = HEAD.split_once("# Makes labels").unwrap_or((HEAD, ""));
    let after = tags_and_after.split_once("\n\n").map_or("", |(_, after)| after);
    format!("{}{NATIVE_RUNTIME}{after}", before.replace("--for envoy`", "--for envoy --native`"))
}

const NATIVE_RUNTIME: &str = "\
# The names of metrics in /stats/prometheus are those of the wasm modules then: penstock_requests_total{section=\"…\"}.
layered_runtime:
  layers:
  - name: static
    static_layer:
      envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix: true

";

/// Fields that both connection managers have.
const COMMON: &str = "\
\x20         # An upstream may take x_user_group for x-user-group; the policy does not.
          common_http_protocol_options:
            headers_with_underscores_action: REJECT_REQUEST
            idle_timeout: 3600s
          request_headers_timeout: 10s
          stream_idle_timeout: 300s
          http2_protocol_options:
            max_concurrent_streams: 100
            initial_stream_window_size: 65536
            initial_connection_window_size: 1048576
";

const ROUTER: &str = "          # The router comes last.
          - name: envoy.filters.http.router
            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
";

/// The native body with the policy.
fn native_filter(plan: &Plan<'_>, suffix: &str, module: &str, policy: &Node) -> String {
    let name = format!("{}{suffix}", plan.args.name);
    let copy = metadata_copy(&name, policy);
    format!(
        r#"{copy}          - name: {}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
              dynamic_module_config:
                # A local file: one that is fetched leaves the filter out until it is there, unless `nack_on_cache_miss` is set.
                module: {{local: {{filename: /etc/penstock/libpenstock.so}}}}
                # Metrics have the names of the wasm modules' then, and the same labels.
                metrics_namespace: wasmcustom
              # The module, and the plugin's name: two plugins of one name share their metrics and limits.
              filter_name: {}
              # The policy: JSON text in a StringValue.
              filter_config:
                "@type": type.googleapis.com/google.protobuf.StringValue
                value: |
{}"#,
        scalar(&name),
        scalar(&format!("{module}/{name}")),
        indented(&json(policy), 18),
    )
}

/// The filter that shows claims and metadata to the native body, if the policy goes by any.
fn metadata_copy(name: &str, policy: &Node) -> String {
    let namespaces = copied_metadata::namespaces(policy);
    if namespaces.is_empty() {
        return String::new();
    }
    let values: String = namespaces
        .iter()
        .map(|namespace| {
            format!(
                "              - object_key: {}\n                factory_key: envoy.string\n                format_string: \
                 {{text_format_source: {{inline_string: {}}}}}\n",
                scalar(&copied_metadata::state_key(namespace)),
                scalar(&copied_metadata::format_string(namespace))
            )
        })
        .collect();
    format!(
        r#"          # Shows claims and metadata to the native body. The filters that write them, such as jwt_authn, come before this one.
          - name: {}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
              on_request_headers:
{values}"#,
        scalar(&format!("{name}-metadata")),
    )
}

/// The filter with the policy.
fn filter(plan: &Plan<'_>, suffix: &str, module: &str, failure_policy: &str, policy: &Node) -> String {
    if plan.args.native {
        return native_filter(plan, suffix, module, policy);
    }
    let file = match plan.args.target {
        // An image that is mounted.
        RenderTarget::Kustomize => format!("/etc/penstock/{module}/plugin.wasm"),
        _ => format!("/etc/penstock/{module}.wasm"),
    };
    format!(
        r#"          - name: {name}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                # Two plugins of one name share their metrics.
                name: {name}
                # While the module is down requests get 503. Never FAIL_OPEN: that lets requests pass unfiltered.
                failure_policy: {failure_policy}
                vm_config:
                  # Plugins with one vm_id and one module share a VM on each worker, and all its shared data.
                  vm_id: penstock
                  runtime: envoy.wasm.runtime.v8
                  code: {{local: {{filename: {file}}}}}
                # The policy: JSON text in a StringValue. (A google.protobuf.Struct would reach the module as protobuf
                # bytes, and be refused.)
                configuration:
                  "@type": type.googleapis.com/google.protobuf.StringValue
                  value: |
{}"#,
        indented(&json(policy), 20),
        name = scalar(&format!("{}{suffix}", plan.args.name)),
    )
}

fn ingress(plan: &Plan<'_>, policy: &Node) -> String {
    let mut routes = String::new();
    for service in &plan.routes {
        routes += &format!(
            "              - match: {{prefix: /, headers: [{{name: {}, string_match: {{exact: {}}}}}]}}\n                \
             route: {{cluster: {}}}\n",
            scalar(&plan.header),
            scalar(&service.route),
            scalar(&cluster_name(service)),
        );
    }
    let hosts: Vec<String> = plan.hosts.iter().map(|host| scalar(host)).collect();
    let hosts = if hosts.is_empty() { "\"*\"".to_owned() } else { hosts.join(", ") };
    format!(
        r#"  # Where requests come in.
  - name: ingress
    address: {{socket_address: {{address: 0.0.0.0, port_value: {INGRESS_PORT}}}}}
    per_connection_buffer_limit_bytes: 32768
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          codec_type: AUTO
          # This Envoy is the edge: x-envoy-… and x-forwarded-for of clients are not trusted.
          use_remote_address: true
          # One form of a path for the policy, for Envoy's routes and for the upstream.
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
{COMMON}          http_filters:
{filter}{ROUTER}          # One route for each that the policy names. The header comes from the filter alone: one that a client sends is removed.
          route_config:
            name: ingress
            virtual_hosts:
            - name: all
              domains: [{hosts}]
              routes:
{routes}              # Requests for which the policy names no route.
              - match: {{prefix: /}}
                route: {{cluster: {catch_all}}}
"#,
        filter = filter(plan, "", "suite", "FAIL_RELOAD", policy),
        catch_all = scalar(&plan.catch_all.as_ref().map(cluster_name).unwrap_or_default()),
    )
}

fn egress(plan: &Plan<'_>, policy: &Node) -> String {
    let document = plan.documents.egress.as_ref();
    let by_certificate = document.is_some_and(|egress| {
        let identity = plan.documents.settings.identity.as_ref().or(egress.identity.as_ref());
        identity.is_none_or(|identity| *identity == IdentitySource::PeerCertificate)
            && egress.rules.0.iter().any(|rule| rule.from.is_some())
    });
    let tls = match by_certificate {
        false => "",
        true => {
            r#"      # Rules with `from` need the caller's certificate.
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {filename: /etc/penstock/tls/gateway.crt}
              private_key: {filename: /etc/penstock/tls/gateway.key}
            validation_context: {trusted_ca: {filename: /etc/penstock/tls/ca.crt}}
"#
        }
    };
    format!(
        r#"  # Where requests that leave arrive.
  - name: egress
    address: {{socket_address: {{address: 0.0.0.0, port_value: {EGRESS_PORT}}}}}
    per_connection_buffer_limit_bytes: 32768
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: egress
          codec_type: AUTO
          # Off: the module reads the path that the client wrote, and forwards the one that it matched.
          normalize_path: false
          merge_slashes: false
          path_with_escaped_slashes_action: KEEP_UNCHANGED
          # The port of the authority is part of what is matched.
          strip_any_host_port: false
{COMMON}          http_filters:
{filter}          # Nothing between the module and this may change authority, path or method.
          - name: envoy.filters.http.dynamic_forward_proxy
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
              dns_cache_config: &dns {{name: egress, dns_lookup_family: V4_PREFERRED, max_hosts: 1024}}
{ROUTER}          route_config:
            name: egress
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: {cluster}, timeout: 60s}}
{tls}"#,
        filter = filter(plan, "-egress", "egress-allowlist", "FAIL_CLOSED", policy),
        cluster = egress_cluster(plan),
    )
}

const EGRESS_CLUSTER: &str = r#"  # Where the request asks to go. An authority without a port: to 443 with TLS, else to 80, as the policy's `defaultPort`.
  - name: penstock-outside
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 5s
    per_connection_buffer_limit_bytes: 32768
    cluster_type:
      name: envoy.clusters.dynamic_forward_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
        dns_cache_config: *dns
"#;

const EGRESS_TLS: &str = r#"    # TLS, with the name checked against the upstream's certificate.
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          validation_context: {trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}}
"#;

/// The cluster of outbound requests, which no route's cluster is called.
fn egress_cluster(plan: &Plan<'_>) -> String {
    free("penstock-outside", |name| plan.routes.iter().any(|service| service.route == name))
}

/// The name of a service's cluster is that of its route.
fn cluster_name(service: &RouteService) -> String {
    service.route.clone()
}

fn cluster(service: &RouteService, name: &str) -> String {
    let kind = if service.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    format!(
        "  - name: {name}\n    type: {kind}\n    connect_timeout: 1s\n    per_connection_buffer_limit_bytes: 32768\n    load_assignment:\n      \
         cluster_name: {name}\n      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]\n",
        scalar(&service.host),
        service.port.unwrap_or(80),
        name = scalar(name),
    )
}
