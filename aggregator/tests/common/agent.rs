//! An agent made by hand: it has a certificate and can send anything, in any order.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::frame::{self, Body, Group};
use diarwatch_shared::identity::{AGGREGATOR_NAME, Identity};
use diarwatch_shared::node::{Epoch, Seq};
use diarwatch_shared::reading::Reading;
use diarwatch_shared::schema::{GroupDef, Schema, SchemaId, SeriesDef, SeriesKey, schema_id};
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::control::{Durable, FromAgent, FromAggregator, Gap};
use diarwatch_shared::wire::record::{self, Kind};
use diarwatch_shared::wire::v1::{self, FLAG_KEYFRAME, Header};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{PATIENCE, Site};

/// Between two frames of an agent that beats.
const BEAT: Duration = Duration::from_millis(200);

/// A series and what was read.
pub(crate) type Row = (SeriesKey, Reading);

/// An agent that was welcomed.
pub(crate) struct Agent {
    pub(crate) connection: Connection,
    /// What the aggregator said it has.
    pub(crate) welcome: Vec<Durable>,
    /// The stream of live frames.
    pub(crate) live: Stream,
    epoch: Epoch,
    hear: RecvStream,
    say: SendStream,
}

impl Agent {
    /// Connects as a node of the site and says hello.
    pub(crate) async fn join(site: &Site, node: &str, epoch: u64) -> Self {
        let tls = identity(&site.path("pki"), node).client().unwrap();
        Self::join_at(site.intake(), tls, epoch).await
    }

    /// Connects with this TLS and says hello.
    pub(crate) async fn join_at(address: SocketAddr, tls: rustls::ClientConfig, epoch: u64) -> Self {
        let connection = connect(address, tls).await.unwrap();
        let epoch = Epoch(epoch);
        let (mut say, mut hear) = connection.open_bi().await.unwrap();
        hello(&mut say, epoch).await;
        let FromAggregator::Welcome { durable, .. } = hear_one(&mut hear).await.unwrap() else {
            panic!("no welcome")
        };
        let live = Stream::open(&connection, epoch).await;
        Self { connection, welcome: durable, live, epoch, hear, say }
    }

    /// Another stream of frames, as the one for the backlog.
    pub(crate) async fn backlog(&self) -> Stream {
        Stream::open(&self.connection, self.epoch).await
    }

    /// What it was welcomed with, for its own epoch.
    pub(crate) fn durable(&self) -> Seq {
        self.welcome.iter().find(|durable| durable.epoch == self.epoch).map_or(0, |durable| durable.next)
    }

    /// The next ack of this epoch.
    pub(crate) async fn ack(&mut self) -> Seq {
        loop {
            let FromAggregator::Ack { durable } = hear_one(&mut self.hear).await.unwrap() else { continue };
            if let Some(durable) = durable.iter().find(|durable| durable.epoch == self.epoch) {
                return durable.next;
            }
        }
    }

    /// Waits until everything below `next` is acknowledged; gives the ack that said so.
    pub(crate) async fn acked(&mut self, next: Seq) -> Seq {
        loop {
            let acked = self.ack().await;
            if acked >= next {
                return acked;
            }
        }
    }

    /// The next ack of any epoch.
    pub(crate) async fn any_ack(&mut self) -> Vec<Durable> {
        loop {
            if let FromAggregator::Ack { durable } = hear_one(&mut self.hear).await.unwrap() {
                return durable;
            }
        }
    }

    /// Says something on the control stream.
    pub(crate) async fn tell(&mut self, message: &FromAgent) {
        self.record(Kind::Control, &serde_json::to_vec(message).unwrap()).await;
    }

    /// Any record on the control stream. A connection that was ended meanwhile is no fault here.
    pub(crate) async fn record(&mut self, kind: Kind, body: &[u8]) {
        let _ = record::write(&mut self.say, kind, body).await;
    }

    /// What the aggregator says next that is no ack.
    pub(crate) async fn heard(&mut self) -> FromAggregator {
        loop {
            let message = hear_one(&mut self.hear).await.unwrap();
            if !matches!(message, FromAggregator::Ack { .. }) {
                return message;
            }
        }
    }

    /// The certificate at the other end.
    pub(crate) fn peer(&self) -> CertificateDer<'static> {
        let chain = self.connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>();
        chain.unwrap().remove(0)
    }

    /// Why the aggregator ended the connection.
    pub(crate) async fn ended(&self) -> String {
        ended(&self.connection).await
    }
}

/// A stream of frames.
pub(crate) struct Stream {
    pub(crate) stream: SendStream,
    epoch: Epoch,
    announced: BTreeSet<SchemaId>,
}

impl Stream {
    async fn open(connection: &Connection, epoch: Epoch) -> Self {
        Self { stream: connection.open_uni().await.unwrap(), epoch, announced: BTreeSet::new() }
    }

    /// One reading per series, at this moment, with the schema before it when it is new.
    pub(crate) async fn send(&mut self, seq: Seq, rows: &[Row]) {
        self.send_at(seq, clock::now(), rows).await;
    }

    /// One reading per series, at that time.
    pub(crate) async fn send_at(&mut self, seq: Seq, at: UnixMicros, rows: &[Row]) {
        let schema = schema_of(rows);
        let bytes = schema.to_bytes();
        if self.announced.insert(schema_id(&bytes)) {
            self.record(Kind::Schema, &bytes).await;
        }
        let sealed = frame_of(self.epoch, seq, at, &schema, rows);
        self.record(Kind::Frame, &sealed).await;
    }

