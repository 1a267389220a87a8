//! Closes connections whose client does not send a request in time: each connection costs memory and a file descriptor,
//! and opening one needs no token.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client may take to send the headers of a request.
pub const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may be idle otherwise. A stream of updates is never idle for that long.
const IDLE: Duration = Duration::from_secs(600);

/// A listener whose connections have deadlines.
#[derive(Debug)]
pub struct Deadlines<L>(pub L);

impl<L: Listener> Listener for Deadlines<L>
where
    L::Io: Unpin,
{
    type Io = DeadlineConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.0.accept().await;
        (DeadlineConnection { io, deadline: Box::pin(sleep(HEAD)), is_asking: true }, address)
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
}

impl<S> DeadlineConnection<S> {
    fn wait(&mut self, is_asking: bool) {
        self.is_asking = is_asking;
        self.deadline.as_mut().reset(Instant::now() + if is_asking { HEAD } else { IDLE });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineConnection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                // The time runs from the first byte, so sending slowly does not extend it.
                if buffer.filled().len() > before && !self.is_asking {
                    self.wait(true);
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wait(false);
        Pin::new(&mut self.io).poll_write(cx, bytes)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn connection() -> (DeadlineConnection<DuplexStream>, DuplexStream) {
        let (io, client) = duplex(64);
        (DeadlineConnection { io, deadline: Box::pin(sleep(HEAD)), is_asking: true }, client)
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
