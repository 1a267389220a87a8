//! Fields of Envoy's messages around our filters, read as Envoy 1.40 reads them: an unknown field, a value of another type, two of which
//! one excludes the other. Envoy does not start with any of them. What other messages hold is not looked at.

use std::collections::HashSet;

use penstock_policy::Module;
use penstock_policy::document::Node;

use super::capabilities;
use super::envoy_messages::{
    DYNAMIC_MODULE, DYNAMIC_MODULE_CONFIG, ENVIRONMENT, FieldKind, HTTP_FILTER, Message, PLUGIN_CONFIG, WASM,
};
use super::path::join;
use super::plugin;

/// Something that Envoy refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// Path below the filter.
    pub path: String,
    /// Whether the name of the field is what is wrong.
    pub is_name: bool,
    /// What kind of fault.
    pub kind: FaultKind,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A name that the message has not.
    Unknown,
    /// Something is missing, which what a patch is merged into may have.
    Missing,
    /// A value that Envoy refuses.
    Wrong,
    /// A value that some builds of Envoy take.
    Build,
}

/// The type of a wasm filter of HTTP.
pub const WASM_TYPE: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
/// The type of a wasm filter of connections.
pub const NETWORK_TYPE: &str = "envoy.extensions.filters.network.wasm.v3.Wasm";
/// The type of a native filter.
pub const NATIVE_TYPE: &str = "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";
/// The type of a native filter's configuration for a route.
pub const NATIVE_PER_ROUTE_TYPE: &str = "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute";

/// The `typed_config` of a filter and how the field is written.
pub fn typed_config(filter: &Node) -> Option<(&'static str, &Node)> {
    plugin::either(filter, ["typed_config", "typedConfig"])
}

/// What Envoy refuses of a filter that runs one of our modules. `is_http`: it stands in a list of HTTP filters.
pub fn faults(filter: &Node, is_http: bool) -> Vec<FieldFault> {
    let mut faults = Faults::default();
    if is_http {
        faults.message(&HTTP_FILTER, filter, "");
    }
    let Some((field, config)) = typed_config(filter) else { return faults.all };
    let type_url = text(config.get("@type")).unwrap_or_default();
    let (host, kind) = type_url.rsplit_once('/').unwrap_or(("", type_url));
    let is_native = ["dynamic_module_config", "dynamicModuleConfig"].iter().any(|name| config.get(name).is_some());
    let is_wasm = config
        .get("config")
        .is_some_and(|plugin| ["vm_config", "vmConfig", "configuration"].iter().any(|name| plugin.get(name).is_some()));
    let right = if is_native { NATIVE_TYPE } else { WASM_TYPE };
    match kind {
        WASM_TYPE | NETWORK_TYPE | NATIVE_TYPE if host.is_empty() => faults.type_url(
            &join(field, "@type"),
            "the type has no host before its name, so Envoy does not start",
            right,
        ),
        NETWORK_TYPE if is_http => {
            faults.type_url(
                &join(field, "@type"),
                "this is a network filter, but this list is for HTTP filters",
                right,
            );
        }
        WASM_TYPE | NETWORK_TYPE => faults.unpacked(&WASM, config, field),
        NATIVE_TYPE => faults.unpacked(&DYNAMIC_MODULE, config, field),
        "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct" => {
            let inner = ["type_url", "typeUrl"].iter().find_map(|name| text(config.get(name))).unwrap_or_default();
            let message = match inner.rsplit('/').next().unwrap_or_default() {
                WASM_TYPE | NETWORK_TYPE => &WASM,
                NATIVE_TYPE => &DYNAMIC_MODULE,
                _ => return faults.all,
            };
            if let Some(value) = config.get("value") {
                faults.message(message, value, &join(field, "value"));
            }
        }
        "" if is_http && (is_native || is_wasm) => {
            faults.type_url(field, "there is no `@type`, so Envoy does not start", right);
        }
        _ if is_http && (is_native || is_wasm) => {
            faults.type_url(&join(field, "@type"), &format!("`{kind}` is not the type of this filter"), right);
        }
        _ => {}
    }
    faults.all
}

#[derive(Default)]
struct Faults {
    all: Vec<FieldFault>,
}

impl Faults {
    fn add(&mut self, path: &str, is_name: bool, message: impl Into<String>, help: Option<String>) {
        self.push(FaultKind::Wrong, path, is_name, message, help);
    }

