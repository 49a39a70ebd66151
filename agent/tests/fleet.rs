//! Leases and intents over a real link: the uplink runs in the test, an aggregator made by hand beside it,
//! which says what it likes. What is not signed by it, for this node, now and for the first time is not done.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::aggregator::Aggregator;
use common::{NODE, Node, PATIENCE};
use diarwatch_agent::board::Board;
use diarwatch_agent::config::SpoolConfig;
use diarwatch_agent::config::worker::DriverKind;
use diarwatch_agent::fleet::Fleet;
use diarwatch_agent::judge::Phase;
use diarwatch_agent::leases::{Lease, Leases, Wish};
use diarwatch_agent::orders::{Order, Orders, Verb};
use diarwatch_agent::spool::Spool;
use diarwatch_agent::uplink::{self, Uplink};
use diarwatch_agent::workers::WorkerStatus;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::Cause;
use diarwatch_shared::identity::Identity;
use diarwatch_shared::node::{NodeId, WorkerId};
use diarwatch_shared::quantity::{Bytes, Span};
use diarwatch_shared::wire::control::{FromAgent, FromAggregator, Intent};
use diarwatch_shared::wire::intent::seal;
use serde_json::json;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The link of an agent with one worker, and what stands at its ends.
struct Run {
    node: Node,
    uplink: Option<Uplink>,
    leases: Leases,
    ordered: mpsc::Receiver<Order>,
    board: Board,
    link: Option<JoinHandle<Result<(), String>>>,
}

impl Run {
    fn new() -> Self {
        let node = Node::new();
        let config = SpoolConfig {
            directory: node.path("spool"),
            bytes_max: Bytes(1 << 30),
            generation_bytes: Bytes(1 << 20),
            generation_age: Span::secs(3_600),
        };
        let spool = Spool::open(&config, UnixMicros(1)).unwrap();
        let epoch = spool.epoch();
        let board = Board::new(NodeId::new(NODE).unwrap(), epoch, UnixMicros(1));
        board.update(|board| board.worker_told(status()));
        let (orders, ordered) = Orders::new();
        let (leases, wishes) = Leases::new();
        let read = |name: &str| std::fs::read(node.path(name)).unwrap();
        let identity = Identity::from_pem(&read("ca.pem"), &read("node.pem"), &read("node.key")).unwrap();
        let uplink = Uplink {
            endpoints: Vec::new(),
            tls: identity.client().unwrap(),
            spool: spool.into_handle(),
            epoch,
            next: watch::channel(0).1,
            board: board.clone(),
            fleet: Fleet::start(wishes, orders, board.clone(), epoch),
        };
        Self { node, uplink: Some(uplink), leases, ordered, board, link: None }
    }

    /// With an aggregator that has greeted it.
    async fn linked() -> (Self, Aggregator) {
        let mut run = Self::new();
        let aggregator = Aggregator::start(&run.node.path(""), "aggregator");
        run.connect(&aggregator).await;
        (run, aggregator)
    }

    async fn connect(&mut self, aggregator: &Aggregator) {
        let mut uplink = self.uplink.take().unwrap();
        uplink.endpoints = vec![aggregator.address().to_string()];
        self.link = Some(tokio::spawn(uplink::run(uplink)));
        let stands = || self.board.read(|board| board.link.connected);
        eventually("the link stands", || {
            (stands() && aggregator.read(|seen| seen.welcomed > 0)).then_some(())
        })
        .await;
    }

    /// Signs an intent by that name's key of this node's CA and says it.
    fn intend(&self, aggregator: &Aggregator, signed_by: &str, intent: &Intent) -> FromAggregator {
        let read = |name: &str| std::fs::read(self.node.path(name)).unwrap();
        let (certificate, key) = (format!("{signed_by}.pem"), format!("{signed_by}.key"));
        let identity = Identity::from_pem(&read("ca.pem"), &read(&certificate), &read(&key)).unwrap();
        let message = seal(intent, &identity.signer().unwrap()).unwrap();
        aggregator.say(message.clone());
        message
    }

    /// The next order; nobody else may have come before.
    async fn order(&mut self) -> Order {
        timeout(PATIENCE, self.ordered.recv()).await.expect("an order comes").unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.abort();
        }
    }
}

fn status() -> WorkerStatus {
    WorkerStatus {
        worker: WorkerId::new("w").unwrap(),
        service: "w".into(),
        driver: DriverKind::Child,
        phase: Phase::Ready,
        ready: Some(true),
        pid: None,
        restarts: 0,
        started: None,
        last_probe: None,
        last_exit: None,
        next_start_in_ms: None,
        since: UnixMicros(1),
        held_by: None,
        drained_by: None,
        restarts_in_window: 0,
        breaker_open: false,
        statuses_dropped: 0,
        findings_dropped: 0,
        why: Default::default(),
    }
}

