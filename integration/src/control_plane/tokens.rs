//! A token server for an image registry, as specified in
//! <https://distribution.github.io/distribution/spec/auth/token/>.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::registry::Access;
use crate::upstream::{Received, Upstream, UpstreamReply};
use crate::workspace;

/// The host name of the server. Clients refuse to send a password to a loopback address that a registry names, so they
/// must resolve this name, with [`hosts`].
const NAME: &str = "tokens.example.com";
const ISSUER: &str = "penstock-tests";
const SERVICE: &str = "registry";
/// Base64 of `penstock:secret`, the credentials of the user of [`super::Registry`].
const CREDENTIALS: &str = "Basic cGVuc3RvY2s6c2VjcmV0";

/// A running token server. It grants the user of [`super::Registry`] every requested permission, and other users none.
#[derive(Debug)]
pub struct Tokens {
    server: Upstream,
}

impl Tokens {
    /// Starts the server.
    pub fn start() -> Result<Self> {
        let tls = workspace::root().join("integration/tests/tls");
        let (certificate, key) = (pem(&tls.join("gateway.crt"))?, pem(&tls.join("gateway.key"))?);
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random)
            .map_err(|why| anyhow!("the key is of no use: {why}"))?;
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(certificate)]});
        let server = Upstream::start(move |request| {
            let given = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"authorization"));
            if given.is_none_or(|(_, value)| value != CREDENTIALS.as_bytes()) {
                return UpstreamReply::Status(401, Vec::new());
            }
            let unsigned = [&header, &claims(request)].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
            match key.sign(&random, unsigned.as_bytes()) {
                Ok(signature) => UpstreamReply::Json(json!({
                    "token": format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature)),
                })),
                Err(_) => UpstreamReply::Status(500, Vec::new()),
            }
        })?;
        Ok(Tokens { server })
    }

    /// The value of `auth.token` that a registry needs to send its users to this server.
    pub fn access(&self) -> Access {
        Access::Token(json!({
            "realm": format!("http://{NAME}:{}/token", self.server.address().port()),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": workspace::root().join("integration/tests/tls/gateway.crt"),
        }))
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.server.all()
    }
}

/// A hosts file that resolves the name of the server.
pub fn hosts(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("hosts");
    fs::write(&path, format!("{} localhost {NAME}\n", Ipv4Addr::LOCALHOST))?;
    Ok(path)
}

/// Runs a command with its own hosts file, which no other process sees.
pub fn with_hosts(hosts: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    command.arg(hosts).arg(program);
    command
}

/// The permissions that the token grants: all that were requested.
fn claims(request: &Received) -> Value {
    let path = request.path();
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<_> = scopes
        .filter_map(|scope| {
            let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    json!({
        "iss": ISSUER, "sub": "penstock", "aud": SERVICE, "jti": format!("{}", request.number),
        "iat": now, "nbf": now.saturating_sub(60), "exp": now + 300, "access": access,
    })
}

/// The first object in a PEM file.
fn pem(path: &Path) -> Result<Vec<u8>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let base64: String =
        text.lines().filter(|line| !line.starts_with('-')).take_while(|line| !line.is_empty()).collect();
    STANDARD.decode(base64).with_context(|| format!("{} is not PEM", path.display()))
}
