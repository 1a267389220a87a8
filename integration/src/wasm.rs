//! The configuration of one Penstock filter in Envoy, as a wasm module or as a dynamic module.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use penstock_policy::Policy;
use penstock_policy::module::Suite;
use serde_json::{Value, json};

use crate::body::Body;
use crate::workspace;

/// The protobuf type of the wasm filter's configuration. Discovery must announce it as well.
const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// The protobuf type of the dynamic module's configuration.
const NATIVE_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";

/// The types that a discovered filter may have.
pub(crate) const TYPE_URLS: [&str; 2] = [TYPE_URL, NATIVE_TYPE_URL];

/// What the module gets as its plugin configuration.
#[derive(Clone, Debug)]
pub enum Configuration {
    /// No configuration: the module gets 0 bytes.
    None,
    /// This text in a `google.protobuf.StringValue`, as Envoy Gateway and Istio send it.
    Text(String),
    /// Any other message, with its `@type`. The module gets its serialized form, which is not a policy.
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

/// A module, its VM, and its policy.
#[derive(Clone, Debug)]
pub struct WasmFilter {
    name: String,
    /// Whether the plugin gets its name.
    is_named: bool,
    /// The name of the module that `dist/libpenstock.so` runs as, if this is the native body.
    native: Option<String>,
    code: Value,
    nack_on_code_cache_miss: bool,
    vm_id: String,
    failure_policy: String,
    configuration: Configuration,
}

impl WasmFilter {
    /// A filter of the module `module` with this policy, in the body that the environment variable names.
    pub fn new(module: &str, policy: impl Into<Configuration>) -> Result<Self> {
        Self::in_body(Body::of_environment(), module, policy)
    }

    /// The same in the given body.
    pub fn in_body(body: Body, module: &str, policy: impl Into<Configuration>) -> Result<Self> {
        Ok(match body {
            Body::Wasm => Self::at(module, &workspace::module(module)?, policy),
            Body::Native => Self::library(module, &workspace::native_library()?, policy),
        })
    }

    /// A filter of another dynamic module, in a folder that the bootstrap sets with
    /// `ENVOY_DYNAMIC_MODULES_SEARCH_PATH`.
    pub fn library(module: &str, library: &Path, policy: impl Into<Configuration>) -> Self {
        WasmFilter { native: Some(module.to_owned()), ..Self::at(module, library, policy) }
    }

    /// A filter of any wasm file.
    pub fn at(name: &str, module: &Path, policy: impl Into<Configuration>) -> Self {
        WasmFilter {
            name: name.to_owned(),
            is_named: true,
            native: None,
            code: json!({"local": {"filename": module}}),
            nack_on_code_cache_miss: false,
            vm_id: "penstock".to_owned(),
            failure_policy: "FAIL_CLOSED".to_owned(),
            configuration: policy.into(),
        }
    }

    /// The configuration of the filter that copies metadata for the native body, as `penstock render` writes it. `None` if
    /// the policy uses no metadata.
    pub(crate) fn metadata_copy(&self) -> Option<Value> {
        let Configuration::Text(policy) = &self.configuration else { return None };
        self.native.as_ref()?;
        let policy = Policy::<Suite>::from_json(policy.as_bytes()).ok()?;
        let namespaces: BTreeSet<&str> = policy.fact_places().iter().map(|place| &*place.namespace).collect();
        let copy = |namespace: &&str| {
            json!({
                "object_key": format!("penstock.metadata.{namespace}"),
                "factory_key": "envoy.string",
                "format_string": {"text_format_source": {"inline_string": format!("%DYNAMIC_METADATA({namespace})%")}},
            })
        };
        let copies: Vec<Value> = namespaces.iter().map(copy).collect();
        (!copies.is_empty()).then(|| {
            json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
                "on_request_headers": copies,
            })
        })
    }

    /// Sets the plugin's name, which is part of its identity in Envoy and the name of its configuration when that is
    /// discovered.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Leaves the plugin without a name, as Envoy does by default. The filter's entry in the chain keeps it.
    #[must_use]
    pub fn without_plugin_name(mut self) -> Self {
        self.is_named = false;
        self
    }

    /// Sets the VM id. Filters with the same id and module share a VM on each worker; the same id also means the same
    /// shared data.
    #[must_use]
    pub fn vm_id(mut self, vm_id: &str) -> Self {
        vm_id.clone_into(&mut self.vm_id);
        self
    }

    /// Makes Envoy fetch the code as the given `vm_config.code` says. With `nack`, Envoy refuses a configuration until
    /// its code has been fetched, and fetches it in the background.
    #[must_use]
    pub fn code(mut self, code: Value, nack: bool) -> Self {
        self.code = code;
        self.nack_on_code_cache_miss = nack;
        self
    }

    /// Sets what Envoy does when the VM has trapped; the default is `FAIL_CLOSED`.
    #[must_use]
    pub fn failure_policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.failure_policy);
        self
    }

    /// Returns the same filter with another policy.
    #[must_use]
    pub fn with(mut self, policy: impl Into<Configuration>) -> Self {
        self.configuration = policy.into();
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The `typed_config` of the module as a network filter.
    pub fn network_config(&self) -> Value {
        let mut config = self.typed_config();
        if self.native.is_some() {
            if let Some(kind) = config.get_mut("@type") {
                let name = "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter";
                *kind = json!(format!("type.googleapis.com/{name}"));
            }
            return config;
        }
        if let Some(kind) = config.get_mut("@type") {
            *kind = json!("type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm");
        }
        config
    }

    /// The filter's `typed_config`.
    pub fn typed_config(&self) -> Value {
        if let Some(module) = &self.native {
            return self.native_config(module);
        }
        let mut config = json!({
            "name": self.plugin_name(),
            "root_id": self.plugin_name(),
            "failure_policy": self.failure_policy,
            "vm_config": {
                "vm_id": self.vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": self.code,
                "nack_on_code_cache_miss": self.nack_on_code_cache_miss,
            },
        });
        if let (Some(configuration), Some(config)) = (self.message(), config.as_object_mut()) {
            config.insert("configuration".to_owned(), configuration);
        }
        json!({"@type": TYPE_URL, "config": config})
    }

    fn plugin_name(&self) -> &str {
        if self.is_named { &self.name } else { "" }
    }

    fn message(&self) -> Option<Value> {
        match &self.configuration {
            Configuration::None => None,
            Configuration::Text(text) => {
                Some(json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}))
            }
            Configuration::Any(message) => Some(message.clone()),
        }
    }

    /// Envoy finds the library by its name in the folder that [`crate::Bootstrap`] sets.
    fn native_config(&self, module: &str) -> Value {
        let library = self.code.pointer("/local/filename").and_then(Value::as_str).map(std::path::Path::new);
        let library = library.and_then(|path| path.file_stem()?.to_str()?.strip_prefix("lib")).unwrap_or("penstock");
        let mut config = json!({
            "@type": NATIVE_TYPE_URL,
            "dynamic_module_config": {"name": library, "metrics_namespace": "wasmcustom"},
            "filter_name": if self.is_named { format!("{module}/{}", self.name) } else { module.to_owned() },
        });
        if let (Some(message), Some(config)) = (self.message(), config.as_object_mut()) {
            config.insert("filter_config".to_owned(), message);
        }
        config
    }
}
