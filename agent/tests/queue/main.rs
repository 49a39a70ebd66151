//! Queues through the real agent and the real things that keep them: each kind tells what is there, and
//! one that hangs, lies or dies takes nothing from its neighbours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of a test"
)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod servers;
mod under_way;

use common::{Agent, Kept, Node};
use diarwatch_agent::config::QUEUES_MAX;
use diarwatch_shared::reading::Missing;
use serde_json::{Value, json};
use servers::{Does, Postgres, Redis, Server};

/// A `[[queue]]` that is looked at often.
fn queue(name: &str, kind: &str) -> String {
    format!("[[queue]]\nname = \"{name}\"\ninterval = \"100ms\"\ntimeout = \"1s\"\n{kind}\n")
}

/// A node with these queues.
fn node(queues: &[String]) -> Node {
    let mut node = Node::new();
    node.more.push_str(&queues.concat());
    node
}

/// The queue of a name; a number that is missing is its reason, `{"missing": "failed"}`.
fn of(status: &Value, name: &str) -> Value {
    let queues = status["queues"].as_array().unwrap();
    let at = queues.iter().position(|queue| queue["queue"] == name).unwrap();
    let mut queue = queues[at].clone();
    for (key, value) in queue.as_object_mut().unwrap() {
        if let Some(why) = status["reasons"].get(format!("/queues/{at}/{key}")) {
            *value = json!({ "missing": why });
        }
    }
    queue
}

/// Waits until a queue's status is so.
#[track_caller]
fn until(agent: &Agent, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    agent.until(what, |status| {
        let queue = of(status, name);
        good(&queue).then_some(queue)
    })
}

/// Waits for a problem that has these words, and for all numbers to be gone with it.
#[track_caller]
fn until_problem(agent: &Agent, name: &str, words: &str, why: &str) {
    let what = format!("`{name}` says {words:?}");
    let queue = until(agent, name, &what, |queue| {
        queue["problem"].as_str().is_some_and(|problem| problem.contains(words))
    });
    let numbers = ["waiting", "processing", "oldest_seconds", "completed_per_minute", "drain_seconds"];
    for number in numbers {
        assert_eq!(queue[number], json!({ "missing": why }), "{number} of {queue:#}");
    }
    assert_eq!(queue["growing"], false);
}

const JOBS: &str = "CREATE TABLE jobs (id serial, state text, created timestamptz DEFAULT now(), finished timestamptz, \
                    took interval, audio numeric)";
const POSTGRES: &str = r#"
[queue.postgres]
connection_file = "DSN"
waiting = "SELECT count(*) FROM jobs WHERE state = 'queued'; -- all of them"
processing = "SELECT sum((state = 'processing')::int) FROM jobs"
oldest_seconds = "SELECT now() - min(created) FROM jobs WHERE state = 'queued'"
jobs = """SELECT finished AS finished_at, extract(epoch FROM took) AS seconds, audio AS audio_seconds,
  state = 'failed' AS failed FROM jobs WHERE finished > to_timestamp($1) -- new ones"""
"#;

/// A node that watches this database, with its address in a file.
fn on_postgres(postgres: &Postgres, kind: &str) -> Node {
    let mut node = Node::new();
    node.put("dsn", &postgres.connection());
    let dsn = node.path("dsn").display().to_string();
    node.more.push_str(&queue("diarization", &kind.replace("DSN", &dsn)));
    node
}

