//! A client of the OCI distribution API (<https://github.com/opencontainers/distribution-spec>, version 1.1), as far as
//! a push needs it.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::{Value, json};
use ureq::http::{Request, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::package::{Blob, ImageManifest};
use super::reference::Reference;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The number of attempts for requests that may succeed later.
const ATTEMPTS: u32 = 5;
/// The longest response that is read, in bytes: indexes of referrers, tokens, errors.
const LONGEST_ANSWER: u64 = 4 << 20;

/// A registry with the credentials for it.
pub struct RegistryClient {
    agent: Agent,
    base: String,
    repository: String,
    credential: Option<DockerCredential>,
    /// The value of `authorization`, once the registry has required one.
    authorization: Option<String>,
    first_pause: Duration,
}

impl RegistryClient {
    /// Opens the registry of `reference`. Uses plain HTTP for a registry on this machine, or with `plain_http`.
    /// Credentials come from Docker's configuration (`$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`),
    /// including credential helpers.
    ///
    /// # Errors
    /// Returns an error when the configuration is invalid or names a credential helper that fails.
    pub fn new(reference: &Reference, plain_http: bool) -> Result<Self> {
        let scheme = if plain_http || reference.is_local() { "http" } else { "https" };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(300)))
            .user_agent(concat!("penstock/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        // The API of Docker Hub has a different host name.
        let (host, server) = match reference.registry.as_str() {
            "docker.io" => ("registry-1.docker.io", "https://index.docker.io/v1/"),
            other => (other, other),
        };
        Ok(RegistryClient {
            agent,
            base: format!("{scheme}://{host}"),
            repository: reference.repository.clone(),
            credential: credential(server)?,
            authorization: None,
            first_pause: Duration::from_millis(500),
        })
    }

    /// Pushes a manifest and its blobs, under `tag`, or under its digest when there is no tag.
    ///
    /// # Errors
    /// Returns an error, with the registry's message, when the registry is unreachable or refuses something.
    pub fn push(&mut self, manifest: &ImageManifest, tag: Option<&str>) -> Result<()> {
        for blob in &manifest.blobs {
            self.push_blob(blob).with_context(|| format!("cannot push the blob {}", blob.digest))?;
        }
        let name = tag.unwrap_or(&manifest.blob.digest);
        let response =
            self.put_manifest(name, &manifest.blob).with_context(|| format!("cannot push the manifest {name}"))?;
        // A registry without support for referrers does not send this header; then a tag with a fixed name lists them.
        if let (Some(subject), Some(listing)) = (&manifest.subject, &manifest.listing)
            && !response.headers().contains_key("oci-subject")
        {
            self.list_referrer(subject, listing).with_context(|| format!("cannot list the referrer of {subject}"))?;
        }
        Ok(())
    }

    fn push_blob(&mut self, blob: &Blob) -> Result<()> {
        let present = self.send("HEAD", &self.path(&format!("blobs/{}", blob.digest)), None, &[])?;
        if present.status() == StatusCode::OK {
            return Ok(());
        }
        // An interrupted upload starts again: the blobs are small.
        let mut pause = self.first_pause;
        for attempt in 1.. {
            let mut opened = self.send("POST", &self.path("blobs/uploads/"), None, &[])?;
            expect(&mut opened, &[StatusCode::ACCEPTED])?;
            let location = self.absolute(location(&opened)?);
            let separator = if location.contains('?') { '&' } else { '?' };
            let target = format!("{location}{separator}digest={}", blob.digest);
            let mut done = self.send("PUT", &target, Some("application/octet-stream"), &blob.bytes)?;
            if attempt < ATTEMPTS && done.status() == StatusCode::NOT_FOUND {
                thread::sleep(pause);
                pause *= 2;
                continue;
            }
            expect(&mut done, &[StatusCode::CREATED])?;
            break;
        }
        Ok(())
    }

    fn put_manifest(&mut self, name: &str, blob: &Blob) -> Result<Response<Body>> {
        let path = self.path(&format!("manifests/{name}"));
        let mut response = self.send("PUT", &path, Some(&blob.media_type), &blob.bytes)?;
        expect(&mut response, &[StatusCode::CREATED, StatusCode::ACCEPTED])?;
        let stored = response.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        ensure!(
            stored.is_none_or(|stored| stored == blob.digest),
            "the registry stored it as {}, not as {}: a proxy before it may have changed the content",
            stored.unwrap_or_default(),
            blob.digest
        );
        Ok(response)
    }

    /// The fallback of the specification: an index tagged `sha256-<digest of the subject>`.
    fn list_referrer(&mut self, subject: &str, listing: &Value) -> Result<()> {
        let tag = subject.replacen(':', "-", 1);
        let mut found = self.send("GET", &self.path(&format!("manifests/{tag}")), None, &[])?;
        let mut manifests = match found.status() {
            StatusCode::NOT_FOUND => Vec::new(),
            _ => {
                expect(&mut found, &[StatusCode::OK])?;
                let index: Value = serde_json::from_str(&text(&mut found)?).context("the index is not JSON")?;
                index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default()
            }
        };
        let digest = |entry: &Value| entry.get("digest").cloned();
        if manifests.iter().any(|entry| digest(entry) == digest(listing)) {
            return Ok(());
        }
        manifests.push(listing.clone());
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes();
        let blob = Blob { media_type: INDEX.to_owned(), digest: super::package::digest(&index), bytes: index };
        self.put_manifest(&tag, &blob).map(drop)
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.repository)
    }

    fn absolute(&self, location: String) -> String {
        if location.starts_with('/') { format!("{}{location}", self.base) } else { location }
    }

    /// Sends one request; repeats it with credentials when the registry requires them, and after temporary errors.
    fn send(&mut self, method: &str, url: &str, content_type: Option<&str>, body: &[u8]) -> Result<Response<Body>> {
        let mut pause = self.first_pause;
        let mut asked = false;
        let mut attempt = 1;
        loop {
            let answer = self.send_once(method, url, content_type, body);
            let wait = match &answer {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !asked => {
                    // An existing token may have expired, so 401 is answered with a new one.
                    asked = true;
                    self.authorize(response)?;
                    continue;
                }
                Ok(response) => {
                    let status = response.status();
                    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
                        return answer;
                    }
                    retry_after(response).unwrap_or(pause)
                }
                Err(_) => pause,
            };
            if attempt == ATTEMPTS {
                return answer.with_context(|| format!("{method} {url}: {ATTEMPTS} attempts"));
            }
            attempt += 1;
            thread::sleep(wait);
            pause *= 2;
        }
    }

    fn send_once(&self, method: &str, url: &str, content_type: Option<&str>, body: &[u8]) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        if method == "GET" {
            request = request.header(header::ACCEPT, INDEX);
        }
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        // The storage behind a registry is a different server and must not receive its credentials.
        if let (Some(authorization), true) = (&self.authorization, url.starts_with(&format!("{}/", self.base))) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = match method {
            "GET" | "HEAD" => self.agent.run(request.body(())?),
            _ => self.agent.run(request.body(body)?),
        };
        response.with_context(|| format!("no answer from {}", self.base))
    }

    /// Makes the credentials for the challenge in a 401 response.
    fn authorize(&mut self, response: &Response<Body>) -> Result<()> {
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<_> = challenges.iter().filter_map(|value| value.to_str().ok()).collect();
        let find = |scheme: &str| {
            challenges.iter().find_map(|challenge| {
                let (found, rest) = challenge.split_once(' ')?;
                found.eq_ignore_ascii_case(scheme).then_some(rest)
            })
        };
        self.authorization = Some(match (find("Bearer"), find("Basic")) {
            (Some(parameters), _) => format!("Bearer {}", self.token(parameters)?),
            (None, Some(_)) => match &self.credential {
                Some(DockerCredential::UsernamePassword(user, password)) => basic(user, password),
                _ => bail!("{} wants a user name and a password: run `docker login {}`", self.base, self.host()),
            },
            (None, None) => {
                bail!("{} asks for an unsupported kind of credentials: {challenges:?}", self.base)
            }
        });
        Ok(())
    }

    /// Requests a token (<https://distribution.github.io/distribution/spec/auth/token/>).
    fn token(&self, parameters: &str) -> Result<String> {
        let find = |name: &str| parameter(parameters, name);
        let realm = find("realm").context("the registry does not name the server of its tokens (`realm`)")?;
        ensure!(
            realm.starts_with("https://") || self.base.starts_with("http://"),
            "the registry sends its users to {realm}, which is not encrypted"
        );
        let scope = format!("repository:{}:pull,push", self.repository);
        let mut query = vec![("scope", scope)];
        query.extend(find("service").map(|service| ("service", service)));
        let response = match &self.credential {
            Some(DockerCredential::IdentityToken(token)) => {
                query.extend(
                    [("grant_type", "refresh_token"), ("client_id", "penstock"), ("refresh_token", token)]
                        .map(|(name, value)| (name, value.to_owned())),
                );
                self.agent.post(&realm).send_form(query)
            }
            other => {
                let mut request = self.agent.get(&realm).query_pairs(query);
                if let Some(DockerCredential::UsernamePassword(user, password)) = other {
                    request = request.header(header::AUTHORIZATION, basic(user, password));
                }
                request.call()
            }
        };
        let mut response = response.with_context(|| format!("no answer from {realm}"))?;
        expect(&mut response, &[StatusCode::OK]).with_context(|| {
            let who =
                if self.credential.is_some() { "the credentials of Docker's configuration" } else { "no credentials" };
            format!("{realm} gives no token for {who} (`docker login {}` sets them)", self.host())
        })?;
        let answer: Value = serde_json::from_str(&text(&mut response)?).context("the token is not in JSON")?;
        let token = ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str());
        Ok(token.context("the answer has no token")?.to_owned())
    }

    fn host(&self) -> &str {
        self.base.split_once("://").map_or(self.base.as_str(), |(_, host)| host)
    }
}

