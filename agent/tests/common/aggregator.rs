//! An aggregator for the tests of the link: real QUIC with certificates on both sides, everything it
//! gets kept in memory, and as strict as the real one about what a stream may bring.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::frame;
use diarwatch_shared::identity::Identity;
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::schema::{Schema, SchemaId, schema_id};
use diarwatch_shared::wire::control::{Durable, FromAgent, FromAggregator, Gap};
use diarwatch_shared::wire::record::{self, Kind};
use diarwatch_shared::wire::{Codec, v1};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::{broadcast, mpsc};

/// Schemas that one stream may bring, as the aggregator has it.
const STREAM_SCHEMAS_MAX: usize = 64;
/// Numbers that may wait to be acknowledged.
const ACKS_MAX: usize = 1_024;

/// What it got.
#[derive(Debug, Default)]
pub struct Seen {
    /// Numbers of each epoch that are here, gaps included.
    pub here: BTreeMap<Epoch, BTreeSet<Seq>>,
    /// Sealed frames by place.
    pub frames: BTreeMap<(Epoch, Seq), Vec<u8>>,
    pub gaps: Vec<Gap>,
    /// Connections that were begun, and those that stood.
    pub attempts: usize,
    pub connections: usize,
    /// Those that are greeted and hear what is said.
    pub welcomed: usize,
    /// Streams of frames, over all connections.
    pub streams: usize,
    /// Frames that came again.
    pub again: usize,
    /// What was wrong with what came.
    pub faults: Vec<String>,
    /// Whether it keeps its acks to itself, as one that is cut off right before them.
    pub silent: bool,
    /// What was said on the control streams behind the hello.
    pub heard: Vec<FromAgent>,
    /// How far its clock is ahead.
    pub ahead: Duration,
}

impl Seen {
    /// The first number of an epoch that is not here.
    pub fn next(&self, epoch: Epoch) -> Seq {
        self.here.get(&epoch).map_or(0, |here| (0..).find(|seq| !here.contains(seq)).unwrap())
    }
}

/// A running aggregator.
#[derive(Clone)]
pub struct Aggregator {
    endpoint: Endpoint,
    seen: Arc<Mutex<Seen>>,
    /// What every connection is told.
    words: broadcast::Sender<FromAggregator>,
}

