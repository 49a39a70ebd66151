//! Sources that hang and lie, one of each kind at once, beside a good one.

use super::common::{Agent, Node};
use super::servers::{Does, Server};
use super::{of, queue, until, until_problem};

/// A good queue with three beside it whose servers all do this.
fn beside(does: &Does) -> (Node, Server, [Server; 3]) {
    let good = Server::start(Does::ok(r#"{"waiting":5}"#));
    let bad = [(); 3].map(|()| Server::start(does.clone()));
    let [postgres, redis, http] = &bad;
    let http_kind =
        |url: String| format!("[queue.http]\nurl = \"{url}\"\nformat = \"json\"\nwaiting = \"/waiting\"");
    let kinds = [
        (
            "postgres",
            format!(
                "[queue.postgres]\nconnection = \"host=127.0.0.1 port={} user=diarwatch\"\nwaiting = \"SELECT 1\"",
                postgres.port()
            ),
        ),
        ("redis", format!("[queue.redis]\nurl = \"redis://{}\"\nlist = \"jobs\"", redis.address)),
        ("http", http_kind(http.url())),
        ("good", http_kind(good.url())),
    ];
    let mut node = Node::new();
    for (name, kind) in kinds {
        node.more.push_str(&queue(name, &kind));
    }
    (node, good, bad)
}

/// All three have a problem, and the good one is looked at again and again meanwhile.
fn stay_apart(agent: &Agent, good: &Server, why: &str) {
    for name in ["postgres", "redis", "http"] {
        until_problem(agent, name, "", why);
    }
    let status = agent.status();
    let names: Vec<_> = status["queues"].as_array().unwrap().iter().map(|queue| &queue["queue"]).collect();
    assert_eq!(names, ["postgres", "redis", "http", "good"], "in the order of the configuration");
    let before = good.accepted();
    agent.until("the good one is looked at twenty times more", |status| {
        for name in ["postgres", "redis", "http"] {
            assert!(of(status, name)["problem"].is_string(), "{status:#}");
        }
        assert!(of(status, "good")["problem"].is_null(), "{status:#}");
        (good.accepted() >= before + 20).then_some(())
    });
}

/// The most memory that the agent ever had, in bytes.
fn peak_bytes(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn servers_that_accept_and_never_answer_delay_no_other() {
    let (node, good, _bad) = beside(&Does::Nothing);
    let agent = node.run();
    stay_apart(&agent, &good, "timeout");
    for name in ["postgres", "redis", "http"] {
        until_problem(&agent, name, "no whole answer within 1s", "timeout");
    }
}

#[test]
fn servers_that_close_at_once_delay_no_other() {
    let (node, good, _bad) = beside(&Does::Sends(Vec::new()));
    let agent = node.run();
    stay_apart(&agent, &good, "failed");
}

#[test]
fn servers_that_speak_another_protocol_delay_no_other() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
        b"\x00\xff\xfe\x80R\x00\x00\x00\x01",
        b"*-7\r\n$-9\r\n+OK\r\n",
    ] {
        let (node, good, _bad) = beside(&Does::Sends(garbage.to_vec()));
        let agent = node.run();
        stay_apart(&agent, &good, "failed");
    }
}

#[test]
fn servers_that_claim_or_send_without_end_take_no_memory() {
    // Lengths of gigabytes: a message of PostgreSQL, and an array and a text of Redis.
    let claims = [&b"E\xff\xff\xff\xff"[..], b"*2147483647\r\n", b"$2147483647\r\n", b"H"];
    for claim in claims {
        let mut flood = claim.to_vec();
        flood.extend(std::iter::repeat_n(b'x', 1 << 16));
        let (node, good, _bad) = beside(&Does::Floods(flood));
        let agent = node.run();
        stay_apart(&agent, &good, "failed");
        assert!(peak_bytes(&agent) < 256 << 20, "{} bytes at {claim:?}", peak_bytes(&agent));
    }
}

#[test]
fn a_server_that_comes_to_its_senses_is_believed_again() {
    let (node, _good, [_, _, http]) = beside(&Does::Nothing);
    let agent = node.run();
    until_problem(&agent, "http", "no whole answer", "timeout");
    http.now(Does::ok(r#"{"waiting":1}"#));
    until(&agent, "http", "it answers", |queue| queue["waiting"] == 1.0 && queue["problem"].is_null());
}