#[test]
fn a_database_tells_what_waits_what_is_worked_on_and_how_the_last_jobs_went() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(JOBS);
    postgres.sql("INSERT INTO jobs (state, created) SELECT 'queued', now() - interval '90 s' FROM generate_series(1, 3)");
    postgres.sql("INSERT INTO jobs (state) VALUES ('processing'), ('processing')");
    // Half an hour of jobs, one a minute, of which every third failed: a minute's audio took six seconds.
    postgres.sql(
        "INSERT INTO jobs (state, finished, took, audio) SELECT CASE n % 3 WHEN 0 THEN 'failed' ELSE 'done' END, \
         now() - n * interval '60 s' + interval '5 s', n * interval '6 s', n * 60 FROM generate_series(1, 30) AS n",
    );
    let node = on_postgres(&postgres, POSTGRES);
    let agent = node.run();
    let queue = until(&agent, "diarization", "it is looked at", |queue| queue["waiting"] == 3.0);
    assert_eq!((&queue["source"], &queue["estimated"]), (&json!("postgres"), &json!(false)));
    assert_eq!((&queue["service"], &queue["processing"]), (&json!("diarization"), &json!(2.0)));
    assert!((90.0..200.0).contains(&queue["oldest_seconds"].as_f64().unwrap()), "{queue:#}");
    let jobs: Vec<f64> = (1..=30).filter(|n| n % 3 != 0).map(|n| f64::from(n) * 6.0).collect();
    assert_eq!(queue["job_mean_seconds"], jobs.iter().sum::<f64>() / 20.0);
    assert_eq!(queue["job_p95_seconds"], 28.0 * 6.0);
    assert_eq!(queue["job_seconds_per_audio_hour"], 360.0);
    // The table reaches back, so the rates are known at once.
    let rate = |key: &str| queue[key].as_f64().unwrap();
    assert!((0.5..0.8).contains(&rate("completed_per_minute")), "{queue:#}");
    assert!((0.2..0.45).contains(&rate("failed_per_minute")), "{queue:#}");
    // A job that ends is counted, one that became visible late too, and each once.
    postgres
        .sql("UPDATE jobs SET state = 'done', finished = now(), took = '1000 s' WHERE state = 'processing'");
    postgres
        .sql("INSERT INTO jobs (state, finished, took) VALUES ('done', now() - interval '5 s', '1000 s')");
    let mean = (jobs.iter().sum::<f64>() + 3000.0) / 23.0;
    let again =
        until(&agent, "diarization", "three more have ended", |queue| queue["job_mean_seconds"] == mean);
    assert_eq!((&again["processing"], &again["problem"]), (&json!(0.0), &Value::Null));
    drop(agent.stop());
    let mut kept = Kept::of(&node);
    assert!(kept.series("queue_waiting").iter().any(|(_, reading)| *reading == Ok(3.0)));
    assert!(kept.series("queue_up").iter().any(|(_, reading)| *reading == Ok(1.0)));
    let completed = kept.series("queue_completed_total").last().unwrap().1;
    // The late one may have ended before the agent started.
    assert!(completed == Ok(2.0) || completed == Ok(3.0), "since the agent started: {completed:?}");
}

#[test]
fn a_query_of_the_operators_cannot_change_the_database() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(JOBS);
    postgres.sql("INSERT INTO jobs (state) VALUES ('queued')");
    for (query, words) in [
        ("WITH gone AS (DELETE FROM jobs RETURNING 1) SELECT count(*) FROM gone", "read-only transaction"),
        ("SELECT nextval('jobs_id_seq')", "read-only transaction"),
        ("SELECT 1; DELETE FROM jobs", "multiple commands"),
    ] {
        let node = on_postgres(
            &postgres,
            &format!("[queue.postgres]\nconnection_file = \"DSN\"\nwaiting = \"{query}\""),
        );
        let agent = node.run();
        until_problem(&agent, "diarization", words, "failed");
        until_problem(&agent, "diarization", "`waiting`", "failed");
    }
    assert_eq!(postgres.sql("SELECT count(*), (SELECT last_value FROM jobs_id_seq) FROM jobs"), "1|1");
}