impl Aggregator {
    /// Listens with this certificate of the directory.
    pub fn start(directory: &Path, certificate: &str) -> Self {
        let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
        let identity = Identity::from_pem(
            &read("ca.pem"),
            &read(&format!("{certificate}.pem")),
            &read(&format!("{certificate}.key")),
        );
        let tls = identity.unwrap().server().unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let aggregator = Self { endpoint, seen: Arc::default(), words: broadcast::channel(ACKS_MAX).0 };
        tokio::spawn(aggregator.clone().serve());
        aggregator
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub fn read<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.lock().unwrap())
    }

    /// Says what it has only when it is greeted.
    pub fn without_acks(&self) {
        self.seen.lock().unwrap().silent = true;
    }

    /// Has a clock that is ahead of everybody's.
    pub fn set_ahead(&self, by: Duration) {
        self.seen.lock().unwrap().ahead = by;
    }

    /// Says this to whoever is connected.
    pub fn say(&self, message: FromAggregator) {
        self.words.send(message).unwrap();
    }

    /// Ends every connection with these words.
    pub fn cut(&self, words: &str) {
        self.endpoint.close(VarInt::from_u32(1), words.as_bytes());
    }

    /// A place of another aggregator, with nothing of what this one knows.
    pub fn forget(&self) {
        *self.seen.lock().unwrap() = Seen::default();
    }

    async fn serve(self) {
        while let Some(incoming) = self.endpoint.accept().await {
            let this = self.clone();
            this.seen.lock().unwrap().attempts += 1;
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    this.seen.lock().unwrap().connections += 1;
                    this.session(connection).await;
                }
            });
        }
    }

    async fn session(&self, connection: Connection) -> Option<()> {
        let (mut say, mut hear) = connection.accept_bi().await.ok()?;
        let Ok(Some((Kind::Control, hello))) = record::read(&mut hear).await else { return None };
        let FromAgent::Hello { epochs, .. } = serde_json::from_slice(&hello).unwrap() else {
            panic!("{hello:?}")
        };
        let durable = self.read(|seen| {
            epochs.iter().map(|epoch| Durable { epoch: *epoch, next: seen.next(*epoch) }).collect()
        });
        let clock = clock::now().plus(self.read(|seen| seen.ahead));
        tell(&mut say, &FromAggregator::Welcome { version: "test".into(), durable, clock }).await?;
        let (ack, mut acks) = mpsc::channel(ACKS_MAX);
        let mut words = self.words.subscribe();
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok(Some((Kind::Control, message))) = record::read(&mut hear).await {
                this.seen.lock().unwrap().heard.push(serde_json::from_slice(&message).unwrap());
            }
        });
        self.seen.lock().unwrap().welcomed += 1;
        loop {
            tokio::select! {
                Ok(message) = words.recv() => tell(&mut say, &message).await?,
                stream = connection.accept_uni() => {
                    let (this, connection, ack) = (self.clone(), connection.clone(), ack.clone());
                    let stream = stream.ok()?;
                    this.seen.lock().unwrap().streams += 1;
                    tokio::spawn(async move {
                        if let Err(fault) = this.frames(stream, ack).await {
                            connection.close(VarInt::from_u32(1), fault.as_bytes());
                            this.seen.lock().unwrap().faults.push(fault);
                        }
                    });
                }
                Some(epoch) = acks.recv() => {
                    let durable = vec![Durable { epoch, next: self.read(|seen| seen.next(epoch)) }];
                    if !self.read(|seen| seen.silent) {
                        tell(&mut say, &FromAggregator::Ack { durable }).await?;
                    }
                }
            }
        }
    }

    /// One stream; an error is what the agent did wrong.
    async fn frames(&self, mut stream: RecvStream, ack: mpsc::Sender<Epoch>) -> Result<(), String> {
        let mut schemas: BTreeMap<SchemaId, Schema> = BTreeMap::new();
        while let Ok(Some((kind, bytes))) = record::read(&mut stream).await {
            if kind == Kind::Schema {
                let schema = Schema::from_bytes(&bytes).map_err(|error| error.to_string())?;
                schemas.insert(schema_id(&bytes), schema);
                if schemas.len() > STREAM_SCHEMAS_MAX {
                    return Err("more schemas on one stream than it may bring".into());
                }
                continue;
            }
            let epoch = self.keep(bytes, &schemas)?;
            if ack.send(epoch).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn keep(&self, bytes: Vec<u8>, schemas: &BTreeMap<SchemaId, Schema>) -> Result<Epoch, String> {
        let (header, payload) = v1::open(&bytes).map_err(|error| error.to_string())?;
        let mut to = header.seq + 1;
        let mut seen = self.seen.lock().unwrap();
        match header.codec {
            Codec::Columns => {
                let schema = schemas.get(&header.schema).ok_or("a frame came before its schema")?;
                frame::decode(schema, header.base, &payload).map_err(|error| error.to_string())?;
            }
            Codec::Event => {}
            Codec::Gap => {
                let gap: Gap = serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
                to = gap.to;
                seen.gaps.push(gap);
            }
        }
        seen.here.entry(header.epoch).or_default().extend(header.seq..to);
        if header.codec != Codec::Gap && seen.frames.insert((header.epoch, header.seq), bytes).is_some() {
            seen.again += 1;
        }
        Ok(header.epoch)
    }
}

async fn tell(say: &mut SendStream, message: &FromAggregator) -> Option<()> {
    record::write(say, Kind::Control, &serde_json::to_vec(message).unwrap()).await.ok()
}