    fn push(&mut self, kind: FaultKind, path: &str, is_name: bool, message: impl Into<String>, help: Option<String>) {
        self.all.push(FieldFault { path: path.to_owned(), is_name, kind, message: message.into(), help });
    }

    fn type_url(&mut self, path: &str, message: &str, right: &str) {
        self.add(path, false, message, Some(format!("write \"@type\": type.googleapis.com/{right}")));
    }

    /// A message in an `Any`.
    fn unpacked(&mut self, message: &'static Message, node: &Node, path: &str) {
        match node {
            Node::Map(fields) => {
                let fields = fields.iter().filter(|(name, _)| name != "@type").cloned().collect();
                self.message(message, &Node::Map(fields), path);
            }
            _ => self.message(message, node, path),
        }
    }

    fn message(&mut self, message: &'static Message, node: &Node, path: &str) {
        let Node::Map(fields) = node else {
            self.add(path, false, format!("must be an object ({})", message.name), None);
            return;
        };
        let mut set: Vec<(&'static str, &str)> = Vec::new();
        for (name, value) in fields {
            let at = join(path, name);
            let known = message.fields.iter().find(|(field, _)| name == field || *name == camel(field));
            let Some((field, kind)) = known else {
                self.unknown(message, name, &at);
                continue;
            };
            if *value != Node::Null {
                set.push((field, name));
                self.value(kind, value, &at);
            }
        }
        let has = |field: &str| set.iter().any(|(name, _)| *name == field);
        let at = |name: &str| join(path, name);
        for (fields, is_required) in message.one_of {
            let mut given = set.iter().filter(|(field, _)| fields.contains(field));
            match (given.next(), given.next()) {
                (Some((first, _)), Some((second, name))) => {
                    let what = if first == second {
                        format!("`{first}` is given twice")
                    } else {
                        format!("`{first}` and `{second}` exclude each other")
                    };
                    self.add(&at(name), true, format!("{what}, so Envoy does not start"), Some("keep one".to_owned()));
                }
                (None, _) if *is_required => {
                    let names: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
                    let message = format!("needs one of {}, or Envoy does not start", names.join(", "));
                    self.push(FaultKind::Missing, path, true, message, None);
                }
                _ => {}
            }
        }
        for field in message.required.iter().filter(|field| !has(field)) {
            let message = format!("`{field}` is missing, so Envoy does not start");
            self.push(FaultKind::Missing, path, true, message, None);
        }
        if message.name == DYNAMIC_MODULE_CONFIG.name && !has("name") && !has("module") {
            let help = "write `module: {local: {filename: /etc/penstock/libpenstock.so}}`, or the `name` of a library in ENVOY_DYNAMIC_MODULES_SEARCH_PATH";
            let message = "names no library: neither `module` nor `name`";
            self.push(FaultKind::Missing, path, true, message, Some(help.to_owned()));
        }
        self.of_a_plugin(message, node, path);
        self.of_an_environment(message, node, path);
    }

    fn unknown(&mut self, message: &Message, name: &str, at: &str) {
        let near = message.fields.iter().map(|(field, _)| *field);
        let near = near.max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        let near = near.filter(|near| strsim::jaro_winkler(near, name) > 0.8);
        let names: Vec<&str> = message.fields.iter().map(|(field, _)| *field).collect();
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "it has no fields: leave it out".to_owned(),
            None => format!("expected one of: {}", names.join(", ")),
        };
        let message = format!("unknown field `{name}` in Envoy's {}", message.name);
        self.push(FaultKind::Unknown, at, true, message, Some(help));
    }

