//! An HTTP/1.1 client over plain TCP that writes bytes as given.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};

use super::message::{Field, HttpRequest, HttpResponse};
use crate::wait::PATIENCE;

/// A keep-alive connection.
#[derive(Debug)]
pub struct Http1Connection {
    stream: BufReader<TcpStream>,
    ending: bool,
}

impl Http1Connection {
    /// Opens a connection.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::open_after(address, b"")
    }

    /// Opens a connection and sends `preamble` first, as a load balancer would with the PROXY protocol.
    pub fn open_after(address: SocketAddr, preamble: &[u8]) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("no answer at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Http1Connection { stream: BufReader::new(stream), ending: false };
        connection.send(preamble)?;
        Ok(connection)
    }

    /// Writes exactly these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// Sends a request and reads the response.
    pub fn request(&mut self, request: &HttpRequest) -> Result<HttpResponse> {
        let sent = self.send(&encode(request));
        // A server may respond and close before it has read the whole request, for example when the header block is too
        // large.
        let received = self.receive(request.method == b"HEAD");
        if received.is_err() {
            sent?;
        }
        received
    }

    /// Sends a request, calls `until` (which waits for something), and closes the connection.
    pub fn abandon(&mut self, request: &HttpRequest, until: impl FnOnce() -> Result<()>) -> Result<()> {
        self.send(&encode(request))?;
        until()?;
        Ok(self.stream.get_ref().shutdown(Shutdown::Both)?)
    }

    /// Reads one response. `bodiless` is true for the response to a HEAD request.
    pub fn receive(&mut self, bodiless: bool) -> Result<HttpResponse> {
        let mut response = self.head()?;
        while (100..200).contains(&response.status) && response.status != 101 {
            response = self.head()?;
        }
        self.ending = response.values("connection").any(|option| option.eq_ignore_ascii_case("close"));
        let chunked = response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if bodiless || matches!(response.status, 101 | 204 | 304) {
            return Ok(response);
        }
        if chunked {
            self.chunks(&mut response)?;
        } else if let Some(length) = response.header("content-length") {
            response.body = vec![0; length.parse().context("content-length")?];
            self.stream.read_exact(&mut response.body)?;
        } else {
            self.stream.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    /// Whether the last response announced that the connection closes.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether the peer closed the connection without sending more.
    pub fn is_closed(&mut self) -> Result<bool> {
        self.has_ended()
    }

    /// Reads more bytes; returns whether the connection has ended. A read that a signal interrupts is repeated.
    fn has_ended(&mut self) -> Result<bool> {
        loop {
            match self.stream.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("no answer in {PATIENCE:?}"),
                other => return Ok(other?.is_empty()),
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        ensure!(line.ends_with(b"\n"), "the connection closed in the middle of a response");
        line.truncate(line.trim_ascii_end().len());
        Ok(line)
    }

    fn head(&mut self) -> Result<HttpResponse> {
        ensure!(!self.has_ended()?, "the connection closed without a response");
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line);
        let Some(status) = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)) else {
            bail!("not a status line: {text:?}");
        };
        let status = status.parse().with_context(|| format!("not a status line: {text:?}"))?;
        Ok(HttpResponse { status, headers: self.fields()?, ..HttpResponse::default() })
    }

    fn fields(&mut self) -> Result<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|&byte| byte == b':').context("a header line without a colon")?;
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b":").unwrap_or(value);
            fields.push((name.to_ascii_lowercase(), value.trim_ascii().to_vec()));
        }
    }

    fn chunks(&mut self, response: &mut HttpResponse) -> Result<()> {
        loop {
            let size = String::from_utf8_lossy(&self.line()?).into_owned();
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
            if size == 0 {
                response.trailers = self.fields()?;
                return Ok(());
            }
            let start = response.body.len();
            response.body.resize(start + size, 0);
            self.stream.read_exact(response.body.get_mut(start..).unwrap_or_default())?;
            ensure!(self.line()?.is_empty(), "a chunk is longer than it says");
        }
    }
}

/// The bytes of a request. `authority` becomes the first header; an empty authority is omitted.
pub fn encode(request: &HttpRequest) -> Vec<u8> {
    let mut bytes = [&request.method, &b" "[..], &request.path, b" HTTP/1.1\r\n"].concat();
    let mut field = |name: &[u8], value: &[u8]| bytes.extend([name, b": ", value, b"\r\n"].concat());
    if !request.authority.is_empty() {
        field(b"host", &request.authority);
    }
    for (name, value) in &request.headers {
        field(name, value);
    }
    if !request.body.is_empty() {
        field(b"content-length", request.body.len().to_string().as_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(&request.body);
    bytes
}
