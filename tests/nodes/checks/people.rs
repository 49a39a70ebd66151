//! What people do: they stop and start units by hand, give orders over the agent's socket, and keep the
//! agent's rights small.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::same;
use crate::asked::LIMIT;
use crate::lab::{LAB_ADDRESS, Lab};
use crate::node::{Node, Tree};
use crate::site::Site;
use crate::worker::{Worker, post};

/// Callbacks that wait to be looked at.
const CALLS_MAX: usize = 16;
/// Asks the agent as whoever runs it; for people without the lab's root.
const ASK: &str = r#"import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect("/run/diarwatch/agent.sock")
s.sendall(sys.argv[1].encode() + b"\n")
print(s.makefile().read())
"#;

pub(super) fn a_unit_stopped_by_hand_is_left_alone_and_adopted_when_it_is_started(
    lab: &Lab,
) -> Result<(), String> {
    Site::with(lab, "hand", &[Worker::new("w", 8001)], |site| {
        let before = site.agent.phase("w", "ready")?;
        site.node.sh("systemctl stop w")?;
        site.agent.phase("w", "left_alone")?;
        let exited = site.agent.nth("w", "worker_exited", 1)?;
        same("no restart is announced", &exited["attempt"], &json!(0))?;
        // Another agent leaves it alone as well.
        site.agent_dies()?;
        site.agent.phase("w", "left_alone")?;
        same("its process", site.main("w").as_str(), "0")?;
        site.node.sh("systemctl start w")?;
        let now = site.agent.another("w", before)?;
        same("the unit's process", &site.main("w"), &now.to_string())?;
        // From now on it is looked after again.
        site.kill("w.service")?;
        site.agent.another("w", now)?;
        let now = site.agent.phase("w", "ready")?;
        site.node.sh("systemctl restart w")?;
        site.agent.another("w", now)?;
        same("restarts by systemd", site.node.show("w.service", "NRestarts").as_str(), "0")
    })
}

pub(super) fn an_agent_without_root_restarts_exactly_the_units_that_polkit_names(
    lab: &Lab,
) -> Result<(), String> {
    let workers = [Worker::new("named", 8001), Worker::new("other", 8002)];
    let site = Site::set_up(lab, "rights", Tree::Unified, &workers, &workers[..1])?;
    let check = || {
        site.node.sh("systemctl start other")?;
        let before = ["named", "other"].map(|name| site.agent.phase(name, "ready").unwrap_or_default());
        site.kill("named.service")?;
        // systemd's own floor would start it in a minute.
        site.node.sh("mkdir -p /run/systemd/system/other.service.d; \
                      printf '[Service]\\nRestart=no\\n' >/run/systemd/system/other.service.d/no.conf; \
                      systemctl daemon-reload")?;
        site.kill("other.service")?;
        site.agent.another("named", before[0])?;
        site.agent.wait("other", "the refusal is told with what mends it", |agent| {
            let exits = agent.events("other", "worker_exited");
            exits.iter().any(|event| {
                let reason = event["reason"].as_str().unwrap_or_default();
                reason.contains("name other.service in 50-diarwatch.rules")
            })
        })?;
        same("the unit that is not named", site.main("other").as_str(), "0")?;
        let refused = ["start other", "stop dbus", "restart systemd-journald", "kill other", "daemon-reload"];
        for words in refused {
            let line = format!("systemctl --no-ask-password {words}");
            let said = site.node.exec_as("diarwatch", &["sh", "-c", &line]);
            same(&format!("{words} as the agent's user: {}", said.err.trim()), &(said.code == 0), &false)?;
        }
        Ok(())
    };
    check().map_err(|error: String| site.told(&error))
}

fn ask_as(node: &Node, user: &str, verb: &str) -> Result<Value, String> {
    let question = json!({ "ask": "order", "worker": "w", "verb": verb }).to_string();
    let said = node.exec_as(user, &["python3", "-c", ASK, &question]).ok()?;
    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
}