    fn value(&mut self, kind: &'static FieldKind, value: &Node, at: &str) {
        let wrong = |what: &str, help: &str| (what.to_owned(), Some(help.to_owned()));
        let (message, help) = match (kind, value) {
            (FieldKind::Message(inner), _) => return self.message(inner, value, at),
            (FieldKind::Bool | FieldKind::OptionalBool, _) if is_bool(value) => return,
            (FieldKind::OptionalBool, Node::Map(_)) => return,
            (FieldKind::Bool | FieldKind::OptionalBool, _) => {
                wrong("must be true or false, or Envoy does not start", "write true or false")
            }
            (FieldKind::Text | FieldKind::Runtime | FieldKind::Word | FieldKind::FilterName, Node::String(text)) => {
                match kind {
                    FieldKind::Word if text.is_empty() => {
                        wrong("must not be empty, or Envoy does not start", "give it a value")
                    }
                    FieldKind::Runtime => return self.runtime(text, at),
                    FieldKind::FilterName => return self.filter_name(text, at),
                    _ => return,
                }
            }
            (FieldKind::Text | FieldKind::Runtime | FieldKind::Word | FieldKind::FilterName, _) => {
                wrong("must be a string, or Envoy does not start", "put the value in quotes")
            }
            (FieldKind::Enum(words), _) if is_word(words, value) => return,
            (FieldKind::Enum(words), _) => (
                format!("is not a value of this field in Envoy; expected one of: {}", words.join(", ")),
                near_word(words, value),
            ),
            (FieldKind::Duration(_), Node::Map(_)) => return,
            (FieldKind::Duration(least), Node::String(text)) => match millis(text) {
                Some(time) if time >= *least as f64 => return,
                Some(_) if *least > 0 => wrong("is too short for Envoy", "write 0.001s, or more"),
                _ => wrong("is not a duration to Envoy, which does not start", "write seconds: 5s, 0.25s"),
            },
            (FieldKind::Duration(_), _) => {
                wrong("is not a duration to Envoy, which does not start", "write seconds: 5s, 0.25s")
            }
            (FieldKind::Number, _) if is_number(value) => return,
            (FieldKind::Number, _) => {
                wrong("must be a whole number, not below 0, or Envoy does not start", "write a number")
            }
            (FieldKind::Texts, Node::List(items)) => {
                for (i, item) in items.iter().enumerate() {
                    self.value(&FieldKind::Text, item, &format!("{at}[{i}]"));
                }
                return;
            }
            // Envoy takes one value for a list of one.
            (FieldKind::Texts, Node::String(_)) => return,
            (FieldKind::Texts, _) => wrong("must be a list of strings, or Envoy does not start", "write [NAME]"),
            (FieldKind::TextsByName, Node::Map(entries)) => {
                for (name, value) in entries {
                    self.value(&FieldKind::Text, value, &join(at, name));
                }
                return;
            }
            (FieldKind::MessagesByName(inner), Node::Map(entries)) => {
                for (name, value) in entries.iter().filter(|(_, value)| *value != Node::Null) {
                    self.message(inner, value, &join(at, name));
                }
                return;
            }
            (FieldKind::TextsByName | FieldKind::MessagesByName(_), _) => {
                wrong("must be an object, or Envoy does not start", "write {NAME: …}")
            }
            (FieldKind::Any | FieldKind::Policy, Node::Map(_)) => {
                return self.any(value, matches!(kind, FieldKind::Any), at);
            }
            (FieldKind::Any | FieldKind::Policy, _) => wrong(
                "must be an object with `@type`, or Envoy does not start",
                "write {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: …}",
            ),
            (FieldKind::Other, _) => return,
        };
        self.add(at, false, message, help);
    }

    fn any(&mut self, any: &Node, needs_type: bool, at: &str) {
        let type_url = text(any.get("@type")).unwrap_or_default();
        if needs_type && !type_url.contains('/') {
            self.add(at, true, "there is no `@type`, so Envoy does not start", None);
        }
        if let (Some((_, kind)), Node::Map(fields)) = (type_url.rsplit_once('/'), any)
            && kind.starts_with("google.protobuf.")
        {
            for (name, _) in fields.iter().filter(|(name, _)| !["@type", "value"].contains(&name.as_str())) {
                let help = "a type of google.protobuf has only `@type` and `value`".to_owned();
                self.add(&join(at, name), true, format!("unknown field `{name}` beside `value`"), Some(help));
            }
        }
    }

    fn runtime(&mut self, name: &str, at: &str) {
        const ELSEWHERE: [&str; 3] =
            ["envoy.wasm.runtime.wamr", "envoy.wasm.runtime.wasmtime", "envoy.wasm.runtime.wasmedge"];
        if name.is_empty() || name == "envoy.wasm.runtime.v8" {
            return;
        }
        let is_elsewhere = ELSEWHERE.contains(&name);
        let message = match is_elsewhere {
            true => format!("Envoy's published builds have no runtime `{name}`, and does not start"),
            false => format!("Envoy has no runtime `{name}`, and does not start"),
        };
        let kind = if is_elsewhere { FaultKind::Build } else { FaultKind::Wrong };
        self.push(kind, at, false, message, Some("use envoy.wasm.runtime.v8".to_owned()));
    }

