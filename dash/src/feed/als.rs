//! The gRPC access log service `envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`, over HTTP/2.
//!
//! A stream is read as long as Envoy keeps it open, and never gets a response, because Envoy expects none. Everything
//! that a client can make this process store is bounded: messages, streams, connections, and (by the feed) decisions.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use axum::serve::Listener;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::AsyncReadExt;

use super::decision::AccessLogEntry;
use super::proto::{Any, EnvoyNode, HttpEntry, StreamAccessLogsMessage, WrappedBytes};
use super::store::{LoggingProxy, SharedFeed, SourceState, lock};
use crate::connections::{ConnectionPlace, HasPlace};
use crate::deadline::HEAD;
use crate::scrape::{self, Shared};

/// The path of the only method.
pub const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// The longest message in bytes. Envoy sends what it has buffered, 16 KiB by default.
pub const LONGEST: usize = 256 << 10;

/// The bound for all incomplete messages together, in bytes.
const MOST_BUFFERED: usize = 64 << 20;

/// The maximum number of connections: each worker of each Envoy has one.
pub const CONNECTIONS: usize = 1_024;

/// The maximum number of entries of a message. Envoy's buffer of 16 KiB holds about a hundred.
pub(super) const MOST_ENTRIES: usize = 2_000;

/// How many streams of a connection may end without success in a while.
const MOST_FAILED: u32 = 64;

/// How many reset streams may wait to be accepted, and how many this server may reset itself.
const MOST_RESET: usize = 32;

/// The maximum number of streams in a connection.
const STREAMS: u32 = 16;

/// The flow-control window of a connection; one thread reads all of them.
const WINDOW: u32 = 64 << 10;

/// The HTTP/2 connection preface (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection is closed when the peer does not respond to a ping for this long.
const PING: Duration = Duration::from_secs(30);

/// The times after which connections are closed.
#[derive(Clone, Copy, Debug)]
pub struct AlsLimits {
    /// How long a message may take from its first byte to its last.
    pub message: Duration,
    /// How long a connection may have no stream.
    pub idle: Duration,
}

impl Default for AlsLimits {
    fn default() -> AlsLimits {
        AlsLimits { message: Duration::from_secs(10), idle: Duration::from_secs(60) }
    }
}

/// The receiver of one cluster's access logs.
#[derive(Clone, Debug)]
pub struct AlsReceiver {
    /// The name of the cluster.
    pub cluster: String,
    /// Where decisions are stored.
    pub feed: SharedFeed,
    /// The known proxies.
    pub fleet: Shared,
    /// The state of the source.
    pub source: Arc<SourceState>,
    /// The number of bytes in incomplete messages.
    pub buffered: Arc<AtomicUsize>,
    /// The times after which connections are closed.
    pub limits: AlsLimits,
}

/// The streams of a connection.
#[derive(Debug, Default)]
struct ConnectionStreams {
    open: AtomicUsize,
    /// How many ended without success lately.
    failed: AtomicU32,
}

impl ConnectionStreams {
    /// Ends when the connection is of no use: it has no stream for `idle`, or its streams fail.
    async fn are_useless(&self, idle: Duration) {
        let steps = 12;
        let mut without = 0;
        let mut ticks = tokio::time::interval(idle / steps);
        loop {
            ticks.tick().await;
            without = if self.open.load(Ordering::Relaxed) == 0 { without + 1 } else { 0 };
            // Failures of the past count less.
            let failed = self.failed.load(Ordering::Relaxed);
            if without > steps || failed > MOST_FAILED {
                return;
            }
            self.failed.fetch_sub(failed / 2, Ordering::Relaxed);
        }
    }
}

/// The received part of a message, and its share of the bound for all.
struct MessageBuffer<'r> {
    bytes: Vec<u8>,
    all: &'r AtomicUsize,
}

impl MessageBuffer<'_> {
    fn push(&mut self, data: &[u8]) -> Result<(), Ended> {
        if self.all.fetch_add(data.len(), Ordering::Relaxed) + data.len() > MOST_BUFFERED {
            self.all.fetch_sub(data.len(), Ordering::Relaxed);
            return Err((8, "too many unfinished messages of all streams together"));
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn keep_last(&mut self, length: usize) {
        let gone = self.bytes.len() - length;
        self.bytes.drain(..gone);
        self.all.fetch_sub(gone, Ordering::Relaxed);
    }
}

impl Drop for MessageBuffer<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A stream that is open. One that the peer resets is dropped in the middle of a read: nothing after that read runs.
struct OpenStream<'s> {
    source: &'s SourceState,
    streams: &'s ConnectionStreams,
}

