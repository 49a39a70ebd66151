//! Supervision by a real agent: a worker's jobs when it ends, the evidence, the proof of its recovery, and a
//! person's orders. Workers are shells that do what a test tells them; their readiness is served by the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test"
)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Kept, Node, until};
use diarwatch_shared::event::{Cause, What};
use serde_json::{Value, json};

/// What a worker answers; made-up jobs fail while `refused` is above zero.
struct Worker {
    port: u16,
    posted: Arc<AtomicU32>,
}

fn worker(refused: u32) -> Worker {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let posted = Arc::new(AtomicU32::new(0));
    let (count, mut left) = (Arc::clone(&posted), refused);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &count, &mut left);
        }
    });
    Worker { port, posted }
}

fn answer(mut stream: TcpStream, posted: &AtomicU32, refused: &mut u32) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    std::io::copy(&mut (&mut stream).take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
    let mut status = "200 OK";
    if head.starts_with("post") {
        posted.fetch_add(1, Ordering::Relaxed);
        if *refused > 0 {
            *refused -= 1;
            status = "500 Internal Server Error";
        }
    }
    let body = r#"{"status":"ready"}"#;
    let text =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes());
}

fn shell(script: &str, port: u16, more: &str) -> String {
    format!(
        "[[worker]]\nname = \"pyannote-1\"\ndriver = \"child\"\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n\
         backoff_base = \"100ms\"\nstop_grace = \"1s\"\n{more}\n\
         [worker.readiness]\nurl = \"http://127.0.0.1:{port}/ready\"\ninterval = \"100ms\"\ncontains = \"ready\"\n"
    )
}

fn phase(status: &Value) -> &str {
    status["workers"][0]["phase"].as_str().unwrap_or_default()
}

