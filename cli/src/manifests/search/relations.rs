//! What policies of a document have to do with each other, and with what stands around them.

use penstock_policy::document::Node;

use super::ManifestSearch;
use crate::diagnostics::Finding;
use crate::manifests::attached;
use crate::manifests::matchers;
use crate::manifests::objects;
use crate::manifests::path::join;
use crate::manifests::per_route::RouteRemark;
use crate::manifests::promise::Surroundings;
use crate::manifests::proxy_scope::ProxyScope;
use crate::manifests::same_name::{self, NamedObject};
use crate::yaml::Located;

impl ManifestSearch<'_> {
    /// Reports on an object whose policies begin at this index.
    pub(super) fn of_an_object(&mut self, resource: &str, located: &Located, object: &Node, path: &str, first: usize) {
        self.second_object(resource, located, path, first);
        if let Some(found) = self.policies.get_mut(first) {
            for remark in objects::wrong_metadata(object) {
                let span = located.span(&join(path, &remark.path), false);
                let finding = Finding::at(span, remark.message, Some(remark.help), self.text);
                found.faults.push(Finding { path: remark.path, ..finding });
            }
        }
        self.attached(located, object, path, first);
        self.identities(located, object, first);
    }

    /// Reports on a document whose policies begin at this index.
    pub(super) fn of_a_document(&mut self, first: usize, located: &Located) {
        self.surroundings(first, located);
        self.matchers(first, located);
        self.per_route(first, located);
    }

    /// Warnings about the connection managers that run the policies from this index on.
    fn surroundings(&mut self, first: usize, located: &Located) {
        let all = Surroundings::of(&located.node);
        for (number, policy) in self.policies.iter_mut().enumerate().skip(first) {
            let Some(place) = self.plugins.get(&number) else { continue };
            let around = all.iter().filter(|around| around.has(&place.path, place.filter.as_deref()));
            for doubt in around.flat_map(|around| around.doubts(&policy.node, &located.node)) {
                // Equal listeners get one warning.
                if policy.doubts.iter().all(|other| other.message != doubt.message) {
                    let span = located.span(&doubt.path, false);
                    policy.doubts.push(Finding::at(span, doubt.message, Some(doubt.help), self.text));
                }
            }
        }
    }

    /// Warnings about matchers that keep requests from the plugins from this index on.
    fn matchers(&mut self, first: usize, located: &Located) {
        let all = matchers::of(&located.node);
        for (number, policy) in self.policies.iter_mut().enumerate().skip(first) {
            let Some(place) = self.plugins.get(&number) else { continue };
            for (path, message, help) in all.iter().filter_map(|matcher| matcher.doubt(&place.path)) {
                policy.doubts.push(Finding::at(located.span(&path, true), message, Some(help), self.text));
            }
        }
    }

    /// Keeps, for comparisons with those of other objects, what the plugins of an object are known by.
    fn identities(&mut self, located: &Located, object: &Node, first: usize) {
        let scope = ProxyScope::of(object);
        for (number, found) in self.policies.iter_mut().enumerate().skip(first) {
            // A dump contains what other documents configure.
            let is_dump = found.resource.as_ref().is_some_and(|resource| resource.contains("dump"));
            let place = self.plugins.get_mut(&number).filter(|_| !is_dump);
            found.identity = place.and_then(|place| place.identity.take());
            if let Some(identity) = &mut found.identity {
                identity.object = first;
                identity.scope = scope.clone();
                identity.span = located.span(&identity.path, false);
            }
        }
    }

    /// Warnings about where an object puts its plugins, whose policies begin at this index.
    fn attached(&mut self, located: &Located, object: &Node, path: &str, first: usize) {
        for number in first..self.policies.len() {
            let (Some(place), Some(found)) = (self.plugins.get(&number), self.policies.get_mut(number)) else {
                continue;
            };
            let below = place.path.strip_prefix(path).unwrap_or(&place.path).trim_start_matches('.');
            for remark in attached::doubts(object, below, &found.node) {
                let span = located.span(&join(path, &remark.path), !remark.is_value);
                found.doubts.push(Finding::at(span, remark.message, Some(remark.help), self.text));
            }
        }
    }

    /// Warns when a file has an object twice.
    fn second_object(&mut self, resource: &str, located: &Located, path: &str, first: usize) {
        if self.policies.len() == first || resource.starts_with("Envoy ") || resource.ends_with('…') {
            return;
        }
        let second = self.objects.iter().find_map(|earlier| same_name::second_object(&earlier.resource, resource));
        let span = located.span(&join(path, "metadata.name"), false);
        if let (Some((message, help)), Some(found)) = (second, self.policies.get_mut(first)) {
            found.doubts.push(Finding::at(span.clone(), message, Some(help.to_owned()), self.text));
        }
        self.objects.push(NamedObject { resource: resource.to_owned(), policy: first, span });
    }

    /// What the routes of a document say about its filters, of which the policies from this index on are ours.
    fn per_route(&mut self, first: usize, located: &Located) {
        let settings = std::mem::take(&mut self.route_settings);
        let filters = (first..self.policies.len()).filter_map(|number| Some((number, self.plugins.get(&number)?)));
        let filters: Vec<(usize, &str)> =
            filters.filter_map(|(number, place)| Some((number, place.filter.as_deref()?))).collect();
        for RouteRemark { resource, policy, path, is_error, message, help } in settings.remarks(&filters) {
            let finding = Finding::at(located.span(&path, true), message, Some(help), self.text);
            match policy.and_then(|number| self.policies.get_mut(number)) {
                _ if is_error => self.broken.push((resource, finding)),
                Some(found) => found.doubts.push(finding),
                None => self.remarks.push((resource, finding)),
            }
        }
    }
}
