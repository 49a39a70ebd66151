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

/// Sees what came before its reader does.
pub type Check = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// A connection under a budget.
pub struct Bounded {
    stream: Box<dyn Stream>,
    left: Budget,
    check: Check,
}

/// What a source that says more is cut off with.
#[must_use]
pub fn too_large() -> io::Error {
    let problem = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl Bounded {
    /// Puts a connection under a budget, which is full now.
    pub fn new(stream: impl Stream + 'static) -> (Self, Budget) {
        Self::checked(stream, Box::new(|_| Ok(())))
    }

    /// The same, and everything that comes is checked.
    pub fn checked(stream: impl Stream + 'static, check: Check) -> (Self, Budget) {
        let left = Budget(Arc::new(AtomicUsize::new(ANSWER_BYTES_MAX)));
        (Self { stream: Box::new(stream), left: left.clone(), check }, left)
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
            return Poll::Ready(Err(too_large()));
        }
        this.left.0.store(left - count, Ordering::Relaxed);
        if let Some(bytes) = buf.filled().get(before..)
            && let Err(error) = (this.check)(bytes)
        {
            return Poll::Ready(Err(error));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_look_gets_its_bytes_and_not_one_more() {
        let (near, mut far) = UnixStream::pair().unwrap();
        tokio::spawn(async move { while far.write_all(&[7; 4_096]).await.is_ok() {} });
        let (mut bounded, budget) = Bounded::new(near);
        for _ in 0..2 {
            budget.renew();
            let mut answer = vec![0; ANSWER_BYTES_MAX];
            bounded.read_exact(&mut answer).await.unwrap();
        }
        let error = bounded.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.to_string(), "the answer is larger than 1048576 bytes");
    }
}