#[test]
fn what_a_query_gives_has_to_be_one_number() {
    let Some(postgres) = Postgres::start() else { return };
    let good = [
        ("SELECT 7::smallint", 7.0),
        ("SELECT 7::real", 7.0),
        ("SELECT 12345678901.25::numeric", 12_345_678_901.25),
        ("SELECT 0.0001::numeric", 0.0001),
        ("SELECT '7 '::text", 7.0),
        ("SELECT '7'", 7.0),
        ("SELECT sum(1) WHERE false", 0.0),
    ];
    let bad = [
        ("SELECT 1 WHERE false", "no row"),
        ("SELECT 1 UNION SELECT 2", "unexpected number of rows"),
        ("SELECT 1, 2", "2 columns"),
        ("SELECT -1", "below 0"),
        ("SELECT 'NaN'::numeric", "NaN"),
        ("SELECT 'infinity'::float8", "inf"),
        ("SELECT 'many'", "no number"),
        ("SELECT '{}'::json", "json"),
        ("SELECT count(*) FROM jbos", "jbos"),
        ("SELECT repeat('1', 2000000)", "larger than 1048576 bytes"),
        ("SELECT pg_sleep(60), 1", "statement timeout"),
    ];
    // As many at once as an agent watches.
    let watch = |queries: &[&str]| {
        let mut node = Node::new();
        node.put("dsn", &postgres.connection());
        for (at, sql) in queries.iter().enumerate() {
            let kind = format!(
                "[queue.postgres]\nconnection_file = {:?}\nwaiting = {sql:?}",
                node.path("dsn").display().to_string()
            );
            node.more.push_str(&queue(&format!("q{at}"), &kind));
        }
        node
    };
    for some in good.chunks(QUEUES_MAX) {
        let node = watch(&some.iter().map(|(sql, _)| *sql).collect::<Vec<_>>());
        let agent = node.run();
        for (at, (sql, number)) in some.iter().enumerate() {
            until(&agent, &format!("q{at}"), sql, |queue| queue["waiting"] == *number);
        }
    }
    for some in bad.chunks(QUEUES_MAX) {
        let node = watch(&some.iter().map(|(sql, _)| *sql).collect::<Vec<_>>());
        let agent = node.run();
        for (at, (_, words)) in some.iter().enumerate() {
            until_problem(&agent, &format!("q{at}"), words, "failed");
        }
    }
}

