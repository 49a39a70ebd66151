//! The uplink: spool -> QUIC -> ack -> spool trimmed. The only file of the agent that knows quinn.
//!
//! Takes frames out of the spool; gives them to the aggregator on two streams: live frames as they
//! come, and beside them the backlog, so that alerts recover at once after an outage. When the
//! aggregator is slow, QUIC flow control stops the streams and the spool grows. Endpoints are tried
//! in order of preference with jittered back-off; no aggregator is a state, not an error.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::backoff::{Backoff, unit};
use diarwatch_shared::identity::AGGREGATOR_NAME;
use diarwatch_shared::limits::EPOCHS_MAX;
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::SchemaId;
use diarwatch_shared::wire::control::{Durable, FromAgent, FromAggregator, Gap};
use diarwatch_shared::wire::record::{self, Kind};
use diarwatch_shared::wire::v1;
use diarwatch_shared::{clock, wire};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::board::{Board, FarClock};
use crate::fleet::{Fleet, Line};
use crate::spool::{Handle, Item};

/// Between tries of the endpoints.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// A link that stood this long was a good one.
const HELD: Duration = Duration::from_secs(10);
/// For a connection to stand and the aggregator to answer the hello.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an aggregator that refuses to say so.
const REFUSAL_WAIT: Duration = Duration::from_millis(300);
/// A link that is silent for this long is given up.
const IDLE_TIMEOUT_MS: u32 = 15_000;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Bytes in flight per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Items taken out of the spool at once.
const BATCH_ITEMS: usize = 64;
/// Schemas sent on one stream before a fresh one takes its place; an aggregator takes 64.
const STREAM_SCHEMAS_MAX: usize = 48;

/// What the uplink runs on.
pub struct Uplink {
    /// `host:port`, in order of preference.
    pub endpoints: Vec<String>,
    /// TLS with this node's certificate.
    pub tls: rustls::ClientConfig,
    /// Frames.
    pub spool: Handle,
    /// This run.
    pub epoch: Epoch,
    /// The number of the next frame of this run; changes when one was appended.
    pub next: watch::Receiver<Seq>,
    /// Where the link's state is told.
    pub board: Board,
    /// What else is said to the aggregator, and heard from it.
    pub fleet: Fleet,
}

/// Why a connection ended or could not be made; all are worth another try.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot resolve `{0}`: {1}")]
    Resolve(String, String),
    #[error("cannot reach the aggregator at {0}: {1}")]
    Connect(SocketAddr, String),
    #[error("aggregator refused: {0}")]
    Refused(String),
    #[error("link lost: {0}")]
    Lost(String),
    #[error("{0}")]
    Spool(#[from] crate::spool::SpoolError),
}

/// Runs until the agent stops; never returns by itself.
///
/// # Errors
/// When no UDP socket can be opened or the TLS configuration does not fit QUIC.
pub async fn run(uplink: Uplink) -> Result<(), String> {
    let client = client_config(&uplink.tls)?;
    let mut failures = 0_u32;
    loop {
        for endpoint in &uplink.endpoints {
            uplink.board.update(|board| board.link.endpoint = Some(endpoint.clone()));
            let connections = || uplink.board.read(|board| board.link.connections);
            let (began, before) = (clock::uptime(), connections());
            let Err(error) = session(&uplink, endpoint, client.clone()).await;
            uplink.board.update(|board| {
                board.link.connected = false;
                board.link.round_trip_ms = None;
                board.link.problem = Some(error.to_string());
            });
            warn!(endpoint, %error, "no link to the aggregator");
            // A link that is refused again and again is a failure too, though it stood for a moment.
            let held = connections() > before && clock::uptime().saturating_sub(began) > HELD;
            failures = if held { 0 } else { failures.saturating_add(1) };
        }
        sleep(RECONNECT.wait(failures.saturating_sub(1), unit(clock::now().0))).await;
    }
}

/// One handshake and nothing behind it, for `diarwatch doctor`. Ask while the agent has no connection:
/// the aggregator takes one of a node.
///
/// # Errors
/// Why the aggregator cannot be reached or refuses, in the words of the link's own problem.
pub async fn knock(endpoint: &str, tls: &rustls::ClientConfig) -> Result<(), String> {
    let (connection, _control) =
        reach(endpoint, client_config(tls)?).await.map_err(|error| error.to_string())?;
    // In TLS 1.3 a refused certificate is told after the handshake.
    let refusal = timeout(REFUSAL_WAIT, connection.closed()).await;
    refusal.map_or(Ok(()), |error| Err(LinkError::Lost(error.to_string()).to_string()))
}

