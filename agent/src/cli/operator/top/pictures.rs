//! Whole pictures of `diarwatch top`, held against the files in `pictures/`: what a person sees for a
//! document, at a size, in a language. `DIARWATCH_PICTURES=write` writes them anew, to be read and
//! committed.

use std::path::Path;
use std::time::Duration;

use diarwatch_shared::clock::{UnixMicros, Zone};
use diarwatch_shared::texts::Lang;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{Now, draw};
use super::layout::Pane;
use super::model::{Input, Model, Press, Question, Refusal};
use super::paint::{Paint, width};

/// 2025-12-04 14:32:15 JST.
const WALL: UnixMicros = UnixMicros(1_764_826_335_000_000);
const START: Duration = Duration::from_secs(100);
const GIB: f64 = 1_073_741_824.0;

/// What is painted, and when.
struct Scene {
    model: Model,
    uptime: Duration,
    colour: bool,
}

impl Scene {
    fn new(status: &Value, lang: Lang) -> Self {
        let mut model = Model::new(status, lang, START);
        model.questions(START);
        Self { model, uptime: START, colour: false }
    }

    /// Answers to all three questions.
    fn of(status: &Value, lang: Lang) -> Self {
        let mut scene = Self::new(status, lang);
        scene.answer(Question::Status, Ok(status.clone()));
        scene.answer(Question::Events, Ok(events()));
        let gpus = status["gpus"].as_array().map_or(0, Vec::len);
        scene.answer(Question::History { after_us: 0 }, Ok(history(gpus)));
        scene
    }

    fn answer(&mut self, question: Question, answer: Result<Value, Refusal>) {
        self.model.take(Input::Answer(question, answer), self.uptime);
    }

    fn press(&mut self, press: Press) {
        self.model.take(Input::Press(press), self.uptime);
    }

    fn buffer(&mut self, columns: u16, rows: u16) -> Buffer {
        self.model.take(Input::Size(columns, rows), self.uptime);
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        let zone = Zone::named("Asia/Tokyo").unwrap();
        let now = Now { wall: WALL, uptime: self.uptime };
        let paint = |frame: &mut ratatui::Frame| {
            draw(&mut Paint::new(frame.buffer_mut(), self.colour), &self.model, &zone, now);
        };
        terminal.draw(paint).unwrap();
        terminal.backend().buffer().clone()
    }

    fn picture(&mut self, columns: u16, rows: u16) -> String {
        text(&self.buffer(columns, rows))
    }

    /// The picture is the one in the file, and no line of it is too long.
    #[track_caller]
    fn is(&mut self, name: &str, columns: u16, rows: u16) {
        let seen = self.picture(columns, rows);
        for line in seen.lines() {
            assert!(width(line) <= columns, "{} columns: {line}", width(line));
        }
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/operator/top/pictures/{name}.txt"));
        if std::env::var_os("DIARWATCH_PICTURES").is_some_and(|value| value == "write") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &seen).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == seen, "{name} is not as it was. It was:\n{kept}\nIt is:\n{seen}");
    }
}

