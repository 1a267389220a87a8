//! Filter configurations that Envoy discovers from a file (ECDS), so that a new policy does not drain the listener.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::wasm::{TYPE_URLS, WasmFilter};

/// How Envoy received a new policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Every worker uses the new policy.
    Taken,
    /// Envoy keeps the old policy. The value is what the module and Envoy logged about the new one.
    Refused(String),
}

impl Reload {
    /// The reasons for the refusal, a line for each problem: the module's messages, or Envoy's last log lines when
    /// there are none.
    pub fn reasons(&self) -> Vec<&str> {
        const MODULE: &str = "configuration refused: ";
        let Reload::Refused(log) = self else { return Vec::new() };
        let said: Vec<&str> = log.lines().filter_map(|line| line.split_once(MODULE)).map(|(_, why)| why).collect();
        if said.is_empty() { log.trim().lines().last().into_iter().collect() } else { said }
    }
}

/// The file from which Envoy discovers the configuration of one filter.
#[derive(Debug)]
pub(crate) struct Feed {
    filter: WasmFilter,
    path: PathBuf,
    version: u64,
}

impl Feed {
    /// Writes the first version into `folder`.
    pub(crate) fn new(folder: &Path, filter: WasmFilter) -> Result<Self> {
        let folder = folder.join("ecds");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.json", filter.name()));
        let mut feed = Feed { filter, path, version: 0 };
        feed.publish()?;
        Ok(feed)
    }

    pub(crate) fn name(&self) -> &str {
        self.filter.name()
    }

    pub(crate) fn filter(&self) -> &WasmFilter {
        &self.filter
    }

    /// The entry in `http_filters` that refers to the file.
    pub(crate) fn http_filter(&self) -> Value {
        json!({
            "name": self.name(),
            "config_discovery": {
                "type_urls": TYPE_URLS,
                "config_source": {"path_config_source": {"path": self.path}, "resource_api_version": "V3"},
            },
        })
    }

    /// Replaces the filter and writes the file. Envoy only reacts to a file that is moved into place, not to one that
    /// is written.
    pub(crate) fn replace(&mut self, filter: WasmFilter) -> Result<()> {
        self.filter = filter;
        self.publish()
    }

    fn publish(&mut self) -> Result<()> {
        self.version += 1;
        let response = json!({
            "version_info": self.version.to_string(),
            "resources": [{
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": self.name(),
                "typed_config": self.filter.typed_config(),
            }],
        });
        let next = self.path.with_extension("next");
        fs::write(&next, response.to_string())
            .and_then(|()| fs::rename(&next, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}
