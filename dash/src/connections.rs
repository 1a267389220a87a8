//! Bounds the connections to a server: a new one is always accepted, and when there are too many, the one that was
//! useful the longest time ago is closed.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// How many bytes a client may send without a request or a message in them. Pings, settings and empty frames end the
/// connection at some point; the longest requests and messages are far shorter.
const MOST_USELESS: usize = 8 << 20;

/// The open connections of a server.
#[derive(Debug)]
pub struct ConnectionLimit {
    most: usize,
    /// A counter instead of a clock: each use of a connection has its own number.
    used: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<PlaceState>>>,
    /// How many were closed because they were too slow, sent nothing useful, or others needed their place.
    closed: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct PlaceState {
    used: AtomicU64,
    is_closed: AtomicBool,
    useless: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

/// A connection's place among the open ones. Dropping it makes room.
#[derive(Debug)]
pub struct ConnectionPlace {
    limit: Arc<ConnectionLimit>,
    id: u64,
    state: Arc<PlaceState>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionLimit {
    /// No connections, and at most this many.
    pub fn new(most: usize) -> Arc<ConnectionLimit> {
        ConnectionLimit::counting(most, Arc::default())
    }

    /// The same; counts in `closed` those that it closes.
    pub fn counting(most: usize, closed: Arc<AtomicU64>) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit { most, used: AtomicU64::new(0), open: Mutex::default(), closed })
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        lock(&self.open).len()
    }

    /// How many were closed because they were too slow, sent nothing useful, or others needed their place.
    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }

    fn admit(self: &Arc<Self>) -> Arc<ConnectionPlace> {
        let id = self.used.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(PlaceState { used: AtomicU64::new(id), ..PlaceState::default() });
        let mut open = lock(&self.open);
        if open.len() >= self.most {
            let oldest = open.iter().min_by_key(|(_, state)| state.used.load(Ordering::Relaxed)).map(|(id, _)| *id);
            if let Some(oldest) = oldest.and_then(|id| open.remove(&id)) {
                self.closed.fetch_add(1, Ordering::Relaxed);
                oldest.close();
            }
        }
        open.insert(id, Arc::clone(&state));
        Arc::new(ConnectionPlace { limit: Arc::clone(self), id, state })
    }
}

impl PlaceState {
    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }
}