impl<'s> OpenStream<'s> {
    fn new(source: &'s SourceState, streams: &'s ConnectionStreams) -> OpenStream<'s> {
        source.open.fetch_add(1, Ordering::Relaxed);
        streams.open.fetch_add(1, Ordering::Relaxed);
        streams.failed.fetch_add(1, Ordering::Relaxed);
        OpenStream { source, streams }
    }

    fn succeed(self) {
        self.streams.failed.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.source.open.fetch_sub(1, Ordering::Relaxed);
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a stream is not read any further: a gRPC status and its message.
type Ended = (u8, &'static str);

impl AlsReceiver {
    /// Accepts connections until the process ends.
    pub async fn serve<L>(self, mut listener: L)
    where
        L: Listener<Addr = SocketAddr>,
        L::Io: HasPlace + Unpin,
    {
        loop {
            let (mut io, _) = listener.accept().await;
            let receiver = self.clone();
            tokio::spawn(async move {
                let place = Arc::clone(io.place());
                let mut preface = [0; PREFACE.len()];
                let begun = tokio::time::timeout(HEAD, io.read_exact(&mut preface)).await;
                if !matches!(begun, Ok(Ok(_))) || preface != *PREFACE {
                    place.close();
                    return;
                }
                let streams = Arc::new(ConnectionStreams::default());
                let (idle, of_service) = (receiver.limits.idle, (Arc::clone(&streams), Arc::clone(&place)));
                let (reads, writes) = tokio::io::split(io);
                let io = tokio::io::join(std::io::Cursor::new(preface).chain(reads), writes);
                let service = service_fn(move |request| {
                    let (receiver, (streams, place)) = (receiver.clone(), of_service.clone());
                    async move { Ok::<_, Infallible>(receiver.stream(request, &streams, &place).await) }
                });
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(STREAMS)
                    .initial_stream_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .max_header_list_size(16 << 10)
                    .max_pending_accept_reset_streams(MOST_RESET)
                    .max_local_error_reset_streams(MOST_RESET)
                    .keep_alive_interval(PING)
                    .keep_alive_timeout(PING)
                    .serve_connection(TokioIo::new(io), service);
                tokio::select! {
                    // An error is the peer's: it closed the connection, or does not use HTTP/2.
                    _ = connection => {}
                    () = streams.are_useless(idle) => place.close(),
                }
            });
        }
    }

    async fn stream(
        &self,
        request: Request<Incoming>,
        streams: &ConnectionStreams,
        place: &ConnectionPlace,
    ) -> Response<Full<Bytes>> {
        let open = OpenStream::new(&self.source, streams);
        let is_grpc = |headers: &HeaderMap| {
            headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        };
        if request.method() != Method::POST || !is_grpc(request.headers()) {
            let mut response = Response::new(Full::from("this is a gRPC service for Envoy's access logs\n"));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        if request.uri().path() != METHOD {
            return status(12, "only StreamAccessLogs is implemented");
        }
        match self.read(request.into_body(), place).await {
            Ok(()) => {
                open.succeed();
                status(0, "")
            }
            Err(error) => {
                self.source.refused_streams.fetch_add(1, Ordering::Relaxed);
                lock(&self.feed).note_unreadable(&self.cluster);
                status(error.0, error.1)
            }
        }
    }

    /// Reads the messages of a stream until it ends.
    async fn read(&self, body: Incoming, place: &ConnectionPlace) -> Result<(), Ended> {
        let mut body = pin!(body);
        let mut buffer = MessageBuffer { bytes: Vec::new(), all: &self.buffered };
        let mut proxy = None;
        // A stream may be silent for hours, but not in the middle of a message.
        let mut until = None;
        loop {
            let frame = match until {
                None => body.frame().await,
                Some(until) => tokio::time::timeout_at(until, body.frame())
                    .await
                    .map_err(|_| (4, "the rest of a message did not arrive"))?,
            };
            let Some(frame) = frame else { return Ok(()) };
            // The stream has ended; messages before that count.
            let Ok(frame) = frame else { return Ok(()) };
            let Ok(data) = frame.into_data() else { continue };
            buffer.push(&data)?;
            while let Some((message, rest)) = split(&buffer.bytes)? {
                let message =
                    StreamAccessLogsMessage::decode(message).map_err(|_| (3, "not a StreamAccessLogsMessage"))?;
                self.note(message, &mut proxy)?;
                place.touch();
                buffer.keep_last(rest);
                until = None;
            }
            if !buffer.bytes.is_empty() {
                until.get_or_insert_with(|| tokio::time::Instant::now() + self.limits.message);
            }
        }
    }

    fn note(&self, message: StreamAccessLogsMessage, known: &mut Option<EnvoyNode>) -> Result<(), Ended> {
        // Only the first message of a stream has the identifier: a stream is one proxy's.
        if let Some(node) = message.identifier.and_then(|identifier| identifier.node) {
            known.get_or_insert(node);
        }
        let Some(node) = known else { return Err((3, "the first message has no identifier with a node")) };
        let proxy = self.proxy(node);
        let now = scrape::now();
        // Entries of TCP listeners contain no decisions that are shown.
        let entries = message.http_logs.map(|logs| logs.entries).unwrap_or_default();
        let is_too_many = entries.len() > MOST_ENTRIES;
        for entry in entries.into_iter().take(MOST_ENTRIES) {
            let entry = HttpEntry::decode(entry.as_slice()).map_err(|_| (3, "not an HTTPAccessLogEntry"))?;
            lock(&self.feed).note(&self.cluster, &proxy, logged(entry), now);
        }
        if is_too_many {
            Err((8, "a message has more than 2,000 entries: set buffer_size_bytes lower"))
        } else {
            Ok(())
        }
    }

    /// The proxy of a node. For a polled proxy, the namespace comes from its admin interface; for others, from the
    /// message.
    fn proxy(&self, node: &EnvoyNode) -> LoggingProxy {
        let fleet = scrape::lock(&self.fleet);
        let mut endpoints = fleet.cluster(&self.cluster).into_iter().flat_map(|cluster| cluster.endpoints());
        if let Some((name, endpoint)) = endpoints.find(|(_, one)| one.identity.node.as_deref() == Some(&*node.id)) {
            return LoggingProxy { name: Some(name.to_owned()), namespace: endpoint.identity.namespace.clone() };
        }
        let namespace = node.metadata.as_ref().and_then(|metadata| metadata.fields.get("NAMESPACE")?.text.clone());
        let short = |text: String| text.chars().take(128).collect::<String>();
        LoggingProxy { name: Some(short(node.id.clone())).filter(|id| !id.is_empty()), namespace: namespace.map(short) }
    }
}

/// The first message in the received data, and the number of bytes after it. `None` when it is incomplete.
fn split(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, Ended> {
    let Some((head, rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err((12, "compressed messages are not read: leave grpc_service without compression"));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err((8, "a message is longer than 256 KiB: set buffer_size_bytes lower"));
    }
    Ok(rest.split_at_checked(length).map(|(message, rest)| (message, rest.len())))
}

/// A response without a message.
fn status(code: u8, message: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if !message.is_empty() {
        headers.insert("grpc-message", HeaderValue::from_static(message));
    }
    response
}

/// `envoy.config.core.v3.RequestMethod`.
const METHODS: [&str; 10] = ["", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// In ambient meshes, the caller's identity is in the filter state, because Envoy itself does not see the certificate.
const PEER_STATE: &str = "io.istio.peer_principal";

fn logged(entry: HttpEntry) -> AccessLogEntry {
    let (common, request, response) =
        (entry.common.unwrap_or_default(), entry.request.unwrap_or_default(), entry.response.unwrap_or_default());
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut logged = AccessLogEntry {
        at: common.start_time.map(|time| time.seconds as f64 + f64::from(time.nanos) / 1e9),
        method: usize::try_from(request.method)
            .ok()
            .and_then(|method| METHODS.get(method))
            .copied()
            .unwrap_or_default()
            .to_owned(),
        scheme: given(request.scheme),
        authority: request.authority,
        path: given(request.original_path).unwrap_or(request.path),
        status: response.code.and_then(|code| u16::try_from(code.value).ok()).unwrap_or_default(),
        details: response.details,
        address: common.downstream_remote_address.and_then(|address| address.socket?.address.parse::<IpAddr>().ok()),
        ..AccessLogEntry::default()
    };
    let tls = common.tls.unwrap_or_default();
    logged.caller = tls.peer.and_then(|peer| peer.names.into_iter().find_map(|name| name.uri));
    logged.sni = given(tls.sni);
    for (name, value) in common.filter_state_objects {
        if let Some(state) = logged.states.get_mut(&name) {
            *state = unwrapped(&value);
        } else if name == PEER_STATE {
            logged.caller = unwrapped(&value).or(logged.caller);
        }
    }
    for (name, value) in common.custom_tags {
        // Envoy writes `-` for an absent value.
        if let Some(state) = logged.states.get_mut(&name).filter(|_| value != "-") {
            state.get_or_insert(value);
        }
    }
    logged.route = request.headers.get("x-penstock-route").cloned();
    logged.id = response.headers.get("x-penstock-decision-id").cloned().or(given(request.request_id));
    logged.headers = request.headers.into_iter().collect();
    logged.headers.sort_unstable();
    logged
}

/// The text in a `StringValue` or `BytesValue`, which Envoy may have wrapped twice.
fn unwrapped(any: &Any) -> Option<String> {
    let kind = any.kind.rsplit('/').next().unwrap_or_default();
    let inner;
    let bytes = match kind {
        "google.protobuf.Any" => {
            inner = Any::decode(any.value.as_slice()).ok()?.value;
            &inner
        }
        _ => &any.value,
    };
    let value = WrappedBytes::decode(bytes.as_slice()).ok()?.value;
    String::from_utf8(value).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::super::proto::{
        CommonProperties, EnvoyAddress, RequestProperties, ResponseProperties, SocketAddress, WrappedNumber,
    };
    use super::*;

    fn any(kind: &str, value: Vec<u8>) -> Any {
        Any { kind: format!("type.googleapis.com/{kind}"), value }
    }

    fn text(value: &str) -> Any {
        any("google.protobuf.BytesValue", WrappedBytes { value: value.as_bytes().to_vec() }.encode_to_vec())
    }

    #[test]
    fn an_entry_contains_the_modules_filter_state() {
        let twice = any("google.protobuf.Any", text("per-user").encode_to_vec());
        let socket = SocketAddress { address: "203.0.113.7".to_owned() };
        let entry = HttpEntry {
            common: Some(CommonProperties {
                downstream_remote_address: Some(EnvoyAddress { socket: Some(socket) }),
                filter_state_objects: [
                    ("wasm.penstock.rule".to_owned(), text("rateLimits/l")),
                    ("wasm.penstock.egress.rule".to_owned(), twice),
                    ("other".to_owned(), text("x")),
                ]
                .into(),
                custom_tags: [
                    ("penstock.reason".to_owned(), "-".to_owned()),
                    ("penstock.variant".to_owned(), "v".to_owned()),
                ]
                .into(),
                ..CommonProperties::default()
            }),
            request: Some(RequestProperties {
                method: 3,
                authority: "shop.test".to_owned(),
                path: "/rewritten".to_owned(),
                original_path: "/sent?x=1".to_owned(),
                request_id: "r-1".to_owned(),
                ..RequestProperties::default()
            }),
            response: Some(ResponseProperties {
                code: Some(WrappedNumber { value: 429 }),
                details: "penstock_rateLimits_limited".to_owned(),
                ..ResponseProperties::default()
            }),
        };
        let logged = logged(entry);
        assert_eq!((&*logged.method, &*logged.path, logged.status), ("POST", "/sent?x=1", 429));
        let states = &logged.states;
        assert_eq!((states.rule.as_deref(), states.egress_rule.as_deref()), (Some("rateLimits/l"), Some("per-user")));
        assert_eq!((states.reason.as_deref(), states.variant.as_deref()), (None, Some("v")));
        assert_eq!((logged.id.as_deref(), logged.address), (Some("r-1"), "203.0.113.7".parse().ok()));
    }

    #[test]
    fn messages_are_split_and_bounded() {
        assert_eq!(split(&[0, 0, 0, 0]), Ok(None));
        assert_eq!(split(&[0, 0, 0, 0, 2, 7]), Ok(None));
        assert_eq!(split(&[0, 0, 0, 0, 2, 7, 8, 9]), Ok(Some((&[7, 8][..], 1))));
        assert!(split(&[1, 0, 0, 0, 0]).is_err_and(|(code, _)| code == 12));
        assert!(split(&[0, 0xff, 0, 0, 0]).is_err_and(|(code, _)| code == 8));
    }
}
