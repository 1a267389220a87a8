//! Policies inside other files: Kubernetes manifests and Envoy configurations with any number of documents. They are
//! parsed as the platform does: a string as the JSON that the module receives, everything else by the rules of the
//! component that stores the object.

mod attached;
mod capabilities;
pub mod copied_metadata;
mod embedded;
mod envoy_fields;
mod envoy_messages;
mod found;
mod kinds;
mod matchers;
mod objects;
mod patched_metadata;
mod path;
mod per_route;
mod platform;
mod plugin;
mod promise;
mod proxy_scope;
mod purpose;
mod repeated;
mod routes;
mod same_name;
mod search;
mod text;

use std::collections::HashMap;
use std::mem;
use std::ops::Range;

use penstock_policy::Problem;
use penstock_policy::document::Node;

use crate::diagnostics::{Finding, form_of};
use crate::text::SourceText;
use crate::yaml::{Located, NotYaml, Schema, Surprise};
pub use found::FoundPolicy;
use found::PlaceMapping;
pub use platform::{NativePlatform, unknown_natively};
pub use plugin::{ANNOTATION, LABEL, has_section, how_to_claim, is_our_library, is_ours, label, module_of};
pub use routes::HostRoutes;
use same_name::{NamedObject, NamedPlugin};

/// A file with all its documents.
#[derive(Debug)]
pub struct ManifestFile {
    text: SourceText,
    documents: Vec<Located>,
    /// The policies in order.
    pub policies: Vec<FoundPolicy>,
    /// Policies that the module could not parse, with their object.
    pub broken: Vec<(String, Finding)>,
    /// Warnings about objects without a policy, with the object.
    pub remarks: Vec<(String, Finding)>,
    /// Plugins of other vendors that seem to have a policy, with what they load.
    pub left_alone: Vec<(String, String)>,
    objects: Vec<NamedObject>,
}

impl ManifestFile {
    /// Parses a policy, or a file that contains policies. A document that is neither a Kubernetes object nor an Envoy
    /// configuration is a policy.
    ///
    /// # Errors
    /// Returns an error when the text is not valid YAML.
    pub fn read(text: SourceText) -> Result<ManifestFile, NotYaml> {
        let documents = Located::read_all(&text)?;
        Ok(ManifestFile::of(text, documents, false))
    }

    /// Parses a file by its name, as its platform does. With `all`, plugins with a policy count even if their image is
    /// not one of ours.
    ///
    /// # Errors
    /// Returns an error when the text is not valid YAML or JSON.
    pub fn read_as(name: &str, text: SourceText, all: bool) -> Result<ManifestFile, NotYaml> {
        let documents = named(name, &text)?;
        Ok(ManifestFile::of(text, documents, all))
    }

    fn of(text: SourceText, mut documents: Vec<Located>, all: bool) -> ManifestFile {
        let mut twice = Vec::new();
        for located in &mut documents {
            if let Some(resource) = kinds::resource(&located.node) {
                let paths = repeated::keep_last(&mut located.node);
                twice
                    .extend(paths.into_iter().map(|path| (resource.clone(), repeated::finding(&path, located, &text))));
            }
        }
        let mut found = search::ManifestSearch::new(&text, all);
        for (document, located) in documents.iter().enumerate() {
            match kinds::resource(&located.node) {
                // The text after a last `---` is not a document.
                None if located.node == Node::Null && documents.len() > 1 => {}
                None if objects::is_half_an_object(&located.node) => found.half_an_object(located),
                None => found.policies.push(FoundPolicy::document(None, document, &located.node)),
                Some(resource) if document > 0 && envoy_reads(documents.first()) => found.unread(&resource, located),
                Some(resource) => found.document(&resource, document, located),
            }
        }
        let files: Vec<_> = documents.iter().flat_map(|located| embedded::files(located, &text)).collect();
        for embedded::EmbeddedFile { place, is_policy, document } in files {
            match document {
                Err((span, error)) => {
                    let message = format!("not YAML: {}", error.message);
                    found.broken.push((place, Finding::at(span, message, error.help, &text)));
                }
                Ok(located) => {
                    let document = documents.len();
                    match kinds::resource(&located.node) {
                        Some(resource) => found.document(&format!("{resource} in {place}"), document, &located),
                        None if is_policy => {
                            found.policies.push(FoundPolicy::document(Some(place), document, &located.node))
                        }
                        None => {}
                    }
                    documents.push(located);
                }
            }
        }
        let search::ManifestSearch { mut policies, broken, mut remarks, left_alone, objects, .. } = found;
        // Warnings about an object with a policy are reported with the policy.
        remarks.retain(|(resource, finding)| {
            let policy = policies.iter_mut().find(|policy| policy.resource.as_ref() == Some(resource));
            policy.map(|policy| policy.doubts.push(finding.clone())).is_none()
        });
        for (resource, finding) in twice {
            let of =
                |policy: &&mut FoundPolicy| policy.resource.as_ref().is_some_and(|name| name.starts_with(&resource));
            policies.iter_mut().find(of).into_iter().for_each(|policy| policy.doubts.push(finding.clone()));
        }
        let mut file = ManifestFile { text, documents, policies, broken, remarks, left_alone, objects };
        same_names(&mut [("", &mut file)]);
        find_copies(&mut [("", &mut file)]);
        file
    }

