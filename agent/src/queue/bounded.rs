//! A connection that gives at most so many bytes a look: what a source answers takes no more memory
//! than that, whatever it claims. A source that says more is cut off with an error that says so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Bytes that a source may answer to one look.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is left of a look's bytes.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A look begins.
    pub fn renew(&self) {
        self.0.store(ANSWER_BYTES_MAX, Ordering::Relaxed);
    }
}

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A connection under a budget.
pub struct Bounded {
    stream: Box<dyn Stream>,
    left: Budget,
}

impl Bounded {
    /// Puts a connection under a budget, which is full now.
    pub fn new(stream: impl Stream + 'static) -> (Self, Budget) {
        let left = Budget(Arc::new(AtomicUsize::new(ANSWER_BYTES_MAX)));
        (Self { stream: Box::new(stream), left: left.clone() }, left)
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let count = buf.filled().len().saturating_sub(before);
        let left = this.left.0.load(Ordering::Relaxed);
        if count > left {
            let problem = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        this.left.0.store(left - count, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
