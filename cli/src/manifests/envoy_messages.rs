//! The messages of Envoy's API that our filters are configured with, as Envoy 1.40 has them.

use FieldKind::{
    Any, Bool, Duration, Enum, FilterName, MessagesByName, Number, OptionalBool, Other, Policy, Runtime, Text, Texts,
    TextsByName, Word,
};

/// What a field takes.
pub enum FieldKind {
    Bool,
    /// `google.protobuf.BoolValue`.
    OptionalBool,
    Text,
    /// Not empty.
    Word,
    /// The name of a runtime of wasm.
    Runtime,
    /// The name of one of our modules, and perhaps of a plugin.
    FilterName,
    /// So many milliseconds at least.
    Duration(u64),
    Number,
    Enum(&'static [&'static str]),
    Message(&'static Message),
    Texts,
    TextsByName,
    MessagesByName(&'static Message),
    Any,
    /// An `Any` whose type is looked at where policies are.
    Policy,
    /// Not looked at.
    Other,
}

/// A message, as Envoy's API has it.
pub struct Message {
    /// As Envoy calls it.
    pub name: &'static str,
    /// Names and what they take.
    pub fields: &'static [(&'static str, FieldKind)],
    /// What must be there.
    pub required: &'static [&'static str],
    /// One of them at most; `true`: one there must be.
    pub one_of: &'static [(&'static [&'static str], bool)],
}

const fn message(name: &'static str, fields: &'static [(&'static str, FieldKind)]) -> Message {
    Message { name, fields, required: &[], one_of: &[] }
}

const fn of(message: &'static Message) -> FieldKind {
    FieldKind::Message(message)
}

pub static HTTP_FILTER: Message = Message {
    required: &["name"],
    one_of: &[(&["typed_config", "config_discovery"], false)],
    ..message(
        "HttpFilter",
        &[
            ("name", Word),
            ("typed_config", Policy),
            ("config_discovery", Other),
            ("is_optional", Bool),
            ("disabled", Bool),
        ],
    )
};

pub static WASM: Message = Message { required: &["config"], ..message("Wasm", &[("config", of(&PLUGIN_CONFIG))]) };

pub static PLUGIN_CONFIG: Message = Message {
    required: &["vm_config"],
    ..message(
        "PluginConfig",
        &[
            ("name", Text),
            ("root_id", Text),
            ("vm_config", of(&VM_CONFIG)),
            ("configuration", Policy),
            ("fail_open", Bool),
            ("failure_policy", Enum(&["UNSPECIFIED", "FAIL_RELOAD", "FAIL_CLOSED", "FAIL_OPEN"])),
            ("reload_config", of(&RELOAD_CONFIG)),
            ("capability_restriction_config", of(&CAPABILITIES)),
            ("allow_on_headers_stop_iteration", OptionalBool),
        ],
    )
};

static RELOAD_CONFIG: Message = message("ReloadConfig", &[("backoff", of(&BACKOFF))]);

static BACKOFF: Message = Message {
    required: &["base_interval"],
    ..message("BackoffStrategy", &[("base_interval", Duration(1)), ("max_interval", Duration(0))])
};

static CAPABILITIES: Message =
    message("CapabilityRestrictionConfig", &[("allowed_capabilities", MessagesByName(&SANITIZATION))]);

static SANITIZATION: Message = message("SanitizationConfig", &[]);

static VM_CONFIG: Message = Message {
    required: &["code"],
    ..message(
        "VmConfig",
        &[
            ("vm_id", Text),
            ("runtime", Runtime),
            ("code", of(&ASYNC_SOURCE)),
            ("configuration", Any),
            ("allow_precompiled", Bool),
            ("nack_on_code_cache_miss", Bool),
            ("environment_variables", of(&ENVIRONMENT)),
        ],
    )
};

pub static ENVIRONMENT: Message =
    message("EnvironmentVariables", &[("host_env_keys", Texts), ("key_values", TextsByName)]);

static ASYNC_SOURCE: Message = Message {
    one_of: &[(&["local", "remote"], true)],
    ..message("AsyncDataSource", &[("local", of(&LOCAL_SOURCE)), ("remote", of(&REMOTE_SOURCE))])
};

static LOCAL_SOURCE: Message = Message {
    one_of: &[(&["filename", "inline_bytes", "inline_string", "environment_variable"], true)],
    ..message(
        "DataSource",
        &[
            ("filename", Word),
            ("inline_bytes", Text),
            ("inline_string", Text),
            ("environment_variable", Word),
            ("watched_directory", of(&WATCHED_DIRECTORY)),
        ],
    )
};

static WATCHED_DIRECTORY: Message = Message { required: &["path"], ..message("WatchedDirectory", &[("path", Word)]) };

static REMOTE_SOURCE: Message = Message {
    required: &["http_uri", "sha256"],
    ..message("RemoteDataSource", &[("http_uri", of(&HTTP_URI)), ("sha256", Word), ("retry_policy", of(&RETRY_POLICY))])
};

static HTTP_URI: Message = Message {
    required: &["uri", "cluster", "timeout"],
    ..message("HttpUri", &[("uri", Word), ("cluster", Word), ("timeout", Duration(0))])
};

static RETRY_POLICY: Message = message(
    "RetryPolicy",
    &[
        ("retry_back_off", of(&BACKOFF)),
        ("num_retries", Number),
        ("retry_on", Text),
        ("retry_priority", Other),
        ("retry_host_predicate", Other),
        ("host_selection_retry_max_attempts", Other),
    ],
);

pub static DYNAMIC_MODULE: Message = Message {
    required: &["dynamic_module_config", "filter_name"],
    ..message(
        "DynamicModuleFilter",
        &[
            ("dynamic_module_config", of(&DYNAMIC_MODULE_CONFIG)),
            ("filter_name", FilterName),
            ("filter_config", Policy),
            ("terminal_filter", Bool),
        ],
    )
};

pub static DYNAMIC_MODULE_CONFIG: Message = message(
    "DynamicModuleConfig",
    &[
        ("name", Text),
        ("do_not_close", Bool),
        ("load_globally", Bool),
        ("metrics_namespace", Text),
        ("module", of(&ASYNC_SOURCE)),
        ("nack_on_cache_miss", Bool),
    ],
);
