//! Determines the hosts of a route: those of its own hosts for which its Gateway has a listener.

use std::collections::HashSet;

use penstock_policy::document::Node;

use super::namespaces;
use crate::import::objects::Objects;
use crate::import::reader::KubernetesObject;
use crate::import::report::ImportReport;
use crate::import::table::RuleHost;

pub const GROUP: &str = "gateway.networking.k8s.io";

/// The group of ListenerSets before they became stable.
const EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";

/// The routes that a listener accepts.
enum AllowedNamespaces {
    /// Routes in its own namespace.
    Same,
    /// All routes.
    All,
    /// Routes in namespaces with these labels.
    Selector(Node),
    /// No routes.
    Nothing,
}

/// A listener of a Gateway, or of a ListenerSet.
struct GatewayListener {
    /// The object that contains it, as tags name it.
    owner: String,
    /// The Gateway that it belongs to, as tags name it.
    gateway: String,
    namespace: String,
    name: String,
    port: String,
    protocol: String,
    host: RuleHost,
    from: AllowedNamespaces,
    /// The kinds of routes that it accepts, if not all.
    kinds: Option<Vec<String>>,
}

impl GatewayListener {
    /// Whether clients reach both through the same address and port, so that the more specific host of the two takes
    /// its requests.
    fn is_beside(&self, other: &GatewayListener) -> bool {
        self.gateway == other.gateway && self.port == other.port && self.protocol == other.protocol
    }

    /// Whether clients can send a request for a host to both, and a policy cannot see which of them they have used.
    fn is_confusable(&self, other: &GatewayListener, host: &RuleHost) -> bool {
        self.gateway == other.gateway
            && self.protocol == other.protocol
            && self.port != other.port
            && other.host.intersection(host).is_some()
    }

    /// Whether another listener takes the requests for a host.
    fn yields(&self, all: &[GatewayListener], host: &RuleHost) -> bool {
        let closer = |other: &&GatewayListener| other.host != self.host && self.host.covers(&other.host);
        all.iter().filter(|other| other.is_beside(self)).filter(closer).any(|other| other.host.covers(host))
    }
}

/// The listeners of all Gateways in the input.
pub struct Listeners<'o> {
    all: Vec<GatewayListener>,
    /// The Gateways and ListenerSets, as tags name them.
    owners: Vec<String>,
    objects: &'o Objects<'o>,
}

/// The parents of a route.
pub struct Attached {
    /// The route, as tags name it.
    pub tag: String,
    /// Its Gateways, as tags name them.
    pub gateways: Vec<String>,
    /// Its hosts, each with `http` or `https` when all its listeners for that host are known to use only one.
    pub hosts: Vec<(RuleHost, Option<String>)>,
    /// Hosts for which it only gets the requests of some listeners, with their protocol, and why they are left out.
    pub omitted: Vec<(RuleHost, String, String)>,
}