#[test]
fn a_locked_table_costs_its_own_queue_only_and_piles_nothing_up_in_the_database() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(JOBS);
    postgres.sql("INSERT INTO jobs (state) VALUES ('queued')");
    let neighbour = Server::start(Does::ok(r#"{"waiting":5}"#));
    let http =
        format!("[queue.http]\nurl = \"{}\"\nformat = \"json\"\nwaiting = \"/waiting\"", neighbour.url());
    let mut node = on_postgres(&postgres, POSTGRES);
    node.more.push_str(&queue("neighbour", &http));
    let agent = node.run();
    until(&agent, "diarization", "the table is read", |queue| queue["waiting"] == 1.0);
    let lock = postgres.session("BEGIN; LOCK TABLE jobs;");
    until_problem(&agent, "diarization", "statement timeout", "failed");
    let before = neighbour.accepted();
    until(&agent, "neighbour", "its neighbour is looked at", |queue| {
        queue["waiting"] == 5.0 && neighbour.accepted() >= before + 20
    });
    until_problem(&agent, "diarization", "statement timeout", "failed");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'diarwatch-agent'";
    assert!(postgres.sql(sessions).parse::<u32>().unwrap() <= 2);
    drop(lock);
    until(&agent, "diarization", "the table is read again", |queue| queue["waiting"] == 1.0);
}

#[test]
fn a_server_that_dies_is_a_problem_until_it_is_back() {
    let (Some(mut postgres), Some(mut redis)) = (Postgres::start(), Redis::start()) else { return };
    postgres.sql(JOBS);
    redis.tell("RPUSH jobs a b");
    let mut node = on_postgres(&postgres, POSTGRES);
    node.put("url", &redis.url());
    let kind =
        format!("[queue.redis]\nurl_file = {:?}\nlist = \"jobs\"", node.path("url").display().to_string());
    node.more.push_str(&queue("list", &kind));
    let agent = node.run();
    until(&agent, "list", "Redis is read", |queue| queue["waiting"] == 2.0);
    until(&agent, "diarization", "PostgreSQL is read", |queue| queue["waiting"] == 0.0);
    postgres.kill();
    redis.kill();
    until_problem(&agent, "diarization", ".s.PGSQL.5432", "failed");
    until_problem(&agent, "list", "redis.sock", "failed");
    let up = |agent: &Agent| agent.status()["queues"].as_array().unwrap().len();
    assert_eq!(up(&agent), 2, "a queue whose source is gone is still there");
    redis.run();
    redis.tell("RPUSH jobs a b c");
    postgres.run();
    until(&agent, "list", "Redis is back", |queue| queue["waiting"] == 3.0 && queue["problem"].is_null());
    until(&agent, "diarization", "PostgreSQL is back", |queue| {
        queue["waiting"] == 0.0 && queue["problem"].is_null()
    });
    let (_, log) = agent.stop();
    for (queue, words) in
        [("list", "gives nothing"), ("list", "answers again"), ("diarization", "gives nothing")]
    {
        let said = log.lines().filter(|line| line.contains(words) && line.contains(queue)).count();
        assert_eq!(said, 1, "{words} of {queue}: {log}");
    }
    assert!(!log.contains("hunter2"), "no password in the log: {log}");
    let mut kept = Kept::of(&node);
    assert!(kept.series("queue_up").iter().any(|(_, reading)| *reading == Ok(0.0)));
    assert!(kept.series("queue_waiting").iter().any(|(_, reading)| *reading == Err(Missing::Failed)));
}

#[test]
fn redis_tells_of_lists_streams_and_counters() {
    let Some(redis) = Redis::start() else { return };
    for command in ["RPUSH jobs a b c", "RPUSH busy a", "SET done 41", "INCR done", "SET text abc"] {
        redis.tell(command);
    }
    redis.tell("XGROUP CREATE stream gpu $ MKSTREAM");
    for _ in 0..5 {
        redis.tell("XADD stream * job x");
    }
    redis.tell("XREADGROUP GROUP gpu one COUNT 2 STREAMS stream >");
    let mut node = Node::new();
    node.put("url", &redis.url());
    let url = format!("[queue.redis]\nurl_file = {:?}\n", node.path("url").display().to_string());
    let kinds = [
        (
            "list",
            "list = \"jobs\"\nprocessing_list = \"busy\"\ncompleted_key = \"done\"\nfailed_key = \"none\"",
        ),
        ("stream", "stream = \"stream\"\ngroup = \"gpu\""),
        ("wrong", "list = \"stream\""),
        ("group", "stream = \"stream\"\ngroup = \"cpu\""),
    ];
    for (name, kind) in kinds {
        node.more.push_str(&queue(name, &format!("{url}{kind}")));
    }
    let agent = node.run();
    let list = until(&agent, "list", "the list is read", |queue| queue["waiting"] == 3.0);
    assert_eq!((&list["processing"], &list["source"]), (&json!(1.0), &json!("redis")));
    assert_eq!(list["oldest_seconds"], json!({ "missing": "not_supported" }), "a list has no times");
    assert_eq!(list["completed_per_minute"], json!({ "missing": "not_yet" }));
    let stream = until(&agent, "stream", "the stream is read", |queue| queue["waiting"] == 3.0);
    assert_eq!(stream["processing"], 2.0);
    assert!(stream["oldest_seconds"].as_f64().is_some_and(|age| age < 100.0), "{stream:#}");
    assert_eq!(stream["completed_per_minute"], json!({ "missing": "not_supported" }));
    until_problem(&agent, "wrong", "WRONGTYPE", "failed");
    until_problem(&agent, "group", "no group `cpu`", "failed");
    redis.tell("LPOP jobs");
    redis.tell("INCR done");
    redis.tell("XREADGROUP GROUP gpu one STREAMS stream >");
    until(&agent, "list", "the list is shorter", |queue| queue["waiting"] == 2.0);
    let drained = until(&agent, "stream", "all are worked on", |queue| queue["processing"] == 5.0);
    assert_eq!((&drained["waiting"], &drained["oldest_seconds"]), (&json!(0.0), &json!(0.0)));
    drop(agent.stop());
    let mut kept = Kept::of(&node);
    assert!(
        kept.series("queue_completed_total").iter().any(|(_, reading)| *reading == Ok(1.0)),
        "since the start"
    );
}

#[test]
fn a_service_tells_its_queue_as_json_or_as_metrics() {
    let body = r#"{"queue":{"waiting":4,"oldest":null},"busy":"1","mean":12.5,"p95":30}"#;
    let metrics = "# TYPE jobs gauge\njobs{state=\"waiting\",host=\"a\"} 2\njobs{state=\"waiting\",host=\"b\"} 3\njobs{state=\"busy\"} 1\n";
    let (json_server, metrics_server) = (Server::start(Does::ok(body)), Server::start(Does::ok(metrics)));
    let json_kind = format!(
        "service = \"pyannote\"\n[queue.http]\nurl = \"{}\"\nformat = \"json\"\nwaiting = \"/queue/waiting\"\noldest_seconds = \
         \"/queue/oldest\"\nprocessing = \"/busy\"\nmean_seconds = \"/mean\"\np95_seconds = \"/p95\"",
        json_server.url()
    );
    let metrics_kind = format!(
        "[queue.http]\nurl = \"{}\"\nformat = \"openmetrics\"\nwaiting = 'jobs{{state=\"waiting\"}}'\nprocessing = 'jobs{{state=\"busy\"}}'",
        metrics_server.url()
    );
    let node = node(&[queue("json", &json_kind), queue("metrics", &metrics_kind)]);
    let agent = node.run();
    let first = until(&agent, "json", "the document is read", |queue| queue["waiting"] == 4.0);
    assert_eq!((&first["processing"], &first["oldest_seconds"]), (&json!(1.0), &json!(0.0)));
    assert_eq!((&first["job_mean_seconds"], &first["job_p95_seconds"]), (&json!(12.5), &json!(30.0)));
    assert_eq!((&first["service"], &first["source"]), (&json!("pyannote"), &json!("http")));
    until(&agent, "metrics", "the metrics are read", |queue| {
        queue["waiting"] == 5.0 && queue["processing"] == 1.0
    });
    let elsewhere = Server::start(Does::ok(body));
    let huge = format!("{{\"queue\":{{\"waiting\":1}},\"rest\":\"{}\"}}", " ".repeat(2 << 20));
    let bad = [
        (Does::says("503 Service Unavailable", body), "status 503"),
        (Does::says(&format!("302 Found\r\nlocation: {}", elsewhere.url()), ""), "status 302"),
        (Does::ok("<html>"), "not JSON"),
        (Does::ok(&body.replace('4', "-4")), "below 0"),
        (Does::ok(&body.replace('4', "\"NaN\"")), "NaN"),
        (Does::ok(&body.replace('4', "1e300")), "no figure of a queue"),
        (Does::ok(&body.replace("waiting", "wating")), "`/queue/waiting`"),
        (Does::ok(&huge), "larger than 1048576 bytes"),
    ];
    for (does, words) in bad {
        json_server.now(does);
        until_problem(&agent, "json", words, "failed");
    }
    assert_eq!(elsewhere.accepted(), 0, "a redirect is not followed");
    json_server.now(Does::ok(body));
    until(&agent, "json", "the document is read again", |queue| queue["waiting"] == 4.0);
    until(&agent, "metrics", "the neighbour never stopped", |queue| queue["waiting"] == 5.0);
}
