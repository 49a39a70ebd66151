//! Hooks through real programs and a real HTTP server; those of SQL are in `agent/tests/queue`.

use std::path::Path;

use diarwatch_shared::config::parse;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn hook(text: &str) -> Hook {
    parse(Path::new("agent.toml"), text).unwrap()
}

fn worker() -> WorkerId {
    WorkerId::new("pyannote-1").unwrap()
}

fn shell(script: &str, more: &str) -> Hook {
    hook(&format!(
        "command = [\"/bin/sh\", \"-c\", {script:?}, \"hook\", \"{{worker}}\", \"{{job}}\"]\n{more}"
    ))
}

#[tokio::test]
async fn a_program_gets_the_names_as_arguments_and_no_shell_sees_them() {
    let told = run(&shell("echo \"$# $1 $2\"", ""), &worker(), Some("a b; touch /x $(id) {worker}")).await;
    assert_eq!(told.unwrap(), "2 pyannote-1 a b; touch /x $(id) {worker}");
}

#[tokio::test]
async fn a_program_that_fails_is_quoted_without_secrets() {
    let script = "echo out; echo 'password=hunter2 refused' >&2; exit 3";
    let problem = run(&shell(script, ""), &worker(), None).await.unwrap_err();
    assert!(problem.contains("exit status: 3") && problem.contains("refused out"), "{problem}");
    assert!(!problem.contains("hunter2"), "{problem}");
    let problem = run(&hook("command = [\"/no/such\"]"), &worker(), None).await.unwrap_err();
    assert!(problem.contains("run `/no/such`"), "{problem}");
}

#[tokio::test]
async fn a_program_without_end_is_killed_with_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("sleep 600 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", pids.display());
    // It may have been killed before it began.
    let mut found = None;
    while found.is_none() {
        let problem = run(&shell(&script, "timeout = \"1s\""), &worker(), None).await.unwrap_err();
        assert!(problem.contains("not done within 1 s; it was killed"), "{problem}");
        found = std::fs::read_to_string(&pids).ok();
    }
    for pid in found.unwrap().split_whitespace() {
        let pid: u32 = pid.parse().unwrap();
        while crate::restart::processes::stat(pid).is_some_and(|stat| stat.lives()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_floods_and_leaves_something_behind_is_done_when_it_ends() {
    let script = "sleep 600 & head -c 3000000 /dev/zero | tr '\\0' x; exit 0";
    let told = run(&shell(script, "timeout = \"1m\""), &worker(), None).await.unwrap();
    assert!(told.len() <= 512, "{} bytes", told.len());
}

/// Answers one request after it was read whole; gives what was read.
async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
            if body.is_some_and(|body| body >= length.unwrap_or(0)) {
                break;
            }
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(read).unwrap()
    });
    (address, served)
}

const DONE: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 6\r\n\r\nqueued";

#[tokio::test]
async fn a_call_carries_the_names_escaped_for_where_they_stand() {
    let (address, served) = server(DONE).await;
    let hook = hook(&format!(
        "url = \"http://{address}/jobs/{{job}}/requeue?by={{worker}}\"\nmethod = \"PUT\"\nbody = '{{\"id\":\"{{job}}\",\"n\":{{}}}}'"
    ));
    let told = run(&hook, &worker(), Some("議/\"1\"?x=../")).await.unwrap();
    assert_eq!(told, "202 Accepted: queued");
    let request = served.await.unwrap();
    assert!(
        request.starts_with("PUT /jobs/%E8%AD%B0%2F%221%22%3Fx%3D..%2F/requeue?by=pyannote-1 HTTP/1.1"),
        "{request}"
    );
    assert!(request.ends_with("{\"id\":\"議/\\\"1\\\"?x=../\",\"n\":{}}"), "{request}");
}

#[tokio::test]
async fn a_call_without_a_body_of_its_own_carries_both_names() {
    let (address, served) = server(DONE).await;
    let hook = hook(&format!("url = \"http://{address}/\""));
    run(&hook, &worker(), Some("7")).await.unwrap();
    let request = served.await.unwrap();
    assert!(
        request.starts_with("POST / ") && request.to_lowercase().contains("content-type: application/json")
    );
    assert!(request.ends_with("{\"job\":\"7\",\"worker\":\"pyannote-1\"}"), "{request}");
}

#[tokio::test]
async fn a_call_that_is_refused_or_hangs_comes_to_nothing_and_says_why() {
    let (address, _served) = server("HTTP/1.1 409 Conflict\r\ncontent-length: 4\r\n\r\ngone").await;
    let refused =
        run(&hook(&format!("url = \"http://{address}/?key=s3cret\"")), &worker(), None).await.unwrap_err();
    assert!(refused.contains("409 Conflict: gone") && !refused.contains("s3cret"), "{refused}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"http://{}/\"\ntimeout = \"100ms\"", silent.local_addr().unwrap());
    let late = run(&hook(&url), &worker(), None).await.unwrap_err();
    assert!(late.contains("not done within 0.1 s"), "{late}");
    let wrong = run(&hook(&format!("{url}\nmethod = \"GE T\"")), &worker(), None).await.unwrap_err();
    assert!(wrong.contains("no method of HTTP"), "{wrong}");
}

proptest! {
    #[test]
    fn a_name_is_put_in_whole_wherever_it_stands(job in "\\PC{0,20}", text in "[a-z{}]{0,12}") {
        let names = Names { worker: "w", job: &job };
        let body = names.fill("{\"id\":\"{job}\"}", in_json);
        prop_assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({ "id": job }));
        let address = names.fill("http://h/{job}", percent);
        prop_assert!(address.is_ascii() && !address.contains(['?', '#', ' ']));
        let plain = text.replace("{job}", "").replace("{worker}", "");
        prop_assert_eq!(names.fill(&plain, str::to_owned), plain);
    }
}