impl<'o> Listeners<'o> {
    /// Reads the Gateways and ListenerSets.
    pub fn read(objects: &'o Objects<'o>, report: &mut ImportReport) -> Listeners<'o> {
        let (mut all, mut owners) = (Vec::new(), Vec::new());
        let gateways = objects.of("Gateway", GROUP);
        let sets = objects.of("ListenerSet", GROUP).into_iter().chain(objects.of("XListenerSet", EXPERIMENTAL));
        for (file, node) in gateways.into_iter().chain(sets) {
            report.file.clone_from(file);
            let object = KubernetesObject::open(node, report);
            let owner = object.tag().trim_start_matches('X').to_owned();
            owners.push(owner.clone());
            let parent = object.spec.object("parentRef", report).map(|parent| {
                let namespace = parent.string("namespace", report).unwrap_or_else(|| object.in_namespace().to_owned());
                format!("Gateway {namespace}/{}", parent.string("name", report).unwrap_or_default())
            });
            for listener in object.spec.objects("listeners", report) {
                let host = report.conditions(|report| {
                    let host = listener.string("hostname", report).unwrap_or_default();
                    RuleHost::parse(&host).ok_or_else(|| format!("{host:?} is not a host name"))
                });
                let host = match host {
                    Ok(host) => host,
                    Err(why) => {
                        report.lost(&listener.at("hostname"), why, "the policy has no rule for its requests");
                        continue;
                    }
                };
                let allowed = listener.take("allowedRoutes");
                all.push(GatewayListener {
                    gateway: parent.clone().unwrap_or_else(|| owner.clone()),
                    owner: owner.clone(),
                    namespace: object.in_namespace().to_owned(),
                    name: listener.string("name", report).unwrap_or_default(),
                    port: listener.string("port", report).unwrap_or_default(),
                    protocol: listener.string("protocol", report).unwrap_or_default().to_lowercase(),
                    host,
                    from: from(allowed),
                    kinds: kinds(allowed),
                });
            }
        }
        Listeners { all, owners, objects }
    }

    /// Hosts of listeners that take their requests from a less specific listener, whether or not they have a route.
    pub fn closer_hosts(&self) -> impl Iterator<Item = (&RuleHost, &str)> {
        let is_closer = |listener: &&GatewayListener| {
            self.all.iter().any(|other| {
                other.is_beside(listener) && other.host != listener.host && other.host.covers(&listener.host)
            })
        };
        self.all.iter().filter(is_closer).map(|listener| (&listener.host, &*listener.protocol))
    }

    /// Whether the listeners for one of these hosts use `http` or `https`.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|listener| &*listener.protocol).filter(|protocol| ["http", "https"].contains(protocol))
    }

    /// Whether a listener accepts routes of this kind in a namespace, or why that is unknown.
    fn takes(&self, listener: &GatewayListener, kind: &str, namespace: &str) -> Result<bool, String> {
        if listener.kinds.as_ref().is_some_and(|kinds| !kinds.iter().any(|accepted| accepted == kind)) {
            return Ok(false);
        }
        match &listener.from {
            AllowedNamespaces::Same => Ok(listener.namespace == namespace),
            AllowedNamespaces::All => Ok(true),
            AllowedNamespaces::Nothing => Ok(false),
            AllowedNamespaces::Selector(selector) => {
                namespaces::has_labels(self.objects, namespace, selector).map_err(|why| {
                    format!(
                        "listener {} of {} only accepts routes of some namespaces: {why}",
                        listener.name, listener.owner
                    )
                })
            }
        }
    }

    /// The hosts of these for which a listener gets requests.
    fn hosts_at(&self, listener: &GatewayListener, own: &[RuleHost]) -> Vec<RuleHost> {
        let both = own.iter().filter_map(|host| listener.host.intersection(host));
        both.filter(|both| !listener.yields(&self.all, both)).collect()
    }

    /// The parents of a route; `None` when it has none, so that it gets no requests.
    pub fn attach(&self, object: &KubernetesObject<'_>, report: &mut ImportReport) -> Option<Attached> {
        let spec = &object.spec;
        let parents = spec.objects("parentRefs", report);
        let names = match report.conditions(|report| Ok(spec.strings("hostnames", report))) {
            Ok(names) => names,
            Err(why) => {
                report.lost("spec.hostnames", why, "none of it is imported");
                return None;
            }
        };
        let mut own: Vec<RuleHost> = Vec::new();
        for name in &names {
            match RuleHost::parse(name) {
                Some(host) => own.push(host),
                None => report.lost(
                    "spec.hostnames",
                    format!("{name:?} is not a host name"),
                    "the policy has no rule for its requests",
                ),
            }
        }
        if names.is_empty() {
            own.push(RuleHost::Any);
        }
        let mut hosts: Vec<(RuleHost, Option<String>)> = Vec::new();
        let mut gateways = Vec::new();
        let mut add = |host: RuleHost, protocol: Option<&str>| match hosts.iter_mut().find(|(known, _)| *known == host)
        {
            Some((_, known)) if known.as_deref() == protocol => {}
            Some((_, known)) => *known = None,
            None => hosts.push((host, protocol.map(str::to_owned))),
        };
        let (mut without, mut accepted) = (Vec::new(), HashSet::new());
        for parent in &parents {
            let name = parent.string("name", report).unwrap_or_default();
            let namespace = parent.string("namespace", report).unwrap_or_else(|| object.in_namespace().to_owned());
            let (section, port) = (parent.string("sectionName", report), parent.string("port", report));
            let kind = parent.string("kind", report).unwrap_or_else(|| "Gateway".to_owned());
            if kind == "Service" {
                // In a mesh, the route is for all requests to the service, by any of its names.
                let full = [
                    format!("{name}.{namespace}.svc.cluster.local"),
                    format!("{name}.{namespace}.svc"),
                    format!("{name}.{namespace}"),
                ];
                let short = (namespace == object.in_namespace()).then_some(name);
                full.into_iter()
                    .chain(short)
                    .filter_map(|name| RuleHost::parse(&name))
                    .for_each(|host| add(host, None));
                continue;
            }
            let owner = format!("{} {namespace}/{name}", kind.strip_prefix('X').unwrap_or(&kind));
            let of_parent: Vec<(usize, &GatewayListener)> =
                self.all.iter().enumerate().filter(|(_, listener)| listener.owner == owner).collect();
            gateways.push(of_parent.first().map_or_else(|| owner.clone(), |(_, listener)| listener.gateway.clone()));
            if !self.owners.contains(&owner) {
                if names.is_empty() {
                    let what = format!("{owner} is missing in the input, and the route has no hostnames");
                    report.elsewhere(
                        "spec.parentRefs",
                        what,
                        "it is used for every host; add the Gateway to the input",
                    );
                }
                own.iter().cloned().for_each(|host| add(host, None));
            }
            let mut is_accepted = !self.owners.contains(&owner);
            for (number, listener) in of_parent {
                let is_meant = section.as_ref().is_none_or(|section| *section == listener.name)
                    && port.as_ref().is_none_or(|port| *port == listener.port)
                    && ["http", "https"].contains(&listener.protocol.as_str());
                if !is_meant {
                    continue;
                }
                match self.takes(listener, &object.kind, object.in_namespace()) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(why) => {
                        report.lost("spec.parentRefs", why, "requests to it are not imported");
                        is_accepted = true;
                        continue;
                    }
                }
                is_accepted |= !self.hosts_at(listener, &own).is_empty();
                accepted.insert(number);
            }
            if !is_accepted {
                without.push((parent.path().to_owned(), owner));
            }
        }
        let mut omitted = Vec::new();
        for (_, listener) in self.all.iter().enumerate().filter(|(number, _)| accepted.contains(number)) {
            for host in self.hosts_at(listener, &own) {
                let mut others = self.all.iter().enumerate();
                let is_confusable = |(i, other): &(usize, &GatewayListener)| {
                    listener.is_confusable(other, &host) && !accepted.contains(i)
                };
                let Some((_, other)) = others.find(is_confusable) else {
                    add(host, Some(&listener.protocol));
                    continue;
                };
                let why = format!(
                    "only requests to port {}, not {} of listener {}: a policy has no condition on the port",
                    listener.port, other.port, other.name
                );
                omitted.push((host, listener.protocol.clone(), why));
            }
        }
        if let Some((_, _, why)) = omitted.first() {
            report.lost(
                "spec.parentRefs",
                why.clone(),
                "its rules are left out: its requests go to the rules after them",
            );
        }
        if parents.is_empty() {
            own.into_iter().for_each(|host| add(host, None));
        }
        if hosts.is_empty() && omitted.is_empty() {
            report.lost("spec.parentRefs", "no listener of its Gateways accepts its hosts", "none of it is imported");
            return None;
        }
        for (path, owner) in without {
            let what = format!("no listener of {owner} that it names accepts its hosts");
            report.elsewhere(&path, what, "the route gets no requests there, in the source as well");
        }
        Some(Attached { tag: object.tag(), gateways, hosts, omitted })
    }
}

