//! A server for tests of network filters: it speaks first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::http;

/// A server that counts its connections and sends a greeting on each.
pub fn greeter() -> Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let (address, count) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                // The proxy may close the connection.
                let _ = stream.write_all(b"pong").and_then(|()| stream.read(&mut [0; 1024]));
            });
        }
    });
    Ok((address, count))
}

/// Opens a connection with the server name `name`; returns whether the upstream responds.
pub fn greeted(address: SocketAddr, name: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&http::client_hello(Some(name)))?;
    Ok(stream.read(&mut [0; 4]).is_ok_and(|read| read > 0))
}
