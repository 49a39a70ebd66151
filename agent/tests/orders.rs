//! What people want of a worker, and why it is as it is, typed at a real agent with a real worker under it:
//! the stand-in `pyannote`, which this program becomes when the agent starts it so. Its jobs are read from
//! what it writes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of a test"
)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::Parser;
use common::tmux::Terminal;
use common::{Agent, Node, diarwatch_command, until};
use diarwatch_standins::worker;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

/// The words of the stand-in, when this program is one.
const WORDS: &str = "STANDIN_WORDS";
/// The queue of the worker's jobs, as it writes them.
const QUEUE: &str = r"[[queue]]
name = 'diarization'
interval = '100ms'
timeout = '1s'
[queue.log]
file = '{jobs}'
accepted = 'job (?<id>\S+) accepted'
started = 'job (?<id>\S+) started'
finished = 'job (?<id>\S+) done'
failed = 'job (?<id>\S+) failed'
";

#[derive(Parser)]
struct StandIn {
    #[command(flatten)]
    worker: worker::Args,
}

#[test]
#[ignore = "the agents of the other tests start it as their worker"]
fn the_worker() {
    let words = std::env::var(WORDS).unwrap();
    let args = StandIn::parse_from(["pyannote"].into_iter().chain(words.split(' '))).worker;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(worker::run(worker::Kind::Pyannote, args)).unwrap();
}

/// An agent with one worker.
struct Place {
    node: Node,
    agent: Agent,
    /// Where the worker listens.
    address: String,
}

impl Place {
    /// `words` are those of the stand-in, `more` are further keys of its `[[worker]]`, `top` stands in `[socket]`.
    fn start(words: &str, more: &str, top: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let mut node = Node::new();
        let (jobs, program) = (node.path("jobs.log"), std::env::current_exe().unwrap());
        std::fs::write(&jobs, "").unwrap();
        let jobs = jobs.display().to_string();
        let shell =
            format!("exec {:?} --exact the_worker --ignored --nocapture >> {jobs:?}", program.display());
        let gpu = std::mem::take(&mut node.more);
        node.more = format!(
            "{top}\n{gpu}{}\n[[worker]]\nname = \"pyannote-1\"\nservice = \"話者分離 #1\"\ndriver = \"child\"\n\
             queue = \"diarization\"\ncommand = [\"/bin/sh\", \"-c\", {shell:?}]\n\
             environment = {{ {WORDS} = \"--listen {address} {words}\" }}\nproof = {{ readiness = 1 }}\n{more}\n\
             readiness = {{ url = \"http://{address}/ready\", interval = \"100ms\", json_pointer = \"/status\", equals = \"ready\" }}\n",
            QUEUE.replace("{jobs}", &jobs),
        );
        let agent = node.run();
        Self { node, agent, address }
    }

    /// The same, once the worker is ready and its jobs are known.
    fn ready(words: &str, more: &str, top: &str) -> Self {
        let place = Self::start(words, more, top);
        place
            .agent
            .until("the worker is ready", |status| (status["workers"][0]["ready"] == true).then_some(()));
        until("its jobs are known", || place.why()["why"]["jobs_under_way"].as_u64());
        place
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = diarwatch_command();
        command.env("DIARWATCH_SOCKET", &self.node.socket).env("DIARWATCH_LANG", "en");
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", text(&output), talk(&output));
        (text(&output), talk(&output))
    }

