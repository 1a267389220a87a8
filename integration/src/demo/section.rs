//! One section of the demo.

use std::path::PathBuf;

use anyhow::Result;

use super::stage::Stage;
use crate::http::HttpRequest;
use crate::listener::Listener;
use crate::workspace;

/// One section of the demo, on its own listener.
pub(super) struct DemoSection {
    /// The name of the listener, of its filter, and of the policy's file.
    pub(super) name: &'static str,
    /// The headline.
    pub(super) title: &'static str,
    /// The policy in YAML.
    pub(super) policy: &'static str,
    /// Adds the listener's own routes.
    pub(super) routes: fn(Listener) -> Listener,
    /// Sends the requests and checks the responses.
    pub(super) walk: fn(&mut Stage) -> Result<()>,
    /// The request of visitor `number` while the demo keeps running.
    pub(super) visit: fn(usize) -> HttpRequest,
    /// Commands for the user to try: arguments of curl, with `{url}` for the listener's address.
    pub(super) try_it: &'static [&'static str],
    /// A policy change for the user to try.
    pub(super) edit_it: &'static str,
}

impl DemoSection {
    /// The file of its policy, which the user may edit.
    pub(super) fn file(&self) -> PathBuf {
        folder().join(format!("{}.yaml", self.name))
    }
}

/// The folder in which the user finds the policies.
pub(super) fn folder() -> PathBuf {
    workspace::root().join("target/demo")
}