fn client_config(tls: &rustls::ClientConfig) -> Result<quinn::ClientConfig, String> {
    let crypto = QuicClientConfig::try_from(tls.clone()).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport));
    Ok(client)
}

/// One connection, from resolving the name to its end.
async fn session(
    uplink: &Uplink,
    endpoint: &str,
    client: quinn::ClientConfig,
) -> Result<Infallible, LinkError> {
    let (connection, control) = reach(endpoint, client).await?;
    let Err(error) = converse(uplink, endpoint, &connection, control).await;
    // The aggregator's own words say more than the stream that ended first.
    Err(match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) if !close.reason.is_empty() => {
            LinkError::Refused(String::from_utf8_lossy(&close.reason).into_owned())
        }
        _ => error,
    })
}

/// Tries every address of a name; of those that fail the last one is told.
async fn reach(
    endpoint: &str,
    client: quinn::ClientConfig,
) -> Result<(Connection, (SendStream, RecvStream)), LinkError> {
    let resolved = tokio::net::lookup_host(endpoint).await;
    let addresses = resolved.map_err(|error| LinkError::Resolve(endpoint.to_owned(), error.to_string()))?;
    let mut outcome = Err(LinkError::Resolve(endpoint.to_owned(), "it has no address".into()));
    for address in addresses {
        let late = || LinkError::Connect(address, format!("no answer in {} s", CONNECT_TIMEOUT.as_secs()));
        outcome =
            timeout(CONNECT_TIMEOUT, connect(address, client.clone())).await.unwrap_or_else(|_| Err(late()));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Hello, then frames one way and acks the other.
async fn converse(
    uplink: &Uplink,
    endpoint: &str,
    connection: &Connection,
    (mut say, mut hear): (SendStream, RecvStream),
) -> Result<Infallible, LinkError> {
    let (durable, far) = timeout(CONNECT_TIMEOUT, greet(uplink, &mut say, &mut hear))
        .await
        .map_err(|_| LinkError::Lost("the aggregator does not answer the hello".into()))??;
    trim(uplink, &durable).await;
    let live_from = *uplink.next.borrow();
    info!(endpoint, "link to the aggregator stands");
    uplink.board.update(|board| {
        board.link.connected = true;
        board.link.problem = None;
        board.link.connections += 1;
    });
    let line = uplink.fleet.line(peer(connection)?, far);
    let live = Lane::open(uplink, connection).await?;
    let backlog = Lane::open(uplink, connection).await?;
    tokio::select! {
        ended = acks(uplink, &mut hear, connection, (far, &line)) => ended,
        ended = speak(&mut say, &line) => ended,
        ended = send_live(live, live_from) => ended,
        ended = send_backlog(backlog, live_from, &durable) => ended,
    }
}

async fn connect(
    address: SocketAddr,
    client: quinn::ClientConfig,
) -> Result<(Connection, (SendStream, RecvStream)), LinkError> {
    let fail = |error: &dyn Display| LinkError::Connect(address, error.to_string());
    let local = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let local: SocketAddr = local.parse().map_err(|error| fail(&error))?;
    let endpoint = Endpoint::client(local).map_err(|error| fail(&error))?;
    let connecting = endpoint.connect_with(client, address, AGGREGATOR_NAME).map_err(|error| fail(&error))?;
    let connection = connecting.await.map_err(|error| fail(&error))?;
    let control = connection.open_bi().await.map_err(|error| fail(&error))?;
    Ok((connection, control))
}

/// The aggregator's certificate, as the handshake verified it; there is no 0-RTT before that.
fn peer(connection: &Connection) -> Result<CertificateDer<'static>, LinkError> {
    let any = connection.peer_identity();
    let leaf = any.and_then(|any| any.downcast::<Vec<CertificateDer>>().ok()?.into_iter().next());
    leaf.ok_or_else(|| lost(&"the aggregator has no certificate"))
}

/// What the fleet has to say, as it comes.
async fn speak(say: &mut SendStream, line: &Line) -> Result<Infallible, LinkError> {
    loop {
        record::write(say, Kind::Control, &line.next().await).await.map_err(|error| lost(&error))?;
    }
}

fn tell_offset(uplink: &Uplink, far: FarClock) {
    let ahead = far.ahead_ms(clock::now(), clock::uptime());
    uplink.board.update(|board| board.link.clock_offset_ms = Some(ahead));
}

/// Hello and welcome; gives what the aggregator already has, and its clock.
async fn greet(
    uplink: &Uplink,
    say: &mut SendStream,
    hear: &mut RecvStream,
) -> Result<(Vec<Durable>, FarClock), LinkError> {
    let mut epochs = uplink.spool.run(|spool| Ok(spool.epochs())).await?;
    let surplus = epochs.len().saturating_sub(EPOCHS_MAX);
    epochs.drain(..surplus);
    let hello = FromAgent::Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: uplink.epoch,
        epochs,
        clock: clock::now(),
    };
    let body = serde_json::to_vec(&hello).map_err(|error| lost(&error))?;
    let asked = clock::uptime();
    record::write(say, Kind::Control, &body).await.map_err(|error| lost(&error))?;
    match hear_one(hear).await? {
        FromAggregator::Welcome { durable, clock, .. } => {
            let far = FarClock::heard(clock, asked, clock::uptime());
            tell_offset(uplink, far);
            Ok((durable, far))
        }
        FromAggregator::Refused { reason } => Err(LinkError::Refused(reason)),
        _ => Err(LinkError::Lost("another message before the welcome".into())),
    }
}

