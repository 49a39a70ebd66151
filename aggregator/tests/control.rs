//! Leases and intents with a real aggregator: what an agent hears on its control stream, who may order
//! something over HTTP, and what a hostile agent comes to. The last test has the agent's own uplink.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use common::agent::{Agent, Beating, identity, ready};
use common::{NEIGHBOUR, NODE, Site, client, run, text, toml, until, until_so};
use diarwatch_agent::board::Board;
use diarwatch_agent::config::worker::DriverKind;
use diarwatch_agent::fleet::Fleet;
use diarwatch_agent::judge::Phase;
use diarwatch_agent::leases::{Lease, Leases, Wish};
use diarwatch_agent::orders::{Orders, Verb};
use diarwatch_agent::spool::Spool;
use diarwatch_agent::uplink::{self, Uplink};
use diarwatch_agent::workers::WorkerStatus;
use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::Cause;
use diarwatch_shared::node::{NodeId, WorkerId};
use diarwatch_shared::quantity::{Bytes, Span};
use diarwatch_shared::wire::control::{FromAgent, FromAggregator};
use diarwatch_shared::wire::intent::open;
use diarwatch_shared::wire::record::Kind;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn ask(id: u64, name: &str, ready: bool) -> FromAgent {
    FromAgent::LeaseAsk { id, worker: worker(name), cause: Cause::Wedged, ready }
}

/// Asks; gives how long it may be away, or why not.
async fn lease(agent: &mut Agent, id: u64, name: &str, ready: bool) -> Result<u64, String> {
    agent.tell(&ask(id, name, ready)).await;
    let FromAggregator::Lease { id: of, granted_ms, retry_after_ms, reason } = agent.heard().await else {
        panic!("no answer to a question")
    };
    assert_eq!((of, granted_ms.is_some()), (id, retry_after_ms.is_none()));
    granted_ms.ok_or_else(|| reason.unwrap())
}

/// A site with an operator, and the operator's token.
async fn with_operator() -> (Site, String) {
    let mut site = Site::new("");
    let token = operator(&mut site, "alice");
    site.start().await;
    (site, token)
}

fn operator(site: &mut Site, name: &str) -> String {
    let file = toml(&site.path("operators"));
    site.configure(&format!("[http]\nlisten = \"127.0.0.1:0\"\noperator_token_file = {file}\n"));
    let made = operators(site, &["add", name]);
    assert_eq!(made.0, Some(0), "{}", made.2);
    made.1.trim().to_owned()
}

