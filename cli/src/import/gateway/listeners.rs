//! Which hosts a route has: those of its own that its Gateway listens for.

use penstock_policy::document::Node;

use crate::import::objects::Objects;
use crate::import::reader::KubernetesObject;
use crate::import::report::ImportReport;
use crate::import::table::RuleHost;

pub const GROUP: &str = "gateway.networking.k8s.io";

/// A listener of a Gateway.
struct GatewayListener {
    gateway: String,
    namespace: String,
    name: String,
    port: String,
    protocol: String,
    host: Option<RuleHost>,
    /// `Same`, `All` or `Selector`.
    from: String,
}

/// The listeners of all Gateways here.
pub struct Listeners(Vec<GatewayListener>);

/// Where a route hangs.
pub struct Attached {
    /// How tags name the route.
    pub tag: String,
    /// Its Gateways, as tags name them.
    pub gateways: Vec<String>,
    /// Its hosts.
    pub hosts: Vec<RuleHost>,
    /// `http` or `https`, when all its listeners are known to be for one.
    pub protocol: Option<String>,
}

impl Listeners {
    /// Reads the Gateways.
    pub fn read(objects: &Objects<'_>, report: &mut ImportReport) -> Listeners {
        let mut found = Vec::new();
        for (file, node) in objects.of("Gateway", GROUP) {
            report.file.clone_from(file);
            let object = KubernetesObject::open(node, report);
            for listener in object.spec.objects("listeners", report) {
                let from =
                    listener.take("allowedRoutes").and_then(|routes| routes.get("namespaces")?.get("from").cloned());
                found.push(GatewayListener {
                    gateway: object.name.clone(),
                    namespace: object.in_namespace().to_owned(),
                    name: listener.string("name", report).unwrap_or_default(),
                    port: listener.string("port", report).unwrap_or_default(),
                    protocol: listener.string("protocol", report).unwrap_or_default().to_lowercase(),
                    host: Some(
                        listener
                            .string("hostname", report)
                            .and_then(|host| RuleHost::parse(&host))
                            .unwrap_or(RuleHost::Any),
                    ),
                    from: if let Some(Node::String(from)) = from { from } else { "Same".to_owned() },
                });
            }
        }
        Listeners(found)
    }

    /// Where a route hangs; `None`: nowhere, so that no request is its own.
    pub fn attach(&self, object: &KubernetesObject<'_>, report: &mut ImportReport) -> Option<Attached> {
        let spec = &object.spec;
        let parents = spec.objects("parentRefs", report);
        let names = spec.strings("hostnames", report);
        let mut own: Vec<RuleHost> = Vec::new();
        for name in &names {
            match RuleHost::parse(name) {
                Some(host) => own.push(host),
                None => {
                    report.lost("spec.hostnames", format!("{name:?} is no host name"), "its requests are left alone")
                }
            }
        }
        if own.is_empty() && names.is_empty() {
            own.push(RuleHost::Any);
        }
        let mut hosts: Vec<RuleHost> = Vec::new();
        let mut gateways = Vec::new();
        let mut protocols: Vec<Option<String>> = Vec::new();
        let mut add = |host: RuleHost| {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        };
        for parent in &parents {
            let name = parent.string("name", report).unwrap_or_default();
            let namespace = parent.string("namespace", report).unwrap_or_else(|| object.in_namespace().to_owned());
            let (section, port) = (parent.string("sectionName", report), parent.string("port", report));
            if parent.string("kind", report).as_deref() == Some("Service") {
                // In a mesh the route is for all requests to the service, by any of its names.
                let full = [
                    format!("{name}.{namespace}.svc.cluster.local"),
                    format!("{name}.{namespace}.svc"),
                    format!("{name}.{namespace}"),
                ];
                let short = (namespace == object.in_namespace()).then_some(name);
                full.into_iter().chain(short).filter_map(|name| RuleHost::parse(&name)).for_each(&mut add);
                protocols.push(None);
                continue;
            }
            gateways.push(format!("Gateway {namespace}/{name}"));
            let of_gateway: Vec<&GatewayListener> =
                self.0.iter().filter(|listener| listener.gateway == name && listener.namespace == namespace).collect();
            if of_gateway.is_empty() {
                own.iter().cloned().for_each(&mut add);
                protocols.push(None);
            }
            for listener in of_gateway {
                let wanted = section.as_ref().is_none_or(|section| *section == listener.name)
                    && port.as_ref().is_none_or(|port| *port == listener.port)
                    && ["http", "https"].contains(&listener.protocol.as_str())
                    && (listener.from != "Same" || listener.namespace == object.in_namespace());
                if !wanted {
                    continue;
                }
                for host in &own {
                    let both = listener.host.as_ref().and_then(|of| of.intersection(host));
                    if both.is_some() {
                        protocols.push(Some(listener.protocol.clone()));
                    }
                    both.into_iter().for_each(&mut add);
                }
            }
        }
        if parents.is_empty() {
            own.into_iter().for_each(&mut add);
            protocols.push(None);
        }
        if hosts.is_empty() {
            report.lost(
                "spec.parentRefs",
                "no listener of its Gateways takes its hosts",
                "nothing of it is in the policy",
            );
            return None;
        }
        let first = protocols.first().cloned().flatten();
        let protocol = first.filter(|first| protocols.iter().all(|other| other.as_ref() == Some(first)));
        Some(Attached { tag: object.tag(), gateways, hosts, protocol })
    }
}
