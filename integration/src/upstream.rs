//! An HTTP/1.1 server that reports each request byte for byte, and fails on demand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::Field;

/// A request as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The method.
    pub method: Vec<u8>,
    /// The request target.
    pub target: Vec<u8>,
    /// Headers in order. Envoy sends lower-case names.
    pub headers: Vec<Field>,
    /// The body.
    pub body: Vec<u8>,
    /// How many requests this server had received before this one.
    pub number: usize,
}

impl Received {
    /// Every value of a header, as text.
    pub fn values(&self, name: &str) -> Vec<String> {
        let fields = self.headers.iter().filter(|(found, _)| found == name.as_bytes());
        fields.map(|(_, value)| text(value)).collect()
    }

    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }

    /// The target as text.
    pub fn path(&self) -> String {
        text(&self.target)
    }

    fn to_json(&self) -> Value {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| json!([text(name), text(value)])).collect();
        json!({"method": text(&self.method), "path": self.path(), "headers": headers, "body": text(&self.body)})
    }
}

/// Decodes UTF-8, or else Latin-1, so that no byte is lost.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

/// How the server responds to a request.
#[derive(Clone, Debug)]
pub enum UpstreamReply {
    /// Status 200 with the request as JSON: `{"method", "path", "headers": [[name, value]], "body"}`.
    Echo,
    /// This status with these headers.
    Status(u16, Vec<(String, String)>),
    /// Status 200 with this JSON.
    Json(Value),
    /// The given reply after a delay.
    After(Duration, Box<UpstreamReply>),
    /// Status 200 with only this many of the thousand bytes that `content-length` announces; then closes the connection
    /// or hangs.
    Part(usize, Box<UpstreamReply>),
    /// Closes the connection without a response.
    Close,
    /// Never responds.
    Hang,
}

/// The `content-length` of [`UpstreamReply::Part`].
const WHOLE: usize = 1000;

type Handler = dyn Fn(&Received) -> UpstreamReply + Send + Sync;

struct UpstreamState {
    handler: Box<Handler>,
    received: Mutex<Vec<Received>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    keep: bool,
    stopped: AtomicBool,
}

/// A running server. Dropping it closes the port.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<UpstreamState>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Starts a server that echoes requests.
    pub fn echo() -> Result<Self> {
        Self::start(|_| UpstreamReply::Echo)
    }

    /// Starts a server that responds as `handler` says and records every request.
    pub fn start(handler: impl Fn(&Received) -> UpstreamReply + Send + Sync + 'static) -> Result<Self> {
        Self::run((Ipv4Addr::LOCALHOST, 0).into(), handler, true)
    }

    /// The same at the given address.
    pub fn at(
        address: SocketAddr,
        handler: impl Fn(&Received) -> UpstreamReply + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::run(address, handler, false)
    }

    /// The same for load tests: it counts requests but does not record them.
    pub fn forgetful(handler: impl Fn(&Received) -> UpstreamReply + Send + Sync + 'static) -> Result<Self> {
        Self::run((Ipv4Addr::LOCALHOST, 0).into(), handler, false)
    }

    fn run(
        address: SocketAddr,
        handler: impl Fn(&Received) -> UpstreamReply + Send + Sync + 'static,
        keep: bool,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(UpstreamState {
            handler: Box::new(handler),
            received: Mutex::default(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            keep,
            stopped: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&shared);
                // An error means that the proxy has closed the connection, which it may do.
                thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(Upstream { address, state })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of requests received.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// The number of connections accepted.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The latest request.
    pub fn last(&self) -> Option<Received> {
        self.all().pop()
    }

    /// All requests so far.
    pub fn all(&self) -> Vec<Received> {
        self.state.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, state: &UpstreamState) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream)? {
        request.number = state.requests.fetch_add(1, Ordering::SeqCst);
        let reply = (state.handler)(&request);
        if state.keep {
            state.received.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        }
        if !answer(&mut stream, state, &request, reply)? {
            break;
        }
    }
    Ok(())
}

/// Sends a reply; returns whether the connection stays open.
fn answer(
    stream: &mut BufReader<TcpStream>,
    state: &UpstreamState,
    request: &Received,
    reply: UpstreamReply,
) -> Result<bool> {
    let (status, headers, body) = match reply {
        UpstreamReply::Echo => return answer(stream, state, request, UpstreamReply::Json(request.to_json())),
        UpstreamReply::Json(value) => {
            (200, vec![("content-type".to_owned(), "application/json".to_owned())], value.to_string())
        }
        UpstreamReply::Status(status, headers) => (status, headers, String::new()),
        UpstreamReply::After(delay, reply) => {
            thread::sleep(delay);
            return answer(stream, state, request, *reply);
        }
        UpstreamReply::Part(bytes, then) => {
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {WHOLE}\r\n\r\n");
            let body = vec![b'x'; bytes.min(WHOLE)];
            stream.get_mut().write_all(&[head.as_bytes(), &body].concat())?;
            return answer(stream, state, request, *then);
        }
        UpstreamReply::Close => return Ok(false),
        UpstreamReply::Hang => {
            // Waits until the proxy closes the connection or the test ends.
            stream.get_ref().set_read_timeout(Some(Duration::from_millis(100)))?;
            while !state.stopped.load(Ordering::SeqCst) {
                if stream.fill_buf().is_ok_and(<[u8]>::is_empty) {
                    break;
                }
            }
            return Ok(false);
        }
    };
    let mut response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        response.push_str(&format!("{name}: {value}\r\n"));
    }
    response.push_str("\r\n");
    if request.method != b"HEAD" {
        response.push_str(&body);
    }
    stream.get_mut().write_all(response.as_bytes())?;
    Ok(true)
}

/// Reads the next request; `None` when the proxy has closed the connection.
fn read(stream: &mut BufReader<TcpStream>) -> Result<Option<Received>> {
    let line = |stream: &mut BufReader<TcpStream>| -> Result<Vec<u8>> {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line)?;
        let length = line.strip_suffix(b"\r\n").unwrap_or(&line).len();
        line.truncate(length);
        Ok(line)
    };
    let first = line(stream)?;
    let mut parts = first.split(|&byte| byte == b' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let mut request = Received { method: method.to_vec(), target: target.to_vec(), ..Received::default() };
    loop {
        let line = line(stream)?;
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { break };
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        request.headers.push((name.to_vec(), value.strip_prefix(b" ").unwrap_or(value).to_vec()));
    }
    if let Some(length) = request.header("content-length") {
        request.body = vec![0; length.parse()?];
        stream.read_exact(&mut request.body)?;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(String::from_utf8_lossy(&line(stream)?).trim(), 16)?;
            if size == 0 {
                // Trailers would otherwise be read as the next request.
                while !line(stream)?.is_empty() {}
                break;
            }
            let start = request.body.len();
            request.body.resize(start + size, 0);
            stream.read_exact(request.body.get_mut(start..).unwrap_or_default())?;
            line(stream)?;
        }
    }
    Ok(Some(request))
}
