//! Requests and responses, independent of the HTTP version.

use serde_json::Value;

/// A header with the bytes that are sent.
pub type Field = (Vec<u8>, Vec<u8>);

/// A request that is independent of the HTTP version. Its content is not validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: Vec<u8>,
    /// `:scheme`, in HTTP/2 only.
    pub scheme: Vec<u8>,
    /// `:authority` in HTTP/2, the `host` header in HTTP/1.1.
    pub authority: Vec<u8>,
    /// `:path` in HTTP/2, the request target in HTTP/1.1.
    pub path: Vec<u8>,
    /// `:protocol` of an extended CONNECT, in HTTP/2 only.
    pub protocol: Option<Vec<u8>>,
    /// All other headers, in order.
    pub headers: Vec<Field>,
    /// The body, sent with a `content-length` unless it is empty.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// A request without other headers and body.
    pub fn new(method: &str, authority: &str, path: &str) -> Self {
        HttpRequest {
            method: method.into(),
            scheme: b"http".to_vec(),
            authority: authority.into(),
            path: path.into(),
            protocol: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A request `GET http://example.com<path>`.
    pub fn get(path: &str) -> Self {
        HttpRequest::new("GET", "example.com", path)
    }

    /// Sets the host.
    #[must_use]
    pub fn at(mut self, authority: &str) -> Self {
        self.authority = authority.into();
        self
    }

    /// Adds a header. HTTP/2 requires lower-case names.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// Headers in order, with lower-case names.
    pub headers: Vec<Field>,
    /// Trailers in order, with lower-case names.
    pub trailers: Vec<Field>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// Every value of a header, as text.
    pub fn values(&self, name: &str) -> impl Iterator<Item = String> {
        let fields = self.headers.iter().filter(move |(found, _)| found == name.as_bytes());
        fields.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body parsed as JSON, or null when it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
