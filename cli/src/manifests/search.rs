//! Finds the policies of a document at any place in it.

mod relations;

use std::collections::HashMap;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use penstock_policy::document::Node;

use super::envoy_fields::{self, FaultKind, FieldFault, wrong_type};
use super::found::{FoundPolicy, PlaceMapping};
use super::kinds;
use super::objects;
use super::patched_metadata::UncopiedMetadata;
use super::path::join;
use super::per_route::RouteSettings;
use super::platform::{self, ChainFilter, NativePlatform};
use super::plugin::{self, PluginOwner};
use super::promise;
use super::purpose;
use super::same_name::{NamedObject, PluginIdentity};
use super::text::{align, outer};
use crate::diagnostics::Finding;
use crate::text::SourceText;
use crate::yaml::Located;

/// The results for a file's documents.
pub struct ManifestSearch<'t> {
    text: &'t SourceText,
    /// Whether plugins with a policy count that are not known as ours.
    all: bool,
    pub policies: Vec<FoundPolicy>,
    pub broken: Vec<(String, Finding)>,
    pub remarks: Vec<(String, Finding)>,
    pub left_alone: Vec<(String, String)>,
    /// The plugin of each policy.
    plugins: HashMap<usize, PluginPlace>,
    /// The objects with a policy.
    pub objects: Vec<NamedObject>,
    /// What the routes of the document say about filters.
    route_settings: RouteSettings,
}

/// A policy's plugin: its path, the name of its filter, and what the proxy knows it by.
pub struct PluginPlace {
    path: String,
    filter: Option<String>,
    identity: Option<PluginIdentity>,
}

/// The current place of the search.
#[derive(Clone)]
struct SearchPlace<'l> {
    resource: &'l str,
    document: usize,
    located: &'l Located,
    /// What the object's annotation says.
    annotated: Option<PluginOwner>,
    /// What is known about the enclosing plugin.
    claim: PluginOwner,
    is_bootstrap: bool,
    /// Whether it is in the list of modules of an EnvoyExtensionPolicy, each of which has a configuration.
    is_in_modules: bool,
    /// The platform of the enclosing plugin, if that is a dynamic module.
    native: Option<NativePlatform>,
    /// The enclosing filter.
    filter: Option<&'l str>,
}

