//! The configuration file (`--config`): what is watched, and who may see what.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::feed::FeedPrivacy;
use crate::log_source::LogSource;
use crate::scrape::ScrapeSource;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DashConfig {
    /// Sources in addition to those on the command line.
    pub clusters: Vec<ClusterSources>,
    /// Workspaces. Without any, everyone who can connect sees everything, so the dash only listens on loopback.
    pub workspaces: Vec<Workspace>,
    /// The header in which a proxy in front passes the user's identity. Only used on connections with a client
    /// certificate that `tls.clientCa` has signed.
    pub identity_header: Option<String>,
    /// The certificates for HTTPS, also used for the access logs that Envoys send.
    pub tls: Option<Tls>,
    /// What is stored of requests in access logs.
    pub feed: FeedConfig,
}

/// What is stored of requests in access logs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FeedConfig {
    /// Stores whole client addresses instead of their /24 or /48 network.
    pub full_addresses: bool,
    /// Request headers to store, as far as the access log has them, so that explanations can use them.
    pub headers: Vec<String>,
    /// Accepts access logs on an address that other machines reach, without client certificates: something else (a
    /// mesh, a network policy) restricts who may send them.
    pub allow_plaintext: bool,
}

impl FeedConfig {
    /// The privacy settings.
    pub fn privacy(&self) -> FeedPrivacy {
        let headers = self.headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        FeedPrivacy { full_addresses: self.full_addresses, headers }
    }
}

/// The sources of one cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterSources {
    /// The name on the page.
    pub name: String,
    /// Admin interfaces of Envoys, such as `http://10.0.0.7:9901`.
    #[serde(default)]
    pub envoys: Vec<String>,
    /// The URL of a Prometheus that scrapes its proxies.
    pub prometheus: Option<String>,
    /// The address to which its Envoys send gRPC access logs.
    pub als: Option<SocketAddr>,
    /// Files with its access logs in JSON.
    #[serde(default)]
    pub logs: Vec<PathBuf>,
}

/// A group of users, and what they may see.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workspace {
    /// The name.
    pub name: String,
    /// Clusters by name; `*` for all.
    pub clusters: Vec<String>,
    /// The namespaces of the proxies that may be seen; absent for all.
    pub namespaces: Option<Vec<String>>,
    /// The owners of the egress rules that may be seen; absent for all.
    pub owners: Option<Vec<String>>,
    /// SHA-256 hashes of its tokens, 64 hexadecimal digits each.
    #[serde(default)]
    pub tokens: Vec<TokenHash>,
    /// Values of the identity header.
    #[serde(default)]
    pub identities: Vec<String>,
}

/// Certificate files in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tls {
    /// The certificate chain, starting with the dash's own certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The CA of client certificates. When set, every connection needs one.
    pub client_ca: Option<PathBuf>,
}

/// The SHA-256 hash of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
        let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
        match bytes.filter(|bytes| bytes.len() == hash.len()) {
            Some(bytes) => hash.copy_from_slice(&bytes),
            // The message does not repeat the text, which may be the token itself.
            None => {
                return Err(de::Error::custom(
                    "not the SHA-256 of a token in 64 hexadecimal digits; make one with: printf %s \"$TOKEN\" | sha256sum",
                ));
            }
        }
        Ok(TokenHash(hash))
    }
}