    /// As our library reads it.
    fn filter_name(&mut self, name: &str, at: &str) {
        let module = name.split('/').next().unwrap_or_default();
        if Module::ALL.iter().all(|known| known.name() != module) {
            let names: Vec<&str> = Module::ALL.iter().map(|module| module.name()).collect();
            let help = format!("write MODULE or MODULE/NAME, where MODULE is one of: {}", names.join(", "));
            self.add(at, false, format!("our library has no module `{module}`, so Envoy does not start"), Some(help));
        }
    }

    fn of_a_plugin(&mut self, message: &Message, node: &Node, path: &str) {
        let policy = ["failure_policy", "failurePolicy"].into_iter().find_map(|name| Some((name, node.get(name)?)));
        let opens = ["fail_open", "failOpen"].iter().filter_map(|name| node.get(name)).any(is_true);
        let is_said =
            |value: &Node| !matches!(value, Node::Null | Node::Integer(0)) && text(Some(value)) != Some("UNSPECIFIED");
        if message.name == PLUGIN_CONFIG.name
            && let Some((name, value)) = policy
            && opens
            && is_said(value)
        {
            let message = "`fail_open` and `failure_policy` exclude each other, so Envoy does not start";
            self.add(&join(path, name), true, message, Some("leave `fail_open` out".to_owned()));
        }
        if message.name == PLUGIN_CONFIG.name
            && let Some(remark) = capabilities::remark(node).filter(|remark| remark.is_error)
        {
            self.add(&join(path, &remark.path), true, remark.message, Some(remark.help));
        }
    }

    fn of_an_environment(&mut self, message: &Message, node: &Node, path: &str) {
        if message.name != ENVIRONMENT.name {
            return;
        }
        let get = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, node.get(name)?)));
        let mut known: HashSet<&str> = HashSet::new();
        if let Some((_, Node::Map(entries))) = get(["key_values", "keyValues"]) {
            known.extend(entries.iter().map(|(name, _)| name.as_str()));
        }
        if let Some((field, Node::List(items))) = get(["host_env_keys", "hostEnvKeys"]) {
            for (i, item) in items.iter().enumerate() {
                if let Some(name) = text(Some(item)).filter(|name| !known.insert(name)) {
                    let at = join(path, &format!("{field}[{i}]"));
                    self.add(&at, false, format!("`{name}` is given twice, so Envoy does not start"), None);
                }
            }
        }
    }
}

fn text(node: Option<&Node>) -> Option<&str> {
    match node {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

/// A field's name in JSON.
pub(super) fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let (head, tail) = part.split_at_checked(1).unwrap_or((part, ""));
        [&name, &head.to_ascii_uppercase(), tail].concat()
    })
}

/// Whether Envoy reads it as true, where a boolean is due.
pub fn is_true(value: &Node) -> bool {
    matches!(value, Node::Bool(true)) || is_one_of(value, &["true", "t", "yes", "y", "1"])
}

fn is_bool(value: &Node) -> bool {
    is_true(value) || matches!(value, Node::Bool(_)) || is_one_of(value, &["false", "f", "no", "n", "0"])
}

fn is_one_of(value: &Node, words: &[&str]) -> bool {
    text(Some(value)).is_some_and(|text| words.iter().any(|word| word.eq_ignore_ascii_case(text)))
}

/// Words count in any case, and numbers in quotes too.
fn is_word(words: &[&str], value: &Node) -> bool {
    let is_number = |number: i64| usize::try_from(number).is_ok_and(|number| number < words.len());
    match value {
        Node::Integer(number) => is_number(*number),
        Node::String(text) => is_one_of(value, words) || text.parse::<i64>().is_ok_and(is_number),
        _ => false,
    }
}

fn near_word(words: &[&str], value: &Node) -> Option<String> {
    let text = text(Some(value))?.to_ascii_uppercase();
    let near = words.iter().max_by(|a, b| strsim::jaro_winkler(a, &text).total_cmp(&strsim::jaro_winkler(b, &text)));
    near.filter(|near| strsim::jaro_winkler(near, &text) > 0.8).map(|near| format!("did you mean `{near}`?"))
}

fn is_number(value: &Node) -> bool {
    let whole = |number: f64| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    match value {
        Node::Integer(number) => u32::try_from(*number).is_ok(),
        Node::Float(number) => whole(*number),
        Node::String(text) => text.parse().is_ok_and(whole),
        // `google.protobuf.UInt32Value` has a form of its own.
        Node::Map(_) => true,
        _ => false,
    }
}