fn credential(server: &str) -> Result<Option<DockerCredential>> {
    let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".docker")));
    // No credentials are configured; many registries allow anonymous access.
    let Some(file) = folder.map(|folder| folder.join("config.json")).filter(|file| file.exists()) else {
        return Ok(None);
    };
    match docker_credential::get_credential(server) {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(error) => Err(anyhow!("{error}"))
            .with_context(|| format!("{} has no usable credentials for {server}", file.display())),
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// A parameter of a challenge: `name="value"`. Registries send no escaped quotes in values.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    while let Some((found, after)) = rest.split_once('=') {
        let found = found.trim_start_matches([',', ' ']);
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if found.eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

fn location(response: &Response<Body>) -> Result<String> {
    let location = response
        .headers()
        .get(header::LOCATION)
        .context("the registry did not send the address for the blob (`location`)")?;
    Ok(location.to_str()?.to_owned())
}

/// In seconds, at most half a minute.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(30)))
}

fn text(response: &mut Response<Body>) -> Result<String> {
    Ok(response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string()?)
}

/// Returns an error with the registry's message unless the status is one of these.
fn expect(response: &mut Response<Body>, statuses: &[StatusCode]) -> Result<()> {
    if statuses.contains(&response.status()) {
        return Ok(());
    }
    let body = text(response).unwrap_or_default();
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    let messages: Vec<_> = said
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|error| {
            let field = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{}: {}", field("code"), field("message"))
        })
        .collect();
    let words = if messages.is_empty() { body.trim().to_owned() } else { messages.join("; ") };
    bail!("the registry answered {}{}{words}", response.status(), if words.is_empty() { "" } else { ": " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_a_challenge_are_found_in_any_order() {
        let challenge =
            r#"realm="https://auth.example.com/token?a=b,c",service="registry",scope="repository:a:pull,push""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example.com/token?a=b,c"));
        assert_eq!(parameter(challenge, "Service").as_deref(), Some("registry"));
        assert_eq!(parameter(challenge, "scope").as_deref(), Some("repository:a:pull,push"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("realm=x, service=y", "service").as_deref(), Some("y"));
    }
}