/// As a person sees it: the second cell of a wide character is none of its own.
fn text(buffer: &Buffer) -> String {
    let mut lines = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += width(symbol).max(1);
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

fn gpu(index: u64) -> Value {
    let part = (index as f64 + 1.0) / 8.0;
    json!({ "index": index, "uuid": format!("GPU-{index}"), "name": "NVIDIA GeForce RTX 4060",
        "utilization_ratio": part, "memory_utilization_ratio": 0.2, "memory_used_bytes": part * 8.0 * GIB,
        "memory_total_bytes": 8.0 * GIB, "power_watts": 60.0 + index as f64, "temperature_celsius": 45.0 })
}

fn worker(number: u64) -> Value {
    json!({ "worker": format!("pyannote-{number}"), "service": format!("pyannote #{number}"), "phase": "ready",
        "ready": true, "pid": 4_000 + number, "restarts": 0, "started_us": 1, "last_probe": null,
        "last_exit": null, "next_start_in_ms": null, "since_us": 1, "statuses_dropped": 0 })
}

fn queue() -> Value {
    json!({ "queue": "diarization", "service": "pyannote", "source": "log", "estimated": true, "waiting": 3.0,
        "processing": 1.0, "oldest_seconds": 45.0, "completed_per_minute": 1.5, "failed_per_minute": 0.0,
        "job_mean_seconds": 62.4, "job_p95_seconds": 90.0, "drain_seconds": 725.0, "growing": false,
        "problem": null, "seen_us": 1 })
}

fn status(gpus: u64, workers: u64) -> Value {
    json!({ "schema": 1, "kind": "status", "node": "tokyo-1", "version": "0.1.0", "simulated": false,
        "driver": { "state": "up", "version": "550.54.15" },
        "host": { "cpu_utilization_ratio": 0.123, "memory_used_bytes": 3.0 * GIB, "memory_total_bytes": 15.5 * GIB },
        "gpus": (0..gpus).map(gpu).collect::<Vec<_>>(), "workers": (1..=workers).map(worker).collect::<Vec<_>>(),
        "queues": [queue()],
        "link": { "connected": true, "endpoint": "10.0.0.5:9440", "problem": null, "round_trip_ms": 1.25 },
        "spool": { "bytes": 12_582_912, "frames_unacked": 2, "frames_acked": 10, "frames_lost": 0, "problem": null } })
}

fn events() -> Value {
    let at = |seconds: u64| WALL.0 - seconds * 1_000_000;
    json!({ "kind": "events", "events": [
        { "version": 1, "at": at(90_000), "kind": "agent_started", "agent_version": "0.1.0", "epoch": 1 },
        { "version": 1, "at": at(125), "kind": "worker_exited", "worker": "pyannote-1", "pid": 4_000,
          "reason": "signal 9 (SIGKILL)", "attempt": 1, "restart_in_ms": 1_000 },
        { "version": 1, "at": at(124), "kind": "worker_started", "worker": "pyannote-1", "pid": 4_001 },
        { "version": 1, "at": at(95), "kind": "worker_ready", "worker": "pyannote-1", "load_ms": 29_000 },
        { "version": 2, "at": at(5), "kind": "worker_levitated", "worker": "pyannote-2" } ] })
}

/// A minute at 10 Hz: waves, and a gap of six seconds.
fn history(gpus: usize) -> Value {
    let times: Vec<u64> = (0..600).filter(|at| !(300..360).contains(at)).collect();
    let series = |gpu: usize, metric: &str, scale: f64| {
        let value = |at: &u64| ((*at as f64 / 40.0 + gpu as f64).sin() + 1.0) / 2.0 * scale;
        json!({ "metric": metric, "labels": { "gpu": gpu.to_string() },
            "times_us": times.iter().map(|at| WALL.0 - 59_950_000 + at * 100_000).collect::<Vec<_>>(),
            "values": times.iter().map(value).collect::<Vec<_>>() })
    };
    let all: Vec<Value> = (0..gpus)
        .flat_map(|gpu| {
            [
                series(gpu, "gpu_utilization_ratio", 1.0),
                series(gpu, "gpu_memory_used_bytes", 6.0 * GIB),
                series(gpu, "gpu_power_watts", 110.0),
            ]
        })
        .collect();
    json!({ "kind": "history", "now_us": WALL.0 - 20_000, "series": all })
}

/// One GPU that lost its driver, one with a value missing, a worker in each state, a queue that fails.
fn troubled() -> Value {
    let mut status = status(3, 4);
    status["simulated"] = json!(true);
    let mut reasons = json!({ "/gpus/2/temperature_celsius": "not_supported" });
    for key in
        ["utilization_ratio", "memory_used_bytes", "memory_total_bytes", "power_watts", "temperature_celsius"]
    {
        status["gpus"][1][key] = json!(null);
        reasons[format!("/gpus/1/{key}")] = json!("lost");
    }
    status["gpus"][2]["temperature_celsius"] = json!(null);
    reasons["/queues/0/drain_seconds"] = json!("not_yet");
    reasons["/queues/1/waiting"] = json!("failed");
    status["reasons"] = reasons;
    let worker = |status: &mut Value, at: usize, more: Value| {
        for (key, value) in more.as_object().unwrap() {
            status["workers"][at][key] = value.clone();
        }
    };
    worker(
        &mut status,
        1,
        json!({ "phase": "starting", "ready": null, "last_probe": { "verdict": "not ready: loading" } }),
    );
    worker(
        &mut status,
        2,
        json!({ "phase": "not_ready", "ready": false, "restarts": 2, "last_probe": { "verdict": "no answer: 接続がタイムアウトしました" } }),
    );
    worker(
        &mut status,
        3,
        json!({ "phase": "waiting", "ready": false, "pid": null, "restarts": 3, "next_start_in_ms": 8_000, "last_exit": "signal 9 (SIGKILL)" }),
    );
    status["queues"] = json!([queue(), queue()]);
    status["queues"][0]["drain_seconds"] = json!(null);
    status["queues"][0]["growing"] = json!(true);
    status["queues"][1]["queue"] = json!("批量");
    status["queues"][1]["problem"] = json!("connection refused");
    status["queues"][1]["waiting"] = json!(null);
    status["link"] = json!({ "connected": false, "endpoint": "10.0.0.5:9440", "problem": "timed out", "round_trip_ms": null });
    status
}

fn no_driver() -> Value {
    let mut status = status(0, 0);
    status["driver"] =
        json!({ "state": "absent", "reason": "libnvidia-ml.so.1: cannot open shared object file" });
    status["queues"] = json!([]);
    status
}

#[test]
fn a_host_with_one_gpu_at_80_by_24_in_japanese_and_english() {
    let mut scene = Scene::of(&status(1, 2), Lang::Ja);
    scene.is("one_gpu_80x24_ja", 80, 24);
    let mut scene = Scene::of(&status(1, 2), Lang::En);
    scene.is("one_gpu_80x24_en", 80, 24);
}

#[test]
fn eight_gpus_fit_80_by_24() {
    let mut scene = Scene::of(&status(8, 8), Lang::Ja);
    let picture = scene.picture(80, 24);
    for index in 0..8 {
        assert!(picture.contains(&format!(" {index} GeForce")), "{picture}");
    }
    scene.is("eight_gpus_80x24", 80, 24);
    let mut scene = Scene::of(&status(8, 8), Lang::En);
    scene.is("eight_gpus_60x16_en", 60, 16);
}

#[test]
fn more_room_is_used() {
    let mut scene = Scene::of(&troubled(), Lang::Ja);
    scene.is("troubled_120x40", 120, 40);
}

#[test]
fn every_trouble_is_told_by_shape_and_word() {
    let mut scene = Scene::of(&troubled(), Lang::Ja);
    scene.is("troubled_80x24_ja", 80, 24);
    let picture = scene.picture(80, 24);
    for words in [
        "SIMULATED",
        "データなし (lost)",
        "温度 2 (not_supported)",
        "▲ pyannote-2  起動中",
        "再起動待ち 8s",
        "(推定)",
        "■ 異常",
        "▲ 切断 10.0.0.5:9440",
    ] {
        assert!(picture.contains(words), "{words}:\n{picture}");
    }
    let mut scene = Scene::of(&troubled(), Lang::En);
    scene.is("troubled_80x24_en", 80, 24);
    scene.is("troubled_60x16_en", 60, 16);
}

#[test]
fn no_driver_is_a_clear_state() {
    let mut scene = Scene::of(&no_driver(), Lang::Ja);
    scene.is("no_driver_80x24", 80, 24);
    assert!(scene.picture(80, 24).contains("▲ NVIDIAドライバなし"));
}

#[test]
fn an_agent_that_falls_silent_leaves_old_values_and_says_since_when() {
    let mut before = status(2, 2);
    before["spool"]["frames_lost"] = json!(7);
    let mut scene = Scene::of(&before, Lang::Ja);
    assert!(scene.picture(80, 24).contains("失われたフレーム"));
    scene.colour = true;
    scene.uptime += Duration::from_secs(12);
    let problem = "no agent answers at /run/diarwatch/agent.sock: Connection refused".to_owned();
    scene.answer(Question::Status, Err(Refusal { problem, unreachable: true }));
    scene.is("silent_80x24", 80, 24);
    let picture = scene.picture(80, 24);
    assert!(picture.contains("エージェント応答なし 経過 12s") && picture.contains("古い値 12s"), "{picture}");
    assert!(!picture.contains("失われたフレーム"), "an old complaint is none: {picture}");
    let buffer = scene.buffer(80, 24);
    for y in (1..23).filter(|y| *y != 2) {
        for x in 0..80 {
            // The second cell of a wide character is not sent to the terminal.
            let cell = &buffer[(x, y)];
            assert!(cell.symbol() == " " || cell.fg == Color::DarkGray, "{x},{y}: {cell:?}");
        }
    }
    scene.answer(Question::Status, Ok(status(2, 2)));
    let picture = scene.picture(80, 24);
    assert!(!picture.contains("古い値") && picture.contains("● 正常"), "{picture}");
}

#[test]
fn a_hung_agent_is_told_before_its_question_times_out() {
    let mut scene = Scene::of(&status(1, 1), Lang::Ja);
    scene.uptime += Duration::from_secs(3);
    assert!(scene.picture(80, 24).contains("エージェント応答なし 経過 3s"));
}

#[test]
fn a_terminal_that_is_too_small_says_what_it_needs() {
    let mut scene = Scene::of(&status(1, 1), Lang::Ja);
    let picture = scene.picture(40, 10);
    assert!(picture.contains("60x16") && picture.contains("40x10"), "{picture}");
    scene.picture(1, 1);
}

#[test]
fn nothing_is_told_by_colour_alone() {
    let mut scene = Scene::of(&troubled(), Lang::Ja);
    let plain = scene.buffer(80, 24);
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    scene.colour = true;
    assert_eq!(text(&plain), scene.picture(80, 24));
}

#[test]
fn a_pause_holds_the_picture_and_help_lies_over_it() {
    let mut scene = Scene::of(&status(1, 1), Lang::Ja);
    scene.press(Press::Pause);
    let mut other = status(1, 1);
    other["gpus"][0]["utilization_ratio"] = json!(0.99);
    scene.answer(Question::Status, Ok(other.clone()));
    let held = scene.picture(80, 24);
    assert!(held.contains("一時停止中") && !held.contains("99%"), "{held}");
    scene.press(Press::Pause);
    scene.answer(Question::Status, Ok(other));
    assert!(scene.picture(80, 24).contains("99%"));
    scene.press(Press::Help);
    scene.is("help_80x24_ja", 80, 24);
    let mut scene = Scene::of(&status(1, 1), Lang::En);
    scene.press(Press::Help);
    scene.is("help_60x16_en", 60, 16);
}

#[test]
fn a_pane_that_does_not_fit_is_scrolled_and_can_have_the_screen() {
    let mut scene = Scene::of(&status(16, 1), Lang::Ja);
    scene.picture(60, 16);
    scene.press(Press::Last);
    assert!(scene.picture(60, 16).contains("15 GeForce"));
    scene.press(Press::First);
    assert!(!scene.picture(60, 16).contains("15 GeForce"));
    scene.press(Press::Focus(Pane::Events));
    scene.press(Press::Zoom);
    let picture = scene.picture(60, 16);
    assert!(picture.contains("worker levitated") && !picture.contains("GeForce"), "{picture}");
}

/// Any JSON.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(json!({ "missing": "lost" })),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place of a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            // As a JSON pointer has it.
            let key = key.replace('~', "~0").replace('/', "~1");
            places(value, &format!("{at}/{key}"), found);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_document_and_no_size_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 0..12),
        size in (0_u16..150, 0_u16..60), presses in prop::collection::vec(0_usize..12, 0..8),
        which in 0_usize..3, silent in 0_u64..100_000, lang: bool, event in anything(),
    ) {
        const PRESSES: [Press; 12] = [Press::Pause, Press::Help, Press::Zoom, Press::Span, Press::NextPane,
            Press::PreviousPane, Press::Up, Press::Down, Press::PageUp, Press::PageDown, Press::First, Press::Last];
        let mut documents = [troubled(), events(), history(2)];
        let document = &mut documents[which];
        for (at, value) in changes {
            let mut found = Vec::new();
            places(document, "", &mut found);
            *document.pointer_mut(at.get::<String>(&found)).unwrap() = value;
        }
        let [status, events, history] = documents;
        let mut scene = Scene::new(&status, if lang { Lang::Ja } else { Lang::En });
        for press in presses {
            scene.picture(size.0, size.1);
            scene.answer(Question::Status, Ok(status.clone()));
            scene.answer(Question::Events, Ok(events.clone()));
            scene.answer(Question::History { after_us: 0 }, Ok(history.clone()));
            scene.press(PRESSES[press]);
        }
        scene.answer(Question::Status, Ok(event));
        scene.uptime += Duration::from_millis(silent);
        let picture = scene.picture(size.0, size.1);
        prop_assert!(picture.lines().all(|line| width(line) <= size.0));
    }
}
