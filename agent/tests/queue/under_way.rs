//! Jobs under way of a database: told with their ids, and given back by a hook's statement.

use std::path::Path;

use diarwatch_agent::config::worker::hook::Hook;
use diarwatch_agent::hook;
use diarwatch_shared::config::parse;
use diarwatch_shared::node::WorkerId;
use serde_json::{Value, json};

use super::servers::Postgres;
use super::{on_postgres, until, until_problem};

const TABLE: &str = "CREATE TABLE jobs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), number int, state text, \
    created timestamptz DEFAULT now(), started timestamptz, audio numeric)";
const UNDER_WAY: &str = r#"
[queue.postgres]
connection_file = "DSN"
waiting = "SELECT count(*) FROM jobs WHERE state = 'queued'"
completed_total = "SELECT count(*) FROM jobs WHERE state = 'done'"
under_way = """SELECT id, number, created AS since, started, audio AS audio_seconds FROM jobs
  WHERE state IN ('queued', 'processing') -- all"""
"#;

#[test]
fn jobs_under_way_are_told_those_that_are_worked_on_first() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(TABLE);
    postgres.sql("INSERT INTO jobs (number, state, created) SELECT n, 'queued', now() - n * interval '1 s' FROM generate_series(1, 150) n");
    postgres.sql("INSERT INTO jobs (number, state, created, started, audio) VALUES (0, 'processing', now(), now(), 12.5)");
    let node = on_postgres(&postgres, UNDER_WAY);
    let agent = node.run();
    let queue = until(&agent, "diarization", "it is looked at", |queue| queue["waiting"] == 150.0);
    let jobs = queue["under_way"].as_array().unwrap();
    assert_eq!(jobs.len(), 100);
    assert_eq!(jobs[0]["id"], postgres.sql("SELECT id FROM jobs WHERE number = 0"));
    assert_eq!(jobs[0]["audio_seconds"], 12.5);
    assert!(jobs[0]["started_us"].as_u64().unwrap() >= jobs[0]["since_us"].as_u64().unwrap());
    assert_eq!(
        jobs[1]["id"],
        postgres.sql("SELECT id FROM jobs WHERE number = 150"),
        "the oldest that waits"
    );
    assert_eq!((&jobs[1]["started_us"], &jobs[1]["audio_seconds"]), (&Value::Null, &Value::Null));
    assert_eq!(queue["ended_total"], 0);
    postgres.sql("UPDATE jobs SET state = 'done' WHERE number <= 120");
    let queue = until(&agent, "diarization", "jobs end", |queue| queue["ended_total"] == 121);
    assert_eq!(queue["under_way"].as_array().unwrap().len(), 30);
}

#[test]
fn a_query_that_does_not_say_since_when_is_a_problem_with_its_name() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(TABLE);
    let node = on_postgres(&postgres, &UNDER_WAY.replace("created AS since, ", ""));
    let agent = node.run();
    until_problem(&agent, "diarization", "`under_way`: column \"since\" does not exist", "failed");
}

#[tokio::test]
async fn a_statement_gives_a_job_back_whatever_the_type_of_its_id() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(TABLE);
    postgres.sql("INSERT INTO jobs (number, state) SELECT n, 'processing' FROM generate_series(1, 3) n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dsn");
    std::fs::write(&file, postgres.connection()).unwrap();
    let hook = |sql: &str| -> Hook {
        let text =
            format!("sql = {sql:?}\npostgres = {{ connection_file = {:?} }}", file.display().to_string());
        parse(Path::new("agent.toml"), &text).unwrap()
    };
    let worker = WorkerId::new("pyannote-1").unwrap();
    let count = || postgres.sql("SELECT count(*) FROM jobs WHERE state = 'queued'");
    let id = postgres.sql("SELECT id FROM jobs WHERE number = 1");
    let by_id = hook("UPDATE jobs SET state = 'queued' WHERE id = $1 AND state = 'processing'");
    assert_eq!(hook::run(&by_id, &worker, Some(&id)).await.unwrap(), "1 row");
    assert_eq!(count(), "1");
    let again = hook::run(&by_id, &worker, Some(&id)).await.unwrap_err();
    assert!(again.contains("changed no row"), "{again}");
    let by_number = hook("UPDATE jobs SET state = 'queued' WHERE number >= $1");
    assert_eq!(hook::run(&by_number, &worker, Some("2")).await.unwrap(), "2 rows");
    for evil in ["x'; DROP TABLE jobs; --", "1 OR true", ""] {
        let refused = hook::run(&by_number, &worker, Some(evil)).await.unwrap_err();
        assert!(refused.contains("invalid input syntax for type integer"), "{refused}");
    }
    let by_worker = hook("UPDATE jobs SET state = $1 WHERE number = 3");
    hook::run(&by_worker, &worker, None).await.unwrap();
    assert_eq!(postgres.sql("SELECT state FROM jobs WHERE number = 3"), json!("pyannote-1"));
    let plain = hook("DELETE FROM jobs WHERE number = 3");
    assert_eq!(hook::run(&plain, &worker, None).await.unwrap(), "1 row");
    let two = hook::run(&hook("SELECT $1::text, $2::text"), &worker, None).await.unwrap_err();
    assert!(two.contains("2 parameters"), "{two}");
    let mut slow = hook("SELECT pg_sleep(600)");
    slow.timeout = diarwatch_shared::quantity::Span::millis(300);
    let late = hook::run(&slow, &worker, None).await.unwrap_err();
    assert!(late.contains("not done within 0.3 s") || late.contains("statement timeout"), "{late}");
}
