//! The meaning of values in an access log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::wire::{WireRequest, WireResponse};

use super::time;
use crate::traffic::url;

/// The meaning of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogField {
    /// `:method`.
    Method,
    /// The path as the client sent it.
    OriginalPath,
    /// The path at the time when the log was written.
    Path,
    /// `:authority`.
    Authority,
    /// `:scheme`.
    Scheme,
    /// The start time of the request, in this `strftime` format; RFC 3339 when it is empty.
    Time(String),
    /// The status.
    Status,
    /// Milliseconds until the end of the response.
    Duration,
    /// The client's address, by how reliable it is.
    Source(AddressSource),
    /// The address or the port that the client connected to.
    Local,
    /// The server name of the TLS handshake.
    Sni,
    /// The URI SANs of the client's certificate.
    Peer,
    /// A request header, by its lower-case name, truncated to a number of characters.
    Header(String, Option<usize>),
    /// A value without spaces that does not affect decisions.
    Word,
    /// Any other value.
    Other,
}

/// The kind of client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// `DOWNSTREAM_REMOTE_ADDRESS`.
    Remote,
    /// `DOWNSTREAM_DIRECT_REMOTE_ADDRESS`.
    Direct,
}

impl LogField {
    /// The meaning of the operator `name(argument):longest` in Envoy's format strings.
    pub fn new(name: &str, argument: &str, longest: Option<usize>) -> LogField {
        match name {
            "REQ" | "REQUEST_HEADER" => {
                // With two headers, the value may be of either, unless both mean the same.
                let fields: Vec<LogField> =
                    argument.split('?').map(|header| LogField::header(header, longest)).collect();
                match fields.as_slice() {
                    [LogField::OriginalPath, LogField::Path] => LogField::OriginalPath,
                    [one] => one.clone(),
                    [one, other] if one == other => one.clone(),
                    _ => LogField::Other,
                }
            }
            "REQ_WITHOUT_QUERY" => match LogField::new("REQ", argument, longest) {
                path @ (LogField::Path | LogField::OriginalPath) => path,
                // Without its query, another header is not what the request had.
                _ => LogField::Other,
            },
            "PATH" if argument.ends_with(":PATH") => LogField::Path,
            "PATH" => LogField::OriginalPath,
            "START_TIME" => LogField::Time(argument.to_owned()),
            "RESPONSE_CODE" => LogField::Status,
            "DURATION" => LogField::Duration,
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
                LogField::Source(AddressSource::Remote)
            }
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                LogField::Source(AddressSource::Direct)
            }
            "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_LOCAL_PORT" => LogField::Local,
            "REQUESTED_SERVER_NAME" => LogField::Sni,
            "DOWNSTREAM_PEER_URI_SAN" => LogField::Peer,
            "RESP" if argument.eq_ignore_ascii_case("x-envoy-upstream-service-time") => LogField::Word,
            "PROTOCOL"
            | "RESPONSE_FLAGS"
            | "RESPONSE_FLAGS_LONG"
            | "RESPONSE_CODE_DETAILS"
            | "ROUTE_NAME"
            | "UPSTREAM_CLUSTER"
            | "UPSTREAM_CLUSTER_RAW"
            | "UPSTREAM_REQUEST_ATTEMPT_COUNT"
            | "CONNECTION_ID"
            | "STREAM_ID"
            | "GRPC_STATUS"
            | "GRPC_STATUS_NUMBER"
            | "HOSTNAME"
            | "ACCESS_LOG_TYPE"
            | "COMMON_DURATION"
            | "DOWNSTREAM_DIRECT_REMOTE_PORT"
            | "DOWNSTREAM_REMOTE_PORT"
            | "DOWNSTREAM_TLS_CIPHER"
            | "DOWNSTREAM_TLS_SESSION_ID"
            | "DOWNSTREAM_TLS_VERSION"
            | "TRACE_ID"
            | "UNIQUE_ID"
            | "UPSTREAM_CONNECTION_ID"
            | "UPSTREAM_TLS_CIPHER"
            | "UPSTREAM_TLS_SESSION_ID"
            | "UPSTREAM_TLS_VERSION" => LogField::Word,
            // In the default format, which has no space.
            "START_TIME_LOCAL" | "EMIT_TIME" | "EMIT_TIME_LOCAL" if argument.is_empty() => LogField::Word,
            name if ["BYTES_", "UPSTREAM_HOST", "UPSTREAM_LOCAL_", "UPSTREAM_REMOTE_", "DOWNSTREAM_LOCAL_ADDRESS_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
                || name.ends_with("_DURATION")
                || name.ends_with("_FINGERPRINT") =>
            {
                LogField::Word
            }
            _ => LogField::Other,
        }
    }

    /// The meaning of a request header.
    pub fn header(name: &str, longest: Option<usize>) -> LogField {
        let name = name.trim().to_ascii_lowercase();
        match name.as_str() {
            ":method" => LogField::Method,
            ":path" => LogField::Path,
            "x-envoy-original-path" | "x-envoy-origin-path" => LogField::OriginalPath,
            ":authority" | "host" => LogField::Authority,
            ":scheme" => LogField::Scheme,
            _ => LogField::Header(name, longest),
        }
    }

    /// Whether it is the method.
    pub fn is_method(&self) -> bool {
        *self == LogField::Method
    }

    /// Whether it is a path.
    pub fn is_path(&self) -> bool {
        matches!(self, LogField::Path | LogField::OriginalPath)
    }

    /// Whether it is the authority.
    pub fn is_authority(&self) -> bool {
        *self == LogField::Authority
    }

    /// Whether a value of a text log may contain this character.
    pub fn allows(&self, c: char) -> bool {
        match self {
            LogField::Status | LogField::Duration => c.is_ascii_digit() || c == '-',
            LogField::Path | LogField::OriginalPath | LogField::Other => true,
            LogField::Time(form) if !form.is_empty() => c != '"',
            LogField::Header(name, _) if name == "x-forwarded-for" => c != '"',
            LogField::Header(name, _) if name != "x-request-id" => true,
            _ => !c.is_whitespace() && c != '"',
        }
    }
}