/// A duration of JSON's form of protobuf, in milliseconds.
fn millis(text: &str) -> Option<f64> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds: f64 = (digits(whole) && digits(part) && part.len() <= 9).then(|| number.parse().ok()).flatten()?;
    (seconds <= 315_576_000_000.0).then_some(seconds * 1e3)
}

/// What is wrong with the type of a configuration, whatever its value is, and what would be right.
pub fn wrong_type(type_url: &str) -> Option<(&'static str, &'static str)> {
    let right = "write \"@type\": type.googleapis.com/google.protobuf.StringValue";
    match type_url.rsplit_once('/') {
        None if type_url.is_empty() => Some(("there is no `@type`, so Envoy does not start", right)),
        None | Some(("", _)) => Some(("the type has no host before its name, so Envoy does not start", right)),
        Some((_, kind)) => {
            let is_known = kind.strip_prefix("google.protobuf.").is_none_or(|name| WELL_KNOWN.contains(&name));
            (!is_known).then_some(("there is no such type, so Envoy does not start", right))
        }
    }
}

/// The types of `google.protobuf` that JSON has a form for.
const WELL_KNOWN: [&str; 17] = [
    "Any",
    "BoolValue",
    "BytesValue",
    "DoubleValue",
    "Duration",
    "Empty",
    "FieldMask",
    "FloatValue",
    "Int32Value",
    "Int64Value",
    "ListValue",
    "StringValue",
    "Struct",
    "Timestamp",
    "UInt32Value",
    "UInt64Value",
    "Value",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn said(filter: &str) -> Vec<String> {
        let faults = faults(&Located::read(filter).unwrap().node, true);
        faults
            .into_iter()
            .map(|fault| format!("{}: {} {}", fault.path, fault.message, fault.help.unwrap_or_default()))
            .collect()
    }

    fn wasm(plugin: &str) -> String {
        format!(
            "{{name: f, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {{{plugin}}}}}}}"
        )
    }

    const CODE: &str = "code: {local: {filename: /x}}";

    #[test]
    fn each_fault_of_a_field_is_said_at_its_place_with_what_is_near() {
        for (plugin, part) in [
            (
                "vm_config: {code: {local: {filename: /x}}}, fail_opne: true",
                "config.fail_opne: unknown field `fail_opne` in Envoy's PluginConfig did you mean `fail_open`?",
            ),
            (
                "vm_config: {code: {local: {filename: /x}}, vmid: a}",
                "vm_config.vmid: unknown field `vmid` in Envoy's VmConfig did you mean `vm_id`?",
            ),
            ("vm_config: {code: {local: {file: /x}}}", "local: needs one of `filename`"),
            ("vm_config: {}", "vm_config: `code` is missing"),
            ("name: a", "config: `vm_config` is missing"),
            ("vm_config: {code: {local: {filename: /x}}, runtime: v8}", "runtime: Envoy has no runtime `v8`"),
            ("vm_config: {code: {local: {filename: /x}}}, failure_policy: FAIL_CLOSE", "did you mean `FAIL_CLOSED`?"),
            (
                "vm_config: {code: {remote: {http_uri: {uri: u, cluster: c, timeout: 5}, sha256: a}}}",
                "timeout: is not a duration",
            ),
            (
                "vm_config: {code: {local: {filename: /x}}}, configuration: {\"@type\": a/google.protobuf.StringValue, valeu: x}",
                "unknown field `valeu` beside `value`",
            ),
        ] {
            let said = said(&wasm(plugin));
            assert!(said.iter().any(|line| line.contains(part)), "{plugin}: {said:?}");
        }
        assert_eq!(
            said(&wasm(&format!(
                "vmConfig: {{{CODE}}}, failOpen: \"no\", reload_config: {{backoff: {{base_interval: 0.5s}}}}"
            ))),
            [] as [&str; 0]
        );
        let moved = wasm(&format!("vm_config: {{{CODE}}}")).replace("filters.http.wasm", "filters.network.wasm");
        assert!(said(&moved)[0].contains("this is a network filter"));
        assert!(faults(&Located::read(&moved).unwrap().node, false).is_empty());
    }

    #[test]
    fn durations_are_seconds_as_in_protobufs_json() {
        for (text, expected) in [
            ("1s", Some(1000.0)),
            ("0.25s", Some(250.0)),
            ("1", None),
            ("1m", None),
            (".5s", None),
            ("-1s", None),
            ("0.0000000001s", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