    /// The trees of the documents that are not policies.
    pub fn host_configs(&self) -> impl Iterator<Item = &Node> {
        self.documents.iter().map(|located| &located.node).filter(|node| kinds::resource(node).is_some())
    }

    /// The whole text.
    pub fn text(&self) -> &SourceText {
        &self.text
    }

    /// Maps a problem of a policy to the file; adds how the platform parsed the value, when that is the cause.
    pub fn finding(&self, policy: &FoundPolicy, problem: &Problem) -> Finding {
        let span = self.span(policy, &problem.path, problem.value.is_none());
        let surprise = self.surprises(policy).find(|(path, _)| *path == problem.path);
        let help = surprise.and_then(|(_, surprise)| misread(surprise, self.schema(policy)));
        Finding {
            path: problem.path.clone(),
            value: problem.value.clone(),
            ..Finding::at(
                span,
                problem.message.clone(),
                help.or_else(|| form_of(problem)).or_else(|| problem.help.clone()),
                &self.text,
            )
        }
    }

    /// Problems of notation in a policy that could be parsed: numbers that parsers disagree about.
    pub fn misreadings<'f>(&'f self, policy: &'f FoundPolicy) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.surprises(policy).filter_map(|(path, surprise)| match surprise {
            Surprise::Octal(text) => Some((path, text.as_str())),
            _ => None,
        })
    }

    /// The diagnostic for one of [`ManifestFile::misreadings`].
    pub fn misreading(&self, policy: &FoundPolicy, path: &str, text: &str) -> Finding {
        let digits = text.trim_start_matches(['+', '-', '0', '_']);
        let decimal = if digits.is_empty() { "0" } else { digits };
        let message = match i64::from_str_radix(decimal, 8) {
            Ok(octal) => format!("begins with zero: Kubernetes and Envoy read it as an octal number, {octal}"),
            Err(_) => "begins with zero: parsers disagree about the number".to_owned(),
        };
        let help = Some(format!("write {decimal}, or put it in quotes if it is text"));
        let found = Finding::at(self.span(policy, path, false), message, help, &self.text);
        Finding { path: path.to_owned(), value: Some(text.to_owned()), ..found }
    }

    fn span(&self, policy: &FoundPolicy, path: &str, key: bool) -> Range<usize> {
        match &policy.place {
            PlaceMapping::Inside { document, prefix } => {
                let path = path::join(prefix, path);
                self.documents.get(*document).map_or(0..0, |located| located.span(&path, key))
            }
            PlaceMapping::Text { located, bytes } => text::outer(&located.span(path, key), bytes),
            PlaceMapping::Encoded(span) => span.clone(),
        }
    }

    fn surprises<'f>(&'f self, policy: &'f FoundPolicy) -> impl Iterator<Item = (&'f str, &'f Surprise)> {
        let inside = match &policy.place {
            PlaceMapping::Inside { document, prefix } => self.documents.get(*document).map(|located| (located, prefix)),
            _ => None,
        };
        inside.into_iter().flat_map(|(located, prefix)| located.surprises(prefix))
    }

    fn schema(&self, policy: &FoundPolicy) -> Schema {
        match &policy.place {
            PlaceMapping::Inside { document, .. } => {
                self.documents.get(*document).map_or(Schema::Core, |located| located.schema)
            }
            _ => Schema::Json,
        }
    }
}