/// The values of a line so far.
#[derive(Debug, Default)]
pub struct LogRecord {
    request: WireRequest,
    original_path: Option<String>,
    source: Option<(AddressSource, IpAddr)>,
    status: Option<u16>,
    millis: Option<u64>,
    has_method: bool,
    /// The time exists but cannot be parsed.
    bad_time: bool,
}

/// The kind of a line.
#[derive(Debug)]
pub enum Line {
    /// A request.
    Request(Box<WireRequest>),
    /// A request whose time cannot be parsed.
    WithoutTime(Box<WireRequest>),
    /// A connection of a TLS listener, as a request without method and path.
    Connection(Box<WireRequest>),
    /// Not a request: a connection that failed before one.
    NoRequest,
    /// The number of decisions for which the module wrote no line.
    NotLogged(u64),
    /// A line with a different format.
    OtherLayout,
}

impl LogRecord {
    /// Records `value`; Envoy writes `-` for an absent value.
    pub fn take(&mut self, field: &LogField, value: &str) {
        if value.is_empty() || value == "-" {
            return;
        }
        let request = &mut self.request;
        match field {
            LogField::Method => {
                request.method = value.to_owned();
                self.has_method = true;
            }
            LogField::OriginalPath => {
                self.original_path.get_or_insert_with(|| value.to_owned());
            }
            LogField::Path => {
                if request.path.is_empty() {
                    request.path = value.to_owned();
                }
            }
            LogField::Authority => {
                if request.authority.is_empty() {
                    request.authority = value.to_owned();
                }
            }
            LogField::Scheme => {
                request.scheme.get_or_insert_with(|| value.to_ascii_lowercase());
            }
            LogField::Time(form) => {
                let read = time::read(value, form);
                self.bad_time = read.is_none() && request.time.is_none();
                request.time = request.time.or(read);
            }
            LogField::Status => self.status = value.parse().ok(),
            LogField::Duration => self.millis = value.parse().ok(),
            LogField::Source(source) => {
                if let Some(address) = address(value)
                    && self.source.is_none_or(|(known, _)| *source < known)
                {
                    self.source = Some((*source, address));
                }
            }
            LogField::Local => {
                let port = value.rsplit(':').next().and_then(|port| port.parse().ok()).filter(|port| *port > 0);
                request.destination_port = request.destination_port.or(port);
            }
            LogField::Sni => request.sni = Some(value.to_owned()),
            // A certificate may have several URI SANs; Envoy uses the first as the identity.
            LogField::Peer => request.peer = value.split(',').next().map(str::to_owned),
            LogField::Header(name, longest) => {
                if name == "x-forwarded-proto" && matches!(value, "http" | "https") {
                    request.scheme.get_or_insert_with(|| value.to_owned());
                }
                // The rest of a truncated value is unknown.
                if longest.is_none_or(|longest| value.chars().count() < longest) {
                    url::add_header(request, name, value);
                }
            }
            LogField::Word | LogField::Other => {}
        }
    }

    /// Whether the text in the place of the user agent is a single value: the client may have sent quotes in it, or the
    /// format may have more fields. In the default formats, the user agent is followed by an identifier that Envoy
    /// generates.
    pub fn is_certain(&self) -> bool {
        let headers = &self.request.headers;
        let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let is_uuid = |id: &str| id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        !header("user-agent").is_some_and(|agent| agent.contains("\" \""))
            || header("x-request-id").is_some_and(is_uuid)
    }

    /// The request.
    pub fn finish(mut self) -> Line {
        if !self.has_method || self.request.authority.is_empty() {
            return Line::NoRequest;
        }
        if let Some(path) = self.original_path {
            self.request.path = path;
        }
        self.request.source_address = self.source.map(|(_, address)| address);
        // Envoy writes status 0 when there was no response.
        self.request.response = self
            .status
            .filter(|status| (100..600).contains(status))
            .map(|status| response(status, Duration::from_millis(self.millis.unwrap_or(0))));
        let request = Box::new(self.request);
        if self.bad_time && request.time.is_none() { Line::WithoutTime(request) } else { Line::Request(request) }
    }
}

/// The response of an upstream.
pub fn response(status: u16, latency: Duration) -> WireResponse {
    WireResponse { status, grpc_status: None, latency, headers: Vec::new() }
}

/// Parses `10.0.0.1:4711`, `[::1]:4711`, or an address alone.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()
}
