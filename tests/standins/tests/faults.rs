//! What the workers do wrong on command: each fault as a process, over real HTTP.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::process::Standin;
use common::until;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

const KINDS: [&str; 2] = ["pyannote", "pyannote-server"];
/// Long enough for a busy process to be seen by the kernel's ticks of 10 ms.
const WHILE: Duration = Duration::from_millis(500);

/// Memory and load that a worker claims; none while it claims nothing.
fn claimed(folder: &Path, worker: &Standin) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(folder.join(worker.pid().to_string())).ok()?;
    let mut numbers = text.split_whitespace().skip(1).map(|word| word.parse().unwrap());
    Some((numbers.next().unwrap(), numbers.next().unwrap()))
}

async fn on_gpu(kind: &str, folder: &Path, more: &[&str]) -> Standin {
    let folder = folder.to_str().unwrap();
    let own = ["--load", "0", "--gpu-claims", folder, "--gpu-mib", "1000", "--gpu-sm", "70", "--busy", "50"];
    Standin::start(kind, &[&own, more].concat()).await
}

#[tokio::test]
async fn a_job_may_wedge_it_in_its_middle_and_then_nothing_moves() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let worker = on_gpu(kind, folder.path(), &[]).await;
        worker.job(json!({ "id": "w", "audio_seconds": 20, "hang": true })).await;
        worker.said("job w started").await;
        until(async || worker.is_silent().await).await;
        until(async || claimed(folder.path(), &worker) == Some((1_000, 0))).await;
        let before = worker.cpu_ticks();
        tokio::time::sleep(WHILE).await;
        // One tick may fall due that was worked for before.
        assert!(worker.cpu_ticks() <= before + 1, "a wedge uses no CPU");
        assert!(!worker.lines().iter().any(|line| line.contains("job w done")));
        worker.tell(json!({ "hang": false })).await;
        worker.said("job w done").await;
    }
}

#[tokio::test]
async fn a_silent_one_works_and_answers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let worker = on_gpu("pyannote", folder.path(), &[]).await;
    worker.job(json!({ "id": "s", "audio_seconds": 20, "busy_silent": true })).await;
    worker.said("job s done").await;
    assert!(worker.is_silent().await);
    assert_eq!(claimed(folder.path(), &worker), Some((1_000, 70)));
    let before = worker.cpu_ticks();
    // More than looking around costs in the time that this waits.
    until(async || worker.cpu_ticks() >= before + 50).await;
    worker.tell(json!({ "busy_silent": false })).await;
    until(async || claimed(folder.path(), &worker) == Some((1_000, 0))).await;
    assert_eq!(worker.get("/health").await["status"], "ok");
}

