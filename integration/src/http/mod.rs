//! HTTP clients that send exactly what they are given.
//!
//! Ordinary clients correct requests: they reject unusual bytes, merge repeated headers, normalise paths. Attackers do
//! not, so these clients do not, either: [`h1::Http1Connection::send`] writes raw bytes and
//! [`h2::Http2Connection::send`] takes the header list as it is sent, including pseudo-headers.

pub mod h1;
pub mod h2;
mod hello;

pub use hello::client_hello;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

/// How long a client waits for the next byte.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A header with the bytes that are sent.
pub type Field = (Vec<u8>, Vec<u8>);

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Protocol {
    /// Every version, for tests that run once with each.
    pub const ALL: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        })
    }
}

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

/// Sends one request on a new connection.
pub fn send(protocol: Protocol, address: SocketAddr, request: &HttpRequest) -> Result<HttpResponse> {
    ClientConnection::open(protocol, address)?.request(request)
}

/// A connection that sends one request after the other.
#[derive(Debug)]
pub enum ClientConnection {
    /// HTTP/1.1
    Http1(h1::Http1Connection),
    /// HTTP/2
    Http2(Box<h2::Http2Connection>),
}

impl ClientConnection {
    /// Opens a connection.
    pub fn open(protocol: Protocol, address: SocketAddr) -> Result<Self> {
        Ok(match protocol {
            Protocol::Http1 => ClientConnection::Http1(h1::Http1Connection::open(address)?),
            Protocol::Http2 => ClientConnection::Http2(Box::new(h2::Http2Connection::open(address)?)),
        })
    }

    /// Opens a connection and sends `preamble` first, as a load balancer would with the PROXY protocol.
    pub fn open_after(protocol: Protocol, address: SocketAddr, preamble: &[u8]) -> Result<Self> {
        Ok(match protocol {
            Protocol::Http1 => ClientConnection::Http1(h1::Http1Connection::open_after(address, preamble)?),
            Protocol::Http2 => ClientConnection::Http2(Box::new(h2::Http2Connection::open_after(address, preamble)?)),
        })
    }

    /// Sends a request and waits for the whole response.
    pub fn request(&mut self, request: &HttpRequest) -> Result<HttpResponse> {
        match self {
            ClientConnection::Http1(connection) => connection.request(request),
            ClientConnection::Http2(connection) => connection.request(request),
        }
    }

    /// Whether the server has announced that it drains this connection.
    pub fn is_ending(&self) -> bool {
        match self {
            ClientConnection::Http1(connection) => connection.is_ending(),
            ClientConnection::Http2(connection) => connection.is_ending(),
        }
    }

    /// Sends a request, calls `until` (which waits for something), and leaves without reading the response: HTTP/1.1
    /// closes the connection, HTTP/2 resets the stream.
    pub fn abandon(&mut self, request: &HttpRequest, until: impl FnOnce() -> Result<()>) -> Result<()> {
        match self {
            ClientConnection::Http1(connection) => connection.abandon(request, until),
            ClientConnection::Http2(connection) => connection.abandon(request, until),
        }
    }
}
