//! Serving HTTP until told to stop: takes a listener, routes and a future that ends; gives what that
//! future gave. Connections are bounded: further ones wait in the kernel's queue.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet};

/// Connections that one stand-in serves at once.
const CONNECTIONS_MAX: usize = 256;
/// How long requests under way may take after the stop; a hung one would take for ever.
const GRACE: Duration = Duration::from_millis(300);
/// Wait after a failed accept (out of descriptors), so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` ends.
pub(crate) async fn serve<T>(
    listener: TcpListener,
    routes: Router,
    body_bytes_max: usize,
    stop: impl Future<Output = T>,
) -> io::Result<T> {
    serve_to_the_end(listener, routes, body_bytes_max, std::future::pending::<()>(), stop).await
}

/// Serves until `finish` ends; accepts no more connections once `stop` has ended.
pub(crate) async fn serve_to_the_end<S, T>(
    listener: TcpListener,
    routes: Router,
    body_bytes_max: usize,
    stop: impl Future<Output = S>,
    finish: impl Future<Output = T>,
) -> io::Result<T> {
    let (tell, told) = oneshot::channel::<()>();
    let listener = Bounded { listener, free: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let routes = routes.layer(DefaultBodyLimit::max(body_bytes_max));
    let server = axum::serve(listener, routes).with_graceful_shutdown(async {
        // A teller that was dropped is a stop as well.
        drop(told.await);
    });
    // A task of its own: it goes on while the rest is finished, and ends when this is dropped.
    let mut serving = JoinSet::new();
    serving.spawn(server.into_future());
    let mut finish = pin!(finish);
    let value = tokio::select! {
        ended = serving.join_next() => return Err(failed(ended)),
        value = &mut finish => {
            drop(tell);
            value
        }
        _ = stop => {
            drop(tell);
            finish.await
        }
    };
    drop(tokio::time::timeout(GRACE, serving.join_next()).await);
    Ok(value)
}

fn failed(ended: Option<Result<io::Result<()>, JoinError>>) -> io::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => io::Error::other(error),
        Some(Ok(Ok(()))) | None => io::Error::other("the server ended"),
    }
}

/// Does what a control message says, whatever its content type: people send it with curl.
pub(crate) fn told<T: DeserializeOwned>(body: &[u8], obey: impl FnOnce(T) -> Response) -> Response {
    match serde_json::from_slice(body) {
        Ok(control) => obey(control),
        Err(error) => (StatusCode::BAD_REQUEST, format!("not a control message: {error}\n")).into_response(),
    }
}

struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        loop {
            let permit = Arc::clone(&self.free).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, address)) => return (Connection { stream, _permit: permit }, address),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its place back when it is closed.
struct Connection {
    stream: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
