//! Every command of `diarwatch` against a running agent: the same things in every form, documents that fit
//! their schemas, what is refused, what a reader that leaves and an unprivileged person see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of a test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::operator::World;
use common::{Node, diarwatch, diarwatch_command, until};
use serde_json::{Value, json};

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn talk(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Columns that a terminal needs for a line.
fn columns(line: &str) -> usize {
    let wide = |c: char| matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f300}'..='\u{1faff}');
    line.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

/// Commands and forms that print documents.
const DOCUMENTS: &[&[&str]] = &[
    &["--json"],
    &["status", "--json"],
    &["status", "-o", "ndjson"],
    &["status", "--fleet", "--json"],
    &["gpu", "--json"],
    &["gpu", "list", "-o", "ndjson"],
    &["gpu", "0", "--json"],
    &["gpu", "show", "GPU-b", "-o", "ndjson"],
    &["worker", "--json"],
    &["worker", "list", "-o", "ndjson"],
    &["worker", "show", "pyannote-1", "--json"],
    &["why", "pyannote-1", "--json"],
    &["worker", "why", "pyannote-1", "-o", "ndjson"],
    &["worker", "hold", "pyannote-1", "--json"],
    &["worker", "release", "pyannote-1", "-o", "ndjson"],
    &["worker", "history", "--json"],
    &["worker", "history", "pyannote-1", "--since", "1h", "-o", "ndjson"],
    &["queue", "--json"],
    &["events", "--json"],
    &["events", "-o", "ndjson"],
    &["tail", "--for", "300ms", "-o", "ndjson"],
    &["nodes", "--json"],
    &["nodes", "-o", "ndjson"],
    &["alerts", "--json"],
    &["alerts", "-o", "ndjson"],
    &["config", "check", "agent.toml", "--json"],
    &["config", "show", "--file", "agent.toml", "--json"],
    &["config", "show", "--file", "agent.toml", "-o", "ndjson"],
];

/// Kinds that none of these can print here: a queue needs a source that is asked, doctor has tests of its own.
const ELSEWHERE: [&str; 3] = ["queue", "doctor", "doctor_check"];

struct Schemas(BTreeMap<String, jsonschema::Validator>);

impl Schemas {
    fn shipped() -> Self {
        let kinds = text(&diarwatch(&["schema"]));
        let schema =
            |kind: &str| serde_json::from_slice::<Value>(&diarwatch(&["schema", kind]).stdout).unwrap();
        let compile = |kind: &str| (kind.to_owned(), jsonschema::validator_for(&schema(kind)).unwrap());
        Self(kinds.lines().map(compile).collect())
    }

    /// Holds a document against the schema of its kind; gives the kind.
    #[track_caller]
    fn hold(&self, document: &Value) -> String {
        let kind = document["kind"].as_str().unwrap_or_else(|| panic!("no kind in {document:#}")).to_owned();
        let schema = self.0.get(&kind).unwrap_or_else(|| panic!("no schema for {kind}"));
        let faults: Vec<String> =
            schema.iter_errors(document).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        assert!(faults.is_empty(), "{kind}: {faults:#?}\n{document:#}");
        for (pointer, reason) in document["reasons"].as_object().into_iter().flatten() {
            assert!(document.pointer(pointer).is_some_and(Value::is_null), "{pointer} of {document:#}");
            assert!(reason.as_str().is_some_and(|reason| !reason.is_empty()), "{pointer} of {document:#}");
        }
        kind
    }
}

#[test]
fn every_document_fits_the_schema_of_its_kind() {
    let world = World::start();
    let schemas = Schemas::shipped();
    let mut seen = BTreeSet::new();
    for arguments in DOCUMENTS {
        let said = world.says(arguments);
        assert!(!said.trim().is_empty(), "{arguments:?} said nothing");
        for line in said.lines() {
            let document: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"));
            seen.insert(schemas.hold(&document));
        }
    }
    let mut stream = UnixStream::connect(world.node.path("agent.sock")).unwrap();
    stream.write_all(b"{\"ask\":\"the weather\"}\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    seen.insert(schemas.hold(&serde_json::from_str(&answer).unwrap()));
    let missed: Vec<&String> = schemas
        .0
        .keys()
        .filter(|kind| !seen.contains(*kind) && !ELSEWHERE.contains(&kind.as_str()))
        .collect();
    assert!(missed.is_empty(), "no command was seen to print {missed:?}");
}

#[test]
fn a_document_that_breaks_its_promise_is_seen() {
    let schemas = Schemas::shipped();
    let fault = |document: Value| schemas.0["gpu"].is_valid(&document);
    let good = json!({
        "schema": 1, "kind": "gpu", "index": 0, "name": "", "utilization_ratio": null, "memory_used_bytes": 1.0,
        "memory_total_bytes": 2.0, "memory_utilization_ratio": null, "temperature_celsius": 55.0, "power_watts": 61.5,
        "state": "ok", "uuid": "", "reasons": { "/utilization_ratio": "lost" }
    });
    assert!(fault(good.clone()));
    for (key, value) in
        [("power_watts", json!("61 W")), ("kind", json!("gpus")), ("reasons", json!({ "/x": 1 }))]
    {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!fault(bad), "{key}");
    }
}

#[test]
fn documents_in_the_pages_fit_their_schemas() {
    let schemas = Schemas::shipped();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for page in ["README.md", "CHANGELOG.md", "ARCHITECTURE.md"] {
        let page = std::fs::read_to_string(root.join(page)).unwrap();
        for line in page.lines().filter(|line| line.starts_with('{') && line.contains("\"kind\"")) {
            schemas.hold(&serde_json::from_str(line).unwrap());
        }
    }
}

#[test]
fn one_gpu_says_the_same_in_every_form() {
    let world = World::start();
    let document = world.document(&["gpu", "--json"]);
    assert_eq!(document["node"], common::NODE);
    let gpu = &document["gpus"][0];
    assert_eq!((gpu["utilization_ratio"].as_f64(), gpu["power_watts"].as_f64()), (Some(0.42), Some(61.5)));
    assert_eq!(document["gpus"][1]["temperature_celsius"], Value::Null);
    assert_eq!(document["reasons"]["/gpus/1/temperature_celsius"], "not_supported");

    let csv = world.says(&["gpu", "-o", "csv"]);
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert!(lines[0].starts_with("index,name,utilization_ratio,memory_used_bytes"), "{csv}");
    assert!(lines[1].contains(",0.42,3145728000.0,"), "{csv}");
    assert!(lines[2].ends_with(",temperature_celsius=not_supported;recovery_action=not_supported"), "{csv}");

    let one = world.document(&["gpu", "show", "1", "-o", "ndjson"]);
    assert_eq!(
        (&one["index"], &one["reasons"]["/temperature_celsius"]),
        (&json!(1), &json!("not_supported"))
    );
    let table = world.says(&["gpu"]);
    assert!(table.contains("42%") && table.contains("61 W") || table.contains("62 W"), "{table}");
    let sheet = world.says(&["gpu", "1", "--lang", "ja"]);
    assert!(sheet.contains("データなし (not_supported)"), "{sheet}");
}

#[test]
fn eight_gpus_and_japanese_fit_a_terminal_of_80_columns() {
    let gpus = "gpus = 8\ngpu.*.name = NVIDIA H200\ngpu.*.mem_total_mib = 144384\ngpu.*.mem_used_mib = 141000\ngpu.*.util = 100\ngpu.*.power_mw = 700000\n";
    let world = World::with(gpus);
    let commands: &[&[&str]] = &[
        &["status"],
        &["gpu"],
        &["worker"],
        &["queue"],
        &["events"],
        &["nodes"],
        &["alerts"],
        &["status", "--fleet"],
    ];
    for lang in ["ja", "en"] {
        for arguments in commands {
            let mut command = world.command();
            let output =
                command.args(*arguments).args(["--lang", lang]).env("COLUMNS", "80").output().unwrap();
            let said = text(&output);
            for line in said.lines() {
                assert!(
                    columns(line) <= 80,
                    "{arguments:?} {lang}: {} columns: {line}\n{said}",
                    columns(line)
                );
            }
        }
        let said = world.says(&["status", "--lang", lang]);
        let rows: Vec<&str> = said.lines().filter(|line| line.contains("137.7/141.0 GiB")).collect();
        assert_eq!(rows.len(), 8, "{said}");
        let state = |row: &&str| columns(row.split('●').next().unwrap());
        assert!(rows.iter().all(|row| state(row) == state(&rows[0])), "{said}");
    }
}

#[test]
fn colours_are_only_where_they_are_wanted_and_state_is_a_shape_and_a_word_too() {
    let world = World::start();
    let with = |arguments: &[&str], name: &str, value: &str| {
        text(&world.command().args(arguments).env(name, value).output().unwrap())
    };
    assert!(!world.says(&["gpu"]).contains('\u{1b}'), "not into a pipe");
    assert!(world.says(&["gpu", "--color", "always"]).contains("\u{1b}[32m"));
    assert!(with(&["gpu"], "CLICOLOR_FORCE", "1").contains('\u{1b}') || std::env::var("TERM").is_err());
    assert!(!with(&["gpu", "--color", "never"], "CLICOLOR_FORCE", "1").contains('\u{1b}'));
    assert!(
        world.says(&["gpu"]).contains("● OK") && world.says(&["worker", "--lang", "ja"]).contains("● 稼働中")
    );
}

#[test]
fn status_ends_with_what_it_found_only_when_it_is_asked_to() {
    let world = World::start();
    assert_eq!(world.run(&["status"]).status.code(), Some(0));
    let output = world.run(&["status", "--exit-code"]);
    assert_eq!(output.status.code(), Some(1), "the link is down: {}", text(&output));
    assert!(text(&output).lines().next().unwrap().contains("▲ Warning"), "{}", text(&output));
    world.node.scenario(&format!("{}gpu.1.state = lost\n", common::operator::GPUS));
    until("the lost GPU is critical", || {
        (world.run(&["status", "--exit-code"]).status.code() == Some(2)).then_some(())
    });
    let said = world.says(&["status"]);
    assert!(said.lines().next().unwrap().contains("■ Critical") && said.contains("■ GPU 1: lost"), "{said}");
    let fleet = world.run(&["status", "--fleet", "--exit-code"]);
    assert_eq!(fleet.status.code(), Some(2), "a critical alert fires: {}", text(&fleet));
}

#[test]
fn what_does_not_exist_is_exit_3_and_names_what_was_meant() {
    let world = World::start();
    for (arguments, meant) in [
        (&["gpu", "7"][..], "diarwatch gpu"),
        (&["gpu", "GPU-"], "diarwatch gpu"),
        (&["worker", "show", "pyannote-2"], "diarwatch worker show pyannote-1"),
        (&["tail", "gpu_power_wats"], "diarwatch tail gpu_power_watts"),
        (&["schema", "gpuss"], "diarwatch schema gpus"),
    ] {
        let output = world.run(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", talk(&output));
        assert!(talk(&output).contains(&format!("try: {meant}")), "{arguments:?}: {}", talk(&output));
        assert_eq!(text(&output), "");
    }
}

#[test]
fn a_flag_that_means_nothing_is_refused_and_one_from_the_environment_is_left_out() {
    let node = Node::new();
    let config = node.config().display().to_string();
    for arguments in [
        &["config", "check", &config, "--since", "1h"][..],
        &["completion", "bash", "--json"],
        &["gpu", "--fleet"],
    ] {
        let output = diarwatch(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            talk(&output).contains("does not go with") && talk(&output).contains("\ntry: "),
            "{}",
            talk(&output)
        );
        assert_eq!(text(&output), "");
    }
    let mut command = diarwatch_command();
    let output = command.args(["completion", "bash"]).env("DIARWATCH_OUTPUT", "json").output().unwrap();
    assert!(output.status.success() && text(&output).contains("_diarwatch"), "{}", talk(&output));
}

#[test]
fn events_are_told_in_order_and_followed_as_they_happen() {
    let world = World::start();
    // The status that the worker is ready may come a moment before the event that says so.
    let events = until("three events are there", || {
        let events = world.document(&["events", "--json"])["events"].as_array().unwrap().clone();
        (events.len() >= 3).then_some(events)
    });
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["agent_started", "worker_started", "worker_ready"]);
    assert!(events.is_sorted_by_key(|event| event["at_us"].as_u64()));
    let history = world.document(&["worker", "history", "pyannote-1", "--json"]);
    assert_eq!(history["events"].as_array().unwrap().len(), 2);
    assert_eq!(world.says(&["events", "--since", "0"]).trim(), "Nothing happened");

    let mut command = world.command();
    let mut follow = command.args(["events", "-f", "-o", "ndjson"]).stdout(Stdio::piped()).spawn().unwrap();
    // It has to have begun before something happens: what was before is not shown.
    std::thread::sleep(std::time::Duration::from_millis(700));
    let pid = world.agent.status()["workers"][0]["pid"].as_u64().unwrap();
    rustix::process::kill_process(common::pid_of(u32::try_from(pid).unwrap()), rustix::process::Signal::KILL)
        .unwrap();
    let mut line = String::new();
    BufReader::new(follow.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["event"], &event["worker"]), (&json!("worker_exited"), &json!("pyannote-1")));
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn tail_shows_each_sample_once_and_ends_when_it_should() {
    let world = World::start();
    let said = world.says(&["tail", "gpu_power_watts{gpu=\"0\"}", "--for", "1s", "-o", "ndjson"]);
    let samples: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let times: Vec<u64> = samples.iter().map(|sample| sample["at_us"].as_u64().unwrap()).collect();
    assert!(times.len() >= 5 && times.is_sorted_by(|a, b| a < b), "every 50 ms, each once: {times:?}");
    assert!(samples.iter().all(|sample| sample["value"] == 61.5 && sample["labels"]["gpu"] == "0"), "{said}");
    let csv = world.says(&["tail", "gpu_temp*", "--rate", "1", "--for", "1s", "-o", "csv"]);
    assert!(csv.starts_with("at_us,metric,labels,value,reasons\r\n"), "{csv}");
    assert!(csv.contains("value=not_supported"), "{csv}");
    assert!(csv.lines().count() <= 1 + 2 * 2, "one a second of each: {csv}");
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let world = World::start();
    for arguments in [&["tail", "-o", "csv"][..], &["gpu", "-w=0.1"], &["status", "--json", "--watch=0.1"]] {
        let mut command = world.command();
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{arguments:?}");
        drop(reader);
        let status = until("the command ends", || child.try_wait().unwrap());
        let mut talk = String::new();
        child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
        assert_eq!((status.code(), talk.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_watch_goes_on_when_the_agent_starts_again() {
    let node = Node::new();
    let agent = node.run();
    let socket = node.path("agent.sock").display().to_string();
    let mut command = diarwatch_command();
    command
        .args(["status", "--json", "-w=0.1", "--socket", &socket])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut epoch =
        || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["epoch"].as_u64().unwrap();
    let first = epoch();
    agent.stop();
    let _again = node.run();
    until("the new run is seen", || (epoch() != first).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_configuration_to_start_from_is_never_written_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml").display().to_string();
    let output = diarwatch(&["config", "init", &path]);
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), ""), "{}", talk(&output));
    assert_eq!(diarwatch(&["config", "check", &path]).status.code(), Some(0), "what it writes is accepted");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text(&diarwatch(&["config", "init"])));
    std::fs::write(&path, "mine").unwrap();
    let output = diarwatch(&["config", "init", &path]);
    assert_eq!(output.status.code(), Some(4), "{}", talk(&output));
    assert!(talk(&output).lines().last().unwrap().starts_with("try: "), "{}", talk(&output));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn an_aggregator_that_does_not_answer_is_exit_69_and_one_that_talks_nonsense_65() {
    let world = World::start();
    for arguments in [&["nodes"][..], &["alerts"], &["status", "--fleet"]] {
        let output = diarwatch_command()
            .args(arguments)
            .args(["--aggregator", "http://127.0.0.1:9"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(69), "{}", talk(&output));
        assert!(talk(&output).lines().last().unwrap().starts_with("try: "), "{}", talk(&output));
        assert_eq!(text(&output), "");
    }
    let output = world
        .command()
        .args(["nodes", "--aggregator", &format!("{}/elsewhere", world.http)])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65), "{}", talk(&output));
}

/// Runs the command as nobody, with these groups besides.
fn as_nobody(program: &Path, groups: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534"]).args(groups).arg(program).args(arguments);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn an_unprivileged_person_may_ask_when_in_the_group_and_is_told_of_it_when_not() {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: this needs root and setpriv (util-linux) to become somebody else");
        return;
    }
    const GROUP: u32 = 4_242;
    let node = Node::new();
    let _agent = node.run();
    let socket = node.path("agent.sock");
    std::fs::set_permissions(node.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    // The build's own folder need not be open to everybody.
    let program = node.path("diarwatch");
    std::fs::copy(env!("CARGO_BIN_EXE_diarwatch"), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(&socket, None, Some(GROUP)).unwrap();
    let arguments = ["status", "--socket", &socket.display().to_string()];

    let refused = as_nobody(&program, &["--clear-groups"], &arguments);
    assert_eq!((refused.status.code(), text(&refused).as_str()), (Some(77), ""), "{}", talk(&refused));
    assert!(talk(&refused).contains("try: sudo usermod -aG diarwatch"), "{}", talk(&refused));
    let served = as_nobody(&program, &["--groups=4242"], &arguments);
    assert_eq!(served.status.code(), Some(0), "{}", talk(&served));
    assert!(text(&served).contains(common::NODE));
}
