//! HTTP clients that send exactly what they are given.
//!
//! Ordinary clients correct requests: they reject unusual bytes, merge repeated headers, normalise paths. Attackers do
//! not, so these clients do not, either: [`h1::Http1Connection::send`] writes raw bytes and
//! [`h2::Http2Connection::send`] takes the header list as it is sent, including pseudo-headers.

pub mod h1;
pub mod h2;
mod hello;
mod message;

pub use hello::client_hello;
pub use message::{Field, HttpRequest, HttpResponse};

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;

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
