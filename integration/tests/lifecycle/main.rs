//! The life of requests in a real Envoy: retries, internal redirects, upgrades, early responses, clients that leave,
//! and policies that change during a request.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod again;
mod clients;
mod endings;
mod grpc;
mod reloads;
mod upgrades;
mod upstream_time;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use penstock_integration::http::HttpResponse;
use penstock_integration::wait_until;

/// How many more requests with this key a limit with `quotaHeaders: Draft03` passes.
fn remaining(response: &HttpResponse) -> Option<u64> {
    response.header("x-ratelimit-remaining")?.parse().ok()
}

/// An upstream that responds with the given bytes as soon as it has a request's headers, and records what it read.
struct HeadServer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl HeadServer {
    fn start(answer: &'static [u8]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = HeadServer { address: listener.local_addr()?, heads: Arc::default() };
        let heads = Arc::clone(&server.heads);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heads = Arc::clone(&heads);
                // An error means that the proxy has closed the connection, which it may do.
                thread::spawn(move || serve(&stream, answer, &heads));
            }
        });
        Ok(server)
    }

    /// The last request's headers, one a line.
    fn last(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads.last().map(|head| head.lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

fn serve(stream: &TcpStream, answer: &[u8], heads: &Mutex<Vec<String>>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "closed");
    }
    heads.lock().unwrap().push(head);
    let mut writer = stream;
    writer.write_all(answer)?;
    // Reads the rest until the proxy closes the connection, so that nothing is reset.
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    Ok(())
}