/// `allowedRoutes`.
fn from(allowed: Option<&Node>) -> AllowedNamespaces {
    let Some(namespaces) = allowed.and_then(|allowed| allowed.get("namespaces")) else {
        return AllowedNamespaces::Same;
    };
    match namespaces.get("from") {
        None | Some(Node::Null) => AllowedNamespaces::Same,
        Some(Node::String(from)) => match from.as_str() {
            "Same" => AllowedNamespaces::Same,
            "All" => AllowedNamespaces::All,
            "Selector" => AllowedNamespaces::Selector(namespaces.get("selector").cloned().unwrap_or(Node::Null)),
            _ => AllowedNamespaces::Nothing,
        },
        Some(_) => AllowedNamespaces::Nothing,
    }
}

/// The kinds in `allowedRoutes`, if it names any.
fn kinds(allowed: Option<&Node>) -> Option<Vec<String>> {
    let kind = |entry: &Node| match entry.get("kind") {
        Some(Node::String(kind)) => kind.clone(),
        _ => String::new(),
    };
    match allowed?.get("kinds")? {
        Node::List(kinds) => (!kinds.is_empty()).then(|| kinds.iter().map(kind).collect()),
        Node::Null => None,
        // No route is of an unreadable kind.
        _ => Some(Vec::new()),
    }
}