/// Adds warnings about objects that Istio runs twice, as two kinds in two files.
fn two_kinds(files: &mut [(&str, &mut ManifestFile)]) {
    let mut earlier: HashMap<String, (String, String)> = HashMap::new();
    for (name, file) in files {
        let ManifestFile { text, policies, objects, .. } = &mut **file;
        for object in objects.iter() {
            let known = object.resource.split_once(' ').and_then(|(_, name)| earlier.get(name));
            let other = known.and_then(|(file, known)| Some((file, same_name::other_kind(known, &object.resource)?)));
            if let (Some((file, other)), Some(found)) = (other, policies.get_mut(object.policy)) {
                let message =
                    format!("a {other} of the same name is in {file}: Istio runs both, and each request twice");
                let help = Some(same_name::REPLACED.to_owned());
                found.doubts.push(Finding::at(object.span.clone(), message, help, text));
            }
        }
        for object in objects.iter() {
            let key = object.resource.split_once(' ').map_or("", |(_, name)| name).to_owned();
            earlier.entry(key).or_insert_with(|| ((*name).to_owned(), object.resource.clone()));
        }
    }
}

/// Adds warnings about plugins of one name, and objects that replace each other, in several files (with their names) or in
/// one.
pub fn same_names(files: &mut [(&str, &mut ManifestFile)]) {
    two_kinds(files);
    let mut places = Vec::new();
    let mut plugins = Vec::new();
    for (number, (name, file)) in files.iter().enumerate() {
        for (policy, found) in file.policies.iter().enumerate() {
            if let Some(identity) = &found.identity {
                places.push((number, policy));
                let object = found.resource.as_deref().unwrap_or_default();
                let object = object.split(',').next().unwrap_or(object);
                plugins.push(NamedPlugin { identity, policy: &found.node, object, file: (number, *name) });
            }
        }
    }
    let doubts: Vec<_> = same_name::shared(&plugins)
        .into_iter()
        .filter_map(|(plugin, message, help)| Some((*places.get(plugin)?, message, help)))
        .collect();
    for ((file, policy), message, help) in doubts {
        let Some((_, file)) = files.get_mut(file) else { continue };
        let ManifestFile { text, policies, .. } = &mut **file;
        let Some((found, span)) = policies
            .get_mut(policy)
            .and_then(|found| found.identity.as_ref().map(|of| of.span.clone()).map(|span| (found, span)))
        else {
            continue;
        };
        let finding = Finding::at(span, message, Some(help), text);
        // Of those of one file, only the first time.
        let is_known = |known: &Finding| known.span == finding.span && known.message.contains(" is called `");
        if !found.doubts.iter().any(is_known) {
            found.doubts.push(finding);
        }
    }
}

/// Finds the copies for the policies of these files in the EnvoyPatchPolicies of any of them.
pub fn find_copies(files: &mut [(&str, &mut ManifestFile)]) {
    for number in 0..files.len() {
        let Some((_, file)) = files.get_mut(number) else { continue };
        let mut policies = mem::take(&mut file.policies);
        for policy in &mut policies {
            let Some(uncopied) = &mut policy.uncopied else { continue };
            for located in files.iter().flat_map(|(_, file)| &file.documents) {
                uncopied.remove_copies_of(&located.node);
            }
            if uncopied.is_empty() {
                policy.uncopied = None;
            }
        }
        if let Some((_, file)) = files.get_mut(number) {
            file.policies = policies;
        }
    }
}

/// The documents of a file with this name. A file `.json` is strict JSON, except for Envoy, whose parser is less
/// strict; and Envoy parses `.yaml` as YAML even when it looks like JSON.
fn named(name: &str, text: &SourceText) -> Result<Vec<Located>, NotYaml> {
    let name = name.to_ascii_lowercase();
    let is_envoys = |located: &Located| kinds::resource(&located.node).is_some_and(|name| name.starts_with("Envoy "));
    if name.ends_with(".json") {
        if text.trim().is_empty() {
            return Ok(vec![Located::read("")?]);
        }
        let strict = Located::read_json(text);
        return match (strict, Located::read_envoy_json(text)) {
            (Ok(located), _) => Ok(vec![located]),
            (Err(_), Ok(located)) if is_envoys(&located) => Ok(vec![located]),
            (Err(error), _) => Err(error),
        };
    }
    let documents = Located::read_all(text)?;
    let is_yaml = [".yaml", ".yml"].iter().any(|ending| name.ends_with(ending));
    if is_yaml
        && documents.first().is_some_and(|first| first.schema == Schema::Json && is_envoys(first))
        && let Ok(documents) = Located::read_yaml(text)
    {
        return Ok(documents);
    }
    Ok(documents)
}