impl DashConfig {
    /// Parses the file's content.
    ///
    /// # Errors
    /// Returns an error with the place of the problem, such as `workspaces[0].tokens[1]`.
    pub fn read(document: Value) -> Result<DashConfig> {
        let config: DashConfig = serde_path_to_error::deserialize(document)
            .map_err(|error| anyhow!("{}: {}", error.path(), error.inner()))?;
        for (i, workspace) in config.workspaces.iter().enumerate() {
            if workspace.tokens.is_empty() && workspace.identities.is_empty() {
                bail!("workspaces[{i}]: {:?} has neither tokens nor identities: nobody could see it", workspace.name);
            }
            if !workspace.identities.is_empty() && config.identity_header.is_none() {
                bail!("workspaces[{i}].identities: set identityHeader to the header that contains them");
            }
        }
        if config.identity_header.is_some() && config.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            bail!(
                "identityHeader: anybody could send this header; it is trusted only from a proxy that shows a certificate: \
                 give tls.certificate, tls.key and tls.clientCa"
            );
        }
        Ok(config)
    }

    /// Whether everyone who can connect may see everything.
    pub fn is_open(&self) -> bool {
        self.workspaces.is_empty()
    }

    /// Prevents showing everything to a whole network.
    ///
    /// # Errors
    /// Returns an error when `listen` is not a loopback address and there are no workspaces.
    pub fn check_listen(&self, listen: SocketAddr) -> Result<()> {
        if self.is_open() && !listen.ip().is_loopback() {
            bail!(
                "--listen {listen}: everybody in that network could see every policy, because there are no workspaces; \
                 listen on 127.0.0.1, or say who may see what with --config (workspaces, see docs/dash.md)"
            );
        }
        Ok(())
    }

    /// Prevents accepting access logs from everyone.
    ///
    /// # Errors
    /// Returns an error when an address for access logs is not loopback and senders need no certificate.
    pub fn check_log(&self, log: &LogSource) -> Result<()> {
        let LogSource::Grpc { listen, .. } = log else { return Ok(()) };
        let has_certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if !listen.ip().is_loopback() && !has_certificates && !self.feed.allow_plaintext {
            bail!(
                "--als {listen}: everybody in that network could write into the feed; listen on 127.0.0.1, give tls with clientCa in \
                 --config, or say feed.allowPlaintext: true there when a mesh or a network policy keeps others away"
            );
        }
        Ok(())
    }

    /// The sources of access logs in `clusters`.
    pub fn logs(&self) -> impl Iterator<Item = LogSource> {
        self.clusters.iter().flat_map(|cluster| {
            let name = || cluster.name.clone();
            let grpc = cluster.als.map(|listen| LogSource::Grpc { cluster: name(), listen });
            grpc.into_iter()
                .chain(cluster.logs.iter().map(move |path| LogSource::File { cluster: name(), path: path.clone() }))
        })
    }

    /// The sources of metrics in `clusters`.
    pub fn sources(&self) -> impl Iterator<Item = ScrapeSource> {
        self.clusters.iter().flat_map(|cluster| {
            let name = || cluster.name.clone();
            let envoys =
                cluster.envoys.iter().map(move |url| ScrapeSource::Envoy { cluster: name(), url: url.clone() });
            envoys.chain(
                cluster
                    .prometheus
                    .iter()
                    .map(move |url| ScrapeSource::Prometheus { cluster: name(), url: url.clone() }),
            )
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(document: Value) -> String {
        DashConfig::read(document).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_reported_with_their_place() {
        assert!(
            refused(json!({"clusters": [{"name": "a", "envoy": []}]})).starts_with("clusters[0].envoy: unknown field")
        );
        let text = refused(json!({"workspaces": [{"name": "a", "clusters": ["*"], "tokens": ["hunter2"]}]}));
        assert!(text.starts_with("workspaces[0].tokens[0]: not the SHA-256") && !text.contains("hunter2"), "{text}");
        assert!(refused(json!({"workspaces": [{"name": "a", "clusters": ["*"]}]})).contains("nobody could see it"));
    }

    #[test]
    fn an_identity_header_needs_client_certificates() {
        assert!(refused(json!({"identityHeader": "x-user"})).contains("anybody could send this header"));
        let tls = json!({"certificate": "a", "key": "b"});
        assert!(refused(json!({"identityHeader": "x-user", "tls": tls})).contains("clientCa"));
    }

    #[test]
    fn access_logs_of_a_network_need_certificates_or_an_explicit_setting() {
        let log = |listen: &str| LogSource::Grpc { cluster: "east".to_owned(), listen: listen.parse().unwrap() };
        DashConfig::default().check_log(&log("127.0.0.1:9912")).unwrap();
        let error = DashConfig::default().check_log(&log("0.0.0.0:9912")).unwrap_err().to_string();
        assert!(error.contains("feed.allowPlaintext"), "{error}");
        let config = |document| DashConfig::read(document).unwrap();
        config(json!({"feed": {"allowPlaintext": true}})).check_log(&log("0.0.0.0:9912")).unwrap();
        let tls = json!({"certificate": "a", "key": "b"});
        assert!(config(json!({"tls": tls})).check_log(&log("0.0.0.0:9912")).is_err());
        let tls = json!({"certificate": "a", "key": "b", "clientCa": "c"});
        config(json!({"tls": tls})).check_log(&log("0.0.0.0:9912")).unwrap();
    }

    #[test]
    fn without_access_control_the_dash_stays_on_this_machine() {
        let open = DashConfig::default();
        open.check_listen("127.0.0.1:9911".parse().unwrap()).unwrap();
        open.check_listen("[::1]:9911".parse().unwrap()).unwrap();
        for listen in ["0.0.0.0:9911", "[::]:9911", "10.0.0.1:80"] {
            let error = open.check_listen(listen.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("workspaces"), "{error}");
        }
    }
}
