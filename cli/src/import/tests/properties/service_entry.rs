//! <https://istio.io/latest/docs/reference/config/networking/service-entry/> with `REGISTRY_ONLY`: requests may only go
//! to a host and port of an entry that is visible to the caller's namespace.

use super::*;

const ENTRY_HOSTS: [&str; 4] = ["a.example.com", "*.example.com", "b.test", "*.sub.test"];
const ASKED: [&str; 5] = ["a.example.com", "x.y.example.com", "b.test", "c.sub.test", "example.com"];
const PORTS: [(u16, &str); 4] = [(443, "TLS"), (80, "HTTP"), (8443, "HTTPS"), (5432, "TCP")];
const VISIBLE: [&[&str]; 5] = [&[], &["*"], &["."], &["team-a"], &["~"]];

#[derive(Clone, Debug)]
struct Entry {
    hosts: Vec<&'static str>,
    ports: Vec<(u16, &'static str)>,
    is_inside: bool,
    visible: &'static [&'static str],
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (
        prop::sample::subsequence(&ENTRY_HOSTS[..], 1..3),
        prop::sample::subsequence(&PORTS[..], 1..4),
        prop::bool::weighted(0.2),
        prop::sample::select(&VISIBLE[..]),
    );
    let entry = entry.prop_map(|(hosts, ports, is_inside, visible)| Entry { hosts, ports, is_inside, visible });
    prop::collection::vec(entry, 1..4)
}

fn json_of(i: usize, entry: &Entry) -> Value {
    let ports: Vec<Value> = entry
        .ports
        .iter()
        .map(|(number, protocol)| json!({"number": number, "name": format!("p{number}"), "protocol": protocol}))
        .collect();
    let mut spec = json!({"hosts": entry.hosts, "ports": ports, "location": if entry.is_inside { "MESH_INTERNAL" } else { "MESH_EXTERNAL" }, "resolution": "DNS"});
    if !entry.visible.is_empty() {
        spec["exportTo"] = json!(entry.visible);
    }
    json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": format!("e{i}"), "namespace": "outside"}, "spec": spec})
}

/// The imports of a Sidecar in team-a: none, or entries of some namespaces and names.
const IMPORTS: [&[&str]; 5] =
    [&[], &["*/*"], &["./*", "istio-system/*"], &["outside/a.example.com"], &["outside/*.example.com"]];

/// Whether the workloads of the Sidecar see a host of an entry.
fn imports(list: &[&str], pattern: &str) -> bool {
    let one = |import: &&str| match import.split_once('/') {
        Some(("*" | "outside", "*")) => true,
        Some(("*" | "outside", name)) => {
            name == pattern || name.strip_prefix('*').is_some_and(|below| pattern.ends_with(below))
        }
        _ => false,
    };
    list.is_empty() || list.iter().any(one)
}

fn allows(entries: &[Entry], sidecar: &[&str], namespace: &str, host: &str, port: u16) -> bool {
    entries.iter().any(|entry| {
        let sees = entry.visible.is_empty()
            || entry.visible.iter().any(|visible| match *visible {
                "*" => true,
                "." => namespace == "outside",
                other => other == namespace,
            });
        let is_port = entry.ports.iter().any(|(number, protocol)| *number == port && *protocol != "TCP");
        sees && is_port
            && !entry.is_inside
            && entry.hosts.iter().any(|pattern| {
                closeness(pattern, host).is_some() && (namespace != "team-a" || imports(sidecar, pattern))
            })
    })
}

proptest! {
    #[test]
    fn service_entries_let_out_what_the_mesh_lets_out(entries in entries(), sidecar in prop::sample::select(&IMPORTS[..]), mode in prop::sample::select(&["REGISTRY_ONLY", "REGISTRY_ONLY", "ALLOW_ANY"][..])) {
        let mesh = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": format!("outboundTrafficPolicy:\n  mode: {mode}\n")}});
        let egress = if sidecar.is_empty() { json!({}) } else { json!({"egress": [{"hosts": sidecar}]}) };
        let sidecar_object = json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "s", "namespace": "team-a"}, "spec": egress});
        let objects: Vec<Value> = [mesh, sidecar_object].into_iter().chain(entries.iter().enumerate().map(|(i, entry)| json_of(i, entry))).collect();
        let (node, policy, _, text) = policy_of(&objects);
        if mode != "REGISTRY_ONLY" {
            prop_assert!(node.get("egress").is_none_or(|egress| egress.get("rules").is_none_or(|rules| *rules == Node::List(Vec::new()))), "{text}");
            return Ok(());
        }
        for host in ASKED {
            for port in [80, 443, 8443, 5432] {
                for namespace in ["outside", "team-a", "team-b"] {
                    let json = json!({"method": "GET", "scheme": "https", "authority": format!("{host}:{port}"), "path": "/",
                        "peer": format!("spiffe://cluster.local/ns/{namespace}/sa/web")});
                    let request: WireRequest = serde_json::from_value(json).unwrap();
                    let is_allowed = request.decide(&policy, &mut World::new(Timestamp(0), 0)).status.is_none();
                    // Without `egress` the policy decides nothing; the mesh itself still refuses.
                    let is_allowed = is_allowed && node.get("egress").is_some();
                    let expected = allows(&entries, sidecar, namespace, host, port);
                    // A policy cannot distinguish the workloads of a Sidecar from others, so it restricts all of them.
                    let is_exact = sidecar.is_empty() || sidecar[0] == "*/*";
                    prop_assert!(if is_exact { is_allowed == expected } else { expected || !is_allowed }, "{namespace} {host}:{port} {is_allowed} {expected}\n{text}");
                }
            }
        }
    }
}
