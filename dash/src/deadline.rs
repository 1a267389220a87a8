//! Closes connections whose client does not send a request, or does not read the answer, in time: each connection costs
//! memory and a file descriptor, and opening one needs no token.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::connections::HasPlace;

/// How long a client may take to send the headers of a request.
pub const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may be idle otherwise. A stream of updates is never idle for that long.
const IDLE: Duration = Duration::from_secs(600);

/// How long a client may let an answer wait, in total; time without waiting is deducted.
const BLOCKED: Duration = Duration::from_secs(60);

/// A listener whose connections have deadlines.
#[derive(Debug)]
pub struct Deadlines<L>(pub L);

impl<L: Listener> Listener for Deadlines<L>
where
    L::Io: HasPlace + Unpin,
{
    type Io = DeadlineConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.0.accept().await;
        (DeadlineConnection::new(io), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection that is closed at its deadline.
#[derive(Debug)]
pub struct DeadlineConnection<S> {
    io: S,
    deadline: Pin<Box<Sleep>>,
    /// Whether a request has started without a response yet.
    is_asking: bool,
    /// Since when an answer waits for the client.
    blocked_since: Option<Instant>,
    /// How long answers have waited, and when they last did.
    blocked: Duration,
    free_since: Instant,
}

impl<S: HasPlace> DeadlineConnection<S> {
    fn new(io: S) -> DeadlineConnection<S> {
        let deadline = Box::pin(sleep(HEAD));
        let (blocked_since, blocked, free_since) = (None, Duration::ZERO, Instant::now());
        DeadlineConnection { io, deadline, is_asking: true, blocked_since, blocked, free_since }
    }

    fn wait(&mut self, is_asking: bool) {
        self.is_asking = is_asking;
        self.deadline.as_mut().reset(Instant::now() + if is_asking { HEAD } else { IDLE });
    }

    /// An answer waits, or does not wait any more.
    fn block(&mut self, is_blocked: bool) {
        let now = Instant::now();
        match (is_blocked, self.blocked_since) {
            (true, None) => {
                self.blocked = self.blocked.saturating_sub(now - self.free_since);
                self.blocked_since = Some(now);
                self.deadline.as_mut().reset(now + BLOCKED.saturating_sub(self.blocked));
            }
            (false, Some(since)) => {
                self.blocked += now - since;
                self.free_since = now;
                self.blocked_since = None;
            }
            _ => {}
        }
    }

    /// Pending until the deadline; then an error.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.deadline.as_mut().poll(cx));
        self.io.place().close();
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + HasPlace + Unpin> AsyncRead for DeadlineConnection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                // The time runs from the first byte, so sending slowly does not extend it.
                if buffer.filled().len() > before && !self.is_asking && self.blocked_since.is_none() {
                    self.wait(true);
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_deadline(cx).map(Err),
        }
    }
}

impl<S: AsyncWrite + HasPlace + Unpin> AsyncWrite for DeadlineConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.block(false);
                self.wait(false);
                Poll::Ready(written)
            }
            Poll::Pending => {
                self.is_asking = false;
                self.block(true);
                self.poll_deadline(cx).map(Err)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::LimitedConnection;
    use crate::connections::testing::limited;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn connection() -> (DeadlineConnection<LimitedConnection<DuplexStream>>, DuplexStream) {
        let (io, client) = duplex(64);
        (DeadlineConnection::new(limited(io)), client)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_head_that_does_not_come_or_only_drop_by_drop_ends_the_connection() {
        for drops in [0, 3, 50] {
            runtime().block_on(async {
                let (mut server, mut client) = connection();
                let started = Instant::now();
                let drip = tokio::spawn(async move {
                    for _ in 0..drops {
                        sleep(Duration::from_secs(1)).await;
                        let _ = client.write_all(b"x").await;
                    }
                    sleep(Duration::from_secs(3600)).await;
                });
                let mut read = [0; 8];
                let error = loop {
                    if let Err(error) = server.read(&mut read).await {
                        break error;
                    }
                };
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                assert!(started.elapsed() <= HEAD + Duration::from_secs(1), "{drops} {:?}", started.elapsed());
                drip.abort();
            });
        }
    }

    #[test]
    fn a_client_that_does_not_read_or_only_drop_by_drop_loses_the_answer() {
        for pause in [1, 3_600] {
            runtime().block_on(async {
                let (mut server, mut client) = connection();
                client.write_all(b"head").await.unwrap();
                let mut read = [0; 8];
                assert_eq!(server.read(&mut read).await.unwrap(), 4);
                let drip = tokio::spawn(async move {
                    let mut byte = [0; 1];
                    while client.read(&mut byte).await.is_ok_and(|read| read > 0) {
                        sleep(Duration::from_secs(pause)).await;
                    }
                });
                let started = Instant::now();
                let error = server.write_all(&[0; 1 << 16]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                let limit = BLOCKED..=2 * BLOCKED;
                assert!(limit.contains(&started.elapsed()), "{pause} {:?}", started.elapsed());
                drip.abort();
            });
        }
    }

    #[test]
    fn an_answered_connection_may_be_silent_and_a_stream_goes_on() {
        runtime().block_on(async {
            let (mut server, mut client) = connection();
            client.write_all(b"head").await.unwrap();
            let mut read = [0; 8];
            assert_eq!(server.read(&mut read).await.unwrap(), 4);
            // A response in pieces that takes longer than any deadline.
            for _ in 0..200 {
                server.write_all(b"x").await.unwrap();
                assert_eq!(client.read(&mut read).await.unwrap(), 1);
                sleep(Duration::from_secs(30)).await;
            }
            client.write_all(b"next").await.unwrap();
            assert_eq!(server.read(&mut read).await.unwrap(), 4);
        });
    }
}