    /// An event in a frame of its own.
    pub(crate) async fn event(&mut self, seq: Seq, what: What) {
        let event = Event::new(clock::now(), what);
        let sealed = seal(self.epoch, seq, Codec::Event, event.to_bytes());
        self.record(Kind::Frame, &sealed).await;
    }

    /// Frames from `from` to before `to` will never come.
    pub(crate) async fn gap(&mut self, from: Seq, to: Seq) {
        let gap = Gap { epoch: self.epoch, from, to, reason: String::from("spool_full") };
        let sealed = seal(self.epoch, from, Codec::Gap, serde_json::to_vec(&gap).unwrap());
        self.record(Kind::Frame, &sealed).await;
    }

    /// One record. A connection that the aggregator ended meanwhile is no fault here.
    pub(crate) async fn record(&mut self, kind: Kind, body: &[u8]) {
        let _ = record::write(&mut self.stream, kind, body).await;
    }

    /// Bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// From here on the frames are of another run of the agent.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        self.epoch = Epoch(epoch);
    }
}

/// A series.
pub(crate) fn key(metric: &str, labels: &[(&str, &str)]) -> SeriesKey {
    SeriesKey::new(metric, labels)
}

/// `worker_ready` of a worker whose service has the same name.
pub(crate) fn ready(worker: &str, reading: Reading) -> Row {
    (key("worker_ready", &[("worker", worker), ("service", worker)]), reading)
}

/// The layout of rows.
pub(crate) fn schema_of(rows: &[Row]) -> Schema {
    let series = rows.iter().map(|(key, _)| SeriesDef::of(key.clone())).collect();
    Schema::new(vec![GroupDef { name: String::from("test"), series }])
}

/// The frame of rows, sealed.
pub(crate) fn frame_of(epoch: Epoch, seq: Seq, at: UnixMicros, schema: &Schema, rows: &[Row]) -> Vec<u8> {
    let columns = rows.iter().map(|(_, reading)| vec![*reading]).collect();
    let body = Body { groups: vec![Group { times: vec![at], columns }] };
    let header = Header {
        seq,
        base: at,
        epoch,
        schema: schema_id(&schema.to_bytes()),
        ticks: 1,
        series: u16::try_from(rows.len()).unwrap(),
        flags: FLAG_KEYFRAME,
        codec: Codec::Columns,
    };
    v1::seal(&header, frame::encode(schema, at, &body).unwrap()).unwrap()
}

/// A payload without columns, sealed.
pub(crate) fn seal(epoch: Epoch, seq: Seq, codec: Codec, payload: Vec<u8>) -> Vec<u8> {
    let header = Header {
        seq,
        base: clock::now(),
        epoch,
        schema: SchemaId(0),
        ticks: 0,
        series: 0,
        flags: FLAG_KEYFRAME,
        codec,
    };
    v1::seal(&header, payload).unwrap()
}

/// The identity of a name in a directory of `pki init`.
pub(crate) fn identity(pki: &Path, name: &str) -> Identity {
    let read = |file: &str| std::fs::read(pki.join(file)).unwrap();
    Identity::from_pem(&read("ca.pem"), &read(&format!("{name}.pem")), &read(&format!("{name}.key"))).unwrap()
}

/// A connection without a word on it.
pub(crate) async fn connect(
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Connection, ConnectionError> {
    connect_from([127, 0, 0, 1], address, tls).await
}

/// A connection from one of this machine's addresses.
pub(crate) async fn connect_from(
    from: [u8; 4],
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Connection, ConnectionError> {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    client.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(SocketAddr::from((from, 0))).unwrap();
    endpoint.connect_with(client, address, AGGREGATOR_NAME).unwrap().await
}

/// Says hello as this run of an agent.
pub(crate) async fn hello(say: &mut SendStream, epoch: Epoch) {
    let version = String::from("9.9.9-test");
    let hello = FromAgent::Hello { version, epoch, epochs: vec![epoch], clock: clock::now() };
    record::write(say, Kind::Control, &serde_json::to_vec(&hello).unwrap()).await.unwrap();
}

/// Why a connection ended.
pub(crate) async fn ended(connection: &Connection) -> String {
    match timeout(PATIENCE, connection.closed()).await.expect("the connection ends") {
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        other => other.to_string(),
    }
}

/// The next message of the aggregator.
pub(crate) async fn hear_one(hear: &mut RecvStream) -> Result<FromAggregator, String> {
    let heard = timeout(PATIENCE, record::read(hear)).await.expect("the aggregator says something");
    match heard.map_err(|error| error.to_string())? {
        Some((Kind::Control, body)) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        other => Err(format!("{other:?} in place of a control message")),
    }
}

/// An agent that says again and again what it was told last, until it is dropped.
pub(crate) struct Beating {
    rows: watch::Sender<Vec<Row>>,
    task: JoinHandle<()>,
}

impl Beating {
    /// Connects as a node and begins.
    pub(crate) async fn start(site: &Site, node: &str, epoch: u64, rows: &[Row]) -> Self {
        let agent = Agent::join(site, node, epoch).await;
        let (sender, told) = watch::channel(rows.to_vec());
        Self { rows: sender, task: tokio::spawn(beat(agent, told)) }
    }

    /// Says this from now on, and at once.
    pub(crate) fn say(&self, rows: &[Row]) {
        self.rows.send(rows.to_vec()).expect("it beats");
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn beat(mut agent: Agent, mut told: watch::Receiver<Vec<Row>>) {
    for seq in agent.durable().. {
        let rows = told.borrow_and_update().clone();
        agent.live.send(seq, &rows).await;
        let _ = timeout(BEAT, told.changed()).await;
    }
}
