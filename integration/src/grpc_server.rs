//! A gRPC server that sends any given response, including invalid ones: it writes HTTP/2 frames as bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::Field;
use crate::http::h2::{encode, frame};

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// How the server responds to a call.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A valid response with this message.
    Message(Vec<u8>),
    /// The given response after a delay.
    After(Duration, Vec<u8>),
    /// Status 200 with this body, which is not framed as a gRPC message.
    Body(Vec<u8>),
    /// This HTTP status and content type.
    Status(u16, &'static str),
    /// This gRPC status in the headers, without a message.
    Grpc(u8),
    /// An empty message, then this gRPC status in the trailers.
    Trailers(u8),
    /// Resets the stream.
    Reset,
    /// Ends the connection with GOAWAY.
    GoAway,
    /// Closes the connection at once.
    Close,
    /// Never responds.
    Hang,
}

/// A running server. Dropping it closes the port.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl GrpcServer {
    /// Starts a server that responds to every call in this way.
    pub fn start(answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let address = listener.local_addr()?;
        let (calls, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let server = GrpcServer { address, calls: Arc::clone(&calls), stopped: Arc::clone(&stopped) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, calls) = (answer.clone(), Arc::clone(&calls));
                // An error means that the proxy has closed the connection, which it may do.
                thread::spawn(move || serve(stream, &answer, &calls));
            }
        });
        Ok(server)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, calls: &AtomicUsize) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, number @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
        stream.read_exact(&mut payload)?;
        let number = u32::from_be_bytes(number) & 0x7fff_ffff;
        if kind == SETTINGS && flags & ACK == 0 {
            stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
        }
        // A unary call is complete when its data ends.
        if kind == DATA && flags & END_STREAM != 0 {
            calls.fetch_add(1, Ordering::SeqCst);
            if !give(&mut stream, number, answer)? {
                return Ok(());
            }
        }
    }
}

/// Handles one frame; returns whether the connection stays open.
fn give(stream: &mut TcpStream, number: u32, answer: &Answer) -> Result<bool> {
    let field = |name: &str, value: &str| -> Field { (name.into(), value.into()) };
    let head = |status: u16, kind: &str| encode(&[field(":status", &status.to_string()), field("content-type", kind)]);
    let ok = head(200, "application/grpc");
    match answer {
        Answer::After(delay, message) => {
            thread::sleep(*delay);
            return give(stream, number, &Answer::Message(message.clone()));
        }
        Answer::Message(message) => {
            let length = u32::try_from(message.len())?.to_be_bytes();
            let body = [&[0][..], &length, message].concat();
            stream.write_all(&frame(HEADERS, END_HEADERS, number, &ok))?;
            for part in body.chunks(16_384) {
                stream.write_all(&frame(DATA, 0, number, part))?;
            }
            let trailers = encode(&[field("grpc-status", "0")]);
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &trailers))?;
        }
        Answer::Trailers(status) => {
            stream.write_all(&frame(HEADERS, END_HEADERS, number, &ok))?;
            stream.write_all(&frame(DATA, 0, number, &[0; 5]))?;
            let trailers = encode(&[field("grpc-status", &status.to_string())]);
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &trailers))?;
        }
        Answer::Body(body) => {
            stream.write_all(&frame(HEADERS, END_HEADERS, number, &ok))?;
            stream.write_all(&frame(DATA, END_STREAM, number, body))?;
        }
        Answer::Status(status, kind) => {
            stream.write_all(&frame(HEADERS, END_HEADERS, number, &head(*status, kind)))?;
            stream.write_all(&frame(DATA, END_STREAM, number, b"<html>no</html>"))?;
        }
        Answer::Grpc(status) => {
            let mut fields = vec![field(":status", "200"), field("content-type", "application/grpc")];
            fields.push(field("grpc-status", &status.to_string()));
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &encode(&fields)))?;
        }
        Answer::Reset => stream.write_all(&frame(RST_STREAM, 0, number, &2_u32.to_be_bytes()))?,
        Answer::GoAway => {
            stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8]))?;
            return Ok(false);
        }
        Answer::Close => return Ok(false),
        Answer::Hang => {}
    }
    Ok(true)
}