async fn hear_one(hear: &mut RecvStream) -> Result<FromAggregator, LinkError> {
    match record::read(hear).await.map_err(|error| lost(&error))? {
        Some((Kind::Control, body)) => serde_json::from_slice(&body).map_err(|error| lost(&error)),
        Some((kind, _)) => Err(LinkError::Lost(format!("{kind:?} record on the control stream"))),
        None => Err(LinkError::Lost("the aggregator closed the control stream".into())),
    }
}

/// Trims the spool as acks arrive.
async fn acks(
    uplink: &Uplink,
    hear: &mut RecvStream,
    connection: &Connection,
    (far, line): (FarClock, &Line),
) -> Result<Infallible, LinkError> {
    loop {
        match hear_one(hear).await? {
            FromAggregator::Ack { durable } => trim(uplink, &durable).await,
            FromAggregator::Refused { reason } => return Err(LinkError::Refused(reason)),
            other => line.heard(other),
        }
        let round_trip = connection.rtt().as_secs_f64() * 1e3;
        uplink.board.update(|board| board.link.round_trip_ms = Some(round_trip));
        tell_offset(uplink, far);
    }
}

/// A disk that refuses keeps its frames and costs no link.
async fn trim(uplink: &Uplink, durable: &[Durable]) {
    for acked in durable.iter().copied() {
        if let Err(error) = uplink.spool.run(move |spool| spool.ack(acked)).await {
            warn!(%error, "acknowledged frames are not dropped");
            uplink.board.update(|board| board.spool.problem = Some(error.to_string()));
        }
        if acked.epoch == uplink.epoch {
            uplink.board.update(|board| board.spool.frames_acked = acked.next);
        }
    }
}

/// Frames of this run from `at` on, as they are appended.
async fn send_live(mut lane: Lane<'_>, mut at: Seq) -> Result<Infallible, LinkError> {
    let (epoch, mut next) = (lane.uplink.epoch, lane.uplink.next.clone());
    loop {
        let end = *next.borrow_and_update();
        while at < end {
            at = lane.send(epoch, at, end).await?.unwrap_or(end);
        }
        if next.changed().await.is_err() {
            // The frame stage has ended; what is on its way may still be acknowledged.
            std::future::pending::<()>().await;
        }
    }
}

/// Everything that was there before this connection and is not durable at the aggregator.
async fn send_backlog(
    mut lane: Lane<'_>,
    live_from: Seq,
    durable: &[Durable],
) -> Result<Infallible, LinkError> {
    for epoch in lane.uplink.spool.run(|spool| Ok(spool.epochs())).await? {
        let mut at = durable.iter().find(|acked| acked.epoch == epoch).map_or(0, |acked| acked.next);
        let end = (epoch == lane.uplink.epoch).then_some(live_from);
        while at < end.unwrap_or(Seq::MAX) {
            match lane.send(epoch, at, end.unwrap_or(Seq::MAX)).await? {
                Some(behind) => at = behind,
                None => break,
            }
        }
        if let Some(end) = end.filter(|end| at < *end) {
            lane.gap(epoch, at, end).await?;
        }
    }
    lane.stream.finish().map_err(|error| lost(&error))?;
    std::future::pending().await
}

