//! Connections of browsers and programs, bounded in number and in patience.
//!
//! Takes a TCP listener; gives connections to the HTTP server. One more than there may be waits in the
//! kernel's queue. A connection on which nothing could be written for a while is ended: a request that
//! never becomes whole, a reader that never reads, and one that merely stays open.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tracing::warn;

/// Connections at once; more than there may be streams, so that streams leave room for questions.
pub const CONNECTIONS_MAX: usize = 256;
/// For a request to become whole and be answered, and for a reader to take a piece of its answer. A
/// stream says something each second.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Before the next try when the system has no file for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// A listener with bounds.
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Bounded {
    /// With [`CONNECTIONS_MAX`] and [`PATIENCE`].
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self::with(listener, CONNECTIONS_MAX, PATIENCE)
    }

    fn with(listener: TcpListener, connections_max: usize, patience: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(connections_max)), patience }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Nobody closes the semaphore; were it closed, there is no place for ever.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // A message of a stream is small and must not wait for the next.
                    drop(stream.set_nodelay(true));
                    let (patience, end) = (self.patience, Box::pin(sleep(self.patience)));
                    return (Connection { stream, patience, end, _place: place }, address);
                }
                Err(error) => {
                    warn!(%error, "no connection is taken for a moment");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its place.
pub struct Connection {
    stream: TcpStream,
    patience: Duration,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// What `polled` says, but an error when nothing was written for too long.
    fn in_time<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        if matches!(polled, Poll::Ready(Ok(count)) if *count > 0) {
            self.end.set(sleep(self.patience));
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        self.in_time(context, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&polled);
        self.in_time(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(&polled);
        self.in_time(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn serve(connections_max: usize, patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let bounded = Bounded::with(listener, connections_max, patience);
        tokio::spawn(async move { axum::serve(bounded, router).await });
        address
    }

    /// What is answered until the other end closes.
    async fn whole(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        // An end by a reset is an end.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_that_never_becomes_whole_is_ended_and_makes_room() {
        let address = serve(1, Duration::from_millis(100)).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        let mut waits = TcpStream::connect(address).await.unwrap();
        waits.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(!whole(&mut slow).await.contains("hello"), "it never asked");
        assert!(whole(&mut waits).await.ends_with("hello"), "it found the only place");
    }

    #[tokio::test]
    async fn a_connection_that_trickles_is_ended_too() {
        let address = serve(1, Duration::from_millis(300)).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let (mut reads, mut writes) = slow.split();
        let trickle = async {
            while writes.write_all(b"x: y\r\n").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let mut answer = Vec::new();
        tokio::select! {
            _ = reads.read_to_end(&mut answer) => {}
            () = trickle => {}
        }
        assert!(!String::from_utf8_lossy(&answer).contains("hello"));
    }
}
