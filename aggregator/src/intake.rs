//! The intake stage: QUIC with certificates on both sides. The only file of the aggregator that
//! knows quinn.
//!
//! Takes streams of records; gives checked frames to the store and its acks back to the agent. The
//! node's name comes from the certificate. A frame is decoded before it is acknowledged, and
//! acknowledged only when durable. What an agent says on its control stream goes to
//! [`control`](crate::control). When the store is slow, streams are not read and QUIC flow
//! control stops the agent. What breaks a limit ends its connection; neighbours are not affected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::identity::node_of;
use diarwatch_shared::limits::{EPOCHS_MAX, NODES_MAX};
use diarwatch_shared::node::NodeId;
use diarwatch_shared::schema::{Schema, SchemaId, schema_id};
use diarwatch_shared::wire::control::{Durable, FromAgent, FromAggregator};
use diarwatch_shared::wire::record::{self, Kind};
use diarwatch_shared::wire::{Codec, v1};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::rustls::pki_types::CertificateDer;
use quinn::{Connection, Endpoint, IdleTimeout, Incoming, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::control::Control;
use crate::store::{Acks, Content, Request, Store};

/// For a handshake and the hello behind it.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A link that is silent for this long is given up.
const IDLE_TIMEOUT_MS: u32 = 15_000;
/// Handshakes that may be under way at once.
const HANDSHAKES_MAX: usize = 256;
/// Streams of frames per connection: live and backlog, and one of each while they are replaced.
const STREAMS_MAX: u32 = 4;
/// The stream of live frames is the first that an agent opens; what comes on others is history.
const LIVE_STREAM: u64 = 0;
/// Schemas per connection, over all its streams.
const SCHEMAS_MAX: usize = 64;
/// Control messages of one agent in [`MESSAGES_WINDOW`]: asked for all its workers at once, again and again.
const MESSAGES_MAX: u32 = 600;
const MESSAGES_WINDOW: Duration = Duration::from_secs(60);
/// Bytes in flight per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("handshake failed: {0}")]
    Handshake(String),
    #[error("{0}")]
    Refused(String),
    #[error("link lost: {0}")]
    Lost(String),
}

/// Nodes that have a connection, to refuse a second one of the same name.
type Connected = Arc<Mutex<BTreeMap<NodeId, Connection>>>;

/// Schemas that a connection announced on any of its streams.
type Announced = Arc<Mutex<BTreeSet<SchemaId>>>;

/// Opens the socket.
///
/// # Errors
/// When TLS does not fit QUIC or the address cannot be used.
pub fn bind(listen: SocketAddr, tls: rustls::ServerConfig) -> Result<Endpoint, String> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(STREAM_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport)).max_incoming(HANDSHAKES_MAX);
    Endpoint::server(server, listen).map_err(|error| format!("[intake] listen = {listen}: {error}"))
}

/// Serves agents until the endpoint is closed.
pub async fn serve(endpoint: Endpoint, store: Store, control: Control) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let connected = Connected::default();
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            // The agent backs off and comes again.
            incoming.refuse();
            continue;
        };
        let (store, control, connected) = (store.clone(), control.clone(), Arc::clone(&connected));
        tokio::spawn(async move {
            let address = incoming.remote_address();
            match timeout(HELLO_TIMEOUT, handshake(incoming)).await {
                Ok(Ok((connection, node))) => {
                    drop(permit);
                    one_node(connection, node, address, (store, control), &connected).await;
                }
                Ok(Err(error)) => warn!(%address, %error, "agent is refused"),
                Err(_) => warn!(%address, "agent is refused: it did not end its handshake in time"),
            }
        });
    }
}

/// The certificate is verified by now; its name is the node.
async fn handshake(incoming: Incoming) -> Result<(Connection, NodeId), LinkError> {
    let connection = incoming.await.map_err(|error| LinkError::Handshake(error.to_string()))?;
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.and_then(|chain| chain.into_iter().next());
    let leaf = leaf.ok_or_else(|| LinkError::Refused("it has no certificate".into()))?;
    let node = node_of(&leaf).map_err(|error| LinkError::Refused(error.to_string()))?;
    Ok((connection, node))
}