/// `operator` with these words: exit, stdout, stderr.
fn operators(site: &Site, words: &[&str]) -> (Option<i32>, String, String) {
    let config = site.config().display().to_string();
    let ran = run(&[&["operator"], words, &["--config", &config]].concat());
    (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
}

fn wish() -> Value {
    json!({ "node": NODE, "worker": "w", "verb": "restart", "now": true, "reason": "遅い", "ttl_seconds": 30 })
}

async fn post(site: &Site, token: &str, wish: &Value) -> (StatusCode, Value) {
    let url = format!("{}/api/v1/intents", site.page());
    let answer = client().post(url).bearer_auth(token).json(wish).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn entry(site: &Site, id: &Value) -> Value {
    let list = site.json("/api/v1/intents").await;
    list["intents"].as_array().unwrap().iter().find(|entry| entry["id"] == *id).cloned().unwrap_or_default()
}

#[tokio::test]
async fn one_may_go_at_a_time_others_are_told_why_and_a_lease_survives_its_connection() {
    let site = Site::running("").await;
    let mut first = Agent::join(&site, NODE, 7).await;
    let mut second = Agent::join(&site, NEIGHBOUR, 7).await;
    assert_eq!(lease(&mut first, 1, "w", false).await, Ok(600_000));
    let said = lease(&mut second, 1, "w", false).await.unwrap_err();
    assert!(said.contains("gpu-01/w"), "{said}");
    drop(first);
    let mut again = Agent::join(&site, NODE, 8).await;
    let left = lease(&mut again, 2, "w", false).await.unwrap();
    assert!(left <= 600_000, "its one life goes on");
    assert!(lease(&mut second, 2, "w", false).await.is_err());
    again.tell(&FromAgent::LeaseReturn { id: 2 }).await;
    until("the other may go", async || lease(&mut second, 3, "w", false).await.ok()).await;
    assert_eq!(site.metric("diarwatch_leases_held").await, 1.0);
    assert_eq!(site.metric("diarwatch_leases_granted_total").await, 2.0);
    assert!(site.metric("diarwatch_leases_denied_total").await >= 2.0);
}

#[tokio::test]
async fn a_ready_worker_goes_only_while_enough_others_are_ready_and_one_that_is_not_always() {
    let site = Site::running("").await;
    let mut rows = [ready("w", Ok(1.0))];
    let mut agent = Agent::join(&site, NODE, 7).await;
    agent.live.send(0, &rows).await;
    agent.acked(1).await;
    rows[0].1 = Ok(0.0);
    let other = Beating::start(&site, NEIGHBOUR, 7, &rows).await;
    until_so("both are known", async || {
        site.query("worker_ready").await.as_array().is_some_and(|rows| rows.len() == 2)
    })
    .await;
    let said = lease(&mut agent, 1, "w", true).await.unwrap_err();
    assert_eq!(said, "without it 0 of 2 workers would be ready, and 1 have to be");
    other.say(&[ready("w", Ok(1.0))]);
    let mut id = 1;
    until("it may go", async || {
        id += 1;
        lease(&mut agent, id, "w", true).await.ok()
    })
    .await;
    agent.tell(&FromAgent::LeaseReturn { id }).await;
    other.say(&[ready("w", Ok(0.0))]);
    assert_eq!(lease(&mut agent, 1_000, "w", false).await, Ok(600_000), "the floor is not for it");
}

#[tokio::test]
async fn what_a_later_agent_says_is_ignored_and_a_hostile_one_is_sent_away_alone() {
    let mut site = Site::running("").await;
    let mut neighbour = Agent::join(&site, NEIGHBOUR, 1).await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    agent.record(Kind::Control, br#"{"type":"levitate","height":3}"#).await;
    agent.tell(&FromAgent::LeaseReturn { id: 99 }).await;
    agent.tell(&FromAgent::IntentDone { id: "none".into(), done: None, refused: None }).await;
    assert!(lease(&mut agent, 1, "w", false).await.is_ok());
    for (what, kind, body, why) in [
        ("no JSON", Kind::Control, "{", "control message"),
        ("a number for a name", Kind::Control, r#"{"type":"lease_return","id":"x"}"#, "control message"),
        ("a frame", Kind::Frame, "x", "on the control stream"),
    ] {
        let mut agent = Agent::join(&site, NODE, 7).await;
        agent.record(kind, body.as_bytes()).await;
        let said = agent.ended().await;
        assert!(said.contains(why), "{what}: {said}");
    }
    let mut agent = Agent::join(&site, NODE, 7).await;
    for id in 1_000..1_700 {
        agent.tell(&FromAgent::LeaseReturn { id }).await;
    }
    let said = agent.ended().await;
    assert!(said.contains("more than 600 control messages"), "{said}");
    assert!(lease(&mut neighbour, 1, "w", false).await.is_err(), "the neighbour is served");
    assert!(site.lives());
}

#[tokio::test]
async fn an_intent_is_signed_written_down_carried_and_its_outcome_told() {
    let (site, token) = with_operator().await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    let (status, answer) = post(&site, &token, &wish()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let FromAggregator::Intent { intent: said, signature } = agent.heard().await else { panic!("no intent") };
    let intent = open(&said, &signature, &agent.peer()).unwrap();
    assert_eq!(Value::from(intent.id.clone()), answer["id"]);
    assert_eq!((intent.node.as_str(), intent.verb.as_str(), intent.by.as_str()), (NODE, "restart", "alice"));
    assert_eq!(intent.not_after.since(intent.issued).as_secs(), 30);
    assert!(open(&said.replace("alice", "mallory"), &signature, &agent.peer()).is_err());
    let log = || std::fs::read_to_string(site.path("store/intents.log")).unwrap();
    let first: Value = serde_json::from_str(log().lines().next().unwrap()).unwrap();
    assert_eq!((&first["outcome"], &first["intent"]["by"]), (&json!("sent"), &json!("alice")));
    assert_eq!(entry(&site, &answer["id"]).await["outcome"], "sent");
    // A neighbour's answer is not an answer.
    let done =
        |done: &str| FromAgent::IntentDone { id: intent.id.clone(), done: Some(done.into()), refused: None };
    let mut neighbour = Agent::join(&site, NEIGHBOUR, 1).await;
    neighbour.tell(&done("mine")).await;
    assert!(lease(&mut neighbour, 1, "w", false).await.is_ok(), "it was heard");
    agent.tell(&done("it is stopped")).await;
    until_so("its outcome is told", async || entry(&site, &answer["id"]).await["detail"] == "it is stopped")
        .await;
    assert_eq!(entry(&site, &answer["id"]).await["outcome"], "done");
    until_so("its outcome is on disk", async || log().lines().count() == 2).await;
    assert!(!log().contains("mine") && log().contains("it is stopped"));
    assert_eq!(site.metric("diarwatch_intents_done_total").await, 1.0);
    assert!(!site.log().contains(&token) && !log().contains(&token));
}

#[tokio::test]
async fn nobody_orders_anything_without_a_token_of_his_own_from_here() {
    let (mut site, token) = with_operator().await;
    let _agent = Agent::join(&site, NODE, 7).await;
    let url = format!("{}/api/v1/intents", site.page());
    let said = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    let with = || client().post(&url).bearer_auth(&token);
    let body = wish().to_string();
    assert_eq!(said(client().post(&url).json(&wish())).await, 401);
    assert_eq!(said(client().post(&url).bearer_auth(format!("{token}x")).json(&wish())).await, 401);
    assert_eq!(said(client().post(&url).basic_auth("alice", Some(&token)).json(&wish())).await, 401);
    assert_eq!(said(with().header("Origin", "http://evil.example").json(&wish())).await, 403);
    assert_eq!(said(with().header("Origin", "null").json(&wish())).await, 403);
    assert_eq!(said(with().header("Host", "evil.example").json(&wish())).await, 421);
    assert_eq!(said(with().header("Content-Type", "text/plain").body(body.clone())).await, 415);
    let long = json!({ "reason": "x".repeat(10_000) });
    assert_eq!(said(with().json(&long)).await, 413);
    let other = |key: &str, value: Value| {
        let mut wish = wish();
        wish[key] = value;
        wish
    };
    assert_eq!(post(&site, &token, &other("verb", json!("rm -rf /"))).await.0, 400);
    assert_eq!(post(&site, &token, &other("command", json!("reboot"))).await.0, 400);
    assert_eq!(post(&site, &token, &other("ttl_seconds", json!(3_600))).await.0, 400);
    assert_eq!(post(&site, &token, &other("node", json!("gpu-99"))).await.0, 404);
    until_so("the neighbour is known", async || {
        drop(Agent::join(&site, NEIGHBOUR, 1).await);
        post(&site, &token, &other("node", json!(NEIGHBOUR))).await.0 == 409
    })
    .await;
    assert_eq!(std::fs::read_to_string(site.path("store/intents.log")).unwrap_or_default(), "");
    assert_eq!(post(&site, &token, &wish()).await.0, 202);
    // A token that is taken away is refused at once.
    assert_eq!(operators(&site, &["remove", "alice"]).0, Some(0));
    assert_eq!(post(&site, &token, &wish()).await.0, 401);
    assert!(site.metric("diarwatch_intents_rejected_total").await >= 11.0);
    // Without a file of operators nobody orders anything; with a bad one the aggregator does not start.
    site.kill();
    site.configure("");
    site.start().await;
    let (status, answer) = post(&site, &token, &wish()).await;
    assert_eq!((status.as_u16(), answer["errorType"].as_str()), (403, Some("forbidden")));
    assert!(answer["error"].as_str().unwrap().contains("operator_token_file"), "{answer}");
}

#[tokio::test]
async fn more_intents_than_may_wait_are_refused_until_some_are_answered() {
    let (site, token) = with_operator().await;
    let mut agent = Agent::join(&site, NODE, 7).await;
    for _ in 0..64 {
        assert_eq!(post(&site, &token, &wish()).await.0, 202);
    }
    assert_eq!(post(&site, &token, &wish()).await.0, 429);
    let FromAggregator::Intent { intent, .. } = agent.heard().await else { panic!("no intent") };
    let id = serde_json::from_str::<Value>(&intent).unwrap()["id"].as_str().unwrap().to_owned();
    agent.tell(&FromAgent::IntentDone { id, done: None, refused: Some("no".into()) }).await;
    until_so("one more may come", async || post(&site, &token, &wish()).await.0 == 202).await;
}

#[test]
fn operators_are_added_listed_and_removed_and_a_token_is_said_once() {
    let mut site = Site::new("");
    let unset = operators(&site, &["add", "alice"]);
    assert_eq!(unset.0, Some(78));
    assert!(unset.2.contains("operator_token_file"), "{}", unset.2);
    let token = operator(&mut site, "alice");
    assert!(token.starts_with("diarwatch_") && token.len() == 74, "{token}");
    assert!(!std::fs::read_to_string(site.path("operators")).unwrap().contains(&token));
    assert_eq!(operators(&site, &["add", "alice"]).0, Some(4));
    assert_eq!(operators(&site, &["add", "a b"]).0, Some(64));
    assert_eq!(operators(&site, &["add", "bob"]).0, Some(0));
    assert_eq!(operators(&site, &["list"]).1, "alice\nbob\n");
    assert_eq!(operators(&site, &["remove", "carol"]).0, Some(3));
    assert_eq!(operators(&site, &["remove", "alice"]).0, Some(0));
    assert_eq!(operators(&site, &["list"]).1, "bob\n");
    site.put("operators", "bob\n");
    let config = site.config().display().to_string();
    let refused = run(&["run", "--config", &config]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(text(&refused.stderr).contains("operators:1: "), "{}", text(&refused.stderr));
}

#[tokio::test]
async fn the_agents_own_uplink_and_the_aggregator_understand_each_other() {
    let (mut site, token) = with_operator().await;
    let pki = identity(&site.path("pki"), NODE);
    let config = diarwatch_agent::config::SpoolConfig {
        directory: site.path("spool"),
        bytes_max: Bytes(1 << 30),
        generation_bytes: Bytes(1 << 20),
        generation_age: Span::secs(3_600),
    };
    let spool = Spool::open(&config, UnixMicros(1)).unwrap();
    let epoch = spool.epoch();
    let board = Board::new(NodeId::new(NODE).unwrap(), epoch, UnixMicros(1));
    board.update(|board| board.worker_told(status()));
    let (orders, mut ordered) = Orders::new();
    let (leases, wishes) = Leases::new();
    let uplink = Uplink {
        endpoints: vec![site.intake().to_string()],
        tls: pki.client().unwrap(),
        spool: spool.into_handle(),
        epoch,
        next: watch::channel(0).1,
        board: board.clone(),
        fleet: Fleet::start(wishes, orders, board.clone(), epoch),
    };
    let link = tokio::spawn(uplink::run(uplink));
    until_so("the link stands", async || board.read(|board| board.link.connected)).await;
    let wish = || Wish { worker: worker("w"), cause: Cause::Wedged, ready: false };
    let Lease::Granted { id } = leases.ask(wish()).await else { panic!("no lease") };
    let mut other = Agent::join(&site, NEIGHBOUR, 1).await;
    assert!(lease(&mut other, 1, "w", false).await.is_err());
    leases.give_back(id);
    until("the other may go", async || lease(&mut other, 2, "w", false).await.ok()).await;
    let Lease::Denied { reason, .. } = leases.ask(wish()).await else { panic!("not denied") };
    assert!(reason.contains("gpu-02/w"), "{reason}");

    let (status, answer) = post(&site, &token, &drain_wish()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let order = tokio::time::timeout(common::PATIENCE, ordered.recv()).await.unwrap().unwrap();
    assert_eq!((order.verb, order.by.as_str()), (Verb::Drain, "alice through the aggregator"));
    assert!(order.not_after > clock::now());
    order.answer.send(Ok(json!("2 jobs are left"))).unwrap();
    until_so("its outcome is told", async || {
        entry(&site, &answer["id"]).await["detail"] == "2 jobs are left"
    })
    .await;
    let (_, answer) = post(&site, &token, &json!({ "node": NODE, "worker": "x", "verb": "hold" })).await;
    until_so("its refusal is told", async || entry(&site, &answer["id"]).await["outcome"] == "refused").await;
    assert_eq!(entry(&site, &answer["id"]).await["detail"], "this node has no worker `x`");
    site.kill();
    until_so("the loss is noticed, or nobody answers", async || leases.ask(wish()).await == Lease::Alone)
        .await;
    link.abort();
}

fn drain_wish() -> Value {
    json!({ "node": NODE, "worker": "w", "verb": "drain" })
}

fn status() -> WorkerStatus {
    WorkerStatus {
        worker: worker("w"),
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