pub(super) fn orders_of_root_are_obeyed_and_those_of_a_stranger_refused(lab: &Lab) -> Result<(), String> {
    Site::with(lab, "orders", &[Worker::new("w", 8001)], |site| {
        let before = site.agent.phase("w", "ready")?;
        site.node.sh("useradd --system --groups diarwatch guest; useradd --system stranger")?;
        let refused = ask_as(&site.node, "guest", "restart")?;
        let problem = refused["problem"].as_str().unwrap_or_default();
        same(&format!("a guest is told why: {problem}"), &problem.contains("may not give orders"), &true)?;
        let stranger = ask_as(&site.node, "stranger", "restart").err().unwrap_or_default();
        same(&format!("a stranger: {stranger}"), &stranger.contains("Permission denied"), &true)?;
        same("its process", &site.main("w"), &before.to_string())?;

        site.agent.order("w", "restart")?;
        let now = site.agent.another("w", before)?;
        let stopping = site.agent.nth("w", "worker_stopping", 1)?;
        same("why", &stopping["cause"], &json!("operator"))?;
        same("the budget", &site.agent.why("w")["restarts_in_window"], &json!(0))?;

        site.agent.order("w", "hold")?;
        site.agent.wait("w", "who holds it", |agent| agent.why("w")["held_by"] == "root (uid 0)")?;
        site.kill("w.service")?;
        site.agent.phase("w", "left_alone")?;
        let refused = site.agent.order("w", "restart").err().unwrap_or_default();
        same(&format!("a restart while held: {refused}"), &refused.contains("release it first"), &true)?;
        // A hold outlives the agent.
        site.agent_dies()?;
        site.agent.phase("w", "left_alone")?;
        same("its process", site.main("w").as_str(), "0")?;
        site.agent.order("w", "release")?;
        site.agent.another("w", now)?;
        let orders = site.agent.events("w", "worker_order");
        let verbs: Vec<_> = orders.iter().filter(|order| order["refused"].is_null()).map(verb).collect();
        same("the orders that are told", &verbs[..], &["restart", "hold", "release"])
    })
}

fn verb(order: &Value) -> &str {
    order["verb"].as_str().unwrap_or_default()
}

pub(super) fn a_restart_lets_a_server_end_its_accepted_jobs_and_send_their_callbacks(
    lab: &Lab,
) -> Result<(), String> {
    let mut server = Worker::new("w", 8001).with("--job-speed 10");
    server.kind = "pyannote-server";
    Site::with(lab, "grace", &[server], |site| {
        let before = site.agent.phase("w", "ready")?;
        let door = TcpListener::bind((LAB_ADDRESS, 0)).map_err(|error| error.to_string())?;
        let callback = format!("http://{}/", door.local_addr().map_err(|error| error.to_string())?);
        let (sender, calls) = mpsc::sync_channel(CALLS_MAX);
        std::thread::spawn(move || door.incoming().flatten().for_each(|call| answer(call, &sender)));
        let jobs = ["one", "two", "three"];
        for id in jobs {
            let job = json!({ "id": id, "audio_seconds": 10, "callback": callback });
            let answer = post(site.node.address.into(), 8001, "/diarize", &job)?;
            same(&format!("{id} is accepted: {answer}"), &answer.starts_with("HTTP/1.1 202"), &true)?;
        }
        site.agent.order("w", "restart")?;
        let mut told: Vec<String> = Vec::new();
        while told.len() < jobs.len() {
            let call = calls.recv_timeout(LIMIT).map_err(|error| {
                let (why, journal) = (site.agent.why("w"), site.node.journal("w"));
                format!("{error}; told so far: {told:?}\nwhy: {why}\n{journal}")
            });
            told.push(call?);
        }
        for id in jobs {
            let done = told.iter().any(|call| {
                call.contains(&format!("\"job_id\":\"{id}\"")) && call.contains("\"status\":\"done\"")
            });
            same(&format!("the callback of {id} in {told:?}"), &done, &true)?;
        }
        site.agent.another("w", before)?;
        let exited = site.agent.nth("w", "worker_exited", 1)?;
        same("how it ended", &exited["reason"], &json!("exit code 0"))
    })
}

/// Takes a callback.
fn answer(mut call: std::net::TcpStream, told: &mpsc::SyncSender<String>) {
    drop(call.set_read_timeout(Some(Duration::from_secs(20))));
    let mut text = Vec::new();
    let mut part = [0; 4096];
    // Its body is one JSON object, the last thing of the request.
    while !text.ends_with(b"}") {
        match call.read(&mut part) {
            Ok(count) if count > 0 => text.extend(&part[..count]),
            _ => return,
        }
    }
    drop(call.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
    drop(told.send(String::from_utf8_lossy(&text).into_owned()));
}