async fn one_node(
    connection: Connection,
    node: NodeId,
    address: SocketAddr,
    (store, control): (Store, Control),
    connected: &Connected,
) {
    if let Err(error) = admit(&connection, &node, address, &store, connected) {
        warn!(node = %node, %address, %error, "agent is refused");
        let refused = FromAggregator::Refused { reason: error.to_string() };
        drop(timeout(HELLO_TIMEOUT, refuse(&connection, &refused)).await);
        return;
    }
    info!(node = %node, %address, "agent is connected");
    let mut streams = JoinSet::new();
    let Err(error) = session(&connection, &node, (&store, &control), &mut streams).await;
    info!(node = %node, %address, %error, "agent is disconnected");
    // Before the streams end, so that the agent hears why.
    connection.close(VarInt::from_u32(1), error.to_string().as_bytes());
    let mut list = connected.lock().unwrap_or_else(PoisonError::into_inner);
    // The slot may be a newer connection's by now.
    if list.get(&node).is_some_and(|known| known.stable_id() == connection.stable_id()) {
        list.remove(&node);
        store.update(|memory| memory.nodes.entry(node).or_default().connected = false);
    }
}

/// One connection per node. A new one from the same host replaces the old (an agent that was
/// restarted); the same name from another host while the first lives is refused and named.
fn admit(
    connection: &Connection,
    node: &NodeId,
    address: SocketAddr,
    store: &Store,
    connected: &Connected,
) -> Result<(), LinkError> {
    let mut list = connected.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = list.get(node) {
        // Where it is now: a connection may have moved since it was made.
        let other = known.remote_address().ip();
        if other != address.ip() && known.close_reason().is_none() {
            let text = format!(
                "node `{node}` is connected from {other} already; two hosts hold the same certificate"
            );
            return Err(LinkError::Refused(text));
        }
        known.close(VarInt::from_u32(0), b"replaced by a newer connection of this node");
    }
    if !store.read(|memory| memory.nodes.contains_key(node) || memory.nodes.len() < NODES_MAX) {
        return Err(LinkError::Refused(format!("this aggregator already has {NODES_MAX} nodes")));
    }
    list.insert(node.clone(), connection.clone());
    store.update(|memory| memory.nodes.entry(node.clone()).or_default().connected = true);
    Ok(())
}

async fn refuse(connection: &Connection, refused: &FromAggregator) -> Result<(), LinkError> {
    let (mut say, _hear) =
        connection.accept_bi().await.map_err(|error| LinkError::Lost(error.to_string()))?;
    tell(&mut say, refused).await?;
    drop(say.finish());
    drop(say.stopped().await);
    Ok(())
}

async fn session(
    connection: &Connection,
    node: &NodeId,
    (store, control): (&Store, &Control),
    streams: &mut JoinSet<Result<(), LinkError>>,
) -> Result<std::convert::Infallible, LinkError> {
    let (mut say, hear) = timeout(HELLO_TIMEOUT, greet(connection, node, store))
        .await
        .map_err(|_| LinkError::Refused("it did not say hello in time".into()))??;
    let (acks, announced) = (Acks::default(), Announced::default());
    let mut line = control.line(node);
    streams.spawn(listen(hear, node.clone(), control.clone(), line.sender()));
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let stream = stream.map_err(|error| LinkError::Lost(error.to_string()))?;
                let reader = Reader {
                    node: node.clone(),
                    store: store.clone(),
                    acks: acks.clone(),
                    live: stream.id().index() == LIVE_STREAM,
                    schemas: BTreeMap::new(),
                    announced: Arc::clone(&announced),
                };
                streams.spawn(reader.run(stream));
            }
            durable = acks.take() => tell(&mut say, &FromAggregator::Ack { durable }).await?,
            Some(message) = line.next() => tell(&mut say, &message).await?,
            Some(ended) = streams.join_next() => {
                ended.map_err(|error| LinkError::Lost(error.to_string()))??;
            }
        }
    }
}

/// What an agent says behind its hello. While its answers wait for the connection nothing more is read.
async fn listen(
    mut hear: RecvStream,
    node: NodeId,
    control: Control,
    answers: mpsc::Sender<FromAggregator>,
) -> Result<(), LinkError> {
    let (mut began, mut messages) = (clock::uptime(), 0);
    loop {
        let body = match record::read(&mut hear).await.map_err(|error| LinkError::Lost(error.to_string()))? {
            Some((Kind::Control, body)) => body,
            Some((kind, _)) => {
                return Err(LinkError::Refused(format!("{kind:?} record on the control stream")));
            }
            None => return Ok(()),
        };
        if clock::uptime().saturating_sub(began) >= MESSAGES_WINDOW {
            (began, messages) = (clock::uptime(), 0);
        }
        messages += 1;
        if messages > MESSAGES_MAX {
            let text =
                format!("more than {MESSAGES_MAX} control messages in {} s", MESSAGES_WINDOW.as_secs());
            return Err(LinkError::Refused(text));
        }
        let message = serde_json::from_slice(&body)
            .map_err(|error| LinkError::Refused(format!("control message: {error}")))?;
        if let Some(answer) = control.heard(&node, message).await
            && answers.send(answer).await.is_err()
        {
            return Ok(());
        }
    }
}

