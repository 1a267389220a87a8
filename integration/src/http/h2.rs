//! A small HTTP/2 client that sends the header list exactly as given, in order and byte for byte.
//!
//! Requests are encoded as literals, without Huffman coding or the dynamic table, so that no field is altered or
//! refused by the client. One request is in flight at a time.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use loona_hpack::Decoder;

use super::message::{Field, HttpRequest, HttpResponse};
use crate::wait::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame that every peer accepts by default.
const FRAME: usize = 16_384;
/// The initial flow-control window of a stream and of a connection.
const WINDOW: usize = 65_535;

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// An HTTP/2 connection.
pub struct Http2Connection {
    stream: BufReader<TcpStream>,
    decoder: Decoder<'static>,
    next_stream: u32,
    ending: bool,
}

impl std::fmt::Debug for Http2Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).field("next_stream", &self.next_stream).finish()
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Http2Connection {
    /// Connects and sends the connection preface.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::open_after(address, b"")
    }

    /// The same, but sends these bytes first, as a load balancer would with the PROXY protocol.
    pub fn open_after(address: SocketAddr, preamble: &[u8]) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("no answer at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut decoder = Decoder::new();
        decoder.set_max_table_size(4096);
        let mut connection = Http2Connection { stream: BufReader::new(stream), decoder, next_stream: 1, ending: false };
        // ENABLE_PUSH = 0, INITIAL_WINDOW_SIZE = 2^31 - 1: responses of any size need no window updates from the
        // client.
        let settings = [&[0, 2, 0, 0, 0, 0][..], &[0, 4, 0x7f, 0xff, 0xff, 0xff]].concat();
        let mut hello = [preamble, PREFACE].concat();
        hello.extend(frame(SETTINGS, 0, 0, &settings));
        hello.extend(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
        connection.write(&hello)?;
        Ok(connection)
    }

    /// Sends a request and waits for the whole response.
    pub fn request(&mut self, request: &HttpRequest) -> Result<HttpResponse> {
        self.send(&fields_of(request), &request.body)
    }

    /// Sends a request, calls `until` (which waits for something), and cancels the stream.
    pub fn abandon(&mut self, request: &HttpRequest, until: impl FnOnce() -> Result<()>) -> Result<()> {
        /// CANCEL: the client does not want the response any more.
        const CANCEL: u32 = 8;
        let (stream, sent) = self.begin(&fields_of(request), &request.body)?;
        sent?;
        until()?;
        self.write(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()))
    }

    /// Whether the peer has sent GOAWAY.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Sends exactly this header list and a body of at most 65,535 bytes, and waits for the whole response. Returns an
    /// error when the peer resets the stream.
    pub fn send(&mut self, fields: &[Field], body: &[u8]) -> Result<HttpResponse> {
        let (stream, sent) = self.begin(fields, body)?;
        // A server may refuse the request and close before it has read everything.
        let received = self.receive(stream);
        if received.is_err() {
            sent?;
        }
        received
    }

    /// Sends a request whose body comes in these parts, with a pause before each but the first, and ends it with
    /// trailers.
    pub fn request_in_parts(
        &mut self,
        request: &HttpRequest,
        parts: &[&[u8]],
        pause: Duration,
        trailers: &[Field],
    ) -> Result<HttpResponse> {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.write(&frame(HEADERS, END_HEADERS, stream, &encode(&fields_of(request))))?;
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                thread::sleep(pause);
            }
            self.write(&frame(DATA, 0, stream, part))?;
        }
        self.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &encode(trailers)))?;
        self.receive(stream)
    }

    /// Opens a stream; returns its id, and whether everything could be sent.
    fn begin(&mut self, fields: &[Field], body: &[u8]) -> Result<(u32, Result<()>)> {
        ensure!(body.len() <= WINDOW, "this client sends bodies of at most {WINDOW} bytes");
        let stream = self.next_stream;
        self.next_stream += 2;
        let block = encode(fields);
        let mut bytes = Vec::with_capacity(block.len() + body.len() + 64);
        let mut chunks = block.chunks(FRAME).peekable();
        let mut kind = HEADERS;
        while let Some(chunk) = chunks.next() {
            let last = if chunks.peek().is_none() { END_HEADERS } else { 0 };
            let end = if kind == HEADERS && body.is_empty() { END_STREAM } else { 0 };
            bytes.extend(frame(kind, last | end, stream, chunk));
            kind = CONTINUATION;
        }
        let mut chunks = body.chunks(FRAME).peekable();
        while let Some(chunk) = chunks.next() {
            bytes.extend(frame(DATA, if chunks.peek().is_none() { END_STREAM } else { 0 }, stream, chunk));
        }
        Ok((stream, self.write(&bytes)))
    }

    fn receive(&mut self, stream: u32) -> Result<HttpResponse> {
        let mut response = HttpResponse::default();
        loop {
            let frame = self.read()?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.write(&self::frame(SETTINGS, ACK, 0, &[]))?,
                PING if frame.flags & ACK == 0 => self.write(&self::frame(PING, ACK, 0, &frame.payload))?,
                // This GOAWAY includes the current request: its response still comes.
                GOAWAY if code(frame.payload.get(4..8)) == "NO_ERROR" && last_stream(&frame) >= stream => {
                    self.ending = true;
                }
                GOAWAY => {
                    let text = frame.payload.get(8..).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                    bail!("the connection ended: {} {text}", code(frame.payload.get(4..8)));
                }
                RST_STREAM if frame.stream == stream => {
                    // NO_ERROR after a complete response means that the server does not need the rest of the request.
                    let why = code(frame.payload.get(..4));
                    ensure!(response.status != 0 && why == "NO_ERROR", "the stream was reset: {why}");
                    return Ok(response);
                }
                HEADERS => {
                    let end_stream = frame.flags & END_STREAM != 0;
                    let fields = self.fields(frame)?;
                    accept(&mut response, fields)?;
                    if end_stream && response.status >= 200 {
                        return Ok(response);
                    }
                }
                DATA if frame.stream == stream => {
                    let end_stream = frame.flags & END_STREAM != 0;
                    response.body.extend(unpad(&frame)?);
                    if end_stream {
                        return Ok(response);
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads the header list that starts with a HEADERS frame.
    fn fields(&mut self, first: Frame) -> Result<Vec<Field>> {
        let mut block = unpad(&first)?.to_vec();
        if first.flags & PRIORITY != 0 {
            block.drain(..5.min(block.len()));
        }
        let mut flags = first.flags;
        while flags & END_HEADERS == 0 {
            let next = self.read()?;
            ensure!(next.kind == CONTINUATION, "a header block was interrupted by a frame of type {}", next.kind);
            block.extend(next.payload);
            flags = next.flags;
        }
        self.decoder.decode(&block).map_err(|error| anyhow!("HPACK: {error:?}"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    fn read(&mut self) -> Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).context("the connection closed without an answer")?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }
}

/// The usual header list of a request.
fn fields_of(request: &HttpRequest) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![(b":method".to_vec(), request.method.clone())];
    let connect = request.method == b"CONNECT" && request.protocol.is_none();
    if !connect {
        fields.push((b":scheme".to_vec(), request.scheme.clone()));
    }
    if !request.authority.is_empty() {
        fields.push((b":authority".to_vec(), request.authority.clone()));
    }
    if !connect {
        fields.push((b":path".to_vec(), request.path.clone()));
    }
    if let Some(protocol) = &request.protocol {
        fields.push((b":protocol".to_vec(), protocol.clone()));
    }
    fields.extend(request.headers.iter().cloned());
    if !request.body.is_empty() {
        fields.push((b"content-length".to_vec(), request.body.len().to_string().into_bytes()));
    }
    fields
}

/// Handles the headers of a response, or its trailers.
fn accept(response: &mut HttpResponse, fields: Vec<Field>) -> Result<()> {
    if response.status >= 200 {
        response.trailers = fields;
        return Ok(());
    }
    let mut fields = fields.into_iter();
    let (_, status) = fields.next().filter(|(name, _)| name == b":status").context("a response without :status")?;
    response.status = String::from_utf8_lossy(&status).parse()?;
    response.headers = fields.collect();
    Ok(())
}

/// The last stream that the peer of a GOAWAY processes.
fn last_stream(goaway: &Frame) -> u32 {
    let bytes = goaway.payload.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    bytes.map_or(0, |bytes| u32::from_be_bytes(bytes) & 0x7fff_ffff)
}

fn code(bytes: Option<&[u8]>) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let code = bytes.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map_or(u32::MAX, u32::from_be_bytes);
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("error {code}"), |&name| name.to_owned())
}

fn unpad(frame: &Frame) -> Result<&[u8]> {
    if frame.flags & PADDED == 0 {
        return Ok(&frame.payload);
    }
    let (&padding, rest) = frame.payload.split_first().context("a padded frame without its length")?;
    let length = rest.len().checked_sub(usize::from(padding)).context("more padding than frame")?;
    rest.get(..length).context("more padding than frame")
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [_, length @ ..] = length;
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HPACK: encodes each field as a literal without indexing and without Huffman coding.
pub(crate) fn encode(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// HPACK: encodes an integer with a 7-bit prefix.
fn length(block: &mut Vec<u8>, length: usize) {
    let low = |value: usize| u8::try_from(value & 0x7f).unwrap_or(0x7f);
    if length < 0x7f {
        block.push(low(length));
        return;
    }
    block.push(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        block.push(low(rest) | 0x80);
        rest >>= 7;
    }
    block.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_and_decoding_gives_the_same_bytes() {
        for size in [0, 1, 126, 127, 128, 254, 255, 16_383, 16_384, 70_000] {
            let fields = vec![(b"x".to_vec(), vec![0xff; size]), (b":path".to_vec(), b"/".to_vec())];
            assert_eq!(Decoder::new().decode(&encode(&fields)).unwrap(), fields, "{size}");
        }
    }
}
