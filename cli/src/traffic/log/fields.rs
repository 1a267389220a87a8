//! What the values of an access log say about a request.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::wire::{WireRequest, WireResponse};

use super::time;
use crate::traffic::url;

/// What a value of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogField {
    /// `:method`.
    Method,
    /// The path as the client sent it.
    OriginalPath,
    /// The path as it was when the log was written.
    Path,
    /// `:authority`.
    Authority,
    /// `:scheme`.
    Scheme,
    /// When the request began, in this form of `strftime`; empty: RFC 3339.
    Time(String),
    /// The status.
    Status,
    /// Milliseconds until the response's end.
    Duration,
    /// The client, by how much Envoy vouches for it.
    Source(AddressSource),
    /// The address or the port that the client connected to.
    Local,
    /// The server name of the TLS handshake.
    Sni,
    /// The URI SANs of the client's certificate.
    Peer,
    /// A header of the request, by its name in lower case, cut after so many characters.
    Header(String, Option<usize>),
    /// A word without spaces that says nothing about a decision.
    Word,
    /// Anything else.
    Other,
}

/// Which address of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// `DOWNSTREAM_REMOTE_ADDRESS`.
    Remote,
    /// `DOWNSTREAM_DIRECT_REMOTE_ADDRESS`.
    Direct,
}

impl LogField {
    /// What the operator `name(argument):longest` of Envoy's format strings says.
    pub fn new(name: &str, argument: &str, longest: Option<usize>) -> LogField {
        match name {
            "REQ" | "REQUEST_HEADER" => {
                // Of two headers the value does not say which it is of, unless they mean the same.
                let fields: Vec<LogField> =
                    argument.split('?').map(|header| LogField::header(header, longest)).collect();
                match fields.as_slice() {
                    [LogField::OriginalPath, LogField::Path] => LogField::OriginalPath,
                    [one] => one.clone(),
                    [one, other] if one == other => one.clone(),
                    _ => LogField::Other,
                }
            }
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
            // In the default form, which has no space.
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

    /// What a header of the request says.
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

    /// Whether a value of a text log may have this character.
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

/// What a line said so far.
#[derive(Debug, Default)]
pub struct LogRecord {
    request: WireRequest,
    original_path: Option<String>,
    source: Option<(AddressSource, IpAddr)>,
    status: Option<u16>,
    millis: Option<u64>,
    has_method: bool,
    /// A time that is there and cannot be read.
    bad_time: bool,
}

/// What a line is.
#[derive(Debug)]
pub enum Line {
    /// A request.
    Request(Box<WireRequest>),
    /// A request, with a time that cannot be read.
    WithoutTime(Box<WireRequest>),
    /// A connection of a TLS listener, as a request without method and path.
    Connection(Box<WireRequest>),
    /// About no request: a connection that failed before one.
    NoRequest,
    /// So many decisions of which the module wrote no line.
    NotLogged(u64),
    /// In another layout.
    OtherLayout,
}

impl LogRecord {
    /// Takes what `value` says; `-` is Envoy's way to say that there is nothing.
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
            // A certificate may name several; Envoy's identity is the first.
            LogField::Peer => request.peer = value.split(',').next().map(str::to_owned),
            LogField::Header(name, longest) => {
                if name == "x-forwarded-proto" && matches!(value, "http" | "https") {
                    request.scheme.get_or_insert_with(|| value.to_owned());
                }
                // What was cut off is not known.
                if longest.is_none_or(|longest| value.chars().count() < longest) {
                    url::add_header(request, name, value);
                }
            }
            LogField::Word | LogField::Other => {}
        }
    }

    /// Whether what stands in the user agent's place is one value: a client may have sent the quotes in it, or the layout
    /// has more fields. What follows a user agent in the default formats is an identifier of Envoy's own.
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
        // Status 0 is Envoy's for no response.
        self.request.response = self
            .status
            .filter(|status| (100..600).contains(status))
            .map(|status| response(status, Duration::from_millis(self.millis.unwrap_or(0))));
        let request = Box::new(self.request);
        if self.bad_time && request.time.is_none() { Line::WithoutTime(request) } else { Line::Request(request) }
    }
}

/// How an upstream answered.
pub fn response(status: u16, latency: Duration) -> WireResponse {
    WireResponse { status, grpc_status: None, latency, headers: Vec::new() }
}

/// `10.0.0.1:4711`, `[::1]:4711` or an address alone.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()
}