async fn greet(
    connection: &Connection,
    node: &NodeId,
    store: &Store,
) -> Result<(SendStream, RecvStream), LinkError> {
    let lost = |error: &dyn std::fmt::Display| LinkError::Lost(error.to_string());
    let (mut say, mut hear) = connection.accept_bi().await.map_err(|error| lost(&error))?;
    let hello = match record::read(&mut hear).await.map_err(|error| lost(&error))? {
        Some((Kind::Control, body)) => serde_json::from_slice(&body).map_err(|error| lost(&error))?,
        _ => return Err(LinkError::Refused("it did not begin with a hello".into())),
    };
    let FromAgent::Hello { version, mut epochs, .. } = hello else {
        return Err(LinkError::Refused("it did not begin with a hello".into()));
    };
    epochs.truncate(EPOCHS_MAX);
    store.update(|memory| memory.nodes.entry(node.clone()).or_default().version = Some(cut(&version)));
    let (answer, answered) = oneshot::channel();
    store.send(Request::Durable { node: node.clone(), epochs, answer }).await;
    let durable: Vec<Durable> = answered.await.map_err(|error| lost(&error))?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    tell(&mut say, &FromAggregator::Welcome { version, durable, clock: clock::now() }).await?;
    Ok((say, hear))
}

async fn tell(say: &mut SendStream, message: &FromAggregator) -> Result<(), LinkError> {
    let body = serde_json::to_vec(message).map_err(|error| LinkError::Lost(error.to_string()))?;
    record::write(say, Kind::Control, &body).await.map_err(|error| LinkError::Lost(error.to_string()))
}

/// A version is shown to people: a foreign one is cut to a sane length.
fn cut(version: &str) -> String {
    version.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// One stream of frames.
struct Reader {
    node: NodeId,
    store: Store,
    acks: Acks,
    live: bool,
    schemas: BTreeMap<SchemaId, Arc<Schema>>,
    announced: Announced,
}

impl Reader {
    async fn run(mut self, mut stream: RecvStream) -> Result<(), LinkError> {
        loop {
            match record::read(&mut stream).await.map_err(|error| LinkError::Lost(error.to_string()))? {
                Some((Kind::Frame, bytes)) => self.frame(bytes).await?,
                Some((Kind::Schema, bytes)) => self.schema(bytes).await?,
                Some((Kind::Control, _)) => {
                    return Err(LinkError::Refused("control message on a stream of frames".into()));
                }
                None => return Ok(()),
            }
        }
    }

    async fn schema(&mut self, bytes: Vec<u8>) -> Result<(), LinkError> {
        let schema = Schema::from_bytes(&bytes).map_err(|error| LinkError::Refused(error.to_string()))?;
        let id = schema_id(&bytes);
        if !self.announce(id) {
            return Err(LinkError::Refused(format!("more than {SCHEMAS_MAX} schemas on one connection")));
        }
        let (done, waited) = oneshot::channel();
        self.store.send(Request::Schema { node: self.node.clone(), id, bytes, done }).await;
        // A frame must not be durable before its schema is.
        let kept = waited.await.map_err(|_| LinkError::Lost("the store has ended".into()))?;
        kept.map_err(LinkError::Refused)?;
        self.schemas.insert(id, Arc::new(schema));
        Ok(())
    }

    /// Counts a schema of the connection; false when there are too many.
    fn announce(&self, id: SchemaId) -> bool {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = announced.contains(&id) || announced.len() < SCHEMAS_MAX;
        if fits {
            announced.insert(id);
        }
        fits
    }

    async fn frame(&mut self, bytes: Vec<u8>) -> Result<(), LinkError> {
        let (header, payload) = v1::open(&bytes).map_err(|error| LinkError::Refused(error.to_string()))?;
        let schema =
            if header.codec == Codec::Columns { self.schemas.get(&header.schema).cloned() } else { None };
        let content = Content::decode(&header, &payload, schema);
        if let Content::Opaque(reason) = &content {
            warn!(node = %self.node, seq = header.seq, reason, "frame is kept unread");
        }
        let (node, ack, arrived, live) = (self.node.clone(), self.acks.clone(), clock::now(), self.live);
        let room = self.store.room(content.values()).await;
        if self.store.send(Request::Frame { node, arrived, live, header, content, bytes, ack, room }).await {
            Ok(())
        } else {
            Err(LinkError::Lost("the store has ended".into()))
        }
    }
}
