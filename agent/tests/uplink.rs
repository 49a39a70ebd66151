//! The way from the spool to an aggregator: nothing is missing at the other end, whatever became of the
//! link, of the aggregator or of the disk in between. The uplink runs in the test, the aggregator
//! beside it; the last test has a real agent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::aggregator::{Aggregator, Seen};
use common::{NODE, Node, PATIENCE};
use diarwatch_agent::board::Board;
use diarwatch_agent::config::SpoolConfig;
use diarwatch_agent::fleet::Fleet;
use diarwatch_agent::leases::Leases;
use diarwatch_agent::orders::Orders;
use diarwatch_agent::spool::{Handle, Spool};
use diarwatch_agent::uplink::{self, Uplink};
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Event, What};
use diarwatch_shared::frame::{self, Body, Group};
use diarwatch_shared::identity::Identity;
use diarwatch_shared::node::{Epoch, NodeId, Seq};
use diarwatch_shared::quantity::{Bytes, Span};
use diarwatch_shared::schema::{GroupDef, Schema, SchemaId, SeriesDef, SeriesKey, schema_id};
use diarwatch_shared::wire::Codec;
use diarwatch_shared::wire::v1::{self, FLAG_KEYFRAME, Header};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A run of an agent without its sources.
struct Run {
    spool: Handle,
    epoch: Epoch,
    next: watch::Sender<Seq>,
    board: Board,
    announced: Option<SchemaId>,
}

impl Run {
    fn start(node: &Node) -> Self {
        let config = SpoolConfig {
            directory: node.path("spool"),
            bytes_max: Bytes(1 << 30),
            generation_bytes: Bytes(2_000),
            generation_age: Span::secs(3_600),
        };
        let spool = Spool::open(&config, UnixMicros(1)).unwrap();
        let epoch = spool.epoch();
        let board = Board::new(NodeId::new(NODE).unwrap(), epoch, UnixMicros(1));
        Self { spool: spool.into_handle(), epoch, next: watch::channel(0).0, board, announced: None }
    }

    /// Connects, and goes on to, until the handle is aborted.
    fn connect(&self, node: &Node, endpoints: &[String]) -> JoinHandle<Result<(), String>> {
        let read = |name: &str| std::fs::read(node.path(name)).unwrap();
        let identity = Identity::from_pem(&read("ca.pem"), &read("node.pem"), &read("node.key")).unwrap();
        tokio::spawn(uplink::run(Uplink {
            endpoints: endpoints.to_vec(),
            tls: identity.client().unwrap(),
            spool: self.spool.clone(),
            epoch: self.epoch,
            next: self.next.subscribe(),
            board: self.board.clone(),
            fleet: alone(&self.board, self.epoch),
        }))
    }

    /// Appends frames of one series as the pipeline does: the schema with the first frame that uses it.
    async fn append(&mut self, metric: &str, count: usize) {
        let def = SeriesDef::of(SeriesKey::new(metric, &[]));
        let schema = Schema::new(vec![GroupDef { name: "g".into(), series: vec![def] }]);
        let (bytes, id) = (schema.to_bytes(), schema_id(&schema.to_bytes()));
        for _ in 0..count {
            let seq = *self.next.borrow();
            let base = UnixMicros(seq);
            let body =
                Body { groups: vec![Group { times: vec![base], columns: vec![vec![Ok(f64::from(7_u8))]] }] };
            let payload = frame::encode(&schema, base, &body).unwrap();
            let frame = v1::seal(&self.header(seq, id, Codec::Columns), payload).unwrap();
            let new = (self.announced != Some(id)).then(|| (id, bytes.clone()));
            self.announced = Some(id);
            self.put(seq, new, frame).await;
        }
    }

    async fn put(&self, seq: Seq, schema: Option<(SchemaId, Vec<u8>)>, frame: Vec<u8>) {
        let append = move |spool: &mut Spool| {
            spool.append(seq, schema.as_ref().map(|(id, bytes)| (*id, &**bytes)), &frame)
        };
        self.spool.run(append).await.unwrap();
        self.next.send_replace(seq + 1);
    }

    fn header(&self, seq: Seq, schema: SchemaId, codec: Codec) -> Header {
        let base = UnixMicros(seq);
        Header { seq, base, epoch: self.epoch, schema, ticks: 1, series: 1, flags: FLAG_KEYFRAME, codec }
    }

    async fn unacked(&self) -> u64 {
        self.spool.run(|spool| Ok(spool.stats().frames_unacked)).await.unwrap()
    }

    /// On the disk and on the board, which learns of it a moment later.
    async fn all_acked(&self) {
        eventually("everything is acknowledged", async || (self.unacked().await == 0).then_some(())).await;
        let next = *self.next.borrow();
        let told = || self.board.read(|board| board.spool.frames_acked == next);
        eventually("the board says so", async || told().then_some(())).await;
    }

    fn problem(&self) -> Option<String> {
        self.board.read(|board| board.link.problem.clone())
    }
}