    #[track_caller]
    fn document(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ends(0, arguments).0).unwrap()
    }

    #[track_caller]
    fn why(&self) -> Value {
        self.document(&["why", "pyannote-1", "--json"])
    }

    fn worker(&self) -> Value {
        self.agent.status()["workers"][0].clone()
    }

    fn pid(&self) -> u32 {
        u32::try_from(self.worker()["pid"].as_u64().unwrap()).unwrap()
    }

    #[track_caller]
    fn phase(&self, phase: &str) {
        until(&format!("the worker is {phase}"), || (self.why()["why"]["phase"] == phase).then_some(()));
    }

    /// A job of a minute at the speed of real time, which the worker works on.
    fn job(&self, id: &str) {
        let body = json!({ "id": id, "audio_seconds": 60 }).to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /diarize HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}",
            body.len()
        );
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let document = self.document(&["worker", "history", "pyannote-1", "--json"]);
        let events = document["events"].as_array().unwrap().iter();
        events.filter(|event| event["event"] == kind).cloned().collect()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn talk(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Holds a document against the shipped schema of its kind.
#[track_caller]
fn hold(document: &Value) {
    let kind = document["kind"].as_str().unwrap();
    let schema = diarwatch_command().args(["schema", kind]).output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<String> = validator.iter_errors(document).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}\n{document:#}");
}

#[test]
fn a_restart_that_would_cost_jobs_is_not_done_without_a_yes_and_then_tells_what_was_lost() {
    let place = Place::ready("--load 100ms --job-speed 1", "", "");
    for id in ["a", "b"] {
        place.job(id);
    }
    until("the jobs are seen", || (place.why()["why"]["jobs_under_way"] == 2).then_some(()));
    let before = place.pid();
    let (said, talk) = place.ends(64, &["worker", "restart", "pyannote-1"]);
    assert_eq!(said, "");
    assert!(talk.contains("2 jobs accepted or running would be waited for up to 30m"), "{talk}");
    assert!(
        talk.contains("with --now they are lost")
            && talk.contains("try: diarwatch worker restart pyannote-1 --yes"),
        "{talk}"
    );
    let (_, talk) = place.ends(64, &["worker", "restart", "pyannote-1", "--now", "--lang", "ja"]);
    assert!(talk.contains("2 件のジョブは失われます"), "{talk}");
    assert_eq!(place.pid(), before, "nothing was done");

    let now = [
        "worker",
        "restart",
        "pyannote-1",
        "--now",
        "--yes",
        "--reason",
        "new model",
        "--wait",
        "--timeout",
        "40s",
        "--json",
    ];
    let document = place.document(&now);
    hold(&document);
    assert_eq!((&document["jobs_under_way"], &document["ready"]), (&json!(2), &json!(true)));
    assert_eq!(document["done"], "it is stopped and started again");
    assert_ne!(place.pid(), before);
    let order = &place.events("worker_order")[0]["detail"];
    assert_eq!((&order["verb"], &order["reason"]), (&json!("restart"), &json!("new model")));
    let (said, _) = place.ends(0, &["worker", "history", "pyannote-1", "--lang", "ja"]);
    assert!(said.contains("オペレーターの指示") && said.contains("new model"), "{said}");
}

#[test]
fn on_a_terminal_a_person_is_asked_and_only_a_yes_restarts() {
    let Some(terminal) = Terminal::open() else { return };
    let place = Place::ready("--load 100ms --job-speed 1", "", "");
    place.job("a");
    until("the job is seen", || (place.why()["why"]["jobs_under_way"] == 1).then_some(()));
    let before = place.pid();
    let (program, socket) = (env!("CARGO_BIN_EXE_diarwatch"), place.node.socket.display());
    let line = format!(
        "clear; {program} worker restart pyannote-1 --now --lang en --socket {socket}; echo ended $?"
    );
    terminal.types(&line);
    let asked = terminal.sees("the question", |screen| screen.contains("restart pyannote-1? [y/N]"));
    assert!(asked.contains("--now: 1 jobs accepted or running are lost"), "{asked}");
    terminal.press("Enter");
    terminal.sees("its end", |screen| screen.contains("was not restarted") && screen.contains("ended 4"));
    assert_eq!(place.pid(), before);
    terminal.types(&line);
    terminal.sees("the question", |screen| screen.contains("[y/N]"));
    terminal.types("y");
    terminal
        .sees("its end", |screen| screen.contains("stopped and started again") && screen.contains("ended 0"));
    until("another process is ready", || {
        let worker = place.worker();
        (worker["phase"] == "ready" && worker["pid"] != before).then_some(())
    });
}

#[test]
fn a_restart_waits_for_jobs_and_another_with_now_does_not() {
    let place = Place::ready("--load 100ms --job-speed 1", "", "");
    place.job("a");
    until("the job is seen", || (place.why()["why"]["jobs_under_way"] == 1).then_some(()));
    let before = place.pid();
    let (said, _) = place.ends(0, &["worker", "restart", "pyannote-1", "-y"]);
    assert!(
        said.contains("pyannote-1: it is stopped and started again (Jobs: 1 accepted or running)"),
        "{said}"
    );
    place.phase("stopping");
    let (said, _) = place.ends(0, &["why", "pyannote-1"]);
    assert!(said.contains("is being stopped") && said.contains("its jobs are waited for"), "{said}");
    assert!(place.ends(0, &["worker"]).0.contains(" Stopping "));
    // It waits, so another order without --now costs nothing more and is not asked about.
    assert!(place.ends(0, &["worker", "restart", "pyannote-1"]).0.contains("stopped already"));
    assert_eq!(place.pid(), before);
    place.ends(0, &["worker", "restart", "pyannote-1", "--now", "--yes", "--wait", "--timeout", "40s"]);
    assert_ne!(place.pid(), before);
}

#[test]
fn a_worker_without_jobs_is_restarted_without_a_question() {
    let place = Place::ready("--load 100ms", "", "");
    let before = place.pid();
    let (said, talk) = place.ends(0, &["worker", "restart", "pyannote-1", "--wait", "--timeout", "40s"]);
    assert!(said.contains("● ready again after") && talk.contains("pyannote-1: "), "{said}{talk}");
    assert_ne!(place.pid(), before);
}

#[test]
fn a_wait_that_is_too_long_ends_and_says_where_the_worker_is() {
    let place = Place::ready("--load 100ms", "", "");
    kill_process(common::pid_of(place.pid()), Signal::STOP).unwrap();
    // A stopped process takes no SIGTERM: the restart stands at its grace.
    let arguments = ["worker", "restart", "pyannote-1", "--wait", "--timeout", "500ms"];
    let (_, talk) = place.ends(75, &arguments);
    assert!(talk.contains("was not ready within 0.5s: Stopping"), "{talk}");
    assert!(talk.contains("try: diarwatch why pyannote-1"), "{talk}");
}

#[test]
fn a_held_worker_is_left_alone_by_all_until_it_is_released() {
    let place = Place::ready("--load 100ms", "", "");
    let document = place.document(&["worker", "hold", "pyannote-1", "--reason", "debugging", "--json"]);
    hold(&document);
    assert_eq!((&document["verb"], &document["done"]), (&json!("hold"), &json!("held")));
    let (_, talk) = place.ends(4, &["worker", "restart", "pyannote-1"]);
    assert!(talk.contains("holds it; release it first") && talk.contains("try: diarwatch why"), "{talk}");
    until("the status says who holds it", || place.worker()["held_by"].as_str().map(drop));
    assert!(place.ends(0, &["status"]).0.contains("the agent touches it no more"));
    assert!(place.ends(0, &["why", "pyannote-1", "--lang", "ja"]).0.contains("による"));
    assert!(place.ends(0, &["worker"]).0.contains("● Ready · held"));

    kill_process(common::pid_of(place.pid()), Signal::KILL).unwrap();
    place.phase("left_alone");
    let (said, _) = place.ends(0, &["why", "pyannote-1"]);
    assert!(said.contains("does not run, and the agent leaves it so"), "{said}");
    until("the status says so", || {
        place.ends(0, &["status"]).0.contains("is left alone: it is held").then_some(())
    });
    let exit = &place.events("worker_exited")[0];
    assert_eq!(exit["detail"]["attempt"], 0);
    assert!(place.ends(0, &["worker", "history"]).0.contains("not started again"));

    assert!(
        place.ends(0, &["worker", "release", "pyannote-1", "--lang", "ja"]).0.contains("保留を解除しました")
    );
    place.phase("ready");
    assert_eq!(place.worker()["held_by"], Value::Null);
}

#[test]
fn an_explanation_follows_the_worker_from_its_start_to_its_end_in_both_languages() {
    let place = Place::start("--load 3s", "backoff_base = \"2m\"", "");
    let starting = until("it starts", || {
        let output = place.run(&["why", "pyannote-1", "--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).ok()?;
        (document["why"]["phase"] == "starting" && document["why"]["pid"].is_u64()).then_some(document)
    });
    hold(&starting);
    assert!(starting["why"]["starting_ms"].is_u64());
    let (said, _) = place.ends(0, &["why", "pyannote-1"]);
    assert!(
        said.contains("話者分離 #1 (pyannote-1) is starting") && said.contains("so far · ended after"),
        "{said}"
    );
    let (said, _) = place.ends(0, &["worker", "why", "pyannote-1", "--lang", "ja"]);
    assert!(said.contains("は起動中です") && said.contains("起動の期限"), "{said}");

    place.phase("ready");
    let ready = place.why();
    hold(&ready);
    assert_eq!(ready["why"]["proof"], "done");
    let (said, _) = place.ends(0, &["why", "pyannote-1"]);
    assert!(said.contains("● 話者分離 #1 (pyannote-1) takes jobs") && said.contains("it is ready"), "{said}");

    kill_process(common::pid_of(place.pid()), Signal::KILL).unwrap();
    place.phase("waiting");
    let waiting = place.why();
    hold(&waiting);
    assert!(waiting["why"]["next_start_in_ms"].as_u64().unwrap() > 30_000);
    let (said, _) = place.ends(0, &["why", "pyannote-1"]);
    for words in
        ["has ended and waits for its next start", "signal 9 (SIGKILL)", "Next start", "The last decisions"]
    {
        assert!(said.contains(words), "{words}:\n{said}");
    }
    let (said, _) = place.ends(0, &["why", "pyannote-1", "--lang", "ja"]);
    assert!(said.contains("次の起動を待っています") && said.contains("再起動の枠"), "{said}");
    // A person is not bound by the wait, and a dead worker has nothing to lose.
    place.ends(0, &["worker", "restart", "pyannote-1", "--wait", "--timeout", "40s"]);
}

#[test]
fn a_history_says_how_much_was_kept_of_an_end_and_shows_it_when_it_is_asked_to() {
    let place = Place::ready("--load 100ms", "", "");
    kill_process(common::pid_of(place.pid()), Signal::KILL).unwrap();
    until("the evidence is there", || (!place.events("worker_evidence").is_empty()).then_some(()));
    let evidence = &place.events("worker_evidence")[0]["detail"];
    assert_eq!(evidence["bundle"]["exit"]["signal"], 9, "as a document it is whole: {evidence:#}");
    let (short, _) = place.ends(0, &["worker", "history", "pyannote-1"]);
    assert!(short.contains("signal 9 (SIGKILL)") && short.contains("lines of output"), "{short}");
    assert!(!short.contains("\"probes\""), "{short}");
    let (whole, _) = place.ends(0, &["worker", "history", "pyannote-1", "--evidence", "--lang", "ja"]);
    assert!(whole.contains("終了の記録 pyannote-1") && whole.contains("\"probes\""), "{whole}");
}

#[test]
fn what_is_not_there_or_not_configured_is_refused_with_an_exit_of_its_own() {
    let place = Place::ready("--load 100ms", "", "");
    let (_, talk) = place.ends(4, &["worker", "drain", "pyannote-1"]);
    assert!(talk.contains("write [worker.stop] take_out"), "{talk}");
    for (arguments, meant) in [
        (&["why", "pyannote-2"][..], "diarwatch why pyannote-1"),
        (&["worker", "hold", "pyannote-2"], "diarwatch worker hold pyannote-1"),
        (&["worker", "restart", "pyannote-2", "--yes"], "diarwatch worker restart pyannote-1"),
    ] {
        let (_, talk) = place.ends(3, arguments);
        assert!(talk.contains(&format!("try: {meant}\n")), "{arguments:?}: {talk}");
    }
    place.ends(64, &["worker", "hold", "pyannote-1", "--reason", &"x".repeat(600)]);
    let socket = place.node.path("nobody.sock").display().to_string();
    place.ends(69, &["worker", "hold", "pyannote-1", "--socket", &socket]);
    place.ends(69, &["why", "pyannote-1", "--socket", &socket]);
}

#[test]
fn a_worker_is_drained_by_its_hook_and_put_back() {
    let hooks =
        "stop = { take_out = { command = [\"/bin/true\"] }, put_back = { command = [\"/bin/true\"] } }";
    let place = Place::ready("--load 100ms", hooks, "");
    assert!(place.ends(0, &["worker", "drain", "pyannote-1"]).0.contains("no new jobs come to it"));
    until("the status says who drained it", || place.worker()["drained_by"].as_str().map(drop));
    assert!(place.ends(0, &["worker", "--lang", "ja"]).0.contains("● 稼働中 · 切り離し中"));
    place.ends(0, &["worker", "resume", "pyannote-1"]);
    until("it is back", || place.worker()["drained_by"].is_null().then_some(()));
}

/// Runs the command as nobody, with the group of the socket.
fn as_nobody(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--groups=4242"]).arg(program).args(arguments);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn whoever_may_connect_may_ask_and_only_named_people_may_give_orders() {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: this needs root and setpriv (util-linux) to become somebody else");
        return;
    }
    let answers = |operators: &str| {
        let place = Place::ready("--load 100ms", "", operators);
        std::fs::set_permissions(place.node.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = place.node.path("diarwatch");
        std::fs::copy(env!("CARGO_BIN_EXE_diarwatch"), &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        chown(&place.node.socket, None, Some(4_242)).unwrap();
        let socket = place.node.socket.display().to_string();
        let why = as_nobody(&program, &["why", "pyannote-1", "--socket", &socket]);
        (why, as_nobody(&program, &["worker", "hold", "pyannote-1", "--socket", &socket]))
    };
    let (why, hold) = answers("");
    assert_eq!(why.status.code(), Some(0), "{}", talk(&why));
    assert_eq!((hold.status.code(), text(&hold).as_str()), (Some(77), ""), "{}", talk(&hold));
    assert!(talk(&hold).contains("may not give orders; use sudo, or name"), "{}", talk(&hold));
    assert!(talk(&hold).contains("try: sudo diarwatch worker hold pyannote-1"), "{}", talk(&hold));
    let (_, hold) = answers("operators = [\"65534\"]");
    assert_eq!(hold.status.code(), Some(0), "{}", talk(&hold));
}
