//! Tests of the access log service with real sockets: what clients can do that are slow, silent or hostile.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::als::{AlsLimits, AlsReceiver, LONGEST, METHOD, MOST_ENTRIES, PREFACE};
use super::proto::{EnvoyNode, HttpEntries, HttpEntry, RequestProperties, StreamAccessLogsMessage, StreamIdentifier};
use super::store::{SharedFeed, SourceState, lock};
use crate::connections::{ConnectionLimit, LimitedListener};
use crate::scrape::Shared;

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

struct Service {
    address: SocketAddr,
    feed: SharedFeed,
    source: Arc<SourceState>,
    limit: Arc<ConnectionLimit>,
}

impl Service {
    async fn start(most: usize, limits: AlsLimits) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (feed, source) = (SharedFeed::default(), Arc::new(SourceState::default()));
        let receiver = AlsReceiver {
            cluster: "east".to_owned(),
            feed: Arc::clone(&feed),
            fleet: Shared::default(),
            source: Arc::clone(&source),
            buffered: Arc::default(),
            limits,
        };
        let limit = ConnectionLimit::counting(most, Arc::clone(&source.closed_connections));
        tokio::spawn(receiver.serve(LimitedListener::by_touch(listener, Arc::clone(&limit))));
        Service { address, feed, source, limit }
    }

    async fn connect(&self, first: &[u8]) -> TcpStream {
        let mut peer = TcpStream::connect(self.address).await.unwrap();
        peer.write_all(first).await.unwrap();
        peer
    }

    fn refused(&self) -> u64 {
        self.source.refused_streams.load(Ordering::Relaxed)
    }

    /// The paths that are stored, the oldest first.
    fn paths(&self) -> Vec<String> {
        let feed = lock(&self.feed);
        let mut paths: Vec<_> =
            feed.cluster("east").into_iter().flat_map(|east| east.newest()).map(|one| one.path.clone()).collect();
        paths.reverse();
        paths
    }

    async fn until(&self, what: &str, holds: impl Fn(&Service) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < Duration::from_secs(20), "never: {what}; {:?} {:?}", self.source, self.limit);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("too slow") })
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call: POST, http; then names of HPACK's static table with values as they are.
fn head() -> Vec<u8> {
    let literal = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
    [vec![0x83, 0x86], literal(&[0x04], METHOD), literal(&[0x01], "dash"), literal(&[0x0f, 0x10], "application/grpc")]
        .concat()
}

fn opening() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// A message of gRPC in frames of data.
fn message(stream: u32, flag: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let whole = [&[flag][..], &length, bytes].concat();
    whole.chunks(16_384).flat_map(|part| frame(0, 0, stream, part)).collect()
}

fn log(node: Option<&str>, paths: &[&str]) -> Vec<u8> {
    let entry = |path: &&str| {
        let request = RequestProperties { path: (*path).to_owned(), ..RequestProperties::default() };
        HttpEntry { request: Some(request), ..HttpEntry::default() }.encode_to_vec()
    };
    let node = node.map(|id| EnvoyNode { id: id.to_owned(), metadata: None });
    StreamAccessLogsMessage {
        identifier: node.map(|node| StreamIdentifier { node: Some(node) }),
        http_logs: Some(HttpEntries { entries: paths.iter().map(entry).collect() }),
    }
    .encode_to_vec()
}

/// A connection with one stream that sends this message.
fn call(flag: u8, bytes: &[u8]) -> Vec<u8> {
    [opening(), frame(HEADERS, END_HEADERS, 1, &head()), message(1, flag, bytes)].concat()
}

