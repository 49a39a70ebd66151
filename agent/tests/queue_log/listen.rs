//! What a container's worker writes reaches its words: on both streams, through its end, its next start
//! and an engine that dies, each line once.

use std::path::Path;
use std::time::Duration;

use diarwatch_agent::config::worker::WorkerConfig;
use diarwatch_agent::findings::FindingKind;
use diarwatch_agent::listen::follow;
use diarwatch_agent::words::Words;
use diarwatch_shared::config::parse;

use super::engine::{Engine, NAME};

fn config(engine: &Engine) -> WorkerConfig {
    let text = format!(
        "name = \"w-1\"\ndriver = \"docker\"\ncontainer = \"{NAME}\"\ndocker_socket = {:?}\n[readiness]\nurl = \"http://127.0.0.1/\"\n",
        engine.socket().display().to_string()
    );
    parse(Path::new("agent.toml"), &text).unwrap()
}

async fn until(words: &Words, expected: &[&str]) {
    let heard = || words.newest(usize::MAX).into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    let all = async {
        while heard() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), all).await.is_ok(), "{:?}", heard());
}

#[tokio::test]
async fn a_container_is_heard_through_its_end_its_next_start_and_the_death_of_the_engine() {
    let engine = Engine::start(false);
    engine.says(&["INFO model loaded", "job 1 started"]);
    let words = Words::default();
    let task = follow(&config(&engine), words.clone()).unwrap();
    until(&words, &["INFO model loaded", "job 1 started"]).await;
    engine.says(&["same", "same"]);
    until(&words, &["INFO model loaded", "job 1 started", "same", "same"]).await;
    engine.dies();
    engine.says(&["meanwhile"]);
    engine.comes_back();
    until(&words, &["INFO model loaded", "job 1 started", "same", "same", "meanwhile"]).await;
    engine.container_stops();
    engine.container_starts();
    engine.says(&["anew"]);
    until(&words, &["INFO model loaded", "job 1 started", "same", "same", "meanwhile", "anew"]).await;
    task.abort();
}

#[tokio::test]
async fn the_last_words_of_a_container_that_has_ended_are_heard_and_tell_of_its_trouble() {
    let engine = Engine::start(false);
    engine.says(&["* visit https://hf.co/pyannote/segmentation-3.0 to accept user conditions"]);
    engine.container_stops();
    let words = Words::default();
    let task = follow(&config(&engine), words.clone()).unwrap();
    let found = tokio::time::timeout(Duration::from_secs(60), words.finding()).await.unwrap();
    assert_eq!(found.kind, FindingKind::Token);
    task.abort();
}