/// One question to the agent's socket.
fn ask(node: &Node, question: &Value) -> Value {
    let mut stream = UnixStream::connect(&node.socket).unwrap();
    stream.write_all(format!("{question}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one life of a job, from its begin to its end")]
fn a_job_is_given_back_once_and_set_aside_when_it_ended_a_second_worker() {
    let mut node = Node::new();
    let path = |name: &str| node.path(name).display().to_string();
    let script = format!(
        "echo boot >> {log}; echo job j-7 accepted >> {log}; echo job j-7 started >> {log}; \
         echo loading hf_abcdefghijklmnopqrstuvwxyz0123456789 from https://u:geheim@models.example/x; \
         while [ ! -e {go}.$(wc -l < {runs}) ]; do sleep 0.05; done; kill -9 $$",
        log = path("log"),
        go = path("go"),
        runs = path("runs"),
    );
    let script = format!("echo run >> {}; {script}", path("runs"));
    let hook = |name: &str| {
        format!(
            "{{ command = [\"/bin/sh\", \"-c\", \"echo {name} $1 >> {}\", \"x\", \"{{job}}\"] }}",
            path("hooks")
        )
    };
    let jobs = format!(
        "queue = \"diarize\"\njobs = {{ resubmit = {}, set_aside = {} }}\n",
        hook("again"),
        hook("aside")
    );
    let queue = format!(
        "[[queue]]\nname = \"diarize\"\ninterval = \"100ms\"\n[queue.log]\nfile = \"{}\"\n\
         accepted = 'job (?<id>\\S+) accepted'\nstarted = 'job (?<id>\\S+) started'\n\
         finished = 'job (?<id>\\S+) done'\nrestart = 'boot'\n",
        path("log")
    );
    let (go, hooks) = (node.path("go"), node.path("hooks"));
    node.more.push_str(&queue);
    node.more.push_str(&shell(&script, worker(0).port, &jobs));
    std::fs::write(node.path("log"), "").unwrap();
    let agent = node.run();
    for round in 1..=2 {
        agent.until("the job is worked on", |status| {
            (phase(status) == "ready" && status["queues"][0]["processing"] == 1.0).then_some(())
        });
        std::fs::write(format!("{}.{round}", go.display()), "").unwrap();
        let lines = until("the hook has run", || {
            let text = std::fs::read_to_string(&hooks).unwrap_or_default();
            (text.lines().count() == round).then_some(text)
        });
        let expected = if round == 1 { "again j-7\n" } else { "again j-7\naside j-7\n" };
        assert_eq!(lines, expected);
    }
    agent.until("it is back", |status| (phase(status) == "ready").then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    agent.stop();
    let events = Kept::of(&node).events();
    let lost: Vec<_> = events
        .iter()
        .filter_map(|what| match what {
            What::WorkerJobsLost { jobs, count, resubmitted, .. } => {
                Some((jobs.clone(), *count, *resubmitted))
            }
            _ => None,
        })
        .collect();
    assert_eq!(lost[..2], [(vec!["j-7".into()], 1, 1), (vec!["j-7".into()], 1, 0)]);
    let aside = events.iter().any(|what| {
        matches!(what, What::WorkerJobSetAside { job, kills: 2, outcome, .. } if job == "j-7" && outcome == "set aside")
    });
    assert!(aside, "{events:#?}");
    let bundle = events.iter().find_map(|what| match what {
        What::WorkerEvidence { bundle, restart: 1, .. } => Some(bundle),
        _ => None,
    });
    let bundle = bundle.expect("evidence of the first end");
    assert_eq!((&bundle["cause"], &bundle["exit"]["signal"]), (&json!("exited"), &json!(9)));
    let text = bundle.to_string();
    assert!(text.contains("loading") && text.contains("j-7"), "{text}");
    assert!(!text.contains("geheim") && !text.contains("hf_abcdef"), "{text}");
}

#[test]
fn a_made_up_job_that_fails_is_a_start_that_failed_and_the_next_one_proves_the_worker() {
    let mut node = Node::new();
    let worker = worker(1);
    let proof = format!(
        "proof = {{ job_url = \"http://127.0.0.1:{}/diarize?wait=1\", readiness = 2 }}\n",
        worker.port
    );
    node.more.push_str(&shell("exec sleep 1000", worker.port, &proof));
    let agent = node.run();
    agent.until("the second start is proved", |status| (phase(status) == "ready").then_some(()));
    assert_eq!(worker.posted.load(Ordering::Relaxed), 2);
    agent.stop();
    let events = Kept::of(&node).events();
    let stopped =
        events.iter().any(|what| matches!(what, What::WorkerStopping { cause: Cause::ProofFailed, .. }));
    assert!(stopped, "{events:#?}");
}

#[test]
fn a_person_restarts_holds_and_asks_why_and_a_stranger_is_refused() {
    let mut node = Node::new();
    let hooks = node.path("hooks");
    let hook =
        |name: &str| format!("{{ command = [\"/bin/sh\", \"-c\", \"echo {name} >> {}\"] }}", hooks.display());
    let stop = format!("stop = {{ take_out = {}, put_back = {} }}\n", hook("out"), hook("in"));
    node.more.push_str(&shell("exec sleep 1000", worker(0).port, &stop));
    let agent = node.run();
    let pid = agent.until("it is ready", |status| {
        (phase(status) == "ready").then(|| status["workers"][0]["pid"].as_u64()).flatten()
    });
    let order = |verb: &str| {
        ask(&node, &json!({ "ask": "order", "worker": "pyannote-1", "verb": verb, "reason": "new\nmodel" }))
    };
    assert_eq!(order("hold")["done"], "held");
    let refused = order("restart");
    assert!(refused["problem"].as_str().unwrap().contains("holds it; release it first"), "{refused}");
    assert_eq!(order("release")["done"], "released");
    assert_eq!(order("restart")["done"], "it is stopped and started again");
    agent.until("it is another process and ready", |status| {
        let worker = &status["workers"][0];
        (worker["phase"] == "ready" && worker["pid"].as_u64() != Some(pid)).then_some(())
    });
    until("it is back in its balancer", || {
        (std::fs::read_to_string(&hooks).unwrap_or_default() == "out\nin\n").then_some(())
    });
    let why = ask(&node, &json!({ "ask": "why", "worker": "pyannote-1" }));
    let decisions = why["why"]["decisions"].to_string();
    assert!(decisions.contains("wants it: new model"), "{why:#}");
    let unknown = ask(&node, &json!({ "ask": "order", "worker": "pyanote-1", "verb": "restart" }));
    assert!(unknown["problem"].as_str().unwrap().contains("there are: pyannote-1"), "{unknown}");
    let strange = ask(&node, &json!({ "ask": "order", "worker": "pyannote-1", "verb": "rm -rf /" }));
    assert!(strange["problem"].as_str().unwrap().contains("not understood"), "{strange}");
    agent.stop();
    let events = Kept::of(&node).events();
    let orders = events.iter().filter(|what| matches!(what, What::WorkerOrder { .. })).count();
    assert_eq!(orders, 4, "every order is an event: {events:#?}");
    let budget = events.iter().any(|what| matches!(what, What::WorkerExited { attempt: 2.., .. }));
    assert!(!budget, "a person's restart costs nothing of the budget");
}
