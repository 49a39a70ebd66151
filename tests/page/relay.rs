//! The cable between a browser and an aggregator: TCP, byte for byte. Gives what was asked over it
//! and how many bytes came back, told by nobody but the wire; can be held, as a network that fell
//! silent without a word. When the browser is slow, only its own connection waits.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes of one read.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of a request's head that are looked at.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A request that went over the cable.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// Bytes that came back for it, head included.
    pub(crate) bytes: usize,
    /// Whether its connection stands and nothing else was asked over it.
    pub(crate) open: bool,
}

/// The cable.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A cable to an aggregator's page.
    pub(crate) async fn to(page: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (held, told) = watch::channel(false);
        let task = tokio::spawn(serve(listener, page, Arc::clone(&asked), told));
        Ok(Self { address, asked, held, task })
    }

    /// The page's address over this cable.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing passes until it is let go, and no connection ends.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Event streams that stand now.
    pub(crate) fn streams(&self) -> usize {
        self.asked().iter().filter(|asked| asked.open && asked.path.starts_with(crate::STREAM)).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    page: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    held: watch::Receiver<bool>,
) {
    while let Ok((browser, _)) = listener.accept().await {
        let (asked, held) = (Arc::clone(&asked), held.clone());
        tokio::spawn(async move {
            // An aggregator that does not listen ends the browser's connection too.
            let Ok(aggregator) = TcpStream::connect(page).await else { return };
            let (from_browser, to_browser) = browser.into_split();
            let (from_aggregator, to_aggregator) = aggregator.into_split();
            let newest = Arc::new(Mutex::new(None));
            tokio::select! {
                () = up(from_browser, to_aggregator, &asked, &newest, held.clone()) => {}
                () = down(from_aggregator, to_browser, &asked, &newest, held) => {}
            }
            ended(&asked, &newest);
        });
    }
}

/// What this connection asked last, by its place.
type Newest = Arc<Mutex<Option<usize>>>;

fn ended(asked: &Mutex<Vec<Asked>>, newest: &Newest) {
    let Some(place) = newest.lock().unwrap().take() else { return };
    if let Some(last) = asked.lock().unwrap().get_mut(place) {
        last.open = false;
    }
}

async fn up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Mutex<Vec<Asked>>,
    newest: &Newest,
    mut held: watch::Receiver<bool>,
) {
    let (mut chunk, mut head) = (vec![0; CHUNK_BYTES], Vec::new());
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        head.extend_from_slice(&chunk[..length]);
        // A page that only reads sends heads without a body, one behind the other.
        while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let line = String::from_utf8_lossy(&head[..end]).into_owned();
            head.drain(..end + 4);
            ended(asked, newest);
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut asked = asked.lock().unwrap();
            asked.push(Asked { path, bytes: 0, open: true });
            *newest.lock().unwrap() = Some(asked.len() - 1);
        }
        if head.len() > HEAD_BYTES_MAX || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Mutex<Vec<Asked>>,
    newest: &Newest,
    mut held: watch::Receiver<bool>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        let place = *newest.lock().unwrap();
        if let Some(place) = place {
            asked.lock().unwrap()[place].bytes += length;
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}
