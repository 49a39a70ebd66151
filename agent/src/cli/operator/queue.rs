//! `diarwatch queue`: what waits, what is worked on, how fast it goes. Takes the status document; gives
//! rows. Numbers that are worked out from lines of a log say so (推定).

use diarwatch_shared::exit::Exit;
use diarwatch_shared::texts::{Lang, Text};
use serde_json::json;

use super::answer::{Answer, show};
use super::common::Common;
use super::output::{Cell, Column, Table};
use super::paint::Level;
use super::values::{Place, count, span, tenths};

const COLUMNS: &[Column] = &[
    Column::new("queue", Text::Queue),
    Column::new("service", Text::Service).wide(),
    Column::new("source", Text::Source).wide(),
    Column::number("waiting", Text::QueueWaiting),
    Column::number("processing", Text::QueueProcessing),
    Column::number("oldest_seconds", Text::QueueOldest),
    Column::number("completed_per_minute", Text::PerMinute),
    Column::number("failed_per_minute", Text::FailedPerMinute).wide(),
    Column::number("job_mean_seconds", Text::JobMean),
    Column::number("job_p95_seconds", Text::JobP95).wide(),
    Column::number("job_seconds_per_audio_hour", Text::PerAudioHour).wide(),
    Column::number("drain_seconds", Text::DrainsIn),
    Column::new("state", Text::State),
    Column::machine("estimated"),
    Column::machine("growing"),
    Column::machine("ended_total"),
    Column::machine("under_way"),
    Column::machine("seen_us"),
    Column::new("problem", Text::Problem).rest(),
];

/// Runs the command.
pub(super) fn run(common: &Common) -> Exit {
    show(common, || {
        let document = common.ask(&json!({ "ask": "status" }))?;
        let root = Place::root(&document);
        let lang = common.lang();
        let rows = table(&root.items("queues"), lang);
        let document = rows.to_document("queues", &[("node", root.get("node").clone())], "queues");
        Ok(Answer::list(document, rows, Text::NoQueues.in_lang(lang)))
    })
}

fn table(queues: &[Place], lang: Lang) -> Table {
    let mut table = Table::new("queue", lang, COLUMNS);
    for queue in queues {
        let (word, level, text) = state(queue);
        let mark =
            if queue.get("estimated").as_bool() == Some(true) { Text::Estimated.in_lang(lang) } else { "" };
        table.push(vec![
            queue.word("queue"),
            queue.word("service"),
            queue.word("source"),
            queue.cell("waiting", count),
            queue.cell("processing", count),
            queue.cell("oldest_seconds", span),
            queue.cell("completed_per_minute", tenths),
            queue.cell("failed_per_minute", tenths),
            queue.cell("job_mean_seconds", span),
            queue.cell("job_p95_seconds", span),
            queue.cell("job_seconds_per_audio_hour", span),
            queue.cell("drain_seconds", span),
            Cell::state(word, level, format!("{} {mark}", text.in_lang(lang)).trim_end()),
            queue.word("estimated"),
            queue.word("growing"),
            queue.word("ended_total"),
            queue.word("under_way"),
            queue.word("seen_us"),
            queue.word("problem"),
        ]);
    }
    table
}

/// How well a queue is: a word for machines, a level, a word for people.
pub(super) fn state(queue: &Place) -> (&'static str, Level, Text) {
    if queue.text("problem").is_some() {
        ("no_answer", Level::Warning, Text::NoData)
    } else if queue.get("growing").as_bool() == Some(true) {
        ("growing", Level::Warning, Text::Growing)
    } else if queue.get("seen_us").is_null() {
        ("not_yet", Level::Unknown, Text::Unknown)
    } else {
        ("ok", Level::Ok, Text::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::finish;
    use super::*;

    #[test]
    fn an_estimate_says_so_and_a_queue_that_does_not_drain_has_no_time_of_that() {
        let document = json!({
            "queues": [{ "queue": "jobs", "waiting": 3.0, "processing": 2.0, "drain_seconds": null, "estimated": true,
                "growing": true, "seen_us": 1, "problem": null }],
            "reasons": { "/queues/0/drain_seconds": "not_supported" }
        });
        let rows = table(&Place::root(&document).items("queues"), Lang::Ja);
        let text = finish(&rows.to_text(false, None), false);
        assert!(text.contains("▲ 増加中 推定"), "{text}");
        assert_eq!(rows.to_documents()[0]["reasons"]["/drain_seconds"], "not_supported");
    }
    #[test]
    fn what_the_queue_stage_tells_fits_the_schemas() {
        use super::super::schema;
        use crate::queue::{QueueStatus, UnderWay};
        use crate::status::{Number, with_reasons};
        use diarwatch_shared::clock::UnixMicros;
        use diarwatch_shared::reading::Missing;

        let (known, none) = (|| Number::from(Ok(2.0)), || Number::from(Err(Missing::NotSupported)));
        let status = QueueStatus {
            queue: "jobs".into(),
            service: "pyannote".into(),
            source: "log",
            estimated: true,
            waiting: known(),
            processing: known(),
            oldest_seconds: none(),
            completed_per_minute: known(),
            failed_per_minute: none(),
            job_mean_seconds: known(),
            job_p95_seconds: none(),
            job_seconds_per_audio_hour: none(),
            drain_seconds: none(),
            growing: false,
            completed_total: 3,
            ended_total: 3,
            under_way: vec![
                UnderWay {
                    id: Some("7".into()),
                    since: UnixMicros(1),
                    started: Some(UnixMicros(2)),
                    audio_seconds: Some(1.5),
                },
                UnderWay { id: None, since: UnixMicros(1), started: None, audio_seconds: None },
            ],
            problem: None,
            seen: None,
        };
        let document = with_reasons(&json!({ "node": "n", "queues": [status] })).unwrap();
        let hold = |schema: &serde_json::Value, document: &serde_json::Value| {
            let faults: Vec<String> = jsonschema::validator_for(schema)
                .unwrap()
                .iter_errors(document)
                .map(|fault| fault.to_string())
                .collect();
            assert!(faults.is_empty(), "{faults:?} in {document:#}");
        };
        let parse =
            |kind: &str| serde_json::from_str::<serde_json::Value>(schema::of(kind).unwrap()).unwrap();
        hold(&parse("status")["properties"]["queues"], &document["queues"]);
        let rows = table(&Place::root(&document).items("queues"), Lang::En);
        hold(&parse("queue"), &rows.to_documents()[0]);
        hold(&parse("queues"), &rows.to_document("queues", &[("node", "n".into())], "queues"));
    }
}