/// A fleet of which nobody asks anything.
fn alone(board: &Board, epoch: Epoch) -> Fleet {
    Fleet::start(Leases::new().1, Orders::new().0, board.clone(), epoch)
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

async fn arrives(aggregator: &Aggregator, epoch: Epoch, next: Seq) {
    eventually(&format!("{next} frames arrive"), async || {
        aggregator.read(|seen| (seen.next(epoch) >= next).then_some(()))
    })
    .await;
}

fn at(aggregator: &Aggregator) -> Vec<String> {
    vec![aggregator.address().to_string()]
}

#[tokio::test]
async fn what_waited_and_what_comes_arrive_whole_and_once() {
    let node = Node::new();
    let mut before = Run::start(&node);
    before.append("m", 90).await;
    let old = before.epoch;
    drop(before);
    let mut run = Run::start(&node);
    run.append("m", 150).await;
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    run.append("m", 60).await;
    arrives(&aggregator, old, 90).await;
    arrives(&aggregator, run.epoch, 210).await;
    run.all_acked().await;
    aggregator.read(|seen: &Seen| {
        assert_eq!((seen.frames.len(), seen.again), (300, 0));
        assert!(seen.gaps.is_empty() && seen.faults.is_empty(), "{:?} {:?}", seen.gaps, seen.faults);
    });
    assert_eq!(run.board.read(|board| board.spool.frames_acked), 210);
    link.abort();
}

#[tokio::test]
async fn what_the_aggregator_has_is_learnt_when_it_is_greeted_and_not_sent_again() {
    let node = Node::new();
    let mut run = Run::start(&node);
    run.append("m", 100).await;
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    aggregator.without_acks();
    let link = run.connect(&node, &at(&aggregator));
    arrives(&aggregator, run.epoch, 100).await;
    assert_eq!(run.unacked().await, 100);
    link.abort();
    let link = run.connect(&node, &at(&aggregator));
    run.all_acked().await;
    assert_eq!(run.board.read(|board| board.spool.frames_acked), 100);
    assert_eq!(aggregator.read(|seen| (seen.connections, seen.again)), (2, 0));
    link.abort();
}

#[tokio::test]
async fn a_link_that_comes_back_finds_the_schema_though_the_generation_that_brought_it_is_gone() {
    let node = Node::new();
    let mut run = Run::start(&node);
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    run.append("m", 100).await;
    run.all_acked().await;
    link.abort();
    run.append("m", 1).await;
    let link = run.connect(&node, &at(&aggregator));
    arrives(&aggregator, run.epoch, 101).await;
    run.append("m", 1).await;
    arrives(&aggregator, run.epoch, 102).await;
    aggregator.read(|seen| assert!(seen.faults.is_empty(), "{:?}", seen.faults));
    link.abort();
}

#[tokio::test]
async fn an_aggregator_that_never_saw_the_beginning_is_told_what_will_not_come() {
    let node = Node::new();
    let mut run = Run::start(&node);
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    run.append("m", 100).await;
    run.all_acked().await;
    link.abort();
    aggregator.forget();
    let link = run.connect(&node, &at(&aggregator));
    run.append("m", 5).await;
    arrives(&aggregator, run.epoch, 105).await;
    run.all_acked().await;
    aggregator.read(|seen| {
        assert!(seen.gaps.iter().all(|gap| gap.to <= 100 && gap.reason == "not_in_spool"), "{:?}", seen.gaps);
        assert!(!seen.gaps.is_empty() && seen.frames.len() >= 5);
    });
    link.abort();
}

#[tokio::test]
async fn more_layouts_than_a_stream_may_bring_take_a_fresh_stream_and_no_new_link() {
    let node = Node::new();
    let mut run = Run::start(&node);
    for number in 0..100 {
        run.append(&format!("m{number}"), 1).await;
    }
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    arrives(&aggregator, run.epoch, 100).await;
    for number in 100..200 {
        run.append(&format!("m{number}"), 1).await;
    }
    arrives(&aggregator, run.epoch, 200).await;
    aggregator.read(|seen| {
        assert!(seen.faults.is_empty(), "{:?}", seen.faults);
        assert_eq!(seen.connections, 1);
        assert!(seen.streams > 2);
    });
    link.abort();
}

#[tokio::test]
async fn a_frame_that_the_disk_damaged_does_not_keep_those_behind_it() {
    let node = Node::new();
    let mut run = Run::start(&node);
    run.append("m", 3).await;
    run.put(3, None, b"no frame at all".to_vec()).await;
    run.append("m", 3).await;
    // A layout that is lost is told of as well, and the frame is sent: who keeps it may find it again.
    let lost = v1::seal(&run.header(7, SchemaId(1), Codec::Columns), Vec::new()).unwrap();
    run.put(7, None, lost).await;
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    eventually("the frame without a layout arrives", async || {
        aggregator
            .read(|seen| seen.faults.iter().any(|fault| fault.contains("before its schema")).then_some(()))
    })
    .await;
    aggregator.read(|seen| {
        assert_eq!(seen.next(run.epoch), 7);
        assert_eq!((seen.gaps[0].from, seen.gaps[0].to), (3, 4));
    });
    link.abort();
}

#[tokio::test]
async fn a_hole_in_the_spool_is_told_of_as_a_gap() {
    let node = Node::new();
    let mut run = Run::start(&node);
    run.append("m", 3).await;
    run.next.send_replace(10);
    run.append("m", 3).await;
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    arrives(&aggregator, run.epoch, 13).await;
    aggregator.read(|seen| assert_eq!((seen.gaps[0].from, seen.gaps[0].to), (3, 10)));
    run.all_acked().await;
    link.abort();
}

#[tokio::test]
async fn a_run_of_which_nothing_is_left_is_told_of_as_a_gap() {
    let node = Node::new();
    let mut run = Run::start(&node);
    run.next.send_replace(10);
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    arrives(&aggregator, run.epoch, 10).await;
    run.append("m", 3).await;
    run.all_acked().await;
    assert_eq!(aggregator.read(|seen| seen.gaps.len()), 1);
    link.abort();
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_is_not_the_aggregator_it_says_to_be() {
    let node = Node::new();
    let mut run = Run::start(&node);
    run.append("m", 1).await;
    let stranger = Aggregator::start(&node.path(""), "stranger");
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let alone = run.connect(&node, &at(&stranger));
    let problem = eventually("the stranger is refused", async || run.problem()).await;
    assert!(
        problem.contains(&stranger.address().to_string()) && problem.contains("certificate"),
        "{problem}"
    );
    assert_eq!(stranger.read(|seen| seen.frames.len()), 0);
    alone.abort();
    let link = run.connect(&node, &[at(&stranger), at(&aggregator)].concat());
    arrives(&aggregator, run.epoch, 1).await;
    assert_eq!(run.problem(), None);
    link.abort();
}

#[tokio::test]
async fn a_link_that_fails_at_once_is_no_busy_loop() {
    let node = Node::new();
    let run = Run::start(&node);
    let stranger = Aggregator::start(&node.path(""), "stranger");
    let began = clock::uptime();
    let link = run.connect(&node, &at(&stranger));
    eventually("three tries", async || stranger.read(|seen| (seen.attempts >= 3).then_some(()))).await;
    // Half a second at least before the second, twice that before the third.
    let took = clock::uptime().saturating_sub(began);
    assert!(took >= Duration::from_millis(1_500), "{took:?}");
    link.abort();
}

#[tokio::test]
async fn what_the_aggregator_says_when_it_refuses_is_what_the_operator_reads() {
    let node = Node::new();
    let run = Run::start(&node);
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    let link = run.connect(&node, &at(&aggregator));
    let connected = async || run.board.read(|board| board.link.connected).then_some(());
    eventually("the link stands", connected).await;
    aggregator.cut("node `tokyo-1` is connected from 10.0.0.7 already");
    let problem = eventually("the link is down", async || run.problem()).await;
    assert_eq!(problem, "aggregator refused: node `tokyo-1` is connected from 10.0.0.7 already");
    assert!(!run.board.read(|board| board.link.connected));
    link.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_disk_that_refused_everything_arrives_without_a_restart() {
    let mut node = Node::new();
    node.before = ["/bin/sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""].map(String::from).into();
    let aggregator = Aggregator::start(&node.path(""), "aggregator");
    node.endpoint = aggregator.address().to_string();
    let agent = node.run();
    let epoch = Epoch(agent.status()["epoch"].as_u64().unwrap());
    arrives(&aggregator, epoch, 3).await;
    agent.limit_files(Some(4_096));
    agent.until("the disk's refusal is told", |status| status["spool"]["problem"].as_str().map(drop));
    agent.until("frames are lost", |status| (status["spool"]["frames_lost"].as_u64()? >= 3).then_some(()));
    let emitted = agent.status()["frames_emitted"].as_u64().unwrap();
    agent.limit_files(None);
    arrives(&aggregator, epoch, emitted + 3).await;
    agent.until("all is acknowledged", |status| {
        (status["spool"]["problem"].is_null() && status["spool"]["frames_unacked"].as_u64()? <= 1)
            .then_some(())
    });
    let (status, log) = agent.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    aggregator.read(|seen| {
        assert!(seen.faults.is_empty() && seen.gaps.is_empty(), "{:?} {:?}", seen.faults, seen.gaps);
        let started = seen.frames.values().filter(|bytes| {
            let (header, payload) = v1::open(bytes).unwrap();
            header.codec == Codec::Event
                && matches!(Event::from_bytes(&payload).unwrap().what, What::AgentStarted { .. })
        });
        assert_eq!(started.count(), 1);
        let emitted: u64 =
            log.rsplit_once("frames_emitted=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(seen.next(epoch), emitted, "the last words of the agent are true");
    });
}