/// Whether Envoy gets this document; it reads only the first one.
fn envoy_reads(first: Option<&Located>) -> bool {
    first.and_then(|first| kinds::resource(&first.node)).is_some_and(|resource| resource.starts_with("Envoy "))
}

/// The suggestion for a word that its parser interprets differently.
fn misread(surprise: &Surprise, schema: Schema) -> Option<String> {
    match (surprise, schema) {
        (Surprise::Word(word), Schema::Kubernetes) => {
            Some(format!("Kubernetes reads the bare word `{word}` as a boolean: put it in quotes, \"{word}\""))
        }
        (Surprise::Word(word), Schema::Envoy) => {
            Some(format!("Envoy reads the bare word `{word}` as a boolean: put it in quotes, \"{word}\""))
        }
        (Surprise::Text(number), Schema::Envoy) => Some(format!(
            "Envoy passes the number {number} of a Struct as text: give the policy as JSON in a StringValue"
        )),
        (Surprise::Key(word), _) if word == "on" => Some(
            "Kubernetes reads the bare word `on` as `true`: write `retryOn`, its other name, or \"on\" in quotes"
                .to_owned(),
        ),
        (Surprise::Key(word), _) => {
            Some(format!("Kubernetes reads the bare word `{word}` as a boolean: put it in quotes, \"{word}\""))
        }
        (Surprise::Word(word), Schema::Core) => Some(format!("`{word}` is a string: write true or false")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use penstock_policy::Module;

    use super::*;

    fn places(text: &str) -> Vec<String> {
        let file = ManifestFile::read(SourceText::new(text)).unwrap();
        let mut lines = Vec::new();
        for policy in &file.policies {
            let problems = penstock_policy::check(&policy.node, policy.module.unwrap_or(Module::Suite)).unwrap_err();
            for problem in &problems {
                let finding = file.finding(policy, problem);
                let resource = policy.resource.clone().unwrap_or_default();
                lines.push(format!("{resource} {}:{} {}", finding.line, finding.column, &text[finding.span.clone()]));
            }
        }
        lines
    }

    #[test]
    fn policies_of_all_hosts_are_found_and_problems_have_their_place_in_the_file() {
        for (text, expected) in [
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n---\napiVersion: extensions.istio.io/v1alpha1\n\
                 kind: WasmPlugin\nmetadata: {name: p, namespace: ns}\nspec:\n  pluginConfig:\n    route: {}\n    routes: {}\n",
                "WasmPlugin ns/p 10:5 route",
            ),
            (
                "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: p}\nspec:\n  wasm:\n    \
                 url: oci://r.test/penstock/header-routing:1\n    pluginConfig: {canaries: []}\n",
                "TrafficExtension p 7:20 canaries",
            ),
            (
                "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {name: p}\nspec:\n  wasm:\n  \
                 - config: {routes: {default: a b}}\n",
                "EnvoyExtensionPolicy p 6:32 a b",
            ),
        ] {
            assert_eq!(places(text)[0], expected);
        }
    }

    #[test]
    fn a_policy_in_a_string_has_places_however_the_string_is_written() {
        let inside = |scalar: &str| {
            format!(
                "static_resources:\n  config:\n    vm_config: {{code: {{local: {{filename: /x/suite.wasm}}}}}}\n    configuration:\n      \"@type\": type.googleapis.com/google.protobuf.StringValue\n      value: {scalar}\n"
            )
        };
        for (scalar, line, text) in [
            (
                "|\n        {\n          \"routes\": {\n            \"default\": \"a b\"\n          }\n        }",
                9,
                "\"a b\"",
            ),
            ("'{\"routes\": {\"default\": \"a b\"}}'", 6, "\"a b\""),
            (r#""{\"routes\": {\"default\": \"a b\"}}""#, 6, r#"\"a b\""#),
            (">-\n        {\"routes\":\n        {\"default\": \"a b\"}}", 8, "\"a b\""),
        ] {
            let text_of_file = inside(scalar);
            let found = places(&text_of_file);
            assert!(found[0].starts_with(&format!("Envoy bootstrap {line}:")), "{found:?}");
            assert!(
                text.contains(
                    found[0].split_once(' ').unwrap().1.split_once(' ').unwrap().1.split_once(' ').unwrap().1
                ),
                "{found:?}"
            );
        }
        let file = ManifestFile::read(SourceText::new(inside("'{\"routes\": '"))).unwrap();
        assert!(file.policies.is_empty() && file.broken[0].1.line == 6, "{:?}", file.broken);
    }

    #[test]
    fn a_file_of_envoys_is_read_by_its_name_as_envoy_reads_it() {
        let bootstrap = |policy: &str| {
            format!(
                r#"{{"static_resources": {{"config": {{"name": "penstock", "vm_config": {{}}, "configuration": {{
                    "@type": "type.googleapis.com/google.protobuf.StringValue", {policy}}}}}}}}}"#
            )
        };
        let value = |route: &str| format!(r#""value": "{{\"routes\": {{\"default\": \"{route}\"}}}}""#);
        let default =
            |file: &ManifestFile| file.policies[0].node.get("routes").unwrap().get("default").unwrap().to_string();
        let read = |name: &str, text: &str| ManifestFile::read_as(name, SourceText::new(text), false);
        // A trailing comma, and a name without quotes.
        let lenient = bootstrap(&format!("{},", value("a"))).replace("\"name\"", "name");
        assert_eq!(default(&read("a.json", &lenient).unwrap()), "\"a\"");
        assert!(read("a.json", "{\"routes\": {\"default\": \"a\",}}").is_err());
        // The last of duplicate fields counts.
        for name in ["a.json", "a.yaml", "-"] {
            let file = read(name, &bootstrap(&format!("{}, {}", value("a"), value("b")))).unwrap();
            assert_eq!((default(&file).as_str(), file.policies.len()), ("\"b\"", 1), "{name}");
            assert!(file.policies[0].doubts.iter().any(|doubt| doubt.message.contains("given twice")), "{name}");
        }
        // Envoy's YAML parser converts a number in a Struct to a string, but its JSON parser does not.
        let native = r#"{"static_resources": {"a": {"dynamic_module_config": {"name": "penstock"}, "filter_name": "suite", "filter_config": {
            "@type": "type.googleapis.com/google.protobuf.Struct", "value": {"routes": {"default": 1.5}}}}}}"#;
        assert_eq!(default(&read("a.yaml", native).unwrap()), "\"1.5\"");
        assert_eq!(default(&read("a.json", native).unwrap()), "1.5");
    }

    #[test]
    fn objects_of_other_kinds_hold_no_policy_whatever_their_fields_are_called() {
        for (kind, count) in [("KongPlugin", 0), ("Deployment", 0), ("Thing", 0), ("WasmPlugin", 1)] {
            let text = format!(
                "apiVersion: x.test/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  config: {{settings: {{x: 1}}}}\n  configuration: {{routes: {{a: b}}}}\n"
            );
            let file = ManifestFile::read(SourceText::new(&text)).unwrap();
            assert_eq!((file.policies.len(), file.broken.len()), (count, count), "{kind}");
        }
        // A plugin that loads our code is ours in an object of any kind.
        let text = "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {name: a}\nspec:\n  resources:\n  - config: {vm_config: {code: {local: {filename: /x/penstock/suite.wasm}}}, configuration: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: '{}'}}\n";
        assert_eq!(ManifestFile::read(SourceText::new(text)).unwrap().policies.len(), 1);
    }

    #[test]
    fn rules_of_a_plugin_of_others_are_theirs_too() {
        let text = "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\nspec:\n  url: oci://r.test/key-rate-limit:1\n  matchRules:\n  - {ingress: [a/b], config: {routes: {default: a}}}\n";
        let file = ManifestFile::read(SourceText::new(text)).unwrap();
        assert!(file.policies.is_empty() && file.left_alone.len() == 1);
    }

    #[test]
    fn the_plugins_of_others_are_left_alone() {
        let text = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\nspec:\n  url: oci://r.test/waf\n  pluginConfig: {rules: 1}\n";
        assert!(ManifestFile::read(SourceText::new(text)).unwrap().policies.is_empty());
    }
}
