//! Istio: VirtualServices with their DestinationRules, local rate limits in EnvoyFilters, and the destinations of
//! ServiceEntries.

mod conditions;
mod delegate;
mod destination_rule;
mod envoy_filter;
mod service_entry;
mod virtual_service;

pub use envoy_filter::envoy_filters;
pub use service_entry::{says_what_may_leave, service_entries};
pub use virtual_service::virtual_services;

/// A host in every form that clients may use: in the cluster, a service also has short names.
fn full_name(host: &str, namespace: &str) -> String {
    if host.contains('.') || host == "*" { host.to_owned() } else { format!("{host}.{namespace}.svc.cluster.local") }
}
