//! A plugin of the cluster.

use penstock_policy::document::Node;
use serde::Serialize;

/// A plugin of the cluster.
#[derive(Debug, Serialize)]
pub struct ClusterPlugin {
    /// The object, such as `WasmPlugin istio-system/penstock`.
    pub object: String,
    /// The module that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<&'static str>,
    /// The source of the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Why the control plane did not accept it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Namespace and name.
    #[serde(skip)]
    pub name: (String, String),
    /// Its policies.
    #[serde(skip)]
    pub policies: Vec<Node>,
}