impl ConnectionPlace {
    /// The connection has been useful: it has received a message, or got an answer.
    pub fn touch(&self) {
        self.state.used.store(self.limit.used.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.state.useless.store(0, Ordering::Relaxed);
    }

    /// Closes the connection, and counts that.
    pub fn close(&self) {
        if !self.state.is_closed.load(Ordering::Relaxed) {
            self.limit.closed.fetch_add(1, Ordering::Relaxed);
            self.state.close();
        }
    }

    fn is_closed(&self, cx: &Context<'_>) -> bool {
        let is_closed = self.state.is_closed.load(Ordering::Relaxed);
        if !is_closed {
            let mut waker = lock(&self.state.waker);
            match waker.as_mut() {
                Some(known) => known.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        is_closed
    }

    /// Counts received bytes. False when there are too many that were of no use.
    fn receives(&self, bytes: usize) -> bool {
        self.state.useless.fetch_add(bytes, Ordering::Relaxed) + bytes <= MOST_USELESS
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        lock(&self.limit.open).remove(&self.id);
    }
}

/// A connection that has a place.
pub trait HasPlace {
    /// Its place.
    fn place(&self) -> &Arc<ConnectionPlace>;
}

/// A connection that is closed when others need its place.
#[derive(Debug)]
pub struct LimitedConnection<S> {
    io: S,
    place: Arc<ConnectionPlace>,
    /// Whether each answer counts as a use.
    by_answers: bool,
}

impl<S> HasPlace for LimitedConnection<S> {
    fn place(&self) -> &Arc<ConnectionPlace> {
        &self.place
    }
}

impl<S: HasPlace> HasPlace for TlsStream<S> {
    fn place(&self) -> &Arc<ConnectionPlace> {
        self.get_ref().0.place()
    }
}

/// A listener with a bounded number of connections.
#[derive(Debug)]
pub struct LimitedListener<L> {
    listener: L,
    limit: Arc<ConnectionLimit>,
    by_answers: bool,
}

impl<L> LimitedListener<L> {
    /// Connections are used when they get an answer.
    pub fn by_answers(listener: L, limit: Arc<ConnectionLimit>) -> LimitedListener<L> {
        LimitedListener { listener, limit, by_answers: true }
    }

    /// Connections are used when they [say so](ConnectionPlace::touch).
    pub fn by_touch(listener: L, limit: Arc<ConnectionLimit>) -> LimitedListener<L> {
        LimitedListener { listener, limit, by_answers: false }
    }
}

impl<L: Listener> Listener for LimitedListener<L>
where
    L::Io: Unpin,
{
    type Io = LimitedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (LimitedConnection { io, place: self.limit.admit(), by_answers: self.by_answers }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<S> LimitedConnection<S> {
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if self.place.is_closed(cx) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedConnection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if !self.place.receives(buffer.filled().len() - before) {
            self.place.close();
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if self.by_answers && matches!(written, Poll::Ready(Ok(_))) {
            self.place.touch();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A connection that occupies one of the places.
    pub(crate) fn limited<S>(io: S) -> LimitedConnection<S> {
        LimitedConnection { io, place: ConnectionLimit::new(1).admit(), by_answers: true }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(20), test).await.expect("too slow") })
    }

    /// A server that answers each byte with a byte.
    async fn echo(limit: &Arc<ConnectionLimit>) -> std::net::SocketAddr {
        let mut listener =
            LimitedListener::by_answers(TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::clone(limit));
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut io, _) = listener.accept().await;
                tokio::spawn(async move {
                    let mut byte = [0; 1];
                    while io.read_exact(&mut byte).await.is_ok() && io.write_all(&byte).await.is_ok() {}
                });
            }
        });
        address
    }

    async fn ask(client: &mut TcpStream) -> io::Result<u8> {
        client.write_all(b"x").await?;
        client.read_u8().await
    }

    #[test]
    fn silent_clients_give_way_to_those_that_ask() {
        run(async {
            let limit = ConnectionLimit::new(5);
            let address = echo(&limit).await;
            let mut old = TcpStream::connect(address).await.unwrap();
            let mut silent = Vec::new();
            for _ in 0..100 {
                silent.push(TcpStream::connect(address).await.unwrap());
                // An old client that asks now and then stays, and a new one is served at once.
                assert_eq!(ask(&mut old).await.unwrap(), b'x');
                assert_eq!(ask(&mut TcpStream::connect(address).await.unwrap()).await.unwrap(), b'x');
            }
            assert!(limit.open() <= 5 && limit.closed() >= 95, "{limit:?}");
            // The first of the silent ones has been told.
            assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap(), 0);
            drop((old, silent));
            while limit.open() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_client_that_sends_without_end_is_closed() {
        run(async {
            let limit = ConnectionLimit::new(5);
            let mut listener =
                LimitedListener::by_touch(TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::clone(&limit));
            let address = listener.local_addr().unwrap();
            let client = tokio::spawn(async move {
                let mut client = TcpStream::connect(address).await.unwrap();
                while client.write_all(&[0; 1 << 16]).await.is_ok() {}
            });
            let (mut io, _) = listener.accept().await;
            let mut read = 0;
            let error = loop {
                match io.read(&mut [0; 1 << 16]).await {
                    Ok(more) => read += more,
                    Err(error) => break error,
                }
                // Useful bytes do not count.
                if read < MOST_USELESS {
                    io.place().touch();
                }
            };
            assert_eq!((error.kind(), limit.closed()), (io::ErrorKind::ConnectionAborted, 1));
            assert!((2 * MOST_USELESS - (1 << 17)..=2 * MOST_USELESS + (1 << 16)).contains(&read), "{read}");
            drop(io);
            client.await.unwrap();
        });
    }
}