impl<'t> ManifestSearch<'t> {
    pub fn new(text: &'t SourceText, all: bool) -> ManifestSearch<'t> {
        ManifestSearch {
            text,
            all,
            policies: Vec::new(),
            broken: Vec::new(),
            remarks: Vec::new(),
            left_alone: Vec::new(),
            plugins: HashMap::new(),
            objects: Vec::new(),
            route_settings: RouteSettings::default(),
        }
    }

    /// Finds the policies of a document.
    pub fn document(&mut self, resource: &str, document: usize, located: &Located) {
        let first = self.policies.len();
        self.object(resource, document, located, &located.node, "");
        self.of_a_document(first, located);
        let found = self.policies.get_mut(first..).unwrap_or_default();
        // Several plugins in one document need distinct names.
        let several = found.len() > 1;
        for (number, policy) in (1..).zip(found) {
            if several && policy.resource.as_deref() == Some(resource) {
                policy.resource = Some(format!("{resource}, plugin {number}"));
            }
        }
    }

    fn object(&mut self, resource: &str, document: usize, located: &Located, node: &Node, path: &str) {
        if let (Some(Node::List(items)), Some(Node::String(kind))) = (node.get("items"), node.get("kind"))
            && kind.ends_with("List")
        {
            for (i, item) in items.iter().enumerate() {
                let name = kinds::resource(item).unwrap_or_else(|| resource.to_owned());
                self.object(
                    &name,
                    document,
                    located,
                    item,
                    &format!("{path}{}items[{i}]", if path.is_empty() { "" } else { "." }),
                );
            }
            return;
        }
        let is_bootstrap = ["static_resources", "staticResources"].iter().any(|field| node.get(field).is_some());
        let annotated = plugin::annotated(node);
        let claim = annotated.clone().unwrap_or(if kinds::may_hold(node) {
            PluginOwner::Unknown
        } else {
            PluginOwner::Foreign
        });
        let here = SearchPlace {
            resource,
            document,
            located,
            annotated,
            claim,
            is_bootstrap,
            is_in_modules: false,
            native: None,
            filter: None,
        };
        self.whole(&here, node, path);
        if objects::wrong_kind(node).is_empty() {
            let first = self.policies.len();
            self.search(&here, node, path);
            self.of_an_object(resource, located, node, path, first);
        }
    }

    /// A second or later document of an Envoy configuration.
    pub fn unread(&mut self, resource: &str, located: &Located) {
        let message = "Envoy reads only the first document of a file".to_owned();
        let help = Some("give it a file of its own".to_owned());
        self.remarks.push((resource.to_owned(), Finding::at(located.span("", false), message, help, self.text)));
    }

    /// An object without its kind.
    pub fn half_an_object(&mut self, located: &Located) {
        let missing = ["apiVersion", "kind"].into_iter().filter(|field| located.node.get(field).is_none());
        let missing = missing.map(|field| format!("`{field}`")).collect::<Vec<_>>().join(" and ");
        let message = format!("this Kubernetes object has no {missing}");
        let help = Some(
            "begin it with `apiVersion: extensions.istio.io/v1alpha1` and `kind: WasmPlugin`, or with its own kind"
                .to_owned(),
        );
        let span = located.span("spec", true);
        self.broken.push(("object without a kind".to_owned(), Finding::at(span, message, help, self.text)));
    }

    /// Reports on an object as a whole.
    fn whole(&mut self, here: &SearchPlace<'_>, object: &Node, path: &str) {
        let place = |text: &SourceText, remark: objects::Remark| {
            let span = here.located.span(&join(path, &remark.path), !remark.is_value);
            (here.resource.to_owned(), Finding::at(span, remark.message, Some(remark.help), text))
        };
        let text = self.text;
        let broken = [objects::without_policy(object, here.annotated.as_ref()), objects::wrong_kind(object)].concat();
        self.broken.extend(broken.into_iter().map(|remark| place(text, remark)));
        let remarks = [objects::registered_modules(object), objects::wrong_annotation(object)].concat();
        self.remarks.extend(remarks.into_iter().map(|remark| place(text, remark)));
    }

    /// Searches for policies in `node`, at `path` of the document.
    fn search<'l>(&mut self, here: &SearchPlace<'l>, node: &'l Node, path: &str) {
        match node {
            Node::Map(entries) => {
                let claim = match (&here.annotated, plugin::claim(node)) {
                    (Some(annotated), _) => annotated.clone(),
                    // Only a map that names code is a plugin; many other maps have a name.
                    (None, PluginOwner::Ours(None))
                        if plugin::code(node).is_empty() && !plugin::is_plugin(node) && !here.is_in_modules =>
                    {
                        here.claim.clone()
                    }
                    (None, PluginOwner::Unknown) => here.claim.clone(),
                    (None, PluginOwner::Other(_)) if !plugin::is_plugin(node) => here.claim.clone(),
                    (None, claim) => claim,
                };
                let filter = match (node.get("name"), node.get("typed_config").or_else(|| node.get("typedConfig"))) {
                    (Some(Node::String(name)), Some(_)) => Some(name.as_str()),
                    _ => here.filter,
                };
                let native = match here.is_in_modules {
                    true => Some(NativePlatform::EnvoyGateway),
                    false => plugin::dynamic_module(node).map(|_| NativePlatform::Envoy),
                };
                let here = &SearchPlace { claim, filter, is_in_modules: false, native, ..here.clone() };
                let (first, first_broken) = (self.policies.len(), self.broken.len());
                self.empty_filter(here, node, path);
                for (name, value) in entries {
                    let at = join(path, name);
                    match (name.as_str(), value) {
                        // The configuration of the VM is no policy.
                        ("configuration", _) if path.ends_with("vm_config") || path.ends_with("vmConfig") => {}
                        // Istio's WasmPlugin and TrafficExtension; Envoy Gateway's EnvoyExtensionPolicy. An empty
                        // configuration in Istio is reported for the object.
                        ("pluginConfig", Node::Map(fields))
                            if fields.is_empty() && matches!(here.claim, PluginOwner::Ours(_)) => {}
                        // Reported for the object.
                        ("config", Node::Map(_))
                            if path == "spec"
                                && here.resource.starts_with("WasmPlugin ")
                                && matches!(here.claim, PluginOwner::Ours(_)) => {}
                        ("pluginConfig" | "config", Node::Map(_))
                            if !plugin::is_envoy_plugin(value) && self.takes(here, value) =>
                        {
                            let place = PlaceMapping::Inside { document: here.document, prefix: at };
                            self.found(here, node, path, value.clone(), place);
                        }
                        // Envoy's wasm filters, and its dynamic modules.
                        ("configuration", Node::Map(_)) => self.any(here, node, path, value, &at, false),
                        ("filter_config" | "filterConfig", Node::Map(_))
                            if matches!(here.claim, PluginOwner::Ours(_)) =>
                        {
                            self.any(here, node, path, value, &at, true);
                        }
                        ("typed_per_filter_config" | "typedPerFilterConfig", Node::Map(entries)) => {
                            self.route_settings.add(here.resource, entries, &at);
                        }
                        ("http_filters" | "httpFilters", Node::List(filters)) => self.chain(here, filters, &at),
                        ("dynamicModule", Node::List(_)) => {
                            self.search(&SearchPlace { is_in_modules: true, ..here.clone() }, value, &at);
                        }
                        _ => self.search(here, value, &at),
                    }
                }
                let list = path.strip_suffix(']').and_then(|path| path.rsplit_once('['));
                let is_http = list
                    .is_some_and(|(list, _)| ["http_filters", "httpFilters"].iter().any(|field| list.ends_with(field)));
                let is_ours = self.policies.len() > first || self.broken.len() > first_broken;
                let is_filter = is_http || envoy_fields::typed_config(node).is_some();
                if is_filter && (is_ours || purpose::is_meant_as_ours(node)) {
                    self.fields(here, node, path, is_http, first);
                    self.purpose(here, node, path, first);
                    self.route_settings.filter(node, path, first..self.policies.len());
                }
            }
            Node::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.search(here, item, &format!("{path}[{i}]"));
                }
            }
            _ => {}
        }
    }

    /// A filter in Envoy with our code and no configuration: the module refuses an empty one.
    fn empty_filter(&mut self, here: &SearchPlace<'_>, node: &Node, path: &str) {
        let field = match node {
            _ if plugin::dynamic_module(node).is_some() => ["filter_config", "filterConfig"],
            _ if plugin::vm_config(node).is_some() => ["configuration"; 2],
            _ => return,
        };
        let is_empty = field.iter().all(|field| node.get(field).is_none_or(|value| *value == Node::Null));
        if is_empty && matches!(here.claim, PluginOwner::Ours(_)) {
            let help = format!("give the policy as `{}`, a StringValue with JSON", field[0]);
            self.broken(here, here.located.span(path, true), EMPTY, Some(&help));
        }
    }

    /// Fields of a filter with our code that Envoy refuses. A running Envoy has accepted what it shows. Istio ignores unknown
    /// fields, and merges patches into what is there.
    fn fields(&mut self, here: &SearchPlace<'_>, node: &Node, path: &str, is_http: bool, first: usize) {
        if here.resource.contains("dump") {
            return;
        }
        let is_patch = here.resource.starts_with("EnvoyFilter ");
        for fault in envoy_fields::faults(node, is_http) {
            let FieldFault { path: below, is_name, kind, mut message, help } = fault;
            let at = join(path, &below);
            if is_patch && kind == FaultKind::Missing {
                continue;
            }
            if is_patch && kind == FaultKind::Unknown {
                message += ": Istio ignores it";
            }
            let is_doubt = kind == FaultKind::Build || is_patch && kind == FaultKind::Unknown;
            let finding =
                Finding { path: at.clone(), ..Finding::at(here.located.span(&at, is_name), message, help, self.text) };
            match self.policies.get_mut(first) {
                Some(found) if is_doubt => found.doubts.push(finding),
                Some(found) => found.faults.push(finding),
                None if is_doubt => {}
                None => self.broken.push((here.resource.to_owned(), finding)),
            }
        }
    }

    /// Warnings about a place where our module cannot do what its policy says.
    fn purpose(&mut self, here: &SearchPlace<'_>, node: &Node, path: &str, first: usize) {
        let Some(found) = self.policies.get_mut(first) else { return };
        let doubt = purpose::other_use(node).or_else(|| purpose::too_late(path, &found.node));
        if let Some((message, help)) = doubt {
            let span = here.located.span(&join(path, "name"), false);
            found.doubts.push(Finding::at(span, message.to_owned(), Some(help.to_owned()), self.text));
        }
    }

    /// Whether the configuration of a plugin is a policy; records plugins of other vendors that look like ours.
    fn takes(&mut self, here: &SearchPlace<'_>, configuration: &Node) -> bool {
        match &here.claim {
            PluginOwner::Other(_) if self.all => plugin::has_section(configuration),
            PluginOwner::Other(what) => {
                if plugin::has_section(configuration) {
                    self.left_alone.push((here.resource.to_owned(), what.clone()));
                }
                false
            }
            claim => claim.takes(configuration),
        }
    }

    fn found(&mut self, here: &SearchPlace<'_>, plugin: &Node, path: &str, node: Node, place: PlaceMapping) {
        let doubts = platform::doubts(plugin, here.is_bootstrap).into_iter().map(|doubt| {
            let at = if doubt.path.is_empty() { path.to_owned() } else { join(path, &doubt.path) };
            let field = if doubt.path.is_empty() { self.code_at(here, path) } else { at };
            let span = here.located.span(&field, doubt.path.contains("onfig"));
            Finding { path: doubt.path, ..Finding::at(span, doubt.message, Some(doubt.help), self.text) }
        });
        let mut doubts: Vec<Finding> = doubts.collect();
        let stops = ["allow_on_headers_stop_iteration", "allowOnHeadersStopIteration"];
        if let Some(field) = stops.into_iter().find(|field| plugin.get(field) == Some(&Node::Bool(true)))
            && promise::asks_a_service(&node)
        {
            let message = "forwards the body of a request before the rate-limit service has answered";
            let help = Some("remove it (the default is false) if limits have global scope".to_owned());
            let span = here.located.span(&join(path, field), false);
            doubts.push(Finding::at(span, message.to_owned(), help, self.text));
        }
        let early = plugin.get("phase") == Some(&Node::String("AUTHN".to_owned()));
        if early && node.get("settings").and_then(|settings| settings.get("claims")).is_some() {
            let message = "in phase AUTHN the plugin runs before Istio has verified tokens: its claims are empty";
            let span = here.located.span(&join(path, "phase"), false);
            let help = Some("use phase AUTHZ, or leave it out".to_owned());
            doubts.push(Finding { path: "phase".to_owned(), ..Finding::at(span, message.to_owned(), help, self.text) });
        }
        if here.native.is_some()
            && let Some((message, help)) = platform::unknown_natively(&node, NativePlatform::Envoy)
        {
            self.broken(here, here.located.span(path, true), message, Some(help));
            return;
        }
        let uncopied = (here.native == Some(NativePlatform::EnvoyGateway))
            .then(|| platform::uncopied_metadata(&node))
            .flatten()
            .map(|(namespaces, message, help)| {
                let span = here.located.span(path, true);
                let finding = Finding { path: path.to_owned(), ..Finding::at(span, message, Some(help), self.text) };
                UncopiedMetadata::new(here.resource, path, namespaces, finding)
            });
        let identity = PluginIdentity::of(plugin, path);
        let filter = here.filter.map(str::to_owned);
        self.plugins.insert(self.policies.len(), PluginPlace { path: path.to_owned(), filter, identity });
        let (resource, module) = (Some(here.resource.to_owned()), here.claim.module());
        let faults = Vec::new();
        self.policies.push(FoundPolicy { resource, node, module, doubts, faults, uncopied, identity: None, place });
    }

    /// The path of what a plugin loads.
    fn code_at(&self, here: &SearchPlace<'_>, path: &str) -> String {
        let places = [
            "url",
            "code.image.url",
            "code.http.url",
            "vm_config.code.remote.http_uri.uri",
            "vmConfig.code.remote.httpUri.uri",
            "dynamic_module_config.module",
            "dynamicModuleConfig.module",
        ];
        let known = places.iter().map(|place| join(path, place));
        known.into_iter().find(|at| here.located.has(at)).unwrap_or_else(|| path.to_owned())
    }

    /// Envoy's `configuration`, a protobuf `Any`: the bytes that the module gets from it. A dynamic module gets a
    /// `Struct` as JSON.
    fn any(&mut self, here: &SearchPlace<'_>, plugin: &Node, path: &str, any: &Node, at: &str, is_dynamic: bool) {
        let type_url = match any.get("@type") {
            Some(Node::String(type_url)) => type_url.as_str(),
            _ => "",
        };
        let kind = type_url.rsplit('/').next().unwrap_or_default();
        let value = any.get("value").filter(|value| **value != Node::Null);
        let span = here.located.span(&join(at, "value"), false);
        let is_meant = match value {
            Some(Node::String(text)) => here.claim.takes_text(text),
            _ => self.takes(here, value.unwrap_or(any)),
        };
        if is_meant && let Some((message, help)) = wrong_type(type_url) {
            let field = if type_url.is_empty() {
                here.located.span(at, true)
            } else {
                here.located.span(&join(at, "@type"), false)
            };
            self.broken(here, field, message, Some(help));
        }
        match (kind, value) {
            ("google.protobuf.StringValue" | "google.protobuf.BytesValue" | "", Some(Node::String(text)))
                if is_meant && text.trim().is_empty() =>
            {
                self.broken(
                    here,
                    span,
                    EMPTY,
                    Some("give the policy as JSON; {\"settings\": {}} is the one that does nothing"),
                );
            }
            ("google.protobuf.StringValue" | "", Some(Node::String(text))) => {
                let bytes = align(text, self.text.get(span.clone()).unwrap_or_default(), span.start);
                self.text_policy(here, plugin, path, text, PolicyNotation::Text(bytes));
            }
            ("google.protobuf.BytesValue", Some(Node::String(encoded))) => {
                let decoders = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
                match decoders.iter().find_map(|decoder| decoder.decode(encoded).ok()).map(String::from_utf8) {
                    Some(Ok(text)) => self.text_policy(here, plugin, path, &text, PolicyNotation::Encoded(span)),
                    _ if matches!(here.claim, PluginOwner::Ours(_) | PluginOwner::Named(_)) => {
                        let message = "the bytes of the policy are not base64 of UTF-8 text";
                        self.broken(here, span, message, Some("use a StringValue with the policy as JSON"));
                    }
                    _ => {}
                }
            }
            ("google.protobuf.Struct" | "xds.type.v3.TypedStruct", Some(value @ Node::Map(_))) if is_dynamic => {
                let place = PlaceMapping::Inside { document: here.document, prefix: join(at, "value") };
                self.found(here, plugin, path, value.clone(), place);
            }
            _ if !is_meant || type_url.is_empty() => {}
            (_, None) => {
                self.broken(here, here.located.span(at, true), EMPTY, Some("give the policy as JSON in `value`"))
            }
            ("google.protobuf.StringValue" | "google.protobuf.BytesValue", Some(_)) => {
                let message = "`value` must be text here, or Envoy does not start";
                self.broken(here, span, message, Some("put the policy in quotes, or after `value: |`, as JSON"));
            }
            (kind, _) if wrong_type(type_url).is_none() => {
                let kind = kind.rsplit('.').next().unwrap_or_default();
                let message = format!("Envoy passes a {kind} to the module as protobuf bytes, which it refuses");
                let help = "use type.googleapis.com/google.protobuf.StringValue, with the policy as JSON in `value`";
                self.broken(here, here.located.span(&join(at, "@type"), false), &message, Some(help));
            }
            _ => {}
        }
    }

    /// Records a policy that the module could not parse.
    fn broken(&mut self, here: &SearchPlace<'_>, span: Range<usize>, message: &str, help: Option<&str>) {
        let finding = Finding::at(span, message.to_owned(), help.map(str::to_owned), self.text);
        self.broken.push((here.resource.to_owned(), finding));
    }

    /// A policy that is the text of a string.
    fn text_policy(&mut self, here: &SearchPlace<'_>, plugin: &Node, path: &str, text: &str, written: PolicyNotation) {
        // A configuration dump has each plugin of the bootstrap twice.
        match Located::read_json(text) {
            Ok(located) if self.takes(here, &located.node) => {
                let node = located.node.clone();
                let is_known =
                    |found: &FoundPolicy| found.node == node && found.resource.as_deref() == Some(here.resource);
                if here.resource.contains("dump") && self.policies.iter().any(is_known) {
                    return;
                }
                let place = match written {
                    PolicyNotation::Text(bytes) => PlaceMapping::Text { located: Box::new(located), bytes },
                    PolicyNotation::Encoded(span) => PlaceMapping::Encoded(span),
                };
                self.found(here, plugin, path, node, place);
            }
            // A plugin of another vendor.
            Ok(_) => {}
            Err(error) if here.claim.takes_text(text) => {
                let at = match &written {
                    PolicyNotation::Text(bytes) => outer(&(error.at..error.at + 1), bytes),
                    PolicyNotation::Encoded(span) => span.clone(),
                };
                let is_yaml = Located::read(text).is_ok_and(|located| matches!(located.node, Node::Map(_)));
                let help = match is_yaml && !text.trim_start().starts_with('{') {
                    true => Some("the module reads JSON, and this is YAML: write the policy as JSON, as `penstock render --for envoy` does".to_owned()),
                    false => error.help,
                };
                let message = format!("the module cannot read its policy: not JSON: {}", error.message);
                self.broken.push((here.resource.to_owned(), Finding::at(at, message, help, self.text)));
            }
            Err(_) => {}
        }
    }

    /// The filters of a connection manager, and the effect of their order.
    fn chain<'l>(&mut self, here: &SearchPlace<'l>, filters: &'l [Node], path: &str) {
        let mut numbers = Vec::new();
        for (i, filter) in filters.iter().enumerate() {
            let first = self.policies.len();
            self.search(here, filter, &format!("{path}[{i}]"));
            numbers.push(first..self.policies.len());
        }
        let chain: Vec<ChainFilter<'_>> = filters
            .iter()
            .zip(&numbers)
            .map(|(filter, numbers)| {
                let config = filter.get("typed_config").or_else(|| filter.get("typedConfig"));
                let names = [filter.get("name"), config.and_then(|config| config.get("@type"))];
                let names = names.into_iter().filter_map(|name| match name {
                    Some(Node::String(name)) => Some(name.as_str()),
                    _ => None,
                });
                let policies = self.policies.get(numbers.clone()).unwrap_or_default().iter().map(|found| &found.node);
                let ends = ["terminal_filter", "terminalFilter"].iter().filter_map(|field| config?.get(field));
                let is_terminal = ends.into_iter().any(envoy_fields::is_true);
                let is_native = config.is_some_and(|config| plugin::dynamic_module(config).is_some());
                ChainFilter { names: names.collect(), policies: policies.collect(), config, is_native, is_terminal }
            })
            .collect();
        let is_envoys = here.resource.starts_with("Envoy ") && !here.resource.contains("dump");
        let end = if is_envoys { platform::wrong_end(&chain) } else { None };
        // Where Envoy does not start, order does not count.
        let doubts = if end.is_some() { Vec::new() } else { platform::order(&chain) };
        let missing = (0..chain.len()).filter_map(|i| Some((i, platform::missing_metadata(&chain, i)?)));
        let missing: Vec<_> = missing.collect();
        let first = numbers.iter().find(|numbers| !numbers.is_empty());
        if let (Some((i, message, help)), Some(first)) = (end, first) {
            let at = format!("{path}[{i}].name");
            let span = here.located.span(&at, false);
            let finding = Finding { path: at, ..Finding::at(span, message, Some(help), self.text) };
            self.policies.get_mut(first.start).into_iter().for_each(|found| found.faults.push(finding.clone()));
        }
        for (i, (message, help)) in missing {
            let at = format!("{path}[{i}].name");
            let span = here.located.span(&at, false);
            let finding = Finding { path: at, ..Finding::at(span, message, Some(help), self.text) };
            if let Some(found) = numbers.get(i).and_then(|numbers| self.policies.get_mut(numbers.start)) {
                found.faults.push(finding);
            }
        }
        for (i, message, help) in doubts {
            let span = here.located.span(&format!("{path}[{i}].name"), false);
            let finding = Finding::at(span, message, Some(help), self.text);
            if let Some(found) = numbers.get(i).and_then(|numbers| self.policies.get_mut(numbers.start)) {
                found.doubts.push(finding);
            }
        }
    }
}

/// A configuration without a policy.
const EMPTY: &str = "the filter has no policy: the module refuses an empty configuration";

/// How the text of a policy is written in the file.
enum PolicyNotation {
    /// As a string: for each byte, the byte of the file.
    Text(Vec<usize>),
    /// Encoded, at this place.
    Encoded(Range<usize>),
}