fn wish() -> Wish {
    Wish { worker: WorkerId::new("w").unwrap(), cause: Cause::Wedged, ready: true }
}

fn intent(id: &str) -> Intent {
    Intent {
        id: id.into(),
        node: NodeId::new(NODE).unwrap(),
        worker: WorkerId::new("w").unwrap(),
        verb: "restart".into(),
        now: true,
        by: "alice".into(),
        reason: Some("遅い".into()),
        issued: clock::now(),
        not_after: clock::now().plus(Duration::from_secs(60)),
    }
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// The id of the newest question that the aggregator heard, when there are so many.
async fn asked(aggregator: &Aggregator, count: usize) -> u64 {
    eventually("a question is heard", || {
        let ids = aggregator.read(|seen| {
            let id = |message: &FromAgent| match message {
                FromAgent::LeaseAsk { id, .. } => Some(*id),
                _ => None,
            };
            seen.heard.iter().filter_map(id).collect::<Vec<_>>()
        });
        ids.get(count - 1).copied()
    })
    .await
}

async fn heard(aggregator: &Aggregator, message: &FromAgent) {
    eventually(&format!("{message:?} is heard"), || {
        aggregator.read(|seen| seen.heard.contains(message).then_some(()))
    })
    .await;
}

/// Why the agent refused an intent.
async fn refused(aggregator: &Aggregator, wanted: &str) -> String {
    eventually(&format!("intent {wanted} is refused"), || {
        aggregator.read(|seen| {
            seen.heard.iter().find_map(|message| match message {
                FromAgent::IntentDone { id, refused, .. } if id == wanted => refused.clone(),
                _ => None,
            })
        })
    })
    .await
}

fn granted(id: u64) -> FromAggregator {
    FromAggregator::Lease { id, granted_ms: Some(600_000), retry_after_ms: None, reason: None }
}

#[tokio::test]
async fn a_lease_is_granted_or_denied_with_a_reason_and_given_back_by_its_number() {
    let (run, aggregator) = Run::linked().await;
    let answer = tokio::spawn({
        let leases = run.leases.clone();
        async move { leases.ask(wish()).await }
    });
    let first = asked(&aggregator, 1).await;
    aggregator.read(|seen| {
        let FromAgent::LeaseAsk { worker, cause, ready, .. } = &seen.heard[0] else { panic!() };
        assert_eq!((worker.as_str(), *cause, *ready), ("w", Cause::Wedged, true));
    });
    aggregator.say(granted(first));
    assert_eq!(answer.await.unwrap(), Lease::Granted { id: first });
    run.leases.give_back(first);
    heard(&aggregator, &FromAgent::LeaseReturn { id: first }).await;
    let answer = tokio::spawn({
        let leases = run.leases.clone();
        async move { leases.ask(wish()).await }
    });
    let second = asked(&aggregator, 2).await;
    assert_ne!(first, second);
    let reason = Some(String::from("two are away already"));
    aggregator.say(FromAggregator::Lease {
        id: second,
        granted_ms: None,
        retry_after_ms: Some(15_000),
        reason,
    });
    let Lease::Denied { reason, retry_after } = answer.await.unwrap() else { panic!("not denied") };
    assert_eq!((reason.as_str(), retry_after), ("two are away already", Duration::from_secs(15)));
}

#[tokio::test]
async fn an_aggregator_that_knows_no_leases_leaves_the_agent_alone_and_a_late_lease_goes_back() {
    let (run, aggregator) = Run::linked().await;
    assert_eq!(run.leases.ask(wish()).await, Lease::Alone);
    let id = asked(&aggregator, 1).await;
    aggregator.say(granted(id));
    heard(&aggregator, &FromAgent::LeaseReturn { id }).await;
}

#[tokio::test]
async fn without_an_aggregator_the_agent_is_alone_and_what_it_owes_waits_for_the_next() {
    let mut run = Run::new();
    assert_eq!(run.leases.ask(wish()).await, Lease::Alone);
    run.leases.give_back(77);
    let aggregator = Aggregator::start(&run.node.path(""), "aggregator");
    run.connect(&aggregator).await;
    heard(&aggregator, &FromAgent::LeaseReturn { id: 77 }).await;
    let answer = tokio::spawn({
        let leases = run.leases.clone();
        async move { leases.ask(wish()).await }
    });
    asked(&aggregator, 1).await;
    aggregator.cut("aggregator stops");
    assert_eq!(answer.await.unwrap(), Lease::Alone, "whose link is lost is alone");
}

#[tokio::test]
async fn an_intent_becomes_an_order_and_its_answer_goes_back() {
    let (mut run, aggregator) = Run::linked().await;
    run.intend(&aggregator, "aggregator", &intent("one"));
    let order = run.order().await;
    assert_eq!((order.worker.as_str(), order.verb, order.now), ("w", Verb::Restart, true));
    assert_eq!((order.by.as_str(), order.reason.as_deref()), ("alice through the aggregator", Some("遅い")));
    assert!(order.not_after > clock::now());
    order.answer.send(Ok(json!("it is stopped"))).unwrap();
    let done = Some(String::from("it is stopped"));
    heard(&aggregator, &FromAgent::IntentDone { id: "one".into(), done, refused: None }).await;
    run.intend(&aggregator, "aggregator", &Intent { verb: "hold".into(), now: false, ..intent("two") });
    let order = run.order().await;
    assert_eq!(order.verb, Verb::Hold);
    order.answer.send(Err("it is held by bob".into())).unwrap();
    assert_eq!(refused(&aggregator, "two").await, "it is held by bob");
}

#[tokio::test]
async fn what_is_not_signed_meant_and_timely_is_refused_and_never_done() {
    let (mut run, aggregator) = Run::linked().await;
    let a_minute_ago = clock::now().minus(Duration::from_secs(60));
    let in_an_hour = clock::now().plus(Duration::from_secs(3_600));
    let other = Intent { node: NodeId::new("gpu-99").unwrap(), ..intent("node") };
    let bad = [
        ("node", "for node `gpu-99`", other),
        ("worker", "no worker `x`", Intent { worker: WorkerId::new("x").unwrap(), ..intent("worker") }),
        ("verb", "does not know", Intent { verb: "rm -rf /".into(), ..intent("verb") }),
        ("past", "it ended", Intent { issued: a_minute_ago, not_after: a_minute_ago, ..intent("past") }),
        ("long", "more than 300 s", Intent { not_after: in_an_hour, ..intent("long") }),
        ("early", "before this agent started", Intent { issued: a_minute_ago, ..intent("early") }),
    ];
    for (id, why, intent) in bad {
        run.intend(&aggregator, "aggregator", &intent);
        let said = refused(&aggregator, id).await;
        assert!(said.contains(why), "{id}: {said}");
    }
    // A node's certificate is of the same CA, and is not the aggregator's.
    run.intend(&aggregator, "node", &intent("forged"));
    assert!(refused(&aggregator, "forged").await.contains("not signed by this aggregator"));
    // Signed, and changed on the way.
    let sound = run.intend(&aggregator, "aggregator", &intent("sound"));
    run.order().await.answer.send(Ok(json!("done"))).unwrap();
    let FromAggregator::Intent { intent: text, signature } = sound.clone() else { panic!() };
    let text = text.replace("sound", "swapped");
    aggregator.say(FromAggregator::Intent { intent: text, signature });
    assert!(refused(&aggregator, "swapped").await.contains("not signed by this aggregator"));
    // The same once more, also on another link.
    aggregator.say(sound);
    assert_eq!(refused(&aggregator, "sound").await, "it was used before");
    assert!(run.ordered.try_recv().is_err(), "nothing of it was ordered");
}

#[tokio::test]
async fn an_intent_ends_by_the_aggregators_clock_also_when_this_nodes_is_wrong() {
    let mut run = Run::new();
    let aggregator = Aggregator::start(&run.node.path(""), "aggregator");
    let hour = Duration::from_secs(3_600);
    aggregator.set_ahead(hour);
    run.connect(&aggregator).await;
    run.intend(&aggregator, "aggregator", &intent("here"));
    assert!(refused(&aggregator, "here").await.contains("by the aggregator's clock"));
    let theirs = Intent {
        issued: intent("").issued.plus(hour),
        not_after: intent("").not_after.plus(hour),
        ..intent("there")
    };
    run.intend(&aggregator, "aggregator", &theirs);
    let order = run.order().await;
    let left = order.not_after.since(clock::now());
    assert!(left <= Duration::from_secs(61) && left > Duration::from_secs(1), "{left:?}");
}

#[tokio::test]
async fn an_order_that_nobody_takes_is_answered_as_that() {
    let (mut run, aggregator) = Run::linked().await;
    run.intend(&aggregator, "aggregator", &intent("one"));
    drop(run.order().await);
    assert_eq!(refused(&aggregator, "one").await, "nobody on this node took the order");
}