/// A stream of frames, each behind its schema.
struct Lane<'a> {
    uplink: &'a Uplink,
    connection: &'a Connection,
    stream: SendStream,
    announced: BTreeSet<SchemaId>,
}

impl<'a> Lane<'a> {
    async fn open(uplink: &'a Uplink, connection: &'a Connection) -> Result<Self, LinkError> {
        let stream = connection.open_uni().await.map_err(|error| lost(&error))?;
        Ok(Self { uplink, connection, stream, announced: BTreeSet::new() })
    }

    /// Sends a batch of what stands from `from` to before `end`; gives the number behind it, `None`
    /// when the spool has no more.
    async fn send(&mut self, epoch: Epoch, from: Seq, end: Seq) -> Result<Option<Seq>, LinkError> {
        let items = self.uplink.spool.run(move |spool| spool.read(epoch, from, BATCH_ITEMS)).await?;
        let mut behind = None;
        for item in items {
            let (at, next) = match &item {
                Item::Frame(seq, _) => (*seq, seq.saturating_add(1)),
                Item::Gap(gap) => (gap.from, gap.to),
            };
            // A hole would keep every ack behind it: it is filled with what is known of it.
            let expected = behind.unwrap_or(from);
            if at.min(end) > expected {
                self.gap(epoch, expected, at.min(end)).await?;
                behind = Some(at.min(end));
            }
            if at >= end {
                break;
            }
            match item {
                Item::Frame(seq, bytes) => self.frame(epoch, seq, &bytes).await?,
                Item::Gap(gap) => self.write(Kind::Frame, &seal_gap(&gap)?).await?,
            }
            behind = Some(next);
        }
        Ok(behind)
    }

    /// A frame that the disk has damaged, or whose schema it lost, must not keep those behind it.
    async fn frame(&mut self, epoch: Epoch, seq: Seq, bytes: &[u8]) -> Result<(), LinkError> {
        let header = match v1::open(bytes) {
            Ok((header, _)) => header,
            Err(error) => {
                warn!(%epoch, seq, %error, "a frame of the spool cannot be sent");
                return self.gap(epoch, seq, seq.saturating_add(1)).await;
            }
        };
        if header.codec == wire::Codec::Columns && !self.announced.contains(&header.schema) {
            self.announce(header.schema).await?;
        }
        self.write(Kind::Frame, bytes).await
    }

    async fn announce(&mut self, id: SchemaId) -> Result<(), LinkError> {
        if self.announced.len() >= STREAM_SCHEMAS_MAX {
            self.stream.finish().map_err(|error| lost(&error))?;
            *self = Self::open(self.uplink, self.connection).await?;
        }
        self.announced.insert(id);
        match self.uplink.spool.run(move |spool| spool.schema(id)).await? {
            Some(schema) => self.write(Kind::Schema, &schema).await,
            None => {
                warn!(schema = %id, "the spool has lost a schema; frames of it are sent without");
                Ok(())
            }
        }
    }

    /// Numbers that are not here: they were acknowledged to another aggregator, or the disk lost them.
    async fn gap(&mut self, epoch: Epoch, from: Seq, to: Seq) -> Result<(), LinkError> {
        self.write(Kind::Frame, &seal_gap(&Gap { epoch, from, to, reason: "not_in_spool".into() })?).await
    }

    async fn write(&mut self, kind: Kind, body: &[u8]) -> Result<(), LinkError> {
        record::write(&mut self.stream, kind, body).await.map_err(|error| lost(&error))
    }
}

/// A gap takes the place of its frames in the sequence.
fn seal_gap(gap: &Gap) -> Result<Vec<u8>, LinkError> {
    let header = v1::Header {
        seq: gap.from,
        base: clock::now(),
        epoch: gap.epoch,
        schema: SchemaId(0),
        ticks: 0,
        series: 0,
        flags: v1::FLAG_KEYFRAME,
        codec: wire::Codec::Gap,
    };
    v1::seal(&header, serde_json::to_vec(gap).unwrap_or_default()).map_err(|error| lost(&error))
}

fn lost(error: &dyn Display) -> LinkError {
    LinkError::Lost(error.to_string())
}
