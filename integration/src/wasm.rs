//! One wasm filter of an Envoy configuration.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::workspace;

/// The type of the filter's configuration, which discovery must announce as well.
pub(crate) const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// What the module gets as its plugin configuration.
#[derive(Clone, Debug)]
pub enum Configuration {
    /// No configuration at all: the module sees 0 bytes.
    None,
    /// The bytes of this text, in a `google.protobuf.StringValue`: the form that Envoy Gateway and Istio send, too.
    Text(String),
    /// Any other message, with its `@type`. The module sees its serialized form, which is no policy.
    Any(Value),
}

impl From<Value> for Configuration {
    fn from(policy: Value) -> Self {
        Configuration::Text(policy.to_string())
    }
}

impl From<&Value> for Configuration {
    fn from(policy: &Value) -> Self {
        Configuration::Text(policy.to_string())
    }
}

impl From<&str> for Configuration {
    fn from(text: &str) -> Self {
        Configuration::Text(text.to_owned())
    }
}

impl From<String> for Configuration {
    fn from(text: String) -> Self {
        Configuration::Text(text)
    }
}

/// A module, the VM that it runs in, and the policy that it runs.
#[derive(Clone, Debug)]
pub struct WasmFilter {
    name: String,
    code: Value,
    nack_on_code_cache_miss: bool,
    vm_id: String,
    failure_policy: String,
    configuration: Configuration,
}

impl WasmFilter {
    /// The module `dist/<module>.wasm` with this policy.
    pub fn new(module: &str, policy: impl Into<Configuration>) -> Result<Self> {
        Ok(Self::at(module, &workspace::module(module)?, policy))
    }

    /// Any module file.
    pub fn at(name: &str, module: &Path, policy: impl Into<Configuration>) -> Self {
        WasmFilter {
            name: name.to_owned(),
            code: json!({"local": {"filename": module}}),
            nack_on_code_cache_miss: false,
            vm_id: "penstock".to_owned(),
            failure_policy: "FAIL_CLOSED".to_owned(),
            configuration: policy.into(),
        }
    }

    /// The plugin's name: part of its identity in Envoy, and the name of its configuration when that is discovered.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The VM's id: filters with one id and one module share a VM on each worker, and one id shares shared data.
    #[must_use]
    pub fn vm_id(mut self, vm_id: &str) -> Self {
        vm_id.clone_into(&mut self.vm_id);
        self
    }

    /// Envoy fetches the code from elsewhere, in the words of its own `vm_config.code`. `nack` refuses a configuration whose
    /// code is not there yet, and asks for it meanwhile.
    #[must_use]
    pub fn code(mut self, code: Value, nack: bool) -> Self {
        self.code = code;
        self.nack_on_code_cache_miss = nack;
        self
    }

    /// What Envoy does when the VM is dead: `FAIL_CLOSED` unless said otherwise.
    #[must_use]
    pub fn failure_policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.failure_policy);
        self
    }

    /// The same filter with another policy.
    #[must_use]
    pub fn with(mut self, policy: impl Into<Configuration>) -> Self {
        self.configuration = policy.into();
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The `typed_config` of the same module as a network filter.
    pub fn network_config(&self) -> Value {
        let mut config = self.typed_config();
        if let Some(kind) = config.get_mut("@type") {
            *kind = json!("type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm");
        }
        config
    }

    /// The filter's `typed_config`.
    pub fn typed_config(&self) -> Value {
        let mut config = json!({
            "name": self.name,
            "root_id": self.name,
            "failure_policy": self.failure_policy,
            "vm_config": {
                "vm_id": self.vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": self.code,
                "nack_on_code_cache_miss": self.nack_on_code_cache_miss,
            },
        });
        let configuration = match &self.configuration {
            Configuration::None => None,
            Configuration::Text(text) => {
                Some(json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}))
            }
            Configuration::Any(message) => Some(message.clone()),
        };
        if let (Some(configuration), Some(config)) = (configuration, config.as_object_mut()) {
            config.insert("configuration".to_owned(), configuration);
        }
        json!({"@type": TYPE_URL, "config": config})
    }
}