/// The end of what the server sends.
async fn is_closed(mut peer: TcpStream) {
    let mut bytes = [0; 4096];
    while peer.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

#[test]
fn a_stream_that_the_peer_resets_is_not_open_any_more() {
    run(async {
        let service = Service::start(4, AlsLimits::default()).await;
        let started = [opening(), frame(HEADERS, END_HEADERS, 1, &head())].concat();
        let mut peer = service.connect(&started).await;
        service.until("it opens", |service| service.source.open.load(Ordering::Relaxed) == 1).await;
        peer.write_all(&frame(RESET, 0, 1, &8_u32.to_be_bytes())).await.unwrap();
        service.until("it ends", |service| service.source.open.load(Ordering::Relaxed) == 0).await;
    });
}

#[test]
fn an_envoy_is_heard_among_more_silent_connections_than_there_are_places() {
    run(async {
        let service = Service::start(8, AlsLimits::default()).await;
        let mut envoy = service.connect(&call(0, &log(Some("edge"), &["/first"]))).await;
        service.until("the first", |service| service.paths() == ["/first"]).await;
        let mut silent = Vec::new();
        for number in 0..100 {
            // Some say nothing, some begin and have no stream, some have one that says nothing.
            let begun = [opening(), frame(HEADERS, END_HEADERS, 1, &head())].concat();
            let first = [Vec::new(), opening(), begun];
            silent.push(service.connect(&first[number % 3]).await);
            if number % 7 == 0 {
                envoy.write_all(&message(1, 0, &log(None, &["/more"]))).await.unwrap();
                service.until("more", |service| service.paths().len() == 2 + number / 7).await;
            }
        }
        let _late = service.connect(&call(0, &log(Some("late"), &["/late"]))).await;
        service.until("the late one", |service| service.paths().iter().any(|path| path == "/late")).await;
        assert!(service.limit.open() <= 8 && service.limit.closed() >= 94, "{:?}", service.limit);
        is_closed(silent.remove(0)).await;
    });
}

#[test]
fn connections_without_a_stream_and_messages_without_an_end_are_given_up() {
    run(async {
        let limits = AlsLimits { message: Duration::from_millis(250), idle: Duration::from_millis(600) };
        let service = Service::start(8, limits).await;
        is_closed(service.connect(&opening()).await).await;
        assert_eq!(service.limit.closed(), 1);
        // Half of a message, and nothing more.
        let begun = [opening(), frame(HEADERS, END_HEADERS, 1, &head()), frame(0, 0, 1, &[0, 0, 0, 0, 9, 1])].concat();
        let _half = service.connect(&begun).await;
        service.until("it is given up", |service| service.refused() == 1).await;
        assert!(service.paths().is_empty());
        // A stream that is silent between messages stays.
        let mut quiet = service.connect(&call(0, &log(Some("edge"), &["/one"]))).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        quiet.write_all(&message(1, 0, &log(None, &["/two"]))).await.unwrap();
        service.until("both", |service| service.paths() == ["/one", "/two"]).await;
    });
}

#[test]
fn messages_that_no_envoy_sends_end_their_stream_and_are_counted() {
    run(async {
        let service = Service::start(8, AlsLimits::default()).await;
        let many = vec!["/"; MOST_ENTRIES + 1];
        let cases: [(u8, Vec<u8>); 4] = [
            // No identifier; compressed; not a message; more entries than Envoy's buffer holds.
            (0, log(None, &["/"])),
            (1, log(Some("edge"), &["/"])),
            (0, vec![0xff; 9]),
            (0, log(Some("edge"), &many)),
        ];
        let length = u32::try_from(LONGEST + 1).unwrap().to_be_bytes();
        let too_long = frame(0, 0, 1, &[&[0][..], &length].concat());
        let mut peers =
            vec![service.connect(&[opening(), frame(HEADERS, END_HEADERS, 1, &head()), too_long].concat()).await];
        for (number, (flag, bytes)) in cases.iter().enumerate() {
            peers.push(service.connect(&call(*flag, bytes)).await);
            service.until("it is refused", |service| service.refused() == number as u64 + 2).await;
        }
        // Of the last one, those within the bounds are there, up to the rate of a proxy.
        let counts = lock(&service.feed).cluster("east").unwrap().counts(|_| true);
        assert_eq!(counts.received, MOST_ENTRIES as u64);
        assert_eq!(lock(&service.feed).cluster("east").unwrap().unreadable(), 5);
    });
}

#[test]
fn floods_of_resets_and_headers_without_end_close_the_connection() {
    run(async {
        let service = Service::start(8, AlsLimits::default()).await;
        let resets = (0..2_000_u32).flat_map(|number| {
            let stream = 2 * number + 1;
            [frame(HEADERS, END_HEADERS, stream, &head()), frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
        });
        let resets: Vec<u8> = opening().into_iter().chain(resets).collect();
        let header = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'a'; 16_384]].concat();
        let endless = (0..200).map(|_| frame(CONTINUATION, 0, 1, &header[..16_384]));
        let endless: Vec<u8> =
            [opening(), frame(HEADERS, 0, 1, &head())].into_iter().chain(endless).flatten().collect();
        for flood in [resets, endless] {
            let (reads, mut writes) = TcpStream::connect(service.address).await.unwrap().into_split();
            let sent = tokio::spawn(async move { while writes.write_all(&flood).await.is_ok() {} });
            let mut reads = reads;
            let mut bytes = [0; 4096];
            while reads.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            sent.await.unwrap();
        }
        service.until("they are gone", |service| service.limit.open() == 0).await;
        let _envoy = service.connect(&call(0, &log(Some("edge"), &["/after"]))).await;
        service.until("an Envoy after them", |service| service.paths() == ["/after"]).await;
    });
}
