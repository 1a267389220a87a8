//! Authentication and authorization: which workspace a request belongs to, and what it may see.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{DashConfig, Workspace};

/// How a request authenticates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'r> {
    /// `authorization: Bearer …`.
    pub token: Option<&'r str>,
    /// The identity header on a connection with a verified client certificate.
    pub identity: Option<&'r str>,
}

/// What a viewer may see.
#[derive(Clone, Copy, Debug)]
pub enum Visibility<'c> {
    /// Everything: no workspaces are configured, and only this machine can connect.
    Everything,
    /// One workspace.
    Workspace(&'c Workspace),
}

/// Finds the viewer's workspace; `None` when the credentials are unknown.
pub fn scope<'c>(config: &'c DashConfig, credentials: Credentials<'_>) -> Option<Visibility<'c>> {
    if config.workspaces.is_empty() {
        return Some(Visibility::Everything);
    }
    if let Some(token) = credentials.token {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        // Always compares all of them, so that the time does not reveal which one matched.
        for workspace in &config.workspaces {
            for token in &workspace.tokens {
                if bool::from(token.0.ct_eq(&hash)) {
                    found = Some(Visibility::Workspace(workspace));
                }
            }
        }
        return found;
    }
    let identity = credentials.identity?;
    let mut workspaces = config.workspaces.iter();
    workspaces.find(|workspace| workspace.identities.iter().any(|known| known == identity)).map(Visibility::Workspace)
}

impl Visibility<'_> {
    /// The workspace's name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Visibility::Everything => None,
            Visibility::Workspace(workspace) => Some(&workspace.name),
        }
    }

    /// Whether a cluster may be seen.
    pub fn cluster(&self, cluster: &str) -> bool {
        match self {
            Visibility::Everything => true,
            Visibility::Workspace(workspace) => workspace.clusters.iter().any(|name| name == "*" || name == cluster),
        }
    }

    /// Whether a proxy of this namespace may be seen.
    pub fn namespace(&self, namespace: Option<&str>) -> bool {
        match self {
            Visibility::Everything => true,
            Visibility::Workspace(workspace) => allows(workspace.namespaces.as_deref(), namespace),
        }
    }

    /// Whether an egress rule of this owner may be seen.
    pub fn owner(&self, owner: Option<&str>) -> bool {
        match self {
            Visibility::Everything => true,
            Visibility::Workspace(workspace) => allows(workspace.owners.as_deref(), owner),
        }
    }

    /// Whether rules of all owners may be seen.
    pub fn every_owner(&self) -> bool {
        matches!(self, Visibility::Workspace(Workspace { owners: None, .. }) | Visibility::Everything)
    }
}

/// An absent list allows everything; a list only allows its items, and nothing without a name.
fn allows(list: Option<&[String]>, name: Option<&str>) -> bool {
    list.is_none_or(|list| name.is_some_and(|name| list.iter().any(|one| one == name)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> DashConfig {
        let hash = |token: &str| Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let workspaces = json!({"identityHeader": "x-user", "tls": {"certificate": "c", "key": "k", "clientCa": "ca"}, "workspaces": [
            {"name": "payments", "clusters": ["east"], "namespaces": ["pay"], "owners": ["payments"], "tokens": [hash("secret")]},
            {"name": "platform", "clusters": ["*"], "tokens": [hash("other")], "identities": ["anna@example.com"]},
        ]});
        DashConfig::read(workspaces).unwrap()
    }

    #[test]
    fn a_token_opens_its_workspace_and_no_other() {
        let config = config();
        let with = |token| scope(&config, Credentials { token: Some(token), identity: None });
        let payments = with("secret").unwrap();
        assert_eq!(payments.name(), Some("payments"));
        assert!(payments.cluster("east") && !payments.cluster("west"));
        assert!(payments.namespace(Some("pay")) && !payments.namespace(Some("x")) && !payments.namespace(None));
        assert!(payments.owner(Some("payments")) && !payments.owner(None) && !payments.every_owner());
        let platform = with("other").unwrap();
        assert!(platform.cluster("west") && platform.namespace(None) && platform.every_owner());
        assert!(with("Secret").is_none() && with("").is_none());
        assert!(scope(&config, Credentials::default()).is_none());
    }

    #[test]
    fn an_identity_counts_only_without_a_token() {
        let config = config();
        let ask = |token, identity| {
            scope(&config, Credentials { token, identity }).and_then(|scope| scope.name().map(str::to_owned))
        };
        assert_eq!(ask(None, Some("anna@example.com")).as_deref(), Some("platform"));
        assert_eq!(ask(None, Some("mallory@example.com")), None);
        assert_eq!(ask(Some("wrong"), Some("anna@example.com")), None);
    }
}
