//! Policies inside other files: Kubernetes manifests and Envoy configurations, of several documents each. They are read
//! as the platform reads them: a string as the JSON that the module takes it for, everything else by the rules of who
//! stores the object.

mod found;
mod objects;
mod path;
mod platform;
mod plugin;
mod promise;
mod routes;
mod search;
mod text;

use std::ops::Range;

use penstock_policy::Problem;
use penstock_policy::document::Node;

use crate::diagnostics::Finding;
use crate::text::SourceText;
use crate::yaml::{Located, NotYaml, Schema, Surprise};
pub use found::FoundPolicy;
use found::PlaceMapping;
pub use plugin::{ANNOTATION, has_section, is_our_library, is_ours, module_of};
pub use routes::HostRoutes;
pub use search::how_to_claim;

/// A file with all its documents.
#[derive(Debug)]
pub struct ManifestFile {
    text: SourceText,
    documents: Vec<Located>,
    /// The policies in order.
    pub policies: Vec<FoundPolicy>,
    /// Policies that the module could not even read, with their object.
    pub broken: Vec<(String, Finding)>,
    /// What is doubtful about objects that hold no policy, with the object.
    pub remarks: Vec<(String, Finding)>,
    /// Plugins of others that look as if they had a policy, with what they load.
    pub left_alone: Vec<(String, String)>,
}

impl ManifestFile {
    /// Reads a policy, or what holds some. A document that is neither an object of Kubernetes nor a configuration of
    /// Envoy is a policy.
    ///
    /// # Errors
    /// Text that is not YAML.
    pub fn read(text: SourceText) -> Result<ManifestFile, NotYaml> {
        let documents = Located::read_all(&text)?;
        Ok(ManifestFile::of(text, documents, false))
    }

    /// Reads a file by its name: what ends in `.json` is strict JSON. With `all`, plugins whose image is not one of ours
    /// count too when they have a policy.
    ///
    /// # Errors
    /// Text that is not YAML, or not JSON.
    pub fn read_as(name: &str, text: SourceText, all: bool) -> Result<ManifestFile, NotYaml> {
        let documents = match name.to_ascii_lowercase().ends_with(".json") {
            true if text.trim().is_empty() => vec![Located::read("")?],
            true => vec![Located::read_json(&text)?],
            false => Located::read_all(&text)?,
        };
        Ok(ManifestFile::of(text, documents, all))
    }

    fn of(text: SourceText, documents: Vec<Located>, all: bool) -> ManifestFile {
        let mut found = search::ManifestSearch::new(&text, all);
        for (document, located) in documents.iter().enumerate() {
            match search::resource(&located.node) {
                // What follows a last `---`.
                None if located.node == Node::Null && documents.len() > 1 => {}
                None => found.policies.push(FoundPolicy {
                    resource: None,
                    node: located.node.clone(),
                    module: None,
                    doubts: Vec::new(),
                    place: PlaceMapping::Inside { document, prefix: String::new() },
                }),
                Some(resource) if document > 0 && envoy_reads(documents.first()) => found.unread(&resource, located),
                Some(resource) => found.document(&resource, document, located),
            }
        }
        let search::ManifestSearch { mut policies, broken, mut remarks, left_alone, .. } = found;
        // What is said of an object with a policy is said with the policy.
        remarks.retain(|(resource, finding)| {
            let policy = policies.iter_mut().find(|policy| policy.resource.as_ref() == Some(resource));
            policy.map(|policy| policy.doubts.push(finding.clone())).is_none()
        });
        ManifestFile { text, documents, policies, broken, remarks, left_alone }
    }

    /// The trees of the documents that are no policy.
    pub fn host_configs(&self) -> impl Iterator<Item = &Node> {
        self.documents.iter().map(|located| &located.node).filter(|node| search::resource(node).is_some())
    }

    /// The whole text.
    pub fn text(&self) -> &SourceText {
        &self.text
    }

    /// A problem of a policy, placed in the file; with the platform's own reading of the value, when that is the cause.
    pub fn finding(&self, policy: &FoundPolicy, problem: &Problem) -> Finding {
        let span = self.span(policy, &problem.path, problem.value.is_none());
        let surprise = self.surprises(policy).find(|(path, _)| *path == problem.path);
        let help = surprise.and_then(|(_, surprise)| misread(surprise, self.schema(policy)));
        Finding {
            path: problem.path.clone(),
            value: problem.value.clone(),
            ..Finding::at(span, problem.message.clone(), help.or_else(|| problem.help.clone()), &self.text)
        }
    }

    /// What is wrong with how a policy is written although it could be read: numbers that readers disagree about.
    pub fn misreadings<'f>(&'f self, policy: &'f FoundPolicy) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.surprises(policy).filter_map(|(path, surprise)| match surprise {
            Surprise::Octal(text) => Some((path, text.as_str())),
            _ => None,
        })
    }

    /// Of one of [`ManifestFile::misreadings`].
    pub fn misreading(&self, policy: &FoundPolicy, path: &str, text: &str) -> Finding {
        let digits = text.trim_start_matches(['+', '-', '0', '_']);
        let decimal = if digits.is_empty() { "0" } else { digits };
        let message = match i64::from_str_radix(decimal, 8) {
            Ok(octal) => format!("begins with zero: Kubernetes and Envoy read it as an octal number, {octal}"),
            Err(_) => "begins with zero: readers disagree about what number that is".to_owned(),
        };
        let help = Some(format!("write {decimal}, or put it in quotes if it is a text"));
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

/// Whether Envoy is given this document, of which it reads the first only.
fn envoy_reads(first: Option<&Located>) -> bool {
    first.and_then(|first| search::resource(&first.node)).is_some_and(|resource| resource.starts_with("Envoy "))
}

/// What to do about a word that its reader takes for something else.
fn misread(surprise: &Surprise, schema: Schema) -> Option<String> {
    match (surprise, schema) {
        (Surprise::Word(word), Schema::Kubernetes) => {
            Some(format!("Kubernetes reads the bare word `{word}` as a boolean: put it in quotes, \"{word}\""))
        }
        (Surprise::Word(word), Schema::Envoy) => {
            Some(format!("Envoy reads the bare word `{word}` as a boolean: put it in quotes, \"{word}\""))
        }
        (Surprise::Text(number), Schema::Envoy) => Some(format!(
            "Envoy hands the number {number} of a Struct over as a text: give the policy as JSON in a StringValue"
        )),
        (Surprise::Key(word), _) if word == "on" => Some(
            "Kubernetes reads the bare word `on` as `true`: write `retryOn`, its other name, or \"on\" in quotes"
                .to_owned(),
        ),
        (Surprise::Key(word), _) => {
            Some(format!("Kubernetes reads the bare word `{word}` as a boolean: put it in quotes, \"{word}\""))
        }
        (Surprise::Word(word), Schema::Core) => Some(format!("`{word}` is a text: write true or false")),
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
    fn the_plugins_of_others_are_left_alone() {
        let text = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\nspec:\n  url: oci://r.test/waf\n  pluginConfig: {rules: 1}\n";
        assert!(ManifestFile::read(SourceText::new(text)).unwrap().policies.is_empty());
    }
}