#[tokio::test]
async fn a_fall_to_the_cpu_costs_the_gpu_and_nine_tenths_of_the_speed_but_not_the_word_ready() {
    let folder = tempfile::tempdir().unwrap();
    let next = folder.path().join("next.json");
    let claims = folder.path().join("claims");
    std::fs::create_dir(&claims).unwrap();
    let more = ["--next-start", next.to_str().unwrap(), "--job-speed", "100"];
    let worker = on_gpu("pyannote", &claims, &more).await;
    until(async || claimed(&claims, &worker) == Some((1_000, 0))).await;
    worker.tell(json!({ "cpu_fallback": true })).await;
    until(async || claimed(&claims, &worker).is_none()).await;
    assert_eq!(worker.get("/ready").await["status"], "ready");
    let (_, told) = worker.post("/diarize?wait=1", r#"{"audio_seconds": 10}"#).await;
    assert!(told["seconds"].as_f64().unwrap() >= 1.0, "{told}");
    worker.tell(json!({ "cpu_fallback": false })).await;
    until(async || claimed(&claims, &worker) == Some((1_000, 0))).await;

    worker.tell(json!({ "next_start": { "cpu_fallback": true } })).await;
    assert!(claimed(&claims, &worker).is_some(), "not before the next start");
    drop(worker);
    let fallen = on_gpu("pyannote", &claims, &more).await;
    fallen.said("model loaded").await;
    let (_, told) = fallen.post("/diarize?wait=1", r#"{"audio_seconds": 1}"#).await;
    assert!(told["seconds"].as_f64().unwrap() >= 0.1, "{told}");
    assert_eq!(claimed(&claims, &fallen), None);
    drop(fallen);
    let healed = on_gpu("pyannote", &claims, &more).await;
    until(async || claimed(&claims, &healed).is_some()).await;
}

#[tokio::test]
async fn a_job_without_gpu_memory_fails_with_the_real_text_and_what_follows_is_as_told() {
    for (after, status) in [("go_on", "ready"), ("not_ready", "not_ready")] {
        let worker = Standin::start("pyannote", &["--load", "0"]).await;
        worker.tell(json!({ "oom": after })).await;
        worker.job(json!({ "id": "o", "audio_seconds": 1 })).await;
        worker.said("ERROR job o failed").await;
        let text = worker.said("torch.cuda.OutOfMemoryError").await;
        assert!(
            text.starts_with("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate "),
            "{text}"
        );
        assert_eq!(worker.get("/ready").await["status"], status);
        worker.job(json!({ "id": "next", "audio_seconds": 1 })).await;
        worker.said("job next done").await;
    }
}

#[tokio::test]
async fn memory_of_the_host_is_really_taken_and_never_more_than_was_said() {
    let worker = Standin::start("pyannote", &["--load", "0"]).await;
    let rss_kib = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = rss_kib();
    worker.tell(json!({ "host_oom": 64 })).await;
    until(async || rss_kib() >= before + 64 * 1_024).await;
    assert!(rss_kib() < before + 96 * 1_024);
    assert_eq!(worker.post("/control", r#"{"host_oom": 999999}"#).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn gpu_memory_leaks_with_each_job() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let worker = on_gpu(kind, folder.path(), &["--control", r#"{"leak": 250}"#]).await;
        for (number, mib) in [(1, 1_250), (2, 1_500)] {
            worker.post("/diarize?wait=1", r#"{"audio_seconds": 0}"#).await;
            until(async || claimed(folder.path(), &worker) == Some((mib, 0))).await;
            assert_eq!(worker.get("/jobs").await["done"].as_array().unwrap().len(), number);
        }
    }
}

#[tokio::test]
async fn a_poisoned_job_kills_whoever_works_on_it() {
    for kind in KINDS {
        let mut worker = Standin::start(kind, &["--load", "0"]).await;
        worker.job(json!({ "id": "good", "audio_seconds": 1 })).await;
        worker.last_job(json!({ "id": "bad", "audio_seconds": 1, "poison": true })).await;
        assert_eq!(worker.killed_by().await, Some(Signal::KILL.as_raw()));
        worker.said("job good done").await;
        worker.said("job bad started").await;
        assert!(!worker.lines().join("\n").contains("job bad done"));
    }
}

#[tokio::test]
async fn it_ends_as_it_is_told() {
    for kind in KINDS {
        let mut crashing = Standin::spawn(kind, &["--control", r#"{"crash_after": "200ms"}"#]);
        assert_eq!(crashing.killed_by().await, Some(Signal::ABORT.as_raw()));
        let mut exiting = Standin::start(kind, &[]).await;
        exiting.tell(json!({ "exit": 7 })).await;
        assert_eq!(exiting.ended().await.code(), Some(7));
        let mut in_a_job = Standin::start(kind, &["--load", "0"]).await;
        in_a_job.last_job(json!({ "audio_seconds": 5, "exit": 8 })).await;
        assert_eq!(in_a_job.ended().await.code(), Some(8));
    }
}

#[tokio::test]
async fn sigterm_is_taken_no_notice_of_when_told_so() {
    for kind in KINDS {
        let mut worker = Standin::start(kind, &["--control", r#"{"ignore_sigterm": true}"#]).await;
        worker.terminate();
        worker.said("SIGTERM ignored").await;
        assert_eq!(worker.get("/health").await["status"], "ok");
        worker.tell(json!({ "ignore_sigterm": false })).await;
        worker.terminate();
        assert_eq!(worker.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn without_its_model_it_ends_at_its_start_with_pyannotes_words() {
    let folder = tempfile::tempdir().unwrap();
    let next = folder.path().join("next.json");
    let more = ["--next-start", next.to_str().unwrap()];
    let worker = Standin::start("pyannote-server", &more).await;
    worker.tell(json!({ "next_start": { "no_model": true } })).await;
    drop(worker);
    let mut gated = Standin::spawn("pyannote-server", &more);
    assert_eq!(gated.ended().await.code(), Some(1));
    gated.said("Could not download 'pyannote/speaker-diarization-3.1' pipeline.").await;
    gated.said("It might be because the pipeline is private or gated").await;
    gated.said("use_auth_token").await;
    gated.said("AttributeError: 'NoneType' object has no attribute 'to'").await;
    assert!(!gated.lines().iter().any(|line| line.contains("listening")));
    let healed = Standin::start("pyannote-server", &more).await;
    assert_eq!(healed.get("/health").await["status"], "ok");
}

#[tokio::test]
async fn a_scenario_tells_it_at_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steps.json");
    let steps: Value = json!([{ "after": "100ms", "control": { "exit": 9 } }]);
    std::fs::write(&path, steps.to_string()).unwrap();
    let mut worker = Standin::spawn("pyannote-server", &["--scenario", path.to_str().unwrap()]);
    assert_eq!(worker.ended().await.code(), Some(9));
}

#[tokio::test]
async fn what_it_cannot_do_is_refused_with_what_is_missing() {
    let worker = Standin::start("pyannote", &[]).await;
    assert_eq!(worker.post("/control", r#"{"next_start": {"hang": true}}"#).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(worker.post("/control", r#"{"hnag": true}"#).await.0, StatusCode::BAD_REQUEST);
    let mut wrong = Standin::spawn("pyannote", &["--job-speed", "0"]);
    assert_eq!(wrong.ended().await.code(), Some(64));
}
